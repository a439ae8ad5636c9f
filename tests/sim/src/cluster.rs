//! The servers: how they start, end, lose their disks and come back.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use consensus::sim::{DiskFault, Storage};
use consensus::{Disk, MembershipError, NodeId, Peer, StartError as LogError};
use gossip::Gossip;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use server::{Checking, Parts, Server, StartError, WallClock};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::check::Violation;
use crate::history::Start;
use crate::network::{Network, address, pool_address};
use crate::world::{Death, Front, World};

/// How often a leader shows that it lives, and when a follower misses it.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(1000);
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(2000);

/// The most that a monotonic clock drifts.
const DRIFT_MAX: f64 = 0.01;

/// The clock on the wall of one server: off by its own amount, and it jumps.
#[derive(Debug)]
pub(crate) struct Wall {
    begun: Instant,
    off_ms: AtomicI64,
    /// Drifts by as much as the server's other clock.
    drift: f64,
}

impl Wall {
    pub(crate) fn jump(&self, to_ms: i64) {
        self.off_ms.store(to_ms, Ordering::Relaxed);
    }
}

impl WallClock for Wall {
    fn now_ms(&self) -> u64 {
        let elapsed = self.begun.elapsed().mul_f64(self.drift);
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        (1_700_000_000_000 + elapsed).saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }
}

/// Where a server runs. The server may be replaced by a new one; the place stays.
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) storage: Storage,
    pub(crate) wall: Arc<Wall>,
    /// How fast its monotonic clock runs.
    drift: f64,
    /// The id that an empty disk would be given.
    pub(crate) id: NodeId,
    life: u64,
    gossip: Option<Gossip>,
    pub(crate) front: Option<Front>,
    /// It was started from a disk that had lost something, and may not yet hold again what it was trusted with.
    pub(crate) is_hurt: bool,
    /// Its power will fail in the middle of something, and that may tear what it had not synced.
    pub(crate) is_doomed: bool,
    /// The newest checkpoint that is on its disk; 0 after the disk was lost or damaged.
    synced: u64,
}

/// All servers, whatever their state.
pub(crate) struct Cluster {
    pub(crate) places: Vec<Place>,
    pub(crate) chance: ChaCha8Rng,
    pub(crate) world: World,
    pub(crate) network: Network,
    pub(crate) counts: Counts,
    /// Whether the servers find each other by themselves, and see to it themselves who votes.
    has_gossip: bool,
    /// Whether exactly the servers that there are vote, and no change of that is under way.
    is_settled: bool,
    /// What the operator is about.
    operating: Option<JoinHandle<Result<BTreeSet<NodeId>, MembershipError>>>,
    /// Entries between checkpoints, and those that are kept behind one.
    checkpoint_entries: u64,
    trailing_entries: u64,
}

/// What went wrong, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Servers that lost their power or were killed.
    pub crashes: u64,
    /// Disks that were lost, or so damaged that they had to be given up.
    pub wipes: u64,
    /// Starts after which a server did not vote because its log had lost its end.
    pub lost_tails: u64,
    /// Bits that were flipped on disks.
    pub flips: u64,
    /// Changes of the members.
    pub memberships: u64,
    /// Cuts of the network.
    pub cuts: u64,
}

impl Cluster {
    pub(crate) fn new(servers: usize, mut chance: ChaCha8Rng, world: World) -> Self {
        let begun = Instant::now();
        let places = (0..servers)
            .map(|number| {
                let drift = 1.0 + chance.random_range(-DRIFT_MAX..=DRIFT_MAX);
                let off = chance.random_range(-3_000..3_000);
                Place {
                    number,
                    storage: Storage::new(
                        &format!("disk {number}"),
                        chance.random(),
                        world.trace.clone(),
                    ),
                    wall: Arc::new(Wall {
                        begun,
                        off_ms: AtomicI64::new(off),
                        drift,
                    }),
                    drift,
                    id: chance.random(),
                    life: 0,
                    gossip: None,
                    front: None,
                    is_hurt: false,
                    is_doomed: false,
                    synced: 0,
                }
            })
            .collect();
        let checkpoint_entries = chance.random_range(32..160);
        Self {
            places,
            network: world.network.clone(),
            world,
            counts: Counts::default(),
            has_gossip: chance.random_bool(0.7),
            is_settled: false,
            operating: None,
            checkpoint_entries,
            // With few, whoever misses a little is sent a checkpoint.
            trailing_entries: chance.random_range(2..=checkpoint_entries / 4),
            chance,
        }
    }

    /// The same, but its servers find each other by themselves.
    pub(crate) fn with_gossip(self) -> Self {
        Self {
            has_gossip: true,
            ..self
        }
    }

    /// Whether the servers find each other by themselves.
    pub(crate) fn has_gossip(&self) -> bool {
        self.has_gossip
    }

    /// Whether to the servers a member has failed, and none of them knows that it has left.
    pub(crate) fn takes_for_failed(&self, name: &[u8]) -> bool {
        let seen = self.see(name);
        seen.contains(&gossip::Status::Failed) && !seen.contains(&gossip::Status::Left)
    }

    /// Whether any server knows that there was such a member.
    pub(crate) fn remembers(&self, name: &[u8]) -> bool {
        !self.see(name).is_empty()
    }

    /// What the servers that know a member take it for.
    fn see(&self, name: &[u8]) -> Vec<gossip::Status> {
        let name = String::from_utf8_lossy(name);
        let seen = self.places.iter().filter_map(|at| {
            let member = at.gossip.as_ref()?.member(&name)?;
            Some(member.status)
        });
        seen.collect()
    }

    /// Starts all servers, and makes a cluster of them.
    pub(crate) async fn bootstrap(&mut self) {
        for place in 0..self.places.len() {
            self.start(place).await;
        }
        if self.has_gossip {
            return;
        }
        let voters = self.places.iter().map(Place::peer).collect();
        if let Some(front) = &self.places[0].front
            && let Err(error) = front.server.consensus().bootstrap(voters).await
        {
            self.world
                .violate(Violation::new("a cluster can be made", error.to_string()));
        }
    }

    /// Waits until there is one cluster of all servers. Until then nothing goes wrong but the network.
    pub(crate) async fn form(&mut self) -> Result<(), Violation> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let end = Instant::now() + PATIENCE;
        while !self.is_settled {
            if Instant::now() > end {
                return Err(Violation::new(
                    "servers that expect each other form a cluster",
                    self.describe(),
                ));
            }
            sleep(Duration::from_millis(100)).await;
            self.operate().await;
        }
        Ok(())
    }

    /// Settings of the log: all that it measures with its monotonic clock is stretched as if that clock ran too fast or
    /// too slowly.
    fn log_config(&mut self, place: usize) -> consensus::Config {
        let Place {
            number, drift, id, ..
        } = self.places[place];
        consensus::Config {
            id,
            address: address(number),
            name: format!("server-{number}"),
            heartbeat_interval: HEARTBEAT.div_f64(drift),
            election_timeout_min: ELECTION_MIN.div_f64(drift),
            election_timeout_max: ELECTION_MAX.div_f64(drift),
            checkpoint_entries: self.checkpoint_entries,
            trailing_entries: self.trailing_entries,
            first_segment_bytes: 8 << 10,
            segment_bytes: 16 << 10,
            cache_bytes: 8 << 10,
            seed: self.chance.random(),
            ..consensus::Config::default()
        }
    }

    fn server_config(&mut self, place: usize) -> server::Config {
        let here = IpAddr::V4(Ipv4Addr::new(
            10,
            0,
            0,
            1 + u8::try_from(place).unwrap_or(0),
        ));
        server::Config {
            datacenter: "dc1".to_owned(),
            node_name: format!("server-{place}"),
            advertise_address: here,
            advertise_address_wan: here,
            server_port: 8300,
            acl: server::Acl::default(),
            session_ttl_min: Duration::from_secs(1),
            hold_max: server::Config::HOLD_MAX,
            scratch_dir: std::env::temp_dir(),
            compress_threads: 1,
            checking: Checking::InPlace,
            seed: self.chance.random(),
        }
    }

    /// Starts the server in a place. One that can't start because of what its disk has become is replaced by a new one,
    /// as its operator would.
    pub(crate) async fn start(&mut self, place: usize) {
        if self.places[place].front.is_some() {
            return;
        }
        self.places[place].storage.set_fault(DiskFault::None);
        // An end that was planned and has not come yet is called off.
        self.places[place].is_doomed = false;
        self.places[place]
            .storage
            .die_after(u64::MAX, consensus::sim::Death::Killed);
        self.places[place]
            .storage
            .set_sync_delay_max(Duration::from_millis(3));
        for _ in 0..2 {
            let log = self.log_config(place);
            let config = self.server_config(place);
            let gossip = match self.start_gossip(place).await {
                Ok(gossip) => gossip,
                Err(violation) => return self.world.violate(violation),
            };
            let start = if gossip.is_some() {
                server::Start::Expect(self.places.len())
            } else {
                server::Start::Join
            };
            let at = &self.places[place];
            let parts = Parts {
                disk: Arc::new(at.storage.attach()),
                transport: self.network.transport(place),
                calls: self.network.calls(place),
                clock: at.wall.clone(),
                gossip,
            };
            match Server::start(config, log, parts, start).await {
                Ok(server) => return self.started(place, server),
                Err(StartError::Log(LogError::Damaged { file, offset, .. }))
                    if self.places[place].is_hurt =>
                {
                    self.world.tell("damaged", || {
                        format!("server {place} finds {file} damaged at {offset}")
                    });
                    self.wipe(place);
                }
                Err(error) => {
                    return self.world.violate(Violation::new(
                        "a server can start",
                        format!("server {place}: {error}"),
                    ));
                }
            }
        }
    }

    /// Makes a member of the pool of the server that is to be started, in a life with gossip.
    async fn start_gossip(&mut self, place: usize) -> Result<Option<Gossip>, Violation> {
        if !self.has_gossip {
            return Ok(None);
        }
        let name = format!("server-{place}");
        let mut config = gossip::Config::new(name, pool_address(place), "lan:dc1");
        config.seed = self.chance.random();
        let gossip = Gossip::start(config, self.network.pool_end(place))
            .await
            .map_err(|error| {
                Violation::new("a server can start", format!("server {place}: {error}"))
            })?;
        self.places[place].gossip = Some(gossip.clone());
        Ok(Some(gossip))
    }

    /// Servers that know nobody try to join the others, as long as it takes.
    fn join(&self) {
        for at in &self.places {
            let Some(gossip) = at.gossip.clone() else {
                continue;
            };
            if at.front.is_some() && gossip.members_count() <= 1 {
                let others: Vec<_> = (0..self.places.len())
                    .filter(|other| *other != at.number)
                    .map(pool_address)
                    .collect();
                tokio::spawn(async move {
                    gossip.join(&others, false).await;
                });
            }
        }
    }

    fn started(&mut self, place: usize, server: Server) {
        let server = Arc::new(server);
        let at = &mut self.places[place];
        at.life += 1;
        let status = server.status();
        if status.log.tail_lost {
            self.counts.lost_tails += 1;
            at.is_hurt = true;
        }
        let front = Front {
            place,
            life: at.life,
            cluster: server.cluster(),
            server: Arc::clone(&server),
            death: Arc::new(Death::default()),
        };
        at.front = Some(front.clone());
        self.network.connect(place, server.serve());
        let start = Start {
            server: place,
            at: self.world.now(),
            synced: at.synced,
            applied: status.log.applied_index,
        };
        self.world.tell("start", || {
            format!("{start:?}, tail lost: {}", status.log.tail_lost)
        });
        self.world.with(|state| {
            state.fronts.insert(place, front);
            state.history.starts.push(start);
        });
    }

    /// Ends the server in a place at once: its clients' connections break, and what it had not synced is lost or torn if
    /// the power fails, and there if only the process is killed.
    pub(crate) async fn crash(&mut self, place: usize, is_killed: bool) {
        let may_tear = self.may_hurt(place);
        self.end_life(place, is_killed, may_tear).await;
    }

    /// The power fails, and what had not been synced is there or not, but nothing is torn.
    pub(crate) async fn lose_power(&mut self, place: usize) {
        self.end_life(place, false, false).await;
    }

    async fn end_life(&mut self, place: usize, is_killed: bool, may_tear: bool) {
        let at = &mut self.places[place];
        let Some(front) = at.front.take() else { return };
        let status = front.server.status().log;
        self.world.tell("crash", || {
            format!("server {place}, killed: {is_killed}, {status:?}")
        });
        if is_killed {
            at.storage.kill();
        } else {
            at.storage.crash(may_tear);
        }
        // Torn pieces may be taken for a lost end.
        at.is_hurt |= may_tear && !is_killed;
        if status.failure.is_none() {
            at.synced = at.synced.max(status.last_checkpoint_index);
        }
        self.counts.crashes += 1;
        at.gossip = None;
        self.network.disconnect(place);
        self.world.with(|state| state.fronts.remove(&place));
        front.death.strike();
        front.server.shutdown().await;
    }

    /// The disk of a place is gone. The server that comes next is a new member.
    pub(crate) fn wipe(&mut self, place: usize) {
        self.counts.wipes += 1;
        let seed = self.chance.random();
        let id = self.chance.random();
        let at = &mut self.places[place];
        self.world
            .tell("wipe", || format!("server {place}, {} becomes {id}", at.id));
        at.storage = Storage::new(&format!("disk {place}"), seed, self.world.trace.clone());
        at.id = id;
        at.synced = 0;
        at.is_hurt = true;
        self.is_settled = false;
    }

    /// Flips a bit somewhere on the disk of a place where no server runs.
    pub(crate) fn flip(&mut self, place: usize) {
        let at = &mut self.places[place];
        let Ok(mut names) = at.storage.attach().list() else {
            return;
        };
        // What says who the server is has its own checksum and is a few bytes; decay hits what is large.
        names.retain(|name| name.starts_with("checkpoint-") || name.starts_with("log-"));
        if names.is_empty() {
            return;
        }
        let name = &names[self.chance.random_range(0..names.len())];
        let length = at.storage.read(name).map_or(0, |bytes| {
            bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1)
        });
        if length == 0 {
            return;
        }
        let offset = self.chance.random_range(0..length);
        let bit = self.chance.random_range(0..8);
        if at.storage.damage(name, offset, 1 << bit) {
            self.world.tell("flip", || {
                format!("server {place}, {name} at {offset} of {length}")
            });
            self.counts.flips += 1;
            at.is_hurt = true;
            at.synced = 0;
        }
    }

    /// Whether what a place holds may be lost: only a minority may be in doubt at the same time.
    pub(crate) fn may_hurt(&self, place: usize) -> bool {
        let hurt = self
            .places
            .iter()
            .filter(|other| other.number != place && other.is_hurt)
            .count();
        self.is_settled && hurt < (self.places.len() - 1) / 2
    }

    /// Notes which servers hold again all that they may have lost.
    pub(crate) fn look_after(&mut self) {
        let Some(leader) = self.world.leader() else {
            return;
        };
        let leading = leader.server.status().log;
        for at in &mut self.places {
            let Some(front) = &at.front else { continue };
            let status = front.server.status().log;
            at.synced = at.synced.max(status.last_checkpoint_index);
            let is_member = leading.voters.iter().any(|peer| peer.id == at.id);
            let is_whole = is_member
                && status.voters.iter().any(|peer| peer.id == at.id)
                && !status.tail_lost
                && status.applied_index >= leading.commit_index;
            if at.is_hurt && is_whole && !at.is_doomed {
                self.world
                    .tell("whole", || format!("server {} holds all again", at.number));
                at.is_hurt = false;
            }
        }
    }

    /// What an operator does until exactly the servers that there are vote: old members go, new ones come.
    ///
    /// It goes on beside everything else; what can't be done now is tried again.
    pub(crate) async fn operate(&mut self) {
        self.join();
        if let Some(change) = self.operating.take_if(|change| change.is_finished()) {
            let outcome = change.await;
            self.world.tell("members", || format!("{outcome:?}"));
            let wanted: BTreeSet<NodeId> = self.places.iter().map(|at| at.id).collect();
            self.is_settled = matches!(outcome, Ok(Ok(voters)) if voters == wanted);
        }
        if self.operating.is_some() {
            return;
        }
        let Some(leader) = self.world.leader() else {
            return;
        };
        let status = leader.server.consensus().status();
        // A change that was given up may have happened all the same.
        self.is_settled &= status.learners.is_empty() && status.voters.len() == self.places.len();
        if self.is_settled {
            return;
        }
        let votes = |at: &Place| status.voters.iter().any(|peer| peer.id == at.id);
        // Those that find each other need nobody; they are only asked to say when it is done.
        if self.has_gossip && !self.places.iter().all(votes) {
            return;
        }
        let newcomer = self
            .places
            .iter()
            .find(|at| at.front.is_some() && !votes(at))
            .map(Place::peer);
        let mut voters: BTreeSet<NodeId> = self
            .places
            .iter()
            .filter(|at| votes(at))
            .map(|at| at.id)
            .collect();
        voters.extend(newcomer.as_ref().map(|peer| peer.id));
        let consensus = leader.server.consensus().clone();
        let change = async move {
            if let Some(newcomer) = newcomer {
                consensus.add_learner(newcomer).await?;
            }
            consensus.change_voters(voters.clone()).await?;
            Ok(voters)
        };
        self.counts.memberships += 1;
        self.operating = Some(tokio::spawn(async move {
            timeout(Duration::from_secs(8), change)
                .await
                .unwrap_or(Err(MembershipError::OutcomeUnknown))
        }));
    }

    /// Takes a voter out, to be taken in again by [`Cluster::operate`].
    pub(crate) async fn remove(&mut self, place: usize) {
        let Some(leader) = self.world.leader() else {
            return;
        };
        if !self.is_settled {
            return;
        }
        self.is_settled = false;
        let id = self.places[place].id;
        let change = leader.server.consensus().remove(id);
        let outcome = timeout(Duration::from_secs(1), change).await;
        self.counts.memberships += 1;
        self.world
            .tell("members", || format!("server {place} leaves: {outcome:?}"));
    }

    /// Whether exactly the servers that there are vote, and all of them are up.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_settled && self.places.iter().all(|at| at.front.is_some())
    }

    /// Whether every server is up, a voter, and has applied the same.
    fn agreed(&self) -> Option<u64> {
        let leader = self.world.leader()?;
        let leading = leader.server.status().log;
        let mut ids: Vec<NodeId> = leading.voters.iter().map(|peer| peer.id).collect();
        let mut wanted: Vec<NodeId> = self.places.iter().map(|at| at.id).collect();
        ids.sort_unstable();
        wanted.sort_unstable();
        if ids != wanted || !leading.learners.is_empty() {
            return None;
        }
        self.places
            .iter()
            .all(|at| {
                at.front.as_ref().is_some_and(|front| {
                    let status = front.server.status().log;
                    status.applied_index == leading.last_log_index && !status.tail_lost
                })
            })
            .then_some(leading.last_log_index)
    }

    /// All faults are over: what has ended starts again, whatever waits goes on.
    pub(crate) async fn heal(&mut self) {
        self.network.mend();
        self.network.calm();
        for place in 0..self.places.len() {
            self.network.resume(place);
            let at = &mut self.places[place];
            at.storage
                .die_after(u64::MAX, consensus::sim::Death::Killed);
            at.storage.set_fault(DiskFault::None);
            at.storage.set_sync_delay_max(Duration::from_millis(3));
            let has_failed = at
                .front
                .as_ref()
                .is_some_and(|front| front.server.status().log.failure.is_some());
            if has_failed {
                self.crash(place, true).await;
            }
            self.start(place).await;
        }
    }

    /// Waits until all servers hold the same, and compares it byte for byte.
    pub(crate) async fn compare(&mut self) -> Result<(), Violation> {
        const PATIENCE: Duration = Duration::from_secs(90);
        let property = "all servers come to hold the same";
        let end = Instant::now() + PATIENCE;
        loop {
            if Instant::now() > end {
                return Err(Violation::new(property, self.describe()));
            }
            sleep(Duration::from_millis(200)).await;
            let Some(index) = self.agreed() else {
                self.operate().await;
                continue;
            };
            let mut states = Vec::new();
            for at in &self.places {
                let Some(front) = &at.front else { continue };
                if let Err(error) = front.server.consensus().checkpoint().await {
                    return Err(Violation::new(
                        property,
                        format!("server {} makes no checkpoint: {error}", at.number),
                    ));
                }
                let prefix = format!("checkpoint-{index:016x}-");
                let names = at.storage.attach().list().unwrap_or_default();
                let name = names.iter().find(|name| name.starts_with(&prefix));
                states.extend(name.and_then(|name| at.storage.read(name)));
            }
            if states.len() < self.places.len() || self.agreed() != Some(index) {
                continue;
            }
            let differing = states.iter().position(|state| *state != states[0]);
            return match differing {
                None => Ok(()),
                Some(other) => Err(Violation::new(
                    "all servers hold byte-identical state",
                    format!("servers 0 and {other} differ at index {index}"),
                )),
            };
        }
    }

    pub(crate) fn describe(&self) -> String {
        let describe = |at: &Place| match &at.front {
            Some(front) => format!("server {}: {:?}\n", at.number, front.server.status()),
            None => format!("server {}: down\n", at.number),
        };
        self.places.iter().map(describe).collect()
    }

    /// Ends all servers in an orderly way.
    pub(crate) async fn end(&mut self) {
        for at in &mut self.places {
            self.network.disconnect(at.number);
            self.world.with(|state| state.fronts.remove(&at.number));
            if let Some(front) = at.front.take() {
                front.death.strike();
                front.server.shutdown().await;
            }
        }
    }
}

impl Place {
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            id: self.id,
            address: address(self.number),
            name: format!("server-{}", self.number),
        }
    }
}
