//! A closed loop: each connection sends its next request when its last one is answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::connection::Pool;

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until<'a> {
    /// After so long; what is under way is still waited for.
    Time(Duration),
    /// After so many requests.
    Count(u64),
    /// When somebody says so, and after two minutes at the latest.
    Told(&'a AtomicBool),
}

/// What a load saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) took: Duration,
    /// Microseconds, in rising order.
    pub(crate) latencies: Vec<f64>,
    /// The longest time between two answers, and from the start to the first.
    pub(crate) gap: Duration,
}

impl Seen {
    /// The latency that this part of the requests did not exceed.
    pub(crate) fn latency(&self, part: f64) -> f64 {
        if self.latencies.is_empty() {
            return f64::NAN;
        }
        #[allow(clippy::cast_possible_truncation, reason = "a position in a list")]
        let at = (self.latencies.len() as f64 * part) as usize;
        self.latencies[at.min(self.latencies.len() - 1)]
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }
}

/// Runs one load over `connections` connections. `build` writes the n-th request. An answer other than 200 ends it
/// with an error: figures of requests that failed mean nothing.
pub(crate) fn run(
    address: SocketAddr,
    connections: usize,
    until: Until<'_>,
    mut build: impl FnMut(u64, &mut Vec<u8>),
) -> Result<Seen> {
    let mut pool = Pool::open(address, connections)?;
    let start = Instant::now();
    let more = |sent: u64| match until {
        Until::Time(time) => start.elapsed() < time,
        Until::Count(count) => sent < count,
        Until::Told(stop) => {
            !stop.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(120)
        }
    };
    let mut sent = 0;
    let mut under_way = 0;
    for at in 0..connections {
        if more(sent) {
            build(sent, &mut pool.connections[at].out);
            pool.send(at)?;
            sent += 1;
            under_way += 1;
        }
    }
    let mut latencies = Vec::new();
    let mut last_answer = start;
    let mut gap = Duration::ZERO;
    while under_way > 0 {
        pool.poll(Duration::from_millis(100), |pool, at| {
            let connection = &mut pool.connections[at];
            let now = Instant::now();
            gap = gap.max(now.duration_since(last_answer));
            last_answer = now;
            latencies.push(now.duration_since(connection.sent).as_secs_f64() * 1e6);
            if connection.response.status != 200 {
                bail!("answered {}", connection.response.shown());
            }
            if more(sent) {
                build(sent, &mut connection.out);
                sent += 1;
                pool.send(at)?;
            } else {
                under_way -= 1;
            }
            Ok(())
        })?;
        // Bounded: a server that stops answering must not stop us too.
        if last_answer.elapsed() > Duration::from_secs(60) {
            bail!("{under_way} requests without an answer for a minute");
        }
    }
    let took = start.elapsed();
    latencies.sort_by(f64::total_cmp);
    Ok(Seen {
        requests: latencies.len() as u64,
        took,
        latencies,
        gap,
    })
}
