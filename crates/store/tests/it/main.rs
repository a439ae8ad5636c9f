//! The store from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod archive;
mod checkpoint;
mod decode;
mod model;
mod naive;
mod parts;
mod script;
mod waking;
