//! Streams of bytes with back-pressure: snapshots on their way in and out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
pub struct ByteStream {
    pieces: mpsc::Receiver<Result<Bytes, StreamError>>,
    is_cut: Arc<AtomicBool>,
}

/// The sending end; dropping it ends the stream.
#[derive(Debug, Clone)]
pub struct ByteSender {
    pieces: mpsc::Sender<Result<Bytes, StreamError>>,
    is_cut: Arc<AtomicBool>,
}

/// A sending end for work that may be ended from outside: the stream has its end only when [`Self::finish`] says so, and dropping it is an error to whoever reads.
#[derive(Debug)]
pub struct WholeSender {
    sender: ByteSender,
    is_finished: bool,
}

/// Both ends of a new stream.
pub type Bodies = (ByteSender, ByteStream);

/// A new stream, bounded to a few pieces.
pub fn byte_stream() -> Bodies {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let is_cut = Arc::new(AtomicBool::new(false));
    let stream = ByteStream {
        pieces: receiver,
        is_cut: Arc::clone(&is_cut),
    };
    let pieces = sender;
    (ByteSender { pieces, is_cut }, stream)
}

impl ByteStream {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        let piece = self.pieces.recv().await;
        piece.or_else(|| self.cut())
    }

    /// The next piece, for a thread of its own (never on a runtime's thread).
    pub fn blocking_next(&mut self) -> Option<Result<Bytes, StreamError>> {
        let piece = self.pieces.blocking_recv();
        piece.or_else(|| self.cut())
    }

    /// Said once: it is an end too.
    fn cut(&self) -> Option<Result<Bytes, StreamError>> {
        let was_cut = self.is_cut.swap(false, Ordering::AcqRel);
        was_cut.then(|| Err(StreamError("it was cut off before its end".to_owned())))
    }
}

impl ByteSender {
    /// Sends a piece; waits while too many are on their way. False if nobody listens any more.
    pub async fn send(&self, piece: Result<Bytes, StreamError>) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Returns when nobody listens any more.
    pub async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// The same as [`Self::send`] for a thread of its own (never on a runtime's thread).
    pub fn blocking_send(&self, piece: Result<Bytes, StreamError>) -> bool {
        self.pieces.blocking_send(piece).is_ok()
    }

    /// From now on the stream has to be finished.
    pub fn whole(self) -> WholeSender {
        WholeSender {
            sender: self,
            is_finished: false,
        }
    }
}

impl WholeSender {
    /// The same as [`ByteSender::send`].
    pub async fn send(&self, piece: Result<Bytes, StreamError>) -> bool {
        self.sender.send(piece).await
    }

    /// The same as [`ByteSender::blocking_send`].
    pub fn blocking_send(&self, piece: Result<Bytes, StreamError>) -> bool {
        self.sender.blocking_send(piece)
    }

    /// Returns when nobody listens any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Ends the stream.
    pub fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for WholeSender {
    fn drop(&mut self) {
        // Before the sender in it is gone, and with it what keeps the stream from its end.
        if !self.is_finished {
            self.sender.is_cut.store(true, Ordering::Release);
        }
    }
}
