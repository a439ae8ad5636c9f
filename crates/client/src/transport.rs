//! What carries a request to the agent and its answer back: HTTP over sockets, or whatever stands in for it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};

use crate::Address;
use crate::error::{self, Error};
use crate::request::Config;

/// Content as it comes, piece by piece; an error ends it.
pub struct Pieces(BoxStream<'static, io::Result<Bytes>>);

impl Pieces {
    /// What this stream yields.
    pub fn new(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(pieces.boxed())
    }
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pieces")
    }
}

/// A request with all that belongs to it, the token included.
pub type Request = http::Request<Body>;

/// An answer's head, and its body as it arrives.
pub type Response = http::Response<Pieces>;

/// What is sent with a request.
pub enum Body {
    /// It is there, and its length is told.
    Whole(Bytes),
    /// It is made while it is sent.
    Pieces(Pieces),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may hold a secret.
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Pieces(pieces) => pieces.fmt(f),
        }
    }
}

/// A way to an agent.
///
/// A client has HTTP over sockets, unless it is made with [`Client::over`](crate::Client::over): a simulation has no
/// sockets.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Carries a request over, and returns when the head of the answer is there, whatever its status.
    ///
    /// Dropped before, the request may or may not have reached the agent. The text of an error is shown to people
    /// behind the method and the URL, so it says only what happened.
    fn send(&self, request: Request) -> BoxFuture<'_, io::Result<Response>>;
}

/// HTTP over sockets. Connections are kept and used again.
#[derive(Debug)]
pub(crate) struct Sockets {
    http: reqwest::Client,
    /// How messages name the place.
    dialled: String,
}

impl Sockets {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let tls = config.tls.client_config(&config.address)?;
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            // A redirect would carry the token elsewhere; the API has no use for one.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .tls_backend_preconfigured(tls);
        if let Address::Unix(path) = &config.address {
            builder = builder.unix_socket(path.clone());
        }
        let http = builder
            .build()
            .map_err(|_| Error::Address(config.address.base()))?;
        Ok(Self {
            http,
            dialled: config.address.dialled(),
        })
    }
}

impl Transport for Sockets {
    fn send(&self, request: Request) -> BoxFuture<'_, io::Result<Response>> {
        let failed = |why| io::Error::other(error::reason(&why, &self.dialled));
        async move {
            let request = reqwest::Request::try_from(request).map_err(failed)?;
            let mut answer = self.http.execute(request).await.map_err(failed)?;
            let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
            let dialled = self.dialled.clone();
            let broken = move |why| io::Error::other(error::reason(&why, &dialled));
            let body = Pieces::new(answer.bytes_stream().map_err(broken));
            let mut response = Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
        .boxed()
    }
}

impl From<Body> for reqwest::Body {
    fn from(body: Body) -> Self {
        match body {
            Body::Whole(bytes) => bytes.into(),
            Body::Pieces(pieces) => Self::wrap_stream(pieces),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Client, Credentials, KvPut, PutCondition, WriteOptions};

    /// Answers in two pieces what it is told to, and keeps what it was asked.
    #[derive(Debug, Default)]
    struct Echo {
        asked: Mutex<Vec<String>>,
    }

    impl Transport for std::sync::Arc<Echo> {
        fn send(&self, request: Request) -> BoxFuture<'_, io::Result<Response>> {
            async move {
                let line = format!(
                    "{} {} {:?} {:?} {:?}",
                    request.method(),
                    request.uri(),
                    request.headers().get("x-consul-token"),
                    request.headers().get("authorization"),
                    request.body()
                );
                self.asked.lock().unwrap().push(line);
                if request.uri().path() == "/v1/kv/gone" {
                    return Err(io::Error::other("nobody is there"));
                }
                let pieces = [Bytes::from("tr"), Bytes::from("ue")].map(Ok);
                Ok(Response::new(Pieces::new(futures::stream::iter(pieces))))
            }
            .boxed()
        }
    }

    fn put(key: &str) -> KvPut {
        KvPut {
            key: key.to_owned(),
            value: Bytes::from("blue"),
            flags: 0,
            condition: PutCondition::Unchanged(7),
        }
    }

    #[tokio::test]
    async fn a_client_goes_over_what_it_is_given() {
        let echo = std::sync::Arc::new(Echo::default());
        let config = Config {
            token: "secret".to_owned(),
            credentials: Some(Credentials {
                user: "me".to_owned(),
                password: Some("pass".to_owned()),
            }),
            ..Config::default()
        };
        let client = Client::over(std::sync::Arc::clone(&echo), config).unwrap();
        let options = WriteOptions {
            datacenter: "d c".to_owned(),
            ..WriteOptions::default()
        };
        assert!(client.kv_put(&put("a b"), &options).await.unwrap());
        let asked = echo.asked.lock().unwrap().clone();
        assert_eq!(
            asked,
            [
                "PUT http://127.0.0.1:8500/v1/kv/a%20b?dc=d+c&cas=7 Some(Sensitive) Some(Sensitive) Whole(4 bytes)"
            ]
        );
        let why = client
            .kv_put(&put("gone"), &WriteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(
            why.to_string(),
            "Put http://127.0.0.1:8500/v1/kv/gone?cas=7: nobody is there"
        );
    }
}
