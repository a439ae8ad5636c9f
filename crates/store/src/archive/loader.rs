//! Records into a state, by the index rules of a restore.

use model::{Check, Error, Index, KvEntry, Node, Registration, RestorePart, Service, Text};
use wire::msgpack::Decoder;

use super::error::{Position, StateError};
use super::refusal::Refusal;
use super::rules::{Record, Rules};
use crate::apply::Change;
use crate::changes::Changes;
use crate::state::State;
use crate::tables::Table;
use crate::tables::catalog::CatalogRows;
use crate::tables::lock_delay::LockDelays;
use crate::view::View;
use crate::watch::Touched;

/// Builds a fresh state out of records.
///
/// The original registers the catalog anew, so nodes, services, checks and the table of coordinates all get the index of the header.
/// Everything else keeps the indexes it was written with, and its table has the highest of them.
#[derive(Debug)]
pub struct Loader {
    last_index: Index,
    state: State,
    /// Put into the state at the end, all at once.
    catalog: CatalogRows,
    rules: Rules,
    /// Records and bytes so far, for messages.
    number: u64,
    offset: u64,
}

impl Loader {
    /// Begins with nothing; `last_index` is what the header says.
    pub fn new(last_index: Index) -> Self {
        Self {
            last_index,
            state: State::default(),
            catalog: CatalogRows::default(),
            rules: Rules::default(),
            number: 0,
            offset: 0,
        }
    }

    /// Takes one record.
    ///
    /// # Errors
    /// [`StateError`] names it. What was taken before stays, so the loader is to be dropped.
    pub fn add(&mut self, kind: u8, object: &[u8]) -> Result<(), StateError> {
        self.add_shown(kind, object, |_| {})
    }

    /// The same, and shows the record to who wants to know what came in.
    ///
    /// # Errors
    /// As [`Loader::add`].
    pub fn add_shown(
        &mut self,
        kind: u8,
        object: &[u8],
        show: impl FnOnce(&Record<'_>),
    ) -> Result<(), StateError> {
        self.number += 1;
        let position = Position {
            number: self.number,
            kind,
            offset: self.offset,
        };
        self.offset += 1 + object.len() as u64;
        let record = self
            .rules
            .take(kind, object)
            .map_err(|refusal| StateError::Refused { refusal, position })?;
        show(&record);
        self.insert(record);
        Ok(())
    }

    /// Takes several records that stand one behind the other, as a chunk of a restore has them.
    ///
    /// # Errors
    /// As [`Loader::add`].
    pub fn add_records(&mut self, mut records: &[u8]) -> Result<(), StateError> {
        while let Some((kind, rest)) = records.split_first() {
            let mut object = Decoder::new(rest);
            if let Err(error) = object.skip() {
                let position = Position {
                    number: self.number + 1,
                    kind: *kind,
                    offset: self.offset,
                };
                let refusal = Refusal::Decode(error);
                return Err(StateError::Refused { refusal, position });
            }
            let (object, rest) = rest.split_at(object.position());
            self.add(*kind, object)?;
            records = rest;
        }
        Ok(())
    }

    fn insert(&mut self, record: Record<'_>) {
        let Self {
            state, last_index, ..
        } = self;
        match record {
            Record::Register(registration) => self.register(registration),
            Record::Kv(entry) => {
                state.indexes.raise(Table::Kvs, entry.modify_index);
                state.kv.insert(KvEntry::new(&entry));
            }
            Record::Session(session) => {
                state.indexes.raise(Table::Sessions, session.modify_index);
                state.sessions.insert(session);
            }
            Record::Acl(token) => {
                state.indexes.raise(Table::Acls, token.modify_index);
                state.acls.insert(token);
            }
            Record::Tombstone(key, index) => {
                state.indexes.raise(Table::Tombstones, index);
                state.tombstones.insert(Text::from(key), index);
            }
            Record::Coordinates(batch) => {
                state.indexes.raise(Table::Coordinates, *last_index);
                for row in batch {
                    state.coordinates.insert(row);
                }
            }
            Record::Query(query) => {
                state.indexes.raise(Table::Queries, query.modify_index);
                state.queries.insert(query);
            }
        }
    }

    /// A node with what came with it; the rules have seen to it that each check finds what it names.
    fn register(&mut self, registration: Registration) {
        let Self {
            state,
            catalog,
            last_index,
            ..
        } = self;
        let index = *last_index;
        let name = registration.node.name.clone();
        catalog.insert_node(Node {
            create_index: index,
            modify_index: index,
            ..registration.node
        });
        state.indexes.raise(Table::Nodes, index);
        if let Some(service) = registration.service {
            let service = Service {
                create_index: index,
                modify_index: index,
                ..service
            };
            catalog.insert_service(&name, service);
            state.indexes.raise(Table::Services, index);
        }
        for check in registration.checks {
            let (node, id) = (check.node.lower(), check.check_id.lower());
            let service = catalog.service(&node, &check.service_id.lower());
            let check = Check {
                service_name: service.map_or(check.service_name, |it| it.name.clone()),
                create_index: index,
                modify_index: index,
                ..check
            };
            let is_critical = check.is_critical();
            catalog.insert_check(check);
            state.indexes.raise(Table::Checks, index);
            if is_critical {
                // Only those that were loaded already, as the original does: it writes sessions after checks.
                Change::new(state, index, &mut Touched::default(), &mut Vec::new())
                    .end_sessions_of_check(&node, &id);
            }
        }
    }

    /// The state as something to read, for who only wants to see what became of the records.
    pub fn into_view(self) -> View {
        View::new(0, self.finish())
    }

    /// The state that another one would be if this part were restored over it, for who wants to see that before.
    ///
    /// What was loaded must be just the part, as [`Chunks::of_part`](super::Chunks::of_part) gives it.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn onto(self, live: &View, part: &RestorePart) -> Result<View, Error> {
        let mut state = live.state().clone();
        let newest = state.indexes.newest().max(live.index());
        let (mut touched, mut effects) = (Touched::default(), Vec::new());
        Change::new(&mut state, newest + 1, &mut touched, &mut effects)
            .restore_part(&self.finish(), part)?;
        Ok(View::new(0, state))
    }

    /// The state, at no position of any log yet.
    pub(crate) fn finish(self) -> State {
        let mut state = self.state;
        state.catalog = self.catalog.build();
        // A critical check that came after its session has ended it; no delay comes of that, since there is no clock here.
        state.lock_delays = LockDelays::default();
        // Whoever waits from before a restore is woken by its floor, so what loading touched need not be remembered.
        state.changes = Changes::default();
        state
    }
}
