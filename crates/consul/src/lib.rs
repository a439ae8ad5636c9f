//! The front door of the program: the command line, the configuration, and the composition of a running agent.
//!
//! This crate has no behaviour of its own: it decodes what people write, hands typed values to the other crates and runs them.
//! It is a library so that tests and fuzz targets reach its decoders; `main.rs` only calls [`command::main`].
//!
//! Start with [`command`], the list of commands; a new one is a file there and a variant of [`command::Command`].
//! A new setting begins in [`config`].

pub mod command;
pub mod config;
pub mod console;
pub mod flags;
pub mod logging;
pub mod metrics;
pub mod release;
pub mod run;
