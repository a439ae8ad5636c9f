//! An S3 server in this process, and what goes wrong with it on request.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup::stores::{Destination, Patience, S3, Store, StoreError, open_with};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3Result, s3_error};
use tempfile::TempDir;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    pub(crate) fn is(&self, method: &str, query: &str) -> bool {
        self.method == method && self.query.contains(query)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It is answered so, and nothing is done.
    Answer(StatusCode, String),
    /// Nobody answers.
    Hang,
    /// It is done, and the connection breaks instead of the answer.
    Lose,
    /// The answer's body breaks off after so many bytes.
    Cut(usize),
    /// The answer's body is silent after so many bytes.
    Stall(usize),
    /// The answer has another header.
    Lie(&'static str, String),
}

pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Fault {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    Fault::Answer(StatusCode::from_u16(status).unwrap(), body)
}

type Rule = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;
type Handler = Arc<dyn Fn(Seen, Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A server of HTTP that ends with the test.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    rule: Arc<Mutex<Rule>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(handler: Handler) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            rule: Arc::new(Mutex::new(Box::new(|_| None))),
            seen: Arc::default(),
        };
        let ours = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let ours = ours.clone();
                let handler = Arc::clone(&handler);
                let service = service_fn(move |request| {
                    let ours = ours.clone();
                    let handler = Arc::clone(&handler);
                    async move { ours.answer(request, handler).await }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::spawn(async move {
                    // What breaks was meant to.
                    let _ = connection.await;
                });
            }
        });
        server
    }

    /// From now on this goes wrong.
    pub(crate) fn fault(&self, rule: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// How many requests there were of a method whose query has this in it.
    pub(crate) fn count(&self, method: &str, query: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.is(method, query)).count()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        handler: Handler,
    ) -> Result<Response<Body>, Infallible> {
        let seen = Seen {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: request.headers().clone(),
        };
        self.seen.lock().unwrap().push(seen.clone());
        let fault = (self.rule.lock().unwrap())(&seen);
        let request = request.map(Body::from);
        let answer = match fault {
            Some(Fault::Answer(status, body)) => {
                // Read, so that the other side is done writing.
                drop(all(request.into_body()).await);
                return Ok(answer(status, body));
            }
            Some(Fault::Hang) => std::future::pending().await,
            None => return Ok(handler(seen, request).await),
            Some(_) => handler(seen, request).await,
        };
        let (mut parts, body) = answer.into_parts();
        let body = all(body).await;
        Ok(match fault {
            Some(Fault::Lie(name, value)) => {
                parts.headers.insert(name, value.parse().unwrap());
                // As a stream, whose length nobody compares with what is said.
                let is_head = body.is_empty();
                let body = stream::iter([Ok(body)]).boxed();
                let body = Body::http_body_unsync(Pieces(body));
                Response::from_parts(parts, if is_head { Body::empty() } else { body })
            }
            Some(Fault::Cut(after)) => Response::from_parts(parts, broken(body, after, true)),
            Some(Fault::Stall(after)) => Response::from_parts(parts, broken(body, after, false)),
            _ => {
                // A head that promises something, and nothing after it.
                parts
                    .headers
                    .insert("content-length", "1000".parse().unwrap());
                Response::from_parts(parts, broken(Bytes::new(), 0, true))
            }
        })
    }
}

async fn all(body: Body) -> Bytes {
    let pieces: Vec<Bytes> = body.map(|piece| piece.unwrap_or_default()).collect().await;
    pieces.concat().into()
}

/// A body that ends early, with the connection or by silence.
fn broken(body: Bytes, after: usize, is_cut: bool) -> Body {
    let first = body.slice(..after.min(body.len()));
    let rest = stream::once(async move {
        match is_cut {
            true => Err(std::io::Error::other("cut")),
            false => std::future::pending().await,
        }
    });
    let pieces = stream::iter([Ok(first)]).chain(rest);
    Body::http_body_unsync(Pieces(pieces.boxed()))
}

struct Pieces(stream::BoxStream<'static, std::io::Result<Bytes>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<hyper::body::Frame<Bytes>>>> {
        let piece = self.0.poll_next_unpin(context);
        piece.map(|piece| piece.map(|piece| piece.map(hyper::body::Frame::data)))
    }
}

pub(crate) fn answer(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer
}

/// What the S3 server lets in.
const ID: &str = "AKIATEST";
const SECRET: &str = "secret/of+the=test";

/// Keys that a role lends.
pub(crate) const LENT: (&str, &str) = ("ASIALENT", "lent");

struct Keys;

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, id: &str) -> S3Result<SecretKey> {
        match id {
            ID => Ok(SECRET.into()),
            id if id == LENT.0 => Ok(LENT.1.into()),
            _ => Err(s3_error!(InvalidAccessKeyId, "no such key")),
        }
    }
}

/// An S3 server with one bucket.
pub(crate) struct S3Server {
    pub(crate) server: Server,
    folder: TempDir,
}

pub(crate) const BUCKET: &str = "backups";

impl S3Server {
    pub(crate) async fn start() -> Self {
        Self::with_keys(|_| {}).await
    }

    /// One that does more than S3.
    pub(crate) async fn with_keys(more: impl FnOnce(&mut S3ServiceBuilder)) -> Self {
        Self::with(|builder| {
            builder.set_auth(Keys);
            more(builder);
        })
        .await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut S3ServiceBuilder)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let files = s3s_fs::FileSystem::new(folder.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        set(&mut builder);
        let service = builder.build();
        let server = Server::start(Arc::new(move |_, mut request| {
            let service = service.clone();
            // Google's store is told who we are by this; ours for it lets everybody in.
            let is_bearer = |value: &http::HeaderValue| value.as_bytes().starts_with(b"Bearer");
            if request
                .headers()
                .get("authorization")
                .is_some_and(is_bearer)
            {
                request.headers_mut().remove("authorization");
            }
            Box::pin(async move {
                let answered = service.call(request).await;
                answered.unwrap_or_else(|why| {
                    answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{why:?}"))
                })
            })
        }))
        .await;
        Self { server, folder }
    }

    pub(crate) fn settings(&self) -> S3 {
        S3 {
            region: "eu-west-1".into(),
            bucket: BUCKET.into(),
            key_prefix: "dc1/consul".into(),
            access_key_id: ID.into(),
            secret_access_key: SECRET.into(),
            endpoint: self.server.url.clone(),
            ..S3::default()
        }
    }

    pub(crate) fn open(&self) -> Box<dyn Store> {
        open(&Destination::S3(self.settings())).unwrap()
    }

    /// Where the objects of the usual prefix are files.
    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.path().join(BUCKET).join("dc1/consul")
    }

    /// What lies in the bucket, and what of broken uploads lies around it.
    pub(crate) fn files(&self) -> (Vec<String>, Vec<String>) {
        let names = |folder: PathBuf| {
            let Ok(entries) = std::fs::read_dir(folder) else {
                return Vec::new();
            };
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut around = names(self.folder.path().to_owned());
        around.retain(|name| name.contains("upload"));
        (names(self.objects()), around)
    }
}

/// Patient enough for a machine with much to do, and quick to try again.
pub(crate) fn patience() -> Patience {
    Patience {
        silence: Duration::from_secs(30),
        retries: 3,
        ..Patience::default()
    }
}

/// For stores that never answer.
pub(crate) fn impatience() -> Patience {
    Patience {
        silence: Duration::from_millis(500),
        retries: 0,
        ..Patience::default()
    }
}

pub(crate) fn open(destination: &Destination) -> Result<Box<dyn Store>, StoreError> {
    open_with(destination, &|_| None, patience())
}
