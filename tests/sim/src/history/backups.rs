//! What snapshot agents asked, were told and did, and what lay in the stores.

use std::collections::BTreeSet;
use std::time::Duration;

use backup::{Name, Retention};

use super::Moment;

/// A process, of which no two are the same.
pub type Process = u32;

/// A store, by its place in the settings.
pub type Store = usize;

/// Something between a process and its consul agent, or a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which process.
    pub process: Process,
    /// When it was asked.
    pub called: Moment,
    /// When the answer was there, if one came.
    pub returned: Option<Moment>,
    /// What it was.
    pub what: What,
}

/// What was asked, and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The process began.
    Began,
    /// It was killed, or ended.
    Ended,
    /// A snapshot was asked for; what comes back is the beginning of it.
    Saves,
    /// The lock was asked for with a session, and given or not.
    Takes {
        /// With which.
        session: String,
        /// Whether the answer says that the key was locked.
        taken: bool,
    },
    /// The lock was given back.
    Releases,
    /// The process said that it gave the lock back since too many of its snapshots had failed.
    GivesUp,
    /// The lock was read, by way of a leader that has made sure that it is one, or not.
    Reads {
        /// Whether it was.
        consistent: bool,
        /// Whose it is, as far as there was an answer: `None` without one, `Some("")` if nobody's.
        holder: Option<String>,
    },
    /// A session was renewed.
    Renews {
        /// Which.
        session: String,
        /// Whether the answer says that there is no such session any more.
        gone: bool,
    },
    /// The names in a store were listed.
    Lists {
        /// Which store.
        store: Store,
        /// What the answer was.
        names: Vec<Name>,
    },
    /// A snapshot was to be given its name.
    Publishes {
        /// Where.
        store: Store,
        /// Which.
        name: Name,
        /// When the store had all of it.
        filled: Moment,
        /// When it got it, if ever; that may be later than any answer.
        visible: Option<Moment>,
    },
    /// A snapshot was to be removed.
    Removes {
        /// Where.
        store: Store,
        /// Which.
        name: Name,
        /// When it went, if ever.
        gone: Option<Moment>,
    },
}

/// A write of a key that was acknowledged; no two write the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Which.
    pub key: u64,
    /// When it was asked for.
    pub called: Moment,
    /// When it was acknowledged.
    pub returned: Moment,
}

/// A time in which something might be otherwise than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From when.
    pub from: Moment,
    /// Until when.
    pub to: Moment,
}

impl Span {
    /// Whether any of it lies in this time.
    pub fn meets(&self, from: Moment, to: Moment) -> bool {
        self.from <= to && from <= self.to
    }
}

/// What a snapshot held that got its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub store: Store,
    /// Which.
    pub name: Name,
    /// Why it can't be restored, if it can't.
    pub fault: Option<String>,
    /// The written keys in it.
    pub keys: BTreeSet<u64>,
}

/// All that is known of a life with snapshot agents.
#[derive(Debug, Clone, Default)]
pub struct BackupHistory {
    /// From the start of one snapshot to the start of the next.
    pub interval: Duration,
    /// Whether servers were asked that need not lead.
    pub stale: bool,
    /// After how many failed snapshots in a row the lock is given up; 0: never.
    pub max_failures: u32,
    /// When a store gave back less than it had been given.
    pub lies: Vec<Span>,
    /// Whether machines' clocks are far apart.
    pub clocks_are_wrong: bool,
    /// What each store keeps.
    pub retentions: Vec<Retention>,
    /// What happened, in the order in which it was asked.
    pub events: Vec<Event>,
    /// How many processes there were.
    pub processes: Process,
    /// What was in the snapshots.
    pub held: Vec<Held>,
    /// What was written beside.
    pub writes: Vec<Written>,
    /// When the cluster was, or may have been, set back to an earlier state.
    pub restores: Vec<Span>,
    /// When something went wrong that keeps an agent from its work: from the first to the last moment.
    pub troubles: Vec<Span>,
    /// When processes stood still.
    pub stops: Vec<(Process, Span)>,
    /// From when on nothing went wrong any more, and until when that was looked at.
    pub peace: Option<Span>,
}
