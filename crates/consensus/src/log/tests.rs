//! Torn and damaged logs: what is decided about every byte.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use super::record::{self, Found, Record};
use super::recover::{RecoverError, recover};
use super::segment::{self, Header, Outcome, SEGMENT_HEADER, Scan, scan};
use super::{Body, Entry, EntryId, Log, Sizes, writer};
use crate::disk::{Disk, File, MemoryDisk, Workers};
use crate::tasks::Tasks;

const SIZES: Sizes = Sizes {
    first_segment: 4096,
    segment: 4096,
    cache: 256,
};

fn entry(index: u64) -> Entry {
    let payload =
        vec![u8::try_from(index % 250).unwrap() + 1; usize::try_from(20 + index % 30).unwrap()];
    Entry {
        id: EntryId {
            term: 1 + index / 100,
            index,
        },
        body: Body::Command(Bytes::from(payload)),
    }
}

/// A segment of groups with so many entries each, and where each group begins.
fn build(groups: &[u64], capacity: usize) -> (Header, Vec<u8>, Vec<usize>) {
    let header = Header {
        sequence: 3,
        first_index: 0,
        previous: None,
        previous_end: 0,
        capacity: capacity as u64,
    };
    let mut bytes = header.encode().to_vec();
    let mut starts = Vec::new();
    let mut index = 0;
    for count in groups {
        let group = u32::try_from(bytes.len()).unwrap();
        starts.push(bytes.len());
        for _ in 0..*count {
            record::encode(&Record::Entry(entry(index)), 3, group, &mut bytes);
            index += 1;
        }
    }
    starts.push(bytes.len());
    bytes.resize(capacity, 0);
    (header, bytes, starts)
}

fn look(bytes: &[u8], header: &Header) -> Scan {
    scan(&Bytes::copy_from_slice(bytes), header, None)
}

#[test]
fn a_good_segment_is_clean() {
    let (header, bytes, starts) = build(&[3, 1, 2], 2048);
    let scan = look(&bytes, &header);
    assert_eq!(scan.outcome, Outcome::Clean);
    assert_eq!(scan.entries.len(), 6);
    assert_eq!(scan.end, *starts.last().unwrap() as u64);
    assert_eq!(Header::decode(&bytes), Ok(header));
}

#[test]
fn a_segment_that_is_cut_off_anywhere_has_lost_its_end() {
    let (header, bytes, starts) = build(&[2, 1, 2], 1024);
    for length in SEGMENT_HEADER..bytes.len() {
        let scan = look(&bytes[..length], &header);
        assert!(
            matches!(scan.outcome, Outcome::Torn(_)),
            "cut at {length}: {:?}",
            scan.outcome
        );
        // What lies before the cut stays.
        let whole = (0..5).take_while(|index| {
            let end: usize = SEGMENT_HEADER
                + (0..=*index)
                    .map(|index| 32 + entry(index).body.bytes().len().next_multiple_of(8))
                    .sum::<usize>();
            let padding = entry(*index).body.bytes().len().next_multiple_of(8)
                - entry(*index).body.bytes().len();
            end - padding <= length
        });
        assert_eq!(
            scan.entries.len(),
            whole.count(),
            "cut at {length} of {starts:?}"
        );
    }
}

#[test]
fn a_flipped_bit_is_a_lost_end_in_the_last_group_and_damage_before() {
    let (header, bytes, starts) = build(&[2, 1, 2], 1024);
    let last_group = starts[2];
    let end = starts[3];
    for at in SEGMENT_HEADER..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let scan = look(&flipped, &header);
            let is_as_said = match scan.outcome {
                Outcome::Damaged(_) => at < last_group,
                Outcome::Torn(_) => at >= last_group,
                Outcome::Clean => false,
            };
            assert!(
                is_as_said,
                "bit {bit} of byte {at}: {:?}, the last group is {last_group}..{end}",
                scan.outcome
            );
            assert!(scan.end <= at as u64);
        }
    }
}

#[test]
fn a_group_that_was_not_synced_may_be_there_in_any_part() {
    let (header, bytes, starts) = build(&[2, 5], 2048);
    // Each of the 64-byte pieces of the last group may be missing, whatever follows it.
    let (from, to) = (starts[1], starts[2]);
    let pieces = (to - from).div_ceil(64);
    for missing in 1..1_u32 << pieces {
        let mut torn = bytes.clone();
        for piece in (0..pieces).filter(|piece| missing >> piece & 1 == 1) {
            let start = from + piece * 64;
            torn[start..(start + 64).min(to)].fill(0);
        }
        let scan = look(&torn, &header);
        assert!(
            !matches!(scan.outcome, Outcome::Damaged(_)),
            "missing {missing:b}: {:?}",
            scan.outcome
        );
        assert!(scan.entries.len() >= 2);
    }
}

#[test]
fn a_sealed_segment_must_be_good_up_to_its_end() {
    let (header, bytes, starts) = build(&[2, 2], 1024);
    let end = *starts.last().unwrap();
    let sealed =
        |bytes: &[u8]| scan(&Bytes::copy_from_slice(bytes), &header, Some(end as u64)).outcome;
    assert_eq!(sealed(&bytes), Outcome::Clean);
    for at in SEGMENT_HEADER..end {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert!(matches!(sealed(&flipped), Outcome::Damaged(_)), "byte {at}");
        assert!(
            matches!(sealed(&bytes[..at]), Outcome::Damaged(_)),
            "cut at {at}"
        );
    }
    let mut flipped = bytes.clone();
    flipped[end + 1] ^= 4;
    assert_eq!(
        sealed(&flipped),
        Outcome::Clean,
        "nobody looks behind the end"
    );
}

#[test]
fn any_flip_in_a_header_is_refused() {
    let (_, bytes, _) = build(&[1], 1024);
    for at in 0..SEGMENT_HEADER {
        let mut flipped = bytes.clone();
        flipped[at] ^= 16;
        assert!(Header::decode(&flipped).is_err(), "byte {at}");
        assert!(Header::decode(&bytes[..at]).is_err());
    }
}

#[test]
fn the_example_in_the_documents_is_a_record() {
    let page = include_str!("../../../../docs/log.md");
    let example = page
        .split("```hex")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let digits: String = example.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let bytes: Bytes = (0..digits.len()).step_by(2).map(byte).collect();
    let expected = Entry {
        id: EntryId { term: 2, index: 17 },
        body: Body::Command(Bytes::from_static(b"hello")),
    };
    let found = record::decode(&bytes, 1);
    assert_eq!(
        found,
        Found::Record {
            record: Record::Entry(expected.clone()),
            group: 64,
            len: 40
        }
    );
    let mut encoded = Vec::new();
    record::encode(&Record::Entry(expected), 1, 64, &mut encoded);
    assert_eq!(encoded, bytes);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn append(log: &Log, entries: Vec<Entry>) {
    let (done, written) = tokio::sync::oneshot::channel();
    log.append(
        entries,
        Box::new(move |outcome| done.send(outcome).unwrap()),
    );
    written.await.unwrap().unwrap();
}

async fn cut_behind(log: &Log, keep: Option<EntryId>) {
    let (done, cut) = tokio::sync::oneshot::channel();
    log.cut_behind(keep, Box::new(move |outcome| done.send(outcome).unwrap()));
    cut.await.unwrap().unwrap();
}

async fn drop_through(log: &Log, id: EntryId) {
    let (done, dropped) = tokio::sync::oneshot::channel();
    log.drop_through(id, Box::new(move |outcome| done.send(outcome).unwrap()));
    dropped.await.unwrap().unwrap();
}

fn open<D: Disk>(disk: &Arc<D>) -> (Log, Tasks) {
    let recovered = recover(&**disk, SIZES).unwrap();
    assert_eq!(recovered.lost_tail, None);
    let log = Log::new(Arc::<D>::clone(disk), SIZES, recovered);
    let tasks = Tasks::default();
    writer::start(&log, &tasks).unwrap();
    (log, tasks)
}

async fn close(log: Log, tasks: Tasks) {
    log.close();
    tasks.join().await;
}

fn all(log: &Log) -> Vec<Entry> {
    let (dropped, last) = log.ends();
    log.read(
        dropped.map_or(0, |id| id.index + 1),
        last.map_or(0, |id| id.index + 1),
        usize::MAX,
    )
    .unwrap()
}

#[test]
fn a_log_is_after_a_restart_what_it_was_before() {
    let disk = Arc::new(MemoryDisk::new());
    let mut expected: Vec<Entry> = Vec::new();
    runtime().block_on(async {
        // Entries by the handful, cuts and drops, each followed by a restart; a segment holds about fifty.
        for round in 0..60_u64 {
            let (log, tasks) = open(&disk);
            assert_eq!(all(&log), expected, "round {round}");
            let next = expected.last().map_or(0, |last| last.id.index + 1);
            let new: Vec<Entry> = (next..next + 7 + round % 5).map(entry).collect();
            expected.extend(new.clone());
            append(&log, new).await;
            if round % 4 == 3 {
                let keep = expected[expected.len() - 1 - usize::try_from(round % 11).unwrap()].id;
                cut_behind(&log, Some(keep)).await;
                expected.retain(|entry| entry.id.index <= keep.index);
            }
            if round % 10 == 9 {
                let id = expected[expected.len() / 2].id;
                drop_through(&log, id).await;
                assert_eq!(log.ends().0, Some(id));
                log.mark_committed(id);
            }
            let (dropped, _) = log.ends();
            expected.retain(|entry| dropped.is_none_or(|dropped| dropped.index < entry.id.index));
            assert_eq!(all(&log), expected, "round {round}");
            close(log, tasks).await;
            // Whole segments are dropped, so a restart may find more than was there.
            let (log, tasks) = open(&disk);
            let found = all(&log);
            assert!(found.ends_with(&expected), "round {round}");
            expected = found;
            close(log, tasks).await;
        }
        assert!(disk.list().unwrap().len() < 20, "{:?}", disk.list());
    });
}

#[test]
fn a_log_goes_on_behind_a_checkpoint_that_is_ahead_of_it() {
    let disk = Arc::new(MemoryDisk::new());
    runtime().block_on(async {
        let (log, tasks) = open(&disk);
        append(&log, (0..10).map(entry).collect()).await;
        let far = EntryId {
            term: 9,
            index: 500,
        };
        drop_through(&log, far).await;
        assert_eq!(log.ends(), (Some(far), Some(far)));
        close(log, tasks).await;
        let (log, tasks) = open(&disk);
        assert_eq!(log.ends(), (Some(far), Some(far)));
        let next = Entry {
            id: EntryId {
                term: 9,
                index: 501,
            },
            body: Body::Blank,
        };
        append(&log, vec![next.clone()]).await;
        close(log, tasks).await;
        let (log, tasks) = open(&disk);
        assert_eq!(all(&log), vec![next]);
        close(log, tasks).await;
    });
}

#[test]
fn a_commit_mark_survives() {
    let disk = Arc::new(MemoryDisk::new());
    runtime().block_on(async {
        let (log, tasks) = open(&disk);
        append(&log, (0..10).map(entry).collect()).await;
        log.mark_committed(entry(7).id);
        close(log, tasks).await;
        let (log, tasks) = open(&disk);
        assert_eq!(log.committed(), Some(entry(7).id));
        close(log, tasks).await;
    });
}

#[test]
fn a_missing_segment_is_damage() {
    let disk = Arc::new(MemoryDisk::new());
    runtime().block_on(async {
        let (log, tasks) = open(&disk);
        for index in 0..200 {
            append(&log, vec![entry(index)]).await;
        }
        close(log, tasks).await;
    });
    disk.remove(&segment::file_name(2)).unwrap();
    match recover(&*disk, SIZES) {
        Err(RecoverError::Damaged(spot)) => assert_eq!(spot.file, segment::file_name(3)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_entries_that_fit_into_some_bytes_are_the_newest() {
    let disk = Arc::new(MemoryDisk::new());
    runtime().block_on(async {
        let (log, tasks) = open(&disk);
        for index in 0..300 {
            append(&log, vec![entry(index)]).await;
        }
        let size = |index: u64| record::record_len(entry(index).body.bytes().len()) as u64;
        for end in [1, 2, 60, 155, 299, 300] {
            assert_eq!(log.start_of(end, 0), end);
            assert_eq!(log.start_of(end, size(end - 1) - 1), end);
            assert_eq!(log.start_of(end, size(end - 1)), end - 1);
            assert_eq!(log.start_of(end, u64::MAX), 0);
            let start = end.saturating_sub(100);
            let bytes: u64 = (start..end).map(size).sum();
            assert_eq!(log.start_of(end, bytes), start);
        }
        close(log, tasks).await;
    });
}

/// A disk with room for records, but none for a spare segment.
#[derive(Debug, Default)]
struct Cramped {
    inner: MemoryDisk,
    spares: AtomicUsize,
    /// If so, half a spare leaves no room for a segment, and is still being made when one is needed.
    is_tight: bool,
    /// How often there was no room for a segment.
    refusals: Arc<(Mutex<usize>, Condvar)>,
}

#[derive(Debug)]
struct NoRoom {
    file: Arc<dyn File>,
    /// Fails after the first of them.
    waits_for: Option<Arc<(Mutex<usize>, Condvar)>>,
}

impl Disk for Cramped {
    fn lock(&self) -> io::Result<()> {
        self.inner.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.inner.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let is_first = !self.list()?.iter().any(|name| name.starts_with("log-"));
        if name == "roll.tmp" && self.is_tight && !is_first {
            // The thread that makes the spare may be slow to begin.
            let count = self.refusals.0.lock().unwrap();
            let none = |_: &mut usize| self.spares.load(Ordering::Relaxed) == 0;
            drop(self.refusals.1.wait_while(count, none).unwrap());
        }
        if name == "roll.tmp" && self.is_tight && self.inner.open("spare").is_ok() {
            *self.refusals.0.lock().unwrap() += 1;
            self.refusals.1.notify_all();
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.inner.create(name)?;
        if name != "spare" {
            return Ok(file);
        }
        let count = self.refusals.0.lock().unwrap();
        self.spares.fetch_add(1, Ordering::Relaxed);
        self.refusals.1.notify_all();
        drop(count);
        let waits_for = self.is_tight.then(|| Arc::clone(&self.refusals));
        Ok(Arc::new(NoRoom { file, waits_for }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn workers(&self) -> Workers {
        Workers::Threads
    }
}

impl File for NoRoom {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn write_zeros(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len / 2)?;
        if let Some(refusals) = &self.waits_for {
            let count = refusals.0.lock().unwrap();
            drop(refusals.1.wait_while(count, |count| *count == 0).unwrap());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[test]
fn a_spare_that_finds_no_room_is_removed_and_tried_once_for_each_segment() {
    let disk = Arc::new(Cramped::default());
    runtime().block_on(async {
        let (log, tasks) = open(&disk);
        for index in 0..300 {
            append(&log, vec![entry(index)]).await;
        }
        close(log, tasks).await;
    });
    let names = disk.list().unwrap();
    assert!(!names.contains(&String::from("spare")), "{names:?}");
    let spares = disk.spares.load(Ordering::Relaxed);
    assert!((1..=names.len()).contains(&spares), "{spares} of {names:?}");
}

#[test]
fn a_segment_takes_the_room_of_half_a_spare() {
    let disk = Arc::new(Cramped {
        is_tight: true,
        ..Cramped::default()
    });
    runtime().block_on(async {
        let (log, tasks) = open(&disk);
        for index in 0..300 {
            append(&log, vec![entry(index)]).await;
        }
        close(log, tasks).await;
    });
    assert!(*disk.refusals.0.lock().unwrap() > 0);
    let names = disk.list().unwrap();
    assert!(!names.contains(&String::from("spare")), "{names:?}");
}

#[cfg(feature = "sim")]
#[test]
fn what_a_start_believed_once_it_never_takes_back() {
    use super::recover::settle;
    use crate::sim::{DiskFault, Storage, Trace};

    for seed in 0..16 {
        for fault in [DiskFault::None, DiskFault::SyncFails] {
            runtime().block_on(async {
                let storage = Storage::new("disk", seed, Trace::begin());
                storage.set_sync_delay_max(std::time::Duration::ZERO);
                let (log, tasks) = open(&Arc::new(storage.attach()));
                append(&log, vec![entry(0)]).await;
                append(&log, vec![entry(1)]).await;
                close(log, tasks).await;

                // Written, and not synced or in vain.
                storage.set_fault(fault);
                let disk = storage.attach();
                let recovered = recover(&disk, SIZES).unwrap();
                let file = Arc::clone(&recovered.segments[0].file);
                let mut group = Vec::new();
                let end = recovered.segments[0].end;
                let record = Record::Entry(entry(2));
                record::encode(&record, 1, u32::try_from(end).unwrap(), &mut group);
                file.write_at(end, &group).unwrap();
                if fault == DiskFault::SyncFails {
                    file.sync_data().unwrap_err();
                }
                storage.kill();

                let disk = storage.attach();
                let recovered = recover(&disk, SIZES).unwrap();
                let believed = recovered.last;
                assert_eq!(believed, Some(entry(2).id));
                settle(&disk, &recovered).unwrap();
                storage.crash(true);
                let recovered = recover(&storage.attach(), SIZES).unwrap();
                assert_eq!(recovered.last, believed, "seed {seed} with {fault:?}");
            });
        }
    }
}
