//! The seam to the state that the log drives.

use std::any::Any;
use std::io;

use bytes::Bytes;

/// An entry that a majority holds; it will never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a new leader writes one to commit what it found.
    Blank,
    /// Bytes that somebody proposed.
    Command(Bytes),
    /// The members have changed. The machine only has to count it as applied.
    Membership,
}

/// What the machine answers to one entry; the proposer, who knows its type, downcasts it.
pub type Reply = Box<dyn Any + Send + Sync>;

/// Why a machine could not go on. The node stops: one that skipped an entry would differ from its peers for ever.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MachineError {
    /// What failed and on what, for the log.
    pub reason: String,
}

impl MachineError {
    /// An error with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// The state that the log drives. Called from one task, never concurrently.
pub trait StateMachine: Send + 'static {
    /// Applies committed entries, in order, each once in the life of this state, and answers each with one reply.
    ///
    /// Whatever the batch leaves behind must depend on the entries alone.
    /// An `Err` stops the node.
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Reply>, MachineError>;

    /// A frozen view of all that was applied so far, in constant time.
    ///
    /// `None` means *not now*: no checkpoint is built and no log dropped until a later call says otherwise.
    fn freeze(&mut self) -> Option<Box<dyn Frozen>>;

    /// Replaces all state by a checkpoint that [`Frozen::write_to`] wrote, here or on another server.
    ///
    /// The source has been checked against its checksums before. An `Err` stops the node.
    fn install(&mut self, source: &mut dyn io::Read) -> Result<(), MachineError>;
}

/// A version of the state that no longer changes.
pub trait Frozen: Send {
    /// Writes it out. Runs beside `apply`, on another thread where the disk is a real one.
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()>;
}
