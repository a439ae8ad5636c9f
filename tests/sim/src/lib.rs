//! Whole clusters from a seed: real servers on simulated time, network and disk, and what must be true of them.
//!
//! [`run`] is one life of one cluster: faults and clients for a while, then peace, then the checks.
//! Everything happens in one thread on tokio's paused clock, and all chance comes from the seed, so that a seed replays
//! bit for bit.
//!
//! Start with [`history`], what clients saw, and [`check`], what must be true of it; neither knows of servers.
//! `life.rs` tells one life from beginning to end; `cluster.rs` is the servers, `network.rs` what lies between them,
//! `faults.rs` what goes wrong, `clients.rs` who asks.
//! [`run_agents`] is another kind of life, in which the clients are agents that keep the catalog true: see `agents`.
//! [`run_locks`] is one more, in which they take locks and places in semaphores with sessions that they renew: see `locks`.
//! [`run_backups`] is one with snapshot agents, whose stores lie in the simulation too: see `backups`.
//! A new fault is a line in `faults.rs`; a new promise a function in [`check`].
//!
//! What is deliberately absent: HTTP, sockets, threads and processes, which `crates/consul/tests` are for.

pub mod check;
pub mod history;

mod agents;
pub mod archive;
mod backups;
mod clients;
mod cluster;
mod faults;
mod life;
mod locks;
mod network;
mod world;

pub use agents::{AgentsReport, Crowd, crowd, run_agents};
pub use backups::{BackupsReport, run_backups};
pub use cluster::Counts;
pub use life::{Course, Failure, Plan, Report, run};
pub use locks::{LocksReport, run_locks};
