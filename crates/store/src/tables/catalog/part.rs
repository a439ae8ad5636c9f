//! The catalog of a snapshot written over the one that there is.

use model::{Check, Node, Registration, RestoreMode, Service, Text};

use super::Catalog;
use crate::apply::Change;
use crate::restore::replaces;

impl Change<'_> {
    /// Registers what the snapshot has and deregisters what it lacks, if it replaces, with all that follows from either.
    pub(crate) fn restore_catalog(&mut self, loaded: &Catalog, mode: RestoreMode) {
        self.state.catalog.defer();
        if replaces(mode) {
            self.remove_what_lacks(loaded);
        }
        self.write_what_differs(loaded);
        self.state.catalog = std::mem::take(&mut self.state.catalog).settled();
    }

    fn write_what_differs(&mut self, loaded: &Catalog) {
        for node in loaded.nodes() {
            let before = self.state.catalog.node(&node.name.lower());
            let is_same = before.is_some_and(|before| {
                let as_before = Node {
                    create_index: before.create_index,
                    modify_index: before.modify_index,
                    ..(**node).clone()
                };
                as_before == **before
            });
            if !is_same {
                self.write_node(node);
            }
        }
        for (node, service) in loaded.services() {
            let before = self.state.catalog.service(node, &service.id.lower());
            let is_same = before.is_some_and(|before| {
                let as_before = Service {
                    create_index: before.create_index,
                    modify_index: before.modify_index,
                    ..(**service).clone()
                };
                as_before == **before
            });
            if !is_same {
                self.write_service(node, service);
            }
        }
        // Every check says itself which node it is on.
        let nobody = Registration::default();
        for check in loaded.checks() {
            let before = (self.state.catalog).check(&check.node.lower(), &check.check_id.lower());
            let is_same = before.is_some_and(|before| {
                let as_before = Check {
                    create_index: before.create_index,
                    modify_index: before.modify_index,
                    ..(**check).clone()
                };
                as_before == **before
            });
            if !is_same {
                self.write_check(&nobody, check);
            }
        }
    }

    fn remove_what_lacks(&mut self, loaded: &Catalog) {
        let nodes: Vec<Text> = (self.state.catalog.nodes())
            .map(|node| node.name.lower())
            .collect();
        for node in nodes {
            if loaded.node(&node).is_none() {
                self.remove_node(&node);
                continue;
            }
            let services: Vec<Text> = (self.state.catalog.services_of(&node))
                .filter(|(id, _)| loaded.service(&node, id).is_none())
                .map(|(id, _)| id.clone())
                .collect();
            for id in services {
                self.remove_service(&node, &id);
            }
            let checks: Vec<Text> = (self.state.catalog.checks_of(&node))
                .map(|check| check.check_id.lower())
                .filter(|id| loaded.check(&node, id).is_none())
                .collect();
            for id in checks {
                self.remove_check(&node, &id);
            }
        }
    }
}
