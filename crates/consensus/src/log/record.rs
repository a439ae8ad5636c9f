//! Records: how an entry lies in a segment. The page `docs/log.md` has the layout and an example.

use bytes::Bytes;

/// Place and term of an entry. Two logs that hold the same id hold the same entries up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId {
    // The order of fields is the order of ids: a later term wins, whatever the index.
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its place.
    pub index: u64,
}

/// An entry, as the log sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place and term.
    pub id: EntryId,
    /// What it says.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing.
    Blank,
    /// A command.
    Command(Bytes),
    /// Members, as `raft/codec.rs` writes them.
    Membership(Bytes),
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Blank => &[],
            Self::Command(bytes) | Self::Membership(bytes) => bytes,
        }
    }

    /// The same in memory of its own.
    pub(crate) fn detached(self) -> Self {
        match self {
            Self::Blank => Self::Blank,
            Self::Command(bytes) => Self::Command(Bytes::copy_from_slice(&bytes)),
            Self::Membership(bytes) => Self::Membership(Bytes::copy_from_slice(&bytes)),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Blank => KIND_BLANK,
            Self::Command(_) => KIND_COMMAND,
            Self::Membership(_) => KIND_MEMBERSHIP,
        }
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// There is an entry.
    Entry(Entry),
    /// All entries up to this one are committed.
    Committed(EntryId),
}

/// Bytes before the payload.
pub(crate) const RECORD_HEADER: usize = 32;

/// The largest payload. A length beyond it is damage, so nothing is ever allocated for it.
pub(crate) const PAYLOAD_MAX: usize = 8 << 20;

const KIND_BLANK: u8 = 1;
const KIND_COMMAND: u8 = 2;
const KIND_MEMBERSHIP: u8 = 3;
const KIND_COMMITTED: u8 = 4;

/// Bytes that a record with such a payload takes; records begin at multiples of eight.
pub(crate) fn record_len(payload: usize) -> usize {
    (RECORD_HEADER + payload).next_multiple_of(8)
}

/// Appends a record to `out`. `group` is the offset in the segment of the first record that is written and synced
/// together with this one.
pub(crate) fn encode(record: &Record, sequence: u64, group: u32, out: &mut Vec<u8>) {
    let (kind, id, payload) = match record {
        Record::Entry(entry) => (entry.body.kind(), entry.id, entry.body.bytes()),
        Record::Committed(id) => (KIND_COMMITTED, *id, &[][..]),
    };
    let length = u32::try_from(payload.len()).expect("payloads are bounded by PAYLOAD_MAX");
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&group.to_le_bytes());
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&id.index.to_le_bytes());
    out.extend_from_slice(&id.term.to_le_bytes());
    out.extend_from_slice(payload);
    let checksum = checksum(sequence, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    out.resize(start + record_len(payload.len()), 0);
}

/// The sequence number of the segment is part of the checksum, so that a block of another segment that ended up here
/// isn't believed.
fn checksum(sequence: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// What was found at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record, with the offset at which its group begins and the number of bytes it takes.
    Record {
        /// The record.
        record: Record,
        /// Where its group begins.
        group: u32,
        /// How many bytes it takes.
        len: usize,
    },
    /// Zeros: nothing was written here.
    Nothing,
    /// Neither.
    Bad(&'static str),
}

/// Decodes the record at the start of `bytes`. Never panics, and allocates no more than the record's own payload.
pub(crate) fn decode(bytes: &Bytes, sequence: u64) -> Found {
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        return if is_zero {
            Found::Nothing
        } else {
            Found::Bad("the record is cut off")
        };
    };
    if header.iter().all(|byte| *byte == 0) {
        return Found::Nothing;
    }
    let length = u32_at(header, 4) as usize;
    if length > PAYLOAD_MAX {
        return Found::Bad("the length is impossible");
    }
    if rest.len() < length {
        return Found::Bad("the record is cut off");
    }
    let end = RECORD_HEADER + length;
    if checksum(sequence, &bytes[4..end]) != u32_at(header, 0) {
        return Found::Bad("the checksum does not match");
    }
    let len = record_len(length).min(bytes.len());
    if bytes[end..len].iter().any(|byte| *byte != 0) {
        return Found::Bad("the padding is not zero");
    }
    let id = EntryId {
        index: u64_at(header, 16),
        term: u64_at(header, 24),
    };
    let payload = || bytes.slice(RECORD_HEADER..end);
    let record = match (header[12], length) {
        (KIND_BLANK, 0) => Record::Entry(Entry {
            id,
            body: Body::Blank,
        }),
        (KIND_COMMAND, _) => Record::Entry(Entry {
            id,
            body: Body::Command(payload()),
        }),
        (KIND_MEMBERSHIP, _) => Record::Entry(Entry {
            id,
            body: Body::Membership(payload()),
        }),
        (KIND_COMMITTED, 0) => Record::Committed(id),
        _ => return Found::Bad("the kind is unknown"),
    };
    Found::Record {
        record,
        group: u32_at(header, 8),
        len,
    }
}

fn u32_at(bytes: &[u8; RECORD_HEADER], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn u64_at(bytes: &[u8; RECORD_HEADER], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}
