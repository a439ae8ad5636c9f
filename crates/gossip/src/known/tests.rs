use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A file in memory and what its owner holds.
fn open(content: &str) -> (KnownFile, Known, Arc<MemoryMedium>, Instant) {
    let medium = Arc::new(MemoryMedium::new(content.into()));
    let start = Instant::now();
    let shared: Arc<dyn Medium> = medium.clone();
    let (file, known) = KnownFile::open(shared, AfterLeave::Forget, start).unwrap();
    (file, known, medium, start)
}

fn text(medium: &MemoryMedium) -> String {
    String::from_utf8(medium.read(usize::MAX).unwrap().bytes).unwrap()
}

fn flush(file: &mut KnownFile, now: Instant) {
    if let Some(error) = file.flush(now) {
        panic!("{error}");
    }
}

#[test]
fn all_records_are_read() {
    let content = "\
alive: web 1 10.0.0.1:8301
alive: db [2001:db8::1]:8301
alive: gone 10.0.0.3:8301
alive: web 1 10.0.0.9:8302
not-alive: gone
not-alive: never seen
clock: 7
event-clock: 8
query-clock: 18446744073709551615
clock: 9
coordinate: {\"Vec\":[1,2,3,4,5,6,7,8],\"Error\":0.5,\"Adjustment\":-0.25,\"Height\":0.00001}
";
    let known = decode(content.as_bytes(), AfterLeave::Forget);
    let expected = Known {
        members: BTreeMap::from([
            ("db".to_owned(), address("[2001:db8::1]:8301")),
            ("web 1".to_owned(), address("10.0.0.9:8302")),
        ]),
        clocks: Clocks {
            members: 9,
            events: 8,
            queries: u64::MAX,
        },
        coordinate: Some(Coordinate {
            vec: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            error: 0.5,
            adjustment: -0.25,
            height: 0.00001,
        }),
        skipped: 0,
    };
    assert_eq!(known, expected);
}

#[test]
fn the_page_shows_what_is_read() {
    let page = include_str!("../../../../docs/gossip-files.md");
    let (_, example) = page.split_once("```text\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let forgets = decode(example.as_bytes(), AfterLeave::Forget);
    assert_eq!((forgets.members.len(), forgets.skipped), (0, 0));
    let known = decode(example.as_bytes(), AfterLeave::Rejoin);
    let db = ("db".to_owned(), address("[2001:db8::1]:8301"));
    assert_eq!(known.members, BTreeMap::from([db]));
    assert_eq!(known.clocks.queries, 9);
    // What is written anew is the same without what counts no more.
    let lines: Vec<&str> = example.lines().collect();
    let lasting = [&lines[1..2], &lines[3..7]].concat();
    let encoded = known.encode();
    let written: Vec<&str> = encoded.lines().collect();
    assert_eq!(written[..4], lasting[..4]);
    let coordinate = |line: &str| decode_coordinate(line.strip_prefix("coordinate: ").unwrap());
    assert_eq!(coordinate(written[4]), coordinate(lasting[4]));
}

#[test]
fn what_is_no_record_is_skipped_and_counted() {
    let odd = [
        "\n",
        "alive: a\n",
        "alive: a 10.0.0.1\n",
        "alive:  10.0.0.1:8301\n",
        "alive: a\u{7}b 10.0.0.1:8301\n",
        "alive a 10.0.0.1:8301\n",
        "dead: a\n",
        "leave \n",
        "clock: -1\n",
        "clock: 18446744073709551616\n",
        "clock:5\n",
        "coordinate: {}\n",
        "coordinate: {\"Vec\":[1],\"Error\":0.5,\"Adjustment\":0,\"Height\":0}\n",
        "coordinate: {\"Vec\":null,\"Error\":0.5,\"Adjustment\":0,\"Height\":0}\n",
        "alive: torn 10.0.0.1:830",
    ];
    for line in odd {
        let content = format!("alive: a 10.0.0.1:8301\nclock: 3\n{line}");
        let known = decode(content.as_bytes(), AfterLeave::Forget);
        assert_eq!(known.skipped, 1, "{line:?}");
        assert_eq!(known.members.len(), 1, "{line:?}");
        assert_eq!(known.clocks.members, 3, "{line:?}");
    }
    let known = decode(b"alive: \xff 10.0.0.1:8301\n", AfterLeave::Forget);
    assert_eq!((known.members.len(), known.skipped), (0, 1));
    let long = format!("alive: {} 10.0.0.1:8301\n", "n".repeat(LINE_BYTES_MAX));
    assert_eq!(decode(long.as_bytes(), AfterLeave::Forget).skipped, 1);
}

#[test]
fn leaving_empties_what_stands_before() {
    let content = b"alive: a 10.0.0.1:8301\nclock: 5\nleave\nalive: b 10.0.0.2:8301\n";
    let forgets = decode(content, AfterLeave::Forget);
    assert_eq!(forgets.members.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(forgets.clocks.members, 0);
    let rejoins = decode(content, AfterLeave::Rejoin);
    assert_eq!(rejoins.members.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(rejoins.clocks.members, 5);
}

#[test]
fn more_members_than_can_be_remembered_are_not() {
    let content: String = (0..MEMBERS_MAX + 5)
        .map(|member| format!("alive: {member} 10.0.0.1:8301\n"))
        .collect();
    let known = decode(content.as_bytes(), AfterLeave::Forget);
    assert_eq!((known.members.len(), known.skipped), (MEMBERS_MAX, 0));
}

#[test]
fn changes_are_appended_together() {
    let (mut file, known, medium, start) = open("");
    assert_eq!(known, Known::default());
    assert_eq!(file.due_at(), None);
    file.alive("a", address("10.0.0.1:8301"));
    file.alive("b", address("10.0.0.2:8301"));
    file.alive("a", address("10.0.0.1:8301"));
    file.not_alive("b");
    file.not_alive("b");
    file.clocks(Clocks {
        members: 2,
        events: 0,
        queries: 3,
    });
    assert_eq!(file.due_at(), Some(start));
    flush(&mut file, start);
    let expected = "\
alive: a 10.0.0.1:8301
alive: b 10.0.0.2:8301
not-alive: b
clock: 2
query-clock: 3
";
    assert_eq!(text(&medium), expected);
    assert_eq!(file.due_at(), None);

    file.alive("a", address("10.0.0.9:8301"));
    let next = start + WRITE_INTERVAL;
    assert_eq!(file.due_at(), Some(next));
    assert!(file.due(next - Duration::from_millis(1)).is_none());
    flush(&mut file, next);
    assert_eq!(text(&medium), format!("{expected}alive: a 10.0.0.9:8301\n"));
}

#[test]
fn a_coordinate_is_written_once_a_minute() {
    let (mut file, _, medium, start) = open("");
    let mut coordinate = Coordinate::default();
    let lines = || text(&medium).matches("coordinate: ").count();
    file.coordinate(&coordinate);
    assert_eq!(file.due_at(), Some(start + COORDINATE_INTERVAL));
    // Other records don't take it along.
    file.alive("a", address("10.0.0.1:8301"));
    flush(&mut file, start);
    assert_eq!(lines(), 0);
    flush(&mut file, start + COORDINATE_INTERVAL);
    assert_eq!(lines(), 1);
    file.coordinate(&coordinate);
    assert_eq!(file.due_at(), None);
    coordinate.error = 1.0;
    file.coordinate(&coordinate);
    assert_eq!(file.due_at(), Some(start + COORDINATE_INTERVAL * 2));
    // At the end it is.
    file.hurry();
    flush(&mut file, start + COORDINATE_INTERVAL);
    assert_eq!(lines(), 2);
    coordinate.error = f64::NAN;
    file.coordinate(&coordinate);
    assert_eq!(file.due_at(), None);
}

#[test]
fn leaving_is_written_at_once_and_last() {
    let (mut file, _, medium, start) = open("");
    file.alive("a", address("10.0.0.1:8301"));
    flush(&mut file, start);
    file.alive("b", address("10.0.0.2:8301"));
    file.leave();
    file.not_alive("a");
    file.alive("c", address("10.0.0.3:8301"));
    file.clocks(Clocks {
        members: 5,
        ..Clocks::default()
    });
    flush(&mut file, start);
    file.leave();
    flush(&mut file, start + RETRY_INTERVAL);
    let expected = "alive: a 10.0.0.1:8301\nalive: b 10.0.0.2:8301\nleave\n";
    assert_eq!(text(&medium), expected);
}

#[test]
fn a_file_with_an_unfinished_line_is_written_anew() {
    let (mut file, known, medium, start) = open("alive: a 10.0.0.1:8301\nclock: 4\nalive: b 10.0");
    assert_eq!((known.members.len(), known.skipped), (1, 1));
    assert_eq!(file.due_at(), Some(start));
    file.alive("c", address("10.0.0.3:8301"));
    flush(&mut file, start);
    let expected = "alive: a 10.0.0.1:8301\nalive: c 10.0.0.3:8301\nclock: 4\n";
    assert_eq!(text(&medium), expected);
}

#[test]
fn who_came_back_has_not_left_any_more() {
    let content = b"alive: a 10.0.0.1:8301\nleave\n".to_vec();
    let medium: Arc<dyn Medium> = Arc::new(MemoryMedium::new(content));
    let now = Instant::now();
    let start = |after_leave| KnownFile::open(Arc::clone(&medium), after_leave, now).unwrap();
    let (mut file, known) = start(AfterLeave::Rejoin);
    assert_eq!(known.members.len(), 1);
    flush(&mut file, now);
    let (_, known) = start(AfterLeave::Forget);
    assert_eq!(known.members.len(), 1);
}

#[test]
fn a_file_that_has_grown_is_written_anew() {
    let (mut file, _, medium, mut now) = open("");
    file.alive("a", address("10.0.0.1:8301"));
    let mut longest = 0;
    for members in 0..20_000 {
        file.clocks(Clocks {
            members,
            ..Clocks::default()
        });
        flush(&mut file, now);
        now += WRITE_INTERVAL;
        longest = longest.max(text(&medium).len());
    }
    assert!(longest <= COMPACT_BYTES && longest > COMPACT_BYTES - 100);
    let again = decode(text(&medium).as_bytes(), AfterLeave::Forget);
    assert_eq!(again.members.len(), 1);
    assert_eq!(again.clocks.members, 19_999);
}

#[test]
fn a_pool_larger_than_the_limit_is_not_written_anew_each_time() {
    let (mut file, _, medium, mut now) = open("");
    for member in 0..10_000 {
        file.alive(&format!("member-{member}"), address("10.0.0.1:8301"));
    }
    flush(&mut file, now);
    let large = text(&medium).len();
    assert!(large > 2 * COMPACT_BYTES);
    for round in 0..100 {
        now += WRITE_INTERVAL;
        file.not_alive(&format!("member-{round}"));
        let write = file.due(now).unwrap();
        assert!(matches!(write.change, Change::Append(_)));
        assert!(file.done(write.run(), now).is_none());
    }
    assert_eq!(
        decode(text(&medium).as_bytes(), AfterLeave::Forget),
        file.known
    );
}

#[test]
fn what_waits_for_a_slow_disk_is_bounded() {
    let (mut file, _, medium, start) = open("");
    file.alive("a", address("10.0.0.1:8301"));
    let write = file.due(start).unwrap();
    for round in 0..100_000_u32 {
        let port = if round % 2 == 0 { 1 } else { 2 };
        file.alive("b", SocketAddr::new([10, 0, 0, 2].into(), port));
        assert!(file.waiting.len() <= WAITING_BYTES_MAX);
    }
    assert_eq!(file.due_at(), None);
    assert!(file.due(start + RETRY_INTERVAL).is_none());
    assert!(file.done(write.run(), start).is_none());
    flush(&mut file, start + WRITE_INTERVAL);
    let known = decode(text(&medium).as_bytes(), AfterLeave::Forget);
    assert_eq!(known, file.known);
}

/// Takes a part of each append and then fails, as long as it is told to.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryMedium,
    fails: AtomicBool,
    attempts: AtomicUsize,
}

impl Medium for Failing {
    fn read(&self, bytes_max: usize) -> io::Result<Content> {
        self.inner.read(bytes_max)
    }

    fn append(&self, records: &[u8]) -> io::Result<()> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            self.inner.append(&records[..records.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.append(records)
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.replace(content)
    }
}

#[test]
fn a_full_disk_is_reported_once_and_nothing_is_lost() {
    let medium = Arc::new(Failing::default());
    let mut now = Instant::now();
    let shared: Arc<dyn Medium> = medium.clone();
    let (mut file, _) = KnownFile::open(shared, AfterLeave::Forget, now).unwrap();
    for round in 0..2 {
        medium.attempts.store(0, Ordering::Relaxed);
        medium.fails.store(true, Ordering::Relaxed);
        file.alive(&format!("before {round}"), address("10.0.0.1:8301"));
        let error = file.flush(now).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        for second in 0..60 {
            now += Duration::from_secs(1);
            file.alive(&format!("{round}-{second}"), address("10.0.0.2:8301"));
            assert!(file.flush(now).is_none());
        }
        assert_eq!(medium.attempts.load(Ordering::Relaxed), 3);
        medium.fails.store(false, Ordering::Relaxed);
        now += RETRY_INTERVAL;
        flush(&mut file, now);
        let content = medium.read(usize::MAX).unwrap().bytes;
        assert_eq!(decode(&content, AfterLeave::Forget), file.known);
        now += WRITE_INTERVAL;
    }
    // A second attempt to say that it left is possible, and is the last word.
    medium.fails.store(true, Ordering::Relaxed);
    file.leave();
    assert!(file.flush(now).is_some());
    medium.fails.store(false, Ordering::Relaxed);
    file.hurry();
    flush(&mut file, now);
    let content = medium.read(usize::MAX).unwrap().bytes;
    assert!(content.ends_with(b"\nleave\n"));
    assert_eq!(decode(&content, AfterLeave::Rejoin), file.known);
}

#[test]
fn names_that_are_no_part_of_a_line_are_not_written() {
    let (mut file, _, medium, start) = open("");
    for name in [
        "",
        "a\nleave",
        "a\r",
        "\u{85}",
        &"n".repeat(NAME_BYTES_MAX + 1),
    ] {
        file.alive(name, address("10.0.0.1:8301"));
        file.not_alive(name);
    }
    assert_eq!(file.due_at(), None);
    for name in [" a ", "leave", "a: b", "not-alive: a", "10.0.0.1:8301", "ü"] {
        file.alive(name, address("10.0.0.1:8301"));
    }
    flush(&mut file, start);
    let known = decode(text(&medium).as_bytes(), AfterLeave::Forget);
    assert_eq!(known, file.known);
    assert_eq!(known.members.len(), 6);
}

#[test]
fn the_end_of_a_file_that_is_too_large_is_read() {
    let medium = MemoryMedium::new(b"alive: a 10.0.0.1:8301\nclock: 5\n".to_vec());
    let content = medium.read(12).unwrap();
    assert_eq!(content.bytes, b"01\nclock: 5\n");
    assert!(content.is_cut);
    let folder = tempfile::tempdir().unwrap();
    let file = FileMedium::new(folder.path().join("serf/local.snapshot"));
    file.append(&medium.read(100).unwrap().bytes).unwrap();
    assert_eq!(file.read(12).unwrap(), content);
}

#[test]
fn a_file_of_the_file_system_holds_what_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serf").join("local.snapshot");
    let now = Instant::now();
    let start = || {
        let medium = Arc::new(FileMedium::new(path.clone()));
        KnownFile::open(medium, AfterLeave::Forget, now).unwrap()
    };
    let (mut file, known) = start();
    assert_eq!(known, Known::default());
    file.alive("a", address("10.0.0.1:8301"));
    flush(&mut file, now);
    file.alive("b", address("10.0.0.2:8301"));
    flush(&mut file, now + WRITE_INTERVAL);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // What a crash left unfinished is written anew.
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"alive: c 10.")
        .unwrap();
    let (mut file, known) = start();
    assert_eq!((known.members.len(), known.skipped), (2, 1));
    flush(&mut file, now);
    let content = fs::read_to_string(&path).unwrap();
    assert_eq!(content, "alive: a 10.0.0.1:8301\nalive: b 10.0.0.2:8301\n");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1);

    // A disk that doesn't take it is an error that the owner hears of.
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.parent().unwrap(), b"in the way").unwrap();
    file.alive("d", address("10.0.0.4:8301"));
    assert!(file.flush(now + WRITE_INTERVAL).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Alive(String, u16),
    NotAlive(String),
    Clocks(u64, u64),
    Coordinate(f64),
    Wait(u64),
    Flush,
    Fail,
    /// Stops with everything written that is due, and so many bytes of the file cut off.
    Restart(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop_oneof!["[a-c]", "[a-c] [a-c]", "\\PC{0,3}"];
    prop_oneof![
        (name(), any::<u16>()).prop_map(|(name, port)| Step::Alive(name, port)),
        name().prop_map(Step::NotAlive),
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Step::Clocks(a, b)),
        (0.0..1.0).prop_map(Step::Coordinate),
        (0u64..100_000).prop_map(Step::Wait),
        Just(Step::Flush),
        Just(Step::Flush),
        Just(Step::Fail),
        (0u8..20).prop_map(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_what_is_read(steps in prop::collection::vec(step(), 0..100)) {
        let medium = Arc::new(Failing::default());
        let mut now = Instant::now();
        let start = |now| {
            let shared: Arc<dyn Medium> = medium.clone();
            KnownFile::open(shared, AfterLeave::Forget, now).unwrap()
        };
        let (mut file, _) = start(now);
        for step in steps {
            match step {
                Step::Alive(name, port) => {
                    file.alive(&name, SocketAddr::new([10, 0, 0, 1].into(), port));
                }
                Step::NotAlive(name) => file.not_alive(&name),
                Step::Clocks(members, events) => file.clocks(Clocks { members, events, queries: 0 }),
                Step::Coordinate(error) => {
                    file.coordinate(&Coordinate { error, ..Coordinate::default() });
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Fail => {
                    medium.fails.store(true, Ordering::Relaxed);
                    file.flush(now);
                    medium.fails.store(false, Ordering::Relaxed);
                }
                Step::Flush => {
                    let due = file.due_at().is_some_and(|at| at <= now);
                    file.flush(now);
                    if due {
                        let content = medium.read(usize::MAX).unwrap().bytes;
                        let known = decode(&content, AfterLeave::Forget);
                        prop_assert_eq!(known.skipped, 0);
                        prop_assert_eq!(&known.members, &file.known.members);
                        prop_assert_eq!(known.clocks, file.known.clocks);
                        let error = |known: &Known| known.coordinate.as_ref().map(|c| c.error);
                        if !file.coordinate_waits {
                            let (a, b) = (error(&known), error(&file.known));
                            prop_assert_eq!(a.is_some(), b.is_some());
                            let apart = (a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs();
                            prop_assert!(apart < 1e-12);
                        }
                    }
                }
                Step::Restart(cut) => {
                    let mut content = medium.read(usize::MAX).unwrap().bytes;
                    content.truncate(content.len().saturating_sub(usize::from(cut)));
                    medium.inner.replace(&content).unwrap();
                    let (opened, known) = start(now);
                    prop_assert!(known.skipped <= 3);
                    file = opened;
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read(content in prop::collection::vec(any::<u8>(), 0..500)) {
        decode(&content, AfterLeave::Rejoin);
    }
}
