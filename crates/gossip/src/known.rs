//! The file of known members, from which an agent that restarts finds its pool again.
//!
//! It is text, one record a line, and whatever changes is appended:
//!
//! ```text
//! alive: <name> <ip:port>      a member was seen alive there
//! not-alive: <name>            it left, failed or was removed
//! clock: <n>                   logical time of the members
//! event-clock: <n>             logical time of user events
//! query-clock: <n>             logical time of queries
//! coordinate: <json>           this member's network coordinate
//! leave                        this member left the pool
//! ```
//!
//! The file is a memory aid, not a promise: records that a crash cuts off or that make no sense are skipped, and a disk
//! that doesn't take them never stops the agent. `docs/gossip-files.md` has an example and all bounds.
//!
//! [`KnownFile`] decides what is to be written and when; a [`Medium`] does it. An agent that must not wait for a disk
//! gives each [`Write`] to a thread; a simulated one runs it where it stands.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::coordinate::Coordinate;
use crate::replace::replace;

/// The least time between two writes.
pub const WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// The least time between two coordinates.
pub const COORDINATE_INTERVAL: Duration = Duration::from_secs(60);

/// How long to leave a disk alone that did not take a write.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The size from which the file is written anew, with nothing in it that doesn't count any more.
pub const COMPACT_BYTES: usize = 128 << 10;

/// The most bytes that are read. Of a larger file the end counts, because what is known best was written last.
pub const READ_BYTES_MAX: usize = 16 << 20;

/// The longest line that can be a record.
pub const LINE_BYTES_MAX: usize = 2 << 10;

/// The longest name that is remembered.
pub const NAME_BYTES_MAX: usize = 512;

/// The most members that are remembered. Any one of them suffices to find the pool.
pub const MEMBERS_MAX: usize = 32_768;

/// The most bytes of records that wait to be appended; beyond that the file is written anew instead.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// Logical times that this member has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clocks {
    /// Of the members.
    pub members: u64,
    /// Of user events. Older ones are not to be replayed.
    pub events: u64,
    /// Of queries. Older ones are not to be answered again.
    pub queries: u64,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Known {
    /// The members that were alive, by name, and where.
    pub members: BTreeMap<String, SocketAddr>,
    /// The logical times.
    pub clocks: Clocks,
    /// This member's coordinate; it passes [`Coordinate::check`].
    pub coordinate: Option<Coordinate>,
    /// Lines that were no records, an unfinished last one included.
    pub skipped: usize,
}

/// What a record of having left means to the agent that starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLeave {
    /// It left for good, and what stands before counts no more.
    Forget,
    /// It comes back to the members that it knew.
    Rejoin,
}

/// Reads the content of a file.
pub fn decode(content: &[u8], after_leave: AfterLeave) -> Known {
    let mut known = Known::default();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        // A line without an end may lack more than that: an address that lost its last digit is still an address.
        let is_record = line
            .strip_suffix(b"\n")
            .filter(|line| line.len() <= LINE_BYTES_MAX)
            .and_then(|line| std::str::from_utf8(line).ok())
            .and_then(|line| known.record(line, after_leave));
        if is_record.is_none() {
            known.skipped += 1;
        }
    }
    known
}

impl Known {
    /// Takes one record in; `None` if the line isn't one.
    fn record(&mut self, line: &str, after_leave: AfterLeave) -> Option<()> {
        if line == "leave" {
            if after_leave == AfterLeave::Forget {
                self.members.clear();
                self.clocks = Clocks::default();
            }
            return Some(());
        }
        let (kind, content) = line.split_once(": ")?;
        match kind {
            "alive" => {
                // Names may have blanks, addresses have none.
                let (name, address) = content.rsplit_once(' ')?;
                let address = address.parse().ok()?;
                if !is_name(name) {
                    return None;
                }
                self.alive(name, address);
            }
            "not-alive" => {
                self.members.remove(content);
            }
            "clock" => self.clocks.members = content.parse().ok()?,
            "event-clock" => self.clocks.events = content.parse().ok()?,
            "query-clock" => self.clocks.queries = content.parse().ok()?,
            "coordinate" => self.coordinate = Some(decode_coordinate(content)?),
            _ => return None,
        }
        Some(())
    }

    /// Whether that is news. A member too many is none.
    fn alive(&mut self, name: &str, address: SocketAddr) -> bool {
        if let Some(known) = self.members.get_mut(name) {
            return std::mem::replace(known, address) != address;
        }
        let has_room = self.members.len() < MEMBERS_MAX;
        if has_room {
            self.members.insert(name.to_owned(), address);
        }
        has_room
    }

    /// All that counts, as records.
    fn encode(&self) -> String {
        let mut records = String::new();
        for (name, address) in &self.members {
            push_alive(&mut records, name, *address);
        }
        push_clocks(&mut records, self.clocks, Clocks::default());
        if let Some(coordinate) = &self.coordinate {
            push_coordinate(&mut records, coordinate);
        }
        records
    }
}

/// Whether a name can stand in a line.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control)
}

fn push_alive(records: &mut String, name: &str, address: SocketAddr) {
    writeln!(records, "alive: {name} {address}").expect("writing to memory");
}

/// The clocks that have moved.
fn push_clocks(records: &mut String, now: Clocks, before: Clocks) {
    let kinds = [
        ("clock", now.members, before.members),
        ("event-clock", now.events, before.events),
        ("query-clock", now.queries, before.queries),
    ];
    for (kind, now, before) in kinds {
        if now != before {
            writeln!(records, "{kind}: {now}").expect("writing to memory");
        }
    }
}

/// A coordinate as it is written; the original's names of its parts.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CoordinateRecord {
    vec: Vec<f64>,
    error: f64,
    adjustment: f64,
    height: f64,
}

fn push_coordinate(records: &mut String, coordinate: &Coordinate) {
    let record = CoordinateRecord {
        vec: coordinate.vec.clone(),
        error: coordinate.error,
        adjustment: coordinate.adjustment,
        height: coordinate.height,
    };
    let json = serde_json::to_string(&record).expect("numbers are JSON");
    writeln!(records, "coordinate: {json}").expect("writing to memory");
}

fn decode_coordinate(json: &str) -> Option<Coordinate> {
    let record: CoordinateRecord = serde_json::from_str(json).ok()?;
    let coordinate = Coordinate {
        vec: record.vec,
        error: record.error,
        adjustment: record.adjustment,
        height: record.height,
    };
    coordinate.check().ok()?;
    Some(coordinate)
}

/// Decides what to write to the file of known members.
///
/// The owner tells it what happens, and asks with [`Self::due`] from time to time whether something is to be written.
#[derive(Debug)]
pub struct KnownFile {
    medium: Arc<dyn Medium>,
    /// What the file says once everything that waits is written.
    known: Known,
    /// Records that wait to be appended.
    waiting: String,
    /// The clocks that were written last.
    clocks_written: Clocks,
    /// Whether the coordinate is another one than was written last.
    coordinate_waits: bool,
    /// Whether the file must be written anew, because nobody knows how it ends.
    must_replace: bool,
    /// Bytes in the file.
    bytes: usize,
    /// The size from which the file is written anew.
    compact_bytes: usize,
    /// Nothing is written before that.
    write_at: Instant,
    /// No coordinate is written before that.
    coordinate_at: Instant,
    /// Whether the next write waits for nothing.
    hurry: bool,
    /// Whether a write was handed out and hasn't been reported as done.
    is_writing: bool,
    /// Whether the last write failed, which was said then.
    is_failing: bool,
    /// Whether this member leaves; what others do meanwhile is not remembered.
    has_left: bool,
    /// Whether that isn't written yet.
    leave_waits: bool,
}

impl KnownFile {
    /// Reads what there is. The file doesn't have to exist.
    pub fn open(
        medium: Arc<dyn Medium>,
        after_leave: AfterLeave,
        now: Instant,
    ) -> io::Result<(Self, Known)> {
        let content = medium.read(READ_BYTES_MAX)?;
        let known = decode(&content.bytes, after_leave);
        let bytes = content.bytes.len();
        // Who came back has not left any more, whatever the next start makes of such a record.
        let is_back = after_leave == AfterLeave::Rejoin
            && content
                .bytes
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"leave");
        let file = Self {
            medium,
            waiting: String::new(),
            clocks_written: known.clocks,
            coordinate_waits: false,
            // The next record would be a part of the line that is unfinished.
            must_replace: known.skipped > 0 || content.is_cut || is_back,
            bytes,
            compact_bytes: compact_bytes(known.encode().len()),
            write_at: now,
            coordinate_at: now + COORDINATE_INTERVAL,
            hurry: false,
            is_writing: false,
            is_failing: false,
            has_left: false,
            leave_waits: false,
            known: known.clone(),
        };
        Ok((file, known))
    }

    /// A member is alive at an address. One whose name can't stand in a line is not remembered.
    pub fn alive(&mut self, name: &str, address: SocketAddr) {
        if !self.has_left && is_name(name) && self.known.alive(name, address) {
            push_alive(&mut self.waiting, name, address);
            self.bound();
        }
    }

    /// A member is not there any more.
    pub fn not_alive(&mut self, name: &str) {
        if !self.has_left && self.known.members.remove(name).is_some() {
            writeln!(self.waiting, "not-alive: {name}").expect("writing to memory");
            self.bound();
        }
    }

    /// The logical times are these by now.
    pub fn clocks(&mut self, clocks: Clocks) {
        if !self.has_left {
            self.known.clocks = clocks;
        }
    }

    /// This member's coordinate is this one by now.
    pub fn coordinate(&mut self, coordinate: &Coordinate) {
        let is_news = self.known.coordinate.as_ref() != Some(coordinate);
        if !self.has_left && is_news && coordinate.check().is_ok() {
            self.known.coordinate = Some(coordinate.clone());
            self.coordinate_waits = true;
        }
    }

    /// This member leaves the pool. It is the last thing that is remembered, and is due at once.
    pub fn leave(&mut self) {
        if !self.has_left {
            self.has_left = true;
            self.leave_waits = true;
            self.hurry();
        }
    }

    /// What waits is due at once: the agent ends.
    pub fn hurry(&mut self) {
        self.hurry = true;
    }

    /// When something will be due next; `None` as long as nothing happens.
    pub fn due_at(&self) -> Option<Instant> {
        if self.is_writing {
            return None;
        }
        let has_records = self.must_replace
            || self.leave_waits
            || !self.waiting.is_empty()
            || self.known.clocks != self.clocks_written;
        match (has_records, self.coordinate_waits) {
            (true, _) => Some(self.write_at),
            (false, true) => Some(self.write_at.max(self.coordinate_at)),
            (false, false) => None,
        }
    }

    /// What is to be written now. Until it has come back through [`Self::done`], nothing else is.
    pub fn due(&mut self, now: Instant) -> Option<Write> {
        let due_at = self.due_at()?;
        if now < due_at && !self.hurry {
            return None;
        }
        let mut records = std::mem::take(&mut self.waiting);
        push_clocks(&mut records, self.known.clocks, self.clocks_written);
        let mut has_coordinate = self.coordinate_waits && (self.hurry || now >= self.coordinate_at);
        if let Some(coordinate) = self.known.coordinate.as_ref().filter(|_| has_coordinate) {
            push_coordinate(&mut records, coordinate);
        }
        // The last record of all, also of a second attempt.
        let leave = if self.has_left { "leave\n" } else { "" };
        records.push_str(leave);

        let change = if self.must_replace || self.bytes + records.len() > self.compact_bytes {
            let mut content = self.known.encode();
            self.compact_bytes = compact_bytes(content.len());
            content.push_str(leave);
            self.bytes = content.len();
            has_coordinate = true;
            Change::Replace(content.into_bytes())
        } else {
            self.bytes += records.len();
            Change::Append(records.into_bytes())
        };
        if has_coordinate {
            self.coordinate_waits = false;
            self.coordinate_at = now + COORDINATE_INTERVAL;
        }
        self.clocks_written = self.known.clocks;
        self.write_at = now + WRITE_INTERVAL;
        self.must_replace = false;
        self.leave_waits = false;
        self.hurry = false;
        self.is_writing = true;
        Some(Write {
            medium: Arc::clone(&self.medium),
            change,
        })
    }

    /// Takes note of how a write went. Returns the error if it is the first one since a write that went well.
    pub fn done(&mut self, written: Written, now: Instant) -> Option<io::Error> {
        self.is_writing = false;
        match written.0 {
            Ok(()) => {
                self.is_failing = false;
                None
            }
            Err(error) => {
                // A part of it may be there. Nothing is lost: all that counts is written next time.
                self.must_replace = true;
                self.write_at = now + RETRY_INTERVAL;
                let is_news = !std::mem::replace(&mut self.is_failing, true);
                is_news.then_some(error)
            }
        }
    }

    /// Writes what is due, here and now. Returns an error as [`Self::done`] does.
    pub fn flush(&mut self, now: Instant) -> Option<io::Error> {
        let write = self.due(now)?;
        self.done(write.run(), now)
    }

    /// Keeps what waits small while a disk takes its time.
    fn bound(&mut self) {
        if self.waiting.len() > WAITING_BYTES_MAX {
            self.waiting.clear();
            self.must_replace = true;
        }
    }
}

/// Room for as much again as there is to say, so that a large pool isn't written anew with every change.
fn compact_bytes(content_bytes: usize) -> usize {
    COMPACT_BYTES.max(content_bytes * 2)
}

/// Something to be written, which may take as long as a disk takes.
#[derive(Debug)]
#[must_use = "nothing else is written until this is"]
pub struct Write {
    medium: Arc<dyn Medium>,
    change: Change,
}

impl Write {
    /// Does it.
    pub fn run(self) -> Written {
        Written(match &self.change {
            Change::Append(records) => self.medium.append(records),
            Change::Replace(content) => self.medium.replace(content),
        })
    }
}

#[derive(Debug)]
enum Change {
    Append(Vec<u8>),
    Replace(Vec<u8>),
}

/// How a [`Write`] went, for [`KnownFile::done`].
#[derive(Debug)]
#[must_use = "nothing else is written until the file knows"]
pub struct Written(io::Result<()>);

impl Written {
    /// Says of a write that it could not even be tried, or that whoever did it is gone.
    pub fn failed(error: io::Error) -> Self {
        Self(Err(error))
    }
}

/// Where a file of known members lies.
///
/// An append that failed may have left a part behind; a replacement leaves the old content or the new one.
/// Neither is believed to have survived a power cut.
pub trait Medium: std::fmt::Debug + Send + Sync {
    /// The content, or so many bytes of its end. Nothing if there is no file.
    fn read(&self, bytes_max: usize) -> io::Result<Content>;
    /// Adds to the end, making the file if there is none.
    fn append(&self, records: &[u8]) -> io::Result<()>;
    /// Puts other content in the place of what there is.
    fn replace(&self, content: &[u8]) -> io::Result<()>;
}

/// What a [`Medium`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The bytes, or the last of them.
    pub bytes: Vec<u8>,
    /// Whether there are more before.
    pub is_cut: bool,
}

/// A file of the file system.
#[derive(Debug)]
pub struct FileMedium {
    path: PathBuf,
}

impl FileMedium {
    /// Nothing is opened or made before it is needed.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Medium for FileMedium {
    fn read(&self, bytes_max: usize) -> io::Result<Content> {
        let mut file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
            Err(error) => return Err(error),
        };
        let bytes_max = bytes_max as u64;
        let before = file.metadata()?.len().saturating_sub(bytes_max);
        file.seek(SeekFrom::Start(before))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(Content {
            bytes,
            is_cut: before > 0,
        })
    }

    fn append(&self, records: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        // Not synced: a memory aid is not worth a wait for the disk twice a second.
        file.write_all(records)
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        replace(&self.path, content)
    }
}

/// A file that lives as long as its handle does: that of an agent without a data directory, or of a simulated one,
/// whose restart is handed the same.
#[derive(Debug, Default)]
pub struct MemoryMedium(Mutex<Vec<u8>>);

impl MemoryMedium {
    /// Holds the content of a file.
    pub fn new(content: Vec<u8>) -> Self {
        Self(Mutex::new(content))
    }
}

impl Medium for MemoryMedium {
    fn read(&self, bytes_max: usize) -> io::Result<Content> {
        let content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = content.len().saturating_sub(bytes_max);
        Ok(Content {
            bytes: content[before..].to_vec(),
            is_cut: before > 0,
        })
    }

    fn append(&self, records: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.extend_from_slice(records);
        Ok(())
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = content.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
