//! What must be true of sessions, locks and semaphores, as clients see them.
//!
//! A client knows for certain that a session lives from when its creation was acknowledged until its TTL has passed since
//! the last acknowledged renewal was *sent*, or until something else that ends it was asked for. All promises are about
//! that certainty: nothing that a client may believe by what it was told must ever turn out to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Violation;
use crate::history::locks::{Event, Lock, LockHistory, Made, What};
use crate::history::{Moment, SessionNumber, seconds};

/// The log's clock counts whole milliseconds, and cuts at both ends of a span.
const ROUNDING: Moment = 2_000_000;

type Promise = fn(&LockHistory, &Lives) -> Result<(), Violation>;

const PROMISES: &[Promise] = &[
    sessions_last,
    what_is_gone_stays_gone,
    one_holds,
    delays_are_kept,
    semaphores_have_room,
    fences_rise,
];

/// The first promise that was broken, if any.
///
/// # Errors
/// That promise.
pub fn check_locks(history: &LockHistory) -> Result<(), Violation> {
    let lives = Lives::of(history);
    PROMISES
        .iter()
        .try_for_each(|promise| promise(history, &lives))
}

/// Until when each session lives for certain.
struct Lives(BTreeMap<SessionNumber, Life>);

struct Life {
    made: Made,
    /// When the last renewal that was acknowledged was sent, or the creation.
    renewed: Moment,
    until: Moment,
}

impl Lives {
    fn of(history: &LockHistory) -> Self {
        let mut lives: BTreeMap<SessionNumber, Life> = BTreeMap::new();
        for event in &history.events {
            if let What::Begun(made) = event.what {
                // One that was over before the session came to be does nothing to it.
                let troubles = history.troubles.iter();
                let first = troubles
                    .filter(|trouble| made.bound && trouble.returned >= event.called)
                    .map(|trouble| trouble.called)
                    .min();
                let life = Life {
                    made,
                    renewed: event.called,
                    until: first.unwrap_or(Moment::MAX),
                };
                lives.insert(event.session, life);
            }
        }
        for event in &history.events {
            let Some(life) = lives.get_mut(&event.session) else {
                continue;
            };
            if event.what == What::Renewed {
                life.renewed = life.renewed.max(event.called);
            } else if event.what == What::Ended {
                life.until = life.until.min(event.called);
            }
        }
        for life in lives.values_mut() {
            if let Some(ttl) = life.made.ttl {
                life.until = life.until.min(life.renewed.saturating_add(nanos(ttl)));
            }
        }
        Self(lives)
    }

    fn until(&self, session: SessionNumber) -> Moment {
        self.0.get(&session).map_or(0, |life| life.until)
    }

    fn delay(&self, session: SessionNumber) -> Moment {
        self.0
            .get(&session)
            .map_or(0, |life| nanos(life.made.delay))
    }
}

fn nanos(span: Duration) -> Moment {
    Moment::try_from(span.as_nanos()).unwrap_or(Moment::MAX)
}

/// Nobody finds a session gone while it has to live.
fn sessions_last(history: &LockHistory, lives: &Lives) -> Result<(), Violation> {
    for event in &history.events {
        let until = lives.until(event.session);
        if event.what == What::Gone && event.returned < until {
            let renewed = lives.0.get(&event.session).map_or(0, |life| life.renewed);
            return Err(Violation::new(
                "a session doesn't end before its TTL",
                format!(
                    "session {} was gone at {:.6} s, was renewed at {:.6} s and lives until {:.6} s",
                    event.session,
                    seconds(event.returned),
                    seconds(renewed),
                    seconds(until)
                ),
            ));
        }
    }
    Ok(())
}

/// A session that was found gone does nothing any more.
fn what_is_gone_stays_gone(history: &LockHistory, _: &Lives) -> Result<(), Violation> {
    let mut gone: BTreeMap<SessionNumber, Moment> = BTreeMap::new();
    for event in &history.events {
        if event.what == What::Gone {
            let first = gone.entry(event.session).or_insert(event.returned);
            *first = event.returned.min(*first);
        }
    }
    for event in &history.events {
        if event.what.is_sign_of_life()
            && let Some(first) = gone.get(&event.session)
            && *first < event.called
        {
            return Err(Violation::new(
                "a session that is gone stays gone",
                format!(
                    "session {} was gone at {:.6} s, and then {event:?}",
                    event.session,
                    seconds(*first)
                ),
            ));
        }
    }
    Ok(())
}

/// That somebody has something for certain, from a moment until another.
#[derive(Debug, Clone, Copy)]
struct Having {
    session: SessionNumber,
    from: Moment,
    until: Moment,
}

/// Who has what these events take and give up.
fn havings(
    history: &LockHistory,
    lives: &Lives,
    takes: impl Fn(&What) -> bool,
    gives: impl Fn(&What) -> bool,
) -> Vec<Having> {
    let mut all = Vec::new();
    for event in history.events.iter().filter(|event| takes(&event.what)) {
        // One that was asked for before, and whose answer came later or not at all, may have come in between; within the
        // same moment nobody knows.
        let given = (history.events.iter())
            .filter(|other| other.session == event.session && gives(&other.what))
            .filter(|other| other.returned >= event.called)
            .map(|other| other.called)
            .min();
        let until = lives.until(event.session).min(given.unwrap_or(Moment::MAX));
        if event.returned < until {
            all.push(Having {
                session: event.session,
                from: event.returned,
                until,
            });
        }
    }
    all.sort_by_key(|having| having.from);
    all
}

/// What these events are about, each thing once.
fn each<T: Ord>(history: &LockHistory, of: impl Fn(&What) -> Option<T>) -> BTreeSet<T> {
    let events = history.events.iter();
    events.filter_map(|event| of(&event.what)).collect()
}

/// Who has a lock for certain is the only one who has it, and is seen to have it.
fn one_holds(history: &LockHistory, lives: &Lives) -> Result<(), Violation> {
    const PROPERTY: &str = "a lock has one holder";
    for lock in each(history, What::lock) {
        let havings = havings(
            history,
            lives,
            |what| what.lock() == Some(lock),
            |what| *what == What::Released(lock),
        );
        let mut last: Option<Having> = None;
        for having in havings.iter().copied() {
            if let Some(last) = last
                && last.session != having.session
                && having.from < last.until
            {
                return Err(Violation::new(
                    PROPERTY,
                    format!("lock {lock}: {last:?} and {having:?}"),
                ));
            }
            if last.is_none_or(|last| last.until < having.until) {
                last = Some(having);
            }
        }
        for free in history.frees.iter().filter(|free| free.lock == lock) {
            let within =
                |having: &&Having| having.from < free.called && free.returned < having.until;
            if let Some(having) = havings.iter().find(within) {
                return Err(Violation::new(
                    PROPERTY,
                    format!("{free:?} during {having:?}"),
                ));
            }
        }
    }
    Ok(())
}

/// Nobody gets a lock from a session that was ended before its delay has passed since it was last known to hold it.
fn delays_are_kept(history: &LockHistory, lives: &Lives) -> Result<(), Violation> {
    for lock in each(history, What::lock) {
        let of_lock: Vec<&Event> = (history.events.iter())
            .filter(|event| event.what.lock() == Some(lock))
            .collect();
        let releases: Vec<&Event> = (history.events.iter())
            .filter(|event| event.what == What::Released(lock))
            .collect();
        let taken = |event: &&&Event| event.what == What::Acquired(lock);
        for next in of_lock.iter().filter(taken) {
            for before in &of_lock {
                let delay = lives.delay(before.session);
                let is_too_soon = before.session != next.session
                    && before.returned < next.called
                    && next.returned.saturating_add(ROUNDING) < before.called.saturating_add(delay);
                let gave_up = |release: &&Event| {
                    release.session == before.session
                        && release.returned >= before.called
                        && release.called < next.returned
                };
                if is_too_soon && !releases.iter().copied().any(|release| gave_up(&release)) {
                    return Err(Violation::new(
                        "a lock-delay is kept",
                        format!(
                            "lock {lock}: {before:?}, with a delay of {:.3} s, and then {next:?}",
                            seconds(delay)
                        ),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Never more are in a semaphore than it has room for.
fn semaphores_have_room(history: &LockHistory, lives: &Lives) -> Result<(), Violation> {
    for semaphore in each(history, What::semaphore) {
        let havings = havings(
            history,
            lives,
            |what| *what == What::Entered(semaphore),
            |what| *what == What::Left(semaphore),
        );
        for (place, having) in havings.iter().enumerate() {
            let mut inside: Vec<&Having> = (havings[..=place].iter())
                .filter(|other| having.from < other.until)
                .collect();
            inside.sort_by_key(|other| other.session);
            inside.dedup_by_key(|other| other.session);
            if inside.len() > history.limit {
                return Err(Violation::new(
                    "a semaphore has its limit",
                    format!("semaphore {semaphore} of {} has {inside:?}", history.limit),
                ));
            }
        }
    }
    Ok(())
}

/// Of two holders one after the other, the later one's key was written later, and locked more often if it was kept.
fn fences_rise(history: &LockHistory, _: &Lives) -> Result<(), Violation> {
    let fence = |event: &Event| {
        let What::Holds {
            lock,
            lock_index,
            modify,
        } = event.what
        else {
            return None;
        };
        Some((lock, lock_index, modify))
    };
    let mut seen: Vec<(&Event, (Lock, u64, u64))> = (history.events.iter())
        .filter_map(|event| Some((event, fence(event)?)))
        .collect();
    seen.sort_by_key(|(event, _)| event.returned);
    for (place, (later, (lock, lock_index, modify))) in seen.iter().enumerate() {
        for (earlier, (other, before_index, before)) in &seen[..place] {
            let comes_after = other == lock
                && earlier.session != later.session
                && earlier.returned < later.called;
            let rises =
                before < modify && (before_index < lock_index || !history.kept.contains(lock));
            if comes_after && !rises {
                return Err(Violation::new(
                    "fencing numbers rise",
                    format!("{earlier:?} and then {later:?}"),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
