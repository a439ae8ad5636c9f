//! `/v1` on top of the engine, from bytes to bytes: what neither shows alone.

use api::http::{Config, Engine};
use bytes::Bytes;
use model::{Answer, Command, Error, Reply};
use rpc::Meta;
use testkit::{Asked, Fake, FakeCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::given;

/// Everything that comes back for these bytes, until the connection is closed.
async fn talk(fake: &FakeCluster, pieces: &[&[u8]]) -> String {
    let service = api::service(fake.cluster(), given::agent(), api::Config::default());
    let engine = Engine::new(service, Config::default());
    // So small that neither head nor body comes through at once.
    let (mut ours, theirs) = tokio::io::duplex(64);
    let server = tokio::spawn(async move { engine.serve_stream(theirs, None).await });
    let (mut reading, mut writing) = tokio::io::split(&mut ours);
    let mut received = Vec::new();
    let send = async {
        for piece in pieces {
            // Whoever is refused early is not read to the end.
            if writing.write_all(piece).await.is_err() {
                return;
            }
        }
    };
    let (_, read) = tokio::join!(send, reading.read_to_end(&mut received));
    read.unwrap();
    server.await.unwrap();
    String::from_utf8(received).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_value_arrives_in_chunks_and_has_the_same_limit() {
    let fake = FakeCluster::new();
    fake.answer(Fake::Wait);
    fake.answer(Fake::Reply(Reply::Applied(true)));
    let head: &[u8] =
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = talk(&fake, &[head, b"3\r\nblu\r\n", b"1\r\ne\r\n", b"0\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\ntrue"), "{answer}");
    match fake.asked().as_slice() {
        [Asked::Write(Command::Kv(op), _)] => assert_eq!(op.value, "blue"),
        other => panic!("{other:?}"),
    }

    let chunk = [&b"40000\r\n"[..], &vec![b'x'; 0x40000], b"\r\n"].concat();
    let answer = talk(&fake, &[head, &chunk, &chunk, &chunk, b"0\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nValue exceeds 524288 byte limit"),
        "{answer}"
    );
    assert_eq!(fake.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_that_it_is_not_to_be_guessed_at() {
    let fake = FakeCluster::new();
    let answer = talk(
        &fake,
        &[b"GET /v1/kv/?x=%3Cb%3E HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_has_the_headers_alone() {
    let fake = FakeCluster::new();
    fake.answer(Fake::Answer(
        Answer::CatalogNodes(Vec::new()),
        Meta::default(),
    ));
    let answer = talk(
        &fake,
        &[b"HEAD /v1/catalog/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nX-Consul-Index: 0\r\n"), "{answer}");
    assert!(answer.contains("\r\nContent-Length: 2\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_streams_in_and_out() {
    let fake = FakeCluster::new();
    fake.answer(Fake::Restored(rpc::Restored::default()));
    let archive = vec![b'x'; 300_000];
    let head = format!(
        "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        archive.len()
    );
    let answer = talk(&fake, &[head.as_bytes(), &archive]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    match fake.asked().as_slice() {
        [Asked::Restore(_, Ok(read))] => assert_eq!(read.len(), archive.len()),
        other => panic!("{other:?}"),
    }

    // Refused before it was read: the answer comes all the same.
    fake.answer(Fake::Error(Error::PermissionDenied));
    let answer = talk(&fake, &[head.as_bytes(), &archive]).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(fake.asked().len(), 1);

    // Broken off by the client: the cluster must not take the half for the whole.
    fake.answer(Fake::Restored(rpc::Restored::default()));
    let service = api::service(fake.cluster(), given::agent(), api::Config::default());
    let engine = Engine::new(service, Config::default());
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(async move { engine.serve_stream(theirs, None).await });
    ours.write_all(head.as_bytes()).await.unwrap();
    ours.write_all(&archive[..1000]).await.unwrap();
    drop(ours);
    server.await.unwrap();
    match fake.asked().as_slice() {
        [Asked::Restore(_, Err(_))] => {}
        other => panic!("{other:?}"),
    }

    fake.answer(Fake::Save(
        Meta::default(),
        vec![Ok(Bytes::from(archive.clone()))],
    ));
    let answer = talk(
        &fake,
        &[b"GET /v1/snapshot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    )
    .await;
    assert!(
        answer.contains("\r\nContent-Type: application/x-gzip\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{answer}"
    );
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body.bytes().filter(|byte| *byte == b'x').count(),
        archive.len()
    );
}

#[tokio::test(start_paused = true)]
async fn large_bodies_wait_until_there_is_room_for_them() {
    let fake = FakeCluster::new();
    fake.answer(Fake::Reply(Reply::Applied(true)));
    fake.answer(Fake::Reply(Reply::Applied(true)));
    let config = api::Config {
        bodies_bytes_max: 64 * 1024,
        ..api::Config::default()
    };
    let service = api::service(fake.cluster(), given::agent(), config);
    let engine = Engine::new(service, Config::default());
    let head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n";
    let body = vec![b'x'; 40_000];

    let (mut first, theirs) = tokio::io::duplex(64 * 1024);
    let _first = tokio::spawn({
        let engine = std::sync::Arc::clone(&engine);
        async move { engine.serve_stream(theirs, None).await }
    });
    let (mut second, theirs) = tokio::io::duplex(64 * 1024);
    let _second = tokio::spawn(async move { engine.serve_stream(theirs, None).await });

    // The first takes the room and is in no hurry.
    let moment = std::time::Duration::from_secs(1);
    first.write_all(head).await.unwrap();
    tokio::time::sleep(moment).await;
    // A body that comes with its head is there already and takes no more room.
    second.write_all(head).await.unwrap();
    tokio::time::sleep(moment).await;
    second.write_all(&body).await.unwrap();
    let mut answer = [0; 12];
    let early = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        second.read_exact(&mut answer),
    )
    .await;
    assert!(
        early.is_err(),
        "the second was read although there was no room"
    );
    first.write_all(&body).await.unwrap();
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    second.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}
