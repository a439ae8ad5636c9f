//! One key, and what may happen to it.
//!
//! Modify indexes are indexes of the log: each write has a greater one than all before it. So a row that anybody ever
//! saw says where its write stands among the others, and a write that could only have another index is out of the
//! question at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Row, SessionNumber, Value};

/// One key, as far as the operations so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct State {
    pub(super) row: Option<Known>,
    /// The sessions that exist, a bit each.
    pub(super) alive: u128,
    /// What is written next has a greater modify index than this.
    pub(super) after: u64,
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    /// `None` for a value that nobody ever saw: one is then as good as another.
    value: Option<Value>,
    /// `None` for an index that nobody saw or asked for.
    modify: Option<u64>,
    session: Option<SessionNumber>,
    lock_index: u64,
}

/// What happens to a key at one moment, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Read(Option<Row>),
    Put(Option<Value>),
    /// Its lock stays as it is, and as often taken.
    PutUnderLock(Option<Value>),
    Cas {
        expected: u64,
        value: Option<Value>,
        is_done: bool,
    },
    Delete,
    DeleteCas {
        expected: u64,
        is_done: bool,
    },
    Lock {
        session: SessionNumber,
        bit: u128,
        value: Option<Value>,
        is_done: bool,
    },
    /// A lock that was refused because there is no such session.
    LockRefused {
        bit: u128,
    },
    Unlock {
        session: SessionNumber,
        bit: u128,
        value: Option<Value>,
        is_done: bool,
    },
    Begin(u128),
    End {
        session: SessionNumber,
        bit: u128,
        deletes: bool,
    },
    Restore(Option<Row>),
}

impl Doing {
    /// The row that it saw.
    pub(super) fn row(&self) -> Option<Known> {
        match *self {
            Self::Read(row) => row.map(Known::from),
            Self::Put(_)
            | Self::PutUnderLock(_)
            | Self::Cas { .. }
            | Self::Delete
            | Self::DeleteCas { .. }
            | Self::Lock { .. }
            | Self::LockRefused { .. }
            | Self::Unlock { .. }
            | Self::Begin(_)
            | Self::End { .. }
            | Self::Restore(_) => None,
        }
    }

    /// Whether it changes nothing, wherever it happens.
    pub(super) fn is_look(&self) -> bool {
        match *self {
            Self::Read(_) | Self::LockRefused { .. } => true,
            Self::Cas { is_done, .. }
            | Self::DeleteCas { is_done, .. }
            | Self::Lock { is_done, .. }
            | Self::Unlock { is_done, .. } => !is_done,
            Self::Put(_)
            | Self::PutUnderLock(_)
            | Self::Delete
            | Self::Begin(_)
            | Self::End { .. }
            | Self::Restore(_) => false,
        }
    }
}

/// What was seen of a key at any time, by which writes know their indexes beforehand.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The rows that were seen. A value is written once, and once more at most when the session that holds it ends; so
    /// the value and the holder say which write it was.
    rows: BTreeMap<(Value, Option<SessionNumber>), Row>,
    /// Indexes that were asked for with success or unknown outcome, and that no row was seen with: a row that nobody saw
    /// may have one of them.
    asked: BTreeSet<u64>,
    /// The greatest lock index that was seen: greater ones are all the same.
    lock_index_max: u64,
}

impl Named {
    /// Somebody saw a row.
    pub(super) fn saw(&mut self, row: Row) {
        self.lock_index_max = self.lock_index_max.max(row.lock_index);
        let seen = self.rows.entry((row.value, row.session)).or_insert(row);
        if row.modify < seen.modify {
            *seen = row;
        }
    }

    /// A condition on an index may have held.
    pub(super) fn asked(&mut self, index: u64) {
        self.asked.insert(index);
    }

    /// All was told. A row that came with a restore has the index that its archive gave it, which may be that of a write
    /// as well.
    pub(super) fn settle(&mut self, restored: &BTreeSet<Value>) {
        self.asked.remove(&0);
        for row in self.rows.values() {
            if !restored.contains(&row.value) {
                self.asked.remove(&row.modify);
            }
        }
    }
}

impl State {
    /// Adds the states that may follow.
    pub(super) fn then(&self, doing: &Doing, named: &Named, next: &mut Vec<Self>) {
        match *doing {
            Doing::Read(_)
            | Doing::LockRefused { .. }
            | Doing::Cas { is_done: false, .. }
            | Doing::DeleteCas { is_done: false, .. }
            | Doing::Lock { is_done: false, .. }
            | Doing::Unlock { is_done: false, .. } => {
                if self.shows(doing) {
                    next.push(*self);
                }
            }
            Doing::Put(value) => self.write(value, self.holder(), 0, named, next),
            Doing::PutUnderLock(value) => {
                self.write(value, self.holder(), self.lock_index(), named, next);
            }
            Doing::Cas {
                expected, value, ..
            } => {
                if self.modify() == Some(expected) {
                    self.write(value, self.holder(), 0, named, next);
                }
            }
            Doing::Delete => next.push(self.without_row()),
            Doing::DeleteCas { expected, .. } => {
                // One that isn't there is removed whatever was expected.
                if self.row.is_none() || self.modify() == Some(expected) {
                    next.push(self.without_row());
                }
            }
            Doing::Lock {
                session,
                bit,
                value,
                ..
            } => {
                if self.alive & bit != 0 && self.is_free_for(session) {
                    let anew = u64::from(self.holder().is_none());
                    let lock_index = (self.lock_index() + anew).min(named.lock_index_max + 1);
                    self.write(value, Some(session), lock_index, named, next);
                }
            }
            Doing::Unlock { session, value, .. } => {
                if self.holder() == Some(session) {
                    self.write(value, None, self.lock_index(), named, next);
                }
            }
            Doing::Begin(bit) => next.push(Self {
                alive: self.alive | bit,
                ..*self
            }),
            Doing::End {
                session,
                bit,
                deletes,
            } => {
                let ended = Self {
                    alive: self.alive & !bit,
                    ..*self
                };
                match self.row {
                    Some(row) if row.session == Some(session) => {
                        if deletes {
                            next.push(ended.without_row());
                        } else {
                            ended.write(row.value, None, row.lock_index, named, next);
                        }
                    }
                    Some(_) | None => next.push(ended),
                }
            }
            Doing::Restore(row) => next.push(Self {
                row: row.map(Known::from),
                alive: 0,
                ..self.without_row()
            }),
        }
    }

    /// Whether what changes nothing can happen here.
    pub(super) fn shows(&self, look: &Doing) -> bool {
        match *look {
            Doing::Read(found) => self.row == found.map(Known::from),
            Doing::LockRefused { bit } => self.alive & bit == 0,
            Doing::Cas { expected, .. } => self.modify() != Some(expected),
            Doing::DeleteCas { expected, .. } => {
                self.row.is_some() && self.modify() != Some(expected)
            }
            Doing::Lock { session, bit, .. } => self.alive & bit != 0 && !self.is_free_for(session),
            Doing::Unlock { session, .. } => self.holder() != Some(session),
            Doing::Put(_)
            | Doing::PutUnderLock(_)
            | Doing::Delete
            | Doing::Begin(_)
            | Doing::End { .. }
            | Doing::Restore(_) => false,
        }
    }

    /// Writes a row anew, once for each index that it may have.
    fn write(
        &self,
        value: Option<Value>,
        session: Option<SessionNumber>,
        lock_index: u64,
        named: &Named,
        next: &mut Vec<Self>,
    ) {
        let base = self.without_row();
        let mut push = |modify| {
            next.push(Self {
                row: Some(Known {
                    value,
                    modify,
                    session,
                    lock_index,
                }),
                ..base
            });
        };
        let seen = value.and_then(|value| named.rows.get(&(value, session)));
        if let Some(seen) = seen {
            if seen.lock_index == lock_index && seen.modify > base.after {
                push(Some(seen.modify));
            }
            return;
        }
        push(None);
        for modify in named.asked.range(base.after + 1..) {
            push(Some(*modify));
        }
    }

    fn without_row(&self) -> Self {
        Self {
            row: None,
            after: self.after.max(self.modify().unwrap_or(0)),
            ..*self
        }
    }

    fn modify(&self) -> Option<u64> {
        self.row.map_or(Some(0), |row| row.modify)
    }

    fn holder(&self) -> Option<SessionNumber> {
        self.row.and_then(|row| row.session)
    }

    fn is_free_for(&self, session: SessionNumber) -> bool {
        self.holder().is_none_or(|holder| holder == session)
    }

    fn lock_index(&self) -> u64 {
        self.row.map_or(0, |row| row.lock_index)
    }
}

impl From<Row> for Known {
    fn from(row: Row) -> Self {
        Self {
            value: Some(row.value),
            modify: Some(row.modify),
            session: row.session,
            lock_index: row.lock_index,
        }
    }
}
