//! Everything that may be read: the one list that ties question to answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    AclInfo, AclList, AclToken, AddressLookup, Authority, CatalogNode, CatalogNodes,
    CatalogService, CatalogServices, Check, CoordinateLookup, CoordinateNodes, Filter,
    HealthChecks, HealthNode, HealthService, HealthState, Instance, KvEntry, KvGet, KvKeys, KvList,
    Need, Node, NodeCoordinate, NodeLookup, NodeServices, Placement, Placements, PreparedQuery,
    QueryGet, QueryList, REDACTED_TOKEN, ServiceLookup, ServiceTags, Session, SessionInfo,
    SessionList, SessionNode, Text, TxnOutcome, TxnRead,
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
            /// What its asker must bring.
            pub fn need(&self) -> Need {
                match self { $(Self::$name(question) => question.need(),)* }
            }
        }

        impl Filter for Answer {
            fn filter(&mut self, authority: Authority) {
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
    CatalogNodes => Vec<Arc<Node>>, needs Nothing;
    CatalogServices => ServiceTags, needs Token;
    CatalogService => Vec<Arc<Instance>>, needs Token;
    CatalogNode => Option<NodeServices>, needs Token;
    HealthNode => Vec<Arc<Check>>, needs Token;
    HealthChecks => Vec<Arc<Check>>, needs Token;
    HealthState => Vec<Arc<Check>>, needs Token;
    HealthService => Vec<Arc<Instance>>, needs Token;
    SessionInfo => Option<Arc<Session>>, needs Nothing;
    SessionList => Vec<Arc<Session>>, needs Nothing;
    SessionNode => Vec<Arc<Session>>, needs Nothing;
    AclInfo => Option<Arc<AclToken>>, needs Nothing; // the original answers whoever knows the id
    AclList => Vec<Arc<AclToken>>, needs Management;
    QueryGet => Option<Arc<PreparedQuery>>, needs Token;
    QueryList => Vec<Arc<PreparedQuery>>, needs Token;
    CoordinateNodes => Vec<NodeCoordinate>, needs Nothing;
    CoordinateLookup => Vec<NodeCoordinate>, needs Nothing;
    NodeLookup => Option<Arc<Node>>, needs Token;
    AddressLookup => Option<Arc<Node>>, needs Nothing; // the original goes through its list of nodes
    ServiceLookup => Placements, needs Token;
}

/// Answers in which nothing is hidden from anybody until rules are enforced.
macro_rules! open_to_all {
    ($($answer:ty),* $(,)?) => { $(impl Filter for $answer { fn filter(&mut self, _: Authority) {} })* };
}

open_to_all!(
    KvEntry,
    Text,
    TxnOutcome,
    Node,
    NodeServices,
    Instance,
    Check,
    Session,
    AclToken,
    NodeCoordinate,
    Placement,
    (Text, Vec<Text>),
);

impl Filter for Placements {
    fn filter(&mut self, authority: Authority) {
        self.picked.filter(authority);
    }
}

impl Filter for PreparedQuery {
    fn filter(&mut self, authority: Authority) {
        if authority != Authority::Management && !self.token.is_empty() {
            self.token = Text::from(REDACTED_TOKEN);
        }
    }
}

impl<T: Filter> Filter for Option<T> {
    fn filter(&mut self, authority: Authority) {
        if let Some(answer) = self {
            answer.filter(authority);
        }
    }
}

impl<T: Filter> Filter for Vec<T> {
    fn filter(&mut self, authority: Authority) {
        if authority == Authority::Management {
            return;
        }
        for answer in self {
            answer.filter(authority);
        }
    }
}

impl Filter for Arc<PreparedQuery> {
    fn filter(&mut self, authority: Authority) {
        if authority != Authority::Management {
            Self::make_mut(self).filter(authority);
        }
    }
}

/// Rows that are shared with the store and shown whole.
macro_rules! shared_rows {
    ($($row:ty),* $(,)?) => { $(impl Filter for Arc<$row> { fn filter(&mut self, _: Authority) {} })* };
}

shared_rows!(Node, Instance, Check, Session, AclToken);
