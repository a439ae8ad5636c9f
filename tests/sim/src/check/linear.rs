//! Each key behaves as if every operation on it had happened at one moment between its call and its answer.
//!
//! An operation whose outcome is unknown may have happened at any time after its call, or never; if anybody saw what it
//! wrote, it has happened by then. `key.rs` is what operations do to a key, `search.rs` looks for an order in which they
//! did what their clients saw.

mod key;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use self::key::{Doing, Named};
use self::search::{Step, search};
use super::{Restored, Violation};
use crate::history::{Action, History, Moment, Operation, Outcome, Row, Sweep, Value};

const PROPERTY: &str = "linearizable keys";

/// A history that was too long to judge broke no promise, but doesn't keep it either.
const UNDECIDED: &str = "undecided: linearizable keys";

/// What the search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    InOrder,
    /// There is none: nothing explains the first of these operations, whatever is done with the others that may have
    /// happened before it.
    Impossible(Vec<String>),
    /// It took too much to say.
    Undecided,
}

/// A verdict and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The verdict.
    pub verdict: Verdict,
    /// Steps of the search.
    pub steps: usize,
}

pub(super) fn keys_are_linearizable(
    history: &History,
    restored: Restored,
) -> Result<(), Violation> {
    let mut keys: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        keys.entry(operation.key).or_default().push(operation);
    }
    let mut undecided = Ok(());
    for (key, operations) in keys {
        let checked = check_key(key, &operations, history, restored);
        match checked.verdict {
            Verdict::InOrder => {}
            Verdict::Impossible(stuck) => {
                return Err(Violation::new(
                    PROPERTY,
                    format!(
                        "key {key}: nothing explains what clients saw; where it ends, the first of these doesn't fit:\n{}",
                        stuck.join("\n")
                    ),
                ));
            }
            // Another key may be beyond doubt.
            Verdict::Undecided => {
                undecided = Err(Violation::new(
                    UNDECIDED,
                    format!("key {key}: no order was found in {} steps", checked.steps),
                ));
            }
        }
    }
    undecided
}

/// Looks for an order of the operations on one key, together with what concerned all of them.
///
/// No value may be written twice, and no session may begin twice.
pub fn check_key(
    key: u32,
    operations: &[&Operation],
    history: &History,
    restored: Restored,
) -> Checked {
    let sessions = Sessions::used(operations);
    let sightings = Sightings::of(key, operations, history);
    let mut steps: Vec<Step> = operations
        .iter()
        .filter_map(|operation| step_of(operation, &sessions, &sightings))
        .collect();
    let mut archived: BTreeSet<Value> = BTreeSet::new();
    for sweep in &history.sweeps {
        let doing = match sweep.sweep {
            Sweep::Begin(session) => sessions.bit(session).map(Doing::Begin),
            Sweep::End { session, deletes } => sessions.bit(session).map(|bit| Doing::End {
                session,
                bit,
                deletes,
            }),
            Sweep::Restore(generation) => {
                let row = restored(generation, key);
                archived.extend(row.map(|row| row.value));
                Some(Doing::Restore(row))
            }
            Sweep::RestorePart { generation, merges } => match restored(generation, key) {
                // Values that nobody saw are all the same.
                Some(row) => Some(Doing::PutUnderLock(
                    Some(row.value).filter(|value| sightings.values.contains_key(value)),
                )),
                None => (!merges).then_some(Doing::Delete),
            },
        };
        let returned = match sweep.sweep {
            _ if sweep.is_known => Some(sweep.returned),
            Sweep::Restore(generation) | Sweep::RestorePart { generation, .. } => {
                sightings.generations.get(&generation).copied()
            }
            Sweep::Begin(_) | Sweep::End { .. } => None,
        };
        steps.extend(doing.map(|doing| Step {
            doing,
            called: sweep.called,
            returned,
            shown: format!("{sweep:?}"),
        }));
    }
    steps.sort_by_key(|step| step.called);
    search(&steps, &named(&steps, &sightings, &archived))
}

/// What is known beforehand of rows and their indexes.
fn named(steps: &[Step], sightings: &Sightings, archived: &BTreeSet<Value>) -> Named {
    let mut named = Named::default();
    for row in &sightings.rows {
        named.saw(*row);
    }
    for step in steps {
        if let Doing::Cas {
            expected,
            is_done: true,
            ..
        }
        | Doing::DeleteCas {
            expected,
            is_done: true,
        } = step.doing
        {
            named.asked(expected);
        }
    }
    named.settle(archived);
    named
}

/// The sessions that were ever used with a key, each with its bit.
struct Sessions(Vec<u32>);

impl Sessions {
    fn used(operations: &[&Operation]) -> Self {
        let mut used: Vec<u32> = operations
            .iter()
            .filter_map(|operation| match operation.action {
                Action::Lock { session, .. } | Action::Unlock { session, .. } => Some(session),
                Action::Get
                | Action::Put(_)
                | Action::Cas { .. }
                | Action::Delete
                | Action::DeleteCas { .. } => None,
            })
            .collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() <= 128, "a history with too many sessions");
        Self(used)
    }

    fn bit(&self, session: u32) -> Option<u128> {
        let place = self.0.binary_search(&session).ok()?;
        Some(1 << place)
    }
}

/// What anybody saw, and when first: whatever its writer was told, such a write has happened by then.
#[derive(Default)]
struct Sightings {
    values: BTreeMap<Value, Moment>,
    generations: BTreeMap<u64, Moment>,
    rows: Vec<Row>,
}

impl Sightings {
    fn of(key: u32, operations: &[&Operation], history: &History) -> Self {
        let mut sightings = Self::default();
        for operation in operations {
            if let Outcome::Found(Some(row)) = operation.outcome {
                sightings.note(row, operation.returned);
            }
        }
        for glimpse in &history.glimpses {
            let first = sightings.generations.entry(glimpse.generation);
            let first = first.or_insert(glimpse.at);
            *first = glimpse.at.min(*first);
            for (_, row) in glimpse.rows.iter().filter(|(seen, _)| *seen == key) {
                sightings.note(*row, glimpse.at);
            }
        }
        sightings
    }

    fn note(&mut self, row: Row, at: Moment) {
        let first = self.values.entry(row.value).or_insert(at);
        *first = at.min(*first);
        self.rows.push(row);
    }
}

/// `None` if it says nothing: a read that was never answered.
fn step_of(operation: &Operation, sessions: &Sessions, sightings: &Sightings) -> Option<Step> {
    let written = match operation.action {
        Action::Put(value)
        | Action::Cas { value, .. }
        | Action::Lock { value, .. }
        | Action::Unlock { value, .. } => Some(value),
        Action::Get | Action::Delete | Action::DeleteCas { .. } => None,
    };
    // Values that nobody saw are all the same.
    let value = written.filter(|value| sightings.values.contains_key(value));
    let returned = match operation.outcome {
        Outcome::Unknown => value.and_then(|value| sightings.values.get(&value).copied()),
        Outcome::Applied(_) | Outcome::NoSession | Outcome::Found(_) => Some(operation.returned),
    };
    let is_done = match operation.outcome {
        Outcome::Unknown => true,
        Outcome::Applied(is_done) => is_done,
        Outcome::NoSession | Outcome::Found(_) => false,
    };
    let bit = |session| sessions.bit(session).unwrap_or(0);
    let doing = match operation.action {
        Action::Get => match operation.outcome {
            Outcome::Found(row) => Doing::Read(row),
            Outcome::Unknown | Outcome::Applied(_) | Outcome::NoSession => return None,
        },
        Action::Put(_) => Doing::Put(value),
        Action::Cas { expected, .. } => Doing::Cas {
            expected,
            value,
            is_done,
        },
        Action::Delete => Doing::Delete,
        Action::DeleteCas { expected } => Doing::DeleteCas { expected, is_done },
        Action::Lock { session, .. } if operation.outcome == Outcome::NoSession => {
            Doing::LockRefused { bit: bit(session) }
        }
        Action::Lock { session, .. } => Doing::Lock {
            session,
            bit: bit(session),
            value,
            is_done,
        },
        Action::Unlock { session, .. } => Doing::Unlock {
            session,
            bit: bit(session),
            value,
            is_done,
        },
    };
    Some(Step {
        doing,
        called: operation.called,
        returned,
        shown: format!("{operation:?}"),
    })
}

#[cfg(test)]
mod tests;
