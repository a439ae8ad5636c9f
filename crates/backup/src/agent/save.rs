//! One snapshot from its number to the end of its predecessors: taken, proved, noted, and room made.

use std::time::Duration;

use bytes::Bytes;
use client::Client;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::chance::Chance;
use super::mandate::Mandate;
use super::rotate::rotate;
use super::take::{NotTaken, Order, STORE_SILENCE, Taken, in_time};
use super::verify::{Expected, verify};
use super::{AtPlace, Checking, Clock, Outcome, Place, Saved, Settings, Stop, figures, schedule};
use crate::Name;
use crate::note::{Note, Rules, Summary};
use crate::seal::Identities;

/// Who takes snapshots.
pub(super) struct Saver<'a> {
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) clock: &'a Clock,
    pub(super) checking: Checking,
    chance: &'a Chance,
    /// The id of the newest snapshot that is known, ours or another's.
    newest: Option<u64>,
    /// The id of the last one that was begun here.
    begun: Option<u64>,
    has_warned_of_clock: bool,
}

/// A snapshot that has its name, and what opens it.
pub(super) struct Fresh {
    pub(super) saved: Saved,
    /// Made for this snapshot alone and known to nobody else, since who saves need not have any that opens it later.
    identities: Option<Identities>,
}

impl<'a> Saver<'a> {
    pub(super) fn new(
        client: &'a Client,
        settings: &'a Settings,
        clock: &'a Clock,
        checking: Checking,
        chance: &'a Chance,
    ) -> Self {
        Self {
            client,
            settings,
            clock,
            checking,
            chance,
            newest: None,
            begun: None,
            has_warned_of_clock: false,
        }
    }

    /// Looks for the newest snapshot in every place, beside the one of which was heard. A place that can't be listed
    /// doesn't keep the others from counting.
    pub(super) async fn look(&mut self, heard: Option<u64>) -> Option<u64> {
        let (now, interval) = (self.clock.now(), self.settings.interval);
        // Anybody may have written that, and no number comes after a very large one.
        if let Some(id) = heard
            && !schedule::is_far_ahead(id, now, interval)
        {
            self.learn(id);
        }
        let newest = join_all(self.settings.places.iter().map(newest)).await;
        for newest in newest.into_iter().flatten() {
            self.learn(newest);
        }
        self.newest
    }

    /// Whether the last one that was begun here is somewhere, although its places said that it isn't.
    pub(super) async fn is_there_after_all(&mut self) -> bool {
        let newest = self.look(None).await;
        newest.is_some() && newest == self.begun
    }

    fn learn(&mut self, id: u64) {
        self.newest = self.newest.max(Some(id));
    }

    /// When a new leader takes its first snapshot.
    pub(super) fn wait(&self) -> Duration {
        schedule::wait(self.newest, self.clock.now(), self.settings.interval)
    }

    /// Takes a snapshot.
    pub(super) async fn take(
        &mut self,
        mandate: &Mandate<'_>,
        stop: Stop<'_>,
    ) -> Result<Fresh, NotTaken> {
        let began = Instant::now();
        let id = self.next_id()?;
        self.begun = Some(id);
        let name = Name {
            id,
            encrypted: !self.settings.recipients.is_empty(),
        };
        let identities = name.encrypted.then(Identities::generate);
        let mut recipients = self.settings.recipients.clone();
        recipients.extend(identities.iter().flat_map(Identities::recipients));
        let order = Order {
            client: self.client,
            settings: self.settings,
            checking: self.checking,
            name,
            recipients: &recipients,
        };
        let Taken {
            size,
            received,
            places,
        } = order.take(mandate, stop).await?;
        figures::note(&figures::SAVE, began);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        figures::SIZE.set(size as f64);
        self.learn(name.id);
        tracing::info!("Saved snapshot {}", name.id);
        let at_place = |(place, outcome): (&Place, Result<(), String>)| AtPlace {
            place: place.store.describe(),
            outcome: match outcome {
                Ok(()) => Outcome::Unverified("it has not been looked at yet".to_owned()),
                Err(why) => {
                    tracing::error!("Snapshot {} is not everywhere: {why}", name.id);
                    Outcome::Failed(why)
                }
            },
        };
        let places = self.settings.places.iter().zip(places);
        Ok(Fresh {
            saved: Saved {
                name,
                size,
                received,
                places: places.map(at_place).collect(),
            },
            identities,
        })
    }

    /// Looks at a snapshot wherever it lies, one place after the other, since each time all of it is in memory for a
    /// moment, and notes beside it what came of it.
    pub(super) async fn verify(&self, fresh: &mut Fresh) {
        let Fresh { saved, identities } = fresh;
        let Saved {
            name,
            size,
            received,
            places,
        } = saved;
        let expected = Expected {
            name: *name,
            size: *size,
            received,
            identities: identities.as_ref(),
        };
        for (place, at) in self.settings.places.iter().zip(places) {
            if matches!(at.outcome, Outcome::Failed(_)) {
                continue;
            }
            let began = Instant::now();
            at.outcome = verify(&place.store, &expected, self.checking).await;
            figures::note(&figures::VERIFY, began);
            let failure = match &at.outcome {
                Outcome::Verified | Outcome::Failed(_) => None,
                Outcome::Unverified(why) => {
                    tracing::warn!(
                        "Snapshot {} can't be read back to see whether it can be restored: {why}",
                        name.id
                    );
                    Some(why.clone())
                }
                Outcome::Wrong(why) => {
                    tracing::error!("Snapshot {} is of no use: {why}", name.id);
                    Some(why.clone())
                }
            };
            let note = Note {
                id: name.id,
                summary: Summary::of(received),
                size: *size,
                checked_at: self.time(),
                failure: failure.map(|why| super::status::short(&why)),
                rules: Some(Rules {
                    retention: place.retention,
                    interval: self.settings.interval,
                }),
            };
            let written = place.store.write_note(*name, Bytes::from(note.encode()));
            if let Err(why) = in_time(STORE_SILENCE, &place.store, written).await {
                tracing::warn!("There is no note beside snapshot {}: {why}", name.id);
            }
        }
    }

    /// Makes room wherever the snapshot is and isn't known to be of no use: what lies there beside it may be all that
    /// there is.
    pub(super) async fn rotate(&mut self, fresh: &Fresh, mandate: &Mandate<'_>) {
        let Saved { name, places, .. } = &fresh.saved;
        for (place, at) in self.settings.places.iter().zip(places) {
            let is_reason = match at.outcome {
                Outcome::Verified | Outcome::Unverified(_) => true,
                Outcome::Wrong(_) | Outcome::Failed(_) => false,
            };
            if !is_reason {
                continue;
            }
            if let Err(why) = rotate(place, *name, mandate, &mut self.newest).await {
                tracing::warn!("Old snapshots stay longer than they should: {why}");
            }
        }
    }

    /// What time it is.
    pub(super) fn time(&self) -> Timestamp {
        timestamp(self.clock.now())
    }

    fn next_id(&mut self) -> Result<u64, NotTaken> {
        let now = self.clock.now();
        if let Some(newest) = self.newest
            && schedule::is_far_ahead(newest, now, self.settings.interval)
            && !self.has_warned_of_clock
        {
            self.has_warned_of_clock = true;
            let ahead = SignedDuration::from_nanos(i64::try_from(newest - now).unwrap_or(i64::MAX));
            tracing::warn!(
                "The newest snapshot has the number {newest}, which is {ahead:#} ahead of this machine's clock: set the clocks right; meanwhile numbers go on from there"
            );
        }
        schedule::next_id(self.newest, now, self.chance.step()).ok_or_else(|| {
            NotTaken::Failed(format!(
                "there is a snapshot with the number {}, and no number after that; remove it",
                u64::MAX
            ))
        })
    }
}

/// The id of the newest snapshot at a place.
async fn newest(place: &Place) -> Option<u64> {
    match in_time(STORE_SILENCE, &place.store, place.store.list()).await {
        Ok(stored) => stored.iter().map(|stored| stored.name.id).max(),
        Err(why) => {
            // Who keeps everything need not let us list it.
            if place.retention.keeps_all() {
                tracing::debug!("which snapshots there are can't be found out: {why}");
            } else {
                tracing::warn!("Which snapshots there are can't be found out: {why}");
            }
            None
        }
    }
}

/// A number of nanoseconds since 1970 as a time.
pub(super) fn timestamp(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::MAX)
}
