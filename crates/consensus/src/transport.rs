//! The seam to the network.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::peer::Peer;

/// What [`Transport::call`] returns.
pub type TransportFuture = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>>;

/// Carries one message to a peer and its answer back.
///
/// Messages may be lost, late, twice or out of order; an answer must belong to the message it answers.
/// On the other side the message goes to [`Consensus::handle`](crate::Consensus::handle), whose result is the answer.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` to `peer`, which is found by its address and must turn out to have the peer's id.
    ///
    /// The caller gives up by dropping the future.
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture;
}

/// Why there was no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer cannot be reached now; try again later.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The call broke; it may have arrived.
    #[error("broken: {0}")]
    Broken(String),
}

/// The transport of a server that is alone: nobody can be reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn call(&self, peer: Peer, _message: Bytes) -> TransportFuture {
        Box::pin(std::future::ready(Err(TransportError::Unreachable(
            peer.address,
        ))))
    }
}
