//! A disk and a network that fail from a seed, and a machine to watch them with.
//!
//! Whole clusters run in one thread on tokio's paused clock: the same seed gives the same events, bit for bit.

mod machine;

pub use machine::{ListMachine, NoTransport};
