//! Simulated clock, network, disk; a fake Cluster; script runner. Tests only.

mod fake;

pub use fake::{Asked, Fake, FakeCluster};
