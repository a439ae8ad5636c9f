//! The way of figures to those who keep them elsewhere: a bounded queue, and a thread that empties it.
//!
//! Whoever counts only puts something into the queue, however slow the others are.
//! Counts wait at their instruments and are added up there, so a full queue delays them and loses none; timings that find no room are lost, and counted as such.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::Counter;

use super::instrument::{Instrument, Kind};
use super::names::Names;
use super::sinks::Sink;

/// How many things to tell may wait, of 16 bytes each.
const WAITING_MAX: usize = 32 * 1024;

/// How long is gathered before something is sent, as the original does.
pub(super) const GATHER: Duration = Duration::from_millis(100);

/// How long the end waits for what is under way.
const END_MAX: Duration = Duration::from_secs(2);

/// What waits to be told.
#[derive(Debug)]
pub(super) enum Told {
    /// A timing.
    Sample(Arc<Instrument>, f64),
    /// There is something to fetch.
    Fetch(Arc<Instrument>),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Feed {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Timings that found no room and that nobody was told of yet.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Told>,
    is_closed: bool,
}

impl Feed {
    /// A value that has to be told by itself.
    pub(super) fn sample(&self, instrument: Arc<Instrument>, value: f64) {
        if !self.push(Told::Sample(instrument, value)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something can be fetched there. Returns whether there was room to say so.
    pub(super) fn announce(&self, instrument: Arc<Instrument>) -> bool {
        self.push(Told::Fetch(instrument))
    }

    fn push(&self, told: Told) -> bool {
        let mut queue = self.queue();
        if queue.is_closed || queue.waiting.len() >= WAITING_MAX {
            return false;
        }
        queue.waiting.push(told);
        let is_first = queue.waiting.len() == 1;
        drop(queue);
        if is_first {
            self.wake.notify_one();
        }
        true
    }

    fn close(&self) {
        self.queue().is_closed = true;
        self.wake.notify_all();
    }

    /// Waits for something, gathers for a while and takes all; and whether it was the last.
    fn take(&self, gather: Duration, into: &mut Vec<Told>) -> bool {
        let wait = |queue, condition: fn(&mut Queue) -> bool| {
            let waited = self.wake.wait_while(queue, condition);
            waited.unwrap_or_else(PoisonError::into_inner)
        };
        let mut queue = wait(self.queue(), |queue| {
            queue.waiting.is_empty() && !queue.is_closed
        });
        let until = Instant::now() + gather;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if queue.is_closed || left.is_zero() {
                break;
            }
            let waited = self.wake.wait_timeout(queue, left);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        // Both go on with the memory they have.
        std::mem::swap(&mut queue.waiting, into);
        queue.is_closed
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that empties a feed into sinks, until it is closed.
#[derive(Debug)]
pub(super) struct Drain {
    feed: Arc<Feed>,
    ended: mpsc::Receiver<()>,
}

impl Drain {
    /// Starts it; `lost` counts what could not be told.
    pub(super) fn start(
        feed: Arc<Feed>,
        names: Names,
        mut sinks: Vec<Sink>,
        gather: Duration,
        lost: Counter,
    ) -> std::io::Result<Self> {
        let (end, ended) = mpsc::sync_channel(1);
        let mine = Arc::clone(&feed);
        let work = move || {
            let mut told = Vec::new();
            loop {
                let is_last = mine.take(gather, &mut told);
                for told in told.drain(..) {
                    let (instrument, value) = match told {
                        Told::Sample(instrument, value) => (instrument, value),
                        Told::Fetch(instrument) => {
                            let value = instrument.fetch();
                            (instrument, value)
                        }
                    };
                    for sink in &mut sinks {
                        sink.line(&names, &instrument, value);
                    }
                }
                let here = mine.lost.swap(0, Ordering::Relaxed);
                let there: u64 = sinks.iter_mut().map(Sink::flush).sum();
                if here + there > 0 {
                    lost.increment(here + there);
                }
                if is_last {
                    break;
                }
            }
            sinks.into_iter().for_each(Sink::finish);
            // Nobody waits any more if it took too long.
            let _ = end.send(());
        };
        thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(work)?;
        Ok(Self { feed, ended })
    }

    /// Tells what is still to be told and ends; what takes longer than the agent can wait is left behind.
    pub(super) fn finish(self) {
        self.feed.close();
        if self.ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::debug!("the last figures could not be sent in time");
        }
    }
}

/// How a kind is called on the wire.
pub(super) const fn letters(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "g",
        Kind::Counter => "c",
        Kind::Sample => "ms",
    }
}
