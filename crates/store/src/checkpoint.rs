//! The state exactly as it is, for this program alone: what a server starts from, and what it hands to one that has fallen behind.
//!
//! Every field of the state is in it, indexes and deadlines included, so that a server that starts from it gives the same answers as one that applied the log.
//! Only what follows from the rows (who holds which key, which instances a service has) is built again.
//! The same state gives the same bytes.
//!
//! On disk: frames with checksums ([`wire::frame`]); inside of them, cut without regard to where a frame ends, a header and records of a type byte and a value in [`wire::compact`].
//! The last record says how many there were, since a file that ends between two frames looks whole.
//! A change of any of it, or of a `model` type that stands in a row, needs a new `VERSION`, and a reader for the old one.

use std::io::{self, BufReader, Read, Write};

use model::{
    AclToken, Check, Index, KvEntry, Node, NodeCoordinate, PreparedQuery, Service, Session, Text,
};
use serde::{Deserialize, Serialize};
use wire::compact;
use wire::frame::{FrameReader, FrameWriter};
use wire::msgpack::{RecordError, RecordReader};

use crate::changes::Subject;
use crate::state::State;
use crate::tables::Table;
use crate::tables::catalog::CatalogRows;
use crate::tables::lock_delay::Delay;
use crate::view::View;

/// What the first bytes say the file is.
const NAME: &str = "consul checkpoint";

/// The version that is written, and the only one there has been.
const VERSION: u32 = 1;

/// How much goes into a frame.
const FRAME_SIZE: usize = 256 << 10;

/// The types of records. The numbers stand in files and must never change.
mod kind {
    pub(super) const POSITION: u8 = 0;
    pub(super) const NODE: u8 = 1;
    pub(super) const SERVICE: u8 = 2;
    pub(super) const CHECK: u8 = 3;
    pub(super) const KV: u8 = 4;
    pub(super) const TOMBSTONE: u8 = 5;
    pub(super) const SESSION: u8 = 6;
    pub(super) const ACL: u8 = 7;
    pub(super) const COORDINATE: u8 = 8;
    pub(super) const QUERY: u8 = 9;
    pub(super) const CHANGE: u8 = 10;
    pub(super) const LOCK_DELAY: u8 = 11;
    pub(super) const LOCK_DELAY_WAITING: u8 = 12;
    pub(super) const END: u8 = 255;
}

/// What the state knows besides its rows.
#[derive(Serialize, Deserialize)]
struct Position {
    log_index: u64,
    term: u64,
    clock_ms: u64,
    offset: Index,
    floor: Index,
    reaped: Index,
    /// In the order of [`Table::ALL`].
    tables: [Index; Table::ALL.len()],
}

/// Why a checkpoint can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The source failed, or a frame is torn or damaged; the text says where.
    #[error("reading the checkpoint: {0}")]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("this is no checkpoint")]
    NotACheckpoint,
    /// A later release wrote it.
    #[error("the checkpoint has version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// The frames are sound, but what is in them can't be cut into records.
    #[error("the checkpoint is damaged: {0}")]
    Structure(RecordError),
    /// A record is no row of its table.
    #[error("the checkpoint is damaged: record {number} of type {kind}: {source}")]
    Row {
        /// Counted from 1.
        number: u64,
        /// Its type.
        kind: u8,
        /// What is wrong with it.
        source: compact::DecodeError,
    },
    /// A record of a type that there is not.
    #[error("the checkpoint is damaged: record {number} is of the unknown type {kind}")]
    UnknownKind {
        /// Counted from 1.
        number: u64,
        /// Its type.
        kind: u8,
    },
    /// The end is missing, or something comes after it.
    #[error("the checkpoint is torn: it ends after {0} records, and not with its last")]
    Incomplete(u64),
}

impl From<RecordError> for LoadError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Io(error) => Self::Io(error),
            RecordError::Eof { .. }
            | RecordError::Unassigned { .. }
            | RecordError::TooLong { .. } => Self::Structure(error),
        }
    }
}

/// Writes a checkpoint; it holds a frame in memory, whatever the size of the state.
///
/// # Errors
/// What `out` says.
pub fn write(view: &View, out: &mut dyn Write) -> io::Result<()> {
    write_state(view.state(), out)
}

fn write_state(state: &State, out: &mut dyn Write) -> io::Result<()> {
    let mut out = Out {
        frames: FrameWriter::new(out),
        gathered: Vec::with_capacity(FRAME_SIZE + FRAME_SIZE / 4),
        records: 0,
    };
    out.value(&(NAME, VERSION))?;
    out.record(
        kind::POSITION,
        &Position {
            log_index: state.log_index,
            term: state.term,
            clock_ms: state.clock_ms,
            offset: state.offset,
            floor: state.floor,
            reaped: state.reaped,
            tables: Table::ALL.map(|table| state.indexes.get(table)),
        },
    )?;
    for row in state.catalog.nodes() {
        out.record(kind::NODE, &**row)?;
    }
    for (node, row) in state.catalog.services() {
        out.record(kind::SERVICE, &(node, &**row))?;
    }
    for row in state.catalog.checks() {
        out.record(kind::CHECK, &**row)?;
    }
    for row in state.kv.iter() {
        out.record(kind::KV, row)?;
    }
    for row in state.tombstones.iter() {
        out.record(kind::TOMBSTONE, &row)?;
    }
    for row in state.sessions.iter() {
        out.record(kind::SESSION, &**row)?;
    }
    for row in state.acls.iter() {
        out.record(kind::ACL, &**row)?;
    }
    for row in state.coordinates.iter() {
        out.record(kind::COORDINATE, row)?;
    }
    for row in state.queries.iter() {
        out.record(kind::QUERY, &**row)?;
    }
    for (subject, index) in state.changes.iter() {
        out.record(kind::CHANGE, &(subject.as_text(), index))?;
    }
    for (key, delay) in state.lock_delays.iter() {
        match delay {
            Delay::Until(until_ms) => out.record(kind::LOCK_DELAY, &(key, until_ms))?,
            Delay::Waiting { since, span_ms } => {
                out.record(kind::LOCK_DELAY_WAITING, &(key, since, span_ms))?;
            }
        }
    }
    out.end()
}

struct Out<'a> {
    frames: FrameWriter<&'a mut dyn Write>,
    gathered: Vec<u8>,
    records: u64,
}

impl Out<'_> {
    fn record(&mut self, kind: u8, row: &impl Serialize) -> io::Result<()> {
        self.records += 1;
        self.gathered.push(kind);
        self.value(row)
    }

    fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        compact::append(&mut self.gathered, value).map_err(io::Error::other)?;
        if self.gathered.len() >= FRAME_SIZE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // A row may be larger than a frame.
        for payload in self.gathered.chunks(FRAME_SIZE) {
            self.frames.write_frame(payload)?;
        }
        self.gathered.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        let records = self.records;
        self.record(kind::END, &records)?;
        self.flush()?;
        self.frames.into_inner().flush()
    }
}

/// Reads a checkpoint into a state of its own; nothing else is touched, whatever happens.
///
/// # Errors
/// [`LoadError`] if it is not, to the last byte, what [`write`] wrote.
pub(crate) fn read(source: &mut dyn Read) -> Result<State, LoadError> {
    let frames = Frames {
        frames: FrameReader::new(BufReader::with_capacity(FRAME_SIZE, source)),
        payload: Vec::new(),
        taken: 0,
    };
    let mut records = match RecordReader::open(frames) {
        Ok(records) => records,
        Err(RecordError::Io(error)) => return Err(LoadError::Io(error)),
        Err(
            RecordError::Eof { .. } | RecordError::Unassigned { .. } | RecordError::TooLong { .. },
        ) => return Err(LoadError::NotACheckpoint),
    };
    match compact::from_slice(records.header()) {
        Ok((NAME, VERSION)) => {}
        Ok((NAME, version)) => return Err(LoadError::Version(version)),
        Ok((_, _)) | Err(_) => return Err(LoadError::NotACheckpoint),
    }
    let mut state = State::default();
    let mut catalog = CatalogRows::default();
    let mut number = 0;
    let mut ended = false;
    while let Some(record) = records.next_record()? {
        if ended {
            return Err(LoadError::Incomplete(number));
        }
        if record.kind == kind::END {
            let said: u64 = row(&record)?;
            ended = said == number;
            if !ended {
                return Err(LoadError::Incomplete(number));
            }
            continue;
        }
        number = record.number;
        insert(&mut state, &mut catalog, &record)?;
    }
    if !ended {
        return Err(LoadError::Incomplete(number));
    }
    state.catalog = catalog.build();
    Ok(state)
}

fn row<'a, T: Deserialize<'a>>(record: &wire::msgpack::Record<'a>) -> Result<T, LoadError> {
    compact::from_slice(record.bytes).map_err(|source| LoadError::Row {
        number: record.number,
        kind: record.kind,
        source,
    })
}

fn insert(
    state: &mut State,
    catalog: &mut CatalogRows,
    record: &wire::msgpack::Record<'_>,
) -> Result<(), LoadError> {
    match record.kind {
        kind::POSITION => {
            let position: Position = row(record)?;
            state.log_index = position.log_index;
            state.term = position.term;
            state.clock_ms = position.clock_ms;
            state.offset = position.offset;
            state.floor = position.floor;
            state.reaped = position.reaped;
            for (table, index) in Table::ALL.into_iter().zip(position.tables) {
                state.indexes.raise(table, index);
            }
        }
        kind::NODE => catalog.insert_node(row::<Node>(record)?),
        kind::SERVICE => {
            let (node, service): (Text, Service) = row(record)?;
            catalog.insert_service(&node, service);
        }
        kind::CHECK => catalog.insert_check(row::<Check>(record)?),
        kind::KV => {
            state.kv.insert(row::<KvEntry>(record)?);
        }
        kind::TOMBSTONE => {
            let (key, index) = row(record)?;
            state.tombstones.insert(key, index);
        }
        kind::SESSION => state.sessions.insert(row::<Session>(record)?),
        kind::ACL => state.acls.insert(row::<AclToken>(record)?),
        kind::COORDINATE => state.coordinates.insert(row::<NodeCoordinate>(record)?),
        kind::QUERY => state.queries.insert(row::<PreparedQuery>(record)?),
        kind::CHANGE => {
            let (subject, index) = row(record)?;
            state.changes.insert(Subject::from_text(subject), index);
        }
        kind::LOCK_DELAY => {
            let (key, until_ms) = row(record)?;
            state.lock_delays.insert(key, Delay::Until(until_ms));
        }
        kind::LOCK_DELAY_WAITING => {
            let (key, since, span_ms) = row(record)?;
            let delay = Delay::Waiting { since, span_ms };
            state.lock_delays.insert(key, delay);
        }
        kind => {
            return Err(LoadError::UnknownKind {
                number: record.number,
                kind,
            });
        }
    }
    Ok(())
}

/// The payloads of frames, one behind the other.
struct Frames<R> {
    frames: FrameReader<R>,
    payload: Vec<u8>,
    taken: usize,
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.payload.len() {
            let next = self
                .frames
                .next_frame()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let Some(payload) = next else {
                return Ok(0);
            };
            self.payload.clear();
            self.payload.extend_from_slice(payload);
            self.taken = 0;
        }
        let len = into.len().min(self.payload.len() - self.taken);
        into[..len].copy_from_slice(&self.payload[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}
