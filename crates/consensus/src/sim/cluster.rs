//! The life of a cluster from a seed: crashes, torn writes, failing and hanging disks, bit flips, lost disks, partitions,
//! pauses, drifting clocks and changing members; checked all along and at the end.
//!
//! The harness plays the operator: a server whose directory was damaged or lost comes back empty, as a new member in the
//! place of the old one. No more than one server at a time has lost what it promised to keep; that is the limit of the
//! promise, not a defect.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::operator::{Job, Operator};
use super::{DiskFault, Ledger, ListMachine, SimNetwork, Storage, Trace};
use crate::peer::{NodeId, Peer};
use crate::{Config, Consensus, ProposeError, StartError, State};

/// What a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The hash of all events; the same seed gives the same.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// Commands that were acknowledged.
    pub acknowledged: u64,
    /// Reads under a lease or behind a barrier that were checked.
    pub reads: u64,
    /// Servers that were crashed and started again.
    pub crashes: u64,
    /// Starts after which a server did not vote because its log had lost its end.
    pub lost_tails: u64,
    /// Checkpoints that stood at the end.
    pub checkpoints: u64,
    /// Disks whose syncs hung for a while.
    pub stalls: u64,
    /// Servers that stood still for a while.
    pub pauses: u64,
    /// Bits that were flipped in stopped servers' directories.
    pub flips: u64,
    /// Servers that lost their directory, by accident or because it was damaged, and were replaced.
    pub replacements: u64,
    /// Members that were added, removed, replaced or took over at an operator's word.
    pub changes: u64,
}

impl Report {
    /// Adds up what lives were like.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.lost_tails += other.lost_tails;
        self.checkpoints += other.checkpoints;
        self.stalls += other.stalls;
        self.pauses += other.pauses;
        self.flips += other.flips;
        self.replacements += other.replacements;
        self.changes += other.changes;
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed} with {servers} servers: {what}")]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// The number of servers that shows it again.
    pub servers: usize,
    /// What was broken.
    pub what: String,
}

/// How long things go wrong, on the simulated clock.
const TROUBLE: Duration = Duration::from_secs(8);

/// Servers beyond the first ones that may join while things go wrong.
const NEWCOMERS: usize = 2;

/// Within how many election timeouts somebody has to lead when nothing goes wrong any more.
const LEADER_TIMEOUTS: u32 = 10;

/// The longest election timeout of a server whose clock is right.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(400);

/// How long the cluster may take to be whole again afterwards.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Proposers at the same time.
const CLIENTS: u64 = 3;

/// How long a proposer waits for its outcome before it turns to another server.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs one life of a cluster and checks it: no acknowledged command is lost, and all servers agree on all entries.
pub fn run(seed: u64, servers: usize) -> Result<Report, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let violation = |what: String| Violation {
        seed,
        servers,
        what,
    };
    let runtime = runtime.map_err(|error| violation(error.to_string()))?;
    runtime.block_on(live(seed, servers)).map_err(violation)
}

type Outcome<T> = Result<T, String>;

struct Cluster {
    chance: ChaCha8Rng,
    network: SimNetwork,
    ledger: Ledger,
    trace: Trace,
    operator: Operator,
    servers: Vec<Server>,
    next_id: NodeId,
    report: Report,
}

struct Server {
    id: NodeId,
    storage: Storage,
    machine: ListMachine,
    consensus: Option<Consensus>,
    /// How fast its clock goes.
    pace: f64,
    /// Whether bits of its directory were flipped, so that it may refuse to start.
    decayed: bool,
}

/// What clients know: live servers, and what was acknowledged.
#[derive(Clone, Default)]
pub(super) struct Clients {
    state: Arc<Mutex<ClientsState>>,
}

#[derive(Default)]
struct ClientsState {
    live: BTreeMap<NodeId, (Consensus, ListMachine)>,
    acknowledged: BTreeMap<u64, Bytes>,
    stale: Option<String>,
    reads: u64,
    ends: bool,
}

impl Clients {
    /// The server that leads, if one that is up believes so.
    pub(super) fn leader(&self) -> Option<Consensus> {
        self.with(|state| {
            let mut servers = state.live.values().map(|(consensus, _)| consensus);
            let leads = |consensus: &&Consensus| consensus.leadership().borrow().is_leader;
            servers.find(leads).cloned()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut ClientsState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last entry that was acknowledged to anybody.
    fn newest(&self) -> u64 {
        self.with(|state| state.acknowledged.keys().next_back().copied().unwrap_or(0))
    }

    fn judge(&self, server: &Consensus, machine: &ListMachine, expected: u64, kind: &str) {
        let applied = machine.applied();
        self.with(|state| {
            state.reads += 1;
            if applied < expected {
                state.stale.get_or_insert(format!(
                    "server {} reads entry {applied} under its {kind}, but {expected} was acknowledged",
                    server.id()
                ));
            }
        });
    }

    /// A leader with a lease has to see everything that was ever acknowledged.
    fn look(&self, server: &Consensus, machine: &ListMachine) {
        if server.has_lease() {
            self.judge(server, machine, self.newest(), "lease");
        }
    }

    /// A read behind a barrier has to see everything that was acknowledged before it began.
    async fn read(&self, server: &Consensus, machine: &ListMachine) {
        let expected = self.newest();
        if let Ok(Ok(())) = timeout(PATIENCE, server.read_barrier()).await {
            self.judge(server, machine, expected, "barrier");
        }
    }

    async fn run(self, number: u64, trace: Trace, mut chance: ChaCha8Rng) {
        let mut count = 0_u64;
        let mut hint = None;
        loop {
            sleep(Duration::from_millis(chance.random_range(1..60))).await;
            let place = chance.random::<u64>();
            let server = self.with(|state| {
                let hinted = hint.take().and_then(|id| state.live.get(&id));
                let any = || {
                    state
                        .live
                        .values()
                        .nth(usize::try_from(place % state.live.len().max(1) as u64).ok()?)
                };
                (!state.ends).then(|| hinted.or_else(any).cloned())
            });
            let Some(server) = server else { return };
            let Some(server) = server else { continue };
            let (server, machine) = server;
            self.look(&server, &machine);
            if chance.random_bool(0.2) {
                self.read(&server, &machine).await;
                continue;
            }
            count += 1;
            let length = chance.random_range(8..600);
            let mut command = vec![0; length];
            chance.fill(&mut command[..]);
            command[..8].copy_from_slice(&(number << 32 | count).to_le_bytes());
            let command = Bytes::from(command);
            match timeout(PATIENCE, server.propose(command.clone())).await {
                Ok(Ok(proposed)) => {
                    trace.event("acknowledged", &[&proposed.index.to_le_bytes(), &command]);
                    self.with(|state| state.acknowledged.insert(proposed.index, command));
                }
                Ok(Err(ProposeError::NotLeader { leader })) => {
                    hint = leader.map(|leader| leader.id)
                }
                Ok(Err(error)) => trace.event("refused", &[error.to_string().as_bytes()]),
                Err(_) => trace.event("impatient", &[]),
            }
        }
    }
}

async fn live(seed: u64, servers: usize) -> Outcome<Report> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let trace = Trace::begin();
    let network = SimNetwork::new(chance.random(), trace.clone());
    let ledger = Ledger::new(trace.clone());
    let clients = Clients::default();
    let operator = Operator::new(clients.clone(), trace.clone());
    let next_id = servers as NodeId + 1;
    let mut cluster = Cluster {
        servers: Vec::new(),
        chance,
        network,
        ledger,
        trace: trace.clone(),
        operator: operator.clone(),
        next_id,
        report: Report::default(),
    };
    for id in 1..next_id {
        let server = cluster.server(id);
        cluster.servers.push(server);
    }
    for place in 0..cluster.servers.len() {
        cluster.start(place, &clients).await?;
    }
    let voters: Vec<Peer> = cluster
        .servers
        .iter()
        .map(|server| peer(server.id))
        .collect();
    if let Some(first) = &cluster.servers[0].consensus {
        first
            .bootstrap(voters)
            .await
            .map_err(|error| format!("bootstrap: {error}"))?;
    }
    let mut proposers = JoinSet::new();
    for number in 0..CLIENTS {
        let chance = ChaCha8Rng::seed_from_u64(cluster.chance.random());
        proposers.spawn(clients.clone().run(number, trace.clone(), chance));
    }
    let mut operations = JoinSet::new();
    operations.spawn(operator.clone().run());
    cluster.trouble(&clients).await?;
    cluster.network.heal();
    for place in 0..cluster.servers.len() {
        cluster.servers[place].storage.set_fault(DiskFault::None);
        let has_failed = cluster.servers[place]
            .consensus
            .as_ref()
            .is_none_or(|consensus| consensus.status().state == State::Stopped);
        if has_failed {
            cluster.crash(place, &clients).await;
            cluster.start(place, &clients).await?;
        }
    }
    let led = timeout(ELECTION_TIMEOUT_MAX * LEADER_TIMEOUTS, async {
        while clients.leader().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    if led.await.is_err() {
        return Err(format!(
            "nobody leads ten election timeouts after the last fault: {}",
            cluster.describe()
        ));
    }
    clients.with(|state| state.ends = true);
    while proposers.join_next().await.is_some() {}
    timeout(RECOVERY_MAX, cluster.settle(&clients))
        .await
        .map_err(|_| format!("the cluster does not recover: {}", cluster.describe()))?;
    operator.end();
    while operations.join_next().await.is_some() {}
    cluster.report.changes = operator.done();
    if let Some(violation) = cluster.ledger.violation() {
        return Err(violation);
    }
    if let Some(stale) = clients.with(|state| state.stale.take()) {
        return Err(stale);
    }
    cluster.report.reads = clients.with(|state| state.reads);
    let acknowledged = clients.with(|state| std::mem::take(&mut state.acknowledged));
    cluster.check(&acknowledged, &clients)?;
    cluster.report.acknowledged = acknowledged.len() as u64;
    for place in 0..cluster.servers.len() {
        let server = &mut cluster.servers[place];
        cluster.network.disconnect(server.id);
        if let Some(consensus) = server.consensus.take() {
            cluster.report.checkpoints += u64::from(consensus.status().last_checkpoint_index > 0);
            clients.with(|state| state.live.remove(&server.id));
            consensus.shutdown().await;
        }
    }
    (cluster.report.hash, cluster.report.events) = trace.hash();
    Ok(cluster.report)
}

pub(super) fn peer(id: NodeId) -> Peer {
    Peer {
        id,
        address: format!("10.0.0.{id}:8300"),
        name: format!("server-{id}"),
    }
}

impl Cluster {
    fn server(&mut self, id: NodeId) -> Server {
        Server {
            id,
            storage: Storage::new(
                &format!("disk {id}"),
                self.chance.random(),
                self.trace.clone(),
            ),
            machine: ListMachine::new(),
            consensus: None,
            pace: self.chance.random_range(0.99..1.01),
            decayed: false,
        }
    }

    /// Every length of time in the log comes from here, so a clock that goes wrong is one whose settings are.
    fn config(&mut self, id: NodeId, pace: f64) -> Config {
        Config {
            id,
            address: peer(id).address,
            name: peer(id).name,
            heartbeat_interval: Duration::from_millis(50).mul_f64(pace),
            election_timeout_min: Duration::from_millis(200).mul_f64(pace),
            election_timeout_max: ELECTION_TIMEOUT_MAX.mul_f64(pace),
            checkpoint_entries: 32,
            trailing_entries: 8,
            first_segment_bytes: 8 << 10,
            segment_bytes: 8 << 10,
            cache_bytes: 4 << 10,
            seed: self.chance.random(),
            ..Config::default()
        }
    }

    async fn start(&mut self, place: usize, clients: &Clients) -> Outcome<()> {
        let id = self.servers[place].id;
        let config = self.config(id, self.servers[place].pace);
        let transport = Arc::new(self.network.transport(id));
        let machine = ListMachine::with_ledger(self.ledger.clone());
        let server = &mut self.servers[place];
        server.machine = machine.clone();
        let disk = Arc::new(server.storage.attach());
        let started = Consensus::start(config, disk, Box::new(machine), transport).await;
        let consensus = match started {
            Ok(consensus) => consensus,
            Err(StartError::Damaged { .. }) if server.decayed => {
                // As the message says: start empty, as a new member.
                self.wipe(place);
                return Box::pin(self.start(place, clients)).await;
            }
            Err(error) => return Err(format!("server {id} cannot start: {error}")),
        };
        // What was flipped either did no harm, or the end of the log is known to be lost.
        server.decayed = false;
        self.report.lost_tails += u64::from(consensus.status().tail_lost);
        self.network.connect(&consensus);
        clients.with(|state| {
            state
                .live
                .insert(id, (consensus.clone(), server.machine.clone()))
        });
        server.consensus = Some(consensus);
        Ok(())
    }

    /// Whether all other servers hold what they ever promised to keep, as far as they are members.
    fn others_are_whole(&self, place: usize) -> bool {
        let is_whole = |server: &Server| {
            !server.decayed
                && server
                    .consensus
                    .as_ref()
                    .is_some_and(|consensus| !consensus.status().tail_lost)
        };
        let mut others = self.servers.iter().enumerate();
        self.operator.is_idle() && others.all(|(other, server)| other == place || is_whole(server))
    }

    /// Takes a server's disk away: it comes back as another, in the place of the one it was.
    fn wipe(&mut self, place: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let new = self.server(id);
        let old = std::mem::replace(&mut self.servers[place], new);
        self.report.replacements += 1;
        self.operator.order(Job::Replace {
            old: old.id,
            new: id,
        });
    }

    async fn crash(&mut self, place: usize, clients: &Clients) {
        // Two logs that lose their ends at once may leave no majority that knows what was promised.
        let others_are_whole = self.others_are_whole(place);
        let has_peers = self.servers.len() > 1;
        let decays = self.chance.random_bool(0.3);
        let is_killed = self.chance.random_bool(0.25);
        let server = &mut self.servers[place];
        if is_killed {
            // What wasn't synced is still there, until the power fails.
            server.storage.kill();
        } else {
            server.storage.crash(others_are_whole);
        }
        if !is_killed && others_are_whole && has_peers && decays {
            server.storage.damage_newest_record();
        }
        self.network.disconnect(server.id);
        clients.with(|state| state.live.remove(&server.id));
        if let Some(consensus) = server.consensus.take() {
            consensus.shutdown().await;
        }
        self.report.crashes += 1;
    }

    /// Lets things go wrong for a while.
    async fn trouble(&mut self, clients: &Clients) -> Outcome<()> {
        let end = Instant::now() + TROUBLE;
        let mut down: Vec<(usize, Instant)> = Vec::new();
        while Instant::now() < end {
            sleep(Duration::from_millis(self.chance.random_range(20..300))).await;
            let now = Instant::now();
            while let Some(due) = down.iter().position(|(_, until)| *until <= now) {
                let (place, _) = down.remove(due);
                self.crash_if_up(place, clients).await;
                self.start(place, clients).await?;
            }
            let place = self.chance.random_range(0..self.servers.len());
            let back = now + Duration::from_millis(self.chance.random_range(10..900));
            let is_up = self.servers[place].consensus.is_some()
                && down.iter().all(|(other, _)| *other != place);
            match self.chance.random_range(0..20) {
                0..=3 if is_up => {
                    self.crash(place, clients).await;
                    self.harm(place);
                    down.push((place, back));
                }
                4 if is_up => {
                    let fault = if self.chance.random_bool(0.5) {
                        DiskFault::SyncFails
                    } else {
                        DiskFault::Full
                    };
                    self.servers[place].storage.set_fault(fault);
                    down.push((place, back));
                }
                5 => self.isolate(place),
                6 => self.split(),
                7 => {
                    let loss = self.chance.random_range(0.0..0.2);
                    let repetition = self.chance.random_range(0.0..0.1);
                    let delay = Duration::from_millis(self.chance.random_range(1..80));
                    self.network.set_quality(loss, repetition, delay);
                }
                8 => {
                    let delay = Duration::from_millis(self.chance.random_range(0..20));
                    self.servers[place].storage.set_sync_delay_max(delay);
                }
                9 if is_up => {
                    if let Some(consensus) = &self.servers[place].consensus {
                        // It may fail with the disk; what counts is what is there after the next start.
                        let _ = timeout(PATIENCE, consensus.checkpoint()).await;
                    }
                }
                10 | 11 if is_up => self.stall(place),
                12 if is_up => {
                    let length = Duration::from_millis(self.chance.random_range(50..3000));
                    self.network.pause(self.servers[place].id, length);
                    self.report.pauses += 1;
                    if self.chance.random_bool(0.5) {
                        self.stall(place);
                    }
                }
                13 | 14 => self.change_members(clients).await?,
                _ => {
                    self.network.heal();
                    for server in &self.servers {
                        server.storage.unstall();
                    }
                }
            }
        }
        for (place, _) in down {
            self.crash_if_up(place, clients).await;
            self.start(place, clients).await?;
        }
        Ok(())
    }

    async fn crash_if_up(&mut self, place: usize, clients: &Clients) {
        if self.servers[place].consensus.is_some() {
            self.crash(place, clients).await;
        }
    }

    fn stall(&mut self, place: usize) {
        self.servers[place].storage.stall();
        self.report.stalls += 1;
    }

    /// What may happen to the disk of a server that is down, if nobody else has lost anything.
    fn harm(&mut self, place: usize) {
        if self.servers.len() < 3 || !self.others_are_whole(place) || self.servers[place].decayed {
            return;
        }
        match self.chance.random_range(0..10) {
            0 => self.wipe(place),
            1 | 2 => {
                let server = &mut self.servers[place];
                server.decayed = server.storage.decay();
                self.report.flips += u64::from(server.decayed);
            }
            _ => {}
        }
    }

    /// Has the operator change the members, one thing at a time, if all of them are there.
    async fn change_members(&mut self, clients: &Clients) -> Outcome<()> {
        let first = self.servers[0].id;
        if self.servers.len() < 3 || !self.others_are_whole(usize::MAX) {
            return Ok(());
        }
        let Some(leader) = clients.leader() else {
            return Ok(());
        };
        let voters = leader.status().voters;
        let voter = voters.get(self.chance.random_range(0..voters.len().max(1)));
        let id = voter.map_or(first, |voter| voter.id);
        match self.chance.random_range(0..4) {
            0 if self.servers.len() < 3 + NEWCOMERS => {
                let id = self.next_id;
                self.next_id += 1;
                let server = self.server(id);
                self.servers.push(server);
                self.start(self.servers.len() - 1, clients).await?;
                self.operator.order(Job::Add { id });
            }
            1 if voters.len() > 3 => self.operator.order(Job::Remove { id }),
            2 => self.operator.order(Job::Transfer { to: Some(id) }),
            3 => self.operator.order(Job::Transfer { to: None }),
            _ => {}
        }
        Ok(())
    }

    /// Cuts some of the wires, each in one direction.
    fn split(&mut self) {
        for from in &self.servers {
            for to in &self.servers {
                if self.chance.random_bool(0.3) {
                    self.network.cut(from.id, to.id);
                }
            }
        }
    }

    fn isolate(&mut self, place: usize) {
        let id = self.servers[place].id;
        let (inwards, outwards) = (self.chance.random_bool(0.8), self.chance.random_bool(0.8));
        for other in &self.servers {
            if inwards {
                self.network.cut(other.id, id);
            }
            if outwards {
                self.network.cut(id, other.id);
            }
        }
    }

    /// The servers that are members, by the word of the one that leads.
    fn members(&self, clients: &Clients) -> Vec<&Server> {
        let Some(leader) = clients.leader() else {
            return Vec::new();
        };
        let voters = leader.status().voters;
        let is_member = |server: &&Server| voters.iter().any(|voter| voter.id == server.id);
        let found: Vec<&Server> = self.servers.iter().filter(is_member).collect();
        // A voter that is none of them is gone and has still to be replaced.
        if found.len() == voters.len() {
            found
        } else {
            Vec::new()
        }
    }

    /// Returns when all that was ordered is done and a write has reached all members.
    async fn settle(&self, clients: &Clients) {
        loop {
            sleep(Duration::from_millis(50)).await;
            if !self.operator.is_idle() {
                continue;
            }
            let Some(leader) = clients.leader() else {
                continue;
            };
            let command = Bytes::from_static(b"the end");
            let Ok(Ok(proposed)) = timeout(PATIENCE, leader.propose(command)).await else {
                continue;
            };
            let members = self.members(clients);
            let is_whole = |server: &&Server| {
                let whole = server.consensus.as_ref();
                whole.is_some_and(|consensus| !consensus.status().tail_lost)
                    && server.machine.applied() >= proposed.index
            };
            for _ in 0..100 {
                if !members.is_empty() && members.iter().all(is_whole) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn check(&self, acknowledged: &BTreeMap<u64, Bytes>, clients: &Clients) -> Outcome<()> {
        let members = self.members(clients);
        let Some(first) = members.first() else {
            return Err(String::from("nobody leads at the end"));
        };
        let reference = first.machine.commands();
        for server in &members {
            let commands: BTreeMap<u64, Bytes> =
                server.machine.commands().iter().cloned().collect();
            for (index, command) in acknowledged {
                if commands.get(index) != Some(command) {
                    return Err(format!(
                        "server {} has lost the acknowledged entry {index}",
                        server.id
                    ));
                }
            }
            // What was never applied here came in a checkpoint; that has to agree with the others as well.
            let shared = reference.len().min(commands.len());
            if reference
                .iter()
                .take(shared)
                .any(|(index, command)| commands.get(index) != Some(command))
            {
                return Err(format!(
                    "server {} differs from server {}",
                    server.id, first.id
                ));
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let describe = |server: &Server| match &server.consensus {
            Some(consensus) => format!("{}: {:?}; ", server.id, consensus.status()),
            None => format!("{}: down; ", server.id),
        };
        self.servers.iter().map(describe).collect()
    }
}
