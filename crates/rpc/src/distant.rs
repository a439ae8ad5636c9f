//! The servers as a client agent sees them: over there, one of them at a time.
//!
//! What failed on the way is asked again elsewhere if that can do no harm: a read always, a write only if it provably was not sent.
//! What a server has answered is the answer, be it an error.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use model::{Answer, Command, Error, Operated, Operation, Question, Reply};
use tokio::time::{Instant, timeout};

use crate::{
    Answered, Backend, ByteStream, CallError, Calls, Hop, OperateOptions, ReadOptions, Refusal,
    Request, Response, RestoreOptions, Restored, Save, SaveOptions, ServerAddress, Servers,
    WriteOptions,
};

/// How long a request looks for a server that answers, as the original holds it for a leader.
pub const HOLD_MAX: Duration = Duration::from_secs(7);

/// The longest pause after all servers were tried in vain; a sixteenth of the time, as the original has it.
const PAUSE_MAX: Duration = Duration::from_millis(437);

/// How long a server may take to say that it is there, before another becomes the first in the list.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers, asked from afar. Clones share what is known of them.
#[derive(Clone)]
pub struct Distant {
    calls: Arc<dyn Calls>,
    servers: Arc<Mutex<Servers>>,
    hold_max: Duration,
}

impl std::fmt::Debug for Distant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Distant")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Distant {
    /// Asks the servers that `servers` knows and comes to know.
    pub fn new(calls: Arc<dyn Calls>, servers: Servers) -> Self {
        Self {
            calls,
            servers: Arc::new(Mutex::new(servers)),
            hold_max: HOLD_MAX,
        }
    }

    /// What is known of the servers, to look at or to change. Not to be kept while waiting for anything.
    pub fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws another order of the servers every few minutes, for as long as it is polled.
    ///
    /// `members` tells how many members the pool has: in large ones the order is kept for longer.
    pub async fn rebalance(&self, members: impl Fn() -> usize) {
        loop {
            let after = self.servers().rebalance_after(members());
            tokio::time::sleep(after).await;
            self.draw().await;
        }
    }

    /// Draws another order, whose first is a server that answers. If none does, the order stays.
    pub async fn draw(&self) {
        let mut drawn = self.servers().draw();
        for _ in 0..drawn.len() {
            let Some(first) = drawn.first().cloned() else {
                return;
            };
            if self.ping(&first).await.is_ok() {
                self.servers().prefer(&drawn);
                return;
            }
            drawn.rotate_left(1);
        }
    }

    async fn ping(&self, server: &ServerAddress) -> Result<(), CallError> {
        let ping = self.calls.call(server, Hop::First, Request::Ping);
        let late = || {
            Err(CallError::Broken(
                "it does not say that it is there".to_owned(),
            ))
        };
        let answered = timeout(PING_TIMEOUT, ping).await;
        answered.unwrap_or_else(|_| late()).map(drop)
    }

    fn head(&self) -> Result<ServerAddress, Error> {
        self.servers().head().cloned().ok_or(Error::NoServers)
    }

    /// Asks until somebody answers, as long as asking again does no harm.
    ///
    /// `request` makes the request anew; it is told how much of the time that has passed.
    async fn ask(&self, request: impl Fn(Duration) -> Request) -> Result<Response, Error> {
        let begun = Instant::now();
        let mut trouble = Trouble::default();
        loop {
            let server = self.head()?;
            let asked = Instant::now();
            let request = request(begun.elapsed());
            let is_repeatable = request.is_repeatable();
            let called = self.calls.call(&server, Hop::First, request).await;
            let error = match called {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let again = match &error {
                // The second can't come, since nobody has passed it on; nothing was done in either case.
                CallError::NotSent(_) | CallError::Refused(Refusal::NotLeader) => true,
                CallError::Broken(_) => is_repeatable,
                CallError::Refused(Refusal::Failed(_)) => false,
            };
            if again || is_about_the_server(&error) {
                self.servers().failed(&server);
            }
            if !again || trouble.is_over(asked, self.hold_max) {
                return Err(told(error, is_repeatable));
            }
            if trouble.is_round(self.servers().all().len()) {
                let pause = self.servers().pause(PAUSE_MAX);
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// A server that says that it is there, for what can be sent only once.
    async fn alive(&self) -> Result<ServerAddress, Error> {
        let mut trouble = Trouble::default();
        loop {
            let server = self.head()?;
            let asked = Instant::now();
            let Err(error) = self.ping(&server).await else {
                return Ok(server);
            };
            self.servers().failed(&server);
            if trouble.is_over(asked, self.hold_max) {
                return Err(told(error, true));
            }
            if trouble.is_round(self.servers().all().len()) {
                let pause = self.servers().pause(PAUSE_MAX);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Attempts that have failed in a row.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    attempts: usize,
}

impl Trouble {
    /// Counts an attempt that was made at `asked` and has failed now; true if it was the last for this time.
    ///
    /// An attempt that itself lasted for long, as a question that waits does, has ended what was before it.
    fn is_over(&mut self, asked: Instant, hold_max: Duration) -> bool {
        let now = Instant::now();
        if now.duration_since(asked) >= hold_max {
            *self = Self::default();
        }
        self.attempts += 1;
        let since = *self.since.get_or_insert(now);
        now.duration_since(since) >= hold_max
    }

    /// Whether every one of so many servers was tried.
    fn is_round(&self, servers: usize) -> bool {
        self.attempts.is_multiple_of(servers.max(1))
    }
}

/// Whether an error that was answered gives reason to ask another server the next time.
fn is_about_the_server(error: &CallError) -> bool {
    match error {
        CallError::Refused(Refusal::Failed(error)) => match error.kind() {
            Error::NoLeader | Error::Unavailable(_) | Error::Internal(_) => true,
            Error::NoServers
            | Error::NoPath
            | Error::PermissionDenied
            | Error::PermissionDeniedBecause(_)
            | Error::AclNotFound
            | Error::NotFound(_)
            | Error::Invalid(_)
            | Error::Restored
            | Error::OutcomeUnknown
            | Error::Remote(_) => false,
        },
        CallError::Refused(Refusal::NotLeader) | CallError::NotSent(_) | CallError::Broken(_) => {
            true
        }
    }
}

/// What a caller is told of it.
fn told(error: CallError, is_repeatable: bool) -> Error {
    match error {
        CallError::Refused(Refusal::Failed(error)) => error.from_afar(),
        CallError::Refused(Refusal::NotLeader) => Error::NoLeader.from_afar(),
        CallError::NotSent(why) => Error::Unavailable(why).from_afar(),
        CallError::Broken(why) if is_repeatable => Error::Unavailable(why).from_afar(),
        // The way to the server is what broke; the text says that it may have happened.
        CallError::Broken(why) => {
            tracing::warn!("a write was on its way when the server was lost: {why}");
            Error::OutcomeUnknown.from_afar()
        }
    }
}

fn another() -> Error {
    Error::Internal("a server answered another question".to_owned())
}

impl Backend for Distant {
    fn read(
        &self,
        question: Question,
        options: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
        let distant = self.clone();
        Box::pin(async move {
            let request = |passed| {
                // What is left of the wait; a little, so that a question whose time is up is still a question that waits.
                let left = options.wait.saturating_sub(passed);
                let wait = if options.index > 0 {
                    left.max(Duration::from_millis(1))
                } else {
                    options.wait
                };
                let options = ReadOptions {
                    wait,
                    ..options.clone()
                };
                Request::Read(question.clone(), options)
            };
            match distant.ask(request).await? {
                Response::Read(answered) => Ok(answered),
                Response::Write(_) | Response::Operate(_) | Response::Ping => Err(another()),
            }
        })
    }

    fn write(
        &self,
        command: Command,
        options: WriteOptions,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let distant = self.clone();
        Box::pin(async move {
            let request = |_| Request::Write(command.clone(), options.clone());
            match distant.ask(request).await? {
                Response::Write(reply) => Ok(reply),
                Response::Read(_) | Response::Operate(_) | Response::Ping => Err(another()),
            }
        })
    }

    fn save(&self, options: SaveOptions) -> BoxFuture<'static, Result<Save, Error>> {
        let distant = self.clone();
        Box::pin(async move {
            let server = distant.alive().await?;
            let save = distant.calls.save(&server, Hop::First, options).await;
            save.map_err(|error| {
                if is_about_the_server(&error) {
                    distant.servers().failed(&server);
                }
                told(error, true)
            })
        })
    }

    fn restore(
        &self,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>> {
        let distant = self.clone();
        Box::pin(async move {
            // The archive can be read once, so there is no second attempt.
            let server = distant.alive().await?;
            let calls = Arc::clone(&distant.calls);
            let restored = calls.restore(&server, Hop::First, options, archive).await;
            restored.map_err(|error| {
                if is_about_the_server(&error) {
                    distant.servers().failed(&server);
                }
                match error {
                    CallError::Broken(why) => Error::Unavailable(format!(
                        "the server was lost during the restore ({why}): either all of it has happened or nothing; it is safe to repeat it"
                    ))
                    .from_afar(),
                    CallError::NotSent(_) | CallError::Refused(_) => told(error, false),
                }
            })
        })
    }

    fn operate(
        &self,
        operation: Operation,
        options: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>> {
        let distant = self.clone();
        Box::pin(async move {
            let request = |_| Request::Operate(operation.clone(), options.clone());
            match distant.ask(request).await? {
                Response::Operate(operated) => Ok(operated),
                Response::Read(_) | Response::Write(_) | Response::Ping => Err(another()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
