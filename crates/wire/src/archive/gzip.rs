//! The gzip layer: one member, read to its very end, and written by several threads.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crc32fast::Hasher as Crc;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::Compression;

/// Deflate, no optional fields, no time, and an operating system that nobody knows: as the original writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A final block that holds nothing.
const FINAL_BLOCK: [u8; 2] = [0x03, 0x00];

/// How much is deflated at a time: large enough to lose little by starting over, small enough that a few are no memory.
const PIECE_SIZE: usize = 256 << 10;

/// Pieces that one worker has at a time, waiting, in work or done.
const PIECES_PER_WORKER: usize = 2;

/// More threads than this only cost memory; one thread can't feed them.
const WORKERS_MAX: usize = 16;

/// The longest optional header field that is passed over.
const HEADER_FIELD_SIZE_MAX: usize = 64 << 10;

/// What is wrong with the gzip layer as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// There is nothing at all.
    #[error("EOF")]
    Empty,
    /// It ends inside of the header.
    #[error("unexpected EOF")]
    CutHeader,
    /// It is something else than gzip.
    #[error("gzip: invalid header")]
    Header,
    /// The compressed bytes make no sense.
    #[error("gzip: invalid compressed data")]
    Data,
    /// It ends inside of the trailer, which says whether the rest arrived well.
    #[error("gzip: the trailer is cut off")]
    CutTrailer,
    /// The bytes are not those that were compressed.
    #[error("gzip: invalid checksum")]
    Checksum,
    /// Something follows where the file should end.
    #[error("gzip: unexpected data after the end")]
    Junk,
}

impl From<GzipError> for io::Error {
    fn from(error: GzipError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Reads what one gzip member holds.
///
/// It reports the end only after the trailer agreed and the input ended too; so whoever reads to the end has verified it all.
#[derive(Debug)]
pub(super) struct Decoder<R> {
    input: R,
    inflate: Decompress,
    crc: Crc,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Body,
    Trailer,
    End,
}

impl<R: BufRead> Decoder<R> {
    /// Reads the header.
    pub(super) fn open(mut input: R) -> io::Result<Self> {
        read_header(&mut input)?;
        Ok(Self {
            input,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            stage: Stage::Body,
        })
    }

    fn read_trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        exactly(&mut self.input, &mut trailer, GzipError::CutTrailer)?;
        let [a, b, c, d, length @ ..] = trailer;
        let made = self.inflate.total_out().to_le_bytes();
        if u32::from_le_bytes([a, b, c, d]) != self.crc.clone().finalize() || made[..4] != length {
            return Err(GzipError::Checksum.into());
        }
        if !peek(&mut self.input)?.is_empty() {
            return Err(GzipError::Junk.into());
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.stage == Stage::Body {
            let input = peek(&mut self.input)?;
            let at_end = input.is_empty();
            let (total_in, total_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, into, FlushDecompress::None)
                .map_err(|_| GzipError::Data)?;
            let used = narrow(self.inflate.total_in() - total_in);
            let made = narrow(self.inflate.total_out() - total_out);
            self.input.consume(used);
            self.crc.update(&into[..made]);
            if status == Status::StreamEnd {
                self.stage = Stage::Trailer;
            }
            if made > 0 {
                // What is wrong with the trailer is told after the last byte, so that a reader can say what the bytes were first.
                return Ok(made);
            }
            if self.stage == Stage::Body && used == 0 {
                return Err(match at_end {
                    true => io::ErrorKind::UnexpectedEof.into(),
                    false => GzipError::Data.into(),
                });
            }
        }
        if self.stage == Stage::Trailer {
            self.read_trailer()?;
            self.stage = Stage::End;
        }
        Ok(0)
    }
}

fn read_header(input: &mut impl BufRead) -> io::Result<()> {
    const HEADER_CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0xe0;

    if peek(input)?.is_empty() {
        return Err(GzipError::Empty.into());
    }
    let mut fixed = [0; HEADER.len()];
    exactly(input, &mut fixed, GzipError::CutHeader)?;
    let flags = fixed[3];
    if fixed[..3] != HEADER[..3] || flags & RESERVED != 0 {
        return Err(GzipError::Header.into());
    }
    let mut crc = Crc::new();
    crc.update(&fixed);
    if flags & EXTRA != 0 {
        let mut length = [0; 2];
        exactly(input, &mut length, GzipError::CutHeader)?;
        crc.update(&length);
        let mut extra = vec![0; usize::from(u16::from_le_bytes(length))];
        exactly(input, &mut extra, GzipError::CutHeader)?;
        crc.update(&extra);
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            pass_text(input, &mut crc)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        let mut claimed = [0; 2];
        exactly(input, &mut claimed, GzipError::CutHeader)?;
        if claimed != crc.finalize().to_le_bytes()[..2] {
            return Err(GzipError::Header.into());
        }
    }
    Ok(())
}

/// Passes over a text that ends with a zero.
fn pass_text(input: &mut impl BufRead, crc: &mut Crc) -> io::Result<()> {
    for _ in 0..HEADER_FIELD_SIZE_MAX {
        let mut byte = [0];
        exactly(input, &mut byte, GzipError::CutHeader)?;
        crc.update(&byte);
        if byte == [0] {
            return Ok(());
        }
    }
    Err(GzipError::Header.into())
}

/// Bytes that are there already, or a fresh lot of them; none at the end.
fn peek(input: &mut impl BufRead) -> io::Result<&[u8]> {
    while let Err(error) = input.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    input.fill_buf()
}

fn exactly(input: &mut impl BufRead, into: &mut [u8], cut: GzipError) -> io::Result<()> {
    input.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut.into(),
        _ => error,
    })
}

/// How much one call moved, which fits because it was at most a slice.
fn narrow(moved: u64) -> usize {
    usize::try_from(moved).expect("no more than the length of a slice")
}

/// Writes one gzip member, deflated in pieces by threads of its own.
///
/// The pieces are independent and end on a byte, so that they can be joined; the result doesn't depend on the number of threads.
#[derive(Debug)]
pub(super) struct Encoder<W> {
    out: W,
    /// The piece that is being filled.
    piece: Vec<u8>,
    workers: Workers,
    crc: Crc,
    length: u64,
}

impl<W: Write> Encoder<W> {
    /// Writes the header. `size` is how much will come, which decides whether threads are worth their start.
    pub(super) fn new(mut out: W, size: u64, compression: Compression) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        let workers = if size <= 2 * PIECE_SIZE as u64 {
            0
        } else {
            compression.workers
        };
        let workers = Workers::start(workers, compression);
        Ok(Self {
            out,
            piece: Vec::new(),
            workers,
            crc: Crc::new(),
            length: 0,
        })
    }

    /// Writes what is still in work, and the trailer.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.piece.is_empty() {
            self.submit()?;
        }
        while let Some(done) = self.workers.wait()? {
            self.collect(done)?;
        }
        self.out.write_all(&FINAL_BLOCK)?;
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        self.out.write_all(&self.length.to_le_bytes()[..4])?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Hands the piece over to be deflated, and writes the oldest one where that makes room.
    fn submit(&mut self) -> io::Result<()> {
        let spare = match self.workers.take_if_full()? {
            Some(done) => self.collect(done)?,
            None => Vec::new(),
        };
        let piece = std::mem::replace(&mut self.piece, spare);
        if let Some(done) = self.workers.submit(piece)? {
            self.piece = self.collect(done)?;
        }
        Ok(())
    }

    /// Writes a deflated piece and gives its input back, empty, to be filled again.
    fn collect(&mut self, done: Deflated) -> io::Result<Vec<u8>> {
        let Deflated {
            mut piece,
            bytes,
            crc,
        } = done;
        self.crc.combine(&crc);
        self.length += piece.len() as u64;
        self.out.write_all(&bytes)?;
        piece.clear();
        Ok(piece)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_SIZE {
            self.submit()?;
        }
        let taken = bytes.len().min(PIECE_SIZE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Pieces stay whole, so this only passes on what is deflated already.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Threads that deflate, each with its own queue in and out.
///
/// Pieces go round from one worker to the next and come back in the same order, so the results need no sorting.
/// At most [`PIECES_PER_WORKER`] pieces are with a worker, and both its queues hold that many: nobody ever waits to hand something over,
/// and dropping this ends every thread.
#[derive(Debug)]
struct Workers {
    threads: Vec<Worker>,
    /// Which worker has the pieces that are out, oldest first.
    out: VecDeque<usize>,
    next: usize,
    /// Does the work where there are no threads.
    inline: Option<Deflate>,
}

#[derive(Debug)]
struct Worker {
    /// `None` once it is told to stop.
    pieces: Option<SyncSender<Vec<u8>>>,
    deflated: Receiver<io::Result<Deflated>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Deflated {
    piece: Vec<u8>,
    bytes: Vec<u8>,
    crc: Crc,
}

impl Workers {
    /// Fewer threads than asked for, where the system has no more, are only slower.
    fn start(count: usize, compression: Compression) -> Self {
        let count = count.min(WORKERS_MAX);
        let threads: Vec<_> = (0..count)
            .map_while(|_| Worker::start(compression).ok())
            .collect();
        let inline = threads.is_empty().then(|| Deflate::new(compression.level));
        Self {
            threads,
            out: VecDeque::new(),
            next: 0,
            inline,
        }
    }

    /// Waits for the oldest piece if there is no room for another one.
    fn take_if_full(&mut self) -> io::Result<Option<Deflated>> {
        if self.out.len() < PIECES_PER_WORKER * self.threads.len() {
            Ok(None)
        } else {
            self.wait()
        }
    }

    /// Waits for the oldest piece, if one is out.
    fn wait(&mut self) -> io::Result<Option<Deflated>> {
        let Some(worker) = self.out.pop_front() else {
            return Ok(None);
        };
        self.threads[worker]
            .deflated
            .recv()
            .map_err(|_| died())?
            .map(Some)
    }

    /// Gives a piece to the next worker; without workers it comes back at once.
    fn submit(&mut self, piece: Vec<u8>) -> io::Result<Option<Deflated>> {
        if let Some(deflate) = &mut self.inline {
            return deflate.run(piece).map(Some);
        }
        let worker = &self.threads[self.next];
        worker
            .pieces
            .as_ref()
            .ok_or_else(died)?
            .send(piece)
            .map_err(|_| died())?;
        self.out.push_back(self.next);
        self.next = (self.next + 1) % self.threads.len();
        Ok(None)
    }
}

fn died() -> io::Error {
    io::Error::other("a thread that compresses has died")
}

impl Worker {
    fn start(compression: Compression) -> io::Result<Self> {
        let (pieces, todo) = sync_channel::<Vec<u8>>(PIECES_PER_WORKER);
        let (done, deflated) = sync_channel(PIECES_PER_WORKER);
        let thread = thread::Builder::new()
            .name("deflate".into())
            .spawn(move || {
                (compression.before_work)();
                let mut deflate = Deflate::new(compression.level);
                while let Ok(piece) = todo.recv() {
                    if done.send(deflate.run(piece)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            pieces: Some(pieces),
            deflated,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there was reported as a worker that died.
            let _ = thread.join();
        }
    }
}

/// Deflates pieces, each on its own.
#[derive(Debug)]
struct Deflate(Compress);

impl Deflate {
    fn new(level: u32) -> Self {
        Self(Compress::new(flate2::Compression::new(level.min(9)), false))
    }

    fn run(&mut self, piece: Vec<u8>) -> io::Result<Deflated> {
        let mut crc = Crc::new();
        crc.update(&piece);
        self.0.reset();
        // Incompressible input grows by a few bytes for each block; the loop below takes care if that should not be enough.
        let mut bytes = Vec::with_capacity(piece.len() + piece.len() / 64 + 64);
        loop {
            let used = narrow(self.0.total_in());
            self.0
                .compress_vec(&piece[used..], &mut bytes, FlushCompress::Sync)?;
            // Output that doesn't fill its room is complete.
            if bytes.len() < bytes.capacity() {
                break;
            }
            bytes.reserve(PIECE_SIZE / 4);
        }
        if bytes.len() > piece.len() {
            store(&piece, &mut bytes);
        }
        Ok(Deflated { piece, bytes, crc })
    }
}

/// Replaces `bytes` with blocks that hold `piece` as it is: the lowest level makes encrypted values longer by a sixteenth.
fn store(piece: &[u8], bytes: &mut Vec<u8>) {
    bytes.clear();
    for block in piece.chunks(usize::from(u16::MAX)) {
        let len = u16::try_from(block.len()).expect("a chunk is that long at most");
        bytes.push(0);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&(!len).to_le_bytes());
        bytes.extend_from_slice(block);
    }
}
