//! How often something may be done or said because strangers send packets.

use std::time::Duration;

use tokio::time::Instant;

/// Lets so much through, and a burst of it after a time of rest.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    burst: Duration,
    /// Up to when what was let through is spread.
    spread_until: Instant,
}

impl Pace {
    pub(super) const fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self {
            interval,
            burst: interval.saturating_mul(burst),
            spread_until: now,
        }
    }

    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let next = self.spread_until.max(now) + self.interval;
        let is_allowed = next <= now + self.burst;
        if is_allowed {
            self.spread_until = next;
        }
        is_allowed
    }
}

/// Says something that would be true all the time only now and then, with how often it has happened.
#[derive(Debug)]
pub(super) struct Seldom {
    interval: Duration,
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            said: None,
            unsaid: 0,
        }
    }

    /// It has happened; how often, if that is to be said now.
    pub(super) fn note(&mut self, now: Instant) -> Option<u64> {
        self.unsaid = self.unsaid.saturating_add(1);
        let is_recent = self
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < self.interval);
        if is_recent {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_one_at_a_time() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), 5, now);
        let count = |pace: &mut Pace, now| (0..100).filter(|_| pace.allows(now)).count();
        assert_eq!(count(&mut pace, now), 5);
        now += Duration::from_millis(250);
        assert_eq!(count(&mut pace, now), 2);
        now += Duration::from_secs(60);
        assert_eq!(count(&mut pace, now), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn said_at_once_and_then_seldom() {
        let now = Instant::now();
        let mut seldom = Seldom::new(Duration::from_secs(60));
        assert_eq!(seldom.note(now), Some(1));
        assert_eq!(seldom.note(now + Duration::from_secs(1)), None);
        assert_eq!(seldom.note(now + Duration::from_secs(59)), None);
        assert_eq!(seldom.note(now + Duration::from_secs(60)), Some(3));
    }
}
