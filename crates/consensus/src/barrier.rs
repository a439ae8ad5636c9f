//! Read barriers: one round for all that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::consensus::{BarrierError, barrier_error};
use crate::raft::Raft;
use crate::tasks::{Stop, Tasks};

/// Somebody who waits for a barrier.
pub(crate) type Waiter = oneshot::Sender<Result<(), BarrierError>>;

/// Those who share one round, at most; the others share the next.
const SHARERS_MAX: usize = 65_536;

/// Starts the task that runs one round after the other, as long as somebody waits.
///
/// Who comes while a round is under way waits for the next one: the one under way may have asked the majority before
/// the question came.
pub(crate) fn spawn(
    raft: &Raft,
    config: &Config,
    tasks: &Tasks,
    stop: Stop,
    waiting_max: usize,
    rounds: Arc<AtomicU64>,
) -> mpsc::Sender<Waiter> {
    let (ask, mut asked) = mpsc::channel::<Waiter>(waiting_max);
    let raft = raft.clone();
    // By then either another leader has been elected or there is no majority.
    let timeout = config.election_timeout_max;
    tasks.spawn(async move {
        let mut waiters = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                count = asked.recv_many(&mut waiters, SHARERS_MAX) => {
                    if count == 0 {
                        break;
                    }
                }
            }
            rounds.fetch_add(1, Ordering::Relaxed);
            let round =
                tokio::time::timeout(timeout, raft.ensure_linearizable(ReadPolicy::ReadIndex));
            let outcome = tokio::select! {
                biased;
                () = stop.stopped() => Err(BarrierError::Stopped),
                passed = round => match passed {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(barrier_error(error)),
                    Err(_) => Err(BarrierError::NoQuorum),
                },
            };
            for waiter in waiters.drain(..) {
                // It may have given up.
                let _ = waiter.send(outcome.clone());
            }
        }
    });
    ask
}
