//! What must be true of every history, whatever went wrong meanwhile.
//!
//! Each file is one promise; [`check`] goes through the list, [`catalog`] is asked by lives with agents, and
//! [`check_locks`] by those with locks.
//! To add one, write a function from [`History`] to [`Violation`] and a line in `PROMISES`.

mod backups;
pub mod catalog;
mod linear;
mod locks;
mod order;
mod survival;
mod waking;

use std::fmt;

pub use backups::check_backups;
pub use linear::{Checked, Verdict, check_key};
pub use locks::check_locks;

use crate::history::{Generation, History, Row};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise, in a word or two.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(property: &'static str, what: impl Into<String>) -> Self {
        Self {
            property,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// What a restore puts in the place of the clients' keys.
pub type Restored = fn(Generation, key: u32) -> Option<Row>;

type Promise = fn(&History, Restored) -> Result<(), Violation>;

/// The cheap ones first.
const PROMISES: &[Promise] = &[
    order::applied_never_goes_back,
    order::states_are_prefixes,
    survival::acknowledged_writes_survive,
    waking::waiters_are_woken,
    linear::keys_are_linearizable,
];

/// The first promise that was broken, if any.
///
/// # Errors
/// That promise.
pub fn check(history: &History, restored: Restored) -> Result<(), Violation> {
    PROMISES
        .iter()
        .try_for_each(|promise| promise(history, restored))
}
