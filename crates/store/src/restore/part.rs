//! A part of a snapshot written over what there is: one entry of the log, and the same rules as if each row of it were
//! written or removed by itself.
//!
//! What a row must find there is restored before it: the catalog, then sessions, then keys with their locks and queries.
//! A row that says what is there already is not touched, so nobody who waits for it is woken.

use model::{Error, RestoreMode, RestorePart, Section};

use crate::apply::{Change, Effect};
use crate::state::State;

impl Change<'_> {
    /// Writes what was loaded of a part. After an error the state is of no use, so it has to be a copy.
    pub(crate) fn restore_part(&mut self, loaded: &State, part: &RestorePart) -> Result<(), Error> {
        let mode = part.mode();
        for section in Section::ALL {
            if !part.has(section) {
                continue;
            }
            match section {
                Section::Catalog => {
                    self.restore_catalog(&loaded.catalog, mode);
                    self.restore_coordinates(&loaded.coordinates, mode);
                }
                Section::Sessions => self.restore_sessions(&loaded.sessions, mode)?,
                Section::Acl => self.restore_tokens(&loaded.acls, mode),
                Section::Kv => self.restore_keys(&loaded.kv, part),
                Section::Queries => self.restore_queries(&loaded.queries, mode)?,
            }
        }
        // A leader sees to members, sessions and its own tokens, so it has to look at them anew.
        let is_its_duty = [Section::Catalog, Section::Sessions, Section::Acl];
        if is_its_duty.into_iter().any(|section| part.has(section)) {
            self.effect(Effect::StateReplaced);
        }
        Ok(())
    }
}

/// Whether what the snapshot lacks goes.
pub(crate) fn replaces(mode: RestoreMode) -> bool {
    match mode {
        RestoreMode::Replace => true,
        RestoreMode::Merge => false,
    }
}
