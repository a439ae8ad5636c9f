//! Segments: files of records behind a header, and what is believed of one when a server starts.

use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, Entry, EntryId, Found, Record};
use crate::disk::File;

/// Bytes of the header.
pub(crate) const SEGMENT_HEADER: usize = 64;

const MAGIC: &[u8; 8] = b"conslog1";

/// What a segment says about itself and about the one before it.
///
/// It is synced before the file gets its name, so a segment with a bad header is damaged, never torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Counts segments; the next one has the next number.
    pub sequence: u64,
    /// The first entry in here. Entries of earlier segments from this index on are void: that is how a tail is cut.
    pub first_index: u64,
    /// The entry before the first, if there is one.
    pub previous: Option<EntryId>,
    /// Where the records of the segment before this one end; what lies behind is not looked at.
    pub previous_end: u64,
    /// The length of the file. A shorter file was cut.
    pub capacity: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let previous = self.previous.unwrap_or_default();
        let fields = [
            self.sequence,
            self.first_index,
            u64::from(self.previous.is_some()),
            previous.term,
            self.previous_end,
            self.capacity,
        ];
        let mut out = [0; SEGMENT_HEADER];
        out[..8].copy_from_slice(MAGIC);
        for (place, field) in fields.iter().enumerate() {
            let at = 8 + place * 8;
            out[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let checksum = crc32fast::hash(&out[..SEGMENT_HEADER - 4]);
        out[SEGMENT_HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes
            .first_chunk::<SEGMENT_HEADER>()
            .ok_or("the header is cut off")?;
        if &header[..8] != MAGIC {
            return Err("it does not begin like a log segment");
        }
        let checksum = crc32fast::hash(&header[..SEGMENT_HEADER - 4]);
        if header[SEGMENT_HEADER - 4..] != checksum.to_le_bytes() {
            return Err("the checksum of the header does not match");
        }
        let field = |place: usize| {
            let at = 8 + place * 8;
            let mut raw = [0; 8];
            raw.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let (sequence, first_index, has_previous, previous_term) =
            (field(0), field(1), field(2), field(3));
        let previous = match (has_previous, first_index.checked_sub(1)) {
            (0, _) => None,
            (1, Some(index)) => Some(EntryId {
                term: previous_term,
                index,
            }),
            _ => return Err("the header contradicts itself"),
        };
        Ok(Self {
            sequence,
            first_index,
            previous,
            previous_end: field(4),
            capacity: field(5),
        })
    }
}

/// The name of the file of a segment.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("log-{sequence:016x}")
}

/// The number in the name of a segment's file; `None` if it is another file.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?;
    let is_ours = digits.len() == 16
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_ours {
        u64::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// An open segment and where its entries lie.
#[derive(Debug)]
pub(crate) struct Segment {
    pub header: Header,
    pub file: Arc<dyn File>,
    /// The offset of each entry from `first_index` on; those whose index was taken by a later segment are gone.
    pub offsets: Vec<u32>,
    /// Where the next record goes.
    pub end: u64,
}

impl Segment {
    /// The index after its last entry.
    pub(crate) fn next_index(&self) -> u64 {
        self.header.first_index + self.offsets.len() as u64
    }

    /// The offset of an entry, if it is in here.
    pub(crate) fn offset(&self, index: u64) -> Option<u32> {
        let place = usize::try_from(index.checked_sub(self.header.first_index)?).ok()?;
        self.offsets.get(place).copied()
    }

    /// Forgets the entries from this index on.
    pub(crate) fn cut_from(&mut self, index: u64) {
        let keep = index.saturating_sub(self.header.first_index);
        self.offsets
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
}

/// What the bytes of one segment hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The id and offset of each entry, in order.
    pub entries: Vec<(EntryId, u32)>,
    /// The last commit mark.
    pub committed: Option<EntryId>,
    /// Where the good records end.
    pub end: u64,
    /// Where the group of the last good record begins.
    pub group: u64,
    /// What stopped the scan.
    pub outcome: Outcome,
}

/// What stopped a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The end of what was written.
    #[default]
    Clean,
    /// The end was cut off or flipped: nothing that was written after it had been synced follows. Entries that were
    /// acknowledged may be lost.
    Torn(&'static str),
    /// Something good that was written later follows, so this was good once.
    Damaged(&'static str),
}

/// Reads the records of a segment. `limit` is where they end, if a later segment says so; then everything up to there
/// must be good.
///
/// Never panics, whatever the bytes are, and allocates in proportion to them.
pub(crate) fn scan(bytes: &Bytes, header: &Header, limit: Option<u64>) -> Scan {
    let mut scan = Scan {
        end: SEGMENT_HEADER as u64,
        group: SEGMENT_HEADER as u64,
        ..Scan::default()
    };
    let mut next = header.first_index;
    let mut term = header.previous.map_or(0, |previous| previous.term);
    let length = bytes.len() as u64;
    scan.outcome = loop {
        if limit == Some(scan.end) {
            break Outcome::Clean;
        }
        if limit.is_some_and(|limit| limit < scan.end) {
            break Outcome::Damaged("the records go on where they should end");
        }
        let at = usize::try_from(scan.end)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let problem = match record::decode(&bytes.slice(at..), header.sequence) {
            Found::Nothing if limit.is_some() => "records are missing",
            Found::Nothing if bytes[at..].iter().any(|byte| *byte != 0) => {
                "there is something behind the last record"
            }
            Found::Nothing if length < header.capacity => "the file is shorter than it was",
            Found::Nothing => break Outcome::Clean,
            Found::Bad(problem) => problem,
            Found::Record { record, group, len } => {
                let fits = u64::from(group) <= scan.end && group as usize >= SEGMENT_HEADER;
                let problem = match &record {
                    _ if !fits => Some("the group is impossible"),
                    Record::Entry(Entry { id, .. }) if id.index != next => {
                        Some("the index is out of order")
                    }
                    Record::Entry(Entry { id, .. }) if id.term < term => {
                        Some("the term is out of order")
                    }
                    Record::Entry(_) | Record::Committed(_) => None,
                };
                match problem {
                    Some(problem) => break Outcome::Damaged(problem),
                    None => {
                        match record {
                            Record::Entry(entry) => {
                                let offset = u32::try_from(at).unwrap_or(u32::MAX);
                                scan.entries.push((entry.id, offset));
                                next = next.saturating_add(1);
                                term = entry.id.term;
                            }
                            Record::Committed(id) => scan.committed = Some(id),
                        }
                        scan.end += len as u64;
                        scan.group = u64::from(group);
                        continue;
                    }
                }
            }
        };
        let is_damage = limit.is_some() || later_group_follows(bytes, at, header.sequence);
        break if is_damage {
            Outcome::Damaged(problem)
        } else {
            Outcome::Torn(problem)
        };
    };
    scan
}

/// How many bytes of checksums the search below may compute, for each byte of the segment. Real damage is found within
/// one; bytes made up to look like many records must not take for ever.
const SEARCH_EFFORT_MAX: u64 = 16;

/// Whether a good record that belongs to a later group lies behind `bad`.
///
/// A group is written when the one before it has been synced, so such a record proves that what lies at `bad` was good
/// and may have been acknowledged. A good record of the same group proves nothing: of a group that wasn't synced, any
/// part may have reached the disk.
fn later_group_follows(bytes: &Bytes, bad: usize, sequence: u64) -> bool {
    let mut effort = SEARCH_EFFORT_MAX * bytes.len() as u64;
    let mut at = bad.next_multiple_of(8);
    while let Some(header) = bytes.get(at..at + record::RECORD_HEADER) {
        // Cheap tests first: the kind, the zeros beside it, and whether it fits.
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let room = bytes.len() - at - record::RECORD_HEADER;
        let may_be_record =
            matches!(header[12], 1..=4) && header[13..16] == [0, 0, 0] && length <= room;
        if may_be_record {
            effort = effort.saturating_sub(length as u64);
            if effort == 0 {
                // Nothing that a disk does to a file looks like this; refuse rather than guess.
                return true;
            }
            if let Found::Record { group, .. } = record::decode(&bytes.slice(at..), sequence)
                && group as usize > bad
            {
                return true;
            }
        }
        at += 8;
    }
    false
}
