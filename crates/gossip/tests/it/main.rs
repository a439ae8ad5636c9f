//! Whole pools on simulated time, each from a seed, and one on real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod adversity;
mod detection;
mod large;
mod life;
mod pool;
mod secrecy;
mod sockets;
