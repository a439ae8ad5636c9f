//! Members that come and go, on the simulated network.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use consensus::sim::{ListMachine, SimNetwork, Storage, Trace};
use consensus::{Config, Consensus, MembershipError, NodeId, Peer, ProposeError, State};

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
}

impl World {
    async fn start(&self, id: NodeId) -> (Consensus, ListMachine) {
        let config = Config {
            id,
            seed: id,
            checkpoint_entries: 32,
            trailing_entries: 4,
            ..Config::default()
        };
        let machine = ListMachine::new();
        let disk = Arc::new(Storage::new("disk", id, self.trace.clone()).attach());
        let transport = Arc::new(self.network.transport(id));
        let consensus = Consensus::start(config, disk, Box::new(machine.clone()), transport)
            .await
            .unwrap();
        self.network.connect(&consensus);
        (consensus, machine)
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
        life(World { network, trace }).await;
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
