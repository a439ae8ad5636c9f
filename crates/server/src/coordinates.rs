//! Network coordinates on their way into the state: the latest of each node, a few at a time.
//!
//! Every agent tells a server now and then where it is. A big cluster must not fill the log with that, and a coordinate that gets lost is sent again soon.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::{Command, Coordinate, Error, NodeCoordinate, Text};
use rpc::{Hop, WriteOptions};

use crate::core::Core;
use crate::write::write;

/// How often they are written.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many go into one entry of the log, and how many entries are written at a time.
pub(crate) const ENTRY_MAX: usize = 128;
const ENTRIES_MAX: usize = 5;

/// The longest name of a node: longer than any member's may be.
const NAME_MAX: usize = 512;

/// The dimensions of the space, besides height.
const DIMENSIONS: usize = 8;

/// What has come in since the last time.
#[derive(Debug, Default)]
pub(crate) struct Coordinates(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By the node's name in lower case.
    latest: BTreeMap<Text, NodeCoordinate>,
    dropped: u64,
}

impl Coordinates {
    /// Takes the coordinate of a node; it replaces an earlier one.
    pub(crate) fn take(&self, coordinate: &NodeCoordinate) -> Result<(), Error> {
        check(coordinate)?;
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = coordinate.node.lower();
        if waiting.latest.len() >= ENTRY_MAX * ENTRIES_MAX && !waiting.latest.contains_key(&name) {
            waiting.dropped += 1;
        } else {
            waiting.latest.insert(name, coordinate.clone());
        }
        Ok(())
    }

    /// What is to be written, entry by entry, and how many were too many.
    fn drain(&self) -> (Vec<Vec<NodeCoordinate>>, u64) {
        let waiting = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let latest: Vec<NodeCoordinate> = waiting.latest.into_values().collect();
        let entries = latest.chunks(ENTRY_MAX).map(<[_]>::to_vec).collect();
        (entries, waiting.dropped)
    }
}

/// Refuses what is no node's, or no point in our space; the original panics over some of it.
pub(crate) fn check(coordinate: &NodeCoordinate) -> Result<(), Error> {
    if coordinate.node.is_empty() || coordinate.node.len() > NAME_MAX {
        return Err(Error::invalid(
            "rejected a coordinate of a node without a name, or with one that is too long",
        ));
    }
    let Coordinate {
        vec,
        error,
        adjustment,
        height,
    } = &coordinate.coord;
    if vec.len() != DIMENSIONS {
        return Err(Error::Invalid(format!(
            "rejected a coordinate of {} dimensions, there are {DIMENSIONS}",
            vec.len()
        )));
    }
    let mut parts = vec.iter().chain([error, adjustment, height]);
    if parts.all(|part| part.is_finite()) {
        Ok(())
    } else {
        Err(Error::invalid(
            "rejected a coordinate that is not made of finite numbers",
        ))
    }
}

/// Writes what comes in, for ever.
pub(crate) async fn run(core: &Core) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (entries, dropped) = core.coordinates.drain();
        if dropped > 0 {
            tracing::warn!("dropped {dropped} coordinates, more than can be written at a time");
        }
        for entry in entries {
            let command = Command::Coordinates(entry);
            let written = write(core, Hop::First, command, WriteOptions::default());
            if let Err(error) = written.await {
                // They come again.
                tracing::warn!("cannot write coordinates: {error}");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str, height: f64) -> NodeCoordinate {
        NodeCoordinate {
            node: Text::from(node),
            coord: Coordinate {
                vec: vec![0.0; DIMENSIONS],
                error: 1.5,
                adjustment: 0.0,
                height,
            },
        }
    }

    #[test]
    fn the_latest_of_each_node_counts() {
        let coordinates = Coordinates::default();
        for (node, height) in [("a", 1.0), ("b", 2.0), ("A", 3.0)] {
            coordinates.take(&at(node, height)).unwrap();
        }
        let (entries, dropped) = coordinates.drain();
        assert_eq!(entries, [[at("A", 3.0), at("b", 2.0)]]);
        assert_eq!(dropped, 0);
        assert_eq!(coordinates.drain(), (Vec::new(), 0));
    }

    #[test]
    fn there_are_only_so_many_at_a_time() {
        let coordinates = Coordinates::default();
        for number in 0..700 {
            coordinates.take(&at(&format!("n{number}"), 1.0)).unwrap();
        }
        coordinates.take(&at("n0", 2.0)).unwrap();
        let (entries, dropped) = coordinates.drain();
        assert_eq!(entries.len(), ENTRIES_MAX);
        assert!(entries.iter().all(|entry| entry.len() == ENTRY_MAX));
        assert_eq!(dropped, 60);
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let coordinates = Coordinates::default();
        let mut flat = at("a", 1.0);
        flat.coord.vec.pop();
        let endless = at("a", f64::INFINITY);
        let mut nothing = at("a", 1.0);
        nothing.coord.vec[3] = f64::NAN;
        let nameless = at("", 1.0);
        let wordy = at(&"n".repeat(1000), 1.0);
        for bad in [flat, endless, nothing, nameless, wordy] {
            assert!(coordinates.take(&bad).is_err(), "{bad:?}");
        }
    }
}
