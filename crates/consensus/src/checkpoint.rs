//! Checkpoints: the state at one index, in a file, so that the log before it can be dropped.
//!
//! A file is a line of blocks, each with a checksum that also covers its number, closed by a block that says how many
//! bytes there were. The first block says where in the log the checkpoint stands and who the members were; the rest is
//! the state machine's. The format is described in `docs/log.md`.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::disk::{Disk, File};
use crate::log::EntryId;

const MAGIC: &[u8; 8] = b"conschk1";

/// Bytes in a block, at most.
pub(crate) const BLOCK_MAX: usize = 64 << 10;

/// Length and checksum.
const BLOCK_HEADER: usize = 8;

/// Bytes after which a checkpoint that is being written is synced, so that the log's syncs never wait behind all of it.
const SYNC_BYTES: usize = 4 << 20;

/// How many checkpoints are kept: the newest, and one in case it turns out to be damaged at the next start.
pub(crate) fn kept(disk: &dyn Disk) -> usize {
    if disk.is_volatile() { 1 } else { 2 }
}

/// Where a checkpoint stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The last entry that is part of it.
    pub(crate) last: EntryId,
    /// The entry that named the members.
    pub(crate) membership_id: Option<EntryId>,
    /// The members, as `raft/codec.rs` writes them.
    pub(crate) membership: Bytes,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let id = self.membership_id.unwrap_or_default();
        let mut out = Vec::with_capacity(48 + self.membership.len());
        for field in [
            self.last.index,
            self.last.term,
            u64::from(self.membership_id.is_some()),
            id.index,
            id.term,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.membership);
        out
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, &'static str> {
        let Some((head, rest)) = bytes.split_first_chunk::<40>() else {
            return Err("the first block is cut off");
        };
        let field = |place: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&head[place * 8..place * 8 + 8]);
            u64::from_le_bytes(raw)
        };
        let last = EntryId {
            index: field(0),
            term: field(1),
        };
        let membership_id = match field(2) {
            0 => None,
            1 => Some(EntryId {
                index: field(3),
                term: field(4),
            }),
            _ => return Err("the first block contradicts itself"),
        };
        Ok(Self {
            last,
            membership_id,
            membership: bytes.slice(bytes.len() - rest.len()..),
        })
    }
}

/// The name of the file of the checkpoint at an entry.
pub(crate) fn file_name(last: EntryId) -> String {
    format!("checkpoint-{:016x}-{:016x}", last.index, last.term)
}

/// The entry in the name of a checkpoint's file; `None` if it is another file.
pub(crate) fn entry_of(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_prefix("checkpoint-")?.split_once('-')?;
    let number = |digits: &str| {
        let is_ours = digits.len() == 16
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_ours {
            u64::from_str_radix(digits, 16).ok()
        } else {
            None
        }
    };
    Some(EntryId {
        index: number(index)?,
        term: number(term)?,
    })
}

/// The checkpoints in a directory, oldest first.
pub(crate) fn list(disk: &dyn Disk) -> io::Result<Vec<EntryId>> {
    let mut found: Vec<EntryId> = disk
        .list()?
        .iter()
        .filter_map(|name| entry_of(name))
        .collect();
    found.sort_unstable_by_key(|id| id.index);
    Ok(found)
}

/// Removes all but the newest ones.
pub(crate) fn remove_old(disk: &dyn Disk) -> io::Result<()> {
    let found = list(disk)?;
    for id in found.iter().rev().skip(kept(disk)) {
        disk.remove(&file_name(*id))?;
    }
    if found.len() > kept(disk) {
        disk.sync_dir()
    } else {
        Ok(())
    }
}

/// Writes a checkpoint. Nothing is kept in memory but one block.
pub(crate) struct Writer {
    file: Arc<dyn File>,
    offset: u64,
    block: Vec<u8>,
    blocks: u64,
    total: u64,
    unsynced: usize,
}

impl Writer {
    pub(crate) fn new(file: Arc<dyn File>, meta: &Meta) -> io::Result<Self> {
        file.write_at(0, MAGIC)?;
        let mut writer = Self {
            file,
            offset: MAGIC.len() as u64,
            block: Vec::with_capacity(BLOCK_MAX),
            blocks: 0,
            total: 0,
            unsynced: 0,
        };
        let meta = meta.encode();
        if meta.len() > BLOCK_MAX {
            return Err(io::Error::other("too many members"));
        }
        writer.block.extend_from_slice(&meta);
        writer.put_block()?;
        Ok(writer)
    }

    fn put_block(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.block.len()).map_err(io::Error::other)?;
        let mut header = [0; BLOCK_HEADER];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..].copy_from_slice(&block_checksum(self.blocks, &self.block).to_le_bytes());
        self.file.write_at(self.offset, &header)?;
        self.file
            .write_at(self.offset + BLOCK_HEADER as u64, &self.block)?;
        self.offset += (BLOCK_HEADER + self.block.len()) as u64;
        self.blocks += 1;
        self.total += self.block.len() as u64;
        self.unsynced += self.block.len();
        self.block.clear();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Closes the file and makes its content durable, though not its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.put_block()?;
        }
        let mut end = [0; BLOCK_HEADER + 8];
        let total = self.total.to_le_bytes();
        end[4..BLOCK_HEADER].copy_from_slice(&block_checksum(self.blocks, &total).to_le_bytes());
        end[BLOCK_HEADER..].copy_from_slice(&total);
        self.file.write_at(self.offset, &end)?;
        self.file.sync_data()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_MAX - self.block.len();
        let taken = bytes.len().min(room);
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_MAX {
            self.put_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number of the block is part of its checksum, so that blocks that changed places aren't believed.
fn block_checksum(number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Reads the state in a checkpoint, checking each block before it is handed on.
///
/// A damaged checkpoint ends in an error, never in a silent end.
pub(crate) struct Reader<S> {
    source: S,
    meta: Meta,
    block: Bytes,
    blocks: u64,
    total: u64,
    is_at_end: bool,
}

/// Where the bytes of a checkpoint come from: exactly so many, or an error.
pub(crate) trait Source {
    fn take(&mut self, out: &mut [u8]) -> io::Result<()>;
    /// Whether nothing is left.
    fn is_exhausted(&mut self) -> io::Result<bool>;
}

/// A file, from the start.
pub(crate) struct FileSource {
    pub(crate) file: Arc<dyn File>,
    pub(crate) offset: u64,
}

impl Source for FileSource {
    fn take(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(self.offset, out)?;
        self.offset += out.len() as u64;
        Ok(())
    }

    fn is_exhausted(&mut self) -> io::Result<bool> {
        Ok(self.file.len()? == self.offset)
    }
}

impl Source for &[u8] {
    fn take(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.read_exact(out)
    }

    fn is_exhausted(&mut self) -> io::Result<bool> {
        Ok(self.is_empty())
    }
}

fn damaged(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl<S: Source> Reader<S> {
    pub(crate) fn new(mut source: S) -> io::Result<Self> {
        let mut magic = [0; 8];
        source.take(&mut magic)?;
        if &magic != MAGIC {
            return Err(damaged("it does not begin like a checkpoint"));
        }
        let mut reader = Self {
            source,
            meta: Meta::default(),
            block: Bytes::new(),
            blocks: 0,
            total: 0,
            is_at_end: false,
        };
        reader.next_block()?;
        reader.meta = Meta::decode(&std::mem::take(&mut reader.block)).map_err(damaged)?;
        Ok(reader)
    }

    /// Where the checkpoint stands.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    fn next_block(&mut self) -> io::Result<()> {
        let mut header = [0; BLOCK_HEADER];
        self.source.take(&mut header)?;
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (length, checksum) = (number(0) as usize, number(4));
        if length > BLOCK_MAX {
            return Err(damaged(format!(
                "block {} has an impossible length",
                self.blocks
            )));
        }
        let mut block = BytesMut::zeroed(if length == 0 { 8 } else { length });
        self.source.take(&mut block)?;
        if block_checksum(self.blocks, &block) != checksum {
            return Err(damaged(format!(
                "the checksum of block {} does not match",
                self.blocks
            )));
        }
        if length == 0 {
            if block[..] != self.total.to_le_bytes() || !self.source.is_exhausted()? {
                return Err(damaged("it does not end where it should"));
            }
            self.is_at_end = true;
            return Ok(());
        }
        self.blocks += 1;
        self.total += length as u64;
        self.block = block.freeze();
        Ok(())
    }

    /// Reads to the end, to see whether all of it is good.
    pub(crate) fn check(mut self) -> io::Result<Meta> {
        while !self.is_at_end {
            self.next_block()?;
        }
        Ok(self.meta)
    }
}

impl<S: Source> Read for Reader<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() && !self.is_at_end {
            self.next_block()?;
        }
        let taken = out.len().min(self.block.len());
        out[..taken].copy_from_slice(&self.block.split_to(taken));
        Ok(taken)
    }
}

/// What tells one checkpoint file from all others, without reading all of it: the checksums of its blocks.
///
/// Two servers' checkpoints at one entry need not have the same bytes, so a transfer that one began is continued by the
/// other only if they do.
pub(crate) fn fingerprint(file: &dyn File) -> io::Result<Fingerprint> {
    let length = file.len()?;
    let mut value = FINGERPRINT_START;
    let mut offset = MAGIC.len() as u64;
    let mut header = [0; BLOCK_HEADER];
    while offset < length {
        file.read_at(offset, &mut header)?;
        for byte in header {
            value = (value ^ u64::from(byte)).wrapping_mul(FINGERPRINT_FACTOR);
        }
        let block = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if block == 0 {
            break;
        }
        offset += BLOCK_HEADER as u64 + u64::from(block);
    }
    Ok(Fingerprint { length, value })
}

/// See [`fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// The length of the file.
    pub(crate) length: u64,
    /// A hash of its blocks' checksums.
    pub(crate) value: u64,
}

/// FNV-1a, 64 bits, over checksums that nobody chooses.
const FINGERPRINT_START: u64 = 0xcbf2_9ce4_8422_2325;
const FINGERPRINT_FACTOR: u64 = 0x0100_0000_01b3;

/// Opens a checkpoint file.
pub(crate) fn open(disk: &dyn Disk, name: &str) -> io::Result<Reader<FileSource>> {
    Reader::new(FileSource {
        file: disk.open(name)?,
        offset: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn meta() -> Meta {
        Meta {
            last: EntryId { term: 3, index: 99 },
            membership_id: Some(EntryId { term: 1, index: 0 }),
            membership: Bytes::from_static(b"members"),
        }
    }

    fn write(state: &[u8]) -> Vec<u8> {
        let disk = MemoryDisk::new();
        let file = disk.create("x").unwrap();
        let mut writer = Writer::new(Arc::clone(&file), &meta()).unwrap();
        writer.write_all(state).unwrap();
        writer.finish().unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<(Meta, Vec<u8>)> {
        let mut reader = Reader::new(bytes)?;
        let meta = reader.meta.clone();
        let mut state = Vec::new();
        reader.read_to_end(&mut state)?;
        Ok((meta, state))
    }

    #[test]
    fn a_checkpoint_comes_out_as_it_went_in() {
        for length in [0, 1, BLOCK_MAX - 1, BLOCK_MAX, BLOCK_MAX + 1, 300_000] {
            let state: Vec<u8> = (0..length)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let bytes = write(&state);
            assert_eq!(read(&bytes).unwrap(), (meta(), state));
            assert_eq!(Reader::new(&bytes[..]).unwrap().check().unwrap(), meta());
        }
    }

    #[test]
    fn any_flip_or_cut_of_a_checkpoint_is_noticed() {
        let bytes = write(b"the state of the machine");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(read(&longer).is_err());
    }

    #[test]
    fn names_say_where_a_checkpoint_stands() {
        let id = EntryId { term: 3, index: 99 };
        assert_eq!(entry_of(&file_name(id)), Some(id));
        for other in [
            "checkpoint.tmp",
            "checkpoint-1-2",
            "checkpoint-+00000000000000f-0000000000000001",
            "log-0000000000000001",
        ] {
            assert_eq!(entry_of(other), None, "{other}");
        }
    }
}
