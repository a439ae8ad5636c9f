//! `?near=`: lists in the order of distance from a node.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Ask, Coordinate, CoordinateLookup, CoordinateNodes, Error, NodeCoordinate, Text, lower,
};
use rpc::{Answered, Cluster, Consistency, ReadOptions};

use crate::call::{Answer, Call, failed_read, with_meta};
use crate::http::Response;

impl Call<'_> {
    /// Asks for a list and shows it, nearest first if the client says nearest to what.
    ///
    /// `node` tells on which node an element is.
    pub(crate) fn ask_list<Q, T>(
        &self,
        question: Q,
        options: ReadOptions,
        node: fn(&T) -> &Text,
        show: impl FnOnce(Vec<T>) -> Response + Send + 'static,
    ) -> Answer
    where
        Q: Ask<Answer = Vec<T>> + 'static,
        T: Send + 'static,
    {
        let Some(source) = self.near() else {
            return self.ask(question, options, show);
        };
        let cluster = self.api.cluster.clone();
        Answer::soon(async move {
            let distances = ReadOptions {
                token: options.token.clone(),
                datacenter: options.datacenter.clone(),
                // Coordinates are estimates; the leader need not vouch for them.
                consistency: Consistency::Stale,
                ..ReadOptions::default()
            };
            let answered = cluster.read(question, options).await;
            let Answered { mut answer, meta } = answered.map_err(|error| failed_read(&error))?;
            sort(&cluster, distances, &source, &mut answer, node).await;
            Ok(with_meta(show(answer), &meta))
        })
    }

    /// The node to measure from, in lower case; `None` where distances are not to be had.
    fn near(&self) -> Option<Text> {
        let near = self.query.filled("near")?;
        let agent = &self.api.agent;
        let is_here = self
            .query
            .filled("dc")
            .is_none_or(|datacenter| datacenter == agent.datacenter().as_bytes());
        if self.api.config.disable_coordinates || !is_here {
            return None;
        }
        Some(if near == b"_agent" {
            lower(agent.node().as_bytes())
        } else {
            lower(near)
        })
    }
}

/// Up to this many nodes are asked for by name; beyond, the names would weigh about as much as what they spare.
const NAMES_MAX: usize = 256;

/// Puts the list in the order of distance from the source; without a coordinate of the source it stays as it is.
async fn sort<T>(
    cluster: &Cluster,
    options: ReadOptions,
    source: &Text,
    list: &mut [T],
    node: fn(&T) -> &Text,
) {
    let mut nodes: BTreeSet<Text> = list.iter().map(|element| node(element).lower()).collect();
    // What is all in one place has an order already.
    if nodes.len() < 2 {
        return;
    }
    nodes.insert(source.clone());
    let coordinates = match coordinates(cluster, nodes, options).await {
        Ok(coordinates) => coordinates,
        Err(error) => {
            tracing::debug!("an answer is not in the order of distance: {error}");
            return;
        }
    };
    let coordinates: BTreeMap<Text, Coordinate> = coordinates
        .into_iter()
        .map(|coordinate| (coordinate.node.lower(), coordinate.coord))
        .collect();
    let Some(from) = coordinates.get(source) else {
        return;
    };
    // Nodes that nobody has measured come last.
    list.sort_by_cached_key(|element| {
        let to = coordinates.get(&node(element).lower());
        Distance(to.map_or(f64::INFINITY, |to| from.distance_to(to)))
    });
}

/// The coordinates of at least these nodes.
async fn coordinates(
    cluster: &Cluster,
    nodes: BTreeSet<Text>,
    options: ReadOptions,
) -> Result<Vec<NodeCoordinate>, Error> {
    if nodes.len() > NAMES_MAX {
        let answered = cluster.read(CoordinateNodes, options).await?;
        return Ok(answered.answer);
    }
    let nodes = nodes.into_iter().collect();
    let answered = cluster.read(CoordinateLookup { nodes }, options).await?;
    Ok(answered.answer)
}

/// An order of distances.
#[derive(PartialEq)]
struct Distance(f64);

impl Eq for Distance {}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
