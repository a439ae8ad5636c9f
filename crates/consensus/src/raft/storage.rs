//! The segment log as the Raft library wants it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use futures::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::codec::{self, Malformed};
use super::{Entry, LogId, Types, Vote, from_log_id, to_log_id};
use crate::durable;
use crate::log::{Done, Log};
use crate::recovery::Recovered;

/// Bytes of entries that go into one message to a peer, or are read at a time, if one entry doesn't take more.
const BATCH_BYTES: usize = 1 << 20;

/// The log and the vote. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    log: Log,
    vote: Arc<Mutex<Option<Vote>>>,
    /// Members that stand in for those in the log.
    recovered: Option<Arc<Recovered>>,
}

impl Storage {
    pub(crate) fn new(log: Log, vote: Option<Vote>, recovered: Option<Recovered>) -> Self {
        Self {
            recovered: recovered.map(Arc::new),
            log,
            vote: Arc::new(Mutex::new(vote)),
        }
    }

    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(start, end, bytes_max)?;
        entries
            .into_iter()
            .map(|entry| {
                let mut entry = codec::from_log_entry(entry).map_err(damaged)?;
                if let EntryPayload::Membership(membership) = &mut entry.payload
                    && let Some(recovered) = &self.recovered
                    && recovered.covers(from_log_id(entry.log_id))
                {
                    *membership = recovered.membership.clone();
                }
                Ok(entry)
            })
            .collect()
    }
}

fn damaged(Malformed(reason): Malformed) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("an entry of the log makes no sense: {reason}"),
    )
}

/// A callback and the future of what it is told.
fn outcome() -> (Done, impl Future<Output = io::Result<()>>) {
    let (tell, told) = oneshot::channel();
    let done: Done = Box::new(move |outcome| {
        // Nobody may be waiting any more.
        let _ = tell.send(outcome);
    });
    (done, async move {
        told.await
            .unwrap_or_else(|_| Err(io::Error::other("the log is closed")))
    })
}

/// The indexes in a range: the first, and the one after the last.
fn ends(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for Storage {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = ends(&range);
        let storage = self.clone();
        // A little at a time: what is to be applied after a start may be larger than memory.
        stream::try_unfold(
            (start, VecDeque::new()),
            move |(next, mut read): (u64, VecDeque<Entry>)| {
                let result = (|| {
                    if read.is_empty() && next < end {
                        read = storage.read(next, end, BATCH_BYTES)?.into();
                    }
                    Ok(read.pop_front().map(|entry| (entry, (next + 1, read))))
                })();
                futures::future::ready(result)
            },
        )
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = ends(&range);
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, BATCH_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.vote.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftLogStorage<Types> for Storage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let (dropped, last) = self.log.ends();
        Ok(LogState {
            last_purged_log_id: dropped.map(to_log_id),
            last_log_id: last.map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = outcome();
        self.log
            .replace(durable::VOTE_FILE, codec::encode_vote(vote), done);
        saved.await?;
        *self.vote.lock().unwrap_or_else(PoisonError::into_inner) = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.log.mark_committed(from_log_id(committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries
            .into_iter()
            .map(|entry| codec::to_log_entry(&entry))
            .collect();
        self.log.append(
            entries,
            Box::new(move |outcome| callback.io_completed(outcome)),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let (done, cut) = outcome();
        self.log.cut_behind(last.map(from_log_id), done);
        cut.await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        // Not awaited: removing files takes its time, and an entry that comes back after a crash does no harm.
        self.log.drop_through(from_log_id(log_id), Box::new(drop));
        Ok(())
    }
}
