//! The log's messages over the connections that requests use as well.

use std::net::SocketAddr;

use bytes::Bytes;
use consensus::{Peer, Transport, TransportError, TransportFuture};
use rpc::{CallError, Pool};

/// Carries the log's messages to its peers.
#[derive(Debug, Clone)]
pub struct PoolTransport(Pool);

impl PoolTransport {
    /// Over these connections.
    pub fn new(pool: Pool) -> Self {
        Self(pool)
    }
}

impl Transport for PoolTransport {
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture {
        let address: SocketAddr = match peer.address.parse() {
            Ok(address) => address,
            Err(error) => {
                let why = format!("{}: {error}", peer.address);
                return Box::pin(std::future::ready(Err(TransportError::Unreachable(why))));
            }
        };
        let answer = self.0.log_message(address, &peer.name, message);
        Box::pin(async move { answer.await.map_err(error) })
    }
}

/// Only what was provably not sent may count as never having happened.
fn error(error: CallError) -> TransportError {
    match error {
        CallError::NotSent(why) => TransportError::Unreachable(why),
        CallError::Broken(why) => TransportError::Broken(why),
        CallError::Refused(refusal) => TransportError::Broken(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rpc::Refusal;

    use super::*;

    #[test]
    fn what_may_have_arrived_is_not_called_unreachable() {
        let unreachable = error(CallError::NotSent("x".to_owned()));
        assert!(matches!(unreachable, TransportError::Unreachable(_)));
        for broken in [
            CallError::Broken("x".to_owned()),
            CallError::Refused(Refusal::NotLeader),
        ] {
            assert!(matches!(error(broken), TransportError::Broken(_)));
        }
    }
}
