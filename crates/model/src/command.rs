//! Everything that changes the replicated state.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    AclToken, CONSUL, Deregistration, Error, Index, KvOp, Need, NodeCoordinate, QuerySet,
    Registration, RestoreBegin, RestoreChunk, RestoreCommit, Session, Text, TokenId, TxnOutcome,
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
    AclDelete(TokenId),
    /// Create or replace a prepared query. Replies [`Reply::Id`].
    QuerySet(Box<QuerySet>),
    /// Remove a prepared query. Replies [`Reply::Nothing`].
    QueryDelete(Uuid),
    /// Write coordinates of nodes. Replies [`Reply::Nothing`].
    Coordinates(Vec<NodeCoordinate>),
    /// End a session whose time is up, in this term of the log and in no other. Replies [`Reply::Nothing`], also if there is none.
    SessionExpire {
        /// Which.
        id: Uuid,
        /// The term of the leader that says so: once there is another, it has its own timers.
        term: u64,
    },
    /// Let those keys that a session lost up to this index of the log be locked again after their lock-delay from now on.
    /// Replies [`Reply::Nothing`].
    LockDelaysBegin(u64),
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
            // Nodes and checks are anybody's before version 8, whatever token comes along.
            Self::Register(registration)
                if (registration.service.as_ref()).is_none_or(|service| service.name == CONSUL) =>
            {
                Need::Version8
            }
            Self::Register(_)
            | Self::Kv(_)
            | Self::Txn(_)
            | Self::QuerySet(_)
            | Self::QueryDelete(_) => Need::Token,
            Self::Deregister(_) | Self::SessionCreate(_) | Self::SessionDestroy(_) => {
                Need::Version8
            }
            Self::SessionExpire { .. }
            | Self::LockDelaysBegin(_)
            | Self::Coordinates(_)
            | Self::TombstoneReap(_) => Need::Nothing,
        }
    }
}

/// A command as it stands in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The log's clock when the leader accepted the command, in milliseconds.
    ///
    /// It began with a wall clock, and goes on by the monotonic clock of each leader from where the last one left it: two
    /// entries are never further apart than the time between them really was, whatever the clocks on the walls do.
    /// The store takes the highest seen so far, so time never goes back in the log.
    pub at_ms: u64,
    /// What to do.
    pub command: Command,
}

/// What a command answers.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
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

impl std::fmt::Debug for Reply {
    /// Without the id, which may be that of a token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Applied(done) => f.debug_tuple("Applied").field(done).finish(),
            Self::Id(_) => f.debug_tuple("Id").finish_non_exhaustive(),
            Self::Txn(outcome) => f.debug_tuple("Txn").field(outcome).finish(),
        }
    }
}

/// What applying a command gives.
pub type ApplyResult = Result<Reply, Error>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AclInfo, PreparedQuery, Question};

    #[test]
    fn secrets_are_not_shown() {
        let secret = Text::from("s3cret");
        let token = AclToken {
            id: secret.clone(),
            ..AclToken::default()
        };
        let query = PreparedQuery {
            token: secret.clone(),
            ..PreparedQuery::default()
        };
        let info = AclInfo { id: secret.clone() };
        for shown in [
            format!("{:?}", Command::AclSet(Box::new(token))),
            format!("{:?}", Command::AclDelete(TokenId(secret.clone()))),
            format!("{:?}", Question::from(info)),
            format!("{:?}", Reply::Id(secret)),
            format!("{query:?}"),
        ] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
