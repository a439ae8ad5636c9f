//! All rows at once: how a restore and a checkpoint fill the tables.
//!
//! Row by row, every write would build the instances on its node again, and a node with thousands of services would take minutes.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Check, Node, Service, Text};

use super::{CROWD, Catalog, InstanceRow, Key};

/// Rows on their way to their places.
#[derive(Debug, Default)]
pub(crate) struct CatalogRows {
    nodes: BTreeMap<Text, Arc<Node>>,
    services: BTreeMap<Key, Arc<Service>>,
    checks: BTreeMap<Key, Arc<Check>>,
}

impl From<Catalog> for CatalogRows {
    fn from(catalog: Catalog) -> Self {
        let Catalog {
            nodes,
            services,
            checks,
            ..
        } = catalog;
        Self {
            nodes: nodes.into_iter().collect(),
            services: services.into_iter().collect(),
            checks: checks.into_iter().collect(),
        }
    }
}

impl CatalogRows {
    /// Takes a node, in place of one of the same name.
    pub(crate) fn insert_node(&mut self, node: Node) {
        self.nodes.insert(node.name.lower(), Arc::new(node));
    }

    /// Takes a service, in place of one of the same id on that node.
    pub(crate) fn insert_service(&mut self, node: &Text, service: Service) {
        let key = (node.lower(), service.id.lower());
        self.services.insert(key, Arc::new(service));
    }

    /// Takes a check, in place of one of the same id on its node.
    pub(crate) fn insert_check(&mut self, check: Check) {
        let key = (check.node.lower(), check.check_id.lower());
        self.checks.insert(key, Arc::new(check));
    }

    /// The service of these lower-cased names.
    pub(crate) fn service(&self, node_lower: &Text, id_lower: &Text) -> Option<&Arc<Service>> {
        self.services.get(&(node_lower.clone(), id_lower.clone()))
    }

    /// Puts them all in their places: the same tables as if one had been written after the other.
    pub(crate) fn build(self) -> Catalog {
        let mut catalog = Catalog::default();
        // Of each node's own checks and of those of its services, by id.
        let mut of_nodes: BTreeMap<&Text, Vec<(&Text, &Arc<Check>)>> = BTreeMap::new();
        let mut of_services: BTreeMap<Key, Vec<(&Text, &Arc<Check>)>> = BTreeMap::new();
        for ((node, id), check) in &self.checks {
            let place = |under: Text| (under, node.clone(), id.clone());
            catalog.by_status.insert(place(check.status.clone()));
            if !check.service_name.is_empty() {
                catalog.by_service.insert(place(check.service_name.lower()));
            }
            if check.service_id.is_empty() {
                of_nodes.entry(node).or_default().push((id, check));
            } else {
                let service = (node.clone(), check.service_id.lower());
                of_services.entry(service).or_default().push((id, check));
            }
        }
        let mut crowds: BTreeMap<&Text, usize> = BTreeMap::new();
        for (node, _) in self.services.keys() {
            *crowds.entry(node).or_default() += 1;
        }
        for (key, service) in &self.services {
            let (node_lower, id) = key;
            let Some(node) = self.nodes.get(node_lower) else {
                continue;
            };
            let of_node = of_nodes.get(node_lower).into_iter().flatten();
            let of_service = of_services.get(key).into_iter().flatten();
            let mut checks: Vec<&(&Text, &Arc<Check>)> = of_node.chain(of_service).collect();
            checks.sort_unstable_by_key(|(id, _)| *id);
            let checks = checks.into_iter().map(|(_, check)| Arc::clone(check));
            let mut row = InstanceRow::new(Arc::clone(node), Arc::clone(service), checks.collect());
            row.is_lazy = crowds.get(node_lower).is_some_and(|crowd| *crowd > CROWD);
            let place = (service.name.lower(), node_lower.clone(), id.clone());
            catalog.insert_instance(place, row);
        }
        catalog.nodes = self.nodes.into_iter().collect();
        catalog.services = self.services.into_iter().collect();
        catalog.checks = self.checks.into_iter().collect();
        catalog
    }
}
