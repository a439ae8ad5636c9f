//! Putting an archive together as a stream.

use std::io::{self, Write};
use std::thread;

use super::sums::{self, Hasher};
use super::{META, Meta, STATE, SUMS, gzip, tar};

/// How to compress.
#[derive(Debug, Clone, Copy)]
pub struct Compression {
    /// From 0, none, to 9, the most; default 1, because saving waits for this more than for anything else.
    pub level: u32,
    /// Threads that compress beside the one that writes; 0 to do it there, and 16 at most. Small archives never start any.
    pub workers: usize,
    /// Called first on each of those threads, for instance to lower its priority.
    pub before_work: fn(),
}

impl Default for Compression {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            level: 1,
            workers: cores.min(2),
            before_work: || {},
        }
    }
}

/// Writes an archive whose state comes in through [`Write`].
///
/// The length of the state is announced in the metadata and has to be right to the byte.
/// An archive is whole only after [`Writer::finish`]; one that was given up before lacks its end, and every reader notices.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: gzip::Encoder<W>,
    meta_hash: sums::Hash,
    state_hash: Hasher,
    mtime: u64,
    size: u64,
    /// Bytes of the state that are still to come.
    left: u64,
}

impl<W: Write> Writer<W> {
    /// Writes what comes before the state. `mtime` is the time of the files in it, in Unix seconds.
    pub fn new(out: W, meta: &Meta, mtime: u64, compression: Compression) -> io::Result<Self> {
        let size = u64::try_from(meta.size).map_err(|_| {
            invalid(format!(
                "the state of a snapshot can't be {} bytes long",
                meta.size
            ))
        })?;
        let meta = meta.encode();
        let mut meta_hash = Hasher::default();
        meta_hash.update(&meta);
        let mut out = gzip::Encoder::new(out, size, compression)?;
        write_file(&mut out, META, &meta, mtime)?;
        out.write_all(&tar::header(STATE, size, mtime))?;
        Ok(Self {
            out,
            meta_hash: meta_hash.finish(),
            state_hash: Hasher::default(),
            mtime,
            size,
            left: size,
        })
    }

    /// Writes what comes after the state, and returns what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 {
            let Self { size, left, .. } = self;
            return Err(invalid(format!(
                "the state of the snapshot is {left} bytes short of the announced {size}"
            )));
        }
        self.out.write_all(tar::padding(self.size))?;
        let sums = sums::encode(&self.meta_hash, &self.state_hash.finish());
        write_file(&mut self.out, SUMS, sums.as_bytes(), self.mtime)?;
        self.out.write_all(&tar::END)?;
        self.out.finish()
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            let size = self.size;
            return Err(invalid(format!(
                "the state of the snapshot is longer than the announced {size} bytes"
            )));
        }
        let taken = self.out.write(bytes)?;
        self.state_hash.update(&bytes[..taken]);
        self.left -= taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_file(out: &mut impl Write, name: &str, bytes: &[u8], mtime: u64) -> io::Result<()> {
    let size = bytes.len() as u64;
    out.write_all(&tar::header(name, size, mtime))?;
    out.write_all(bytes)?;
    out.write_all(tar::padding(size))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
