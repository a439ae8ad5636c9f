//! What access rules have to know of the state.

use std::sync::Arc;

use model::{Check, Facts, Node, PreparedQuery, Service, Session, Text, Uuid};

use crate::view::View;

impl Facts for View {
    fn node(&self, name: &Text) -> Option<Arc<Node>> {
        self.state().catalog.node(&name.lower()).cloned()
    }

    fn service(&self, node: &Text, id: &Text) -> Option<Arc<Service>> {
        let catalog = &self.state().catalog;
        catalog.service(&node.lower(), &id.lower()).cloned()
    }

    fn check(&self, node: &Text, id: &Text) -> Option<Arc<Check>> {
        let catalog = &self.state().catalog;
        catalog.check(&node.lower(), &id.lower()).cloned()
    }

    fn session(&self, id: Uuid) -> Option<Arc<Session>> {
        self.state().sessions.get(id).cloned()
    }

    fn query(&self, id: Uuid) -> Option<Arc<PreparedQuery>> {
        self.state().queries.get(id).cloned()
    }
}
