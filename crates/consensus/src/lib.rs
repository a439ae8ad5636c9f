//! The replicated log: elections, replication, membership, log and checkpoint storage.
//!
//! What goes in is opaque bytes; what comes out is the same bytes, in one order, on every server, with the reply of the
//! [`StateMachine`] that the caller brought along.
//! The crate wraps a Raft library and lets nobody see it: outside there is only [`Consensus`] with *propose*, *read
//! barrier*, *leadership*, *membership* and *checkpoint*.
//! It doesn't know what a command means, who may propose it, or how peers are reached: [`Transport`] carries its
//! messages, [`Disk`] its bytes.
//!
//! Where to start reading: [`Consensus`] is the handle; `log/` is the segment log (its format is in `docs/log.md`);
//! `checkpoint.rs` the files that let the log be dropped; `raft/` is the only place that names the Raft library's types
//! for storage and network; `sim` is a disk and a network that fail from a seed.
//!
//! To add a disk, implement [`Disk`] beside `disk/real.rs` and run the suite in `tests/it/disk.rs` on it.

mod config;
mod consensus;
mod machine;
mod members;
mod peer;
mod transport;

pub mod disk;

mod barrier;
mod checkpoint;
mod checkpointer;
mod contact;
mod durable;
mod figures;
mod identity;
mod inbox;
mod log;
mod lost_tail;
mod raft;
mod recovery;
mod standing;
mod suspension;
mod tasks;

mod decode;
#[cfg(feature = "sim")]
pub mod sim;

pub use config::{Config, ConfigError};
pub use consensus::{
    BarrierError, COMMAND_BYTES_MAX, Consensus, Leadership, MembershipError, ProposeError,
    Proposed, StartError, State, Status,
};
pub use decode::{decode_checkpoint, decode_message, decode_records, decode_segment, decode_small};
pub use disk::{Disk, MemoryDisk, RealDisk};
pub use machine::{Committed, Frozen, MachineError, Payload, Reply, StateMachine};
pub use peer::{NodeId, Peer};
pub use recovery::Stored;
pub use transport::{NoTransport, Transport, TransportError, TransportFuture};
