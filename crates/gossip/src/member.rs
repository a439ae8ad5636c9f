//! A participant, as the others see it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use tokio::time::Instant;

/// A participant of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// What it tells of itself.
    pub tags: BTreeMap<String, String>,
    /// Whether it is there.
    pub status: Status,
    /// Since when, on this member's own clock.
    pub since: Instant,
    /// The versions of the gossip protocol that it understands.
    pub protocol: Versions,
    /// The versions of what rides on gossip that it understands.
    pub delegate: Versions,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It answers.
    Alive,
    /// It is saying good-bye.
    Leaving,
    /// It has said good-bye.
    Left,
    /// It does not answer any more.
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Alive => "alive",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Failed => "failed",
        })
    }
}

/// The versions of a protocol that a member understands, and the one it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
    /// The one in use.
    pub current: u8,
}
