//! What makes a member a server: it answers questions and carries out commands.
//!
//! This is the only crate that sees both the state (`store`) and the log (`consensus`), and the two places where forwarding, access control, blocking and consistency happen: `read.rs` and `write.rs`.
//! It knows neither HTTP nor DNS.
//!
//! Start with [`Server`]; then `write.rs` and `read.rs`, each one pipeline told from top to bottom.
//! A new question is one line in `registry.rs`; a new duty of the leader is a file in `leader/` and a line in `leader/mod.rs`.

mod access;
mod alone;
mod config;
mod coordinates;
mod core;
mod directory;
mod faces;
mod failover;
mod figures;
mod founding;
mod leader;
mod leave;
mod machine;
mod operate;
mod read;
mod recovery;
mod registry;
mod restore;
mod route;
mod save;
mod settle;
mod transport;
mod write;

pub use alone::NoPeers;
pub use config::{Acl, Checking, Config};
pub use core::{Parts, Server, ServerStatus, Start, StartError, SystemClock, WallClock};
pub use recovery::{RecoveryError, recover};
pub use transport::PoolTransport;

/// What the fuzzers drive; nobody else has a use for it.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads the rules of a token, HCL or JSON.
    ///
    /// # Panics
    /// If the policy that they make says anything else than the rules one by one.
    pub fn read_rules(bytes: &[u8]) {
        crate::access::fuzz(bytes);
    }
}
