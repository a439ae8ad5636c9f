//! A semaphore that at most so many clients hold at a time.
//!
//! It is the recipe of the original's clients, which may compete for the same semaphore.
//! Each contender locks a key of its own below the prefix, named like its session; the key `.lock` there says who of
//! them holds a slot, and is only changed by whoever read it last.
//! A holder whose own key is no longer locked has lost its session, and whoever comes next takes its slot.
//!
//! There is no lock-delay: the slot of a holder whose *check or node* failed is free at once, before the holder has
//! noticed. A slot that is lost because the TTL has passed was given up by its holder before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::holding::{
    Holding, LockError, Loss, Patience, Recipe, Retries, Tenure, Terms, give_back, monitor,
    read_soon, remove, settled, take, take_at_last,
};
use crate::{
    Answer, Cleanup, Client, Consistency, DeleteCondition, Error, KvPair, KvPut, NewSession,
    PutCondition, QueryOptions, Session, SessionBehavior, SessionEnd, Wait, WriteOptions,
};

/// The flags of the keys that make up a semaphore.
pub const SEMAPHORE_FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// The key below the prefix that says who holds a slot.
const COORDINATION: &str = ".lock";

const READ: &str = "read prefix";

/// Where the semaphore is, how many may hold it, and how it is waited for and watched.
#[derive(Clone)]
pub struct SemaphoreOptions {
    /// What the keys begin with; a slash is put behind it where there is none.
    pub prefix: String,
    /// How many may hold it. All who use it must say the same.
    pub limit: u64,
    /// What stands in the contender's own key, for people and other programs. Default: nothing.
    pub value: Bytes,
    /// The session that is made for each time that a slot is held.
    /// Default: name `Consul API Semaphore`, TTL 15 s, keys deleted.
    pub new_session: NewSession,
    /// A session to use instead. It can hold one slot.
    pub session: Option<Arc<Session>>,
    /// How long one read waits for a slot to become free. Default: 15 s.
    pub wait_time: Duration,
    /// How often in a row the monitor takes it that servers say they failed. Default: 0, it is lost at once.
    pub monitor_retries: u32,
    /// How long it waits before it asks again. Default: 2 s.
    pub monitor_retry_time: Duration,
    /// The datacenter of the semaphore; the agent's own when empty.
    pub datacenter: String,
    /// The token to use instead of the client's, when not empty.
    pub token: String,
}

impl SemaphoreOptions {
    /// This prefix and limit, and the defaults.
    pub fn new(prefix: impl Into<String>, limit: u64) -> Self {
        Self {
            prefix: prefix.into(),
            limit,
            value: Bytes::new(),
            new_session: NewSession {
                name: "Consul API Semaphore".to_owned(),
                behavior: SessionBehavior::Delete,
                ttl: Some(Duration::from_secs(15)),
                ..NewSession::default()
            },
            session: None,
            wait_time: Duration::from_secs(15),
            monitor_retries: 0,
            monitor_retry_time: Duration::from_secs(2),
            datacenter: String::new(),
            token: String::new(),
        }
    }
}

impl fmt::Debug for SemaphoreOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreOptions")
            .field("prefix", &self.prefix)
            .field("limit", &self.limit)
            .field("datacenter", &self.datacenter)
            .finish_non_exhaustive()
    }
}

/// A semaphore of which slots can be taken, again and again.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), client::LockError> {
/// use client::{Semaphore, SemaphoreOptions};
///
/// let semaphore = Semaphore::new(&client, SemaphoreOptions::new("service/import", 5));
/// let slot = semaphore.acquire().await?;
/// // One of at most five.
/// slot.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Semaphore {
    client: Client,
    options: SemaphoreOptions,
}

/// A slot that is held, as far as anybody can know: see [`Self::is_held`].
///
/// Dropped without [`Self::release`], it is taken until its session has run out.
#[derive(Debug)]
pub struct HeldSlot {
    holding: Holding,
    semaphore: Semaphore,
}

/// What the coordination key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Slots {
    #[serde(default)]
    limit: u64,
    /// Sessions; the value is always true.
    #[serde(default, deserialize_with = "crate::null_is_default")]
    holders: BTreeMap<String, bool>,
}

/// The semaphore at one moment.
struct Seen {
    slots: Slots,
    /// When the coordination key last changed; 0 if there is none.
    modified: u64,
    index: u64,
}

impl Seen {
    fn holds(&self, session: &str) -> bool {
        self.slots.holders.contains_key(session)
    }
}

impl Semaphore {
    /// The semaphore at a prefix. Nothing is sent yet.
    pub fn new(client: &Client, options: SemaphoreOptions) -> Self {
        Self {
            client: client.clone(),
            options,
        }
    }

    /// Takes a slot, however long that takes.
    ///
    /// Whoever wants to give up uses [`Self::acquire_unless`]: this future, when it is dropped, leaves behind a
    /// session that lasts until its TTL has passed, and perhaps the slot.
    ///
    /// # Errors
    /// When the keys are used for something else or with another limit, or the servers can't be asked.
    pub async fn acquire(&self) -> Result<HeldSlot, LockError> {
        let (tenure, index) = take_at_last(self).await?;
        Ok(self.held(tenure, index))
    }

    /// Takes a slot, unless `stop` comes first or none is to be had in this time; `None` then, and nothing is left
    /// behind. With a time it is tried at least once.
    ///
    /// # Errors
    /// When the keys are used for something else or with another limit, or the servers can't be asked.
    pub async fn acquire_unless(
        &self,
        stop: impl Future<Output = ()> + Send,
        time: Option<Duration>,
    ) -> Result<Option<HeldSlot>, LockError> {
        let taken = take(self, stop, time).await?;
        Ok(taken.map(|(tenure, index)| self.held(tenure, index)))
    }

    /// Removes the coordination key, if nobody holds a slot.
    ///
    /// # Errors
    /// When somebody does, the key is used for something else, or the servers can't be asked.
    pub async fn clean_up(&self) -> Result<Cleanup, LockError> {
        let seen = read_soon(READ, self.read(None, Consistency::Leader)).await?;
        if !seen.slots.holders.is_empty() {
            return Err(LockError::InUse("semaphore"));
        }
        if seen.modified == 0 {
            return Ok(Cleanup::Absent);
        }
        let (key, in_use) = (self.key(COORDINATION), LockError::InUse("semaphore"));
        remove(self, "remove semaphore", &key, seen.modified, in_use).await
    }

    /// Tries until the session has a slot, and says from which index to watch it; `None` when patience ends before.
    async fn enter(
        &self,
        session: &str,
        patience: &mut Patience<'_>,
    ) -> Result<Option<u64>, LockError> {
        let made = settled(
            "make contender entry",
            self.put(
                session,
                self.options.value.clone(),
                PutCondition::Acquire(session.to_owned()),
            ),
        );
        if !made.await? {
            return Err(LockError::Value(format!(
                "key {:?} is locked by somebody else",
                self.key(session)
            )));
        }
        let mut wait = None;
        loop {
            let read = self.read(wait, Consistency::Leader);
            let seen = match wait {
                // Once it is looked at in any case.
                None => patience.unless_stopped(read_soon(READ, read)).await,
                Some(_) => patience.wait_for(read).await,
            };
            let Some(seen) = seen.transpose()? else {
                return Ok(None);
            };
            let is_holder = seen.holds(session);
            let mut slots = seen.slots;
            if slots.limit != self.options.limit {
                return Err(LockError::Limit {
                    stored: slots.limit,
                    own: self.options.limit,
                });
            }
            if !is_holder && slots.holders.len() as u64 >= slots.limit {
                wait = Some(Wait {
                    index: seen.index.max(1),
                    time: self.options.wait_time,
                });
                continue;
            }
            slots.holders.insert(session.to_owned(), true);
            if is_holder || self.write(&slots, seen.modified).await? {
                if patience.is_stopped().await {
                    // Leaving takes the session out again.
                    return Ok(None);
                }
                // Who holds it is what a leader says that has made sure that it is one.
                let now = read_soon(READ, self.read(None, Consistency::Consistent)).await?;
                return if now.holds(session) {
                    Ok(Some(now.index))
                } else {
                    Err(LockError::Session(SessionEnd::Gone))
                };
            }
            wait = None;
            if patience.is_over().await {
                return Ok(None);
            }
        }
    }

    fn held(&self, tenure: Tenure, index: u64) -> HeldSlot {
        let retries = Retries {
            count: self.options.monitor_retries,
            pause: self.options.monitor_retry_time,
        };
        let (semaphore, session) = (self.clone(), tenure.session().id().to_owned());
        let watching = async move {
            let (semaphore, session) = (&semaphore, &session);
            monitor(index, retries, |wait| async move {
                match semaphore.read(wait, Consistency::Consistent).await {
                    Ok(seen) => Ok(seen.holds(session).then_some(seen.index)),
                    Err(LockError::Call { why, .. }) => Err(why),
                    // It is used for something else by now.
                    Err(_) => Ok(None),
                }
            })
            .await
        };
        HeldSlot {
            holding: Holding::new(tenure, watching),
            semaphore: self.clone(),
        }
    }

    /// Writes who holds a slot, unless somebody was faster.
    async fn write(&self, slots: &Slots, modified: u64) -> Result<bool, LockError> {
        let json = serde_json::to_vec(slots).map_err(|why| LockError::Value(why.to_string()))?;
        let put = self.put(COORDINATION, json.into(), PutCondition::Unchanged(modified));
        settled("update semaphore", put).await
    }

    async fn put(&self, name: &str, value: Bytes, condition: PutCondition) -> Result<bool, Error> {
        let put = KvPut {
            key: self.key(name),
            value,
            flags: SEMAPHORE_FLAGS,
            condition,
        };
        self.client.kv_put(&put, &self.write_options()).await
    }

    /// Who holds a slot, without those whose session has ended.
    async fn read(&self, wait: Option<Wait>, consistency: Consistency) -> Result<Seen, LockError> {
        let options = QueryOptions {
            datacenter: self.options.datacenter.clone(),
            token: self.options.token.clone(),
            consistency,
            wait,
        };
        let answer = self.client.kv_list(&self.key(""), &options).await;
        let Answer { value: pairs, meta } = answer.map_err(LockError::call(READ))?;
        let (slots, modified) = self.holders(&pairs)?;
        Ok(Seen {
            slots,
            modified,
            index: meta.index,
        })
    }

    fn holders(&self, pairs: &[KvPair]) -> Result<(Slots, u64), LockError> {
        let coordination = self.key(COORDINATION);
        let found = pairs.iter().find(|pair| pair.key == coordination);
        let mut slots = Slots {
            limit: self.options.limit,
            holders: BTreeMap::new(),
        };
        let Some(pair) = found else {
            return Ok((slots, 0));
        };
        if pair.flags != SEMAPHORE_FLAGS {
            return Err(LockError::Conflict("semaphore"));
        }
        if !pair.value.is_empty() {
            let read = serde_json::from_slice(&pair.value);
            slots = read.map_err(|why| LockError::Value(why.to_string()))?;
        }
        let alive: BTreeSet<&str> = pairs.iter().map(|pair| pair.session.as_str()).collect();
        slots
            .holders
            .retain(|session, _| !session.is_empty() && alive.contains(session.as_str()));
        Ok((slots, pair.modify_index))
    }

    fn key(&self, name: &str) -> String {
        let prefix = self.options.prefix.as_str();
        let slash = if prefix.is_empty() || prefix.ends_with('/') {
            ""
        } else {
            "/"
        };
        format!("{prefix}{slash}{name}")
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            datacenter: self.options.datacenter.clone(),
            token: self.options.token.clone(),
        }
    }
}

impl Recipe for Semaphore {
    /// From which index to watch it.
    type Taken = u64;

    fn terms(&self) -> Terms<'_> {
        Terms {
            client: &self.client,
            shared: self.options.session.as_ref(),
            wish: &self.options.new_session,
            write: self.write_options(),
        }
    }

    async fn contend(
        &self,
        session: &str,
        patience: &mut Patience<'_>,
    ) -> Result<Option<u64>, LockError> {
        let taken = self.enter(session, patience).await?;
        if taken.is_none() {
            // Its own key is there, and perhaps a slot was taken at the very moment.
            self.leave(session).await?;
        }
        Ok(taken)
    }

    /// Takes a session out of the holders, and removes its key.
    async fn leave(&self, session: &str) -> Result<bool, LockError> {
        let was_holder = loop {
            let mut seen = read_soon(READ, self.read(None, Consistency::Leader)).await?;
            if seen.slots.holders.remove(session).is_none() {
                break false;
            }
            if self.write(&seen.slots, seen.modified).await? {
                break true;
            }
        };
        let options = self.write_options();
        let key = self.key(session);
        let removal = self
            .client
            .kv_delete(&key, DeleteCondition::Always, &options);
        settled("remove contender entry", removal).await?;
        Ok(was_holder)
    }
}

impl HeldSlot {
    /// Whether the slot is held at this moment; once false, always false.
    ///
    /// It is false as soon as the servers may have given the slot to another because of the TTL, also after this
    /// process or this machine stood still. Look again before each step that depends on it.
    pub fn is_held(&self) -> bool {
        self.holding.is_held()
    }

    /// Returns when the slot is lost, with the reason.
    pub async fn lost(&self) -> Loss {
        self.holding.lost().await
    }

    /// The session that holds it.
    pub fn session(&self) -> &str {
        self.holding.session().id()
    }

    /// Gives the slot back, whether or not it was lost, and says whether it was still held.
    ///
    /// # Errors
    /// When the servers couldn't be told; then it is free when the session has run out.
    pub async fn release(self) -> Result<bool, LockError> {
        let Self { holding, semaphore } = self;
        give_back(&semaphore, holding.unwatched()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LOCK_FLAGS;

    #[test]
    fn the_value_is_written_as_documented() {
        let page = include_str!("../../../docs/locks.md");
        let example = page.lines().find(|line| line.starts_with("{\"Limit\""));
        let example = example.unwrap();
        let slots: Slots = serde_json::from_str(example).unwrap();
        assert_eq!((slots.limit, slots.holders.len()), (2, 2));
        assert_eq!(serde_json::to_string(&slots).unwrap(), example);
        assert!(page.contains(&format!("| {LOCK_FLAGS} (`{LOCK_FLAGS:#x}`) |")));
        assert!(page.contains(&format!("| {SEMAPHORE_FLAGS} (`{SEMAPHORE_FLAGS:#x}`) |")));
    }
}
