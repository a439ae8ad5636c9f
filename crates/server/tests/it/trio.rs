//! Several servers in one process on paused time, joined by wires that can be cut.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use consensus::sim::{SimNetwork, Storage, Trace};
use consensus::{NodeId, Peer};
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
    trace: Trace,
    pub(crate) disks: BTreeMap<NodeId, Storage>,
    pub(crate) servers: BTreeMap<NodeId, Server>,
}

pub(crate) fn address(id: NodeId) -> SocketAddr {
    format!("10.0.0.{id}:8300").parse().unwrap()
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
    /// So many servers that know each other, one of which leads.
    pub(crate) async fn start(count: u64) -> Self {
        let trace = Trace::begin();
        let mut trio = Self {
            network: SimNetwork::new(1, trace.clone()),
            trace,
            wires: Wires::new(2),
            disks: BTreeMap::new(),
            servers: BTreeMap::new(),
        };
        for id in 1..=count {
            trio.run(id).await;
        }
        let voters = (1..=count).map(peer).collect();
        let first = &trio.servers[&1];
        first.consensus().bootstrap(voters).await.unwrap();
        trio.leader().await;
        trio
    }

    /// Starts a server on what its disk holds.
    pub(crate) async fn run(&mut self, id: NodeId) {
        let trace = self.trace.clone();
        let disk = self
            .disks
            .entry(id)
            .or_insert_with(|| Storage::new(&format!("disk {id}"), id, trace));
        let parts = Parts {
            disk: Arc::new(disk.attach()),
            transport: Arc::new(self.network.transport(id)),
            calls: Arc::new(self.wires.calls(address(id))),
            clock: Arc::new(SystemClock),
            gossip: None,
        };
        let server = Server::start(server_config(id), log_config(id), parts, Start::Join)
            .await
            .unwrap();
        self.network.connect(server.consensus());
        self.wires.connect(address(id), server.serve());
        self.servers.insert(id, server);
    }

    /// Ends a server without a word to the others.
    pub(crate) async fn kill(&mut self, id: NodeId) {
        self.network.disconnect(id);
        self.wires.disconnect(address(id));
        self.disks[&id].crash(false);
        let server = self.servers.remove(&id).unwrap();
        server.shutdown().await;
    }

    /// Cuts a server off from all others, without it or them noticing at once.
    pub(crate) fn isolate(&self, id: NodeId) {
        for other in self.servers.keys().filter(|other| **other != id) {
            for (from, to) in [(id, *other), (*other, id)] {
                self.network.cut(from, to);
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
                        leader.is_some_and(|leader| leader.id == *id)
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
