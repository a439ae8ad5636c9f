//! Checksummed frames, one after the other: how a checkpoint is kept on disk.
//!
//! A frame is `[length u32][crc32 u32][payload]`, numbers in little endian, the checksum over the length and the payload.
//! The length is under the checksum so that a stretch of zeros, as a torn write leaves it behind, is no run of empty frames.
//!
//! Frames say whether they are sound and whole, and nothing of how many there should be:
//! a file that ends between two of them looks complete, so its last frame has to say that it is the last.

use std::io::{self, Read, Write};

use crc32fast::Hasher as Crc;

/// The longest payload: what a reader holds in memory at a time.
pub const PAYLOAD_SIZE_MAX: usize = 16 << 20;

/// Bytes before the payload.
const HEAD_SIZE: usize = 8;

/// Writes frames. It doesn't buffer: give it something that does.
#[derive(Debug)]
pub struct FrameWriter<W> {
    out: W,
    offset: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Writes from where `out` stands.
    pub fn new(out: W) -> Self {
        Self { out, offset: 0 }
    }

    /// Writes one frame; an error if `payload` is longer than [`PAYLOAD_SIZE_MAX`].
    pub fn write_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = match u32::try_from(payload.len()) {
            Ok(length) if payload.len() <= PAYLOAD_SIZE_MAX => length.to_le_bytes(),
            _ => {
                let size = payload.len();
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("a frame of {size} bytes is longer than {PAYLOAD_SIZE_MAX}"),
                ));
            }
        };
        let mut head = [0; HEAD_SIZE];
        head[..4].copy_from_slice(&length);
        head[4..].copy_from_slice(&checksum(length, payload).to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(payload)?;
        self.offset += (HEAD_SIZE + payload.len()) as u64;
        Ok(())
    }

    /// How many bytes were written.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was written to, not flushed.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// Reads frames. It asks for a few bytes at a time: give it something that buffers.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: R,
    /// The payload that was given out last; it grows with the bytes that come.
    payload: Vec<u8>,
    offset: u64,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The source failed.
    #[error("reading the frame at byte {offset}: {source}")]
    Io {
        /// Where the frame begins.
        offset: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The source ends inside of a frame.
    #[error("the frame at byte {offset} is torn: its end is missing")]
    Torn {
        /// Where the frame begins.
        offset: u64,
    },
    /// The bytes are not those that were written.
    #[error("the frame at byte {offset} is damaged: its checksum doesn't match")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
    },
    /// The length is none that is ever written.
    #[error(
        "the frame at byte {offset} is damaged: it claims {length} bytes, more than {PAYLOAD_SIZE_MAX}"
    )]
    TooLong {
        /// Where the frame begins.
        offset: u64,
        /// The length it claims.
        length: u32,
    },
}

impl<R: Read> FrameReader<R> {
    /// Reads from where `input` stands, and counts offsets from there.
    pub fn new(input: R) -> Self {
        Self {
            input,
            payload: Vec::new(),
            offset: 0,
        }
    }

    /// The payload of the next frame, or `None` where the source ends between two frames.
    ///
    /// After an error the reader stands somewhere inside of the bad frame and has nothing more to say.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let offset = self.offset;
        let io_error = |source| FrameError::Io { offset, source };
        let read = self.read_exactly(HEAD_SIZE).map_err(io_error)?;
        if read == 0 {
            return Ok(None);
        }
        let Some(([a, b, c, d, crc @ ..], _)) = self.payload.split_first_chunk::<HEAD_SIZE>()
        else {
            return Err(FrameError::Torn { offset });
        };
        let (length_bytes, crc) = ([*a, *b, *c, *d], u32::from_le_bytes(*crc));
        let length = u32::from_le_bytes(length_bytes);
        // usize has at least 32 bits wherever this runs.
        let size = length as usize;
        if size > PAYLOAD_SIZE_MAX {
            return Err(FrameError::TooLong { offset, length });
        }
        if self.read_exactly(size).map_err(io_error)? < size {
            return Err(FrameError::Torn { offset });
        }
        if checksum(length_bytes, &self.payload) != crc {
            return Err(FrameError::Damaged { offset });
        }
        self.offset += (HEAD_SIZE + size) as u64;
        Ok(Some(&self.payload))
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Replaces `payload` with the next `size` bytes, or fewer if there are no more.
    fn read_exactly(&mut self, size: usize) -> io::Result<usize> {
        self.payload.clear();
        (&mut self.input)
            .take(size as u64)
            .read_to_end(&mut self.payload)
    }
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&length);
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests;
