//! One name that somebody counts or times under, and what has come under it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{CounterFn, GaugeFn, HistogramFn, Key};

use super::aggregate::Aggregate;
use super::feed::Feed;

/// How long one interval is; the original does the same.
pub(super) const INTERVAL_SECONDS: i64 = 10;

/// How many intervals are kept, the one that is being filled included.
pub(super) const INTERVALS_MAX: usize = 7;

/// What is done with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The last one counts.
    Gauge,
    /// They are added up.
    Counter,
    /// They are looked at one by one.
    Sample,
}

/// One name that somebody counts or times under.
#[derive(Debug)]
pub(super) struct Instrument {
    pub(super) kind: Kind,
    pub(super) key: Key,
    state: Mutex<State>,
    /// Where others are told of it.
    feed: Option<Arc<Feed>>,
    me: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    /// What came in each interval, by its number; the newest last.
    recent: VecDeque<(i64, Aggregate)>,
    /// All values ever.
    count: u64,
    /// Their sum; of a gauge, the last one.
    sum: f64,
    /// What the feed has not fetched yet. Counts add up here, so that they can't get lost.
    pending: f64,
    /// Whether the feed knows that there is something to fetch.
    is_announced: bool,
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// The number of the interval that holds this moment.
pub(super) fn interval(now_ms: i64) -> i64 {
    now_ms.div_euclid(INTERVAL_SECONDS * 1000)
}

impl Instrument {
    pub(super) fn new(kind: Kind, key: Key, feed: Option<Arc<Feed>>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            kind,
            key,
            state: Mutex::default(),
            feed,
            me: Weak::clone(me),
        })
    }

    pub(super) fn note(&self, value: f64, now_ms: i64) {
        let mut state = self.state();
        let current = state.current(interval(now_ms));
        match self.kind {
            Kind::Gauge => {
                current.set(value, now_ms);
                state.sum = value;
            }
            Kind::Counter | Kind::Sample => {
                current.add(value, now_ms);
                state.sum += value;
            }
        }
        state.count += 1;
        let Some(feed) = &self.feed else {
            return;
        };
        match self.kind {
            Kind::Sample => {
                drop(state);
                if let Some(me) = self.me.upgrade() {
                    feed.sample(me, value);
                }
            }
            Kind::Gauge | Kind::Counter => {
                if self.kind == Kind::Counter {
                    state.pending += value;
                } else {
                    state.pending = value;
                }
                if std::mem::replace(&mut state.is_announced, true) {
                    return;
                }
                drop(state);
                if let Some(me) = self.me.upgrade()
                    && !feed.announce(me)
                {
                    // There is no room now: the next value tries again.
                    self.state().is_announced = false;
                }
            }
        }
    }

    /// What has come since the feed fetched it the last time.
    pub(super) fn fetch(&self) -> f64 {
        let mut state = self.state();
        state.is_announced = false;
        std::mem::take(&mut state.pending)
    }

    /// What came in each interval before this one that is still kept.
    pub(super) fn complete(&self, current: i64) -> Vec<(i64, Aggregate)> {
        let state = self.state();
        let oldest = current - INTERVALS_MAX as i64;
        let is_complete = |(number, _): &&(i64, Aggregate)| (oldest + 1..current).contains(number);
        state.recent.iter().filter(is_complete).copied().collect()
    }

    /// How many values there ever were, and their sum; of a gauge, the last one.
    pub(super) fn total(&self) -> (u64, f64) {
        let state = self.state();
        (state.count, state.sum)
    }

    /// Whether nothing has come for as long as intervals are kept.
    pub(super) fn is_idle(&self, current: i64) -> bool {
        let newest = self.state().recent.back().map(|(number, _)| *number);
        newest.is_none_or(|newest| newest + (INTERVALS_MAX as i64) <= current)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is being filled now; what is too old is dropped.
    fn current(&mut self, number: i64) -> &mut Aggregate {
        if self.recent.back().is_none_or(|(last, _)| *last < number) {
            let oldest = number - INTERVALS_MAX as i64;
            while self.recent.front().is_some_and(|(n, _)| *n <= oldest) {
                self.recent.pop_front();
            }
            self.recent.push_back((number, Aggregate::default()));
        }
        // If the wall clock was put back, the newest one goes on being filled.
        let (_, newest) = self.recent.back_mut().expect("one was just added");
        newest
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts that far")]
fn exact(count: u64) -> f64 {
    count as f64
}

impl CounterFn for Instrument {
    fn increment(&self, value: u64) {
        self.note(exact(value), now_ms());
    }

    fn absolute(&self, value: u64) {
        let (_, before) = self.total();
        if exact(value) > before {
            self.note(exact(value) - before, now_ms());
        }
    }
}

impl GaugeFn for Instrument {
    fn increment(&self, value: f64) {
        let (_, before) = self.total();
        self.set(before + value);
    }

    fn decrement(&self, value: f64) {
        GaugeFn::increment(self, -value);
    }

    fn set(&self, value: f64) {
        self.note(value, now_ms());
    }
}

impl HistogramFn for Instrument {
    fn record(&self, value: f64) {
        self.note(value, now_ms());
    }
}
