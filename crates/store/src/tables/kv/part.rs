//! Keys of a snapshot written over those that there are.

use model::{KvEntry, KvParts, RestorePart, Section, Text};

use super::Kv;
use crate::apply::Change;
use crate::restore::replaces;

impl Change<'_> {
    /// Writes the keys that the snapshot has and removes those it lacks, if it replaces.
    pub(crate) fn restore_keys(&mut self, loaded: &Kv, part: &RestorePart) {
        // What was moved to another name was locked under its own.
        let with_locks = part.has(Section::Sessions) && part.into_prefix().is_none();
        for place in part.places() {
            if replaces(part.mode()) {
                let doomed: Vec<Text> = (self.state.kv.under(&place))
                    .filter(|entry| loaded.get(entry.key()).is_none())
                    .map(|entry| Text::from(entry.key()))
                    .collect();
                for key in doomed {
                    self.delete_key(&key);
                }
            }
            for entry in loaded.under(&place) {
                self.restore_key(entry, with_locks);
            }
        }
    }

    /// Writes a key, unless it says the same already.
    ///
    /// Its lock is one thing, what it says another. Who holds the lock goes on holding it, as when anybody else writes the
    /// key; the lock of the snapshot is taken anew, if it may be taken: when its session was restored as well and no
    /// lock-delay is running. The lock index never goes back, and whoever takes the lock anew gets a higher one, since
    /// others may go by it to tell an old holder from the new one.
    fn restore_key(&mut self, entry: &KvEntry, with_locks: bool) {
        let wanted = entry.parts();
        let before = self.state.kv.get(wanted.key).map(KvEntry::parts);
        let sessions = &self.state.sessions;
        let holder = before
            .and_then(|before| before.session)
            .filter(|id| sessions.get(*id).is_some());
        let taken = wanted.session.filter(|id| {
            with_locks
                && holder.is_none()
                && sessions.get(*id).is_some()
                && !self.state.lock_delays.contains(wanted.key)
        });
        let reached = before.map_or(0, |before| {
            let step = u64::from(taken.is_some());
            before.lock_index.saturating_add(step)
        });
        let wanted = KvParts {
            session: holder.or(taken),
            lock_index: wanted.lock_index.max(reached),
            create_index: before.map_or(self.index, |before| before.create_index),
            modify_index: before.map_or(self.index, |before| before.modify_index),
            ..wanted
        };
        if before == Some(wanted) {
            return;
        }
        self.put_entry(KvEntry::new(&KvParts {
            modify_index: self.index,
            ..wanted
        }));
    }
}
