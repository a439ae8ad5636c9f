//! How long ago something was, when to be wrong means that two hold one lock.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How late it may be noticed that the machine was suspended: timers stand still meanwhile.
const TICK: Duration = Duration::from_secs(1);

/// A point in time, from which time is counted that no clock change can take back and no sleep of the machine hide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    awake: Instant,
    /// On the clock that goes on while the machine is suspended, where there is one.
    in_all: Option<Duration>,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            awake: Instant::now(),
            in_all: in_all(),
        }
    }

    /// The time since then; the longer one where two clocks disagree.
    pub(crate) fn elapsed(&self) -> Duration {
        let awake = self.awake.elapsed();
        let in_all = in_all().zip(self.in_all);
        in_all.map_or(awake, |(now, then)| now.saturating_sub(then).max(awake))
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

#[cfg(any(target_os = "linux", target_os = "android"))]
fn in_all() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(seconds, nanoseconds))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn in_all() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_passes_on_either_clock() {
        let moment = Moment::now();
        moment.reaches(Duration::from_secs(5)).await;
        assert!(moment.elapsed() >= Duration::from_secs(5));
        assert!(moment.elapsed() < Duration::from_secs(6));

        // The machine slept for a minute.
        let mut before = Moment::now();
        before.in_all = before
            .in_all
            .map(|time| time.saturating_sub(Duration::from_secs(60)));
        if before.in_all.is_some() {
            assert!(before.elapsed() >= Duration::from_secs(60));
        }
    }
}
