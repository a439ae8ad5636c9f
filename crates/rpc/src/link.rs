//! The two directions of a connection: bytes that came in and wait to be understood, and frames that wait to go out, many of them in one write.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame::{self, Frame, HEAD_SIZE, Kind, PARTED_MAX, PAYLOAD_MAX};

/// What a connection holds to read into while little comes.
const INPUT_MIN: usize = 1 << 10;

/// Room for any frame.
const INPUT_MAX: usize = HEAD_SIZE + PAYLOAD_MAX;

/// So many bytes are gathered for one write before parts of long messages are left for the next.
pub(crate) const OUTPUT_MAX: usize = 64 << 10;

/// A stream and the bytes on their way through it.
#[derive(Debug)]
pub(crate) struct Link<T> {
    io: T,
    /// Bytes that have arrived are at `start..end`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `at` on are still to be written.
    output: Vec<u8>,
    at: usize,
    is_flushed: bool,
    /// How many bytes the stream has taken from us in all.
    written: u64,
}

impl<T> Link<T> {
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
            at: 0,
            is_flushed: true,
            written: 0,
        }
    }

    /// What has come and was not consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// So many of these bytes are done with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Whether all that was given to it has been written.
    pub(crate) fn is_drained(&self) -> bool {
        self.at == self.output.len()
    }

    /// How many bytes the stream has taken in all. What lies beyond never left.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Takes what is to be written next, once drained; gives an empty buffer back.
    pub(crate) fn load(&mut self, output: &mut Vec<u8>) {
        debug_assert!(self.is_drained(), "only when all has been written");
        self.output.clear();
        self.at = 0;
        std::mem::swap(&mut self.output, output);
    }

    /// Gives memory back that a quiet connection does not need.
    pub(crate) fn rest(&mut self) {
        if self.start == self.end && self.input.len() > INPUT_MIN {
            self.input = Vec::new();
            (self.start, self.end) = (0, 0);
        }
        if self.is_drained() {
            self.output = Vec::new();
            self.at = 0;
        }
    }
}

impl<T: AsyncRead + Unpin> Link<T> {
    /// Reads what there is; 0 at the end of the stream.
    ///
    /// Call it when [`Self::unread`] holds no whole frame, so that there is always room for more.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            // Grows with what has come, never by what was told.
            if self.end * 2 >= self.input.len() {
                let size = (self.input.len() * 2).clamp(INPUT_MIN, INPUT_MAX);
                self.input.resize(size, 0);
            }
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncWrite + Unpin> Link<T> {
    /// Writes; ready when all is out.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.at..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
            self.written += count as u64;
            self.is_flushed = false;
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    ready: Vec<u8>,
    /// How many bytes have come into `ready` in all.
    queued: u64,
    /// The first [`PARTED_MAX`] are under way, one part of each in turn.
    long: VecDeque<Long>,
    /// Bytes in `long` that are not in `ready` yet.
    long_bytes: usize,
}

#[derive(Debug)]
struct Long {
    id: u32,
    part: Kind,
    last: Kind,
    rest: Bytes,
}

impl Outbox {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.long_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.long.is_empty()
    }

    /// Appends bytes as they are, for what comes before the first frame.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.ready.extend_from_slice(bytes);
        self.queued += bytes.len() as u64;
    }

    /// Appends a frame without payload.
    pub(crate) fn signal(&mut self, kind: Kind, id: u32) {
        self.short(kind, id, &[]);
    }

    fn short(&mut self, kind: Kind, id: u32, payload: &[u8]) {
        frame::append(&mut self.ready, Frame { kind, id, payload });
        self.queued += (HEAD_SIZE + payload.len()) as u64;
    }

    /// Queues a message. Says where its last byte stands among all that is written, unless it is so long that this isn't known yet.
    pub(crate) fn message(
        &mut self,
        (part, last): (Kind, Kind),
        id: u32,
        message: Bytes,
    ) -> Option<u64> {
        if message.len() <= PAYLOAD_MAX {
            self.short(last, id, &message);
            return Some(self.queued);
        }
        self.long_bytes += message.len();
        self.long.push_back(Long {
            id,
            part,
            last,
            rest: message,
        });
        None
    }

    /// Queues a message that `encode` appends to what it is given; nothing is queued if it fails.
    pub(crate) fn encoded<E>(
        &mut self,
        kinds: (Kind, Kind),
        id: u32,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.ready.len();
        frame::append(
            &mut self.ready,
            Frame {
                kind: kinds.1,
                id,
                payload: &[],
            },
        );
        if let Err(error) = encode(&mut self.ready) {
            self.ready.truncate(start);
            return Err(error);
        }
        let size = self.ready.len() - start - HEAD_SIZE;
        if size > PAYLOAD_MAX {
            let message = self.ready.split_off(start + HEAD_SIZE);
            self.ready.truncate(start);
            self.message(kinds, id, Bytes::from(message));
            return Ok(());
        }
        let length = u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let place = start + HEAD_SIZE - length.len()..start + HEAD_SIZE;
        if let Some(place) = self.ready.get_mut(place) {
            place.copy_from_slice(&length);
        }
        self.queued += (HEAD_SIZE + size) as u64;
        Ok(())
    }

    /// What is to be written next. Tells of each long message whose last part is in it, and where that ends.
    pub(crate) fn next(&mut self, mut ended: impl FnMut(u32, u64)) -> &mut Vec<u8> {
        while self.ready.len() < OUTPUT_MAX
            && let Some(mut long) = self.long.pop_front()
        {
            let size = long.rest.len().min(PAYLOAD_MAX);
            let payload = long.rest.split_to(size);
            self.long_bytes -= size;
            if long.rest.is_empty() {
                self.short(long.last, long.id, &payload);
                ended(long.id, self.queued);
            } else {
                self.short(long.part, long.id, &payload);
                let turn = (PARTED_MAX - 1).min(self.long.len());
                self.long.insert(turn, long);
            }
        }
        &mut self.ready
    }

    /// Gives memory back that a quiet connection does not need.
    pub(crate) fn rest(&mut self) {
        if self.ready.is_empty() {
            self.ready = Vec::new();
        }
    }
}
