//! Stores that hang, lie, refuse, lose answers and fail in the middle: nothing half-written is ever shown, and the reason is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup::stores::{Destination, Patience, Store, open_with};
use futures::TryStreamExt;
use http::StatusCode;

use crate::server::{Fault, S3Server, Seen, impatience, patience, refusal};
use crate::suite::{content, ids, named, read, write};

const PART: usize = 8 << 20;

fn open(server: &S3Server, patience: Patience) -> Box<dyn Store> {
    open_with(&Destination::S3(server.settings()), &|_| None, patience).unwrap()
}

/// Goes wrong so the first so many times.
fn first(
    times: usize,
    fault: Fault,
    matches: impl Fn(&Seen) -> bool + Send + 'static,
) -> impl FnMut(&Seen) -> Option<Fault> + Send + 'static {
    let mut left = times;
    move |seen| {
        if left == 0 || !matches(seen) {
            return None;
        }
        left -= 1;
        Some(fault.clone())
    }
}

fn part(number: usize) -> impl Fn(&Seen) -> bool {
    move |seen| {
        seen.method == "PUT"
            && seen
                .query
                .split('&')
                .any(|pair| pair == format!("partNumber={number}"))
    }
}

#[tokio::test]
async fn part_7_of_9_fails_and_nothing_is_left() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    server.server.fault(first(
        usize::MAX,
        refusal(500, "InternalError", "Ask later."),
        part(7),
    ));
    let why = write(&*store, named(1), &content(8 * PART + 5))
        .await
        .unwrap_err();
    let text = why.to_string();
    assert!(
        text.starts_with("cannot write dc1/consul/consul-1.snap ("),
        "{text}"
    );
    assert!(text.contains("InternalError: Ask later."), "{text}");
    // Tried so often, taken back, and nothing of it is there.
    assert_eq!(server.server.count("PUT", "partNumber=7"), 4);
    assert_eq!(server.server.count("DELETE", "uploadId"), 1);
    assert_eq!(server.server.count("POST", "uploadId"), 0);
    assert_eq!(server.files(), (Vec::new(), Vec::new()));
    assert_eq!(ids(&*store).await, [0; 0]);
}

#[tokio::test]
async fn part_7_of_9_fails_twice_and_all_is_there() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    server
        .server
        .fault(first(2, refusal(503, "SlowDown", "Less."), part(7)));
    let whole = content(8 * PART + 5);
    write(&*store, named(1), &whole).await.unwrap();
    assert_eq!(server.server.count("PUT", "partNumber=7"), 3);
    assert!(read(&*store, named(1)).await.unwrap() == whole);
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    let server = S3Server::start().await;
    write(&*open(&server, patience()), named(1), b"there")
        .await
        .unwrap();
    let store = open(&server, impatience());
    let hang =
        |matches: fn(&Seen) -> bool| server.server.fault(first(usize::MAX, Fault::Hang, matches));
    hang(|seen| seen.is("PUT", "partNumber=2"));
    let mut told = vec![
        write(&*store, named(2), &content(3 * PART))
            .await
            .unwrap_err(),
    ];
    hang(|seen| seen.method == "PUT" && seen.query.is_empty());
    told.push(write(&*store, named(2), b"x").await.unwrap_err());
    hang(|seen| seen.is("POST", "uploads"));
    told.push(
        write(&*store, named(2), &content(2 * PART))
            .await
            .unwrap_err(),
    );
    hang(|seen| seen.is("GET", "list-type"));
    told.push(store.list().await.unwrap_err());
    hang(|seen| seen.is("GET", ""));
    told.push(store.get(named(1)).await.map(|_| ()).unwrap_err());
    hang(|seen| seen.is("DELETE", ""));
    told.push(store.remove(named(1)).await.unwrap_err());
    for why in told {
        let text = why.to_string();
        assert!(text.contains("the store was silent for 500ms"), "{text}");
    }
    // In the middle of an answer as well.
    server
        .server
        .fault(first(usize::MAX, Fault::Stall(2), |seen| {
            seen.is("GET", "")
        }));
    let content = store.get(named(1)).await.unwrap();
    let why = content.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(why.to_string().contains("silent"), "{why}");
    server.server.fault(|_| None);
    assert_eq!(ids(&*store).await, [1]);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_no_snapshot_that_was_lost() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    // The parts are joined, and nobody tells us.
    server
        .server
        .fault(first(1, Fault::Lose, |seen| seen.is("POST", "uploadId")));
    let whole = content(2 * PART);
    write(&*store, named(1), &whole).await.unwrap();
    assert!(read(&*store, named(1)).await.unwrap() == whole);
    server
        .server
        .fault(first(1, Fault::Lose, |seen| seen.is("PUT", "")));
    write(&*store, named(2), b"short").await.unwrap();
    assert_eq!(ids(&*store).await, [1, 2]);
    // Where it was not, it isn't there.
    server.server.fault(first(
        usize::MAX,
        refusal(500, "InternalError", "No."),
        |seen| seen.is("POST", "uploadId"),
    ));
    write(&*store, named(3), &whole).await.unwrap_err();
    assert_eq!(ids(&*store).await, [1, 2]);
}

#[tokio::test]
async fn reading_goes_on_where_it_broke_off() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    let whole = content(3 << 20);
    write(&*store, named(1), &whole).await.unwrap();
    server
        .server
        .fault(first(2, Fault::Cut(1 << 20), |seen| seen.is("GET", "")));
    assert!(read(&*store, named(1)).await.unwrap() == whole);
    let ranges: Vec<Option<String>> = (server.server.seen().iter())
        .filter(|seen| seen.method == "GET")
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 3);
    assert!(
        ranges[0].is_none() && ranges[1..].iter().all(Option::is_some),
        "{ranges:?}"
    );
    // Not for ever, and what is missing is not taken for the end.
    server
        .server
        .fault(first(usize::MAX, Fault::Cut(10), |seen| seen.is("GET", "")));
    assert!(read(&*store, named(1)).await.is_err());
}

#[tokio::test]
async fn lengths_are_not_believed() {
    let server = S3Server::start().await;
    let store = open(&server, impatience());
    write(&*store, named(1), b"0123456789").await.unwrap();
    // More was promised than comes, and less.
    for length in ["99999999999999", "3"] {
        server.server.fault(first(
            usize::MAX,
            Fault::Lie("content-length", length.into()),
            |seen| seen.is("GET", ""),
        ));
        let got = read(&*store, named(1)).await;
        assert!(
            got.as_ref().map_or(true, |got| got.len() == 3),
            "{length}: {got:?}"
        );
        assert_eq!(got.is_err(), length != "3");
    }
    // The store has kept less than it was sent: that is not a snapshot.
    for size in [10, 2 * PART] {
        server
            .server
            .fault(first(1, Fault::Lie("content-length", "7".into()), |seen| {
                seen.is("HEAD", "")
            }));
        let why = write(&*store, named(2), &content(size))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            why.ends_with(&format!("the store was sent {size} bytes and has 7")),
            "{why}"
        );
        assert_eq!(ids(&*store).await, [1]);
    }
    // Who may write need not be allowed to look.
    server.server.fault(first(
        usize::MAX,
        refusal(403, "AccessDenied", "No."),
        |seen| seen.is("HEAD", ""),
    ));
    write(&*store, named(2), b"x").await.unwrap();
    // An endless answer is not read to its end.
    let endless = Fault::Answer(StatusCode::OK, "x".repeat(9 << 20));
    server.server.fault(first(usize::MAX, endless, |seen| {
        seen.is("GET", "list-type")
    }));
    let why = store.list().await.unwrap_err().to_string();
    assert!(why.contains("longer than any that makes sense"), "{why}");
    // A note that grew.
    store.write_note(named(1), "{}".into()).await.unwrap();
    std::fs::write(
        server.objects().join("consul-1.snap.json"),
        vec![b' '; 70_000],
    )
    .unwrap();
    server.server.fault(|_| None);
    let why = store.read_note(named(1)).await.unwrap_err().to_string();
    assert!(
        why.contains("it has 70000 bytes, and notes have no more than 65536"),
        "{why}"
    );
}

#[tokio::test]
async fn a_listing_goes_on_at_the_page_that_failed() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    write(&*store, named(1), b"x").await.unwrap();
    let all: Vec<u64> = (10_000..12_500).collect();
    store.remove(named(1)).await.unwrap();
    for id in &all {
        let file = server.objects().join(named(*id).to_string());
        std::fs::write(file, b"x").unwrap();
    }
    assert_eq!(ids(&*store).await, all);
    assert_eq!(server.server.count("GET", "list-type"), 3);

    // The second page: refused, then broken off in the middle; once more each than one request is tried.
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pages);
    let is_second = |seen: &Seen| {
        seen.is("GET", "list-type")
            && (seen.query.contains("10999") || seen.query.contains("continuation"))
    };
    let mut refused = first(2, refusal(503, "SlowDown", "Less."), is_second);
    let mut cut = first(3, Fault::Cut(5_000), is_second);
    server.server.fault(move |seen| {
        counted.fetch_add(1, Ordering::Relaxed);
        refused(seen).or_else(|| cut(seen))
    });
    assert_eq!(ids(&*store).await, all);
    let first_pages = (server.server.seen().iter())
        .filter(|seen| seen.is("GET", "list-type") && !is_second(seen))
        .count();
    // Once for each of the two listings so far; and no more than a few for what failed.
    assert!(first_pages <= 3, "{first_pages}");
    assert_eq!(pages.load(Ordering::Relaxed), 3 + 5);

    // Bounded: a page that always fails ends it.
    server
        .server
        .fault(first(usize::MAX, Fault::Cut(5_000), is_second));
    store.list().await.unwrap_err();
}

#[tokio::test]
async fn what_stores_say_is_told_with_what_to_do() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    for (fault, expected) in [
        (
            refusal(403, "RequestTimeTooSkewed", "The difference is too large."),
            "the clock of this machine is off, so the store refuses its signatures; set the clock (the store says: The \
             difference is too large.)",
        ),
        (
            refusal(403, "AccessDenied", "Not you."),
            "AccessDenied: Not you.; check the credentials and what they are allowed to do",
        ),
        (
            refusal(404, "NoSuchBucket", "Gone."),
            "there is no such bucket; make it, or mend its name in the settings (the store says: Gone.)",
        ),
        (
            refusal(400, "ExpiredToken", "Too old."),
            "the session token is not or no longer valid; get new credentials (the store says: Too old.)",
        ),
        (
            refusal(301, "PermanentRedirect", "Elsewhere."),
            "the bucket is in another region; set its region",
        ),
        (
            refusal(400, "KMS.NotFoundException", "No key."),
            "the key of server-side encryption can't be used; check its id and what the credentials may do with it (the \
             store says: No key.)",
        ),
        (
            refusal(507, "XMinioStorageFull", "Full."),
            "the store is full; make room or keep fewer snapshots (the store says: Full.)",
        ),
    ] {
        server
            .server
            .fault(first(usize::MAX, fault, |seen| seen.method != "DELETE"));
        for size in [1, 2 * PART] {
            let why = write(&*store, named(1), &content(size)).await.unwrap_err();
            assert!(why.to_string().ends_with(expected), "{why}");
        }
    }
    server.server.fault(|_| None);
    assert_eq!(ids(&*store).await, [0; 0]);

    // Nobody listens, and nobody has such a name.
    let mut settings = server.settings();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    settings.endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = open_with(&Destination::S3(settings), &|_| None, impatience()).unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(why.contains("onnection refused"), "{why}");
}

#[tokio::test]
async fn an_upload_after_one_that_was_interrupted_goes_well() {
    let server = S3Server::start().await;
    let store = open(&server, patience());
    let mut upload = store.begin(named(1)).await.unwrap();
    upload.write(content(2 * PART)).await.unwrap();
    // The process dies: nobody takes anything back.
    drop(upload);
    drop(store);
    let store = open(&server, patience());
    assert_eq!(ids(&*store).await, [0; 0]);
    let whole = content(2 * PART + 1);
    write(&*store, named(2), &whole).await.unwrap();
    assert!(read(&*store, named(2)).await.unwrap() == whole);
    assert_eq!(ids(&*store).await, [2]);
}
