//! What is due when, on two clocks: the wall's, and one that stands still while this process doesn't get to run.
//!
//! A process that starves finds all its deadlines overdue when it wakes, and the answers that came meanwhile unread.
//! If it fired those timers it would accuse members that answered in time. So whatever may end in an accusation is
//! timed by attention: as long as nobody was looking, no time has passed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Which timer of the clock of attention it is.
pub(super) type TimerKey = (Instant, u64);

#[derive(Debug)]
pub(super) struct Timers<T> {
    wall: BTreeMap<(Instant, u64), T>,
    /// Keyed by the time it would be had the process never been held up.
    attentive: BTreeMap<TimerKey, T>,
    /// For how long the process has been held up in all.
    held: Duration,
    /// When it was last seen running.
    seen: Instant,
    /// Being late by so much is ordinary.
    tolerance: Duration,
    sequence: u64,
}

impl<T> Timers<T> {
    pub(super) const fn new(now: Instant, tolerance: Duration) -> Self {
        Self {
            wall: BTreeMap::new(),
            attentive: BTreeMap::new(),
            held: Duration::ZERO,
            seen: now,
            tolerance,
            sequence: 0,
        }
    }

    /// Takes note that the process runs. Returns for how long it has just been held up, if it was.
    pub(super) fn notice(&mut self, now: Instant) -> Option<Duration> {
        let expected = self.next().map_or(now, |next| next.max(self.seen));
        let seen = std::mem::replace(&mut self.seen, now);
        let late = now.saturating_duration_since(expected);
        if late <= self.tolerance {
            return None;
        }
        // A part of that was ordinary sleep. Had it counted, somebody who wakes for moments only would still accuse.
        self.held += now.saturating_duration_since(seen);
        Some(late)
    }

    /// The time on the clock of attention.
    pub(super) fn attention(&self, now: Instant) -> Instant {
        now.checked_sub(self.held).unwrap_or(now)
    }

    pub(super) fn on_wall(&mut self, at: Instant, due: T) {
        self.sequence += 1;
        self.wall.insert((at, self.sequence), due);
    }

    /// At a time on the clock of attention.
    pub(super) fn on_attention(&mut self, at: Instant, due: T) -> TimerKey {
        self.sequence += 1;
        let key = (at, self.sequence);
        self.attentive.insert(key, due);
        key
    }

    /// Gives up a timer of the clock of attention.
    pub(super) fn cancel(&mut self, key: TimerKey) {
        self.attentive.remove(&key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wall.len() + self.attentive.len()
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let wall = self.wall.keys().next().map(|(at, _)| *at);
        let attentive = self.attentive.keys().next().map(|(at, _)| *at + self.held);
        match (wall, attentive) {
            (Some(wall), Some(attentive)) => Some(wall.min(attentive)),
            (one, other) => one.or(other),
        }
    }

    /// Something that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let attention = self.attention(now);
        let queues = [(&mut self.attentive, attention), (&mut self.wall, now)];
        for (queue, now) in queues {
            if let Some(first) = queue.first_entry()
                && first.key().0 <= now
            {
                return Some(first.remove());
            }
        }
        None
    }
}
