//! Streams of bytes with back-pressure: snapshots on their way in and out.

use bytes::Bytes;
use tokio::sync::mpsc;

/// How many pieces may wait between the two ends; the sender waits when they are full.
const PIECES_MAX: usize = 4;

/// Why a stream ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(pub String);

/// The receiving end of a stream of bytes.
#[derive(Debug)]
pub struct ByteStream(mpsc::Receiver<Result<Bytes, StreamError>>);

/// The sending end; dropping it ends the stream.
#[derive(Debug, Clone)]
pub struct ByteSender(mpsc::Sender<Result<Bytes, StreamError>>);

/// Both ends of a new stream.
pub type Bodies = (ByteSender, ByteStream);

/// A new stream, bounded to a few pieces.
pub fn byte_stream() -> Bodies {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    (ByteSender(sender), ByteStream(receiver))
}

impl ByteStream {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.0.recv().await
    }

    /// The next piece, for a thread of its own (never on a runtime's thread).
    pub fn blocking_next(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.0.blocking_recv()
    }
}

impl ByteSender {
    /// Sends a piece; waits while too many are on their way. False if nobody listens any more.
    pub async fn send(&self, piece: Result<Bytes, StreamError>) -> bool {
        self.0.send(piece).await.is_ok()
    }

    /// Returns when nobody listens any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// The same as [`Self::send`] for a thread of its own (never on a runtime's thread).
    pub fn blocking_send(&self, piece: Result<Bytes, StreamError>) -> bool {
        self.0.blocking_send(piece).is_ok()
    }
}
