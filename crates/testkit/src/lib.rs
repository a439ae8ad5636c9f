//! What the tests of several crates share: a [`FakeCluster`] that answers what it was told to, an [`Authority`] that signs certificates, and a [`cluster_suite`] that every `Cluster` passes.
//!
//! Nothing but tests may depend on it.

mod certificates;
mod fake;
mod served;
mod suite;

pub use certificates::{Authority, Dates, Pair};
pub use fake::{Asked, Fake, FakeCluster};
pub use served::Served;
pub use suite::{Subject, cluster_suite};
