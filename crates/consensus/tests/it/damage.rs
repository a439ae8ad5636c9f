//! What a server does with a damaged directory, and with a disk that fails under it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::{Death, DiskFault, Ledger, ListMachine, Storage, Trace};
use consensus::{
    Committed, Config, Consensus, Frozen, MachineError, MembershipError, NoTransport, Peer,
    ProposeError, Reply, StartError, State, StateMachine,
};

fn run<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(life)
}

fn config() -> Config {
    Config {
        first_segment_bytes: 8 << 10,
        segment_bytes: 8 << 10,
        trailing_entries: 0,
        ..Config::default()
    }
}

async fn start(storage: &Storage) -> Result<(Consensus, ListMachine), StartError> {
    let machine = ListMachine::new();
    let disk = Arc::new(storage.attach());
    let consensus = Consensus::start(
        config(),
        disk,
        Box::new(machine.clone()),
        Arc::new(NoTransport),
    )
    .await?;
    Ok((consensus, machine))
}

async fn bootstrap(consensus: &Consensus) -> Result<(), MembershipError> {
    let me = Peer {
        id: consensus.id(),
        address: String::from("10.0.0.1:1"),
        name: String::from("one"),
    };
    consensus.bootstrap(vec![me]).await
}

async fn lead(consensus: &Consensus) {
    if !consensus.initialized().await {
        bootstrap(consensus).await.unwrap();
    }
    consensus
        .leadership()
        .wait_for(|leadership| leadership.is_leader)
        .await
        .unwrap();
}

fn command(number: u8) -> Bytes {
    Bytes::from(vec![number + 1; 12])
}

fn commands(machine: &ListMachine) -> Vec<Bytes> {
    machine
        .commands()
        .iter()
        .map(|(_, command)| command.clone())
        .collect()
}

/// A directory with five commands, each a group of its own, as a crash right after the last leaves it.
fn storage_with_five() -> Storage {
    run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        storage.set_sync_delay_max(Duration::ZERO);
        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        for number in 0..5 {
            consensus.propose(command(number)).await.unwrap();
        }
        let crashed = storage.fork();
        consensus.shutdown().await;
        crashed
    })
}

const SEGMENT: &str = "log-0000000000000001";

/// Where the record of a command begins and ends.
fn record(storage: &Storage, number: u8) -> (usize, usize) {
    let bytes = storage.read(SEGMENT).unwrap();
    let payload = bytes
        .windows(12)
        .position(|window| window == command(number))
        .unwrap();
    (payload - 32, payload + 16)
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Keeps(usize),
    Refuses { offset: u64 },
}

fn outcome(storage: &Storage) -> Outcome {
    run(async {
        match start(storage).await {
            Ok((consensus, machine)) => {
                lead(&consensus).await;
                consensus.propose(command(9)).await.unwrap();
                let mut found = commands(&machine);
                assert_eq!(found.pop(), Some(command(9)));
                let expected: Vec<Bytes> = (0..5).map(command).take(found.len()).collect();
                assert_eq!(found, expected);
                consensus.shutdown().await;
                // What was cut off once is settled.
                let (consensus, machine) = start(storage).await.unwrap();
                lead(&consensus).await;
                consensus.read_barrier().await.unwrap();
                assert_eq!(commands(&machine).len(), found.len() + 1);
                consensus.shutdown().await;
                Outcome::Keeps(found.len())
            }
            Err(StartError::Damaged {
                file,
                offset,
                reason,
                ..
            }) => {
                assert_eq!(file, SEGMENT);
                assert!(!reason.is_empty());
                Outcome::Refuses { offset }
            }
            Err(error) => panic!("{error}"),
        }
    })
}

#[test]
fn a_single_server_cuts_off_a_damaged_last_record() {
    let storage = storage_with_five();
    assert_eq!(outcome(&storage.fork()), Outcome::Keeps(5));
    let (from, to) = record(&storage, 4);
    for at in from..to {
        let damaged = storage.fork();
        assert!(damaged.damage(SEGMENT, at, 0x10));
        assert_eq!(
            outcome(&damaged),
            Outcome::Keeps(4),
            "byte {at} of {from}..{to}"
        );
    }
}

#[test]
fn a_server_refuses_to_start_with_damage_before_the_end() {
    let storage = storage_with_five();
    let (from, to) = record(&storage, 2);
    for at in from..to {
        let damaged = storage.fork();
        assert!(damaged.damage(SEGMENT, at, 0x10));
        assert_eq!(
            outcome(&damaged),
            Outcome::Refuses {
                offset: from as u64
            },
            "byte {at} of {from}..{to}"
        );
    }
}

#[test]
fn a_log_that_was_cut_off_keeps_what_is_before_the_cut() {
    let storage = storage_with_five();
    let ends: Vec<usize> = (0..5)
        .map(|number| record(&storage, number).1 - 4)
        .collect();
    let (from, _) = record(&storage, 3);
    for length in from..storage.read(SEGMENT).unwrap().len().min(ends[4] + 100) {
        let cut = storage.fork();
        assert!(cut.truncate(SEGMENT, length));
        let kept = ends.iter().filter(|end| **end <= length).count();
        assert_eq!(
            outcome(&cut),
            Outcome::Keeps(kept),
            "cut at {length}, records end at {ends:?}"
        );
    }
}

#[test]
fn damage_is_named_with_file_offset_and_remedy() {
    let storage = storage_with_five();
    assert!(storage.damage(SEGMENT, 70, 1));
    let error = run(async { start(&storage).await.err().unwrap().to_string() });
    assert!(
        error.contains("disk/log-0000000000000001 is damaged at offset 64"),
        "{error}"
    );
    assert!(error.contains("new member"), "{error}");
}

#[test]
fn a_damaged_vote_or_identity_is_refused() {
    for file in ["vote", "identity"] {
        let storage = storage_with_five();
        for at in 0..storage.read(file).unwrap().len() {
            let damaged = storage.fork();
            assert!(damaged.damage(file, at, 2));
            let error = run(async { start(&damaged).await.err() });
            assert!(
                matches!(error, Some(StartError::Damaged { .. })),
                "byte {at} of {file}: {error:?}"
            );
        }
    }
}

fn checkpoint_names(storage: &Storage) -> Vec<String> {
    let names = consensus::Disk::list(&storage.attach()).unwrap();
    let checkpoints = names.into_iter();
    checkpoints
        .filter(|name| name.starts_with("checkpoint"))
        .collect()
}

#[test]
fn a_log_that_is_whole_stands_in_for_a_damaged_checkpoint() {
    let storage = run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        for number in 0..60 {
            consensus.propose(command(number)).await.unwrap();
        }
        consensus.checkpoint().await.unwrap();
        consensus.propose(command(60)).await.unwrap();
        consensus.shutdown().await;
        storage.fork()
    });
    let names = checkpoint_names(&storage);
    assert_eq!(names.len(), 1);
    let length = storage.read(&names[0]).unwrap().len();
    for at in (0..length).step_by(23) {
        let damaged = storage.fork();
        assert!(damaged.damage(&names[0], at, 4));
        for count in [61, 62_u8] {
            run(async {
                let (consensus, machine) = start(&damaged).await.unwrap();
                lead(&consensus).await;
                consensus.read_barrier().await.unwrap();
                assert_eq!(commands(&machine).len(), usize::from(count), "byte {at}");
                consensus.propose(command(count)).await.unwrap();
                consensus.checkpoint().await.unwrap();
                consensus.shutdown().await;
            });
        }
    }
}

/// A directory with two checkpoints and a log that goes back to the older one.
fn storage_with_checkpoints() -> (Storage, Vec<String>) {
    run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        for number in 0..60 {
            consensus.propose(command(number)).await.unwrap();
            if number % 20 == 19 {
                consensus.checkpoint().await.unwrap();
            }
        }
        for number in 60..70 {
            consensus.propose(command(number)).await.unwrap();
        }
        consensus.shutdown().await;
        let checkpoints = checkpoint_names(&storage);
        assert_eq!(checkpoints.len(), 2);
        (storage.fork(), checkpoints)
    })
}

#[test]
fn the_older_checkpoint_stands_in_for_a_damaged_one() {
    let (storage, checkpoints) = storage_with_checkpoints();
    let length = storage.read(&checkpoints[1]).unwrap().len();
    for at in (0..length).step_by(17) {
        let damaged = storage.fork();
        assert!(damaged.damage(&checkpoints[1], at, 0x40));
        run(async {
            let (consensus, machine) = start(&damaged).await.unwrap();
            lead(&consensus).await;
            consensus.read_barrier().await.unwrap();
            assert_eq!(commands(&machine).len(), 70, "byte {at}");
            consensus.shutdown().await;
        });
    }
    // The damaged one takes the place of no good one: the next can be damaged as well.
    let damaged = storage.fork();
    assert!(damaged.damage(&checkpoints[1], 30, 1));
    for number in 70..73 {
        run(async {
            let (consensus, machine) = start(&damaged).await.unwrap();
            lead(&consensus).await;
            consensus.read_barrier().await.unwrap();
            assert_eq!(commands(&machine).len(), usize::from(number));
            consensus.propose(command(number)).await.unwrap();
            consensus.checkpoint().await.unwrap();
            consensus.shutdown().await;
        });
        let names = checkpoint_names(&damaged);
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&String::from("checkpoint.damaged")));
        assert!(names.contains(&checkpoints[0]) || number > 70);
        assert!(damaged.damage(&names[1], 30, 1));
    }
}

#[test]
fn a_log_that_ends_before_a_damaged_checkpoint_does_not_stand_in_for_it() {
    let storage = storage_with_five();
    let name = "checkpoint-0000000000000063-0000000000000001";
    let disk = storage.attach();
    let file = consensus::Disk::create(&disk, name).unwrap();
    file.write_at(0, b"what a leader sent").unwrap();
    let error = run(async { start(&storage).await.err() });
    match error {
        Some(StartError::Damaged { file, .. }) => assert_eq!(file, name),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_good_checkpoint_a_log_that_was_dropped_is_refused() {
    let storage = run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        for number in 0..60 {
            let command = Bytes::from(vec![number; 1000]);
            consensus.propose(command).await.unwrap();
            if number % 20 == 19 {
                consensus.checkpoint().await.unwrap();
            }
        }
        consensus.shutdown().await;
        storage.fork()
    });
    assert_eq!(storage.read(SEGMENT), None);
    let names = checkpoint_names(&storage);
    assert_eq!(names.len(), 2);
    for name in &names {
        assert!(storage.damage(name, 30, 1));
    }
    let error = run(async { start(&storage).await.err() });
    assert!(
        matches!(error, Some(StartError::Damaged { .. })),
        "{error:?}"
    );
    // Nothing is set aside that somebody may still want to repair.
    assert_eq!(checkpoint_names(&storage), names);
}

#[test]
fn a_failed_sync_ends_the_server_and_promises_nothing() {
    for fault in [DiskFault::SyncFails, DiskFault::Full] {
        run(async {
            let storage = Storage::new("disk", 1, Trace::begin());
            let (consensus, _) = start(&storage).await.unwrap();
            lead(&consensus).await;
            consensus.propose(command(0)).await.unwrap();
            storage.set_fault(fault);
            assert_eq!(
                consensus.propose(command(1)).await.err(),
                Some(ProposeError::OutcomeUnknown)
            );
            storage.set_fault(DiskFault::None);
            // It isn't tried again, though the disk would work now.
            assert!(consensus.propose(command(2)).await.is_err());
            let status = consensus.status();
            assert_eq!(status.state, State::Stopped);
            assert!(status.failure.is_some());
            assert!(!consensus.has_lease());
            assert!(consensus.failed().await.contains("the log"));
            consensus.shutdown().await;
        });
    }
}

#[test]
fn who_waits_for_a_failure_is_told_of_failures_only() {
    run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        let (reason, ()) = tokio::join!(consensus.failed(), async {
            consensus.propose(command(0)).await.unwrap();
            storage.set_fault(DiskFault::SyncFails);
            let _ = consensus.propose(command(1)).await;
        });
        assert!(reason.contains("the simulated disk fails"), "{reason}");
        consensus.shutdown().await;
        storage.crash(false);

        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        let wait = Duration::from_secs(60);
        let early = tokio::time::timeout(wait, consensus.failed()).await;
        assert!(early.is_err(), "{early:?}");
        let (during, ()) = tokio::join!(
            tokio::time::timeout(wait, consensus.failed()),
            consensus.shutdown()
        );
        assert!(during.is_err(), "{during:?}");
        let late = tokio::time::timeout(wait, consensus.failed()).await;
        assert!(late.is_err(), "{late:?}");
    });
}

#[test]
fn a_machine_that_cannot_go_on_is_a_failure() {
    run(async {
        let trace = Trace::begin();
        let storage = Storage::new("disk", 1, trace.clone());
        let ledger = Ledger::new(trace);
        let other = ListMachine::with_ledger(ledger.clone());
        let disk = Arc::new(Storage::new("other", 2, Trace::begin()).attach());
        let network = Arc::new(NoTransport);
        let first = Consensus::start(config(), disk, Box::new(other), network.clone()).await;
        let first = first.unwrap();
        lead(&first).await;
        first.propose(command(0)).await.unwrap();
        // Another history, which the ledger doesn't take.
        let machine = ListMachine::with_ledger(ledger);
        let disk = Arc::new(storage.attach());
        let consensus = Consensus::start(config(), disk, Box::new(machine), network).await;
        let consensus = consensus.unwrap();
        lead(&consensus).await;
        let _ = consensus.propose(command(1)).await;
        assert!(consensus.failed().await.contains("disagree"));
        consensus.shutdown().await;
        first.shutdown().await;
    });
}

/// A whole first start, as far as it gets.
async fn first_start(storage: &Storage) {
    let Ok((consensus, _)) = start(storage).await else {
        return;
    };
    let patience = Duration::from_secs(5);
    let first_write = async {
        if bootstrap(&consensus).await.is_ok() {
            let mut leadership = consensus.leadership();
            let led = leadership.wait_for(|leadership| leadership.is_leader);
            if led.await.is_ok() {
                let _ = consensus.propose(command(0)).await;
            }
        }
    };
    let _ = tokio::time::timeout(patience, first_write).await;
    consensus.shutdown().await;
}

/// Starts again with the order to bootstrap, as an operator would, and writes.
async fn second_start(storage: &Storage) {
    let (consensus, _) = start(storage).await.unwrap();
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, lead(&consensus))
        .await
        .expect("nobody is ever elected");
    consensus.propose(command(1)).await.unwrap();
    consensus.shutdown().await;
}

#[test]
fn a_first_start_that_ends_anywhere_can_be_repeated() {
    let deaths = [
        Death::Killed,
        Death::PowerLost { may_tear: false },
        Death::PowerLost { may_tear: true },
    ];
    for death in deaths {
        for seed in 0..4 {
            let mut changes = 0;
            loop {
                let lived = run(async {
                    let storage = Storage::new("disk", seed, Trace::begin());
                    storage.die_after(changes, death);
                    first_start(&storage).await;
                    if storage.is_to_die() {
                        return true;
                    }
                    println!("{death:?} before change {changes}, seed {seed}");
                    second_start(&storage).await;
                    false
                });
                if lived {
                    break;
                }
                changes += 1;
            }
            assert!(changes > 15, "only {changes} changes");
        }
    }
}

#[test]
fn a_vote_without_the_members_it_was_given_by_is_no_dead_end() {
    // Earlier releases could leave a directory with the vote for itself and an empty log.
    run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        let (consensus, _) = start(&storage).await.unwrap();
        consensus.shutdown().await;
        let empty = storage.fork();
        let (consensus, _) = start(&storage).await.unwrap();
        lead(&consensus).await;
        consensus.shutdown().await;
        let vote = storage.read("vote").unwrap();
        assert_ne!(empty.read("vote").unwrap(), vote);
        let disk = empty.attach();
        let file = consensus::Disk::create(&disk, "vote").unwrap();
        file.write_at(0, &vote).unwrap();
        second_start(&empty).await;
    });
}

/// Its state can be frozen but not written: the disk is full after a part of it.
struct TooLarge;

impl StateMachine for TooLarge {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Reply>, MachineError> {
        Ok(batch.iter().map(|_| -> Reply { Box::new(()) }).collect())
    }

    fn freeze(&mut self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(Self))
    }

    fn install(&mut self, _source: &mut dyn io::Read) -> Result<(), MachineError> {
        Ok(())
    }
}

impl Frozen for TooLarge {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&[1; 300_000])?;
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[test]
fn half_a_checkpoint_takes_no_room_from_the_log() {
    run(async {
        let storage = Storage::new("disk", 1, Trace::begin());
        let disk = Arc::new(storage.attach());
        let machine = Box::new(TooLarge);
        let consensus = Consensus::start(config(), disk, machine, Arc::new(NoTransport));
        let consensus = consensus.await.unwrap();
        lead(&consensus).await;
        consensus.propose(command(0)).await.unwrap();
        let error = consensus.checkpoint().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let names = consensus::Disk::list(&storage.attach()).unwrap();
        assert!(
            !names.iter().any(|name| name.starts_with("checkpoint")),
            "{names:?}"
        );
        // The server goes on.
        consensus.propose(command(1)).await.unwrap();
        consensus.shutdown().await;
    });
}

#[test]
fn decoders_take_anything() {
    use consensus::{
        decode_checkpoint, decode_message, decode_records, decode_segment, decode_small,
    };
    let (storage, checkpoints) = storage_with_checkpoints();
    let files: Vec<Vec<u8>> = checkpoints
        .iter()
        .map(String::as_str)
        .chain(["vote", "identity"])
        .map(|name| storage.read(name).unwrap())
        .chain([storage_with_five().read(SEGMENT).unwrap()])
        .collect();
    for bytes in &files {
        for at in 0..bytes.len().min(700) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x81;
            for bytes in [&flipped[..], &bytes[..at], &bytes[at..]] {
                decode_segment(bytes);
                decode_records(bytes);
                decode_checkpoint(bytes);
                decode_message(bytes);
                decode_small(bytes);
            }
        }
    }
    assert_eq!(decode_segment(&files[4]), Some(7));
    assert!(decode_checkpoint(&files[0]).unwrap() > 20 * 12);
    assert!(decode_small(&files[2]));
}
