//! What an agent's services and checks are, told a second time and as simply as can be: what the catalog has to come to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::Definitions;
use agent::definition::{CheckDefinition, CheckKind, ServiceDefinition, Status};
use model::{Check, Pairs, Service, Text};
use tokio::time::Instant;

/// All that an agent would say of itself if it were asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    pub(crate) services: BTreeMap<Text, Offer>,
    pub(crate) checks: BTreeMap<Text, Word>,
    pub(crate) meta: Pairs,
}

/// A service.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) service: Service,
    /// Whether its definition is in a file.
    is_filed: bool,
}

/// A check, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) check: Check,
    pub(crate) ttl: Option<Duration>,
    /// Until when what was said counts.
    expires: Option<Instant>,
    is_filed: bool,
}

/// Who defines something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    File,
    Somebody,
}

/// What becomes of what a check has said when it is registered anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Stays,
    Goes,
}

impl Truth {
    /// Of an agent that has just started.
    pub(crate) fn new(definitions: Definitions, meta: Pairs, now: Instant) -> Self {
        let mut truth = Self::default();
        truth.reload(definitions, meta, now);
        truth
    }

    pub(crate) fn reload(&mut self, definitions: Definitions, meta: Pairs, now: Instant) {
        self.meta = meta;
        let mut services = BTreeSet::new();
        let mut checks = BTreeSet::new();
        for definition in definitions.services {
            services.insert(definition.service.id.clone());
            checks.extend(self.put_service(definition, By::File, now));
        }
        // A check may move on to another service, with what it said, before its own is gone.
        for definition in definitions.checks {
            checks.insert(definition.id.clone());
            self.put_check(definition, By::File, Before::Stays, now);
        }
        let gone: Vec<Text> = self
            .services
            .iter()
            .filter(|(id, offer)| offer.is_filed && !services.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove_service(&id);
        }
        self.checks
            .retain(|id, word| !word.is_filed || checks.contains(id));
    }

    pub(crate) fn register_service(&mut self, definition: ServiceDefinition, now: Instant) {
        self.put_service(definition, By::Somebody, now);
    }

    pub(crate) fn register_check(&mut self, definition: CheckDefinition, now: Instant) {
        self.put_check(definition, By::Somebody, Before::Goes, now);
    }

    fn put_service(&mut self, definition: ServiceDefinition, by: By, now: Instant) -> Vec<Text> {
        let ServiceDefinition {
            service, checks, ..
        } = definition;
        let id = service.id.clone();
        for word in self.checks.values_mut() {
            if word.check.service_id == id {
                word.check.service_name = service.name.clone();
            }
        }
        let name = format!("Service '{}' check", service.name);
        let offer = Offer {
            service,
            is_filed: by == By::File,
        };
        self.services.insert(id.clone(), offer);
        let is_single = checks.len() == 1;
        let mut ids = Vec::new();
        for (number, check) in (1..).zip(checks) {
            let check_id = if is_single {
                format!("service:{id}")
            } else {
                format!("service:{id}:{number}")
            };
            let check = CheckDefinition {
                id: Text::from(check_id),
                name: Text::from(name.as_str()),
                service_id: id.clone(),
                ..check
            };
            ids.push(check.id.clone());
            self.put_check(check, by, Before::Stays, now);
        }
        ids
    }

    fn put_check(&mut self, definition: CheckDefinition, by: By, before: Before, now: Instant) {
        let id = definition.id.clone();
        let status = definition.status.unwrap_or(Status::Critical);
        let service = self.services.get(&definition.service_id);
        let mut check = Check {
            check_id: id.clone(),
            name: definition.name,
            notes: definition.notes,
            status: Text::from(status.name()),
            service_name: service
                .map(|offer| offer.service.name.clone())
                .unwrap_or_default(),
            service_id: definition.service_id,
            ..Check::default()
        };
        if before == Before::Stays
            && let Some(old) = self.checks.get(&id)
        {
            check.status = old.check.status.clone();
            check.output = old.check.output.clone();
        }
        let ttl = match definition.kind {
            Some(CheckKind::Ttl(ttl)) => Some(ttl),
            _ => None,
        };
        let word = Word {
            check,
            ttl,
            expires: ttl.map(|ttl| now + ttl),
            is_filed: by == By::File,
        };
        self.checks.insert(id, word);
    }

    pub(crate) fn remove_service(&mut self, id: &Text) {
        self.services.remove(id);
        self.checks.retain(|_, word| word.check.service_id != *id);
    }

    pub(crate) fn remove_check(&mut self, id: &Text) {
        self.checks.remove(id);
    }

    /// Somebody says this of a check that waits to be told.
    pub(crate) fn say(&mut self, id: &Text, status: Status, output: Text, now: Instant) {
        if let Some(word) = self.checks.get_mut(id) {
            word.expires = word.ttl.map(|ttl| now + ttl);
            word.check.status = Text::from(status.name());
            word.check.output = output;
        }
    }

    /// Takes a service, or the node, out of use, or into use again.
    pub(crate) fn maintain(&mut self, service: Option<&Text>, reason: &Text, is_on: bool) {
        let (id, name) = match service {
            Some(service) => (
                format!("_service_maintenance:{service}"),
                "Service Maintenance Mode",
            ),
            None => ("_node_maintenance".to_owned(), "Node Maintenance Mode"),
        };
        let id = Text::from(id);
        if !is_on {
            self.checks.remove(&id);
        } else if !self.checks.contains_key(&id) {
            let definition = CheckDefinition {
                id,
                name: Text::from(name),
                notes: reason.clone(),
                service_id: service.cloned().unwrap_or_default(),
                ..CheckDefinition::default()
            };
            self.put_check(definition, By::Somebody, Before::Goes, Instant::now());
        }
    }

    /// Lets expire what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        for word in self.checks.values_mut() {
            if word.expires.is_some_and(|at| at <= now) {
                word.expires = None;
                word.check.status = Text::from(Status::Critical.name());
                // How that is said is the agent's own business, which its own tests know.
                word.check.output = Text::from(EXPIRED);
            }
        }
    }
}

/// What an output that nobody said begins with.
pub(crate) const EXPIRED: &str = "TTL expired";
