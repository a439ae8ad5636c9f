//! The search for an order.
//!
//! Time is gone through once, from call to answer. At each moment there is a set of *ways*: what may have happened so
//! far, that is, the state of the key and which of the open steps have taken their place. A step takes its place only
//! when an answer calls for it, its own or that of another that needs it before. Memory is what the ways of one moment
//! take, however long the history is.
//!
//! Four things keep the ways few, and none of them loses an order:
//! - What changes nothing takes its place as soon as it fits, since nothing can depend on it.
//! - Doubtful steps, which may happen late or never, are counted by what they do: two that do the same are the same.
//! - A row stays while reads of it are still to come, since no row comes twice.
//! - A way is dropped if another is at the same place and has used no more of what is doubtful: whatever follows from
//!   the one follows from the other.

use std::collections::{BTreeMap, VecDeque};

use super::key::{Doing, Known, Named, State};
use super::{Checked, Verdict};
use crate::history::{Moment, seconds};

/// Comparisons of ways that the search for one key may take; some seconds. A history takes some tens for each step.
const STEPS_MAX: usize = 200_000_000;

/// Ways that may be open at one moment; some hundred bytes each.
const WAYS_MAX: usize = 200_000;

/// Steps of known outcome that may be open at one moment, a bit each.
const OPEN_MAX: usize = 128;

/// Steps of a kind that are shown where nothing fits.
const SHOWN: usize = 6;

/// Something that happens to a key.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) doing: Doing,
    pub(super) called: Moment,
    /// When it was over; `None` if nobody knows whether it happened.
    pub(super) returned: Option<Moment>,
    pub(super) shown: String,
}

/// Looks for an order of steps.
pub(super) fn search(steps: &[Step], named: &Named) -> Checked {
    let mut search = Search::new(steps, named);
    let verdict = match search.go_through() {
        Ok(()) => Verdict::InOrder,
        Err(end) => end.into(),
    };
    Checked {
        verdict,
        steps: search.count,
    }
}

/// Why a search ends before its history does.
enum End {
    Stuck(Vec<String>),
    TooLong,
}

impl From<End> for Verdict {
    fn from(end: End) -> Self {
        match end {
            End::Stuck(shown) => Self::Impossible(shown),
            End::TooLong => Self::Undecided,
        }
    }
}

/// What happens at a moment. A step that is called when another returns may still come before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Return,
}

/// Doubtful steps that all do the same.
struct Doubt {
    doing: Doing,
    limit: Limit,
    /// How many were called so far.
    called: u16,
}

/// How often what is doubtful may happen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// As often as it was called.
    Calls,
    /// As often as it was called, and not without this session.
    CallsWhile(u128),
    /// As often as it can: what it needs is there once only.
    Need,
}

/// What may have happened up to some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    state: State,
    /// The open steps that have taken their place, a bit each.
    done: u128,
    /// How many of each doubt have.
    used: Box<[u16]>,
}

struct Search<'a> {
    steps: &'a [Step],
    named: &'a Named,
    doubts: Vec<Doubt>,
    /// Which doubt a step is one of.
    doubt_of: Vec<Option<usize>>,
    /// The steps of known outcome that were called and are not over.
    open: [Option<usize>; OPEN_MAX],
    /// Those of them that change nothing.
    looks: u128,
    /// How many reads of each row were not yet called.
    to_come: BTreeMap<Known, usize>,
    /// Sessions that began, beyond doubt.
    begun: u128,
    /// Sessions whose end is doubtful and was called.
    may_end: u128,
    ways: Vec<Way>,
    /// The steps that are over, in the order of their answers.
    over: Vec<usize>,
    count: usize,
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step], named: &'a Named) -> Self {
        let restored: Vec<u64> = steps
            .iter()
            .filter_map(|step| match step.doing {
                Doing::Restore(row) => row.map(|row| row.modify),
                _ => None,
            })
            .collect();
        let mut doubts: Vec<Doubt> = Vec::new();
        let doubt_of = steps
            .iter()
            .map(|step| {
                // What changes nothing and may not have happened says nothing.
                if step.returned.is_some() || step.doing.is_look() {
                    return None;
                }
                let known = doubts.iter().position(|doubt| doubt.doing == step.doing);
                Some(known.unwrap_or_else(|| {
                    doubts.push(Doubt {
                        doing: step.doing,
                        limit: limit(&step.doing, &restored),
                        called: 0,
                    });
                    doubts.len() - 1
                }))
            })
            .collect();
        let mut to_come = BTreeMap::new();
        for row in steps.iter().filter_map(|step| step.doing.row()) {
            *to_come.entry(row).or_insert(0) += 1;
        }
        let first = Way {
            state: State::default(),
            done: 0,
            used: vec![0; doubts.len()].into(),
        };
        Self {
            steps,
            named,
            doubts,
            doubt_of,
            open: [None; OPEN_MAX],
            looks: 0,
            to_come,
            begun: 0,
            may_end: 0,
            ways: vec![first],
            over: Vec::new(),
            count: 0,
        }
    }

    fn go_through(&mut self) -> Result<(), End> {
        let steps = self.steps;
        let mut events: Vec<(Moment, Event, usize)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            events.push((step.called, Event::Call, number));
            if let Some(returned) = step.returned {
                events.push((returned, Event::Return, number));
            }
        }
        events.sort_unstable();
        for (_, event, step) in events {
            match event {
                Event::Call => self.call(step)?,
                Event::Return => self.settle(step)?,
            }
        }
        Ok(())
    }

    fn call(&mut self, step: usize) -> Result<(), End> {
        let doing = self.steps[step].doing;
        if self.steps[step].returned.is_none() {
            if let Some(doubt) = self.doubt_of[step] {
                let called = &mut self.doubts[doubt].called;
                *called = called.saturating_add(1);
            }
            if let Doing::End { bit, .. } = doing {
                self.may_end |= bit;
            }
            return Ok(());
        }
        let free = self.open.iter().position(Option::is_none);
        let place = free.ok_or(End::TooLong)?;
        self.open[place] = Some(step);
        if let Some(left) = doing.row().and_then(|row| self.to_come.get_mut(&row)) {
            *left -= 1;
        }
        if doing.is_look() {
            self.looks |= 1 << place;
            for way in &mut self.ways {
                if way.state.shows(&doing) {
                    way.done |= 1 << place;
                }
            }
        }
        Ok(())
    }

    /// A step is over: every way goes on to where it has happened, by all that may have happened before it.
    fn settle(&mut self, step: usize) -> Result<(), End> {
        let place = self.open.iter().position(|open| *open == Some(step));
        // Without a place it was seen before it was called.
        let place = place.ok_or_else(|| End::Stuck(self.stuck(step, None)))?;
        let bit = 1_u128 << place;
        let mut ways = Ways::new(self.looks, self.may_end);
        let mut queue = VecDeque::new();
        for way in std::mem::take(&mut self.ways) {
            if ways.add(&way) {
                queue.push_back(way);
            }
        }
        let before = queue.front().cloned();
        let mut followers = Vec::new();
        // Ways that use less of what is doubtful go first: most of the others are then not worth a look.
        while let Some(way) = queue.pop_front() {
            if way.done & bit != 0 || !ways.has(&way) {
                continue;
            }
            self.follow(&way, &mut followers);
            for (is_doubtful, next) in followers.drain(..) {
                if !ways.add(&next) {
                    continue;
                }
                if is_doubtful {
                    queue.push_back(next);
                } else {
                    queue.push_front(next);
                }
            }
            if ways.count > WAYS_MAX || self.count + ways.comparisons > STEPS_MAX {
                self.count += ways.comparisons;
                return Err(End::TooLong);
            }
        }
        self.count += ways.comparisons;
        self.ways = ways.into_done(bit);
        if self.ways.is_empty() {
            return Err(End::Stuck(self.stuck(step, before.as_ref())));
        }
        self.open[place] = None;
        self.looks &= !bit;
        if let Doing::Begin(session) = self.steps[step].doing {
            self.begun |= session;
        }
        self.over.push(step);
        Ok(())
    }

    /// Adds the ways that are one change further, and whether that change is doubtful.
    fn follow(&self, way: &Way, followers: &mut Vec<(bool, Way)>) {
        let mut states = Vec::new();
        let stays = self.stays(way);
        let may_go = |next: &State| !stays || next.row == way.state.row;
        for (place, step) in self.open.iter().enumerate() {
            let Some(step) = *step else { continue };
            let bit = 1 << place;
            if (way.done | self.looks) & bit != 0 {
                continue;
            }
            way.state
                .then(&self.steps[step].doing, self.named, &mut states);
            for state in states.drain(..).filter(may_go) {
                let next = self.arrive(state, way.done | bit, way.used.clone());
                followers.push((false, next));
            }
        }
        for (number, doubt) in self.doubts.iter().enumerate() {
            let is_left = match doubt.limit {
                Limit::Calls | Limit::CallsWhile(_) => way.used[number] < doubt.called,
                Limit::Need => doubt.called > 0,
            };
            if !is_left {
                continue;
            }
            way.state.then(&doubt.doing, self.named, &mut states);
            for state in states.drain(..).filter(may_go) {
                if state == way.state {
                    continue;
                }
                let mut used = way.used.clone();
                if doubt.limit != Limit::Need {
                    used[number] += 1;
                }
                followers.push((true, self.arrive(state, way.done, used)));
            }
        }
    }

    /// Whether somebody has still to see the row that is there.
    fn stays(&self, way: &Way) -> bool {
        let Some(row) = way.state.row else {
            return false;
        };
        let is_open = |place: usize| way.done & (1 << place) == 0;
        self.to_come.get(&row).is_some_and(|left| *left > 0)
            || self.open.iter().enumerate().any(|(place, step)| {
                let seen = step.and_then(|step| self.steps[step].doing.row());
                seen == Some(row) && is_open(place)
            })
    }

    /// A way that has come to a state: whatever only looks and fits has happened.
    fn arrive(&self, state: State, done: u128, used: Box<[u16]>) -> Way {
        let mut way = Way { state, done, used };
        let mut looks = self.looks & !done;
        while looks != 0 {
            let place = looks.trailing_zeros();
            looks &= looks - 1;
            let step = self.open[place as usize].map(|step| &self.steps[step]);
            if step.is_some_and(|step| state.shows(&step.doing)) {
                way.done |= 1 << place;
            }
        }
        // What can't happen again is as good as used up.
        for (used, doubt) in way.used.iter_mut().zip(&self.doubts) {
            if let Limit::CallsWhile(session) = doubt.limit
                && self.begun & session != 0
                && state.alive & session == 0
            {
                *used = u16::MAX;
            }
        }
        way
    }

    /// What to show of a step that nothing explains.
    fn stuck(&self, step: usize, way: Option<&Way>) -> Vec<String> {
        let shown = |step: usize| &self.steps[step].shown;
        let mut lines = vec![format!("  {}", shown(step))];
        let open = self.open.iter().enumerate();
        let others = open.filter_map(|(place, other)| {
            let is_done = way.is_some_and(|way| way.done & (1 << place) != 0);
            other.filter(|other| *other != step && !is_done)
        });
        lines.extend(others.map(|other| format!("  {}", shown(other))));
        let now = self.steps[step].returned.unwrap_or(Moment::MAX);
        let doubtful = self.doubt_of.iter().enumerate().rev();
        let doubtful = doubtful
            .filter(|(other, doubt)| doubt.is_some() && self.steps[*other].called <= now)
            .take(SHOWN);
        lines.extend(doubtful.map(|(other, _)| format!("  {} (may have happened)", shown(other))));
        if let Some(way) = way {
            lines.push(format!("  the key may be {:?}", way.state.row));
        }
        let before = self.over.iter().rev();
        let before = before.filter(|other| !matches!(self.steps[**other].doing, Doing::Begin(_)));
        lines.extend(before.take(SHOWN).map(|other| {
            format!(
                "  before, about {:.3} s: {}",
                seconds(self.steps[*other].called),
                shown(*other)
            )
        }));
        lines
    }
}

fn limit(doing: &Doing, restored: &[u64]) -> Limit {
    match *doing {
        // An index belongs to one write; that no row is there, and what an archive says, may come again.
        Doing::Cas { expected, .. } | Doing::DeleteCas { expected, .. }
            if expected != 0 && !restored.contains(&expected) =>
        {
            Limit::Need
        }
        Doing::End { .. } => Limit::Need,
        Doing::Lock { bit, .. } | Doing::Unlock { bit, .. } => Limit::CallsWhile(bit),
        Doing::Cas { .. }
        | Doing::DeleteCas { .. }
        | Doing::Read(_)
        | Doing::Put(_)
        | Doing::PutUnderLock(_)
        | Doing::Delete
        | Doing::LockRefused { .. }
        | Doing::Begin(_)
        | Doing::Restore(_) => Limit::Calls,
    }
}

/// Ways of which none makes another needless.
struct Ways {
    /// By what has to be equal.
    places: BTreeMap<(Option<Known>, u128), Vec<Way>>,
    looks: u128,
    may_end: u128,
    count: usize,
    comparisons: usize,
}

impl Ways {
    fn new(looks: u128, may_end: u128) -> Self {
        Self {
            places: BTreeMap::new(),
            looks,
            may_end,
            count: 0,
            comparisons: 0,
        }
    }

    fn place(&self, way: &Way) -> (Option<Known>, u128) {
        (way.state.row, way.done & !self.looks)
    }

    /// Adds a way, unless it is needless; says whether it was added.
    fn add(&mut self, way: &Way) -> bool {
        let (place, may_end) = (self.place(way), self.may_end);
        let here = self.places.entry(place).or_default();
        self.comparisons += 1 + here.len();
        if here.iter().any(|other| other.covers(way, may_end)) {
            return false;
        }
        self.count -= here.len();
        here.retain(|other| !way.covers(other, may_end));
        here.push(way.clone());
        self.count += here.len();
        true
    }

    /// Whether a way that was added is still not needless.
    fn has(&self, way: &Way) -> bool {
        let here = self.places.get(&self.place(way));
        here.is_some_and(|here| here.contains(way))
    }

    /// Those in which a step has happened, without mention of it.
    fn into_done(self, step: u128) -> Vec<Way> {
        let ways = self.places.into_values().flatten();
        let done = ways.filter(|way| way.done & step != 0);
        done.map(|way| Way {
            done: way.done & !step,
            ..way
        })
        .collect()
    }
}

impl Way {
    /// Whether all that may follow from another way, with the same row and the same changes done, may follow from this
    /// one.
    fn covers(&self, other: &Self, may_end: u128) -> bool {
        // Sessions that are alive here and dead there can end here as well, at once and without a trace in the row, for
        // what is dead there holds nothing.
        let differ = self.state.alive ^ other.state.alive;
        differ & !(self.state.alive & may_end) == 0
            && self.state.after <= other.state.after
            && other.done & !self.done == 0
            && self
                .used
                .iter()
                .zip(&other.used)
                .all(|(own, its)| own <= its)
    }
}
