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
