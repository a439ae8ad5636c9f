//! The one who writes: takes what is queued, in groups, and syncs each group once.
//!
//! While one group is being synced the next one gathers in the queue, so the busier the server, the more entries a sync
//! carries. A failure is final: after a failed sync nobody knows what is on disk, so nothing is tried again.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::record::{self, Record};
use super::segment::{self, Header, SEGMENT_HEADER, Segment};
use super::{Done, EntryId, Log, Operation, Shared, State};
use crate::disk::{File, Workers};
use crate::durable;
use crate::figures;
use crate::tasks::Tasks;

/// Bytes after which a group is closed; more would make the first in it wait for the last.
const GROUP_BYTES: usize = 4 << 20;

/// How long the log rests before the commit mark is written by itself.
const REST: Duration = Duration::from_millis(100);

/// A file that is being made ready to be the next segment.
const SPARE_FILE: &str = "spare";

/// A segment under a temporary name, until its header is durable.
const ROLL_FILE: &str = "roll.tmp";

pub(crate) struct Writer {
    log: Log,
    /// The group that is being gathered.
    group: Vec<u8>,
    group_offsets: Vec<u32>,
    group_done: Vec<Done>,
    /// The last entry that was taken from the queue.
    last: Option<EntryId>,
    /// The last commit mark that was written.
    marked: Option<EntryId>,
    /// The segment that is written to.
    header: Header,
    file: Arc<dyn File>,
    end: u64,
    spare: Arc<Mutex<Spare>>,
}

/// The next segment, zeroed in the background so that a sync doesn't have to allocate blocks.
#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    Making(thread::JoinHandle<()>),
    Ready(u64),
    /// Not tried again before the next segment, lest a full disk be filled over and over.
    Failed,
}

/// Starts the writer, on a thread or as a task, as the disk wants it.
pub(crate) fn start(log: &Log, tasks: &Tasks) -> io::Result<()> {
    let (_, last) = log.ends();
    let (header, file, end, marked) = {
        let state = log.state();
        let current = state
            .segments
            .back()
            .ok_or_else(|| io::Error::other("the log has no segment"))?;
        (
            current.header,
            Arc::clone(&current.file),
            current.end,
            state.committed,
        )
    };
    let mut writer = Writer {
        log: log.clone(),
        group: Vec::new(),
        group_offsets: Vec::new(),
        group_done: Vec::new(),
        last,
        marked,
        header,
        file,
        end,
        spare: Arc::default(),
    };
    match log.shared.disk.workers() {
        Workers::Threads => tasks.thread("log", move || writer.run_thread()),
        Workers::Tasks => {
            tasks.spawn(async move { writer.run_task().await });
            Ok(())
        }
    }
}

/// What woke the writer.
enum Next {
    Operations(Vec<Operation>),
    /// Nothing came for a while.
    Rest,
    Close,
}

impl Writer {
    fn run_thread(&mut self) {
        loop {
            let next = {
                let shared: &Shared = &self.log.shared;
                let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(next) = state.next() {
                        break next;
                    }
                    state.writer_waits = true;
                    if state.committed > self.marked {
                        let (woken, timeout) = shared
                            .wake_thread
                            .wait_timeout(state, REST)
                            .unwrap_or_else(PoisonError::into_inner);
                        state = woken;
                        if timeout.timed_out() && state.queue.is_empty() && !state.closing {
                            break Next::Rest;
                        }
                    } else {
                        state = shared
                            .wake_thread
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            let goes_on = self
                .handle(next)
                .now_or_never()
                .expect("a disk that wants threads has no delays to sleep out");
            if !goes_on {
                return;
            }
        }
    }

    async fn run_task(&mut self) {
        let log = self.log.clone();
        loop {
            let next = {
                let mut state = log.state();
                let next = state.next();
                state.writer_waits = next.is_none();
                next
            };
            let next = match next {
                Some(next) => next,
                None if log.committed() > self.marked => {
                    let woken = tokio::time::timeout(REST, log.shared.wake_task.notified()).await;
                    if woken.is_ok() {
                        continue;
                    }
                    Next::Rest
                }
                None => {
                    log.shared.wake_task.notified().await;
                    continue;
                }
            };
            if !self.handle(next).await {
                return;
            }
        }
    }

    /// Returns whether to go on.
    async fn handle(&mut self, next: Next) -> bool {
        let (operations, closes) = match next {
            Next::Operations(operations) => (operations, false),
            Next::Rest => (Vec::new(), false),
            Next::Close => (Vec::new(), true),
        };
        let is_quiet = operations.is_empty();
        let mut operations = operations.into_iter();
        let mut result = Ok(());
        for operation in operations.by_ref() {
            result = self.perform(operation).await;
            if result.is_err() {
                break;
            }
            self.log.state().note_progress(false);
        }
        if result.is_ok() {
            result = if is_quiet {
                self.write_mark().await
            } else {
                self.flush().await
            };
        }
        self.log.state().note_progress(true);
        if let Err(failure) = result {
            self.fail(&failure.to_string(), operations);
            return false;
        }
        if closes {
            self.join_spare();
        }
        !closes
    }

    async fn perform(&mut self, operation: Operation) -> io::Result<()> {
        let (outcome, done) = match operation {
            Operation::Append { entries, done } => {
                for entry in entries {
                    if let Err(failure) = self.add(Record::Entry(entry)).await {
                        return give_up(failure, done);
                    }
                }
                // Told after the sync of the group that holds the last of its entries.
                self.group_done.push(done);
                return Ok(());
            }
            Operation::CutBehind { keep, done } => (self.cut_behind(keep).await, done),
            Operation::DropThrough { id, done } => (self.drop_through(id).await, done),
            Operation::Replace { file, bytes, done } => (self.replace(file, &bytes).await, done),
            Operation::Remove { file, done } => (self.remove(file).await, done),
        };
        match outcome {
            Ok(()) => {
                done(Ok(()));
                Ok(())
            }
            Err(failure) => give_up(failure, done),
        }
    }

    /// Adds a record to the group, closing the group or the segment first if it doesn't fit.
    async fn add(&mut self, record: Record) -> io::Result<()> {
        let payload = match &record {
            Record::Entry(entry) => entry.body.bytes().len(),
            Record::Committed(_) => 0,
        };
        let len = record::record_len(payload);
        // Room for the commit mark that closes the group.
        let needed = (len + record::RECORD_HEADER) as u64;
        if self.end + self.group.len() as u64 + needed > self.header.capacity {
            self.flush().await?;
            if self.end + needed > self.header.capacity {
                self.roll(self.last, needed).await?;
            }
        }
        if self.group.len() >= GROUP_BYTES {
            self.flush().await?;
        }
        let offset = self.end + self.group.len() as u64;
        if let Record::Entry(entry) = &record {
            self.group_offsets.push(narrow(offset)?);
            self.last = Some(entry.id);
        }
        record::encode(
            &record,
            self.header.sequence,
            narrow(self.end)?,
            &mut self.group,
        );
        Ok(())
    }

    /// The index that the next entry must have.
    fn next_index(&self) -> u64 {
        self.log
            .state()
            .segments
            .back()
            .map_or(0, Segment::next_index)
    }

    /// Writes and syncs the group, then tells those who wait.
    async fn flush(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let committed = self.log.committed();
        if committed > self.marked
            && let Some(committed) = committed
            && self.end + (self.group.len() + record::RECORD_HEADER) as u64 <= self.header.capacity
        {
            let group = narrow(self.end)?;
            record::encode(
                &Record::Committed(committed),
                self.header.sequence,
                group,
                &mut self.group,
            );
            self.marked = Some(committed);
        }
        let began = Instant::now();
        self.file.write_at(self.end, &self.group)?;
        self.sync(&*Arc::clone(&self.file)).await?;
        figures::note(&figures::DISPATCH, began);
        self.end += self.group.len() as u64;
        let bytes = self.group.len() as u64;
        self.group.clear();
        if self.group.capacity() > GROUP_BYTES / 4 {
            self.group = Vec::new();
        }
        {
            let mut guard = self.log.state();
            let state = &mut *guard;
            state.note_progress(false);
            state.counts.bytes += bytes;
            if !self.group_offsets.is_empty() {
                state.counts.syncs += 1;
                state.counts.entries += self.group_offsets.len() as u64;
            }
            if let Some(segment) = state.segments.back_mut() {
                segment.offsets.append(&mut self.group_offsets);
                segment.end = self.end;
                state.written_end = segment.next_index();
            }
            state.trim_cache(self.log.shared.sizes.cache);
        }
        for done in self.group_done.drain(..) {
            done(Ok(()));
        }
        if self.end > self.header.capacity / 8 {
            self.prepare_spare();
        }
        Ok(())
    }

    /// Writes the commit mark by itself, so that a restart knows about the last entries too.
    async fn write_mark(&mut self) -> io::Result<()> {
        let committed = self.log.committed();
        if committed > self.marked
            && let Some(committed) = committed
        {
            self.marked = Some(committed);
            self.add(Record::Committed(committed)).await?;
            self.flush().await?;
        }
        Ok(())
    }

    async fn sync(&mut self, file: &dyn File) -> io::Result<()> {
        self.pause().await;
        file.sync_data()
    }

    async fn pause(&mut self) {
        durable::pause(&*self.log.shared.disk).await;
    }

    /// Opens a new segment for the entries behind `previous`. `needed` is what its first record takes.
    async fn roll(&mut self, previous: Option<EntryId>, needed: u64) -> io::Result<()> {
        let index = previous.map_or(0, |previous| previous.index + 1);
        let disk = Arc::clone(&self.log.shared.disk);
        let smallest = SEGMENT_HEADER as u64 + needed;
        let header = Header {
            sequence: self.header.sequence + 1,
            first_index: index,
            previous,
            previous_end: self.end,
            capacity: self.log.shared.sizes.segment.max(smallest),
        };
        let (name, file, header) = match self.begin_segment(header, smallest) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // The room may be in the spare, whole or half.
                self.join_spare();
                if !self.has_spare() {
                    let _ = disk.remove(SPARE_FILE);
                }
                self.begin_segment(header, smallest)?
            }
            begun => begun?,
        };
        self.sync(&*file).await?;
        disk.rename(name, &segment::file_name(header.sequence))?;
        self.pause().await;
        disk.sync_dir()?;
        self.header = header;
        self.file = Arc::clone(&file);
        self.end = SEGMENT_HEADER as u64;
        self.last = previous;
        let mut state = self.log.state();
        for segment in &mut state.segments {
            segment.cut_from(index);
        }
        state.segments.push_back(Segment {
            header,
            file,
            offsets: Vec::new(),
            end: self.end,
        });
        state.written_end = index;
        Ok(())
    }

    /// Writes a header, into the spare if it is there and large enough.
    fn begin_segment(
        &self,
        header: Header,
        smallest: u64,
    ) -> io::Result<(&'static str, Arc<dyn File>, Header)> {
        let disk = &self.log.shared.disk;
        if let Some(capacity) = self.take_spare()
            && capacity >= smallest
        {
            let header = Header { capacity, ..header };
            let file = disk.open(SPARE_FILE)?;
            file.write_at(0, &header.encode())?;
            return Ok((SPARE_FILE, file, header));
        }
        let file = disk.create(ROLL_FILE)?;
        file.set_len(header.capacity)?;
        file.write_at(0, &header.encode())?;
        Ok((ROLL_FILE, file, header))
    }

    async fn cut_behind(&mut self, keep: Option<EntryId>) -> io::Result<()> {
        self.flush().await?;
        self.roll(keep, 0).await
    }

    async fn drop_through(&mut self, id: EntryId) -> io::Result<()> {
        self.flush().await?;
        if self.next_index() <= id.index {
            // The log ends before that entry: nothing of it is of use any more.
            self.roll(Some(id), 0).await?;
        }
        let disk = Arc::clone(&self.log.shared.disk);
        loop {
            let oldest = {
                let mut state = self.log.state();
                let is_droppable = state.segments.len() > 1
                    && state.segments.front().is_some_and(|oldest| {
                        oldest.offsets.is_empty()
                            || oldest.next_index() <= id.index.saturating_add(1)
                    });
                if !is_droppable {
                    return Ok(());
                }
                state.segments.pop_front()
            };
            let Some(oldest) = oldest else { return Ok(()) };
            disk.remove(&segment::file_name(oldest.header.sequence))?;
            // One by one, since a gap in the numbers would be damage.
            self.pause().await;
            disk.sync_dir()?;
        }
    }

    /// What was appended before is durable before: a vote speaks of the log that it was given with, and who is told of
    /// it counts all that came before as written.
    async fn replace(&mut self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.flush().await?;
        durable::replace(&*self.log.shared.disk, file, bytes).await
    }

    async fn remove(&mut self, file: &str) -> io::Result<()> {
        self.flush().await?;
        durable::remove(&*self.log.shared.disk, file)
    }

    /// Begins to zero the next segment, on disks where that takes time and pays off.
    fn prepare_spare(&self) {
        let disk = Arc::clone(&self.log.shared.disk);
        if disk.workers() == Workers::Tasks {
            return;
        }
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*spare, Spare::None) {
            return;
        }
        let slot = Arc::clone(&self.spare);
        let capacity = self.log.shared.sizes.segment;
        let make = move || {
            let made = disk.create(SPARE_FILE).and_then(|file| {
                file.write_zeros(capacity)?;
                file.sync_data()
            });
            if made.is_err() {
                // On a full disk it takes the room that the log needs. If it can't be removed, a start does it.
                let _ = disk.remove(SPARE_FILE);
            }
            // Without it the next segment is made when it is needed, which is slower but not wrong.
            let mut spare = slot.lock().unwrap_or_else(PoisonError::into_inner);
            *spare = match made {
                Ok(()) => Spare::Ready(capacity),
                Err(_) => Spare::Failed,
            };
        };
        if let Ok(handle) = thread::Builder::new()
            .name(String::from("log-spare"))
            .spawn(make)
            && matches!(*spare, Spare::None)
        {
            *spare = Spare::Making(handle);
        }
    }

    fn take_spare(&self) -> Option<u64> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        match *spare {
            Spare::Ready(capacity) => {
                *spare = Spare::None;
                Some(capacity)
            }
            Spare::Failed => {
                *spare = Spare::None;
                None
            }
            Spare::None | Spare::Making(_) => None,
        }
    }

    fn has_spare(&self) -> bool {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*spare, Spare::Ready(_))
    }

    fn join_spare(&self) {
        let making = {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            match mem::take(&mut *spare) {
                Spare::Making(handle) => Some(handle),
                other => {
                    *spare = other;
                    None
                }
            }
        };
        if let Some(handle) = making {
            // It has nothing to tell: if it failed, there is no spare.
            let _ = handle.join();
        }
    }

    /// Ends the log: all who wait, now or later, are told.
    fn fail(&mut self, reason: &str, rest: impl Iterator<Item = Operation>) {
        tracing::error!(reason, "the log cannot be written, this server stops");
        let queued = {
            let mut state = self.log.state();
            state.failure = Some(format!("the log cannot be written: {reason}"));
            mem::take(&mut state.queue)
        };
        self.log.shared.failed.notify_waiters();
        for done in self.group_done.drain(..) {
            done(Err(io::Error::other(String::from(reason))));
        }
        for operation in rest.chain(queued) {
            operation.fail(reason);
        }
        self.join_spare();
    }
}

impl State {
    fn next(&mut self) -> Option<Next> {
        if !self.queue.is_empty() {
            Some(Next::Operations(mem::take(&mut self.queue)))
        } else if self.closing {
            Some(Next::Close)
        } else {
            None
        }
    }
}

fn give_up(failure: io::Error, done: Done) -> io::Result<()> {
    done(Err(io::Error::new(failure.kind(), failure.to_string())));
    Err(failure)
}

/// Segments are far smaller than 4 GiB, which `Config` makes sure of.
fn narrow(offset: u64) -> io::Result<u32> {
    u32::try_from(offset).map_err(io::Error::other)
}
