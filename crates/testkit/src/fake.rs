//! A `Cluster` that answers what it was told to, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Answer, Command, Error, Operated, Operation, Peers, Question, Reply};
use rpc::{
    Answered, Backend, ByteStream, Cluster, Meta, OperateOptions, ReadOptions, RestoreOptions,
    Restored, Save, SaveOptions, StreamError, WriteOptions, byte_stream,
};

/// A cluster that is made up.
///
/// Answers are given in the order in which they were put in, whatever the question.
#[derive(Debug, Clone, Default)]
pub struct FakeCluster(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Fake>,
    asked: Vec<Asked>,
    peers: Peers,
}

/// What a [`FakeCluster`] answers next.
#[derive(Debug)]
pub enum Fake {
    /// To a question.
    Answer(Answer, Meta),
    /// To a command.
    Reply(Reply),
    /// To the wish for a snapshot: these pieces, and then perhaps a failure.
    Save(Meta, Vec<Result<Bytes, StreamError>>),
    /// To a restore, once the archive was read to its end.
    Restored(Restored),
    /// To an operation; [`Operation::Peers`] needs none.
    Operated(Operated),
    /// To anything; a restore gets it before its archive is read.
    Error(Error),
    /// What follows comes only when it was asked for a second time.
    Wait,
}

/// What a [`FakeCluster`] was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A question.
    Read(Question, ReadOptions),
    /// A command.
    Write(Command, WriteOptions),
    /// The wish for a snapshot.
    Save(SaveOptions),
    /// An operation other than [`Operation::Peers`].
    Operate(Operation, OperateOptions),
    /// A restore, and what was read of its archive.
    Restore(RestoreOptions, Result<Bytes, StreamError>),
}

impl FakeCluster {
    /// A cluster that knows no answers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle that others ask.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// Puts in a further answer.
    pub fn answer(&self, answer: Fake) {
        self.state().answers.push_back(answer);
    }

    /// Says who leads and votes.
    pub fn set_peers(&self, peers: Peers) {
        self.state().peers = peers;
    }

    /// What it was asked since the last look.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    /// How many answers nobody has asked for.
    pub fn left_over(&self) -> usize {
        self.state().answers.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the question and gives the next answer, at once or at the second poll.
    async fn next(self, asked: Asked) -> Fake {
        let is_delayed = {
            let mut state = self.state();
            state.asked.push(asked);
            let is_delayed = matches!(state.answers.front(), Some(Fake::Wait));
            if is_delayed {
                state.answers.pop_front();
            }
            is_delayed
        };
        if is_delayed {
            tokio::task::yield_now().await;
        }
        let nothing = || Fake::Error(Error::Internal("the fake cluster has no answer".to_owned()));
        self.state().answers.pop_front().unwrap_or_else(nothing)
    }
}

fn unfit(fake: &Fake) -> Error {
    Error::Internal(format!(
        "the fake cluster was to answer something else: {fake:?}"
    ))
}

impl Backend for FakeCluster {
    fn read(
        &self,
        question: Question,
        options: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
        let next = self.clone().next(Asked::Read(question, options));
        Box::pin(async {
            match next.await {
                Fake::Answer(answer, meta) => Ok(Answered { answer, meta }),
                Fake::Error(error) => Err(error),
                other => Err(unfit(&other)),
            }
        })
    }

    fn write(
        &self,
        command: Command,
        options: WriteOptions,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let next = self.clone().next(Asked::Write(command, options));
        Box::pin(async {
            match next.await {
                Fake::Reply(reply) => Ok(reply),
                Fake::Error(error) => Err(error),
                other => Err(unfit(&other)),
            }
        })
    }

    fn save(&self, options: SaveOptions) -> BoxFuture<'static, Result<Save, Error>> {
        let next = self.clone().next(Asked::Save(options));
        Box::pin(async {
            match next.await {
                Fake::Save(meta, pieces) => {
                    let (sender, archive) = byte_stream();
                    // A test's archive has as many pieces as a stream holds, so nobody waits here.
                    for piece in pieces {
                        sender.send(piece).await;
                    }
                    Ok(Save { meta, archive })
                }
                Fake::Error(error) => Err(error),
                other => Err(unfit(&other)),
            }
        })
    }

    fn restore(
        &self,
        options: RestoreOptions,
        mut archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>> {
        let fake = self.clone();
        Box::pin(async move {
            let refuses = matches!(fake.state().answers.front(), Some(Fake::Error(_)));
            let mut read = Ok(Vec::new());
            while !refuses && let Some(piece) = archive.next().await {
                read = match (read, piece) {
                    (Ok(mut read), Ok(piece)) => {
                        read.extend_from_slice(&piece);
                        Ok(read)
                    }
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
            match fake
                .next(Asked::Restore(options, read.map(Bytes::from)))
                .await
            {
                Fake::Restored(restored) => Ok(restored),
                Fake::Error(error) => Err(error),
                other => Err(unfit(&other)),
            }
        })
    }

    fn operate(
        &self,
        operation: Operation,
        options: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>> {
        if operation == Operation::Peers {
            let peers = self.state().peers.clone();
            return Box::pin(std::future::ready(Ok(Operated::Peers(peers))));
        }
        let next = self.clone().next(Asked::Operate(operation, options));
        Box::pin(async {
            match next.await {
                Fake::Operated(operated) => Ok(operated),
                Fake::Error(error) => Err(error),
                other => Err(unfit(&other)),
            }
        })
    }
}
