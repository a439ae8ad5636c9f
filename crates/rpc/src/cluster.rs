//! The waist of the house: reads, writes and snapshots, wherever the servers are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use model::{
    Answer, Ask, Command, Error, Index, Operated, Operation, Peers, Question, Reply, RestorePart,
    Text,
};
use serde::{Deserialize, Serialize};

use crate::ByteStream;

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// The leader answers, trusting its lease.
    #[default]
    Default,
    /// The leader makes sure that it still leads before it answers.
    Consistent,
    /// Whichever server is asked answers from what it has.
    Stale,
}

/// What goes with a question.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Whose question it is; empty for nobody's.
    pub token: Text,
    /// Where to ask; empty for this agent's datacenter.
    pub datacenter: Text,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// Wait until the answer has changed since this index; 0 answers at once.
    pub index: Index,
    /// How long to wait for that, jitter included by whoever fills this in; unused if `index` is 0.
    pub wait: Duration,
}

/// What goes with a command.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Whose command it is; empty for nobody's.
    pub token: Text,
    /// Where to; empty for this agent's datacenter.
    pub datacenter: Text,
}

/// What goes with the saving of a snapshot.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SaveOptions {
    /// Whose wish it is.
    pub token: Text,
    /// Of which datacenter; empty for this agent's.
    pub datacenter: Text,
    /// Whether any server may answer from what it has.
    pub stale: bool,
}

/// What goes with a restore.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoreOptions {
    /// Whose wish it is.
    pub token: Text,
    /// Of which datacenter; empty for this agent's.
    pub datacenter: Text,
    /// Leave out records of kinds that this program has no table for, instead of refusing.
    pub skip_unknown: bool,
    /// What is restored and how, if not everything. A server that knows no parts can't read the call then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<RestorePart>,
}

/// How an answer stands in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The index to wait from.
    pub index: Index,
    /// How long ago the answering server heard of its leader; zero from the leader.
    pub last_contact: Duration,
    /// Whether the answering server knows a leader.
    pub known_leader: bool,
}

/// What goes with an operation.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OperateOptions {
    /// Whose wish it is; empty for nobody's.
    pub token: Text,
    /// Where; empty for this agent's datacenter.
    pub datacenter: Text,
    /// Whether any server may answer from what it has.
    pub stale: bool,
}

/// An answer and how it stands in time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered<A> {
    /// The answer.
    pub answer: A,
    /// How it stands in time.
    pub meta: Meta,
}

/// What a restore left out, on request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restored {
    /// Kinds of records that there is no table for, and how many of each were skipped.
    pub skipped: Vec<(String, u64)>,
}

/// A snapshot on its way.
#[derive(Debug)]
pub struct Save {
    /// How it stands in time; the index is that of the snapshot.
    pub meta: Meta,
    /// The archive.
    pub archive: ByteStream,
}

/// Shows options without their token: what is printed for debugging ends in logs.
macro_rules! shown_without_token {
    ($($name:ident { $($field:ident),* })*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { token: _, $($field),* } = self;
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), $field))*
                    .finish_non_exhaustive()
            }
        })*
    };
}

shown_without_token! {
    ReadOptions { datacenter, consistency, index, wait }
    WriteOptions { datacenter }
    SaveOptions { datacenter, stale }
    RestoreOptions { datacenter, skip_unknown, part }
    OperateOptions { datacenter, stale }
}

/// Where the servers are: in this process, over there, or made up for a test.
pub trait Backend: Send + Sync + 'static {
    /// Answers a question, waiting as the options say.
    fn read(
        &self,
        question: Question,
        options: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>>;

    /// Carries out a command; when it returns, the effect is durable.
    fn write(
        &self,
        command: Command,
        options: WriteOptions,
    ) -> BoxFuture<'static, Result<Reply, Error>>;

    /// Takes a snapshot of everything.
    fn save(&self, options: SaveOptions) -> BoxFuture<'static, Result<Save, Error>>;

    /// Replaces everything by a snapshot.
    fn restore(
        &self,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>>;

    /// Does or tells something beside the state.
    fn operate(
        &self,
        operation: Operation,
        options: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>>;
}

/// The handle through which everything above asks the servers.
#[derive(Clone)]
pub struct Cluster(Arc<dyn Backend>);

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// A handle on these servers.
    pub fn new(backend: impl Backend) -> Self {
        Self(Arc::new(backend))
    }

    /// Answers a question.
    ///
    /// # Errors
    /// What the servers say; see [`Error`].
    pub async fn read<Q: Ask>(
        &self,
        question: Q,
        options: ReadOptions,
    ) -> Result<Answered<Q::Answer>, Error> {
        let Answered { answer, meta } = self.0.read(question.into(), options).await?;
        match Q::unwrap(answer) {
            Some(answer) => Ok(Answered { answer, meta }),
            None => Err(Error::Internal(
                "a server answered another question".to_owned(),
            )),
        }
    }

    /// Carries out a command; when it returns, the effect is durable.
    ///
    /// # Errors
    /// What the servers say; after [`Error::OutcomeUnknown`] it may have happened all the same.
    pub async fn write(&self, command: Command, options: WriteOptions) -> Result<Reply, Error> {
        self.0.write(command, options).await
    }

    /// Takes a snapshot of everything.
    ///
    /// # Errors
    /// What the servers say; a failure after the first bytes ends the stream with an error.
    pub async fn save(&self, options: SaveOptions) -> Result<Save, Error> {
        self.0.save(options).await
    }

    /// Replaces everything by a snapshot.
    ///
    /// # Errors
    /// What is wrong with the archive, in which case nothing was changed, or what the servers say.
    pub async fn restore(
        &self,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> Result<Restored, Error> {
        self.0.restore(options, archive).await
    }

    /// Does or tells something beside the state.
    ///
    /// # Errors
    /// What the servers say.
    pub async fn operate(
        &self,
        operation: Operation,
        options: OperateOptions,
    ) -> Result<Operated, Error> {
        self.0.operate(operation, options).await
    }

    /// Who leads and who votes, without asking the leader.
    ///
    /// # Errors
    /// If no server can be asked.
    pub async fn peers(&self) -> Result<Peers, Error> {
        match self
            .operate(Operation::Peers, OperateOptions::default())
            .await?
        {
            Operated::Peers(peers) => Ok(peers),
            Operated::Nothing
            | Operated::RaftConfiguration(_)
            | Operated::Keyring(_)
            | Operated::Policy(_)
            | Operated::Fired(_)
            | Operated::Session(_) => Err(Error::Internal(
                "a server answered another question".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{RestoreMode, Section};
    use wire::compact;

    use super::*;

    /// Servers that know no parts go on taking whole restores, and can't take a part for one.
    #[test]
    fn a_whole_restore_is_asked_for_as_it_was_before_there_were_parts() {
        let whole = RestoreOptions {
            token: Text::from("t"),
            skip_unknown: true,
            ..RestoreOptions::default()
        };
        let recorded = b"\x93\xc4\x01t\xc4\x00\xc3";
        assert_eq!(compact::to_vec(&whole).unwrap(), recorded);
        assert!(compact::from_slice::<RestoreOptions>(recorded).unwrap() == whole);
        let part = RestorePart::new([Section::Kv].into(), Vec::new(), None, RestoreMode::Merge);
        let part = RestoreOptions {
            part: Some(part.unwrap()),
            ..whole
        };
        let written = compact::to_vec(&part).unwrap();
        assert!(compact::from_slice::<(Text, Text, bool)>(&written).is_err());
        assert!(compact::from_slice::<RestoreOptions>(&written).unwrap() == part);
    }
}
