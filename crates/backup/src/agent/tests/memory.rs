//! A store in memory that does what it is told to.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep};

use crate::Name;
use crate::stores::{Content, Store, StoreError, Stored, Upload};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Begin,
    /// From the second piece on.
    Write,
    /// The second piece is never taken.
    Hang,
    Publish,
    /// It is done, and nobody is told.
    LostAnswer,
    /// Takes a minute for it.
    SlowPublish,
    /// What is read isn't what was written.
    Corrupt,
    /// What is read is another snapshot.
    Another,
    /// What is read ends early, and nobody says so.
    Short,
    Read,
    /// It breaks off while it is read.
    BreakOff,
    List,
    Remove,
    Note,
}

#[derive(Debug, Default)]
struct State {
    snapshots: BTreeMap<Name, Vec<u8>>,
    notes: BTreeMap<Name, Bytes>,
    faults: Vec<Fault>,
    /// When each was published.
    published: Vec<(Name, Instant)>,
    removed: Vec<Name>,
    /// How many are being written.
    unfinished: usize,
    /// Another snapshot than any that is written.
    another: Vec<u8>,
}

/// The store. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

impl Memory {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    pub(crate) fn has_another(&self, archive: Vec<u8>) {
        self.state().another = archive;
    }

    /// Puts a snapshot there.
    pub(crate) fn put(&self, id: u64) {
        let name = Name {
            id,
            encrypted: false,
        };
        self.state().snapshots.insert(name, Vec::new());
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        self.state().snapshots.keys().copied().collect()
    }

    pub(crate) fn content(&self, name: Name) -> Vec<u8> {
        self.state().snapshots[&name].clone()
    }

    pub(crate) fn note(&self, name: Name) -> Option<crate::Note> {
        let note = self.state().notes.get(&name).cloned()?;
        Some(crate::Note::decode(&note).unwrap())
    }

    pub(crate) fn published(&self) -> Vec<(Name, Instant)> {
        self.state().published.clone()
    }

    pub(crate) fn removed(&self) -> Vec<Name> {
        self.state().removed.clone()
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.state().unfinished
    }

    fn check(&self, fault: Fault, what: &str) -> Result<(), StoreError> {
        if self.has(fault) {
            return Err(StoreError::Failed {
                what: format!("cannot {what}"),
                why: "told to fail".to_owned(),
            });
        }
        Ok(())
    }

    fn has(&self, fault: Fault) -> bool {
        self.state().faults.contains(&fault)
    }
}

impl Store for Memory {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(async {
            self.check(Fault::List, "list")?;
            let state = self.state();
            let stored = |(&name, content): (&Name, &Vec<u8>)| Stored {
                name,
                size: content.len() as u64,
                written: SystemTime::UNIX_EPOCH,
                has_note: state.notes.contains_key(&name),
            };
            Ok(state.snapshots.iter().map(stored).collect())
        })
    }

    fn begin(&self, name: Name) -> BoxFuture<'_, Result<Box<dyn Upload>, StoreError>> {
        Box::pin(async move {
            self.check(Fault::Begin, "begin")?;
            self.state().unfinished += 1;
            let writing: Box<dyn Upload> = Box::new(Writing {
                store: self.clone(),
                name,
                pieces: 0,
                content: Vec::new(),
            });
            Ok(writing)
        })
    }

    fn get(&self, name: Name) -> BoxFuture<'_, Result<Content, StoreError>> {
        Box::pin(async move {
            self.check(Fault::Read, "read")?;
            let mut content = match self.state().snapshots.get(&name) {
                Some(content) => content.clone(),
                None => return Err(StoreError::NotFound(name.to_string())),
            };
            if self.has(Fault::Another) {
                content.clone_from(&self.state().another);
            }
            if self.has(Fault::Corrupt) {
                let middle = content.len() / 2;
                content[middle] ^= 1;
            }
            if self.has(Fault::Short) {
                content.truncate(content.len() - 1);
            }
            let mut pieces: Vec<_> = (content.chunks(1000))
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            if self.has(Fault::BreakOff) {
                pieces.truncate(pieces.len() - 1);
                pieces.push(Err(io::Error::other("it broke off")));
            }
            Ok(stream::iter(pieces).boxed())
        })
    }

    fn write_note(&self, name: Name, note: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.check(Fault::Note, "write the note")?;
            self.state().notes.insert(name, note);
            Ok(())
        })
    }

    fn read_note(&self, name: Name) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move { Ok(self.state().notes.get(&name).cloned()) })
    }

    fn remove(&self, name: Name) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.check(Fault::Remove, "remove")?;
            let mut state = self.state();
            state.snapshots.remove(&name);
            state.notes.remove(&name);
            state.removed.push(name);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Writing {
    store: Memory,
    name: Name,
    pieces: usize,
    content: Vec<u8>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.store.state().unfinished -= 1;
    }
}

impl Upload for Writing {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.pieces += 1;
            if self.pieces > 1 {
                self.store.check(Fault::Write, "write")?;
                if self.store.has(Fault::Hang) {
                    pending::<()>().await;
                }
            }
            self.content.extend_from_slice(&bytes);
            Ok(())
        })
    }

    fn publish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            self.store.check(Fault::Publish, "publish")?;
            if self.store.has(Fault::SlowPublish) {
                sleep(Duration::from_secs(60)).await;
            }
            let content = std::mem::take(&mut self.content);
            let mut state = self.store.state();
            assert!(
                !state.snapshots.contains_key(&self.name),
                "{} was there",
                self.name
            );
            state.snapshots.insert(self.name, content);
            state.published.push((self.name, Instant::now()));
            drop(state);
            self.store.check(Fault::LostAnswer, "publish")
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}
