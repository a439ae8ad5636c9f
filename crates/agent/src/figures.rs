//! What this process counts and times, as `/v1/agent/metrics` tells it.

use std::collections::BTreeMap;

/// Where what is counted and timed is kept; whoever composes the program decides how.
pub trait Figures: Send + Sync + 'static {
    /// The figures as they are now. Called for every request that asks: it must not block.
    fn snapshot(&self) -> FiguresSnapshot;
}

impl<F> Figures for F
where
    F: Fn() -> FiguresSnapshot + Send + Sync + 'static,
{
    fn snapshot(&self) -> FiguresSnapshot {
        self()
    }
}

/// What tells figures of one name apart, by the name of the label.
pub type Labels = BTreeMap<String, String>;

/// All figures at one moment: those of the last complete interval, and those since the process began.
///
/// Names are whole, with dots, such as `consul.raft.apply`; lists are sorted by name and labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FiguresSnapshot {
    /// When the interval began, such as `2016-11-22 06:33:40 +0000 UTC`.
    pub timestamp: String,
    /// What was set in the interval.
    pub gauges: Vec<Gauge>,
    /// What was counted in the interval; each increment is one value.
    pub counters: Vec<Sampled>,
    /// What was timed in the interval, in milliseconds unless its name says otherwise.
    pub samples: Vec<Sampled>,
    /// What it comes to since the process began.
    pub totals: Totals,
}

/// Figures since the process began; counts and sums never fall.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Totals {
    /// The last value of each.
    pub gauges: Vec<Gauge>,
    /// What was counted.
    pub counters: Vec<Total>,
    /// What was timed.
    pub samples: Vec<Total>,
}

/// A value that goes up and down.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// What it tells of.
    pub name: String,
    /// Which one of that name it is.
    pub labels: Labels,
    /// How much there is.
    pub value: f64,
}

/// What the values of one interval come to; there was at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// What it tells of.
    pub name: String,
    /// Which one of that name it is.
    pub labels: Labels,
    /// How many values.
    pub count: u64,
    /// Their sum by seconds.
    pub rate: f64,
    /// Their sum.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
}

/// How often there was a value, and what all of them come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// What it tells of.
    pub name: String,
    /// Which one of that name it is.
    pub labels: Labels,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}
