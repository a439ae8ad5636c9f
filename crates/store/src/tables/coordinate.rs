//! Network coordinates of nodes.

use imbl::OrdMap;
use model::{NodeCoordinate, RestoreMode, Text};

use crate::apply::Change;
use crate::restore::replaces;
use crate::tables::Table;

/// Coordinates, by lower-cased node name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coordinates {
    rows: OrdMap<Text, NodeCoordinate>,
}

impl Coordinates {
    /// Puts a coordinate in its place. The caller has seen to it that the node exists.
    pub(crate) fn insert(&mut self, row: NodeCoordinate) {
        self.rows.insert(row.node.lower(), row);
    }

    /// Takes the coordinate of a node away; whether there was one.
    pub(crate) fn remove(&mut self, node_lower: &Text) -> bool {
        self.rows.remove(node_lower).is_some()
    }

    /// The coordinate of a node.
    pub(crate) fn get(&self, node_lower: &Text) -> Option<&NodeCoordinate> {
        self.rows.get(node_lower)
    }

    /// The coordinate of a node of any spelling, without building the lower-cased form where it is that already.
    pub(crate) fn of(&self, node: &Text) -> Option<&NodeCoordinate> {
        if node
            .iter()
            .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
        {
            self.rows.get(node)
        } else {
            self.rows.get(&node.lower())
        }
    }

    /// All of them, by lower-cased node name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NodeCoordinate> {
        self.rows.values()
    }
}

impl Change<'_> {
    /// Writes coordinates of the nodes that there are.
    pub(crate) fn coordinates(&mut self, batch: Vec<NodeCoordinate>) {
        for row in batch {
            // A coordinate may come after its node has gone; the original drops it in silence, too.
            if self.state.catalog.node(&row.node.lower()).is_some() {
                self.state.coordinates.insert(row);
            }
        }
        self.wrote(Table::Coordinates);
    }

    /// Writes the coordinates that a snapshot has, of nodes that there are, and removes those it lacks, if it replaces.
    pub(crate) fn restore_coordinates(&mut self, loaded: &Coordinates, mode: RestoreMode) {
        let mut has_changed = false;
        if replaces(mode) {
            let rows = self.state.coordinates.iter();
            let doomed: Vec<Text> = rows
                .map(|row| row.node.lower())
                .filter(|node| loaded.get(node).is_none())
                .collect();
            for node in doomed {
                has_changed |= self.state.coordinates.remove(&node);
            }
        }
        for row in loaded.iter() {
            let node = row.node.lower();
            let is_same = self.state.coordinates.get(&node) == Some(row);
            if !is_same && self.state.catalog.node(&node).is_some() {
                self.state.coordinates.insert(row.clone());
                has_changed = true;
            }
        }
        if has_changed {
            self.wrote(Table::Coordinates);
        }
    }
}
