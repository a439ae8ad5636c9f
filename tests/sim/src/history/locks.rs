//! What clients did with sessions, locks and semaphores, and what they were told.

use std::time::Duration;

use super::{Moment, SessionNumber};

/// Which lock.
pub type Lock = u32;

/// Which semaphore.
pub type Semaphore = u32;

/// How a session was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// How long it lives at least without renewal; `None` if for ever.
    pub ttl: Option<Duration>,
    /// How long what it held can't be locked once it was ended.
    pub delay: Duration,
    /// Whether the check of the history's troubles ends it.
    pub bound: bool,
}

/// Something that concerns a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was created.
    Begun(Made),
    /// Its renewal was acknowledged.
    Renewed,
    /// It was found not to exist.
    Gone,
    /// Its end was asked for, whatever came of that.
    Ended,
    /// It took a lock.
    Acquired(Lock),
    /// It asked to give a lock up; without an answer that may happen at any later time.
    Released(Lock),
    /// A lock was seen in its hands.
    Holds {
        /// Which.
        lock: Lock,
        /// How often it had been locked.
        lock_index: u64,
        /// When its key was last written.
        modify: u64,
    },
    /// It took a place in a semaphore.
    Entered(Semaphore),
    /// It asked to give that place up; without an answer that may happen at any later time.
    Left(Semaphore),
}

impl What {
    /// The lock that the session was seen to have.
    pub fn lock(&self) -> Option<Lock> {
        match *self {
            Self::Acquired(lock) | Self::Holds { lock, .. } => Some(lock),
            Self::Begun(_)
            | Self::Renewed
            | Self::Gone
            | Self::Ended
            | Self::Released(_)
            | Self::Entered(_)
            | Self::Left(_) => None,
        }
    }

    /// The semaphore in which the session got a place.
    pub fn semaphore(&self) -> Option<Semaphore> {
        match *self {
            Self::Entered(semaphore) => Some(semaphore),
            Self::Begun(_)
            | Self::Renewed
            | Self::Gone
            | Self::Ended
            | Self::Acquired(_)
            | Self::Released(_)
            | Self::Holds { .. }
            | Self::Left(_) => None,
        }
    }

    /// Whether it shows that the session was there. Keys in which semaphores are written outlive sessions.
    pub fn is_sign_of_life(&self) -> bool {
        *self == Self::Renewed || self.lock().is_some()
    }
}

/// One thing, between the call and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Whose session.
    pub session: SessionNumber,
    /// What.
    pub what: What,
    /// When it was asked for.
    pub called: Moment,
    /// When the answer came; [`Moment::MAX`] without one.
    pub returned: Moment,
}

/// A lock that nobody held when somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Which.
    pub lock: Lock,
    /// When it was asked for.
    pub called: Moment,
    /// When the answer came.
    pub returned: Moment,
}

/// The check that ends sessions was told to be critical, or was taken away, at some time in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// When that was asked for.
    pub called: Moment,
    /// When the answer came; [`Moment::MAX`] without one.
    pub returned: Moment,
}

/// All that the clients of one life know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockHistory {
    /// What concerns sessions.
    pub events: Vec<Event>,
    /// Locks that were seen free.
    pub frees: Vec<Free>,
    /// What ended sessions besides their clients.
    pub troubles: Vec<Trouble>,
    /// How many may be in each semaphore.
    pub limit: usize,
    /// Locks whose key is never removed, nor written but by locking and unlocking it.
    pub kept: Vec<Lock>,
}
