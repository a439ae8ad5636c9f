//! What clients see.
#![allow(
    clippy::unwrap_used,
    reason = "this is a test from one end to the other"
)]

mod access;
mod given;
mod http;
mod local;
mod near;
mod scripts;
mod whole;
