//! Restoring a snapshot: check all of it, then send it through the log, where only the last entry changes anything.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use model::{Command, Error, Index, Need, RestoreBegin, RestoreChunk, RestoreCommit, RestorePart};
use rpc::{ByteStream, CallError, Hop, Refusal, RestoreOptions, Restored};
use store::archive::{Chunks, StateError, TypeName, Unknown, Verified, is_later, verify_part};
use uuid::Uuid;
use wire::archive;

use crate::access::{self, authorise};
use crate::config::Checking;
use crate::core::Core;
use crate::route::{self, Turn};
use crate::write::propose;

/// How much of the state is read from its file at a time.
const READ_SIZE: usize = 256 * 1024;

/// Replaces everything, or a part, by what the snapshot in `archive` has of it, here or at the leader.
///
/// On an error nothing was changed, unless it says otherwise.
/// Unlike other requests, the original doesn't hold restores while there is no leader.
pub(crate) async fn restore(
    core: &Core,
    hop: Hop,
    options: RestoreOptions,
    archive: ByteStream,
) -> Result<Restored, Refusal> {
    core.route(&options.datacenter).map_err(Refusal::Failed)?;
    match route::at_once(core, hop).await? {
        Turn::Here => restore_here(core, options, archive)
            .await
            .map_err(Refusal::Failed),
        Turn::There(leader) => {
            let restored = core
                .calls
                .restore(&leader.server, Hop::Forwarded, options, archive)
                .await;
            restored.map_err(|error| match error {
                CallError::Broken(why) => {
                    tracing::warn!("a restore was cut off from the leader: {why}");
                    Refusal::Failed(in_doubt())
                }
                CallError::NotSent(why) => Refusal::Failed(
                    Error::Unavailable(format!("{why}; nothing was changed")).from_afar(),
                ),
                CallError::Refused(_) => route::transfer_error(error),
            })
        }
    }
}

/// The same where this server leads; on an error nothing was changed, unless it says otherwise.
async fn restore_here(
    core: &Core,
    options: RestoreOptions,
    archive: ByteStream,
) -> Result<Restored, Error> {
    let view = core.shared.view();
    let authorised = authorise(core, &view, &options.token, Need::Management).await;
    drop(view);
    access::told(authorised, "Restore")?;
    let Ok(_slot) = core.uploads.try_acquire() else {
        return Err(Error::Unavailable(
            "too many snapshots are being uploaded at the same time; try again later".to_owned(),
        ));
    };

    let scratch = core.config.scratch_dir.clone();
    let unknown = if options.skip_unknown {
        Unknown::Skip
    } else {
        Unknown::Refuse
    };
    let upload = Upload {
        archive,
        rest: Bytes::new(),
    };
    let part = options.part;
    let checked = match core.config.checking {
        Checking::OnAThread => {
            let checked =
                tokio::task::spawn_blocking(move || check(&scratch, upload, unknown, part)).await;
            checked.map_err(|_| {
                Error::Internal(
                    "the check of the snapshot ended by a panic; nothing was changed".to_owned(),
                )
            })??
        }
        Checking::InPlace => check(&scratch, upload.whole().await?, unknown, part)?,
    };
    for (kind, tally) in &checked.verified.skipped {
        tracing::warn!(
            "not restored: {} records of type {}, for which there is no table",
            tally.count,
            TypeName(*kind)
        );
    }
    // Only now, so that a slow upload is in nobody's way.
    let Ok(_one_at_a_time) = core.restoring.try_lock() else {
        return Err(Error::Unavailable(
            "another restore is under way; wait until it is done".to_owned(),
        ));
    };
    let skipped = &checked.verified.skipped;
    let skipped = skipped
        .iter()
        .map(|(kind, tally)| (TypeName(*kind).to_string(), tally.count));
    let restored = Restored {
        skipped: skipped.collect(),
    };
    let id = core.draw_id();
    let mut open = Open {
        core,
        is_settled: false,
    };
    let sent = send(core, id, checked).await;
    open.is_settled = sent.is_ok() || give_up(core).await;
    sent.map(|()| restored)
}

/// A restore that is being sent; who is dropped in the middle of it has left an open one behind.
struct Open<'a> {
    core: &'a Core,
    is_settled: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.core.restore_abandoned.notify_one();
        }
    }
}

/// How long after a failure it is tried again to drop what was left behind.
const CLEAR_PAUSE: Duration = Duration::from_millis(250);

/// Drops what restores that were broken off in the middle have left behind, for as long as this server leads.
///
/// It would hold back checkpoints on all servers, and take memory, until the next restore or the next leader.
pub(crate) async fn clear_abandoned(core: &Core) {
    loop {
        core.restore_abandoned.notified().await;
        // If the duties end in the middle, they begin with this.
        let mut open = Open {
            core,
            is_settled: false,
        };
        tracing::warn!("a restore was broken off; what came of it is dropped");
        loop {
            {
                let _one_at_a_time = core.restoring.lock().await;
                open.is_settled = give_up(core).await;
            }
            if open.is_settled {
                break;
            }
            tokio::time::sleep(CLEAR_PAUSE).await;
        }
    }
}

/// Makes sure that no half of a restore stays open: a commit of another one drops it on all servers. Says whether that
/// was done.
///
/// What can't be written must be tried again: the first entry of the next leader does the same, but a leader that heard
/// nobody for a while may go on in its term, with no other leader in between.
async fn give_up(core: &Core) -> bool {
    let nothing = RestoreCommit {
        id: Uuid::nil(),
        chunks: 0,
        hash: [0; 32],
    };
    // It is refused, as it should be.
    let refused = propose(core, Command::RestoreCommit(nothing)).await;
    !matches!(refused, Err(Error::NoLeader | Error::OutcomeUnknown))
}

/// Proposes a restore: begin, chunks, commit.
///
/// If it breaks off before the commit, nothing has changed.
async fn send(core: &Core, id: Uuid, checked: Checked) -> Result<(), Error> {
    let Checked {
        state,
        snapshot_index,
        verified,
        part,
    } = checked;
    let begin = RestoreBegin {
        id,
        last_index: verified.last_index,
        snapshot_index,
        part: part.clone(),
    };
    propose(core, Command::RestoreBegin(begin))
        .await
        .map_err(|error| match error {
            // Nothing has begun.
            Error::NoLeader => error,
            other => unfinished(other),
        })?;
    // What is read now was written a moment ago and is in the machine's memory; a thread for it would cost more.
    let unreadable = |error| {
        Error::Internal(format!(
            "cannot read the checked snapshot again: {error}; nothing was changed"
        ))
    };
    let state = BufReader::with_capacity(READ_SIZE, state);
    let mut chunks = Chunks::of_part(state, part).map_err(unreadable)?;
    let mut sequence = 0;
    while let Some(records) = chunks.next_chunk().map_err(unreadable)? {
        let chunk = RestoreChunk {
            id,
            sequence,
            records,
        };
        propose(core, Command::RestoreChunk(chunk))
            .await
            .map_err(unfinished)?;
        sequence += 1;
    }
    // The state machines compare both with what they were sent, so a file that changed in between changes nothing.
    let commit = RestoreCommit {
        id,
        chunks: verified.chunks,
        hash: verified.hash,
    };
    match propose(core, Command::RestoreCommit(commit)).await {
        Ok(_) => Ok(()),
        Err(Error::OutcomeUnknown) => Err(in_doubt()),
        Err(error) => Err(unfinished(error)),
    }
}

/// The leader was lost when the commit may have been in its log.
fn in_doubt() -> Error {
    Error::Unavailable(
        "leadership was lost while the restore was committed: it happened either wholly or not at all; repeating it is safe".to_owned(),
    )
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
    /// What of it is restored, if not all.
    part: Option<RestorePart>,
}

/// Unpacks into a file without a name and decodes every record. Takes as long as the snapshot is large.
fn check(
    scratch: &Path,
    archive: impl Read,
    unknown: Unknown,
    part: Option<RestorePart>,
) -> Result<Checked, Error> {
    let failed = |error: io::Error| {
        Error::Internal(format!(
            "cannot keep the snapshot in {} while it is checked: {error}; nothing was changed",
            scratch.display()
        ))
    };
    let mut state = tempfile::tempfile_in(scratch).map_err(failed)?;
    let mut out = BufWriter::with_capacity(
        READ_SIZE,
        Reserving {
            file: &mut state,
            unchecked: 0,
        },
    );
    let contents =
        archive::unpack(archive, &mut out).map_err(|error| Error::Invalid(error.to_string()))?;
    out.flush().map_err(failed)?;
    drop(out);
    let meta = contents.meta;
    meta.check_restorable(contents.state_size)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    state.rewind().map_err(failed)?;
    let reader = BufReader::with_capacity(READ_SIZE, &mut state);
    let verified = verify_part(reader, unknown, part.as_ref())
        .map_err(|error| {
            let hint = if is_of_a_later_release(&error) {
                "; what there is no table for can be left out with -skip-unknown (over HTTP ?skip-unknown)"
            } else {
                ""
            };
            Error::Invalid(format!(
                "Raft error when restoring snapshot: failed to restore snapshot: {error}{hint}"
            ))
        })?;
    state.rewind().map_err(failed)?;
    Ok(Checked {
        state,
        snapshot_index: meta.index,
        verified,
        part,
    })
}

fn is_of_a_later_release(error: &StateError) -> bool {
    matches!(error, StateError::Refused { refusal: store::archive::Refusal::Unrecognized(kind), .. } if is_later(*kind))
}

/// Room on the disk that an upload must leave: the log lives there too, and a server that can't write it has to stop.
const FREE_MIN: u64 = 256 * 1024 * 1024;

/// How many bytes are written between two looks at the room.
const LOOK_EVERY: u64 = 16 * 1024 * 1024;

/// A file that is written to while there is room: a small archive may hold a very large state.
struct Reserving<'a> {
    file: &'a mut File,
    unchecked: u64,
}

impl Write for Reserving<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unchecked += bytes.len() as u64;
        if self.unchecked > LOOK_EVERY {
            self.unchecked = 0;
            let room = rustix::fs::fstatvfs(&*self.file)?;
            if room.f_bavail.saturating_mul(room.f_frsize) < FREE_MIN {
                return Err(io::Error::other(
                    "no room on the disk to check the snapshot",
                ));
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The uploaded archive as something to read from.
struct Upload {
    archive: ByteStream,
    rest: Bytes,
}

impl Upload {
    /// All of it, in memory.
    async fn whole(mut self) -> Result<io::Cursor<Vec<u8>>, Error> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.archive.next().await {
            bytes.extend_from_slice(
                &piece.map_err(|error| Error::invalid(format!("the upload broke off: {error}")))?,
            );
        }
        Ok(io::Cursor::new(bytes))
    }
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
