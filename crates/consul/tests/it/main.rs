//! The built program, from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod access;
mod crash;
mod events;
mod files;
mod guide;
mod lock;
mod names;
mod process;
mod services;
mod signals;
mod snapshot_agent;
mod snapshots;
mod watches;
