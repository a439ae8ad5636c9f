//! One snapshot: from the servers through a check to all places at once, under its name only when it is whole and
//! wanted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Consistency, QueryOptions, SnapshotDownload};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tokio::time::{sleep, timeout};

use super::checker::Checker;
use super::mandate::{Doubt, Mandate};
use super::{Checking, Place, Settings, Stop};
use crate::seal::{Recipient, sealed};
use crate::stores::{Content, Store, StoreError, Upload};
use crate::{Name, Proof, digest};

/// How long a store may take for a piece, or to begin: longer than those that try again by themselves do.
pub(super) const STORE_SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long a store may take to give a snapshot its name, which is when clouds put the parts together.
const PUBLISH_TIME: Duration = Duration::from_secs(15 * 60);

/// How long is waited for a store to take away what isn't wanted, or to give what is whole its name, when one is to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Why there is no snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// One is to stop.
    Stopped,
    /// The lock was lost, so it is another's business.
    Lost(String),
    /// It went wrong.
    Failed(String),
    /// It went wrong when it was to get its name, so that it may have it somewhere.
    Unclear(String),
}

/// A snapshot that was published at one place at least.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) size: u64,
    /// What arrived.
    pub(super) received: Proof,
    /// By place, whether it is there.
    pub(super) places: Vec<Result<(), String>>,
}

/// What is on its way to one place.
struct Shipment {
    store: Arc<dyn Store>,
    /// Or why it doesn't go there.
    upload: Result<Box<dyn Upload>, String>,
}

/// Which snapshot is to be taken.
pub(super) struct Order<'a> {
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) checking: Checking,
    pub(super) name: Name,
    /// To whom it is encrypted, if it is to be.
    pub(super) recipients: &'a [Recipient],
}

impl Order<'_> {
    /// Takes the snapshot.
    ///
    /// Stopped, or with the lock lost, it leaves nothing behind. From the moment in which the lock was found to be
    /// still ours, it may have its name at some places, and the others are waited for for a moment.
    pub(super) async fn take(
        &self,
        mandate: &Mandate<'_>,
        stop: Stop<'_>,
    ) -> Result<Taken, NotTaken> {
        let mut shipments = Vec::new();
        let filled = tokio::select! {
            biased;
            () = stop.clone() => Err(NotTaken::Stopped),
            loss = mandate.lost() => Err(NotTaken::Lost(loss.to_string())),
            filled = self.fill(mandate, &mut shipments) => filled,
        };
        let (size, received) = match filled {
            Ok(filled) => filled,
            Err(why) => {
                abandon(shipments).await;
                return Err(why);
            }
        };
        let places = tokio::select! {
            biased;
            places = publish(shipments) => places,
            () = async {
                stop.await;
                sleep(STOP_TIME).await;
            } => return Err(NotTaken::Stopped),
        };
        if places.iter().all(Result::is_err) {
            return Err(NotTaken::Unclear(all(&places)));
        }
        Ok(Taken {
            size,
            received,
            places,
        })
    }

    /// Everything up to the moment in which it gets its name.
    async fn fill(
        &self,
        mandate: &Mandate<'_>,
        shipments: &mut Vec<Shipment>,
    ) -> Result<(u64, Proof), NotTaken> {
        let download = self.download().await.map_err(NotTaken::Failed)?;
        let begun = self.settings.places.iter().map(|to| begin(to, self.name));
        shipments.extend(join_all(begun).await);

        let (checker, archive) = Checker::watch(self.checking, digest, arriving(download));
        let mut content = if self.recipients.is_empty() {
            archive
        } else {
            sealed(archive, self.recipients)
        };
        let sent = ship(&mut content, shipments).await;
        drop(content);
        let received = checker.finish().await;
        // What is wrong on the way explains what is wrong with the archive, and not the other way round.
        let size = sent.map_err(NotTaken::Failed)?;
        let received = received.map_err(|why| {
            NotTaken::Failed(format!("what the servers sent is no sound snapshot: {why}"))
        })?;
        match mandate.confirm().await {
            Ok(()) => Ok((size, received)),
            Err(Doubt::Lost(why)) => Err(NotTaken::Lost(why)),
            Err(Doubt::Unseen(why)) => Err(NotTaken::Failed(format!(
                "it was not published since nobody can say whether the lock is still held: {why}"
            ))),
        }
    }

    async fn download(&self) -> Result<SnapshotDownload, String> {
        let consistency = if self.settings.stale {
            Consistency::Stale
        } else {
            Consistency::Leader
        };
        let options = QueryOptions {
            datacenter: self.settings.datacenter.clone(),
            consistency,
            ..QueryOptions::default()
        };
        let download = self.client.snapshot_save(&options).await;
        download.map_err(|why| {
            let hint = match why {
                client::Error::Unexpected { code: 403, .. } => {
                    "; a management token is needed to save all of the state"
                }
                _ => "",
            };
            format!("the servers gave no snapshot: {why}{hint}")
        })
    }
}

/// What the servers send.
fn arriving(download: SnapshotDownload) -> Content {
    let pieces = stream::try_unfold(download, |mut download| async {
        match download.chunk().await {
            Ok(Some(piece)) => Ok(Some((piece, download))),
            Ok(None) => Ok(None),
            Err(why) => Err(io::Error::other(why.to_string())),
        }
    });
    pieces.boxed()
}

async fn begin(place: &Place, name: Name) -> Shipment {
    let upload = in_time(STORE_SILENCE, &place.store, place.store.begin(name)).await;
    Shipment {
        store: Arc::clone(&place.store),
        upload,
    }
}

/// Sends the content to every place that takes it, as fast as the slowest, and says how long it was.
async fn ship(content: &mut Content, shipments: &mut [Shipment]) -> Result<u64, String> {
    let mut size = 0;
    loop {
        if shipments.iter().all(|shipment| shipment.upload.is_err()) {
            let failures: Vec<_> = shipments.iter().map(Shipment::state).collect();
            return Err(all(&failures));
        }
        let piece = match content.next().await {
            None => return Ok(size),
            Some(Ok(piece)) => piece,
            Some(Err(why)) => return Err(format!("the snapshot broke off on its way: {why}")),
        };
        size += piece.len() as u64;
        let writes = shipments.iter_mut().map(|to| to.write(piece.clone()));
        join_all(writes).await;
    }
}

impl Shipment {
    fn state(&self) -> Result<(), String> {
        self.upload.as_ref().map(drop).map_err(Clone::clone)
    }

    async fn write(&mut self, piece: Bytes) {
        let Ok(upload) = &mut self.upload else {
            return;
        };
        let written = in_time(STORE_SILENCE, &self.store, upload.write(piece)).await;
        if let Err(why) = written
            && let Ok(upload) = std::mem::replace(&mut self.upload, Err(why))
        {
            // What it has of it is of no use.
            let _ = timeout(STOP_TIME, upload.abandon()).await;
        }
    }
}

async fn publish(shipments: Vec<Shipment>) -> Vec<Result<(), String>> {
    let publish = |shipment: Shipment| async move {
        let upload = shipment.upload?;
        in_time(PUBLISH_TIME, &shipment.store, upload.publish()).await
    };
    join_all(shipments.into_iter().map(publish)).await
}

async fn abandon(shipments: Vec<Shipment>) {
    let uploads = shipments.into_iter().filter_map(|to| to.upload.ok());
    let abandoned = uploads.map(|upload| timeout(STOP_TIME, upload.abandon()));
    join_all(abandoned).await;
}

/// What a store comes to, which is named in what it says went wrong.
pub(super) async fn in_time<T>(
    time: Duration,
    store: &Arc<dyn Store>,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, String> {
    match timeout(time, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(format!("{}: {why}", store.describe())),
        Err(_) => Err(format!(
            "{}: it hasn't answered for {time:?}; check whether it can be reached",
            store.describe()
        )),
    }
}

/// All that went wrong, in one line.
pub(super) fn all(places: &[Result<(), String>]) -> String {
    let failures: Vec<&str> = (places.iter())
        .filter_map(|place| place.as_ref().err().map(String::as_str))
        .collect();
    failures.join("; ")
}
