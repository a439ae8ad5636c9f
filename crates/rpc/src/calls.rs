//! The seam between members: how one asks a certain other, and how that one answers.
//!
//! [`Calls`] is the asking side, [`Serve`] the answering one.
//! In the program the first is a pool of connections and the second stands behind a listener; in the simulator both are joined in memory by a network that fails from a seed.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Answer, Command, Error, Operated, Operation, Question, Reply};
use serde::{Deserialize, Serialize};

use crate::{
    Answered, ByteStream, OperateOptions, ReadOptions, RestoreOptions, Restored, Save, SaveOptions,
    WriteOptions,
};

/// A server as others reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress {
    /// Where it takes calls.
    pub address: SocketAddr,
    /// The name of its node.
    pub node: String,
    /// The datacenter that it serves.
    pub datacenter: String,
}

/// Whether the server that is asked may ask another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hop {
    /// It may pass the request on to the leader.
    First,
    /// A server has passed it on; who doesn't lead says so, and the request goes no further.
    Forwarded,
}

/// What one member asks of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Answer a question. Answered by [`Response::Read`].
    Read(Question, ReadOptions),
    /// Carry out a command. Answered by [`Response::Write`].
    Write(Command, WriteOptions),
    /// Do or tell something beside the state. Answered by [`Response::Operate`].
    Operate(Operation, OperateOptions),
    /// Say that you are there. Answered by [`Response::Ping`].
    Ping,
}

impl Request {
    /// Whether it may be asked twice without doing anything twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Read(..) | Self::Ping => true,
            Self::Operate(operation, _) => match operation {
                Operation::Peers
                | Operation::RaftConfiguration
                | Operation::Keyring(_)
                | Operation::ResolveToken
                | Operation::SessionRenew(_)
                | Operation::UpdateCoordinate(_)
                | Operation::Promise { .. } => true,
                Operation::RaftRemovePeer(_) | Operation::FireEvent(_) => false,
            },
            Self::Write(..) => false,
        }
    }
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    /// The answer to a question.
    Read(Answered<Answer>),
    /// What a command gave.
    Write(Reply),
    /// What an operation gave.
    Operate(Operated),
    /// It is there.
    Ping,
}

/// Why a server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// It was passed on to a server that does not lead; nothing was done.
    #[error("not the leader")]
    NotLeader,
    /// It was tried.
    #[error(transparent)]
    Failed(Error),
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request provably did not reach the server: nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// It may have reached the server, and may have been carried out.
    #[error("{0}")]
    Broken(String),
    /// The server answered.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Asks members that are reached by their address.
///
/// A call ends when its future is dropped, when the connection breaks, or at a deadline of the implementation's for everything but waiting: a blocking question may wait as long as its options say.
/// Nothing is retried.
pub trait Calls: Send + Sync + 'static {
    /// Asks this server.
    fn call(
        &self,
        server: &ServerAddress,
        hop: Hop,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, CallError>>;

    /// Asks this server for a snapshot.
    fn save(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: SaveOptions,
    ) -> BoxFuture<'static, Result<Save, CallError>>;

    /// Sends a snapshot to this server to replace everything by.
    fn restore(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, CallError>>;
}

/// Answers what members ask.
pub trait Serve: Send + Sync + 'static {
    /// Answers a request.
    fn serve(&self, hop: Hop, request: Request) -> BoxFuture<'static, Result<Response, Refusal>>;

    /// Takes a snapshot.
    fn save(&self, hop: Hop, options: SaveOptions) -> BoxFuture<'static, Result<Save, Refusal>>;

    /// Replaces everything by a snapshot.
    fn restore(
        &self,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Refusal>>;

    /// Takes a message of the log's and answers it.
    fn log_message(&self, message: Bytes) -> BoxFuture<'static, Bytes>;
}

/// For a member that has nobody to ask: every call is not sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCalls;

fn nobody<T: Send + 'static>() -> BoxFuture<'static, Result<T, CallError>> {
    Box::pin(std::future::ready(Err(CallError::NotSent(
        "this server runs alone".to_owned(),
    ))))
}

impl Calls for NoCalls {
    fn call(
        &self,
        _: &ServerAddress,
        _: Hop,
        _: Request,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        nobody()
    }

    fn save(
        &self,
        _: &ServerAddress,
        _: Hop,
        _: SaveOptions,
    ) -> BoxFuture<'static, Result<Save, CallError>> {
        nobody()
    }

    fn restore(
        &self,
        _: &ServerAddress,
        _: Hop,
        _: RestoreOptions,
        _: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, CallError>> {
        nobody()
    }
}
