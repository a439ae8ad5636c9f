//! What several values come to.

use std::fmt;

use jiff::Timestamp;

/// What several values come to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Aggregate {
    pub(super) count: u64,
    pub(super) sum: f64,
    sum_of_squares: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// When the last one came, in milliseconds since 1970.
    last_ms: i64,
}

impl Aggregate {
    pub(super) fn add(&mut self, value: f64, now_ms: i64) {
        if self.count == 0 || value < self.min {
            self.min = value;
        }
        if self.count == 0 || value > self.max {
            self.max = value;
        }
        self.count += 1;
        self.sum += value;
        self.sum_of_squares += value * value;
        self.last_ms = now_ms;
    }

    /// This value alone, whatever there was before.
    pub(super) fn set(&mut self, value: f64, now_ms: i64) {
        *self = Self::default();
        self.add(value, now_ms);
    }

    pub(super) fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum / exact(self.count)
    }

    pub(super) fn deviation(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let count = exact(self.count);
        let square = (count * self.sum_of_squares - self.sum * self.sum) / (count * (count - 1.0));
        square.max(0.0).sqrt()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ten seconds have no such counts"
)]
fn exact(count: u64) -> f64 {
    count as f64
}

impl fmt::Display for Aggregate {
    /// In the original's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            sum,
            min,
            max,
            last_ms,
            ..
        } = self;
        let last = Timestamp::from_millisecond(*last_ms).unwrap_or_default();
        let (mean, deviation) = (self.mean(), self.deviation());
        if deviation == 0.0 {
            return write!(f, "Count: {count} Sum: {sum:.3} LastUpdated: {last}");
        }
        write!(
            f,
            "Count: {count} Min: {min:.3} Mean: {mean:.3} Max: {max:.3} Stddev: {deviation:.3} Sum: {sum:.3} LastUpdated: {last}"
        )
    }
}
