//! Makes checkpoints when they are due, and drops the log behind them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::checkpoint;
use crate::disk::Disk;
use crate::durable;
use crate::raft::machine::{Board, CheckpointFile, FrozenAt, to_file_meta};
use crate::raft::{Raft, SnapshotMeta, from_log_id};
use crate::tasks::{self, Stop};

/// Somebody who wants a checkpoint now and waits for it.
pub(crate) type Request = oneshot::Sender<io::Result<()>>;

/// A checkpoint that is being written.
const TEMPORARY_FILE: &str = "checkpoint.tmp";

/// How long the library may take to notice a checkpoint before the log is dropped behind it.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Checkpointer {
    pub(crate) raft: Raft,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) board: Arc<Board>,
    pub(crate) trailing_entries: u64,
}

impl Checkpointer {
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>, stop: Stop) {
        loop {
            let request = tokio::select! {
                biased;
                () = stop.stopped() => return,
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = self.board.due.notified() => None,
            };
            let outcome = self.make().await;
            if let Err(error) = &outcome {
                // The log grows a little longer; the next entries try again.
                tracing::warn!(%error, "a checkpoint could not be made");
                self.board.postpone();
            }
            if let Some(request) = request {
                // It may have given up.
                let _ = request.send(outcome);
            }
        }
    }

    async fn make(&self) -> io::Result<()> {
        let frozen = self
            .raft
            .with_state_machine(|machine| Box::pin(std::future::ready(machine.freeze())));
        let frozen = frozen.await.map_err(io::Error::other)?;
        let Some(FrozenAt { frozen, meta }) = frozen else {
            self.board.postpone();
            return Ok(());
        };
        if self.board.checkpoint() == meta.last_log_id.map(from_log_id) {
            return Ok(());
        }
        let file = self.write(frozen, &meta).await?;
        self.board.built(meta.clone(), file);
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(io::Error::other)?;
        let last = meta.last_log_id;
        let wait = self.raft.wait(Some(NOTICE_TIMEOUT));
        wait.metrics(|metrics| metrics.snapshot >= last, "checkpoint")
            .await
            .map_err(io::Error::other)?;
        self.drop_log(&meta).await
    }

    async fn write(
        &self,
        frozen: Box<dyn crate::machine::Frozen>,
        meta: &SnapshotMeta,
    ) -> io::Result<CheckpointFile> {
        let file_meta = to_file_meta(meta);
        let name = checkpoint::file_name(file_meta.last);
        let disk = Arc::clone(&self.disk);
        let write = move || {
            let file = disk.create(TEMPORARY_FILE)?;
            let mut writer = checkpoint::Writer::new(Arc::clone(&file), &file_meta)?;
            frozen.write_to(&mut writer)?;
            writer.finish()?;
            Ok(file)
        };
        durable::pause(&*self.disk).await;
        let file = tasks::blocking(&self.disk, write).await?;
        self.disk.rename(TEMPORARY_FILE, &name)?;
        durable::pause(&*self.disk).await;
        let disk = Arc::clone(&self.disk);
        tasks::blocking(&self.disk, move || {
            disk.sync_dir()?;
            checkpoint::remove_old(&*disk)
        })
        .await?;
        Ok(CheckpointFile { name, file })
    }

    /// Drops the log behind the older of two checkpoints, which the server falls back to if the newer is damaged.
    async fn drop_log(&self, meta: &SnapshotMeta) -> io::Result<()> {
        let kept = checkpoint::list(&*self.disk)?;
        let newest = meta.last_log_id.map_or(0, |id| id.index);
        if kept.len() < checkpoint::CHECKPOINTS_KEPT {
            return Ok(());
        }
        let oldest = kept.first().map_or(0, |id| id.index);
        let end = oldest.min(newest.saturating_sub(self.trailing_entries));
        if end == 0 {
            return Ok(());
        }
        self.raft
            .trigger()
            .purge_log(end)
            .await
            .map_err(io::Error::other)
    }
}
