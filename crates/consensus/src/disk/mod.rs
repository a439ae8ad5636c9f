//! The only part with promises about durability: one directory of flat files.
//!
//! [`RealDisk`] keeps them in the file system, [`MemoryDisk`] in memory (for `-dev`),
//! `sim::SimDisk` in memory with faults from a seed.
//! All calls block, so where [`Disk::workers`] says so they are made from threads of their own, but for short ones.

mod memory;
mod real;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// One directory of flat files. File names are short and hold no `/`.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes sure that nobody else uses the directory, until the disk is dropped.
    ///
    /// Fails with [`io::ErrorKind::WouldBlock`] while another process holds it.
    fn lock(&self) -> io::Result<()>;

    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Makes an empty file, or empties one that exists. Its name is durable after [`Disk::sync_dir`] only.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Removes a file; open handles stay usable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, replacing what has it, in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// What to call the directory in a message.
    fn place(&self) -> String;

    /// Whether nothing of it survives the process, so that keeping things for a restart is of no use.
    fn is_volatile(&self) -> bool {
        false
    }

    /// How blocking work is run.
    fn workers(&self) -> Workers;

    /// How long a sync takes, on a disk that only pretends; called before each, to be slept out by the caller.
    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether syncs hang, on a disk that only pretends; who wants to sync waits until they don't.
    fn is_stalled(&self) -> bool {
        false
    }
}

/// An open file. Safe to use from several threads; positions are explicit.
pub trait File: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset`, or fails with [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, extending the file with zeros up to there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Writes zeros up to `len`, so that later writes there need no new blocks, where that makes a difference.
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    /// Makes what was written, and the length, durable. After a failure nothing is known about what was written since
    /// the last success; it must never be tried again.
    fn sync_data(&self) -> io::Result<()>;
}

/// How a disk wants its blocking work run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Each on a thread of its own: the calls block.
    Threads,
    /// Each as a task of the runtime: the calls return at once, and threads would escape the simulation.
    Tasks,
}
