//! The asking side over TCP: connections to servers, made when they are needed and kept while they are.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use wire::compact;

use crate::connection::{self, AskError, Asked, Connection, OnDrop};
use crate::protocol::{Protocol, TLS};
use crate::tls::{Stream, Tls};
use crate::{
    ByteStream, CallError, Calls, Hop, Refusal, Request, Response, RestoreOptions, Restored, Save,
    SaveOptions, ServerAddress, snapshots,
};

/// How a [`Pool`] makes and keeps connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// How long connecting may take, TLS included; default 3 s.
    pub connect_timeout: Duration,
    /// How long a server may take to answer anything but a waiting question, beyond what that asked to wait; default 60 s.
    ///
    /// A server holds a request for 7 s before it says that nobody leads; the rest is for slow disks.
    pub answer_timeout: Duration,
    /// How long a connection is kept that nobody uses; default 120 s, less than the ten minutes of a listener.
    pub idle_max: Duration,
    /// After a failed connect, how long calls fail without another attempt; doubles up to [`Self::retry_delay_max`]; default 50 ms.
    pub retry_delay_min: Duration,
    /// See [`Self::retry_delay_min`]; default 500 ms.
    pub retry_delay_max: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(60),
            idle_max: Duration::from_secs(120),
            retry_delay_min: Duration::from_millis(50),
            retry_delay_max: Duration::from_millis(500),
        }
    }
}

/// How long a message of the log may take to be answered; its sender gives up by itself long before.
const LOG_TIMEOUT: Duration = Duration::from_secs(900);

/// How long a shutdown waits for snapshots on their way.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How many addresses are remembered before those without a connection are forgotten.
const SLOTS_MAX: usize = 4096;

/// Connections to servers. Clones share them.
///
/// For each server there is one connection for requests and one for messages of the log, so that a long answer delays no heartbeat; each snapshot has a connection of its own.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dialer: Dialer,
    config: PoolConfig,
    runtime: Handle,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    open: BTreeMap<(SocketAddr, Protocol), Slot>,
    tasks: JoinSet<()>,
    is_closed: bool,
}

/// What is known of the way to one server.
#[derive(Debug)]
struct Slot {
    connection: Arc<Connection>,
    /// How many attempts in a row have failed before this one.
    failures: u32,
}

/// Makes streams to servers.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    tls: Option<Tls>,
    datacenter: String,
    timeout: Duration,
}

/// A stream to a server.
pub(crate) enum Dialled {
    Plain(TcpStream),
    Tls(Box<Stream<TcpStream>>),
}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Dialer {
    /// A stream to the server at this address.
    ///
    /// # Errors
    /// Nothing was sent then; the text begins as the original's.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        datacenter: &str,
    ) -> Result<Dialled, String> {
        let failed =
            |why: &dyn std::fmt::Display| format!("failed to get conn: dial tcp {address}: {why}");
        let dialled = timeout(self.timeout, async {
            let mut stream = TcpStream::connect(address)
                .await
                .map_err(|error| failed(&plain(&error)))?;
            // Writes are gathered already.
            let _ = stream.set_nodelay(true);
            let Some(outgoing) = self.tls.as_ref().and_then(Tls::outgoing) else {
                return Ok(Dialled::Plain(stream));
            };
            stream.write_u8(TLS).await.map_err(|error| failed(&error))?;
            let datacenter = if datacenter.is_empty() {
                &self.datacenter
            } else {
                datacenter
            };
            let (stream, _) = outgoing
                .connect(stream, datacenter)
                .await
                .map_err(|error| failed(&error))?;
            Ok(Dialled::Tls(Box::new(stream)))
        });
        dialled
            .await
            .unwrap_or_else(|_| Err(failed(&"i/o timeout")))
    }
}

/// What went wrong, without the number of the system's error.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

impl Pool {
    /// A pool without connections. They will live on the runtime that this is called on.
    ///
    /// `datacenter` is this agent's own.
    pub fn new(config: PoolConfig, tls: Option<Tls>, datacenter: &str) -> Self {
        Self(Arc::new(Inner {
            dialer: Dialer {
                tls,
                datacenter: datacenter.to_owned(),
                timeout: config.connect_timeout,
            },
            config,
            runtime: Handle::current(),
            slots: Mutex::default(),
        }))
    }

    /// Sends a message of the log to the server at this address, and gives its answer.
    ///
    /// The caller gives up by dropping the future.
    ///
    /// # Errors
    /// When there is no answer; a message is never refused.
    pub fn log_message(
        &self,
        address: SocketAddr,
        node: &str,
        message: Bytes,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + 'static {
        let deadline = Instant::now() + LOG_TIMEOUT;
        let (protocol, on_drop) = (Protocol::Log, OnDrop::Ignore);
        let asked = self
            .ask(protocol, address, "", message, deadline, on_drop)
            .map_err(|error| match error {
                CallError::NotSent(why) => CallError::NotSent(format!("{node}: {why}")),
                CallError::Broken(_) | CallError::Refused(_) => error,
            });
        let pool = self.clone();
        async move {
            let answer = asked?.await;
            // A pool without owners ends its connections, so a call is one of them.
            drop(pool);
            answer
        }
    }

    /// Runs a task that ends at the latest with this pool.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut slots = self.slots();
        if !slots.is_closed {
            while slots.tasks.try_join_next().is_some() {}
            slots.tasks.spawn_on(task, &self.0.runtime);
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.0.dialer
    }

    /// Ends all connections; calls fail from now on. Returns when no task is left.
    pub async fn shutdown(&self) {
        let mut tasks = {
            let mut slots = self.slots();
            slots.is_closed = true;
            for slot in slots.open.values() {
                slot.connection.stop();
            }
            std::mem::take(&mut slots.tasks)
        };
        // Snapshots on their way hang on their readers, who may never come back.
        let quiet = timeout(SHUTDOWN_TIMEOUT, async {
            while tasks.join_next().await.is_some() {}
        });
        if quiet.await.is_err() {
            tasks.shutdown().await;
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call on the connection to this server, which is made if there is none.
    fn ask(
        &self,
        protocol: Protocol,
        address: SocketAddr,
        datacenter: &str,
        message: Bytes,
        deadline: Instant,
        on_drop: OnDrop,
    ) -> Result<Asked, CallError> {
        let ask_max = protocol.ask_max();
        if message.len() > ask_max {
            // No server would take it.
            let text = format!("a request of more than {ask_max} bytes is too large");
            return Err(Refusal::Failed(Error::Invalid(text)).into());
        }
        // A connection may end just now because it was idle; the one after it is new.
        for _ in 0..3 {
            let connection = self.connection(protocol, address, datacenter)?;
            match connection.ask(message.clone(), deadline, on_drop) {
                Ok(asked) => return Ok(asked),
                Err(AskError::Full(text)) => return Err(CallError::NotSent(text)),
                Err(AskError::Closed) => self.discard(protocol, address, &connection),
            }
        }
        Err(CallError::NotSent(format!(
            "the connection to {address} ends as soon as it is made"
        )))
    }

    fn connection(
        &self,
        protocol: Protocol,
        address: SocketAddr,
        datacenter: &str,
    ) -> Result<Arc<Connection>, CallError> {
        let mut slots = self.slots();
        if slots.is_closed {
            return Err(CallError::NotSent("this agent is stopping".to_owned()));
        }
        let mut failures = 0;
        if let Some(slot) = slots.open.get(&(address, protocol)) {
            match slot.connection.closed() {
                None => return Ok(Arc::clone(&slot.connection)),
                Some(closed) if closed.was_connected => {}
                Some(closed) => {
                    let config = &self.0.config;
                    let delay = config
                        .retry_delay_min
                        .saturating_mul(1 << slot.failures.min(16))
                        .min(config.retry_delay_max);
                    if closed.at.elapsed() < delay {
                        return Err(CallError::NotSent(closed.why));
                    }
                    failures = slot.failures + 1;
                }
            }
        } else if slots.open.len() >= SLOTS_MAX {
            slots
                .open
                .retain(|_, slot| slot.connection.closed().is_none());
        }
        let connection = Connection::new(protocol);
        let task = self.drive(Arc::clone(&connection), address, datacenter.to_owned());
        // Those that have ended leave nothing behind.
        while slots.tasks.try_join_next().is_some() {}
        slots.tasks.spawn_on(task, &self.0.runtime);
        let slot = Slot {
            connection: Arc::clone(&connection),
            failures,
        };
        slots.open.insert((address, protocol), slot);
        Ok(connection)
    }

    /// Makes room for another connection in place of this one, which takes no more calls.
    fn discard(&self, protocol: Protocol, address: SocketAddr, connection: &Arc<Connection>) {
        let mut slots = self.slots();
        let key = (address, protocol);
        if let Some(slot) = slots.open.get(&key)
            && Arc::ptr_eq(&slot.connection, connection)
            // One that could not connect is kept for its delay.
            && connection.closed().is_none_or(|closed| closed.was_connected)
        {
            slots.open.remove(&key);
        }
    }

    fn drive(
        &self,
        connection: Arc<Connection>,
        address: SocketAddr,
        datacenter: String,
    ) -> impl Future<Output = ()> + Send + 'static {
        let dialer = self.0.dialer.clone();
        let idle_max = self.0.config.idle_max;
        async move {
            let dial = async { dialer.dial(address, &datacenter).await };
            connection::run(connection, dial, idle_max).await;
        }
    }

    async fn request(
        self,
        server: ServerAddress,
        hop: Hop,
        request: Request,
    ) -> Result<Response, CallError> {
        let deadline = Instant::now() + self.answer_time(&request);
        let on_drop = if matches!(&request, Request::Read(_, options) if options.index > 0) {
            OnDrop::Cancel
        } else {
            OnDrop::Ignore
        };
        let message =
            compact::to_vec(&(hop, request)).map_err(|error| failed(error.to_string()))?;
        let asked = self.ask(
            Protocol::Requests,
            server.address,
            &server.datacenter,
            Bytes::from(message),
            deadline,
            on_drop,
        )?;
        let answer = asked.await?;
        let answer: Result<Response, Refusal> =
            compact::from_slice(&answer).map_err(|error| failed(error.to_string()))?;
        Ok(answer?)
    }

    /// How long the server may take.
    fn answer_time(&self, request: &Request) -> Duration {
        let waits = match request {
            Request::Read(_, options) if options.index > 0 => options.wait,
            Request::Read(..) | Request::Write(..) | Request::Operate(..) | Request::Ping => {
                Duration::ZERO
            }
        };
        // Bounded, so that a sum of times can't overflow.
        waits.min(Duration::from_secs(24 * 60 * 60)) + self.0.config.answer_timeout
    }
}

fn failed(text: String) -> CallError {
    CallError::Broken(text)
}

impl Calls for Pool {
    fn call(
        &self,
        server: &ServerAddress,
        hop: Hop,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        Box::pin(self.clone().request(server.clone(), hop, request))
    }

    fn save(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: SaveOptions,
    ) -> BoxFuture<'static, Result<Save, CallError>> {
        Box::pin(snapshots::save(self.clone(), server.clone(), hop, options))
    }

    fn restore(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, CallError>> {
        let (pool, server) = (self.clone(), server.clone());
        Box::pin(snapshots::restore(pool, server, hop, options, archive))
    }
}
