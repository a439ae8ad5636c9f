//! The state of a snapshot as a stream: one header object, then records of a type byte and an object each.
//!
//! There are no length prefixes, so where a record ends is known only from its structure.

use std::io::{self, Read};

use super::Head;

/// The longest record that is read, and the most memory a reader takes for it.
///
/// A value of a key is at most half a MiB and a transaction never gets here; the largest honest record is a check or a query of a few kB.
pub const RECORD_SIZE_MAX: usize = 64 << 20;

/// How much is asked of the source at a time.
const READ_SIZE: usize = 64 << 10;

/// Cuts a stream of state into its header and records, holding one of them at a time.
///
/// The objects are sound as structure: whole, and of assigned markers.
/// What is in them is for a [`super::Decoder`] and its caller.
#[derive(Debug)]
pub struct RecordReader<R> {
    input: R,
    header: Vec<u8>,
    /// Bytes that were read; it never grows but by bytes that came.
    pub(super) buffer: Vec<u8>,
    /// Where in the buffer the next record begins, and where the bytes end that came.
    start: usize,
    end: usize,
    /// Bytes of the stream before `start`.
    offset: u64,
    /// Records given out.
    number: u64,
}

/// One record of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The type byte.
    pub kind: u8,
    /// The object, without the type byte.
    pub bytes: &'a [u8],
    /// Where its type byte stands in the stream.
    pub offset: u64,
    /// Which record it is, counted from 1.
    pub number: u64,
}

/// Why the stream could not be cut further.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The source failed.
    #[error("reading the state: {0}")]
    Io(#[from] io::Error),
    /// The stream ends inside of an object, or has none at all.
    #[error("unexpected EOF inside {place}")]
    Eof {
        /// The object.
        place: Place,
    },
    /// The object is not MessagePack.
    #[error("unassigned marker 0xc1 inside {place}")]
    Unassigned {
        /// The object.
        place: Place,
    },
    /// The object is, or claims to be, longer than [`RECORD_SIZE_MAX`].
    #[error("more than {RECORD_SIZE_MAX} bytes in {place}")]
    TooLong {
        /// The object.
        place: Place,
    },
}

/// An object of the stream, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The first object.
    Header,
    /// One of the records.
    Record {
        /// Counted from 1.
        number: u64,
        /// Its type byte.
        kind: u8,
        /// Where its type byte stands in the stream.
        offset: u64,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => write!(f, "the header"),
            Self::Record {
                number,
                kind,
                offset,
            } => {
                write!(
                    f,
                    "record {number} (type {kind}), which begins at byte {offset}"
                )
            }
        }
    }
}

impl<R: Read> RecordReader<R> {
    /// Reads the header, and so finds out early whether there is anything at all.
    pub fn open(input: R) -> Result<Self, RecordError> {
        let mut reader = Self {
            input,
            header: Vec::new(),
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            number: 0,
        };
        let len = reader.measure(0, Place::Header)?;
        reader.header = reader.buffer[..len].to_vec();
        reader.advance(len);
        Ok(reader)
    }

    /// The bytes of the header object.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The next record, or `None` where the stream ends between two records.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        if !self.fill(1)? {
            return Ok(None);
        }
        let kind = self.buffer[self.start];
        let offset = self.offset;
        let number = self.number + 1;
        let len = self.measure(
            1,
            Place::Record {
                number,
                kind,
                offset,
            },
        )?;
        let begin = self.start + 1;
        self.advance(1 + len);
        self.number = number;
        Ok(Some(Record {
            kind,
            bytes: &self.buffer[begin..begin + len],
            offset,
            number,
        }))
    }

    /// How long the object is that begins `from` bytes after `start`; all of it is in the buffer afterwards.
    fn measure(&mut self, from: usize, place: Place) -> Result<usize, RecordError> {
        let mut at = from;
        let mut pending = 1_u64;
        while pending > 0 {
            let head = match Head::read(
                &self.buffer[self.start + at.min(self.end - self.start)..self.end],
            ) {
                Ok(Some(head)) => head,
                Ok(None) => return Err(RecordError::Unassigned { place }),
                Err(needed) => {
                    self.need(at + needed, place)?;
                    continue;
                }
            };
            at = at.saturating_add(head.size).saturating_add(head.payload);
            pending = (pending - 1).saturating_add(head.children);
            // A record that says it is too long is not read to its end first.
            if at - from > RECORD_SIZE_MAX {
                return Err(RecordError::TooLong { place });
            }
        }
        self.need(at, place)?;
        Ok(at - from)
    }

    fn need(&mut self, len: usize, place: Place) -> Result<(), RecordError> {
        if self.fill(len)? {
            Ok(())
        } else {
            Err(RecordError::Eof { place })
        }
    }

    /// Reads until `len` bytes follow `start`; `false` if the stream ends before that.
    fn fill(&mut self, len: usize) -> Result<bool, RecordError> {
        while self.end - self.start < len {
            if self.end == self.buffer.len() {
                if self.start >= self.buffer.len() / 2 {
                    self.buffer.copy_within(self.start..self.end, 0);
                    self.end -= self.start;
                    self.start = 0;
                }
                if self.end == self.buffer.len() {
                    self.buffer.resize((2 * self.end).max(READ_SIZE), 0);
                }
            }
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }
}
