//! The types of record in a snapshot's state, of every release we know of.

/// What this program makes of a type of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// There is a table for it.
    Table,
    /// It belongs to another release; a restore leaves it out or refuses it.
    None,
}

/// The type byte of a key and its value.
pub const KVS: u8 = 2;

const KINDS: &[(u8, &str, Support)] = &[
    (0, "Register", Support::Table),
    (1, "Deregister", Support::None),
    (KVS, "KVS", Support::Table),
    (3, "Session", Support::Table),
    (4, "ACL", Support::Table),
    (5, "Tombstone", Support::Table),
    (6, "CoordinateBatchUpdate", Support::Table),
    (7, "PreparedQuery", Support::Table),
    (8, "Txn", Support::None),
    (9, "Autopilot", Support::None),
    (10, "Area", Support::None),
    (11, "ACLBootstrap", Support::None),
    (12, "Intention", Support::None),
    (13, "ConnectCA", Support::None),
    (14, "ConnectCAProviderState", Support::None),
    (15, "ConnectCAConfig", Support::None),
    (16, "Index", Support::None),
    (17, "ACLTokenSet", Support::None),
    (18, "ACLTokenDelete", Support::None),
    (19, "ACLPolicySet", Support::None),
    (20, "ACLPolicyDelete", Support::None),
];

/// The name of a type, `Unknown(n)` for one of which we know nothing.
pub fn name(kind: u8) -> String {
    match KINDS.iter().find(|(known, _, _)| *known == kind) {
        Some((_, name, _)) => (*name).to_owned(),
        None => format!("Unknown({kind})"),
    }
}

/// What this program makes of a type.
pub fn support(kind: u8) -> Support {
    KINDS
        .iter()
        .find(|(known, _, _)| *known == kind)
        .map_or(Support::None, |(_, _, support)| *support)
}
