//! Keys that may not be locked yet, because the session that held them was ended against its will.
//!
//! The original keeps these in the memory of each server, by its own clock; here they are rows with deadlines by the log's clock, so every server gives the same verdict and a new leader too.
//!
//! A delay doesn't run from the entry that ends the session: that one bears the time of its proposal, and may have been on its way for seconds while whoever held the lock could still read that it did.
//! It runs from a later entry ([`model::Command::LockDelaysBegin`]), which the leader proposes when it has seen the session end, and until then the key stays locked away.

use imbl::{OrdMap, OrdSet};
use model::Text;

/// How long a key may not be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delay {
    /// It was lost at this index of the log, and its delay of so many milliseconds has yet to begin.
    Waiting { since: u64, span_ms: u64 },
    /// Until the log's clock shows this, in milliseconds.
    Until(u64),
}

/// Keys under delay.
#[derive(Debug, Clone, Default)]
pub(crate) struct LockDelays {
    rows: OrdMap<Text, Delay>,
    by_deadline: OrdSet<(u64, Text)>,
    /// (index of the log, key) of those that have yet to begin.
    waiting: OrdSet<(u64, Text)>,
}

impl LockDelays {
    /// Puts a delay in its place; one that this key had before is gone.
    pub(crate) fn insert(&mut self, key: Text, delay: Delay) {
        match self.rows.insert(key.clone(), delay) {
            Some(Delay::Until(until_ms)) => {
                self.by_deadline.remove(&(until_ms, key.clone()));
            }
            Some(Delay::Waiting { since, .. }) => {
                self.waiting.remove(&(since, key.clone()));
            }
            None => {}
        }
        match delay {
            Delay::Until(until_ms) => self.by_deadline.insert((until_ms, key)),
            Delay::Waiting { since, .. } => self.waiting.insert((since, key)),
        };
    }

    /// Whether this key may not be locked now. Deadlines that have passed are gone already.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.rows.contains_key(key)
    }

    /// Lets the delays of keys that were lost up to this index of the log run from now on.
    pub(crate) fn begin(&mut self, upto: u64, now_ms: u64) {
        while let Some((since, key)) = self.waiting.get_min().cloned()
            && since <= upto
        {
            let Some(Delay::Waiting { span_ms, .. }) = self.rows.get(&key).copied() else {
                // What waits has a row that says so.
                self.waiting.remove(&(since, key));
                continue;
            };
            self.insert(key, Delay::Until(now_ms.saturating_add(span_ms)));
        }
    }

    /// The last index of the log at which a key was lost whose delay has yet to begin.
    pub(crate) fn waiting_until(&self) -> Option<u64> {
        self.waiting.get_max().map(|(since, _)| *since)
    }

    /// Drops the deadlines that have been reached.
    pub(crate) fn pass(&mut self, now_ms: u64) {
        while let Some((until, key)) = self.by_deadline.get_min().cloned()
            && until <= now_ms
        {
            self.rows.remove(&key);
            self.by_deadline.remove(&(until, key));
        }
    }

    /// All of them, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Text, Delay)> {
        self.rows.iter().map(|(key, delay)| (key, *delay))
    }
}
