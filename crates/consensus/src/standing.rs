//! Whether a server that leads may act as a leader: not while its log can't be written or nobody answers it, nor once it
//! hands over.
//!
//! The Raft library goes on leading as long as a majority answers its heartbeats, and those need no disk. A leader whose
//! disk hangs would keep its lease for ever, though nothing that it writes becomes durable here, and could not even write
//! down that another was elected. So the time that the oldest unfinished write takes is bounded: when it exceeds the
//! shortest election timeout, which is noticed within a heartbeat, this server counts as no leader from then on. It asks
//! the voter that holds most to take over, and sends no more heartbeats, so that the others elect somebody if that one
//! doesn't. When the disk works again, it takes part as before.
//!
//! Nor does the library mind that no majority answers. Such a leader can't do anything, but if it is still heard, its
//! heartbeats keep all others from electing one that could. So when it was not answered for two of the longest election
//! timeouts (an answer may wait for a follower's disk, so one would be too soon), it counts as no leader, and falls silent for long enough that the others elect somebody. If it then still leads,
//! because nobody else can be elected either, it speaks again for a while, and so on in turns: perhaps its log is the one
//! that is needed.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use tokio::sync::Notify;
use tokio::time::Instant;

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
    is_unheard: AtomicBool,
    is_silent: AtomicBool,
    /// The term in which this leader began to hand over; the library never lets it lead again in that term.
    handed_over: AtomicU64,
    changed: Notify,
    set_aside: Notify,
}

impl Standing {
    /// From now on another may be elected in spite of a lease that was granted in this term.
    pub(crate) fn hand_over(&self, term: u64) {
        self.shared.handed_over.fetch_max(term, Ordering::AcqRel);
        self.shared.changed.notify_waiters();
    }

    fn set_stalled(&self, is_stalled: bool) {
        self.set(&self.shared.is_stalled, is_stalled);
    }

    fn set_unheard(&self, is_unheard: bool) {
        self.set(&self.shared.is_unheard, is_unheard);
    }

    fn set(&self, flag: &AtomicBool, value: bool) {
        if flag.swap(value, Ordering::AcqRel) != value {
            self.shared.changed.notify_waiters();
            if value {
                self.shared.set_aside.notify_waiters();
            }
        }
    }

    fn is_stalled(&self) -> bool {
        self.shared.is_stalled.load(Ordering::Acquire)
    }

    /// Whether this server leads, as far as the library knows, and no majority answers it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.shared.is_unheard.load(Ordering::Acquire)
    }

    /// Whether nothing can become of what a leader does.
    pub(crate) fn is_aside(&self) -> bool {
        self.is_stalled() || self.is_unheard()
    }

    /// Whether this server says nothing to its peers, so that they elect another.
    pub(crate) fn is_silent(&self) -> bool {
        self.shared.is_silent.load(Ordering::Acquire)
    }

    /// Whether the leader of this term, which is this server, may act as one.
    pub(crate) fn may_lead(&self, term: u64) -> bool {
        !self.is_aside() && self.shared.handed_over.load(Ordering::Acquire) < term
    }

    /// Returns when the standing changes. What changes before the future is first polled is missed.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Returns when nothing can become any more of what a leader does.
    pub(crate) async fn aside(&self) {
        let mut aside = pin!(self.shared.set_aside.notified());
        aside.as_mut().enable();
        if !self.is_aside() {
            aside.await;
        }
    }
}

/// Looks whether the log can still be written, and hands over when it can't; and whether a leader is still answered.
pub(crate) struct Watchdog {
    pub(crate) id: NodeId,
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) standing: Standing,
    /// How often it looks.
    pub(crate) interval: Duration,
    /// How long a write may take.
    pub(crate) bound: Duration,
    /// How lately a successor must have answered, and a majority a leader.
    pub(crate) lately: Duration,
    /// Since when no majority has answered, as of the term in which this server leads.
    pub(crate) unheard: Option<Unheard>,
}

/// A leader that nobody answers.
pub(crate) struct Unheard {
    term: u64,
    since: Instant,
}

/// How many of the longest election timeouts a leader waits for the answers of a majority.
const UNHEARD_AFTER: u32 = 2;

/// How many of them a leader that nobody answers is silent: a follower stands for election after
/// at most two, and has to be elected.
const SILENT_FOR: u32 = 4;

/// How many of them it then speaks before it is silent again.
const SPEAKS_FOR: u32 = 2;

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
            unheard: None,
        }
    }

    pub(crate) async fn run(mut self, stop: Stop) {
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            // One that was held up itself has not listened either.
            let is_late = looked.elapsed() > self.interval * 2;
            looked = Instant::now();
            if is_late {
                // What it doesn't know is no reason to be silent.
                self.standing
                    .shared
                    .is_silent
                    .store(false, Ordering::Release);
            } else {
                self.listen(looked);
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

    /// Whether a majority answers this server if it leads; if not, when it speaks.
    fn listen(&mut self, now: Instant) {
        let (term, leads, acked) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let has_others = metrics.membership_config.membership().voter_ids().count() > 1;
            let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
            (
                metrics.current_term,
                leads && has_others,
                metrics.last_quorum_acked,
            )
        };
        let patience = self.lately * UNHEARD_AFTER;
        let was_answered = acked.is_some_and(|acked| acked.elapsed() < patience);
        if !leads || was_answered {
            if self.unheard.take().is_some() && self.standing.is_unheard() && leads {
                tracing::info!("a majority answers again, this server leads on");
            }
            self.standing
                .shared
                .is_silent
                .store(false, Ordering::Release);
            self.standing.set_unheard(false);
            return;
        }
        let since = match &self.unheard {
            Some(unheard) if unheard.term == term => unheard.since,
            // A leader that was only just elected gets as much time to be answered.
            _ => {
                self.unheard = Some(Unheard { term, since: now });
                now
            }
        };
        let unheard_for = now.saturating_duration_since(since);
        let grace = if acked.is_some() {
            self.interval
        } else {
            patience
        };
        if unheard_for < grace {
            return;
        }
        if !self.standing.is_unheard() {
            tracing::warn!("no majority answers this server, it does not lead until one does");
            self.standing.set_unheard(true);
        }
        let round = self.lately * (SILENT_FOR + SPEAKS_FOR);
        let in_round = (unheard_for - grace).as_nanos() % round.as_nanos().max(1);
        let is_silent = in_round < (self.lately * SILENT_FOR).as_nanos();
        self.standing
            .shared
            .is_silent
            .store(is_silent, Ordering::Release);
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
