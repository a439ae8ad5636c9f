//! When a follower last heard from its leader: read on every stale answer, so it costs one load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When this server last took a message of a leader that it follows.
#[derive(Debug)]
pub(crate) struct Contact {
    begun: Instant,
    /// Nanoseconds from the beginning to the last message, and one; 0 if there was none.
    last: AtomicU64,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Contact {
    /// The message arrived then. It counts from its arrival, however long it took to write what it brought.
    pub(crate) fn note(&self, arrived: Instant) {
        let nanoseconds = arrived.saturating_duration_since(self.begun).as_nanos();
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX - 1);
        // Answers may be ready in another order than their messages came.
        self.last.fetch_max(nanoseconds + 1, Ordering::Relaxed);
    }

    /// How long ago that was; `None` if never.
    pub(crate) fn age(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.begun
                .elapsed()
                .saturating_sub(Duration::from_nanos(last)),
        )
    }
}
