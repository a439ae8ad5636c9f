//! Which snapshots are kept: so many of the newest, and the newest of so many hours, days, weeks and months.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::Name;

/// Rules of keeping. A snapshot is kept if any of them keeps it; hours, days, weeks (from Monday) and months are those of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How many of the newest.
    pub newest: usize,
    /// The newest of each of so many hours that have any.
    pub hourly: usize,
    /// The newest of each of so many days that have any.
    pub daily: usize,
    /// The newest of each of so many weeks that have any.
    pub weekly: usize,
    /// The newest of each of so many months that have any.
    pub monthly: usize,
}

impl Retention {
    /// Whether nothing is ever removed, which is what no rule at all means.
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// Those of `names` that no rule keeps, the oldest first. The newest is always kept.
    pub fn expired(&self, names: &[Name]) -> Vec<Name> {
        if self.keeps_all() {
            return Vec::new();
        }
        let sorted: BTreeSet<Name> = names.iter().copied().collect();
        let newest_first = || sorted.iter().rev().copied();
        let mut kept: BTreeSet<Name> = newest_first().take(self.newest.max(1)).collect();
        for (count, period) in [
            (self.hourly, hour as fn(DateTime) -> Period),
            (self.daily, day),
            (self.weekly, week),
            (self.monthly, month),
        ] {
            let mut seen = BTreeSet::new();
            for name in newest_first() {
                let Some(begun) = begun(name) else { continue };
                let period = period(begun);
                if seen.contains(&period) {
                    continue;
                }
                if seen.len() == count {
                    break;
                }
                seen.insert(period);
                kept.insert(name);
            }
        }
        sorted.difference(&kept).copied().collect()
    }
}

type Period = (i16, i16, i8);

fn hour(at: DateTime) -> Period {
    (at.year(), at.day_of_year(), at.hour())
}

fn day(at: DateTime) -> Period {
    (at.year(), at.day_of_year(), 0)
}

fn week(at: DateTime) -> Period {
    let week = at.date().iso_week_date();
    (week.year(), week.week().into(), 0)
}

fn month(at: DateTime) -> Period {
    (at.year(), at.month().into(), 0)
}

fn begun(name: Name) -> Option<DateTime> {
    let at = Timestamp::from_nanosecond(name.id.into()).ok()?;
    Some(TimeZone::UTC.to_datetime(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn names(ids: impl IntoIterator<Item = u64>) -> Vec<Name> {
        let name = |id| Name {
            id,
            encrypted: false,
        };
        ids.into_iter().map(name).collect()
    }

    fn kept(retention: Retention, all: &[Name]) -> Vec<u64> {
        let expired = retention.expired(all);
        let mut kept: Vec<u64> = (all.iter().filter(|name| !expired.contains(name)))
            .map(|name| name.id / HOUR)
            .collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn generations() {
        // One each half hour for ten days from the first Monday of 2024.
        let begin = 1_704_067_200_000_000_000_u64;
        let all = names((0..480).map(|half| begin + half * HOUR / 2));
        let first = begin / HOUR;
        let of = |hours: &[u64]| hours.iter().map(|hour| first + hour).collect::<Vec<_>>();
        let rules = Retention::default();
        assert_eq!(
            kept(Retention { newest: 3, ..rules }, &all),
            of(&[238, 239, 239])
        );
        assert_eq!(
            kept(Retention { hourly: 3, ..rules }, &all),
            of(&[237, 238, 239])
        );
        assert_eq!(
            kept(Retention { daily: 3, ..rules }, &all),
            of(&[191, 215, 239])
        );
        assert_eq!(
            kept(Retention { weekly: 5, ..rules }, &all),
            of(&[167, 239])
        );
        assert_eq!(
            kept(
                Retention {
                    monthly: 5,
                    ..rules
                },
                &all
            ),
            of(&[239])
        );
        let mixed = Retention {
            newest: 2,
            daily: 2,
            weekly: 2,
            ..rules
        };
        assert_eq!(kept(mixed, &all), of(&[167, 215, 239, 239]));
        assert_eq!(kept(rules, &all).len(), all.len());
    }

    proptest! {
        #[test]
        fn never_the_newest_and_never_too_many(
            ids in proptest::collection::vec(any::<u64>(), 0..60),
            (newest, hourly, daily, weekly, monthly) in (0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5, 0_usize..5),
        ) {
            let all = names(ids);
            let retention = Retention { newest, hourly, daily, weekly, monthly };
            let expired = retention.expired(&all);
            let distinct: BTreeSet<Name> = all.iter().copied().collect();
            let left = distinct.len() - expired.len();
            if let Some(last) = distinct.last() {
                prop_assert!(!expired.contains(last));
            }
            prop_assert!(retention.keeps_all() || left <= (newest + hourly + daily + weekly + monthly).max(1));
            if hourly + daily + weekly + monthly == 0 && newest > 0 {
                prop_assert_eq!(left, distinct.len().min(newest));
                let oldest_kept = distinct.iter().find(|name| !expired.contains(name));
                prop_assert!(expired.iter().all(|name| Some(name) < oldest_kept));
            }
            // What is gone once is not missed later: a second round removes nothing more.
            let rest: Vec<Name> = distinct.iter().filter(|name| !expired.contains(name)).copied().collect();
            prop_assert_eq!(retention.expired(&rest), Vec::new());
        }
    }
}
