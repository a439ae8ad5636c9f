//! Members that come and go, on the simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::{DiskFault, ListMachine, SimNetwork, SimTransport, Storage, Trace};
use consensus::{
    Config, Consensus, MembershipError, NodeId, Peer, ProposeError, State, Transport,
    TransportFuture,
};
use tokio::time::{Instant, sleep, timeout};

fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        address: format!("10.0.0.{id}:8300"),
        name: format!("server-{id}"),
    }
}

struct World {
    network: SimNetwork,
    trace: Trace,
    /// The addresses at which members were called last.
    called: Arc<Mutex<BTreeMap<NodeId, String>>>,
}

/// Notes whom it calls where.
struct Noting {
    inner: SimTransport,
    called: Arc<Mutex<BTreeMap<NodeId, String>>>,
}

impl Transport for Noting {
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture {
        let mut called = self.called.lock().unwrap();
        called.insert(peer.id, peer.address.clone());
        self.inner.call(peer, message)
    }
}

/// A server and what it has applied and where its bytes are.
struct Place {
    consensus: Consensus,
    machine: ListMachine,
    storage: Storage,
}

impl World {
    fn config(id: NodeId) -> Config {
        Config {
            id,
            seed: id,
            checkpoint_entries: 32,
            trailing_entries: 4,
            ..Config::default()
        }
    }

    async fn start(&self, id: NodeId) -> (Consensus, ListMachine) {
        let place = self.place(id).await;
        (place.consensus, place.machine)
    }

    async fn place(&self, id: NodeId) -> Place {
        let storage = Storage::new("disk", id, self.trace.clone());
        self.start_on(id, storage).await
    }

    async fn start_on(&self, id: NodeId, storage: Storage) -> Place {
        let machine = ListMachine::new();
        let disk = Arc::new(storage.attach());
        let transport = Arc::new(Noting {
            inner: self.network.transport(id),
            called: Arc::clone(&self.called),
        });
        let boxed = Box::new(machine.clone());
        let consensus = Consensus::start(Self::config(id), disk, boxed, transport)
            .await
            .unwrap();
        self.network.connect(&consensus);
        Place {
            consensus,
            machine,
            storage,
        }
    }

    /// So many servers that vote, with their leader's place.
    async fn cluster(&self, count: u64) -> (Vec<Place>, usize) {
        let mut places = Vec::new();
        for id in 1..=count {
            places.push(self.place(id).await);
        }
        let voters = (1..=count).map(peer).collect();
        places[0].consensus.bootstrap(voters).await.unwrap();
        let leader = leader(&places, None).await;
        (places, leader)
    }
}

/// The place that leads, once one does, in a later term than this one.
async fn leader(places: &[Place], after: Option<u64>) -> usize {
    let patience = Duration::from_secs(30);
    let found = timeout(patience, async {
        loop {
            for (place, server) in places.iter().enumerate() {
                let leadership = server.consensus.leadership().borrow().clone();
                if leadership.is_leader && Some(leadership.term) > after {
                    return place;
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.expect("nobody leads")
}

fn ids(peers: &[Peer]) -> Vec<NodeId> {
    peers.iter().map(|peer| peer.id).collect()
}

async fn write(consensus: &Consensus, count: u64) {
    for number in 0..count {
        let command = Bytes::copy_from_slice(&number.to_le_bytes());
        consensus.propose(command).await.unwrap();
    }
}

fn run(life: impl AsyncFnOnce(World)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(async {
        let trace = Trace::begin();
        let network = SimNetwork::new(1, trace.clone());
        life(World {
            network,
            trace,
            called: Arc::default(),
        })
        .await;
    });
}

#[test]
fn a_server_becomes_three_and_one_again() {
    run(async |world| {
        let (one, _) = world.start(1).await;
        one.bootstrap(vec![peer(1)]).await.unwrap();
        assert_eq!(
            one.bootstrap(vec![peer(1)]).await,
            Err(MembershipError::AlreadyBootstrapped)
        );
        one.leadership()
            .wait_for(|leadership| leadership.is_leader)
            .await
            .unwrap();
        // Enough for the log to be dropped: the newcomers get a checkpoint.
        for number in 0..300_u64 {
            one.propose(Bytes::copy_from_slice(&number.to_le_bytes()))
                .await
                .unwrap();
        }
        let mut others = Vec::new();
        for id in [2, 3] {
            let (other, machine) = world.start(id).await;
            assert!(!other.initialized().await);
            one.add_learner(peer(id)).await.unwrap();
            // It holds everything; what it knows to be committed comes with the next message.
            while machine.commands().len() < 300 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            assert!(
                other.status().last_checkpoint_index > 0,
                "it was sent a checkpoint"
            );
            others.push((other, machine));
        }
        one.change_voters(BTreeSet::from([1, 2, 3])).await.unwrap();
        assert_eq!(one.status().voters, vec![peer(1), peer(2), peer(3)]);
        let refused = others[0].0.propose(Bytes::from_static(b"no")).await.err();
        assert_eq!(
            refused,
            Some(ProposeError::NotLeader {
                leader: Some(peer(1))
            })
        );
        one.read_barrier().await.unwrap();
        assert!(one.has_lease());
        assert!(!others[0].0.has_lease());

        one.transfer_leadership(2).await.unwrap();
        let two = others[0].0.clone();
        two.leadership()
            .wait_for(|leadership| leadership.is_leader)
            .await
            .unwrap();
        one.leadership()
            .wait_for(|leadership| leadership.leader == Some(peer(2)))
            .await
            .unwrap();
        two.propose(Bytes::from_static(b"from two")).await.unwrap();
        two.remove(1).await.unwrap();
        two.remove(3).await.unwrap();
        assert_eq!(two.status().voters, vec![peer(2)]);
        two.propose(Bytes::from_static(b"alone")).await.unwrap();
        assert_eq!(two.status().state, State::Leader);
        assert_eq!(others[0].1.commands().len(), 302);
    });
}

#[test]
fn a_message_for_another_server_is_refused() {
    run(async |world| {
        let (one, _) = world.start(1).await;
        let answer = one.handle(Bytes::from_static(b"nonsense")).await;
        assert!(String::from_utf8_lossy(&answer).contains("malformed message"));
        let mut message = vec![1];
        message.extend_from_slice(&2_u64.to_le_bytes());
        message.push(6);
        message.extend_from_slice(&3_u64.to_le_bytes());
        let answer = one.handle(Bytes::from(message)).await;
        assert!(String::from_utf8_lossy(&answer).contains("this is server 1, not 2"));
    });
}

#[test]
fn a_follower_knows_how_long_ago_it_heard_from_its_leader() {
    run(async |world| {
        let alone = world.place(9).await;
        assert_eq!(alone.consensus.last_contact(), None);
        let (places, leader) = world.cluster(3).await;
        sleep(Duration::from_secs(2)).await;
        let follower = (leader + 1) % 3;
        assert_eq!(
            places[leader].consensus.last_contact(),
            Some(Duration::ZERO)
        );
        let age = places[follower].consensus.last_contact().unwrap();
        assert!(age <= Duration::from_millis(170), "{age:?}");
        let (from, to) = (
            places[leader].consensus.id(),
            places[follower].consensus.id(),
        );
        world.network.cut(from, to);
        sleep(Duration::from_secs(3)).await;
        let age = places[follower].consensus.status().last_contact.unwrap();
        let expected = Duration::from_millis(2800)..Duration::from_millis(3200);
        assert!(expected.contains(&age), "{age:?}");
    });
}

#[test]
fn reads_that_wait_share_a_round() {
    run(async |world| {
        let (places, leader) = world.cluster(3).await;
        let consensus = &places[leader].consensus;
        write(consensus, 1).await;
        let before = consensus.status().barrier_rounds;
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let consensus = consensus.clone();
            reads.spawn(async move { consensus.read_barrier().await });
        }
        assert!(reads.join_all().await.iter().all(Result::is_ok));
        let rounds = consensus.status().barrier_rounds - before;
        // Who comes first is alone, all others share the second.
        assert!((1..=2).contains(&rounds), "{rounds} rounds");
    });
}

#[test]
fn a_member_that_moved_is_called_at_its_new_address() {
    run(async |world| {
        let (places, leader) = world.cluster(3).await;
        let moved = places[(leader + 1) % 3].consensus.id();
        let new = Peer {
            address: String::from("10.9.9.9:1"),
            ..peer(moved)
        };
        let consensus = &places[leader].consensus;
        consensus.update_peer(new.clone()).await.unwrap();
        assert!(consensus.status().voters.contains(&new));
        let written = consensus.status().last_log_index;
        consensus.update_peer(new.clone()).await.unwrap();
        assert_eq!(consensus.status().last_log_index, written);
        // Nobody knows this one.
        consensus.update_peer(peer(77)).await.unwrap();
        assert_eq!(consensus.status().last_log_index, written);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.called.lock().unwrap()[&moved], new.address);
        // The others use it as well when they stand for election.
        world.called.lock().unwrap().clear();
        let term = consensus.status().term;
        world.network.disconnect(consensus.id());
        consensus.shutdown().await;
        let next = self::leader(&places, Some(term)).await;
        let called = world.called.lock().unwrap().get(&moved).cloned();
        assert!(called == Some(new.address) || places[next].consensus.id() == moved);
    });
}

#[test]
fn a_server_that_lost_its_disk_is_replaced() {
    run(async |world| {
        let (mut places, leader) = world.cluster(3).await;
        let consensus = places[leader].consensus.clone();
        write(&consensus, 200).await;
        let gone = places.remove((leader + 1) % 3);
        let old = gone.consensus.id();
        world.network.disconnect(old);
        gone.consensus.shutdown().await;
        let (new, machine) = world.start(4).await;
        for _ in 0..2 {
            consensus.replace(old, peer(4)).await.unwrap();
            let status = consensus.status();
            assert!(!ids(&status.voters).contains(&old));
            assert!(ids(&status.voters).contains(&4) && status.voters.len() == 3);
            assert_eq!(status.learners, []);
        }
        let written = consensus.status().last_log_index;
        consensus.replace(old, peer(4)).await.unwrap();
        assert_eq!(consensus.status().last_log_index, written, "nothing to do");
        write(&consensus, 1).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(machine.commands().len(), 201);
        assert!(matches!(
            consensus.replace(consensus.id(), peer(5)).await,
            Err(MembershipError::Refused(_))
        ));
        new.shutdown().await;
    });
}

#[test]
fn members_are_changed_in_bounded_time_or_not_at_all() {
    run(async |world| {
        let (places, leader) = world.cluster(3).await;
        let consensus = &places[leader].consensus;
        // Nobody answers under this id.
        let begun = Instant::now();
        let behind = consensus.add_learner(peer(8)).await;
        assert!(
            matches!(behind, Err(MembershipError::Behind { id: 8, .. })),
            "{behind:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(60));
        consensus.remove(8).await.unwrap();
        consensus.remove(8).await.unwrap();
        // With one of three away, removing another would leave two of whom one answers.
        let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let (away, other) = (places[away].consensus.id(), places[other].consensus.id());
        world.network.disconnect(away);
        sleep(Duration::from_secs(2)).await;
        let refused = consensus.remove(other).await;
        assert!(
            matches!(refused, Err(MembershipError::Refused(_))),
            "{refused:?}"
        );
        assert_eq!(consensus.status().voters.len(), 3);
        consensus.remove(away).await.unwrap();
        assert_eq!(consensus.status().voters.len(), 2);
        let voters = BTreeSet::from([consensus.id(), other]);
        consensus.change_voters(voters).await.unwrap();
        write(consensus, 1).await;
        let follower = places
            .iter()
            .find(|place| place.consensus.id() == other)
            .unwrap();
        assert!(matches!(
            follower.consensus.remove(1).await,
            Err(MembershipError::NotLeader { leader: Some(_) })
        ));
        // A change without a majority ends, too.
        world.network.disconnect(other);
        let begun = Instant::now();
        assert!(consensus.force_remove(other).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn who_holds_most_takes_over() {
    run(async |world| {
        let (places, leader) = world.cluster(3).await;
        let consensus = &places[leader].consensus;
        let (late, near) = ((leader + 1) % 3, (leader + 2) % 3);
        let (from, to) = (consensus.id(), places[late].consensus.id());
        world.network.cut(from, to);
        write(consensus, 20).await;
        assert!(consensus.has_lease());
        let begun = Instant::now();
        let successor = consensus.transfer_to_any().await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(successor, places[near].consensus.id());
        assert!(!consensus.has_lease());
        assert_eq!(self::leader(&places, Some(1)).await, near);
        world.network.heal();
        // A server that answers nobody is not asked.
        let consensus = &places[near].consensus;
        write(consensus, 1).await;
        sleep(Duration::from_secs(2)).await;
        world.network.disconnect(to);
        sleep(Duration::from_secs(2)).await;
        assert!(matches!(
            consensus.transfer_leadership(to).await,
            Err(MembershipError::Refused(_))
        ));
        assert_eq!(consensus.transfer_to_any().await, Ok(from));
        assert!(matches!(
            consensus.transfer_to_any().await,
            Err(MembershipError::NotLeader { .. })
        ));
    });
}

#[test]
fn a_lease_ends_before_another_leads() {
    run(async |world| {
        let (places, leader) = world.cluster(3).await;
        let consensus = places[leader].consensus.clone();
        write(&consensus, 1).await;
        let mut transfer = tokio::task::JoinSet::new();
        transfer.spawn({
            let consensus = consensus.clone();
            async move { consensus.transfer_to_any().await }
        });
        // From the first moment on in which another could lead, there is no lease here.
        while !places
            .iter()
            .any(|place| place.consensus.id() != consensus.id() && place.consensus.has_lease())
        {
            sleep(Duration::from_micros(100)).await;
        }
        assert!(!consensus.has_lease());
        transfer.join_next().await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_leader_whose_disk_hangs_makes_room() {
    run(async |world| {
        let (places, leader) = world.cluster(3).await;
        let stuck = &places[leader];
        write(&stuck.consensus, 3).await;
        let term = stuck.consensus.status().term;
        stuck.storage.set_fault(DiskFault::SyncStalls);
        let begun = Instant::now();
        // The others can take it, so this one is acknowledged.
        let _ = timeout(
            Duration::from_secs(1),
            stuck.consensus.propose(Bytes::from_static(b"in between")),
        )
        .await;
        let next = self::leader(&places, Some(term)).await;
        // A heartbeat more than the shortest election timeout until it is noticed, and one round to hand over.
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(600 + 150 + 200), "{took:?}");
        assert_ne!(next, leader);
        assert!(!stuck.consensus.has_lease());
        assert!(!stuck.consensus.leadership().borrow().is_leader);
        let refused = stuck.consensus.propose(Bytes::from_static(b"no")).await;
        assert_eq!(
            refused.err(),
            Some(ProposeError::NotLeader { leader: None })
        );
        assert!(stuck.consensus.read_barrier().await.is_err());
        // A follower whose disk hangs is in nobody's way.
        let begun = Instant::now();
        write(&places[next].consensus, 20).await;
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        // When it works again, it follows.
        stuck.storage.set_fault(DiskFault::None);
        write(&places[next].consensus, 1).await;
        let all = places[next].machine.commands().len();
        let patience = Duration::from_secs(10);
        let caught_up = timeout(patience, async {
            while stuck.machine.commands().len() < all {
                sleep(Duration::from_millis(10)).await;
            }
        });
        caught_up.await.expect("it does not come back");
        assert_eq!(stuck.consensus.status().state, State::Follower);
        let held = stuck.consensus.leadership().borrow().leader.clone();
        assert_eq!(held.map(|peer| peer.id), Some(places[next].consensus.id()));
    });
}

#[test]
fn a_server_that_is_alone_waits_for_its_disk() {
    run(async |world| {
        let (places, _) = world.cluster(1).await;
        let only = &places[0];
        only.storage.set_fault(DiskFault::SyncStalls);
        let proposal = only.consensus.propose(Bytes::from_static(b"late"));
        let (proposed, ()) = tokio::join!(proposal, async {
            sleep(Duration::from_secs(10)).await;
            assert!(only.consensus.leadership().borrow().is_leader);
            only.storage.set_fault(DiskFault::None);
        });
        proposed.unwrap();
    });
}

#[test]
fn a_server_that_lost_its_whole_log_learns_who_leads() {
    run(async |world| {
        let (mut places, leader) = world.cluster(3).await;
        write(&places[leader].consensus, 5).await;
        let lost = places.remove((leader + 1) % 3);
        let id = lost.consensus.id();
        world.network.disconnect(id);
        lost.consensus.shutdown().await;
        // Not even the members are left, of whom it would have known where to find them.
        assert!(lost.storage.truncate("log-0000000000000001", 80));
        let again = world.start_on(id, lost.storage).await;
        let status = again.consensus.status();
        assert!(status.tail_lost && status.voters.is_empty(), "{status:?}");
        let patience = timeout(Duration::from_secs(5), async {
            while again.consensus.status().tail_lost {
                sleep(Duration::from_millis(10)).await;
            }
        });
        patience.await.expect("it never holds everything again");
        assert_eq!(again.machine.commands().len(), 5);
    });
}

#[test]
fn a_leader_that_is_heard_but_hears_nobody_makes_room() {
    run(async |world| {
        let (places, old) = world.cluster(3).await;
        let deposed = &places[old].consensus;
        let term = deposed.status().term;
        write(deposed, 1).await;
        for other in places.iter().map(|place| place.consensus.id()) {
            if other != deposed.id() {
                world.network.cut(other, deposed.id());
            }
        }
        let begun = Instant::now();
        // A proposal on its way gets to know that nobody knows what becomes of it.
        let proposed = deposed.propose(Bytes::from_static(b"lost?")).await;
        assert!(
            matches!(
                proposed,
                Err(ProposeError::OutcomeUnknown | ProposeError::NotLeader { .. })
            ),
            "{proposed:?}"
        );
        assert!(!deposed.leadership().borrow().is_leader);
        assert_eq!(deposed.status().leader, None);
        assert!(deposed.last_contact() > Some(Duration::ZERO));
        let new = leader(&places, Some(term)).await;
        assert_ne!(new, old);
        let longest = World::config(1).election_timeout_max;
        assert!(begun.elapsed() < longest * 10, "{:?}", begun.elapsed());
        write(&places[new].consensus, 3).await;

        world.network.heal();
        let applied = places[new].machine.applied();
        let caught_up = timeout(longest * 10, async {
            while places[old].machine.applied() < applied {
                sleep(Duration::from_millis(10)).await;
            }
        });
        caught_up.await.expect("the deposed leader does not follow");
    });
}

#[test]
fn a_leader_that_was_left_alone_leads_on_when_others_are_back() {
    run(async |world| {
        let (places, old) = world.cluster(3).await;
        let lonely = &places[old].consensus;
        let others: Vec<NodeId> = places
            .iter()
            .map(|place| place.consensus.id())
            .filter(|id| *id != lonely.id())
            .collect();
        for other in &others {
            world.network.cut(*other, lonely.id());
            world.network.cut(lonely.id(), *other);
            for another in &others {
                world.network.cut(*other, *another);
            }
        }
        let longest = World::config(1).election_timeout_max;
        // For several rounds of silence and speech; nobody can be elected meanwhile.
        sleep(longest * 20).await;
        assert!(!lonely.leadership().borrow().is_leader);
        assert_eq!(lonely.status().state, State::Follower);
        world.network.heal();
        let begun = Instant::now();
        let now = leader(&places, None).await;
        write(&places[now].consensus, 1).await;
        assert!(begun.elapsed() < longest * 10, "{:?}", begun.elapsed());
    });
}
