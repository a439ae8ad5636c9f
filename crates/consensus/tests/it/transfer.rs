//! Checkpoints on their way to servers that are far behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::{ListMachine, SimNetwork, SimTransport, Storage, Trace};
use consensus::{Config, Consensus, NodeId, Peer, Transport, TransportFuture};
use tokio::time::{sleep, timeout};

fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        address: format!("10.0.0.{id}:8300"),
        name: format!("server-{id}"),
    }
}

/// Counts the bytes of checkpoints that reach one server.
#[derive(Clone, Default)]
struct Meter {
    to: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    senders: Arc<Mutex<Vec<NodeId>>>,
}

struct Metered {
    inner: SimTransport,
    from: NodeId,
    meter: Meter,
}

/// Where a message says what it is, behind its version and its addressee, and what a piece of a checkpoint is.
const KIND: usize = 9;
const PIECE: u8 = 4;

impl Transport for Metered {
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture {
        let is_piece = message[KIND] == PIECE && self.meter.to.load(Ordering::Relaxed) == peer.id;
        let length = message.len() as u64;
        let call = self.inner.call(peer, message);
        if !is_piece {
            return call;
        }
        let (meter, from) = (self.meter.clone(), self.from);
        Box::pin(async move {
            let answer = call.await?;
            meter.bytes.fetch_add(length, Ordering::Relaxed);
            let mut senders = meter.senders.lock().unwrap();
            if length > 1000 && senders.last() != Some(&from) {
                senders.push(from);
            }
            Ok(answer)
        })
    }
}

struct World {
    network: SimNetwork,
    trace: Trace,
    meter: Meter,
}

type Server = (Consensus, ListMachine);

impl World {
    async fn start(&self, id: NodeId) -> Server {
        let config = Config {
            id,
            seed: id,
            // Only on demand.
            checkpoint_entries: 100_000,
            trailing_entries: 0,
            trailing_bytes: 0,
            first_segment_bytes: 64 << 10,
            segment_bytes: 64 << 10,
            ..Config::default()
        };
        let machine = ListMachine::new();
        let disk = Arc::new(Storage::new("disk", id, self.trace.clone()).attach());
        let transport = Arc::new(Metered {
            inner: self.network.transport(id),
            from: id,
            meter: self.meter.clone(),
        });
        let boxed = Box::new(machine.clone());
        let consensus = Consensus::start(config, disk, boxed, transport)
            .await
            .unwrap();
        self.network.connect(&consensus);
        (consensus, machine)
    }

    /// Three voters of whom the first leads and whose checkpoints, some megabytes long, are all that is left of the log.
    async fn three(&self) -> Vec<Server> {
        let mut servers = Vec::new();
        for id in 1..=3 {
            servers.push(self.start(id).await);
        }
        let first = servers[0].0.clone();
        first.bootstrap((1..=3).map(peer).collect()).await.unwrap();
        until(|| servers.iter().any(|(server, _)| leads(server))).await;
        if !leads(&first) {
            let leader = servers.iter().find(|(server, _)| leads(server)).unwrap();
            sleep(Duration::from_secs(1)).await;
            leader.0.transfer_leadership(1).await.unwrap();
            until(|| leads(&first)).await;
        }
        // The log is kept from the older of two on.
        for _ in 0..2 {
            for number in 0..40_u64 {
                let mut command = vec![7; 50_000];
                command[..8].copy_from_slice(&number.to_le_bytes());
                first.propose(Bytes::from(command)).await.unwrap();
            }
            sleep(Duration::from_secs(2)).await;
            for (server, _) in &servers {
                server.checkpoint().await.unwrap();
            }
        }
        servers
    }

    fn sent(&self) -> u64 {
        self.meter.bytes.load(Ordering::Relaxed)
    }
}

fn leads(server: &Consensus) -> bool {
    server.leadership().borrow().is_leader
}

async fn until(mut holds: impl FnMut() -> bool) {
    let patience = timeout(Duration::from_secs(120), async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    patience.await.expect("it never comes to that");
}

fn run(life: impl AsyncFnOnce(World)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(async {
        let trace = Trace::begin();
        let network = SimNetwork::new(1, trace.clone());
        let meter = Meter::default();
        life(World {
            network,
            trace,
            meter,
        })
        .await;
    });
}

/// What a checkpoint of [`World::three`] takes.
const WHOLE: u64 = 80 * 50_000;

#[test]
fn a_transfer_goes_on_where_it_was_cut_off() {
    run(async |world| {
        let servers = world.three().await;
        world.meter.to.store(4, Ordering::Relaxed);
        let (four, machine) = world.start(4).await;
        let first = servers[0].0.clone();
        let mut adding = tokio::task::JoinSet::new();
        adding.spawn(async move { first.add_learner(peer(4)).await });
        for part in 1..4 {
            until(|| world.sent() > WHOLE * part / 4).await;
            world.network.cut(1, 4);
            sleep(Duration::from_secs(if part == 2 { 20 } else { 1 })).await;
            world.network.heal();
        }
        let _ = adding.join_next().await;
        servers[0].0.add_learner(peer(4)).await.unwrap();
        until(|| machine.commands().len() == 80).await;
        assert!(
            world.sent() < WHOLE * 5 / 4,
            "{} bytes were sent",
            world.sent()
        );
        assert!(four.status().last_checkpoint_index > 0);
    });
}

#[test]
fn another_leader_goes_on_with_the_transfer() {
    run(async |world| {
        let servers = world.three().await;
        world.meter.to.store(4, Ordering::Relaxed);
        let (_four, machine) = world.start(4).await;
        let first = servers[0].0.clone();
        let mut adding = tokio::task::JoinSet::new();
        adding.spawn(async move { first.add_learner(peer(4)).await });
        until(|| world.sent() > WHOLE / 2).await;
        servers[0].0.transfer_leadership(2).await.unwrap();
        until(|| machine.commands().len() == 80).await;
        let _ = adding.join_next().await;
        assert_eq!(*world.meter.senders.lock().unwrap(), [1, 2]);
        assert!(
            world.sent() < WHOLE * 5 / 4,
            "{} bytes were sent",
            world.sent()
        );
    });
}

#[test]
fn who_is_late_catches_up_while_no_checkpoint_can_be_made() {
    run(async |world| {
        let servers = world.three().await;
        // As while a restore is open: no checkpoint, and the log is kept from the last one on.
        for (_, machine) in &servers {
            machine.refuse_to_freeze(true);
        }
        let first = &servers[0].0;
        for number in 0..300_u64 {
            let command = Bytes::copy_from_slice(&number.to_le_bytes());
            first.propose(command).await.unwrap();
        }
        let checkpoint = first.status().last_checkpoint_index;
        let (_four, machine) = world.start(4).await;
        first.add_learner(peer(4)).await.unwrap();
        until(|| machine.commands().len() == 380).await;
        assert_eq!(first.status().last_checkpoint_index, checkpoint);
    });
}
