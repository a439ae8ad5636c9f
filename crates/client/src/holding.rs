//! What locks and semaphores have in common: waiting that can be ended, a session, and an eye on what is held.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{Client, Error, NewSession, Session, SessionEnd, Wait, WriteOptions};

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
    pub(crate) async fn begin(
        client: &Client,
        shared: Option<&Arc<Session>>,
        wish: &NewSession,
        options: &WriteOptions,
    ) -> Result<Self, LockError> {
        match shared {
            Some(session) => Ok(Self::Shared(Arc::clone(session))),
            None => {
                let session = settled("create session", Session::open(client, wish, options));
                Ok(Self::Own(Box::new(session.await?)))
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
