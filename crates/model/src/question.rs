//! Everything that may be read: the one list that ties question to answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Access, AclInfo, AclList, AclToken, AddressLookup, Authority, CONSUL, CatalogNode,
    CatalogNodes, CatalogService, CatalogServices, Check, CoordinateLookup, CoordinateNodes, Error,
    Executed, Explained, Filter, HealthChecks, HealthNode, HealthService, HealthState, Instance,
    KvEntry, KvGet, KvKeys, KvList, Need, Node, NodeCoordinate, NodeLookup, NodeServices,
    Placement, Placements, PreparedQuery, QueryElsewhere, QueryExecute, QueryExplain, QueryGet,
    QueryList, Resource, Row, Service, ServiceLookup, ServiceTags, Session, SessionInfo,
    SessionList, SessionNode, SessionStanding, Text, TxnOutcome, TxnRead, TxnResult,
};

/// A question with its answer's type; wraps into the closed lists and back.
pub trait Ask: Into<Question> + Send {
    /// What it answers.
    type Answer: Filter + Send;
    /// What its asker must bring.
    fn need(&self) -> Need;
    /// Takes the answer out of the closed list; `None` if it answers another question.
    fn unwrap(answer: Answer) -> Option<Self::Answer>;
    /// Puts the answer into the closed list.
    fn wrap(answer: Self::Answer) -> Answer;
}

macro_rules! questions {
    ($($name:ident => $answer:ty, needs $need:ident;)*) => {
        /// Any question.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "the types of the variants carry the documentation")]
        pub enum Question { $($name($name),)* }

        /// The answer to the question of the same name.
        #[derive(Debug, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "the questions carry the documentation")]
        pub enum Answer { $($name($answer),)* }

        impl Question {
            /// What it is called where people read of it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// What its asker must bring.
            pub fn need(&self) -> Need {
                match self { $(Self::$name(question) => question.need(),)* }
            }
        }

        impl Filter for Answer {
            fn filter(&mut self, authority: &Authority) {
                match self { $(Self::$name(answer) => answer.filter(authority),)* }
            }
        }

        $(
            impl From<$name> for Question {
                fn from(question: $name) -> Self { Self::$name(question) }
            }

            impl Ask for $name {
                type Answer = $answer;
                fn need(&self) -> Need { Need::$need }
                fn unwrap(answer: Answer) -> Option<$answer> {
                    // Every other variant answers another question.
                    if let Answer::$name(answer) = answer { Some(answer) } else { None }
                }
                fn wrap(answer: $answer) -> Answer { Answer::$name(answer) }
            }
        )*
    };
}

questions! {
    KvGet => Option<KvEntry>, needs Token;
    KvList => Vec<KvEntry>, needs Token;
    KvKeys => Vec<Text>, needs Token;
    TxnRead => TxnOutcome, needs Token;
    CatalogNodes => Vec<Arc<Node>>, needs Version8;
    CatalogServices => ServiceTags, needs Token;
    CatalogService => Vec<Arc<Instance>>, needs Token;
    CatalogNode => Option<NodeServices>, needs Token;
    HealthNode => Vec<Arc<Check>>, needs Token;
    HealthChecks => Vec<Arc<Check>>, needs Token;
    HealthState => Vec<Arc<Check>>, needs Token;
    HealthService => Vec<Arc<Instance>>, needs Token;
    SessionInfo => Option<SessionStanding>, needs Version8;
    SessionList => Vec<Arc<Session>>, needs Version8;
    SessionNode => Vec<Arc<Session>>, needs Version8;
    AclInfo => Option<Arc<AclToken>>, needs Nothing; // the original answers whoever knows the id
    AclList => Vec<Arc<AclToken>>, needs Management;
    QueryGet => Result<Arc<PreparedQuery>, Error>, needs Token;
    QueryList => Vec<Arc<PreparedQuery>>, needs Token;
    QueryExecute => Result<Executed, Error>, needs Token;
    QueryElsewhere => Result<Executed, Error>, needs Token;
    QueryExplain => Result<Explained, Error>, needs Token;
    CoordinateNodes => Vec<NodeCoordinate>, needs Version8;
    CoordinateLookup => Vec<NodeCoordinate>, needs Version8;
    NodeLookup => Option<Arc<Node>>, needs Token;
    AddressLookup => Option<Arc<Node>>, needs Version8;
    ServiceLookup => Placements, needs Token;
}

/// Shown or left out by the service that they belong to, and by the node that it runs on.
macro_rules! rows_of_services {
    ($($row:ty: $name:ident => $service:expr, on $node:expr;)*) => {
        $(impl Row for $row {
            fn is_visible(&self, authority: &Authority) -> bool {
                let $name = self;
                let node: Option<&Text> = $node;
                sees_service(authority, $service)
                    && node.is_none_or(|node| authority.allows(Resource::Node, node, Access::Read))
            }
        })*
    };
}

rows_of_services! {
    Arc<Instance>: it => &it.service.name, on Some(&it.node.name);
    Arc<Check>: it => &it.service_name, on Some(&it.node);
    Placement: it => &it.service.name, on Some(&it.node.name);
    Arc<Service>: it => &it.name, on None; // its node was asked for, and judged by itself
    (Text, Vec<Text>): it => &it.0, on None;
}

/// What belongs to no service, and the servers' own one, everybody sees.
fn sees_service(authority: &Authority, service: &Text) -> bool {
    service.is_empty()
        || (*service == CONSUL && !authority.is_of_version_8())
        || authority.allows(Resource::Service, service, Access::Read)
}

impl Row for KvEntry {
    fn is_visible(&self, authority: &Authority) -> bool {
        authority.allows(Resource::Key, self.key(), Access::Read)
    }

    fn filter_all(rows: &mut Vec<Self>, authority: &Authority) {
        let mut allows = authority.allows_in_order(Resource::Key, Access::Read);
        rows.retain(|row| allows(row.key()));
    }
}

/// A key, or what several begin with.
impl Row for Text {
    fn is_visible(&self, authority: &Authority) -> bool {
        authority.allows(Resource::Key, self, Access::Read)
    }

    fn filter_all(rows: &mut Vec<Self>, authority: &Authority) {
        let mut allows = authority.allows_in_order(Resource::Key, Access::Read);
        rows.retain(|key| allows(key));
    }
}

impl Row for Arc<Node> {
    fn is_visible(&self, authority: &Authority) -> bool {
        authority.allows(Resource::Node, &self.name, Access::Read)
    }
}

impl Row for NodeCoordinate {
    fn is_visible(&self, authority: &Authority) -> bool {
        authority.allows(Resource::Node, &self.node, Access::Read)
    }
}

impl Row for NodeServices {
    fn is_visible(&self, authority: &Authority) -> bool {
        self.node.is_visible(authority)
    }

    fn redact(&mut self, authority: &Authority) {
        self.services.filter(authority);
    }
}

impl Row for Arc<Session> {
    fn is_visible(&self, authority: &Authority) -> bool {
        authority.allows(Resource::Session, &self.node, Access::Read)
    }
}

impl Row for SessionStanding {
    fn is_visible(&self, authority: &Authority) -> bool {
        self.session.is_visible(authority)
    }
}

impl Row for Arc<AclToken> {
    /// Who knows the id may know the rest, as the original has it; the list is for management alone.
    fn is_visible(&self, _: &Authority) -> bool {
        true
    }
}

impl Row for Arc<PreparedQuery> {
    /// Those without a name are listed to management alone: whoever knew their ids could execute them.
    fn is_visible(&self, authority: &Authority) -> bool {
        self.is_ruled() && authority.allows(Resource::Query, &self.name, Access::Read)
    }

    fn redact(&mut self, authority: &Authority) {
        PreparedQuery::redact(self, authority);
    }
}

impl Filter for TxnOutcome {
    fn filter(&mut self, authority: &Authority) {
        let may_see = |result: &TxnResult| result.entry.is_visible(authority);
        self.results.retain(may_see);
    }
}

impl Filter for Placements {
    fn filter(&mut self, authority: &Authority) {
        self.picked.filter(authority);
    }
}
