//! The handle that callers hold, and what they may ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::{Config, StartError, TagsError};
use crate::coordinate::Coordinate;
use crate::driver;
use crate::event::{EventError, Events, Subscribers, USER_EVENT_SIZE_MAX};
use crate::identity::Id;
use crate::item::{self, Record};
use crate::member::{Member, Status};
use crate::network::Network;

/// How many wishes of callers may wait for the task; who comes later waits for room.
const WISHES_WAITING_MAX: usize = 64;

/// How long a good-bye may take to spread, before it is taken as said.
pub(crate) const BROADCAST_TIMEOUT: Duration = Duration::from_secs(5);

/// A member of a pool. Clones are the same member.
#[derive(Debug, Clone)]
pub struct Gossip {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    local: Id,
    view: Arc<View>,
    wishes: mpsc::Sender<Wish>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What came of an attempt to join.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// How many of the addresses answered and let this member in.
    pub reached: usize,
    /// The others, and why.
    pub failures: Vec<(SocketAddr, String)>,
}

/// What to do with the keys of all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOperation {
    /// Count who has which.
    List,
    /// Add a key, in base64, with which packets can be read from then on.
    Install(String),
    /// Encrypt with this key from now on.
    Use(String),
    /// Forget a key.
    Remove(String),
}

/// What the members said to an operation on keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// How many were asked: all that are alive, this one included.
    pub members: usize,
    /// How many answered in time, be it with an error.
    pub answered: usize,
    /// What went wrong, by member.
    pub errors: BTreeMap<String, String>,
    /// Which keys, in base64, are in how many rings.
    pub keys: BTreeMap<String, usize>,
}

/// Figures for an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whether what is sent is encrypted.
    pub encrypted: bool,
    /// User events that are still being passed on.
    pub event_queue: usize,
    /// The Lamport clock of user events.
    pub event_time: u64,
    /// Members that are failed.
    pub failed: usize,
    /// The local health score: 0 is healthy.
    pub health_score: u32,
    /// News about members that are still being passed on.
    pub intent_queue: usize,
    /// Members that have left.
    pub left: usize,
    /// The Lamport clock of members' comings and goings.
    pub member_time: u64,
    /// Members known, this one and the gone ones included.
    pub members: usize,
    /// Questions about keys that wait for answers.
    pub query_queue: usize,
    /// The Lamport clock of such questions.
    pub query_time: u64,
    /// Packets and connections of a pool with another label, which were rejected.
    pub foreign_packets: u64,
    /// Packets and connections that nobody could read: damaged, or not encrypted with one of the keys.
    pub unreadable_packets: u64,
}

impl Gossip {
    /// Takes part in a pool from now on, alone at first unless the file of known members leads to others.
    pub async fn start(config: Config, network: Arc<dyn Network>) -> Result<Self, StartError> {
        let local = Id::of(&config.name);
        let view = Arc::new(View::default());
        let (wishes, wished) = mpsc::channel(WISHES_WAITING_MAX);
        let task = driver::start(config, network, Arc::clone(&view), wished)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one task of a member; `shutdown` joins it"
        )]
        let task = tokio::spawn(task);
        let shared = Shared {
            local,
            view,
            wishes,
            task: Mutex::new(Some(task)),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// This member itself.
    pub fn local(&self) -> Member {
        let roster = self.shared.view.roster();
        let local = roster.members.get(&self.shared.local);
        local
            .expect("a member knows itself from its start")
            .member()
    }

    /// All members by name: this one, and also those that failed or left, until they are reaped.
    pub fn members(&self) -> Vec<Member> {
        let roster = self.shared.view.roster();
        let mut members: Vec<_> = roster.members.values().map(Shown::member).collect();
        drop(roster);
        members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        members
    }

    /// How many members are known, as [`members`](Self::members) would list them.
    pub fn members_count(&self) -> usize {
        self.shared.view.roster().members.len()
    }

    /// One member.
    pub fn member(&self, name: &str) -> Option<Member> {
        let roster = self.shared.view.roster();
        let shown = roster.members.get(&Id::of(name));
        shown.map(Shown::member)
    }

    /// What happens from now on, in a queue of its own of [`EVENTS_QUEUED_MAX`](crate::EVENTS_QUEUED_MAX) events.
    pub fn subscribe(&self) -> Events {
        self.shared.view.subscribers.subscribe()
    }

    /// Joins the pools of those who listen at these addresses; one that answers is enough.
    ///
    /// With `replay_events`, recent user events that were sent before are told as well.
    pub async fn join(&self, addresses: &[SocketAddr], replay_events: bool) -> Joined {
        let asked = |answer| Wish::Join {
            addresses: addresses.to_vec(),
            replay_events,
            answer,
        };
        self.ask(asked).await.unwrap_or_else(|| Joined {
            reached: 0,
            failures: addresses
                .iter()
                .map(|address| (*address, EventError::Closed.to_string()))
                .collect(),
        })
    }

    /// Says good-bye and waits, at most five seconds for each of the two steps, until the others were told.
    pub async fn leave(&self) {
        let _ = timeout(
            3 * BROADCAST_TIMEOUT,
            self.ask(|answer| Wish::Leave { answer }),
        )
        .await;
    }

    /// Says good-bye for a failed member. One that is alive refutes it and stays; an unknown one is no error.
    pub async fn force_leave(&self, name: &str) {
        let name = name.to_owned();
        let _ = timeout(
            2 * BROADCAST_TIMEOUT,
            self.ask(|answer| Wish::ForceLeave { name, answer }),
        )
        .await;
    }

    /// Sends a user event to all members, this one included, and returns its Lamport time.
    pub async fn user_event(
        &self,
        name: &str,
        payload: Bytes,
        coalesce: bool,
    ) -> Result<u64, EventError> {
        if name.len() + payload.len() > USER_EVENT_SIZE_MAX {
            return Err(EventError::TooLarge);
        }
        if name.contains(char::is_control) {
            return Err(EventError::Name);
        }
        let name = name.to_owned();
        let asked = |answer| Wish::UserEvent {
            name,
            payload,
            coalesce,
            answer,
        };
        self.ask(asked).await.ok_or(EventError::Closed)
    }

    /// Tells something else of this member from now on.
    pub fn set_tags(&self, tags: BTreeMap<String, String>) -> Result<(), TagsError> {
        item::check_tags(&tags)?;
        let mut roster = self.shared.view.roster();
        roster.tags_wanted = Some(tags);
        drop(roster);
        self.shared.view.tags_changed.notify_one();
        Ok(())
    }

    /// Where this member is in the space of network coordinates, unless they are switched off.
    pub fn coordinate(&self) -> Option<Coordinate> {
        let roster = self.shared.view.roster();
        roster.coordinates.get(&self.shared.local).cloned()
    }

    /// Where a member was when it last said so.
    pub fn coordinate_of(&self, name: &str) -> Option<Coordinate> {
        let roster = self.shared.view.roster();
        roster.coordinates.get(&Id::of(name)).cloned()
    }

    /// Asks all members that are alive, this one included, to do something with their keys, and counts the answers.
    pub async fn keys(&self, operation: KeyOperation, limit: Duration) -> KeyReport {
        let asked = |answer| Wish::Keys {
            operation,
            limit,
            answer,
        };
        self.ask(asked).await.unwrap_or_default()
    }

    /// Figures for an operator.
    pub fn stats(&self) -> Stats {
        self.shared.view.roster().stats.clone()
    }

    /// Ends without a good-bye: to the others it looks like a crash unless [`leave`](Self::leave) came before.
    pub async fn shutdown(&self) {
        let _ = self.ask(|answer| Wish::Shutdown { answer }).await;
        let task = self
            .shared
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task
            && task.await.is_err()
        {
            tracing::error!("the task of gossip panicked");
        }
    }

    async fn ask<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.wishes.send(wish(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// What a caller wants of the task.
#[derive(Debug)]
pub(crate) enum Wish {
    Join {
        addresses: Vec<SocketAddr>,
        replay_events: bool,
        answer: oneshot::Sender<Joined>,
    },
    Leave {
        answer: oneshot::Sender<()>,
    },
    ForceLeave {
        name: String,
        answer: oneshot::Sender<()>,
    },
    UserEvent {
        name: String,
        payload: Bytes,
        coalesce: bool,
        answer: oneshot::Sender<u64>,
    },
    Keys {
        operation: KeyOperation,
        limit: Duration,
        answer: oneshot::Sender<KeyReport>,
    },
    Shutdown {
        answer: oneshot::Sender<()>,
    },
}

/// What the task shows to its handles.
#[derive(Debug, Default)]
pub(crate) struct View {
    roster: Mutex<Roster>,
    pub(crate) subscribers: Subscribers,
    pub(crate) tags_changed: tokio::sync::Notify,
}

/// The part of it that is looked at without waiting.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) members: BTreeMap<Id, Shown>,
    pub(crate) coordinates: BTreeMap<Id, Coordinate>,
    pub(crate) stats: Stats,
    pub(crate) tags_wanted: Option<BTreeMap<String, String>>,
}

impl View {
    pub(crate) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member as the task shows it: a thousand members know a thousand each, so it is small.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) record: Arc<Record>,
    pub(crate) address: SocketAddr,
    pub(crate) status: Status,
    pub(crate) since: Instant,
}

impl Shown {
    pub(crate) fn member(&self) -> Member {
        let record = &*self.record;
        Member {
            name: record.name.clone(),
            address: self.address,
            tags: record.tags.clone(),
            status: self.status,
            since: self.since,
            protocol: record.protocol,
            delegate: record.delegate,
        }
    }
}
