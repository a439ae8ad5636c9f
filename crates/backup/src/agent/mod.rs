//! The snapshot agent: saves the state of the servers again and again, to every place that it was given, and proves
//! that what lies there can be restored.
//!
//! [`run()`] is the agent that stays, [`once`] takes a single snapshot.

mod checker;
mod mandate;
mod settings;
mod take;

use std::time::Duration;

use client::{Client, Lock, LockOptions};
use futures::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};

use mandate::Mandate;
use take::{NotTaken, Taken};

pub use settings::{Checking, Clock, Place, Settings, Surroundings};

use crate::{Name, Proof};

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

/// What became of a snapshot.
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

/// Takes snapshots, while it holds the lock, until `stop` says so.
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
    let stop = stop.boxed().shared();
    let lock = Lock::new(&client, LockOptions::new(&settings.lock_key));
    tracing::info!("Snapshot agent running");
    loop {
        tracing::info!("Waiting to obtain leadership...");
        let held = match lock.acquire_unless(stop.clone(), None).await {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(()),
            Err(why) => {
                tracing::warn!("{why}");
                tokio::select! {
                    biased;
                    () = stop.clone() => return Ok(()),
                    () = sleep(Duration::from_secs(5)) => continue,
                }
            }
        };
        tracing::info!("Obtained leadership");
        let mandate = Mandate::Lock {
            client: &client,
            key: &settings.lock_key,
            held: &held,
        };
        loop {
            let next = Instant::now() + settings.interval;
            match save(&client, &settings, &surroundings, &mandate, stop.clone()).await {
                Ok(_) => {}
                Err(NotTaken::Failed(why)) => tracing::error!("no snapshot: {why}"),
                Err(_) => break,
            }
            tokio::select! {
                biased;
                () = stop.clone() => break,
                _ = mandate.lost() => break,
                () = sleep_until(next) => {}
            }
        }
        let _ = held.release().await;
    }
}

/// Takes one snapshot, without a lock and without registering anything.
///
/// # Errors
/// If the settings can't be, or the snapshot isn't at every place or isn't what it should be.
pub async fn once(
    client: Client,
    settings: Settings,
    surroundings: Surroundings,
    stop: impl Future<Output = ()> + Send,
) -> Result<Saved, AgentError> {
    check(&settings)?;
    match save(&client, &settings, &surroundings, &Mandate::Alone, stop).await {
        Ok(saved) => Ok(saved),
        Err(NotTaken::Stopped) => Err(AgentError::Stopped),
        Err(NotTaken::Failed(why) | NotTaken::Lost(why)) => Err(AgentError::Save(why)),
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

async fn save(
    client: &Client,
    settings: &Settings,
    surroundings: &Surroundings,
    mandate: &Mandate<'_>,
    stop: impl Future<Output = ()> + Send,
) -> Result<Saved, NotTaken> {
    let name = Name {
        id: surroundings.clock.now(),
        encrypted: false,
    };
    let Taken {
        size,
        received,
        places,
    } = take::take(client, settings, surroundings.checking, name, mandate, stop).await?;
    tracing::info!("Saved snapshot {}", name.id);
    let at_place = |(place, outcome): (&Place, Result<(), String>)| AtPlace {
        place: place.store.describe(),
        outcome: match outcome {
            Ok(()) => Outcome::Unverified("nobody has looked yet".to_owned()),
            Err(why) => Outcome::Failed(why),
        },
    };
    Ok(Saved {
        name,
        size,
        received,
        places: settings.places.iter().zip(places).map(at_place).collect(),
    })
}
