//! `/v1` as HTTP and JSON.
//!
//! This crate takes requests apart into the questions and commands of `model`, asks the [`Cluster`], and shows what comes back.
//! It is the only one that knows status codes and how things are spelled in JSON, and it holds no rule of the domain: whether a key may be locked is not known here.
//!
//! Start with the table in `routes.rs`; each subject has a file of the name that it has on every other floor.
//! A new endpoint is a function in such a file and a line in that table.
//! [`http`] is the engine below: it knows connections and nothing of what is asked.
//!
//! ```
//! # use agent::{Agent, Identity, JoinError, Member, Neighbours, Parts, Role, Sections, Settings};
//! # use futures::future::BoxFuture;
//! use api::http::{Method, Reaction, Request, Service};
//! # let identity = Identity {
//! #     node: "n1".to_owned(),
//! #     datacenter: "dc1".to_owned(),
//! #     id: String::new(),
//! #     address: [10, 0, 0, 1].into(),
//! #     address_wan: [10, 0, 0, 1].into(),
//! #     role: Role::Client,
//! #     version: "0.7.1".to_owned(),
//! #     prerelease: String::new(),
//! #     revision: String::new(),
//! #     build: String::new(),
//! # };
//! # struct Nobody;
//! # impl Neighbours for Nobody {
//! #     fn members(&self) -> Vec<Member> { Vec::new() }
//! #     fn coordinate(&self) -> Option<model::Coordinate> { None }
//! #     fn join(&self, _: Vec<String>) -> BoxFuture<'static, Result<usize, JoinError>> {
//! #         Box::pin(async { Ok(0) })
//! #     }
//! #     fn force_leave(&self, _: String) -> BoxFuture<'static, ()> { Box::pin(async {}) }
//! # }
//! # let parts = Parts {
//! #     neighbours: Box::new(Nobody),
//! #     journal: agent::Journal::default(),
//! #     wishes: tokio::sync::mpsc::channel(1).0,
//! #     stats: Box::new(Sections::new),
//! #     figures: Box::new(agent::FiguresSnapshot::default),
//! #     local: agent::Local::new(agent::LocalConfig::default()).0,
//! #     tokens: agent::Tokens::unjudged(),
//! #     events: agent::Events::default(),
//! # };
//! # let agent = Agent::new(identity, Settings::default(), parts);
//!
//! let fake = testkit::FakeCluster::new();
//! fake.answer(testkit::Fake::Reply(model::Reply::Applied(true)));
//!
//! let service = api::service(fake.cluster(), agent, api::Config::default());
//! let request = Request::new(&Method::PUT, "/v1/kv/color", &[], "blue".into()).unwrap();
//! assert!(matches!(service.call(request), Reaction::Now(response) if response.status == 200));
//! ```

mod routes;

mod call;
mod config;
mod definition;
mod error;
mod near;
mod options;
mod origin;
mod query_string;
mod translate;

mod acl;
mod agent;
mod catalog;
mod coordinate;
mod event;
mod figures;
mod health;
mod kv;
mod local;
mod operator;
mod query;
mod session;
mod snapshot;
mod status;
mod txn;

mod json;
mod percent;

pub mod http;

use std::sync::Arc;

use ::agent::Agent;
use rpc::Cluster;

pub use config::Config;
pub use routes::{Api, endpoints};

/// What answers requests: `/v1` over this cluster, on this agent.
pub fn service(cluster: Cluster, agent: Agent, config: Config) -> Arc<Api> {
    Arc::new(Api::new(cluster, agent, config))
}

/// Reads the bytes as the body of every kind of request, for fuzzing: nothing must panic.
#[doc(hidden)]
pub fn decode_bodies(bytes: &[u8]) {
    catalog::fuzz(bytes);
    session::fuzz(bytes);
    acl::fuzz(bytes);
    query::fuzz(bytes);
    txn::fuzz(bytes);
    operator::fuzz(bytes);
    definition::fuzz(bytes);
    local::fuzz(bytes);
}

/// Reads the bytes as a request, down to its parameters, for fuzzing: nothing must panic.
#[doc(hidden)]
pub fn decode_request(bytes: &[u8]) {
    let Some(request) = http::read_request(bytes) else {
        return;
    };
    let _ = request.headers().count();
    let _ = percent::decode(request.path(), percent::Part::Path);
    if let Some(query) = query_string::QueryString::parse(request.query()) {
        let _ = query.sorted();
    }
}
