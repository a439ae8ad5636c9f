//! How the catalog is kept true to this node: what to tell it, and when.
//!
//! [`compare`] is the plan, a function of what is here and what is there.
//! What it finds waits in the state's queue together with every change that is made here, and [`State::next_push`] turns the queue into commands, one after the other.
//! [`Schedule`] says when to do which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Check, Command, Deregister, Deregistration, Error, Node, NodeServices, Registration,
    SERF_HEALTH, Service, Text,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::state::{Checked, Gone, Item, State};

/// The shortest time between two comparisons of everything; the original does the same.
const COMPARE_INTERVAL: Duration = Duration::from_secs(60);

/// How long to wait at least after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// How long to wait at most after a failure once a server came up.
const STAGGER: Duration = Duration::from_secs(3);

/// How many members a datacenter may have before its agents take more time.
const MEMBERS_UNHURRIED: usize = 128;

/// How many bytes of checks may go along with their service, all their texts and a little for each; the others follow one by one.
const CHECKS_BYTES_MAX: usize = 1 << 20;

/// What the servers have of this node.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalog {
    /// The node and its services; `None` if they know no such node.
    pub(super) node: Option<NodeServices>,
    /// Its checks.
    pub(super) checks: Vec<Arc<Check>>,
}

/// What is to be done so that the catalog is true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// What has to be written or removed.
    pub(super) items: BTreeSet<Item>,
    /// The ids of what has to be removed.
    pub(super) gone: BTreeMap<Item, Text>,
    /// Services whose tags the catalog knows better.
    pub(super) adopted: BTreeMap<Text, Option<Vec<Text>>>,
}

/// What makes the catalog true to this node.
///
/// The check `serfHealth` is the leader's and is left alone.
pub(super) fn compare(state: &State, catalog: &Catalog) -> Differences {
    let mut differences = Differences::default();
    let mut services = BTreeMap::new();
    let mut checks = BTreeMap::new();
    if let Some(node) = &catalog.node {
        let there = node.services.iter();
        services.extend(there.map(|service| (service.id.lower(), service)));
    }
    let serf_health = Text::from(SERF_HEALTH).lower();
    let there = catalog.checks.iter();
    checks.extend(there.map(|check| (check.check_id.lower(), check)));
    checks.remove(&serf_health);

    for (key, offered) in &state.services {
        let there = services.remove(key);
        let mut tags = &offered.service.tags;
        if let Some(there) = there
            && offered.service.enable_tag_override
            && !offered.has_new_tags
            && there.tags != *tags
        {
            differences.adopted.insert(key.clone(), there.tags.clone());
            tags = &there.tags;
        }
        if there.is_none_or(|there| !is_same_service(&offered.service, tags, there)) {
            differences.items.insert(Item::Service(key.clone()));
        }
    }
    for (key, checked) in &state.checks {
        let there = checks.remove(key);
        if there.is_none_or(|there| !is_same_check(checked, there)) {
            differences.items.insert(Item::Check(key.clone()));
        }
    }
    for (key, check) in checks {
        // It goes with its service if that goes.
        if !services.contains_key(&check.service_id.lower()) {
            differences.remove(Item::Check(key), &check.check_id);
        }
    }
    for (key, service) in services {
        differences.remove(Item::Service(key), &service.id);
    }
    let node = catalog.node.as_ref().map(|node| &*node.node);
    if node.is_none_or(|node| !is_same_node(&state.node, node)) {
        differences.items.insert(Item::Node);
    }
    differences
}

impl Differences {
    fn remove(&mut self, item: Item, id: &Text) {
        self.items.insert(item.clone());
        self.gone.insert(item, id.clone());
    }
}

/// Where the node is reached is not compared: the leader knows it from gossip and would write it back.
fn is_same_node(here: &Node, there: &Node) -> bool {
    here.tagged_addresses == there.tagged_addresses
        && here.id == there.id
        && here.meta == there.meta
}

fn is_same_service(here: &Service, tags: &Option<Vec<Text>>, there: &Service) -> bool {
    here.id == there.id
        && here.name == there.name
        && *tags == there.tags
        && here.address == there.address
        && here.port == there.port
        && here.enable_tag_override == there.enable_tag_override
        && here.meta == there.meta
}

fn is_same_check(checked: &Checked, there: &Check) -> bool {
    let here = &checked.check;
    // What is new in an output may wait, and must not be told early because everything is compared.
    let is_output_told = checked.output_due.is_some() || here.output == there.output;
    here.check_id == there.check_id
        && here.name == there.name
        && here.status == there.status
        && here.notes == there.notes
        && here.service_id == there.service_id
        && here.service_name == there.service_name
        && is_output_told
}

/// One command on its way to the servers.
pub(super) struct Push {
    /// What is told.
    pub(super) command: Command,
    /// Whose word it is.
    pub(super) token: Text,
    /// What the catalog is true about afterwards, and where that waited.
    covers: Vec<(u64, Item)>,
}

/// What became of a [`Push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The servers have it.
    Done,
    /// The servers will not have it as it is: it waits for the next comparison of everything, and holds up nobody.
    Refused,
    /// Nobody could take it; it is tried again.
    Failed,
}

impl Outcome {
    /// What the servers' answer means.
    pub(super) fn of<T>(answer: &Result<T, Error>) -> Self {
        match answer {
            Ok(_) => Self::Done,
            Err(error) => match error.kind() {
                Error::PermissionDenied
                | Error::PermissionDeniedBecause(_)
                | Error::AclNotFound
                | Error::NotFound(_)
                | Error::Invalid(_) => Self::Refused,
                Error::NoLeader
                | Error::NoServers
                | Error::NoPath
                | Error::Restored
                | Error::OutcomeUnknown
                | Error::Unavailable(_)
                | Error::Internal(_)
                | Error::Remote(_) => Self::Failed,
            },
        }
    }
}

/// Without the token.
impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("command", &self.command)
            .field("covers", &self.covers)
            .finish_non_exhaustive()
    }
}

impl Push {
    /// What became of it, by the servers' answer.
    pub(super) fn outcome<T>(&self, answer: &Result<T, Error>) -> Outcome {
        match (&self.command, answer) {
            // From version 8 of access control on they refuse to forget what they don't know. Then it is gone.
            (Command::Deregister(_), Err(error)) if is_unknown(error) => Outcome::Done,
            _ => Outcome::of(answer),
        }
    }

    /// The lowest position of what is on its way.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.covers.iter().map(|(position, _)| *position).min()
    }
}

impl State {
    /// Takes over what a comparison has found: this, and nothing else, waits to be told now.
    pub(super) fn take_over(&mut self, differences: Differences) {
        for (key, tags) in differences.adopted {
            if let Some(offered) = self.services.get_mut(&key) {
                offered.adopt(tags);
            }
        }
        for (key, offered) in &mut self.services {
            // The catalog has those that are not among the differences.
            offered.has_new_tags &= differences.items.contains(&Item::Service(key.clone()));
        }
        let mut gone = std::mem::take(&mut self.gone);
        for (item, id) in differences.gone {
            let token = gone.remove(&item).map(|gone| gone.token);
            let gone = Gone {
                id,
                token: token.unwrap_or_default(),
                // Those that go with it are not among the differences.
                checks: Vec::new(),
            };
            self.gone.insert(item, gone);
        }
        let waits = self.queue.items();
        let told = waits.filter(|item| !differences.items.contains(item));
        let told: Vec<Item> = told.cloned().collect();
        for item in told {
            self.queue.remove(&item);
        }
        for item in differences.items {
            self.queue.mark(item);
        }
    }

    /// The next thing to tell the servers, if something waits.
    pub(super) fn next_push(&mut self) -> Option<Push> {
        while let Some((position, item)) = self.queue.pop() {
            if self.needs_node_first(&item)
                && let Some(of_node) = self.queue.remove(&Item::Node)
            {
                self.queue.put_back(position, item);
                return self.push(of_node, Item::Node);
            }
            if let Some(push) = self.push(position, item) {
                return Some(push);
            }
        }
        None
    }

    /// Whether it tells of the node with a token that need not be good for it: the agent's own goes first then, so that nothing of the node is left to be changed.
    fn needs_node_first(&self, item: &Item) -> bool {
        let token = match item {
            Item::Node => return false,
            Item::Service(key) => self.services.get(key).map(|offered| &offered.token),
            Item::Check(key) => self.checks.get(key).map(|checked| &checked.token),
        };
        token.is_some_and(|token| self.token_of(token) != self.agent_token)
    }

    fn push(&mut self, position: u64, item: Item) -> Option<Push> {
        if let Some(gone) = self.gone.get(&item) {
            let what = match &item {
                Item::Service(_) => Deregister::Service(gone.id.clone()),
                Item::Check(_) => Deregister::Check(gone.id.clone()),
                Item::Node => return None,
            };
            let token = self.token_of(&gone.token);
            let mut covers = vec![(position, item.clone())];
            for check in &gone.checks {
                let item = Item::Check(check.clone());
                // One that is back has to be told of.
                if self.gone.contains_key(&item)
                    && let Some(position) = self.queue.remove(&item)
                {
                    covers.push((position, item));
                }
            }
            return Some(Push {
                command: Command::Deregister(Deregistration {
                    node: self.node.name.clone(),
                    what,
                }),
                token,
                covers,
            });
        }
        match &item {
            Item::Node => {
                let token = self.agent_token.clone();
                Some(self.registration(None, Vec::new(), token, vec![(position, item)]))
            }
            Item::Service(key) => {
                let key = key.clone();
                self.push_service(&key, (position, item))
            }
            Item::Check(key) => {
                let key = key.clone();
                let checked = self.checks.get(&key)?;
                let service = Item::Service(checked.check.service_id.lower());
                if let Some(of_service) = self.queue.remove(&service) {
                    // Without its service the catalog would refuse it. What is told first may tell of both.
                    self.queue.put_back(position, item);
                    return self.push(of_service, service);
                }
                let check = Check::clone(&checked.check);
                let token = self.token_of(&checked.token);
                self.cancel_output(&key);
                Some(self.registration(None, vec![check], token, vec![(position, item)]))
            }
        }
    }

    /// A service, with those of its checks that wait and are of the same token.
    fn push_service(&mut self, key: &Text, cover: (u64, Item)) -> Option<Push> {
        let offered = self.services.get(key)?;
        let service = Service::clone(&offered.service);
        let token = self.token_of(&offered.token);
        let mut covers = vec![cover];
        let mut checks = Vec::new();
        let mut size = 0;
        for key in self.keys_of_checks(key) {
            let item = Item::Check(key.clone());
            let Some(checked) = self.checks.get(&key) else {
                continue;
            };
            if !self.queue.contains(&item) || self.token_of(&checked.token) != token {
                continue;
            }
            let check = Check::clone(&checked.check);
            size += size_of_check(&check);
            if size > CHECKS_BYTES_MAX {
                break;
            }
            if let Some(position) = self.queue.remove(&item) {
                self.cancel_output(&key);
                covers.push((position, item));
                checks.push(check);
            }
        }
        Some(self.registration(Some(service), checks, token, covers))
    }

    /// Every registration tells of the node as well.
    fn registration(
        &mut self,
        service: Option<Service>,
        checks: Vec<Check>,
        token: Text,
        mut covers: Vec<(u64, Item)>,
    ) -> Push {
        if let Some(position) = self.queue.remove(&Item::Node) {
            covers.push((position, Item::Node));
        }
        let registration = Registration {
            node: self.node.clone(),
            service,
            checks,
        };
        Push {
            command: Command::Register(Box::new(registration)),
            token,
            covers,
        }
    }

    fn token_of(&self, token: &Text) -> Text {
        if token.is_empty() {
            self.token.clone()
        } else {
            token.clone()
        }
    }

    /// Hears what became of something that the servers were told.
    pub(super) fn settle(&mut self, push: Push, outcome: Outcome) {
        for (position, item) in push.covers {
            match outcome {
                Outcome::Failed => self.queue.put_back(position, item),
                // It came up again while it was on its way.
                Outcome::Done | Outcome::Refused if self.queue.contains(&item) => {}
                Outcome::Refused if item == Item::Node => {
                    // Somebody else's token may be good for it.
                    if !matches!(&push.command, Command::Register(it) if is_bare(it)) {
                        self.queue.put_back(position, item);
                    }
                }
                Outcome::Done | Outcome::Refused => {
                    self.gone.remove(&item);
                    if let Item::Service(key) = &item
                        && outcome == Outcome::Done
                        && let Some(offered) = self.services.get_mut(key)
                    {
                        offered.has_new_tags = false;
                    }
                }
            }
        }
    }
}

/// Whether an error, of a deregistration, says that there is no such thing: nothing else can be wrong with one.
fn is_unknown(error: &Error) -> bool {
    matches!(error.kind(), Error::Invalid(_) | Error::NotFound(_))
}

/// How much room a check takes in a command, at most.
fn size_of_check(check: &Check) -> usize {
    let texts = [
        &check.node,
        &check.check_id,
        &check.name,
        &check.status,
        &check.notes,
        &check.output,
        &check.service_id,
        &check.service_name,
    ];
    // The names of the fields, and indexes.
    const REST: usize = 128;
    texts.iter().map(|text| text.len()).sum::<usize>() + REST
}

/// Whether it tells of the node alone.
fn is_bare(registration: &Registration) -> bool {
    registration.service.is_none() && registration.checks.is_empty()
}

/// When the catalog is told what has changed, and when everything is compared.
#[derive(Debug)]
pub(super) struct Schedule {
    /// When everything is compared next.
    compare_at: Instant,
    /// When what could not be told is tried again.
    retry_at: Option<Instant>,
    /// Whether something has changed that was not tried yet.
    is_wanted: bool,
    /// Whether the last comparison failed.
    compare_failed: bool,
    /// Whether a server came up since something was begun.
    servers_changed: bool,
    chance: StdRng,
}

/// What is to be done about the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Compare everything.
    Compare,
    /// Tell what waits.
    Push,
}

impl Schedule {
    /// Everything is compared at once.
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            compare_at: now,
            retry_at: None,
            is_wanted: false,
            compare_failed: false,
            servers_changed: false,
            chance: StdRng::seed_from_u64(seed),
        }
    }

    /// What to begin, if nothing is under way; `waits` says whether something waits to be told.
    pub(super) fn next(&mut self, now: Instant, waits: bool) -> Option<Task> {
        if now >= self.compare_at {
            self.servers_changed = false;
            return Some(Task::Compare);
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.want();
        }
        self.is_wanted &= waits;
        if !waits {
            self.retry_at = None;
        }
        if !self.is_wanted {
            return None;
        }
        self.servers_changed = false;
        Some(Task::Push)
    }

    /// When there may be something to begin although nothing happens.
    pub(super) fn next_at(&self) -> Instant {
        self.retry_at
            .map_or(self.compare_at, |at| at.min(self.compare_at))
    }

    /// Something has changed that the servers should hear of at once.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
        self.retry_at = None;
    }

    /// Everything should be compared at once.
    pub(super) fn want_comparison(&mut self, now: Instant) {
        self.compare_at = now;
    }

    /// Everything was compared, and what was found waits.
    pub(super) fn compared(&mut self, now: Instant, members: usize) {
        let interval = scaled(COMPARE_INTERVAL, members);
        self.compare_at = now + interval + self.part_of(interval);
        self.compare_failed = false;
        self.want();
    }

    /// The servers could not be asked.
    pub(super) fn comparison_failed(&mut self, now: Instant, members: usize) {
        self.compare_failed = true;
        self.compare_at = now + self.retry(members);
    }

    /// Something could not be told; neither could the rest.
    pub(super) fn push_failed(&mut self, now: Instant, members: usize) {
        self.is_wanted = false;
        self.retry_at = Some(now + self.retry(members));
    }

    /// What waits is not tried for now.
    pub(super) fn give_up(&mut self) {
        self.is_wanted = false;
    }

    /// A server came up, or there is a leader: what failed is tried soon, but not by all agents in the same moment.
    pub(super) fn servers_changed(&mut self, now: Instant, members: usize) {
        self.servers_changed = true;
        let soon = now + self.stagger(members);
        if self.compare_failed {
            self.compare_at = self.compare_at.min(soon);
        }
        if let Some(at) = &mut self.retry_at {
            *at = soon.min(*at);
        }
    }

    fn retry(&mut self, members: usize) -> Duration {
        if std::mem::take(&mut self.servers_changed) {
            return self.stagger(members);
        }
        RETRY_INTERVAL + self.part_of(scaled(RETRY_INTERVAL, members))
    }

    fn stagger(&mut self, members: usize) -> Duration {
        self.part_of(scaled(STAGGER, members))
    }

    fn part_of(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(self.chance.random_range(0.0..1.0))
    }
}

/// Larger datacenters take more time, so that their servers have no more to do.
fn scaled(interval: Duration, members: usize) -> Duration {
    let mut factor = 1;
    let mut unhurried = MEMBERS_UNHURRIED;
    while unhurried < members {
        factor += 1;
        unhurried = unhurried.saturating_mul(2);
    }
    interval * factor
}

#[cfg(test)]
mod tests;
