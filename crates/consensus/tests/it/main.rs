//! The log from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod single;

mod damage;
mod disk;
mod members;
mod recovery;
mod simulation;
mod transfer;
