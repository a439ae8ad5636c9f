//! What the parts count and time, kept in memory for a minute: what SIGUSR1 shows.
//!
//! The parts speak to the `metrics` facade and know nothing of who listens.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// How long one bucket is; the original does the same.
const INTERVAL_SECONDS: i64 = 10;

/// How many buckets are kept, the one that is being filled included.
const INTERVALS_MAX: usize = 7;

/// How many names one bucket has room for; further ones are not counted. Some names are made of what users call things.
const NAMES_MAX: usize = 16_384;

/// Stands in front of every name; the names of this program's own parts begin with the same word, as the original's do.
const PREFIX: &str = "consul";

/// The figures of the last minute. Clones are the same figures.
#[derive(Clone, Default)]
pub struct InMemory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The oldest first.
    intervals: Vec<Interval>,
}

#[derive(Default)]
struct Interval {
    /// When it began, in seconds since 1970.
    begun: i64,
    gauges: BTreeMap<Arc<str>, f64>,
    counters: BTreeMap<Arc<str>, Aggregate>,
    samples: BTreeMap<Arc<str>, Aggregate>,
}

/// What several values come to.
#[derive(Debug, Clone, Copy, Default)]
struct Aggregate {
    count: u64,
    sum: f64,
    sum_of_squares: f64,
    min: f64,
    max: f64,
    last: Timestamp,
}

impl Aggregate {
    fn add(&mut self, value: f64, now: Timestamp) {
        if self.count == 0 || value < self.min {
            self.min = value;
        }
        if self.count == 0 || value > self.max {
            self.max = value;
        }
        self.count += 1;
        self.sum += value;
        self.sum_of_squares += value * value;
        self.last = now;
    }

    fn deviation(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a minute has no such counts")]
        let count = self.count as f64;
        let square = (count * self.sum_of_squares - self.sum * self.sum) / (count * (count - 1.0));
        square.max(0.0).sqrt()
    }
}

impl fmt::Display for Aggregate {
    /// In the original's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            sum,
            min,
            max,
            last,
            ..
        } = self;
        let deviation = self.deviation();
        if deviation == 0.0 {
            return write!(f, "Count: {count} Sum: {sum:.3} LastUpdated: {last}");
        }
        #[expect(clippy::cast_precision_loss, reason = "a minute has no such counts")]
        let mean = sum / *count as f64;
        write!(
            f,
            "Count: {count} Min: {min:.3} Mean: {mean:.3} Max: {max:.3} Stddev: {deviation:.3} Sum: {sum:.3} LastUpdated: {last}"
        )
    }
}

/// What is done with a value.
enum What {
    Set,
    Count,
    Sample,
}

impl InMemory {
    /// Listens to the parts of this process from now on.
    ///
    /// # Errors
    /// If somebody listens already.
    pub fn install(&self) -> anyhow::Result<()> {
        metrics::set_global_recorder(self.clone())
            .map_err(|_| anyhow::anyhow!("somebody listens to the metrics already"))
    }

    /// The complete buckets, a line for each figure.
    pub fn dump(&self) -> String {
        self.dump_at(Timestamp::now())
    }

    fn dump_at(&self, now: Timestamp) -> String {
        let mut state = self.state();
        state.current(now);
        let (_, complete) = state
            .intervals
            .split_last()
            .expect("there is a current bucket");
        let mut out = String::new();
        for interval in complete {
            let begun = Timestamp::from_second(interval.begun).unwrap_or_default();
            let begun = begun.strftime("[%Y-%m-%d %H:%M:%S +0000 UTC]");
            for (name, value) in &interval.gauges {
                let _ = writeln!(out, "{begun}[G] '{PREFIX}.{name}': {value:.3}");
            }
            for (name, counted) in &interval.counters {
                let _ = writeln!(out, "{begun}[C] '{PREFIX}.{name}': {counted}");
            }
            for (name, sampled) in &interval.samples {
                let _ = writeln!(out, "{begun}[S] '{PREFIX}.{name}': {sampled}");
            }
        }
        out
    }

    fn note(&self, name: &Arc<str>, what: &What, value: f64) {
        self.note_at(name, what, value, Timestamp::now());
    }

    fn note_at(&self, name: &Arc<str>, what: &What, value: f64, now: Timestamp) {
        let mut state = self.state();
        let interval = state.current(now);
        let known = interval.gauges.len() + interval.counters.len() + interval.samples.len();
        let has_room = known < NAMES_MAX;
        let aggregates = match what {
            What::Set => {
                if has_room || interval.gauges.contains_key(name) {
                    interval.gauges.insert(Arc::clone(name), value);
                }
                return;
            }
            What::Count => &mut interval.counters,
            What::Sample => &mut interval.samples,
        };
        if let Some(aggregate) = aggregates.get_mut(name) {
            aggregate.add(value, now);
        } else if has_room {
            let mut aggregate = Aggregate::default();
            aggregate.add(value, now);
            aggregates.insert(Arc::clone(name), aggregate);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instrument(&self, key: &Key) -> Arc<Instrument> {
        let mut name = String::from(key.name());
        // The original has no labels: what tells two figures apart is the end of their name.
        for label in key.labels() {
            name.push('.');
            name.push_str(label.value());
        }
        Arc::new(Instrument {
            name: name.into(),
            figures: self.clone(),
        })
    }
}

impl State {
    /// The bucket that is being filled now; what is too old is dropped.
    fn current(&mut self, now: Timestamp) -> &mut Interval {
        let begun = now.as_second().div_euclid(INTERVAL_SECONDS) * INTERVAL_SECONDS;
        if self.intervals.last().is_none_or(|last| last.begun < begun) {
            if self.intervals.len() >= INTERVALS_MAX {
                self.intervals.remove(0);
            }
            self.intervals.push(Interval {
                begun,
                ..Interval::default()
            });
        }
        // If the wall clock was put back, the newest one goes on being filled.
        self.intervals.last_mut().expect("one was just added")
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

impl Recorder for InMemory {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.instrument(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.instrument(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.instrument(key))
    }
}

/// One name that somebody counts or times under.
struct Instrument {
    name: Arc<str>,
    figures: InMemory,
}

impl CounterFn for Instrument {
    fn increment(&self, value: u64) {
        #[expect(clippy::cast_precision_loss, reason = "nobody counts that far at once")]
        self.figures.note(&self.name, &What::Count, value as f64);
    }

    fn absolute(&self, value: u64) {
        CounterFn::increment(self, value);
    }
}

impl GaugeFn for Instrument {
    // A gauge is set here, as the original's are; what it was before may be in a bucket that is gone.
    fn increment(&self, value: f64) {
        self.set(value);
    }

    fn decrement(&self, value: f64) {
        self.set(-value);
    }

    fn set(&self, value: f64) {
        self.figures.note(&self.name, &What::Set, value);
    }
}

impl HistogramFn for Instrument {
    fn record(&self, value: f64) {
        self.figures.note(&self.name, &What::Sample, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_479_796_420 + second).unwrap()
    }

    #[test]
    fn complete_buckets_are_shown_in_the_original_words() {
        let figures = InMemory::default();
        let name = |name: &str| Arc::from(name);
        figures.note_at(&name("runtime.num_goroutines"), &What::Set, 60.0, at(0));
        figures.note_at(&name("consul.rpc.query"), &What::Count, 1.0, at(1));
        figures.note_at(&name("consul.rpc.query"), &What::Count, 1.0, at(2));
        figures.note_at(&name("consul.kvs.apply"), &What::Sample, 1.0, at(3));
        figures.note_at(&name("consul.kvs.apply"), &What::Sample, 3.0, at(4));
        assert_eq!(
            figures.dump_at(at(5)),
            "",
            "the first bucket is not complete"
        );
        let expected = "\
[2016-11-22 06:33:40 +0000 UTC][G] 'consul.runtime.num_goroutines': 60.000
[2016-11-22 06:33:40 +0000 UTC][C] 'consul.consul.rpc.query': Count: 2 Sum: 2.000 LastUpdated: 2016-11-22T06:33:42Z
[2016-11-22 06:33:40 +0000 UTC][S] 'consul.consul.kvs.apply': Count: 2 Min: 1.000 Mean: 2.000 Max: 3.000 Stddev: 1.414 Sum: 4.000 LastUpdated: 2016-11-22T06:33:44Z
";
        assert_eq!(figures.dump_at(at(10)), expected);
    }

    #[test]
    fn it_is_bounded_in_time_and_names() {
        let figures = InMemory::default();
        for second in 0..200 {
            figures.note_at(&"a".into(), &What::Count, 1.0, at(second));
        }
        assert_eq!(figures.dump_at(at(200)).lines().count(), INTERVALS_MAX - 1);
        for number in 0..2 * NAMES_MAX {
            let name = format!("n{number}").into();
            figures.note_at(&name, &What::Sample, 1.0, at(201));
        }
        figures.note_at(&"a".into(), &What::Count, 1.0, at(201));
        let last = figures.dump_at(at(210));
        assert!(last.lines().count() <= NAMES_MAX + INTERVALS_MAX);
    }
}
