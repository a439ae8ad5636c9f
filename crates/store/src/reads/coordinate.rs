//! Network coordinates.

use model::{CoordinateLookup, CoordinateNodes};

use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for CoordinateNodes {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let rows = view.state().coordinates.iter().cloned().collect();
        Found::of_tables(view, watch, &[Table::Coordinates], rows)
    }
}

impl Read for CoordinateLookup {
    /// Nobody waits for this, so what it touches is noted by the table.
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let coordinates = &view.state().coordinates;
        let rows = self
            .nodes
            .iter()
            .filter_map(|node| coordinates.get(&node.lower()));
        let rows = rows.cloned().collect();
        Found::of_tables(view, watch, &[Table::Coordinates], rows)
    }
}
