//! Frames: how messages share a connection.
//!
//! A frame is `[kind u8][id u32][length u32][payload]`, numbers in little endian.
//! A message is a frame, or several if it is longer than [`PAYLOAD_MAX`]: frames of a "part" kind and a last one of the plain kind, all with the id of the call.
//! Frames of different messages may alternate, so that a long one doesn't keep short ones waiting.
//! `docs/rpc.md` has the whole protocol.
//!
//! Nothing is allocated by a length that was told: a payload is looked at when it has arrived, and [`Assembly`] bounds what it keeps of messages that are not whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes before the payload.
pub const HEAD_SIZE: usize = 9;

/// The longest payload of a frame.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// How many messages may be on their way in parts at the same time, in one direction of a connection.
pub const PARTED_MAX: usize = 8;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A question, or the last part of one. On a connection for a snapshot: what is asked for.
    Ask,
    /// A part of a question; more follow.
    AskPart,
    /// An answer, or the last part of one.
    Answer,
    /// A part of an answer; more follow.
    AnswerPart,
    /// Nobody waits for the answer to this call any more. Has no payload.
    Cancel,
    /// Say something, so that I know that you are there. Has no payload.
    Ping,
    /// The answer to [`Kind::Ping`]. Has no payload.
    Pong,
    /// A piece of a snapshot.
    Piece,
    /// The end of a snapshot: all of it was sent. Has no payload.
    End,
    /// The snapshot can't be sent to its end; the payload says why.
    Broken,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Ask,
        Self::AskPart,
        Self::Answer,
        Self::AnswerPart,
        Self::Cancel,
        Self::Ping,
        Self::Pong,
        Self::Piece,
        Self::End,
        Self::Broken,
    ];

    const fn byte(self) -> u8 {
        match self {
            Self::Ask => 1,
            Self::AskPart => 2,
            Self::Answer => 3,
            Self::AnswerPart => 4,
            Self::Cancel => 5,
            Self::Ping => 6,
            Self::Pong => 7,
            Self::Piece => 8,
            Self::End => 9,
            Self::Broken => 10,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// A frame that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// Which call it belongs to; 0 if to none.
    pub id: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Why bytes are no frames of ours. The connection has nothing more to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is no such kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// It is longer than any that is sent.
    #[error("a frame of {0} bytes, more than {PAYLOAD_MAX}")]
    TooLong(u32),
    /// A message is longer than any that is sent.
    #[error("a message of more than {0} bytes")]
    MessageTooLong(usize),
    /// More messages at a time come in parts than are ever sent so.
    #[error("more than {PARTED_MAX} messages in parts")]
    TooManyParted,
    /// All connections together hold so many bytes of messages that are not whole.
    #[error("too many bytes of unfinished messages on all connections")]
    NoRoom,
    /// A frame where it has no meaning.
    #[error("a frame of kind {0:?} where none belongs")]
    Misplaced(Kind),
}

/// The frame at the start of `bytes` and how long it is with its head; `None` if more bytes are needed.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_SIZE>() else {
        return Ok(None);
    };
    let [kind, a, b, c, d, length @ ..] = *head;
    let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
    let length = u32::from_le_bytes(length);
    // usize has at least 32 bits wherever this runs.
    let size = length as usize;
    if size > PAYLOAD_MAX {
        return Err(FrameError::TooLong(length));
    }
    let Some(payload) = rest.get(..size) else {
        return Ok(None);
    };
    let id = u32::from_le_bytes([a, b, c, d]);
    Ok(Some((Frame { kind, id, payload }, HEAD_SIZE + size)))
}

/// Appends a frame.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_MAX`]; whoever has more sends it in parts.
pub fn append(out: &mut Vec<u8>, frame: Frame<'_>) {
    assert!(frame.payload.len() <= PAYLOAD_MAX, "too long for a frame");
    let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
    out.reserve(HEAD_SIZE + frame.payload.len());
    out.push(frame.kind.byte());
    out.extend_from_slice(&frame.id.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(frame.payload);
}

/// A bound that several connections share.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    max: usize,
    /// What is taken here is taken there as well.
    whole: Option<Arc<Self>>,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
            whole: None,
        })
    }

    /// A part of a room: one of `count` equal ones, if all were taken at once.
    pub(crate) fn share(whole: &Arc<Self>, count: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max: whole.max / count,
            whole: Some(Arc::clone(whole)),
        })
    }

    /// Takes so many bytes; false, and nothing taken, if there are not so many left.
    pub(crate) fn take(&self, size: usize) -> bool {
        let taken = self.taken.fetch_add(size, Ordering::Relaxed);
        let fits = taken.checked_add(size).is_some_and(|sum| sum <= self.max)
            && self.whole.as_ref().is_none_or(|whole| whole.take(size));
        if !fits {
            self.taken.fetch_sub(size, Ordering::Relaxed);
        }
        fits
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, size: usize) {
        self.taken.fetch_sub(size, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(size);
        }
    }

    /// How many bytes are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Puts the parts of messages together.
#[derive(Debug)]
pub struct Assembly {
    parted: BTreeMap<u32, Vec<u8>>,
    message_max: usize,
    room: Arc<Room>,
}

impl Assembly {
    /// Of messages of at most so many bytes, which share this room while they are not whole.
    pub fn new(message_max: usize, room: Arc<Room>) -> Self {
        Self {
            parted: BTreeMap::new(),
            message_max,
            room,
        }
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.parted.is_empty()
    }

    /// Keeps a part.
    pub fn part(&mut self, id: u32, payload: &[u8]) -> Result<(), FrameError> {
        if !self.parted.contains_key(&id) && self.parted.len() >= PARTED_MAX {
            return Err(FrameError::TooManyParted);
        }
        if !self.room.take(payload.len()) {
            return Err(FrameError::NoRoom);
        }
        let message = self.parted.entry(id).or_default();
        // Kept also if it is too much: what was taken is given back by what is there.
        message.extend_from_slice(payload);
        if message.len() > self.message_max {
            return Err(FrameError::MessageTooLong(self.message_max));
        }
        Ok(())
    }

    /// The whole message, of which this is the last part and perhaps the only one.
    pub fn last(&mut self, id: u32, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
        let Some(mut message) = self.parted.remove(&id) else {
            return if payload.len() > self.message_max {
                Err(FrameError::MessageTooLong(self.message_max))
            } else {
                Ok(payload.to_vec())
            };
        };
        self.room.give_back(message.len());
        if message.len() + payload.len() > self.message_max {
            return Err(FrameError::MessageTooLong(self.message_max));
        }
        message.extend_from_slice(payload);
        Ok(message)
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        let held = self.parted.values().map(Vec::len).sum();
        self.room.give_back(held);
    }
}

#[cfg(test)]
mod tests;
