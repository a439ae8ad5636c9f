//! Stands in for the crate of this name, with the part of its face that openraft uses.
//!
//! The original precomputes tables for each of sixteen widths the first time that a histogram is made: 26 MB that stay
//! resident, more than twice what a whole idle agent may take, and a good part of the time until a server accepts its
//! first write. openraft makes its histograms at start, whether or not anybody ever looks at them; we don't.
//!
//! This one counts by powers of two and needs no table: half a kilobyte each, and percentiles that are the lower end
//! of such a range. To be dropped when the original makes its tables on demand.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for zero and one for each number of binary digits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts of values by their number of binary digits. The parameter is the original's and means nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Has counted nothing yet.
    pub fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            slots: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let digits = u64::BITS - value.leading_zeros();
        let bucket = &mut self.counts[digits as usize];
        *bucket = bucket.saturating_add(count);
    }

    /// The percentiles that openraft shows.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self
            .counts
            .iter()
            .fold(0_u64, |sum, count| sum.saturating_add(*count));
        PercentileStats {
            samples,
            p0_1: self.value_at(samples, 1),
            p1: self.value_at(samples, 10),
            p5: self.value_at(samples, 50),
            p10: self.value_at(samples, 100),
            p50: self.value_at(samples, 500),
            p90: self.value_at(samples, 900),
            p99: self.value_at(samples, 990),
            p99_9: self.value_at(samples, 999),
        }
    }

    /// The lower end of the bucket up to which so many of a thousand values lie.
    fn value_at(&self, samples: u64, per_mille: u64) -> u64 {
        let wanted = u128::from(samples) * u128::from(per_mille);
        let mut seen = 0_u128;
        for (digits, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count) * 1000;
            if *count > 0 && seen >= wanted {
                return if digits == 0 { 0 } else { 1 << (digits - 1) };
            }
        }
        0
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many values there were, and the value that so many percent of them do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each name says which percentile it is")]
pub struct PercentileStats {
    /// How many values there were.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            p99_9,
            ..
        } = self;
        write!(
            f,
            "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}"
        )
    }
}

/// Several histograms one below the other, a line each; the original draws them.
#[derive(Debug, Default)]
pub struct AsciiChart {
    lines: Vec<String>,
}

impl AsciiChart {
    /// Nothing to show yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram under a name.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "the original's signature")]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        let name: String = name.into();
        self.lines
            .push(format!("{name}: {}", histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_lower_end_of_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().samples, 0);
        assert_eq!(histogram.percentile_stats().p50, 0);
        histogram.record_n(0, 10);
        histogram.record_n(5, 80);
        histogram.record_n(u64::MAX, 10);
        let stats = histogram.percentile_stats();
        assert_eq!(
            (stats.samples, stats.p10, stats.p50, stats.p90),
            (100, 0, 4, 4)
        );
        assert_eq!(stats.p99, 1 << 63);
        let chart = AsciiChart::new()
            .add("a", histogram.clone())
            .add("b", histogram);
        assert_eq!(chart.to_string().lines().count(), 2);
    }

    #[test]
    fn counts_do_not_overflow() {
        let mut histogram = Histogram::<()>::default();
        histogram.record_n(1, u64::MAX);
        histogram.record(1);
        histogram.record(u64::MAX);
        assert_eq!(histogram.percentile_stats().p50, 1);
    }
}
