//! Whether the machine slept: a lease must not outlive a nap that the monotonic clock doesn't count.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Smaller differences come from reading two clocks one after the other.
const NOTICED: Duration = Duration::from_millis(5);

/// Notices, each time it is asked, whether the machine was suspended since.
#[derive(Debug)]
pub(crate) struct Suspension {
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Time spent suspended since the machine was started.
    suspended: Duration,
    /// When a suspension was noticed last, if ever.
    noticed: Option<Instant>,
}

impl Default for Suspension {
    fn default() -> Self {
        Self {
            seen: Mutex::new(Seen {
                suspended: suspended(),
                noticed: None,
            }),
        }
    }
}

impl Suspension {
    /// How long the machine is known to have been awake.
    pub(crate) fn awake_for(&self) -> Duration {
        let suspended = suspended();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if suspended > seen.suspended + NOTICED {
            *seen = Seen {
                suspended,
                noticed: Some(Instant::now()),
            };
        }
        seen.noticed
            .map_or(Duration::MAX, |noticed| noticed.elapsed())
    }
}

/// Time that the machine spent suspended since it was started.
fn suspended() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanoseconds)
    };
    // In this order the difference is never too large.
    let with_sleep = read(ClockId::Boottime);
    let without = read(ClockId::Monotonic);
    with_sleep.saturating_sub(without)
}
