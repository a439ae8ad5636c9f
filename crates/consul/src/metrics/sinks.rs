//! Those who keep figures elsewhere, each in the form that the original speaks to it.
//!
//! statsd gets datagrams of lines; statsite the same lines on a connection, which is made again when it breaks; the daemon of
//! Datadog gets lines with tags.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::feed::letters;
use super::instrument::{Instrument, Kind};
use super::names::{Names, plain};
use super::telemetry::Address;

/// How much one datagram holds, as the original's: it passes through every Ethernet in one piece.
const DATAGRAM_MAX: usize = 1400;

/// How much waits for statsite while it is away; further lines are lost, and counted as such.
const WAITING_MAX: usize = 1 << 20;

/// How long statsite may take to let us in, or to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an attempt to reach statsite is from the next one, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// One who keeps figures elsewhere.
#[derive(Debug)]
pub(super) enum Sink {
    /// By datagrams.
    Datagrams(Datagrams),
    /// On a connection.
    Connection(Connection),
}

impl Sink {
    /// A figure to tell.
    pub(super) fn line(&mut self, names: &Names, instrument: &Instrument, value: f64) {
        match self {
            Self::Datagrams(sink) => sink.line(names, instrument, value),
            Self::Connection(sink) => sink.line(names, instrument, value),
        }
    }

    /// Sends what was gathered; returns how many lines could not be since the last time.
    pub(super) fn flush(&mut self) -> u64 {
        match self {
            Self::Datagrams(sink) => sink.flush(),
            Self::Connection(sink) => sink.flush(),
        }
    }

    /// Ends, having sent what can be sent at once.
    pub(super) fn finish(self) {
        match self {
            Self::Datagrams(_) => {}
            Self::Connection(sink) => sink.finish(),
        }
    }
}

/// Statsd, or the daemon of Datadog.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    to: SocketAddr,
    /// What ends each line to Datadog; `None` for statsd.
    tags: Option<String>,
    packet: String,
    lines: u64,
    lost: u64,
}

impl Datagrams {
    pub(super) fn statsd(to: SocketAddr) -> io::Result<Self> {
        Self::new(to, None)
    }

    /// With these tags on each line.
    ///
    /// The host is neither in the names nor a tag: the daemon adds it, as with the original.
    pub(super) fn dogstatsd(to: SocketAddr, tags: &[String]) -> io::Result<Self> {
        let clean = |tag: &String| tag.replace([',', '|', '\n', '\r'], "_");
        let tags: Vec<String> = tags.iter().map(clean).collect();
        let suffix = match &tags[..] {
            [] => String::new(),
            tags => format!("|#{}", tags.join(",")),
        };
        Self::new(to, Some(suffix))
    }

    fn new(to: SocketAddr, tags: Option<String>) -> io::Result<Self> {
        // Not connected: a daemon that is away for a while would make every second send fail.
        let socket = match to {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
        };
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            to,
            tags,
            packet: String::new(),
            lines: 0,
            lost: 0,
        })
    }

    fn line(&mut self, names: &Names, instrument: &Instrument, value: f64) {
        let Instrument { kind, key, .. } = instrument;
        let line = match &self.tags {
            None => format(&names.wire(*kind, key), *kind, value),
            Some(tags) => {
                let name = plain(&names.without_host(key));
                let letters = letters(*kind);
                match kind {
                    Kind::Counter => format!("{name}:{value:.0}|{letters}{tags}\n"),
                    Kind::Gauge | Kind::Sample => format!("{name}:{value:.6}|{letters}{tags}\n"),
                }
            }
        };
        if line.len() > DATAGRAM_MAX {
            self.lost += 1;
            return;
        }
        if self.packet.len() + line.len() > DATAGRAM_MAX {
            self.send();
        }
        self.packet.push_str(&line);
        self.lines += 1;
    }

    fn flush(&mut self) -> u64 {
        self.send();
        std::mem::take(&mut self.lost)
    }

    fn send(&mut self) {
        if self.packet.is_empty() {
            return;
        }
        // Datadog's clients end a datagram without a line break, statsd's with one.
        let bytes = match self.tags {
            None => self.packet.as_bytes(),
            Some(_) => self.packet.trim_end().as_bytes(),
        };
        if self.socket.send_to(bytes, self.to).is_err() {
            self.lost += self.lines;
        }
        self.packet.clear();
        self.lines = 0;
    }
}

fn format(name: &str, kind: Kind, value: f64) -> String {
    let mut line = plain(name);
    let _ = writeln!(line, ":{value:.6}|{}", letters(kind));
    line
}

/// Statsite.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    gathered: String,
    ended: mpsc::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Waiting>,
    wake: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each of whole lines.
    chunks: VecDeque<String>,
    bytes: usize,
    is_closed: bool,
}

impl Connection {
    /// Begins to connect. At first to these addresses; after that its name is looked up anew.
    pub(super) fn start(address: Address, resolved: Vec<SocketAddr>) -> io::Result<Self> {
        Self::start_with(address, resolved, RETRY)
    }

    fn start_with(
        address: Address,
        resolved: Vec<SocketAddr>,
        retry: (Duration, Duration),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let (end, ended) = mpsc::sync_channel(1);
        let work = move || {
            carry(&mine, &address, resolved, retry);
            // Nobody waits any more if it took too long.
            let _ = end.send(());
        };
        thread::Builder::new()
            .name("statsite".to_owned())
            .spawn(work)?;
        Ok(Self {
            shared,
            gathered: String::new(),
            ended,
        })
    }

    fn line(&mut self, names: &Names, instrument: &Instrument, value: f64) {
        let Instrument { kind, key, .. } = instrument;
        let line = format(&names.wire(*kind, key), *kind, value);
        self.gathered.push_str(&line);
    }

    fn flush(&mut self) -> u64 {
        if !self.gathered.is_empty() {
            self.shared.push(std::mem::take(&mut self.gathered));
        }
        self.shared.lost.swap(0, Ordering::Relaxed)
    }

    fn finish(self) {
        self.shared.state().is_closed = true;
        self.shared.wake.notify_all();
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

impl Shared {
    fn push(&self, chunk: String) {
        let mut state = self.state();
        if state.bytes + chunk.len() > WAITING_MAX {
            drop(state);
            self.lose(&chunk);
            return;
        }
        state.bytes += chunk.len();
        state.chunks.push_back(chunk);
        drop(state);
        self.wake.notify_all();
    }

    /// The next lines; `None` when there will be none any more.
    fn next(&self) -> Option<String> {
        let waited = self.wake.wait_while(self.state(), |state| {
            state.chunks.is_empty() && !state.is_closed
        });
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let chunk = state.chunks.pop_front()?;
        state.bytes -= chunk.len();
        Some(chunk)
    }

    fn lose(&self, chunk: &str) {
        let lines = chunk.lines().count();
        self.lost.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// Waits so long, or until the end; returns whether it was that.
    fn pause(&self, delay: Duration) -> bool {
        let waited = self
            .wake
            .wait_timeout_while(self.state(), delay, |state| !state.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries lines to statsite until the end.
fn carry(
    shared: &Shared,
    address: &Address,
    mut resolved: Vec<SocketAddr>,
    (retry_min, retry_max): (Duration, Duration),
) {
    let mut connection: Option<TcpStream> = None;
    let mut delay = retry_min;
    let mut is_away = false;
    while let Some(chunk) = shared.next() {
        let mut stream = loop {
            if let Some(stream) = connection.take() {
                break stream;
            }
            match connect(&resolved) {
                Ok(stream) => {
                    if is_away {
                        tracing::info!("statsite at {address} is there again");
                    }
                    (is_away, delay) = (false, retry_min);
                    connection = Some(stream);
                }
                Err(error) => {
                    if !is_away {
                        tracing::warn!("statsite at {address} can't be reached: {error}");
                    }
                    is_away = true;
                    if shared.pause(delay) {
                        return;
                    }
                    delay = (delay * 2).min(retry_max);
                    // It may have moved.
                    resolved = address.resolve().unwrap_or(resolved);
                }
            }
        };
        match stream.write_all(chunk.as_bytes()) {
            Ok(()) => connection = Some(stream),
            // How much of it arrived is not known; it is not sent twice, or counts would be wrong.
            Err(error) => {
                tracing::debug!("the connection to statsite at {address} broke: {error}");
                shared.lose(&chunk);
            }
        }
    }
}

fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let until = Instant::now() + PATIENCE;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
