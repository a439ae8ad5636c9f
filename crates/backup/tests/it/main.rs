//! Stores against servers of their protocols in the test's own process, which can be made to fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[macro_use]
mod suite;
mod credentials;
mod emulations;
mod faults;
mod s3;
mod server;
