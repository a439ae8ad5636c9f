//! What is left to chance: names that nobody else has, and pauses that differ from everybody else's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::schedule::STEP_MAX;

/// The pause after the first of several failures in a row to reach somebody; each further one doubles it up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The pause after so many failures in a row.
pub(super) fn doubled(failures: u32) -> Duration {
    let times = 2_u32.saturating_pow(failures.saturating_sub(1));
    RETRY_FIRST.saturating_mul(times).min(RETRY_MAX)
}

/// Chance that is the same wherever it begins at the same seed.
pub(super) struct Chance(Mutex<StdRng>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// A number that no other instance has.
    pub(super) fn id(&self) -> u64 {
        self.with(RngExt::random)
    }

    /// A step from one id to the next that nobody else takes.
    pub(super) fn step(&self) -> u64 {
        self.with(|chance| chance.random_range(1..=STEP_MAX))
    }

    /// A time that is a tenth shorter or longer at most.
    pub(super) fn about(&self, time: Duration) -> Duration {
        time.mul_f64(self.with(|chance| chance.random_range(0.9..1.1)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
