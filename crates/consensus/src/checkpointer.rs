//! Makes checkpoints when they are due, and drops the log behind them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::checkpoint;
use crate::disk::Disk;
use crate::durable;
use crate::figures;
use crate::log::Log;
use crate::raft::machine::{Board, CheckpointFile, FrozenAt, to_file_meta};
use crate::raft::{Raft, SnapshotMeta, from_log_id};
use crate::tasks::{self, Stop};

/// Somebody who wants a checkpoint now and waits for it.
pub(crate) type Request = oneshot::Sender<io::Result<()>>;

/// A checkpoint that is being written.
const TEMPORARY_FILE: &str = "checkpoint.tmp";

/// How long the library may take to notice a checkpoint before the log is dropped behind it.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);

/// After this the machine is asked again that said *not now*. It may be quiet by then, so new entries aren't waited for.
const NOT_NOW_PAUSE: Duration = Duration::from_millis(100);

/// After this it is tried again when the disk failed, or was full.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Checkpointer {
    pub(crate) raft: Raft,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) board: Arc<Board>,
    pub(crate) log: Log,
    pub(crate) trailing_entries: u64,
    pub(crate) trailing_bytes: u64,
}

impl Checkpointer {
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>, stop: Stop) {
        let mut pause = None;
        loop {
            let request = tokio::select! {
                biased;
                () = stop.stopped() => return,
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = self.due(pause) => None,
            };
            if request.is_none() && !self.board.is_due() {
                // It was rung while the checkpoint was made that it asked for.
                pause = None;
                continue;
            }
            let outcome = self.make().await;
            pause = match &outcome {
                Err(error) => {
                    tracing::warn!(%error, "a checkpoint could not be made");
                    Some(Instant::now() + FAILURE_PAUSE)
                }
                Ok(()) => self.board.is_due().then(|| Instant::now() + NOT_NOW_PAUSE),
            };
            if let Some(request) = request {
                // It may have given up.
                let _ = request.send(outcome);
            }
        }
    }

    /// Returns when a checkpoint is to be tried.
    async fn due(&self, pause: Option<Instant>) {
        match pause {
            Some(end) => sleep_until(end).await,
            None => self.board.due.notified().await,
        }
    }

    async fn make(&self) -> io::Result<()> {
        let frozen = self
            .raft
            .with_state_machine(|machine| Box::pin(std::future::ready(machine.freeze())));
        let frozen = frozen.await.map_err(io::Error::other)?;
        let Some(FrozenAt { frozen, meta }) = frozen else {
            return Ok(());
        };
        if self.board.checkpoint() == meta.last_log_id.map(from_log_id) {
            return Ok(());
        }
        let began = Instant::now();
        let file = match self.write(frozen, &meta).await {
            Ok(file) => {
                figures::note(&figures::PERSIST, began);
                file
            }
            Err(error) => {
                // On a full disk half a checkpoint takes the room that the log needs. It may have its name already.
                let _ = self.disk.remove(TEMPORARY_FILE);
                return Err(error);
            }
        };
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
        figures::note(&figures::SNAPSHOT, began);
        let began = Instant::now();
        let dropped = self.drop_log(&meta).await;
        figures::note(&figures::COMPACT, began);
        dropped
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
        durable::pause(&*self.disk).await;
        let disk = Arc::clone(&self.disk);
        let named = name.clone();
        tasks::blocking(&self.disk, move || {
            disk.rename(TEMPORARY_FILE, &named)?;
            disk.sync_dir()?;
            checkpoint::remove_old(&*disk)
        })
        .await?;
        Ok(CheckpointFile {
            name,
            file,
            incoming: None,
        })
    }

    /// Drops the log behind the older of two checkpoints, which the server falls back to if the newer is damaged.
    async fn drop_log(&self, meta: &SnapshotMeta) -> io::Result<()> {
        let kept = checkpoint::list(&*self.disk)?;
        let newest = meta.last_log_id.map_or(0, |id| id.index);
        if kept.len() < checkpoint::kept(&*self.disk) {
            return Ok(());
        }
        let oldest = kept.first().map_or(0, |id| id.index);
        let end = oldest.min(self.last_without_use(meta, newest));
        if end == 0 {
            return Ok(());
        }
        self.raft
            .trigger()
            .purge_log(end)
            .await
            .map_err(io::Error::other)
    }

    /// The last entry that no late follower is likely to ask for.
    fn last_without_use(&self, meta: &SnapshotMeta, newest: u64) -> u64 {
        let is_alone = meta.last_membership.membership().nodes().count() <= 1;
        if is_alone || self.disk.is_volatile() {
            return newest;
        }
        let start = self.log.start_of(newest + 1, self.trailing_bytes);
        start
            .saturating_sub(1)
            .max(newest.saturating_sub(self.trailing_entries))
    }
}
