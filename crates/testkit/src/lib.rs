//! What the tests of several crates share: a [`FakeCluster`] that answers what it was told to, and an [`Authority`] that signs certificates.
//!
//! Nothing but tests may depend on it.

mod certificates;
mod fake;

pub use certificates::{Authority, Dates, Pair};
pub use fake::{Asked, Fake, FakeCluster};
