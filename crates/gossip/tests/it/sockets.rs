//! Real sockets on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gossip::{Config, Event, Gossip, Sockets, Status, Timing};
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
