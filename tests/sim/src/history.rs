//! What clients did and what they were told, as the checkers read it.
//!
//! A history knows nothing of servers, networks or disks: it can be written by hand, and the checkers' own tests do.

pub mod backups;
pub mod locks;

use std::fmt;

/// Simulated time in nanoseconds since the beginning.
pub type Moment = u64;

/// Every value that is ever written is another number, so that a reader knows whose write it sees.
pub type Value = u64;

/// A session, numbered in the order in which the history learnt of them.
pub type SessionNumber = u32;

/// What was done to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read it.
    Get,
    /// Write it whatever was there.
    Put(Value),
    /// Write it if its modify index is still the one that was seen.
    Cas {
        /// The modify index; 0 for a key that isn't there.
        expected: u64,
        /// The value that was seen with it.
        seen: Option<Value>,
        /// What to write.
        value: Value,
    },
    /// Remove it.
    Delete,
    /// Remove it if its modify index is still the one that was seen.
    DeleteCas {
        /// The modify index.
        expected: u64,
    },
    /// Write and lock it.
    Lock {
        /// For whom.
        session: SessionNumber,
        /// What to write.
        value: Value,
    },
    /// Write and unlock it.
    Unlock {
        /// By whom.
        session: SessionNumber,
        /// What to write.
        value: Value,
    },
}

/// What concerns all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sweep {
    /// A session came to be.
    Begin(SessionNumber),
    /// A session ended: its keys are unlocked, or go if `deletes`.
    End {
        /// Which.
        session: SessionNumber,
        /// Whether the session was made so that its keys go with it.
        deletes: bool,
    },
    /// All keys are as an archive says, and no session is left.
    Restore(Generation),
    /// Clients' keys are as an archive says, but who holds one goes on holding it, and sessions live on.
    RestorePart {
        /// Of which archive.
        generation: Generation,
        /// Whether keys that the archive lacks stay.
        merges: bool,
    },
}

/// A restore, numbered in the order of attempts, from 1.
pub type Generation = u64;

/// A key as somebody saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Its value.
    pub value: Value,
    /// When it was last written.
    pub modify: u64,
    /// Who holds its lock. [`Row::STRANGER`] for a session the history doesn't know.
    pub session: Option<SessionNumber>,
    /// How often it was locked since it was last written plainly.
    pub lock_index: u64,
}

impl Row {
    /// A session whose creation was never answered.
    pub const STRANGER: SessionNumber = SessionNumber::MAX;
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, or that nobody knows: it may have happened, or happen at any time from now on.
    Unknown,
    /// Whether its condition held and it was done.
    Applied(bool),
    /// That the session does not exist.
    NoSession,
    /// What is there.
    Found(Option<Row>),
}

/// One thing that one client did to one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub client: u64,
    /// Which key.
    pub key: u32,
    /// What.
    pub action: Action,
    /// When it was sent.
    pub called: Moment,
    /// When the answer came; of no meaning if the outcome is unknown.
    pub returned: Moment,
    /// The answer.
    pub outcome: Outcome,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            key,
            action,
            called,
            returned,
            outcome,
        } = self;
        write!(
            f,
            "[{:.6} s to {:.6} s] client {client}, key {key}: {action:?} -> {outcome:?}",
            seconds(*called),
            seconds(*returned)
        )
    }
}

/// For people.
pub(crate) fn seconds(moment: Moment) -> f64 {
    std::time::Duration::from_nanos(moment).as_secs_f64()
}

/// One thing that concerns all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepOperation {
    /// What.
    pub sweep: Sweep,
    /// When it was sent.
    pub called: Moment,
    /// When the answer came.
    pub returned: Moment,
    /// Whether it came, that is, whether it is known to have happened.
    pub is_known: bool,
}

/// All keys of one server at one moment, read from that server alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// Which server.
    pub server: usize,
    /// Its how manieth life: each start begins another.
    pub life: u64,
    /// When.
    pub at: Moment,
    /// The index it had applied.
    pub index: u64,
    /// What restore its generation's keys tell of; 0 before any.
    pub generation: Generation,
    /// The clients' keys that exist, by key.
    pub rows: Vec<(u32, Row)>,
}

/// Somebody waited for one server alone to have news of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which server.
    pub server: usize,
    /// Its how manieth life.
    pub life: u64,
    /// For which key.
    pub key: u32,
    /// For anything behind this index.
    pub index: u64,
    /// Whether the key was there before.
    pub existed: bool,
    /// When the waiting began.
    pub called: Moment,
    /// When it was over.
    pub returned: Moment,
}

/// A key that is written once and never touched again but by restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepsake {
    /// Its number.
    pub number: u64,
    /// When the write was sent.
    pub called: Moment,
    /// When it was acknowledged.
    pub acknowledged: Moment,
}

/// A server that was started again on a disk that nothing had happened to but a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which server.
    pub server: usize,
    /// When.
    pub at: Moment,
    /// The index of the newest checkpoint that was on its disk when it stopped.
    pub synced: u64,
    /// The index that it had applied when it was up.
    pub applied: u64,
}

/// A server neither sent nor received for a while, and lost nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Which server.
    pub server: usize,
    /// Since when.
    pub from: Moment,
    /// Until when.
    pub to: Moment,
}

/// All that clients know at the end.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Starts of servers.
    pub starts: Vec<Start>,
    /// Operations on single keys, in any order.
    pub operations: Vec<Operation>,
    /// Operations on all keys.
    pub sweeps: Vec<SweepOperation>,
    /// States of single servers.
    pub glimpses: Vec<Glimpse>,
    /// Who waited, and how long.
    pub waits: Vec<Waiting>,
    /// Times for which nobody can blame a server.
    pub pauses: Vec<Pause>,
    /// Acknowledged keepsakes.
    pub keepsakes: Vec<Keepsake>,
    /// The keepsakes that are there at the end.
    pub kept: std::collections::BTreeSet<u64>,
}
