//! The engine: accepts connections, counts them, and sees them all to their end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Sleep, sleep, timeout};

use super::Service;
use super::config::Config;
use super::connection;
use super::listener::{Accepted, Acceptor, Listener};

/// How long accepting rests after the system refused, mostly because file descriptors ran out:
/// the next try would fail at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one service over HTTP/1.1.
#[derive(Debug)]
pub struct Engine<S> {
    pub(super) service: S,
    pub(super) config: Config,
    open: AtomicUsize,
    /// Whether connections were turned away since the last one was let in.
    full: AtomicBool,
}

impl<S: Service> Engine<S> {
    /// An engine for this service. Its limits hold over all threads that serve it.
    pub fn new(service: S, config: Config) -> Arc<Self> {
        Arc::new(Self {
            service,
            config,
            open: AtomicUsize::new(0),
            full: AtomicBool::new(false),
        })
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Serves until `shutdown` is ready; then accepts no more, drops connections that wait,
    /// lets answers that are on their way end within
    /// [`Config::shutdown_timeout`], and returns when no task is left.
    ///
    /// Call it once on each thread that is to serve, with clones of the same listeners.
    pub async fn serve(
        self: &Arc<Self>,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut gate = Gate::open(&listeners)?;
        let closing = Arc::new(Closing::default());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = poll_fn(|cx| gate.poll_accept(cx)) => {
                    self.admit(accepted, &closing, &mut connections);
                }
            }
        }
        drop(gate);
        drop(listeners);
        closing.close();
        let ended = timeout(self.config.shutdown_timeout, join_all(&mut connections)).await;
        if ended.is_err() {
            tracing::warn!(
                "{} requests were cut off by the shutdown",
                connections.len()
            );
            connections.abort_all();
            join_all(&mut connections).await;
        }
        Ok(())
    }

    /// Serves one connection over a stream that somebody else made, to its end.
    /// It counts among the open ones, but is never turned away.
    pub async fn serve_stream<T>(self: &Arc<Self>, stream: T, peer: Option<SocketAddr>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        connection::run(self.admission(), Arc::default(), stream, peer).await;
    }

    pub(super) fn admission(self: &Arc<Self>) -> Admission<S> {
        Admission::new(Arc::clone(self))
    }

    fn admit(self: &Arc<Self>, accepted: Accepted, closing: &Arc<Closing>, into: &mut JoinSet<()>) {
        let admission = self.admission();
        let limit = self.config.connections_max;
        if self.connections() > limit {
            connection::turn_away(&accepted);
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!("{limit} connections are open, more are turned away");
            }
            return;
        }
        self.full.store(false, Ordering::Relaxed);
        let closing = Arc::clone(closing);
        match accepted {
            Accepted::Tcp(stream, peer) => {
                into.spawn(connection::run(admission, closing, stream, Some(peer)));
            }
            Accepted::Tls(stream, peer, incoming) => {
                into.spawn(connection::run_tls(
                    admission, closing, stream, peer, incoming,
                ));
            }
            Accepted::Unix(stream) => {
                into.spawn(connection::run(admission, closing, stream, None));
            }
        }
    }
}

async fn join_all(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a request handler panicked: {error}");
    }
}

/// One connection's place among those that may be open.
#[derive(Debug)]
pub(super) struct Admission<S> {
    engine: Arc<Engine<S>>,
}

impl<S> Admission<S> {
    fn new(engine: Arc<Engine<S>>) -> Self {
        engine.open.fetch_add(1, Ordering::Relaxed);
        Self { engine }
    }
}

impl<S> std::ops::Deref for Admission<S> {
    type Target = Engine<S>;

    fn deref(&self) -> &Engine<S> {
        &self.engine
    }
}

impl<S> Drop for Admission<S> {
    fn drop(&mut self) {
        self.engine.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells all connections of one thread that the end has come.
#[derive(Debug, Default)]
pub(super) struct Closing {
    begun: AtomicBool,
    /// Wakes every connection; each registers once in its life, because the waker of a task
    /// doesn't change.
    pub(super) notify: Arc<Notify>,
}

impl Closing {
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits for it; `told` was made before.
    pub(super) async fn wait(&self, told: OwnedNotified) {
        let mut told = pin!(told);
        // Registers first, so that an end between the look and the wait isn't missed.
        let registered = poll_fn(|cx| Poll::Ready(told.as_mut().poll(cx).is_ready())).await;
        if !registered && !self.has_begun() {
            told.await;
        }
    }

    fn close(&self) {
        self.begun.store(true, Ordering::Relaxed);
        self.notify.notify_waiters();
    }
}

/// All listeners of one thread.
struct Gate {
    acceptors: Vec<Acceptor>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    fn open(listeners: &[Listener]) -> io::Result<Self> {
        let acceptors = listeners
            .iter()
            .map(Listener::acceptor)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            acceptors,
            pause: None,
        })
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            for acceptor in &self.acceptors {
                match acceptor.poll_accept(cx) {
                    Poll::Ready(Ok(accepted)) => return Poll::Ready(accepted),
                    // The client was gone before we looked.
                    Poll::Ready(Err(error)) if is_about_one_client(&error) => {
                        cx.waker().wake_by_ref();
                    }
                    Poll::Ready(Err(error)) => {
                        tracing::warn!("cannot accept connections: {error}");
                        self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                    }
                    Poll::Pending => {}
                }
            }
            if self.pause.is_none() {
                return Poll::Pending;
            }
        }
    }
}

fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
