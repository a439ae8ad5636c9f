//! What the leader does besides answering: begun anew at each change of leader and after each restore.

mod acl;
mod register;
mod tombstones;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use model::Error;
use tokio::sync::watch;

use crate::core::Core;
use crate::restore;

/// How long after a failure the duties are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often the duties are gone through while nothing happens; the original does the same.
const INTERVAL: Duration = Duration::from_secs(60);

/// A duty: looks at the state and writes what is missing.
type Duty = for<'a> fn(&'a Core) -> BoxFuture<'a, Result<(), Error>>;

/// In this order.
const DUTIES: &[(&str, Duty)] = &[
    ("make sure of tokens", acl::run),
    ("register this server", register::run),
];

/// Attends to the duties while this server leads, until shutdown.
pub(crate) async fn run(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let work = async {
        let mut leadership = core.leadership.clone();
        loop {
            let seen = leadership.borrow_and_update().clone();
            if seen.is_leader {
                lead(&core, seen.term).await;
                core.set_ready(0);
            } else if leadership.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = follow(&core) => {}
        () = work => {}
    }
}

/// Tells those who are held of every change of leader. It is part of the same task as the rest, because a `watch` on which several tasks wait draws lots among them.
async fn follow(core: &Core) {
    let mut leadership = core.leadership.clone();
    loop {
        let now = leadership.borrow_and_update().clone();
        core.note_leader(&now);
        if leadership.changed().await.is_err() {
            // The log has stopped; its last word was that nobody leads.
            std::future::pending::<()>().await;
        }
    }
}

/// One term as the leader; returns when it is over.
async fn lead(core: &Core, term: u64) {
    let mut leadership = core.leadership.clone();
    let over = async {
        // A closed channel means that the log has stopped.
        let _ = leadership
            .wait_for(|now| !now.is_leader || now.term != term)
            .await;
    };
    let work = async {
        while let Err(error) = core.consensus.read_barrier().await {
            tracing::warn!("cannot catch up as the leader of term {term}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        core.set_ready(term);
        tracing::info!("leader of term {term}");
        let mut replaced = core.replaced.clone();
        loop {
            replaced.borrow_and_update();
            let reaping = tombstones::run(core);
            let clearing = restore::clear_abandoned(core);
            let attending = attend(core);
            tokio::select! {
                biased;
                changed = replaced.changed() => if changed.is_err() { return },
                () = reaping => {}
                () = clearing => {}
                () = attending => {}
            }
            tracing::info!("the state was replaced by a snapshot; the leader's duties begin anew");
        }
    };
    tokio::select! {
        biased;
        () = over => {}
        () = work => {}
    }
}

/// Goes through the list again and again.
async fn attend(core: &Core) {
    loop {
        let mut pause = INTERVAL;
        for (what, duty) in DUTIES {
            if let Err(error) = duty(core).await {
                tracing::warn!("cannot {what}: {error}; trying again in {RETRY:?}");
                pause = RETRY;
                break;
            }
        }
        tokio::time::sleep(pause).await;
    }
}
