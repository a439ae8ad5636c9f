//! A server seen from above: through its `Cluster`, on a disk in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod calls;
mod events;
mod forwarding;
mod members;
mod parts;
mod pipelines;
mod restores;
mod sessions;
mod setup;
mod simulation;
mod snapshots;
mod suite;
mod trio;
