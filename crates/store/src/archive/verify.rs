//! Two passes over the state of an archive before anything is touched: is every record sound, and then the same records in chunks.

use std::collections::BTreeMap;
use std::io::Read;

use model::{Index, RESTORE_CHUNK_MAX, RESTORE_RECORD_MAX, RestorePart};
use sha2::{Digest, Sha256};
use wire::msgpack::{Record, RecordReader};

use super::decode_header;
use super::error::{Position, StateError};
use super::kind::{Kind, is_later};
use super::loader::Loader;
use super::part::pick;
use super::refusal::{Fault, Refusal};
use super::rules::{INDEX_MAX, Rules};

/// What to do with records of types that only later releases know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The first one is an error.
    Refuse,
    /// They are left out, and counted.
    Skip,
}

/// So many records, so many bytes, their type bytes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many records.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
}

/// A state that can be loaded, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The highest index of any table, as the header says.
    pub last_index: Index,
    /// Bytes of the header.
    pub header_bytes: u64,
    /// What will be loaded, the chosen part if not everything is.
    pub records: BTreeMap<Kind, Tally>,
    /// What was skipped, by type byte.
    pub skipped: BTreeMap<u8, Tally>,
    /// How many chunks [`Chunks`] will give.
    pub chunks: u32,
    /// SHA-256 over the records of all chunks.
    pub hash: [u8; 32],
}

/// Reads every record and refuses what a [`Loader`](super::Loader) would refuse.
///
/// It holds one record at a time, and the names of nodes, services and queries.
///
/// # Errors
/// [`StateError`] names the first record that can't be taken.
pub fn verify(state: impl Read, unknown: Unknown) -> Result<Verified, StateError> {
    verify_part(state, unknown, None)
}

/// The same where only a part will be loaded. What is wrong anywhere in the state is refused all the same.
///
/// # Errors
/// As [`verify`].
pub fn verify_part(
    state: impl Read,
    unknown: Unknown,
    part: Option<&RestorePart>,
) -> Result<Verified, StateError> {
    let mut reader = RecordReader::open(state)?;
    let header = reader.header();
    let mut verified = Verified {
        last_index: decode_header(header)?,
        header_bytes: header.len() as u64,
        records: BTreeMap::new(),
        skipped: BTreeMap::new(),
        chunks: 0,
        hash: [0; 32],
    };
    if verified.last_index > INDEX_MAX {
        let index = verified.last_index;
        return Err(StateError::Header(format!("{}", Fault::Index(index))));
    }
    let mut rules = Rules::default();
    let mut hash = Sha256::new();
    let mut packing = Packing::default();
    let mut room = Vec::new();
    while let Some(record) = reader.next_record()? {
        let len = 1 + record.bytes.len();
        let Some(kind) = Kind::from_byte(record.kind) else {
            if unknown == Unknown::Refuse || !is_later(record.kind) {
                return Err(refused(&record, Refusal::Unrecognized(record.kind)));
            }
            verified.skipped.entry(record.kind).or_default().add(len);
            continue;
        };
        if len > RESTORE_RECORD_MAX {
            return Err(refused(&record, Refusal::TooLarge(len)));
        }
        rules
            .take(record.kind, record.bytes)
            .map_err(|refusal| refused(&record, refusal))?;
        let Some(object) = (match part {
            None => Some(record.bytes),
            Some(part) => pick(part, kind, record.bytes, &mut room)
                .map_err(|refusal| refused(&record, refusal))?,
        }) else {
            continue;
        };
        let len = 1 + object.len();
        if len > RESTORE_RECORD_MAX {
            return Err(refused(&record, Refusal::TooLarge(len)));
        }
        verified.records.entry(kind).or_default().add(len);
        hash.update([record.kind]);
        hash.update(object);
        if packing.begins_chunk(len) {
            verified.chunks = verified.chunks.saturating_add(1);
        }
    }
    verified.hash = hash.finalize().into();
    Ok(verified)
}

/// Loads a part of a state, or all of it, and refuses what [`verify_part`] would refuse.
///
/// # Errors
/// As [`verify`].
pub fn load(
    state: impl Read,
    unknown: Unknown,
    part: Option<&RestorePart>,
) -> Result<Loader, StateError> {
    let mut reader = RecordReader::open(state)?;
    let mut loader = Loader::new(decode_header(reader.header())?.min(INDEX_MAX));
    let mut rules = Rules::default();
    let mut room = Vec::new();
    while let Some(record) = reader.next_record()? {
        let Some(kind) = Kind::from_byte(record.kind) else {
            if unknown == Unknown::Refuse || !is_later(record.kind) {
                return Err(refused(&record, Refusal::Unrecognized(record.kind)));
            }
            continue;
        };
        let Some(part) = part else {
            loader.add(record.kind, record.bytes)?;
            continue;
        };
        // What is not loaded is judged all the same.
        rules
            .take(record.kind, record.bytes)
            .and_then(|_| pick(part, kind, record.bytes, &mut room))
            .map_err(|refusal| refused(&record, refusal))?
            .map_or(Ok(()), |object| loader.add(record.kind, object))?;
    }
    Ok(loader)
}

fn refused(record: &Record<'_>, refusal: Refusal) -> StateError {
    let position = Position {
        number: record.number,
        kind: record.kind,
        offset: record.offset,
    };
    StateError::Refused { refusal, position }
}

/// Where one chunk ends and the next begins: as many whole records as fit, and a record that fits into none alone.
#[derive(Debug, Default)]
struct Packing {
    chunk_len: usize,
}

impl Packing {
    fn begins_chunk(&mut self, record_len: usize) -> bool {
        let begins = self.chunk_len == 0 || self.chunk_len + record_len > RESTORE_CHUNK_MAX;
        if begins {
            self.chunk_len = 0;
        }
        self.chunk_len += record_len;
        begins
    }
}

/// The records of a state in chunks of at most [`RESTORE_CHUNK_MAX`] bytes, or of one record that is larger.
///
/// It gives the bytes over which [`verify`] made its hash, so run that first: what it would skip is left out here, and nothing is judged.
#[derive(Debug)]
pub struct Chunks<R> {
    reader: RecordReader<R>,
    part: Option<RestorePart>,
    packing: Packing,
    /// The first record of the next chunk.
    begun: Vec<u8>,
}

impl<R: Read> Chunks<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`StateError`] if there is none.
    pub fn open(state: R) -> Result<Self, StateError> {
        Self::of_part(state, None)
    }

    /// The same for a part, if it isn't everything, as given to [`verify_part`].
    ///
    /// # Errors
    /// As [`Chunks::open`].
    pub fn of_part(state: R, part: Option<RestorePart>) -> Result<Self, StateError> {
        Ok(Self {
            reader: RecordReader::open(state)?,
            part,
            packing: Packing::default(),
            begun: Vec::new(),
        })
    }

    /// The next chunk; `None` when there are no more.
    ///
    /// # Errors
    /// [`StateError`] where the state can't be cut into records.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let mut chunk = std::mem::take(&mut self.begun);
        let mut room = Vec::new();
        while let Some(record) = self.reader.next_record()? {
            let Some(kind) = Kind::from_byte(record.kind) else {
                continue;
            };
            let Some(object) = (match &self.part {
                None => Some(record.bytes),
                Some(part) => pick(part, kind, record.bytes, &mut room)
                    .map_err(|refusal| refused(&record, refusal))?,
            }) else {
                continue;
            };
            let begins = self.packing.begins_chunk(1 + object.len());
            let into = if begins && !chunk.is_empty() {
                &mut self.begun
            } else {
                &mut chunk
            };
            into.push(record.kind);
            into.extend_from_slice(object);
            if !self.begun.is_empty() {
                break;
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
