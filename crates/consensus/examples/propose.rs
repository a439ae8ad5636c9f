//! What a proposal costs: `cargo run --release -p consensus --example propose -- DIRECTORY`.
//!
//! Prints wall time and processor time per proposal of 64 bytes on one server, with 1 and with 64 proposers, beside a
//! bare append and sync of the same bytes. Without a directory the log is kept in memory.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on says where"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::ListMachine;
use consensus::{Config, Consensus, Disk, MemoryDisk, NoTransport, Peer, RealDisk};
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

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = std::env::args().nth(1);
    let disk: Arc<dyn Disk> = match &directory {
        Some(directory) => Arc::new(RealDisk::open(Path::new(directory)).unwrap()),
        None => Arc::new(MemoryDisk::new()),
    };
    if let Some(directory) = &directory {
        bare_sync(Path::new(directory));
    }
    let begun = Instant::now();
    let machine = Box::new(ListMachine::new());
    let consensus = Consensus::start(Config::default(), disk, machine, Arc::new(NoTransport))
        .await
        .unwrap();
    if !consensus.initialized().await {
        let me = Peer {
            id: consensus.id(),
            address: String::from("127.0.0.1:1"),
            name: String::new(),
        };
        consensus.bootstrap(vec![me]).await.unwrap();
    }
    consensus
        .leadership()
        .wait_for(|leadership| leadership.is_leader)
        .await
        .unwrap();
    consensus.propose(Bytes::from(vec![7; 64])).await.unwrap();
    println!("start to first write: {:?}", begun.elapsed());
    for (proposers, each) in [(1, 5_000), (64, 2_000), (256, 1_000)] {
        let before = (Instant::now(), processor_time(), consensus.status());
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
        let status = consensus.status();
        let entries = status.entries_written - before.2.entries_written;
        let syncs = (status.syncs - before.2.syncs).max(1);
        println!(
            "{proposers} proposers: {:?} wall and {:?} processor each, p50 {:?}, p99 {:?}, {} entries a sync",
            wall / count,
            processor / count,
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            entries / syncs,
        );
    }
    consensus.shutdown().await;
}
