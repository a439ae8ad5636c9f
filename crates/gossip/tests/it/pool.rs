//! A pool in one thread, and what can be asked of it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use gossip::sim::Net;
use gossip::{Config, Event, Events, Gossip, Status};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here may take on the simulated clock.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs a test on the paused clock, in one thread.
pub(crate) fn simulate<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

pub(crate) struct Pool {
    pub(crate) net: Net,
    pub(crate) seed: u64,
    pub(crate) members: Vec<Gossip>,
    pub(crate) events: Vec<Events>,
}

pub(crate) fn name(index: usize) -> String {
    format!("m{index}")
}

pub(crate) fn address(index: usize) -> SocketAddr {
    let index = u32::try_from(index).unwrap();
    let ip = std::net::Ipv4Addr::from(0x0a00_0001 + index);
    SocketAddr::from((ip, 8301))
}

pub(crate) fn config(seed: u64, index: usize) -> Config {
    Config {
        seed: seed.wrapping_mul(1_000_003).wrapping_add(index as u64),
        ..Config::new(name(index), address(index), "lan:dc1")
    }
}

impl Pool {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            net: Net::new(seed),
            seed,
            members: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A pool of so many members that have found one another.
    pub(crate) async fn of(seed: u64, size: usize) -> Self {
        let mut pool = Self::new(seed);
        for index in 0..size {
            pool.add(config(seed, index)).await;
            if index > 0 {
                pool.join(index, 0).await;
            }
        }
        pool.wait_for_status(0..size, 0..size, Status::Alive).await;
        pool
    }

    /// Starts the member with the next index.
    pub(crate) async fn add(&mut self, config: Config) {
        let address = config.advertise;
        let member = Gossip::start(config, self.net.end(address)).await.unwrap();
        self.events.push(member.subscribe());
        self.members.push(member);
    }

    /// Starts a member anew in its old place.
    pub(crate) async fn restart(&mut self, index: usize, config: Config) {
        let address = config.advertise;
        let member = Gossip::start(config, self.net.end(address)).await.unwrap();
        self.events[index] = member.subscribe();
        self.members[index] = member;
    }

    pub(crate) async fn join(&self, index: usize, to: usize) {
        let joined = self.members[index].join(&[address(to)], false).await;
        assert_eq!(joined.reached, 1, "{joined:?}");
    }

    pub(crate) fn status(&self, viewer: usize, of: usize) -> Option<Status> {
        self.members[viewer].member(&name(of)).map(|m| m.status)
    }

    /// Waits until all of the viewers see all of the others so; returns for how long that took.
    pub(crate) async fn wait_for_status(
        &self,
        viewers: impl IntoIterator<Item = usize> + Clone,
        of: impl IntoIterator<Item = usize> + Clone,
        status: Status,
    ) -> Duration {
        let what = format!("{status} to be seen, seed {}", self.seed);
        self.wait(&what, || {
            viewers.clone().into_iter().all(|viewer| {
                of.clone()
                    .into_iter()
                    .all(|of| self.status(viewer, of) == Some(status))
            })
        })
        .await
    }

    pub(crate) async fn wait(&self, what: &str, is_so: impl Fn() -> bool) -> Duration {
        wait(what, is_so).await
    }

    /// Waits until everybody sees everybody so; returns for how long that took since then.
    pub(crate) async fn wait_for_all(&self, status: Status, since: Instant) -> Duration {
        // One look at a thousand members' thousand is costly, so only those who weren't done are asked again.
        let mut missing: Vec<_> = (0..self.members.len()).collect();
        let done = async {
            loop {
                missing.retain(|index| {
                    let members = &self.members[*index];
                    members.members_count() < self.members.len()
                        || members.members().iter().any(|m| m.status != status)
                });
                if missing.is_empty() {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(timeout(PATIENCE, done).await.is_ok(), "seed {}", self.seed);
        since.elapsed()
    }

    /// The events that a member has had since the last call.
    pub(crate) fn take_events(&mut self, index: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.events[index].try_next()).collect()
    }

    /// How many members were ever reported as failed, by any of these.
    pub(crate) fn failures(
        &mut self,
        viewers: impl IntoIterator<Item = usize>,
    ) -> Vec<(usize, String)> {
        let mut failures = Vec::new();
        for viewer in viewers {
            for event in self.take_events(viewer) {
                if let Event::Failed(member) = event {
                    failures.push((viewer, member.name));
                }
            }
        }
        failures
    }
}

/// Waits until something is so; returns for how long that took on the simulated clock.
pub(crate) async fn wait(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    let done = async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        timeout(PATIENCE, done).await.is_ok(),
        "waited in vain for {what}"
    );
    begun.elapsed()
}
