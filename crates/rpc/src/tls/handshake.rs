//! Handshakes: how a stream becomes a TLS stream, within bounds of time and number.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::{IpAddr, Ipv4Addr, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{PeerIdentity, Tls};

/// How long a handshake may take, in either direction.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes of one kind that may be on their way at the same time.
/// Each costs some 20 kB, and an honest one takes milliseconds.
pub(super) const HANDSHAKES_MAX: usize = 512;

/// A stream inside of TLS, whichever side began it.
pub type Stream<T> = tokio_rustls::TlsStream<T>;

/// Why there is no TLS stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It took too long.
    #[error("TLS handshake timed out")]
    TimedOut,
    /// So many others came meanwhile that this one, the oldest, had to go.
    #[error("TLS handshake gave way to newer ones")]
    Displaced,
    /// The datacenter can't be part of a name.
    #[error("{0:?} can't be the name in a certificate")]
    Name(String),
    /// The other side doesn't speak TLS as we do, or a certificate was refused, by us or by them.
    #[error("TLS handshake failed: {0}")]
    Failed(#[source] io::Error),
    /// Reading the files anew took away what this needs.
    #[error("TLS is not configured for this any more")]
    Gone,
}

/// Takes TLS connections.
#[derive(Clone, Debug)]
pub struct Incoming {
    tls: Tls,
    face: Face,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Rpc,
    Https,
}

impl Incoming {
    pub(super) fn rpc(tls: Tls) -> Self {
        let face = Face::Rpc;
        Self { tls, face }
    }

    pub(super) fn https(tls: Tls) -> Self {
        let face = Face::Https;
        Self { tls, face }
    }

    /// Performs a handshake with a client, and says who that is.
    ///
    /// If more of them come at a time than are bounded, the oldest is given up:
    /// whoever is slow, or pretends to be, gives way to whoever is quick.
    ///
    /// # Errors
    /// When there is no TLS stream in the end; the connection is closed then.
    pub async fn accept<T>(&self, stream: T) -> Result<(Stream<T>, PeerIdentity), HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let (config, handshakes) = self.parts();
        let config = config.ok_or(HandshakeError::Gone)?;
        let turn = handshakes.enter();
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = tokio::select! {
            biased;
            () = turn.displaced() => return Err(HandshakeError::Displaced),
            done = timeout(HANDSHAKE_TIMEOUT, handshake) => done
                .map_err(|_| HandshakeError::TimedOut)?
                .map_err(HandshakeError::Failed)?,
        };
        let identity = PeerIdentity::of(stream.get_ref().1.peer_certificates());
        Ok((Stream::Server(stream), identity))
    }

    fn parts(&self) -> (Option<Arc<ServerConfig>>, &Arc<Handshakes>) {
        let current = self.tls.0.current.load();
        match self.face {
            Face::Rpc => (current.incoming.clone(), &self.tls.0.rpc_handshakes),
            Face::Https => (current.https.clone(), &self.tls.0.https_handshakes),
        }
    }
}

/// Makes TLS connections to servers.
///
/// How many at a time is bounded by whoever calls: each call has its own stream already.
#[derive(Clone, Debug)]
pub struct Outgoing {
    tls: Tls,
}

impl Outgoing {
    pub(super) fn new(tls: Tls) -> Self {
        Self { tls }
    }

    /// Performs a handshake with a server of this datacenter, and says who that is.
    /// The chain of its certificate is checked always, its name as configured.
    ///
    /// # Errors
    /// When there is no TLS stream in the end; the connection is closed then.
    pub async fn connect<T>(
        &self,
        stream: T,
        datacenter: &str,
    ) -> Result<(Stream<T>, PeerIdentity), HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.tls.0.current.load().outgoing.clone();
        let config = config.ok_or(HandshakeError::Gone)?;
        let name = self.tls.0.config.server_of(datacenter);
        let name = match ServerName::try_from(name.clone()) {
            Ok(name) => name,
            Err(_) if self.tls.0.config.verify_server_hostname => {
                return Err(HandshakeError::Name(name));
            }
            // Nobody checks it; an address is a name that isn't sent.
            Err(_) => ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0]))),
        };
        let handshake = TlsConnector::from(config).connect(name, stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| HandshakeError::TimedOut)?
            .map_err(HandshakeError::Failed)?;
        let identity = PeerIdentity::of(stream.get_ref().1.peer_certificates());
        Ok((Stream::Client(stream), identity))
    }
}

/// The handshakes of one kind that are on their way, oldest first.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    turns: BTreeMap<u64, Arc<Notify>>,
}

impl Handshakes {
    fn enter(self: &Arc<Self>) -> Turn {
        let displaced = Arc::new(Notify::new());
        let mut open = self.lock();
        if open.turns.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = open.turns.pop_first()
        {
            // Stored if it isn't waiting yet, so it can't be missed.
            oldest.notify_one();
        }
        let number = open.next;
        open.next += 1;
        open.turns.insert(number, Arc::clone(&displaced));
        drop(open);
        Turn {
            handshakes: Arc::clone(self),
            number,
            displaced,
        }
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.lock().turns.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // No code that could panic runs under it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be one of the handshakes.
struct Turn {
    handshakes: Arc<Handshakes>,
    number: u64,
    displaced: Arc<Notify>,
}

impl Turn {
    async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.handshakes.lock().turns.remove(&self.number);
    }
}
