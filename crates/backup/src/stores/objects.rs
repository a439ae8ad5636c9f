//! Objects in a bucket, whichever cloud it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, UploadPart};
use tokio::time::timeout;

use super::told::told;
use super::{Content, Patience, Store, StoreError, Stored, Upload, check_note};
use crate::Name;
use crate::name::NOTE;

/// How long a part is. A store takes 10,000 of them, so a snapshot may have 80 GB.
const PART: usize = 8 << 20;

/// The longest snapshot.
const LONGEST: u64 = 9_999 * PART as u64;

/// How many parts may be on their way; with the one that is being filled they are all that is in memory.
const PARTS_MAX: usize = 2;

/// Where our names begin among others.
const NAMES_AFTER: &str = "consul-";

/// How often the same page of a listing is asked for again, each time with the retries of a request.
const PAGE_RETRIES: u32 = 3;

/// How long a listing may take; nobody waits for a store whose pages never end.
const LIST_MAX: Duration = Duration::from_secs(900);

/// How many objects may lie beside the snapshots before we say that this is no place for them.
const OBJECTS_MAX: u32 = 1_000_000;

/// Snapshots as objects under a prefix.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The one name of all snapshots, if they overwrite each other.
    only: Option<Path>,
    /// For people: which cloud, which bucket.
    described: String,
    patience: Patience,
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
            patience: Patience::default(),
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

    /// Other patience than the default.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    async fn list_all(&self) -> Result<Vec<Stored>, StoreError> {
        if self.only.is_some() {
            return Ok(Vec::new());
        }
        let what = self.what("list the snapshots");
        let mut listed = Listed::default();
        let list = async {
            // Whatever comes before our names is not asked for.
            let mut after = self.prefix.clone().join(NAMES_AFTER);
            let mut failures = 0;
            loop {
                let mut pages = self.store.list_with_offset(Some(&self.prefix), &after);
                let why = loop {
                    let longest = self.patience.request;
                    match timeout(longest, pages.try_next()).await {
                        Ok(Ok(None)) => return Ok(()),
                        Ok(Ok(Some(object))) => {
                            listed.add(&object, &self.prefix, &what)?;
                            if object.location > after {
                                after = object.location;
                                failures = 0;
                            }
                        }
                        Ok(Err(why)) => break why,
                        Err(_) => return Err(StoreError::failed(&what, Late(longest))),
                    }
                };
                // A page that broke off is asked for again, and nothing that was listed so far.
                failures += 1;
                if failures > PAGE_RETRIES || !is_broken_off(&why) {
                    return Err(told(what.clone(), why));
                }
            }
        };
        match timeout(LIST_MAX, list).await {
            Ok(done) => done?,
            Err(_) => return Err(StoreError::failed(what, Late(LIST_MAX))),
        }
        Ok(listed.found())
    }

    async fn open(&self, name: Name) -> Result<Content, StoreError> {
        let key = self.key(name);
        let what = self.what(&format!("read {key}"));
        let longest = self.patience.request;
        let got = step(&what, longest, self.store.get(&key)).await?;
        let size = got.meta.size;
        let state = Some((got.into_stream(), 0));
        Ok(stream::unfold(state, move |state| {
            let what = what.clone();
            async move {
                let (mut pieces, read) = state?;
                match step(&what, longest, pieces.try_next()).await {
                    Ok(Some(piece)) => {
                        let read = read + piece.len() as u64;
                        Some((Ok(piece), Some((pieces, read))))
                    }
                    Ok(None) if read == size => None,
                    Ok(None) => {
                        let why = format!("{what}: the store said {size} bytes and sent {read}");
                        Some((Err(io::Error::other(why)), None))
                    }
                    Err(why) => Some((Err(io::Error::other(why)), None)),
                }
            }
        })
        .fuse()
        .boxed())
    }

    async fn put_note(&self, name: Name, note: Bytes) -> Result<(), StoreError> {
        let key = self.note_key(name);
        let what = || self.what(&format!("write {key}"));
        check_note(what, note.len() as u64)?;
        let put = self.store.put(&key, note.into());
        step(&what(), self.patience.request, put).await.map(|_| ())
    }

    async fn get_note(&self, name: Name) -> Result<Option<Bytes>, StoreError> {
        let key = self.note_key(name);
        let what = || self.what(&format!("read {key}"));
        let got = match step(&what(), self.patience.request, self.store.get(&key)).await {
            Ok(got) => got,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(why) => return Err(why),
        };
        check_note(what, got.meta.size)?;
        // The length that was told is not believed.
        let mut note = BytesMut::new();
        let mut pieces = got.into_stream();
        while let Some(piece) = step(&what(), self.patience.request, pieces.try_next()).await? {
            check_note(what, (note.len() + piece.len()) as u64)?;
            note.extend_from_slice(&piece);
        }
        Ok(Some(note.freeze()))
    }

    async fn delete_one(&self, key: &Path, what: &str) -> Result<(), StoreError> {
        // The library takes an answer of Azure's for what it should be, and panics where it isn't.
        let request = AssertUnwindSafe(self.store.delete(key)).catch_unwind();
        let request = async {
            request.await.unwrap_or_else(|_| {
                Err(object_store::Error::Generic {
                    store: "bucket",
                    source: "the answer is about objects that it was not asked for".into(),
                })
            })
        };
        step(what, self.patience.request, request).await
    }

    async fn delete(&self, name: Name) -> Result<(), StoreError> {
        // The note first: a snapshot without one is found again and removed later, a note without a snapshot is not.
        for key in [self.note_key(name), self.key(name)] {
            let what = self.what(&format!("remove {key}"));
            match self.delete_one(&key, &what).await {
                Ok(()) | Err(StoreError::NotFound(_)) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// What a listing found so far. A store may tell of an object twice.
#[derive(Debug, Default)]
struct Listed {
    snapshots: BTreeMap<Name, Stored>,
    notes: BTreeSet<Name>,
    count: u32,
}

impl Listed {
    fn add(&mut self, object: &ObjectMeta, prefix: &Path, what: &str) -> Result<(), StoreError> {
        self.count += 1;
        if self.count > OBJECTS_MAX {
            let why = format!(
                "more than {OBJECTS_MAX} objects lie there; give the snapshots a prefix of their own"
            );
            return Err(StoreError::Settings(format!("{what}: {why}")));
        }
        let is_direct = object.location.prefix_matches(prefix)
            && object.location.parts_count() == prefix.parts_count() + 1;
        let Some(file_name) = object.location.filename().filter(|_| is_direct) else {
            return Ok(());
        };
        self.notes.extend(Name::of_note(file_name));
        if let Ok(name) = file_name.parse() {
            let stored = Stored {
                name,
                size: object.size,
                written: SystemTime::from(object.last_modified),
                has_note: false,
            };
            self.snapshots.insert(name, stored);
        }
        Ok(())
    }

    fn found(self) -> Vec<Stored> {
        let Self {
            snapshots, notes, ..
        } = self;
        let noted = |stored: Stored| Stored {
            has_note: notes.contains(&stored.name),
            ..stored
        };
        snapshots.into_values().map(noted).collect()
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
            patience: self.patience,
            is_new: self.only.is_none(),
            filling: BytesMut::new(),
            upload: None,
            on_their_way: FuturesUnordered::new(),
            sent: 0,
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
    patience: Patience,
    key: Path,
    /// Whether nothing else has or had this key.
    is_new: bool,
    what: String,
    filling: BytesMut,
    /// Begun with the first part that is full; what is shorter goes in one request.
    upload: Option<Box<dyn MultipartUpload>>,
    on_their_way: FuturesUnordered<UploadPart>,
    sent: u64,
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
    async fn add(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = PART - self.filling.len();
            self.filling
                .extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.filling.len() == PART {
                let part = std::mem::replace(&mut self.filling, BytesMut::with_capacity(PART));
                self.send(part.freeze()).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => {
                step(
                    &self.what,
                    self.patience.request,
                    self.store.put_multipart(&self.key),
                )
                .await?
            }
        };
        if self.sent >= LONGEST {
            self.upload = Some(upload);
            let why = format!("it is longer than the {LONGEST} bytes that stores take in parts");
            return Err(StoreError::failed(&self.what, why));
        }
        self.sent += part.len() as u64;
        self.on_their_way.push(upload.put_part(part.into()));
        self.upload = Some(upload);
        self.wait_for(PARTS_MAX - 1).await
    }

    /// Waits until no more than so many parts are on their way.
    async fn wait_for(&mut self, count: usize) -> Result<(), StoreError> {
        while self.on_their_way.len() > count {
            let longest = self.patience.part;
            let next = self.on_their_way.next();
            let next = async { next.await.unwrap_or(Ok(())) };
            step(&self.what, longest, next).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut self.filling).freeze();
        if self.upload.is_none() {
            self.sent = rest.len() as u64;
            let put = self.store.put(&self.key, rest.into());
            return step(&self.what, self.patience.part, put).await.map(|_| ());
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.wait_for(0).await?;
        let Some(mut upload) = self.upload.take() else {
            return Ok(());
        };
        let completed = step(&self.what, self.patience.request, upload.complete()).await;
        if completed.is_err() {
            self.upload = Some(upload);
        }
        completed.map(|_| ())
    }

    async fn give_up(&mut self) {
        self.on_their_way.clear();
        if let Some(mut upload) = self.upload.take()
            && let Err(why) = step(&self.what, self.patience.request, upload.abort()).await
        {
            // No snapshot can come of it; a lifecycle rule of the bucket removes the parts some day.
            tracing::warn!("cannot take back an upload that was broken off: {why}");
        }
    }

    /// Publishes, and looks at what is there then.
    async fn publish_now(&mut self) -> Result<(), StoreError> {
        let published = self.finish().await;
        if published.is_err() {
            self.give_up().await;
        }
        let shown = step(
            &self.what,
            self.patience.request,
            self.store.head(&self.key),
        )
        .await;
        match (published, shown) {
            (Ok(()), Ok(shown)) if shown.size != self.sent => {
                let removed = match self.is_new {
                    true => {
                        step(
                            &self.what,
                            self.patience.request,
                            self.store.delete(&self.key),
                        )
                        .await
                    }
                    false => Ok(()),
                };
                let (sent, has) = (self.sent, shown.size);
                let left = match removed {
                    Err(why) if self.is_new => format!("; it is still there: {why}"),
                    _ => String::new(),
                };
                let why = format!("the store was sent {sent} bytes and has {has}{left}");
                Err(StoreError::failed(&self.what, why))
            }
            // Who may write need not be allowed to look.
            (Ok(()), _) => Ok(()),
            // The answer was lost, not the request: only we give this name, and all of it is there.
            (Err(_), Ok(shown)) if self.is_new && shown.size == self.sent => Ok(()),
            (Err(why), _) => Err(why),
        }
    }
}

impl Upload for Parts {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.add(bytes))
    }

    fn publish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { self.publish_now().await })
    }

    fn abandon(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.give_up().await })
    }
}

/// Makes a request of a store, which is waited for, but not for ever.
async fn step<T>(
    what: &str,
    longest: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    match timeout(longest, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(told(what.to_owned(), why)),
        Err(_) => Err(StoreError::failed(what, Late(longest))),
    }
}

/// Whether an answer ended too early, for which the library doesn't ask once more.
fn is_broken_off(why: &object_store::Error) -> bool {
    let mut below: Option<&(dyn Error + 'static)> = Some(why);
    while let Some(inner) = below {
        if let Some(why) = inner.downcast_ref::<HttpError>() {
            return why.kind() == HttpErrorKind::Interrupted;
        }
        below = inner.source();
    }
    false
}

#[derive(Debug, thiserror::Error)]
#[error("the store didn't do it within {0:?}")]
struct Late(Duration);
