//! A restore on its way through the log: a state that is built aside, until its commit swaps it in.
//!
//! Every server does this by the entries alone, so all of them drop it, or swap it in, at the same one.

use model::{
    Error, Index, RESTORE_OPEN_MAX_MS, RestoreBegin, RestoreChunk, RestoreCommit, RestorePart, Uuid,
};
use sha2::{Digest, Sha256};

use crate::archive::{INDEX_MAX, Loader};
use crate::state::State;

mod part;

pub(crate) use part::replaces;

/// A restore that has begun and is not committed yet.
pub(crate) struct OpenRestore {
    id: Uuid,
    term: u64,
    begun_ms: u64,
    /// No index of the archive is beyond this one.
    claimed: Index,
    chunks: u32,
    hash: Sha256,
    loader: Loader,
    /// What of the live state it is for, if not all.
    part: Option<RestorePart>,
}

/// What was loaded in full, and what for.
pub(crate) enum Whole {
    /// It takes the place of the live state.
    State(State),
    /// It is written over the live state.
    Part(State, RestorePart),
}

impl std::fmt::Debug for OpenRestore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenRestore")
            .field("id", &self.id)
            .field("term", &self.term)
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl OpenRestore {
    pub(crate) fn begin(begin: &RestoreBegin, term: u64, now_ms: u64) -> Result<Self, Error> {
        let claimed = begin.last_index.max(begin.snapshot_index);
        check_index(claimed)?;
        Ok(Self {
            id: begin.id,
            term,
            begun_ms: now_ms,
            claimed,
            chunks: 0,
            hash: Sha256::new(),
            loader: Loader::new(begin.last_index),
            part: begin.part.clone(),
        })
    }

    /// Whether an entry of this term, at this time of the log's clock, may still go on with it.
    pub(crate) fn is_alive(&self, term: u64, now_ms: u64) -> bool {
        self.term == term && now_ms.saturating_sub(self.begun_ms) <= RESTORE_OPEN_MAX_MS
    }

    pub(crate) fn is(&self, id: Uuid) -> bool {
        self.id == id
    }

    /// Takes the next chunk. After an error the restore is of no use any more.
    pub(crate) fn take(&mut self, chunk: &RestoreChunk) -> Result<(), Error> {
        if chunk.sequence != self.chunks {
            return Err(Error::Invalid(format!(
                "chunk {} of restore {} came where chunk {} was due",
                chunk.sequence, self.id, self.chunks
            )));
        }
        self.loader
            .add_records(&chunk.records)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        self.hash.update(&chunk.records);
        self.chunks = self
            .chunks
            .checked_add(1)
            .ok_or_else(|| Error::Invalid(format!("restore {} has too many chunks", self.id)))?;
        Ok(())
    }

    /// What was loaded. A whole state is ready to take the place of `live`, with the commit's own entry as its floor.
    pub(crate) fn commit(self, commit: &RestoreCommit, live: &State) -> Result<Whole, Error> {
        if commit.chunks != self.chunks {
            return Err(Error::Invalid(format!(
                "restore {} has {} chunks of {}",
                self.id, self.chunks, commit.chunks
            )));
        }
        if self.hash.finalize()[..] != commit.hash {
            return Err(Error::Invalid(format!(
                "the chunks of restore {} do not have the hash of its commit",
                self.id
            )));
        }
        let mut state = self.loader.finish();
        if let Some(part) = self.part {
            return Ok(Whole::Part(state, part));
        }
        // An archive may hold rows that are newer than it says; whoever waits compares with those.
        let newest = state.indexes.newest();
        check_index(newest)?;
        let own = live.user_index(live.log_index);
        let index = own.max(self.claimed + 1).max(newest + 1);
        state.log_index = live.log_index;
        state.term = live.term;
        state.clock_ms = live.clock_ms;
        state.offset = index - live.log_index;
        state.floor = index;
        Ok(Whole::State(state))
    }
}

fn check_index(index: Index) -> Result<(), Error> {
    if index > INDEX_MAX {
        return Err(Error::Invalid(format!(
            "the archive claims the index {index}, which cannot be"
        )));
    }
    Ok(())
}
