//! Who takes part: adding, promoting, replacing and removing members, and handing over the lead.
//!
//! Everything here may be called again and again by a loop that compares the members with what they should be: what is
//! already so is not written again, what a leader left half done is finished, and each call ends in bounded time. A call
//! that ran out of time may still take effect.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, RaftError};
use openraft::{ChangeMembers, Instant as _, ServerState};
use tokio::time::{Instant, sleep, timeout};

use crate::consensus::{Consensus, MembershipError, forwarded, to_address};
use crate::log::EntryId;
use crate::peer::{NodeId, Peer};
use crate::raft::{Address, Membership, Raft, Types, from_log_id};
use crate::recovery::Recovered;
use crate::standing::answering;

type Change = ChangeMembers<NodeId, Address>;

/// How many of the longest election timeouts a change of the members may take. It needs two rounds to a majority, and
/// may have to wait for one that is under way.
const CHANGE_TIMEOUTS: u32 = 10;

/// How long a newcomer may take to get everything, before the caller is told to try again. What it has got stays.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// Entries that a server may be behind when it is asked to take over, during which nobody can write.
const TRANSFER_LAG_MAX: u64 = 1024;

/// What is to be done about the members.
enum Step {
    /// They are as they should be.
    Nothing,
    Change(Change),
    /// Not as things stand, for this reason; they may change any moment.
    NotNow(String),
}

/// Whether a change may leave the cluster with voters of whom no majority is there.
#[derive(Clone, Copy)]
enum Quorum {
    Needed,
    Waived,
}

impl Consensus {
    /// Adds a member without a vote, and returns when it holds all that was in the log then. One that is there already
    /// gets this address and name.
    ///
    /// [`MembershipError::Behind`] says that it has not caught up within half a minute; it stays a member, so the next
    /// call waits on from where it is.
    pub async fn add_learner(&self, peer: Peer) -> Result<(), MembershipError> {
        let id = peer.id;
        let address = to_address(peer);
        self.change(|membership| set_node(membership, id, &address))
            .await?;
        self.caught_up(id).await
    }

    /// Gives a member this address and name, if it has others: a server came back at another place. No error if there is
    /// no such member, since it has nothing to be found by then.
    ///
    /// The leader and those who vote use the new address from then on.
    pub async fn update_peer(&self, peer: Peer) -> Result<(), MembershipError> {
        let id = peer.id;
        let address = to_address(peer);
        self.change(|membership| match membership.get_node(&id) {
            None => Step::Nothing,
            Some(_) => set_node(membership, id, &address),
        })
        .await
    }

    /// Gives a member a vote, and returns when it has one; those who vote go on doing so. Waits before until it holds all
    /// that was in the log, as [`add_learner`](Self::add_learner) does, and adds it if need be.
    pub async fn add_voter(&self, peer: Peer) -> Result<(), MembershipError> {
        let id = peer.id;
        self.add_learner(peer).await?;
        self.change(|membership| {
            let mut voters = goal(membership);
            voters.insert(id);
            self.set_voters(membership, &voters, Quorum::Needed)
        })
        .await
    }

    /// Makes exactly these members voters; those that were and aren't named leave.
    ///
    /// Refused if no majority of them has answered lately: such a change could never be completed, and nothing could be
    /// written any more.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        self.change(|membership| self.set_voters(membership, &voters, Quorum::Needed))
            .await
    }

    /// Removes a member. No error if there is no such member.
    ///
    /// Refused if no majority of those who stay has answered lately, see
    /// [`force_remove`](Self::force_remove).
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipError> {
        self.change(|membership| self.without(membership, id, Quorum::Needed))
            .await
    }

    /// Removes a member, though those who stay may have no majority then, so that nothing can be written until enough of
    /// them are back. For an operator who knows that they will be.
    pub async fn force_remove(&self, id: NodeId) -> Result<(), MembershipError> {
        self.change(|membership| self.without(membership, id, Quorum::Waived))
            .await
    }

    /// Puts a server in the place of another, for instance of one that lost its disk and came back with a new id: adds
    /// it without a vote, waits until it has caught up, and then gives it the vote of the other in one step.
    ///
    /// An old member that isn't there any more is no error: the new one becomes a voter.
    pub async fn replace(&self, old: NodeId, new: Peer) -> Result<(), MembershipError> {
        if old == new.id {
            return self.update_peer(new).await;
        }
        if old == self.id() {
            return Err(MembershipError::Refused(String::from(
                "a leader does not replace itself, it has to hand over before",
            )));
        }
        let id = new.id;
        self.add_learner(new).await?;
        self.change(|membership| {
            let mut voters = goal(membership);
            voters.remove(&old);
            voters.insert(id);
            self.set_voters(membership, &voters, Quorum::Needed)
        })
        .await?;
        // It may have been a member without a vote.
        self.remove(old).await
    }

    /// Hands the lead over to this voter; returns when this server no longer leads.
    ///
    /// Refused if the voter was not heard of lately or is far behind, since nobody can write meanwhile. If it doesn't
    /// take over in time, the others elect somebody.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), MembershipError> {
        let candidates = self.successors()?;
        if to == self.id() {
            return Ok(());
        }
        if !candidates.iter().any(|(_, id)| *id == to) {
            return Err(MembershipError::Refused(format!(
                "server {to} is no voter that answers and is up to date"
            )));
        }
        self.hand_over(to).await
    }

    /// Hands the lead over to the voter that holds most, and returns which it was when this server no longer leads.
    pub async fn transfer_to_any(&self) -> Result<NodeId, MembershipError> {
        let (_, to) = self.successors()?.pop().ok_or_else(|| {
            MembershipError::Refused(String::from("no other voter answers and is up to date"))
        })?;
        self.hand_over(to).await?;
        Ok(to)
    }

    async fn hand_over(&self, to: NodeId) -> Result<(), MembershipError> {
        let raft = self.raft();
        let term = raft.metrics().borrow_watched().current_term;
        // Before anybody can be elected: from then on a lease means nothing.
        self.standing().hand_over(term);
        raft.trigger()
            .transfer_leader(to)
            .await
            .map_err(|_| MembershipError::Stopped)?;
        // The asked one has one election timeout to take over; after that the others don't wait longer than another.
        let wait = raft.wait(Some(self.config().election_timeout_max * 4));
        wait.metrics(
            |metrics| metrics.state != ServerState::Leader || metrics.current_term != term,
            "another leader",
        )
        .await
        .map(drop)
        .map_err(|_| MembershipError::TimedOut)
    }

    /// The other voters that answered lately and are not far behind, those that hold most last.
    fn successors(&self) -> Result<Vec<(Option<EntryId>, NodeId)>, MembershipError> {
        let raft = self.raft();
        let last = self.log().ends().1.map_or(0, |last| last.index);
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Err(self.not_leader());
        }
        let mut found = answering(&metrics, self.id(), self.config().election_timeout_max);
        found.retain(|(held, _)| held.map_or(0, |held| held.index) + TRANSFER_LAG_MAX >= last);
        Ok(found)
    }

    fn not_leader(&self) -> MembershipError {
        MembershipError::NotLeader {
            leader: self.leadership().borrow().leader.clone(),
        }
    }

    /// Changes the members until there is nothing to be changed.
    async fn change(&self, plan: impl Fn(&Membership) -> Step) -> Result<(), MembershipError> {
        let bound = self.config().election_timeout_max * CHANGE_TIMEOUTS;
        timeout(bound, self.change_unbounded(plan))
            .await
            .unwrap_or(Err(MembershipError::TimedOut))
    }

    async fn change_unbounded(
        &self,
        plan: impl Fn(&Membership) -> Step,
    ) -> Result<(), MembershipError> {
        let begun = Instant::now();
        loop {
            let seen = self.raft().with_raft_state(|state| {
                let effective = state.membership_state.effective();
                let is_settled = effective.log_id() == state.membership_state.committed().log_id();
                let is_leader = state.server_state == ServerState::Leader;
                (is_leader, is_settled, effective.membership().clone())
            });
            let (is_leader, is_settled, membership) =
                seen.await.map_err(|_| MembershipError::Stopped)?;
            if !is_leader {
                return Err(self.not_leader());
            }
            // Another change that is under way has to be committed first.
            let step = if is_settled {
                plan(&membership)
            } else {
                Step::NotNow(String::from("another change is under way"))
            };
            match step {
                Step::Nothing => return Ok(()),
                Step::NotNow(reason) if is_settled => {
                    // A leader that was just elected has not heard of everybody yet.
                    if begun.elapsed() > self.config().election_timeout_max {
                        return Err(MembershipError::Refused(reason));
                    }
                }
                Step::NotNow(_) => {}
                Step::Change(change) => match self.raft().change_membership(change, false).await {
                    Ok(_) => return Ok(()),
                    Err(error) => may_retry(error)?,
                },
            }
            sleep(self.config().heartbeat_interval).await;
        }
    }

    /// Returns when a member holds all that is in the log now.
    async fn caught_up(&self, id: NodeId) -> Result<(), MembershipError> {
        if id == self.id() {
            return Ok(());
        }
        let wanted = self.log().ends().1;
        let held = |metrics: &openraft::RaftMetrics<Types>| {
            let replication = metrics.replication.as_ref()?;
            replication.get(&id).copied().flatten().map(from_log_id)
        };
        let wait = self.raft().wait(Some(CATCH_UP_MAX));
        let is_settled = |metrics: &openraft::RaftMetrics<Types>| {
            metrics.state != ServerState::Leader || held(metrics) >= wanted
        };
        match wait.metrics(is_settled, "caught up").await {
            Ok(metrics) if metrics.state == ServerState::Leader => Ok(()),
            Ok(_) => Err(MembershipError::OutcomeUnknown),
            Err(openraft::metrics::WaitError::ShuttingDown) => Err(MembershipError::Stopped),
            Err(openraft::metrics::WaitError::Timeout(..)) => Err(MembershipError::Behind {
                id,
                held: held(&self.raft().metrics().borrow_watched()).map_or(0, |held| held.index),
                wanted: wanted.map_or(0, |wanted| wanted.index),
            }),
        }
    }

    fn without(&self, membership: &Membership, id: NodeId, quorum: Quorum) -> Step {
        let is_voter = membership.voter_ids().any(|voter| voter == id);
        if is_voter {
            let mut voters = goal(membership);
            voters.remove(&id);
            self.set_voters(membership, &voters, quorum)
        } else if membership.get_node(&id).is_some() {
            Step::Change(ChangeMembers::RemoveNodes(BTreeSet::from([id])))
        } else {
            Step::Nothing
        }
    }

    fn set_voters(
        &self,
        membership: &Membership,
        voters: &BTreeSet<NodeId>,
        quorum: Quorum,
    ) -> Step {
        // Two sets of voters are the half of a change, which has to be completed.
        if matches!(&membership.get_joint_config()[..], [only] if only == voters) {
            return Step::Nothing;
        }
        let there = self.answering(voters);
        if matches!(quorum, Quorum::Needed) && there * 2 <= voters.len() {
            return Step::NotNow(format!(
                "of the {} servers that would vote, {there} answer, which is no majority",
                voters.len()
            ));
        }
        Step::Change(ChangeMembers::ReplaceAllVoters(voters.clone()))
    }

    /// How many of these servers answered this leader lately, itself included.
    fn answering(&self, ids: &BTreeSet<NodeId>) -> usize {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let lately = self.config().election_timeout_max;
        let answers = |id: &NodeId| {
            let acked = metrics.heartbeat.as_ref().and_then(|acked| *acked.get(id)?);
            *id == self.id() || acked.is_some_and(|acked| acked.elapsed() < lately)
        };
        ids.iter().filter(|id| answers(id)).count()
    }
}

/// Writes members that an operator named anew into the log, as soon as this server leads: those who come back or join
/// later learn of them there.
pub(crate) async fn renew(raft: Raft, recovered: Recovered, pause: Duration) {
    loop {
        let seen = raft.with_raft_state(|state| {
            let effective = state.membership_state.effective();
            let id = effective.log_id().map(from_log_id);
            let is_leader = state.server_state == ServerState::Leader;
            (is_leader, id, effective.membership().clone())
        });
        let Ok((is_leader, id, membership)) = seen.await else {
            return;
        };
        if id.is_some_and(|id| !recovered.covers(id)) {
            return;
        }
        if is_leader {
            let nodes = membership.nodes();
            let nodes = nodes.map(|(id, node)| (*id, node.clone())).collect();
            // If it fails, the next look tells what became of it.
            let change = raft.change_membership(ChangeMembers::SetNodes(nodes), true);
            let _ = timeout(pause * RENEWAL_PAUSES, change).await;
        }
        sleep(pause * RENEWAL_PAUSES).await;
    }
}

/// How many heartbeats pass before it is looked again whether this server leads.
const RENEWAL_PAUSES: u32 = 4;

/// The voters there are, or are to be when a change that is under way is completed.
fn goal(membership: &Membership) -> BTreeSet<NodeId> {
    let configs = membership.get_joint_config();
    configs.last().cloned().unwrap_or_default()
}

fn set_node(membership: &Membership, id: NodeId, address: &Address) -> Step {
    if membership.get_node(&id) == Some(address) {
        Step::Nothing
    } else {
        Step::Change(ChangeMembers::SetNodes(BTreeMap::from([(
            id,
            address.clone(),
        )])))
    }
}

/// Whether a change that failed may be tried again.
fn may_retry(error: RaftError<Types, ClientWriteError<Types>>) -> Result<(), MembershipError> {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            // Nothing was written; the next heartbeats decide whether this server still leads.
            if forward.reason == ForwardReason::LeaseExpired {
                return Ok(());
            }
            Err(MembershipError::NotLeader {
                leader: forwarded(forward),
            })
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_) => {
            Err(MembershipError::OutcomeUnknown)
        }
        // Somebody else was faster, perhaps between the two steps of this one.
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => Ok(()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            error @ (ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::LearnerNotFound(_)) => {
                Err(MembershipError::Refused(error.to_string()))
            }
            // Another change is not committed yet, or this leader's own first entry.
            _ => Ok(()),
        },
    }
}
