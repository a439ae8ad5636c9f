//! How long ago something was, when to be wrong means that two hold one lock.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How late it may be noticed that the machine was suspended: timers stand still meanwhile.
const TICK: Duration = Duration::from_secs(1);

/// A difference of two clocks up to here is none: they can't be read in the same moment.
const BLUR: Duration = Duration::from_millis(100);

/// A point in time, from which time is counted that no clock change can take back and no sleep of the machine hide.
///
/// Time awake is counted on tokio's clock, so that it is simulated where that one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    awake: Instant,
    /// For how long the machine had been suspended until then, where that can be told.
    asleep: Option<Duration>,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            awake: Instant::now(),
            asleep: asleep(),
        }
    }

    /// The time since then, that in which the machine was suspended included.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed_if(asleep())
    }

    fn elapsed_if(&self, asleep: Option<Duration>) -> Duration {
        let asleep = asleep.zip(self.asleep);
        let asleep = asleep.map_or(Duration::ZERO, |(now, then)| now.saturating_sub(then));
        let asleep = if asleep > BLUR {
            asleep
        } else {
            Duration::ZERO
        };
        self.awake.elapsed() + asleep
    }

    /// Returns when so much time has passed since then.
    pub(crate) async fn reaches(&self, age: Duration) {
        loop {
            let left = age.saturating_sub(self.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left.min(TICK)).await;
        }
    }
}

/// By how much the clock that goes on while the machine is suspended is ahead of the one that doesn't.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn asleep() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
        Some(Duration::new(seconds, nanoseconds))
    };
    // Whoever is interrupted between the two sees a gap that is none: the smallest of a few is the one to believe.
    let gap = || {
        let awake = read(ClockId::Monotonic)?;
        read(ClockId::Boottime)?.checked_sub(awake)
    };
    (0..3).filter_map(|_| gap()).min()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn asleep() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_passes_on_either_clock() {
        let moment = Moment::now();
        moment.reaches(Duration::from_secs(5)).await;
        // To the millisecond of tokio's timers, whatever the real clocks did meanwhile.
        let elapsed = moment.elapsed();
        assert!(elapsed >= Duration::from_secs(5));
        assert!(elapsed <= Duration::from_millis(5_001));

        // The machine slept for a minute, and then it only looks as if it had slept.
        for (pause, counts) in [(60_000, true), (20, false)] {
            let pause = Duration::from_millis(pause);
            let asleep = moment.asleep.map(|asleep| asleep + pause);
            let expected = if counts { elapsed + pause } else { elapsed };
            if asleep.is_some() {
                assert_eq!(moment.elapsed_if(asleep), expected);
            }
        }
    }
}
