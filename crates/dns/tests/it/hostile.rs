//! Whatever is sent: an answer within its bounds, or none.

use std::time::Duration;

use dns::Config;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::catalog::Catalog;
use crate::client::{Face, over_udp, read_framed};

const WORDS: [&[u8]; 26] = [
    b"service",
    b"node",
    b"query",
    b"addr",
    b"consul",
    b"web",
    b"WEB",
    b"foo",
    b"long",
    b"dc1",
    b"dc9",
    b"_web",
    b"_tcp",
    b"_v1",
    b"v1",
    b"in-addr",
    b"ip6",
    b"arpa",
    b"1",
    b"0",
    b"10",
    b"0a000001",
    b"com",
    b"\xff\x00.",
    b"",
    b"ns",
];

fn catalog() -> Catalog {
    let catalog = Catalog::default();
    catalog
        .node("foo", "10.0.0.1")
        .node("bar", "2001:db8::1")
        .node("loop", "loop.node.consul");
    for n in 0..40 {
        let node = format!("{}-{n}", "long".repeat(13));
        catalog.node(&node, &format!("10.0.1.{n}"));
        catalog.service(&node, "web,v1", "", n).service(
            &node,
            "long",
            &format!("h{n}.node.consul"),
            n,
        );
        catalog.service("loop", "web", "", n);
    }
    catalog
}

/// A message that may be well formed.
fn message(chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![
        chance.random(),
        chance.random(),
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    for _ in 0..chance.random_range(0..8) {
        let word = WORDS[chance.random_range(0..WORDS.len())];
        bytes.push(u8::try_from(word.len()).unwrap());
        bytes.extend_from_slice(word);
    }
    if chance.random_ratio(4, 5) {
        bytes.extend_from_slice(b"\x06consul");
    }
    bytes.push(0);
    let kinds: [u16; 9] = [1, 28, 33, 255, 5, 6, 2, 16, 12];
    let kind = if chance.random_ratio(9, 10) {
        kinds[chance.random_range(0..9)]
    } else {
        chance.random()
    };
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, chance.random_range(0..4)]);
    if chance.random_ratio(1, 3) {
        bytes[11] = 1;
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&chance.random::<[u8; 2]>());
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
    }
    match chance.random_range(0..6) {
        0 => bytes.truncate(chance.random_range(0..bytes.len())),
        1 => {
            for _ in 0..chance.random_range(1..6) {
                let at = chance.random_range(0..bytes.len());
                bytes[at] = chance.random();
            }
        }
        2 => bytes.extend((0..chance.random_range(0..40)).map(|_| chance.random::<u8>())),
        _ => {}
    }
    bytes
}

/// What the asker takes at most.
fn limit(bytes: &[u8]) -> usize {
    let extension = bytes.windows(3).rposition(|it| it == [0, 0, 41]);
    match extension.and_then(|at| bytes.get(at + 3..at + 5)) {
        Some(size) => usize::from(u16::from_be_bytes([size[0], size[1]])).clamp(512, 1232),
        None => 512,
    }
}

#[tokio::test]
async fn ten_thousand_random_questions() {
    let config = Config {
        udp_answer_limit: 8,
        ..Config::default()
    };
    let face = Face::new(&catalog(), config);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(face.address).await.unwrap();
    let mut chance = StdRng::seed_from_u64(7);
    let mut answer = vec![0; 65_536];
    let mut answered = 0;
    for round in 0..10_000_u32 {
        let bytes = message(&mut chance);
        socket.send(&bytes).await.unwrap();
        // The one that always has an answer tells that the other was done with.
        let mut last = b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04done\x06consul\x00\x00\x01\x00\x01".to_vec();
        let id = 0x8000 | u16::try_from(round).unwrap();
        last[..2].copy_from_slice(&id.to_be_bytes());
        socket.send(&last).await.unwrap();
        loop {
            let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut answer));
            let length = received
                .await
                .unwrap_or_else(|_| panic!("no answer after {bytes:?}"))
                .unwrap();
            if answer[..2] == last[..2] && length > 12 && answer[12..17] == *b"\x04done" {
                break;
            }
            assert!(
                length >= 12 && length <= limit(&bytes),
                "{length} bytes to {bytes:?}"
            );
            assert_eq!(answer[..2], bytes[..2]);
            assert_eq!(answer[2] & 0x80, 0x80);
            answered += 1;
        }
    }
    assert!(answered > 8_000, "{answered}");
    face.stop().await;
}

#[tokio::test]
async fn refusals() {
    let face = Face::new(&Catalog::default(), Config::default());
    for (sent, expected) in [
        // no question
        (
            &b"\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"[..],
            &b"\x12\x34\x81\x02\x00\x00\x00\x00\x00\x00\x00\x00"[..],
        ),
        // another operation: a notification, an update
        (
            b"\x12\x34\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x12\x34\xa0\x04\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
        (
            b"\x12\x34\x28\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x12\x34\xa8\x04\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
        // a question that isn't there, and far too many
        (
            b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00",
            b"\x12\x34\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
        (
            b"\x12\x34\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00",
            b"\x12\x34\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
    ] {
        assert_eq!(over_udp(face.address, sent).await, expected, "{sent:?}");
    }
    // Another class is answered as if it were ours.
    let sent = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x080a000001\x04addr\x06consul\x00\x00\x01\x00\x03";
    let answer = over_udp(face.address, sent).await;
    assert_eq!(
        answer[..12],
        *b"\x12\x34\x85\x00\x00\x01\x00\x01\x00\x00\x00\x00"
    );
    assert_eq!(answer[12..sent.len()], sent[12..]);
    assert_eq!(
        answer[sent.len()..],
        *b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x0a\x00\x00\x01"
    );
    face.stop().await;
}

#[tokio::test]
async fn questions_in_a_row_over_one_connection() {
    let face = Face::new(&catalog(), Config::default());
    let mut stream = TcpStream::connect(face.address).await.unwrap();
    let mut chance = StdRng::seed_from_u64(8);
    let mut sent = Vec::new();
    let mut ids = Vec::new();
    while ids.len() < 200 {
        let mut question = message(&mut chance);
        question.truncate(300);
        if question.len() < 12 {
            continue;
        }
        question[2] = 1;
        ids.push([question[0], question[1]]);
        sent.extend_from_slice(&u16::try_from(question.len()).unwrap().to_be_bytes());
        sent.extend_from_slice(&question);
    }
    let (mut reading, mut writing) = stream.split();
    let write = async {
        // In pieces that end anywhere.
        for piece in sent.chunks(37) {
            writing.write_all(piece).await.unwrap();
        }
    };
    let read = async {
        for id in &ids {
            let length = reading.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(length)];
            reading.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer[..2], *id);
        }
    };
    tokio::join!(write, read);
    face.stop().await;
}

#[tokio::test]
async fn connections_that_are_no_good_end() {
    let face = Face::new(&catalog(), Config::default());
    // Too long to be a question; and an answer.
    for sent in [
        &b"\xff\xff"[..],
        b"\x00\x0c\x12\x34\x81\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ] {
        let mut stream = TcpStream::connect(face.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_u8());
        assert!(ended.await.unwrap().is_err());
    }
    face.stop().await;
}

#[tokio::test]
async fn a_source_has_so_many_connections() {
    let face = Face::new(&catalog(), Config::default());
    let mut open = Vec::new();
    for _ in 0..128 {
        open.push(TcpStream::connect(face.address).await.unwrap());
    }
    let mut further = TcpStream::connect(face.address).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), further.read_u8());
    assert!(ended.await.unwrap().is_err());
    // The others are served, and room comes back.
    let question = b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04\x6e\x6f\x6e\x65\x06consul\x00\x00\x01\x00\x01";
    let last = open.last_mut().unwrap();
    last.write_all(question).await.unwrap();
    read_framed(last).await;
    open.clear();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = TcpStream::connect(face.address).await.unwrap();
        let _ = stream.write_all(question).await;
        if stream.read_u16().await.is_ok() {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "room never came back"
        );
    }
    face.stop().await;
}
