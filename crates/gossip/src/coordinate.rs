//! Network coordinates: where this member is in the space of round-trip times.
//!
//! The method is Vivaldi's: every measured round trip is a spring between two members, and each of them moves a little
//! to relax it. On top of the Euclidean part stands a height, the way that every packet from here has to go; a
//! correction averages what the space can't express; and a weak pull keeps the pool as a whole from drifting away.
//!
//! Whatever a peer says of itself, our own coordinate stays finite and within [`REACH_MAX`]: coordinates that can't be
//! are refused, and so is a step that would lead out there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Dimensions of the Euclidean part.
pub const DIMENSIONS: usize = 8;

/// The largest error, and the one to begin with.
pub const ERROR_MAX: f64 = 1.5;

/// The smallest height, in seconds.
pub const HEIGHT_MIN: f64 = 10e-6;

/// The longest round trip that is believed.
pub const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

/// How far out a coordinate may be, in seconds: along each dimension, in height, and by its correction. Several times
/// what round trips of [`ROUND_TRIP_MAX`] lead to.
pub const REACH_MAX: f64 = 60.0;

/// How much one sample may change the error.
const ERROR_SHARE: f64 = 0.25;

/// How much of the difference one sample may move us.
const MOVE_SHARE: f64 = 0.25;

/// Samples over which the correction is averaged.
const ADJUSTMENT_WINDOW: usize = 20;

/// Samples of one peer of which the median counts.
const LATENCY_WINDOW: usize = 3;

/// The distance from the origin, in seconds, at which the pull towards it amounts to a second.
const GRAVITY_RHO: f64 = 150.0;

/// Smaller than any length worth to be divided by.
const ZERO: f64 = 1e-6;

/// Peers whose last samples are kept. A pool with more members works as well; it forgets some samples early.
const PEERS_MAX: usize = 16_384;

/// A point in the space of round-trip times, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Coordinate {
    /// The Euclidean part, [`DIMENSIONS`] long.
    pub vec: Vec<f64>,
    /// How unsure the estimate is, from 0 to [`ERROR_MAX`].
    pub error: f64,
    /// A correction that may be negative.
    pub adjustment: f64,
    /// The part that every path from here has.
    pub height: f64,
}

/// Why a measurement was not taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoordinateError {
    /// The peer counts in other dimensions.
    #[error("coordinate has {0} dimensions instead of {DIMENSIONS}")]
    Dimensions(usize),
    /// A number of the peer's coordinate is not finite or out of all bounds.
    #[error("coordinate is out of bounds")]
    Bounds,
    /// The round trip is longer than [`ROUND_TRIP_MAX`].
    #[error("round trip of {0:?} is too long")]
    RoundTrip(Duration),
    /// The step would have led us out of bounds.
    #[error("coordinate would leave its bounds")]
    Step,
}

impl Default for Coordinate {
    /// The origin, of which nothing is sure.
    fn default() -> Self {
        Self {
            vec: vec![0.0; DIMENSIONS],
            error: ERROR_MAX,
            adjustment: 0.0,
            height: HEIGHT_MIN,
        }
    }
}

impl Coordinate {
    /// Whether this can be a coordinate of our space.
    pub fn check(&self) -> Result<(), CoordinateError> {
        if self.vec.len() != DIMENSIONS {
            return Err(CoordinateError::Dimensions(self.vec.len()));
        }
        // None of these comparisons holds for what is not a number.
        let is_good = self.vec.iter().all(|part| part.abs() <= REACH_MAX)
            && (0.0..=ERROR_MAX).contains(&self.error)
            && self.adjustment.abs() <= REACH_MAX
            && (0.0..=REACH_MAX).contains(&self.height);
        if is_good {
            Ok(())
        } else {
            Err(CoordinateError::Bounds)
        }
    }

    /// The estimated round trip to another one, in seconds.
    ///
    /// A correction that would turn time back is left out. Between coordinates that pass [`Self::check`] it is finite
    /// and not negative; dimensions that only one of the two has don't count.
    pub fn distance(&self, other: &Self) -> f64 {
        let raw = self.raw_distance(other);
        let adjusted = raw + self.adjustment + other.adjustment;
        if adjusted > 0.0 { adjusted } else { raw }
    }

    /// The distance before corrections.
    fn raw_distance(&self, other: &Self) -> f64 {
        length(&self.away_from(other)) + self.height + other.height
    }

    /// The way from another one to this one.
    fn away_from(&self, other: &Self) -> Vec<f64> {
        self.vec
            .iter()
            .zip(&other.vec)
            .map(|(a, b)| a - b)
            .collect()
    }

    /// Moves away from another one by so many seconds, or towards it if they are negative.
    fn push(&mut self, force: f64, from: &Self, chance: &mut ChaCha8Rng) {
        let mut direction = self.away_from(from);
        let distance = length(&direction);
        if distance > ZERO {
            direction.iter_mut().for_each(|part| *part /= distance);
            self.height += (self.height + from.height) * force / distance;
            self.height = self.height.max(HEIGHT_MIN);
        } else {
            // In one place every way leads apart.
            direction = any_direction(chance);
        }
        for (part, direction) in self.vec.iter_mut().zip(direction) {
            *part += direction * force;
        }
    }
}

/// Finds this member's coordinate, one measured round trip after the other.
#[derive(Debug)]
pub struct Client {
    /// Passes [`Coordinate::check`] always.
    coordinate: Coordinate,
    /// By how much the last estimates were short, oldest first.
    shortfalls: VecDeque<f64>,
    /// The last round trips of each peer in seconds, oldest first.
    latencies: BTreeMap<String, VecDeque<f64>>,
    chance: ChaCha8Rng,
}

impl Client {
    /// Begins at the origin.
    pub fn new(seed: u64) -> Self {
        Self {
            coordinate: Coordinate::default(),
            shortfalls: VecDeque::with_capacity(ADJUSTMENT_WINDOW),
            latencies: BTreeMap::new(),
            chance: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Where this member is.
    pub fn coordinate(&self) -> &Coordinate {
        &self.coordinate
    }

    /// Goes on from a coordinate that this member had before it was restarted.
    pub fn restore(&mut self, coordinate: Coordinate) -> Result<(), CoordinateError> {
        coordinate.check()?;
        self.coordinate = coordinate;
        self.shortfalls.clear();
        Ok(())
    }

    /// Takes a round trip to a peer into account, given where that peer says it is, and returns where we are now.
    ///
    /// A measurement that is refused moves nothing.
    pub fn update(
        &mut self,
        peer: &str,
        other: &Coordinate,
        round_trip: Duration,
    ) -> Result<&Coordinate, CoordinateError> {
        other.check()?;
        if round_trip > ROUND_TRIP_MAX {
            return Err(CoordinateError::RoundTrip(round_trip));
        }
        let round_trip = self.typical(peer, round_trip.as_secs_f64());
        let mut next = self.coordinate.clone();
        relax(&mut next, other, round_trip, &mut self.chance);

        let shortfall = round_trip - next.raw_distance(other);
        let skipped = usize::from(self.shortfalls.len() == ADJUSTMENT_WINDOW);
        let sum = self.shortfalls.iter().skip(skipped).sum::<f64>() + shortfall;
        // Each end of a path corrects half of it; samples that are still missing count as good ones.
        next.adjustment = sum / (2.0 * ADJUSTMENT_WINDOW as f64);

        let origin = Coordinate::default();
        let pull = -(next.distance(&origin) / GRAVITY_RHO).powi(2);
        next.push(pull, &origin, &mut self.chance);

        next.check().map_err(|_| CoordinateError::Step)?;
        self.coordinate = next;
        keep_last(&mut self.shortfalls, shortfall, ADJUSTMENT_WINDOW);
        Ok(&self.coordinate)
    }

    /// Drops what is known of a peer that is gone.
    pub fn forget(&mut self, peer: &str) {
        self.latencies.remove(peer);
    }

    /// The median of a peer's last round trips, this one included, so that a single late packet moves nobody.
    fn typical(&mut self, peer: &str, round_trip: f64) -> f64 {
        if !self.latencies.contains_key(peer) {
            if self.latencies.len() >= PEERS_MAX {
                self.latencies.pop_first();
            }
            self.latencies.insert(peer.to_owned(), VecDeque::new());
        }
        let samples = self.latencies.entry(peer.to_owned()).or_default();
        keep_last(samples, round_trip, LATENCY_WINDOW);
        let mut sorted: Vec<f64> = samples.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// Moves so that the estimate comes closer to the round trip: far if we are unsure and the other is not.
fn relax(
    coordinate: &mut Coordinate,
    other: &Coordinate,
    round_trip: f64,
    chance: &mut ChaCha8Rng,
) {
    let distance = coordinate.distance(other);
    let round_trip = round_trip.max(ZERO);
    let wrongness = (distance - round_trip).abs() / round_trip;
    let weight = coordinate.error / (coordinate.error + other.error).max(ZERO);
    let share = ERROR_SHARE * weight;
    coordinate.error = (wrongness * share + coordinate.error * (1.0 - share)).min(ERROR_MAX);
    let force = MOVE_SHARE * weight * (round_trip - distance);
    coordinate.push(force, other, chance);
}

fn keep_last(samples: &mut VecDeque<f64>, sample: f64, count: usize) {
    if samples.len() == count {
        samples.pop_front();
    }
    samples.push_back(sample);
}

fn length(vec: &[f64]) -> f64 {
    vec.iter().map(|part| part * part).sum::<f64>().sqrt()
}

/// A direction of length one.
fn any_direction(chance: &mut ChaCha8Rng) -> Vec<f64> {
    let mut direction: Vec<f64> = (0..DIMENSIONS)
        .map(|_| chance.random::<f64>() - 0.5)
        .collect();
    let drawn = length(&direction);
    if drawn > ZERO {
        direction.iter_mut().for_each(|part| *part /= drawn);
    } else {
        direction = vec![0.0; DIMENSIONS];
        direction[0] = 1.0;
    }
    direction
}

#[cfg(test)]
mod tests;
