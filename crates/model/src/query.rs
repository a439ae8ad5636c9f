//! Prepared queries: named questions about services.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Access, Authority, Error, Filter, Index, Instance, Pairs, Placements, Resource, Shown, Text,
};

/// Where a name of a node is expected: the node of the agent that was asked.
pub const THIS_AGENT: &str = "_agent";

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

/// One query's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryGet {
    /// Its id.
    pub id: Uuid,
}

/// All queries, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryList;

/// What a prepared query finds.
///
/// It is answered by what the query's own token may see, if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryExecute {
    /// Its id, its name, or a name that a template is for; without regard to case.
    pub query: Text,
    /// Who asks, and for how much.
    pub execution: Execution,
}

/// What a query would find that another datacenter has read already: an [execution](QueryExecute) that found nothing goes on elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryElsewhere {
    /// What it asks, with everything filled in.
    pub service: QueryService,
    /// The TTL of DNS answers, as it stands in the definition.
    pub dns_ttl: Text,
    /// Who asks, and for how much. Nothing is near or far from there.
    pub execution: Execution,
}

/// What a name stands for: the definition, with what a template leaves open filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryExplain {
    /// Its id, its name, or a name that a template is for; without regard to case.
    pub query: Text,
}

/// How a query is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The datacenter whose instances are wanted.
    pub datacenter: Text,
    /// Who asks.
    pub source: QuerySource,
    /// How many instances to answer at most; 0 for all.
    pub limit: usize,
    /// What of them.
    pub portion: Portion,
    /// Decides which, and in what order, where distance doesn't.
    pub seed: u64,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuerySource {
    /// The datacenter of the agent that was asked.
    pub datacenter: Text,
    /// That agent's node.
    pub node: Text,
    /// The node from which to measure, in place of what the query says; [`THIS_AGENT`] for that agent's, empty for what the query says.
    pub near: Text,
}

/// How much of the instances that a query finds is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Portion {
    /// Each with its checks.
    Whole,
    /// Only those that look different once they are shown, and of them only where they are.
    Places {
        /// What of an instance will be shown.
        shown: Shown,
        /// Whether nodes of other datacenters than the asker's are shown at their address for those, where they have one.
        translates_wan: bool,
    },
}

/// What a query found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Executed {
    /// The service that was looked for, with everything filled in.
    pub service: Text,
    /// The TTL of DNS answers, as it stands in the definition.
    pub dns_ttl: Text,
    /// The datacenter that answered last.
    pub datacenter: Text,
    /// How many other datacenters were asked.
    pub failovers: u64,
    /// What was found there.
    pub found: FoundInstances,
}

/// Instances, as much of them as was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FoundInstances {
    /// For [`Portion::Whole`].
    Whole(Vec<Arc<Instance>>),
    /// For [`Portion::Places`].
    Places(Placements),
}

/// A definition with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained(pub Arc<PreparedQuery>);

impl PreparedQuery {
    /// Whether rules about queries say who may see and change it. Others belong to whoever knows their id.
    pub fn is_ruled(&self) -> bool {
        !self.name.is_empty() || !self.template.kind.is_empty()
    }

    /// Hides what only management may see.
    pub(crate) fn redact(query: &mut Arc<Self>, authority: &Authority) {
        if !authority.is_unlimited() && !query.token.is_empty() {
            Arc::make_mut(query).token = Text::from(REDACTED_TOKEN);
        }
    }
}

impl Execution {
    /// Whether the instances that are wanted are in the asker's own datacenter.
    pub fn is_here(&self) -> bool {
        self.datacenter == self.source.datacenter
    }
}

impl FoundInstances {
    /// Whether there are none, not even some that could not be shown.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Whole(instances) => instances.is_empty(),
            Self::Places(placements) => !placements.is_any,
        }
    }
}

impl Filter for Result<Arc<PreparedQuery>, Error> {
    /// Who knows the id of a query without a name may see it; it isn't hidden from others that there is one.
    fn filter(&mut self, authority: &Authority) {
        let Ok(query) = self else {
            return;
        };
        if query.is_ruled()
            && let Err(denied) = authority.demand(Resource::Query, &query.name, Access::Read)
        {
            *self = Err(denied);
            return;
        }
        PreparedQuery::redact(query, authority);
    }
}

impl Filter for Result<Explained, Error> {
    /// As in the list, where queries without a name are for management alone.
    fn filter(&mut self, authority: &Authority) {
        let Ok(Explained(query)) = self else {
            return;
        };
        let allowed = if query.is_ruled() {
            authority.demand(Resource::Query, &query.name, Access::Read)
        } else {
            authority.demand_management()
        };
        match allowed {
            Ok(()) => PreparedQuery::redact(query, authority),
            Err(denied) => *self = Err(denied),
        }
    }
}

impl Filter for Result<Executed, Error> {
    /// What may not be seen was not drawn in the first place; this makes sure of it.
    fn filter(&mut self, authority: &Authority) {
        match self {
            Ok(Executed {
                found: FoundInstances::Whole(instances),
                ..
            }) => instances.filter(authority),
            Ok(Executed {
                found: FoundInstances::Places(placements),
                ..
            }) => placements.filter(authority),
            Err(_) => {}
        }
    }
}
