//! Until when snapshots are kept, if the agent goes on saving as it does.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::{Name, Retention};

/// How long a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// Until about then, when a save makes it superfluous.
    Until(Timestamp),
    /// Longer than was looked ahead, which is until then.
    Beyond(Timestamp),
    /// No rule ever takes it away.
    Always,
}

const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;

/// How much work a forecast may be, in snapshots looked at: a second or so.
const WORK_MAX: usize = 2_000_000;

/// Tells of each snapshot until when these rules keep it, with a new one each `interval` from now on.
///
/// It is exact for the newest ones, within an hour for hourly ones, and within a day for the rest.
pub fn forecast(
    retention: &Retention,
    names: &[Name],
    interval: Duration,
    now: Timestamp,
) -> BTreeMap<Name, Kept> {
    let mut kept: BTreeMap<Name, Kept> = names.iter().map(|name| (*name, Kept::Always)).collect();
    if retention.keeps_all() {
        return kept;
    }
    let interval = u64::try_from(interval.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1);
    let now = u64::try_from(now.as_nanosecond()).unwrap_or(0);
    let newest = kept.keys().next_back().map_or(0, |name| name.id);
    let next = newest.saturating_add(interval).max(now);

    // Rules don't disturb one another: what one keeps is no other's loss. So each can be followed by itself.
    let periods = Retention {
        newest: 0,
        ..*retention
    };
    let by_period = follow(periods, kept.keys().copied().collect(), interval, next);
    let room = retention.newest.max(1);
    for (rank, (name, kept)) in kept.iter_mut().rev().enumerate() {
        // Of each new one, the oldest of the newest goes.
        let saves = u64::try_from(room.saturating_sub(rank).max(1) - 1).unwrap_or(u64::MAX);
        let by_count = Kept::Until(at(next.saturating_add(saves.saturating_mul(interval))));
        *kept = by_period
            .get(name)
            .copied()
            .unwrap_or(by_count)
            .max_time(by_count);
    }
    kept
}

impl Kept {
    /// The one that is longer.
    fn max_time(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (
                Self::Until(one) | Self::Beyond(one),
                Self::Until(another) | Self::Beyond(another),
            ) => {
                if one >= another {
                    self
                } else {
                    other
                }
            }
        }
    }
}

/// Plays what comes: one save after the other, and the rotation behind each.
fn follow(
    rules: Retention,
    mut alive: Vec<Name>,
    interval: u64,
    mut next: u64,
) -> BTreeMap<Name, Kept> {
    let mut fates = BTreeMap::new();
    if rules.keeps_all() {
        return fates;
    }
    let ours = alive.clone();
    let mut left = ours.len();
    let mut work = 0;
    let begin = next;
    // Past the hours that count, one save a day tells as much as all of them.
    let hours = u64::try_from(rules.hourly).unwrap_or(u64::MAX);
    let hourly_until = begin.saturating_add(hours.saturating_mul(HOUR.max(interval)));
    while left > 0 && work < WORK_MAX && next < u64::MAX {
        alive.push(Name {
            id: next,
            encrypted: false,
        });
        work += alive.len();
        let expired = rules.expired(&alive);
        for name in &expired {
            if ours.binary_search(name).is_ok() {
                left -= 1;
                fates.insert(*name, Kept::Until(at(next)));
            }
        }
        alive.retain(|name| expired.binary_search(name).is_err());
        let step = if next < hourly_until { HOUR } else { DAY };
        next = next.saturating_add(step.max(interval));
    }
    for name in alive {
        if ours.binary_search(&name).is_ok() {
            fates.insert(name, Kept::Beyond(at(next)));
        }
    }
    fates
}

fn at(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first Monday of 2024.
    const BEGIN: u64 = 1_704_067_200_000_000_000;

    fn name(id: u64) -> Name {
        Name {
            id,
            encrypted: false,
        }
    }

    fn hourly(count: u64) -> Vec<Name> {
        (0..count).map(|hour| name(BEGIN + hour * HOUR)).collect()
    }

    /// Hours from `BEGIN` until which each is kept.
    fn hours(retention: Retention, names: &[Name], now: u64) -> Vec<Option<u64>> {
        let kept = forecast(&retention, names, Duration::from_secs(3600), at(now));
        let hour = |kept: &Kept| match kept {
            Kept::Until(at) => Some((u64::try_from(at.as_nanosecond()).unwrap() - BEGIN) / HOUR),
            Kept::Beyond(_) | Kept::Always => None,
        };
        kept.values().map(hour).collect()
    }

    #[test]
    fn by_count() {
        let rules = Retention {
            newest: 3,
            ..Retention::default()
        };
        let names = hourly(4);
        assert_eq!(
            hours(rules, &names, BEGIN),
            [Some(4), Some(4), Some(5), Some(6)]
        );
        // An agent that stood still goes on now.
        assert_eq!(
            hours(rules, &names, BEGIN + 9 * HOUR),
            [Some(9), Some(9), Some(10), Some(11)]
        );
        assert_eq!(hours(Retention::default(), &names, BEGIN), [None; 4]);
        assert!(hours(rules, &[], BEGIN).is_empty());
    }

    #[test]
    fn by_generation() {
        let rules = Retention {
            newest: 1,
            daily: 2,
            ..Retention::default()
        };
        // The first two days; the last of each is kept until two other days have one.
        let names = hourly(48);
        let kept = hours(rules, &names, BEGIN);
        assert_eq!(kept[0], Some(48));
        assert_eq!(kept[23], Some(48));
        assert_eq!(kept[47], Some(72));
    }

    #[test]
    fn far_ahead_has_a_bound() {
        let rules = Retention {
            monthly: usize::MAX,
            hourly: usize::MAX,
            ..Retention::default()
        };
        let kept = forecast(&rules, &hourly(3), Duration::ZERO, at(BEGIN));
        assert!(matches!(kept[&name(BEGIN)], Kept::Beyond(_)), "{kept:?}");
    }

    proptest! {
        #[test]
        fn it_comes_true(
            present in proptest::collection::btree_set(0_u64..60, 1..20),
            (newest, hourly_count, daily) in (0_usize..6, 0_usize..6, 0_usize..4),
        ) {
            let retention = Retention { newest, hourly: hourly_count, daily, ..Retention::default() };
            prop_assume!(!retention.keeps_all());
            let names: Vec<Name> = present.iter().map(|hour| name(BEGIN + hour * HOUR)).collect();
            let last = names.last().map_or(0, |name| name.id);
            let foretold = forecast(&retention, &names, Duration::from_secs(3600), at(last));
            let mut alive = names;
            let mut next = last;
            while next < last + 8 * DAY {
                next += HOUR;
                alive.push(name(next));
                for gone in retention.expired(&alive) {
                    if let Some(Kept::Until(until)) = foretold.get(&gone) {
                        let until = u64::try_from(until.as_nanosecond()).unwrap();
                        prop_assert!(until.abs_diff(next) <= DAY, "{gone} until {next}, not {until}");
                    }
                }
                let expired = retention.expired(&alive);
                alive.retain(|name| !expired.contains(name));
            }
            prop_assert!(foretold.keys().all(|name| !alive.contains(name)));
        }
    }
}
