//! A store of the simulation: a bucket somewhere, which is slow, refuses, hangs, loses answers, fills up or lies.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use backup::Name;
use backup::stores::{Content, Store, StoreError, Stored, Upload};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::process::Process;
use super::witness::{Call, Witness};
use crate::history::Moment;
use crate::history::backups::What;

/// How a store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Well.
    Good,
    /// It answers, and it takes so many milliseconds at most.
    Slow(u64),
    /// It says no.
    Refuses,
    /// It says nothing until it is well again.
    Hangs,
    /// Some calls break off, some of them after it has done what was asked.
    Breaks,
    /// It takes no more than so many bytes of a snapshot.
    Full(usize),
    /// It gives back less than it was given.
    Lies,
}

/// When the world of a life begins, on a clock that is right.
pub(super) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// How much of a snapshot is given back at once.
const PIECE: usize = 4096;

/// The store itself.
pub(super) struct Depot {
    number: usize,
    state: Mutex<State>,
    recovered: Notify,
    witness: Witness,
}

struct State {
    chance: ChaCha8Rng,
    health: Health,
    snapshots: BTreeMap<Name, Kept>,
    /// What became visible since somebody looked.
    fresh: Vec<(Name, Bytes)>,
}

struct Kept {
    content: Bytes,
    written: SystemTime,
    note: Option<Bytes>,
}

/// What becomes of a call.
enum Fate {
    Done,
    /// Nothing is done, and the caller is told.
    Refused,
    /// It is done, and the caller is told that it failed.
    Unanswered,
}

impl Depot {
    pub(super) fn new(number: usize, chance: ChaCha8Rng, witness: Witness) -> Self {
        Self {
            number,
            state: Mutex::new(State {
                chance,
                health: Health::Good,
                snapshots: BTreeMap::new(),
                fresh: Vec::new(),
            }),
            recovered: Notify::new(),
            witness,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_health(&self, health: Health) {
        self.state().health = health;
        self.recovered.notify_waiters();
    }

    /// The newest snapshot.
    pub(super) fn newest(&self) -> Option<Bytes> {
        let state = self.state();
        let (_, kept) = state.snapshots.last_key_value()?;
        Some(kept.content.clone())
    }

    /// What became visible since this was asked last.
    pub(super) fn take_fresh(&self) -> Vec<(Name, Bytes)> {
        std::mem::take(&mut self.state().fresh)
    }

    /// How a process has it.
    pub(super) fn open(self: &Arc<Self>, process: &Process) -> Arc<dyn Store> {
        Arc::new(Access {
            depot: Arc::clone(self),
            process: process.clone(),
        })
    }

    /// A call on its way; says what is to become of it.
    async fn arrive(&self) -> Fate {
        loop {
            let recovered = self.recovered.notified();
            let health = self.state().health;
            if health != Health::Hangs {
                break;
            }
            recovered.await;
        }
        let (delay, fate) = {
            let mut guard = self.state();
            let State { chance, health, .. } = &mut *guard;
            let longest = if let Health::Slow(longest) = health {
                *longest
            } else {
                20
            };
            let fate = match health {
                Health::Refuses => Fate::Refused,
                Health::Breaks => match chance.random_range(0..6) {
                    0 => Fate::Refused,
                    1 => Fate::Unanswered,
                    _ => Fate::Done,
                },
                Health::Good | Health::Slow(_) | Health::Hangs | Health::Full(_) | Health::Lies => {
                    Fate::Done
                }
            };
            (chance.random_range(1..=longest), fate)
        };
        sleep(Duration::from_millis(delay)).await;
        fate
    }

    fn failed(&self, what: &str) -> StoreError {
        StoreError::Failed {
            what: format!("cannot {what} depot {}", self.number),
            why: "connection lost".to_owned(),
        }
    }

    /// Carries something out, to its end whether or not the caller waits for it.
    async fn carry_out<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        act: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let depot = Arc::clone(self);
        let carried = tokio::spawn(async move {
            match depot.arrive().await {
                Fate::Refused => None,
                Fate::Done => Some(act(&depot)),
                Fate::Unanswered => {
                    act(&depot);
                    None
                }
            }
        });
        let done = carried.await.unwrap_or_else(|_| None);
        done.ok_or_else(|| self.failed(what))
    }
}

/// The store, as one process reaches it.
#[derive(Clone)]
struct Access {
    depot: Arc<Depot>,
    process: Process,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "depot {}", self.depot.number)
    }
}

impl Access {
    /// A call of the process that tells nobody.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        act: impl FnOnce(&Depot) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.process.awake().await;
        let done = self.depot.carry_out(what, act).await;
        self.process.awake().await;
        done
    }

    /// A call of the process that is noted.
    async fn witnessed<T: Send + 'static>(
        &self,
        doing: &'static str,
        what: What,
        act: impl FnOnce(&Depot, Call) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.process.awake().await;
        let witness = &self.depot.witness;
        let call = witness.asks(&self.process, what);
        let done = self
            .depot
            .carry_out(doing, move |depot| act(depot, call))
            .await;
        self.process.awake().await;
        if done.is_ok() {
            witness.is_told(&self.process, call);
        }
        done
    }
}

impl Store for Access {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let what = What::Lists {
            store: self.depot.number,
            names: Vec::new(),
        };
        self.witnessed("list", what, |depot, call| {
            let state = depot.state();
            let stored = |(name, kept): (&Name, &Kept)| Stored {
                name: *name,
                size: kept.content.len() as u64,
                written: kept.written,
                has_note: kept.note.is_some(),
            };
            let all: Vec<Stored> = state.snapshots.iter().map(stored).collect();
            drop(state);
            depot.witness.learns(call, |what| {
                if let What::Lists { names, .. } = what {
                    *names = all.iter().map(|stored| stored.name).collect();
                }
            });
            all
        })
        .boxed()
    }

    fn begin(&self, name: Name) -> BoxFuture<'_, Result<Box<dyn Upload>, StoreError>> {
        async move {
            self.call("write to", |_| ()).await?;
            let upload: Box<dyn Upload> = Box::new(Parts {
                access: self.clone(),
                name,
                content: BytesMut::new(),
                filled: self.depot.witness.now(),
            });
            Ok(upload)
        }
        .boxed()
    }

    fn get(&self, name: Name) -> BoxFuture<'_, Result<Content, StoreError>> {
        async move {
            let found = self.call("read from", move |depot| {
                let state = depot.state();
                let content = state.snapshots.get(&name).map(|kept| kept.content.clone());
                let lies = state.health == Health::Lies;
                content.map(|content| {
                    if lies {
                        content.slice(..content.len() / 2)
                    } else {
                        content
                    }
                })
            });
            let content = found.await?;
            let content = content.ok_or_else(|| StoreError::NotFound(name.to_string()))?;
            let access = self.clone();
            let pieces = futures::stream::unfold(content, move |mut rest| {
                let process = access.process.clone();
                async move {
                    process.awake().await;
                    if rest.is_empty() {
                        return None;
                    }
                    let piece = rest.split_to(rest.len().min(PIECE));
                    Some((Ok(piece), rest))
                }
            });
            Ok(pieces.boxed())
        }
        .boxed()
    }

    fn write_note(&self, name: Name, note: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call("write a note to", move |depot| {
            if let Some(kept) = depot.state().snapshots.get_mut(&name) {
                kept.note = Some(note);
            }
        })
        .boxed()
    }

    fn read_note(&self, name: Name) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.call("read a note from", move |depot| {
            let state = depot.state();
            state
                .snapshots
                .get(&name)
                .and_then(|kept| kept.note.clone())
        })
        .boxed()
    }

    fn remove(&self, name: Name) -> BoxFuture<'_, Result<(), StoreError>> {
        let what = What::Removes {
            store: self.depot.number,
            name,
            gone: None,
        };
        self.witnessed("remove from", what, move |depot, call| {
            depot.state().snapshots.remove(&name);
            let now = depot.witness.now();
            depot.witness.learns(call, |what| {
                if let What::Removes { gone, .. } = what {
                    *gone = Some(now);
                }
            });
        })
        .boxed()
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Parts {
    access: Access,
    name: Name,
    content: BytesMut,
    /// When the last of it was taken.
    filled: Moment,
}

impl Upload for Parts {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.access.call("write to", |_| ()).await?;
            self.content.extend_from_slice(&bytes);
            self.filled = self.access.depot.witness.now();
            let health = self.access.depot.state().health;
            match health {
                Health::Full(room) if self.content.len() > room => Err(StoreError::Failed {
                    what: format!("cannot write to depot {}", self.access.depot.number),
                    why: "no space left on device".to_owned(),
                }),
                Health::Good
                | Health::Slow(_)
                | Health::Refuses
                | Health::Hangs
                | Health::Breaks
                | Health::Full(_)
                | Health::Lies => Ok(()),
            }
        }
        .boxed()
    }

    fn publish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            let Self {
                access,
                name,
                content,
                filled,
            } = *self;
            let what = What::Publishes {
                store: access.depot.number,
                name,
                filled,
                visible: None,
            };
            let content = content.freeze();
            let publish = access.witnessed("publish in", what, move |depot, call| {
                let now = depot.witness.now();
                let kept = Kept {
                    content: content.clone(),
                    written: SystemTime::UNIX_EPOCH + EPOCH + Duration::from_nanos(now),
                    note: None,
                };
                let mut state = depot.state();
                state.snapshots.insert(name, kept);
                state.fresh.push((name, content));
                drop(state);
                depot.witness.learns(call, |what| {
                    if let What::Publishes { visible, .. } = what {
                        *visible = Some(now);
                    }
                });
            });
            publish.await
        }
        .boxed()
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            let _ = self.access.call("give up in", |_| ()).await;
        }
        .boxed()
    }
}
