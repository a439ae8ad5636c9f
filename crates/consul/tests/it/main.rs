//! The built program, from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod crash;
mod files;
mod names;
mod process;
mod services;
mod signals;
mod snapshots;
