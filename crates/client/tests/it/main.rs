//! Sessions, locks and semaphores against a stand-in for the servers that can be made to fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod lock;
mod semaphore;
mod servers;
mod session;
