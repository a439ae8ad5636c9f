//! Trouble between real processes, one kind a module.
#![allow(clippy::print_stdout, reason = "a failed test shows what it printed")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod access;
mod backups;
mod balancer;
mod client_agent;
mod commands;
mod detection;
mod failover;
mod forming;
mod leaving;
mod names;
mod namespaces;
mod partition;
mod patterns;
mod resolvers;
mod restore;
mod rounds;
mod secured;
