//! The server itself: what its pipelines share, and its start and end.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use consensus::{Consensus, Disk, Leadership, Transport};
use gossip::Gossip;
use model::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rpc::{Calls, Cluster, Serve};
use store::{Shared, Store};
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::access::Resolver;
use crate::coordinates::Coordinates;
use crate::faces::{ForMembers, InProcess};
use crate::founding::Promise;
use crate::leader::Timers;
use crate::machine::Machine;
use crate::route::Leader;
use crate::{Config, coordinates, directory, founding, leader, leave};

/// The wall clock, read where the leader settles a command and nowhere else.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log or its state could not be brought up.
    #[error(transparent)]
    Log(#[from] consensus::StartError),
    /// A new cluster could not be made of this server.
    #[error("cannot bootstrap: {0}")]
    Bootstrap(consensus::MembershipError),
    /// What it has to tell of itself does not fit.
    #[error("cannot tell the other members of this server: {0}")]
    Tags(gossip::TagsError),
}

/// Figures about a server, for `consul info` and the like.
#[derive(Debug, Clone, Default)]
pub struct ServerStatus {
    /// Of the log.
    pub log: consensus::Status,
    /// The index that users see.
    pub index: model::Index,
    /// Whether this server leads.
    pub is_leader: bool,
}

/// How a server with an empty log comes to have members. One with a log needs none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// It waits until the leader of a cluster takes it in.
    #[default]
    Join,
    /// It is the first and only member.
    Bootstrap,
    /// The same, but for so long it looks for other servers first, and if one of them has a cluster it waits to be taken in.
    /// For one that was told of others: it may have lost the disk with which it was a member of theirs.
    BootstrapUnlessFound(Duration),
    /// It waits until so many servers that expect the same are there, and makes a cluster with them.
    Expect(usize),
}

/// What a server stands on; each has a second form in the simulator.
pub struct Parts {
    /// Where the log lies.
    pub disk: Arc<dyn Disk>,
    /// Carries the log's messages to the peers.
    pub transport: Arc<dyn Transport>,
    /// Carries requests to other servers.
    pub calls: Arc<dyn Calls>,
    /// The clock on the wall.
    pub clock: Arc<dyn WallClock>,
    /// The pool of the datacenter's members; without it the server knows nobody but the peers that it was given.
    pub gossip: Option<Gossip>,
}

/// What the pipelines share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) start: Start,
    /// The way to the other servers.
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) gossip: Option<Gossip>,
    pub(crate) consensus: Consensus,
    pub(crate) shared: Shared,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// The term in which this server, as the leader, has applied all that was committed before it; else 0.
    ready: AtomicU64,
    /// Who was not heard from for so long is not known to lead any more.
    pub(crate) leader_known_for: Duration,
    /// Another server that leads.
    leader: std::sync::Mutex<Option<Arc<Leader>>>,
    /// Tells of every change of who leads or is ready to, in the order in which they came (a `watch` would draw lots).
    pub(crate) leader_changed: Notify,
    pub(crate) replaced: watch::Receiver<u64>,
    /// How many uploaded snapshots may be checked at the same time.
    pub(crate) uploads: Semaphore,
    /// How many snapshots may be written at the same time.
    pub(crate) saves: Arc<Semaphore>,
    /// One restore at a time: a second would only drop the first.
    pub(crate) restoring: Mutex<()>,
    /// Told when a restore was broken off in the middle.
    pub(crate) restore_abandoned: Notify,
    pub(crate) coordinates: Coordinates,
    pub(crate) resolver: Resolver,
    /// When sessions end that nobody renews.
    pub(crate) timers: Arc<Timers>,
    /// Told when keys were lost whose lock-delay has yet to begin.
    pub(crate) delayed: Arc<Notify>,
    promise: std::sync::Mutex<Promise>,
    chance: std::sync::Mutex<StdRng>,
    /// What the log's clock showed when this server came to lead, and when that was.
    time: std::sync::Mutex<(u64, Instant)>,
}

/// Each holds a file of the size of its state.
const UPLOADS_MAX: usize = 4;

/// Each holds a view of the state and a thread for as long as its reader likes; threads are needed for other things as well.
const SAVES_MAX: usize = 8;

/// How long ago a server that never heard of a leader says that was: as long as the original can count.
const NEVER: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

impl Core {
    /// A new random id.
    pub(crate) fn draw_id(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.chance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// The time to write into the log, in milliseconds.
    ///
    /// It is a stopwatch rather than a calendar: what waits in the state for a moment, as a key does whose holder was
    /// lost, must wait for so long indeed. A wall clock would cut that short when somebody sets it right, or when the
    /// next leader's is ahead; so each leader goes on from where the log had come when it began, by its monotonic clock.
    /// While nobody leads the time stands still, and what waits waits for that much longer.
    pub(crate) fn now_ms(&self) -> u64 {
        let (began_ms, began) = *self.time.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        began_ms.saturating_add(elapsed)
    }

    /// Goes on with the log's clock from where it has come.
    fn take_over_time(&self) {
        let come_to = match self.shared.view().clock_ms() {
            // The first leader of all begins where the clock on its wall is, for people who look into the log.
            0 => self.clock.now_ms(),
            ms => ms,
        };
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) = (come_to, Instant::now());
    }

    /// Whether this server leads and has caught up with what was committed before it led.
    pub(crate) fn leads(&self) -> bool {
        let term = self.ready.load(Ordering::Acquire);
        if term == 0 {
            return false;
        }
        let leadership = self.leadership.borrow();
        leadership.is_leader && leadership.term == term
    }

    /// Says that this server has caught up in `term`; 0 that it has not.
    pub(crate) fn set_ready(&self, term: u64) {
        if term > 0 {
            self.take_over_time();
        }
        self.ready.store(term, Ordering::Release);
        self.leader_changed.notify_waiters();
    }

    /// The term that this server is in.
    pub(crate) fn term(&self) -> u64 {
        self.leadership.borrow().term
    }

    /// Whom this server has promised to wait for.
    pub(crate) fn promise(&self) -> MutexGuard<'_, Promise> {
        self.promise.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this server was elected, though it may have to catch up yet.
    pub(crate) fn is_elected(&self) -> bool {
        self.leadership.borrow().is_leader
    }

    /// How long ago this server heard from a leader; zero if it is the leader itself.
    pub(crate) fn last_contact(&self) -> Duration {
        if self.is_elected() {
            Duration::ZERO
        } else {
            self.consensus.last_contact().unwrap_or(NEVER)
        }
    }

    /// Whether some server leads, as far as this one can tell: one that is cut off keeps the name of its last leader, because it stands for no election that it can't win.
    pub(crate) fn knows_leader(&self) -> bool {
        self.leadership.borrow().leader.is_some() && self.last_contact() < self.leader_known_for
    }

    /// Another server that leads, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<Arc<Leader>> {
        self.leader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes who leads by what the log knows now.
    pub(crate) fn note_leader(&self, leadership: &Leadership) {
        let leader = Leader::of(leadership, self.consensus.id(), &self.config.datacenter);
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader.map(Arc::new);
        self.leader_changed.notify_waiters();
    }

    /// Returns when this one does not lead any more, as far as this server knows, or is not heard of any more.
    ///
    /// Silence counts when there is nobody who could elect another.
    pub(crate) async fn deposed(&self, leader: &Leader) {
        loop {
            let mut news = pin!(self.leader_changed.notified());
            news.as_mut().enable();
            if self
                .leader()
                .is_none_or(|now| (now.term, now.id) != (leader.term, leader.id))
            {
                return;
            }
            tokio::select! {
                biased;
                () = news => {}
                () = tokio::time::sleep(self.config.hold_max) => {
                    if !self.knows_leader() {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until this server leads and is ready to.
    async fn lead(&self) {
        loop {
            let mut news = pin!(self.leader_changed.notified());
            // Enrolled before looking, so that nothing slips in between.
            news.as_mut().enable();
            if self.leads() {
                return;
            }
            news.await;
        }
    }

    /// Refuses requests to datacenters that this server cannot reach.
    pub(crate) fn route(&self, datacenter: &[u8]) -> Result<(), Error> {
        if datacenter.is_empty() || datacenter == self.config.datacenter.as_bytes() {
            Ok(())
        } else {
            Err(Error::NoPath)
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// All that a server does by itself, until it is told to stop.
async fn work(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let founding = async {
        match (core.start, &core.gossip) {
            (Start::Expect(expected), Some(gossip)) => {
                founding::run(&core, gossip, expected).await;
            }
            (Start::BootstrapUnlessFound(patience), Some(gossip)) => {
                founding::run_alone(&core, gossip, patience).await;
            }
            (Start::Join | Start::Bootstrap, _) | (_, None) => {}
        }
        std::future::pending().await
    };
    // One task: a `watch` on which several wait draws lots among them.
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = leader::run(&core) => {}
        () = coordinates::run(&core) => {}
        () = founding => {}
    }
}

/// A running server.
pub struct Server {
    core: Arc<Core>,
    shutdown: watch::Sender<bool>,
    duties: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.core.config)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the data directory and takes part.
    ///
    /// Must be called on the runtime that is to run it.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong with the data directory and what to do.
    pub async fn start(
        config: Config,
        log: consensus::Config,
        parts: Parts,
        start: Start,
    ) -> Result<Self, StartError> {
        let Parts {
            disk,
            transport,
            calls,
            clock,
            gossip,
        } = parts;
        let store = Store::new();
        let shared = store.shared();
        let replaced = Arc::new(watch::Sender::new(0));
        let replacements = replaced.subscribe();
        let timers = Arc::new(Timers::default());
        let delayed = Arc::new(Notify::new());
        let machine = Machine::new(store, replaced, Arc::clone(&timers), Arc::clone(&delayed));
        let machine = Box::new(machine);
        let peer_config = log.clone();
        let consensus = Consensus::start(log, disk, machine, transport).await?;
        // Without gossip there is nowhere to look.
        let is_first = match start {
            Start::Bootstrap => true,
            Start::BootstrapUnlessFound(_) => gossip.is_none(),
            Start::Join | Start::Expect(_) => false,
        };
        if is_first && !consensus.initialized().await {
            let me = peer_config.peer(consensus.id());
            consensus
                .bootstrap(vec![me])
                .await
                .map_err(StartError::Bootstrap)?;
        }
        if let Some(gossip) = &gossip {
            let tags = directory::tags(gossip.local().tags, &config, start, consensus.id());
            gossip.set_tags(tags).map_err(StartError::Tags)?;
        }
        let chance = StdRng::seed_from_u64(config.seed);
        let core = Arc::new(Core {
            leadership: consensus.leadership(),
            config,
            start,
            consensus,
            calls,
            gossip,
            shared,
            clock,
            ready: AtomicU64::new(0),
            leader_known_for: peer_config.election_timeout_max,
            leader: std::sync::Mutex::new(None),
            leader_changed: Notify::new(),
            replaced: replacements,
            uploads: Semaphore::new(UPLOADS_MAX),
            saves: Arc::new(Semaphore::new(SAVES_MAX)),
            restoring: Mutex::new(()),
            restore_abandoned: Notify::new(),
            coordinates: Coordinates::default(),
            resolver: Resolver::default(),
            timers,
            delayed,
            promise: std::sync::Mutex::new(Promise::new()),
            time: std::sync::Mutex::new((0, Instant::now())),
            chance: std::sync::Mutex::new(chance),
        });
        let (shutdown, stop) = watch::channel(false);
        let duties = tokio::spawn(work(Arc::clone(&core), stop));
        Ok(Self {
            core,
            shutdown,
            duties: Mutex::new(Some(duties)),
        })
    }

    /// The handle through which everything above asks this server.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(InProcess(Arc::clone(&self.core)))
    }

    /// What answers other members; it shares its pipelines with [`cluster`](Self::cluster).
    pub fn serve(&self) -> Arc<dyn Serve> {
        Arc::new(ForMembers(Arc::clone(&self.core)))
    }

    /// Figures.
    pub fn status(&self) -> ServerStatus {
        ServerStatus {
            log: self.core.consensus.status(),
            index: self.core.shared.view().index(),
            is_leader: self.core.leads(),
        }
    }

    /// Waits until this server leads and answers, at most so long.
    ///
    /// # Errors
    /// [`Error::NoLeader`] if it did not come to that.
    pub async fn wait_for_leader(&self, timeout: Duration) -> Result<(), Error> {
        tokio::time::timeout(timeout, self.core.lead())
            .await
            .map_err(|_| Error::NoLeader)
    }

    /// The log of this server, for messages from its peers and for tests.
    pub fn consensus(&self) -> &Consensus {
        &self.core.consensus
    }

    /// Leaves the cluster for good: hands over what it leads, says good-bye to all members, and waits at most 5 s to see itself taken out.
    ///
    /// The server goes on running; [`shutdown`](Self::shutdown) comes next. One that is alone has nobody to hand over to.
    pub async fn leave(&self) {
        leave::leave(&self.core).await;
    }

    /// Stops; returns when everything is on disk and nothing runs any more.
    pub async fn shutdown(&self) {
        self.shutdown.send_replace(true);
        if let Some(duties) = self.duties.lock().await.take()
            && let Err(error) = duties.await
            && error.is_panic()
        {
            tracing::error!("the leader's duties ended by a panic");
        }
        self.core.consensus.shutdown().await;
    }
}
