//! What happens in a pool, and how it is told to those who asked.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::member::Member;

/// How many events may wait for one subscriber; the oldest give way and are counted in [`Event::Missed`].
pub const EVENTS_QUEUED_MAX: usize = 2048;

/// Name and payload of a user event together, in bytes.
pub const USER_EVENT_SIZE_MAX: usize = 512;

/// Something that happened in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member is there, for the first time or again.
    Joined(Member),
    /// A member tells something else of itself, or is reached elsewhere.
    Updated(Member),
    /// A member has announced that it leaves.
    Leaving(Member),
    /// A member has said good-bye, or somebody did in its place.
    Left(Member),
    /// A member doesn't answer any more.
    Failed(Member),
    /// A member was failed or left for so long that it is forgotten.
    Reaped(Member),
    /// Somebody has sent a user event.
    User(UserEvent),
    /// So many events were lost here because nobody took them; look at the whole pool instead.
    Missed(u64),
}

/// A user event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEvent {
    /// Its Lamport time.
    pub ltime: u64,
    /// Its name.
    pub name: String,
    /// What it carries.
    pub payload: Bytes,
    /// Whether a later one of the same name may stand for it.
    pub coalesce: bool,
}

/// Why a user event was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Name and payload are too long together.
    #[error("user event exceeds limit of {USER_EVENT_SIZE_MAX} bytes")]
    TooLarge,
    /// The name has control characters, which nobody takes.
    #[error("user event name has control characters")]
    Name,
    /// This member has shut down.
    #[error("gossip has been shut down")]
    Closed,
}

/// The events of a pool from the moment of subscribing.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
}

impl Events {
    /// The next event; `None` when the member has shut down and all is told.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let mut changed = pin!(self.queue.changed.notified());
            changed.as_mut().enable();
            {
                let mut waiting = self.queue.waiting();
                if let Some(event) = waiting.take() {
                    return Some(event);
                }
                if waiting.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// The next event if one waits.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.waiting().take()
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    missed: u64,
    is_closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Event> {
        if self.missed > 0 {
            return Some(Event::Missed(std::mem::take(&mut self.missed)));
        }
        self.events.pop_front()
    }
}

/// All who subscribed.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    queues: Mutex<(Vec<Weak<Queue>>, bool)>,
}

impl Subscribers {
    fn queues(&self) -> MutexGuard<'_, (Vec<Weak<Queue>>, bool)> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> Events {
        let queue = Arc::new(Queue::default());
        let mut queues = self.queues();
        queue.waiting().is_closed = queues.1;
        queues.0.push(Arc::downgrade(&queue));
        Events { queue }
    }

    /// Tells everybody, and forgets who has gone.
    pub(crate) fn tell(&self, event: &Event) {
        self.queues().0.retain(|queue| {
            let Some(queue) = queue.upgrade() else {
                return false;
            };
            let mut waiting = queue.waiting();
            if waiting.events.len() >= EVENTS_QUEUED_MAX {
                waiting.events.pop_front();
                waiting.missed += 1;
            }
            waiting.events.push_back(event.clone());
            drop(waiting);
            queue.changed.notify_waiters();
            true
        });
    }

    pub(crate) fn close(&self) {
        let mut queues = self.queues();
        queues.1 = true;
        for queue in queues.0.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.waiting().is_closed = true;
            queue.changed.notify_waiters();
        }
    }
}
