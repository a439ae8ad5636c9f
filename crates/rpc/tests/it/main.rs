//! Calls between members over real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adversity;
mod calls;
mod member;
mod page;
mod snapshots;
mod suite;
