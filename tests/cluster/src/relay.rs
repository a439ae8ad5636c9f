//! What lies between agents: one relay for each, whose address the agent tells the others as its own.
//!
//! Who sends is found out without the agents' help: a datagram comes from its sender's own address, and the socket at
//! the other end of a connection is one that `/proc` shows among its process's files. What comes from elsewhere is passed
//! on as it is.
//!
//! A connection loses nothing and keeps its order, so it can only be cut, stalled or delayed; datagrams can also get
//! lost, arrive twice, and overtake one another.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::agent::{Ports, Spec};
use crate::chance::{Chance, drawn};
use crate::form::own_address;

/// Datagrams that may be under way at a time; further ones are lost, as in a network that is full.
const UNDER_WAY_MAX: usize = 10_000;

/// Connections that one relay serves at a time; further ones wait.
const CONNECTIONS_MAX: usize = 1_000;

/// What happens to what goes from one agent to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It arrives.
    Open,
    /// Connections are closed, datagrams lost.
    Cut,
    /// Nothing arrives and nobody is told; what connections carry waits.
    Stalled,
}

/// The way from one agent to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether it leads there at all.
    pub flow: Flow,
    /// How long everything takes.
    pub delay: Duration,
    /// How many datagrams of a hundred are lost.
    pub lost: u64,
    /// How many of a hundred arrive twice.
    pub doubled: u64,
    /// How many of a hundred are overtaken by others.
    pub overtaken: u64,
}

impl Link {
    /// As it should be.
    pub const OPEN: Self = Self {
        flow: Flow::Open,
        delay: Duration::ZERO,
        lost: 0,
        doubled: 0,
        overtaken: 0,
    };
    /// Closed.
    pub const CUT: Self = Self {
        flow: Flow::Cut,
        ..Self::OPEN
    };
    /// Silent.
    pub const STALLED: Self = Self {
        flow: Flow::Stalled,
        ..Self::OPEN
    };
    /// Of the worst kind that still leads there.
    pub const POOR: Self = Self {
        flow: Flow::Open,
        delay: Duration::from_millis(3),
        lost: 10,
        doubled: 10,
        overtaken: 20,
    };
}

/// How long a datagram that is overtaken takes at most.
const OVERTAKEN: u64 = 40;

#[derive(Debug)]
struct State {
    links: BTreeMap<(usize, usize), Link>,
    processes: BTreeMap<usize, u32>,
    chance: Chance,
}

/// What all relays share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever a link changes, and when all ends.
    changed: watch::Sender<bool>,
    /// Each agent's own address, by which its datagrams are known.
    homes: Vec<IpAddr>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way between two agents; what comes from elsewhere has a free one.
    fn link(&self, from: Option<usize>, to: usize) -> Link {
        let link = from.and_then(|from| self.state().links.get(&(from, to)).copied());
        link.unwrap_or(Link::OPEN)
    }

    fn sender_of_datagram(&self, from: SocketAddr) -> Option<usize> {
        self.homes.iter().position(|home| *home == from.ip())
    }

    /// Whose socket is at the other end of a connection.
    fn sender_of_connection(&self, theirs: SocketAddr, ours: SocketAddr) -> Option<usize> {
        let inode = inode(theirs, ours)?;
        let wanted = format!("socket:[{inode}]");
        let processes = self.state().processes.clone();
        let owner = processes.into_iter().find(|(_, process)| {
            let files = std::fs::read_dir(format!("/proc/{process}/fd"));
            files.is_ok_and(|files| {
                files.flatten().any(|file| {
                    let target = std::fs::read_link(file.path()).unwrap_or_default();
                    target.as_os_str() == wanted.as_str()
                })
            })
        });
        owner.map(|(place, _)| place)
    }
}

/// The inode of the socket that is bound to `theirs` and connected to `ours`.
fn inode(theirs: SocketAddr, ours: SocketAddr) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let (theirs, ours) = (shown(theirs)?, shown(ours)?);
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next()? == theirs && words.next()? == ours;
        // State, queues, timer, retransmissions, owner, timeout, inode.
        is_it.then(|| words.nth(6).map(ToOwned::to_owned)).flatten()
    })
}

/// An address as the kernel's table has it.
fn shown(address: SocketAddr) -> Option<String> {
    match address.ip() {
        IpAddr::V4(ip) => {
            let number = u32::from_ne_bytes(ip.octets());
            Some(format!("{number:08X}:{:04X}", address.port()))
        }
        IpAddr::V6(_) => None,
    }
}

/// The relays of a cluster, served by a thread of their own until they are dropped.
#[derive(Debug)]
pub struct Relays {
    shared: Arc<Shared>,
    /// Where each agent is reached: for gossip, and for calls of members.
    addresses: Vec<(SocketAddr, SocketAddr)>,
    thread: Option<JoinHandle<()>>,
}

/// What one agent's relay listens on.
struct Ears {
    datagrams: UdpSocket,
    gossip: TcpListener,
    calls: TcpListener,
}

impl Relays {
    /// Starts one for each of these agents.
    ///
    /// # Panics
    /// If no sockets can be had.
    pub fn start(specs: &[Spec]) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                links: BTreeMap::new(),
                processes: BTreeMap::new(),
                chance: Chance::new(drawn()),
            }),
            changed: watch::Sender::new(false),
            homes: specs.iter().map(|spec| spec.address.into()).collect(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut addresses = Vec::new();
        let mut serving = Vec::new();
        for (to, spec) in specs.iter().enumerate() {
            let address = own_address();
            let ports = Ports::free(address);
            let serf = SocketAddr::from((address, ports.serf));
            let server = SocketAddr::from((address, ports.server));
            let ears = runtime.block_on(Ears::open(serf, server));
            serving.push((
                to,
                ears.expect("sockets at an address of our own"),
                spec.clone(),
            ));
            addresses.push((serf, server));
        }
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for (to, ears, spec) in serving {
                    ears.serve(&ours, to, &spec);
                }
                let mut changed = ours.changed.subscribe();
                let _ = changed.wait_for(|is_over| *is_over).await;
            });
            // What still runs ends with its runtime.
        });
        Self {
            shared,
            addresses,
            thread: Some(thread),
        }
    }

    /// Where each agent is reached through its relay: for gossip, and for calls of members.
    pub fn addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.addresses.clone()
    }

    /// From now on this process is the agent in that place.
    pub fn belongs(&self, place: usize, process: u32) {
        self.shared.state().processes.insert(place, process);
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<(usize, usize), Link>)) {
        change(&mut self.shared.state().links);
        self.shared.changed.send_modify(|_| {});
    }

    /// Changes the way from one agent to another, and not the way back.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.change(|links| {
            links.insert((from, to), link);
        });
    }

    /// Changes all ways.
    pub fn set_all(&self, link: Link) {
        let count = self.addresses.len();
        self.change(|links| {
            for from in 0..count {
                for to in (0..count).filter(|to| *to != from) {
                    links.insert((from, to), link);
                }
            }
        });
    }

    /// Changes all ways between one agent and the others, both there and back.
    pub fn isolate(&self, place: usize, link: Link) {
        let count = self.addresses.len();
        self.change(|links| {
            for other in (0..count).filter(|other| *other != place) {
                links.insert((place, other), link);
                links.insert((other, place), link);
            }
        });
    }

    /// Everything leads everywhere again.
    pub fn heal(&self) {
        self.change(BTreeMap::clear);
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.shared.changed.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // If it panicked, the test has noticed.
            let _ = thread.join();
        }
    }
}

impl Ears {
    async fn open(serf: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            datagrams: UdpSocket::bind(serf).await?,
            gossip: TcpListener::bind(serf).await?,
            calls: TcpListener::bind(server).await?,
        })
    }

    fn serve(self, shared: &Arc<Shared>, to: usize, spec: &Spec) {
        for (listener, target) in [(self.gossip, spec.serf()), (self.calls, spec.server())] {
            tokio::spawn(pass_connections(Arc::clone(shared), listener, to, target));
        }
        let datagrams = Arc::new(self.datagrams);
        tokio::spawn(pass_datagrams(
            Arc::clone(shared),
            datagrams,
            to,
            spec.serf(),
        ));
    }
}

async fn pass_datagrams(shared: Arc<Shared>, ours: Arc<UdpSocket>, to: usize, target: SocketAddr) {
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok((length, from)) = ours.recv_from(&mut bytes).await else {
            // What an earlier datagram met at a port where nobody listens; the socket is as good as before.
            tokio::task::yield_now().await;
            continue;
        };
        let link = shared.link(shared.sender_of_datagram(from), to);
        let (times, late) = {
            let chance = &mut shared.state().chance;
            let lost = link.flow != Flow::Open || chance.percent(link.lost);
            let times = match (lost, chance.percent(link.doubled)) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            };
            let late = chance
                .percent(link.overtaken)
                .then(|| chance.between(1, OVERTAKEN));
            (times, late.map_or(Duration::ZERO, Duration::from_millis))
        };
        let datagram: Arc<[u8]> = bytes[..length].into();
        for _ in 0..times {
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            let (ours, datagram) = (Arc::clone(&ours), Arc::clone(&datagram));
            let delay = link.delay + late;
            tokio::spawn(async move {
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                // Nobody is told of a datagram that could not be sent.
                let _ = ours.send_to(&datagram, target).await;
                drop(place);
            });
        }
    }
}

async fn pass_connections(
    shared: Arc<Shared>,
    listener: TcpListener,
    to: usize,
    target: SocketAddr,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((theirs, address)) = listener.accept().await else {
            continue;
        };
        let ours = listener.local_addr().unwrap_or(target);
        let from = shared.sender_of_connection(address, ours);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // However it ends, both ends are closed then.
            let _ = pass_connection(&shared, theirs, from, to, target).await;
            drop(place);
        });
    }
}

/// Ends when either end closes, or when either way is cut.
async fn pass_connection(
    shared: &Shared,
    theirs: TcpStream,
    from: Option<usize>,
    to: usize,
    target: SocketAddr,
) -> io::Result<()> {
    let Some(from) = from else {
        let mut theirs = theirs;
        let mut there = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut theirs, &mut there).await?;
        return Ok(());
    };
    theirs.set_nodelay(true)?;
    let mut changed = shared.changed.subscribe();
    if wait_until_open(shared, &mut changed, from, to)
        .await
        .is_none()
    {
        return Ok(());
    }
    let there = TcpStream::connect(target).await?;
    there.set_nodelay(true)?;
    let (their_reader, their_writer) = theirs.into_split();
    let (there_reader, there_writer) = there.into_split();
    let forth = pump(shared, their_reader, there_writer, from, to);
    let back = pump(shared, there_reader, their_writer, to, from);
    // A cut of either way closes both; an orderly end of one lets the other finish.
    tokio::try_join!(forth, back).map(drop)
}

/// The link, as soon as something may pass; `None` if it is cut.
async fn wait_until_open(
    shared: &Shared,
    changed: &mut watch::Receiver<bool>,
    from: usize,
    to: usize,
) -> Option<Link> {
    loop {
        changed.borrow_and_update();
        let link = shared.link(Some(from), to);
        match link.flow {
            Flow::Open => return Some(link),
            Flow::Cut => return None,
            Flow::Stalled => changed.changed().await.ok()?,
        }
    }
}

async fn pump(
    shared: &Shared,
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    from: usize,
    to: usize,
) -> io::Result<()> {
    let cut = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let mut changed = shared.changed.subscribe();
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = tokio::select! {
            biased;
            changed = changed.changed() => {
                changed.map_err(|_| cut())?;
                if shared.link(Some(from), to).flow == Flow::Cut {
                    return Err(cut());
                }
                continue;
            }
            read = reader.read(&mut bytes) => read?,
        };
        let link = wait_until_open(shared, &mut changed, from, to).await;
        let link = link.ok_or_else(cut)?;
        if !link.delay.is_zero() {
            sleep(link.delay).await;
        }
        if length == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&bytes[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_at_the_other_end_is_found() {
        let listener = std::net::TcpListener::bind((own_address(), 0)).unwrap();
        let there = listener.local_addr().unwrap();
        let here = std::net::TcpStream::connect(there).unwrap();
        let found = inode(here.local_addr().unwrap(), there).unwrap();
        let ours = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut targets = ours.map(|file| std::fs::read_link(file.path()).unwrap_or_default());
        let wanted = format!("socket:[{found}]");
        assert!(targets.any(|target| target.as_os_str() == wanted.as_str()));
        assert_eq!(inode(there, there), None);
    }
}
