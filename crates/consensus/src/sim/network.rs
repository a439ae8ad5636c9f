//! A network that loses, delays, reorders and repeats messages, and falls apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Trace;
use crate::Consensus;
use crate::peer::{NodeId, Peer};
use crate::tasks::Tasks;
use crate::transport::{Transport, TransportError, TransportFuture};

/// Connects the servers of a cluster.
#[derive(Clone, Debug)]
pub struct SimNetwork {
    wires: Arc<Mutex<Wires>>,
    /// Messages under way.
    tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Wires {
    chance: ChaCha8Rng,
    trace: Trace,
    servers: BTreeMap<NodeId, Consensus>,
    /// Pairs between which nothing passes, in this direction.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Servers that seem to stand still: what comes from them or goes to them waits until then.
    paused: BTreeMap<NodeId, Instant>,
    loss: f64,
    repetition: f64,
    delay_max: Duration,
}

impl SimNetwork {
    /// A network that works.
    pub fn new(seed: u64, trace: Trace) -> Self {
        let wires = Wires {
            chance: ChaCha8Rng::seed_from_u64(seed),
            trace,
            servers: BTreeMap::new(),
            cut: BTreeSet::new(),
            paused: BTreeMap::new(),
            loss: 0.0,
            repetition: 0.0,
            delay_max: Duration::from_millis(4),
        };
        Self {
            wires: Arc::new(Mutex::new(wires)),
            tasks: Arc::default(),
        }
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transport of one server.
    pub fn transport(&self, from: NodeId) -> SimTransport {
        SimTransport {
            network: self.clone(),
            from,
        }
    }

    /// A server can be reached from now on.
    pub fn connect(&self, server: &Consensus) {
        self.wires().servers.insert(server.id(), server.clone());
    }

    /// A server can't be reached any more.
    pub fn disconnect(&self, id: NodeId) {
        self.wires().servers.remove(&id);
    }

    /// Nothing passes from one to the other, until [`SimNetwork::heal`].
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.wires().cut.insert((from, to));
    }

    /// How often a message is lost or repeated, and how late it comes at most.
    pub fn set_quality(&self, loss: f64, repetition: f64, delay_max: Duration) {
        let mut wires = self.wires();
        wires.loss = loss;
        wires.repetition = repetition;
        wires.delay_max = delay_max;
    }

    /// Holds all messages from and to a server back for so long, as if it stood still meanwhile.
    pub fn pause(&self, id: NodeId, length: Duration) {
        let end = Instant::now() + length;
        self.wires().paused.insert(id, end);
    }

    /// All wires work again.
    pub fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.paused.clear();
        drop(wires);
        self.set_quality(0.0, 0.0, Duration::from_millis(4));
    }

    /// Decides the fate of a message: how late it comes, or that it doesn't.
    fn passage(&self, from: NodeId, to: NodeId, kind: &str, message: &[u8]) -> Option<Duration> {
        let mut guard = self.wires();
        let wires = &mut *guard;
        let is_lost = wires.chance.random_bool(wires.loss);
        let most = u64::try_from(wires.delay_max.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(wires.chance.random_range(0..=most));
        let passes = !is_lost && !wires.cut.contains(&(from, to));
        let ends = [from.to_le_bytes(), to.to_le_bytes()].concat();
        wires
            .trace
            .event(kind, &[&ends, &[u8::from(passes)], message]);
        passes.then_some(delay)
    }

    /// Waits until neither end stands still.
    async fn unpaused(&self, from: NodeId, to: NodeId) {
        loop {
            let end = {
                let wires = self.wires();
                let end = |id| wires.paused.get(&id).copied();
                end(from).max(end(to))
            };
            match end {
                Some(end) if end > Instant::now() => tokio::time::sleep(PAUSE_TICK).await,
                Some(_) | None => return,
            }
        }
    }

    /// A message got lost: its sender learns of it at once, as when a connection breaks, or waits in vain.
    async fn vanish(&self, answer: Option<oneshot::Sender<Bytes>>) {
        let is_silent = self.wires().chance.random_bool(0.5);
        if is_silent && answer.is_some() {
            tokio::time::sleep(SILENCE).await;
        }
        drop(answer);
    }

    async fn deliver(
        self,
        from: NodeId,
        to: NodeId,
        message: Bytes,
        answer: Option<oneshot::Sender<Bytes>>,
    ) {
        let Some(delay) = self.passage(from, to, "message", &message) else {
            self.vanish(answer).await;
            return;
        };
        tokio::time::sleep(delay).await;
        self.unpaused(from, to).await;
        // Whoever has the id by now: the message may outlive the server it was meant for.
        let server = self.wires().servers.get(&to).cloned();
        let Some(server) = server else { return };
        let response = server.handle(message).await;
        drop(server);
        let Some(delay) = self.passage(to, from, "answer", &response) else {
            self.vanish(answer).await;
            return;
        };
        tokio::time::sleep(delay).await;
        self.unpaused(to, from).await;
        if let Some(answer) = answer {
            // The caller may have given up.
            let _ = answer.send(response);
        }
    }
}

/// How often it is looked whether a server that stood still goes on.
const PAUSE_TICK: Duration = Duration::from_millis(5);

/// How long somebody may wait for an answer that never comes.
const SILENCE: Duration = Duration::from_secs(10);

/// The way out of one server.
#[derive(Clone, Debug)]
pub struct SimTransport {
    network: SimNetwork,
    from: NodeId,
}

impl Transport for SimTransport {
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture {
        let (answer, answered) = oneshot::channel();
        let (network, from, to) = (self.network.clone(), self.from, peer.id);
        let is_repeated = {
            let mut guard = network.wires();
            let wires = &mut *guard;
            wires.chance.random_bool(wires.repetition)
        };
        if is_repeated {
            network
                .tasks
                .spawn(network.clone().deliver(from, to, message.clone(), None));
        }
        network
            .tasks
            .spawn(network.clone().deliver(from, to, message, Some(answer)));
        Box::pin(async move {
            answered
                .await
                .map_err(|_| TransportError::Unreachable(String::from("the message got lost")))
        })
    }
}
