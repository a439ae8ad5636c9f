//! The snapshot agent: saves the state of the servers again and again, to every place that it was given, and proves
//! that what lies there can be restored.
//!
//! [`run()`] is the agent that stays, [`once()`] takes a single snapshot. Neither reads a clock, draws chance or starts
//! a thread but by its [`Surroundings`].
//!
//! # Who saves, and when
//!
//! Several instances compete for a lock, with the recipe of [`client::Lock`]; the one that has it saves. It saves when
//! it has got the lock, at once, and then every interval, counted from the start of the last snapshot. *At once* has one
//! exception: where another instance (or this one, before) began a snapshot less than an interval ago, the new leader
//! waits for the rest of that interval, so that a failover doesn't make two of one. It learns of that snapshot from the
//! names in the places, and from the status entry; of both it believes the newest. So there is
//! never a second one in an interval, and a failover makes the one that is due late, by the time that it takes until
//! the lock is free, or by an interval if the leader went in the middle of it.
//! An interval has as many seconds as the new leader's clock says. If that clock is behind the former leader's by less
//! than an interval, the snapshot counts as just begun. If it is behind by more, one of both is wrong, nothing is known
//! about time, and it saves at once.
//!
//! A snapshot that failed everywhere is tried again after half a minute, and later if it fails again. One that is at
//! some places is not: there, it would be a second one. (A store that takes a snapshot, says it failed, and doesn't list
//! it either can still have two.) After so many failures in a row the lock is given back and left
//! alone for a minute; where there is nobody else, this instance gets it again.
//!
//! # What is promised of names
//!
//! A snapshot gets its name at any place only when all of it has arrived there, was sound, and a consistent read has
//! said that the lock is still ours. What remains is the time between that read and the name: a leader that is stopped
//! in between, or a store that takes longer than the lock-delay of 15 s, can publish a snapshot when another has begun to
//! save. Then there are two in one interval, with different names, each of them whole; nothing is overwritten, except
//! where a store was told to use one name for all. Only who holds the lock takes old ones away, and it looks again
//! before each; it takes away none that is later than the one it has just saved.
//!
//! Ids grow: a clock that was set back gives a snapshot a number after the newest one, by a step of a second at most that
//! is left to chance, since somebody else may go on from the same number.
//!
//! # What a failure keeps from happening
//!
//! Places don't depend on one another, except that the slowest sets the pace: one that fails while a snapshot is on its
//! way is left behind, one that hangs after some minutes. A snapshot that is missing somewhere, or turns out to be of no
//! use ([`Outcome::Wrong`]), is a failure; that it can't be read back ([`Outcome::Unverified`]) isn't, since who may only
//! write is not to lose his backups over it, but the check says so. Rotation waits for a snapshot that isn't known to be
//! of no use, and its own failures are warnings.
//! Servers that don't answer, a local agent that was restarted, a lock, session or service that a restore has wiped away:
//! all that ends in contending for the lock anew and registering anew, with pauses, for ever.
//!
//! # Where to read on
//!
//! `leader` is the schedule, `save` one snapshot from its number to the end of its predecessors, `take` its way to the
//! places, `verify` the proof, `service` what the cluster sees.

mod chance;
mod checker;
mod figures;
mod leader;
mod mandate;
mod rotate;
mod save;
mod schedule;
mod service;
mod settings;
mod status;
mod take;
#[cfg(test)]
mod tests;
mod verify;

use std::time::Duration;

use client::{Client, HeldLock, Lock, LockError, LockOptions};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::{sleep, timeout};

use chance::Chance;
use leader::{End, Leader, StatusEntry};
use mandate::Mandate;
use save::Saver;
use service::{Board, Keeper};
use take::NotTaken;

pub use settings::{Checking, Clock, Place, Settings, Surroundings};

use crate::{Name, Proof};

/// The longest interval, so that no sum of times can be too large.
const INTERVAL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// How long the lock is left alone after it was given up, for somebody else to take it; an interval that is shorter is
/// enough.
const GIVEN_UP_PAUSE: Duration = Duration::from_secs(60);

/// How long it is left alone after it was lost.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// How long giving back the lock may take.
const RELEASE_TIME: Duration = Duration::from_secs(8);

/// How often servers may fail in a row, a while apart, before the lock counts as lost.
const MONITOR_RETRIES: u32 = 3;

/// When one is to stop; many may wait for it.
type Stop<'a> = Shared<BoxFuture<'a, ()>>;

/// Why the agent ended, or took no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The settings can't be.
    #[error("{0}")]
    Settings(String),
    /// It was stopped before there was a snapshot.
    #[error("stopped before the snapshot was complete")]
    Stopped,
    /// There is no snapshot, or not at every place, or it isn't what it should be.
    #[error("{0}")]
    Save(String),
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What it is called.
    pub name: Name,
    /// How long it is where it lies, in bytes.
    pub size: u64,
    /// What it holds.
    pub received: Proof,
    /// What became of it at each place, in the order of the settings.
    pub places: Vec<AtPlace>,
}

/// What became of a snapshot at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtPlace {
    /// What the place is and where, for people.
    pub place: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a snapshot. The texts name the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there, and was downloaded, loaded, and found to be what was received.
    Verified,
    /// It is there, but could not be read again to see what it is.
    Unverified(String),
    /// What is there is not what was sent.
    Wrong(String),
    /// It isn't there.
    Failed(String),
}

impl Saved {
    /// Whether it can be restored from everywhere.
    pub fn is_verified(&self) -> bool {
        self.doubt().is_none()
    }

    /// What is wrong with it, in one line, if it is missing somewhere or of no use there.
    pub fn failure(&self) -> Option<String> {
        self.texts(|outcome| match outcome {
            Outcome::Verified | Outcome::Unverified(_) => None,
            Outcome::Wrong(why) | Outcome::Failed(why) => Some(why),
        })
    }

    /// Why it is not known, in one line, that it can be restored from everywhere.
    pub fn doubt(&self) -> Option<String> {
        self.texts(|outcome| match outcome {
            Outcome::Verified => None,
            Outcome::Unverified(why) | Outcome::Wrong(why) | Outcome::Failed(why) => Some(why),
        })
    }

    fn texts(&self, of: impl Fn(&Outcome) -> Option<&String>) -> Option<String> {
        let texts = self.places.iter().filter_map(|at| of(&at.outcome));
        let texts: Vec<&str> = texts.map(String::as_str).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// Takes snapshots, while it holds the lock, until `stop` says so: then a snapshot that is on its way is given up, the
/// lock is given back, and the service taken away.
///
/// # Errors
/// If the settings can't be. Whatever else goes wrong is told to the log and tried again.
pub async fn run(
    client: Client,
    settings: Settings,
    surroundings: Surroundings,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), AgentError> {
    check(&settings)?;
    if settings.interval < Duration::from_secs(1) || settings.interval > INTERVAL_MAX {
        return Err(AgentError::Settings(
            "the interval must be a second at least and ten years at most".to_owned(),
        ));
    }
    let stop: Stop<'_> = stop.boxed().shared();
    let chance = Chance::new(surroundings.seed);
    let instance = format!("{}:{:016x}", settings.service, chance.id());
    let board = Board::default();
    let mut keeper = Keeper::new(&client, &settings, &board, &chance, &instance);
    let saver = Saver::new(
        &client,
        &settings,
        &surroundings.clock,
        surroundings.checking,
        &chance,
    );
    let leader = Leader::new(&client, &settings, saver, &board, &chance, &instance);
    tracing::info!("Snapshot agent running");
    let ended = tokio::select! {
        biased;
        ended = contend(leader, &instance, &stop) => ended,
        () = keeper.keep() => Ok(()),
    };
    keeper.leave().await;
    ended
}

/// Takes one snapshot, without a lock and without registering anything.
///
/// # Errors
/// If the settings can't be, it was stopped, or the snapshot isn't at every place or is of no use there.
pub async fn once(
    client: Client,
    settings: Settings,
    surroundings: Surroundings,
    stop: impl Future<Output = ()> + Send,
) -> Result<Saved, AgentError> {
    check(&settings)?;
    let stop: Stop<'_> = stop.boxed().shared();
    let chance = Chance::new(surroundings.seed);
    let mut saver = Saver::new(
        &client,
        &settings,
        &surroundings.clock,
        surroundings.checking,
        &chance,
    );
    let mut status = StatusEntry::new(&client, &settings, "");
    let look = async {
        let heard = status.read().await;
        saver.look(heard).await;
    };
    unless_stopped(&stop, look)
        .await
        .ok_or(AgentError::Stopped)?;
    let mut fresh = match saver.take(&Mandate::Alone, stop.clone()).await {
        Ok(fresh) => fresh,
        Err(NotTaken::Stopped) => return Err(AgentError::Stopped),
        Err(NotTaken::Failed(why) | NotTaken::Unclear(why) | NotTaken::Lost(why)) => {
            status.failed(&why, &saver);
            unless_stopped(&stop, status.write(1, None, &saver)).await;
            return Err(AgentError::Save(format!("no snapshot: {why}")));
        }
    };
    let id = fresh.saved.name.id;
    let finish = async {
        saver.verify(&mut fresh).await;
        status.saved(&fresh.saved, &saver);
        let failure = fresh.saved.failure();
        failure.iter().for_each(|why| status.failed(why, &saver));
        let failures = u32::from(failure.is_some());
        status.write(failures, None, &saver).await;
        saver.rotate(&fresh, &Mandate::Alone).await;
        failure
    };
    match unless_stopped(&stop, finish).await {
        Some(None) => Ok(fresh.saved),
        Some(Some(why)) => Err(AgentError::Save(why)),
        None => Err(AgentError::Save(format!(
            "snapshot {id} is saved, but this was stopped before it was looked at"
        ))),
    }
}

async fn unless_stopped<T>(stop: &Stop<'_>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.clone() => None,
        done = work => Some(done),
    }
}

fn check(settings: &Settings) -> Result<(), AgentError> {
    if settings.places.is_empty() {
        return Err(AgentError::Settings(
            "there is no place for snapshots; name one at least".to_owned(),
        ));
    }
    Ok(())
}

/// Takes the lock, leads, and does so again, until one is to stop.
async fn contend(
    mut leader: Leader<'_>,
    instance: &str,
    stop: &Stop<'_>,
) -> Result<(), AgentError> {
    let settings = leader.settings;
    if !settings.datacenter.is_empty() {
        match unless_stopped(stop, check_datacenter(&leader)).await {
            Some(checked) => checked?,
            None => return Ok(()),
        }
    }
    let lock = Lock::new(
        leader.client,
        LockOptions {
            // For people who wonder who has it.
            value: instance.to_owned().into(),
            monitor_retries: MONITOR_RETRIES,
            ..LockOptions::new(&settings.lock_key)
        },
    );
    let mut is_waiting = false;
    let mut failures = 0_u32;
    let mut complaint = String::new();
    loop {
        if !std::mem::replace(&mut is_waiting, true) {
            tracing::info!("Waiting to obtain leadership...");
        }
        let pause = match lock.acquire_unless(stop.clone(), None).await {
            Ok(None) => return Ok(()),
            Ok(Some(held)) => {
                is_waiting = false;
                failures = 0;
                complaint.clear();
                tracing::info!("Obtained leadership");
                let end = leader.lead(&held, stop.clone()).await;
                release(held, &end).await;
                match end {
                    End::Stopped => return Ok(()),
                    End::Lost(why) => {
                        tracing::warn!("Lost leadership: {why}");
                        LOST_PAUSE
                    }
                    End::GaveUp => {
                        tracing::warn!(
                            "Gave up leadership after {} failed snapshots in a row, so that another instance can try",
                            settings.max_failures
                        );
                        GIVEN_UP_PAUSE.min(settings.interval)
                    }
                }
            }
            Err(why) => {
                let text = why.to_string();
                // Once is enough for a day without servers.
                if text != complaint {
                    tracing::warn!(
                        "The lock {} can't be had, which is tried again: {text}{}",
                        settings.lock_key,
                        hint(&why)
                    );
                    complaint = text;
                }
                failures = failures.saturating_add(1);
                chance::doubled(failures)
            }
        };
        let pause = sleep(leader.chance.about(pause));
        if unless_stopped(stop, pause).await.is_none() {
            return Ok(());
        }
    }
}

/// What to do about a lock that can't be had.
fn hint(why: &LockError) -> &'static str {
    match why {
        LockError::Conflict(_) => "; name another key for the lock, or remove this one",
        LockError::Call {
            why: client::Error::Unexpected { code: 403, .. },
            ..
        } => "; let the token create sessions and write this key",
        _ => "",
    }
}

/// Gives back the lock, whatever became of it.
async fn release(held: HeldLock, end: &End) {
    let why = match timeout(RELEASE_TIME, held.release()).await {
        Ok(Ok(_)) => return,
        Ok(Err(why)) => why.to_string(),
        Err(_) => "i/o timeout".to_owned(),
    };
    match end {
        // It has gone in any case.
        End::Lost(_) => tracing::debug!("the lock can't be given back: {why}"),
        End::Stopped | End::GaveUp => tracing::warn!(
            "The lock can't be given back, so that another instance gets it half a minute later: {why}"
        ),
    }
}

/// That the datacenter is the local agent's own: elsewhere there is no node for a session and a service.
async fn check_datacenter(leader: &Leader<'_>) -> Result<(), AgentError> {
    let wanted = &leader.settings.datacenter;
    let mut failures = 0_u32;
    loop {
        match leader.client.agent_place().await {
            Ok((_, own)) if own.eq_ignore_ascii_case(wanted) => return Ok(()),
            Ok((_, own)) => {
                return Err(AgentError::Settings(format!(
                    "the agent is in the datacenter {own:?} and {wanted:?} is to be saved, which is only done once at a time: use an interval of 0, or an agent of that datacenter"
                )));
            }
            Err(why) => {
                if failures == 0 {
                    tracing::warn!(
                        "The local agent doesn't say in which datacenter it is, and is asked again: {why}"
                    );
                }
                failures = failures.saturating_add(1);
                sleep(leader.chance.about(chance::doubled(failures))).await;
            }
        }
    }
}
