//! Network coordinates: how far nodes are from each other.

use serde::{Deserialize, Serialize};

use crate::Text;

/// A point in the space of round-trip times, in seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Coordinate {
    /// The Euclidean part; eight dimensions in practice.
    pub vec: Vec<f64>,
    /// How unsure the estimate is.
    pub error: f64,
    /// A correction that may be negative.
    pub adjustment: f64,
    /// The part that every path from here has.
    pub height: f64,
}

impl Coordinate {
    /// The estimated round trip to another point, in seconds; infinite if the two don't belong to the same space.
    ///
    /// Never negative and never not a number, so distances have an order.
    pub fn distance_to(&self, other: &Self) -> f64 {
        if self.vec.len() != other.vec.len() {
            return f64::INFINITY;
        }
        let squares = self
            .vec
            .iter()
            .zip(&other.vec)
            .map(|(a, b)| (a - b) * (a - b));
        let raw = squares.sum::<f64>().sqrt() + self.height + other.height;
        let corrected = raw + self.adjustment + other.adjustment;
        // A correction that would turn time back is none.
        let distance = if corrected > 0.0 { corrected } else { raw };
        if distance >= 0.0 {
            distance
        } else {
            f64::INFINITY
        }
    }
}

/// The coordinate of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeCoordinate {
    /// The node's name.
    pub node: Text,
    /// Where it is.
    pub coord: Coordinate,
}

/// The coordinates of all nodes, by lower-cased name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinateNodes;

/// The coordinates of these nodes, in the same order; those that have none are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinateLookup {
    /// The nodes' names, without regard to case.
    pub nodes: Vec<Text>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let at = |x: f64, height: f64, adjustment: f64| Coordinate {
            vec: vec![x, 0.0],
            error: 0.0,
            adjustment,
            height,
        };
        let micros = |from: &Coordinate, to: &Coordinate| (from.distance_to(to) * 1e6).round();
        let here = at(0.0, 0.001, 0.0);
        for (to, expected) in [
            (at(0.01, 0.002, 0.0), 13_000.0),
            (at(-0.01, 0.002, 0.0), 13_000.0),
            (at(0.01, 0.002, -0.001), 12_000.0),
            // a sum that is not positive is not believed
            (at(0.01, 0.002, -0.02), 13_000.0),
            // nor is what can't be: it is farther away than all others
            (at(f64::NAN, 0.0, 0.0), f64::INFINITY),
            (at(0.01, -5.0, 0.0), f64::INFINITY),
            (Coordinate::default(), f64::INFINITY),
        ] {
            assert_eq!(micros(&here, &to), expected, "{to:?}");
            assert_eq!(micros(&to, &here), expected, "{to:?}");
        }
    }
}
