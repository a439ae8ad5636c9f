//! What the tests of several crates share: a [`FakeCluster`] that answers what it was told to.
//!
//! Nothing but tests may depend on it.

mod fake;

pub use fake::{Asked, Fake, FakeCluster};
