//! The single writer's handle.

use std::io;

use model::{
    ApplyResult, Command, Entry, Error, Index, Reply, RestoreBegin, RestoreChunk, RestoreCommit,
    Uuid,
};

use crate::apply::{Change, Effect};
use crate::checkpoint::{self, LoadError};
use crate::restore::{OpenRestore, Whole};
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
    restore: Option<OpenRestore>,
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
            restore: None,
        }
    }

    /// Applies an entry of the log. Readers see it after [`Store::publish`].
    ///
    /// An error is an answer like any other: the entry counts as applied, and all servers give the same.
    pub fn apply(&mut self, log_index: u64, term: u64, entry: Entry) -> Applied {
        self.state.clock_ms = self.state.clock_ms.max(entry.at_ms);
        self.state.lock_delays.pass(self.state.clock_ms);
        self.advance(log_index, term);
        let mut effects = Vec::new();
        let result = match entry.command {
            Command::RestoreBegin(begin) => self.begin_restore(&begin),
            Command::RestoreChunk(chunk) => self.go_on_with_restore(&chunk),
            Command::RestoreCommit(commit) => self.commit_restore(&commit, &mut effects),
            command @ (Command::Register(_)
            | Command::Deregister(_)
            | Command::Kv(_)
            | Command::Txn(_)
            | Command::SessionCreate(_)
            | Command::SessionDestroy(_)
            | Command::SessionExpire { .. }
            | Command::LockDelaysBegin(_)
            | Command::AclSet(_)
            | Command::AclDelete(_)
            | Command::QuerySet(_)
            | Command::QueryDelete(_)
            | Command::Coordinates(_)
            | Command::TombstoneReap(_)) => {
                let index = self.state.user_index(log_index);
                Change::new(&mut self.state, index, &mut self.touched, &mut effects)
                    .command(command)
            }
        };
        Applied {
            index: self.state.user_index(log_index),
            result,
            effects,
        }
    }

    /// Counts an entry of the log that carries no command.
    pub fn advance(&mut self, log_index: u64, term: u64) {
        self.state.log_index = log_index;
        self.state.term = term;
        // A leader that is gone will not go on with what it began, nor will one that takes so long.
        let now_ms = self.state.clock_ms;
        self.restore
            .take_if(|restore| !restore.is_alive(term, now_ms));
    }

    fn begin_restore(&mut self, begin: &RestoreBegin) -> ApplyResult {
        self.restore = None;
        let State { term, clock_ms, .. } = self.state;
        self.restore = Some(OpenRestore::begin(begin, term, clock_ms)?);
        Ok(Reply::Nothing)
    }

    fn go_on_with_restore(&mut self, chunk: &RestoreChunk) -> ApplyResult {
        let mut restore = self.take_restore(chunk.id)?;
        restore.take(chunk)?;
        self.restore = Some(restore);
        Ok(Reply::Nothing)
    }

    fn commit_restore(&mut self, commit: &RestoreCommit, effects: &mut Vec<Effect>) -> ApplyResult {
        let restore = self.take_restore(commit.id)?;
        match restore.commit(commit, &self.state)? {
            Whole::State(state) => {
                self.state = state;
                self.touched.everything();
                effects.push(Effect::StateReplaced);
            }
            Whole::Part(loaded, part) => {
                // On a copy, which shares all that isn't changed: what is refused in the middle has changed nothing.
                let mut state = self.state.clone();
                let (mut touched, mut follows) = (Touched::default(), Vec::new());
                let index = state.user_index(state.log_index);
                Change::new(&mut state, index, &mut touched, &mut follows)
                    .restore_part(&loaded, &part)?;
                self.state = state;
                self.touched.add(touched);
                effects.append(&mut follows);
            }
        }
        Ok(Reply::Nothing)
    }

    /// Takes the open restore, if it is this one. An entry of any other drops it: there is one leader, and it has begun anew.
    fn take_restore(&mut self, id: Uuid) -> Result<OpenRestore, Error> {
        self.restore
            .take()
            .filter(|restore| restore.is(id))
            .ok_or_else(|| Error::Invalid(format!("restore {id} is not open")))
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
        self.restore.is_some()
    }

    /// All that was applied, frozen; costs the same whatever the state holds.
    pub fn freeze(&self) -> View {
        View::new(self.version, self.state.clone())
    }

    /// Replaces everything by a checkpoint, makes it visible and wakes everybody.
    ///
    /// # Errors
    /// What is wrong with the source; nothing was changed then.
    pub fn install(&mut self, source: &mut dyn io::Read) -> Result<(), LoadError> {
        self.state = checkpoint::read(source)?;
        self.restore = None;
        self.touched.everything();
        self.publish();
        Ok(())
    }
}
