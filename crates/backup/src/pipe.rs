//! Threads that read an archive together: one unpacks, the others take what it holds piece by piece.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::{Buf, Bytes};
use wire::archive::{self, ArchiveError, Contents};

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
    // Few pieces on the way are enough to keep both sides busy; a full channel makes the writer wait.
    let (sender, receiver) = sync_channel(8);
    (
        sender,
        PieceReader {
            receiver,
            piece: Bytes::new(),
        },
    )
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
        while self.piece.is_empty() && !out.is_empty() {
            match self.receiver.recv() {
                Ok(piece) => self.piece = piece,
                // The writer is done.
                Err(_) => return Ok(0),
            }
        }
        let size = out.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut out[..size]);
        Ok(size)
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
