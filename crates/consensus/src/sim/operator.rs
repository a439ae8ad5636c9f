//! Who changes the members of a simulated cluster: one thing after the other, each again and again until it is done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::Trace;
use super::cluster::{Clients, peer};
use crate::consensus::{Consensus, MembershipError};
use crate::peer::NodeId;

/// Something that an operator wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// A new server takes the place of one that lost its disk.
    Replace { old: NodeId, new: NodeId },
    /// A new server votes.
    Add { id: NodeId },
    /// A server leaves.
    Remove { id: NodeId },
    /// Another server leads: this one, or any.
    Transfer { to: Option<NodeId> },
}

/// Does what was ordered. Clones are the same operator.
#[derive(Clone)]
pub(super) struct Operator {
    clients: Clients,
    trace: Trace,
    state: Arc<Mutex<OperatorState>>,
}

#[derive(Default)]
struct OperatorState {
    jobs: VecDeque<Job>,
    done: u64,
    ends: bool,
}

/// How long the operator waits between one try and the next.
const PAUSE: Duration = Duration::from_millis(40);

impl Operator {
    pub(super) fn new(clients: Clients, trace: Trace) -> Self {
        Self {
            clients,
            trace,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, OperatorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn order(&self, job: Job) {
        self.trace.event("order", &[format!("{job:?}").as_bytes()]);
        self.state().jobs.push_back(job);
    }

    /// Whether everything that was ordered is done.
    pub(super) fn is_idle(&self) -> bool {
        self.state().jobs.is_empty()
    }

    /// How much is done.
    pub(super) fn done(&self) -> u64 {
        self.state().done
    }

    /// There will be no more orders.
    pub(super) fn end(&self) {
        self.state().ends = true;
    }

    pub(super) async fn run(self) {
        loop {
            sleep(PAUSE).await;
            let (job, ends) = {
                let state = self.state();
                (state.jobs.front().copied(), state.ends)
            };
            let Some(job) = job else {
                if ends {
                    return;
                }
                continue;
            };
            let Some(leader) = self.clients.leader() else {
                continue;
            };
            let outcome = perform(&leader, job).await;
            let text = format!("{job:?}: {outcome:?}");
            self.trace.event("operation", &[text.as_bytes()]);
            // A transfer that fails is not worth another try.
            if outcome.is_ok() || matches!(job, Job::Transfer { .. }) {
                let mut state = self.state();
                state.jobs.pop_front();
                state.done += u64::from(outcome.is_ok());
            }
        }
    }
}

async fn perform(leader: &Consensus, job: Job) -> Result<(), MembershipError> {
    match job {
        Job::Replace { old, new } => {
            // It may never have been one, if it was lost before it was added.
            leader.replace(old, peer(new)).await
        }
        Job::Add { id } => {
            leader.add_learner(peer(id)).await?;
            let voters = leader.status().voters;
            let mut voters: std::collections::BTreeSet<NodeId> =
                voters.iter().map(|voter| voter.id).collect();
            voters.insert(id);
            leader.change_voters(voters).await
        }
        Job::Remove { id } => leader.remove(id).await,
        Job::Transfer { to: Some(to) } => leader.transfer_leadership(to).await,
        Job::Transfer { to: None } => leader.transfer_to_any().await.map(drop),
    }
}
