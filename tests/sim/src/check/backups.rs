//! What must be true of snapshot agents, whatever went wrong meanwhile.
//!
//! All that counts is what was seen from outside: what processes asked their agents and the stores, and what they were
//! told. A snapshot is one name; it may lie in several stores.
//!
//! The one race that is allowed: between the answer that says that the lock is still held and the moment in which a
//! snapshot gets its name, the process may stand still, or the store take its time, and another may have begun to save.
//! Then there are two in one interval; so [`spaced`] asks only of snapshots that could be known of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backup::{Name, Retention};

use super::Violation;
use crate::history::Moment;
use crate::history::backups::{BackupHistory, Event, Process, Span, Store, What};

/// How long it takes at most, when servers and stores are well, until somebody has the lock whose holder has gone:
/// its session ends after twice its TTL at most (30 s), the lock-delay is 15 s, who waits tries again every 5 s, and
/// each of those is a call that may have to wait for an election.
const FAILOVER: Duration = Duration::from_secs(75);

/// How long it takes at most, when all is well, from the start of a snapshot until it has its name.
const SAVE: Duration = Duration::from_secs(5);

/// What is lost at most through pauses that failures before have lengthened, beside an interval.
const RETRIES: Duration = Duration::from_secs(70);

/// By how much the start of a snapshot may be seen later than its agent counts.
const BLUR: Duration = Duration::from_secs(1);

/// A snapshot that got its name somewhere.
#[derive(Debug, Clone)]
struct Snapshot {
    process: Process,
    name: Name,
    /// When the servers were asked for it.
    start: Moment,
    /// Where, and from when on it was there.
    stores: BTreeMap<Store, Moment>,
    /// Whether its process knows that it is there.
    is_known: bool,
}

/// The first promise that was broken, if any; else how long it took until there was a new snapshot when nothing went
/// wrong any more.
///
/// # Errors
/// That promise.
pub fn check_backups(history: &BackupHistory) -> Result<Duration, Violation> {
    published_with_the_lock(history)?;
    let snapshots = snapshots(history)?;
    restorable(history)?;
    complete(history, &snapshots)?;
    rotated(history, &snapshots)?;
    spaced(history, &snapshots)?;
    none_missed(history, &snapshots)?;
    given_up(history)?;
    go_on(history, &snapshots)
}

fn ns(time: Duration) -> Moment {
    Moment::try_from(time.as_nanos()).unwrap_or(Moment::MAX)
}

fn seconds(moment: Moment) -> f64 {
    Duration::from_nanos(moment).as_secs_f64()
}

/// All snapshots that got a name, by the start of their making.
fn snapshots(history: &BackupHistory) -> Result<Vec<Snapshot>, Violation> {
    let mut by_name: BTreeMap<Name, Snapshot> = BTreeMap::new();
    let mut starts: BTreeMap<Process, Moment> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::Saves => {
                starts.insert(event.process, event.called);
            }
            What::Publishes {
                store,
                name,
                visible: Some(visible),
                ..
            } => {
                let start = starts.get(&event.process).copied().ok_or_else(|| {
                    Violation::new(
                        "snapshots come from servers",
                        format!("process {} publishes {name} of its own", event.process),
                    )
                })?;
                let snapshot = by_name.entry(*name).or_insert_with(|| Snapshot {
                    process: event.process,
                    name: *name,
                    start,
                    stores: BTreeMap::new(),
                    is_known: false,
                });
                if snapshot.process != event.process || snapshot.stores.contains_key(store) {
                    return Err(Violation::new(
                        "names are unique",
                        format!(
                            "processes {} and {} have both published {name}",
                            snapshot.process, event.process
                        ),
                    ));
                }
                snapshot.stores.insert(*store, *visible);
                snapshot.is_known |= event.returned.is_some();
            }
            _ => {}
        }
    }
    let mut all: Vec<Snapshot> = by_name.into_values().collect();
    all.sort_by_key(|snapshot| (snapshot.start, snapshot.name));
    Ok(all)
}

/// What a process may know of the lock, as its answers come.
#[derive(Debug, Default)]
struct Tenure {
    /// The session with which it asked for the lock last.
    session: String,
    /// When it was seen to hold it last: when that was asked, and answered.
    seen: Option<(Moment, Moment)>,
    /// When it was told that it doesn't any more.
    lost: Option<Moment>,
}

impl Tenure {
    fn hears(&mut self, event: &Event, returned: Moment) {
        match &event.what {
            What::Takes { session, .. } if *session != self.session => {
                *self = Self {
                    session: session.clone(),
                    ..Self::default()
                };
            }
            What::Reads {
                consistent: true,
                holder: Some(holder),
            } if !self.session.is_empty() => {
                if *holder == self.session {
                    self.seen = Some((event.called, returned));
                } else if self.seen.is_some() {
                    self.lost.get_or_insert(returned);
                }
            }
            What::Renews {
                session,
                gone: true,
            } if *session == self.session => {
                self.lost.get_or_insert(returned);
            }
            _ => {}
        }
    }
}

/// Before a snapshot gets its name or an old one goes, the lock was read when all of the snapshot was there, and found to
/// be held; and nothing has told the process before that it wasn't any more.
fn published_with_the_lock(history: &BackupHistory) -> Result<(), Violation> {
    // Answers in the order in which they came.
    let mut answers: Vec<(Moment, usize)> = Vec::new();
    for (place, event) in history.events.iter().enumerate() {
        let is_of_lock = matches!(
            event.what,
            What::Takes { .. } | What::Reads { .. } | What::Renews { .. }
        );
        if is_of_lock && let Some(returned) = event.returned {
            answers.push((returned, place));
        }
    }
    answers.sort_unstable();
    let mut answers = answers.into_iter().peekable();
    let mut tenures: BTreeMap<Process, Tenure> = BTreeMap::new();
    for event in &history.events {
        while let Some((returned, place)) =
            answers.next_if(|(returned, _)| *returned <= event.called)
        {
            let heard = &history.events[place];
            tenures
                .entry(heard.process)
                .or_default()
                .hears(heard, returned);
        }
        let (filled, what) = match &event.what {
            What::Publishes { filled, name, .. } => (Some(*filled), format!("publishes {name}")),
            What::Removes { name, .. } => (None, format!("removes {name}")),
            _ => continue,
        };
        let tenure = tenures.entry(event.process).or_default();
        let is_confirmed = match (filled, tenure.seen) {
            (_, None) => false,
            (Some(filled), Some((called, _))) => called >= filled,
            (None, Some(_)) => true,
        };
        // In the same moment it may not have come to the process.
        let is_lost = tenure.lost.is_some_and(|lost| lost < event.called);
        if !is_confirmed || is_lost {
            return Err(Violation::new(
                "nothing is published or removed without the lock",
                format!(
                    "process {} {what} at {:.3}, all was there at {:?}; of the lock it knows: {tenure:?}",
                    event.process,
                    seconds(event.called),
                    filled.map(seconds)
                ),
            ));
        }
    }
    Ok(())
}

/// Every snapshot that got a name can be loaded as a restore would load it.
fn restorable(history: &BackupHistory) -> Result<(), Violation> {
    let mut held = history.held.iter();
    match held.find_map(|held| held.fault.as_ref().map(|fault| (held, fault))) {
        None => Ok(()),
        Some((held, fault)) => Err(Violation::new(
            "what is published can be restored",
            format!("{} in store {}: {fault}", held.name, held.store),
        )),
    }
}

/// A snapshot holds what was acknowledged before it was begun, unless a restore came in between. Who may be asked that
/// doesn't lead promises nothing.
fn complete(history: &BackupHistory, snapshots: &[Snapshot]) -> Result<(), Violation> {
    if history.stale {
        return Ok(());
    }
    let starts: BTreeMap<Name, Moment> = snapshots
        .iter()
        .map(|snapshot| (snapshot.name, snapshot.start))
        .collect();
    for held in &history.held {
        let Some(start) = starts.get(&held.name).copied() else {
            continue;
        };
        // What is restored between the two may be in it or not.
        let filled = history.events.iter().find_map(|event| match event.what {
            What::Publishes { name, filled, .. } if name == held.name => Some(filled),
            _ => None,
        });
        let filled = filled.unwrap_or(Moment::MAX);
        let since = |called| {
            let mut restores = history.restores.iter();
            restores.any(|restore| restore.meets(called, filled))
        };
        let mut writes = history.writes.iter();
        let missing = writes.find(|write| {
            write.returned < start && !held.keys.contains(&write.key) && !since(write.called)
        });
        if let Some(missing) = missing {
            return Err(Violation::new(
                "a snapshot holds what was acknowledged before",
                format!(
                    "{}, begun at {:.3}, hasn't {missing:?}",
                    held.name,
                    seconds(start)
                ),
            ));
        }
    }
    Ok(())
}

/// What goes is what the rule doesn't keep of that which the process has last seen there; and what stays in its place was
/// begun later, not only numbered so.
fn rotated(history: &BackupHistory, snapshots: &[Snapshot]) -> Result<(), Violation> {
    let property = "rotation takes only what is older than what it keeps";
    let by_name: BTreeMap<Name, &Snapshot> = snapshots
        .iter()
        .map(|snapshot| (snapshot.name, snapshot))
        .collect();
    let mut lists: BTreeMap<(Process, Store), (Moment, &[Name])> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::Lists { store, names } if event.returned.is_some() => {
                lists.insert((event.process, *store), (event.called, names));
            }
            What::Removes { store, name, .. } => {
                let retention = history.retentions.get(*store).copied().unwrap_or_default();
                let seen = lists.get(&(event.process, *store));
                let (_, seen) = seen.copied().unwrap_or((0, &[]));
                let expired = expired(retention, seen);
                if !expired.contains(name) {
                    return Err(Violation::new(
                        property,
                        format!(
                            "process {} removes {name} from store {store}, of {seen:?} by {retention:?}",
                            event.process
                        ),
                    ));
                }
                let Some(removed) = by_name.get(name) else {
                    continue;
                };
                let kept = seen.iter().filter(|name| !expired.contains(name));
                let mut kept = kept.filter_map(|name| by_name.get(name));
                let older = kept.find(|kept| {
                    let was_there = kept.stores.get(store).copied().unwrap_or(Moment::MAX);
                    let taken = last_taken(history, removed.process, removed.start);
                    let is_own = kept.process == removed.process && kept.is_known;
                    // Who couldn't list the store, or was at it at the same time, couldn't know of the other's number.
                    kept.start < removed.start
                        && was_there < removed.start
                        && (is_own || has_seen(history, removed, kept, taken))
                });
                if let Some(older) = older {
                    return Err(Violation::new(
                        property,
                        format!(
                            "process {} removes {name}, begun at {:.3}, and keeps {}, begun at {:.3}",
                            event.process,
                            seconds(removed.start),
                            older.name,
                            seconds(older.start)
                        ),
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What isn't among the newest, told anew: the real rule is what is judged here.
fn expired(retention: Retention, seen: &[Name]) -> BTreeSet<Name> {
    if retention.newest == 0 {
        return BTreeSet::new();
    }
    let mut names = seen.to_vec();
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(retention.newest));
    names.into_iter().collect()
}

/// An interval lies between the starts of two snapshots, if who began the second could know of the first: it took it and
/// was told so, or it has listed a store where that was, since it got the lock.
///
/// Where clocks are wrong, a number tells nobody when it was given, and only one's own snapshots count.
fn spaced(history: &BackupHistory, snapshots: &[Snapshot]) -> Result<(), Violation> {
    let least = ns(history.interval.saturating_sub(BLUR));
    for (place, later) in snapshots.iter().enumerate() {
        let taken = last_taken(history, later.process, later.start);
        for earlier in snapshots[..place].iter().rev() {
            if later.start - earlier.start >= least {
                break;
            }
            let is_own = earlier.process == later.process && earlier.is_known;
            let knows = if history.clocks_are_wrong {
                is_own && taken <= earlier.start
            } else {
                is_own || has_seen(history, later, earlier, taken)
            };
            if knows {
                return Err(Violation::new(
                    "there is one snapshot in an interval",
                    format!(
                        "{} of process {} was begun at {:.3}, {} of process {} at {:.3}",
                        earlier.name,
                        earlier.process,
                        seconds(earlier.start),
                        later.name,
                        later.process,
                        seconds(later.start)
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// When a process got the lock last before a moment.
fn last_taken(history: &BackupHistory, process: Process, before: Moment) -> Moment {
    let taken = history.events.iter().filter_map(|event| {
        let is_so = event.process == process && matches!(event.what, What::Takes { .. });
        is_so.then_some(event.returned?)
    });
    taken.filter(|taken| *taken <= before).max().unwrap_or(0)
}

/// Whether a process has seen a snapshot in a store since it got the lock, before it began another.
fn has_seen(history: &BackupHistory, later: &Snapshot, earlier: &Snapshot, taken: Moment) -> bool {
    history.events.iter().any(|event| {
        let What::Lists { names, .. } = &event.what else {
            return false;
        };
        event.process == later.process
            && event.called >= taken
            && event
                .returned
                .is_some_and(|returned| returned <= later.start)
            && names.contains(&earlier.name)
    })
}

/// From one snapshot to the next it takes an interval, and a failover for each agent that went or stood still meanwhile:
/// so a failover costs no more than one snapshot where it takes no longer than an interval.
///
/// What goes wrong with servers and stores isn't looked at; [`go_on`] does so for the time when it is over.
fn none_missed(history: &BackupHistory, snapshots: &[Snapshot]) -> Result<(), Violation> {
    let Some(peace) = history.peace else {
        return Ok(());
    };
    let ends = history
        .events
        .iter()
        .filter(|event| event.what == What::Ended);
    let ends = ends.map(|event| (event.called, 0));
    let stops = history
        .stops
        .iter()
        .map(|(_, span)| (span.from, span.to - span.from));
    let mut mishaps: Vec<(Moment, Moment)> = ends.chain(stops).collect();
    mishaps.sort_unstable();
    let begun = history.events.first().map(|event| event.called);
    let starts = begun
        .into_iter()
        .chain(snapshots.iter().map(|snapshot| snapshot.start));
    let starts = starts.filter(|start| *start < peace.to);
    let starts: Vec<Moment> = starts.chain([peace.to]).collect();
    for pair in starts.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let meets = |span: &Span| span.meets(from, to);
        if history.troubles.iter().any(meets) || history.restores.iter().any(meets) {
            continue;
        }
        // One that began before this gap may have left nobody with the lock.
        let reach = from.saturating_sub(ns(FAILOVER));
        let meanwhile = mishaps
            .iter()
            .filter(|(at, lasted)| at + lasted >= reach && *at <= to);
        let allowance: Moment = meanwhile.map(|(_, lasted)| ns(FAILOVER) + lasted).sum();
        let most = ns(history.interval + SAVE) + allowance;
        if to - from > most {
            return Err(Violation::new(
                "a failover costs one snapshot at most",
                format!(
                    "none is begun between {:.3} and {:.3}, and {:.0} s would be enough",
                    seconds(from),
                    seconds(to),
                    seconds(most)
                ),
            ));
        }
    }
    Ok(())
}

/// Who gives the lock up because of failures has failed so often in a row since it got it.
fn given_up(history: &BackupHistory) -> Result<(), Violation> {
    let mut failed: BTreeMap<Process, u32> = BTreeMap::new();
    let mut published: BTreeMap<Process, usize> = BTreeMap::new();
    for event in &history.events {
        let failed = failed.entry(event.process).or_default();
        let published = published.entry(event.process).or_default();
        match &event.what {
            What::Takes { .. } => *failed = 0,
            What::Saves => {
                *failed += 1;
                *published = 0;
            }
            What::Publishes { .. } => {
                let Some(returned) = event.returned else {
                    continue;
                };
                // It is read back soon, and was of no use if less comes.
                let reading = returned + ns(Duration::from_secs(60));
                let mut lies = history.lies.iter();
                if !lies.any(|span| span.meets(returned, reading)) {
                    *published += 1;
                }
                if *published == history.retentions.len() {
                    *failed = 0;
                }
            }
            What::GivesUp if *failed < history.max_failures || history.max_failures == 0 => {
                return Err(Violation::new(
                    "the lock is given up only after so many failures in a row",
                    format!(
                        "process {} gives it up at {:.3} after {failed}, and {} are allowed",
                        event.process,
                        seconds(event.called),
                        history.max_failures
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// When nothing goes wrong any more, there is a new snapshot in every store, and then one every interval.
fn go_on(history: &BackupHistory, snapshots: &[Snapshot]) -> Result<Duration, Violation> {
    let Some(peace) = history.peace else {
        return Ok(Duration::ZERO);
    };
    let mut recovered = 0;
    for store in 0..history.retentions.len() {
        let visible = snapshots
            .iter()
            .filter(|snapshot| snapshot.start >= peace.from)
            .filter_map(|snapshot| snapshot.stores.get(&store).copied());
        let mut visible: Vec<Moment> = visible.filter(|at| *at < peace.to).collect();
        visible.sort_unstable();
        let first = visible.first().copied().unwrap_or(peace.to);
        recovered = recovered.max(first - peace.from);
        let until_first = history.interval * 2 + FAILOVER + RETRIES + SAVE;
        let mut last = peace.from;
        let mut most = ns(until_first);
        for next in visible.into_iter().chain([peace.to]) {
            if next - last > most {
                return Err(Violation::new(
                    "snapshots go on when nothing goes wrong any more",
                    format!(
                        "none comes to store {store} between {:.3} and {:.3}, since {:.3} all is well",
                        seconds(last),
                        seconds(next),
                        seconds(peace.from)
                    ),
                ));
            }
            last = next;
            most = ns(history.interval + SAVE);
        }
    }
    Ok(Duration::from_nanos(recovered))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Moment = 1_000_000_000;

    fn name(id: u64) -> Name {
        Name {
            id,
            encrypted: false,
        }
    }

    /// A history written by hand: what a process does takes no time.
    struct Tale(BackupHistory);

    impl Tale {
        fn new() -> Self {
            Self(BackupHistory {
                interval: Duration::from_secs(60),
                retentions: vec![Retention {
                    newest: 2,
                    ..Retention::default()
                }],
                max_failures: 2,
                ..BackupHistory::default()
            })
        }

        fn does(&mut self, process: Process, at: Moment, what: What) -> &mut Self {
            self.0.events.push(Event {
                process,
                called: at * SECOND,
                returned: Some(at * SECOND),
                what,
            });
            self
        }

        fn takes(&mut self, process: Process, at: Moment) -> &mut Self {
            let session = process.to_string();
            let taken = true;
            self.does(process, at, What::Takes { session, taken })
        }

        fn reads(&mut self, process: Process, at: Moment, holder: &str) -> &mut Self {
            let holder = Some(holder.to_owned());
            let consistent = true;
            self.does(process, at, What::Reads { consistent, holder })
        }

        fn lists(&mut self, process: Process, at: Moment, ids: &[u64]) -> &mut Self {
            let names = ids.iter().copied().map(name).collect();
            self.does(process, at, What::Lists { store: 0, names })
        }

        fn publishes(&mut self, process: Process, at: Moment, id: u64) -> &mut Self {
            let at_once = at * SECOND;
            self.does(
                process,
                at,
                What::Publishes {
                    store: 0,
                    name: name(id),
                    filled: at_once,
                    visible: Some(at_once),
                },
            )
        }

        /// A snapshot as it should be.
        fn saves(&mut self, process: Process, at: Moment) -> &mut Self {
            self.does(process, at, What::Saves)
                .reads(process, at, &process.to_string())
                .publishes(process, at, at)
        }

        fn removes(&mut self, process: Process, at: Moment, id: u64) -> &mut Self {
            let what = What::Removes {
                store: 0,
                name: name(id),
                gone: Some(at * SECOND),
            };
            self.does(process, at, what)
        }

        fn broken(&self) -> Option<&'static str> {
            check_backups(&self.0).err().map(|why| why.property)
        }
    }

    #[test]
    fn a_life_as_it_should_be() {
        let mut tale = Tale::new();
        tale.does(1, 0, What::Began).takes(1, 1);
        for at in [2, 62, 122] {
            tale.saves(1, at);
        }
        tale.lists(1, 122, &[2, 62, 122]).removes(1, 122, 2);
        assert_eq!(tale.broken(), None);
    }

    #[test]
    fn names_need_the_lock() {
        let property = Some("nothing is published or removed without the lock");
        let mut tale = Tale::new();
        tale.takes(1, 1).does(1, 2, What::Saves);
        let mut unread = Tale(tale.0.clone());
        assert_eq!(unread.publishes(1, 2, 2).broken(), property);
        let mut of_another = Tale(tale.0.clone());
        of_another.reads(1, 2, "1").reads(1, 3, "7");
        assert_eq!(of_another.publishes(1, 4, 2).broken(), property);
        let mut too_early = Tale(tale.0);
        too_early.reads(1, 2, "1");
        assert_eq!(too_early.publishes(1, 3, 2).broken(), property);
    }

    #[test]
    fn one_too_many_is_found_if_it_could_be_known() {
        let mut tale = Tale::new();
        tale.takes(1, 1).saves(1, 2).takes(2, 30);
        let mut unaware = Tale(tale.0.clone());
        assert_eq!(unaware.saves(2, 31).broken(), None);
        tale.lists(2, 30, &[2]).saves(2, 31);
        assert_eq!(tale.broken(), Some("there is one snapshot in an interval"));
    }

    #[test]
    fn what_is_kept_is_not_older() {
        let property = Some("rotation takes only what is older than what it keeps");
        let mut tale = Tale::new();
        tale.takes(1, 1);
        for at in [2, 62, 122] {
            tale.saves(1, at);
        }
        tale.lists(1, 122, &[2, 62, 122]);
        let mut newer = Tale(tale.0.clone());
        assert_eq!(newer.removes(1, 122, 62).broken(), property);
        // What was begun last has the smallest number.
        let mut back = Tale(tale.0);
        back.does(1, 182, What::Saves)
            .reads(1, 182, "1")
            .publishes(1, 182, 1)
            .lists(1, 182, &[1, 62, 122])
            .removes(1, 182, 1);
        assert_eq!(back.broken(), property);
    }

    #[test]
    fn a_gap_needs_a_reason() {
        let mut tale = Tale::new();
        tale.does(1, 0, What::Began)
            .takes(1, 1)
            .saves(1, 2)
            .saves(1, 130);
        let at = 180 * SECOND;
        tale.0.peace = Some(Span { from: at, to: at });
        let property = Some("a failover costs one snapshot at most");
        assert_eq!(tale.broken(), property);
        // It went, and another came.
        tale.0.events.insert(
            5,
            Event {
                process: 1,
                called: 20 * SECOND,
                returned: None,
                what: What::Ended,
            },
        );
        assert_eq!(tale.broken(), None);
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let mut tale = Tale::new();
        tale.takes(1, 1)
            .does(1, 2, What::Saves)
            .does(1, 62, What::Saves);
        let mut twice = Tale(tale.0.clone());
        assert_eq!(twice.does(1, 63, What::GivesUp).broken(), None);
        tale.saves(1, 122).does(1, 182, What::Saves);
        tale.does(1, 183, What::GivesUp);
        let property = "the lock is given up only after so many failures in a row";
        assert_eq!(tale.broken(), Some(property));
    }
}
