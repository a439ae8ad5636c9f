//! Saving a snapshot: a frozen view, written out as an archive while everything else goes on.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use model::{Error, Need};
use rpc::{ByteSender, Hop, Refusal, Save, SaveOptions, StreamError, byte_stream};
use store::View;
use tokio::sync::OwnedSemaphorePermit;
use wire::archive;

use crate::access::{self, authorise};
use crate::config::Checking;
use crate::core::Core;
use crate::read;
use crate::route::{self, Turn};

/// How many bytes of archive are sent in one piece.
const PIECE: usize = 64 * 1024;

/// Takes a snapshot of everything: here, if that may be stale or this server leads, else from the leader.
///
/// Unlike other requests, the original doesn't hold snapshots while there is no leader.
pub(crate) async fn save(core: &Core, hop: Hop, options: SaveOptions) -> Result<Save, Refusal> {
    core.route(&options.datacenter).map_err(Refusal::Failed)?;
    if !options.stale {
        match route::at_once(core, hop).await? {
            Turn::Here => core.consensus.read_barrier().await.map_err(|_| match hop {
                Hop::First => Refusal::Failed(Error::NoLeader),
                Hop::Forwarded => Refusal::NotLeader,
            })?,
            Turn::There(leader) => {
                let save = core
                    .calls
                    .save(&leader.server, Hop::Forwarded, options)
                    .await;
                return save.map_err(route::transfer_error);
            }
        }
    }
    save_here(core, &options).await.map_err(Refusal::Failed)
}

/// Takes a snapshot of everything that this server knows.
async fn save_here(core: &Core, options: &SaveOptions) -> Result<Save, Error> {
    let view = core.shared.view();
    let authorised = authorise(core, &view, &options.token, Need::Management).await;
    access::told(authorised, "Save")?;
    if view.index() == 0 {
        return Err(Error::invalid(
            "Raft error when taking snapshot: nothing new to snapshot",
        ));
    }
    let Ok(place) = Arc::clone(&core.saves).try_acquire_owned() else {
        return Err(Error::Unavailable(
            "too many snapshots are being saved at the same time; try again later".to_owned(),
        ));
    };
    let job = Job {
        mtime: core.clock.now_ms() / 1000,
        meta: describe(core, &view),
        view,
    };
    let meta = read::meta(core, job.meta.index);
    let (sender, archive) = byte_stream();
    if core.config.checking == Checking::InPlace {
        let mut bytes = Vec::new();
        let compression = archive::Compression {
            workers: 0,
            ..archive::Compression::default()
        };
        job.write(&mut bytes, compression)
            .map_err(|error| Error::Internal(error.to_string()))?;
        tokio::spawn(send_all(bytes, sender, place));
        return Ok(Save { meta, archive });
    }
    let compression = archive::Compression {
        workers: core.config.compress_threads,
        before_work: yield_to_requests,
        ..archive::Compression::default()
    };
    // A thread of the runtime's pool; it ends with the archive, or when nobody listens any more.
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut out = Pieces {
            sender,
            piece: Vec::with_capacity(PIECE),
        };
        let written = job.write(&mut out, compression).and_then(|()| out.flush());
        if let Err(error) = written {
            tracing::warn!("a snapshot was not finished: {error}");
            out.sender
                .blocking_send(Err(StreamError(error.to_string())));
        }
    });
    Ok(Save { meta, archive })
}

/// What is needed to write an archive.
struct Job {
    view: View,
    meta: archive::Meta,
    mtime: u64,
}

impl Job {
    fn write(mut self, out: impl Write, compression: archive::Compression) -> io::Result<()> {
        // The container needs sizes before contents, so the first pass only counts.
        self.meta.size =
            i64::try_from(store::archive::size(&self.view)).map_err(io::Error::other)?;
        let mut writer = archive::Writer::new(out, &self.meta, self.mtime, compression)?;
        store::archive::write(&self.view, &mut writer)?;
        writer.finish().map(drop)
    }
}

/// Sends what was written in place, in pieces.
async fn send_all(bytes: Vec<u8>, sender: ByteSender, _place: OwnedSemaphorePermit) {
    for piece in bytes.chunks(PIECE) {
        if !sender.send(Ok(Bytes::copy_from_slice(piece))).await {
            return;
        }
    }
}

/// Lowers the priority of a thread that compresses: whoever asks the server comes first.
fn yield_to_requests() {
    // On Linux this concerns the calling thread alone. Without the right to do it, the snapshot is merely less polite.
    let _ = rustix::process::setpriority_process(None, 10);
}

/// What stands in the archive's `meta.json`; its size is not known yet.
fn describe(core: &Core, view: &View) -> archive::Meta {
    let (term, index) = (view.term(), view.index());
    let status = core.consensus.status();
    let voters = status.voters.into_iter().map(|peer| peer.address);
    let voters: Vec<String> = voters.collect();
    archive::Meta {
        version: 1,
        id: format!("{term}-{index}-{}", core.clock.now_ms()),
        index,
        term,
        peers: archive::Meta::encode_peers(voters.iter().map(String::as_str)),
        configuration: archive::Configuration {
            servers: voters
                .into_iter()
                .map(|address| archive::Server {
                    suffrage: archive::Suffrage::VOTER,
                    id: address.clone(),
                    address,
                })
                .collect(),
        },
        configuration_index: status.membership_index,
        size: 0,
    }
}

/// Gathers what is written into pieces and sends them.
struct Pieces {
    sender: ByteSender,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        if self.sender.blocking_send(Ok(Bytes::from(piece))) {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "nobody reads the snapshot any more",
            ))
        }
    }
}
