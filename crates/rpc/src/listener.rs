//! The answering side over TCP: one port for everything that members ask of a server.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::answering::{self, Shared};
use crate::frame::Room;
use crate::protocol::{Protocol, TLS, VERSION};
use crate::sources::{Full, Rooms, Seat, Sources};
use crate::tls::{PeerIdentity, Tls};
use crate::{Serve, snapshots};

/// The bounds of a [`Listener`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// How many connections may be open; a further one is closed at once, and so is one beyond a quarter of them from the same address.
    /// Default 16,384. Each holds a descriptor, so it has to stay below what the process may open.
    pub connections_max: usize,
    /// How many requests may be answered at the same time, those that wait included; a further one is refused. Default 262,144.
    pub requests_max: usize,
    /// How many bytes the requests have together that are being answered, those that wait included, and of those from one address a quarter; a further one is refused. Default 512 MiB.
    pub request_bytes_max: usize,
    /// How many bytes of requests that are not whole all connections may hold, and those from one address half of it; the connection that brings more is closed. Default 256 MiB.
    pub unfinished_bytes_max: usize,
    /// How long a connection may take to say what it is for; default 5 s, and again within TLS.
    pub preface_timeout: Duration,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            requests_max: 262_144,
            request_bytes_max: 512 << 20,
            unfinished_bytes_max: 256 << 20,
            preface_timeout: Duration::from_secs(5),
        }
    }
}

/// How long nothing is accepted after the system had no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A port on which members ask.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    config: ListenerConfig,
}

impl Listener {
    /// Listens on an address; port 0 takes any free one.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: SocketAddr, config: ListenerConfig) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self { socket, config })
    }

    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Lets `serve` answer all that comes, until `stop` is ready; then closes every connection and returns when no task is left.
    pub async fn serve(
        self,
        serve: Arc<dyn Serve>,
        tls: Option<Tls>,
        stop: impl Future<Output = ()>,
    ) {
        let Self { socket, config } = self;
        let gate = Arc::new(Gate {
            shared: Arc::new(Shared {
                requests: AtomicUsize::new(0),
                requests_max: config.requests_max,
            }),
            preface_timeout: config.preface_timeout,
            serve,
            tls,
        });
        let rooms = Rooms {
            unfinished: Room::new(config.unfinished_bytes_max),
            running: Room::new(config.request_bytes_max),
        };
        let sources = Sources::new(config.connections_max, rooms);
        let mut connections = JoinSet::new();
        let mut is_full = false;
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) if connections.len() < config.connections_max => {
                    is_full = false;
                    match sources.seat(peer.ip()) {
                        Ok(seat) => {
                            metrics::counter!("consul.rpc.accept_conn").increment(1);
                            let _ = stream.set_nodelay(true);
                            connections.spawn(Arc::clone(&gate).take(stream, peer, seat));
                        }
                        Err(Full { limit, is_new }) => {
                            if is_new {
                                let from = peer.ip();
                                tracing::warn!(
                                    "{limit} connections from {from} are open, more of its are closed"
                                );
                            }
                        }
                    }
                }
                Ok(_) => {
                    if !std::mem::replace(&mut is_full, true) {
                        let limit = config.connections_max;
                        tracing::warn!(
                            "{limit} connections from members are open, more are closed"
                        );
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut is_full, true) {
                        tracing::error!("cannot accept connections from members: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(socket);
        connections.abort_all();
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }
}

/// Whether an error of `accept` is about one connection that has gone already.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection from a member ended by a panic: {error}");
    }
}

/// What every connection passes.
struct Gate {
    serve: Arc<dyn Serve>,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    preface_timeout: Duration,
}

/// Why a connection was not let in; each is told to the log once.
struct Turned(String);

impl<E: fmt::Display> From<E> for Turned {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Gate {
    /// Serves a connection to its end.
    async fn take(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, seat: Seat) {
        match self.admit(stream, &seat).await {
            Ok(why) => tracing::debug!("the connection from {peer} ended: {why}"),
            Err(Turned(why)) => {
                metrics::counter!("consul.rpc.request_error").increment(1);
                tracing::warn!("closed a connection from {peer}: {why}");
            }
        }
    }

    async fn admit(&self, mut stream: TcpStream, seat: &Seat) -> Result<String, Turned> {
        // Whoever hangs up without a word, as load balancers do to see if the port is open, is not worth one.
        let Some(first) = self.byte(&mut stream).await? else {
            return Ok("it said nothing".to_owned());
        };
        if first == TLS {
            let incoming = self.tls.as_ref().and_then(Tls::incoming);
            let incoming =
                incoming.ok_or("it speaks TLS, for which there is no certificate here")?;
            let (mut stream, identity) = incoming.accept(stream).await?;
            let Some(first) = self.byte(&mut stream).await? else {
                return Ok("it said nothing".to_owned());
            };
            return self.open(stream, first, Some(&identity), seat).await;
        }
        if self.tls.as_ref().is_some_and(|tls| !tls.takes_plain()) {
            return Err("it does not speak TLS, which verify_incoming asks for".into());
        }
        self.open(stream, first, None, seat).await
    }

    async fn byte(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<u8>, Turned> {
        let mut byte = [0];
        let count = timeout(self.preface_timeout, stream.read(&mut byte))
            .await
            .map_err(|_| "it did not say in time what it is for")??;
        Ok((count > 0).then_some(byte[0]))
    }

    async fn open<T>(
        &self,
        mut stream: T,
        first: u8,
        identity: Option<&PeerIdentity>,
        seat: &Seat,
    ) -> Result<String, Turned>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let protocol = Protocol::of(first)
            .ok_or_else(|| format!("its first byte {first} is no protocol of ours"))?;
        let version = self.byte(&mut stream).await?;
        if version != Some(VERSION) {
            return Err(
                "it does not speak our version of the protocol; the original's agents can't take part".into(),
            );
        }
        if protocol == Protocol::Log && !self.may_speak_raft(identity) {
            return Err(
                "it wants to speak Raft without a server's certificate, which verify_server_hostname asks for".into(),
            );
        }
        if protocol == Protocol::Log {
            metrics::counter!("consul.rpc.raft_handoff").increment(1);
        }
        let serve = Arc::clone(&self.serve);
        Ok(match protocol {
            Protocol::Snapshot => snapshots::answer(stream, serve).await,
            Protocol::Log | Protocol::Requests => {
                let shared = Arc::clone(&self.shared);
                answering::run(stream, protocol, serve, shared, seat.rooms.clone()).await
            }
        })
    }

    fn may_speak_raft(&self, identity: Option<&PeerIdentity>) -> bool {
        let Some(tls) = self
            .tls
            .as_ref()
            .filter(|tls| tls.raft_needs_server_certificate())
        else {
            return true;
        };
        let config = tls.config();
        identity.is_some_and(|identity| identity.is_server_of(&config.datacenter, &config.domain))
    }
}
