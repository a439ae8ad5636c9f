//! The engine from the client's side: bytes in, bytes out, over a stream in memory and paused
//! time, and over real sockets where sockets matter.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

mod https;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::http::{
    Body, BodyError, Config, Engine, Listener, Reaction, Request, Response, Service, StatusCode,
    UnixSocketOptions,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, timeout};

/// Says what every path does; tests talk to it.
struct Subject {
    /// Parked requests are answered when this is true.
    gate: watch::Receiver<bool>,
    /// How many futures wait for it, and how many slow ones were carried through.
    waiting: Arc<AtomicUsize>,
    carried_through: Arc<AtomicUsize>,
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service for Subject {
    fn call(&self, mut request: Request) -> Reaction {
        let path = String::from_utf8_lossy(request.path()).into_owned();
        let query = request
            .query()
            .map(|query| String::from_utf8_lossy(query).into_owned());
        let size = query
            .as_deref()
            .and_then(|size| size.parse().ok())
            .unwrap_or(1000);
        match path.as_str() {
            // Answered at once, body or no body.
            "/now" => text(query.unwrap_or_default()).into(),
            "/size" => text(vec![b'x'; size]).into(),
            // The body, if it has at most so many bytes.
            "/echo" => Reaction::later(async move {
                match request.take_body().collect(size).await {
                    Ok(body) => text(body),
                    Err(BodyError::TooLarge) => {
                        Response::text(StatusCode::PAYLOAD_TOO_LARGE, "too large")
                    }
                    Err(error) => {
                        Response::text(StatusCode::BAD_REQUEST, format!("broken: {error}"))
                    }
                }
            }),
            // The length of the body, read piece by piece in a task of its own.
            "/count" => {
                let counting = tokio::spawn(count(request.into_body()));
                Reaction::later(async move { text(counting.await.unwrap()) })
            }
            "/park" => {
                let counted = Counted::new(&self.waiting);
                let gate = self.gate.clone();
                Reaction::park(async move {
                    opened(gate).await;
                    drop(counted);
                    text(query.unwrap_or_default())
                })
            }
            "/slow" => {
                let carried_through = Arc::clone(&self.carried_through);
                let counted = Counted::new(&self.waiting);
                let gate = self.gate.clone();
                Reaction::later(async move {
                    opened(gate).await;
                    drop(counted);
                    carried_through.fetch_add(1, Ordering::Relaxed);
                    text("slow")
                })
            }
            // As many bytes, in pieces.
            "/stream" => {
                let (sender, receiver) = mpsc::channel(1);
                tokio::spawn(async move {
                    for start in (0..size).step_by(100) {
                        let piece = vec![b'x'; (size - start).min(100)];
                        if sender
                            .send(Ok::<_, std::io::Error>(Bytes::from(piece)))
                            .await
                            .is_err()
                        {
                            return;
                        }
                        sender.send(Ok(Bytes::new())).await.ok();
                    }
                });
                Response::new(StatusCode::OK).with_channel(receiver).into()
            }
            "/stream-breaks" => {
                let (sender, receiver) = mpsc::channel(2);
                sender.try_send(Ok(Bytes::from("some"))).unwrap();
                sender.try_send(Err("the disk is gone")).unwrap();
                Response::new(StatusCode::OK).with_channel(receiver).into()
            }
            // A stream that waits, and counts as long as somebody listens.
            "/endless" => {
                let counted = Counted::new(&self.waiting);
                let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(1);
                tokio::spawn(async move {
                    sender.send(Ok(Bytes::from("first"))).await.ok();
                    sender.closed().await;
                    drop(counted);
                });
                Response::new(StatusCode::OK).with_channel(receiver).into()
            }
            "/empty" => Response::new(StatusCode::NO_CONTENT).into(),
            other => Response::text(StatusCode::NOT_FOUND, other.to_owned()).into(),
        }
    }
}

fn text(body: impl Into<Bytes>) -> Response {
    Response::text(StatusCode::OK, body)
}

async fn count(mut body: Body) -> String {
    let mut length = 0;
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => length += piece.len(),
            Err(error) => return format!("{length}, then {error}"),
        }
    }
    length.to_string()
}

async fn opened(mut gate: watch::Receiver<bool>) {
    gate.wait_for(|open| *open).await.unwrap();
}

/// The client's end of a connection, and what it shares with the other end.
struct Client<T> {
    stream: T,
    /// Received, but not looked at.
    input: Vec<u8>,
}

struct World {
    engine: Arc<Engine<Subject>>,
    gate: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    carried_through: Arc<AtomicUsize>,
}

fn world(config: Config) -> World {
    let (gate, receiver) = watch::channel(false);
    let (waiting, carried_through) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let subject = Subject {
        gate: receiver,
        waiting: Arc::clone(&waiting),
        carried_through: Arc::clone(&carried_through),
    };
    World {
        engine: Engine::new(subject, config),
        gate,
        waiting,
        carried_through,
    }
}

impl World {
    fn connect(&self) -> (Client<DuplexStream>, JoinHandle<()>) {
        self.connect_with_buffer(64 << 10)
    }

    fn connect_with_buffer(&self, bytes: usize) -> (Client<DuplexStream>, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let engine = Arc::clone(&self.engine);
        let server = tokio::spawn(async move { engine.serve_stream(theirs, None).await });
        (
            Client {
                stream: ours,
                input: Vec::new(),
            },
            server,
        )
    }
}

fn connect() -> Client<DuplexStream> {
    world(Config::default()).connect().0
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Some bytes more; false at the end.
    async fn receive(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.input);
        let read = timeout(Duration::from_secs(3600), reading).await;
        read.expect("nothing comes").is_ok_and(|read| read > 0)
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.input.drain(..end + 2).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            assert!(
                self.receive().await,
                "closed in the middle of a line: {:?}",
                self.input
            );
        }
    }

    async fn exactly(&mut self, length: usize) -> String {
        while self.input.len() < length {
            assert!(
                self.receive().await,
                "closed in the middle of a body: {:?}",
                self.input
            );
        }
        String::from_utf8(self.input.drain(..length).collect()).unwrap()
    }

    /// All that comes until the connection is closed.
    async fn rest(&mut self) -> String {
        while self.receive().await {}
        String::from_utf8(std::mem::take(&mut self.input)).unwrap()
    }

    async fn head(&mut self) -> (String, Vec<String>) {
        let status = self.line().await;
        let mut headers = Vec::new();
        loop {
            match self.line().await {
                line if line.is_empty() => break,
                line if line.starts_with("Date: ") => {}
                line => headers.push(line),
            }
        }
        assert!(
            headers.contains(&"X-Content-Type-Options: nosniff".to_owned()),
            "{headers:?}"
        );
        (status, headers)
    }

    /// The next answer: its status and its body, after `close` where the connection is to end.
    async fn answer(&mut self) -> String {
        let (status, headers) = self.head().await;
        let header = |name: &str| {
            let line = headers.iter().find(|line| line.starts_with(name));
            line.map(|line| line[name.len()..].to_owned())
        };
        let body = if header("Transfer-Encoding: chunked").is_some() {
            let mut body = String::new();
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).unwrap();
                body += &self.exactly(size).await;
                assert_eq!(self.line().await, "");
                if size == 0 {
                    break body;
                }
            }
        } else {
            let length = header("Content-Length: ").map_or(0, |length| length.parse().unwrap());
            self.exactly(length).await
        };
        let close = if header("Connection: close").is_some() {
            " close"
        } else {
            ""
        };
        format!("{}{close}: {body}", status.split_once(' ').unwrap().1)
    }

    async fn ask(&mut self, request: &str) -> String {
        self.send(request).await;
        self.answer().await
    }

    /// Nothing came without being asked for, and the connection is alive.
    async fn assert_open(&mut self) {
        assert_eq!(
            self.ask("GET /now?alive HTTP/1.1\r\nHost: x\r\n\r\n").await,
            "200 OK: alive"
        );
    }

    async fn assert_closed(&mut self) {
        assert_eq!(self.rest().await, "");
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn put(path: &str, body: &str) -> String {
    let length = body.len();
    format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn put_chunked(path: &str, chunks: &[&str]) -> String {
    let mut text = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in chunks {
        text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
    }
    text + "0\r\n\r\n"
}

/// Lets everybody else run until nobody has anything left to do.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut client = connect();
    let all = [
        get("/now?1"),
        put("/echo", "two"),
        put_chunked("/echo", &["th", "ree"]),
        get("/stream?250"),
        "\r\n".to_owned(),
        get("/now?5"),
    ];
    client.send(all.concat()).await;
    assert_eq!(client.answer().await, "200 OK: 1");
    assert_eq!(client.answer().await, "200 OK: two");
    assert_eq!(client.answer().await, "200 OK: three");
    assert_eq!(
        client.answer().await,
        format!("200 OK: {}", "x".repeat(250))
    );
    assert_eq!(client.answer().await, "200 OK: 5");
    client.assert_open().await;
}

#[tokio::test]
async fn requests_that_come_while_one_is_parked_wait_their_turn() {
    let world = world(Config::default());
    let (mut client, _server) = world.connect();
    client
        .send([get("/park?1"), get("/now?2"), put("/echo", "three")].concat())
        .await;
    settle().await;
    assert_eq!(world.waiting.load(Ordering::Relaxed), 1);
    let more = get("/park?4");
    client.send(&more[..10]).await;
    settle().await;
    client.send(&more[10..]).await;
    settle().await;
    world.gate.send_replace(true);
    assert_eq!(client.answer().await, "200 OK: 1");
    assert_eq!(client.answer().await, "200 OK: 2");
    assert_eq!(client.answer().await, "200 OK: three");
    assert_eq!(client.answer().await, "200 OK: 4");
    client.assert_open().await;
}

#[tokio::test]
async fn a_request_may_come_in_any_pieces() {
    let request = [
        put("/echo", "one"),
        put_chunked("/echo", &["t", "wo"]),
        get("/now?3"),
    ]
    .concat();
    let expected = ["200 OK: one", "200 OK: two", "200 OK: 3"];
    for cut in 0..=request.len() {
        let mut client = connect();
        client.send(&request[..cut]).await;
        settle().await;
        client.send(&request[cut..]).await;
        for expected in expected {
            assert_eq!(client.answer().await, expected, "cut at {cut}");
        }
    }
    let mut client = connect();
    for byte in request.as_bytes() {
        client.send([*byte]).await;
        settle().await;
    }
    for expected in expected {
        assert_eq!(client.answer().await, expected);
    }
}

#[tokio::test]
async fn head_has_all_but_the_body() {
    let mut client = connect();
    for (path, length) in [
        ("/size?70000", "Content-Length: 70000"),
        ("/stream", "Transfer-Encoding: chunked"),
    ] {
        client.send(get(path).replace("GET", "HEAD")).await;
        let (status, headers) = client.head().await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(headers.contains(&length.to_owned()), "{headers:?}");
    }
    client.assert_open().await;
}

#[tokio::test]
async fn a_connection_lives_as_long_as_the_client_asks() {
    for (request, expected) in [
        (get("/now?a"), "200 OK: a"),
        (
            "GET /now?b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
            "200 OK: b",
        ),
        (get("/empty"), "204 No Content: "),
    ] {
        let mut client = connect();
        assert_eq!(client.ask(&request).await, expected);
        client.assert_open().await;
    }
    for (request, expected) in [
        ("GET /now?c HTTP/1.0\r\n\r\n".into(), "200 OK close: c"),
        (
            get("/now?d").replace("Host: x", "Host: x\r\nConnection: close"),
            "200 OK close: d",
        ),
    ] {
        let mut client = connect();
        assert_eq!(client.ask(&request).await, expected);
        client.assert_closed().await;
    }
}

#[tokio::test]
async fn a_client_of_1_0_is_answered_in_1_0() {
    let mut client = connect();
    client
        .send("GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let (status, headers) = client.head().await;
    assert_eq!(status, "HTTP/1.0 200 OK");
    assert!(
        headers.contains(&"Connection: keep-alive".to_owned()),
        "{headers:?}"
    );
    client
        .send("GET /stream?150 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let (_, headers) = client.head().await;
    assert!(
        !headers.iter().any(|line| line.contains("chunked")),
        "{headers:?}"
    );
    assert_eq!(client.rest().await, "x".repeat(150));
}

#[tokio::test]
async fn a_client_that_expects_it_is_told_to_continue() {
    let expecting = |length: usize| {
        put("/echo?10", "").replace(": 0", &format!(": {length}\r\nExpect: 100-continue"))
    };
    let mut client = connect();
    client.send(expecting(5)).await;
    assert_eq!(client.line().await, "HTTP/1.1 100 Continue");
    assert_eq!(client.line().await, "");
    assert_eq!(client.ask("hello").await, "200 OK: hello");
    // The body is here already.
    assert_eq!(client.ask(&(expecting(5) + "hello")).await, "200 OK: hello");
    client.send(expecting(5) + "he").await;
    settle().await;
    assert_eq!(client.ask("llo").await, "200 OK: hello");
    // Nobody wants the body, and whether it comes is anybody's guess.
    assert_eq!(
        client.ask(&expecting(11)).await,
        "413 Request Entity Too Large close: too large"
    );
    client.assert_closed().await;
}

#[tokio::test]
async fn a_body_is_read_to_its_limit() {
    let mut client = connect();
    assert_eq!(client.ask(&put("/echo?5", "hello")).await, "200 OK: hello");
    assert_eq!(
        client
            .ask(&put_chunked("/echo?5", &["he", "l", "lo"]))
            .await,
        "200 OK: hello"
    );
    assert_eq!(client.ask(&put("/echo", "")).await, "200 OK: ");
    assert_eq!(client.ask(&put_chunked("/echo", &[])).await, "200 OK: ");
    let large = "413 Request Entity Too Large";
    assert_eq!(
        client.ask(&put("/echo?4", "hello")).await,
        format!("{large}: too large")
    );
    client.assert_open().await;
    let chunked = put_chunked("/echo?4", &["he", "l", "lo"]);
    assert_eq!(
        client.ask(&chunked[..chunked.len() - 1]).await,
        format!("{large} close: too large")
    );
    client.assert_closed().await;
}

#[tokio::test]
async fn a_claimed_length_is_only_a_claim() {
    for path in ["/echo", "/now"] {
        let mut client = connect();
        let request = put(path, "").replace(": 0", ": 123456789012345678");
        assert!(client.ask(&request).await.contains(" close: "));
        // The client may go on for a while; it is not believed, and not cut off before it read.
        client.send(vec![b'x'; 100_000]).await;
        client.assert_closed().await;
    }
    let world = world(Config::default());
    let (mut client, _server) = world.connect();
    client
        .send(put("/count", "").replace(": 0", ": 123456789012345678"))
        .await;
    client.send("hello").await;
    settle().await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(
        client.answer().await,
        "200 OK close: 5, then unexpected EOF"
    );
}

#[tokio::test]
async fn a_body_that_nobody_read_does_not_become_a_request() {
    let mut client = connect();
    assert_eq!(
        client.ask(&put("/now?1", &get("/now?2"))).await,
        "200 OK: 1"
    );
    client.assert_open().await;
    let request = put("/now?1", &get("/now?2"));
    client.send(&request[..request.len() - 20]).await;
    assert_eq!(client.answer().await, "200 OK: 1");
    client.send(&request[request.len() - 20..]).await;
    client.assert_open().await;
    assert_eq!(
        client.ask(&put_chunked("/now?1", &["x"])[..70]).await,
        "200 OK close: 1"
    );
    client.assert_closed().await;
}

#[tokio::test]
async fn a_broken_body_ends_the_connection() {
    for (path, expected) in [
        ("/echo", "400 Bad Request close: broken: unexpected EOF"),
        ("/count", "200 OK close: 2, then unexpected EOF"),
    ] {
        let mut client = connect();
        let request = put_chunked(path, &["ab", "cd"]).replace("\r\ncd", "\ncd");
        assert_eq!(client.ask(&request).await, expected);
        client.assert_closed().await;
    }
}

#[tokio::test]
async fn a_large_body_flows_through_small_buffers() {
    let world = world(Config::default());
    let (client, _server) = world.connect_with_buffer(1000);
    let (mut reading, mut writing) = tokio::io::split(client.stream);
    let sending = tokio::spawn(async move {
        for _ in 0..2 {
            let head = put("/count", "").replace(": 0", ": 3000000");
            writing.write_all(head.as_bytes()).await.unwrap();
            writing.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
            writing
                .write_all(put_chunked("/count", &["x".repeat(70_000).as_str(); 10]).as_bytes())
                .await
                .unwrap();
        }
        writing
    });
    let mut output = Vec::new();
    let count = |output: &[u8], what: &str| String::from_utf8_lossy(output).matches(what).count();
    while count(&output, "\r\n3000000") < 2 || count(&output, "\r\n700000") < 2 {
        let read = reading.read_buf(&mut output).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&output));
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte() {
    let world = world(Config::default());
    for path in ["/size?100000", "/size?9000", "/stream?100000"] {
        for buffer in [1, 7, 1000, 20_000] {
            let (mut client, _server) = world.connect_with_buffer(buffer);
            client.send(get(path)).await;
            settle().await;
            let (_, size) = path.split_once('?').unwrap();
            let answer = client.answer().await;
            assert_eq!(
                answer.len(),
                "200 OK: ".len() + size.parse::<usize>().unwrap()
            );
            client.assert_open().await;
        }
    }
}

#[tokio::test]
async fn a_parked_request_is_dropped_when_its_client_hangs_up() {
    let world = world(Config::default());
    let (mut client, server) = world.connect();
    client.send([get("/park"), get("/now")].concat()).await;
    settle().await;
    assert_eq!(world.waiting.load(Ordering::Relaxed), 1);
    drop(client);
    server.await.unwrap();
    assert_eq!(world.waiting.load(Ordering::Relaxed), 0);
    assert_eq!(world.engine.connections(), 0);
}

#[tokio::test]
async fn a_parked_request_with_a_body_on_its_way_loses_neither() {
    let world = world(Config::default());
    let (mut client, _server) = world.connect();
    let request = put("/park?1", &get("/now?2"));
    client.send(&request[..request.len() - 5]).await;
    settle().await;
    assert_eq!(world.waiting.load(Ordering::Relaxed), 1);
    client.send(&request[request.len() - 5..]).await;
    settle().await;
    world.gate.send_replace(true);
    assert_eq!(client.answer().await, "200 OK: 1");
    client.assert_open().await;
}

#[tokio::test]
async fn a_stream_is_dropped_when_its_client_hangs_up() {
    let world = world(Config::default());
    let (mut client, server) = world.connect();
    client.send(get("/endless")).await;
    client.head().await;
    assert_eq!(client.exactly(10).await, "5\r\nfirst\r\n");
    assert_eq!(world.waiting.load(Ordering::Relaxed), 1);
    drop(client);
    server.await.unwrap();
    settle().await;
    assert_eq!(world.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn other_requests_are_carried_through_when_their_client_hangs_up() {
    let world = world(Config::default());
    let (mut client, server) = world.connect();
    client.send(get("/slow")).await;
    settle().await;
    drop(client);
    settle().await;
    world.gate.send_replace(true);
    server.await.unwrap();
    assert_eq!(world.carried_through.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_stream_that_breaks_is_seen_to_break() {
    let mut client = connect();
    client.send(get("/stream-breaks")).await;
    client.head().await;
    assert_eq!(client.rest().await, "4\r\nsome\r\n");
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_the_words_of_the_original() {
    for (request, status, body) in [
        ("hello\r\n\r\n", "400 Bad Request", "400 Bad Request"),
        (
            "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request",
        ),
        ("GET / HTTP/1.1\n", "400 Bad Request", "400 Bad Request"),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request: missing required Host header",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request",
        ),
    ] {
        let mut client = connect();
        let expected = format!("{status} close: {body}");
        assert_eq!(client.ask(&(get("/now?1") + request)).await, "200 OK: 1");
        assert_eq!(client.answer().await, expected, "{request:?}");
        client.assert_closed().await;
    }
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let world = world(Config {
        head_bytes_max: 1000,
        ..Config::default()
    });
    let padded = |length: usize| {
        let bare = get("/now?1").replace("Host: x", "Host: x\r\nA: ");
        bare.replace("A: ", &format!("A: {}", "a".repeat(length - bare.len())))
    };
    let (mut client, _server) = world.connect();
    assert_eq!(client.ask(&padded(1000)).await, "200 OK: 1");
    let refusal = "431 Request Header Fields Too Large close: 431 Request Header Fields Too Large";
    assert_eq!(client.ask(&padded(1001)).await, refusal);
    client.assert_closed().await;
    // Without an end.
    let (mut client, _server) = world.connect();
    assert_eq!(client.ask(&padded(5000)[..1001]).await, refusal);
    client.assert_closed().await;
    let (mut client, _server) = world.connect();
    client.send(get("/park")).await;
    client.send(get("/now").repeat(1000)).await;
    settle().await;
    world.gate.send_replace(true);
    for _ in 0..1001 {
        assert_eq!(client.answer().await, "200 OK: ");
    }
}

/// Runs until the connection is closed and says after how long.
async fn seconds_until_closed(mut client: Client<DuplexStream>) -> u64 {
    let start = Instant::now();
    client.rest().await;
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn whoever_is_silent_for_too_long_is_cut_off() {
    let world = world(Config::default());
    let config = Config::default();

    let (client, _server) = world.connect();
    assert_eq!(
        seconds_until_closed(client).await,
        config.idle_timeout.as_secs()
    );

    // Each request moves the deadline.
    let (mut client, _server) = world.connect();
    for _ in 0..5 {
        tokio::time::advance(config.idle_timeout * 2 / 3).await;
        client.assert_open().await;
    }
    assert_eq!(
        seconds_until_closed(client).await,
        config.idle_timeout.as_secs()
    );

    // A head that comes byte by byte has one deadline for all of it.
    let (client, _server) = world.connect();
    let (mut reading, mut writing) = tokio::io::split(client.stream);
    let start = Instant::now();
    let dribbling = tokio::spawn(async move {
        for byte in get("/now").bytes().cycle() {
            if byte == b'\n' || writing.write_all(&[byte]).await.is_err() {
                continue;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    reading.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), config.head_timeout.as_secs());
    dribbling.abort();

    // So has the head of a request that was pipelined behind another.
    let (mut client, _server) = world.connect();
    assert_eq!(client.ask(&(get("/now?1") + "GET /")).await, "200 OK: 1");
    assert_eq!(
        seconds_until_closed(client).await,
        config.head_timeout.as_secs()
    );

    // A body has a deadline for each byte, and the handler has the last word.
    let (mut client, _server) = world.connect();
    let start = Instant::now();
    client.send(put("/echo", "").replace(": 0", ": 10")).await;
    for _ in 0..3 {
        tokio::time::sleep(config.body_timeout * 2 / 3).await;
        client.send("x").await;
    }
    let expected = "400 Bad Request close: broken: timed out while reading the request body";
    assert_eq!(client.answer().await, expected);
    assert_eq!(start.elapsed(), config.body_timeout * 3);
    client.assert_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let config = Config::default();
    let world = world(config.clone());
    for path in ["/size?100000", "/stream?100000"] {
        let (mut client, server) = world.connect_with_buffer(1000);
        let start = Instant::now();
        client.send(get(path)).await;
        tokio::time::sleep(config.write_timeout * 2 / 3).await;
        client.exactly(500).await;
        server.await.unwrap();
        assert_eq!(start.elapsed(), config.write_timeout * 5 / 3);
        // A client that took so little knows that something is missing.
        assert!(client.rest().await.len() < 100_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_has_no_deadline_of_the_engine() {
    let world = world(Config::default());
    let (mut client, _server) = world.connect();
    client.send(get("/park?1")).await;
    tokio::time::sleep(Duration::from_secs(3000)).await;
    world.gate.send_replace(true);
    assert_eq!(client.answer().await, "200 OK: 1");
    client.assert_open().await;
}

/// Runs an engine over real sockets until the test ends it.
struct Running {
    world: World,
    shutdown: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

fn run(config: Config, listener: Listener) -> Running {
    let world = world(config);
    let engine = Arc::clone(&world.engine);
    let (shutdown, told) = oneshot::channel();
    let serving = tokio::spawn(async move {
        engine
            .serve(
                vec![listener],
                async move { told.await.unwrap_or_default() },
            )
            .await
    });
    Running {
        world,
        shutdown,
        serving,
    }
}

async fn connect_tcp(listener: &Listener) -> Client<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    Client {
        stream,
        input: Vec::new(),
    }
}

fn loopback() -> Listener {
    Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Waits for something that a socket brings about.
async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(1));
        while !condition() {
            looks.tick().await;
        }
    };
    timeout(Duration::from_secs(30), waiting)
        .await
        .expect("it does not come about");
}

#[tokio::test]
async fn shutdown_ends_what_waits_and_finishes_what_runs() {
    let listener = loopback();
    let running = run(Config::default(), listener.clone());
    let mut idle = connect_tcp(&listener).await;
    idle.assert_open().await;
    let mut parked = connect_tcp(&listener).await;
    parked.send(get("/park")).await;
    let mut slow = connect_tcp(&listener).await;
    slow.assert_open().await;
    slow.send(get("/slow")).await;
    until(|| running.world.waiting.load(Ordering::Relaxed) == 2).await;
    running.shutdown.send(()).unwrap();
    parked.assert_closed().await;
    idle.assert_closed().await;
    assert_eq!(running.world.waiting.load(Ordering::Relaxed), 1);
    running.world.gate.send_replace(true);
    assert_eq!(slow.answer().await, "200 OK close: slow");
    slow.assert_closed().await;
    running.serving.await.unwrap().unwrap();
    assert_eq!(running.world.engine.connections(), 0);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let listener = loopback();
    let config = Config {
        shutdown_timeout: Duration::from_millis(10),
        ..Config::default()
    };
    let running = run(config, listener.clone());
    let mut slow = connect_tcp(&listener).await;
    slow.send(get("/slow")).await;
    until(|| running.world.waiting.load(Ordering::Relaxed) == 1).await;
    running.shutdown.send(()).unwrap();
    running.serving.await.unwrap().unwrap();
    slow.assert_closed().await;
    assert_eq!(running.world.carried_through.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away() {
    let listener = loopback();
    let running = run(
        Config {
            connections_max: 2,
            ..Config::default()
        },
        listener.clone(),
    );
    let mut first = connect_tcp(&listener).await;
    let mut second = connect_tcp(&listener).await;
    first.assert_open().await;
    second.assert_open().await;
    let mut third = connect_tcp(&listener).await;
    let answer = third.answer().await;
    assert_eq!(
        answer,
        "503 Service Unavailable close: too many connections"
    );
    third.assert_closed().await;
    drop(first);
    until(|| running.world.engine.connections() == 1).await;
    connect_tcp(&listener).await.assert_open().await;
    second.assert_open().await;
}

#[tokio::test]
async fn a_handler_that_panics_takes_only_its_connection_along() {
    let listener = loopback();
    let service = |request: Request| -> Reaction {
        assert_ne!(request.path(), b"/panic");
        text("fine").into()
    };
    let engine = Engine::new(service, Config::default());
    let listeners = vec![listener.clone()];
    let serving =
        tokio::spawn(async move { engine.serve(listeners, std::future::pending()).await });
    let mut other = connect_tcp(&listener).await;
    let mut client = connect_tcp(&listener).await;
    client.send(get("/panic")).await;
    client.assert_closed().await;
    assert_eq!(other.ask(&get("/")).await, "200 OK: fine");
    assert!(!serving.is_finished());
}

#[tokio::test]
async fn several_threads_serve_one_listener() {
    let listener = loopback();
    let first = run(Config::default(), listener.clone());
    let clone = listener.clone();
    let (shutdown, told) = oneshot::channel::<()>();
    let engine = Arc::clone(&first.world.engine);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(engine.serve(vec![clone], async move { told.await.unwrap_or_default() }))
    });
    for _ in 0..20 {
        connect_tcp(&listener).await.assert_open().await;
    }
    shutdown.send(()).unwrap();
    tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap())
        .await
        .unwrap();
    connect_tcp(&listener).await.assert_open().await;
    first.shutdown.send(()).unwrap();
    first.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_made_and_removed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consul.sock");
    // One that a killed process left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let options = UnixSocketOptions {
        mode: Some(0o600),
        ..UnixSocketOptions::default()
    };
    let listener = Listener::unix(&path, &options).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let running = run(Config::default(), listener);
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut client = Client {
        stream,
        input: Vec::new(),
    };
    assert_eq!(client.ask(&put("/echo", "hello")).await, "200 OK: hello");
    running.shutdown.send(()).unwrap();
    running.serving.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[test]
fn only_sockets_give_way_to_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = Listener::unix(&path, &UnixSocketOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("precious exists and is not a socket"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[test]
fn a_socket_that_somebody_replaced_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consul.sock");
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _runtime = tokio.enter();
    let ours = Listener::unix(&path, &UnixSocketOptions::default()).unwrap();
    let theirs = Listener::unix(&path, &UnixSocketOptions::default()).unwrap();
    drop(ours);
    assert!(path.exists());
    drop(theirs);
    assert!(!path.exists());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Pieces of requests, so that chance gets past the first line.
    fn fragment() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            proptest::sample::select(vec![
                "GET /now HTTP/1.1\r\n",
                "PUT /echo HTTP/1.1\r\n",
                "PUT /count HTTP/1.0\r\n",
                "Host: x\r\n",
                "Content-Length: 3\r\n",
                "Content-Length: 0\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Expect: 100-continue\r\n",
                "Connection: close\r\n",
                "\r\n",
                "\r\n\r\n",
                "abc",
                "3\r\nabc\r\n",
                "0\r\n\r\n",
                "GET /stream?300 HTTP/1.1\r\nHost: x\r\n\r\n",
                "%",
                "/",
                " ",
                "\n",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_pieces_the_connection_ends_well(
            fragments in proptest::collection::vec(fragment(), 0..30),
        ) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let bytes = fragments.concat();
                let world = world(Config::default());
                let mut outputs = Vec::new();
                for pieces in [vec![&bytes[..]], fragments.iter().map(Vec::as_slice).collect()] {
                    let (client, server) = world.connect();
                    let (mut reading, mut writing) = tokio::io::split(client.stream);
                    let sending = tokio::spawn({
                        let pieces: Vec<_> = pieces.into_iter().map(<[u8]>::to_vec).collect();
                        async move {
                            for piece in pieces {
                                if writing.write_all(&piece).await.is_err() {
                                    break;
                                }
                                settle().await;
                            }
                            writing.shutdown().await.ok();
                        }
                    });
                    let mut output = Vec::new();
                    reading.read_to_end(&mut output).await.ok();
                    sending.await.unwrap();
                    server.await.unwrap();
                    let text = String::from_utf8_lossy(&output).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
                    // The date is the only thing that may differ.
                    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect();
                    outputs.push(lines);
                }
                prop_assert_eq!(&outputs[0], &outputs[1]);
                Ok(())
            })?;
        }
    }
}
