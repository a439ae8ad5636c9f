//! What checks are pointed at: something that listens on this machine and behaves as badly as it is told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::checks::exchange::Connection;

/// One thing that a target does with a connection; after the last it hangs up.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Send(Vec<u8>),
    /// A byte now and a byte then.
    Drip,
    /// The same for ever.
    Flood(&'static [u8]),
    /// Nothing, until the other side goes.
    Silence,
}

/// These bytes, and then it hangs up.
pub(super) fn send(bytes: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Act::Send(bytes.into())]
}

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The first line and the others, as they came.
    pub(super) head: String,
    pub(super) body: String,
}

impl Asked {
    /// Method and target.
    pub(super) fn line(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line)
    }
}

type Reply = Arc<dyn Fn(&Asked) -> Vec<Act> + Send + Sync>;

/// A listener; dropping it ends it.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<Asked>>,
    flooded: AtomicU64,
}

impl Target {
    /// One on the loopback, which replies to requests of HTTP as `reply` says.
    pub(super) async fn new(reply: impl Fn(&Asked) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::over_tcp(None, Arc::new(reply)).await
    }

    /// The same over TLS.
    pub(super) async fn encrypted(
        acceptor: TlsAcceptor,
        reply: impl Fn(&Asked) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::over_tcp(Some(acceptor), Arc::new(reply)).await
    }

    async fn over_tcp(acceptor: Option<TlsAcceptor>, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let kept = Arc::clone(&log);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, &log, &reply).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, &log, &reply).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self {
            address,
            log: kept,
            task,
        }
    }

    /// One at a socket of this machine.
    pub(super) fn at(
        path: &Path,
        reply: impl Fn(&Asked) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let reply: Reply = Arc::new(reply);
        let log = Arc::new(Log::default());
        let kept = Arc::clone(&log);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                tokio::spawn(async move { serve(stream, &log, &reply).await });
            }
        });
        Self {
            address: ([0, 0, 0, 0], 0).into(),
            log: kept,
            task,
        }
    }

    /// What was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.log.asked.lock().unwrap().clone()
    }

    /// How many bytes of a flood were taken from it.
    pub(super) fn flooded(&self) -> u64 {
        self.log.flooded.load(Ordering::Relaxed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one request and replies; `None` once the other side is gone.
async fn serve(mut stream: impl Connection, log: &Log, reply: &Reply) -> Option<()> {
    let mut bytes = Vec::new();
    let asked = loop {
        if let Some(asked) = whole(&bytes) {
            break asked;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let acts = reply(&asked);
    log.asked.lock().unwrap().push(asked);
    for act in acts {
        match act {
            Act::Send(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.flush().await.ok()?;
            }
            Act::Drip => {
                let mut pace = tokio::time::interval(Duration::from_millis(5));
                loop {
                    pace.tick().await;
                    stream.write_all(b"x").await.ok()?;
                    stream.flush().await.ok()?;
                }
            }
            Act::Flood(bytes) => loop {
                stream.write_all(bytes).await.ok()?;
                log.flooded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            },
            Act::Silence => while stream.read(&mut [0; 64]).await.ok()? > 0 {},
        }
    }
    stream.shutdown().await.ok()
}

fn whole(bytes: &[u8]) -> Option<Asked> {
    let text = str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let size = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, size)| size.parse().unwrap());
    (body.len() == size).then(|| Asked {
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
