//! Tokens, and what an operation asks of whoever brings one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Access, Authority, Error, Index, Policy, Text};

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

/// The id of a token, and so a secret. It is written like the text that it is, and shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub Text);

impl std::fmt::Debug for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// One token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclInfo {
    /// Its id.
    pub id: Text,
}

impl std::fmt::Debug for AclInfo {
    /// Without the id, which is the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AclInfo").finish_non_exhaustive()
    }
}

/// All tokens, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclList;

/// What holds where a token's rules say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DefaultPolicy {
    /// Everything but what needs a management token.
    #[default]
    Allow,
    /// Nothing.
    Deny,
}

impl DefaultPolicy {
    /// From what a configuration spells.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }

    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// How far it goes.
    pub fn access(self) -> Access {
        match self {
            Self::Allow => Access::Write,
            Self::Deny => Access::Deny,
        }
    }
}

/// What holds for a token while nobody can be asked who knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DownPolicy {
    /// Everything but what needs a management token.
    Allow,
    /// Nothing.
    Deny,
    /// What held when it was last known, or else nothing.
    #[default]
    ExtendCache,
}

impl DownPolicy {
    /// From what a configuration spells.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            "extend-cache" => Some(Self::ExtendCache),
            _ => None,
        }
    }

    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::ExtendCache => "extend-cache",
        }
    }
}

/// What a server says about a token, for an agent that judges by itself what the token's bearer may do there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// What its bearer may.
    pub grant: Grant,
    /// For how long that may be believed without asking again.
    pub ttl: Duration,
}

/// What the bearer of a token may, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// Tokens are not in use: everything.
    Disabled,
    /// There is no such token.
    Unknown,
    /// Everything: it is a management token.
    Everything,
    /// What its rules say.
    Rules(Policy),
}

impl Grant {
    /// What to ask before doing something for the token's bearer.
    ///
    /// # Errors
    /// [`Error::AclNotFound`] if there is no such token.
    pub fn authority(self, version_8: bool) -> Result<Authority, Error> {
        match self {
            Self::Disabled | Self::Everything => Ok(Authority::unlimited()),
            Self::Unknown => Err(Error::AclNotFound),
            Self::Rules(policy) => Ok(Authority::limited(policy, version_8)),
        }
    }
}

/// What an operation needs before it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: whoever asks may, and the token isn't even looked at.
    Nothing,
    /// No particular right, and whether the token exists only matters where version 8 of access control is enforced.
    Version8,
    /// No particular right, but a token that was brought must exist, as the original demands wherever rules apply.
    Token,
    /// A token of the kind `management`, if tokens are in use at all.
    Management,
}
