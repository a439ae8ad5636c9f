//! The single writer's handle.

use std::io;

use model::{ApplyResult, Command, Entry, Error, Index};

use crate::apply::{Change, Effect};
use crate::state::State;
use crate::view::{Shared, View};
use crate::watch::Touched;

/// What an entry of the log came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The entry's index as users see it.
    pub index: Index,
    /// What its proposer is told.
    pub result: ApplyResult,
    /// What has to happen besides, if this server leads.
    pub effects: Vec<Effect>,
}

/// The replicated state with its writer. There is one, and it writes; everybody else reads through [`Shared`].
#[derive(Debug)]
pub struct Store {
    state: State,
    version: u64,
    touched: Touched,
    shared: Shared,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty state, at the beginning of the log.
    pub fn new() -> Self {
        let state = State::default();
        Self {
            shared: Shared::new(View::new(0, state.clone())),
            state,
            version: 0,
            touched: Touched::default(),
        }
    }

    /// Applies an entry of the log. Readers see it after [`Store::publish`].
    ///
    /// An error is an answer like any other: the entry counts as applied, and all servers give the same.
    pub fn apply(&mut self, log_index: u64, term: u64, entry: Entry) -> Applied {
        self.advance(log_index, term);
        self.state.clock_ms = self.state.clock_ms.max(entry.at_ms);
        self.state.lock_delays.pass(self.state.clock_ms);
        let index = self.state.user_index(log_index);
        let mut effects = Vec::new();
        let mut change = Change::new(&mut self.state, index, &mut self.touched, &mut effects);
        let result = change.command(entry.command);
        Applied {
            index,
            result,
            effects,
        }
    }

    /// Counts an entry of the log that carries no command.
    pub fn advance(&mut self, log_index: u64, term: u64) {
        self.state.log_index = log_index;
        self.state.term = term;
    }

    /// Makes all that was applied visible, then wakes whoever waits for what was touched.
    ///
    /// Once per batch: a version is cheap, and one for each entry would not be.
    pub fn publish(&mut self) {
        self.version += 1;
        let view = View::new(self.version, self.state.clone());
        self.shared.publish(view, &mut self.touched);
    }

    /// The readers' side.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Whether a restore is under way. While it is, no checkpoint may be taken: what has come of it so far is in none.
    pub fn restore_is_open(&self) -> bool {
        false
    }

    /// All that was applied, frozen; costs the same whatever the state holds.
    pub fn freeze(&self) -> View {
        View::new(self.version, self.state.clone())
    }
}
