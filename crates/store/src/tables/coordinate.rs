//! Network coordinates of nodes.

use imbl::OrdMap;
use model::{NodeCoordinate, Text};

use crate::apply::Change;
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
}
