//! The one way in which this client asks: a request built, sent, and its answer taken in within bounds.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use futures::{TryStream, TryStreamExt};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::error::Error;
use crate::transport::{Body, Pieces, Request, Response, Sockets, Transport};
use crate::{Address, Answer, Meta, QueryOptions, Tls};

/// What a client is made of.
#[derive(Clone)]
pub struct Config {
    /// The agent's address. Default: `127.0.0.1:8500`.
    pub address: Address,
    /// The token that goes with every call that has none of its own; empty for none, the default.
    pub token: String,
    /// A user name and password for whatever stands before the agent. Default: none.
    pub credentials: Option<Credentials>,
    /// How TLS is spoken, if the address asks for it. Default: as the system trusts.
    pub tls: Tls,
    /// How long a connection may take to come about. Default: 30 s.
    pub connect_timeout: Duration,
    /// How long the agent may be silent. Default: 15 minutes, beyond the longest blocking query.
    pub silence_timeout: Duration,
    /// The largest answer that is held in memory; snapshots are streamed and not bound by it. Default: 4 GiB.
    pub answer_size_max: u64,
}

/// A user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password, if there is one.
    pub password: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: Address::default(),
            token: String::new(),
            credentials: None,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(30),
            silence_timeout: Duration::from_secs(15 * 60),
            answer_size_max: 4 << 30,
        }
    }
}

// Tokens and passwords stay out of logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A caller of one agent. Connections are kept and used again.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    config: Config,
}

/// One question before it is sent. It can't be shown, for its token.
pub(crate) struct Question {
    method: Method,
    path: String,
    parameters: Vec<(&'static str, String)>,
    token: String,
    body: Body,
    /// Grows while the body is on its way, so that a long one isn't taken for silence.
    sent: Arc<AtomicU64>,
}

impl Question {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            parameters: Vec::new(),
            token: String::new(),
            body: Body::Whole(Bytes::new()),
            sent: Arc::default(),
        }
    }

    pub(crate) fn parameters(mut self, more: Vec<(&'static str, String)>) -> Self {
        self.parameters.extend(more);
        self
    }

    pub(crate) fn parameter(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }

    pub(crate) fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    pub(crate) fn stream<S>(mut self, body: S) -> Self
    where
        S: TryStream<Ok = Bytes, Error = io::Error> + Send + 'static,
    {
        let sent = Arc::clone(&self.sent);
        let counted = body.inspect_ok(move |_| {
            sent.fetch_add(1, Ordering::Relaxed);
        });
        self.body = Body::Pieces(Pieces::new(counted.into_stream()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Whole(body.into());
        self
    }
}

impl Client {
    /// A client for the agent that the configuration names. Nothing is sent yet.
    ///
    /// # Errors
    /// When the configuration asks for what can't be done.
    pub fn new(config: Config) -> Result<Self, Error> {
        let sockets = Sockets::new(&config)?;
        Self::over(sockets, config)
    }

    /// The same over another way to the agent. Of the configuration, what is about connections doesn't count.
    ///
    /// # Errors
    /// When the configuration asks for what can't be done.
    pub fn over(transport: impl Transport + 'static, config: Config) -> Result<Self, Error> {
        let transport = Arc::new(transport);
        let client = Self { transport, config };
        client.headers("")?;
        Ok(client)
    }

    /// Sends a question and returns the answer, whatever its status.
    pub(crate) async fn send(&self, question: Question) -> Result<Response, Error> {
        let verb = match question.method {
            Method::PUT => "Put",
            Method::DELETE => "Delete",
            Method::POST => "Post",
            _ => "Get",
        };
        let url = self.url(&question)?;
        let mut request = Request::new(question.body);
        *request.method_mut() = question.method;
        *request.headers_mut() = self.headers(&question.token)?;
        *request.uri_mut() = (url.as_str().parse()).map_err(|_| Error::Address(url.to_string()))?;
        let failed = |why| Error::Request {
            verb,
            url: url.to_string(),
            why,
        };
        let answer = self.transport.send(request);
        match self.unless_silent(&question.sent, answer).await {
            Some(answer) => answer.map_err(|why| failed(why.to_string())),
            None => Err(failed("i/o timeout".to_owned())),
        }
    }

    fn url(&self, question: &Question) -> Result<Url, Error> {
        let text = format!("{}{}", self.config.address.base(), question.path);
        let mut url = Url::parse(&text).map_err(|_| Error::Address(text))?;
        if !question.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(&question.parameters);
        }
        Ok(url)
    }

    /// Waits for `work`, but not when for too long neither side has moved.
    async fn unless_silent<T>(&self, sent: &AtomicU64, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut before = sent.load(Ordering::Relaxed);
        loop {
            if let Ok(done) = timeout(self.config.silence_timeout, &mut work).await {
                return Some(done);
            }
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return None;
            }
            before = now;
        }
    }

    /// Sends a question whose answer must be 200.
    pub(crate) async fn send_ok(&self, question: Question) -> Result<Response, Error> {
        let response = self.send(question).await?;
        if response.status() == StatusCode::OK {
            Ok(response)
        } else {
            Err(self.unexpected(response).await)
        }
    }

    /// The error that a refused question ends in, with the beginning of the body as its text.
    pub(crate) async fn unexpected(&self, mut response: Response) -> Error {
        const TEXT_MAX: usize = 64 << 10;
        let code = response.status().as_u16();
        let mut text = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk(&mut response).await {
            text.extend_from_slice(&chunk[..chunk.len().min(TEXT_MAX - text.len())]);
            if text.len() == TEXT_MAX {
                break;
            }
        }
        Error::Unexpected {
            code,
            body: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    /// An answer's body, held in memory.
    pub(crate) async fn bytes(&self, mut response: Response) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if (body.len() + chunk.len()) as u64 > self.config.answer_size_max {
                return Err(Error::TooLarge(self.config.answer_size_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The next piece of an answer's body.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        match timeout(self.config.silence_timeout, next(response)).await {
            Ok(chunk) => chunk,
            Err(_) => Err(Error::Body("i/o timeout".to_owned())),
        }
    }

    /// An answer's body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let body = self.bytes(response).await?;
        serde_json::from_slice(&body).map_err(|why| Error::Decode(why.to_string()))
    }

    /// A read whose answer is JSON; what comes as `null` is empty.
    pub(crate) async fn read<T: DeserializeOwned + Default>(
        &self,
        question: Question,
        options: &QueryOptions,
    ) -> Result<Answer<T>, Error> {
        let question = question
            .parameters(options.parameters())
            .token(&options.token);
        let response = self.send_ok(question).await?;
        let meta = Self::meta(&response);
        let value = self.json::<Option<T>>(response).await?;
        Ok(Answer {
            value: value.unwrap_or_default(),
            meta,
        })
    }

    /// What the headers of an answer say.
    pub(crate) fn meta(response: &Response) -> Meta {
        Meta::of(response.headers())
    }

    fn headers(&self, token: &str) -> Result<HeaderMap, Error> {
        const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
        let token = if token.is_empty() {
            &self.config.token
        } else {
            token
        };
        let mut headers = HeaderMap::new();
        if !token.is_empty() {
            let mut value = HeaderValue::from_str(token).map_err(|_| Error::Header("token"))?;
            value.set_sensitive(true);
            headers.insert(TOKEN, value);
        }
        if let Some(Credentials { user, password }) = &self.config.credentials {
            let both = format!("{user}:{}", password.as_deref().unwrap_or_default());
            let both = base64_simd::STANDARD.encode_to_string(both.as_bytes());
            let value = HeaderValue::try_from(format!("Basic {both}"));
            let mut value = value.map_err(|_| Error::Header("user and password"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

/// The next piece of an answer's body, however long that takes.
pub(crate) async fn next(response: &mut Response) -> Result<Option<Bytes>, Error> {
    let piece = response.body_mut().try_next().await;
    piece.map_err(|why| Error::Body(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work)
    }

    #[test]
    fn silence_ends_a_question() {
        // It takes connections and never says a word.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = Config {
            address: address.parse().unwrap(),
            silence_timeout: Duration::from_millis(20),
            ..Config::default()
        };
        let client = Client::new(config).unwrap();
        let why = run(client.agent_stats()).unwrap_err().to_string();
        assert_eq!(
            why,
            format!("Get http://{address}/v1/agent/self: i/o timeout")
        );
    }

    #[test]
    fn a_body_on_its_way_is_no_silence() {
        let client = Client::new(Config {
            silence_timeout: Duration::from_millis(20),
            ..Config::default()
        })
        .unwrap();
        let sent = AtomicU64::new(0);
        let pieces = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        };
        run(async {
            tokio::time::pause();
            assert_eq!(client.unless_silent(&sent, pieces).await, Some(()));
            assert_eq!(
                client
                    .unless_silent(&sent, std::future::pending::<()>())
                    .await,
                None
            );
        });
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let config = Config {
            token: "secret".to_owned(),
            credentials: Some(Credentials {
                user: "me".to_owned(),
                password: Some("secret".to_owned()),
            }),
            ..Config::default()
        };
        let shown = format!("{config:?} {:?}", config.credentials);
        assert!(!shown.contains("secret"), "{shown}");
    }
}
