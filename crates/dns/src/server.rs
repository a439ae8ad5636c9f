//! The sockets: UDP and TCP on one port.
//!
//! One task takes all datagrams, and answers those at once that it can: on a server nothing has to be waited for.
//! A connection has a task of its own, and its questions are answered one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use rpc::Cluster;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Config;
use crate::datagrams::{Client, Datagrams};
use crate::resolver::{Resolver, Response};

/// Connections that the kernel holds ready; beyond, clients wait for their handshake.
const BACKLOG: i32 = 128;

/// How many free ports are tried for one that is free for UDP and for TCP.
const PORT_ATTEMPTS: usize = 16;

/// What the kernel may keep of datagrams that came in a burst; it takes less where the system allows less.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The longest question that is read; a datagram's rest is cut off, and on a connection it ends the connection.
const QUESTION_MAX: usize = 4096;

/// Datagrams that wait for their answers at a time. One beyond gets none, and is asked again by its client.
const WAITING_MAX: usize = 2048;

/// Datagrams that are taken in a row before answers that have come meanwhile are sent.
const BURST: usize = 32;

/// Connections at a time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// And those of one source, so that it doesn't keep all others out.
const CONNECTIONS_OF_SOURCE_MAX: usize = 128;

/// How long a connection may take for its next question, or for taking an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// Both sockets of a port, taken and not served yet.
#[derive(Debug)]
pub struct Listener {
    udp: Datagrams,
    tcp: TcpListener,
}

impl Listener {
    /// Takes the address for UDP and TCP; port 0 takes any port that is free for both.
    ///
    /// To be called inside of the runtime that will serve it.
    ///
    /// # Errors
    /// If one of the two can't be had.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::bind_both(address) {
                // Somebody else may have the UDP port of the number that TCP was given.
                Err(_) if address.port() == 0 && attempt < PORT_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn bind_both(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let tcp = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        tcp.set_reuse_address(true)?;
        tcp.set_nonblocking(true)?;
        // Linux hands this down to the accepted sockets.
        tcp.set_tcp_nodelay(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(BACKLOG)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let udp = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        udp.set_nonblocking(true)?;
        udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
        udp.bind(&tcp.local_addr()?.into())?;
        let udp = Datagrams::new(UdpSocket::from_std(udp.into())?)?;
        Ok(Self { udp, tcp })
    }

    /// Where it is, with the port that was taken.
    ///
    /// # Errors
    /// If the system doesn't say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until `until` resolves; nothing goes on afterwards.
    pub async fn serve(
        self,
        mut config: Config,
        cluster: Cluster,
        until: impl Future<Output = ()>,
    ) {
        let Self { udp, tcp } = self;
        if let Ok(here) = tcp.local_addr() {
            config.recursors.retain(|it| !is_here(*it, here));
        }
        let resolver = Arc::new(Resolver::new(config, cluster));
        let mut until = pin!(until);
        // A task of its own: as many datagrams as a task may take in a turn must not keep connections out.
        let mut accepting = JoinSet::new();
        let accepted = Arc::clone(&resolver);
        accepting.spawn(async move { connections(&tcp, &accepted).await });
        tokio::select! {
            biased;
            () = &mut until => {}
            () = datagrams(&udp, &resolver) => {}
            _ = accepting.join_next() => {}
        }
        // With it go the connections.
        accepting.shutdown().await;
    }
}

/// Whether a recursor is this server itself, which would ask itself until all who may wait do so.
fn is_here(recursor: SocketAddr, here: SocketAddr) -> bool {
    let (ip, own) = (recursor.ip(), here.ip());
    // An address that can be had is one of the machine's.
    let is_ours = ip == own
        || (ip.is_unspecified() && own.is_loopback())
        || (own.is_unspecified() && std::net::UdpSocket::bind((ip, 0)).is_ok());
    let is_here = is_ours && recursor.port() == here.port();
    if is_here {
        tracing::warn!("recursor {recursor} is this server itself, and isn't asked");
    }
    is_here
}

/// An answer on its way, and whose it is.
type Waiting = BoxFuture<'static, (Vec<u8>, Client)>;

/// Answers datagrams, for ever.
async fn datagrams(socket: &Datagrams, resolver: &Arc<Resolver>) {
    let mut waiting: FuturesUnordered<Waiting> = FuturesUnordered::new();
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        tokio::select! {
            biased;
            Some((answer, client)) = waiting.next(), if !waiting.is_empty() => {
                send(socket, &answer, client).await;
            }
            received = socket.receive(&mut buffer) => {
                let mut next = settle(received);
                let mut left = BURST;
                while let Some((length, client)) = next {
                    let question = &buffer[..length];
                    let response = resolver.respond(question, Transport::Udp, client.address);
                    datagram(socket, response, client, &mut waiting).await;
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                    next = settle(socket.try_receive(&mut buffer));
                }
            }
        }
    }
}

/// What was received, if anything was.
fn settle(received: io::Result<(usize, Client)>) -> Option<(usize, Client)> {
    match received {
        Ok(received) => Some(received),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => {
            // Of a datagram that was sent before; the next one is received all the same.
            tracing::debug!("cannot receive a datagram: {error}");
            None
        }
    }
}

/// Answers at once what can be, and has the rest wait.
async fn datagram(
    socket: &Datagrams,
    response: Response,
    client: Client,
    waiting: &mut FuturesUnordered<Waiting>,
) {
    match response {
        Response::None => {}
        Response::Ready(answer) => send(socket, &answer, client).await,
        Response::Later(mut answer) => {
            // Not `select!`: that this waits for nothing is the point.
            match poll_fn(|context| Poll::Ready(answer.poll_unpin(context))).await {
                Poll::Ready(answer) => send(socket, &answer, client).await,
                Poll::Pending if waiting.len() < WAITING_MAX => {
                    waiting.push(answer.map(move |answer| (answer, client)).boxed());
                }
                Poll::Pending => tracing::warn!("more than {WAITING_MAX} questions wait"),
            }
        }
    }
}

async fn send(socket: &Datagrams, answer: &[u8], client: Client) {
    if let Err(error) = socket.send(answer, client).await {
        tracing::debug!("cannot answer {}: {error}", client.address);
    }
}

/// Answers connections, for ever.
async fn connections(listener: &TcpListener, resolver: &Arc<Resolver>) {
    let mut open: JoinSet<IpAddr> = JoinSet::new();
    let mut sources: BTreeMap<IpAddr, usize> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = open.join_next(), if !open.is_empty() => {
                // Tasks don't panic on what they are sent; should one do so, its source counts one more from then on.
                if let Ok(source) = ended
                    && let Some(count) = sources.get_mut(&source)
                {
                    *count -= 1;
                    if *count == 0 {
                        sources.remove(&source);
                    }
                }
            }
            accepted = listener.accept() => {
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        // Most likely there are too many open files: others must get on to close some.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let source = peer.ip();
                let of_source = sources.get(&source).copied().unwrap_or(0);
                if open.len() >= CONNECTIONS_MAX || of_source >= CONNECTIONS_OF_SOURCE_MAX {
                    tracing::debug!("too many connections for one more from {peer}");
                    continue;
                }
                sources.insert(source, of_source + 1);
                let resolver = Arc::clone(resolver);
                open.spawn(async move {
                    if let Err(error) = connection(stream, peer, &resolver).await {
                        tracing::debug!("the connection of {peer} ended: {error}");
                    }
                    source
                });
            }
        }
    }
}

/// Answers what comes over a connection, in that order, until it ends or takes too long.
async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    resolver: &Arc<Resolver>,
) -> io::Result<()> {
    let mut received = Vec::with_capacity(512);
    loop {
        // The next one has to be here whole by then, however slowly it comes.
        let deadline = Instant::now() + PATIENCE;
        let length = loop {
            if let Some(length) = whole(&received)? {
                break length;
            }
            if timeout_at(deadline, stream.read_buf(&mut received)).await?? == 0 {
                return Ok(());
            }
        };
        let question = &received[2..2 + length];
        let answer = match resolver.respond(question, Transport::Tcp, peer) {
            Response::None => return Ok(()),
            Response::Ready(answer) => answer,
            Response::Later(answer) => answer.await,
        };
        received.drain(..2 + length);
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(2 + answer.len());
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}

/// How long the first message is, if it is here whole. One that is too long to be a question is an error.
fn whole(received: &[u8]) -> io::Result<Option<usize>> {
    let Some(length) = received.first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > QUESTION_MAX {
        let text = "a question that is too long";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok((received.len() >= 2 + length).then_some(length))
}
