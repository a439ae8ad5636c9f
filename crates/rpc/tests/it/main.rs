//! Calls between members over real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod calls;
mod member;
