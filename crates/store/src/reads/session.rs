//! Sessions.

use std::sync::Arc;

use model::{Session, SessionInfo, SessionList, SessionNode, SessionStanding};

use crate::changes::{Kind, Subject};
use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for SessionInfo {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let session = view.state().sessions.get(self.id).cloned();
        let modified = session.as_ref().map(|session| session.modify_index);
        // Who leads knows how long it has, which is no part of the state.
        let session = session.map(|session| SessionStanding {
            session,
            left: None,
        });
        let about = (Kind::Session, &self.id.as_bytes()[..]);
        Found::of_row(view, watch, about, Table::Sessions, (session, modified))
    }
}

impl Read for SessionList {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let sessions = view.state().sessions.iter().cloned().collect();
        Found::of_tables(view, watch, &[Table::Sessions], sessions)
    }
}

impl Read for SessionNode {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let state = view.state();
        let node = self.node.lower();
        let sessions: Vec<Arc<Session>> = state
            .sessions
            .of_node(&node)
            .filter_map(|id| state.sessions.get(id).cloned())
            .collect();
        let subject = Subject::new(Kind::NodeSessions, &node);
        let header = state.indexes.get(Table::Sessions);
        Found::of_name(view, watch, &subject, header, sessions)
    }
}
