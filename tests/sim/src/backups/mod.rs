//! Lives with snapshot agents: three machines, each with a consul agent and a snapshot agent that saves to the same stores.
//!
//! All of it is real but sockets, disks and stores: the snapshot agent (`backup::agent`) goes with the real client and its
//! lock over `/v1` of the real agent on its machine, which reaches real servers over the simulated network.
//! `machine.rs` is that machine, `process.rs` what can happen to a process there, `depot.rs` a store; `post.rs` runs a
//! snapshot agent and does it harm, `trouble.rs` what goes wrong around it.
//! `witness.rs` notes what was asked and answered, of which [`check_backups`](crate::check::check_backups) says what must
//! be true; `life.rs` tells such a life from beginning to end.

mod content;
mod depot;
mod life;
mod machine;
mod post;
mod process;
mod trouble;
mod witness;
mod words;

pub use life::{BackupsReport, run_backups};

/// The key that snapshot agents lock.
const LOCK_KEY: &str = "consul-snapshot/lock";

/// What stands before the number of a written key.
const WRITTEN: &str = "written/";
