//! What the snapshot agent counts and times.

use std::sync::LazyLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::time::Instant;

/// A snapshot, from its start until it has its name everywhere.
pub(super) static SAVE: LazyLock<Histogram> =
    LazyLock::new(|| histogram!("consul.snapshot_agent.save"));
/// A snapshot that is downloaded and loaded, at one place.
pub(super) static VERIFY: LazyLock<Histogram> =
    LazyLock::new(|| histogram!("consul.snapshot_agent.verify"));
/// Snapshots that have their name everywhere.
pub(super) static SAVED: LazyLock<Counter> =
    LazyLock::new(|| counter!("consul.snapshot_agent.saved"));
/// Snapshots that one place at least doesn't have, or that turned out to be something else.
pub(super) static FAILED: LazyLock<Counter> =
    LazyLock::new(|| counter!("consul.snapshot_agent.failed"));
/// How long the last one is.
pub(super) static SIZE: LazyLock<Gauge> = LazyLock::new(|| gauge!("consul.snapshot_agent.size"));
/// 1 while the last one is known to be restorable from everywhere, else 0.
pub(super) static VERIFIED: LazyLock<Gauge> =
    LazyLock::new(|| gauge!("consul.snapshot_agent.verified"));
/// 1 on the instance that saves, else 0.
pub(super) static LEADING: LazyLock<Gauge> =
    LazyLock::new(|| gauge!("consul.snapshot_agent.leading"));

/// Notes how long something took that began then, in milliseconds as all of the original's figures.
pub(super) fn note(timing: &Histogram, began: Instant) {
    timing.record(began.elapsed().as_secs_f64() * 1000.0);
}

/// Sets a gauge to whether something is so.
pub(super) fn set(gauge: &Gauge, is_so: bool) {
    gauge.set(f64::from(u8::from(is_so)));
}
