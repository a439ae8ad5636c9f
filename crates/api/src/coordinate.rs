//! `/v1/coordinate/`: where nodes are in the space of round-trip times.

use model::{Coordinate, CoordinateNodes, NodeCoordinate};

use crate::call::{Answer, Call, json};
use crate::http::Response;
use crate::json::{Encode, object};

/// All nodes.
pub(crate) fn nodes(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    Ok(call.ask_json(CoordinateNodes, options))
}

/// The servers of each datacenter, as seen from the others.
///
/// A server that has met no other datacenter has measured nothing.
pub(crate) fn datacenters(call: Call<'_>) -> Result<Answer, Response> {
    let own = Datacenter {
        name: call.api.agent.datacenter(),
        coordinates: Vec::new(),
    };
    Ok(json(&[own], call.pretty()).into())
}

struct Datacenter<'a> {
    name: &'a str,
    coordinates: Vec<NodeCoordinate>,
}

impl Encode for Datacenter<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Datacenter", self.name)
                .field("Coordinates", &self.coordinates);
        });
    }
}

impl Encode for NodeCoordinate {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Node", &self.node).field("Coord", &self.coord);
        });
    }
}

impl Encode for Coordinate {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Vec", &self.vec)
                .field("Error", &self.error)
                .field("Adjustment", &self.adjustment)
                .field("Height", &self.height);
        });
    }
}
