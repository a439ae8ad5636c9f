//! Nodes, their services, and the checks of both.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use imbl::{OrdMap, OrdSet, Vector};
use model::{
    CRITICAL, Check, Deregister, Deregistration, Error, Index, Instance, Node, Registration,
    Service, Text,
};

use crate::apply::Change;
use crate::changes::Kind;
use crate::tables::Table;

mod part;
mod rows;

pub(crate) use rows::CatalogRows;

/// (lower-cased node, lower-cased id): the key of a service or a check.
type Key = (Text, Text);

/// (what it is listed under, lower-cased node, lower-cased id).
type Listed = (Text, Text, Text);

/// How many services a node may have for all of their instances to be replaced whenever the node is written.
///
/// Every registration writes its node, so on a node with thousands of services that would be most of the work; there, whoever asks looks the node up.
const CROWD: usize = 64;

/// An instance with the latest change of anything in it.
#[derive(Debug, Clone)]
pub(crate) struct InstanceRow {
    pub(crate) instance: Arc<Instance>,
    pub(crate) changed: Index,
    /// Whether the node in it may be an older one, because there are too many on that node.
    is_lazy: bool,
    /// Where it is among the candidates of its service, if it is one.
    seat: Option<usize>,
}

/// An instance none of whose checks is critical.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) instance: Arc<Instance>,
    /// Whether all of its checks pass.
    pub(crate) is_passing: bool,
    /// As in its row.
    is_lazy: bool,
}

/// Nodes, services and checks, and the instances that they make up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    nodes: OrdMap<Text, Arc<Node>>,
    services: OrdMap<Key, Arc<Service>>,
    checks: OrdMap<Key, Arc<Check>>,
    /// By lower-cased service name; replaced whenever node, service or one of the checks is.
    instances: OrdMap<Listed, InstanceRow>,
    /// By lower-cased service name, in no particular order: whoever wants a few of many picks them by number.
    ///
    /// The order depends on how the state came to be, so two servers may have different ones; nothing may follow from it but which ones are picked.
    candidates: OrdMap<Text, Vector<Candidate>>,
    /// Checks by status, as it is spelled.
    by_status: OrdSet<Listed>,
    /// Checks by lower-cased service name, if they have one.
    by_service: OrdSet<Listed>,
    /// Whether instances and candidates are left as they are until [`Catalog::settled`]; never so between two entries.
    is_deferred: bool,
}

impl Catalog {
    /// From here on only rows are kept: who writes most of them makes instances of them once, and not at each.
    pub(crate) fn defer(&mut self) {
        self.is_deferred = true;
    }

    /// The same rows with their instances.
    pub(crate) fn settled(self) -> Self {
        let rows = CatalogRows::from(self);
        rows.build()
    }

    /// Puts a node in its place; what was there before comes back.
    pub(crate) fn insert_node(&mut self, node: Node) -> Option<Arc<Node>> {
        let key = node.name.lower();
        let node = Arc::new(node);
        let before = self.nodes.insert(key.clone(), Arc::clone(&node));
        if self.crowd(&key) <= CROWD {
            self.update_instances(&key, |row| {
                *row = row.with_node(&node);
            });
        }
        before
    }

    /// Puts a service of a node in its place; what was there before comes back.
    ///
    /// The node must be there already, else the service has no instance.
    pub(crate) fn insert_service(&mut self, node: &Text, service: Service) -> Option<Arc<Service>> {
        let key = (node.lower(), service.id.lower());
        let name = service.name.lower();
        let before = self.services.insert(key.clone(), Arc::new(service));
        if let Some(before) = &before {
            let old_name = before.name.lower();
            if old_name != name {
                self.remove_instance(&(old_name, key.0.clone(), key.1.clone()));
            }
        }
        self.rebuild(&key.0, Some(&key.1));
        if before.is_none() && self.crowd(&key.0) == CROWD + 1 {
            self.update_instances(&key.0, |row| row.is_lazy = true);
        }
        before
    }

    /// Puts a check in its place; what was there before comes back.
    ///
    /// Its node and service must be there already.
    pub(crate) fn insert_check(&mut self, check: Check) -> Option<Arc<Check>> {
        let key = (check.node.lower(), check.check_id.lower());
        let before = self.checks.get(&key).cloned();
        if let Some(before) = &before {
            self.unlist(&key, before);
        }
        self.by_status
            .insert((check.status.clone(), key.0.clone(), key.1.clone()));
        if !check.service_name.is_empty() {
            self.by_service
                .insert((check.service_name.lower(), key.0.clone(), key.1.clone()));
        }
        let service = check.service_id.lower();
        self.checks.insert(key.clone(), Arc::new(check));
        if let Some(before) = &before {
            let old_service = before.service_id.lower();
            if old_service != service {
                self.rebuild_for(&key.0, &old_service);
            }
        }
        self.rebuild_for(&key.0, &service);
        before
    }

    /// Takes a node away. Its services and checks must be gone already.
    pub(crate) fn remove_node(&mut self, node_lower: &Text) -> Option<Arc<Node>> {
        self.nodes.remove(node_lower)
    }

    /// Takes a service away. Its checks must be gone already.
    pub(crate) fn remove_service(
        &mut self,
        node_lower: &Text,
        id_lower: &Text,
    ) -> Option<Arc<Service>> {
        let service = self
            .services
            .remove(&(node_lower.clone(), id_lower.clone()))?;
        self.remove_instance(&(service.name.lower(), node_lower.clone(), id_lower.clone()));
        Some(service)
    }

    /// Takes a check away.
    pub(crate) fn remove_check(
        &mut self,
        node_lower: &Text,
        id_lower: &Text,
    ) -> Option<Arc<Check>> {
        let key = (node_lower.clone(), id_lower.clone());
        let check = self.checks.remove(&key)?;
        self.unlist(&key, &check);
        self.rebuild_for(node_lower, &check.service_id.lower());
        Some(check)
    }

    fn unlist(&mut self, key: &Key, check: &Check) {
        self.by_status
            .remove(&(check.status.clone(), key.0.clone(), key.1.clone()));
        if !check.service_name.is_empty() {
            self.by_service
                .remove(&(check.service_name.lower(), key.0.clone(), key.1.clone()));
        }
    }

    /// Replaces the instances that show checks of this service, or of the node if there is none.
    fn rebuild_for(&mut self, node_lower: &Text, service_lower: &Text) {
        let one = (!service_lower.is_empty()).then_some(service_lower);
        self.rebuild(node_lower, one);
    }

    /// Replaces one instance of a node, or all.
    fn rebuild(&mut self, node_lower: &Text, only: Option<&Text>) {
        if self.is_deferred {
            return;
        }
        let Some(node) = self.nodes.get(node_lower).cloned() else {
            return;
        };
        let affected: Vec<(Text, Arc<Service>)> = match only {
            Some(id) => self
                .service(node_lower, id)
                .map(|service| (id.clone(), Arc::clone(service)))
                .into_iter()
                .collect(),
            None => self
                .services_of(node_lower)
                .map(|(id, service)| (id.clone(), Arc::clone(service)))
                .collect(),
        };
        if affected.is_empty() {
            return;
        }
        let is_lazy = self.crowd(node_lower) > CROWD;
        let checks: Vec<Arc<Check>> = self.checks_of(node_lower).cloned().collect();
        for (id, service) in affected {
            let shown = checks
                .iter()
                .filter(|check| check.service_id.is_empty() || has_lower(&check.service_id, &id))
                .cloned()
                .collect();
            let place = (service.name.lower(), node_lower.clone(), id);
            let mut row = InstanceRow::new(Arc::clone(&node), service, shown);
            row.is_lazy = is_lazy;
            self.insert_instance(place, row);
        }
    }

    /// Puts an instance in its place, and among the candidates if it is well enough.
    fn insert_instance(&mut self, place: Listed, mut row: InstanceRow) {
        let seat = self.instances.get(&place).and_then(|before| before.seat);
        row.seat = match (seat, row.candidate()) {
            (Some(seat), Some(candidate)) => {
                if let Some(seats) = self.candidates.get_mut(&place.0) {
                    seats.set(seat, candidate);
                }
                Some(seat)
            }
            (Some(seat), None) => {
                self.leave(&place.0, seat);
                None
            }
            (None, Some(candidate)) => {
                let seats = self.candidates.entry(place.0.clone()).or_default();
                seats.push_back(candidate);
                Some(seats.len() - 1)
            }
            (None, None) => None,
        };
        self.instances.insert(place, row);
    }

    /// Takes an instance away.
    fn remove_instance(&mut self, place: &Listed) {
        if self.is_deferred {
            return;
        }
        if let Some(InstanceRow {
            seat: Some(seat), ..
        }) = self.instances.remove(place)
        {
            self.leave(&place.0, seat);
        }
    }

    /// Takes a candidate from its seat, which the last one gets.
    fn leave(&mut self, name: &Text, seat: usize) {
        let Some(seats) = self.candidates.get_mut(name) else {
            return;
        };
        let Some(last) = seats.pop_back() else {
            return;
        };
        if seats.is_empty() {
            self.candidates.remove(name);
        } else if seat < seats.len() {
            let Instance { node, service, .. } = &*last.instance;
            let moved = (name.clone(), node.name.lower(), service.id.lower());
            seats.set(seat, last);
            if let Some(row) = self.instances.get_mut(&moved) {
                row.seat = Some(seat);
            }
        }
    }

    /// How many services a node has, not counted far beyond [`CROWD`].
    fn crowd(&self, node_lower: &Text) -> usize {
        self.services_of(node_lower).take(CROWD + 2).count()
    }

    /// Changes the rows of all instances of a node.
    fn update_instances(&mut self, node_lower: &Text, change: impl Fn(&mut InstanceRow)) {
        if self.is_deferred {
            return;
        }
        let places: Vec<Listed> = self
            .services_of(node_lower)
            .map(|(id, service)| (service.name.lower(), node_lower.clone(), id.clone()))
            .collect();
        for place in places {
            if let Some(mut row) = self.instances.get(&place).cloned() {
                change(&mut row);
                self.insert_instance(place, row);
            }
        }
    }

    /// The node of this lower-cased name.
    pub(crate) fn node(&self, lower: &Text) -> Option<&Arc<Node>> {
        self.nodes.get(lower)
    }

    /// All nodes, by lower-cased name.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The service of these lower-cased names.
    pub(crate) fn service(&self, node_lower: &Text, id_lower: &Text) -> Option<&Arc<Service>> {
        self.services.get(&(node_lower.clone(), id_lower.clone()))
    }

    /// The services of a node with their lower-cased ids, in that order.
    pub(crate) fn services_of(
        &self,
        node_lower: &Text,
    ) -> impl Iterator<Item = (&Text, &Arc<Service>)> {
        self.services
            .range((node_lower.clone(), Text::default())..)
            .take_while(move |((node, _), _)| node == node_lower)
            .map(|((_, id), service)| (id, service))
    }

    /// All services with the lower-cased names of their nodes, by node and id.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&Text, &Arc<Service>)> {
        self.services
            .iter()
            .map(|((node, _), service)| (node, service))
    }

    /// The check of these lower-cased names.
    pub(crate) fn check(&self, node_lower: &Text, id_lower: &Text) -> Option<&Arc<Check>> {
        self.checks.get(&(node_lower.clone(), id_lower.clone()))
    }

    /// The checks of a node and its services, by lower-cased id.
    pub(crate) fn checks_of(&self, node_lower: &Text) -> impl Iterator<Item = &Arc<Check>> {
        self.checks
            .range((node_lower.clone(), Text::default())..)
            .take_while(move |((node, _), _)| node == node_lower)
            .map(|(_, check)| check)
    }

    /// All checks, by node and id.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.checks.values()
    }

    /// All checks, by status first.
    pub(crate) fn checks_by_status(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.by_status.iter().map(|place| self.listed(place))
    }

    /// The checks of a status, by node and id.
    pub(crate) fn checks_in(&self, status: &Text) -> impl Iterator<Item = &Arc<Check>> {
        self.by_status
            .range((status.clone(), Text::default(), Text::default())..)
            .take_while(move |(of, _, _)| of == status)
            .map(|place| self.listed(place))
    }

    /// The checks of all services of a lower-cased name, by node and id.
    pub(crate) fn checks_of_service(&self, name_lower: &Text) -> impl Iterator<Item = &Arc<Check>> {
        self.by_service
            .range((name_lower.clone(), Text::default(), Text::default())..)
            .take_while(move |(of, _, _)| of == name_lower)
            .map(|place| self.listed(place))
    }

    fn listed(&self, (_, node, id): &Listed) -> &Arc<Check> {
        self.check(node, id)
            .expect("the lists of checks hold only checks that exist")
    }

    /// The instances of a service of a lower-cased name, by node and id.
    pub(crate) fn instances_of(&self, name_lower: &Text) -> impl Iterator<Item = InstanceRow> {
        self.instances
            .range((name_lower.clone(), Text::default(), Text::default())..)
            .take_while(move |((name, _, _), _)| name == name_lower)
            .map(|((_, node, _), row)| {
                let newer = row.is_lazy.then(|| self.nodes.get(node)).flatten();
                match newer {
                    Some(node) if !Arc::ptr_eq(node, &row.instance.node) => row.with_node(node),
                    _ => row.clone(),
                }
            })
    }

    /// The instances of a service of a lower-cased name that are well enough, in no particular order.
    pub(crate) fn candidates_of(&self, name_lower: &Text) -> Option<&Vector<Candidate>> {
        self.candidates.get(name_lower)
    }

    /// The node that a candidate is on, as it was last written.
    pub(crate) fn node_of<'a>(&'a self, candidate: &'a Candidate) -> &'a Arc<Node> {
        let node = &candidate.instance.node;
        if candidate.is_lazy {
            self.nodes.get(&node.name.lower()).unwrap_or(node)
        } else {
            node
        }
    }

    /// A candidate with its node as it was last written.
    pub(crate) fn instance_of(&self, candidate: &Candidate) -> Arc<Instance> {
        let node = self.node_of(candidate);
        if Arc::ptr_eq(node, &candidate.instance.node) {
            Arc::clone(&candidate.instance)
        } else {
            candidate.instance.on(node)
        }
    }

    /// The services of all instances, by lower-cased service name, node and id.
    pub(crate) fn services_by_name(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.instances.values().map(|row| &row.instance.service)
    }
}

impl InstanceRow {
    fn new(node: Arc<Node>, service: Arc<Service>, checks: Vec<Arc<Check>>) -> Self {
        let changed = checks
            .iter()
            .map(|check| check.modify_index)
            .chain([node.modify_index, service.modify_index])
            .max()
            .unwrap_or(0);
        let instance = Arc::new(Instance {
            node,
            service,
            checks,
            rendered: OnceLock::new(),
        });
        Self {
            instance,
            changed,
            is_lazy: false,
            seat: None,
        }
    }

    /// As a candidate, unless a check is critical.
    fn candidate(&self) -> Option<Candidate> {
        let checks = &self.instance.checks;
        let is_critical = checks.iter().any(|check| check.is_critical());
        (!is_critical).then(|| Candidate {
            instance: Arc::clone(&self.instance),
            is_passing: checks.iter().all(|check| check.is_passing()),
            is_lazy: self.is_lazy,
        })
    }

    /// The same on another version of its node.
    fn with_node(&self, node: &Arc<Node>) -> Self {
        let Instance {
            service, checks, ..
        } = &*self.instance;
        Self::new(Arc::clone(node), Arc::clone(service), checks.clone())
    }
}

/// Whether this is the lower-cased form of a text, without building that where it is plain to see.
pub(crate) fn has_lower(text: &Text, lower: &Text) -> bool {
    if text.is_ascii() {
        text.eq_ignore_ascii_case(lower)
    } else {
        text.lower() == *lower
    }
}

impl Change<'_> {
    /// Writes a node, and with it a service and checks: all or nothing.
    pub(crate) fn register(&mut self, registration: &Registration) -> Result<(), Error> {
        self.check_registration(registration)?;
        self.write_node(&registration.node);
        let node = registration.node.name.lower();
        if let Some(service) = &registration.service {
            self.write_service(&node, service);
        }
        for check in &registration.checks {
            self.write_check(registration, check);
        }
        Ok(())
    }

    /// Whether all of it can be written; nothing is, before that is known.
    fn check_registration(&self, registration: &Registration) -> Result<(), Error> {
        let Registration {
            node,
            service,
            checks,
        } = registration;
        if node.name.is_empty() {
            return Err(Error::invalid("Must provide node and address"));
        }
        if service
            .as_ref()
            .is_some_and(|service| service.id.is_empty())
        {
            return Err(Error::invalid(
                "failed inserting service: missing primary index",
            ));
        }
        let node = node.name.lower();
        let service = service.as_ref().map(|service| service.id.lower());
        for check in checks {
            if check.check_id.is_empty() {
                return Err(Error::invalid(
                    "failed inserting check: missing primary index",
                ));
            }
            let check_node = node_of(registration, check).lower();
            if check_node != node && self.state.catalog.node(&check_node).is_none() {
                return Err(Error::invalid("Missing node registration"));
            }
            let wanted = check.service_id.lower();
            let comes_along = check_node == node && service.as_ref() == Some(&wanted);
            if !wanted.is_empty()
                && !comes_along
                && self.state.catalog.service(&check_node, &wanted).is_none()
            {
                return Err(Error::invalid("Missing service registration"));
            }
        }
        Ok(())
    }

    fn write_node(&mut self, node: &Node) {
        let key = node.name.lower();
        let before = self.state.catalog.node(&key).cloned();
        let node = Node {
            create_index: before.as_ref().map_or(self.index, |node| node.create_index),
            modify_index: self.index,
            ..node.clone()
        };
        // Every registration writes the node's row, and most of them leave it as it was; only its own index moves then.
        let is_same = before.is_some_and(|before| {
            let mut as_before = node.clone();
            as_before.modify_index = before.modify_index;
            as_before == *before
        });
        self.state.catalog.insert_node(node);
        self.wrote(Table::Nodes);
        self.note(Kind::Node, &key);
        self.wake_health_of_node(&key);
        if !is_same {
            for name in self.service_names_on(&key) {
                self.note(Kind::Instances, &name);
            }
        }
    }

    fn write_service(&mut self, node_lower: &Text, service: &Service) {
        let id = service.id.lower();
        let before = self.state.catalog.service(node_lower, &id).cloned();
        let service = Service {
            create_index: before
                .as_ref()
                .map_or(self.index, |service| service.create_index),
            modify_index: self.index,
            ..service.clone()
        };
        let name = service.name.lower();
        self.state.catalog.insert_service(node_lower, service);
        self.wrote(Table::Services);
        self.note(Kind::Node, node_lower);
        self.note(Kind::Instances, &name);
        if let Some(old_name) = before.map(|service| service.name.lower())
            && old_name != name
        {
            self.note(Kind::Instances, &old_name);
            self.deleted();
        }
    }

    fn write_check(&mut self, registration: &Registration, check: &Check) {
        let node = node_of(registration, check);
        let node_lower = node.lower();
        let id = check.check_id.lower();
        let before = self.state.catalog.check(&node_lower, &id).cloned();
        let mut check = Check {
            node: node.clone(),
            create_index: before
                .as_ref()
                .map_or(self.index, |check| check.create_index),
            modify_index: self.index,
            ..check.clone()
        };
        if check.status.is_empty() {
            check.status = Text::from(CRITICAL);
        }
        if let Some(service) = self
            .state
            .catalog
            .service(&node_lower, &check.service_id.lower())
        {
            check.service_name = service.name.clone();
        }
        if let Some(before) = &before {
            self.note_check(&node_lower, before);
            if before.service_id.lower() != check.service_id.lower() {
                self.note_check_gone(&node_lower, before);
            }
        }
        self.note_check(&node_lower, &check);
        let is_critical = check.is_critical();
        self.state.catalog.insert_check(check);
        self.wrote(Table::Checks);
        if is_critical {
            // Whenever it is written critical, not only when it turns so: a session may have been made in between.
            self.end_sessions_of_check(&node_lower, &id);
        }
    }

    /// Notes what is concerned by a check that is written or goes.
    fn note_check(&mut self, node_lower: &Text, check: &Check) {
        self.note(Kind::NodeChecks, node_lower);
        self.note(Kind::Status, &check.status);
        if !check.service_name.is_empty() {
            self.note(Kind::ServiceChecks, &check.service_name.lower());
        }
        match self.service_checked(node_lower, check) {
            Some(name) => self.wake(Kind::Health, &name),
            None => self.wake_health_of_node(node_lower),
        }
    }

    /// Notes that services have lost a check: nothing that they show is as new as that.
    fn note_check_gone(&mut self, node_lower: &Text, check: &Check) {
        self.deleted();
        match self.service_checked(node_lower, check) {
            Some(name) => self.note(Kind::Health, &name),
            None if check.service_id.is_empty() => {
                for name in self.service_names_on(node_lower) {
                    self.note(Kind::Health, &name);
                }
            }
            None => {}
        }
    }

    /// The lower-cased name of the service that a check is about, if it is about one.
    fn service_checked(&self, node_lower: &Text, check: &Check) -> Option<Text> {
        let service = self
            .state
            .catalog
            .service(node_lower, &check.service_id.lower())?;
        Some(service.name.lower())
    }

    fn service_names_on(&self, node_lower: &Text) -> BTreeSet<Text> {
        self.state
            .catalog
            .services_of(node_lower)
            .map(|(_, service)| service.name.lower())
            .collect()
    }

    /// Removes a service, a check or a node, if it is there, with all that hangs on it.
    pub(crate) fn deregister(&mut self, deregistration: &Deregistration) {
        let node = deregistration.node.lower();
        match &deregistration.what {
            Deregister::Service(id) => self.remove_service(&node, &id.lower()),
            Deregister::Check(id) => self.remove_check(&node, &id.lower()),
            Deregister::Node => self.remove_node(&node),
        }
    }

    fn remove_node(&mut self, node_lower: &Text) {
        if self.state.catalog.node(node_lower).is_none() {
            return;
        }
        let services: Vec<Text> = self
            .state
            .catalog
            .services_of(node_lower)
            .map(|(id, _)| id.clone())
            .collect();
        for id in services {
            self.remove_service(node_lower, &id);
        }
        let checks: Vec<Text> = self
            .state
            .catalog
            .checks_of(node_lower)
            .map(|check| check.check_id.lower())
            .collect();
        for id in checks {
            self.remove_check(node_lower, &id);
        }
        self.end_sessions_of_node(node_lower);
        if self.state.coordinates.remove(node_lower) {
            self.wrote(Table::Coordinates);
        }
        self.state.catalog.remove_node(node_lower);
        self.wrote(Table::Nodes);
        self.note(Kind::Node, node_lower);
        self.deleted();
    }

    fn remove_service(&mut self, node_lower: &Text, id_lower: &Text) {
        let Some(service) = self.state.catalog.service(node_lower, id_lower).cloned() else {
            return;
        };
        let checks: Vec<Text> = self
            .state
            .catalog
            .checks_of(node_lower)
            .filter(|check| check.service_id.lower() == *id_lower)
            .map(|check| check.check_id.lower())
            .collect();
        for id in checks {
            self.remove_check(node_lower, &id);
        }
        self.state.catalog.remove_service(node_lower, id_lower);
        self.wrote(Table::Services);
        // The original moves this one even if the service had no checks.
        self.wrote(Table::Checks);
        self.note(Kind::Node, node_lower);
        self.note(Kind::Instances, &service.name.lower());
        self.deleted();
    }

    fn remove_check(&mut self, node_lower: &Text, id_lower: &Text) {
        let Some(check) = self.state.catalog.check(node_lower, id_lower).cloned() else {
            return;
        };
        self.note_check(node_lower, &check);
        self.note_check_gone(node_lower, &check);
        self.state.catalog.remove_check(node_lower, id_lower);
        self.wrote(Table::Checks);
        self.end_sessions_of_check(node_lower, id_lower);
    }
}

/// The node that a check is on: its own word, or else the node that is registered.
fn node_of<'a>(registration: &'a Registration, check: &'a Check) -> &'a Text {
    if check.node.is_empty() {
        &registration.node.name
    } else {
        &check.node
    }
}
