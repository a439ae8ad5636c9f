//! Checks: is it well?

use serde::{Deserialize, Serialize};

use crate::{Index, Text};

/// The id of the check that the leader keeps for every member of the gossip pool.
pub const SERF_HEALTH: &str = "serfHealth";

/// The status of a check that stops what depends on it.
pub const CRITICAL: &str = "critical";

/// The status of a check that is well.
pub const PASSING: &str = "passing";

/// The result of a health check, of a node or of a service on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Check {
    /// The node that it is about.
    pub node: Text,
    /// Unique on its node, without regard to case.
    pub check_id: Text,
    /// For people.
    pub name: Text,
    /// `passing`, `warning` or `critical`; others are kept as they are, as the original does.
    pub status: Text,
    /// For people.
    pub notes: Text,
    /// What the check last said; any bytes.
    pub output: Text,
    /// The service that it is about, or empty for the node.
    pub service_id: Text,
    /// That service's name, filled in by the store.
    pub service_name: Text,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

impl Check {
    /// Whether it stops what depends on it.
    pub fn is_critical(&self) -> bool {
        self.status == CRITICAL
    }

    /// Whether all is well.
    pub fn is_passing(&self) -> bool {
        self.status == PASSING
    }
}

/// All checks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthNode {
    /// The node's name, without regard to case.
    pub node: Text,
}

/// The checks of a service, without those of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthChecks {
    /// The service's name.
    pub service: Text,
}

/// The checks in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    /// A status, exactly; `any` for all.
    pub state: Text,
}

/// The instances of a service with their checks, for `/v1/health/service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthService {
    /// The service's name, without regard to case.
    pub service: Text,
    /// Only instances with this tag, without regard to case.
    pub tag: Option<Text>,
    /// Only instances all of whose checks pass.
    pub passing_only: bool,
}
