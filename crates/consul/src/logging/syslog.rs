//! The log as the system's syslog gets it: RFC 3164, over its socket on this machine.
//!
//! The lines go through a bounded queue to a thread of their own, because a syslog that is slow, full or gone must not hold up the agent.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use agent::Severity;

/// Where syslog listens, by system.
pub const PLACES: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Who is said to speak.
const IDENT: &str = "consul";

/// How many lines may wait; further ones are lost, and it is said how many were.
const WAITING_MAX: usize = 1024;

/// How much of a line is sent, in bytes: what the usual daemons take.
const LINE_MAX: usize = 8000;

/// How long syslog may take for a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often and in which distances it is tried to reach syslog at the start.
const TRIES: usize = 12;
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// A facility of syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// `LOCAL0`, the default.
    pub const LOCAL0: Self = Self(16);

    /// The facility of that name, in any case.
    ///
    /// # Errors
    /// The text for the user when there is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        const NAMES: [&str; 24] = [
            "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON",
            "AUTHPRIV", "FTP", "", "", "", "", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4",
            "LOCAL5", "LOCAL6", "LOCAL7",
        ];
        let known = (0..).zip(NAMES);
        let mut named = known.filter(|(_, known)| !known.is_empty());
        let found = named.find(|(_, known)| known.eq_ignore_ascii_case(name));
        let (number, _) = found.ok_or_else(|| format!("invalid syslog facility: {name}"))?;
        Ok(Self(number))
    }

    /// What stands before a line. What is below WARN is told as one step more urgent than its name says, as the original does.
    fn priority(self, level: Severity) -> u8 {
        let severity = match level {
            Severity::Err => 3,
            Severity::Warn => 4,
            Severity::Info => 5,
            Severity::Debug => 6,
            Severity::Trace => 7,
        };
        self.0 * 8 + severity
    }
}

/// The way to syslog. Clones are the same way.
#[derive(Debug, Clone)]
pub struct Syslog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    facility: Facility,
    /// `None` once it is over.
    lines: Mutex<Option<SyncSender<String>>>,
    lost: Arc<AtomicU64>,
    ended: Mutex<Receiver<()>>,
}

impl Syslog {
    /// Tries to reach it for a minute, and `says` each time why it does not.
    ///
    /// # Errors
    /// The reason of the last time. Dropping the future ends it earlier.
    pub async fn open(
        facility: Facility,
        places: &[PathBuf],
        says: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        for attempt in 1.. {
            match Socket::connect(places) {
                Ok(socket) => return Ok(Self::start(facility, places.to_vec(), socket)?),
                Err(error) => {
                    says(&format!("==> Syslog setup error: {error}"));
                    if attempt > TRIES {
                        break;
                    }
                }
            }
            says("==> Retrying syslog setup in 5s...");
            tokio::time::sleep(TRY_AGAIN).await;
        }
        anyhow::bail!("Syslog setup did not succeed within timeout (1m0s).")
    }

    fn start(facility: Facility, places: Vec<PathBuf>, socket: Socket) -> io::Result<Self> {
        let (lines, queue) = mpsc::sync_channel::<String>(WAITING_MAX);
        let (end, ended) = mpsc::sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let carrier = Carrier {
            facility,
            places,
            socket: Some(socket),
            lost: Arc::clone(&lost),
        };
        let work = move || {
            carrier.run(&queue);
            // Nobody waits any more if it took too long.
            let _ = end.send(());
        };
        thread::Builder::new()
            .name("syslog".to_owned())
            .spawn(work)?;
        Ok(Self(Arc::new(Inner {
            facility,
            lines: Mutex::new(Some(lines)),
            lost,
            ended: Mutex::new(ended),
        })))
    }

    /// Sends a line; without waiting, so it is lost if too many wait already.
    pub fn send(&self, level: Severity, text: &str) {
        let line = line(self.0.facility, level, text);
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = &*lines
            && lines.try_send(line).is_err()
        {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends what waits; what takes too long is left behind.
    pub fn finish(&self) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        drop(lines.take());
        drop(lines);
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = ended.recv_timeout(PATIENCE);
        debug_assert!(waited != Err(RecvTimeoutError::Disconnected) || thread::panicking());
    }
}

fn line(facility: Facility, level: Severity, text: &str) -> String {
    let now = jiff::Zoned::now().strftime("%b %e %H:%M:%S").to_string();
    let priority = facility.priority(level);
    let process = std::process::id();
    let mut length = text.len().min(LINE_MAX);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    let text = text[..length].replace(|c: char| c.is_control() && c != '\t', " ");
    format!("<{priority}>{now} {IDENT}[{process}]: {text}")
}

/// What the thread holds.
struct Carrier {
    facility: Facility,
    places: Vec<PathBuf>,
    /// `None` while syslog is away.
    socket: Option<Socket>,
    lost: Arc<AtomicU64>,
}

impl Carrier {
    fn run(mut self, queue: &Receiver<String>) {
        while let Ok(next) = queue.recv() {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let text = format!("agent: {lost} lines of the log did not get here");
                if !self.carry(&line(self.facility, Severity::Warn, &text)) {
                    self.lost.fetch_add(lost, Ordering::Relaxed);
                }
            }
            if !self.carry(&next) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether it was sent. A syslog that was started anew is looked for once.
    fn carry(&mut self, line: &str) -> bool {
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = Socket::connect(&self.places).ok();
            }
            let Some(socket) = &mut self.socket else {
                return false;
            };
            match socket.send(line) {
                Ok(()) => return true,
                // It is there, and slow.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => self.socket = None,
            }
        }
        false
    }
}

/// A connection to syslog.
#[derive(Debug)]
enum Socket {
    Datagram(UnixDatagram),
    /// Some daemons offer this instead.
    Stream(UnixStream),
}

impl Socket {
    fn connect(places: &[PathBuf]) -> io::Result<Self> {
        let mut first = None;
        for place in places {
            match Self::connect_to(place) {
                Ok(socket) => return Ok(socket),
                Err(error) => {
                    let error =
                        io::Error::new(error.kind(), format!("{}: {error}", place.display()));
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
    }

    fn connect_to(place: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        match socket.connect(place) {
            Ok(()) => Ok(Self::Datagram(socket)),
            Err(error) => {
                let Ok(stream) = UnixStream::connect(place) else {
                    return Err(error);
                };
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.shutdown(Shutdown::Read)?;
                Ok(Self::Stream(stream))
            }
        }
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Datagram(socket) => {
                socket.send(line.as_bytes())?;
                Ok(())
            }
            Self::Stream(stream) => {
                // Half a line would spoil the next one: whatever is wrong, it begins anew.
                let sent = stream.write_all(format!("{line}\n").as_bytes());
                sent.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Far longer than anything here takes.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn hear(place: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(place).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 65536];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn open(place: &Path) -> Syslog {
        let places = vec![place.to_owned()];
        let socket = Socket::connect(&places).unwrap();
        Syslog::start(Facility::LOCAL0, places, socket).unwrap()
    }

    /// Without the time, in which no two lines need agree.
    fn timeless(line: &str) -> String {
        let (priority, rest) = line.split_once('>').unwrap();
        let (time, rest) = rest.split_at(15);
        assert_eq!(time.as_bytes()[3], b' ');
        assert_eq!(time.as_bytes()[9], b':');
        format!(
            "{priority}>{}",
            rest.replace(&std::process::id().to_string(), "PID")
        )
    }

    #[test]
    fn facilities() {
        for (name, number) in [("KERN", 0), ("daemon", 3), ("FTP", 11), ("LOCAL7", 23)] {
            assert_eq!(Facility::parse(name), Ok(Facility(number)));
        }
        assert_eq!(Facility::parse("LOCAL0"), Ok(Facility::LOCAL0));
        for wrong in ["", "LOCAL8", "console"] {
            let why = format!("invalid syslog facility: {wrong}");
            assert_eq!(Facility::parse(wrong), Err(why));
        }
    }

    #[test]
    fn levels_have_their_priorities() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join("log");
        let heard = hear(&place);
        let syslog = open(&place);
        for level in Severity::ALL {
            syslog.send(level, "agent: hello\u{1b}[0m");
        }
        syslog.finish();
        let lines: Vec<String> = Severity::ALL.map(|_| timeless(&next(&heard))).into();
        let expected = [135, 134, 133, 132, 131]
            .map(|priority| format!("<{priority}> consul[PID]: agent: hello [0m"));
        assert_eq!(lines, expected);
        syslog.send(Severity::Err, "nobody is told any more");
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = line(Facility::LOCAL0, Severity::Info, &"ü".repeat(LINE_MAX));
        assert!(long.len() < LINE_MAX + 100);
    }

    #[test]
    fn syslog_may_be_started_anew() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join("log");
        let heard = hear(&place);
        let syslog = open(&place);
        syslog.send(Severity::Info, "one");
        assert!(next(&heard).ends_with(": one"));
        drop(heard);
        std::fs::remove_file(&place).unwrap();
        syslog.send(Severity::Info, "nobody hears this");
        // Its loss is what shows that it has been tried.
        while syslog.0.lost.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let heard = hear(&place);
        syslog.send(Severity::Info, "two");
        assert!(next(&heard).ends_with("agent: 1 lines of the log did not get here"));
        assert!(next(&heard).ends_with(": two"));
        syslog.finish();
    }

    #[test]
    fn a_full_queue_holds_nobody_up() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join("log");
        let heard = hear(&place);
        let syslog = open(&place);
        // Nobody takes what is sent: what fits into the socket and the queue is kept, and the rest is lost at once.
        for _ in 0..20 * WAITING_MAX {
            syslog.send(Severity::Info, "x");
        }
        // Once there is room again, it is said how many.
        while !next(&heard).ends_with("lines of the log did not get here") {}
    }

    #[test]
    fn a_stream_will_do() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join("log");
        let listener = UnixListener::bind(&place).unwrap();
        let syslog = open(&place);
        let (stream, _) = listener.accept().unwrap();
        syslog.send(Severity::Warn, "agent: hello");
        syslog.finish();
        let line = BufReader::new(stream).lines().next().unwrap().unwrap();
        assert_eq!(timeless(&line), "<132> consul[PID]: agent: hello");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_for_a_minute() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join("log");
        let said = std::cell::RefCell::new(Vec::new());
        let says = |line: &str| said.borrow_mut().push(line.to_owned());
        let began = tokio::time::Instant::now();
        let places = [place.clone()];
        let why = Syslog::open(Facility::LOCAL0, &places, says).await;
        assert_eq!(
            why.unwrap_err().to_string(),
            "Syslog setup did not succeed within timeout (1m0s)."
        );
        assert_eq!(began.elapsed(), 12 * TRY_AGAIN);
        assert_eq!(said.borrow().len(), 25);
        assert!(said.borrow()[0].starts_with("==> Syslog setup error: "));

        let opening = Syslog::open(Facility::LOCAL0, &places, |_| ());
        let appear = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            hear(&place)
        };
        let (opened, heard) = tokio::join!(opening, appear);
        let syslog = opened.unwrap();
        syslog.send(Severity::Info, "late");
        assert!(next(&heard).ends_with(": late"));
        syslog.finish();
    }
}
