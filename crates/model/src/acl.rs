//! Tokens, and what an operation asks of whoever brings one.

use serde::{Deserialize, Serialize};

use crate::{Index, Text};

/// The id of the token that stands for "no token".
pub const ANONYMOUS: &str = "anonymous";

/// The kind of token that may do everything.
pub const MANAGEMENT: &str = "management";

/// The kind of token that may do what its rules say.
pub const CLIENT: &str = "client";

/// A token and its rules.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AclToken {
    /// The secret itself, any string. Empty in a command: the leader draws it.
    pub id: Text,
    /// For people.
    pub name: Text,
    /// `client` or `management`.
    pub kind: Text,
    /// Rules in HCL or JSON.
    pub rules: Text,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

impl std::fmt::Debug for AclToken {
    /// Without the secret: what is printed for debugging ends in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AclToken")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("modify_index", &self.modify_index)
            .finish_non_exhaustive()
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclInfo {
    /// Its id.
    pub id: Text,
}

/// All tokens, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclList;

/// What an operation needs before it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: whoever asks may.
    Nothing,
    /// No particular right, but a token that was brought must exist, as the original demands wherever rules apply.
    Token,
    /// A token of the kind `management`, if tokens are in use at all.
    Management,
}
