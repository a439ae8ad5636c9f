//! Keys that may not be locked yet, because the session that held them was ended against its will.
//!
//! The original keeps these in the memory of each server, by its own clock; here they are rows with deadlines by the log's clock, so every server gives the same verdict and a new leader too.

use imbl::{OrdMap, OrdSet};
use model::Text;

/// Keys under delay with their deadlines, in milliseconds of the log's clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct LockDelays {
    until: OrdMap<Text, u64>,
    by_deadline: OrdSet<(u64, Text)>,
}

impl LockDelays {
    /// Forbids locking this key until then.
    pub(crate) fn insert(&mut self, key: Text, until_ms: u64) {
        if let Some(before) = self.until.insert(key.clone(), until_ms) {
            self.by_deadline.remove(&(before, key.clone()));
        }
        self.by_deadline.insert((until_ms, key));
    }

    /// Whether this key may not be locked now. Deadlines that have passed are gone already.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.until.contains_key(key)
    }

    /// Drops the deadlines that have been reached.
    pub(crate) fn pass(&mut self, now_ms: u64) {
        while let Some((until, key)) = self.by_deadline.get_min().cloned()
            && until <= now_ms
        {
            self.until.remove(&key);
            self.by_deadline.remove(&(until, key));
        }
    }

    /// All of them, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Text, u64)> {
        self.until.iter().map(|(key, until)| (key, *until))
    }
}
