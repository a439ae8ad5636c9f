//! The real network: one UDP and one TCP socket on the same port.
//!
//! Over a connection go one request and one answer, each behind its length in four bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connections::{Connections, Place};
use crate::figures;
use crate::keyring::{Change, Changed};
use crate::known::{Write, Written};
use crate::network::{
    Arrival, DATAGRAM_SIZE_MAX, EXCHANGE_SIZE_MAX, Network, NetworkFuture, Screen,
};

/// How many requests may wait for the member's task; a connection whose request finds no room waits.
const REQUESTS_WAITING_MAX: usize = 16;

/// How long a connection may be silent before it has said which pool it is for.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection from another member may take in all.
const SERVE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much memory is taken at a time for what arrives.
const READ_SIZE: usize = 64 << 10;

/// How often to try for a port that is free for UDP as well as for TCP, if any will do.
const BIND_ATTEMPTS: usize = 16;

/// The UDP and TCP sockets of a member.
#[derive(Debug)]
pub struct Sockets {
    local: SocketAddr,
    udp: UdpSocket,
    requests: AsyncMutex<mpsc::Receiver<Arrival>>,
    tasks: Mutex<JoinSet<()>>,
    screen: Arc<OnceLock<Screen>>,
}

impl Sockets {
    /// Listens on an address; with port 0 on one that is free for both.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = if address.port() == 0 {
            BIND_ATTEMPTS
        } else {
            1
        };
        let (tcp, udp) = loop {
            attempts -= 1;
            let tcp = TcpListener::bind(address).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => break (tcp, udp),
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => {}
            }
        };
        let (sender, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        let mut tasks = JoinSet::new();
        let local = tcp.local_addr()?;
        let screen = Arc::new(OnceLock::new());
        tasks.spawn(accept(tcp, sender, Arc::clone(&screen)));
        Ok(Self {
            local,
            udp,
            requests: AsyncMutex::new(requests),
            tasks: Mutex::new(tasks),
            screen,
        })
    }

    /// Where they listen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn datagram(buffer: &[u8], (length, from): (usize, SocketAddr)) -> Arrival {
        figures::UDP_RECEIVED.increment(length as u64);
        Arrival::Datagram {
            from,
            bytes: Bytes::copy_from_slice(&buffer[..length]),
        }
    }
}

impl Network for Sockets {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn send(&self, to: SocketAddr, datagram: Bytes) {
        // A full buffer or a missing route loses it, as any network may.
        match self.udp.try_send_to(&datagram, to) {
            Ok(length) => figures::UDP_SENT.increment(length as u64),
            Err(error) => tracing::trace!(%to, %error, "a datagram was not sent"),
        }
    }

    fn exchange(
        &self,
        to: SocketAddr,
        request: Bytes,
        limit: Duration,
    ) -> NetworkFuture<'static, io::Result<Bytes>> {
        Box::pin(async move {
            let exchange = async {
                let mut stream = TcpStream::connect(to).await?;
                figures::TCP_CONNECT.increment(1);
                write_frame(&mut stream, &request).await?;
                read_frame(&mut stream).await
            };
            timeout(limit, exchange)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }

    fn arrival(&self) -> NetworkFuture<'_, Arrival> {
        Box::pin(async move {
            // One more than we believe, so that a longer one isn't taken for its beginning.
            let mut buffer = [0; DATAGRAM_SIZE_MAX + 1];
            let mut requests = self.requests.lock().await;
            loop {
                tokio::select! {
                    biased;
                    received = self.udp.recv_from(&mut buffer) => match received {
                        Ok(received) => return Self::datagram(&buffer, received),
                        // Linux reports here that a datagram sent before met a closed port.
                        Err(error) => tracing::trace!(%error, "no datagram was received"),
                    },
                    Some(request) = requests.recv() => return request,
                }
            }
        })
    }

    fn arrived(&self) -> Option<Arrival> {
        let mut buffer = [0; DATAGRAM_SIZE_MAX + 1];
        if let Ok(received) = self.udp.try_recv_from(&mut buffer) {
            return Some(Self::datagram(&buffer, received));
        }
        self.requests.try_lock().ok()?.try_recv().ok()
    }

    fn screen(&self, screen: Screen) {
        // Sockets belong to one member.
        let _ = self.screen.set(screen);
    }

    fn close(&self) -> NetworkFuture<'_, ()> {
        Box::pin(async move {
            let mut tasks =
                std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            tasks.shutdown().await;
        })
    }

    fn write(&self, write: Write) -> NetworkFuture<'static, Option<Written>> {
        Box::pin(in_a_thread("known members", move || write.run()))
    }

    fn change_keys(&self, change: Change) -> NetworkFuture<'static, Option<Changed>> {
        Box::pin(in_a_thread("keyring", move || change.run()))
    }
}

/// Does what waits for the disk elsewhere.
async fn in_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let run = move || {
        // Nobody may be waiting any more.
        let _ = done.send(work());
    };
    let name = name.to_owned();
    std::thread::Builder::new().name(name).spawn(run).ok()?;
    result.await.ok()
}

/// Accepts connections until it is aborted.
async fn accept(
    listener: TcpListener,
    requests: mpsc::Sender<Arrival>,
    screen: Arc<OnceLock<Screen>>,
) {
    let open = Arc::new(Connections::default());
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no gossip connection could be accepted");
                // Out of files: they come back as connections end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        figures::TCP_ACCEPT.increment(1);
        let place = loop {
            match open.place(from.ip()) {
                Some(place) => break place,
                None => open.ended.notified().await,
            }
        };
        let id = place.id();
        let (requests, screen) = (requests.clone(), Arc::clone(&screen));
        let task = tasks.spawn(async move {
            let served = serve(stream, from, &requests, &screen, &place);
            if let Ok(Err(error)) = timeout(SERVE_TIMEOUT, served).await {
                tracing::debug!(%from, %error, "a gossip connection ended early");
            }
        });
        open.served_by(id, task);
    }
}

async fn serve(
    mut stream: TcpStream,
    from: SocketAddr,
    requests: &mpsc::Sender<Arrival>,
    screen: &OnceLock<Screen>,
    place: &Place,
) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    let begun = async {
        let length = read_length(&mut stream).await?;
        let beginning = length.min(Screen::SIZE);
        place.take(beginning)?;
        read_up_to(&mut stream, &mut bytes, beginning).await?;
        Ok::<usize, io::Error>(length)
    };
    let length = timeout(BEGIN_TIMEOUT, begun)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let is_hopeless = screen
        .get()
        .is_some_and(|screen| screen.is_hopeless(&bytes));
    if !is_hopeless {
        while bytes.len() < length {
            let next = (length - bytes.len()).min(READ_SIZE);
            place.take(next)?;
            let wanted = bytes.len() + next;
            read_up_to(&mut stream, &mut bytes, wanted).await?;
        }
        place.whole();
    }
    let missing = length - bytes.len();
    let (answer, answered) = oneshot::channel();
    let request = Arrival::Request {
        from,
        bytes: bytes.freeze(),
        answer,
    };
    if requests.send(request).await.is_ok()
        && let Ok(answer) = answered.await
    {
        place.answered();
        write_frame(&mut stream, &answer).await?;
        // Were the connection closed before the other side has said everything, it would never read this.
        let rest = &mut stream.take(missing as u64);
        tokio::io::copy_buf(
            &mut tokio::io::BufReader::with_capacity(4096, rest),
            &mut tokio::io::sink(),
        )
        .await?;
    }
    Ok(())
}

async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > EXCHANGE_SIZE_MAX {
        return Err(io::Error::other("too much to say"));
    }
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    figures::TCP_SENT.increment(bytes.len() as u64 + 4);
    stream.shutdown().await
}

/// Reads as much as was announced, taking memory only for what has arrived.
async fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = read_length(stream).await?;
    let mut bytes = BytesMut::new();
    read_up_to(stream, &mut bytes, length).await?;
    Ok(bytes.freeze())
}

async fn read_length(stream: &mut TcpStream) -> io::Result<usize> {
    let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
    if length > EXCHANGE_SIZE_MAX {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is longer than any of ours"
        )));
    }
    Ok(length)
}

async fn read_up_to(stream: &mut TcpStream, bytes: &mut BytesMut, length: usize) -> io::Result<()> {
    while bytes.len() < length {
        let missing = length - bytes.len();
        bytes.reserve(missing.min(READ_SIZE));
        let read = (&mut *stream).take(missing as u64).read_buf(bytes).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
