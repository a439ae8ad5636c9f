//! A restore as it travels through the log.
//!
//! `RestoreBegin`, any number of `RestoreChunk`s, one `RestoreCommit`, all of one leader's term.
//! Only the commit changes state; an entry of another term or restore drops the open one on all servers alike.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Index, RestorePart};

/// The most bytes of records in one chunk, unless a single record is larger.
pub const RESTORE_CHUNK_MAX: usize = 1024 * 1024;

/// The largest record that can be restored, in bytes: it has to fit into one entry of the log.
pub const RESTORE_RECORD_MAX: usize = 3 * 1024 * 1024;

/// How long a restore may stay open, in milliseconds of the log's own clock.
pub const RESTORE_OPEN_MAX_MS: u64 = 10 * 60 * 1000;

/// Opens a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreBegin {
    /// Drawn by the leader.
    pub id: Uuid,
    /// The highest index of any table, from the header of the archive's state.
    pub last_index: Index,
    /// The index that the archive's metadata claims.
    pub snapshot_index: Index,
    /// What of the state is restored and how, if not all of it; the chunks then hold nothing else.
    ///
    /// Without one it is written as it was before there were parts, and read so as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<RestorePart>,
}

/// Whole records in the archive's encoding, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreChunk {
    /// Which restore.
    pub id: Uuid,
    /// From 0, without gaps.
    pub sequence: u32,
    /// Type byte and object of each record, one behind the other.
    #[serde(with = "serde_bytes")]
    pub records: Vec<u8>,
}

/// Swaps in what the chunks built, or writes it over what there is if it is a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreCommit {
    /// Which restore.
    pub id: Uuid,
    /// How many chunks there must have been.
    pub chunks: u32,
    /// SHA-256 over the records of all chunks.
    pub hash: [u8; 32],
}
