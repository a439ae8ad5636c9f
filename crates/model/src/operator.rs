//! What an operator asks of the servers besides the state: who takes part, and with which keys they gossip.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Index, Need, NewEvent, NodeCoordinate, Resolved, Session};

/// Something that a server does or tells without the log's part in it being the caller's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Who leads and who votes, as the server that is asked knows it. Answers [`Operated::Peers`].
    Peers,
    /// Who takes part in consensus. Answers [`Operated::RaftConfiguration`].
    RaftConfiguration,
    /// Takes the server with this `ip:port` out of consensus. Answers [`Operated::Nothing`].
    RaftRemovePeer(String),
    /// Looks at or changes the keys of gossip. Answers [`Operated::Keyring`].
    Keyring(KeyringVerb),
    /// What the bearer of the token that comes along may do; it stands in the options, like everybody's. Answers
    /// [`Operated::Policy`].
    ResolveToken,
    /// Says that whoever holds this session is still there. Answers [`Operated::Session`].
    SessionRenew(Uuid),
    /// Sends an event to all agents of the datacenter. Answers [`Operated::Fired`].
    FireEvent(Box<NewEvent>),
    /// Where a node is now; written with others' in batches. Answers [`Operated::Nothing`].
    UpdateCoordinate(Box<NodeCoordinate>),
    /// Promises not to take part in a cluster that another server founds, for a while. Answers [`Operated::Nothing`].
    Promise {
        /// Who it is promised to: the id of its data directory.
        founder: u64,
        /// Who is asked, for an address may have changed hands.
        promiser: u64,
    },
}

/// What an [`Operation`] answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operated {
    /// It is done.
    Nothing,
    /// Who leads and who votes.
    Peers(Peers),
    /// Who takes part in consensus.
    RaftConfiguration(RaftConfiguration),
    /// What the members of each pool said.
    Keyring(Vec<KeyringPool>),
    /// What a token's bearer may do.
    Policy(Box<Resolved>),
    /// The event is on its way, with this id.
    Fired(Uuid),
    /// The session, if there is one.
    Session(Option<Arc<Session>>),
}

impl Operation {
    /// What its asker must bring.
    pub fn need(&self) -> Need {
        match self {
            Self::Peers | Self::ResolveToken | Self::Promise { .. } => Need::Nothing,
            Self::SessionRenew(_) | Self::UpdateCoordinate(_) => Need::Version8,
            Self::RaftConfiguration
            | Self::RaftRemovePeer(_)
            | Self::Keyring(_)
            | Self::FireEvent(_) => Need::Token,
        }
    }

    /// Whether only the leader can do it; any server does the rest.
    pub fn needs_leader(&self) -> bool {
        match self {
            Self::RaftConfiguration | Self::RaftRemovePeer(_) | Self::SessionRenew(_) => true,
            Self::Peers
            | Self::Keyring(_)
            | Self::ResolveToken
            | Self::FireEvent(_)
            | Self::UpdateCoordinate(_)
            | Self::Promise { .. } => false,
        }
    }
}

/// Who takes part in consensus, as a server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peers {
    /// The leader's `ip:port`, or empty.
    pub leader: String,
    /// Every voter's `ip:port`.
    pub servers: Vec<String>,
    /// The ids of all that take part, voters or not: two lists that have none in common are two clusters.
    pub ids: Vec<u64>,
}

/// The members of consensus and how old that list is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RaftConfiguration {
    /// The members.
    pub servers: Vec<RaftServer>,
    /// The log's index at which this became so.
    pub index: Index,
}

/// A member of consensus.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RaftServer {
    /// The name of its node, or `(unknown)` if gossip does not know it.
    pub node: String,
    /// Its `ip:port`, which is also what the original shows as its id.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
}

/// What to do with the keys of gossip. Keys are written in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyringVerb {
    /// Tell which there are.
    List,
    /// Let all members decrypt with this one as well.
    Install(String),
    /// Encrypt with this one from now on.
    Use(String),
    /// Forget this one.
    Remove(String),
}

impl std::fmt::Debug for KeyringVerb {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::List => "List",
            Self::Install(_) => "Install",
            Self::Use(_) => "Use",
            Self::Remove(_) => "Remove",
        })
    }
}

/// What the members of one pool said about their keys.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyringPool {
    /// Whether it is the pool of servers of all datacenters.
    pub wan: bool,
    /// The datacenter of the server that asked.
    pub datacenter: String,
    /// What went wrong, by member.
    pub messages: BTreeMap<String, String>,
    /// The keys in base64, and how many members have each.
    pub keys: BTreeMap<String, u64>,
    /// How many members there are.
    pub members: u64,
    /// What went wrong as a whole; empty if nothing did.
    pub error: String,
}

impl std::fmt::Debug for KeyringPool {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyringPool")
            .field("wan", &self.wan)
            .field("datacenter", &self.datacenter)
            .field("messages", &self.messages)
            .field("members", &self.members)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
