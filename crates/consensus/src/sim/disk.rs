//! A disk that forgets what wasn't synced, tears it, fills up and fails.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Trace;
use crate::checkpoint;
use crate::disk::{Disk, File, Workers};
use crate::log::segment;

/// What a disk writes in one piece.
const SECTOR: usize = 512;

/// The medium: survives crashes. [`Storage::attach`] gives the disk that one life of a server sees.
#[derive(Clone, Debug)]
pub struct Storage {
    medium: Arc<Mutex<Medium>>,
}

#[derive(Debug)]
struct Medium {
    name: String,
    chance: ChaCha8Rng,
    trace: Trace,
    /// Which life is going on; handles of earlier ones are dead.
    life: u64,
    next_file: u64,
    files: BTreeMap<u64, Content>,
    directory: BTreeMap<String, u64>,
    /// The directory after the last sync of it, and what was done to it since, in order.
    durable_directory: BTreeMap<String, u64>,
    changes: Vec<Change>,
    fault: DiskFault,
    /// The end of this life: after so many more changes, in this way.
    fuse: Option<(u64, Death)>,
    sync_delay_max: Duration,
}

/// How a server's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed: what was written is there afterwards, synced or not.
    Killed,
    /// The plug is pulled, see [`Storage::crash`].
    PowerLost {
        /// Whether what wasn't synced may be there in part.
        may_tear: bool,
    },
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing.
    #[default]
    None,
    /// Every sync fails. What was to be synced stays readable, and later syncs take it for synced, as in a kernel.
    SyncFails,
    /// Syncs hang until the fault is mended or the server dies.
    SyncStalls,
    /// Nothing more can be written.
    Full,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Pending>,
}

#[derive(Debug)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Put(String, u64),
    Remove(String),
}

/// A file larger than this is a mistake of the simulation.
const FILE_MAX: u64 = 1 << 30;

impl Storage {
    /// An empty medium.
    pub fn new(name: &str, seed: u64, trace: Trace) -> Self {
        let medium = Medium {
            name: String::from(name),
            chance: ChaCha8Rng::seed_from_u64(seed),
            trace,
            life: 0,
            next_file: 0,
            files: BTreeMap::new(),
            directory: BTreeMap::new(),
            durable_directory: BTreeMap::new(),
            changes: Vec::new(),
            fault: DiskFault::None,
            fuse: None,
            sync_delay_max: Duration::from_millis(3),
        };
        Self {
            medium: Arc::new(Mutex::new(medium)),
        }
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for the next life of the server.
    pub fn attach(&self) -> SimDisk {
        let life = self.medium().life;
        SimDisk {
            storage: self.clone(),
            life,
        }
    }

    /// Pulls the plug: what was written but not synced may or may not be there afterwards; with `may_tear`, sector by
    /// sector. Disks attached before are dead.
    pub fn crash(&self, may_tear: bool) {
        self.medium().crash(may_tear);
    }

    /// Kills the process: what was written is there afterwards, synced or not. Disks attached before are dead.
    pub fn kill(&self) {
        self.medium().kill();
    }

    /// Ends this life before the change after so many more: each write, sync, creation, renaming and removal is one.
    pub fn die_after(&self, changes: u64, death: Death) {
        self.medium().fuse = Some((changes, death));
    }

    /// Whether the end that [`die_after`](Self::die_after) set is still to come.
    pub fn is_to_die(&self) -> bool {
        self.medium().fuse.is_some()
    }

    /// Breaks or mends the disk.
    pub fn set_fault(&self, fault: DiskFault) {
        self.medium().fault = fault;
    }

    /// Lets syncs hang, if nothing else is wrong with the disk.
    pub fn stall(&self) {
        let mut medium = self.medium();
        if medium.fault == DiskFault::None {
            medium.fault = DiskFault::SyncStalls;
        }
    }

    /// Mends a disk whose syncs hang.
    pub fn unstall(&self) {
        let mut medium = self.medium();
        if medium.fault == DiskFault::SyncStalls {
            medium.fault = DiskFault::None;
        }
    }

    /// How long a sync takes at most.
    pub fn set_sync_delay_max(&self, delay: Duration) {
        self.medium().sync_delay_max = delay;
    }

    /// Changes bytes of a file as if the medium had decayed. Returns false if they don't exist.
    pub fn damage(&self, name: &str, offset: usize, mask: u8) -> bool {
        let mut medium = self.medium();
        let Some(file) = medium.directory.get(name).copied() else {
            return false;
        };
        let Some(content) = medium.files.get_mut(&file) else {
            return false;
        };
        for bytes in [&mut content.durable, &mut content.current] {
            match bytes.get_mut(offset) {
                Some(byte) => *byte ^= mask,
                None => return false,
            }
        }
        true
    }

    /// Changes the end of what was written last into the log, synced or not: what a server with peers must survive.
    /// Returns false if nothing was written.
    pub fn damage_newest_record(&self) -> bool {
        let newest = {
            let medium = self.medium();
            let mut names = medium.directory.keys().rev();
            names
                .find(|name| segment::sequence_of(name).is_some())
                .cloned()
        };
        let Some(name) = newest else { return false };
        let bytes = self.read(&name).unwrap_or_default();
        match bytes.iter().rposition(|byte| *byte != 0) {
            Some(place) if place >= segment::SEGMENT_HEADER => self.damage(&name, place, 0x80),
            Some(_) | None => false,
        }
    }

    /// Flips one bit somewhere in a segment of the log or in a checkpoint. Returns false if there is none.
    pub fn decay(&self) -> bool {
        let spot = {
            let mut guard = self.medium();
            let medium = &mut *guard;
            let files = medium.directory.iter();
            let files: Vec<(String, u64)> = files
                .filter(|(name, _)| {
                    segment::sequence_of(name).is_some() || checkpoint::entry_of(name).is_some()
                })
                .map(|(name, file)| (name.clone(), *file))
                .collect();
            if files.is_empty() {
                return false;
            }
            let (name, file) = &files[medium.chance.random_range(0..files.len())];
            let content = medium.files.get(file);
            let bytes = content.map_or(&[][..], |content| &content.current);
            // Half of the time where something is written; most of a segment is zeros.
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let end = if medium.chance.random_bool(0.5) {
                written
            } else {
                bytes.len()
            };
            if end == 0 || bytes.is_empty() {
                return false;
            }
            let place = medium.chance.random_range(0..end.min(bytes.len()));
            (name.clone(), place, 1 << medium.chance.random_range(0..8))
        };
        let (name, place, mask) = spot;
        self.damage(&name, place, mask)
    }

    /// Cuts a file off as if the medium had decayed.
    pub fn truncate(&self, name: &str, len: usize) -> bool {
        let mut medium = self.medium();
        let Some(file) = medium.directory.get(name).copied() else {
            return false;
        };
        let Some(content) = medium.files.get_mut(&file) else {
            return false;
        };
        content.durable.truncate(len);
        content.current.truncate(len);
        content.pending.clear();
        true
    }

    /// What a file holds.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let medium = self.medium();
        let file = medium.directory.get(name)?;
        Some(medium.files.get(file)?.current.clone())
    }

    /// An independent copy in the state after a clean stop.
    pub fn fork(&self) -> Self {
        let medium = self.medium();
        let copy = Self::new(&medium.name, 0, medium.trace.clone());
        {
            let mut forked = copy.medium();
            forked.next_file = medium.next_file;
            forked.directory.clone_from(&medium.directory);
            forked.durable_directory.clone_from(&medium.directory);
            forked.sync_delay_max = Duration::ZERO;
            for (file, content) in &medium.files {
                let bytes = content.current.clone();
                let content = Content {
                    durable: bytes.clone(),
                    current: bytes,
                    pending: Vec::new(),
                };
                forked.files.insert(*file, content);
            }
        }
        copy
    }
}

impl Medium {
    /// Something is to be changed. Does the server live to see it?
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            None => return Ok(()),
            Some((left @ 1.., _)) => {
                *left -= 1;
                return Ok(());
            }
            Some((0, _)) => {}
        }
        match self.fuse.take() {
            Some((_, Death::PowerLost { may_tear })) => self.crash(may_tear),
            Some((_, Death::Killed)) => self.kill(),
            None => {}
        }
        Err(crashed())
    }

    fn kill(&mut self) {
        self.life += 1;
        self.fault = DiskFault::None;
    }

    fn crash(&mut self, may_tear: bool) {
        self.life += 1;
        self.fault = DiskFault::None;
        // A journal keeps changes of the directory in order.
        let kept = self.chance.random_range(0..=self.changes.len());
        for change in self.changes.drain(..).take(kept) {
            change.apply(&mut self.durable_directory);
        }
        self.changes.clear();
        self.directory.clone_from(&self.durable_directory);
        let named: Vec<u64> = self.directory.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        for content in self.files.values_mut() {
            content.crash(may_tear, &mut self.chance);
        }
        self.trace.event("crash", &[self.name.as_bytes()]);
    }
}

impl Change {
    fn apply(self, directory: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put(name, file) => {
                directory.insert(name, file);
            }
            Self::Remove(name) => {
                directory.remove(&name);
            }
        }
    }
}

impl Content {
    fn crash(&mut self, may_tear: bool, chance: &mut ChaCha8Rng) {
        let fate = chance.random_range(0..3);
        for pending in std::mem::take(&mut self.pending) {
            match (fate, pending) {
                (0, _) => break,
                (1, pending) => pending.apply(&mut self.durable),
                (_, Pending::SetLen(len)) => Pending::SetLen(len).apply(&mut self.durable),
                (_, Pending::Write { offset, bytes }) if may_tear => {
                    let mut start = 0;
                    while start < bytes.len() {
                        // Sectors lie at multiples of their size in the file.
                        let end = (SECTOR - (offset + start) % SECTOR + start).min(bytes.len());
                        if chance.random_bool(0.5) {
                            let bytes = bytes[start..end].to_vec();
                            Pending::Write {
                                offset: offset + start,
                                bytes,
                            }
                            .apply(&mut self.durable);
                        }
                        start = end;
                    }
                }
                (_, Pending::Write { .. }) => break,
            }
        }
        self.current.clone_from(&self.durable);
    }
}

impl Pending {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => content.resize(len, 0),
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset..end].copy_from_slice(&bytes);
            }
        }
    }
}

/// The disk that one life of a server sees.
#[derive(Clone, Debug)]
pub struct SimDisk {
    storage: Storage,
    life: u64,
}

impl SimDisk {
    fn medium(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let medium = self.storage.medium();
        if medium.life == self.life {
            Ok(medium)
        } else {
            Err(crashed())
        }
    }

    /// For a change of whatever kind.
    fn changeable(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let mut medium = self.medium()?;
        medium.burn()?;
        Ok(medium)
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let medium = self.changeable()?;
        if medium.fault == DiskFault::Full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(medium)
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the server has crashed")
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<()> {
        self.medium().map(drop)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.medium()?.directory.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = *self
            .medium()?
            .directory
            .get(name)
            .ok_or_else(|| missing(name))?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut medium = self.writable()?;
        let file = medium.next_file;
        medium.next_file += 1;
        medium.files.insert(file, Content::default());
        medium.directory.insert(String::from(name), file);
        medium.changes.push(Change::Put(String::from(name), file));
        drop(medium);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut medium = self.changeable()?;
        medium.directory.remove(name).ok_or_else(|| missing(name))?;
        medium.changes.push(Change::Remove(String::from(name)));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut medium = self.changeable()?;
        let file = medium.directory.remove(from).ok_or_else(|| missing(from))?;
        medium.directory.insert(String::from(to), file);
        medium.changes.push(Change::Put(String::from(to), file));
        medium.changes.push(Change::Remove(String::from(from)));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut medium = self.changeable()?;
        if medium.fault == DiskFault::SyncFails {
            return Err(io::Error::other("the simulated disk fails"));
        }
        let directory = medium.directory.clone();
        medium.durable_directory = directory;
        medium.changes.clear();
        Ok(())
    }

    fn place(&self) -> String {
        self.storage.medium().name.clone()
    }

    fn workers(&self) -> Workers {
        Workers::Tasks
    }

    fn is_stalled(&self) -> bool {
        let medium = self.storage.medium();
        medium.life == self.life && medium.fault == DiskFault::SyncStalls
    }

    fn sync_delay(&self) -> Duration {
        let mut medium = self.storage.medium();
        let most = u64::try_from(medium.sync_delay_max.as_micros()).unwrap_or(u64::MAX);
        if most == 0 {
            Duration::ZERO
        } else {
            Duration::from_micros(medium.chance.random_range(0..=most))
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl SimFile {
    fn with<T>(&self, look: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut medium = self.disk.medium()?;
        // A removed file stays readable while it is open, until the next crash.
        let content = medium
            .files
            .get_mut(&self.file)
            .ok_or_else(|| missing("any more"))?;
        Ok(look(content))
    }
}

fn place(offset: u64, len: usize) -> io::Result<usize> {
    let end = offset
        .checked_add(len as u64)
        .filter(|end| *end <= FILE_MAX);
    let start = end.and_then(|_| usize::try_from(offset).ok());
    start.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|content| content.current.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = place(offset, out.len())?;
        self.with(
            |content| match content.current.get(start..start + out.len()) {
                Some(bytes) => {
                    out.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        )?
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = place(offset, bytes.len())?;
        let medium = self.disk.writable()?;
        let position = (offset as u64).to_le_bytes();
        medium
            .trace
            .event("write", &[medium.name.as_bytes(), &position, bytes]);
        drop(medium);
        self.with(|content| {
            let bytes = bytes.to_vec();
            Pending::Write {
                offset,
                bytes: bytes.clone(),
            }
            .apply(&mut content.current);
            content.pending.push(Pending::Write { offset, bytes });
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = place(len, 0)?;
        drop(self.disk.writable()?);
        self.with(|content| {
            Pending::SetLen(len).apply(&mut content.current);
            content.pending.push(Pending::SetLen(len));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let fails = {
            let medium = self.disk.changeable()?;
            medium.trace.event("sync", &[medium.name.as_bytes()]);
            medium.fault == DiskFault::SyncFails
        };
        if fails {
            self.with(|content| content.pending.clear())?;
            return Err(io::Error::other("the simulated disk fails"));
        }
        self.with(|content| {
            for pending in std::mem::take(&mut content.pending) {
                pending.apply(&mut content.durable);
            }
        })
    }
}
