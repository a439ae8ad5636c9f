//! Whether a server that leads may act as a leader: not while its log can't be written, nor once it hands over.
//!
//! The Raft library goes on leading as long as a majority answers its heartbeats, and those need no disk. A leader whose
//! disk hangs would keep its lease for ever, though nothing that it writes becomes durable here, and could not even write
//! down that another was elected. So the time that the oldest unfinished write takes is bounded: when it exceeds the
//! shortest election timeout, which is noticed within a heartbeat, this server counts as no leader from then on. It asks
//! the voter that holds most to take over, and sends no more heartbeats, so that the others elect somebody if that one
//! doesn't. When the disk works again, it takes part as before.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};
use tokio::sync::Notify;

use crate::config::Config;
use crate::log::{EntryId, Log};
use crate::peer::NodeId;
use crate::raft::{Raft, Types, from_log_id};
use crate::tasks::Stop;

/// What keeps a leader from acting as one. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_stalled: AtomicBool,
    /// The term in which this leader began to hand over; the library never lets it lead again in that term.
    handed_over: AtomicU64,
    changed: Notify,
    stalled: Notify,
}

impl Standing {
    /// From now on another may be elected in spite of a lease that was granted in this term.
    pub(crate) fn hand_over(&self, term: u64) {
        self.shared.handed_over.fetch_max(term, Ordering::AcqRel);
        self.shared.changed.notify_waiters();
    }

    fn set_stalled(&self, is_stalled: bool) {
        if self.shared.is_stalled.swap(is_stalled, Ordering::AcqRel) != is_stalled {
            self.shared.changed.notify_waiters();
            if is_stalled {
                self.shared.stalled.notify_waiters();
            }
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.shared.is_stalled.load(Ordering::Acquire)
    }

    /// Whether the leader of this term, which is this server, may act as one.
    pub(crate) fn may_lead(&self, term: u64) -> bool {
        !self.is_stalled() && self.shared.handed_over.load(Ordering::Acquire) < term
    }

    /// Returns when the standing changes. What changes before the future is first polled is missed.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Returns when the log can't be written any more.
    pub(crate) async fn stalled(&self) {
        let mut stalled = pin!(self.shared.stalled.notified());
        stalled.as_mut().enable();
        if !self.is_stalled() {
            stalled.await;
        }
    }
}

/// Looks whether the log can still be written, and hands over when it can't.
pub(crate) struct Watchdog {
    pub(crate) id: NodeId,
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) standing: Standing,
    /// How often it looks.
    pub(crate) interval: Duration,
    /// How long a write may take.
    pub(crate) bound: Duration,
    /// How lately a successor must have answered.
    pub(crate) lately: Duration,
}

impl Watchdog {
    pub(crate) fn new(
        id: NodeId,
        raft: &Raft,
        log: &Log,
        standing: &Standing,
        config: &Config,
    ) -> Self {
        Self {
            id,
            raft: raft.clone(),
            log: log.clone(),
            standing: standing.clone(),
            interval: config.heartbeat_interval,
            bound: config.election_timeout_min,
            lately: config.election_timeout_max,
        }
    }

    pub(crate) async fn run(self, stop: Stop) {
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            let waits = self.log.waits_for();
            if waits <= self.bound {
                if self.standing.is_stalled() {
                    tracing::warn!("the log can be written again");
                    self.standing.set_stalled(false);
                }
                continue;
            }
            let Some((term, successor)) = self.successor() else {
                continue;
            };
            if !self.standing.is_stalled() {
                tracing::error!(
                    seconds = waits.as_secs_f32(),
                    "the log cannot be written, this server does not lead until it can"
                );
                self.standing.set_stalled(true);
            }
            if let Some(successor) = successor {
                self.standing.hand_over(term);
                // If it is lost, the others miss the heartbeats, which end with it.
                if self
                    .raft
                    .trigger()
                    .transfer_leader(successor)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    }

    /// The term in which this server leads others, and who could, if it didn't hand over yet. One that is alone has
    /// nobody to make room for.
    fn successor(&self) -> Option<(u64, Option<NodeId>)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.current_term;
        let has_others = metrics.membership_config.membership().voter_ids().count() > 1;
        let leads = metrics.state == ServerState::Leader;
        let has_handed_over = self.standing.shared.handed_over.load(Ordering::Acquire) >= term;
        let successor = || answering(&metrics, self.id, self.lately).pop();
        (leads && has_others).then(|| {
            let successor = if has_handed_over { None } else { successor() };
            (term, successor.map(|(_, id)| id))
        })
    }
}

/// The other voters that answered this leader lately and what they hold, those that hold most last.
pub(crate) fn answering(
    metrics: &RaftMetrics<Types>,
    id: NodeId,
    lately: Duration,
) -> Vec<(Option<EntryId>, NodeId)> {
    let mut found = Vec::new();
    for voter in metrics.membership_config.membership().voter_ids() {
        let acked = metrics.heartbeat.as_ref();
        let acked = acked.and_then(|acked| *acked.get(&voter)?);
        let held = metrics.replication.as_ref();
        let held = held.and_then(|held| *held.get(&voter)?);
        if voter != id && acked.is_some_and(|acked| acked.elapsed() < lately) {
            found.push((held.map(from_log_id), voter));
        }
    }
    found.sort_unstable();
    found
}
