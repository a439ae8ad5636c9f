//! Trouble between real processes, one kind a module.
#![allow(clippy::print_stdout, reason = "a failed test shows what it printed")]

mod access;
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
