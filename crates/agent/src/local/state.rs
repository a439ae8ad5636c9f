//! What this node offers and what its checks say: plain data, without a clock, a disk or a network.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Check, Service, Text};

use super::{LocalConfig, LocalFigures};

/// The services and checks of this node.
#[derive(Debug)]
pub(crate) struct State {
    /// By lower-cased id, which is what the catalog goes by.
    services: BTreeMap<Text, Arc<Service>>,
    /// By lower-cased id.
    checks: BTreeMap<Text, Arc<Check>>,
}

impl State {
    /// A node that offers its own service alone.
    pub(crate) fn new(config: &LocalConfig) -> Self {
        let own = config.own_service.clone();
        let own = own.map(|own| (own.id.lower(), Arc::new(own)));
        Self {
            services: own.into_iter().collect(),
            checks: BTreeMap::new(),
        }
    }

    /// The services, by id.
    pub(crate) fn services(&self) -> BTreeMap<Text, Arc<Service>> {
        let services = self.services.values();
        services
            .map(|service| (service.id.clone(), Arc::clone(service)))
            .collect()
    }

    /// The checks, by id.
    pub(crate) fn checks(&self) -> BTreeMap<Text, Arc<Check>> {
        let checks = self.checks.values();
        checks
            .map(|check| (check.check_id.clone(), Arc::clone(check)))
            .collect()
    }

    /// How many there are of what.
    pub(crate) fn figures(&self) -> LocalFigures {
        LocalFigures {
            checks: self.checks.len(),
            services: self.services.len(),
            ..LocalFigures::default()
        }
    }
}
