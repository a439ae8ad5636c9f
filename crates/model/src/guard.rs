//! What a token must allow before something is done: one guard for each command, question and operation.
//!
//! Rules about nodes and sessions hold from version 8 on; before it an [`Authority`] allows whatever they are asked for.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    Access, Answer, Authority, CONSUL, Check, Command, Deregister, Deregistration, Error, Filter,
    KeyringVerb, KvOp, KvVerb, Node, Operation, PreparedQuery, Question, Registration, Reply,
    Resource, Service, Session, Text, TxnError, TxnOutcome,
};

/// What guards have to know of the state. Names of nodes, and ids on them, are without regard to case.
pub trait Facts {
    /// The node of this name.
    fn node(&self, name: &Text) -> Option<Arc<Node>>;
    /// The service of this id on this node.
    fn service(&self, node: &Text, id: &Text) -> Option<Arc<Service>>;
    /// The check of this id on this node.
    fn check(&self, node: &Text, id: &Text) -> Option<Arc<Check>>;
    /// The session of this id.
    fn session(&self, id: Uuid) -> Option<Arc<Session>>;
    /// The query of this id.
    fn query(&self, id: Uuid) -> Option<Arc<PreparedQuery>>;
}

impl Command {
    /// What it is called where people read of it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Register(_) => "Register",
            Self::Deregister(_) => "Deregister",
            Self::Kv(_) => "Kv",
            Self::Txn(_) => "Txn",
            Self::SessionCreate(_) => "SessionCreate",
            Self::SessionDestroy(_) => "SessionDestroy",
            Self::SessionExpire { .. } => "SessionExpire",
            Self::LockDelaysBegin(_) => "LockDelaysBegin",
            Self::AclSet(_) => "AclSet",
            Self::AclDelete(_) => "AclDelete",
            Self::QuerySet(_) => "QuerySet",
            Self::QueryDelete(_) => "QueryDelete",
            Self::Coordinates(_) => "Coordinates",
            Self::TombstoneReap(_) => "TombstoneReap",
            Self::RestoreBegin(_) => "RestoreBegin",
            Self::RestoreChunk(_) => "RestoreChunk",
            Self::RestoreCommit(_) => "RestoreCommit",
        }
    }

    /// What the rules of its sender's token must allow.
    ///
    /// With a reply it is not carried out, since that reply is its answer: a transaction says for each operation what is
    /// missing.
    ///
    /// # Errors
    /// Which rule is missing.
    pub fn guard(&self, authority: &Authority, facts: &dyn Facts) -> Result<Option<Reply>, Error> {
        if authority.is_unlimited() {
            return Ok(None);
        }
        match self {
            Self::Register(registration) => guard_registration(registration, authority, facts)?,
            Self::Deregister(deregistration) => {
                guard_deregistration(deregistration, authority, facts)?;
            }
            Self::Kv(op) => match op.verb {
                KvVerb::DeleteTree => {
                    authority.demand_all(Resource::Key, &op.key, Access::Write)?
                }
                _ => authority.demand(Resource::Key, &op.key, Access::Write)?,
            },
            Self::Txn(ops) => return Ok(refusals(ops, authority).map(Reply::Txn)),
            Self::SessionCreate(session) => {
                guard_node(Resource::Session, &session.node, authority, facts)?;
            }
            // Ending one that isn't there does nothing, so everybody may.
            Self::SessionDestroy(id) => {
                if let Some(session) = facts.session(*id) {
                    guard_session(&session, authority)?;
                }
            }
            Self::QuerySet(set) => {
                guard_query(&set.query, authority)?;
                if let Some(before) = facts.query(set.query.id).filter(|_| !set.create) {
                    guard_query(&before, authority)?;
                }
            }
            Self::QueryDelete(id) => {
                if let Some(before) = facts.query(*id) {
                    guard_query(&before, authority)?;
                }
            }
            Self::AclSet(_)
            | Self::AclDelete(_)
            | Self::RestoreBegin(_)
            | Self::RestoreChunk(_)
            | Self::RestoreCommit(_) => authority.demand_management()?,
            // Servers gather coordinates, and have asked for the right of each when it came in. The rest only the leader
            // says to itself.
            Self::Coordinates(_)
            | Self::SessionExpire { .. }
            | Self::LockDelaysBegin(_)
            | Self::TombstoneReap(_) => {}
        }
        Ok(None)
    }
}

impl Filter for Reply {
    /// What a transaction wrote or read may be more than its sender may see.
    fn filter(&mut self, authority: &Authority) {
        match self {
            Self::Txn(outcome) => outcome.filter(authority),
            Self::Nothing | Self::Applied(_) | Self::Id(_) => {}
        }
    }
}

impl Question {
    /// What the rules of its asker's token must allow; what they hide is taken out of the answer by its
    /// [`Filter`](crate::Filter).
    ///
    /// With an answer it isn't asked, since that is its answer.
    ///
    /// # Errors
    /// Which rule is missing.
    pub fn guard(&self, authority: &Authority) -> Result<Option<Answer>, Error> {
        match self {
            Self::TxnRead(read) => Ok(refusals(&read.ops, authority).map(Answer::TxnRead)),
            Self::AclList(_) => authority.demand_management().map(|()| None),
            // Rows that may not be seen are taken out of these.
            Self::KvGet(_)
            | Self::KvList(_)
            | Self::KvKeys(_)
            | Self::CatalogNodes(_)
            | Self::CatalogServices(_)
            | Self::CatalogService(_)
            | Self::CatalogNode(_)
            | Self::HealthNode(_)
            | Self::HealthChecks(_)
            | Self::HealthState(_)
            | Self::HealthService(_)
            | Self::SessionInfo(_)
            | Self::SessionList(_)
            | Self::SessionNode(_)
            | Self::AclInfo(_)
            | Self::QueryGet(_)
            | Self::QueryList(_)
            | Self::QueryExecute(_)
            | Self::QueryElsewhere(_)
            | Self::QueryExplain(_)
            | Self::CoordinateNodes(_)
            | Self::CoordinateLookup(_)
            | Self::NodeLookup(_)
            | Self::AddressLookup(_)
            | Self::ServiceLookup(_) => Ok(None),
        }
    }
}

impl Operation {
    /// What it is called where people read of it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Peers => "Peers",
            Self::RaftConfiguration => "RaftConfiguration",
            Self::RaftRemovePeer(_) => "RaftRemovePeer",
            Self::Keyring(_) => "Keyring",
            Self::ResolveToken => "ResolveToken",
            Self::SessionRenew(_) => "SessionRenew",
            Self::FireEvent(_) => "FireEvent",
            Self::UpdateCoordinate(_) => "UpdateCoordinate",
            Self::Promise { .. } => "Promise",
        }
    }

    /// What the rules of its asker's token must allow.
    ///
    /// # Errors
    /// Which rule is missing.
    pub fn guard(&self, authority: &Authority, facts: &dyn Facts) -> Result<(), Error> {
        match self {
            // The first ones tell nothing that their asker couldn't have otherwise. The leader itself judges who renews,
            // by the very session that gets its time again: the facts here may be older than it.
            Self::Peers | Self::ResolveToken | Self::Promise { .. } | Self::SessionRenew(_) => {
                Ok(())
            }
            Self::FireEvent(event) => authority.demand(Resource::Event, &event.name, Access::Write),
            Self::UpdateCoordinate(coordinate) => {
                guard_node(Resource::Node, &coordinate.node, authority, facts)
            }
            Self::RaftConfiguration => authority.demand(Resource::Operator, b"", Access::Read),
            Self::RaftRemovePeer(_) => authority.demand(Resource::Operator, b"", Access::Write),
            // The original has words of its own for these, and another status.
            Self::Keyring(KeyringVerb::List) => {
                guard_keyring(authority, Access::Read, "Reading keyring denied by ACLs")
            }
            Self::Keyring(
                KeyringVerb::Install(_) | KeyringVerb::Use(_) | KeyringVerb::Remove(_),
            ) => guard_keyring(
                authority,
                Access::Write,
                "Modifying keyring denied due to ACLs",
            ),
        }
    }
}

fn guard_keyring(authority: &Authority, access: Access, refusal: &str) -> Result<(), Error> {
    match authority.demand(Resource::Keyring, b"", access) {
        Err(Error::PermissionDeniedBecause(why)) => {
            Err(Error::invalid(format!("{refusal}: {why}")))
        }
        result => result,
    }
}

/// What the rules of its bearer's token must allow who wants to create, renew or end this session.
///
/// # Errors
/// Which rule is missing.
pub fn guard_session(session: &Session, authority: &Authority) -> Result<(), Error> {
    authority.demand(Resource::Session, &session.node, Access::Write)
}

/// Only queries with a name, or that are templates, are anybody's; others belong to whoever knows their id.
fn guard_query(query: &PreparedQuery, authority: &Authority) -> Result<(), Error> {
    if query.is_ruled() {
        authority.demand(Resource::Query, &query.name, Access::Write)
    } else {
        Ok(())
    }
}

/// What a transaction may not do, operation by operation; `None` if it may do all of it.
///
/// Reading is judged by what comes out, but whether a check holds tells of the key as well.
fn refusals(ops: &[KvOp], authority: &Authority) -> Option<TxnOutcome> {
    if authority.is_unlimited() {
        return None;
    }
    let mut is_denied = false;
    let mut errors = Vec::new();
    for (op_index, op) in ops.iter().enumerate() {
        if op.key.is_empty() && op.verb != KvVerb::DeleteTree {
            // The servers look at both before they do anything, so whoever learns of one learns of the other.
            errors.push(TxnError {
                op_index,
                what: "Must provide key".to_owned(),
            });
            continue;
        }
        let allowed = match op.verb {
            KvVerb::Get | KvVerb::GetTree => Ok(()),
            KvVerb::CheckIndex(_) | KvVerb::CheckSession(_) => {
                authority.demand(Resource::Key, &op.key, Access::Read)
            }
            KvVerb::DeleteTree => authority.demand_all(Resource::Key, &op.key, Access::Write),
            KvVerb::Set
            | KvVerb::Cas(_)
            | KvVerb::Lock(_)
            | KvVerb::Unlock(_)
            | KvVerb::Delete
            | KvVerb::DeleteCas(_) => authority.demand(Resource::Key, &op.key, Access::Write),
        };
        if let Err(error) = allowed {
            is_denied = true;
            errors.push(TxnError {
                op_index,
                what: error.to_string(),
            });
        }
    }
    is_denied.then(|| TxnOutcome {
        results: Vec::new(),
        errors,
    })
}

fn guard_registration(
    registration: &Registration,
    authority: &Authority,
    facts: &dyn Facts,
) -> Result<(), Error> {
    let service = registration.service.as_ref();
    if let Some(service) = service
        && (service.name != CONSUL || authority.is_of_version_8())
    {
        authority.demand(Resource::Service, &service.name, Access::Write)?;
    }
    if !authority.is_of_version_8() {
        return Ok(());
    }
    let node = &registration.node;
    let is_changed = (facts.node(&node.name)).is_none_or(|before| !is_same_node(node, &before));
    // Agents say where their node is with everything that they register, and may do so for as long as it is nothing new.
    if is_changed {
        guard_node(Resource::Node, &node.name, authority, facts)?;
        // Another spelling of its name is a change as well.
        authority.demand(Resource::Node, &node.name, Access::Write)?;
    }
    // The leader fills in what is left out only once it is allowed.
    let service_id = service.map(|service| or(&service.id, &service.name));
    if let Some(id) = service_id
        && let Some(replaced) = facts.service(&node.name, id)
    {
        authority.demand(Resource::Service, &replaced.name, Access::Write)?;
    }
    for check in &registration.checks {
        let check_id = or(&check.check_id, &check.name);
        if !check.node.is_empty() && check.node != node.name {
            return Err(Error::invalid(format!(
                "Node '{}' for check '{check_id}' doesn't match register request node '{}'",
                check.node, node.name
            )));
        }
        if check.service_id.is_empty() {
            guard_node(Resource::Node, &node.name, authority, facts)?;
            continue;
        }
        if service_id == Some(&check.service_id) {
            continue;
        }
        let Some(service) = facts.service(&node.name, &check.service_id) else {
            return Err(Error::invalid(format!(
                "Unknown service '{}' for check '{check_id}'",
                check.service_id
            )));
        };
        authority.demand(Resource::Service, &service.name, Access::Write)?;
    }
    Ok(())
}

/// Nodes are found without regard to case, and rules regard it: what counts is the name that the node goes by.
fn guard_node(
    resource: Resource,
    given: &Text,
    authority: &Authority,
    facts: &dyn Facts,
) -> Result<(), Error> {
    match facts.node(given) {
        Some(node) => authority.demand(resource, &node.name, Access::Write),
        None => authority.demand(resource, given, Access::Write),
    }
}

fn or<'a>(given: &'a Text, otherwise: &'a Text) -> &'a Text {
    if given.is_empty() { otherwise } else { given }
}

/// Whether a registration says about its node what is known of it.
fn is_same_node(given: &Node, known: &Node) -> bool {
    given.name == known.name
        && given.address == known.address
        && given.tagged_addresses == known.tagged_addresses
        && given.id == known.id
        && given.meta == known.meta
}

fn guard_deregistration(
    deregistration: &Deregistration,
    authority: &Authority,
    facts: &dyn Facts,
) -> Result<(), Error> {
    if !authority.is_of_version_8() {
        return Ok(());
    }
    let node = &deregistration.node;
    match &deregistration.what {
        Deregister::Node => guard_node(Resource::Node, node, authority, facts),
        Deregister::Service(id) => match facts.service(node, id) {
            Some(service) => authority.demand(Resource::Service, &service.name, Access::Write),
            None => Err(Error::invalid(format!("Unknown service '{id}'"))),
        },
        Deregister::Check(id) => match facts.check(node, id) {
            Some(check) => guard_check(&check, authority),
            None => Err(Error::invalid(format!("Unknown check '{id}'"))),
        },
    }
}

/// A check belongs to whom its service belongs to, or its node.
fn guard_check(check: &Check, authority: &Authority) -> Result<(), Error> {
    if check.service_id.is_empty() {
        authority.demand(Resource::Node, &check.node, Access::Write)
    } else {
        authority.demand(Resource::Service, &check.service_name, Access::Write)
    }
}
