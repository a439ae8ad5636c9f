//! Where nodes are in the space of round-trip times: `/v1/coordinate/`.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::request::Question;
use crate::{Client, Error};

/// Where a node is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CoordinateEntry {
    /// The node.
    pub node: String,
    /// Where it is.
    pub coord: Coordinate,
}

/// The nodes of a datacenter and where they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DatacenterCoordinates {
    /// The datacenter.
    pub datacenter: String,
    /// Its servers.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub coordinates: Vec<CoordinateEntry>,
}

/// A point in the space of round-trip times, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Coordinate {
    /// The Euclidean part.
    pub vec: Vec<f64>,
    /// How unsure the estimate is.
    pub error: f64,
    /// A correction that may be negative.
    pub adjustment: f64,
    /// The part that every path from here has.
    pub height: f64,
}

impl Coordinate {
    /// The estimated round trip to another point; `None` if the two don't belong to the same space.
    pub fn distance(&self, other: &Self) -> Option<Duration> {
        let seconds = self.point().distance_to(&other.point());
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn point(&self) -> model::Coordinate {
        model::Coordinate {
            vec: self.vec.clone(),
            error: self.error,
            adjustment: self.adjustment,
            height: self.height,
        }
    }
}

impl Client {
    /// All nodes of the agent's datacenter.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn coordinate_nodes(&self) -> Result<Vec<CoordinateEntry>, Error> {
        let question = Question::new(Method::GET, "/v1/coordinate/nodes");
        let response = self.send_ok(question).await?;
        let entries = self.json::<Option<Vec<CoordinateEntry>>>(response).await?;
        Ok(entries.unwrap_or_default())
    }

    /// The servers of all datacenters.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn coordinate_datacenters(&self) -> Result<Vec<DatacenterCoordinates>, Error> {
        let question = Question::new(Method::GET, "/v1/coordinate/datacenters");
        let response = self.send_ok(question).await?;
        let entries = self
            .json::<Option<Vec<DatacenterCoordinates>>>(response)
            .await?;
        Ok(entries.unwrap_or_default())
    }
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
        let millis = |a: &Coordinate, b: &Coordinate| a.distance(b).map(|d| d.as_millis());
        assert_eq!(
            millis(&at(0.0, 0.001, 0.005), &at(0.01, 0.002, -0.001)),
            Some(17)
        );
        assert_eq!(millis(&at(0.0, 0.0, 0.0), &Coordinate::default()), None);
        assert_eq!(millis(&at(0.0, 0.0, 0.0), &at(f64::NAN, 0.0, 0.0)), None);
    }
}
