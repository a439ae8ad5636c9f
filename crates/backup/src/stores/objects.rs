//! Objects in a bucket, whichever cloud it belongs to.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, UploadPart};
use tokio::time::timeout;

use super::{Content, Store, StoreError, Stored, Upload, check_note};
use crate::Name;
use crate::name::NOTE;

/// How long a part is. A store takes 10,000 of them, so a snapshot may have 80 GB.
const PART: usize = 8 << 20;

/// How many parts may be on their way; with the one that is being filled they are all that is in memory.
const PARTS_MAX: usize = 4;

/// How long a store may take for one part, or for a request without a body.
const PATIENCE: Duration = Duration::from_secs(120);

/// Snapshots as objects under a prefix.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The one name of all snapshots, if they overwrite each other.
    only: Option<Path>,
    /// For people: which cloud, which bucket.
    described: String,
}

impl Objects {
    /// The snapshots under a prefix of a bucket.
    ///
    /// # Errors
    /// [`StoreError::Settings`] if prefix or name can't be.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        only: Option<&str>,
        described: String,
    ) -> Result<Self, StoreError> {
        let path = |text: &str| {
            Path::parse(text)
                .map_err(|why| StoreError::Settings(format!("{text:?} can't be a key: {why}")))
        };
        Ok(Self {
            store,
            prefix: path(prefix.trim_matches('/'))?,
            only: only.map(path).transpose()?,
            described,
        })
    }

    /// The same bucket, with this key for every name.
    pub(super) fn at(mut self, key: &str) -> Result<Self, StoreError> {
        let only = Path::parse(key)
            .map_err(|why| StoreError::Settings(format!("{key:?} can't be a key: {why}")))?;
        self.only = Some(only);
        Ok(self)
    }

    fn key(&self, name: Name) -> Path {
        match &self.only {
            Some(only) => only.clone(),
            None => self.prefix.clone().join(name.to_string()),
        }
    }

    fn note_key(&self, name: Name) -> Path {
        Path::from(format!("{}{NOTE}", self.key(name)))
    }

    fn what(&self, what: &str) -> String {
        format!("cannot {what} ({})", self.described)
    }

    async fn list_all(&self) -> Result<Vec<Stored>, StoreError> {
        if self.only.is_some() {
            return Ok(Vec::new());
        }
        let failed = |why| told(self.what("list the snapshots"), why);
        let mut found = Vec::new();
        let mut notes = BTreeSet::new();
        // Page by page, as many as there are.
        let mut listing = self.store.list(Some(&self.prefix));
        while let Some(object) = patient(listing.try_next())
            .await
            .map_err(|why| StoreError::failed(self.what("list the snapshots"), why))?
            .map_err(failed)?
        {
            let is_direct = object.location.prefix_matches(&self.prefix)
                && object.location.parts_count() == self.prefix.parts_count() + 1;
            let Some(file_name) = object.location.filename().filter(|_| is_direct) else {
                continue;
            };
            notes.extend(Name::of_note(file_name));
            if let Ok(name) = file_name.parse() {
                found.push(Stored {
                    name,
                    size: object.size,
                    written: SystemTime::from(object.last_modified),
                    has_note: false,
                });
            }
        }
        for stored in &mut found {
            stored.has_note = notes.contains(&stored.name);
        }
        found.sort_by_key(|stored| stored.name);
        Ok(found)
    }

    async fn open(&self, name: Name) -> Result<Content, StoreError> {
        let key = self.key(name);
        let what = || self.what(&format!("read {key}"));
        let got = patient(self.store.get(&key))
            .await
            .map_err(|why| StoreError::failed(what(), why))?
            .map_err(|why| told(what(), why))?;
        Ok(got.into_stream().map_err(io::Error::other).boxed())
    }

    async fn put_note(&self, name: Name, note: Bytes) -> Result<(), StoreError> {
        let key = self.note_key(name);
        let what = || self.what(&format!("write {key}"));
        check_note(what, note.len() as u64)?;
        let put = self.store.put(&key, note.into());
        step(&what(), put).await.map(|_| ())
    }

    async fn get_note(&self, name: Name) -> Result<Option<Bytes>, StoreError> {
        let key = self.note_key(name);
        let what = || self.what(&format!("read {key}"));
        let got = match step(&what(), self.store.get(&key)).await {
            Ok(got) => got,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(why) => return Err(why),
        };
        check_note(what, got.meta.size)?;
        // The length that was told is not believed.
        let mut note = BytesMut::new();
        let mut pieces = got.into_stream();
        while let Some(piece) = step(&what(), pieces.try_next()).await? {
            check_note(what, (note.len() + piece.len()) as u64)?;
            note.extend_from_slice(&piece);
        }
        Ok(Some(note.freeze()))
    }

    async fn delete(&self, name: Name) -> Result<(), StoreError> {
        // The note first: a snapshot without one is found again and removed later, a note without a snapshot is not.
        for key in [self.note_key(name), self.key(name)] {
            let what = self.what(&format!("remove {key}"));
            match step(&what, self.store.delete(&key)).await {
                Ok(()) | Err(StoreError::NotFound(_)) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

impl Store for Objects {
    fn describe(&self) -> String {
        self.described.clone()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(self.list_all())
    }

    fn begin(&self, name: Name) -> BoxFuture<'_, Result<Box<dyn Upload>, StoreError>> {
        let upload: Box<dyn Upload> = Box::new(Parts {
            store: Arc::clone(&self.store),
            what: self.what(&format!("write {}", self.key(name))),
            key: self.key(name),
            filling: BytesMut::new(),
            upload: None,
            on_their_way: FuturesUnordered::new(),
        });
        Box::pin(async { Ok(upload) })
    }

    fn get(&self, name: Name) -> BoxFuture<'_, Result<Content, StoreError>> {
        Box::pin(self.open(name))
    }

    fn write_note(&self, name: Name, note: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.put_note(name, note))
    }

    fn read_note(&self, name: Name) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.get_note(name))
    }

    fn remove(&self, name: Name) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.delete(name))
    }
}

/// An upload in parts. Until the last request joins them, a store shows nothing.
struct Parts {
    store: Arc<dyn ObjectStore>,
    key: Path,
    what: String,
    filling: BytesMut,
    /// Begun with the first part that is full; what is shorter goes in one request.
    upload: Option<Box<dyn MultipartUpload>>,
    on_their_way: FuturesUnordered<UploadPart>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("key", &self.key)
            .field("on_their_way", &self.on_their_way.len())
            .finish_non_exhaustive()
    }
}

impl Parts {
    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => step(&self.what, self.store.put_multipart(&self.key)).await?,
        };
        self.on_their_way.push(upload.put_part(part.into()));
        self.upload = Some(upload);
        self.wait_for(PARTS_MAX - 1).await
    }

    /// Waits until no more than so many parts are on their way.
    async fn wait_for(&mut self, count: usize) -> Result<(), StoreError> {
        while self.on_their_way.len() > count {
            let mut parts = std::mem::take(&mut self.on_their_way);
            let done = step(&self.what, async { parts.next().await.unwrap_or(Ok(())) }).await;
            self.on_their_way = parts;
            done?;
        }
        Ok(())
    }

    async fn add(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = PART - self.filling.len();
            self.filling
                .extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.filling.len() == PART {
                let part = std::mem::take(&mut self.filling).freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut self.filling).freeze();
        if self.upload.is_none() {
            let put = self.store.put(&self.key, rest.into());
            return step(&self.what, put).await.map(|_| ());
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.wait_for(0).await?;
        let Some(mut upload) = self.upload.take() else {
            return Ok(());
        };
        let completed = step(&self.what, upload.complete()).await.map(|_| ());
        if completed.is_err() {
            self.upload = Some(upload);
        }
        completed
    }

    async fn give_up(&mut self) {
        self.on_their_way.clear();
        if let Some(mut upload) = self.upload.take()
            && let Err(why) = step(&self.what, upload.abort()).await
        {
            // No snapshot can come of it; a lifecycle rule of the bucket removes the parts some day.
            tracing::warn!("cannot take back an upload that was broken off: {why}");
        }
    }
}

impl Upload for Parts {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.add(bytes))
    }

    fn publish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let published = self.finish().await;
            if published.is_err() {
                self.give_up().await;
            }
            published
        })
    }

    fn abandon(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.give_up().await })
    }
}

/// One request of an upload.
async fn step<T>(
    what: &str,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    match patient(request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(told(what.to_owned(), why)),
        Err(why) => Err(StoreError::failed(what, why)),
    }
}

/// Waits for a store, but not for ever.
async fn patient<T>(request: impl Future<Output = T>) -> Result<T, String> {
    let waited = timeout(PATIENCE, request).await;
    waited.map_err(|_| format!("the store didn't answer within {} s", PATIENCE.as_secs()))
}

/// What a store said, in one line, and what it means.
fn told(what: String, why: object_store::Error) -> StoreError {
    use object_store::Error;
    let text = one_line(&why);
    // The clouds name it in the body of a refusal; it looks like wrong credentials and isn't.
    if text.contains("RequestTimeTooSkewed") || text.contains("Request has expired") {
        let why =
            "the clock of this machine is off, so the store refuses its signatures; set the clock"
                .to_owned();
        return StoreError::Failed { what, why };
    }
    if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") {
        let why = "there is no such bucket; make it, or mend its name in the settings".to_owned();
        return StoreError::Failed { what, why };
    }
    match why {
        Error::NotFound { path, .. } => StoreError::NotFound(path),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            StoreError::Refused { what, why: text }
        }
        _ => StoreError::Failed { what, why: text },
    }
}

/// The longest text of a store that is passed on.
const TEXT_MAX: usize = 400;

fn one_line(why: &dyn std::error::Error) -> String {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    if line.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
