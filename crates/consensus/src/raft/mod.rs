//! The only place that names the Raft library: its types, our storage and network under them, and their bytes.

pub(crate) mod codec;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod runtime;
pub(crate) mod storage;
mod watched;

use std::fmt;

use bytes::Bytes;

use crate::log::EntryId;
use crate::machine::Reply;
use crate::peer::NodeId;

openraft::declare_raft_types!(
    /// The types that the library is used with, everywhere.
    pub(crate) Types:
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = Address,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
        AsyncRuntime = runtime::SeededRuntime,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<NodeId, Address>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type CommittedLeader = openraft::alias::CommittedLeaderIdOf<Types>;
pub(crate) type Raft = openraft::Raft<Types, machine::Machine>;

/// A command; the library sees nothing but its length.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the machine answers.
pub(crate) struct Answer(pub(crate) Reply);

/// A member's attributes, beside its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: String,
    pub(crate) name: String,
}

pub(crate) fn to_log_id(id: EntryId) -> LogId {
    LogId {
        leader_id: id.term.into(),
        index: id.index,
    }
}

pub(crate) fn from_log_id(id: LogId) -> EntryId {
    EntryId {
        term: id.leader_id.term,
        index: id.index,
    }
}
