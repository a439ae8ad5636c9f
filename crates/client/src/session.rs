//! Sessions, which hold locks: `/v1/session/`, and one that is kept alive.
//!
//! A [`Session`] is renewed in the background for as long as it exists.
//! It says that it is alive only while it can't have ended by its TTL: the servers count from when a renewal reaches
//! them, so it counts from when the last renewal that was answered had been *sent*, on clocks that can't be set and
//! that go on while the machine sleeps. A process that was stopped for too long finds it ended when it looks again,
//! before anything has been asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::GoDuration;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::clock::Moment;
use crate::path;
use crate::request::Question;
use crate::{Answer, Client, Error, QueryOptions, WriteOptions};

/// How long after a renewal that failed the next one is tried.
const RETRY: Duration = Duration::from_secs(1);

/// What becomes of the keys that a session has locked when it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionBehavior {
    /// They are unlocked.
    #[default]
    Release,
    /// They are deleted.
    Delete,
}

/// A session to create. Default: one that ends only with its node, releases its keys, and has no name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSession {
    /// For people.
    pub name: String,
    /// The node that it belongs to; the agent's own when empty.
    pub node: String,
    /// The checks of that node with which it lives, none of which may be critical; `serfHealth` when `None`.
    pub checks: Option<Vec<String>>,
    /// For how long keys that it held can't be locked after it was ended by something else than a release; 15 s when
    /// `None`, and never more than a minute.
    pub lock_delay: Option<Duration>,
    /// What becomes of its keys.
    pub behavior: SessionBehavior,
    /// It ends when it wasn't renewed for so long, 10 s to a day; `None`: it need not be renewed.
    pub ttl: Option<Duration>,
}

/// A session as the servers keep it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionEntry {
    /// Its id, a UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// For people.
    pub name: String,
    /// The node that it belongs to.
    pub node: String,
    /// The checks with which it lives.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub checks: Vec<String>,
    /// For how long its keys can't be locked after its end.
    #[serde(deserialize_with = "nanoseconds")]
    pub lock_delay: Duration,
    /// What becomes of its keys.
    pub behavior: SessionBehavior,
    /// The TTL as it was given, such as `15s`; empty for none.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// When it was created.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wish<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_delay: Option<String>,
    behavior: SessionBehavior,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl Client {
    /// Creates a session, and says its id. Nobody renews it; see [`Session::open`].
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn session_create(
        &self,
        session: &NewSession,
        options: &WriteOptions,
    ) -> Result<String, Error> {
        let wish = Wish {
            name: &session.name,
            node: &session.node,
            checks: session.checks.as_deref(),
            // Rounded up: none at all is something else than a short one.
            lock_delay: session
                .lock_delay
                .map(|delay| format!("{}ms", delay.as_nanos().div_ceil(1_000_000))),
            behavior: session.behavior,
            ttl: session.ttl.map(shown),
        };
        let body = serde_json::to_vec(&wish).map_err(|why| Error::Decode(why.to_string()))?;
        let question = Question::new(Method::PUT, "/v1/session/create")
            .parameters(options.parameters())
            .token(&options.token)
            .body(body);
        let created: Created = self.json(self.send_ok(question).await?).await?;
        Ok(created.id)
    }

    /// Says that whoever holds a session is still there; `None` if there is no such session any more.
    ///
    /// # Errors
    /// When no answer came, or not the expected one. The session may have been renewed nevertheless.
    pub async fn session_renew(
        &self,
        id: &str,
        options: &WriteOptions,
    ) -> Result<Option<SessionEntry>, Error> {
        let question = Question::new(Method::PUT, session_path("renew", id))
            .parameters(options.parameters())
            .token(&options.token);
        let response = self.send(question).await?;
        match response.status() {
            StatusCode::OK => {
                let entries: Vec<SessionEntry> = self.json(response).await?;
                Ok(entries.into_iter().next())
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.unexpected(response).await),
        }
    }

    /// Ends a session; there need not be one.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn session_destroy(&self, id: &str, options: &WriteOptions) -> Result<(), Error> {
        let question = Question::new(Method::PUT, session_path("destroy", id))
            .parameters(options.parameters())
            .token(&options.token);
        self.send_ok(question).await.map(drop)
    }

    /// One session, if it exists.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn session_info(
        &self,
        id: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Option<SessionEntry>>, Error> {
        let Answer { value, meta } = self.sessions(session_path("info", id), options).await?;
        Ok(Answer {
            value: value.into_iter().next(),
            meta,
        })
    }

    /// The sessions of a node.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn session_node(
        &self,
        node: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<SessionEntry>>, Error> {
        self.sessions(session_path("node", node), options).await
    }

    /// All sessions.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn session_list(
        &self,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<SessionEntry>>, Error> {
        self.sessions("/v1/session/list".to_owned(), options).await
    }

    async fn sessions(
        &self,
        path: String,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<SessionEntry>>, Error> {
        let question = Question::new(Method::GET, path)
            .parameters(options.parameters())
            .token(&options.token);
        let response = self.send_ok(question).await?;
        let meta = Self::meta(&response);
        let entries = self.json::<Option<Vec<SessionEntry>>>(response).await?;
        Ok(Answer {
            value: entries.unwrap_or_default(),
            meta,
        })
    }
}

fn session_path(verb: &str, argument: &str) -> String {
    let mut path = format!("/v1/session/{verb}/");
    path::push(&mut path, argument, b"-._~");
    path
}

/// A duration as the original writes it.
fn shown(time: Duration) -> String {
    let nanoseconds = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    GoDuration(nanoseconds).to_string()
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let nanoseconds = i64::deserialize(deserializer)?;
    Ok(Duration::from_nanos(
        u64::try_from(nanoseconds).unwrap_or_default(),
    ))
}

/// Why a session is no longer to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// The servers don't know it any more: somebody ended it, or a check or the node that it lived with failed.
    #[error("the session was invalidated")]
    Gone,
    /// It could not be renewed for so long that the servers may have ended it.
    #[error("the session could not be renewed in time")]
    Expired,
}

/// A session that is kept alive.
///
/// Dropped, it is no longer renewed, and ends by its TTL, after which its lock-delay begins; [`Self::close`] ends it
/// at once.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), client::Error> {
/// use std::time::Duration;
/// use client::{NewSession, Session, WriteOptions};
///
/// let wish = NewSession {
///     name: "report writer".to_owned(),
///     ttl: Some(Duration::from_secs(15)),
///     ..NewSession::default()
/// };
/// let session = Session::open(&client, &wish, &WriteOptions::default()).await?;
/// while session.is_alive() {
///     // One piece of work that depends on it.
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    client: Client,
    options: WriteOptions,
    id: String,
    life: Arc<Life>,
    /// Ends with this value.
    keeper: Option<JoinHandle<()>>,
}

/// What is known about a session's life.
#[derive(Debug)]
struct Life {
    /// How long after the sending of a renewal it may be relied on; `None`: for ever.
    trust: Option<Duration>,
    /// When the last renewal that was answered had been sent.
    renewed: Mutex<Moment>,
    end: watch::Sender<Option<SessionEnd>>,
}

impl Session {
    /// Creates a session and renews it from then on, each time when half of its TTL has passed.
    ///
    /// Must be called inside of a tokio runtime, whose task does the renewing: a thread that never returns to its
    /// runtime loses the session.
    ///
    /// # Errors
    /// When it couldn't be created.
    pub async fn open(
        client: &Client,
        session: &NewSession,
        options: &WriteOptions,
    ) -> Result<Self, Error> {
        let sent = Moment::now();
        let id = client.session_create(session, options).await?;
        let life = Arc::new(Life {
            trust: session.ttl.map(trust),
            renewed: Mutex::new(sent),
            end: watch::Sender::new(None),
        });
        let keeper = session.ttl.map(|ttl| {
            let (client, options) = (client.clone(), options.clone());
            let (id, life) = (id.clone(), Arc::clone(&life));
            tokio::spawn(async move {
                let end = keep(&client, &id, &options, ttl, &life).await;
                life.end.send_replace(Some(end));
            })
        });
        Ok(Self {
            client: client.clone(),
            options: options.clone(),
            id,
            life,
            keeper,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it may be relied on at this moment; once false, always false.
    ///
    /// It can't have ended by its TTL while this is true. That it was ended by somebody, or by a check or node that
    /// failed, is learned at the next renewal, so up to half of its TTL later; the lock-delay covers that time.
    pub fn is_alive(&self) -> bool {
        self.life.is_alive()
    }

    /// Returns when it may not be relied on any more, with the reason.
    ///
    /// After the machine was suspended this may be a second late; [`Self::is_alive`] never is.
    pub async fn ended(&self) -> SessionEnd {
        self.life.ended().await
    }

    /// Stops renewing it and ends it at the servers.
    ///
    /// # Errors
    /// When the servers couldn't be told; then it ends by its TTL.
    pub async fn close(mut self) -> Result<(), Error> {
        self.stop_keeping().await;
        self.client.session_destroy(&self.id, &self.options).await
    }

    async fn stop_keeping(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
            // It was aborted or had ended; both are fine.
            let _ = keeper.await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Life {
    fn is_alive(&self) -> bool {
        let renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        self.end.borrow().is_none() && self.trusts(&renewed)
    }

    fn trusts(&self, renewed: &Moment) -> bool {
        self.trust.is_none_or(|trust| renewed.elapsed() < trust)
    }

    /// Notes a renewal, unless it comes when the session was given up already.
    fn renew(&self, sent: Moment) -> bool {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = self.trusts(&renewed);
        if in_time {
            *renewed = sent;
        }
        in_time
    }

    async fn expired(&self) {
        loop {
            let Some(trust) = self.trust else {
                return std::future::pending().await;
            };
            let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
            renewed.reaches(trust).await;
            if !self.is_alive() {
                return;
            }
        }
    }

    async fn ended(&self) -> SessionEnd {
        let mut end = self.end.subscribe();
        // Its sender lives as long as this does.
        let told = async {
            match end.wait_for(Option::is_some).await {
                Ok(end) => end.unwrap_or(SessionEnd::Expired),
                Err(_) => SessionEnd::Expired,
            }
        };
        tokio::select! {
            biased;
            end = told => end,
            () = self.expired() => SessionEnd::Expired,
        }
    }
}

/// How long after its sending a renewal is relied on: the TTL less a fiftieth, since our clock and the servers' may
/// each be wrong by a hundredth.
fn trust(ttl: Duration) -> Duration {
    ttl - ttl / 50
}

/// Renews a session until it has ended.
async fn keep(
    client: &Client,
    id: &str,
    options: &WriteOptions,
    ttl: Duration,
    life: &Life,
) -> SessionEnd {
    let mut pause = ttl / 2;
    loop {
        let renewal = async {
            sleep(pause).await;
            let sent = Moment::now();
            // An attempt that hangs must leave time for another one over another connection.
            let answer = timeout(ttl / 4, client.session_renew(id, options)).await;
            (sent, answer)
        };
        let (sent, answer) = tokio::select! {
            biased;
            () = life.expired() => return SessionEnd::Expired,
            renewal = renewal => renewal,
        };
        pause = match answer {
            Ok(Ok(Some(_))) if life.renew(sent) => ttl / 2,
            Ok(Ok(Some(_))) => return SessionEnd::Expired,
            Ok(Ok(None)) => return SessionEnd::Gone,
            Ok(Err(_)) | Err(_) => RETRY.min(ttl / 15),
        };
    }
}
