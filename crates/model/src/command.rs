//! Everything that changes the replicated state.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Access, AclToken, Authority, CONSUL, Deregistration, Error, Index, KvOp, KvVerb, Need,
    NodeCoordinate, QuerySet, Registration, Resource, RestoreBegin, RestoreChunk, RestoreCommit,
    Session, Text, TxnOutcome,
};

/// A change of the state. The variant's name is its tag in the log and must never change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Write a node, a service, checks. Replies [`Reply::Nothing`].
    Register(Box<Registration>),
    /// Remove a node, a service or a check. Replies [`Reply::Nothing`].
    Deregister(Deregistration),
    /// One operation on a key. Replies [`Reply::Applied`].
    Kv(KvOp),
    /// Several operations on keys, all or none. Replies [`Reply::Txn`].
    Txn(Vec<KvOp>),
    /// Create a session. Replies [`Reply::Id`].
    SessionCreate(Box<Session>),
    /// End a session. Replies [`Reply::Nothing`], also if there is none.
    SessionDestroy(Uuid),
    /// Write a token. Replies [`Reply::Id`].
    AclSet(Box<AclToken>),
    /// Remove a token. Replies [`Reply::Nothing`], also if there is none.
    AclDelete(Text),
    /// Create or replace a prepared query. Replies [`Reply::Id`].
    QuerySet(Box<QuerySet>),
    /// Remove a prepared query. Replies [`Reply::Nothing`].
    QueryDelete(Uuid),
    /// Write coordinates of nodes. Replies [`Reply::Nothing`].
    Coordinates(Vec<NodeCoordinate>),
    /// Forget deletions up to this index. Replies [`Reply::Nothing`].
    TombstoneReap(Index),
    /// Open a restore. Replies [`Reply::Nothing`].
    RestoreBegin(RestoreBegin),
    /// A piece of a restore. Replies [`Reply::Nothing`].
    RestoreChunk(RestoreChunk),
    /// Swap in a restore. Replies [`Reply::Nothing`].
    RestoreCommit(RestoreCommit),
}

impl Command {
    /// What its sender must bring.
    pub fn need(&self) -> Need {
        match self {
            Self::AclSet(_)
            | Self::AclDelete(_)
            | Self::RestoreBegin(_)
            | Self::RestoreChunk(_)
            | Self::RestoreCommit(_) => Need::Management,
            Self::Register(_)
            | Self::Kv(_)
            | Self::Txn(_)
            | Self::QuerySet(_)
            | Self::QueryDelete(_) => Need::Token,
            Self::Deregister(_)
            | Self::SessionCreate(_)
            | Self::SessionDestroy(_)
            | Self::Coordinates(_)
            | Self::TombstoneReap(_) => Need::Nothing,
        }
    }

    /// What the rules of its sender's token must allow.
    ///
    /// # Errors
    /// Which rule is missing.
    pub fn guard(&self, authority: &Authority) -> Result<(), Error> {
        match self {
            Self::Register(registration) => match &registration.service {
                Some(service) if service.name != CONSUL => {
                    authority.demand(Resource::Service, &service.name, Access::Write)
                }
                _ => Ok(()),
            },
            Self::Kv(op) => match op.verb {
                KvVerb::DeleteTree => authority.demand_all(Resource::Key, &op.key, Access::Write),
                _ => authority.demand(Resource::Key, &op.key, Access::Write),
            },
            Self::AclSet(_)
            | Self::AclDelete(_)
            | Self::RestoreBegin(_)
            | Self::RestoreChunk(_)
            | Self::RestoreCommit(_) => authority.demand_management(),
            Self::Txn(_)
            | Self::QuerySet(_)
            | Self::QueryDelete(_)
            | Self::Deregister(_)
            | Self::SessionCreate(_)
            | Self::SessionDestroy(_)
            | Self::Coordinates(_)
            | Self::TombstoneReap(_) => Ok(()),
        }
    }
}

/// A command as it stands in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's wall clock when it accepted the command, in milliseconds since 1970.
    ///
    /// The store takes the highest seen so far, so time never goes back in the log.
    pub at_ms: u64,
    /// What to do.
    pub command: Command,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Nothing,
    /// Whether its condition held and it was done.
    Applied(bool),
    /// The id of what was written.
    Id(Text),
    /// What the transaction did.
    Txn(TxnOutcome),
}

/// What applying a command gives.
pub type ApplyResult = Result<Reply, Error>;
