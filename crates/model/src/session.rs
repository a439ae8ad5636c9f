//! Sessions: who holds locks, and what ends that.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{GoDuration, Index, Text};

/// The longest lock-delay that is applied; longer ones are cut to it.
pub const LOCK_DELAY_MAX: GoDuration = GoDuration(60_000_000_000);

/// What happens to the keys that a session holds when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Behavior {
    /// They are unlocked.
    #[default]
    Release,
    /// They are removed.
    Delete,
}

impl Behavior {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Delete => "delete",
        }
    }

    /// From what users write; empty stands for the default.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"" | b"release" => Some(Self::Release),
            b"delete" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// A session, bound to a node and to checks on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Session {
    /// Nil in a command: the leader draws it.
    pub id: Uuid,
    /// For people.
    pub name: Text,
    /// The node it lives on.
    pub node: Text,
    /// The checks on that node that end it when they turn critical.
    pub checks: Vec<Text>,
    /// How long a key stays unlockable after the session was ended, in nanoseconds.
    pub lock_delay: i64,
    /// What happens to its keys.
    pub behavior: Behavior,
    /// How long it lives without renewal, as the user typed it; empty for ever.
    pub ttl: Text,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

/// A session as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStanding {
    /// The session.
    pub session: Arc<Session>,
    /// How long until it ends if nobody renews it: only where the leader answers, which alone knows, and if it has a TTL.
    pub left: Option<Duration>,
}

impl Session {
    /// How long it lives at least after each renewal; `None` if for ever.
    ///
    /// Restored sessions may say anything here; what makes no sense is no TTL.
    pub fn lifetime(&self) -> Option<Duration> {
        if self.ttl.is_empty() {
            return None;
        }
        let ttl = GoDuration::parse(&self.ttl.to_lossy()).ok()?.to_std();
        (ttl > Duration::ZERO).then_some(ttl)
    }
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub id: Uuid,
}

/// All sessions, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList;

/// The sessions of a node, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNode {
    /// The node's name, without regard to case.
    pub node: Text,
}
