//! Whole pools on simulated time, each from a seed, and one on real sockets.

mod detection;
mod large;
mod life;
mod pool;
mod secrecy;
mod sockets;
