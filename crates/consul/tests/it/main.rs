//! The built program, from outside.

mod crash;
mod http;
mod process;
mod snapshots;
