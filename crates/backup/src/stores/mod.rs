//! Where snapshots are kept: a folder, or a bucket in a cloud.
//!
//! A store is [`Store`]; each kind is a file here, and [`open`] knows them all.
//! Nothing half-written is ever visible under a snapshot's name: an [`Upload`] becomes one at [`Upload::publish`] and not before.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::Name;
use crate::location::Environment;

mod azure;
mod gcs;
mod http;
mod local;
mod objects;
mod s3;
mod told;

pub use azure::{Azure, AzureCloud};
pub use gcs::Gcs;
pub use local::Local;
pub use objects::Objects;
pub use s3::S3;

/// The bytes of a snapshot on their way. An error ends them; without one at the end they are complete.
pub type Content = BoxStream<'static, io::Result<Bytes>>;

/// A snapshot that lies in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// What it is called.
    pub name: Name,
    /// How long it is, in bytes.
    pub size: u64,
    /// When the store was given it.
    pub written: SystemTime,
    /// Whether a note lies beside it; [`Store::read_note`] reads it.
    pub has_note: bool,
}

/// The longest note. A longer one is neither written nor read.
pub const NOTE_MAX: usize = 64 << 10;

/// Why a store didn't do as asked, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is nothing of that name.
    #[error("{0} is not there")]
    NotFound(String),
    /// It doesn't know us, or doesn't let us.
    #[error("{what}: {why}; check the credentials and what they are allowed to do")]
    Refused {
        /// What was tried.
        what: String,
        /// What the store said.
        why: String,
    },
    /// Anything else.
    #[error("{what}: {why}")]
    Failed {
        /// What was tried.
        what: String,
        /// What the store, the disk or the network said.
        why: String,
    },
    /// The settings can't be.
    #[error("{0}")]
    Settings(String),
}

impl StoreError {
    fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed {
            what: what.to_string(),
            why: why.to_string(),
        }
    }

    fn settings(why: impl fmt::Display) -> Self {
        Self::Settings(why.to_string())
    }
}

/// A place for snapshots.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// What it is and where, for people.
    fn describe(&self) -> String;

    /// All snapshots that lie there, the oldest first. What isn't called like one isn't told of.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>>;

    /// Begins to write one.
    fn begin(&self, name: Name) -> BoxFuture<'_, Result<Box<dyn Upload>, StoreError>>;

    /// Reads one.
    fn get(&self, name: Name) -> BoxFuture<'_, Result<Content, StoreError>>;

    /// Puts a note beside a snapshot, or another one in its place: a short JSON document that tells what is known of it.
    fn write_note(&self, name: Name, note: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Reads the note beside a snapshot, if there is one.
    fn read_note(&self, name: Name) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Removes one and its note; that they aren't there is no failure.
    fn remove(&self, name: Name) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Refuses a note that is too long to be one.
fn check_note(what: impl FnOnce() -> String, size: u64) -> Result<(), StoreError> {
    if size <= NOTE_MAX as u64 {
        return Ok(());
    }
    Err(StoreError::failed(
        what(),
        format_args!("it has {size} bytes, and notes have no more than {NOTE_MAX}"),
    ))
}

/// A snapshot that is being written. Dropped, it leaves nothing that could be taken for one.
pub trait Upload: Send + fmt::Debug {
    /// Adds bytes at the end; waits while the store is slower than who writes.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Gives it its name. When this returns, it is there for all to see, and safely so.
    fn publish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Takes away what was written so far, as far as that can be done.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Settings of a store of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A folder of this machine.
    Local(PathBuf),
    /// Amazon S3, or what speaks like it.
    S3(S3),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// Azure Blob Storage.
    Azure(Azure),
}

/// How long stores in clouds are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long one may be silent while it is its turn: neither take bytes nor send any. Default: 60 s.
    pub silence: Duration,
    /// How often a request is tried again that failed for no fault of ours. Default: 5.
    pub retries: usize,
    /// How long such tries go on; beyond it, the next one is not begun. Default: 60 s.
    pub retry_time: Duration,
    /// The longest for a request that carries little, with all its tries. Default: 3 min.
    pub request: Duration,
    /// The longest for one part of an upload, with all its tries; a part has 8 MiB. Default: 15 min.
    pub part: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(60),
            retries: 5,
            retry_time: Duration::from_secs(60),
            request: Duration::from_secs(180),
            part: Duration::from_secs(900),
        }
    }
}

fn retries(patience: Patience) -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: patience.retries,
        retry_timeout: patience.retry_time,
        ..object_store::RetryConfig::default()
    }
}

/// What this process was started with; an empty variable is none.
fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Opens a store, with this process's environment; asks nobody yet.
///
/// # Errors
/// [`StoreError::Settings`] if the settings can't be.
pub fn open(destination: &Destination) -> Result<Box<dyn Store>, StoreError> {
    open_with(destination, &of_process, Patience::default())
}

/// Opens a store; asks nobody yet.
///
/// # Errors
/// [`StoreError::Settings`] if the settings can't be.
pub fn open_with(
    destination: &Destination,
    environment: Environment<'_>,
    patience: Patience,
) -> Result<Box<dyn Store>, StoreError> {
    Ok(match objects(destination, environment, patience)? {
        Ok(objects) => Box::new(objects),
        Err(folder) => Box::new(Local::new(folder)),
    })
}

/// Opens the one object of this key, whatever it is called: each name stands for it. Asks nobody yet.
///
/// # Errors
/// [`StoreError::Settings`] if the settings can't be, or there can't be such a key.
pub fn open_object(
    destination: &Destination,
    key: &str,
    environment: Environment<'_>,
) -> Result<Box<dyn Store>, StoreError> {
    match objects(destination, environment, Patience::default())? {
        Ok(objects) => Ok(Box::new(objects.at(key)?)),
        Err(folder) => {
            let folder = folder.display();
            Err(StoreError::Settings(format!("{folder} has no objects")))
        }
    }
}

/// The bucket, or else the folder.
fn objects<'a>(
    destination: &'a Destination,
    environment: Environment<'_>,
    patience: Patience,
) -> Result<Result<Objects, &'a Path>, StoreError> {
    Ok(match destination {
        Destination::Local(folder) => Err(folder),
        Destination::S3(settings) => Ok(settings.open(environment, patience)?),
        Destination::Gcs(settings) => Ok(settings.open(environment, patience)?),
        Destination::Azure(settings) => Ok(settings.open(environment, patience)?),
    })
}
