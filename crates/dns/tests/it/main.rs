//! The face over real sockets on loopback, asked by another library's messages and by the tools that people use.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "helpers of tests panic when the test is over anyway, their numbers are small, and what they skip they print"
)]

mod catalog;
mod client;
mod hostile;
mod limits;
mod names;
mod recursors;
mod tools;
