//! Threads that read an archive together: one unpacks, the others take what it holds piece by piece.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use wire::archive::{self, ArchiveError, Contents};

/// Few pieces on the way are enough to keep both sides busy; when so many wait, who sends waits as well.
const WAITING_MAX: usize = 8;

/// Takes an archive apart on this thread while another takes its state in, and gives what both came to.
///
/// Nothing that was made of the state is to be believed unless the archive is sound.
pub(crate) fn unpack<T: Send>(
    input: impl Read,
    take: impl FnOnce(&mut PieceReader) -> T + Send,
) -> (Result<Contents, ArchiveError>, T) {
    thread::scope(|scope| {
        let (sender, mut reader) = pipe();
        let taking = scope.spawn(move || {
            let taken = take(&mut reader);
            // What unpacks must get to the end whatever became of this side.
            reader.drain();
            taken
        });
        let contents = archive::unpack(input, &mut Sender(sender));
        (contents, join(taking))
    })
}

/// What a thread came to. Should it have panicked, so do we: that would be a mistake of ours, not of the file.
pub(crate) fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A stream from one thread to another.
pub(crate) fn pipe() -> (SyncSender<Bytes>, PieceReader) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    (
        sender,
        PieceReader {
            receiver,
            piece: Bytes::new(),
        },
    )
}

/// From a task to a thread, where a few pieces may wait: what is sent to the one end is read at the other, until the
/// sender is gone. The reader must not be used in a task.
pub fn to_thread() -> (mpsc::Sender<Bytes>, impl Read + Send + 'static) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (
        sender,
        Arriving {
            receiver,
            piece: Bytes::new(),
        },
    )
}

/// What a task sends.
struct Arriving {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_pieces(&mut self.piece, out, || self.receiver.blocking_recv())
    }
}

/// Reads from a piece, and from the next one when it is used up, until there is none.
fn read_pieces(
    piece: &mut Bytes,
    out: &mut [u8],
    mut next: impl FnMut() -> Option<Bytes>,
) -> io::Result<usize> {
    while piece.is_empty() && !out.is_empty() {
        match next() {
            Some(more) => *piece = more,
            // Who sends is done.
            None => return Ok(0),
        }
    }
    let size = out.len().min(piece.len());
    piece.copy_to_slice(&mut out[..size]);
    Ok(size)
}

/// The reading end of a pipe.
pub(crate) struct PieceReader {
    receiver: Receiver<Bytes>,
    piece: Bytes,
}

impl PieceReader {
    /// Lets the writing side finish, whatever the reader thinks of the rest.
    pub(crate) fn drain(self) {
        while self.receiver.recv().is_ok() {}
    }
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        read_pieces(&mut self.piece, out, || self.receiver.recv().ok())
    }
}

/// The writing end of a pipe.
pub(crate) struct Sender(pub(crate) SyncSender<Bytes>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.send(piece).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
