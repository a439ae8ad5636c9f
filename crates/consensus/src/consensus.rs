//! The handle that everybody outside holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError,
    LinearizableReadError, RaftError,
};
use openraft::{Instant, ServerState};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::checkpointer::{self, Checkpointer};
use crate::config::{Config, ConfigError};
use crate::contact::Contact;
use crate::disk::Disk;
use crate::durable;
use crate::figures;
use crate::inbox::Inbox;
use crate::log::{Log, Sizes, recover, writer};
use crate::lost_tail::LostTail;
use crate::machine::{Reply, StateMachine};
use crate::peer::{NodeId, Peer};
use crate::raft::machine::{Board, LoadError, Machine};
use crate::raft::network::{Addresses, Network, to_peer};
use crate::raft::storage::Storage;
use crate::raft::{Address, Command, Membership, Raft, Types, runtime};
use crate::recovery::{Recovered, Stored};
use crate::standing::{Standing, Watchdog};
use crate::suspension::Suspension;
use crate::tasks::{Stop, Tasks};
use crate::transport::Transport;
use crate::{barrier, identity, members, recovery};

/// The largest command that can be proposed, in bytes.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

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
    /// It took too long. It may still take effect; asking again does no harm.
    #[error("it took too long and may still take effect")]
    TimedOut,
    /// The member was added but does not hold yet what a voter has to hold. It goes on catching up.
    #[error("server {id} has not caught up yet: it holds {held} of {wanted} entries")]
    Behind {
        /// The member.
        id: NodeId,
        /// The last entry it is known to hold.
        held: u64,
        /// The last entry that there was when it was asked for.
        wanted: u64,
    },
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
    /// The members cannot be named anew.
    #[error("members cannot be recovered: {0}")]
    Members(String),
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
    /// The entry of the log by which these became the members.
    pub membership_index: u64,
    /// How long ago it last heard from its leader: zero if it leads, `None` if never.
    pub last_contact: Option<Duration>,
    /// Whether its log lost its end, so that it neither votes nor counts until it has caught up.
    pub tail_lost: bool,
    /// Groups of entries that were synced since the start, and the entries in them.
    pub syncs: u64,
    /// Entries written since the start.
    pub entries_written: u64,
    /// Rounds in which a majority was asked on behalf of read barriers, since the start. Many barriers share one.
    pub barrier_rounds: u64,
    /// Why it has stopped, if something failed.
    pub failure: Option<String>,
}

/// A member of the replicated log, in this process. Clones are the same member.
#[derive(Clone, Debug)]
pub struct Consensus {
    member: Arc<Member>,
}

#[derive(Debug)]
struct Member {
    id: NodeId,
    config: Config,
    raft: Raft,
    log: Log,
    board: Arc<Board>,
    inbox: Inbox,
    lost_tail: Arc<LostTail>,
    /// Proposals that may still begin.
    permits: Semaphore,
    barriers: mpsc::Sender<barrier::Waiter>,
    barrier_rounds: Arc<AtomicU64>,
    contact: Arc<Contact>,
    checkpoints: mpsc::Sender<checkpointer::Request>,
    leadership: watch::Receiver<Leadership>,
    standing: Standing,
    suspension: Suspension,
    stop: Stop,
    tasks: Tasks,
}

impl Drop for Member {
    fn drop(&mut self) {
        // The tasks end with their set, the library with its handle; the writer has to be told.
        self.stop.stop();
        self.log.close();
    }
}

/// Read barriers and checkpoints that may wait to be noticed; more wait in line at the channel.
const REQUESTS_MAX: usize = 1024;

/// Entries in one message to a peer, at most.
const PAYLOAD_ENTRIES_MAX: u64 = 512;

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
        disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StartError::InUse(disk.place()),
            _ => StartError::Io(error),
        })?;
        runtime::seed(config.seed);
        let identity = identity::open(&*disk, &config).await?;
        let sizes = Sizes {
            first_segment: config.first_segment_bytes,
            segment: config.segment_bytes,
            cache: config.cache_bytes,
        };
        let recovered = recover_log(&disk, sizes).await?;
        let recovered_members = Recovered::read(&*disk)?;
        let mut is_tail_lost = recovered.lost_tail.is_some() || LostTail::is_marked(&*disk)?;
        let board = Arc::new(Board::new(
            config.checkpoint_entries,
            config.checkpoint_bytes,
        ));
        // Reading the log above and the checkpoint below blocks this thread. Nobody is served and nothing answered before
        // they are read, so there is nothing to be kept from running.
        let mut machine = Machine::new(machine, Arc::clone(&disk), Arc::clone(&board));
        let is_log_whole = recovered.dropped.is_none();
        machine
            .load(is_log_whole)
            .map_err(|error| load_error(&*disk, error))?;

        let tasks = Tasks::default();
        let log = Log::new(Arc::clone(&disk), sizes, recovered);
        writer::start(&log, &tasks)?;
        machine
            .check_replaced(&log)
            .map_err(|error| load_error(&*disk, error))?;
        join_log_and_checkpoint(&disk, &log, &machine).await?;
        machine.set_damaged_aside()?;

        let is_stillborn = !is_tail_lost && log.ends() == (None, None) && identity.is_first_vote();
        let vote = if is_stillborn {
            identity.no_vote()
        } else {
            identity.vote
        };
        let standing = Standing::default();
        let network = Network {
            standing: standing.clone(),
            transport,
            me: config.peer(identity.id),
            addresses: Addresses::default(),
            timeout: config.election_timeout_min,
        };
        let raft = Raft::new(
            identity.id,
            Arc::new(raft_config(&config, !is_tail_lost)?),
            network.clone(),
            Storage::new(log.clone(), Some(vote), recovered_members.clone()),
            machine,
        )
        .await
        .map_err(|fatal| start_error(&*disk, &fatal))?;

        let is_alone = raft
            .with_raft_state(move |state| {
                is_only(state.membership_state.effective().membership(), identity.id)
            })
            .await
            .map_err(|fatal| start_error(&*disk, &fatal))?;
        if is_tail_lost && is_alone {
            tracing::error!(
                place = disk.place(),
                "the end of the log was damaged and has been cut off; the last writes before the stop may be lost"
            );
            LostTail::unmark(&log).await?;
            raft.runtime_config().elect(true);
            is_tail_lost = false;
        }
        if is_tail_lost {
            tracing::warn!(
                "this server neither votes nor stands for election until a leader has given it what its log lost; if nobody can be elected without it, an operator has to name the servers that are left in raft/peers.json"
            );
        }
        if is_alone {
            // Nobody else can win, so there is nothing to wait for.
            let _ = raft.trigger().elect(false).await;
        }
        let stop = Stop::default();
        if let Some(recovered) = recovered_members {
            let renewal = members::renew(raft.clone(), recovered, config.heartbeat_interval);
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.stopped() => {}
                    () = renewal => {}
                }
            });
        }
        let watchdog = Watchdog::new(identity.id, &raft, &log, &standing, &config);
        tasks.spawn(watchdog.run(stop.clone()));
        let addresses = network.addresses.clone();
        let leadership = watch_leadership(&raft, &standing, addresses, &tasks, stop.clone());
        let barrier_rounds = Arc::new(AtomicU64::new(0));
        let barriers = barrier::spawn(
            &raft,
            &config,
            &tasks,
            stop.clone(),
            REQUESTS_MAX,
            Arc::clone(&barrier_rounds),
        );
        let contact = Arc::new(Contact::default());
        let (checkpoints, requests) = mpsc::channel(REQUESTS_MAX);
        let checkpointer = Checkpointer {
            raft: raft.clone(),
            disk: Arc::clone(&disk),
            board: Arc::clone(&board),
            log: log.clone(),
            trailing_entries: config.trailing_entries,
            trailing_bytes: config.trailing_bytes,
        };
        tasks.spawn(checkpointer.run(requests, stop.clone()));
        let lost_tail = Arc::new(LostTail::new(
            is_tail_lost,
            identity.id,
            raft.clone(),
            log.clone(),
            network.clone(),
        ));
        let may_vote_from = if identity.vote.leader_id.term == 0 {
            Duration::ZERO
        } else {
            // A leader may still count on a lease that this server granted before it stopped.
            config.election_timeout_min
        };
        let inbox = Inbox::new(
            identity.id,
            raft.clone(),
            log.clone(),
            disk,
            Arc::clone(&lost_tail),
            Arc::clone(&contact),
            Arc::clone(&board),
            may_vote_from,
            is_stillborn.then_some(identity.vote),
        );
        let member = Member {
            id: identity.id,
            permits: Semaphore::new(config.proposals_in_flight_max),
            config,
            raft,
            log,
            board,
            inbox,
            lost_tail,
            barriers,
            barrier_rounds,
            contact,
            checkpoints,
            leadership,
            standing,
            suspension: Suspension::default(),
            stop,
            tasks,
        };
        Ok(Self {
            member: Arc::new(member),
        })
    }

    /// What the directory of a stopped server says about itself: who it is, whom it knows, how far its log goes.
    pub async fn stored(config: &Config, disk: Arc<dyn Disk>) -> Result<Stored, StartError> {
        recovery::look(config, &disk).await
    }

    /// Gives a stopped server these voters and nobody else, for when a majority is lost for good. This server must be one
    /// of them. A crash in the middle leaves the old members or the new; doing it again does no harm.
    ///
    /// What the lost servers acknowledged and none of the given ones holds is lost. Every server that is named has to be
    /// given the same list while none of them runs, and none of the others may ever come back with its old directory.
    /// Blocks while it reads and writes.
    pub async fn recover(
        config: &Config,
        disk: Arc<dyn Disk>,
        voters: Vec<Peer>,
    ) -> Result<(), StartError> {
        recovery::recover(config, &disk, voters).await
    }

    /// The id of this data directory.
    pub fn id(&self) -> NodeId {
        self.member.id
    }

    /// Whether the log has members, that is, was bootstrapped here or joined.
    pub async fn initialized(&self) -> bool {
        self.member.raft.is_initialized().await.unwrap_or(false)
    }

    /// The voters and the other members, as they are in the log at this moment; [`status`](Self::status) may lag behind.
    ///
    /// # Errors
    /// [`MembershipError::Stopped`] if this server has stopped.
    pub async fn members(&self) -> Result<(Vec<Peer>, Vec<Peer>), MembershipError> {
        let seen = self.member.raft.with_raft_state(|state| {
            let membership = state.membership_state.effective().membership();
            let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
            let nodes = membership.nodes();
            let peers = nodes.map(|(id, node)| to_peer(*id, node));
            peers.partition(|peer: &Peer| voters.contains(&peer.id))
        });
        seen.await.map_err(|_| MembershipError::Stopped)
    }

    /// Gives an empty log its first members, of which this server must be one. All of them may be told the same.
    pub async fn bootstrap(&self, voters: Vec<Peer>) -> Result<(), MembershipError> {
        let raft = &self.member.raft;
        let is_alone = voters.len() == 1;
        let nodes: BTreeMap<NodeId, Address> = voters
            .into_iter()
            .map(|peer| (peer.id, to_address(peer)))
            .collect();
        match raft.initialize(nodes).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(MembershipError::AlreadyBootstrapped);
            }
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                return Err(MembershipError::Refused(error.to_string()));
            }
            Err(RaftError::Fatal(_)) => return Err(MembershipError::Stopped),
        }
        // The library has begun an election by itself.
        if is_alone {
            self.member
                .lost_tail
                .forgive()
                .await
                .map_err(|_| MembershipError::Stopped)?;
        }
        Ok(())
    }

    /// Writes a command; returns when it is committed and applied here.
    ///
    /// Dropping the future doesn't take the command back.
    pub async fn propose(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        let member = &*self.member;
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge {
                bytes: command.len(),
                max: COMMAND_BYTES_MAX,
            });
        }
        let permit = member.permits.acquire().await;
        if permit.is_err() || member.stop.is_stopped() {
            return Err(ProposeError::Stopped);
        }
        if member.standing.is_aside() {
            // The library would take it and never come to an end.
            return Err(ProposeError::NotLeader { leader: None });
        }
        let began = tokio::time::Instant::now();
        figures::APPLY.increment(1);
        let proposed = tokio::select! {
            biased;
            proposed = self.propose_unbounded(command) => proposed,
            () = member.standing.aside() => Err(ProposeError::OutcomeUnknown),
        };
        if proposed.is_ok() {
            figures::note(&figures::COMMIT, began);
        }
        proposed
    }

    async fn propose_unbounded(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        let member = &*self.member;
        let mut retries = LEASE_RETRIES_MAX;
        loop {
            let error = match member.raft.client_write(Command(command.clone())).await {
                Ok(written) => {
                    return Ok(Proposed {
                        index: written.log_id.index,
                        term: written.log_id.leader_id.term,
                        reply: written.data.0,
                    });
                }
                Err(error) => error,
            };
            match error {
                RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                    // A leader that hasn't heard from a majority for a while refuses before it writes anything; the
                    // next heartbeats decide whether it still leads.
                    if forward.reason == ForwardReason::LeaseExpired && retries > 0 {
                        retries -= 1;
                        tokio::time::sleep(member.config.heartbeat_interval).await;
                        continue;
                    }
                    return Err(ProposeError::NotLeader {
                        leader: forwarded(forward),
                    });
                }
                RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                    return Err(ProposeError::OutcomeUnknown);
                }
                RaftError::APIError(
                    ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_),
                ) => return Err(ProposeError::NotLeader { leader: None }),
                // It may have been written before the stop.
                RaftError::Fatal(_) => return Err(ProposeError::OutcomeUnknown),
            }
        }
    }

    /// Returns when this server has proved that it led after the call began, and has applied all that was committed
    /// then: a read that follows sees every write that was acknowledged before. All that wait share one round.
    pub async fn read_barrier(&self) -> Result<(), BarrierError> {
        figures::VERIFY.increment(1);
        if self.member.standing.is_aside() {
            return Err(BarrierError::NotLeader { leader: None });
        }
        let (waiter, passed) = oneshot::channel();
        self.member
            .barriers
            .send(waiter)
            .await
            .map_err(|_| BarrierError::Stopped)?;
        tokio::select! {
            biased;
            passed = passed => passed.unwrap_or(Err(BarrierError::Stopped)),
            () = self.member.standing.aside() => Err(BarrierError::NotLeader { leader: None }),
        }
    }

    /// Whether this leader may answer from its machine without asking anybody: it has applied all that was committed
    /// before it was elected, and a majority confirmed it so lately that no other can have been elected, if clocks
    /// drift by less than 1 %. Costs nothing.
    pub fn has_lease(&self) -> bool {
        let member = &*self.member;
        let metrics = member.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader || metrics.running_state.is_err() {
            return false;
        }
        if !member.standing.may_lead(metrics.current_term) {
            return false;
        }
        let applied = member.board.applied();
        if applied.is_none_or(|applied| applied.term != metrics.current_term) {
            return false;
        }
        if is_only(metrics.membership_config.membership(), member.id) {
            return true;
        }
        // A leader that was removed makes room for another without waiting for its lease to end.
        let membership = metrics.membership_config.membership();
        if !membership.voter_ids().any(|voter| voter == member.id) {
            return false;
        }
        let Some(acked) = metrics.last_quorum_acked else {
            return false;
        };
        // Both clocks may be off by 1 %, in opposite directions.
        let lease = member.config.election_timeout_min.mul_f64(0.98);
        acked.elapsed() < lease && member.suspension.awake_for() > acked.elapsed()
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.member.raft
    }

    pub(crate) fn log(&self) -> &Log {
        &self.member.log
    }

    pub(crate) fn config(&self) -> &Config {
        &self.member.config
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.member.standing
    }

    /// Who leads, now and at each change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.member.leadership.clone()
    }

    /// How long ago this server last heard from the leader it follows: how stale what it answers may be. Zero if it
    /// leads, `None` if it never heard from any. Costs next to nothing.
    pub fn last_contact(&self) -> Option<Duration> {
        if self.member.leadership.borrow().is_leader {
            Some(Duration::ZERO)
        } else if self.member.standing.is_unheard() {
            // What this server has is as old as the last answer of those who may have elected another since.
            let metrics = self.member.raft.metrics();
            let acked = metrics.borrow_watched().last_quorum_acked;
            acked.map(|acked| acked.elapsed())
        } else {
            self.member.contact.age()
        }
    }

    /// Figures.
    pub fn status(&self) -> Status {
        let member = &*self.member;
        let metrics = member.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let peers = |ids: BTreeSet<NodeId>| -> Vec<Peer> {
            let nodes = membership.nodes().filter(|(id, _)| ids.contains(id));
            nodes.map(|(id, node)| to_peer(*id, node)).collect()
        };
        let (_, last) = member.log.ends();
        let last = last.unwrap_or_default();
        let checkpoint = member.board.checkpoint().unwrap_or_default();
        let counts = member.log.counts();
        Status {
            state: match (&metrics.running_state, metrics.state) {
                (Err(_), _) | (Ok(()), ServerState::Shutdown) => State::Stopped,
                (Ok(()), ServerState::Learner) => State::Learner,
                (Ok(()), ServerState::Candidate) => State::Candidate,
                (Ok(()), ServerState::Leader) if member.standing.may_lead(metrics.current_term) => {
                    State::Leader
                }
                // It makes room for another.
                (Ok(()), ServerState::Follower | ServerState::Leader) => State::Follower,
            },
            term: metrics.current_term,
            last_log_index: last.index,
            last_log_term: last.term,
            commit_index: metrics.cluster_committed.map_or(0, |id| id.index),
            applied_index: member.board.applied().map_or(0, |id| id.index),
            last_checkpoint_index: checkpoint.index,
            last_checkpoint_term: checkpoint.term,
            leader: member.leadership.borrow().leader.clone(),
            voters: peers(membership.voter_ids().collect()),
            learners: peers(membership.learner_ids().collect()),
            membership_index: metrics.membership_config.log_id().map_or(0, |id| id.index),
            last_contact: self.last_contact(),
            tail_lost: member.lost_tail.is_waiting(),
            syncs: counts.syncs,
            entries_written: counts.entries,
            barrier_rounds: member.barrier_rounds.load(Ordering::Relaxed),
            failure: match &metrics.running_state {
                Ok(()) | Err(Fatal::Stopped) => None,
                Err(fatal @ (Fatal::StorageError(_) | Fatal::Panicked)) => Some(fatal.to_string()),
            },
        }
    }

    /// Returns, with the reason, when this member has stopped because its log or its machine failed. It can't go on then,
    /// and a process that has nothing else to do should end. An orderly [`shutdown`](Self::shutdown) is no failure:
    /// the future is pending for ever.
    pub async fn failed(&self) -> String {
        tokio::select! {
            biased;
            reason = self.member.log.failed() => reason,
            reason = self.raft_failed() => reason,
        }
    }

    async fn raft_failed(&self) -> String {
        let mut metrics = self.member.raft.metrics();
        loop {
            let running = metrics.borrow_watched().running_state.clone();
            match running {
                Ok(()) => {}
                Err(Fatal::Stopped) => break,
                Err(fatal @ (Fatal::StorageError(_) | Fatal::Panicked)) => {
                    return fatal.to_string();
                }
            }
            if metrics.changed().await.is_err() {
                // Its task is gone without a word.
                if !self.member.stop.is_stopped() {
                    return Fatal::<Types>::Panicked.to_string();
                }
                break;
            }
        }
        std::future::pending().await
    }

    /// Answers a message that a peer's [`Transport`] carried here. Whatever the bytes are, it doesn't panic.
    pub async fn handle(&self, message: Bytes) -> Bytes {
        self.member.inbox.handle(message).await
    }

    /// Makes a checkpoint now and returns when it is on disk, or at once if the machine says *not now*.
    pub async fn checkpoint(&self) -> io::Result<()> {
        let stopped = || io::Error::other("the log has stopped");
        let (request, made) = oneshot::channel();
        self.member
            .checkpoints
            .send(request)
            .await
            .map_err(|_| stopped())?;
        made.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Stops taking part; returns when everything is on disk and nothing runs any more.
    pub async fn shutdown(&self) {
        let member = &*self.member;
        member.stop.stop();
        member.permits.close();
        if member.raft.shutdown().await.is_err() {
            tracing::error!("the log ended in a panic");
        }
        member.log.close();
        member.tasks.join().await;
    }
}

/// How often a proposal is tried again while the leader waits to hear from a majority; then another server has been
/// elected or there is no majority.
const LEASE_RETRIES_MAX: usize = 16;

pub(crate) fn to_address(peer: Peer) -> Address {
    Address {
        address: peer.address,
        name: peer.name,
    }
}

pub(crate) fn forwarded(forward: ForwardToLeader<Types>) -> Option<Peer> {
    forward
        .leader_id
        .zip(forward.leader_node)
        .map(|(id, node)| to_peer(id, &node))
}

pub(crate) fn barrier_error(error: RaftError<Types, LinearizableReadError<Types>>) -> BarrierError {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            BarrierError::NotLeader {
                leader: forwarded(forward),
            }
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => BarrierError::NoQuorum,
        RaftError::Fatal(_) => BarrierError::Stopped,
    }
}

fn is_only(membership: &Membership, id: NodeId) -> bool {
    membership.voter_ids().eq([id])
}

/// Reads the log. If its end was lost, that is written down before the end is cut off for good: were it the other way
/// round, a crash in between would make everybody forget it.
pub(crate) async fn recover_log(
    disk: &Arc<dyn Disk>,
    sizes: Sizes,
) -> Result<recover::Recovered, StartError> {
    let read = recover::recover(&**disk, sizes);
    let mut recovered = read.map_err(|error| match error {
        recover::RecoverError::Damaged(spot) => StartError::Damaged {
            place: disk.place(),
            file: spot.file,
            offset: spot.offset,
            reason: spot.reason,
        },
        recover::RecoverError::Io(error) => StartError::Io(error),
    })?;
    durable::pause(&**disk).await;
    recover::settle(&**disk, &recovered)?;
    if let Some(spot) = &recovered.lost_tail {
        tracing::error!(
            place = disk.place(),
            file = spot.file,
            offset = spot.offset,
            reason = spot.reason,
            "the end of the log is damaged and is cut off"
        );
        LostTail::mark(&**disk, spot).await?;
        recover::seal(&**disk, sizes, &mut recovered)?;
    }
    Ok(recovered)
}

/// Makes sure that the log goes on where the checkpoint ends.
async fn join_log_and_checkpoint(
    disk: &Arc<dyn Disk>,
    log: &Log,
    machine: &Machine,
) -> Result<(), StartError> {
    let (dropped, last) = log.ends();
    let Some(checkpoint) = machine.applied() else {
        return match dropped {
            None => Ok(()),
            Some(dropped) => Err(entries_missing(disk, 0, dropped.index)),
        };
    };
    if let Some(dropped) = dropped
        && dropped.index > checkpoint.index
    {
        return Err(entries_missing(disk, checkpoint.index + 1, dropped.index));
    }
    let continues = match log.id_at(checkpoint.index)? {
        Some(id) => id == checkpoint,
        None => false,
    };
    if continues {
        return Ok(());
    }
    // A checkpoint that a leader sent stands in for the whole log before it. What else is here was never committed, or
    // is part of the checkpoint.
    if last.is_some_and(|last| last.index >= checkpoint.index) {
        let (done, cut) = oneshot::channel();
        log.cut_behind(dropped, Box::new(move |outcome| drop(done.send(outcome))));
        cut.await
            .unwrap_or_else(|_| Err(io::Error::other("the log is closed")))?;
    }
    let (done, moved) = oneshot::channel();
    log.drop_through(
        checkpoint,
        Box::new(move |outcome| drop(done.send(outcome))),
    );
    moved
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the log is closed")))?;
    Ok(())
}

fn entries_missing(disk: &Arc<dyn Disk>, first: u64, last: u64) -> StartError {
    StartError::Damaged {
        place: disk.place(),
        file: String::from("log"),
        offset: 0,
        reason: format!("entries {first} to {last} are in neither a good checkpoint nor the log"),
    }
}

fn load_error(disk: &dyn Disk, error: LoadError) -> StartError {
    match error {
        LoadError::Damaged { file, reason } => StartError::Damaged {
            place: disk.place(),
            file,
            offset: 0,
            reason,
        },
        LoadError::Machine(error) => StartError::Machine(error.reason),
        LoadError::Io(error) => StartError::Io(error),
    }
}

fn start_error(disk: &dyn Disk, fatal: &Fatal<Types>) -> StartError {
    StartError::Foreign {
        place: disk.place(),
        reason: fatal.to_string(),
    }
}

fn raft_config(config: &Config, may_elect: bool) -> Result<openraft::Config, StartError> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = openraft::Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: milliseconds(config.heartbeat_interval),
        election_timeout_min: milliseconds(config.election_timeout_min),
        election_timeout_max: milliseconds(config.election_timeout_max),
        install_snapshot_timeout: milliseconds(crate::raft::network::INSTALL_TIMEOUT),
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // Checkpoints are made when the machine allows it, and the log is dropped behind the older of two.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        enable_elect: may_elect,
        enable_pre_vote: Some(true),
        allow_log_reversion: Some(false),
        // The library's default would let a leader go on after a restart in the same term, with other entries at places
        // where followers already hold some that it had not synced yet.
        enable_leader_restore: Some(false),
        backoff: String::from("50ms 100ms ...1s"),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|_| {
        StartError::Config(ConfigError {
            setting: "election_timeout_min",
            bounds: "consistent",
        })
    })
}

/// Follows the library's idea of who leads.
fn watch_leadership(
    raft: &Raft,
    standing: &Standing,
    addresses: Addresses,
    tasks: &Tasks,
    stop: Stop,
) -> watch::Receiver<Leadership> {
    let (tell, leadership) = watch::channel(Leadership::default());
    let mut metrics = raft.server_metrics();
    let standing = standing.clone();
    tasks.spawn(async move {
        let mut stood = false;
        loop {
            let mut restanding = pin!(standing.changed());
            // From here on no change of it is missed.
            let _ = futures::poll!(restanding.as_mut());
            let now = {
                let metrics = metrics.borrow_and_update();
                let membership = metrics.membership_config.membership();
                addresses.update(membership);
                let stands = metrics.state == ServerState::Candidate;
                if stands && !std::mem::replace(&mut stood, stands) {
                    figures::SILENCE.increment(1);
                    figures::CANDIDATE.increment(1);
                }
                stood = stands;
                let term = metrics.vote.leader_id.term;
                let is_leader = metrics.state == ServerState::Leader;
                let makes_room = is_leader && !standing.may_lead(term);
                let leader = metrics
                    .current_leader
                    .filter(|_| !makes_room)
                    .and_then(|id| {
                        let node = membership.get_node(&id)?;
                        Some(to_peer(id, node))
                    });
                Leadership {
                    is_leader: is_leader && !makes_room,
                    leader,
                    term,
                }
            };
            tell.send_if_modified(|before| {
                let is_new = *before != now;
                *before = now;
                is_new
            });
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                () = restanding => {}
                changed = metrics.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        tell.send_modify(|leadership| {
            leadership.is_leader = false;
            leadership.leader = None;
        });
    });
    leadership
}
