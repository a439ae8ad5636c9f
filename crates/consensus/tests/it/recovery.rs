//! Members that an operator names anew, when a majority is lost for good.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::{Death, ListMachine, SimNetwork, Storage, Trace};
use consensus::{Config, Consensus, NodeId, Peer, StartError, State};
use tokio::time::{sleep, timeout};

fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        address: format!("10.0.0.{id}:8300"),
        name: format!("server-{id}"),
    }
}

fn config(id: NodeId) -> Config {
    Config {
        id,
        seed: id,
        checkpoint_entries: 32,
        trailing_entries: 4,
        first_segment_bytes: 8 << 10,
        segment_bytes: 8 << 10,
        ..Config::default()
    }
}

fn run<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(life)
}

async fn start(network: &SimNetwork, id: NodeId, storage: &Storage) -> (Consensus, ListMachine) {
    let machine = ListMachine::new();
    let disk = Arc::new(storage.attach());
    let transport = Arc::new(network.transport(id));
    let boxed = Box::new(machine.clone());
    let consensus = Consensus::start(config(id), disk, boxed, transport)
        .await
        .unwrap();
    network.connect(&consensus);
    (consensus, machine)
}

async fn recover(id: NodeId, storage: &Storage, voters: &[NodeId]) -> Result<(), StartError> {
    let voters = voters.iter().map(|id| peer(*id)).collect();
    Consensus::recover(&config(id), Arc::new(storage.attach()), voters).await
}

async fn leader(servers: &[&Consensus]) -> usize {
    let found = timeout(Duration::from_secs(30), async {
        loop {
            let leads = |server: &&Consensus| server.leadership().borrow().is_leader;
            if let Some(place) = servers.iter().position(leads) {
                return place;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.expect("nobody leads")
}

fn command(number: u64) -> Bytes {
    Bytes::from(vec![u8::try_from(number % 251).unwrap(); 40])
}

/// The disks of so many servers that were stopped after so many writes, of which the last has not seen the last few.
async fn stopped(network: &SimNetwork, count: u64, writes: u64, late: u64) -> Vec<Storage> {
    let mut storages = Vec::new();
    let mut servers = Vec::new();
    for id in 1..=count {
        let storage = Storage::new(&format!("disk {id}"), id, Trace::begin());
        servers.push(start(network, id, &storage).await.0);
        storages.push(storage);
    }
    let voters = (1..=count).map(peer).collect();
    servers[0].bootstrap(voters).await.unwrap();
    let all: Vec<&Consensus> = servers.iter().collect();
    let first = leader(&all).await;
    if first + 1 == servers.len() {
        servers[first].transfer_leadership(1).await.unwrap();
    }
    let first = leader(&all).await;
    for number in 0..writes {
        if number + late == writes {
            network.disconnect(count);
        }
        servers[first].propose(command(number)).await.unwrap();
    }
    for server in &servers {
        network.disconnect(server.id());
        server.shutdown().await;
    }
    storages
}

fn network() -> SimNetwork {
    SimNetwork::new(1, Trace::begin())
}

#[test]
fn one_server_that_is_left_goes_on_with_all_it_holds() {
    // With and without checkpoints, and members in the log behind them.
    for writes in [5, 100] {
        run(async {
            let network = network();
            let storages = stopped(&network, 3, writes, 0).await;
            let storage = &storages[0];
            let ours = config(1);
            let stored = Consensus::stored(&ours, Arc::new(storage.attach()));
            let stored = stored.await.unwrap();
            assert_eq!(stored.id, 1);
            assert_eq!(stored.members, [peer(1), peer(2), peer(3)]);
            assert!(stored.last_log_index >= writes);
            recover(1, storage, &[1]).await.unwrap();
            let again = Consensus::stored(&config(1), Arc::new(storage.attach())).await;
            assert_eq!(again.unwrap().members, [peer(1)]);
            for life in 0..3 {
                let (consensus, machine) = start(&network, 1, storage).await;
                leader(&[&consensus]).await;
                consensus.propose(command(life)).await.unwrap();
                assert_eq!(machine.commands().len() as u64, writes + life + 1);
                let status = consensus.status();
                assert_eq!(status.voters, [peer(1)]);
                assert_eq!(status.learners, []);
                if life == 1 {
                    // It becomes three again, with servers that know nothing.
                    let (two, copy) =
                        start(&network, 4, &Storage::new("new", 4, Trace::begin())).await;
                    consensus.add_learner(peer(4)).await.unwrap();
                    consensus.change_voters([1, 4].into()).await.unwrap();
                    sleep(Duration::from_secs(1)).await;
                    assert_eq!(copy.commands(), machine.commands());
                    assert_eq!(two.status().voters, [peer(1), peer(4)]);
                    assert_eq!(two.status().state, State::Follower);
                    consensus.change_voters([1].into()).await.unwrap();
                    two.shutdown().await;
                }
                network.disconnect(1);
                consensus.shutdown().await;
            }
        });
    }
}

#[test]
fn of_several_that_are_left_the_one_that_holds_most_decides() {
    run(async {
        let network = network();
        let storages = stopped(&network, 5, 80, 60).await;
        // The last of them missed most.
        for id in [2, 5] {
            let storage = &storages[usize::try_from(id).unwrap() - 1];
            recover(id, storage, &[2, 5]).await.unwrap();
        }
        let (two, complete) = start(&network, 2, &storages[1]).await;
        let (five, late) = start(&network, 5, &storages[4]).await;
        let leader = leader(&[&two, &five]).await;
        assert_eq!(leader, 0);
        two.propose(command(80)).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(complete.commands().len(), 81);
        assert_eq!(late.commands(), complete.commands());
        for server in [&two, &five] {
            assert_eq!(server.status().voters, [peer(2), peer(5)]);
            server.shutdown().await;
        }
    });
}

#[test]
fn one_that_is_named_votes_although_it_lost_the_end_of_its_log() {
    run(async {
        let network = network();
        let storages = stopped(&network, 3, 20, 0).await;
        assert!(storages[0].damage_newest_record());
        for (id, storage) in [(1, &storages[0]), (2, &storages[1])] {
            recover(id, storage, &[1, 2]).await.unwrap();
        }
        assert_eq!(storages[0].read("lost-tail"), None);
        let (one, torn) = start(&network, 1, &storages[0]).await;
        let (two, whole) = start(&network, 2, &storages[1]).await;
        // Neither is elected without the vote of the other.
        let servers = [&one, &two];
        let leader = leader(&servers).await;
        servers[leader].propose(command(20)).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(whole.commands().len(), 21);
        assert_eq!(torn.commands(), whole.commands());
        for server in [&one, &two] {
            assert!(!server.status().tail_lost);
            server.shutdown().await;
        }
    });
}

#[test]
fn a_recovery_that_makes_no_sense_changes_nothing() {
    run(async {
        let network = network();
        let storages = stopped(&network, 3, 5, 0).await;
        let empty = Storage::new("empty", 1, Trace::begin());
        let cases = [
            (1, &storages[0], vec![], "between 1 and 64"),
            (1, &storages[0], vec![2, 3], "none of them"),
            (1, &storages[0], vec![1, 2, 2], "named twice"),
            (9, &empty, vec![9], "never was a member"),
        ];
        for (id, storage, voters, expected) in cases {
            let error = recover(id, storage, &voters).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(storages[0].read("recovered"), None);
        assert_eq!(consensus::Disk::list(&empty.attach()).unwrap(), [""; 0]);
    });
}

#[test]
fn a_recovery_that_ends_anywhere_leaves_the_old_members_or_the_new() {
    let before = run(async {
        let storages = stopped(&network(), 3, 100, 0).await;
        storages[0].fork()
    });
    let deaths = [
        Death::Killed,
        Death::PowerLost { may_tear: false },
        Death::PowerLost { may_tear: true },
    ];
    for death in deaths {
        let (mut old, mut new) = (0, 0);
        for changes in 0.. {
            let lived = run(async {
                let storage = before.fork();
                storage.die_after(changes, death);
                let outcome = recover(1, &storage, &[1]).await;
                if storage.is_to_die() {
                    outcome.unwrap();
                    return true;
                }
                let network = network();
                let (consensus, machine) = start(&network, 1, &storage).await;
                sleep(Duration::from_secs(10)).await;
                let status = consensus.status();
                if status.voters.len() == 1 {
                    new += 1;
                    assert!(consensus.leadership().borrow().is_leader);
                    assert_eq!(machine.commands().len(), 100);
                } else {
                    old += 1;
                    assert_eq!(status.voters.len(), 3);
                    assert!(!consensus.leadership().borrow().is_leader);
                }
                network.disconnect(1);
                consensus.shutdown().await;
                // The operator does it again.
                recover(1, &storage, &[1]).await.unwrap();
                let (consensus, machine) = start(&network, 1, &storage).await;
                leader(&[&consensus]).await;
                consensus.read_barrier().await.unwrap();
                assert_eq!(machine.commands().len(), 100, "before change {changes}");
                consensus.shutdown().await;
                false
            });
            if lived {
                break;
            }
        }
        assert!(old > 5 && new > 0, "{death:?}: {old} old, {new} new");
    }
}
