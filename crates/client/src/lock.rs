//! A lock that one client holds at a time: a key that is locked by the holder's session.
//!
//! It is the recipe of the original's clients, which may compete for the same lock: the key has the flags
//! [`LOCK_FLAGS`], whoever locks it with its session holds it, the others wait for the key to change, and when the
//! servers refuse a key that nobody holds, the lock-delay of a holder that was lost is still running.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::holding::{
    Holding, LockError, Loss, Patience, Recipe, Retries, Tenure, Terms, give_back, monitor,
    read_soon, remove, settled, take, take_at_last,
};
use crate::{
    Answer, Client, Consistency, KvPair, KvPut, NewSession, PutCondition, QueryOptions, Session,
    SessionBehavior, Wait, WriteOptions,
};

/// The flags of a key that is used as a lock.
pub const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

const READ: &str = "read lock";

/// Which key is the lock, and how it is waited for and watched.
#[derive(Clone)]
pub struct LockOptions {
    /// The key.
    pub key: String,
    /// What stands in the key while it is held, for people and other programs. Default: nothing.
    pub value: Bytes,
    /// The session that is made for each time that the lock is held.
    /// Default: name `Consul API Lock`, TTL 15 s, lock-delay as the servers have it (15 s), keys released.
    pub new_session: NewSession,
    /// A session to use instead, which may hold several locks.
    pub session: Option<Arc<Session>>,
    /// How long one read waits for the holder to go. Default: 15 s.
    pub wait_time: Duration,
    /// How long it takes until a free key is tried again that a lock-delay protects. Default: 5 s.
    pub retry_time: Duration,
    /// How often in a row the monitor takes it that servers say they failed. Default: 0, it is lost at once.
    pub monitor_retries: u32,
    /// How long it waits before it asks again. Default: 2 s.
    pub monitor_retry_time: Duration,
    /// The datacenter of the lock; the agent's own when empty.
    pub datacenter: String,
    /// The token to use instead of the client's, when not empty.
    pub token: String,
}

impl LockOptions {
    /// This key, and the defaults.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: Bytes::new(),
            new_session: NewSession {
                name: "Consul API Lock".to_owned(),
                behavior: SessionBehavior::Release,
                ttl: Some(Duration::from_secs(15)),
                ..NewSession::default()
            },
            session: None,
            wait_time: Duration::from_secs(15),
            retry_time: Duration::from_secs(5),
            monitor_retries: 0,
            monitor_retry_time: Duration::from_secs(2),
            datacenter: String::new(),
            token: String::new(),
        }
    }
}

impl fmt::Debug for LockOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockOptions")
            .field("key", &self.key)
            .field("datacenter", &self.datacenter)
            .finish_non_exhaustive()
    }
}

/// A lock that can be taken, again and again.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), client::LockError> {
/// use client::{Lock, LockOptions};
///
/// let lock = Lock::new(&client, LockOptions::new("service/reports/leader"));
/// let held = lock.acquire().await?;
/// tokio::select! {
///     loss = held.lost() => eprintln!("no longer the leader: {loss}"),
///     () = lead(held.fence()) => {
///         held.release().await?;
///     }
/// }
/// # Ok(())
/// # }
/// # async fn lead(_: u64) {}
/// ```
#[derive(Debug, Clone)]
pub struct Lock {
    client: Client,
    options: LockOptions,
}

/// A lock that is held, as far as anybody can know: see [`Self::is_held`].
///
/// Dropped without [`Self::release`], it stays locked until its session has run out and its lock-delay has passed.
#[derive(Debug)]
pub struct HeldLock {
    holding: Holding,
    lock: Lock,
    fence: u64,
    lock_index: u64,
}

/// What became of a key that nobody needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// It is gone.
    Removed,
    /// There was none.
    Absent,
}

impl Lock {
    /// The lock at a key. Nothing is sent yet.
    pub fn new(client: &Client, options: LockOptions) -> Self {
        Self {
            client: client.clone(),
            options,
        }
    }

    /// Takes the lock, however long that takes.
    ///
    /// Whoever wants to give up uses [`Self::acquire_unless`]: this future, when it is dropped, leaves behind a
    /// session that lasts until its TTL has passed, and perhaps the lock.
    ///
    /// # Errors
    /// When the key is used for something else, or the servers can't be asked.
    pub async fn acquire(&self) -> Result<HeldLock, LockError> {
        let (tenure, taken) = take_at_last(self).await?;
        Ok(self.held(tenure, &taken))
    }

    /// Takes the lock, unless `stop` comes first or it isn't to be had in this time; `None` then, and nothing is left
    /// behind. With a time it is tried at least once.
    ///
    /// # Errors
    /// When the key is used for something else, or the servers can't be asked.
    pub async fn acquire_unless(
        &self,
        stop: impl Future<Output = ()> + Send,
        time: Option<Duration>,
    ) -> Result<Option<HeldLock>, LockError> {
        let taken = take(self, stop, time).await?;
        Ok(taken.map(|(tenure, taken)| self.held(tenure, &taken)))
    }

    /// Removes the key, if it is a lock and nobody holds it.
    ///
    /// # Errors
    /// When it is held or used for something else, or the servers can't be asked.
    pub async fn clean_up(&self) -> Result<Cleanup, LockError> {
        let Some(pair) = self.look().await?.value else {
            return Ok(Cleanup::Absent);
        };
        if !pair.session.is_empty() {
            return Err(LockError::InUse("lock"));
        }
        let in_use = LockError::InUse("lock");
        let (key, modified) = (&self.options.key, pair.modify_index);
        remove(self, "remove lock", key, modified, in_use).await
    }

    /// Waits until a free key that was refused is worth another try: a while, or until it changes.
    async fn lock_delay(&self, seen: &Answer<Option<KvPair>>) {
        let end = Instant::now() + self.options.retry_time;
        let mut index = seen.meta.index.max(1);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let wait = Wait { index, time: left };
            match self.read(Some(wait), Consistency::Leader).await {
                // Servers of the original also answer when other keys change.
                Ok(now) if modified(&now) == modified(seen) => index = now.meta.index.max(1),
                Ok(_) => return,
                // The next try will say it.
                Err(_) => return sleep(left).await,
            }
        }
    }

    fn held(&self, tenure: Tenure, taken: &KvPair) -> HeldLock {
        let retries = Retries {
            count: self.options.monitor_retries,
            pause: self.options.monitor_retry_time,
        };
        let (lock, session) = (self.clone(), tenure.session().id().to_owned());
        let modified = taken.modify_index;
        let watching = async move {
            let (lock, session) = (&lock, &session);
            monitor(modified, retries, |wait| async move {
                let seen = lock.get(wait, Consistency::Consistent).await?;
                let pair = seen.value.filter(|pair| pair.session == *session);
                Ok(pair.map(|_| seen.meta.index))
            })
            .await
        };
        HeldLock {
            holding: Holding::new(tenure, watching),
            lock: self.clone(),
            fence: taken.modify_index,
            lock_index: taken.lock_index,
        }
    }

    async fn put(
        &self,
        session: &str,
        condition: impl FnOnce(String) -> PutCondition,
    ) -> Result<bool, LockError> {
        let condition = condition(session.to_owned());
        let doing = match condition {
            PutCondition::Release(_) => "release lock",
            _ => "acquire lock",
        };
        let put = KvPut {
            key: self.options.key.clone(),
            value: self.options.value.clone(),
            flags: LOCK_FLAGS,
            condition,
        };
        let options = self.write_options();
        settled(doing, self.client.kv_put(&put, &options)).await
    }

    async fn look(&self) -> Result<Answer<Option<KvPair>>, LockError> {
        read_soon(READ, self.read(None, Consistency::Leader)).await
    }

    /// The key, if it is not used for something else.
    async fn read(
        &self,
        wait: Option<Wait>,
        consistency: Consistency,
    ) -> Result<Answer<Option<KvPair>>, LockError> {
        let answer = self.get(wait, consistency).await;
        let answer = answer.map_err(LockError::call(READ))?;
        match &answer.value {
            Some(pair) if pair.flags != LOCK_FLAGS => Err(LockError::Conflict("lock")),
            _ => Ok(answer),
        }
    }

    async fn get(
        &self,
        wait: Option<Wait>,
        consistency: Consistency,
    ) -> Result<Answer<Option<KvPair>>, crate::Error> {
        let options = QueryOptions {
            datacenter: self.options.datacenter.clone(),
            token: self.options.token.clone(),
            consistency,
            wait,
        };
        self.client.kv_get(&self.options.key, &options).await
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            datacenter: self.options.datacenter.clone(),
            token: self.options.token.clone(),
        }
    }
}

impl Recipe for Lock {
    /// The key as it was when it was locked.
    type Taken = KvPair;

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
    ) -> Result<Option<KvPair>, LockError> {
        let Some(mut seen) = patience.unless_stopped(self.look()).await.transpose()? else {
            return Ok(None);
        };
        loop {
            let holder = seen.value.as_ref().map_or("", |pair| pair.session.as_str());
            if !holder.is_empty() && holder != session {
                let wait = Wait {
                    index: seen.meta.index.max(1),
                    time: self.options.wait_time,
                };
                let changed = self.read(Some(wait), Consistency::Leader);
                seen = match patience.wait_for(changed).await {
                    Some(changed) => changed?,
                    None => return Ok(None),
                };
                continue;
            }
            let is_ours = holder == session || self.put(session, PutCondition::Acquire).await?;
            if is_ours && patience.is_stopped().await {
                // At the very moment: nobody would use it.
                self.leave(session).await?;
                return Ok(None);
            }
            if is_ours {
                // Who holds it is what a leader says that has made sure that it is one.
                let now = read_soon(READ, self.read(None, Consistency::Consistent)).await?;
                match now.value {
                    Some(pair) if pair.session == session => return Ok(Some(pair)),
                    _ => seen = now,
                }
            } else {
                let now = self.look().await?;
                let was_faster = modified(&now) != modified(&seen);
                seen = now;
                if !was_faster {
                    // Nobody was, so a lock-delay is in force.
                    let Some(()) = patience.wait_for(self.lock_delay(&seen)).await else {
                        return Ok(None);
                    };
                    seen = self.look().await?;
                }
            }
            if patience.is_over().await {
                return Ok(None);
            }
        }
    }

    async fn leave(&self, session: &str) -> Result<bool, LockError> {
        self.put(session, PutCondition::Release).await
    }
}

/// When the key last changed, if it exists.
fn modified(seen: &Answer<Option<KvPair>>) -> Option<u64> {
    seen.value.as_ref().map(|pair| pair.modify_index)
}

impl HeldLock {
    /// Whether the lock is held at this moment; once false, always false.
    ///
    /// It is false as soon as the servers may have given the lock to another because of the TTL, also after this
    /// process or this machine stood still. Look again before each step that must not happen twice, and give
    /// [`Self::fence`] to whoever can refuse a step that comes too late.
    pub fn is_held(&self) -> bool {
        self.holding.is_held()
    }

    /// Returns when the lock is lost, with the reason.
    pub async fn lost(&self) -> Loss {
        self.holding.lost().await
    }

    /// A number that is greater than that of every holder before, whatever happened to the key in between: the key's
    /// `ModifyIndex`, read while it was held. Whoever refuses what comes with a smaller number than it has seen is safe
    /// from a holder that was paused at the wrong moment.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// How often the key was locked so far. It begins anew when the key is deleted, written without the lock, or
    /// restored, and [`Self::fence`] doesn't.
    pub fn lock_index(&self) -> u64 {
        self.lock_index
    }

    /// The session that holds it.
    pub fn session(&self) -> &str {
        self.holding.session().id()
    }

    /// Gives the lock back, whether or not it was lost, and says whether it was still held.
    /// Another can take it at once, without a lock-delay.
    ///
    /// # Errors
    /// When the servers couldn't be told; then it is free when the session has run out.
    pub async fn release(self) -> Result<bool, LockError> {
        let Self { holding, lock, .. } = self;
        give_back(&lock, holding.unwatched()).await
    }
}
