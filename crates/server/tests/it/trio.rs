//! Several servers in one process on paused time, joined by wires that can be cut.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use consensus::sim::{SimNetwork, Storage, Trace};
use consensus::{NodeId, Peer};
use gossip::Gossip;
use gossip::sim::Net;
use model::{Ask, Command, Error, Index, Operated, Operation, Reply};
use rpc::{
    Answered, Cluster, Consistency, OperateOptions, ReadOptions, RestoreOptions, Restored,
    WriteOptions,
};
use server::{Checking, Parts, Server, Start, SystemClock};
use tokio::time::sleep;

use crate::calls::Wires;
use crate::setup;

/// Long enough for any election here.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Trio {
    pub(crate) network: SimNetwork,
    pub(crate) wires: Wires,
    /// The pool's network, if there is a pool.
    pub(crate) net: Option<Net>,
    pub(crate) pool: BTreeMap<NodeId, Gossip>,
    /// The ids that servers have on their disks, where that is not their number.
    ids: BTreeMap<NodeId, NodeId>,
    trace: Trace,
    pub(crate) disks: BTreeMap<NodeId, Storage>,
    pub(crate) servers: BTreeMap<NodeId, Server>,
}

pub(crate) fn address(id: NodeId) -> SocketAddr {
    format!("10.0.0.{id}:8300").parse().unwrap()
}

pub(crate) fn pool_address(id: NodeId) -> SocketAddr {
    format!("10.0.0.{id}:8301").parse().unwrap()
}

pub(crate) fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        address: address(id).to_string(),
        name: format!("server-{id}"),
    }
}

pub(crate) fn log_config(id: NodeId) -> consensus::Config {
    consensus::Config {
        id,
        address: peer(id).address,
        name: peer(id).name,
        heartbeat_interval: Duration::from_millis(50),
        election_timeout_min: Duration::from_millis(200),
        election_timeout_max: Duration::from_millis(400),
        checkpoint_entries: 32,
        trailing_entries: 8,
        first_segment_bytes: 8 << 10,
        segment_bytes: 8 << 10,
        cache_bytes: 4 << 10,
        seed: id,
        ..consensus::Config::default()
    }
}

pub(crate) fn server_config(id: NodeId) -> server::Config {
    server::Config {
        advertise_address: IpAddr::from([10, 0, 0, u8::try_from(id).unwrap()]),
        seed: id,
        checking: Checking::InPlace,
        ..setup::config(&peer(id).name)
    }
}

impl Trio {
    /// No server yet, and no pool.
    pub(crate) fn nobody(seed: u64) -> Self {
        let trace = Trace::begin();
        Self {
            network: SimNetwork::new(seed, trace.clone()),
            trace,
            wires: Wires::new(seed + 1),
            net: None,
            pool: BTreeMap::new(),
            ids: BTreeMap::new(),
            disks: BTreeMap::new(),
            servers: BTreeMap::new(),
        }
    }

    /// No server yet, but a pool.
    pub(crate) fn pool(seed: u64) -> Self {
        Self {
            net: Some(Net::new(seed)),
            ..Self::nobody(seed)
        }
    }

    /// So many servers that expect each other and have found each other.
    pub(crate) async fn expecting(count: u64) -> Self {
        let mut trio = Self::pool(1);
        for id in 1..=count {
            let expected = usize::try_from(count).unwrap();
            trio.run_as(id, Start::Expect(expected)).await;
            trio.join(id).await;
        }
        trio.voters(count).await;
        trio
    }

    /// So many servers that know each other, one of which leads.
    pub(crate) async fn start(count: u64) -> Self {
        let mut trio = Self::nobody(1);
        for id in 1..=count {
            trio.run(id).await;
        }
        let voters = (1..=count).map(peer).collect();
        let first = &trio.servers[&1];
        first.consensus().bootstrap(voters).await.unwrap();
        trio.leader().await;
        trio
    }

    /// The id that a server has.
    pub(crate) fn id(&self, id: NodeId) -> NodeId {
        self.ids.get(&id).copied().unwrap_or(id)
    }

    /// Takes away a server's disk: the next start has an empty one, and another id.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        self.disks.remove(&id);
        self.ids.insert(id, self.id(id) + 100);
    }

    /// Joins a server to the pool of those that are up.
    pub(crate) async fn join(&self, id: NodeId) {
        let others: Vec<SocketAddr> = self
            .pool
            .keys()
            .filter(|other| **other != id)
            .map(|other| pool_address(*other))
            .collect();
        if !others.is_empty() {
            self.pool[&id].join(&others, false).await;
        }
    }

    /// Waits until there are so many voters and all that are up agree on them and on a leader.
    pub(crate) async fn voters(&self, count: u64) {
        let count = usize::try_from(count).unwrap();
        let agree = |server: &Server| {
            let status = server.consensus().status();
            status.voters.len() == count && status.learners.is_empty()
        };
        self.wait_until("there are the voters", || self.servers.values().all(agree))
            .await;
        self.leader().await;
    }

    /// Waits until this is so.
    pub(crate) async fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let became = async {
            while !is_so() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SOON * 5, became).await.is_err() {
            let states: Vec<_> = self
                .servers
                .values()
                .map(|server| server.consensus().status())
                .collect();
            panic!("it never comes to it that {what}: {states:#?}");
        }
    }

    /// Starts a server on what its disk holds.
    pub(crate) async fn run(&mut self, id: NodeId) {
        self.run_as(id, Start::Join).await;
    }

    /// The same, and how it comes to have members if its disk is empty.
    pub(crate) async fn run_as(&mut self, id: NodeId, start: Start) {
        self.run_by(server_config(id), id, start).await;
    }

    /// The same with these settings.
    pub(crate) async fn run_by(&mut self, config: server::Config, id: NodeId, start: Start) {
        let gossip = match &self.net {
            None => None,
            Some(net) => {
                let mut config =
                    gossip::Config::new(config.node_name.clone(), pool_address(id), "lan:dc1");
                config.timing = gossip::Timing::local();
                config.seed = id;
                let started = Gossip::start(config, net.end(pool_address(id))).await;
                let gossip = started.unwrap();
                self.pool.insert(id, gossip.clone());
                Some(gossip)
            }
        };
        let raft_id = self.id(id);
        let trace = self.trace.clone();
        let disk = self
            .disks
            .entry(id)
            .or_insert_with(|| Storage::new(&format!("disk {id}"), id, trace));
        let parts = Parts {
            disk: Arc::new(disk.attach()),
            transport: Arc::new(self.network.transport(raft_id)),
            calls: Arc::new(self.wires.calls(address(id))),
            clock: Arc::new(SystemClock),
            gossip,
        };
        let log = consensus::Config {
            id: raft_id,
            ..log_config(id)
        };
        let server = Server::start(config, log, parts, start).await.unwrap();
        self.network.connect(server.consensus());
        self.wires.connect(address(id), server.serve());
        self.servers.insert(id, server);
    }

    /// Ends a server without a word to the others.
    pub(crate) async fn kill(&mut self, id: NodeId) {
        self.network.disconnect(self.id(id));
        self.wires.disconnect(address(id));
        if let Some(net) = &self.net {
            net.kill(pool_address(id));
            self.pool.remove(&id);
        }
        self.disks[&id].crash(false);
        let server = self.servers.remove(&id).unwrap();
        server.shutdown().await;
    }

    /// Cuts a server off from all others, without it or them noticing at once.
    pub(crate) fn isolate(&self, id: NodeId) {
        for other in self.servers.keys().filter(|other| **other != id) {
            for (from, to) in [(id, *other), (*other, id)] {
                self.network.cut(self.id(from), self.id(to));
                self.wires.cut(address(from), address(to));
            }
        }
    }

    /// The server that leads, as soon as one does and all that are up know it.
    pub(crate) async fn leader(&self) -> NodeId {
        let found = async {
            loop {
                let leads = |id: &&NodeId| self.servers[*id].status().is_leader;
                if let Some(id) = self.servers.keys().find(leads) {
                    let knows = |server: &Server| {
                        let leader = server.consensus().leadership().borrow().leader.clone();
                        leader.is_some_and(|leader| leader.id == self.id(*id))
                    };
                    if self.servers.values().all(knows) {
                        return *id;
                    }
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, found).await.unwrap()
    }

    /// A server that is up and doesn't lead.
    pub(crate) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        *self.servers.keys().find(|id| **id != leader).unwrap()
    }

    pub(crate) fn cluster(&self, id: NodeId) -> Cluster {
        self.servers[&id].cluster()
    }

    pub(crate) async fn restore(&self, id: NodeId, archive: Vec<u8>) -> Result<Restored, Error> {
        let cluster = self.cluster(id);
        let options = RestoreOptions::default();
        cluster.restore(options, setup::stream(archive)).await
    }

    pub(crate) async fn operate(
        &self,
        id: NodeId,
        operation: Operation,
        stale: bool,
    ) -> Result<Operated, Error> {
        let options = OperateOptions {
            stale,
            ..OperateOptions::default()
        };
        self.cluster(id).operate(operation, options).await
    }

    pub(crate) async fn write(&self, id: NodeId, command: Command) -> Result<Reply, Error> {
        self.cluster(id)
            .write(command, WriteOptions::default())
            .await
    }

    pub(crate) async fn ask<Q: Ask>(
        &self,
        id: NodeId,
        question: Q,
        consistency: Consistency,
    ) -> Result<Answered<Q::Answer>, Error> {
        let options = ReadOptions {
            consistency,
            ..ReadOptions::default()
        };
        self.cluster(id).read(question, options).await
    }

    pub(crate) fn wait<Q: Ask>(
        &self,
        id: NodeId,
        question: Q,
        index: Index,
        wait: Duration,
    ) -> impl Future<Output = Result<Answered<Q::Answer>, Error>> + use<Q> {
        let cluster = self.cluster(id);
        let options = ReadOptions {
            index,
            wait,
            ..ReadOptions::default()
        };
        async move { cluster.read(question, options).await }
    }
}
