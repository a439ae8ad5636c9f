//! One server, a real disk, real time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::ListMachine;
use consensus::{
    Committed, Config, Consensus, Disk, Frozen, MachineError, MemoryDisk, NoTransport, Payload,
    Peer, ProposeError, RealDisk, Reply, StartError, State, StateMachine,
};

fn config() -> Config {
    Config {
        id: 7,
        name: String::from("alone"),
        seed: 1,
        ..Config::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn start(disk: Arc<dyn Disk>, config: Config) -> (Consensus, ListMachine) {
    let machine = ListMachine::new();
    let consensus = Consensus::start(
        config,
        disk,
        Box::new(machine.clone()),
        Arc::new(NoTransport),
    )
    .await
    .unwrap();
    (consensus, machine)
}

fn me(consensus: &Consensus) -> Peer {
    Peer {
        id: consensus.id(),
        address: String::from("127.0.0.1:8300"),
        name: String::from("alone"),
    }
}

async fn lead(consensus: &Consensus) {
    let mut leadership = consensus.leadership();
    leadership
        .wait_for(|leadership| leadership.is_leader)
        .await
        .unwrap();
}

fn command(number: u64) -> Bytes {
    Bytes::from(format!("command {number}"))
}

#[test]
fn a_single_server_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..4_u64 {
        runtime().block_on(async {
            let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
            let (consensus, machine) = start(disk, config()).await;
            assert_eq!(consensus.initialized().await, round > 0);
            if round == 0 {
                consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
            }
            lead(&consensus).await;
            for number in 0..10 {
                let proposed = consensus
                    .propose(command(round * 10 + number))
                    .await
                    .unwrap();
                let count = *proposed.reply.downcast::<u64>().unwrap();
                assert_eq!(count, round * 10 + number + 1);
            }
            consensus.read_barrier().await.unwrap();
            assert!(consensus.has_lease());
            let commands: Vec<Bytes> = machine
                .commands()
                .iter()
                .map(|(_, command)| command.clone())
                .collect();
            let expected: Vec<Bytes> = (0..(round + 1) * 10).map(command).collect();
            assert_eq!(commands, expected);
            let status = consensus.status();
            assert_eq!(status.state, State::Leader);
            // A leader never goes on in its old term: followers may hold entries of it that were lost here.
            assert_eq!(status.term, round + 1);
            assert_eq!(status.applied_index, status.last_log_index);
            assert_eq!(status.voters, vec![me(&consensus)]);
            consensus.shutdown().await;
            assert!(matches!(
                consensus.propose(command(0)).await,
                Err(ProposeError::Stopped)
            ));
        });
    }
}

#[test]
fn the_first_write_is_accepted_within_a_tenth_of_a_second() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let begun = tokio::time::Instant::now();
        let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
        let (consensus, _) = start(disk, config()).await;
        consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
        lead(&consensus).await;
        consensus.propose(command(1)).await.unwrap();
        let taken = begun.elapsed();
        println!("start to first write: {taken:?}");
        // The promise is 100 ms on a quiet machine; this only tells an election timeout from none.
        assert!(taken < config().election_timeout_min, "{taken:?}");
        consensus.shutdown().await;
    });
}

#[test]
fn entries_share_syncs_when_many_propose() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
        let (consensus, machine) = start(disk, config()).await;
        consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
        lead(&consensus).await;
        consensus.propose(command(0)).await.unwrap();
        let before = consensus.status();
        let mut proposers = tokio::task::JoinSet::new();
        for proposer in 0..64 {
            let consensus = consensus.clone();
            proposers.spawn(async move {
                for number in 0..50 {
                    consensus
                        .propose(command(proposer * 1000 + number))
                        .await
                        .unwrap();
                }
            });
        }
        while let Some(done) = proposers.join_next().await {
            done.unwrap();
        }
        let after = consensus.status();
        let entries = after.entries_written - before.entries_written;
        let syncs = after.syncs - before.syncs;
        assert_eq!(entries, 64 * 50);
        println!(
            "{entries} entries in {syncs} syncs, {} batches applied",
            machine.batches()
        );
        assert!(entries >= 2 * syncs, "{entries} entries in {syncs} syncs");
        consensus.shutdown().await;
    });
}

#[test]
fn a_data_directory_is_used_by_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
        let (consensus, _) = start(disk, config()).await;
        let other = Arc::new(RealDisk::open(directory.path()).unwrap());
        let refused = Consensus::start(
            config(),
            other,
            Box::new(ListMachine::new()),
            Arc::new(NoTransport),
        )
        .await;
        assert!(matches!(refused, Err(StartError::InUse(_))), "{refused:?}");
        consensus.shutdown().await;
    });
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let disk = Arc::new(MemoryDisk::new());
    runtime().block_on(async {
        let (consensus, _) = start(disk.clone(), config()).await;
        consensus.shutdown().await;
        let other = Config {
            cluster: String::from("other"),
            id: 8,
            ..config()
        };
        let refused = Consensus::start(
            other,
            disk.clone(),
            Box::new(ListMachine::new()),
            Arc::new(NoTransport),
        )
        .await;
        assert!(
            matches!(refused, Err(StartError::Foreign { .. })),
            "{refused:?}"
        );
        // The directory keeps the id it was made with.
        let (consensus, _) = start(disk, Config { id: 9, ..config() }).await;
        assert_eq!(consensus.id(), 7);
        consensus.shutdown().await;
    });
}

#[test]
fn checkpoints_let_the_log_be_dropped_and_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let config = || Config {
        checkpoint_entries: 64,
        trailing_entries: 16,
        first_segment_bytes: 8 << 10,
        segment_bytes: 8 << 10,
        ..config()
    };
    let mut all = Vec::new();
    for round in 0..3_u64 {
        runtime().block_on(async {
            let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
            let (consensus, machine) = start(disk, config()).await;
            if round == 0 {
                consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
            }
            lead(&consensus).await;
            for number in 0..500 {
                let command = command(round * 1000 + number);
                consensus.propose(command.clone()).await.unwrap();
                all.push(command);
            }
            consensus.checkpoint().await.unwrap();
            let status = consensus.status();
            assert_eq!(status.last_checkpoint_index, status.applied_index);
            let commands: Vec<Bytes> = machine
                .commands()
                .iter()
                .map(|(_, command)| command.clone())
                .collect();
            assert!(commands == all);
            consensus.shutdown().await;
        });
        let names = files(directory.path());
        let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!(count("checkpoint-"), 2, "{names:?}");
        assert!(count("log-") <= 6, "{names:?}");
    }
}

fn files(path: &std::path::Path) -> Vec<String> {
    let names = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn a_machine_that_says_not_now_postpones_the_checkpoint() {
    runtime().block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let (consensus, machine) = start(
            disk.clone(),
            Config {
                checkpoint_entries: 16,
                ..config()
            },
        )
        .await;
        consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
        lead(&consensus).await;
        machine.refuse_to_freeze(true);
        for number in 0..100 {
            consensus.propose(command(number)).await.unwrap();
        }
        consensus.checkpoint().await.unwrap();
        assert_eq!(consensus.status().last_checkpoint_index, 0);
        machine.refuse_to_freeze(false);
        for number in 0..100 {
            consensus.propose(command(number)).await.unwrap();
        }
        consensus.checkpoint().await.unwrap();
        assert!(consensus.status().last_checkpoint_index > 100);
        consensus.shutdown().await;
    });
}

#[test]
fn a_write_in_memory_takes_little_time() {
    runtime().block_on(async {
        let (consensus, _) = start(Arc::new(MemoryDisk::new()), config()).await;
        consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
        lead(&consensus).await;
        let wait = Duration::from_secs(30);
        let all = async {
            for number in 0..1000 {
                consensus.propose(command(number)).await.unwrap();
            }
        };
        tokio::time::timeout(wait, all).await.unwrap();
        consensus.shutdown().await;
    });
}

/// Waits for what follows of itself; how long that takes is the disk's business.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(1));
        while !is_so() {
            looks.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    waited.unwrap_or_else(|_| panic!("it never comes to that: {what}"));
}

/// Bytes of all segments of the log.
fn log_bytes(disk: &dyn Disk) -> u64 {
    let names = disk.list().unwrap();
    let segments = names.iter().filter(|name| name.starts_with("log-"));
    segments
        // One may be dropped between the two calls.
        .filter_map(|name| disk.open(name).ok())
        .map(|file| file.len().unwrap())
        .sum()
}

fn count(disk: &dyn Disk, prefix: &str) -> usize {
    let names = disk.list().unwrap();
    names.iter().filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn large_writes_do_not_make_the_log_grow_for_ever() {
    const STEP: u64 = 1 << 20;
    const COMMAND: u64 = 32 << 10;
    let directory = tempfile::tempdir().unwrap();
    let disks: [(Arc<dyn Disk>, u64, usize); 2] = [
        // From one checkpoint to the next.
        (Arc::new(MemoryDisk::new()), 1, 1),
        // From the older checkpoint to the newer, and to the next.
        (Arc::new(RealDisk::open(directory.path()).unwrap()), 2, 2),
    ];
    for (disk, steps, checkpoints) in disks {
        runtime().block_on(async {
            let config = Config {
                checkpoint_bytes: STEP,
                first_segment_bytes: 64 << 10,
                segment_bytes: 256 << 10,
                cache_bytes: 64 << 10,
                ..config()
            };
            let machine = Box::new(LastMachine::default());
            let network = Arc::new(NoTransport);
            let consensus = Consensus::start(config, Arc::clone(&disk), machine, network);
            let consensus = consensus.await.unwrap();
            consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
            lead(&consensus).await;
            for round in 0..20_u64 {
                let before = consensus.status().last_checkpoint_index;
                // A little more than a step, so that a checkpoint is due. While it is made nothing holds up who writes, so
                // what is written in the meantime depends on the disk alone: here nothing is.
                for number in 0..=STEP / COMMAND {
                    let mut command = vec![0; 32 << 10];
                    command[..8].copy_from_slice(&(round << 32 | number).to_le_bytes());
                    consensus.propose(Bytes::from(command)).await.unwrap();
                }
                // What is behind the newest checkpoint, and the segments that are cut nowhere.
                until("the log is short again", || {
                    consensus.status().last_checkpoint_index > before
                        && log_bytes(&*disk) < (steps + 2) * STEP
                        && (round == 0 || count(&*disk, "checkpoint-") == checkpoints)
                })
                .await;
            }
            consensus.shutdown().await;
        });
    }
}

/// Keeps the last command alone.
#[derive(Default)]
struct LastMachine {
    last: Bytes,
}

impl StateMachine for LastMachine {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Reply>, MachineError> {
        let mut replies: Vec<Reply> = Vec::new();
        for entry in batch {
            if let Payload::Command(command) = entry.payload {
                self.last = command;
            }
            replies.push(Box::new(()));
        }
        Ok(replies)
    }

    fn freeze(&mut self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(Self {
            last: self.last.clone(),
        }))
    }

    fn install(&mut self, source: &mut dyn io::Read) -> Result<(), MachineError> {
        let mut last = Vec::new();
        let read = source.read_to_end(&mut last);
        read.map_err(|error| MachineError::new(error.to_string()))?;
        self.last = Bytes::from(last);
        Ok(())
    }
}

impl Frozen for LastMachine {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.last)
    }
}

#[test]
fn a_checkpoint_is_made_on_a_quiet_server_as_soon_as_the_machine_agrees() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(async {
        let disk = Arc::new(MemoryDisk::new());
        let config = Config {
            checkpoint_bytes: 64 << 10,
            ..config()
        };
        let (consensus, machine) = start(disk.clone(), config).await;
        consensus.bootstrap(vec![me(&consensus)]).await.unwrap();
        lead(&consensus).await;
        machine.refuse_to_freeze(true);
        for _ in 0..3 {
            let command = Bytes::from(vec![1; 40 << 10]);
            consensus.propose(command).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(consensus.status().last_checkpoint_index, 0);
        machine.refuse_to_freeze(false);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = consensus.status();
        assert_eq!(status.last_checkpoint_index, status.applied_index);
        consensus.shutdown().await;
    });
}
