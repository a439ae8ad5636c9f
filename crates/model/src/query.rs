//! Prepared queries: named questions about services.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Index, Pairs, Text};

/// What stands where a reader may not see a query's token.
pub const REDACTED_TOKEN: &str = "<hidden>";

/// A prepared query's definition.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PreparedQuery {
    /// Nil in a command that creates: the leader draws it.
    pub id: Uuid,
    /// Unique without regard to case; may be empty.
    pub name: Text,
    /// It ends with this session.
    pub session: Option<Uuid>,
    /// The token it is executed with.
    pub token: Text,
    /// What makes it a template.
    pub template: QueryTemplate,
    /// What it asks.
    pub service: QueryService,
    /// The TTL of DNS answers, as the user typed it.
    pub dns_ttl: Text,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

impl std::fmt::Debug for PreparedQuery {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedQuery")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("modify_index", &self.modify_index)
            .finish_non_exhaustive()
    }
}

/// What makes a query a template.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueryTemplate {
    /// Empty: no template. Else `name_prefix_match`.
    pub kind: Text,
    /// A regular expression in RE2's syntax over the whole name.
    pub regexp: Text,
}

/// The service part of a query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueryService {
    /// The service's name.
    pub service: Text,
    /// How many of the nearest other datacenters to try.
    pub nearest_n: i64,
    /// Which datacenters to try then; `None` shows as `null`.
    pub datacenters: Option<Vec<Text>>,
    /// Only instances all of whose checks pass.
    pub only_passing: bool,
    /// Sort by distance from this node.
    pub near: Text,
    /// Required tags, forbidden ones with `!`; `None` shows as `null`.
    pub tags: Option<Vec<Text>>,
    /// Required node metadata (since 0.7.3).
    pub node_meta: Pairs,
}

/// Creates a query, or replaces one that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuerySet {
    /// The definition.
    pub query: PreparedQuery,
    /// Create: the id must be nil and is drawn by the leader. Update: the query must exist.
    pub create: bool,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryGet {
    /// Its id.
    pub id: Uuid,
}

/// All queries, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryList;
