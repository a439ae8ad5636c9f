//! The caller's state machine as the Raft library wants it, and the checkpoint that is current.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Answer, LogId, SnapshotMeta, StoredMembership, Types, codec, from_log_id, to_log_id};
use crate::checkpoint;
use crate::disk::{Disk, File, Workers};
use crate::figures;
use crate::log::{EntryId, Log};
use crate::machine::{Committed, Frozen, MachineError, Payload, StateMachine};
use crate::tasks;

/// Entries that are applied at once, at most: all of them become visible together.
const BATCH_ENTRIES: usize = 1024;

/// Bytes of commands that are applied at once, if one command doesn't take more.
const BATCH_BYTES: usize = 4 << 20;

/// A checkpoint that was found damaged. There is one of them at most, so that they can't fill the disk.
const DAMAGED_FILE: &str = "checkpoint.damaged";

/// A checkpoint on disk.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointFile {
    pub(crate) name: String,
    /// Stays usable when the file is removed meanwhile.
    pub(crate) file: Arc<dyn File>,
    /// If it came from a leader and isn't installed yet.
    pub(crate) incoming: Option<Arc<IncomingFile>>,
}

/// The file of a checkpoint that a leader sends, which is removed when nobody needs it any more.
///
/// Each transfer has a name of its own: one that was given up by its sender may still be being installed.
#[derive(Debug)]
pub(crate) struct IncomingFile {
    disk: Arc<dyn Disk>,
    name: String,
    pub(crate) file: Arc<dyn File>,
}

impl IncomingFile {
    /// Begins the transfer with this number, which no other has in the life of this server.
    pub(crate) fn create(disk: &Arc<dyn Disk>, number: u64) -> io::Result<Self> {
        let name = format!("incoming-{number}.tmp");
        Ok(Self {
            file: disk.create(&name)?,
            disk: Arc::clone(disk),
            name,
        })
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        let (disk, name) = (Arc::clone(&self.disk), std::mem::take(&mut self.name));
        // It is not there any more if it was installed; and what stays is removed at the next start.
        let remove = move || drop(disk.remove(&name));
        match self.disk.workers() {
            Workers::Tasks => remove(),
            // Giving back the room of a large file takes its time, and nobody waits for it.
            Workers::Threads => {
                let thread = std::thread::Builder::new().name(String::from("disk"));
                drop(thread.spawn(remove));
            }
        }
    }
}

/// What the machine and those who make and send checkpoints know together.
#[derive(Debug)]
pub(crate) struct Board {
    state: Mutex<BoardState>,
    /// Rung when a checkpoint is due.
    pub(crate) due: Notify,
    /// Entries and bytes after which one is due.
    entries_max: u64,
    bytes_max: u64,
}

#[derive(Debug, Default)]
struct BoardState {
    current: Option<(SnapshotMeta, CheckpointFile)>,
    /// Written by us and not yet handed to the library.
    built: Option<Snapshot<super::CommittedLeader, crate::NodeId, super::Address, CheckpointFile>>,
    applied: Option<LogId>,
    /// What was applied since the current checkpoint.
    since: Load,
    /// How much of it is part of the checkpoint that is being written.
    frozen: Load,
}

/// What was applied to a machine, as far as it makes a checkpoint due.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    entries: u64,
    bytes: u64,
}

impl Board {
    pub(crate) fn new(entries_max: u64, bytes_max: u64) -> Self {
        Self {
            state: Mutex::default(),
            due: Notify::new(),
            entries_max,
            bytes_max,
        }
    }

    fn state(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry at which the current checkpoint stands.
    pub(crate) fn checkpoint(&self) -> Option<EntryId> {
        self.state()
            .current
            .as_ref()
            .and_then(|(meta, _)| meta.last_log_id)
            .map(from_log_id)
    }

    pub(crate) fn applied(&self) -> Option<EntryId> {
        self.state().applied.map(from_log_id)
    }

    /// A checkpoint that we wrote is on disk; the library will ask for it.
    pub(crate) fn built(&self, meta: SnapshotMeta, file: CheckpointFile) {
        let mut state = self.state();
        // What came while it was written counts for the next one.
        state.since.entries = state.since.entries.saturating_sub(state.frozen.entries);
        state.since.bytes = state.since.bytes.saturating_sub(state.frozen.bytes);
        state.current = Some((meta.clone(), file.clone()));
        state.built = Some(Snapshot {
            meta,
            snapshot: file,
        });
    }

    /// Whether enough was applied since the current checkpoint.
    pub(crate) fn is_due(&self) -> bool {
        self.has_enough(&self.state())
    }

    fn has_enough(&self, state: &BoardState) -> bool {
        state.since.entries >= self.entries_max || state.since.bytes >= self.bytes_max
    }

    /// All that was applied so far is going to be part of a checkpoint.
    fn froze(&self) {
        let mut state = self.state();
        state.frozen = state.since;
    }

    fn set_current(&self, meta: SnapshotMeta, file: CheckpointFile) {
        self.state().current = Some((meta, file));
    }

    fn count(&self, applied: LogId, entries: usize, bytes: usize) {
        let is_due = {
            let mut state = self.state();
            state.applied = Some(applied);
            state.since.entries += entries as u64;
            state.since.bytes += bytes as u64;
            self.has_enough(&state)
        };
        if is_due {
            self.due.notify_one();
        }
    }
}

/// The caller's machine and how far it is.
pub(crate) struct Machine {
    /// Away while it is being restored on another thread. The lock is never contended; the library wants `Sync`.
    machine: Mutex<Option<Box<dyn StateMachine>>>,
    disk: Arc<dyn Disk>,
    applied: Option<LogId>,
    membership: StoredMembership,
    board: Arc<Board>,
    /// Checkpoints that were passed over at the start, and what is wrong with them.
    damaged: Vec<(EntryId, String)>,
}

/// What the caller's machine looks like at one entry.
pub(crate) struct FrozenAt {
    pub(crate) frozen: Box<dyn Frozen>,
    pub(crate) meta: SnapshotMeta,
}

impl Machine {
    pub(crate) fn new(
        machine: Box<dyn StateMachine>,
        disk: Arc<dyn Disk>,
        board: Arc<Board>,
    ) -> Self {
        Self {
            machine: Mutex::new(Some(machine)),
            disk,
            applied: None,
            membership: StoredMembership::default(),
            board,
            damaged: Vec::new(),
        }
    }

    fn machine(&mut self) -> &mut Option<Box<dyn StateMachine>> {
        self.machine
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores the machine from the newest checkpoint that is good. If the log is whole from its first entry on, none
    /// is needed.
    pub(crate) fn load(&mut self, is_log_whole: bool) -> Result<(), LoadError> {
        let mut first_problem = None;
        for id in checkpoint::list(&*self.disk)?.into_iter().rev() {
            let name = checkpoint::file_name(id);
            let loaded = if is_log_whole {
                // A machine that took a part of it could not start from nothing any more.
                check(&*self.disk, &name).and_then(|()| self.load_one(&name))
            } else {
                self.load_one(&name)
            };
            match loaded {
                Ok(()) => return Ok(()),
                Err(LoadError::Damaged { file, reason }) => {
                    tracing::error!(
                        file,
                        reason,
                        "a checkpoint is damaged, trying what was before it"
                    );
                    self.damaged.push((id, reason.clone()));
                    first_problem.get_or_insert(LoadError::Damaged { file, reason });
                }
                Err(error) => return Err(error),
            }
        }
        match first_problem {
            Some(problem) if !is_log_whole => Err(problem),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes sure that the log holds all that was in the damaged checkpoints. It may not if one came from a leader: then
    /// this server would forget what it acknowledged.
    pub(crate) fn check_replaced(&self, log: &Log) -> Result<(), LoadError> {
        for (id, reason) in &self.damaged {
            if log.id_at(id.index)? != Some(*id) {
                return Err(LoadError::Damaged {
                    file: checkpoint::file_name(*id),
                    reason: reason.clone(),
                });
            }
        }
        Ok(())
    }

    /// Once it is clear that the server can do without the damaged checkpoints: sees to it that none of them counts as
    /// one of those that are kept, in the place of a good one. The last of them stays for whoever wants to look at it.
    pub(crate) fn set_damaged_aside(&mut self) -> io::Result<()> {
        if self.damaged.is_empty() {
            return Ok(());
        }
        for (id, _) in self.damaged.drain(..) {
            let name = checkpoint::file_name(id);
            tracing::error!(
                file = name,
                kept_as = DAMAGED_FILE,
                "a damaged checkpoint is set aside"
            );
            self.disk.rename(&name, DAMAGED_FILE)?;
        }
        self.disk.sync_dir()
    }

    fn load_one(&mut self, name: &str) -> Result<(), LoadError> {
        let file = self.disk.open(name)?;
        let machine = self
            .machine()
            .as_mut()
            .expect("nothing else restores it yet");
        let meta = install(&mut **machine, Arc::clone(&file), name)?;
        let meta = to_snapshot_meta(&meta).map_err(|reason| LoadError::Damaged {
            file: String::from(name),
            reason: String::from(reason),
        })?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.board.state().applied = self.applied;
        self.board.set_current(
            meta,
            CheckpointFile {
                name: String::from(name),
                file,
                incoming: None,
            },
        );
        Ok(())
    }

    pub(crate) fn applied(&self) -> Option<EntryId> {
        self.applied.map(from_log_id)
    }

    /// Takes a frozen view for a checkpoint.
    pub(crate) fn freeze(&mut self) -> Option<FrozenAt> {
        let last_log_id = self.applied?;
        let began = Instant::now();
        let frozen = self.machine().as_mut()?.freeze()?;
        figures::note(&figures::FSM_SNAPSHOT, began);
        self.board.froze();
        let meta = SnapshotMeta {
            last_log_id: Some(last_log_id),
            last_membership: self.membership.clone(),
        };
        Some(FrozenAt { frozen, meta })
    }
}

/// Why a checkpoint was not loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    Damaged { file: String, reason: String },
    Machine(MachineError),
    Io(io::Error),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Passes a checkpoint on and remembers what was wrong with it, whatever the machine makes of the error.
struct Witness<R> {
    inner: R,
    problem: Option<String>,
}

impl<R: Read> Read for Witness<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner
            .read(out)
            .inspect_err(|error| self.problem = Some(error.to_string()))
    }
}

/// Reads a checkpoint to the end.
fn check(disk: &dyn Disk, name: &str) -> Result<(), LoadError> {
    let checked = checkpoint::open(disk, name).and_then(checkpoint::Reader::check);
    match checked {
        Ok(_) => Ok(()),
        Err(error) => Err(LoadError::Damaged {
            file: String::from(name),
            reason: error.to_string(),
        }),
    }
}

/// Restores a machine from a checkpoint file, all of which must be good.
fn install(
    machine: &mut dyn StateMachine,
    file: Arc<dyn File>,
    name: &str,
) -> Result<checkpoint::Meta, LoadError> {
    let damaged = |reason: String| LoadError::Damaged {
        file: String::from(name),
        reason,
    };
    let reader = checkpoint::Reader::new(checkpoint::FileSource { file, offset: 0 })
        .map_err(|error| damaged(error.to_string()))?;
    let mut witness = Witness {
        inner: reader,
        problem: None,
    };
    let outcome = machine.install(&mut witness);
    if let Some(problem) = witness.problem {
        return Err(damaged(problem));
    }
    outcome.map_err(LoadError::Machine)?;
    // What the machine left unread has to be good as well.
    witness
        .inner
        .check()
        .map_err(|error| damaged(error.to_string()))
}

fn to_snapshot_meta(meta: &checkpoint::Meta) -> Result<SnapshotMeta, &'static str> {
    let membership =
        codec::decode_membership(&meta.membership).map_err(|codec::Malformed(reason)| reason)?;
    Ok(SnapshotMeta {
        last_log_id: Some(to_log_id(meta.last)),
        last_membership: StoredMembership::new(meta.membership_id.map(to_log_id), membership),
    })
}

/// What a checkpoint file says about where it stands.
pub(crate) fn to_file_meta(meta: &SnapshotMeta) -> checkpoint::Meta {
    checkpoint::Meta {
        last: meta.last_log_id.map(from_log_id).unwrap_or_default(),
        membership_id: meta.last_membership.log_id().map(from_log_id),
        membership: codec::encode_membership(meta.last_membership.membership()),
    }
}

/// Reads a checkpoint file that a leader sent, to the end.
pub(crate) fn check_incoming(
    incoming: Arc<IncomingFile>,
) -> io::Result<(SnapshotMeta, CheckpointFile)> {
    let file = Arc::clone(&incoming.file);
    file.sync_data()?;
    let source = checkpoint::FileSource {
        file: Arc::clone(&file),
        offset: 0,
    };
    let meta = checkpoint::Reader::new(source)?.check()?;
    let meta = to_snapshot_meta(&meta).map_err(io::Error::other)?;
    Ok((
        meta,
        CheckpointFile {
            name: incoming.name.clone(),
            file,
            incoming: Some(incoming),
        },
    ))
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = CheckpointFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let mut responders = Vec::new();
        let mut last = None;
        let mut bytes = 0;
        loop {
            let next = entries.next().await;
            let is_end = next.is_none();
            if let Some(next) = next {
                let (entry, responder) = next?;
                let payload = match entry.payload {
                    EntryPayload::Blank => Payload::Blank,
                    EntryPayload::Normal(command) => {
                        bytes += command.0.len();
                        Payload::Command(command.0)
                    }
                    EntryPayload::Membership(membership) => {
                        self.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Payload::Membership
                    }
                };
                batch.push(Committed {
                    index: entry.log_id.index,
                    term: entry.log_id.leader_id.term,
                    payload,
                });
                responders.push(responder);
                last = Some(entry.log_id);
            }
            let is_full = batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES;
            if (is_full || is_end)
                && let Some(last) = last.take()
            {
                let count = batch.len();
                let machine = self
                    .machine()
                    .as_mut()
                    .ok_or_else(|| io::Error::other("the state is lost"))?;
                let began = Instant::now();
                let replies = machine
                    .apply(std::mem::take(&mut batch))
                    .map_err(|error| io::Error::other(error.reason))?;
                figures::note(&figures::FSM_APPLY, began);
                if replies.len() != count {
                    return Err(io::Error::other(
                        "the state machine did not answer each entry",
                    ));
                }
                self.applied = Some(last);
                self.board.count(last, count, bytes);
                bytes = 0;
                for (responder, reply) in responders.drain(..).zip(replies) {
                    if let Some(responder) = responder {
                        responder.send(Answer(reply));
                    }
                }
            }
            if is_end {
                return Ok(());
            }
        }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        // The file is written before the library is asked to build: so a full disk doesn't stop the server.
        self.board
            .state()
            .built
            .take()
            .map(|built| Builder { built: Some(built) })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            built: self.board.state().built.take(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: CheckpointFile,
    ) -> io::Result<()> {
        let name = checkpoint::file_name(meta.last_log_id.map(from_log_id).unwrap_or_default());
        if snapshot.incoming.is_some() {
            crate::durable::pause(&*self.disk).await;
            let (disk, from, to) = (Arc::clone(&self.disk), snapshot.name.clone(), name.clone());
            tasks::blocking(&self.disk, move || {
                disk.rename(&from, &to)?;
                disk.sync_dir()
            })
            .await?;
        }
        let mut machine = self
            .machine()
            .take()
            .ok_or_else(|| io::Error::other("the state is lost"))?;
        let file = Arc::clone(&snapshot.file);
        let title = name.clone();
        let restore = move || {
            let outcome = install(&mut *machine, file, &title);
            Ok((machine, outcome))
        };
        let began = Instant::now();
        let (machine, outcome) = tasks::blocking(&self.disk, restore).await?;
        figures::note(&figures::FSM_RESTORE, began);
        *self.machine() = Some(machine);
        match outcome {
            Ok(_) => {}
            Err(LoadError::Damaged { reason, .. }) => return Err(io::Error::other(reason)),
            Err(LoadError::Machine(error)) => return Err(io::Error::other(error.reason)),
            Err(LoadError::Io(error)) => return Err(error),
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        {
            let mut state = self.board.state();
            state.applied = self.applied;
            state.since = Load::default();
            state.frozen = Load::default();
            state.current = Some((
                meta.clone(),
                CheckpointFile {
                    name,
                    file: snapshot.file,
                    incoming: None,
                },
            ));
        }
        let disk = Arc::clone(&self.disk);
        tasks::blocking(&self.disk, move || checkpoint::remove_old(&*disk)).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<
        Option<Snapshot<super::CommittedLeader, crate::NodeId, super::Address, CheckpointFile>>,
    > {
        let current = self.board.state().current.clone();
        Ok(current.map(|(meta, file)| Snapshot {
            meta,
            snapshot: file,
        }))
    }
}

/// Hands on a checkpoint that is already written.
pub(crate) struct Builder {
    built: Option<Snapshot<super::CommittedLeader, crate::NodeId, super::Address, CheckpointFile>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = CheckpointFile;

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<Snapshot<super::CommittedLeader, crate::NodeId, super::Address, CheckpointFile>>
    {
        self.built
            .take()
            .ok_or_else(|| io::Error::other("there is no new checkpoint"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_transfer_leaves_others_alone_and_nothing_behind() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let first = Arc::new(IncomingFile::create(&disk, 1).unwrap());
        let file = checkpoint::Writer::new(Arc::clone(&first.file), &checkpoint::Meta::default());
        file.unwrap().finish().unwrap();
        let refused = check_incoming(Arc::clone(&first));
        assert!(refused.is_err(), "it has no members");
        let second = IncomingFile::create(&disk, 2).unwrap();
        second.file.write_at(0, b"other").unwrap();
        assert!(first.file.len().unwrap() > 5);
        // Installed under another name, which stays.
        disk.rename(&first.name, "checkpoint").unwrap();
        drop((first, second));
        assert_eq!(disk.list().unwrap(), ["checkpoint"]);
    }
}
