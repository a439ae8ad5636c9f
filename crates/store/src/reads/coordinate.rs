//! Network coordinates.

use model::CoordinateNodes;

use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for CoordinateNodes {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let rows = view.state().coordinates.iter().cloned().collect();
        Found::of_tables(view, watch, &[Table::Coordinates], rows)
    }
}
