//! Each key behaves as if every operation on it had happened at one moment between its call and its answer.
//!
//! The search is that of Wing and Gong with Lowe's memory: it puts operations in an order that respects who was answered
//! before whom was called, runs them on a model of one key, and never tries the same set of operations with the same
//! state twice. An operation whose outcome is unknown may take its place at any time after its call, or never.

use std::collections::{BTreeMap, HashSet};

use super::{Restored, Violation};
use crate::history::{Action, History, Moment, Operation, Outcome, Row, Sweep, seconds};

const PROPERTY: &str = "linearizable keys";

/// Steps that the search for one key may take. A history that is in order takes a few for each operation.
const STEPS_MAX: usize = 2_000_000;

/// What the search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    InOrder,
    /// There is none; after the longest beginning of one, none of these operations fits.
    Impossible(Vec<String>),
    /// It took too many steps to say.
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
    for (key, operations) in keys {
        match check_key(key, &operations, history, restored).verdict {
            Verdict::InOrder => {}
            Verdict::Impossible(stuck) => {
                return Err(Violation::new(
                    PROPERTY,
                    format!(
                        "key {key}: nothing explains what clients saw; where it ends, none of these fits:\n{}",
                        stuck.join("\n")
                    ),
                ));
            }
            Verdict::Undecided => {
                return Err(Violation::new(
                    PROPERTY,
                    format!("key {key}: no order was found within {STEPS_MAX} steps"),
                ));
            }
        }
    }
    Ok(())
}

/// Looks for an order of the operations on one key, together with what concerned all of them.
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
        .filter_map(|operation| Step::of(operation, &sessions, &sightings))
        .collect();
    for sweep in &history.sweeps {
        let doing = match sweep.sweep {
            Sweep::Begin(session) => sessions.bit(session).map(Doing::Begin),
            Sweep::End { session, deletes } => sessions.bit(session).map(|bit| Doing::End {
                session,
                bit,
                deletes,
            }),
            Sweep::Restore(generation) => Some(Doing::Restore(restored(generation, key))),
        };
        let returned = match sweep.sweep {
            _ if sweep.is_known => Some(sweep.returned),
            Sweep::Restore(generation) => sightings.generations.get(&generation).copied(),
            Sweep::Begin(_) | Sweep::End { .. } => None,
        };
        steps.extend(doing.map(|doing| Step {
            doing,
            written_as: None,
            called: sweep.called,
            returned,
            shown: format!("{sweep:?}"),
        }));
    }
    steps.sort_by_key(|step| step.called);
    search(&steps)
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

/// When values were first seen by anybody: whatever its writer was told, such a write has happened by then.
#[derive(Default)]
struct Sightings {
    values: BTreeMap<u64, Sighting>,
    generations: BTreeMap<u64, Moment>,
}

/// A value as it was seen.
#[derive(Clone, Copy)]
struct Sighting {
    /// When first.
    at: Moment,
    /// The row with the smallest modify index that anybody saw.
    row: Row,
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
        let seen = self.values.entry(row.value);
        let seen = seen.or_insert(Sighting { at, row });
        seen.at = seen.at.min(at);
        if row.modify < seen.row.modify {
            seen.row = row;
        }
    }
}

/// Something that happens to a key at one moment.
struct Step {
    doing: Doing,
    /// The row that the write made, if somebody saw it: what is known of it need not be guessed.
    written_as: Option<Row>,
    called: Moment,
    /// When it was over; `None` if nobody knows whether it happened.
    returned: Option<Moment>,
    shown: String,
}

enum Doing {
    Read(Option<Row>),
    Put(u64),
    Cas {
        expected: u64,
        seen: Option<u64>,
        value: u64,
        /// `None` if unknown, so that only success is of interest.
        done: Option<bool>,
    },
    Delete,
    DeleteCas {
        expected: u64,
        done: Option<bool>,
    },
    Lock {
        session: u32,
        bit: u128,
        value: u64,
        done: Option<bool>,
    },
    /// A lock that was refused because there is no such session.
    LockRefused {
        bit: u128,
    },
    Unlock {
        session: u32,
        value: u64,
        done: Option<bool>,
    },
    Begin(u128),
    End {
        session: u32,
        bit: u128,
        deletes: bool,
    },
    Restore(Option<Row>),
}

impl Step {
    /// `None` if it says nothing: a read that was never answered.
    fn of(operation: &Operation, sessions: &Sessions, sightings: &Sightings) -> Option<Self> {
        let written = match operation.action {
            Action::Put(value)
            | Action::Cas { value, .. }
            | Action::Lock { value, .. }
            | Action::Unlock { value, .. } => Some(value),
            Action::Get | Action::Delete | Action::DeleteCas { .. } => None,
        };
        let seen = written.and_then(|value| sightings.values.get(&value));
        let returned = if operation.outcome == Outcome::Unknown {
            seen.map(|seen| seen.at)
        } else {
            Some(operation.returned)
        };
        let done = match operation.outcome {
            Outcome::Unknown if returned.is_some() => Some(true),
            Outcome::Unknown => None,
            Outcome::Applied(done) => Some(done),
            Outcome::NoSession | Outcome::Found(_) => Some(false),
        };
        let bit = |session| sessions.bit(session).unwrap_or(0);
        let doing = match operation.action {
            Action::Get => match &operation.outcome {
                Outcome::Found(row) => Doing::Read(*row),
                Outcome::Unknown | Outcome::Applied(_) | Outcome::NoSession => return None,
            },
            Action::Put(value) => Doing::Put(value),
            Action::Cas {
                expected,
                seen,
                value,
            } => Doing::Cas {
                expected,
                seen,
                value,
                done,
            },
            Action::Delete => Doing::Delete,
            Action::DeleteCas { expected } => Doing::DeleteCas { expected, done },
            Action::Lock { session, .. } if operation.outcome == Outcome::NoSession => {
                Doing::LockRefused { bit: bit(session) }
            }
            Action::Lock { session, value } => Doing::Lock {
                session,
                bit: bit(session),
                value,
                done,
            },
            Action::Unlock { session, value } => Doing::Unlock {
                session,
                value,
                done,
            },
        };
        // The end of a session writes a key anew, with the value that it had. Nothing else does, so where that can't have
        // happened, the index that was seen is the write's own.
        let is_unlock = matches!(operation.action, Action::Unlock { .. });
        let written_as = seen
            .map(|seen| seen.row)
            .filter(|row| sessions.0.is_empty() || is_unlock || row.session.is_some());
        Some(Self {
            doing,
            written_as,
            called: operation.called,
            returned,
            shown: format!("{operation:?}"),
        })
    }
}

/// One key, as far as the operations so far say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    row: Option<Known>,
    /// The sessions that exist.
    alive: u128,
    /// What is written next has a greater modify index than this.
    after: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Known {
    value: u64,
    /// `None` until somebody has read it.
    modify: Option<u64>,
    session: Option<u32>,
    lock_index: u64,
}

impl State {
    /// The state after a step, or `None` if the step can't happen here as its client saw it.
    fn then(self, step: &Step) -> Option<Self> {
        let next = self.after(&step.doing)?;
        // A failed condition writes nothing.
        match step.written_as {
            Some(row) if next != self => next.read(Some(row)),
            Some(_) | None => Some(next),
        }
    }

    fn modify(&self) -> Option<u64> {
        self.row.map_or(Some(0), |row| row.modify)
    }

    /// Writes a row anew.
    fn write(mut self, value: u64, session: Option<u32>, lock_index: u64) -> Self {
        self.forget_modify();
        self.row = Some(Known {
            value,
            modify: None,
            session,
            lock_index,
        });
        self
    }

    fn forget_modify(&mut self) {
        if let Some(modify) = self.row.and_then(|row| row.modify) {
            self.after = self.after.max(modify);
        }
    }

    fn remove(mut self) -> Self {
        self.forget_modify();
        self.row = None;
        self
    }

    fn holder(&self) -> Option<u32> {
        self.row.and_then(|row| row.session)
    }

    fn lock_index(&self) -> u64 {
        self.row.map_or(0, |row| row.lock_index)
    }

    fn after(mut self, doing: &Doing) -> Option<Self> {
        match *doing {
            Doing::Read(found) => self.read(found),
            Doing::Put(value) => Some(self.write(value, self.holder(), 0)),
            Doing::Cas {
                expected,
                seen,
                value,
                done,
            } => {
                // If the index isn't known, the value that was seen with the expected one still has to be there.
                let holds = self.modify().map_or_else(
                    || (expected != 0 && self.row.map(|row| row.value) == seen).then_some(expected),
                    |modify| (modify == expected).then_some(expected),
                );
                match (done, holds) {
                    (None | Some(true), Some(_)) => {
                        self.after = self.after.max(expected);
                        Some(self.write(value, self.holder(), 0))
                    }
                    (None | Some(true), None) => None,
                    (Some(false), Some(_)) if self.modify().is_some() => None,
                    (Some(false), _) => Some(self),
                }
            }
            Doing::Delete => Some(self.remove()),
            Doing::DeleteCas { expected, done } => {
                // One that isn't there is removed whatever was expected.
                let holds = self
                    .row
                    .is_none_or(|row| row.modify.is_none() || row.modify == Some(expected));
                let is_certain = self.modify().is_some();
                match done {
                    None | Some(true) => holds.then(|| self.remove()),
                    Some(false) => (!(holds && is_certain)).then_some(self),
                }
            }
            Doing::Lock {
                session,
                bit,
                value,
                done,
            } => {
                if self.alive & bit == 0 {
                    return None;
                }
                let is_free = self.holder().is_none_or(|holder| holder == session);
                match done {
                    Some(false) => (!is_free).then_some(self),
                    None | Some(true) if !is_free => None,
                    None | Some(true) => {
                        let anew = u64::from(self.holder().is_none());
                        let lock_index = self.lock_index() + anew;
                        Some(self.write(value, Some(session), lock_index))
                    }
                }
            }
            Doing::LockRefused { bit } => (self.alive & bit == 0).then_some(self),
            Doing::Unlock {
                session,
                value,
                done,
            } => {
                let is_held = self.holder() == Some(session);
                match done {
                    Some(false) => (!is_held).then_some(self),
                    None | Some(true) => {
                        is_held.then(|| self.write(value, None, self.lock_index()))
                    }
                }
            }
            Doing::Begin(bit) => {
                self.alive |= bit;
                Some(self)
            }
            Doing::End {
                session,
                bit,
                deletes,
            } => {
                let held = self.holder() == Some(session);
                self.alive &= !bit;
                match self.row {
                    Some(_) if held && deletes => Some(self.remove()),
                    Some(row) if held => Some(self.write(row.value, None, row.lock_index)),
                    Some(_) | None => Some(self),
                }
            }
            Doing::Restore(row) => Some(Self {
                row: row.map(|row| Known {
                    value: row.value,
                    modify: Some(row.modify),
                    session: row.session,
                    lock_index: row.lock_index,
                }),
                alive: 0,
                after: 0,
            }),
        }
    }

    fn read(mut self, found: Option<Row>) -> Option<Self> {
        let (row, found) = match (self.row, found) {
            (None, None) => return Some(self),
            (Some(row), Some(found)) => (row, found),
            (None, Some(_)) | (Some(_), None) => return None,
        };
        let fits = row.value == found.value
            && row.session == found.session
            && row.lock_index == found.lock_index
            && match row.modify {
                Some(modify) => modify == found.modify,
                None => found.modify > self.after,
            };
        self.row = Some(Known {
            modify: Some(found.modify),
            ..row
        });
        fits.then_some(self)
    }
}

/// One place on the way: what may come next, best first, and which of it was tried.
struct Frame {
    state: State,
    candidates: Vec<(usize, State)>,
    next: usize,
}

/// The steps that have happened, one bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Happened(Box<[u64]>);

impl Happened {
    fn has(&self, step: usize) -> bool {
        self.0[step / 64] & (1 << (step % 64)) != 0
    }

    fn flip(&mut self, step: usize) {
        self.0[step / 64] ^= 1 << (step % 64);
    }
}

/// Steps are sorted by the time of their call.
fn search(steps: &[Step]) -> Checked {
    let wanted = steps.iter().filter(|step| step.returned.is_some()).count();
    let mut happened = Happened(vec![0; steps.len().div_ceil(64)].into());
    let mut seen: HashSet<(Happened, State, Option<Doubtful>)> = HashSet::new();
    let mut path: Vec<usize> = Vec::new();
    let mut found = 0;
    let mut count = 0;
    let mut best: (usize, Vec<String>) = (0, Vec::new());
    let mut frames = vec![frame(steps, &happened, State::default(), None)];
    while let Some(top) = frames.last_mut() {
        if found == wanted {
            return Checked {
                verdict: Verdict::InOrder,
                steps: count,
            };
        }
        let Some((step, state)) = top.candidates.get(top.next).copied() else {
            if found >= best.0 {
                best = (found, stuck(steps, &happened));
            }
            frames.pop();
            if let Some(step) = path.pop() {
                happened.flip(step);
                found -= usize::from(steps[step].returned.is_some());
            }
            continue;
        };
        top.next += 1;
        count += 1;
        if count > STEPS_MAX {
            return Checked {
                verdict: Verdict::Undecided,
                steps: count,
            };
        }
        let is_certain = steps[step].returned.is_some();
        let doubtful = (!is_certain).then_some(Doubtful {
            step,
            before: top.state,
        });
        happened.flip(step);
        // What may follow depends on what came last, if that was doubtful.
        if !seen.insert((happened.clone(), state, doubtful)) {
            happened.flip(step);
            continue;
        }
        path.push(step);
        found += usize::from(is_certain);
        frames.push(frame(steps, &happened, state, doubtful));
    }
    Checked {
        verdict: Verdict::Impossible(best.1),
        steps: count,
    }
}

/// Steps that were called before every other that is still to come was over.
fn open<'a>(steps: &'a [Step], happened: &Happened) -> Vec<(usize, &'a Step)> {
    let mut first_return = Moment::MAX;
    let mut open = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        if step.called > first_return {
            break;
        }
        if happened.has(number) {
            continue;
        }
        first_return = first_return.min(step.returned.unwrap_or(Moment::MAX));
        open.push((number, step));
    }
    open
}

/// A step of unknown outcome that was just taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Doubtful {
    step: usize,
    /// The state without it.
    before: State,
}

impl Doubtful {
    /// Whether another step may come right after this one. It may not if it could as well have come before, or if this
    /// one might as well not have happened: what is doubtful is assumed as late as possible, and only where it explains
    /// something. Without this, all that nobody ever heard of could be tried everywhere.
    fn explains(&self, steps: &[Step], next: usize, after: &State) -> bool {
        let Some(without) = self.before.then(&steps[next]) else {
            return true;
        };
        if without == *after {
            return false;
        }
        let commutes = without.then(&steps[self.step]) == Some(*after);
        let in_order = steps[next].returned.is_none() && self.step < next;
        !commutes || in_order
    }
}

fn frame(steps: &[Step], happened: &Happened, state: State, doubtful: Option<Doubtful>) -> Frame {
    let mut open = open(steps, happened);
    // What is certain comes first; what is doubtful is only needed where that doesn't fit.
    open.sort_by_key(|(_, step)| step.returned.unwrap_or(Moment::MAX));
    let candidates = open
        .into_iter()
        .filter_map(|(number, step)| Some((number, state.then(step)?)))
        .filter(|(number, after)| {
            doubtful
                .as_ref()
                .is_none_or(|doubtful| doubtful.explains(steps, *number, after))
        })
        .collect();
    Frame {
        state,
        candidates,
        next: 0,
    }
}

fn stuck(steps: &[Step], happened: &Happened) -> Vec<String> {
    let mut shown: Vec<String> = open(steps, happened)
        .into_iter()
        .map(|(_, step)| match step.returned {
            Some(_) => format!("  {}", step.shown),
            None => format!("  {} (may have happened)", step.shown),
        })
        .collect();
    let last = steps
        .iter()
        .enumerate()
        .filter(|(number, _)| happened.has(*number))
        .filter(|(_, step)| !matches!(step.doing, Doing::Begin(_)));
    let mut last: Vec<&Step> = last.map(|(_, step)| step).collect();
    last.sort_by_key(|step| step.returned.unwrap_or(step.called));
    for step in last.iter().rev().take(6) {
        shown.push(format!(
            "  before, about {:.3} s: {}",
            seconds(step.called),
            step.shown
        ));
    }
    shown
}

#[cfg(test)]
mod tests;
