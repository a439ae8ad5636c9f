//! The segment log: append, cut the tail, drop the head.
//!
//! [`Log`] is the view that everybody shares: it takes operations into a queue and returns at once, and reads what was
//! appended lately from memory. The [`writer`] takes the queue, one group at a time, and syncs each group once.
//! [`recover`] decides what to believe of the files at a start.
//! The format is described in `docs/log.md`.

pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod segment;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use record::{Body, Entry, EntryId};
use record::{Found, Record};
use segment::Segment;

use crate::disk::{Disk, File};

/// Called when what it came with is on disk, or when it never will be.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The sizes of things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Of the first segment in an empty directory.
    pub(crate) first_segment: u64,
    /// Of the others.
    pub(crate) segment: u64,
    /// Of the entries kept in memory.
    pub(crate) cache: usize,
}

/// Something for the writer to do. What is queued is done in order.
pub(crate) enum Operation {
    Append {
        entries: Vec<Entry>,
        done: Done,
    },
    /// Makes the entries behind this one void.
    CutBehind {
        keep: Option<EntryId>,
        done: Done,
    },
    /// Forgets the entries up to this one, which need not exist.
    DropThrough {
        id: EntryId,
        done: Done,
    },
    /// Replaces a small file.
    Replace {
        file: &'static str,
        bytes: Vec<u8>,
        done: Done,
    },
    /// Removes a small file.
    Remove {
        file: &'static str,
        done: Done,
    },
}

/// The log, as seen by those who append and read.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    sizes: Sizes,
    state: Mutex<State>,
    /// Wakes the writer where it is a thread.
    wake_thread: Condvar,
    /// Wakes the writer where it is a task.
    wake_task: Notify,
    /// Rung once, when the log can no longer be written.
    failed: Notify,
}

#[derive(Default)]
struct State {
    /// The entry before the first that can be read.
    dropped: Option<EntryId>,
    /// The last entry, on disk or not.
    last: Option<EntryId>,
    /// The newest entries, without gaps, up to the last.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    /// Entries before this index can be read from segments.
    written_end: u64,
    segments: VecDeque<Segment>,
    committed: Option<EntryId>,
    queue: Vec<Operation>,
    /// Since when there is something to write and the writer has come no further.
    waits_since: Option<Instant>,
    writer_waits: bool,
    closing: bool,
    failure: Option<String>,
    counts: Counts,
}

/// Figures since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Groups that were synced.
    pub(crate) syncs: u64,
    /// Entries in them.
    pub(crate) entries: u64,
    /// Bytes in them.
    pub(crate) bytes: u64,
}

/// Bytes that an entry in memory takes beside its payload, roughly.
const ENTRY_OVERHEAD: usize = 64;

/// Bytes that one step of a read takes from a segment, if one record doesn't take more.
const READ_BYTES: u64 = 256 << 10;

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, sizes: Sizes, recovered: recover::Recovered) -> Self {
        let state = State {
            dropped: recovered.dropped,
            last: recovered.last,
            written_end: recovered.last.map_or(0, |last| last.index + 1),
            segments: recovered.segments,
            committed: recovered.committed,
            ..State::default()
        };
        let shared = Shared {
            disk,
            sizes,
            state: Mutex::new(state),
            wake_thread: Condvar::new(),
            wake_task: Notify::new(),
            failed: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry before the first one, and the last one.
    pub(crate) fn ends(&self) -> (Option<EntryId>, Option<EntryId>) {
        let state = self.state();
        (state.dropped, state.last.max(state.dropped))
    }

    pub(crate) fn committed(&self) -> Option<EntryId> {
        self.state().committed
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// How long the writer has come no further though there is something to write.
    pub(crate) fn waits_for(&self) -> Duration {
        let since = self.state().waits_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Returns why the log can no longer be written, once that is so.
    pub(crate) async fn failed(&self) -> String {
        loop {
            let mut failed = pin!(self.shared.failed.notified());
            // Before the look, so that a failure in between isn't missed.
            failed.as_mut().enable();
            if let Some(failure) = self.state().failure.clone() {
                return failure;
            }
            failed.await;
        }
    }

    /// Remembers that entries up to this one are committed. Written beside the next entries, or after a short rest.
    pub(crate) fn mark_committed(&self, id: EntryId) {
        let mut state = self.state();
        state.committed = state.committed.max(Some(id));
    }

    /// Appends entries, which can be read at once; `done` tells when they are on disk.
    pub(crate) fn append(&self, entries: Vec<Entry>, done: Done) {
        let mut state = self.state();
        for entry in &entries {
            state.last = Some(entry.id);
            state.cache_bytes += entry.body.bytes().len() + ENTRY_OVERHEAD;
            state.cache.push_back(entry.clone());
        }
        self.queue(state, Operation::Append { entries, done });
    }

    /// Makes the entries behind `keep` void; `done` tells when that is durable.
    pub(crate) fn cut_behind(&self, keep: Option<EntryId>, done: Done) {
        let mut state = self.state();
        let index = keep.map_or(0, |keep| keep.index + 1);
        while state
            .cache
            .back()
            .is_some_and(|entry| entry.id.index >= index)
        {
            state.pop_newest();
        }
        state.last = keep;
        self.queue(state, Operation::CutBehind { keep, done });
    }

    /// Forgets the entries up to this one. What is behind it stays, if it fits.
    pub(crate) fn drop_through(&self, id: EntryId, done: Done) {
        let mut state = self.state();
        while state
            .cache
            .front()
            .is_some_and(|entry| entry.id.index <= id.index)
        {
            state.pop_oldest();
        }
        state.dropped = state.dropped.max(Some(id));
        if state.last.is_none_or(|last| last.index <= id.index) {
            state.last = Some(id);
        }
        self.queue(state, Operation::DropThrough { id, done });
    }

    /// Replaces a small file, whose bytes get a checksum, in one durable step.
    pub(crate) fn replace(&self, file: &'static str, bytes: Vec<u8>, done: Done) {
        self.queue(self.state(), Operation::Replace { file, bytes, done });
    }

    /// Removes a small file durably. It is no error if there is none.
    pub(crate) fn remove(&self, file: &'static str, done: Done) {
        self.queue(self.state(), Operation::Remove { file, done });
    }

    /// Tells the writer to finish what is queued and end.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        self.wake(state);
    }

    fn queue(&self, mut state: MutexGuard<'_, State>, operation: Operation) {
        if let Some(failure) = state.failure.clone() {
            drop(state);
            operation.fail(&failure);
        } else if state.closing {
            drop(state);
            operation.fail("the log is closed");
        } else {
            // The queue is bounded by its producers: each waits for the outcome of what it queued, and the Raft core
            // bounds the entries it has under way.
            state.queue.push(operation);
            state.waits_since.get_or_insert_with(Instant::now);
            self.wake(state);
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waits = std::mem::take(&mut state.writer_waits);
        drop(state);
        if waits {
            self.shared.wake_thread.notify_one();
            self.shared.wake_task.notify_one();
        }
    }

    /// Reads entries from `start` on, up to and without `end`: at least one, if there is one, and about
    /// `bytes_max` bytes of them.
    pub(crate) fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut next = start;
        while next < end && (entries.is_empty() || bytes < bytes_max) {
            let span = {
                let state = self.state();
                if state.dropped.is_some_and(|dropped| next <= dropped.index) {
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        format!("log entry {next} has been dropped"),
                    ));
                }
                let oldest = state.cache.front().map_or(u64::MAX, |entry| entry.id.index);
                if next >= oldest {
                    let skip = usize::try_from(next - oldest).unwrap_or(usize::MAX);
                    for entry in state.cache.iter().skip(skip) {
                        if entry.id.index >= end || (!entries.is_empty() && bytes >= bytes_max) {
                            break;
                        }
                        bytes += entry.body.bytes().len() + ENTRY_OVERHEAD;
                        entries.push(entry.clone());
                    }
                    return Ok(entries);
                }
                state.span(next, end.min(oldest))
            };
            let Some(span) = span else { break };
            next += span.offsets.len() as u64;
            span.read(|entry| {
                bytes += entry.body.bytes().len() + ENTRY_OVERHEAD;
                entries.push(entry);
            })?;
        }
        Ok(entries)
    }

    /// The first of the entries before `end` that take so many bytes on disk together at most; `end` if the last of
    /// them takes more.
    pub(crate) fn start_of(&self, end: u64, bytes: u64) -> u64 {
        let state = self.state();
        let mut start = end;
        let mut left = bytes;
        for segment in state.segments.iter().rev() {
            let first = segment.header.first_index;
            let count = segment
                .offsets
                .len()
                .min(usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX));
            if count == 0 {
                continue;
            }
            let to = segment
                .offsets
                .get(count)
                .map_or(segment.end, |offset| u64::from(*offset));
            let fits = |offset: u32| to.saturating_sub(u64::from(offset)) <= left;
            let too_many = segment.offsets[..count].partition_point(|offset| !fits(*offset));
            start = first + too_many as u64;
            if too_many > 0 {
                break;
            }
            left -= to.saturating_sub(u64::from(segment.offsets[0]));
        }
        start
    }

    /// The id of an entry that is in the log.
    pub(crate) fn id_at(&self, index: u64) -> io::Result<Option<EntryId>> {
        {
            let state = self.state();
            if state.dropped.is_some_and(|dropped| dropped.index == index) {
                return Ok(state.dropped);
            }
            let is_inside = state.dropped.is_none_or(|dropped| dropped.index < index)
                && state.last.is_some_and(|last| index <= last.index);
            if !is_inside {
                return Ok(None);
            }
        }
        Ok(self
            .read(index, index + 1, 0)?
            .first()
            .map(|entry| entry.id))
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Log")
            .field("dropped", &state.dropped)
            .field("last", &state.last)
            .finish_non_exhaustive()
    }
}

impl State {
    /// The writer has come further, and is done with everything or goes on.
    fn note_progress(&mut self, is_done: bool) {
        self.waits_since = if is_done && self.queue.is_empty() {
            None
        } else {
            Some(Instant::now())
        };
    }

    fn pop_oldest(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= entry.body.bytes().len() + ENTRY_OVERHEAD;
        }
    }

    fn pop_newest(&mut self) {
        if let Some(entry) = self.cache.pop_back() {
            self.cache_bytes -= entry.body.bytes().len() + ENTRY_OVERHEAD;
        }
    }

    /// Keeps the cache within its size. Entries that aren't on disk yet stay, since they can't be read elsewhere.
    fn trim_cache(&mut self, cache_bytes_max: usize) {
        while self.cache_bytes > cache_bytes_max
            && self
                .cache
                .front()
                .is_some_and(|entry| entry.id.index < self.written_end)
        {
            self.pop_oldest();
        }
    }

    /// Where some entries from `start` on lie, in one segment.
    fn span(&self, start: u64, end: u64) -> Option<Span> {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.offset(start).is_some())?;
        let from = segment.offset(start)?;
        let mut offsets = vec![from];
        let mut index = start + 1;
        let mut to = segment.offset(index).map_or(segment.end, u64::from);
        while index < end
            && to - u64::from(from) < READ_BYTES
            && let Some(offset) = segment.offset(index)
        {
            offsets.push(offset);
            index += 1;
            to = segment.offset(index).map_or(segment.end, u64::from);
        }
        Some(Span {
            file: Arc::clone(&segment.file),
            sequence: segment.header.sequence,
            start,
            offsets,
            end: to,
        })
    }
}

/// Entries that lie in one segment, one after the other.
struct Span {
    file: Arc<dyn File>,
    sequence: u64,
    start: u64,
    offsets: Vec<u32>,
    end: u64,
}

impl Span {
    fn read(&self, mut take: impl FnMut(Entry)) -> io::Result<()> {
        let from = u64::from(self.offsets[0]);
        // Bounded by READ_BYTES and one record.
        let mut bytes = vec![0; usize::try_from(self.end - from).map_err(io::Error::other)?];
        self.file.read_at(from, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        for (place, offset) in self.offsets.iter().enumerate() {
            let index = self.start + place as u64;
            let at = usize::try_from(u64::from(*offset) - from).map_err(io::Error::other)?;
            match record::decode(&bytes.slice(at..), self.sequence) {
                Found::Record {
                    record: Record::Entry(entry),
                    ..
                } if entry.id.index == index => {
                    // A copy of its own, so that one small entry doesn't keep the whole span in memory.
                    take(Entry {
                        id: entry.id,
                        body: entry.body.detached(),
                    });
                }
                Found::Record { .. } | Found::Nothing | Found::Bad(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "{} changed at offset {offset}",
                            segment::file_name(self.sequence)
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Operation {
    fn fail(self, reason: &str) {
        let done = match self {
            Self::Append { done, .. }
            | Self::CutBehind { done, .. }
            | Self::DropThrough { done, .. }
            | Self::Replace { done, .. }
            | Self::Remove { done, .. } => done,
        };
        done(Err(io::Error::other(String::from(reason))));
    }
}
