//! The seam to the network: datagrams that may get lost, and exchanges over connections.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::keyring::{Change, Changed};
use crate::known::{Write, Written};
use crate::packet::{self, FRONT_SIZE_MAX};

/// The largest datagram that is sent or believed.
pub const DATAGRAM_SIZE_MAX: usize = 1400;

/// The largest request or answer over a connection: what 30,000 members with much to tell take.
pub const EXCHANGE_SIZE_MAX: usize = 16 << 20;

/// What a network's method promises.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a member reaches the others: sockets, or a simulation.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Where this end listens.
    fn local(&self) -> SocketAddr;

    /// Sends a datagram, or loses it; never waits.
    fn send(&self, to: SocketAddr, datagram: Bytes);

    /// Connects, sends a request, and waits for its answer.
    ///
    /// The answer has at most [`EXCHANGE_SIZE_MAX`] bytes, and no memory is taken by a length that was merely told.
    fn exchange(
        &self,
        to: SocketAddr,
        request: Bytes,
        timeout: Duration,
    ) -> NetworkFuture<'static, io::Result<Bytes>>;

    /// The next thing that arrives. It may be dropped and called again without losing anything.
    fn arrival(&self) -> NetworkFuture<'_, Arrival>;

    /// The next thing if it is already there, so that what waits is read before overdue timers fire.
    fn arrived(&self) -> Option<Arrival>;

    /// Tells how requests begin that are worth reading. Of others it is enough to hand over the beginning.
    fn screen(&self, screen: Screen) {
        let _ = screen;
    }

    /// Stops listening; nothing arrives after this.
    fn close(&self) -> NetworkFuture<'_, ()>;

    /// Writes to the file of known members; `None` if nobody knows how that went.
    ///
    /// Sockets give it to a thread, so that a slow disk doesn't make a member look dead; a simulation does it here.
    fn write(&self, write: Write) -> NetworkFuture<'static, Option<Written>> {
        let written = write.run();
        Box::pin(async move { Some(written) })
    }

    /// Changes the keys and their file; `None` if nobody knows how that went.
    ///
    /// It waits for the disk, so the same holds as for [`write`](Self::write): all members change their keys at the
    /// same moment, and none of them may look dead meanwhile.
    fn change_keys(&self, change: Change) -> NetworkFuture<'static, Option<Changed>> {
        let changed = change.run();
        Box::pin(async move { Some(changed) })
    }

    /// Wraps the member's one task. The simulation holds it up here, as a machine without time to spare would.
    fn run(&self, task: NetworkFuture<'static, ()>) -> NetworkFuture<'static, ()> {
        task
    }
}

/// How the requests of a pool begin.
#[derive(Debug, Clone)]
pub struct Screen {
    pub(crate) label: String,
    pub(crate) is_sealed: bool,
}

impl Screen {
    /// After so many bytes it is clear whether a request belongs to the pool.
    pub const SIZE: usize = FRONT_SIZE_MAX;

    /// Whether a request that begins so, with [`SIZE`](Self::SIZE) bytes or all that it has, can't be one of the pool.
    pub fn is_hopeless(&self, beginning: &[u8]) -> bool {
        packet::front_of(beginning)
            .is_none_or(|front| front.label != self.label || front.is_sealed != self.is_sealed)
    }
}

/// Something that arrived.
#[derive(Debug)]
pub enum Arrival {
    /// A datagram.
    Datagram {
        /// Who seems to have sent it.
        from: SocketAddr,
        /// The bytes.
        bytes: Bytes,
    },
    /// A request over a connection.
    Request {
        /// The other end.
        from: SocketAddr,
        /// The bytes, at most [`EXCHANGE_SIZE_MAX`].
        bytes: Bytes,
        /// Takes the answer; dropped, the connection is closed without one.
        answer: oneshot::Sender<Bytes>,
    },
}
