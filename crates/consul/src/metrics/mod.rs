//! What the parts count and time: kept in memory, shown on SIGUSR1 and by `/v1/agent/metrics`, told to those who keep it elsewhere.
//!
//! The parts speak to the `metrics` facade and know nothing of who listens.
//! A [`Registry`] has an instrument for each name, which keeps its last minute and its total; whoever keeps the handle that
//! the facade returns pays for a look at the clock and a lock that nobody else wants.
//! `docs/telemetry.md` lists the names.

mod aggregate;
mod feed;
mod instrument;
mod names;
mod sinks;
mod telemetry;

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Figures, FiguresSnapshot, Gauge, Labels, Sampled, Total};
use anyhow::Context as _;
use jiff::Timestamp;
use metrics::{Counter, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use aggregate::Aggregate;
use feed::{Drain, Feed};
use instrument::{INTERVAL_SECONDS, Instrument, Kind, interval, now_ms};
use names::Names;
use sinks::{Connection, Datagrams, Sink};

pub use telemetry::{Address, Telemetry};

/// How many names there may be whose end, or whose label, is what users call things. If there are more, those that have been
/// idle make room; if none has, the newcomers are not counted.
const LABELLED_MAX: usize = 4096;

/// How many other names there may be: as many as the program's sources have, and far fewer than this.
const PLAIN_MAX: usize = 4096;

/// What has no room, by the kind of instrument. Ours: the original loses figures silently.
const LOST: &str = "consul.telemetry.lost";

/// The figures of this process. Clones are the same figures.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    instruments: Mutex<Instruments>,
    names: Names,
    feed: Option<Arc<Feed>>,
    drain: Mutex<Option<Drain>>,
    /// Whether it was said that there are too many names.
    is_crowded: AtomicBool,
}

#[derive(Default)]
struct Instruments {
    gauges: HashMap<Key, Arc<Instrument>>,
    counters: HashMap<Key, Arc<Instrument>>,
    samples: HashMap<Key, Arc<Instrument>>,
    /// How many of them have labels.
    labelled: usize,
    /// The interval in which room was looked for the last time: it is a walk over all of them.
    swept: i64,
}

impl Instruments {
    fn of(&mut self, kind: Kind) -> &mut HashMap<Key, Arc<Instrument>> {
        match kind {
            Kind::Gauge => &mut self.gauges,
            Kind::Counter => &mut self.counters,
            Kind::Sample => &mut self.samples,
        }
    }

    fn len(&self) -> usize {
        self.gauges.len() + self.counters.len() + self.samples.len()
    }

    fn has_room(&mut self, key: &Key, current: i64) -> bool {
        if key.labels().len() == 0 {
            return self.len() - self.labelled < PLAIN_MAX;
        }
        if self.labelled < LABELLED_MAX {
            return true;
        }
        if self.swept == current {
            return false;
        }
        self.swept = current;
        let mut removed = 0;
        for kind in [Kind::Gauge, Kind::Counter, Kind::Sample] {
            self.of(kind).retain(|key, instrument| {
                // Whoever else holds it goes on counting there.
                let goes = key.labels().len() > 0
                    && Arc::strong_count(instrument) == 1
                    && instrument.is_idle(current);
                removed += usize::from(goes);
                !goes
            });
        }
        self.labelled -= removed;
        removed > 0
    }

    /// All that was ever used, by name.
    fn sorted(&self) -> Vec<Arc<Instrument>> {
        let all = self.gauges.values();
        let all = all.chain(self.counters.values());
        let used = all
            .chain(self.samples.values())
            .filter(|instrument| instrument.total().0 > 0);
        let mut sorted: Vec<_> = used.map(Arc::clone).collect();
        sorted.sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
        sorted
    }
}

impl Registry {
    /// Figures that are told to whom the configuration says.
    ///
    /// # Errors
    /// If one of them can't be found; it names the key.
    pub fn start(telemetry: &Telemetry) -> anyhow::Result<Self> {
        Self::start_with(telemetry, feed::GATHER)
    }

    fn start_with(telemetry: &Telemetry, gather: Duration) -> anyhow::Result<Self> {
        let is_told = telemetry.is_told();
        let names = Names {
            prefix: telemetry.prefix.clone(),
            single_prefix: telemetry.single_prefix,
            // As in the original, which leaves the host out where nobody could mistake it.
            host: telemetry.hostname.clone().filter(|_| is_told),
        };
        let registry = Self(Arc::new(Inner {
            instruments: Mutex::default(),
            names,
            feed: is_told.then(Arc::default),
            drain: Mutex::default(),
            is_crowded: AtomicBool::new(false),
        }));
        if let Some(feed) = &registry.0.feed {
            let lost = registry.instrument(Kind::Counter, &Key::from_static_name(LOST));
            let drain = Drain::start(
                Arc::clone(feed),
                registry.0.names.clone(),
                sinks(telemetry)?,
                gather,
                lost.map_or_else(Counter::noop, Counter::from_arc),
            )?;
            *registry.drain() = Some(drain);
        }
        Ok(registry)
    }

    /// Listens to the parts of this process from now on.
    ///
    /// # Errors
    /// If somebody listens already.
    pub fn install(&self) -> anyhow::Result<()> {
        metrics::set_global_recorder(self.clone())
            .map_err(|_| anyhow::anyhow!("somebody listens to the metrics already"))
    }

    /// Tells what is still to be told. After that nobody is told anything.
    pub fn finish(&self) {
        let drain = self.drain().take();
        if let Some(drain) = drain {
            drain.finish();
        }
    }

    /// The complete intervals of the last minute, a line for each figure.
    pub fn dump(&self) -> String {
        self.dump_at(now_ms())
    }

    fn dump_at(&self, now_ms: i64) -> String {
        let instruments = self.instruments().sorted();
        let mut lines: BTreeMap<(i64, Kind, String), Aggregate> = BTreeMap::new();
        for instrument in instruments {
            let name = self.0.names.wire(instrument.kind, &instrument.key);
            for (number, aggregate) in instrument.complete(interval(now_ms)) {
                lines.insert((number, instrument.kind, name.clone()), aggregate);
            }
        }
        let mut out = String::new();
        for ((number, kind, name), aggregate) in lines {
            let begun = format!("[{}]", time(number));
            let _ = match kind {
                Kind::Gauge => writeln!(out, "{begun}[G] '{name}': {:.3}", aggregate.sum),
                Kind::Counter => writeln!(out, "{begun}[C] '{name}': {aggregate}"),
                Kind::Sample => writeln!(out, "{begun}[S] '{name}': {aggregate}"),
            };
        }
        out
    }

    fn snapshot_at(&self, now_ms: i64) -> FiguresSnapshot {
        let last = interval(now_ms) - 1;
        let mut snapshot = FiguresSnapshot {
            timestamp: time(last),
            ..FiguresSnapshot::default()
        };
        for instrument in self.instruments().sorted() {
            let name = self.0.names.modern(&instrument.key);
            let label = |label: &metrics::Label| (label.key().to_owned(), label.value().to_owned());
            let labels: Labels = instrument.key.labels().map(label).collect();
            let complete = instrument.complete(last + 1);
            let recent = complete.into_iter().find(|(number, _)| *number == last);
            let recent = recent.map(|(_, aggregate)| aggregate);
            let (count, sum) = instrument.total();
            let totals = &mut snapshot.totals;
            let (list, total) = match instrument.kind {
                Kind::Gauge => {
                    let gauge = |value| Gauge {
                        name: name.clone(),
                        labels: labels.clone(),
                        value,
                    };
                    snapshot
                        .gauges
                        .extend(recent.map(|recent| gauge(recent.sum)));
                    totals.gauges.push(gauge(sum));
                    continue;
                }
                Kind::Counter => (&mut snapshot.counters, &mut totals.counters),
                Kind::Sample => (&mut snapshot.samples, &mut totals.samples),
            };
            list.extend(recent.map(|recent| sampled(&name, &labels, &recent)));
            total.push(Total {
                name,
                labels,
                count,
                sum,
            });
        }
        // The names that they were sorted by are not those that are shown.
        sort(&mut snapshot.gauges, |gauge| (&gauge.name, &gauge.labels));
        sort(&mut snapshot.counters, |one| (&one.name, &one.labels));
        sort(&mut snapshot.samples, |one| (&one.name, &one.labels));
        let totals = &mut snapshot.totals;
        sort(&mut totals.gauges, |gauge| (&gauge.name, &gauge.labels));
        sort(&mut totals.counters, |total| (&total.name, &total.labels));
        sort(&mut totals.samples, |total| (&total.name, &total.labels));
        snapshot
    }

    fn instrument(&self, kind: Kind, key: &Key) -> Option<Arc<Instrument>> {
        let mut instruments = self.instruments();
        if let Some(known) = instruments.of(kind).get(key) {
            return Some(Arc::clone(known));
        }
        if !instruments.has_room(key, interval(now_ms())) {
            drop(instruments);
            if !self.0.is_crowded.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "there are too many names to count under, '{}' is left out",
                    key.name()
                );
            }
            return None;
        }
        let key = key.to_retained();
        instruments.labelled += usize::from(key.labels().len() > 0);
        let instrument = Instrument::new(kind, key.clone(), self.0.feed.clone());
        instruments.of(kind).insert(key, Arc::clone(&instrument));
        Some(instrument)
    }

    fn instruments(&self) -> MutexGuard<'_, Instruments> {
        let instruments = self.0.instruments.lock();
        instruments.unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self) -> MutexGuard<'_, Option<Drain>> {
        self.0.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds all that the configuration names.
fn sinks(telemetry: &Telemetry) -> anyhow::Result<Vec<Sink>> {
    let find = |key: &str, address: &Address| {
        let found = address.resolve();
        found.with_context(|| format!("telemetry.{key}: cannot find {address}"))
    };
    let mut sinks = Vec::new();
    if let Some(address) = &telemetry.statsite {
        let found = find("statsite_address", address)?;
        sinks.push(Sink::Connection(Connection::start(address.clone(), found)?));
    }
    if let Some(address) = &telemetry.statsd {
        let found = find("statsd_address", address)?;
        sinks.push(Sink::Datagrams(Datagrams::statsd(found[0])?));
    }
    if let Some(address) = &telemetry.dogstatsd {
        let found = find("dogstatsd_addr", address)?;
        let sink = Datagrams::dogstatsd(found[0], &telemetry.dogstatsd_tags)?;
        sinks.push(Sink::Datagrams(sink));
    }
    Ok(sinks)
}

fn sort<T>(list: &mut [T], key: fn(&T) -> (&String, &Labels)) {
    list.sort_by(|a, b| key(a).cmp(&key(b)));
}

/// When an interval began, in the original's words.
fn time(number: i64) -> String {
    let begun = Timestamp::from_second(number * INTERVAL_SECONDS).unwrap_or_default();
    begun.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

fn sampled(name: &str, labels: &Labels, values: &Aggregate) -> Sampled {
    #[expect(clippy::cast_precision_loss, reason = "it is ten")]
    let seconds = INTERVAL_SECONDS as f64;
    Sampled {
        name: name.to_owned(),
        labels: labels.clone(),
        count: values.count,
        rate: values.sum / seconds,
        sum: values.sum,
        min: values.min,
        max: values.max,
        mean: values.mean(),
        deviation: values.deviation(),
    }
}

impl Figures for Registry {
    fn snapshot(&self) -> FiguresSnapshot {
        self.snapshot_at(now_ms())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let counter = self.instrument(Kind::Counter, key);
        counter.map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        let gauge = self.instrument(Kind::Gauge, key);
        gauge.map_or_else(metrics::Gauge::noop, metrics::Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let histogram = self.instrument(Kind::Sample, key);
        histogram.map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

#[cfg(test)]
mod tests;
