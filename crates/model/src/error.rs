//! What can go wrong, by what a caller can do about it.

/// Why a command or a question was not carried out.
///
/// `Display` carries the text that clients of the original match on; kind becomes HTTP status in one place above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Error {
    /// No server leads; nothing was changed. Try again.
    #[error("No cluster leader")]
    NoLeader,
    /// This agent knows no server at all.
    #[error("No known Consul servers")]
    NoServers,
    /// No server of that datacenter is known.
    #[error("No path to datacenter")]
    NoPath,
    /// The token does not allow it.
    #[error("Permission denied")]
    PermissionDenied,
    /// The token does not allow it, and there is more to say.
    #[error("Permission denied: {0}")]
    PermissionDeniedBecause(String),
    /// There is no such token.
    #[error("ACL not found")]
    AclNotFound,
    /// Nothing of that name; the text says of what.
    #[error("{0}")]
    NotFound(String),
    /// The request can never succeed as it is.
    #[error("{0}")]
    Invalid(String),
    /// A restore replaced the state while the write was under way; it may be repeated.
    #[error("snapshot restored while committing log")]
    Restored,
    /// The write may or may not have happened; it must not be repeated blindly.
    #[error("leadership lost while committing log; the outcome of this write is unknown")]
    OutcomeUnknown,
    /// Too much at once; nothing was changed. Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// This server is broken or stopping.
    #[error("{0}")]
    Internal(String),
    /// Another server said so; each one that passed it on adds its words in front, as the original does.
    #[error("rpc error: {0}")]
    Remote(Box<Self>),
}

impl Error {
    /// What went wrong, wherever that was.
    pub fn kind(&self) -> &Self {
        let mut error = self;
        while let Self::Remote(inner) = error {
            error = inner;
        }
        error
    }

    /// The same error as it looks after one hop from server to server.
    #[must_use]
    pub fn from_afar(self) -> Self {
        Self::Remote(Box::new(self))
    }

    /// An [`Error::Invalid`] with this text.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}
