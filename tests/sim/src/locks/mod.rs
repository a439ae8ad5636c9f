//! Lives whose clients take locks and places in semaphores, with sessions that they renew, or don't.
//!
//! Clients, and somebody who makes a check critical that sessions are bound to, go on while things go wrong, clocks on
//! walls included; then there is peace, and in the end every lock can be had again.
//! What clients were told becomes a [`LockHistory`](crate::history::locks::LockHistory), of which
//! [`check_locks`](crate::check::check_locks) says what must be true.

mod doctor;
mod holder;
mod life;
mod lock;
mod semaphore;

pub use life::{LocksReport, run_locks};

use std::time::Duration;

/// The node that sessions live on.
const NODE: &str = "holder";

/// The check on it to which some are bound.
const CHECK: &str = "alive";

/// Keys that are locks. The first one is locked only by sessions that release it, so its key is never removed.
const LOCKS: u32 = 3;

/// How many may be in a semaphore.
const LIMIT: usize = 2;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
