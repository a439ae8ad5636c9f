//! The engine inside of TLS, over real sockets: it must do there what it does without.

use rpc::tls::{self, Stream, Tls};
use testkit::{Authority, Pair};
use tokio::net::TcpStream;

use super::*;

/// A server's TLS, and that of clients with and without a certificate.
struct Keys {
    _authority: Authority,
    server: Tls,
    known: Tls,
    unknown: Tls,
}

fn keys(verify_incoming: bool) -> Keys {
    let authority = Authority::new();
    let config = |pair: Option<&Pair>| tls::Config {
        ca_file: Some(authority.file()),
        cert_file: pair.map(|pair| pair.certificate.clone()),
        key_file: pair.map(|pair| pair.key.clone()),
        verify_outgoing: true,
        datacenter: "dc1".to_owned(),
        domain: "consul".to_owned(),
        ..tls::Config::default()
    };
    let pair = authority.sign("agent", &["localhost"]);
    let server = tls::Config {
        verify_incoming,
        https: true,
        ..config(Some(&pair))
    };
    Keys {
        server: Tls::load(server).unwrap(),
        known: Tls::load(config(Some(&pair))).unwrap(),
        unknown: Tls::load(config(None)).unwrap(),
        _authority: authority,
    }
}

impl Keys {
    fn listener(&self) -> Listener {
        let address = "127.0.0.1:0".parse().unwrap();
        Listener::https(address, self.server.https().unwrap()).unwrap()
    }
}

async fn connect_tls(listener: &Listener, tls: &Tls) -> Client<Stream<TcpStream>> {
    let plain = connect_tcp(listener).await.stream;
    let outgoing = tls.outgoing().unwrap();
    let (stream, _) = outgoing.connect(plain, "dc1").await.unwrap();
    Client {
        stream,
        input: Vec::new(),
    }
}

#[tokio::test]
async fn requests_follow_one_another_on_a_connection() {
    let keys = keys(false);
    let listener = keys.listener();
    let _running = run(Config::default(), listener.clone());
    let mut client = connect_tls(&listener, &keys.unknown).await;
    for number in 0..100 {
        let answer = client.ask(&get(&format!("/now?{number}"))).await;
        assert_eq!(answer, format!("200 OK: {number}"));
    }
    // Many in one record, and one in many.
    let many: String = (0..50)
        .map(|number| get(&format!("/now?{number}")))
        .collect();
    client.send(&many).await;
    for number in 0..50 {
        assert_eq!(client.answer().await, format!("200 OK: {number}"));
    }
    for byte in get("/now?slowly").bytes() {
        client.send([byte]).await;
        client.stream.flush().await.unwrap();
    }
    assert_eq!(client.answer().await, "200 OK: slowly");
    client
        .send("GET /now?last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(client.answer().await, "200 OK close: last");
    client.assert_closed().await;
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let keys = keys(false);
    let listener = keys.listener();
    let _running = run(Config::default(), listener.clone());
    let mut client = connect_tls(&listener, &keys.unknown).await;
    let size = 3_000_000;
    let expected = format!("200 OK: {}", "x".repeat(size));
    assert!(client.ask(&get(&format!("/size?{size}"))).await == expected);
    assert!(client.ask(&get(&format!("/stream?{size}"))).await == expected);
    let body = "y".repeat(size);
    assert_eq!(
        client.ask(&put("/count", &body)).await,
        format!("200 OK: {size}")
    );
    assert_eq!(
        client.ask(&put_chunked("/count", &[&body, &body])).await,
        format!("200 OK: {}", 2 * size)
    );
    // The body waits for its invitation.
    client
        .send("PUT /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(client.line().await, "HTTP/1.1 100 Continue");
    assert_eq!(client.line().await, "");
    client.send("body").await;
    assert_eq!(client.answer().await, "200 OK: body");
}

#[tokio::test]
async fn waiting_works_as_without_tls() {
    let keys = keys(false);
    let listener = keys.listener();
    let running = run(Config::default(), listener.clone());
    let waiting = || running.world.waiting.load(Ordering::Relaxed);
    let mut parked = connect_tls(&listener, &keys.unknown).await;
    let mut gone = connect_tls(&listener, &keys.unknown).await;
    let mut polite = connect_tls(&listener, &keys.unknown).await;
    for client in [&mut parked, &mut gone, &mut polite] {
        client.send(get("/park?woken")).await;
    }
    until(|| waiting() == 3).await;
    // One that vanishes and one that says good-bye: both are noticed.
    drop(gone);
    until(|| waiting() == 2).await;
    polite.stream.shutdown().await.unwrap();
    until(|| waiting() == 1).await;
    // What comes ahead of its turn waits for it.
    parked.send(get("/now?next")).await;
    running.world.gate.send_replace(true);
    assert_eq!(parked.answer().await, "200 OK: woken");
    assert_eq!(parked.answer().await, "200 OK: next");
}

#[tokio::test]
async fn certificates_are_demanded_when_configured() {
    let keys = keys(true);
    let listener = keys.listener();
    let running = run(Config::default(), listener.clone());
    connect_tls(&listener, &keys.known)
        .await
        .assert_open()
        .await;
    // With TLS 1.3 a client learns only by reading that it was refused.
    let mut refused = connect_tls(&listener, &keys.unknown).await;
    refused.assert_closed().await;
    let mut plain = connect_tcp(&listener).await;
    plain.send(get("/now")).await;
    while plain.receive().await {}
    assert!(!plain.input.starts_with(b"HTTP"), "{:?}", plain.input);
    until(|| running.world.engine.connections() == 0).await;
}

#[tokio::test]
async fn silent_handshakes_are_in_nobodys_way() {
    let keys = keys(false);
    let listener = keys.listener();
    let running = run(Config::default(), listener.clone());
    let mut silent = Vec::new();
    // More than there are places for.
    for _ in 0..600 {
        silent.push(connect_tcp(&listener).await);
    }
    connect_tls(&listener, &keys.unknown)
        .await
        .assert_open()
        .await;
    // The oldest had to go.
    silent[0].assert_closed().await;
    // The others don't hold up the end.
    running.shutdown.send(()).unwrap();
    running.serving.await.unwrap().unwrap();
    assert_eq!(running.world.engine.connections(), 0);
    silent[599].assert_closed().await;
}

#[tokio::test]
async fn connections_that_are_too_many_are_dropped() {
    let keys = keys(false);
    let listener = keys.listener();
    let config = Config {
        connections_max: 1,
        ..Config::default()
    };
    let _running = run(config, listener.clone());
    let mut first = connect_tls(&listener, &keys.unknown).await;
    first.assert_open().await;
    let mut second = connect_tcp(&listener).await;
    second.assert_closed().await;
    first.assert_open().await;
}

#[tokio::test]
async fn shutdown_finishes_what_runs() {
    let keys = keys(false);
    let listener = keys.listener();
    let running = run(Config::default(), listener.clone());
    let mut idle = connect_tls(&listener, &keys.unknown).await;
    idle.assert_open().await;
    let mut slow = connect_tls(&listener, &keys.unknown).await;
    slow.send(get("/slow")).await;
    until(|| running.world.waiting.load(Ordering::Relaxed) == 1).await;
    running.shutdown.send(()).unwrap();
    idle.assert_closed().await;
    running.world.gate.send_replace(true);
    assert_eq!(slow.answer().await, "200 OK close: slow");
    slow.assert_closed().await;
    running.serving.await.unwrap().unwrap();
}
