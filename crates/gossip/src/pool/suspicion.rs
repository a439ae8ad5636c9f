//! How long a suspicion lasts: shorter with every further member that doesn't get an answer either.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Timing;
use crate::identity::Id;

/// How many times as often a pool probes that is smaller than [`Timing::small_pool`].
const SMALL_POOL_PACE: u32 = 2;

/// One member's suspicion of another.
#[derive(Debug, Clone)]
pub(super) struct Suspicion {
    /// On the clock of attention.
    begun: Instant,
    shortest: Duration,
    longest: Duration,
    /// How many confirmations bring it down to the shortest.
    wanted: usize,
    /// Who suspects. The first one confirms nothing.
    witnesses: Vec<Id>,
}

impl Suspicion {
    /// `size` counts the pool with everybody in it who is not known to be down; `stretch` is at least 1.
    pub(super) fn new(
        timing: &Timing,
        size: usize,
        stretch: u32,
        first: Id,
        attention: Instant,
    ) -> Self {
        let expected = timing.suspicion_factor.saturating_sub(2) as usize;
        let wanted = if size < expected + 2 { 0 } else { expected };
        let shortest = probe_interval(timing, size) * timing.suspicion_factor * logarithm(size);
        let longest = shortest * timing.suspicion_factor_max;
        Self {
            begun: attention,
            shortest: (shortest * stretch).min(longest),
            longest,
            wanted,
            witnesses: vec![first],
        }
    }

    /// Whether that is news worth passing on.
    pub(super) fn confirm(&mut self, witness: Id) -> bool {
        let is_news = self.witnesses.len() <= self.wanted && !self.witnesses.contains(&witness);
        if is_news {
            self.witnesses.push(witness);
        }
        is_news
    }

    /// Whether fewer suspect than were hoped for, as where this member is the one that hears nothing.
    pub(super) fn lacks_witnesses(&self) -> bool {
        self.witnesses.len() <= self.wanted
    }

    /// When it ends, on the clock of attention.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a handful of witnesses, and seconds with a fraction"
    )]
    pub(super) fn ends(&self) -> Instant {
        let confirmations = self.witnesses.len() - 1;
        if confirmations >= self.wanted {
            return self.begun + self.shortest;
        }
        let part = ((confirmations + 1) as f64).ln() / ((self.wanted + 1) as f64).ln();
        self.begun + self.longest - (self.longest - self.shortest).mul_f64(part)
    }
}

/// How often a member of a pool of this size probes.
pub(super) fn probe_interval(timing: &Timing, size: usize) -> Duration {
    timing.probe_interval / pace(timing, size)
}

/// In a small pool the failure detector runs at double speed: it costs next to nothing there, and few witnesses need
/// longer to meet by chance.
pub(super) const fn pace(timing: &Timing, size: usize) -> u32 {
    if size < timing.small_pool {
        SMALL_POOL_PACE
    } else {
        1
    }
}

/// The decimal logarithm of the pool's size and one, rounded up: 1 below ten members, 2 below a hundred.
pub(super) fn logarithm(size: usize) -> u32 {
    let above = size + 1;
    let down = above.ilog10();
    down + u32::from(above > 10usize.pow(down))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_witness_shortens_it() {
        let cases = [
            // size, witnesses, milliseconds
            (3, 1, 2500),
            (4, 1, 2500),
            (5, 1, 15_000),
            (5, 2, 8750),
            (5, 3, 5093),
            (5, 4, 2500),
            (5, 9, 2500),
            (16, 4, 10_000),
            (100, 1, 90_000),
            (100, 4, 15_000),
            (1000, 4, 20_000),
        ];
        let now = Instant::now();
        for (size, witnesses, expected) in cases {
            let mut suspicion = Suspicion::new(&Timing::lan(), size, 1, Id(0), now);
            for witness in 1..witnesses {
                suspicion.confirm(Id(witness));
                assert!(!suspicion.confirm(Id(witness)), "nobody counts twice");
            }
            let lasts = suspicion.ends() - now;
            assert_eq!(
                lasts.as_millis(),
                expected,
                "{size} members, {witnesses} witnesses"
            );
        }
    }

    #[test]
    fn logarithms() {
        let cases = [
            (1, 1),
            (8, 1),
            (9, 1),
            (10, 2),
            (99, 2),
            (100, 3),
            (999, 3),
            (1000, 4),
        ];
        for (size, expected) in cases {
            assert_eq!(logarithm(size), expected, "{size}");
        }
    }
}
