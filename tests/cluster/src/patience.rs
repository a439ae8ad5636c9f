//! Waiting for something to become true, with an end.

use std::fmt;
use std::time::{Duration, Instant};

/// Longer than anything takes that works, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// How often a condition is looked at. Nothing wakes us when another process does something.
const PACE: Duration = Duration::from_millis(5);

/// Waits until `look` finds what it looks for, and returns it with the time that took.
///
/// # Panics
/// With what was seen last, if that takes longer than `patience`.
pub fn until<T, E: fmt::Display>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return (found, start.elapsed()),
            Err(seen) => assert!(
                start.elapsed() < patience,
                "waited {patience:?} for this in vain: {what}. Seen last: {seen}"
            ),
        }
        std::thread::park_timeout(PACE);
    }
}
