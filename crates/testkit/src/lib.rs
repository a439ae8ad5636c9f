//! What the tests of several crates share: a [`FakeCluster`] that answers what it was told to, an [`Authority`] that signs certificates, a [`cluster_suite`] that every `Cluster` passes, and a small HTTP client ([`http`]) for the program as a process.
//!
//! Nothing but tests may depend on it.

mod certificates;
mod fake;
pub mod http;
mod served;
mod suite;

pub use certificates::{Authority, Dates, Pair};
pub use fake::{Asked, Fake, FakeCluster};
pub use served::Served;
pub use suite::{Subject, cluster_suite};
