//! Networks that cut off, disks that stall and floods that don't end, and what a member does meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gossip::keyring::{Change, Changed, encode_key};
use gossip::known::{Medium, MemoryMedium};
use gossip::{Arrival, Config, Gossip, KeyOperation, Keyring, Network, NetworkFuture, Status};
use tokio::time::sleep;

use crate::pool::{Pool, address, config, simulate};

fn with_file(seed: u64, index: usize, file: &Arc<dyn Medium>) -> Config {
    Config {
        known: Some(Arc::clone(file)),
        ..config(seed, index)
    }
}

fn files(count: usize) -> Vec<Arc<dyn Medium>> {
    let new = |_| -> Arc<dyn Medium> { Arc::new(MemoryMedium::default()) };
    (0..count).map(new).collect()
}

/// A pool whose members keep files, all of which end without a word at the same moment.
async fn after_a_power_cut(seed: u64, files: &[Arc<dyn Medium>]) -> Pool {
    let mut pool = Pool::new(seed);
    for (index, file) in files.iter().enumerate() {
        pool.add(with_file(seed, index, file)).await;
        if index > 0 {
            pool.join(index, 0).await;
        }
    }
    let all = 0..files.len();
    pool.wait_for_status(all.clone(), all, Status::Alive).await;
    sleep(Duration::from_secs(5)).await;
    for index in 0..files.len() {
        pool.net.kill(address(index));
    }
    pool
}

fn cut(pool: &Pool, one: &[usize], other: &[usize]) {
    let addresses = |of: &[usize]| of.iter().map(|index| address(*index)).collect::<Vec<_>>();
    let (one, other) = (addresses(one), addresses(other));
    pool.net.cut(&one, &other);
    pool.net.cut(&other, &one);
}

#[test]
fn who_is_alone_goes_on_trying_whom_it_knew() {
    simulate(async {
        let files = files(2);
        let mut pool = after_a_power_cut(1, &files).await;
        cut(&pool, &[0], &[1]);
        for (index, file) in files.iter().enumerate() {
            pool.restart(index, with_file(100, index, file)).await;
        }
        sleep(Duration::from_secs(120)).await;
        assert_eq!(pool.members[0].members().len(), 1);
        pool.net.heal();
        pool.wait_for_status(0..2, 0..2, Status::Alive).await;
    });
}

#[test]
fn halves_that_came_up_apart_find_together() {
    simulate(async {
        let files = files(4);
        let mut pool = after_a_power_cut(2, &files).await;
        cut(&pool, &[0, 1], &[2, 3]);
        for (index, file) in files.iter().enumerate() {
            pool.restart(index, with_file(100, index, file)).await;
        }
        sleep(Duration::from_secs(120)).await;
        for index in 0..4 {
            assert_eq!(pool.members[index].members().len(), 2, "member {index}");
        }
        pool.net.heal();
        pool.wait_for_status(0..4, 0..4, Status::Alive).await;
    });
}

#[test]
fn a_good_bye_is_final_although_known_members_are_still_tried() {
    simulate(async {
        let files = files(4);
        let mut pool = after_a_power_cut(3, &files).await;
        // Nobody answers at these, and it takes long to find out.
        cut(&pool, &[3], &[0, 1]);
        pool.restart(2, with_file(100, 2, &files[2])).await;
        pool.restart(3, with_file(100, 3, &files[3])).await;
        pool.join(3, 2).await;
        pool.wait_for_status([2], [3], Status::Alive).await;
        let at = [address(2)];
        let (joined, ()) = tokio::join!(
            async {
                // The good-bye has begun by then.
                sleep(Duration::from_millis(1)).await;
                pool.members[3].join(&at, false).await
            },
            pool.members[3].leave(),
        );
        assert_eq!(
            joined.failures,
            [(address(2), String::from("this member is leaving its pool"))]
        );
        sleep(Duration::from_secs(60)).await;
        assert_eq!(pool.members[3].local().status, Status::Left);
        assert_eq!(pool.status(2, 3), Some(Status::Left));
        // Somebody who wants it back gets it.
        pool.join(3, 2).await;
        pool.wait_for_status([2], [3], Status::Alive).await;
    });
}

/// A network with a fault on this member's side.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Network>,
    fault: Fault,
}

#[derive(Debug, PartialEq)]
enum Fault {
    /// The disk with the keys hangs.
    Disk,
    /// The socket is never empty.
    Flood,
}

impl Faulty {
    fn junk() -> Arrival {
        Arrival::Datagram {
            from: SocketAddr::from(([10, 9, 9, 9], 1)),
            bytes: Bytes::from_static(b"junk"),
        }
    }
}

impl Network for Faulty {
    fn local(&self) -> SocketAddr {
        self.inner.local()
    }

    fn send(&self, to: SocketAddr, datagram: Bytes) {
        self.inner.send(to, datagram);
    }

    fn exchange(
        &self,
        to: SocketAddr,
        request: Bytes,
        limit: Duration,
    ) -> NetworkFuture<'static, io::Result<Bytes>> {
        self.inner.exchange(to, request, limit)
    }

    fn arrival(&self) -> NetworkFuture<'_, Arrival> {
        if self.fault == Fault::Flood {
            return Box::pin(async {
                // As sockets do, it leaves the runtime to others after a while.
                tokio::task::consume_budget().await;
                Self::junk()
            });
        }
        self.inner.arrival()
    }

    fn arrived(&self) -> Option<Arrival> {
        if self.fault == Fault::Flood {
            return Some(Self::junk());
        }
        self.inner.arrived()
    }

    fn close(&self) -> NetworkFuture<'_, ()> {
        self.inner.close()
    }

    fn change_keys(&self, change: Change) -> NetworkFuture<'static, Option<Changed>> {
        if self.fault == Fault::Disk {
            return Box::pin(std::future::pending());
        }
        self.inner.change_keys(change)
    }
}

#[test]
fn a_disk_that_hangs_while_keys_change_makes_nobody_look_dead() {
    simulate(async {
        let mut pool = Pool::new(4);
        for index in 0..3 {
            let config = Config {
                keyring: Some(Keyring::in_memory(vec![vec![1; 16]]).unwrap()),
                ..config(4, index)
            };
            let mut network = pool.net.end(address(index));
            if index == 1 {
                let fault = Fault::Disk;
                network = Arc::new(Faulty {
                    inner: network,
                    fault,
                });
            }
            let member = Gossip::start(config, network).await.unwrap();
            pool.events.push(member.subscribe());
            pool.members.push(member);
            if index > 0 {
                pool.join(index, 0).await;
            }
        }
        pool.wait_for_status(0..3, 0..3, Status::Alive).await;
        let limit = Duration::from_secs(5);
        let install = || KeyOperation::Install(encode_key(&[2; 16]));
        let report = pool.members[0].keys(install(), limit).await;
        assert_eq!((report.members, report.answered), (3, 2));
        assert!(report.errors.is_empty(), "{report:?}");
        let report = pool.members[1].keys(install(), limit).await;
        assert_eq!((report.members, report.answered), (3, 2));
        sleep(Duration::from_secs(30)).await;
        assert!(pool.failures(0..3).is_empty());
    });
}

#[test]
fn a_flood_of_datagrams_keeps_no_caller_waiting() {
    simulate(async {
        let net = gossip::sim::Net::new(5);
        let network = Arc::new(Faulty {
            inner: net.end(address(0)),
            fault: Fault::Flood,
        });
        let member = Gossip::start(config(5, 0), network).await.unwrap();
        for _ in 0..3 {
            let sent = member.user_event("deploy", Bytes::new(), false).await;
            assert!(sent.is_ok());
        }
        member.leave().await;
        member.shutdown().await;
    });
}
