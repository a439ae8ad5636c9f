//! The checker against one that simply tries every order, on tiny histories.
//!
//! [`Truth`] is a key as it is, with all that the checker proper only infers. It makes histories, of which some are then
//! spoiled, and it judges them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{judge_with, restored};
use crate::check::linear::Verdict;
use crate::history::{Action, Moment, Outcome, Row, SessionNumber, Sweep};

/// Indexes are spread out while orders are tried, so that there is room between any two for what nobody saw.
const SPREAD: u64 = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Truth {
    row: Option<(u64, u64, Option<SessionNumber>, u64)>,
    alive: BTreeSet<SessionNumber>,
    /// The newest index.
    index: u64,
}

#[derive(Debug, Clone)]
enum What {
    Action(Action),
    Sweep(Sweep),
}

#[derive(Debug, Clone)]
struct Event {
    what: What,
    called: Moment,
    /// `None` if its outcome is unknown.
    returned: Option<Moment>,
    outcome: Outcome,
}

impl Truth {
    fn write(&mut self, value: u64, index: u64, session: Option<SessionNumber>, lock_index: u64) {
        self.index = index;
        self.row = Some((value, index, session, lock_index));
    }

    fn modify(&self) -> u64 {
        self.row.map_or(0, |row| row.1)
    }

    fn holder(&self) -> Option<SessionNumber> {
        self.row.and_then(|row| row.2)
    }

    fn lock_index(&self) -> u64 {
        self.row.map_or(0, |row| row.3)
    }

    /// Does something, at an index if it writes. Indexes in the history count `unit` here.
    fn act(&mut self, what: &What, index: u64, unit: u64) -> Outcome {
        match what {
            What::Action(action) => self.act_on_key(action, index, unit),
            What::Sweep(sweep) => {
                self.sweep(sweep, index, unit);
                Outcome::Applied(true)
            }
        }
    }

    fn act_on_key(&mut self, action: &Action, index: u64, unit: u64) -> Outcome {
        let holder = self.holder();
        match *action {
            Action::Get => {
                return Outcome::Found(self.row.map(|(value, modify, session, lock_index)| Row {
                    value,
                    modify,
                    session,
                    lock_index,
                }));
            }
            Action::Put(value) => self.write(value, index, holder, 0),
            Action::Cas {
                expected, value, ..
            } => {
                if self.modify() != expected * unit {
                    return Outcome::Applied(false);
                }
                self.write(value, index, holder, 0);
            }
            Action::Delete => self.row = None,
            Action::DeleteCas { expected } => {
                if self.row.is_some() && self.modify() != expected * unit {
                    return Outcome::Applied(false);
                }
                self.row = None;
            }
            Action::Lock { session, value } => {
                if !self.alive.contains(&session) {
                    return Outcome::NoSession;
                }
                match holder {
                    Some(other) if other != session => return Outcome::Applied(false),
                    Some(_) => self.write(value, index, holder, self.lock_index()),
                    None => self.write(value, index, Some(session), self.lock_index() + 1),
                }
            }
            Action::Unlock { session, value } => {
                if holder != Some(session) {
                    return Outcome::Applied(false);
                }
                self.write(value, index, None, self.lock_index());
            }
        }
        Outcome::Applied(true)
    }

    fn sweep(&mut self, sweep: &Sweep, index: u64, unit: u64) {
        match *sweep {
            Sweep::Begin(session) => {
                self.alive.insert(session);
            }
            Sweep::End { session, deletes } => {
                self.alive.remove(&session);
                if let Some((value, _, holder, lock_index)) = self.row
                    && holder == Some(session)
                {
                    self.write(value, index, None, lock_index);
                    if deletes {
                        self.row = None;
                    }
                }
            }
            Sweep::Restore(generation) => {
                self.alive.clear();
                self.row = restored(generation, 1).map(|row| {
                    self.index = self.index.max(row.modify * unit);
                    (row.value, row.modify * unit, None, 0)
                });
            }
            Sweep::RestorePart { generation, merges } => match restored(generation, 1) {
                Some(row) => self.write(row.value, index, self.holder(), self.lock_index()),
                None if merges => {}
                None => self.row = None,
            },
        }
    }
}

/// Tries every order, every subset of what may have happened, and every index that anybody spoke of.
struct Naive<'a> {
    events: &'a [Event],
    indexes: Vec<u64>,
    tried: BTreeSet<(u32, Truth)>,
}

fn is_in_order(events: &[Event]) -> bool {
    let mut indexes = BTreeSet::new();
    for event in events {
        match (&event.what, &event.outcome) {
            (_, Outcome::Found(Some(row))) => indexes.insert(row.modify),
            (What::Action(Action::Cas { expected, .. } | Action::DeleteCas { expected }), _) => {
                indexes.insert(*expected)
            }
            _ => false,
        };
    }
    let mut naive = Naive {
        events,
        indexes: indexes.into_iter().map(|index| index * SPREAD).collect(),
        tried: BTreeSet::new(),
    };
    naive.goes_on(0, &Truth::default())
}

impl Naive<'_> {
    fn goes_on(&mut self, done: u32, truth: &Truth) -> bool {
        let left = |number: &usize| done & (1 << number) == 0;
        let events = self.events;
        let still = || (0..events.len()).filter(left);
        let first_return = still().filter_map(|number| events[number].returned).min();
        let Some(first_return) = first_return else {
            return true;
        };
        if !self.tried.insert((done, truth.clone())) {
            return false;
        }
        for number in still().filter(|number| events[*number].called <= first_return) {
            let event = &events[number];
            let newest = truth.index;
            let spoken_of: Vec<u64> = self.indexes.clone();
            let spoken_of = spoken_of.into_iter().filter(|index| *index > newest);
            for index in spoken_of.chain([newest + 1]) {
                let mut next = truth.clone();
                let outcome = next.act(&event.what, index, SPREAD);
                let fits = event.returned.is_none() || outcome == spread(&event.outcome);
                if fits && self.goes_on(done | (1 << number), &next) {
                    return true;
                }
            }
        }
        false
    }
}

fn spread(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Found(row) => Outcome::Found(row.map(|row| Row {
            modify: row.modify * SPREAD,
            ..row
        })),
        Outcome::Unknown | Outcome::Applied(_) | Outcome::NoSession => outcome.clone(),
    }
}

/// What decides one event of a history.
#[derive(Debug, Clone)]
struct Draw {
    kind: u8,
    choice: u8,
    before: u64,
    behind: u64,
    fate: u8,
}

fn draw() -> impl Strategy<Value = Draw> {
    (0..16_u8, 0..8_u8, 0..25_u64, 0..25_u64, 0..10_u8).prop_map(
        |(kind, choice, before, behind, fate)| Draw {
            kind,
            choice,
            before,
            behind,
            fate,
        },
    )
}

/// A history as it might be, of which then at most one answer is spoiled.
fn history(draws: &[Draw], spoiled: Option<(usize, u8)>) -> Vec<Event> {
    let mut truth = Truth::default();
    let mut rows = vec![row_of_nothing()];
    let mut events = Vec::new();
    for session in [1, 2] {
        let what = What::Sweep(Sweep::Begin(session));
        truth.act(&what, 0, 1);
        events.push(Event {
            what,
            called: 0,
            returned: Some(20),
            outcome: Outcome::Applied(true),
        });
    }
    let mut restores = 0;
    for (number, draw) in draws.iter().enumerate() {
        let what = what(draw, 10 + number as u64, &rows, &mut restores);
        let is_look = matches!(what, What::Action(Action::Get));
        let at = 30 + 10 * number as u64;
        let is_unknown = draw.fate < 4 && !is_look;
        let happens = draw.fate.is_multiple_of(2) || !is_unknown;
        let outcome = if happens {
            let index = truth.index + 1 + u64::from(draw.choice % 3);
            truth.act(&what, index, 1)
        } else {
            Outcome::Unknown
        };
        rows.extend(truth.row.map(|(value, modify, session, lock_index)| Row {
            value,
            modify,
            session,
            lock_index,
        }));
        events.push(Event {
            what,
            called: at - draw.before,
            returned: (!is_unknown).then_some(at + draw.behind),
            outcome: if is_unknown {
                Outcome::Unknown
            } else {
                outcome
            },
        });
    }
    if let Some((place, how)) = spoiled {
        let place = 2 + place % draws.len();
        spoil(&mut events[place], how, &rows);
    }
    events
}

fn row_of_nothing() -> Row {
    Row {
        value: 7,
        modify: 7,
        session: None,
        lock_index: 0,
    }
}

fn what(draw: &Draw, value: u64, rows: &[Row], restores: &mut u64) -> What {
    let session = 1 + SessionNumber::from(draw.choice % 2);
    let row = rows[rows.len() - 1 - usize::from(draw.choice / 2).min(rows.len() - 1)];
    let expected = if draw.choice == 7 { 0 } else { row.modify };
    What::Action(match draw.kind {
        0..=4 => Action::Get,
        5 => Action::Put(value),
        6 | 7 => Action::Cas {
            expected,
            seen: Some(row.value),
            value,
        },
        8 => Action::Delete,
        9 => Action::DeleteCas { expected },
        10 | 11 => Action::Lock { session, value },
        12 | 13 => Action::Unlock { session, value },
        14 => {
            return What::Sweep(Sweep::End {
                session,
                deletes: draw.choice >= 4,
            });
        }
        _ => {
            *restores += 1;
            // The ninth removes.
            let generation = if draw.choice == 0 { 9 } else { *restores };
            return What::Sweep(match draw.choice {
                1..=3 => Sweep::RestorePart {
                    generation,
                    merges: draw.choice == 2,
                },
                _ => Sweep::Restore(generation),
            });
        }
    })
}

fn spoil(event: &mut Event, how: u8, rows: &[Row]) {
    let other = rows[usize::from(how) % rows.len()];
    event.outcome = match (&event.outcome, &event.what) {
        (_, What::Sweep(_)) | (Outcome::Unknown, _) => return,
        (Outcome::Found(Some(row)), _) if how.is_multiple_of(4) => Outcome::Found(Some(Row {
            modify: row.modify + 1,
            ..*row
        })),
        (Outcome::Found(Some(_)), _) if how % 4 == 1 => Outcome::Found(None),
        (Outcome::Found(_), _) => Outcome::Found(Some(other)),
        (
            Outcome::Applied(done),
            What::Action(
                Action::Cas { .. }
                | Action::DeleteCas { .. }
                | Action::Lock { .. }
                | Action::Unlock { .. },
            ),
        ) => Outcome::Applied(!done),
        (Outcome::NoSession, _) => Outcome::Applied(how.is_multiple_of(2)),
        (Outcome::Applied(_), What::Action(_)) => return,
    };
}

fn judge(events: &[Event]) -> Verdict {
    let mut lines = Vec::new();
    let mut sweeps = Vec::new();
    for event in events {
        match &event.what {
            What::Action(action) => lines.push((
                event.called,
                event.returned.unwrap_or(event.called),
                action.clone(),
                event.outcome.clone(),
            )),
            What::Sweep(sweep) => sweeps.push((event.called, event.returned, sweep.clone())),
        }
    }
    judge_with(&lines, &sweeps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trying_every_order_comes_to_the_same(
        draws in prop::collection::vec(draw(), 1..8),
        spoiled in prop::option::of((0..8_usize, any::<u8>())),
    ) {
        let events = history(&draws, spoiled);
        let verdict = judge(&events);
        prop_assert_ne!(&verdict, &Verdict::Undecided);
        prop_assert_eq!(
            verdict == Verdict::InOrder,
            is_in_order(&events),
            "{:?} of {:#?}",
            verdict,
            events
        );
        if spoiled.is_none() {
            prop_assert!(is_in_order(&events), "it did happen: {:#?}", events);
        }
    }
}
