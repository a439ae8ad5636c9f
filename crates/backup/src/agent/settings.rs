//! What the snapshot agent is told, and what it needs of its surroundings.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Retention;
use crate::seal::Recipient;
use crate::stores::Store;

/// What the snapshot agent is to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time from the start of one snapshot to the start of the next. Default: an hour. [`run()`](super::run) refuses
    /// less than a second and more than ten years, [`once`](super::once) doesn't look.
    pub interval: Duration,
    /// Whether a server may answer that doesn't lead, so that there are snapshots while nobody does; they may then be
    /// older than they say. Default: no.
    pub stale: bool,
    /// The datacenter that is saved; the local agent's own when empty, the default. Another than that one is only for
    /// [`once`](super::once).
    pub datacenter: String,
    /// The name under which the agent registers itself. Default: `consul-snapshot`.
    pub service: String,
    /// How long after the last sign of life the local agent takes the service away; `None`: never. Default: 72 h.
    /// The local agent makes less than a minute a minute.
    pub deregister_after: Option<Duration>,
    /// The key that one of several agents locks; it alone saves. Default: `consul-snapshot/lock`.
    pub lock_key: String,
    /// After how many failed snapshots in a row the lock is given up, so that another instance can try; 0: never.
    /// Default: 3.
    pub max_failures: u32,
    /// To whom snapshots are encrypted; if to nobody, the default, they aren't.
    pub recipients: Vec<Recipient>,
    /// Where snapshots go, each of them to every place. Default: nowhere, which is refused.
    pub places: Vec<Place>,
}

/// A store, and for how long it keeps snapshots.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where.
    pub store: Arc<dyn Store>,
    /// Which of them are kept there.
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            interval: Duration::from_secs(HOUR),
            stale: false,
            datacenter: String::new(),
            service: "consul-snapshot".to_owned(),
            deregister_after: Some(Duration::from_secs(72 * HOUR)),
            lock_key: "consul-snapshot/lock".to_owned(),
            max_failures: 3,
            recipients: Vec::new(),
            places: Vec::new(),
        }
    }
}

/// What the agent can't have of itself if it is to do the same twice.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// What time it is.
    pub clock: Clock,
    /// Where its chance begins: the id of its service, and how long it waits before it tries again.
    pub seed: u64,
    /// Where archives are looked through.
    pub checking: Checking,
}

impl Surroundings {
    /// Those of a program: the system's clock, and threads.
    pub fn system(seed: u64) -> Self {
        Self {
            clock: Clock::system(),
            seed,
            checking: Checking::OnAThread,
        }
    }
}

/// Where archives are looked through, which takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checking {
    /// On threads of their own, while they arrive.
    OnAThread,
    /// Where they arrive, when all of it is there: for simulations, whose archives are small.
    InPlace,
}

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// One that tells this: nanoseconds since 1970.
    pub fn new(tell: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// The system's.
    pub fn system() -> Self {
        Self::new(|| {
            // Before 1970 it is 1970; the newest snapshot in the stores says then what comes next.
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// Nanoseconds since 1970.
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
