//! The caller's transport as the Raft library wants it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::time::Instant;

use super::codec::{Chunk, Envelope, Malformed, Request, Response};
use super::machine::CheckpointFile;
use super::{Address, Membership, Types, Vote, from_log_id};
use crate::checkpoint;
use crate::figures::{self, OfPeer};
use crate::peer::{NodeId, Peer};
use crate::standing::Standing;
use crate::transport::{Transport, TransportError};

/// Bytes of a checkpoint in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// How long the last chunk may take, in which the other side checks and installs all of it.
pub(crate) const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// How long any other chunk may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a peer may ask for another offset before the transfer starts anew.
const RESUMES_MAX: usize = 16;

/// How often in a row a piece may get lost before the library decides how to go on.
const FAILURES_MAX: u32 = 8;

/// How long to wait after the first such loss; the later waits are longer.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Makes connections to peers.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    /// Whether this server may speak.
    pub(crate) standing: Standing,
    /// This server.
    pub(crate) me: Peer,
    pub(crate) addresses: Addresses,
    /// How long a message about entries may take.
    pub(crate) timeout: Duration,
}

/// Where members are now. The library keeps a connection as long as the member is one, wherever it moves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    known: Arc<Mutex<BTreeMap<NodeId, Address>>>,
}

impl Addresses {
    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeId, Address>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are the members now.
    pub(crate) fn update(&self, membership: &Membership) {
        let mut known = self.known();
        if membership.nodes().ne(known.iter()) {
            *known = membership
                .nodes()
                .map(|(id, node)| (*id, node.clone()))
                .collect();
        }
    }

    fn peer(&self, peer: &Peer) -> Peer {
        self.known()
            .get(&peer.id)
            .map_or_else(|| peer.clone(), |node| to_peer(peer.id, node))
    }
}

/// The way to one peer.
pub(crate) struct Connection {
    network: Network,
    peer: Peer,
    figures: OfPeer,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: NodeId, node: &Address) -> Connection {
        Connection {
            network: self.clone(),
            figures: OfPeer::new(&node.address),
            peer: to_peer(target, node),
        }
    }
}

pub(crate) fn to_peer(id: NodeId, node: &Address) -> Peer {
    Peer {
        id,
        address: node.address.clone(),
        name: node.name.clone(),
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("refused: {0}")]
    Refused(String),
    #[error("this server is silent, so that another is elected")]
    Silent,
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
}

impl Network {
    /// Sends a message and waits for its answer.
    pub(crate) async fn call(
        &self,
        peer: &Peer,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        if self.standing.is_silent() {
            return Err(CallError::Silent);
        }
        let message = Envelope {
            to: peer.id,
            request,
        }
        .encode();
        let call = self.transport.call(self.addresses.peer(peer), message);
        let answer = tokio::time::timeout(timeout, call)
            .await
            .map_err(|_| CallError::Timeout(timeout))??;
        match Response::decode(&answer) {
            Ok(Response::Refused(reason)) => Err(CallError::Refused(reason)),
            Ok(response) => Ok(response),
            Err(Malformed(reason)) => Err(CallError::Malformed(reason)),
        }
    }
}

impl From<CallError> for RPCError<Types> {
    fn from(error: CallError) -> Self {
        match error {
            // The library waits a little before it tries again.
            CallError::Transport(TransportError::Unreachable(_))
            | CallError::Refused(_)
            | CallError::Silent => Self::Unreachable(Unreachable::from_string(error)),
            CallError::Transport(TransportError::Broken(_))
            | CallError::Timeout(_)
            | CallError::Malformed(_) => Self::Network(NetworkError::from_string(error)),
        }
    }
}

fn unexpected() -> RPCError<Types> {
    CallError::Malformed("it answers another question").into()
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = CheckpointFile;

    // One message to a follower at a time, of which the next takes along all that gathered meanwhile: with 64 proposers
    // that is 60 entries a message and a sync, on followers as well, and 13 µs of processor time for an entry on three
    // servers together (`examples/propose.rs`). Several under way at once would make more and smaller ones of them, and
    // would have to arrive in order, which a transport need not promise.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let timeout = self.network.timeout;
        let (began, count) = (Instant::now(), rpc.entries.len());
        let answer = self
            .network
            .call(&self.peer, Request::Append(rpc), timeout)
            .await;
        if count == 0 {
            figures::note(&self.figures.heartbeat, began);
        } else {
            figures::note(&self.figures.append, began);
            self.figures.entries.increment(count as u64);
        }
        match answer? {
            Response::Append(response) => Ok(response),
            Response::Stranger => {
                let introduction = Request::Introduce(self.network.me.clone());
                let told = self.network.call(&self.peer, introduction, timeout).await;
                told.map(drop)?;
                // The next message finds it ready.
                Err(CallError::Refused(String::from("the log lost its end")).into())
            }
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let began = Instant::now();
        let answer = self
            .network
            .call(&self.peer, Request::Vote(rpc), option.hard_ttl())
            .await;
        figures::note(&figures::ELECT, began);
        match answer? {
            Response::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self
            .network
            .call(&self.peer, Request::PreVote(rpc), option.hard_ttl())
            .await?
        {
            Response::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<super::CommittedLeader, NodeId, Address, CheckpointFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let last = snapshot
            .meta
            .last_log_id
            .map(from_log_id)
            .unwrap_or_default();
        let send = self.send_checkpoint(vote, last, snapshot.snapshot);
        let began = Instant::now();
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = send => {
                figures::note(&self.figures.install, began);
                sent
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self
            .network
            .call(&self.peer, Request::Transfer(req), option.hard_ttl())
            .await?
        {
            Response::Transfer { accepted: true } => Ok(Ok(())),
            Response::Transfer { accepted: false } => {
                Err(CallError::Refused(String::from("the peer does not take over")).into())
            }
            _ => Err(unexpected()),
        }
    }
}

impl Connection {
    async fn send_checkpoint(
        &self,
        vote: Vote,
        last: crate::log::EntryId,
        checkpoint: CheckpointFile,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let broken = |error: io::Error| {
            StreamingError::from(RPCError::from(CallError::Refused(format!(
                "own checkpoint: {error}"
            ))))
        };
        let fingerprint = checkpoint::fingerprint(&*checkpoint.file).map_err(broken)?;
        let length = fingerprint.length;
        let mut offset = 0;
        // An empty piece first: the answer says how much of this file the other side has already.
        let mut size = 0;
        let mut resumes = 0;
        let mut failures = 0;
        loop {
            let mut bytes = vec![0; size];
            checkpoint
                .file
                .read_at(offset, &mut bytes)
                .map_err(broken)?;
            let next = offset + size as u64;
            let is_last = next == length;
            let chunk = Chunk {
                vote,
                last,
                fingerprint,
                offset,
                is_last,
                bytes: Bytes::from(bytes),
            };
            let timeout = if is_last {
                INSTALL_TIMEOUT
            } else {
                CHUNK_TIMEOUT
            };
            let answer = self
                .network
                .call(&self.peer, Request::Snapshot(chunk), timeout)
                .await;
            offset = match answer {
                Ok(Response::SnapshotDone { vote }) => return Ok(SnapshotResponse::new(vote)),
                Ok(Response::SnapshotNext { offset: wanted }) if wanted == next && !is_last => {
                    failures = 0;
                    next
                }
                Ok(Response::SnapshotNext { offset: wanted })
                    if wanted < length && resumes < RESUMES_MAX =>
                {
                    resumes += 1;
                    wanted
                }
                Ok(_) => return Err(unexpected().into()),
                // The library would begin with the newest checkpoint, of which the other side has nothing.
                Err(CallError::Transport(_) | CallError::Timeout(_))
                    if !is_last && failures < FAILURES_MAX =>
                {
                    failures += 1;
                    tokio::time::sleep(FAILURE_PAUSE * failures).await;
                    offset
                }
                Err(error) => return Err(RPCError::from(error).into()),
            };
            let left = length - offset;
            size = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        }
    }
}
