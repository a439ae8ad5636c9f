//! Seeded chance.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A number from the environment.
///
/// # Panics
/// If it is something else.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A small generator (xorshift).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From `CLUSTER_SEED`, or from nowhere; printed, so that it can be given again.
    #[allow(clippy::print_stdout, reason = "a failed test shows what it printed")]
    pub fn seeded() -> Self {
        let seed = number("CLUSTER_SEED").unwrap_or_else(|| drawn() >> 32);
        println!("CLUSTER_SEED={seed}");
        Self::new(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from `start` to below `end`.
    pub fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.draw() % end.saturating_sub(start).max(1)
    }

    /// A place in a list of this length.
    pub fn place(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.draw() % length).unwrap_or(0)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }
}

/// A number that nobody chose.
pub(crate) fn drawn() -> u64 {
    RandomState::new().build_hasher().finish()
}
