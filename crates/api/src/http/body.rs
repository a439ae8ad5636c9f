//! The body of a request, as a handler sees it, and the hand-over between it and the connection.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

/// The body of a request.
///
/// Nothing is read from the socket before somebody asks, and only until the answer is there.
/// A body that nobody reads costs the client its connection, unless little is left of it.
pub struct Body {
    kind: Kind,
    length: Option<u64>,
}

enum Kind {
    /// Came along with the head, or was made by a test. Taken when `None`.
    Here(Option<Bytes>),
    Arriving(Arc<Feed>),
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the limit that the reader set.
    TooLarge,
    /// The client stopped sending for longer than the configuration allows.
    TimedOut,
    /// The client hung up, or what came is no valid chunked body.
    Broken,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "request body too large",
            Self::TimedOut => "timed out while reading the request body",
            Self::Broken => "unexpected EOF",
        })
    }
}

impl std::error::Error for BodyError {}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self {
            kind: Kind::Here(None),
            length: Some(0),
        }
    }

    pub(super) fn arriving(feed: Arc<Feed>, length: Option<u64>) -> Self {
        Self {
            kind: Kind::Arriving(feed),
            length,
        }
    }

    /// What the client says the length is, `None` for a chunked body. Not to be believed when
    /// memory is allocated.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The whole body, if it has at most `limit` bytes. Memory grows with what arrives; a
    /// claimed length beyond the limit is refused before anything is read.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        if self.length.is_some_and(|length| length > limit as u64) {
            return Err(BodyError::TooLarge);
        }
        let mut whole = Whole::default();
        while let Some(piece) = self.next().await.transpose()? {
            if piece.len() > limit.saturating_sub(whole.len()) {
                return Err(BodyError::TooLarge);
            }
            whole.push(piece);
        }
        Ok(whole.into_bytes())
    }

    /// The next piece of the body; `None` at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match &mut self.kind {
            Kind::Here(bytes) => bytes.take().map(Ok),
            Kind::Arriving(feed) => poll_fn(|cx| feed.poll_next(cx)).await,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let length = Some(bytes.len() as u64);
        Self {
            kind: Kind::Here(Some(bytes).filter(|bytes| !bytes.is_empty())),
            length,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A body that grows by pieces; mostly there is one, which is not copied.
#[derive(Debug, Default)]
struct Whole {
    first: Bytes,
    joined: BytesMut,
}

impl Whole {
    fn len(&self) -> usize {
        self.first.len().max(self.joined.len())
    }

    fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&piece);
    }

    fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() {
            self.first
        } else {
            self.joined.freeze()
        }
    }
}

/// The place where the connection hands pieces of a body to whoever reads it, which may be a
/// future that the connection polls itself or a task elsewhere. It holds at most one piece.
#[derive(Debug, Default)]
pub(super) struct Feed {
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    state: State,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unasked,
    Wanted,
    Piece(Bytes),
    Ended(Result<(), BodyError>),
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        // Every change below is complete before anything can panic.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut slot = self.lock();
        match std::mem::take(&mut slot.state) {
            State::Piece(piece) => Poll::Ready(Some(Ok(piece))),
            State::Ended(outcome) => {
                slot.state = State::Ended(outcome);
                Poll::Ready(outcome.err().map(Err))
            }
            State::Unasked | State::Wanted => {
                slot.state = State::Wanted;
                slot.reader = Some(cx.waker().clone());
                // A connection that polls this future itself looks at the feed right after.
                if let Some(connection) = &slot.connection
                    && !connection.will_wake(cx.waker())
                {
                    connection.wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

/// The connection's end of a [`Feed`]. Dropped early, it breaks the body off for the reader.
#[derive(Debug)]
pub(super) struct Feeder(Arc<Feed>);

impl Feeder {
    pub(super) fn new() -> (Self, Arc<Feed>) {
        let feed = Arc::new(Feed::default());
        (Self(Arc::clone(&feed)), feed)
    }

    /// Whether somebody waits for a piece; if not, `cx` is woken when somebody does.
    pub(super) fn wanted(&self, cx: &Context<'_>) -> bool {
        let mut slot = self.0.lock();
        if slot
            .connection
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            slot.connection = Some(cx.waker().clone());
        }
        matches!(slot.state, State::Wanted)
    }

    /// Hands over a piece. Only after [`Self::wanted`] said so.
    pub(super) fn give(&self, piece: Bytes) {
        self.put(State::Piece(piece));
    }

    /// The body is complete, or will never be.
    pub(super) fn end(&self, outcome: Result<(), BodyError>) {
        self.put(State::Ended(outcome));
    }

    fn put(&self, state: State) {
        let mut slot = self.0.lock();
        slot.state = state;
        if let Some(reader) = slot.reader.take() {
            drop(slot);
            reader.wake();
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        let open = matches!(self.0.lock().state, State::Unasked | State::Wanted);
        if open {
            self.end(Err(BodyError::Broken));
        }
    }
}
