//! Tokens.

use model::{AclInfo, AclList};

use crate::changes::Kind;
use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for AclInfo {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let token = view.state().acls.get(&self.id).cloned();
        let modified = token.as_ref().map(|token| token.modify_index);
        let about = (Kind::Acl, self.id.as_bytes());
        Found::of_row(view, watch, about, Table::Acls, (token, modified))
    }
}

impl Read for AclList {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let tokens = view.state().acls.iter().cloned().collect();
        Found::of_tables(view, watch, &[Table::Acls], tokens)
    }
}
