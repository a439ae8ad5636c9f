//! What to believe of the files when a server starts.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::segment::{self, Header, Outcome, SEGMENT_HEADER, Segment};
use super::{EntryId, Sizes};
use crate::disk::{Disk, File};

/// A log as it was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The entry before the first.
    pub(crate) dropped: Option<EntryId>,
    /// The last entry.
    pub(crate) last: Option<EntryId>,
    /// The last entry that was known to be committed.
    pub(crate) committed: Option<EntryId>,
    /// The segments, never none.
    pub(crate) segments: VecDeque<Segment>,
    /// Where the last group in the last segment begins.
    pub(crate) last_group: u64,
    /// Whether the end was cut off, and how.
    pub(crate) lost_tail: Option<Spot>,
}

/// A place in a file and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

/// Why a log cannot be used.
#[derive(Debug)]
pub(crate) enum RecoverError {
    Damaged(Spot),
    Io(io::Error),
}

impl From<io::Error> for RecoverError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn damaged<T>(file: String, offset: u64, reason: &str) -> Result<T, RecoverError> {
    Err(RecoverError::Damaged(Spot {
        file,
        offset,
        reason: String::from(reason),
    }))
}

/// A segment file whose header is good.
struct Candidate {
    name: String,
    header: Header,
    file: Arc<dyn File>,
}

/// Reads the log, or begins one if there is none. If its end was lost, it can't be written before [`seal`].
pub(crate) fn recover(disk: &dyn Disk, sizes: Sizes) -> Result<Recovered, RecoverError> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for name in disk.list()? {
        let Some(sequence) = segment::sequence_of(&name) else {
            continue;
        };
        let file = disk.open(&name)?;
        let header = read_header(&*file, &name)?;
        if header.sequence != sequence {
            return damaged(name, 0, "the header belongs to another segment");
        }
        if let Some(before) = candidates.last()
            && sequence != before.header.sequence + 1
        {
            return damaged(name, 0, "the segment before it is missing");
        }
        candidates.push(Candidate { name, header, file });
    }
    if candidates.is_empty() {
        return begin(disk, sizes);
    }
    let limits: Vec<Option<u64>> = candidates
        .iter()
        .skip(1)
        .map(|next| Some(next.header.previous_end))
        .chain([None])
        .collect();
    let mut recovered = Recovered::default();
    // The ids of the entries between the first and the last; only needed while reading.
    let mut ids: VecDeque<EntryId> = VecDeque::new();
    for (candidate, limit) in candidates.into_iter().zip(limits) {
        take_segment(&mut recovered, &mut ids, candidate, limit)?;
    }
    recovered.last = ids.back().copied().or(recovered.dropped);
    // A mark may speak of entries that were dropped and never of ones that don't exist; those that were cut off count
    // as not known to be committed.
    recovered.committed = recovered.committed.min(recovered.last);
    Ok(recovered)
}

fn read_header(file: &dyn File, name: &str) -> Result<Header, RecoverError> {
    let mut header = [0; SEGMENT_HEADER];
    match file.read_at(0, &mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return damaged(String::from(name), file.len()?, "the header is cut off");
        }
        Err(error) => return Err(error.into()),
    }
    Header::decode(&header).or_else(|reason| damaged(String::from(name), 0, reason))
}

fn take_segment(
    recovered: &mut Recovered,
    ids: &mut VecDeque<EntryId>,
    candidate: Candidate,
    limit: Option<u64>,
) -> Result<(), RecoverError> {
    let Candidate { name, header, file } = candidate;
    let next = ids
        .back()
        .or(recovered.dropped.as_ref())
        .map_or(0, |last| last.index + 1);
    if recovered.segments.is_empty() || header.first_index > next {
        // What is before the first segment was dropped; a later one that doesn't follow was opened to drop all before.
        recovered.dropped = header.previous;
        recovered
            .segments
            .iter_mut()
            .for_each(|segment| segment.cut_from(0));
        ids.clear();
    } else {
        let first = ids.front().map_or(next, |first| first.index);
        let keep = header.first_index.saturating_sub(first);
        ids.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        recovered
            .segments
            .iter_mut()
            .for_each(|segment| segment.cut_from(header.first_index));
        if header.first_index < first {
            recovered.dropped = header.previous;
        }
        if ids.back().copied().or(recovered.dropped) != header.previous {
            return damaged(name, 0, "it does not continue the segment before it");
        }
    }
    // The length is the file's own, not one that the file claims.
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes)?;
    let scan = segment::scan(&Bytes::from(bytes), &header, limit);
    match scan.outcome {
        Outcome::Clean => {}
        Outcome::Torn(reason) if limit.is_none() => {
            recovered.lost_tail = Some(Spot {
                file: name,
                offset: scan.end,
                reason: String::from(reason),
            });
        }
        Outcome::Torn(reason) | Outcome::Damaged(reason) => return damaged(name, scan.end, reason),
    }
    ids.extend(scan.entries.iter().map(|(id, _)| *id));
    recovered.committed = recovered.committed.max(scan.committed);
    recovered.last_group = scan.group;
    recovered.segments.push_back(Segment {
        header,
        file,
        offsets: scan.entries.iter().map(|(_, offset)| *offset).collect(),
        end: scan.end,
    });
    Ok(())
}

/// Makes durable what was believed, before anything is built on it.
///
/// What was read may be in the page cache alone: the server before was killed between a write and its sync, or between
/// a renaming and its sync, or a sync failed, after which the kernel takes the pages for written. So the last group,
/// the only one that can't have been synced, is written once more.
pub(crate) fn settle(disk: &dyn Disk, recovered: &Recovered) -> io::Result<()> {
    if let Some(last) = recovered.segments.back() {
        let length = last.end.saturating_sub(recovered.last_group);
        let mut group = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        last.file.read_at(recovered.last_group, &mut group)?;
        last.file.write_at(recovered.last_group, &group)?;
        last.file.sync_data()?;
    }
    disk.sync_dir()
}

/// Makes the first segment of an empty directory.
fn begin(disk: &dyn Disk, sizes: Sizes) -> Result<Recovered, RecoverError> {
    let header = Header {
        sequence: 1,
        first_index: 0,
        previous: None,
        previous_end: 0,
        capacity: sizes.first_segment,
    };
    let segment = make_segment(disk, header)?;
    Ok(Recovered {
        last_group: segment.end,
        segments: VecDeque::from([segment]),
        ..Recovered::default()
    })
}

/// Opens a new segment behind a cut, so that nobody looks at what lies behind the cut again.
pub(crate) fn seal(disk: &dyn Disk, sizes: Sizes, recovered: &mut Recovered) -> io::Result<()> {
    let Some(last) = recovered.segments.back() else {
        return Ok(());
    };
    let header = Header {
        sequence: last.header.sequence + 1,
        first_index: recovered.last.map_or(0, |last| last.index + 1),
        previous: recovered.last,
        previous_end: last.end,
        capacity: sizes.first_segment,
    };
    recovered.segments.push_back(make_segment(disk, header)?);
    Ok(())
}

fn make_segment(disk: &dyn Disk, header: Header) -> io::Result<Segment> {
    const TEMPORARY: &str = "roll.tmp";
    let file = disk.create(TEMPORARY)?;
    file.write_zeros(header.capacity)?;
    file.write_at(0, &header.encode())?;
    file.sync_data()?;
    disk.rename(TEMPORARY, &segment::file_name(header.sequence))?;
    disk.sync_dir()?;
    Ok(Segment {
        header,
        file,
        offsets: Vec::new(),
        end: SEGMENT_HEADER as u64,
    })
}
