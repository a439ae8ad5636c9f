//! The type bytes of records: which we have a table for, which only later releases write, which are in no snapshot.

use std::fmt;

/// A record that we have a table for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node, alone or with a service or checks.
    Register,
    /// A key with its value.
    Kvs,
    /// A session.
    Session,
    /// A token in its old form.
    Acl,
    /// That a key was deleted.
    Tombstone,
    /// Coordinates of nodes.
    Coordinates,
    /// A prepared query.
    Query,
}

impl Kind {
    /// Its byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Register => 0,
            Self::Kvs => 2,
            Self::Session => 3,
            Self::Acl => 4,
            Self::Tombstone => 5,
            Self::Coordinates => 6,
            Self::Query => 7,
        }
    }

    /// From its byte; `None` for what we have no table for.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Register),
            2 => Some(Self::Kvs),
            3 => Some(Self::Session),
            4 => Some(Self::Acl),
            5 => Some(Self::Tombstone),
            6 => Some(Self::Coordinates),
            7 => Some(Self::Query),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TypeName(self.byte()).fmt(f)
    }
}

/// A type byte, shown by its name: `KVS`, or `Unknown(99)` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeName(pub u8);

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match type_name(self.0) {
            Some(name) => f.pad(name),
            None => f.pad(&format!("Unknown({})", self.0)),
        }
    }
}

/// The name of a type byte, as `inspect` of later releases shows it.
pub const fn type_name(byte: u8) -> Option<&'static str> {
    Some(match byte {
        0 => "Register",
        1 => "Deregister",
        2 => "KVS",
        3 => "Session",
        4 => "ACL",
        5 => "Tombstone",
        6 => "CoordinateBatchUpdate",
        7 => "PreparedQuery",
        8 => "Txn",
        9 => "Autopilot",
        10 => "Area",
        11 => "ACLBootstrap",
        12 => "Intention",
        13 => "ConnectCA",
        14 => "ConnectCAProviderState",
        15 => "ConnectCAConfig",
        16 => "Index",
        17 => "ACLToken",
        18 => "ACLTokenDelete",
        19 => "ACLPolicy",
        20 => "ACLPolicyDelete",
        21 => "ConnectCALeaf",
        22 => "ConfigEntry",
        23 => "ACLRole",
        24 => "ACLRoleDelete",
        25 => "ACLBindingRule",
        26 => "ACLBindingRuleDelete",
        27 => "ACLAuthMethod",
        28 => "ACLAuthMethodDelete",
        29 => "ChunkingState",
        30 => "FederationState",
        31 => "SystemMetadata",
        32 => "ServiceVirtualIP",
        33 => "FreeVirtualIP",
        34 => "KindServiceName",
        35 => "Peering",
        36 => "PeeringDelete",
        37 => "PeeringTerminateByID",
        38 => "PeeringTrustBundle",
        39 => "PeeringTrustBundleDelete",
        40 => "PeeringSecrets",
        41 => "RaftLogVerifierCheckpoint",
        42 => "ResourceOperation",
        43 => "UpdateVirtualIP",
        _ => return None,
    })
}

/// Whether only releases after 0.7.1 know this type; such records may be skipped on request.
///
/// Bytes from 128 on carry a flag of the log that means nothing in a snapshot, and the original refuses them too.
pub const fn is_later(byte: u8) -> bool {
    byte >= 9 && type_name(byte).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_names() {
        for byte in 0..=u8::MAX {
            match Kind::from_byte(byte) {
                Some(kind) => {
                    assert_eq!(kind.byte(), byte);
                    assert_eq!(kind.to_string(), type_name(byte).unwrap());
                    assert!(!is_later(byte));
                }
                None => assert_eq!(is_later(byte), (9..=43).contains(&byte), "{byte}"),
            }
        }
        assert_eq!(TypeName(99).to_string(), "Unknown(99)");
        assert_eq!(TypeName(17).to_string(), "ACLToken");
    }
}
