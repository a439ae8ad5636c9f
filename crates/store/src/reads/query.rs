//! Definitions of prepared queries.

use model::{QueryGet, QueryList};

use crate::changes::Kind;
use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for QueryGet {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let query = view.state().queries.get(self.id).cloned();
        let modified = query.as_ref().map(|query| query.modify_index);
        let about = (Kind::Query, &self.id.as_bytes()[..]);
        Found::of_row(view, watch, about, Table::Queries, (query, modified))
    }
}

impl Read for QueryList {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let queries = view.state().queries.iter().cloned().collect();
        Found::of_tables(view, watch, &[Table::Queries], queries)
    }
}
