//! What the leader does besides answering: begun anew at each change of leader and after each restore.

mod acl;
mod lock_delays;
mod peers;
mod reconcile;
mod sessions;
mod tombstones;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use gossip::{Event, Events, Gossip, Member, Status};
use model::Error;
use tokio::time::Instant;

use self::reconcile::{Subject, Sweep};

pub(crate) use self::sessions::{Timers, renew};

use crate::core::Core;
use crate::figures;
use crate::restore;

/// How long after a failure the duties are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often the duties are gone through while nothing happens; the original does the same.
const INTERVAL: Duration = Duration::from_secs(60);

/// Attends to the duties while this server leads, for ever.
pub(crate) async fn run(core: &Core) {
    let work = async {
        let mut leadership = core.leadership.clone();
        loop {
            let seen = leadership.borrow_and_update().clone();
            if seen.is_leader {
                lead(core, seen.term).await;
                core.set_ready(0);
            } else if leadership.changed().await.is_err() {
                // The log has stopped.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        () = follow(core) => {}
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
        let began = Instant::now();
        while let Err(error) = core.consensus.read_barrier().await {
            tracing::warn!("cannot catch up as the leader of term {term}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        figures::note(&figures::BARRIER, began);
        core.set_ready(term);
        tracing::info!("leader of term {term}");
        tokio::select! {
            biased;
            // What is on its way to the log outlasts a restore, so this one is told of it in another way.
            () = sessions::run(core, term) => {}
            () = lock_delays::run(core) => {}
            () = begin_anew(core) => {}
        }
    };
    tokio::select! {
        biased;
        () = over => {}
        () = work => {}
    }
}

/// The duties that begin anew when the state was replaced.
async fn begin_anew(core: &Core) {
    announce(core).await;
    let mut replaced = core.replaced.clone();
    loop {
        replaced.borrow_and_update();
        tokio::select! {
            biased;
            changed = replaced.changed() => if changed.is_err() { return },
            () = tombstones::run(core) => {}
            () = restore::clear_abandoned(core) => {}
            () = take_part(core) => {}
            () = attend(core) => {}
        }
        tracing::info!("a snapshot was restored; the leader's duties begin anew");
    }
}

/// Tells all members who leads, so that they write at once what they could not write without a leader.
async fn announce(core: &Core) {
    if let Some(gossip) = &core.gossip {
        let name = Bytes::from(core.config.node_name.clone());
        if let Err(error) = gossip.user_event(NEW_LEADER, name, false).await {
            tracing::warn!("cannot tell the members that this server leads: {error}");
        }
    }
}

/// The event that the original sends on gaining leadership.
const NEW_LEADER: &str = "consul:new-leader";

/// Keeps the members of consensus what they should be.
async fn take_part(core: &Core) {
    match &core.gossip {
        Some(gossip) => peers::run(core, gossip).await,
        None => std::future::pending().await,
    }
}

/// Makes sure of tokens and of the catalog again and again, and of a member at each of its events.
async fn attend(core: &Core) {
    let mut events = core.gossip.as_ref().map(Gossip::subscribe);
    let mut sweep = Sweep::default();
    loop {
        let pause = match go_through(core, &mut sweep).await {
            Ok(()) => INTERVAL,
            Err((what, error)) => {
                tracing::warn!("cannot {what}: {error}; trying again in {RETRY:?}");
                RETRY
            }
        };
        let mut rest = pin!(tokio::time::sleep(pause));
        loop {
            let event = tokio::select! {
                biased;
                event = next(&mut events) => event,
                () = &mut rest => break,
            };
            let subject = match event {
                Event::Joined(member)
                | Event::Updated(member)
                | Event::Leaving(member)
                | Event::Left(member)
                | Event::Failed(member) => {
                    // As it is by now: a failure that was refuted since must not cost anybody a session.
                    let now = core
                        .gossip
                        .as_ref()
                        .and_then(|pool| pool.member(&member.name));
                    let member = now.unwrap_or(member);
                    Subject::of(&member, &core.config).filter(|_| !is_superseded(core, &member))
                }
                Event::Reaped(member) => {
                    Subject::reaped(&member, &core.config).filter(|_| !is_superseded(core, &member))
                }
                Event::User(_) => None,
                Event::Missed(count) => {
                    tracing::warn!("missed {count} events of members; looking at all of them");
                    break;
                }
            };
            if let Some(subject) = subject
                && let Err(error) = reconcile::attend(core, &subject).await
            {
                tracing::warn!("cannot bring a member into the catalog: {error}");
                rest.as_mut().reset(Instant::now() + RETRY);
            }
        }
    }
}

fn is_superseded(core: &Core, member: &Member) -> bool {
    let pool = core.gossip.as_ref();
    // Looking through all members takes its time, so not for those who are there.
    member.status != Status::Alive
        && pool.is_some_and(|pool| reconcile::is_superseded(member, &pool.members()))
}

async fn next(events: &mut Option<Events>) -> Event {
    if let Some(events) = events
        && let Some(event) = events.next().await
    {
        return event;
    }
    // There is no pool, or it has ended, and so will this server.
    std::future::pending().await
}

async fn go_through(core: &Core, sweep: &mut Sweep) -> Result<(), (&'static str, Error)> {
    let failed = |what| move |error| (what, error);
    acl::run(core)
        .await
        .map_err(failed("make sure of tokens"))?;
    let began = Instant::now();
    let swept = sweep.run(core).await;
    figures::note(&figures::RECONCILE, began);
    swept.map_err(failed("bring the members into the catalog"))
}
