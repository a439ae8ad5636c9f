//! Restoring a snapshot: check all of it, then send it through the log, where only the last entry changes anything.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use model::{Command, Error, Index, Need, RestoreBegin, RestoreChunk, RestoreCommit};
use rpc::{ByteStream, RestoreOptions};
use store::archive::{Chunks, TypeName, Unknown, Verified};
use tokio::sync::mpsc;
use uuid::Uuid;
use wire::archive;

use crate::access::authorise;
use crate::core::Core;
use crate::write::propose;

/// How many chunks may be decoded ahead of the log; the reader waits when they are full.
const CHUNKS_AHEAD: usize = 2;

/// How much of the state is read from its file at a time.
const READ_SIZE: usize = 256 * 1024;

/// Replaces everything by the snapshot in `archive`; on an error nothing was changed.
pub(crate) async fn restore(
    core: &Core,
    options: RestoreOptions,
    archive: ByteStream,
) -> Result<(), Error> {
    core.route(&options.datacenter)?;
    // Unlike other requests, the original doesn't hold restores while there is no leader.
    if !core.leads() {
        return Err(Error::NoLeader);
    }
    authorise(
        &core.config,
        &core.shared.view(),
        &options.token,
        Need::Management,
    )?;
    let Ok(_one_at_a_time) = core.restoring.try_lock() else {
        return Err(Error::Unavailable(
            "another restore is under way; wait until it is done".to_owned(),
        ));
    };

    let scratch = core.config.scratch_dir.clone();
    let unknown = if options.skip_unknown {
        Unknown::Skip
    } else {
        Unknown::Refuse
    };
    let checked = tokio::task::spawn_blocking(move || check(&scratch, archive, unknown))
        .await
        .map_err(|_| {
            Error::Internal(
                "the check of the snapshot ended by a panic; nothing was changed".to_owned(),
            )
        })??;
    for (kind, tally) in &checked.verified.skipped {
        tracing::warn!(
            "not restored: {} records of type {}, for which there is no table",
            tally.count,
            TypeName(*kind)
        );
    }
    let plan = Plan {
        last_index: checked.verified.last_index,
        snapshot_index: checked.snapshot_index,
        chunks: checked.verified.chunks,
        hash: checked.verified.hash,
    };

    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let reader = tokio::task::spawn_blocking(move || cut(checked.state, &sender));
    let sent = send(core, plan, chunks).await;
    let cut = reader.await.map_err(|_| {
        Error::Internal(
            "the reader of the snapshot ended by a panic; nothing was changed".to_owned(),
        )
    })?;
    // If the reader failed, `send` saw an early end; the reader knows why.
    cut?;
    sent
}

/// What was found when the snapshot was checked; what is read again must come to the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// From the header of the state.
    pub(crate) last_index: Index,
    /// From the metadata of the archive.
    pub(crate) snapshot_index: Index,
    /// How many chunks there are.
    pub(crate) chunks: u32,
    /// SHA-256 over the records of all chunks.
    pub(crate) hash: [u8; 32],
}

/// Proposes a restore: begin, chunks, commit.
///
/// If the chunks end early, nothing is committed, and the open restore goes away by itself.
pub(crate) async fn send(
    core: &Core,
    plan: Plan,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<(), Error> {
    let id = core.draw_id();
    let Plan {
        last_index,
        snapshot_index,
        ..
    } = plan;
    propose(
        core,
        Command::RestoreBegin(RestoreBegin {
            id,
            last_index,
            snapshot_index,
        }),
    )
    .await?;
    for sequence in 0..plan.chunks {
        let Some(records) = chunks.recv().await else {
            return Err(Error::Internal(
                "the snapshot ended early; nothing was changed".to_owned(),
            ));
        };
        propose(
            core,
            Command::RestoreChunk(RestoreChunk {
                id,
                sequence,
                records,
            }),
        )
        .await
        .map_err(unfinished)?;
    }
    commit(core, id, plan).await
}

async fn commit(core: &Core, id: Uuid, plan: Plan) -> Result<(), Error> {
    let Plan { chunks, hash, .. } = plan;
    let reply = propose(
        core,
        Command::RestoreCommit(RestoreCommit { id, chunks, hash }),
    )
    .await;
    match reply {
        Ok(_) => Ok(()),
        Err(Error::OutcomeUnknown) => Err(Error::Unavailable(
            "leadership was lost while the restore was committed: it happened either wholly or not at all; repeating it is safe".to_owned(),
        )),
        Err(error) => Err(error),
    }
}

/// A chunk whose fate is unknown changes nothing without a commit.
fn unfinished(error: Error) -> Error {
    match error {
        Error::OutcomeUnknown | Error::NoLeader => Error::Unavailable(
            "leadership was lost during the restore; nothing was changed, repeat it".to_owned(),
        ),
        other => other,
    }
}

/// An archive that was read to its end and found good.
struct Checked {
    state: File,
    snapshot_index: Index,
    verified: Verified,
}

/// Unpacks into a file without a name and decodes every record. Runs on a thread of its own.
fn check(
    scratch: &std::path::Path,
    archive: ByteStream,
    unknown: Unknown,
) -> Result<Checked, Error> {
    let failed = |error: io::Error| {
        Error::Internal(format!(
            "cannot keep the snapshot in {} while it is checked: {error}; nothing was changed",
            scratch.display()
        ))
    };
    let mut state = tempfile::tempfile_in(scratch).map_err(failed)?;
    let mut out = BufWriter::new(&mut state);
    let upload = Upload {
        archive,
        rest: bytes::Bytes::new(),
    };
    let contents =
        archive::unpack(upload, &mut out).map_err(|error| Error::Invalid(error.to_string()))?;
    out.flush().map_err(failed)?;
    drop(out);
    let meta = contents.meta;
    meta.check_restorable(contents.state_size)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    state.rewind().map_err(failed)?;
    let verified = store::archive::verify(BufReader::with_capacity(READ_SIZE, &mut state), unknown)
        .map_err(|error| {
            Error::Invalid(format!(
                "Raft error when restoring snapshot: failed to restore snapshot: {error}"
            ))
        })?;
    Ok(Checked {
        state,
        snapshot_index: meta.index,
        verified,
    })
}

/// Reads the checked state once more and cuts it into chunks. Runs on a thread of its own.
fn cut(mut state: File, chunks: &mpsc::Sender<Vec<u8>>) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::Internal(format!(
            "cannot read the checked snapshot again: {error}; nothing was changed"
        ))
    };
    state.rewind().map_err(|error| failed(&error))?;
    let state = BufReader::with_capacity(READ_SIZE, state);
    let mut pieces = Chunks::open(state).map_err(|error| failed(&error))?;
    while let Some(records) = pieces.next_chunk().map_err(|error| failed(&error))? {
        if chunks.blocking_send(records).is_err() {
            // The other side gave up and says why.
            break;
        }
    }
    Ok(())
}

/// The uploaded archive as something to read from.
struct Upload {
    archive: ByteStream,
    rest: bytes::Bytes,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.archive.blocking_next() {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
