//! What locks and semaphores have in common: taking and giving back under a session, waiting that can be ended, and
//! an eye on what is held.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    Cleanup, Client, DeleteCondition, Error, NewSession, Session, SessionEnd, Wait, WriteOptions,
};

/// For how long a call that doesn't wait for anybody is waited for: longer than a server waits for a leader.
const CALL_TIME: Duration = Duration::from_secs(30);

/// For how long one blocking read of the monitor lasts. A connection that hangs is noticed much earlier, by renewals.
const MONITOR_WAIT: Duration = Duration::from_secs(5 * 60);

/// Why something can't be taken or given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The key has other flags than these recipes use: it is used for something else, or by the other recipe.
    #[error("Existing key does not match {0} use")]
    Conflict(&'static str),
    /// Others use this semaphore with another limit.
    #[error("semaphore limit conflict (lock: {stored}, local: {own})")]
    Limit {
        /// The limit that the others agreed upon.
        stored: u64,
        /// What was asked for.
        own: u64,
    },
    /// Somebody holds it.
    #[error("{0} in use")]
    InUse(&'static str),
    /// The session ended while it was waited for.
    #[error("{0}")]
    Session(SessionEnd),
    /// The coordination value of a semaphore makes no sense, or has grown too large to be written.
    #[error("the semaphore's value can't be used: {0}")]
    Value(String),
    /// An agent or server couldn't be asked, or refused.
    #[error("failed to {doing}: {why}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        why: Error,
    },
}

impl LockError {
    pub(crate) fn call(doing: &'static str) -> impl FnOnce(Error) -> Self {
        move |why| Self::Call { doing, why }
    }
}

/// Why something isn't held any more, or may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The session under which it was held has ended or may have.
    #[error("{0}")]
    Session(SessionEnd),
    /// The servers say that it isn't held by this session any more.
    #[error("it was taken away")]
    Taken,
    /// Nobody could be asked whether it is still held.
    #[error("nobody can say whether it is still held: {0}")]
    Unseen(String),
}

/// What makes a lock of a lock, and a semaphore of a semaphore: who under which conditions has it, in keys.
pub(crate) trait Recipe: Sync {
    /// What is known of the moment in which it was taken.
    type Taken: Send;

    /// On whose behalf it is taken.
    fn terms(&self) -> Terms<'_>;

    /// Tries until the session has it; `None` when patience ends before, and then the session has left.
    fn contend(
        &self,
        session: &str,
        patience: &mut Patience<'_>,
    ) -> impl Future<Output = Result<Option<Self::Taken>, LockError>> + Send;

    /// Takes the session out, whether or not it has it, and says whether it did.
    fn leave(&self, session: &str) -> impl Future<Output = Result<bool, LockError>> + Send;
}

/// Who asks for something, and under which session.
pub(crate) struct Terms<'a> {
    pub(crate) client: &'a Client,
    pub(crate) shared: Option<&'a Arc<Session>>,
    pub(crate) wish: &'a NewSession,
    pub(crate) write: WriteOptions,
}

/// Takes it, unless `stop` comes first or it isn't to be had in this time; nothing is left behind then.
pub(crate) async fn take<R: Recipe>(
    recipe: &R,
    stop: impl Future<Output = ()> + Send,
    time: Option<Duration>,
) -> Result<Option<(Tenure, R::Taken)>, LockError> {
    let stop = std::pin::pin!(stop);
    let mut patience = Patience::new(stop, time);
    let tenure = Tenure::begin(recipe.terms()).await?;
    let session = tenure.session();
    let taken = tokio::select! {
        biased;
        taken = recipe.contend(session.id(), &mut patience) => taken,
        end = session.ended() => Err(LockError::Session(end)),
    };
    match taken {
        Ok(Some(taken)) => Ok(Some((tenure, taken))),
        Ok(None) => {
            tenure.end().await?;
            Ok(None)
        }
        Err(why) => {
            // As far as that can be done: it may have been taken by a call whose answer was lost.
            let _ = give_back(recipe, tenure).await;
            Err(why)
        }
    }
}

/// Takes it, however long that takes.
pub(crate) async fn take_at_last<R: Recipe>(recipe: &R) -> Result<(Tenure, R::Taken), LockError> {
    loop {
        if let Some(taken) = take(recipe, std::future::pending(), None).await? {
            return Ok(taken);
        }
    }
}

/// Leaves and ends the session, the latter also when the former fails; says whether it was still held.
pub(crate) async fn give_back<R: Recipe>(recipe: &R, tenure: Tenure) -> Result<bool, LockError> {
    let left = recipe.leave(tenure.session().id()).await;
    let ended = tenure.end().await;
    let left = left?;
    ended.map(|()| left)
}

/// Removes a key that nobody uses, unless it has changed since that was seen: then somebody does.
pub(crate) async fn remove<R: Recipe>(
    recipe: &R,
    doing: &'static str,
    key: &str,
    modified: u64,
    in_use: LockError,
) -> Result<Cleanup, LockError> {
    let Terms { client, write, .. } = recipe.terms();
    let unchanged = DeleteCondition::Unchanged(modified);
    let removal = client.kv_delete(key, unchanged, &write);
    if settled(doing, removal).await? {
        Ok(Cleanup::Removed)
    } else {
        Err(in_use)
    }
}

/// How long one is ready to wait, and who may end it.
pub(crate) struct Patience<'a> {
    stop: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    is_stopped: bool,
    until: Option<Instant>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(
        stop: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
        time: Option<Duration>,
    ) -> Self {
        Self {
            stop,
            is_stopped: false,
            // A time beyond what the clock can count is for ever.
            until: time.and_then(|time| Instant::now().checked_add(time)),
        }
    }

    /// Waits for `work`; `None` when the time is up or one is to stop.
    pub(crate) async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let until = self.until;
        let in_time = async {
            match until {
                Some(until) => timeout_at(until, work).await.ok(),
                None => Some(work.await),
            }
        };
        self.unless_stopped(in_time).await.flatten()
    }

    /// Waits for `work` even when the time is up; `None` when one is to stop.
    pub(crate) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        if self.is_stopped {
            return None;
        }
        tokio::select! {
            biased;
            () = self.stop.as_mut() => {
                self.is_stopped = true;
                None
            }
            done = work => Some(done),
        }
    }

    /// Whether one is to stop.
    pub(crate) async fn is_stopped(&mut self) -> bool {
        self.unless_stopped(std::future::ready(())).await.is_none()
    }

    /// Whether the time is up or one is to stop.
    pub(crate) async fn is_over(&mut self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now()) || self.is_stopped().await
    }
}

/// Waits for a call that must not be given up halfway, since its effect would be unknown.
pub(crate) async fn settled<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, LockError> {
    let answer = timeout(CALL_TIME, call).await;
    let answer = answer.unwrap_or_else(|_| Err(Error::Body("i/o timeout".to_owned())));
    answer.map_err(LockError::call(doing))
}

/// The same for a read, whose answer is needed to go on.
pub(crate) async fn read_soon<T>(
    doing: &'static str,
    read: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    let answer = timeout(CALL_TIME, read).await;
    let timed_out = || {
        Err(LockError::call(doing)(Error::Body(
            "i/o timeout".to_owned(),
        )))
    };
    answer.unwrap_or_else(|_| timed_out())
}

/// A session under which something is held: made for that alone, or shared.
#[derive(Debug)]
pub(crate) enum Tenure {
    Own(Box<Session>),
    Shared(Arc<Session>),
}

impl Tenure {
    async fn begin(terms: Terms<'_>) -> Result<Self, LockError> {
        match terms.shared {
            Some(session) => Ok(Self::Shared(Arc::clone(session))),
            None => {
                let opening = Session::open(terms.client, terms.wish, &terms.write);
                let session = settled("create session", opening).await?;
                Ok(Self::Own(Box::new(session)))
            }
        }
    }

    pub(crate) fn session(&self) -> &Session {
        match self {
            Self::Own(session) => session,
            Self::Shared(session) => session,
        }
    }

    /// Ends a session of our own; one that is shared goes on.
    pub(crate) async fn end(self) -> Result<(), LockError> {
        match self {
            Self::Own(session) => settled("destroy session", session.close()).await,
            Self::Shared(_) => Ok(()),
        }
    }
}

/// Something held under a session, with somebody who looks whether it still is.
#[derive(Debug)]
pub(crate) struct Holding {
    tenure: Tenure,
    loss: watch::Receiver<Option<Loss>>,
    monitor: Monitor,
}

/// The task that looks; it stops when nobody wants to know any more.
#[derive(Debug)]
struct Monitor(JoinHandle<()>);

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Holding {
    /// `monitor` returns when it isn't held any more.
    pub(crate) fn new(
        tenure: Tenure,
        monitor: impl Future<Output = Loss> + Send + 'static,
    ) -> Self {
        let (told, loss) = watch::channel(None);
        let monitor = tokio::spawn(async move {
            let loss = monitor.await;
            told.send_replace(Some(loss));
        });
        Self {
            tenure,
            loss,
            monitor: Monitor(monitor),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        // A monitor that ended without a word has panicked.
        self.loss.borrow().is_none()
            && !self.monitor.0.is_finished()
            && self.tenure.session().is_alive()
    }

    pub(crate) async fn lost(&self) -> Loss {
        let mut loss = self.loss.clone();
        let seen = async {
            match loss.wait_for(Option::is_some).await {
                Ok(loss) => loss.clone().unwrap_or(Loss::Taken),
                Err(_) => Loss::Unseen("the monitor has ended".to_owned()),
            }
        };
        tokio::select! {
            biased;
            loss = seen => loss,
            end = self.tenure.session().ended() => Loss::Session(end),
        }
    }

    pub(crate) fn session(&self) -> &Session {
        self.tenure.session()
    }

    /// Stops looking, so that giving it back isn't taken for a loss.
    pub(crate) fn unwatched(self) -> Tenure {
        self.tenure
    }
}

/// How often and how patiently a monitor asks again when servers say that they failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    pub(crate) count: u32,
    pub(crate) pause: Duration,
}

/// Looks with blocking reads whether something is still held, until it isn't.
///
/// `look` gives the index to wait from, or `None` when it is not held any more.
pub(crate) async fn monitor<F>(
    mut index: u64,
    retries: Retries,
    mut look: impl FnMut(Option<Wait>) -> F,
) -> Loss
where
    F: Future<Output = Result<Option<u64>, Error>>,
{
    let mut failures = 0;
    loop {
        let wait = (index > 0).then_some(Wait {
            index,
            time: MONITOR_WAIT,
        });
        match look(wait).await {
            Ok(Some(seen)) => {
                failures = 0;
                // An index of nothing would make the next read return at once, and so on for ever.
                index = seen.max(1);
            }
            Ok(None) => return Loss::Taken,
            Err(Error::Unexpected { code: 500.., .. }) if failures < retries.count => {
                failures += 1;
                // The server that answers next may not be the one that failed: begin anew.
                index = 0;
                sleep(retries.pause).await;
            }
            Err(why) => return Loss::Unseen(why.to_string()),
        }
    }
}
