//! A command on its way into the state.

use model::{ApplyResult, Command, Error, Index, KvEntry, Reply, Text, Uuid};

use crate::changes::{Kind, Subject};
use crate::state::State;
use crate::tables::Table;
use crate::tables::catalog::Catalog;
use crate::watch::Touched;

/// What has to happen after a command, besides its reply: for the duties of a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// A session was created; its timer may be set.
    SessionCreated {
        /// Which.
        id: Uuid,
    },
    /// A session is gone, whatever ended it.
    SessionEnded {
        /// Which.
        id: Uuid,
    },
    /// Keys were lost whose lock-delay has yet to begin, see [`Command::LockDelaysBegin`].
    KeysDelayed,
    /// Something was deleted and is remembered until it is reaped: keys, or names that somebody may wait for.
    KeysDeleted {
        /// When.
        index: Index,
    },
    /// A restore: everything is new, or so much that a leader has to look at everything anew.
    StateReplaced,
}

/// One entry of the log at work on the state: where it writes, at which index, and what it leaves behind.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) index: Index,
    touched: &'a mut Touched,
    effects: &'a mut Vec<Effect>,
}

impl<'a> Change<'a> {
    pub(crate) fn new(
        state: &'a mut State,
        index: Index,
        touched: &'a mut Touched,
        effects: &'a mut Vec<Effect>,
    ) -> Self {
        Self {
            state,
            index,
            touched,
            effects,
        }
    }
}

/// What it writes, by subject, is in the file of each table; here is what all of them do.
impl Change<'_> {
    /// Applies one command. An error changes nothing.
    ///
    /// The commands of a restore are not for one state alone, see [`crate::restore`].
    pub(crate) fn command(&mut self, command: Command) -> ApplyResult {
        match command {
            Command::Register(registration) => {
                self.register(&registration)?;
                Ok(Reply::Nothing)
            }
            Command::Deregister(deregistration) => {
                self.deregister(&deregistration);
                Ok(Reply::Nothing)
            }
            Command::Kv(op) => self.kv(&op),
            Command::Txn(ops) => Ok(Reply::Txn(self.txn(&ops))),
            Command::SessionCreate(session) => self.create_session(*session),
            Command::SessionDestroy(id) => {
                self.end_session(id);
                Ok(Reply::Nothing)
            }
            Command::SessionExpire { id, term } => {
                self.expire_session(id, term);
                Ok(Reply::Nothing)
            }
            Command::LockDelaysBegin(upto) => {
                let now_ms = self.state.clock_ms;
                self.state.lock_delays.begin(upto, now_ms);
                Ok(Reply::Nothing)
            }
            Command::AclSet(token) => self.set_token(*token),
            Command::AclDelete(id) => self.delete_token(&id.0),
            Command::QuerySet(set) => self.set_query(*set),
            Command::QueryDelete(id) => self.delete_query(id),
            Command::Coordinates(batch) => {
                self.coordinates(batch);
                Ok(Reply::Nothing)
            }
            Command::TombstoneReap(upto) => {
                self.reap(upto);
                Ok(Reply::Nothing)
            }
            Command::RestoreBegin(_) | Command::RestoreChunk(_) | Command::RestoreCommit(_) => Err(
                Error::Internal("a restore is not applied to the live state".to_owned()),
            ),
        }
    }

    /// A table was written.
    pub(crate) fn wrote(&mut self, table: Table) {
        self.state.indexes.raise(table, self.index);
        self.touched.table(table);
    }

    /// A name was changed, and whoever asks later must be able to know.
    pub(crate) fn note(&mut self, kind: Kind, name: &[u8]) {
        let subject = Subject::new(kind, name);
        self.state.changes.insert(subject.clone(), self.index);
        self.touched.subject(subject);
    }

    /// A name was changed, and the rows themselves say when.
    pub(crate) fn wake(&mut self, kind: Kind, name: &[u8]) {
        self.touched.subject(Subject::new(kind, name));
    }

    /// The row of a node was written, or a check of the node itself: all services there are concerned.
    pub(crate) fn wake_health_of_node(&mut self, node_lower: &Text) {
        self.touched.node(node_lower.clone());
    }

    /// A key was written or removed.
    pub(crate) fn wake_key(&mut self, entry: KvEntry) {
        self.touched.entry(entry);
    }

    /// Keys that begin so were removed.
    pub(crate) fn wake_tree(&mut self, prefix: Text) {
        self.touched.tree(prefix);
    }

    /// Something was deleted that is remembered until it is reaped; said once.
    pub(crate) fn deleted(&mut self) {
        let effect = Effect::KeysDeleted { index: self.index };
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    /// Something has to happen later.
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Forgets deletions.
    fn reap(&mut self, upto: Index) {
        let keys = self.state.tombstones.reap(upto);
        let State {
            catalog, changes, ..
        } = &mut *self.state;
        let names = changes.reap(upto, |subject| is_gone(catalog, subject));
        self.state.reaped = self.state.reaped.max(keys).max(names);
    }

    /// Where a transaction starts, to go back to if it fails.
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.touched.mark(), self.effects.len())
    }

    /// Forgets what was touched since the mark; the state itself is the caller's to put back.
    pub(crate) fn back_to(&mut self, (touched, effects): (usize, usize)) {
        self.touched.back_to(touched);
        self.effects.truncate(effects);
    }
}

/// Whether nothing of this name is left, so that its last change may be forgotten.
fn is_gone(catalog: &Catalog, subject: &Subject) -> bool {
    let (kind, name) = subject.split();
    let name = Text::from(name);
    let Some(kind) = Kind::from_number(kind) else {
        return true;
    };
    match kind {
        Kind::Instances | Kind::Health => catalog.instances_of(&name).next().is_none(),
        Kind::ServiceChecks => catalog.checks_of_service(&name).next().is_none(),
        Kind::Node | Kind::NodeChecks | Kind::NodeSessions => catalog.node(&name).is_none(),
        Kind::Status => catalog.checks_in(&name).next().is_none(),
        // Those that exist say themselves when they changed.
        Kind::Table | Kind::Session | Kind::Acl | Kind::Query => true,
    }
}
