//! Who takes part in the log.

/// Identifies one data directory for as long as it exists.
///
/// It is drawn at random when the directory is empty and is never used again, because a server that lost its log and
/// came back under its old id could lose entries that others believe it holds.
pub type NodeId = u64;

/// A member of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The id of its data directory.
    pub id: NodeId,
    /// Where it is reached, `ip:port`; an attribute, never an identity.
    pub address: String,
    /// Its node name, for people.
    pub name: String,
}

impl Peer {
    /// Whether its texts are short enough to be taken by others.
    pub(crate) fn is_plausible(&self) -> bool {
        self.address.len() <= PEER_TEXT_MAX && self.name.len() <= PEER_TEXT_MAX
    }
}

/// Longest address or name that is accepted from disk or from a peer.
pub(crate) const PEER_TEXT_MAX: usize = 1024;
