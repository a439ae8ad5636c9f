//! Nodes and services: who offers what, and where.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::{Check, Index, Text};

/// The service that every server is an instance of.
pub const CONSUL: &str = "consul";

/// Pairs of names and values, in the order of the names.
pub type Pairs = BTreeMap<Text, Text>;

/// A machine, or anything else that services run on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// Its name as last written; looked up without regard to case.
    pub name: Text,
    /// Where it is reached.
    pub address: Text,
    /// Further addresses by kind (`lan`, `wan`); `None` shows as `null`.
    pub tagged_addresses: Option<Pairs>,
    /// Id of the node; empty where none was given (0.7.1 knows none).
    pub id: Text,
    /// Metadata (since 0.7.3); empty where none was given.
    pub meta: Pairs,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

/// One instance of a service on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Service {
    /// Unique on its node, without regard to case.
    pub id: Text,
    /// What it offers; shared by all its instances.
    pub name: Text,
    /// Labels; `None` shows as `null` in some answers.
    pub tags: Option<Vec<Text>>,
    /// Where it listens if not at the node's address.
    pub address: Text,
    /// Where it listens; 0 for none.
    pub port: i64,
    /// Whether tags changed in the catalog win over the agent's.
    pub enable_tag_override: bool,
    /// Metadata (later than 0.7.1); empty where none was given.
    pub meta: Pairs,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

/// A service instance with its node and all checks that speak for it.
///
/// The store keeps one per instance and replaces it when any part changes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Instance {
    /// The node it runs on.
    pub node: Arc<Node>,
    /// The service itself.
    pub service: Arc<Service>,
    /// The node's own checks and those of this service, by check id.
    pub checks: Vec<Arc<Check>>,
    /// A place where a face may keep its rendering of this value, since it never changes.
    #[serde(skip)]
    pub rendered: OnceLock<Box<[u8]>>,
}

impl Instance {
    /// The same on another version of its node.
    pub fn on(&self, node: &Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::clone(node),
            service: Arc::clone(&self.service),
            checks: self.checks.clone(),
            rendered: OnceLock::new(),
        })
    }
}

/// Writes a node, and with it a service and checks, in one step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registration {
    /// The node; its indexes are ignored.
    pub node: Node,
    /// A service on it; its indexes are ignored.
    pub service: Option<Service>,
    /// Checks on it; indexes and service names are filled in.
    pub checks: Vec<Check>,
}

/// Removes a service, or a check, or the whole node with all that hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregistration {
    /// The node, without regard to case.
    pub node: Text,
    /// What to remove.
    pub what: Deregister,
}

/// What a [`Deregistration`] removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deregister {
    /// The node, its services, checks, coordinate and sessions.
    Node,
    /// The service of this id, and its checks.
    Service(Text),
    /// The check of this id.
    Check(Text),
}

/// All nodes, by lower-cased name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogNodes;

/// The names of all services, each with the union of its tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogServices;

/// The instances of a service, for `/v1/catalog/service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogService {
    /// The service's name, without regard to case.
    pub service: Text,
    /// Only instances with this tag, without regard to case.
    pub tag: Option<Text>,
}

/// One node and its services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogNode {
    /// The node's name, without regard to case.
    pub node: Text,
}

/// What [`CatalogNode`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeServices {
    /// The node.
    pub node: Arc<Node>,
    /// Its services, by id.
    pub services: Vec<Arc<Service>>,
}

/// What [`CatalogServices`] answers: names with their tags, by name.
pub type ServiceTags = Vec<(Text, Vec<Text>)>;
