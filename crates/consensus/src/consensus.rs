//! The handle that everybody outside holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::disk::Disk;
use crate::machine::{Reply, StateMachine};
use crate::peer::{NodeId, Peer};
use crate::transport::Transport;

/// The largest command that can be proposed, in bytes.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

/// A member of the replicated log, in this process. Clones are the same member.
#[derive(Clone, Debug)]
pub struct Consensus {
    id: NodeId,
    leadership: watch::Receiver<Leadership>,
}

/// Who leads, as far as this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Whether it is this server.
    pub is_leader: bool,
    /// The leader, if there is one.
    pub leader: Option<Peer>,
    /// The term of which this is said.
    pub term: u64,
}

/// What has become of a proposal that was applied.
pub struct Proposed {
    /// Its place in the log.
    pub index: u64,
    /// The term in which it was written.
    pub term: u64,
    /// What the state machine answered.
    pub reply: Reply,
}

impl std::fmt::Debug for Proposed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposed")
            .field("index", &self.index)
            .field("term", &self.term)
            .finish_non_exhaustive()
    }
}

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written: another server leads, or none does.
    #[error("not the leader")]
    NotLeader {
        /// Whom to ask instead, if known.
        leader: Option<Peer>,
    },
    /// It was written here and may or may not be committed: leadership was lost before that was clear.
    #[error("leadership was lost before the outcome was known")]
    OutcomeUnknown,
    /// Nothing was written: it is larger than [`COMMAND_BYTES_MAX`].
    #[error("command of {bytes} bytes is too large, at most {max} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// This member has been shut down or had to stop; [`Status::failure`] says why.
    #[error("the log has stopped")]
    Stopped,
}

/// Why a read may not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// Another server leads, or none does.
    #[error("not the leader")]
    NotLeader {
        /// Whom to ask instead, if known.
        leader: Option<Peer>,
    },
    /// A majority did not confirm that this server still leads.
    #[error("no majority confirms the leader")]
    NoQuorum,
    /// This member has been shut down or had to stop.
    #[error("the log has stopped")]
    Stopped,
}

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another server leads, or none does.
    #[error("not the leader")]
    NotLeader {
        /// Whom to ask instead, if known.
        leader: Option<Peer>,
    },
    /// The log already has members.
    #[error("the log already has members")]
    AlreadyBootstrapped,
    /// The change makes no sense or comes while another is under way.
    #[error("members cannot be changed: {0}")]
    Refused(String),
    /// It was written and may or may not be committed.
    #[error("leadership was lost before the outcome was known")]
    OutcomeUnknown,
    /// This member has been shut down or had to stop.
    #[error("the log has stopped")]
    Stopped,
}

/// Why a member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process uses the data directory.
    #[error("data directory {0} is in use by another process")]
    InUse(String),
    /// The data directory belongs to another cluster, or to a later release.
    #[error("data directory {place} cannot be used: {reason}")]
    Foreign {
        /// The directory.
        place: String,
        /// Why.
        reason: String,
    },
    /// A file was damaged after it was written. Starting could lose what others were promised.
    #[error(
        "{place}/{file} is damaged at offset {offset}: {reason}; to rejoin, move the data directory away and start \
         this server empty as a new member"
    )]
    Damaged {
        /// The directory.
        place: String,
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The state machine refused what it was given.
    #[error("the state cannot be restored: {0}")]
    Machine(String),
    /// The disk failed.
    #[error("data directory: {0}")]
    Io(#[from] std::io::Error),
}

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It takes part without a vote, or doesn't belong to any cluster yet.
    #[default]
    Learner,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It has stopped.
    Stopped,
}

/// Figures about a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub state: State,
    /// The term it is in.
    pub term: u64,
    /// The last entry in its log.
    pub last_log_index: u64,
    /// The term of that entry.
    pub last_log_term: u64,
    /// The last entry it knows to be committed.
    pub commit_index: u64,
    /// The last entry its machine has applied.
    pub applied_index: u64,
    /// The last entry in its newest checkpoint; 0 if it has none.
    pub last_checkpoint_index: u64,
    /// The term of that entry.
    pub last_checkpoint_term: u64,
    /// The leader it knows.
    pub leader: Option<Peer>,
    /// The members with a vote.
    pub voters: Vec<Peer>,
    /// The members without one.
    pub learners: Vec<Peer>,
    /// How long ago a majority last answered this leader. `None` unless it leads.
    pub last_contact: Option<std::time::Duration>,
    /// Whether its log lost its end, so that it neither votes nor counts until it has caught up.
    pub tail_lost: bool,
    /// Groups of entries that were synced since the start, and the entries in them.
    pub syncs: u64,
    /// Entries written since the start.
    pub entries_written: u64,
    /// Why it has stopped, if something failed.
    pub failure: Option<String>,
}

impl Consensus {
    /// Opens the data directory, restores the machine from the newest checkpoint and the log behind it, and takes part.
    ///
    /// Must be called on the runtime that is to run it; all work but disk syncs happens there.
    pub async fn start(
        config: Config,
        disk: Arc<dyn Disk>,
        machine: Box<dyn StateMachine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        config.validate()?;
        disk.lock()?;
        drop((machine, transport));
        Err(StartError::Machine(String::from(
            "the log is not built yet",
        )))
    }

    /// The id of this data directory.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Whether the log has members, that is, was bootstrapped here or joined.
    pub async fn initialized(&self) -> bool {
        false
    }

    /// Gives an empty log its first members, of which this server must be one. All of them may be told the same.
    pub async fn bootstrap(&self, voters: Vec<Peer>) -> Result<(), MembershipError> {
        drop(voters);
        Err(MembershipError::Stopped)
    }

    /// Writes a command; returns when it is committed and applied here.
    ///
    /// Dropping the future doesn't take the command back.
    pub async fn propose(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        drop(command);
        Err(ProposeError::Stopped)
    }

    /// Returns when this server has proved that it led after the call began, and has applied all that was committed
    /// then: a read that follows sees every write that was acknowledged before. All that wait share one round.
    pub async fn read_barrier(&self) -> Result<(), BarrierError> {
        Err(BarrierError::Stopped)
    }

    /// Whether a majority confirmed this leader so lately that no other can have been elected, if clocks drift by less
    /// than 1 %. Costs nothing.
    pub fn has_lease(&self) -> bool {
        false
    }

    /// Who leads, now and at each change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Figures.
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// Adds a member without a vote and returns when it has caught up.
    pub async fn add_learner(&self, peer: Peer) -> Result<(), MembershipError> {
        drop(peer);
        Err(MembershipError::Stopped)
    }

    /// Makes exactly these members voters; those that were and aren't named leave.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        drop(voters);
        Err(MembershipError::Stopped)
    }

    /// Removes a member.
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipError> {
        let _ = id;
        Err(MembershipError::Stopped)
    }

    /// Answers a message that a peer's [`Transport`] carried here. Whatever the bytes are, it doesn't panic.
    pub async fn handle(&self, message: Bytes) -> Bytes {
        message
    }

    /// Makes a checkpoint now and returns when it is on disk, or at once if the machine says *not now*.
    pub async fn checkpoint(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Stops taking part; returns when everything is on disk and nothing runs any more.
    pub async fn shutdown(&self) {}
}
