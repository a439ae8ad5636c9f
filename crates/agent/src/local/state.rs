//! What this node offers and what its checks say: plain data that is told the time and the chance.
//!
//! Every change is a method here, and what has to be done about it elsewhere comes out in three ways:
//! what the catalog must be told waits in a [`Queue`], what must be run or kept on disk is an [`Effect`], and what happens by itself has a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use model::{CRITICAL, Check, Node, Pairs, SERF_HEALTH, Service, Text};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::files::{Edit, Kept};
use super::{ApiScripts, Definitions, LocalConfig, LocalError, LocalFigures, Maintenance};
use crate::checks;
use crate::definition::{CheckDefinition, CheckKind, ServiceDefinition, Status};

mod queue;

pub(super) use queue::{Item, Queue};

/// How many services this node may offer, how many checks it may have, and how many of each may wait to be removed from the catalog; further ones are refused.
pub(super) const ITEMS_MAX: usize = 1 << 16;

/// How long ids, names and addresses may be.
const NAME_BYTES_MAX: usize = 4 << 10;

/// How large a definition may be in all: what the log takes in one entry is eight times that.
const DEFINITION_BYTES_MAX: usize = 512 << 10;

/// By how much what somebody says of a check may exceed what is kept of it: whoever cut it to that size may have said so.
const OUTPUT_SLACK: usize = 64;

/// The shortest time after which a critical check takes its service away; shorter ones are raised, as in the original.
const DEREGISTER_AFTER_MIN: Duration = Duration::from_secs(60);

/// How often services are looked for whose checks were critical for too long.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// As good as never; longer times would not fit a clock.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The id of the check that takes the node out of use.
const NODE_MAINTENANCE: &str = "_node_maintenance";

/// What the id of a check that takes a service out of use begins with.
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

/// The services and checks of this node.
///
/// The catalog doesn't tell ids apart by case, so neither does this: the keys of its maps are lower-cased ids.
/// Tokens are all over it, so it and its parts can't be shown.
#[derive(Clone)]
pub(super) struct State {
    /// This node, as it is written to the catalog.
    pub(super) node: Node,
    /// What services and checks without a token of their own are written with.
    pub(super) token: Text,
    /// What the node itself is written, forgotten and read with.
    pub(super) agent_token: Text,
    update_interval: Duration,
    pub(super) api_scripts: ApiScripts,
    /// Whether anything is kept on disk.
    keeps: bool,
    /// What the node offers by what it is.
    own: Option<Service>,
    pub(super) services: BTreeMap<Text, Offered>,
    pub(super) checks: BTreeMap<Text, Checked>,
    /// The checks of each service: both keys.
    checks_of: BTreeSet<(Text, Text)>,
    /// What the catalog must be told, in the order in which it came up.
    pub(super) queue: Queue,
    /// What the catalog must be told to forget; each is in the queue or on its way.
    pub(super) gone: BTreeMap<Item, Gone>,
    /// When checks expire that wait to be told.
    ttls: BTreeSet<(Instant, Text)>,
    /// When new outputs are due in the catalog.
    outputs: BTreeSet<(Instant, Text)>,
    /// When checks have been critical for too long.
    reaps: BTreeSet<(Instant, Text)>,
    /// Checks that are critical without a clock that counts it, which the next registration of a service starts.
    unclocked: BTreeSet<Text>,
    /// What was last said of checks that wait to be told, as it is on disk.
    said: BTreeMap<Text, Saved>,
    /// When services were last looked for whose checks were critical for too long.
    reaped_at: Option<Instant>,
    generation: u64,
    /// What was left to chance so far came from this seed and those before it.
    seed: u64,
    effects: Vec<Effect>,
}

/// A service of this node.
#[derive(Clone)]
pub(super) struct Offered {
    pub(super) service: Arc<Service>,
    pub(super) token: Text,
    origin: Origin,
    /// Its tags as they were defined, if those of the catalog count instead.
    defined_tags: Option<Option<Vec<Text>>>,
    /// Whether its tags were defined since the catalog was told last: then those of the catalog are the older ones.
    pub(super) has_new_tags: bool,
}

/// A check of this node.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) check: Arc<Check>,
    pub(super) token: Text,
    origin: Origin,
    /// `None` says what it was made to say.
    kind: Option<CheckKind>,
    /// After how long its service goes, if it goes.
    deregister_after: Option<Duration>,
    success_before_passing: u32,
    failures_before_critical: u32,
    /// Tells the reports of its runner from those of earlier ones.
    generation: u64,
    passed: u32,
    failed: u32,
    /// What somebody said last, for the moment when nobody says anything any more.
    last_said: Text,
    critical_since: Option<Instant>,
    /// When the catalog is to be told of its output.
    pub(super) output_due: Option<Instant>,
    /// When it expires.
    expires: Option<Instant>,
}

/// Where something was defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// By what the node is.
    Own,
    /// In a file of the configuration.
    File,
    /// Over the API.
    Api,
}

/// Something that the catalog must forget.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) id: Text,
    pub(super) token: Text,
    /// Of a service, the checks that the catalog removes with it.
    pub(super) checks: Vec<Text>,
}

/// What was said of a check, and until when that counts.
#[derive(Debug, Clone)]
struct Saved {
    status: Status,
    output: Text,
    expires: Instant,
}

/// What has to be done elsewhere.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// A check has to be run; any earlier runner of it ends.
    Run {
        key: Text,
        id: Text,
        generation: u64,
        kind: CheckKind,
    },
    /// A check need not be run any more.
    Halt(Text),
    /// Something has to be kept on disk, or no longer.
    Keep(Edit),
}

/// What becomes of what a check said when it is registered anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It is said still.
    Stays,
    /// It is forgotten, except of a check that waits to be told, where what was said counts for its time.
    Goes,
}

impl State {
    /// A node that offers its own service alone.
    pub(super) fn new(config: &LocalConfig) -> Self {
        let mut state = Self {
            node: Node {
                name: config.node.clone(),
                address: config.address.clone(),
                tagged_addresses: Some(config.tagged_addresses.clone()),
                id: config.node_id.clone(),
                meta: config.node_meta.clone(),
                ..Node::default()
            },
            token: config.token.clone(),
            agent_token: config.agent_token.clone(),
            update_interval: config.check_update_interval.min(FOREVER),
            api_scripts: config.api_scripts,
            keeps: config.data_dir.is_some(),
            own: config.own_service.clone(),
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            checks_of: BTreeSet::new(),
            queue: Queue::default(),
            gone: BTreeMap::new(),
            ttls: BTreeSet::new(),
            outputs: BTreeSet::new(),
            reaps: BTreeSet::new(),
            unclocked: BTreeSet::new(),
            said: BTreeMap::new(),
            reaped_at: None,
            generation: 0,
            seed: config.seed,
            effects: Vec::new(),
        };
        state.offer_own();
        state
    }

    /// The services, by id.
    pub(super) fn services(&self) -> BTreeMap<Text, Arc<Service>> {
        let services = self.services.values().map(|offered| &offered.service);
        services
            .map(|service| (service.id.clone(), Arc::clone(service)))
            .collect()
    }

    /// The checks, by id.
    pub(super) fn checks(&self) -> BTreeMap<Text, Arc<Check>> {
        let checks = self.checks.values().map(|checked| &checked.check);
        checks
            .map(|check| (check.check_id.clone(), Arc::clone(check)))
            .collect()
    }

    /// How many there are of what.
    pub(super) fn figures(&self) -> LocalFigures {
        let count = |is: fn(&CheckKind) -> bool| {
            let kinds = self.checks.values().filter_map(|it| it.kind.as_ref());
            kinds.filter(|kind| is(kind)).count()
        };
        LocalFigures {
            check_monitors: count(|kind| matches!(kind, CheckKind::Script { .. })),
            check_ttls: count(|kind| matches!(kind, CheckKind::Ttl(_))),
            checks: self.checks.len(),
            services: self.services.len(),
        }
    }

    /// What has to be done elsewhere since the last look.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Registers what the configuration defines and what is kept on disk, in the order in which one may name the other.
    ///
    /// # Errors
    /// If something from the configuration can't be registered. What is kept on disk never fails a start.
    pub(super) fn load(
        &mut self,
        definitions: Definitions,
        kept: Kept,
        now: Instant,
    ) -> Result<(), LocalError> {
        let mut ids = Vec::with_capacity(kept.states.len());
        for said in kept.states {
            // Whatever it is that said it: a check that still says things writes them anew.
            if said.left.is_zero() {
                self.effects.push(Effect::Keep(Edit::NoState(said.id)));
                continue;
            }
            ids.push(said.id.clone());
            let saved = Saved {
                status: said.status,
                output: said.output,
                expires: now + said.left.min(FOREVER),
            };
            self.said.insert(said.id.lower(), saved);
        }
        for definition in definitions.services {
            self.put_defined_service(definition, now)?;
        }
        for definition in kept.services {
            self.restore_service(definition, now);
        }
        for definition in definitions.checks {
            self.put_defined_check(definition, now)?;
        }
        for definition in kept.checks {
            self.restore_check(definition, now);
        }
        for id in ids {
            let key = id.lower();
            if !self.checks.contains_key(&key) {
                self.said.remove(&key);
                self.effects.push(Effect::Keep(Edit::NoState(id)));
            }
        }
        // Whoever changed tags in the catalog did so after what was loaded was defined.
        for offered in self.services.values_mut() {
            offered.has_new_tags = false;
        }
        Ok(())
    }

    /// Takes over what configuration files define now: all of it or nothing.
    ///
    /// # Errors
    /// If something of it can't be registered.
    pub(super) fn reload(
        &mut self,
        definitions: Definitions,
        node_meta: Pairs,
        now: Instant,
    ) -> Result<(), LocalError> {
        let mut next = self.clone();
        next.replace_defined(definitions, now)?;
        if next.node.meta != node_meta {
            next.node.meta = node_meta;
            next.queue.mark(Item::Node);
        }
        *self = next;
        Ok(())
    }

    fn replace_defined(
        &mut self,
        definitions: Definitions,
        now: Instant,
    ) -> Result<(), LocalError> {
        let mut services = BTreeSet::new();
        let mut checks = BTreeSet::new();
        for definition in definitions.services {
            let (key, of_it) = self.put_defined_service(definition, now)?;
            services.insert(key);
            checks.extend(of_it);
        }
        let is_defined = |origin: Origin| origin == Origin::File;
        let old = self
            .services
            .iter()
            .filter(|(key, offered)| is_defined(offered.origin) && !services.contains(*key));
        let old: BTreeSet<_> = old.map(|(key, _)| key.clone()).collect();
        // First the checks, since one may move on to another service with what it said last.
        for definition in definitions.checks {
            if old.contains(&definition.service_id.lower()) {
                let why = LocalError::UnknownServiceOfCheck(definition.service_id.clone());
                return Err(failed_check(&definition.name, &why));
            }
            checks.insert(self.put_defined_check(definition, now)?);
        }
        for key in old {
            self.remove_service(&key);
        }
        let old = self
            .checks
            .iter()
            .filter(|(key, checked)| is_defined(checked.origin) && !checks.contains(*key));
        let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
        for key in old {
            self.remove_check(&key);
        }
        self.start_clocks(now);
        Ok(())
    }

    /// Registers a service that somebody asks for over the API.
    ///
    /// # Errors
    /// If it can't be registered; then nothing has changed.
    pub(super) fn register_service(
        &mut self,
        definition: ServiceDefinition,
        now: Instant,
    ) -> Result<u64, LocalError> {
        let (key, _) = self.put_service(definition, Origin::Api, now)?;
        Ok(self.last_mark(&key))
    }

    /// Registers a check that somebody asks for over the API.
    ///
    /// # Errors
    /// If it can't be registered; then nothing has changed.
    pub(super) fn register_check(
        &mut self,
        definition: CheckDefinition,
        now: Instant,
    ) -> Result<u64, LocalError> {
        if definition.kind.is_none() {
            return Err(not_valid());
        }
        let key = self.put_check(definition, Origin::Api, Before::Goes, now)?;
        Ok(self.queue.mark(Item::Check(key)))
    }

    /// Takes a service away with its checks; the catalog is told even if there is none here.
    ///
    /// # Errors
    /// If it is the node's own.
    pub(super) fn deregister_service(&mut self, id: &Text) -> Result<u64, LocalError> {
        if id.is_empty() {
            return Err(LocalError::Refused("ServiceID missing".to_owned()));
        }
        let key = id.lower();
        if self.is_own(&key) {
            let text = format!("Deregistering the {id} service is not allowed");
            return Err(LocalError::Refused(text));
        }
        if self.services.contains_key(&key) {
            self.remove_service(&key);
        } else {
            self.forget(Item::Service(key), id.clone(), self.agent_token.clone());
        }
        Ok(self.queue.newest())
    }

    /// Takes a check away; the catalog is told even if there is none here.
    ///
    /// # Errors
    /// If the id is empty.
    pub(super) fn deregister_check(&mut self, id: &Text) -> Result<u64, LocalError> {
        if id.is_empty() {
            return Err(LocalError::Refused("CheckID missing".to_owned()));
        }
        let key = id.lower();
        if self.checks.contains_key(&key) {
            self.remove_check(&key);
        } else if key != Text::from(SERF_HEALTH).lower() {
            self.forget(Item::Check(key), id.clone(), self.agent_token.clone());
        }
        Ok(self.queue.newest())
    }

    /// Hears what somebody says of a check that waits to be told.
    ///
    /// # Errors
    /// If there is no such check.
    pub(super) fn update_ttl(
        &mut self,
        id: &Text,
        status: Status,
        output: Text,
        now: Instant,
    ) -> Result<u64, LocalError> {
        let key = id.lower();
        let Some((checked, ttl)) = self.checks.get_mut(&key).and_then(|checked| {
            let ttl = checked.ttl()?;
            Some((checked, ttl))
        }) else {
            return Err(LocalError::NotTtl(id.clone()));
        };
        let output = checks::shortened(output, OUTPUT_SLACK);
        let expires = now + ttl;
        if let Some(before) = checked.expires.replace(expires) {
            self.ttls.remove(&(before, key.clone()));
        }
        checked.last_said.clone_from(&output);
        let id = checked.check.check_id.clone();
        self.ttls.insert((expires, key.clone()));
        if self.keeps {
            let saved = Saved {
                status,
                output: output.clone(),
                expires,
            };
            let before = self.said.insert(key.clone(), saved);
            let is_same = |before: &Saved| (before.status, &before.output) == (status, &output);
            self.effects.push(Effect::Keep(Edit::State {
                id,
                status,
                output: output.clone(),
                ttl,
                is_news: !before.is_some_and(|before| is_same(&before)),
            }));
        }
        let marks = self.queue.marks();
        self.update(&key, status, output, now);
        Ok(self.position_of_news(&key, marks))
    }

    /// Where a check waits, if it came up since there were so many marks; else 0: nobody tries to tell of what is no news,
    /// so nobody may wait for that.
    fn position_of_news(&self, key: &Text, marks: u64) -> u64 {
        if self.queue.marks() == marks {
            0
        } else {
            self.queue.position(&Item::Check(key.clone()))
        }
    }

    /// Hears what a runner has found out.
    pub(super) fn report(
        &mut self,
        id: &Text,
        generation: u64,
        status: Status,
        output: Text,
        now: Instant,
    ) {
        let key = id.lower();
        let Some(checked) = self.checks.get_mut(&key) else {
            return;
        };
        // One that was told to stop may have spoken just before.
        if checked.generation == generation && checked.is_convinced_by(status) {
            self.update(&key, status, output, now);
        }
    }

    /// Takes the node out of use, or into use again.
    ///
    /// # Errors
    /// If there are too many checks.
    pub(super) fn node_maintenance(
        &mut self,
        maintenance: Maintenance,
        now: Instant,
    ) -> Result<u64, LocalError> {
        let definition = CheckDefinition {
            id: Text::from(NODE_MAINTENANCE),
            name: Text::from("Node Maintenance Mode"),
            ..CheckDefinition::default()
        };
        self.maintenance(definition, "node", maintenance, now)
    }

    /// Takes a service out of use, or into use again.
    ///
    /// # Errors
    /// If there is no such service, or if there are too many checks.
    pub(super) fn service_maintenance(
        &mut self,
        id: &Text,
        maintenance: Maintenance,
        now: Instant,
    ) -> Result<u64, LocalError> {
        let offered = self.services.get(&id.lower());
        let service = &offered
            .ok_or_else(|| LocalError::UnknownService(id.clone()))?
            .service;
        let definition = CheckDefinition {
            id: Text::from([SERVICE_MAINTENANCE.as_bytes(), &service.id].concat()),
            name: Text::from("Service Maintenance Mode"),
            service_id: service.id.clone(),
            ..CheckDefinition::default()
        };
        self.maintenance(definition, "service", maintenance, now)
    }

    fn maintenance(
        &mut self,
        definition: CheckDefinition,
        what: &str,
        maintenance: Maintenance,
        now: Instant,
    ) -> Result<u64, LocalError> {
        let key = definition.id.lower();
        let is_on = self.checks.contains_key(&key);
        let marks = self.queue.marks();
        match maintenance {
            Maintenance::Begin { reason, token } if !is_on => {
                let reason = reason.filter(|reason| !reason.is_empty());
                let notes = reason.unwrap_or_else(|| {
                    Text::from(format!(
                        "Maintenance mode is enabled for this {what}, but no reason was provided. This is a default message."
                    ))
                });
                tracing::info!("{} is on: {notes}", definition.id);
                let definition = CheckDefinition {
                    notes,
                    token,
                    ..definition
                };
                self.put_check(definition, Origin::Api, Before::Goes, now)?;
            }
            Maintenance::End if is_on => {
                tracing::info!("{} is off", definition.id);
                self.remove_check(&key);
            }
            Maintenance::Begin { .. } | Maintenance::End => {}
        }
        Ok(self.position_of_news(&key, marks))
    }

    /// When something happens by itself next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Text)>| set.first().map(|(at, _)| *at);
        let reap = first(&self.reaps).map(|at| match self.reaped_at {
            Some(last) => at.max(last + REAP_INTERVAL),
            None => at,
        });
        [first(&self.ttls), first(&self.outputs), reap]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets happen what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(key) = take_due(&mut self.ttls, now) {
            self.expire(&key, now);
        }
        while let Some(key) = take_due(&mut self.outputs, now) {
            if let Some(checked) = self.checks.get_mut(&key) {
                checked.output_due = None;
                self.queue.mark(Item::Check(key));
            }
        }
        self.reap(now);
    }

    fn expire(&mut self, key: &Text, now: Instant) {
        let Some(checked) = self.checks.get_mut(key) else {
            return;
        };
        checked.expires = None;
        let output = if checked.last_said.is_empty() {
            Text::from("TTL expired")
        } else {
            let before = b"TTL expired (last output before timeout follows): ";
            Text::from([before, &*checked.last_said].concat())
        };
        tracing::warn!(
            "check '{}' missed its TTL, is now critical",
            checked.check.check_id
        );
        self.update(key, Status::Critical, output, now);
    }

    /// Takes away the services whose checks were critical for too long, if it is time to look.
    fn reap(&mut self, now: Instant) {
        let is_early = self
            .reaped_at
            .is_some_and(|last| now < last + REAP_INTERVAL);
        if is_early || self.reaps.first().is_none_or(|(due, _)| *due > now) {
            return;
        }
        self.reaped_at = Some(now);
        while let Some(key) = take_due(&mut self.reaps, now) {
            let Some(checked) = self.checks.get(&key) else {
                continue;
            };
            let service = checked.check.service_id.clone();
            let check = &checked.check.check_id;
            if self.is_own(&service.lower()) {
                tracing::warn!(
                    "check '{check}' was critical for too long, but service '{service}' can't be deregistered"
                );
                continue;
            }
            tracing::info!(
                "check '{check}' was critical for too long, deregistering service '{service}'"
            );
            self.remove_service(&service.lower());
        }
    }

    fn is_own(&self, key: &Text) -> bool {
        self.own.as_ref().is_some_and(|own| own.id.lower() == *key)
    }

    fn offer_own(&mut self) {
        if let Some(own) = &self.own {
            let key = own.id.lower();
            let offered = Offered {
                service: Arc::new(own.clone()),
                token: self.agent_token.clone(),
                origin: Origin::Own,
                defined_tags: None,
                has_new_tags: false,
            };
            self.services.insert(key.clone(), offered);
            self.queue.mark(Item::Service(key));
        }
    }

    /// The position in the queue of the last that has to do with this service.
    fn last_mark(&self, service: &Text) -> u64 {
        let checks = self.keys_of_checks(service).into_iter();
        let marks = checks.map(|key| self.queue.position(&Item::Check(key)));
        let own = self.queue.position(&Item::Service(service.clone()));
        marks.fold(own, u64::max)
    }

    fn put_defined_service(
        &mut self,
        definition: ServiceDefinition,
        now: Instant,
    ) -> Result<(Text, Vec<Text>), LocalError> {
        let name = definition.service.name.clone();
        self.put_service(definition, Origin::File, now)
            .map_err(|why| {
                LocalError::Refused(format!("Failed to register service '{name}': {why}"))
            })
    }

    fn put_defined_check(
        &mut self,
        definition: CheckDefinition,
        now: Instant,
    ) -> Result<Text, LocalError> {
        let name = definition.name.clone();
        let put = match definition.kind {
            Some(_) => self.put_check(definition, Origin::File, Before::Stays, now),
            None => Err(not_valid()),
        };
        put.map_err(|why| failed_check(&name, &why))
    }

    fn restore_service(&mut self, definition: ServiceDefinition, now: Instant) {
        let service = &definition.service;
        let id = service.id.clone();
        let known = self.services.get(&id.lower());
        if known.is_some_and(|known| known.origin == Origin::File) {
            self.effects.push(Effect::Keep(Edit::NoService(id)));
            return;
        }
        let known = self.effects.len();
        let put = self.put_service(definition, Origin::Api, now);
        self.forget_edits_of(&id, known);
        if let Err(why) = put {
            tracing::warn!("cannot restore service '{id}': {why}");
        }
    }

    /// What was just read from disk need not be written there again: of the effects beyond those that were `known`.
    fn forget_edits_of(&mut self, id: &Text, known: usize) {
        let new = self.effects.split_off(known);
        let is_edit = |effect: &Effect| match effect {
            Effect::Keep(Edit::Service { service, .. }) => service.id == *id,
            Effect::Keep(Edit::Check { check, .. }) => check.check_id == *id,
            Effect::Keep(
                Edit::State { .. } | Edit::NoService(_) | Edit::NoCheck(_) | Edit::NoState(_),
            )
            | Effect::Run { .. }
            | Effect::Halt(_) => false,
        };
        let new = new.into_iter().filter(|effect| !is_edit(effect));
        self.effects.extend(new);
    }

    fn restore_check(&mut self, mut definition: CheckDefinition, now: Instant) {
        let id = definition.id.clone();
        let known = self.checks.get(&id.lower());
        if known.is_some_and(|known| known.origin == Origin::File) {
            self.effects.push(Effect::Keep(Edit::NoCheck(id)));
            return;
        }
        // What was well when the agent ended need not be well now.
        definition.status = None;
        let is_silenced = definition.runs_scripts()
            && match self.api_scripts {
                ApiScripts::Allowed => false,
                // The servers can't be asked yet; whoever registered it with a token was let in for it.
                ApiScripts::Admitted => definition.token.is_empty(),
                ApiScripts::Refused => true,
            };
        if is_silenced {
            // Without the check its service would look well, so it stays, and can't pass.
            // Its file stays as it is as well, for the day when scripts are allowed.
            definition.kind = None;
            definition.deregister_after = Duration::ZERO;
        }
        let known = self.effects.len();
        let put = self.put_check(definition, Origin::Api, Before::Goes, now);
        self.forget_edits_of(&id, known);
        match put {
            Ok(key) if is_silenced => {
                tracing::warn!("check '{id}' is not run: {}", LocalError::ScriptsRefused);
                let why = Text::from(LocalError::ScriptsRefused.to_string());
                self.update(&key, Status::Critical, why, now);
            }
            Ok(_) => {}
            Err(why) => {
                tracing::warn!("cannot restore check '{id}': {why}");
                self.effects.push(Effect::Keep(Edit::NoState(id.clone())));
                self.effects.push(Effect::Keep(Edit::NoCheck(id)));
            }
        }
    }

    /// Puts a service in its place, with the checks that come along; those of the same id keep what they said.
    ///
    /// Says its key and those of these checks.
    fn put_service(
        &mut self,
        definition: ServiceDefinition,
        origin: Origin,
        now: Instant,
    ) -> Result<(Text, Vec<Text>), LocalError> {
        let ServiceDefinition {
            mut service,
            checks,
            token,
        } = definition;
        if service.name.is_empty() {
            return Err(LocalError::Refused("Service name missing".to_owned()));
        }
        if service.id.is_empty() {
            service.id = service.name.clone();
        }
        (service.create_index, service.modify_index) = (0, 0);
        check_service(&service)?;
        let (checks, invalid): (Vec<_>, Vec<_>) =
            checks.into_iter().partition(|check| check.kind.is_some());
        if !invalid.is_empty() {
            // As with the original, which does not even say so.
            tracing::warn!(
                "{} checks of service '{}' name no complete way to check and are left out",
                invalid.len(),
                service.id
            );
        }
        let checks = checks_of_service(&service, checks, &token);
        for check in &checks {
            check_check(check)?;
        }
        let key = service.id.lower();
        let news = checks
            .iter()
            .filter(|check| !self.checks.contains_key(&check.id.lower()));
        if !self.services.contains_key(&key) && self.services.len() >= ITEMS_MAX {
            return Err(too_many("services"));
        }
        if self.checks.len() + news.count() > ITEMS_MAX {
            return Err(too_many("checks"));
        }
        warn_of_names(&service);
        self.insert_service(key.clone(), service, token, origin);
        // What was critical before is counted from now on; what comes along is not yet.
        let earlier = std::mem::take(&mut self.unclocked);
        let mut keys = Vec::with_capacity(checks.len());
        for check in checks {
            let before = self.checks.contains_key(&check.id.lower());
            let put = self.insert_check(check, origin, Before::Stays, now);
            if before {
                self.start_clock(&put, now);
            }
            keys.push(put);
        }
        for check in earlier {
            self.start_clock(&check, now);
        }
        Ok((key, keys))
    }

    fn insert_service(&mut self, key: Text, mut service: Service, token: Text, origin: Origin) {
        let before = self.services.get(&key);
        // A reload must not undo what somebody has done in the catalog, where that is allowed.
        let defined_tags = before.and_then(|before| before.defined_tags.clone());
        let defined_tags = defined_tags.filter(|tags| {
            origin == Origin::File && service.enable_tag_override && *tags == service.tags
        });
        if let Some(before) = before
            && defined_tags.is_some()
        {
            service.tags.clone_from(&before.service.tags);
        }
        let is_same = before.is_some_and(|before| {
            // What only a file says again, as a reload does, is no news.
            origin == Origin::File && before.token == token && *before.service == service
        });
        let has_new_tags = origin == Origin::Api
            || before
                .is_none_or(|before| before.has_new_tags || before.service.tags != service.tags);
        if let Some(before) = before {
            let moved = before.service.id != service.id;
            if before.origin == Origin::Api && (origin != Origin::Api || moved) && self.keeps {
                let id = before.service.id.clone();
                self.effects.push(Effect::Keep(Edit::NoService(id)));
            }
            if moved || before.service.name != service.name {
                self.rename_checks(&key, &service);
            }
        }
        let service = Arc::new(service);
        if origin == Origin::Api && self.keeps {
            self.effects.push(Effect::Keep(Edit::Service {
                service: Arc::clone(&service),
                token: token.clone(),
            }));
        }
        let offered = Offered {
            service,
            token,
            origin,
            defined_tags,
            has_new_tags,
        };
        self.services.insert(key.clone(), offered);
        self.gone.remove(&Item::Service(key.clone()));
        if !is_same {
            self.queue.mark(Item::Service(key));
        }
    }

    /// Lets the checks of a service know how it is called now.
    fn rename_checks(&mut self, service_key: &Text, service: &Service) {
        for key in self.keys_of_checks(service_key) {
            if let Some(checked) = self.checks.get_mut(&key) {
                let check = Arc::make_mut(&mut checked.check);
                check.service_id = service.id.clone();
                check.service_name = service.name.clone();
                self.queue.mark(Item::Check(key));
            }
        }
    }

    /// The checks that speak for a service.
    pub(super) fn keys_of_checks(&self, service_key: &Text) -> Vec<Text> {
        let from = Bound::Included((service_key.clone(), Text::default()));
        self.checks_of
            .range((from, Bound::Unbounded))
            .take_while(|(service, _)| service == service_key)
            .map(|(_, check)| check.clone())
            .collect()
    }

    /// Puts a check in its place, if it may be there, and says its key.
    fn put_check(
        &mut self,
        mut definition: CheckDefinition,
        origin: Origin,
        before: Before,
        now: Instant,
    ) -> Result<Text, LocalError> {
        if definition.id.is_empty() {
            definition.id = definition.name.clone();
        }
        if definition.id.is_empty() {
            return Err(LocalError::Refused("CheckID missing".to_owned()));
        }
        let key = definition.id.lower();
        if key == Text::from(SERF_HEALTH).lower() {
            let text = format!("CheckID \"{SERF_HEALTH}\" is written by the leader alone");
            return Err(LocalError::Refused(text));
        }
        check_check(&definition)?;
        let service = definition.service_id.lower();
        if !service.is_empty() && !self.services.contains_key(&service) {
            return Err(LocalError::UnknownServiceOfCheck(definition.service_id));
        }
        if !self.checks.contains_key(&key) && self.checks.len() >= ITEMS_MAX {
            return Err(too_many("checks"));
        }
        Ok(self.insert_check(definition, origin, before, now))
    }

    /// Puts a check in its place; its service must be there.
    fn insert_check(
        &mut self,
        definition: CheckDefinition,
        origin: Origin,
        before: Before,
        now: Instant,
    ) -> Text {
        let key = definition.id.lower();
        let old = self.take_check(&key);
        self.drop_said(&key, &definition, now);
        let check = Arc::new(self.first_word(&definition, old.as_ref(), before));
        if let Some(old) = &old
            && old.origin == Origin::Api
            && self.keeps
            && (origin != Origin::Api || old.check.check_id != check.check_id)
        {
            let id = old.check.check_id.clone();
            self.effects.push(Effect::Keep(Edit::NoCheck(id)));
        }
        if let Some(old) = &old
            && old.check.check_id != check.check_id
            && self.said.contains_key(&key)
        {
            // From the next update on it is in a file of another name, and this one would come back at a start.
            let id = old.check.check_id.clone();
            self.effects.push(Effect::Keep(Edit::NoState(id)));
        }
        if origin == Origin::Api && self.keeps {
            self.effects.push(Effect::Keep(Edit::Check {
                check: Arc::clone(&check),
                definition: Box::new(definition.clone()),
            }));
        }
        let is_same = old.as_ref().is_some_and(|old| {
            // What only a file says again, as a reload does, is no news.
            origin == Origin::File && old.token == definition.token && old.check == check
        });
        let stays = old
            .as_ref()
            .filter(|old| before == Before::Stays && old.kind == definition.kind);
        let (generation, passed, failed) = match stays {
            Some(old) => (old.generation, old.passed, old.failed),
            None => (self.run(&key, &definition), 0, 0),
        };
        let is_bound = !check.service_id.is_empty();
        let checked = Checked {
            token: definition.token,
            origin,
            deregister_after: deregister_after(&definition.id, definition.deregister_after)
                .filter(|_| is_bound),
            success_before_passing: definition.success_before_passing,
            failures_before_critical: definition.failures_before_critical,
            generation,
            passed,
            failed,
            last_said: match (self.said.get(&key), stays) {
                (Some(saved), _) => saved.output.clone(),
                (None, Some(old)) => old.last_said.clone(),
                (None, None) => Text::default(),
            },
            critical_since: None,
            output_due: old
                .as_ref()
                .and_then(|old| old.output_due)
                .filter(|_| is_same),
            expires: None,
            kind: definition.kind,
            check,
        };
        self.settle_check(key.clone(), checked, now);
        self.gone.remove(&Item::Check(key.clone()));
        if !is_same {
            self.queue.mark(Item::Check(key.clone()));
        }
        key
    }

    /// Lists a check wherever it belongs, and sets its clocks.
    fn settle_check(&mut self, key: Text, mut checked: Checked, now: Instant) {
        if let Some(ttl) = checked.ttl() {
            let expires = now + ttl;
            checked.expires = Some(expires);
            self.ttls.insert((expires, key.clone()));
        }
        if let Some(due) = checked.output_due {
            self.outputs.insert((due, key.clone()));
        }
        if checked.deregister_after.is_some() && checked.check.is_critical() {
            self.unclocked.insert(key.clone());
        }
        if !checked.check.service_id.is_empty() {
            let service = checked.check.service_id.lower();
            self.checks_of.insert((service, key.clone()));
        }
        self.checks.insert(key, checked);
    }

    /// What a check says when it is registered.
    fn first_word(
        &self,
        definition: &CheckDefinition,
        old: Option<&Checked>,
        before: Before,
    ) -> Check {
        let service = self.services.get(&definition.service_id.lower());
        let service = service.map(|offered| &offered.service);
        let mut check = Check {
            node: self.node.name.clone(),
            check_id: definition.id.clone(),
            name: definition.name.clone(),
            status: Text::from(definition.status.unwrap_or(Status::Critical).name()),
            notes: definition.notes.clone(),
            service_id: service
                .map(|service| service.id.clone())
                .unwrap_or_default(),
            service_name: service
                .map(|service| service.name.clone())
                .unwrap_or_default(),
            ..Check::default()
        };
        let said = self.said.get(&definition.id.lower());
        if let Some(old) = old.filter(|_| before == Before::Stays) {
            check.status = old.check.status.clone();
            check.output = old.check.output.clone();
        } else if let Some(said) = said {
            check.status = Text::from(said.status.name());
            check.output = said.output.clone();
        }
        check
    }

    /// Forgets what was said of a check if that doesn't count any more.
    fn drop_said(&mut self, key: &Text, definition: &CheckDefinition, now: Instant) {
        let is_ttl = matches!(definition.kind, Some(CheckKind::Ttl(_)));
        let counts = |saved: &Saved| is_ttl && saved.expires > now;
        if self.said.get(key).is_some_and(|saved| !counts(saved)) {
            self.said.remove(key);
            let id = definition.id.clone();
            self.effects.push(Effect::Keep(Edit::NoState(id)));
        }
    }

    /// Has a check run from now on, if there is anything to run.
    fn run(&mut self, key: &Text, definition: &CheckDefinition) -> u64 {
        self.generation += 1;
        let effect = match &definition.kind {
            Some(CheckKind::Ttl(_)) | None => Effect::Halt(key.clone()),
            Some(kind) => Effect::Run {
                key: key.clone(),
                id: definition.id.clone(),
                generation: self.generation,
                kind: kind.clone(),
            },
        };
        self.effects.push(effect);
        self.generation
    }

    /// Takes a check out of all lists but those of what is to be told and kept.
    fn take_check(&mut self, key: &Text) -> Option<Checked> {
        let checked = self.checks.remove(key)?;
        if let Some(expires) = checked.expires {
            self.ttls.remove(&(expires, key.clone()));
        }
        if let Some(due) = checked.output_due {
            self.outputs.remove(&(due, key.clone()));
        }
        if let Some(due) = checked.reap_due() {
            self.reaps.remove(&(due, key.clone()));
        }
        self.unclocked.remove(key);
        if !checked.check.service_id.is_empty() {
            let service = checked.check.service_id.lower();
            self.checks_of.remove(&(service, key.clone()));
        }
        Some(checked)
    }

    /// Takes a check away, here, on disk and in the catalog.
    fn remove_check(&mut self, key: &Text) {
        let Some(checked) = self.take_check(key) else {
            return;
        };
        let id = checked.check.check_id.clone();
        self.effects.push(Effect::Halt(key.clone()));
        if self.keeps && checked.origin == Origin::Api {
            self.effects.push(Effect::Keep(Edit::NoCheck(id.clone())));
        }
        // Its file may be there also where nothing that it says counts any more.
        if self.said.remove(key).is_some() || (self.keeps && checked.ttl().is_some()) {
            self.effects.push(Effect::Keep(Edit::NoState(id.clone())));
        }
        self.forget(Item::Check(key.clone()), id, checked.token);
    }

    /// Takes a service away with its checks, here, on disk and in the catalog; the node's own is what it was at first.
    fn remove_service(&mut self, key: &Text) {
        let Some(offered) = self.services.get(key) else {
            return;
        };
        let id = offered.service.id.clone();
        if self.keeps && offered.origin == Origin::Api {
            self.effects.push(Effect::Keep(Edit::NoService(id.clone())));
        }
        let token = offered.token.clone();
        if self.is_own(key) {
            self.offer_own();
        } else {
            self.services.remove(key);
            self.forget(Item::Service(key.clone()), id, token);
        }
        let checks = self.keys_of_checks(key);
        // Those that the catalog has as they are here.
        let is_told = |check: &Text| !self.queue.contains(&Item::Check(check.clone()));
        let told = checks.iter().filter(|check| is_told(check));
        let told = told.cloned().collect();
        if let Some(gone) = self.gone.get_mut(&Item::Service(key.clone())) {
            gone.checks = told;
        }
        for check in checks {
            self.remove_check(&check);
        }
    }

    /// Has the catalog forget something. Beyond the bound only the next comparison of everything will.
    fn forget(&mut self, item: Item, id: Text, token: Text) {
        if self.gone.len() < 2 * ITEMS_MAX || self.gone.contains_key(&item) {
            let gone = Gone {
                id,
                token,
                checks: Vec::new(),
            };
            self.gone.insert(item.clone(), gone);
            self.queue.mark(item);
        }
    }

    /// What a check says now.
    fn update(&mut self, key: &Text, status: Status, output: Text, now: Instant) {
        let Some(checked) = self.checks.get_mut(key) else {
            return;
        };
        let has_new_status = checked.check.status != status.name();
        let has_new_output = checked.check.output != output;
        if has_new_status || has_new_output {
            let check = Arc::make_mut(&mut checked.check);
            check.status = Text::from(status.name());
            check.output = output;
        }
        let is_damped = !has_new_status && !self.update_interval.is_zero();
        if has_new_status || (has_new_output && !is_damped) {
            self.tell(key);
        } else if has_new_output {
            self.tell_later(key, now);
        }
        match status {
            Status::Critical => self.start_clock(key, now),
            Status::Passing | Status::Warning => self.stop_clock(key),
        }
    }

    /// Has the catalog told of a check as soon as can be.
    fn tell(&mut self, key: &Text) {
        self.cancel_output(key);
        self.queue.mark(Item::Check(key.clone()));
    }

    /// Has the catalog told of a check's output some time.
    fn tell_later(&mut self, key: &Text, now: Instant) {
        let is_told_soon = self.queue.contains(&Item::Check(key.clone()));
        let Some(checked) = self.checks.get_mut(key) else {
            return;
        };
        if checked.output_due.is_none() && !is_told_soon {
            // A generator of its own, so that a state can be tried out on a copy.
            self.seed = self.seed.wrapping_add(1);
            let part = StdRng::seed_from_u64(self.seed).random_range(0.0..1.0);
            let due = now + self.update_interval / 2 + self.update_interval.mul_f64(part);
            checked.output_due = Some(due);
            self.outputs.insert((due, key.clone()));
        }
    }

    /// The catalog is being told of a check as it is.
    pub(super) fn cancel_output(&mut self, key: &Text) {
        let checked = self.checks.get_mut(key);
        if let Some(due) = checked.and_then(|checked| checked.output_due.take()) {
            self.outputs.remove(&(due, key.clone()));
        }
    }

    /// Counts from now on how long a check is critical, if it is and isn't counted yet.
    fn start_clock(&mut self, key: &Text, now: Instant) {
        self.unclocked.remove(key);
        let Some(checked) = self.checks.get_mut(key) else {
            return;
        };
        if checked.check.status == CRITICAL && checked.critical_since.is_none() {
            checked.critical_since = Some(now);
            if let Some(due) = checked.reap_due() {
                self.reaps.insert((due, key.clone()));
            }
        }
    }

    fn start_clocks(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.unclocked) {
            self.start_clock(&key, now);
        }
    }

    fn stop_clock(&mut self, key: &Text) {
        self.unclocked.remove(key);
        let Some(checked) = self.checks.get_mut(key) else {
            return;
        };
        if let Some(due) = checked.reap_due() {
            self.reaps.remove(&(due, key.clone()));
        }
        checked.critical_since = None;
    }
}

impl Offered {
    /// Takes over the tags that the catalog has.
    pub(super) fn adopt(&mut self, tags: Option<Vec<Text>>) {
        let defined = std::mem::replace(&mut Arc::make_mut(&mut self.service).tags, tags);
        self.defined_tags.get_or_insert(defined);
    }
}

impl Checked {
    /// How long what is said of it counts, if it waits to be told.
    fn ttl(&self) -> Option<Duration> {
        match self.kind {
            Some(CheckKind::Ttl(ttl)) => Some(ttl.min(FOREVER)),
            Some(
                CheckKind::Script { .. }
                | CheckKind::Http { .. }
                | CheckKind::Tcp { .. }
                | CheckKind::Docker { .. },
            )
            | None => None,
        }
    }

    /// When it has been critical for too long.
    fn reap_due(&self) -> Option<Instant> {
        Some(self.critical_since? + self.deregister_after?)
    }

    /// Whether this result, with those before it, is enough to believe it.
    ///
    /// A warning is believed at once, and neither a success nor a failure.
    fn is_convinced_by(&mut self, status: Status) -> bool {
        match status {
            Status::Passing => {
                self.failed = 0;
                self.passed = self.passed.saturating_add(1);
                self.passed >= self.success_before_passing || self.check.is_passing()
            }
            Status::Warning => {
                (self.passed, self.failed) = (0, 0);
                true
            }
            Status::Critical => {
                self.passed = 0;
                self.failed = self.failed.saturating_add(1);
                self.failed >= self.failures_before_critical || self.check.is_critical()
            }
        }
    }
}

/// Takes the first that is due.
fn take_due(deadlines: &mut BTreeSet<(Instant, Text)>, now: Instant) -> Option<Text> {
    if deadlines.first()?.0 > now {
        return None;
    }
    deadlines.pop_first().map(|(_, key)| key)
}

fn failed_check(name: &Text, why: &LocalError) -> LocalError {
    LocalError::Refused(format!("Failed to register check '{name}': {why}"))
}

fn not_valid() -> LocalError {
    LocalError::Refused("Check type is not valid".to_owned())
}

fn too_many(what: &str) -> LocalError {
    LocalError::Refused(format!("this node has {ITEMS_MAX} {what} already"))
}

/// The checks that a service brings along, as the service names them.
fn checks_of_service(
    service: &Service,
    checks: Vec<CheckDefinition>,
    token: &Text,
) -> Vec<CheckDefinition> {
    let is_single = checks.len() == 1;
    let name = [b"Service '", &*service.name, b"' check"].concat();
    let numbered = checks.into_iter().enumerate();
    let named = numbered.map(|(index, check)| CheckDefinition {
        id: id_of_check(&service.id, index, is_single),
        name: Text::from(name.as_slice()),
        service_id: service.id.clone(),
        token: token.clone(),
        ..check
    });
    named.collect()
}

/// How a check is called that comes along with a service, as the only one or at this place.
pub(super) fn id_of_check(service_id: &Text, index: usize, is_single: bool) -> Text {
    let mut id = [b"service:", &**service_id].concat();
    if !is_single {
        id.extend_from_slice(format!(":{}", index + 1).as_bytes());
    }
    Text::from(id)
}

/// Whether a service is small enough to be kept and told of.
fn check_service(service: &Service) -> Result<(), LocalError> {
    let names = [&service.id, &service.name, &service.address];
    let tags = service.tags.iter().flatten();
    let meta = service.meta.iter().flat_map(|(name, value)| [name, value]);
    // Each costs something beside its bytes.
    let size = tags.chain(meta).map(|text| text.len() + 8).sum();
    check_sizes("service", &service.id, &names, size)
}

/// Whether a check is small enough to be kept and told of.
fn check_check(check: &CheckDefinition) -> Result<(), LocalError> {
    let names = [&check.id, &check.name, &check.service_id];
    let kind = check.kind.as_ref().map_or(0, CheckKind::size);
    check_sizes("check", &check.id, &names, kind + check.notes.len())
}

fn check_sizes(what: &str, id: &Text, names: &[&Text], size: usize) -> Result<(), LocalError> {
    if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
        let text =
            format!("ids, names and addresses of a {what} take at most {NAME_BYTES_MAX} bytes");
        return Err(LocalError::Refused(text));
    }
    if size > DEFINITION_BYTES_MAX {
        let text = format!("the {what} '{id}' is larger than {DEFINITION_BYTES_MAX} bytes");
        return Err(LocalError::Refused(text));
    }
    Ok(())
}

/// Names that DNS can't say work everywhere else, so they are only mentioned.
fn warn_of_names(service: &Service) {
    let is_label = |name: &Text| {
        name.iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if !is_label(&service.name) {
        tracing::warn!(
            "service '{}' can't be found over DNS: its name has other characters than letters, digits and hyphens",
            service.name
        );
    }
    let tags = service.tags.iter().flatten();
    for tag in tags.filter(|tag| !is_label(tag)) {
        tracing::debug!(
            "tag '{tag}' of service '{}' can't be found over DNS",
            service.name
        );
    }
}

/// The time that counts, if one does.
fn deregister_after(id: &Text, asked: Duration) -> Option<Duration> {
    if asked.is_zero() {
        return None;
    }
    if asked < DEREGISTER_AFTER_MIN {
        tracing::warn!(
            "check '{id}' is to deregister its service after less than {DEREGISTER_AFTER_MIN:?}, which is the least"
        );
    }
    Some(asked.clamp(DEREGISTER_AFTER_MIN, FOREVER))
}

#[cfg(test)]
mod tests;
