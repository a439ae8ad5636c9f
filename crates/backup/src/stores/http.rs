//! HTTP as all clouds are asked: on ring and the system's authorities, with nobody waited for who is silent, and no length believed.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, poll_fn};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::Method;
use hyper::body::{Body, Frame};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::Patience;

/// How much of a request is handed to the network at once, to see whether the store takes it.
const PIECE: usize = 64 << 10;

/// The longest answer that isn't an object: a page of a listing, a refusal, a token.
const ANSWER_MAX: usize = 8 << 20;

/// Makes the connections of a store.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) patience: Patience,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let is_http = options
            .get_config_value(&object_store::ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        self.client(!is_http)
    }
}

/// Without TLS only where an operator wrote `http://`.
pub(super) fn options(endpoint: &str) -> ClientOptions {
    ClientOptions::new().with_allow_http(endpoint.starts_with("http://"))
}

impl Connector {
    pub(super) fn client(&self, https_only: bool) -> object_store::Result<HttpClient> {
        let failed = |why| object_store::Error::Generic {
            store: "HTTP",
            source: why,
        };
        Ok(HttpClient::new(Watched {
            client: client(https_only, self.patience).map_err(failed)?,
            silence: self.patience.silence,
        }))
    }
}

fn client(
    https_only: bool,
    patience: Patience,
) -> Result<reqwest::Client, Box<dyn StdError + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .https_only(https_only)
        // Signatures are for one host, and credentials are not carried to another.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(patience.silence.min(Duration::from_secs(10)))
        .tls_backend_preconfigured(tls)
        .build()?)
}

/// A client that gives up who is silent: who takes no byte of a request, or sends none of an answer, for too long.
/// A line that is merely slow is waited for.
#[derive(Debug)]
struct Watched {
    client: reqwest::Client,
    silence: Duration,
}

impl HttpService for Watched {
    fn call<'here, 'call>(
        &'here self,
        request: HttpRequest,
    ) -> BoxFuture<'call, Result<HttpResponse, HttpError>>
    where
        'here: 'call,
    {
        Box::pin(self.send(request))
    }
}

impl Watched {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url: reqwest::Url = (parts.uri.to_string().parse())
            .map_err(|why| HttpError::new(HttpErrorKind::Unknown, SaidBy(why)))?;
        let is_object = parts.method == Method::GET && parts.uri.query().is_none();
        let taken = Arc::new(AtomicU64::new(0));
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) if bytes.len() <= PIECE => bytes.clone().into(),
            _ => reqwest::Body::wrap_stream(pieces(body, Arc::clone(&taken)).await?),
        });
        let answer = self.client.execute(request);
        let answer = patiently(answer, &taken, self.silence)
            .await
            .map_err(|silent| HttpError::new(HttpErrorKind::Timeout, silent))?
            .map_err(failed)?;
        let is_object = is_object && answer.status().is_success();
        let answer: http::Response<reqwest::Body> = answer.into();
        let (parts, body) = answer.into_parts();
        let body = Answer {
            pieces: Mutex::new(heard(body, self.silence)),
            left: (!is_object).then_some(ANSWER_MAX),
        };
        let body = HttpResponseBody::new(body);
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// Waits for an answer for as long as the request is being taken, and then for as long as somebody may be silent.
async fn patiently<T>(
    answer: impl Future<Output = T>,
    taken: &AtomicU64,
    silence: Duration,
) -> Result<T, Silent> {
    tokio::pin!(answer);
    let mut taken_before = 0;
    loop {
        if let Ok(answer) = timeout_at(Instant::now() + silence, &mut answer).await {
            return Ok(answer);
        }
        let taken_now = taken.load(Ordering::Relaxed);
        if taken_now == taken_before {
            return Err(Silent(silence));
        }
        taken_before = taken_now;
    }
}

/// A request's body piece by piece; counts those that were taken.
async fn pieces(
    body: object_store::client::HttpRequestBody,
    taken: Arc<AtomicU64>,
) -> Result<impl Stream<Item = Result<Bytes, HttpError>> + Send + 'static, HttpError> {
    let mut body = Box::pin(body);
    let mut parts = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        parts.extend(frame?.into_data());
    }
    let pieces = parts.into_iter().flat_map(|mut part| {
        std::iter::from_fn(move || {
            let size = part.len().min(PIECE);
            (size > 0).then(|| part.split_to(size))
        })
    });
    Ok(stream::iter(pieces.map(move |piece| {
        taken.fetch_add(1, Ordering::Relaxed);
        Ok(piece)
    })))
}

/// An answer's body, until nothing was heard for too long.
fn heard(body: reqwest::Body, silence: Duration) -> BoxStream<'static, Result<Bytes, HttpError>> {
    let state = Some(Box::pin(body));
    stream::unfold(state, move |body| async move {
        let mut body = body?;
        let frame = poll_fn(|context| body.as_mut().poll_frame(context));
        match timeout_at(Instant::now() + silence, frame).await {
            Ok(None) => None,
            // Trailers are nobody's concern.
            Ok(Some(Ok(frame))) => Some((Ok(frame.into_data().unwrap_or_default()), Some(body))),
            Ok(Some(Err(why))) => Some((Err(failed(why)), None)),
            Err(_) => {
                let silent = HttpError::new(HttpErrorKind::Timeout, Silent(silence));
                Some((Err(silent), None))
            }
        }
    })
    // Who collects it asks once more at the end.
    .fuse()
    .boxed()
}

/// An answer's body. It says nothing of its length beforehand, so nobody makes room for what was merely promised.
struct Answer {
    /// Nobody locks it: it makes of a stream what may be shared, as bodies may.
    pieces: Mutex<BoxStream<'static, Result<Bytes, HttpError>>>,
    /// How much more of it may come, unless it is an object.
    left: Option<usize>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let pieces = self
            .pieces
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let piece = match pieces.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Ready(Some(Err(why))) => return Poll::Ready(Some(Err(why))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(left) = &mut self.left {
            match left.checked_sub(piece.len()) {
                Some(rest) => *left = rest,
                None => {
                    let why = HttpError::new(HttpErrorKind::Decode, TooLong);
                    return Poll::Ready(Some(Err(why)));
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// What went wrong with a request, and so whether it may be sent again.
fn failed(why: reqwest::Error) -> HttpError {
    let kind = if why.is_timeout() {
        HttpErrorKind::Timeout
    } else if why.is_connect() {
        HttpErrorKind::Connect
    } else {
        // What may be done twice is done again.
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, SaidBy(why.without_url()))
}

/// An error with all that lies below it, in one line.
#[derive(Debug)]
struct SaidBy<E>(E);

impl<E: StdError + 'static> fmt::Display for SaidBy<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::told::chain(&self.0))
    }
}

impl<E: StdError + 'static> StdError for SaidBy<E> {}

#[derive(Debug, thiserror::Error)]
#[error("the store was silent for {0:?}")]
struct Silent(Duration);

#[derive(Debug, thiserror::Error)]
#[error("the store's answer is longer than any that makes sense")]
struct TooLong;

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_is_waited_for_and_who_is_silent_is_not() {
        let silence = Duration::from_secs(60);
        let begun = Instant::now();
        let taken = AtomicU64::new(0);
        let slow = async {
            for _ in 0..20 {
                sleep(Duration::from_secs(50)).await;
                taken.fetch_add(1, Ordering::Relaxed);
            }
            "done"
        };
        assert_eq!(patiently(slow, &taken, silence).await.unwrap(), "done");
        assert_eq!(begun.elapsed().as_secs(), 1000);

        let begun = Instant::now();
        let taken = AtomicU64::new(0);
        let stuck = async {
            sleep(Duration::from_secs(50)).await;
            taken.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        assert!(patiently(stuck, &taken, silence).await.is_err());
        assert!(begun.elapsed() <= 2 * silence);
    }
}
