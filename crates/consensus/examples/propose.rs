//! What a proposal costs: `cargo run --release -p consensus --example propose -- DIRECTORY [SERVERS]`.
//!
//! Prints wall time and processor time per proposal of 64 bytes, with 1, 64 and 256 proposers, beside a bare append and
//! sync of the same bytes. With several servers, all in this process and connected without a network, the processor time
//! is that of all of them. With `-` for the directory the logs are kept in memory.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on says where"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::ListMachine;
use consensus::{
    Config, Consensus, Disk, MemoryDisk, NodeId, Peer, RealDisk, Transport, TransportError,
    TransportFuture,
};
use tokio::time::Instant;

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

fn bare_sync(path: &Path) {
    let file = File::create(path.join("bare")).unwrap();
    file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let processor = processor_time();
    let mut times = Vec::new();
    for number in 0..2000_u64 {
        let begun = Instant::now();
        file.write_all_at(&[1; 104], number * 104).unwrap();
        file.sync_data().unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "bare append and sync: p50 {:?}, p90 {:?}, {:?} processor each",
        times[1000],
        times[1800],
        (processor_time() - processor) / 2000,
    );
}

/// Hands a message to a server in this process.
#[derive(Clone, Default)]
struct Wires {
    servers: Arc<Mutex<BTreeMap<NodeId, Consensus>>>,
    messages: Arc<AtomicU64>,
}

impl Transport for Wires {
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture {
        let server = self.servers.lock().unwrap().get(&peer.id).cloned();
        self.messages.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match server {
                Some(server) => Ok(server.handle(message).await),
                None => Err(TransportError::Unreachable(peer.address)),
            }
        })
    }
}

fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        address: format!("127.0.0.1:{id}"),
        name: String::new(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = std::env::args().nth(1).filter(|path| path != "-");
    let count: u64 = std::env::args()
        .nth(2)
        .map_or(1, |text| text.parse().unwrap());
    if let Some(directory) = &directory {
        bare_sync(Path::new(directory));
    }
    let begun = Instant::now();
    let wires = Wires::default();
    let mut servers = Vec::new();
    for id in 1..=count {
        let disk: Arc<dyn Disk> = match &directory {
            Some(directory) => {
                let path = Path::new(directory).join(id.to_string());
                Arc::new(RealDisk::open(&path).unwrap())
            }
            None => Arc::new(MemoryDisk::new()),
        };
        let config = Config {
            id,
            seed: id,
            ..Config::default()
        };
        let machine = Box::new(ListMachine::new());
        let consensus = Consensus::start(config, disk, machine, Arc::new(wires.clone()))
            .await
            .unwrap();
        let mut known = wires.servers.lock().unwrap();
        known.insert(id, consensus.clone());
        servers.push(consensus);
    }
    if !servers[0].initialized().await {
        let voters = (1..=count).map(peer).collect();
        servers[0].bootstrap(voters).await.unwrap();
    }
    let consensus = loop {
        let leader = servers
            .iter()
            .find(|server| server.leadership().borrow().is_leader);
        if let Some(leader) = leader {
            break leader.clone();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    consensus.propose(Bytes::from(vec![7; 64])).await.unwrap();
    println!("start to first write: {:?}", begun.elapsed());
    for (proposers, each) in [(1, 5_000), (64, 2_000), (256, 1_000)] {
        let messages = wires.messages.load(Ordering::Relaxed);
        let statuses: Vec<_> = servers.iter().map(Consensus::status).collect();
        let before = (Instant::now(), processor_time());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..proposers {
            let consensus = consensus.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..each {
                    let begun = Instant::now();
                    consensus.propose(Bytes::from(vec![7; 64])).await.unwrap();
                    times.push(begun.elapsed());
                }
                times
            });
        }
        let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
        times.sort();
        let count = u32::try_from(times.len()).unwrap();
        let (wall, processor) = (before.0.elapsed(), processor_time() - before.1);
        let messages = wires.messages.load(Ordering::Relaxed) - messages;
        let per_sync: Vec<u64> = servers
            .iter()
            .zip(&statuses)
            .map(|(server, before)| {
                let status = server.status();
                let entries = status.entries_written - before.entries_written;
                entries / (status.syncs - before.syncs).max(1)
            })
            .collect();
        println!(
            "{proposers} proposers: {:?} wall and {:?} processor each, p50 {:?}, p99 {:?}, {per_sync:?} entries a sync, \
             {:.2} messages each",
            wall / count,
            processor / count,
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            messages as f64 / f64::from(count),
        );
    }
    for server in servers {
        server.shutdown().await;
    }
}
