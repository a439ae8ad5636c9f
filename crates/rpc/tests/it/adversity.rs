//! Peers that are slow, silent, hostile or cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rpc::frame::{self, Frame, Kind};
use rpc::{CallError, Calls as _, Hop, ListenerConfig, Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::member::{Listening, get, pool, put, server, until, value};

const SOON: Duration = Duration::from_secs(30);

/// What a pool sends for one call, and what a server answers.
async fn transcript(request: Request) -> (Vec<u8>, Vec<u8>) {
    let listening = Listening::start().await;
    let proxy = Proxy::start(listening.server.address, usize::MAX, usize::MAX).await;
    let pool = pool();
    pool.call(&server(proxy.address), Hop::First, request)
        .await
        .unwrap();
    pool.shutdown().await;
    proxy.task.await.unwrap()
}

/// Passes one connection on, so many bytes in each direction, then cuts it.
struct Proxy {
    address: SocketAddr,
    task: tokio::task::JoinHandle<(Vec<u8>, Vec<u8>)>,
}

impl Proxy {
    async fn start(to: SocketAddr, asked_max: usize, answered_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(to).await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            let (mut asked, mut answered) = (Vec::new(), Vec::new());
            {
                // Whichever is cut first cuts both.
                let asking = pass(near_read, far_write, &mut asked, asked_max);
                let answering = pass(far_read, near_write, &mut answered, answered_max);
                tokio::pin!(asking, answering);
                tokio::select! {
                    () = &mut asking => {}
                    () = &mut answering => {}
                }
            }
            (asked, answered)
        });
        Self { address, task }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    seen: &mut Vec<u8>,
    max: usize,
) {
    let mut buffer = vec![0; 65_536];
    while seen.len() < max {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let count = count.min(max - seen.len());
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        seen.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_at_any_byte_ends_the_call_and_nothing_else() {
    let listening = Listening::start().await;
    let (asked, answered) = transcript(put("key", vec![1; 20])).await;
    let writes = || listening.member.0.writes.load(Ordering::SeqCst);
    for cut in 0..asked.len() {
        let proxy = Proxy::start(listening.server.address, cut, usize::MAX).await;
        let called = pool().call(&server(proxy.address), Hop::First, put("key", vec![1; 20]));
        let error = timeout(SOON, called).await.unwrap().unwrap_err();
        assert!(
            matches!(error, CallError::Broken(_) | CallError::NotSent(_)),
            "{cut}: {error:?}"
        );
        // Half a frame is nothing.
        assert_eq!(writes(), 0, "{cut}");
    }
    for cut in 0..answered.len() {
        let proxy = Proxy::start(listening.server.address, usize::MAX, cut).await;
        let called = pool().call(&server(proxy.address), Hop::First, put("key", vec![1; 20]));
        let error = timeout(SOON, called).await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Broken(_)), "{cut}: {error:?}");
    }
    assert_eq!(value(&pool(), &listening.server, "k").await, b"k");
}

#[tokio::test]
async fn ten_thousand_wait_over_one_pool() {
    let listening = Listening::start().await;
    let (pool, echo) = (pool(), &listening.member.0);
    let calls: Vec<_> = (0..10_000)
        .map(|_| tokio::spawn(pool.call(&listening.server, Hop::First, get("k", 1))))
        .collect();
    until(|| echo.waiting.load(Ordering::SeqCst) == 10_000).await;
    // Others get through meanwhile.
    assert_eq!(value(&pool, &listening.server, "other").await, b"other");
    echo.wake.notify_waiters();
    for call in join_all(calls).await {
        assert!(matches!(call.unwrap(), Ok(Response::Read(_))));
    }
}

#[tokio::test]
async fn a_call_too_many_is_not_sent() {
    let listening = Listening::start().await;
    let (pool, echo) = (pool(), &listening.member.0);
    let mut calls: Vec<_> = (0..16_384)
        .map(|_| tokio::spawn(pool.call(&listening.server, Hop::First, get("k", 1))))
        .collect();
    until(|| echo.waiting.load(Ordering::SeqCst) == 16_384).await;
    let error = pool
        .call(&listening.server, Hop::First, Request::Ping)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::NotSent(_)), "{error:?}");
    calls.drain(..1).for_each(|call| call.abort());
    until(|| echo.waiting.load(Ordering::SeqCst) == 16_383).await;
    let pong = pool.call(&listening.server, Hop::First, Request::Ping);
    assert!(matches!(pong.await, Ok(Response::Ping)));
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_request_too_many_is_refused() {
    let config = ListenerConfig {
        requests_max: 1,
        ..ListenerConfig::default()
    };
    let listening = Listening::start_with(config, None).await;
    let (pool, echo) = (pool(), &listening.member.0);
    let waiting = tokio::spawn(pool.call(&listening.server, Hop::First, get("k", 1)));
    until(|| echo.waiting.load(Ordering::SeqCst) == 1).await;
    let refused = pool.call(&listening.server, Hop::First, Request::Ping);
    assert!(matches!(refused.await, Err(CallError::Refused(_))));
    waiting.abort();
}

#[tokio::test]
async fn bytes_too_many_are_refused_until_there_is_room_again() {
    let config = ListenerConfig {
        // Of which one peer may have 250,000.
        request_bytes_max: 1_000_000,
        ..ListenerConfig::default()
    };
    let listening = Listening::start_with(config, None).await;
    let (pool, echo) = (pool(), &listening.member.0);
    let long = "k".repeat(200_000);
    let waiting = tokio::spawn(pool.call(&listening.server, Hop::First, get(&long, 1)));
    until(|| echo.waiting.load(Ordering::SeqCst) == 1).await;
    for request in [get(&long, 1), put(&long, Vec::new())] {
        let refused = pool.call(&listening.server, Hop::First, request).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("too many long requests"), "{error}");
    }
    assert_eq!(echo.writes.load(Ordering::SeqCst), 0);
    // Short ones have room.
    assert_eq!(value(&pool, &listening.server, "k").await, b"k");
    waiting.abort();
    until(|| echo.waiting.load(Ordering::SeqCst) == 0).await;
    // Answered ones hold nothing.
    for _ in 0..3 {
        let written = pool.call(&listening.server, Hop::First, put(&long, Vec::new()));
        written.await.unwrap();
    }
}

#[tokio::test]
async fn one_address_has_a_quarter_of_the_connections() {
    let config = ListenerConfig {
        connections_max: 8,
        ..ListenerConfig::default()
    };
    let listening = Listening::start_with(config, None).await;
    let first = pool();
    assert_eq!(value(&first, &listening.server, "k").await, b"k");
    let second = pool();
    assert_eq!(value(&second, &listening.server, "k").await, b"k");
    let third = pool().call(&listening.server, Hop::First, Request::Ping);
    assert!(third.await.is_err());
    // There is room for others.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(listening.server.address).await.unwrap();
    let ping = framed(&[4, 1], &[(Kind::Ping, 0, b"")]);
    other.write_all(&ping).await.unwrap();
    let mut pong = [0; frame::HEAD_SIZE];
    other.read_exact(&mut pong).await.unwrap();
    // And for the same one when it has closed another.
    second.shutdown().await;
    let found = timeout(SOON, async {
        let ping = || pool().call(&listening.server, Hop::First, Request::Ping);
        while ping().await.is_err() {}
    });
    found.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed_soon() {
    let listening = Listening::start().await;
    let request = wire::compact::to_vec(&(Hop::First, Request::Ping)).unwrap();
    let cases = [
        // Nothing at all, half a request, a whole one.
        (framed(&[4, 1], &[]), 10..20),
        (framed(&[1, 1], &[]), 10..20),
        (framed(&[4, 1], &[(Kind::AskPart, 1, b"x")]), 60..70),
        (framed(&[4, 1], &[(Kind::Ask, 1, &request)]), 600..610),
    ];
    for (bytes, expected) in cases {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(listening.server.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let took = begun.elapsed().as_secs();
        assert!(expected.contains(&took), "{bytes:x?}: {took} s");
    }
}

#[tokio::test]
async fn a_connection_too_many_is_closed() {
    let config = ListenerConfig {
        connections_max: 1,
        ..ListenerConfig::default()
    };
    let listening = Listening::start_with(config, None).await;
    let first = pool();
    assert_eq!(value(&first, &listening.server, "k").await, b"k");
    let error = pool()
        .call(&listening.server, Hop::First, Request::Ping)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CallError::Broken(_) | CallError::NotSent(_)),
        "{error:?}"
    );
    assert_eq!(value(&first, &listening.server, "k").await, b"k");
}

/// Sends bytes and reads until the other side closes the connection.
async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // Closed in whichever way.
    let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed in time");
    answer
}

fn framed(preface: &[u8], frames: &[(Kind, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = preface.to_vec();
    for &(kind, id, payload) in frames {
        frame::append(&mut bytes, Frame { kind, id, payload });
    }
    bytes
}

#[tokio::test]
async fn garbage_closes_its_connection_and_no_other() {
    let config = ListenerConfig {
        preface_timeout: Duration::from_millis(50),
        ..ListenerConfig::default()
    };
    let listening = Listening::start_with(config, None).await;
    let pool = pool();
    assert_eq!(value(&pool, &listening.server, "k").await, b"k");
    let address = listening.server.address;
    let huge = [&[4, 1, 1, 0, 0, 0, 0][..], &[0xff; 4]].concat();
    let parts: Vec<_> = (0..9).map(|id| (Kind::AskPart, id, &b"x"[..])).collect();
    let cases = [
        Vec::new(),
        vec![0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // The original's first bytes of a multiplexed connection.
        vec![4, 0, 0, 0, 0, 0, 0, 0],
        vec![3, 22, 3, 1],
        vec![4],
        [&[4, 1][..], &[0xaa; 5000]].concat(),
        huge,
        framed(&[4, 1], &[(Kind::Answer, 1, b"")]),
        framed(&[4, 1], &parts),
        framed(&[1, 1], &[(Kind::Piece, 0, b"")]),
        framed(&[5, 1], &[(Kind::Ask, 0, b"no wish")]),
        framed(&[5, 1], &[(Kind::End, 0, b"")]),
    ];
    for case in &cases {
        send(address, case).await;
    }
    let mut chance = 1_u32;
    for _ in 0..200 {
        let mut bytes = vec![[1, 4, 5][chance as usize % 3], 1];
        for _ in 0..64 {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push(chance.to_be_bytes()[0] % 12);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
    }
    assert_eq!(value(&pool, &listening.server, "k").await, b"k");
}

#[tokio::test]
async fn nonsense_in_a_frame_is_refused_and_the_connection_lives() {
    let listening = Listening::start().await;
    let mut stream = TcpStream::connect(listening.server.address).await.unwrap();
    let asks = [
        (Kind::Ask, 1, &b""[..]),
        (Kind::Cancel, 99, b""),
        (Kind::Ask, 2, b"\xc1"),
        (Kind::Ping, 0, b""),
    ];
    stream.write_all(&framed(&[4, 1], &asks)).await.unwrap();
    let mut bytes = Vec::new();
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        timeout(SOON, stream.read_buf(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        while let Some((frame, size)) = frame::decode(&bytes).unwrap() {
            kinds.push((frame.kind, frame.id));
            bytes.drain(..size);
        }
    }
    assert_eq!(
        kinds,
        [(Kind::Answer, 1), (Kind::Answer, 2), (Kind::Pong, 0)]
    );
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_own_call() {
    let listening = Listening::start().await;
    let pool = pool();
    let (panics, lives) = tokio::join!(
        pool.call(&listening.server, Hop::First, get("panic", 0)),
        value(&pool, &listening.server, "k"),
    );
    assert!(matches!(panics, Err(CallError::Refused(_))));
    assert_eq!(lives, b"k");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        // Takes all, answers nothing, ends only when the other side does.
        while stream
            .read_buf(&mut bytes)
            .await
            .is_ok_and(|count| count > 0)
        {}
        bytes
    });
    let called = pool().call(&server(address), Hop::First, get("k", 1));
    let error = called.await.unwrap_err();
    assert!(matches!(&error, CallError::Broken(_)), "{error:?}");
    let bytes = silent.await.unwrap();
    assert!(bytes.ends_with(&framed(&[], &[(Kind::Ping, 0, b"")])));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answers_holds_up_itself_alone() {
    let listening = Listening::start().await;
    let mut stream = TcpStream::connect(listening.server.address).await.unwrap();
    let request = wire::compact::to_vec(&(Hop::First, get("long/1000000", 0))).unwrap();
    let asks: Vec<_> = (0..1000).map(|id| (Kind::Ask, id, &request[..])).collect();
    stream.write_all(&framed(&[4, 1], &asks)).await.unwrap();
    assert_eq!(value(&pool(), &listening.server, "k").await, b"k");
    // After its time the server cuts it off; what comes then is far from all.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < 100_000_000, "{}", answer.len());
}

#[tokio::test]
async fn what_a_client_wrote_is_carried_out_although_it_takes_no_answers() {
    const WRITES: usize = 100;
    let listening = Listening::start().await;
    let echo = &listening.member.0;
    let mut stream = TcpStream::connect(listening.server.address).await.unwrap();
    let write = wire::compact::to_vec(&(Hop::First, put("slow", vec![1]))).unwrap();
    let read = wire::compact::to_vec(&(Hop::First, get("long/1000000", 0))).unwrap();
    let mut asks: Vec<_> = (0..100).map(|id| (Kind::Ask, id, &write[..])).collect();
    asks.extend((100..200).map(|id| (Kind::Ask, id, &read[..])));
    stream.write_all(&framed(&[4, 1], &asks)).await.unwrap();
    until(|| echo.waiting.load(Ordering::SeqCst) == WRITES).await;
    // Its answers fill the way back by now.
    for _ in 0..100 {
        assert_eq!(value(&pool(), &listening.server, "k").await, b"k");
    }
    echo.wake.notify_waiters();
    until(|| echo.writes.load(Ordering::SeqCst) == WRITES).await;

    // And all is answered when it reads at last.
    let (mut bytes, mut answered) = (Vec::new(), 0);
    while answered < 200 {
        let read = timeout(SOON, stream.read_buf(&mut bytes)).await.unwrap();
        assert!(read.unwrap() > 0, "cut off after {answered} answers");
        let mut start = 0;
        while let Some((frame, size)) = frame::decode(&bytes[start..]).unwrap() {
            answered += usize::from(frame.kind == Kind::Answer);
            start += size;
        }
        bytes.drain(..start);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_is_waited_for_no_more() {
    let listening = Listening::start().await;
    let mut stream = TcpStream::connect(listening.server.address).await.unwrap();
    let request = wire::compact::to_vec(&(Hop::First, get("k", 1))).unwrap();
    let ask = framed(&[4, 1], &[(Kind::Ask, 1, &request)]);
    stream.write_all(&ask).await.unwrap();
    let echo = &listening.member.0;
    until(|| echo.waiting.load(Ordering::SeqCst) == 1).await;
    // Open, but silent.
    tokio::time::sleep(Duration::from_secs(70)).await;
    until(|| echo.waiting.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_ends_at_the_deadline() {
    let listening = Listening::start().await;
    let error = pool()
        .call(&listening.server, Hop::First, get("never", 0))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        CallError::Broken("the server did not answer in time".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_the_next_call_makes_another() {
    let listening = Listening::start().await;
    let pool = pool();
    for _ in 0..3 {
        assert_eq!(value(&pool, &listening.server, "k").await, b"k");
        tokio::time::sleep(Duration::from_secs(200)).await;
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_found() {
    let mut listening = Listening::start().await;
    let pool = pool();
    assert_eq!(value(&pool, &listening.server, "k").await, b"k");
    let address = listening.server.address;
    listening.stop().await;
    let gone = Arc::new(AtomicBool::new(false));
    let error = pool
        .call(&listening.server, Hop::First, Request::Ping)
        .await;
    assert!(error.is_err());
    gone.store(true, Ordering::SeqCst);
    let listener = rpc::Listener::bind(address, ListenerConfig::default())
        .await
        .unwrap();
    let member = crate::member::Member::default();
    let _task = tokio::spawn(listener.serve(Arc::new(member), None, std::future::pending()));
    let found = timeout(SOON, async {
        while pool
            .call(&listening.server, Hop::First, Request::Ping)
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap();
}

#[tokio::test]
async fn long_answers_hold_up_no_message_of_the_log() {
    let listening = Listening::start().await;
    let pool = pool();
    let long = pool.call(&listening.server, Hop::First, get("long/50000000", 0));
    let message = pool.log_message(listening.server.address, "s1", Bytes::from_static(b"beat"));
    let (long, message) = tokio::join!(long, message);
    assert!(long.is_ok() && message.is_ok());
}
