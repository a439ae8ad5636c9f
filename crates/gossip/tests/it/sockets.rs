//! Real sockets on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gossip::{Config, Event, Gossip, Sockets, Status, Timing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn start(name: &str, seed: u64) -> (Gossip, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let sockets = Sockets::bind(any).await.unwrap();
    let address = sockets.local_addr();
    let config = Config {
        timing: Timing::local(),
        seed,
        ..Config::new(name, any, "lan:dc1")
    };
    let gossip = Gossip::start(config, Arc::new(sockets)).await.unwrap();
    (gossip, address)
}

#[tokio::test]
async fn three_on_loopback_join_notice_a_crash_and_leave() {
    let (one, address) = start("one", 1).await;
    let (two, _) = start("two", 2).await;
    let (three, _) = start("three", 3).await;
    let mut events = one.subscribe();
    for member in [&two, &three] {
        let joined = member.join(&[address], false).await;
        assert_eq!(joined.reached, 1, "{joined:?}");
    }
    // A crash, as far as the others can see.
    two.shutdown().await;
    three.leave().await;
    three.shutdown().await;
    let mut crashed = false;
    let mut left = false;
    let told = async {
        while !(crashed && left) {
            match events.next().await {
                Some(Event::Failed(member)) => crashed |= member.name == "two",
                Some(Event::Left(member)) => left |= member.name == "three",
                Some(_) => {}
                None => panic!("the events ended"),
            }
        }
    };
    timeout(Duration::from_secs(30), told).await.unwrap();
    assert_eq!(one.member("two").unwrap().status, Status::Failed);
    assert_eq!(one.member("three").unwrap().status, Status::Left);
    let refused = one.join(&[two.local().address], false).await;
    assert_eq!(refused.reached, 0);
    one.shutdown().await;
}

/// Longer than anything here takes, shorter than a connection may be idle.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn silent_connections_lock_nobody_out() {
    let (one, address) = start("one", 1).await;
    let (two, _) = start("two", 2).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let joined = two.join(&[address], false).await;
    assert_eq!(joined.reached, 1, "{joined:?}");
    drop(silent);
    two.shutdown().await;
    one.shutdown().await;
}

/// The beginning of a request of so many bytes.
fn beginning(label: &str, length: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([b'g', 1, 0, u8::try_from(label.len()).unwrap()]);
    bytes.extend(label.as_bytes());
    bytes.resize(4 + 300, 0);
    bytes
}

#[tokio::test]
async fn a_request_for_another_pool_is_not_read_to_its_end() {
    let (one, address) = start("one", 1).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = beginning("wan", (16 << 20) - 1);
    stream.write_all(&request).await.unwrap();
    let mut answer = [0; 4 + 4 + 7];
    timeout(SOON, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer[8..], b"lan:dc1");
    drop(stream);
    one.shutdown().await;
}

#[tokio::test]
async fn requests_that_never_end_share_their_memory() {
    let (one, address) = start("one", 1).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = beginning("lan:dc1", (16 << 20) - 1);
        stream.write_all(&request).await.unwrap();
        let part = vec![0; 9 << 20];
        stream.write_all(&part).await.unwrap();
        streams.push(stream);
    }
    // The first one had to go.
    let gone = timeout(SOON, streams[0].read_u8()).await.unwrap();
    assert!(gone.is_err());
    let (two, _) = start("two", 2).await;
    assert_eq!(two.join(&[address], false).await.reached, 1);
    two.shutdown().await;
    one.shutdown().await;
}
