//! The network of a server that has no peers.

use bytes::Bytes;
use consensus::{Peer, Transport, TransportError, TransportFuture};

/// Reaches nobody: for a server that is alone in its cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn call(&self, peer: Peer, _: Bytes) -> TransportFuture {
        Box::pin(async move {
            Err(TransportError::Unreachable(format!(
                "{}: this server runs alone",
                peer.address
            )))
        })
    }
}
