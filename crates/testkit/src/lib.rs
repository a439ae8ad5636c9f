//! What the tests of several crates share: a [`FakeCluster`] that answers what it was told to, an [`Authority`] that signs certificates, a [`cluster_suite`] that every `Cluster` passes, and for the program as a process a small HTTP client ([`http`]) and a file for what it prints ([`Logged`]).
//!
//! Nothing but tests may depend on it.

mod certificates;
mod fake;
pub mod http;
mod logged;
mod served;
mod suite;

pub use certificates::{Authority, Dates, Pair};
pub use fake::{Asked, Fake, FakeCluster};
pub use logged::Logged;
pub use served::Served;
pub use suite::{Subject, cluster_suite};
