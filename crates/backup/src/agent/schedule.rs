//! When the next snapshot is due, and how it is numbered.

use std::time::Duration;

/// The pause after the first failure in a row; each further one doubles it.
const RETRY_FIRST: Duration = Duration::from_secs(30);

/// The longest pause after a failure; an interval that is shorter is enough.
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);

/// How far clocks of machines that are looked after may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// How long a new leader waits for its first snapshot, where the newest one that is known was begun then (in nanoseconds
/// since 1970, as is `now`).
pub(super) fn wait(newest: Option<u64>, now: u64, interval: Duration) -> Duration {
    let Some(newest) = newest else {
        return Duration::ZERO;
    };
    if is_far_ahead(newest, now, interval) {
        // It tells nothing about when there was one.
        return Duration::ZERO;
    }
    // From a clock that is a little ahead of ours: it has just been begun.
    interval.saturating_sub(Duration::from_nanos(now.saturating_sub(newest)))
}

/// Whether so late a snapshot can't be explained by clocks that differ a little.
pub(super) fn is_far_ahead(newest: u64, now: u64, interval: Duration) -> bool {
    Duration::from_nanos(newest.saturating_sub(now)) > interval.max(SKEW)
}

/// By how much ids grow at most that a clock can't tell.
pub(super) const STEP_MAX: u64 = 1_000_000_000;

/// The id of a snapshot that is begun now: the time, unless there is one already that is as late, and then a `step`
/// after that. `None`: there is no later one.
///
/// Somebody else's may have the number after the newest that is known, and get it only now: whoever goes on from there
/// by a step that nobody else takes doesn't overwrite it.
pub(super) fn next_id(newest: Option<u64>, now: u64, step: u64) -> Option<u64> {
    match newest {
        Some(newest) if newest >= now => newest.checked_add(step).or(newest.checked_add(1)),
        _ => Some(now),
    }
}

/// How long is waited after so many failures in a row.
pub(super) fn retry(failures: u32, interval: Duration) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    RETRY_FIRST
        .saturating_mul(doubled)
        .min(RETRY_MAX)
        .min(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: u64 = 1_479_474_972_000_000_000;

    fn ns(seconds: u64) -> u64 {
        seconds * 1_000_000_000
    }

    #[test]
    fn the_first_one_of_a_new_leader() {
        for (newest, seconds) in [
            (None, 0),
            // Another took one ten minutes ago.
            (Some(NOW - ns(600)), 3000),
            (Some(NOW - ns(3599)), 1),
            (Some(NOW - ns(3600)), 0),
            (Some(NOW - ns(90_000)), 0),
            (Some(0), 0),
            // Its clock is ahead.
            (Some(NOW), 3600),
            (Some(NOW + ns(5)), 3600),
            (Some(NOW + ns(3600)), 3600),
            // Its clock is wrong, or ours.
            (Some(NOW + ns(3601)), 0),
            (Some(u64::MAX), 0),
        ] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(wait(newest, NOW, HOUR), expected, "{newest:?}");
        }
        // However short the interval is, a minute is no reason to doubt a clock.
        let short = Duration::from_secs(2);
        assert_eq!(wait(Some(NOW + ns(60)), NOW, short), short);
        assert_eq!(wait(Some(NOW + ns(61)), NOW, short), Duration::ZERO);
    }

    #[test]
    fn ids_only_grow() {
        for (newest, now, expected) in [
            (None, 5, Some(5)),
            (Some(4), 5, Some(5)),
            (Some(5), 5, Some(8)),
            (Some(9), 5, Some(12)),
            (Some(u64::MAX - 3), 5, Some(u64::MAX)),
            (Some(u64::MAX - 1), 5, Some(u64::MAX)),
            (Some(u64::MAX), 5, None),
        ] {
            assert_eq!(next_id(newest, now, 3), expected);
        }
    }

    #[test]
    fn pauses_grow_to_the_interval_at_most() {
        let pauses = |interval| [1, 2, 5, 6, 7, u32::MAX].map(|n| retry(n, interval).as_secs());
        assert_eq!(pauses(HOUR), [30, 60, 480, 900, 900, 900]);
        assert_eq!(pauses(Duration::from_secs(45)), [30, 45, 45, 45, 45, 45]);
    }
}
