//! The HTTP/1.1 engine: from accepted sockets to requests, and from answers back to bytes.
//! It knows nothing of what is asked; that is the [`Service`].
//!
//! An agent holds many connections that do nothing for minutes: idle ones between two requests,
//! and parked ones whose blocking query waits for a change.
//! So a connection owns no buffer while it waits: bytes are read into one scratch buffer of the
//! thread, a complete request is cut out of it, and an answer is rendered into another one and
//! mostly leaves with a single write.
//! What stays of a waiting connection is its socket, its task and the future of its answer.
//!
//! That is why requests are read here, by the tokenizer that hyper itself stands on (`httparse`),
//! and not by hyper's connection: that one holds two buffers for as long as a handler waits,
//! answers a bad request in its own words and refuses paths that clients of the original send.
//! To park on top of it would have meant two writers of answers, one of hyper and one of ours.
//! Whatever two readers could understand differently is refused by `head.rs`, not interpreted.
//!
//! Inside of TLS the same holds for what is ours. rustls keeps its session, its keys and a buffer
//! of 4 kB per connection: measured, 9.4 kB for one that is parked, against 1.6 kB without TLS.
//!
//! Start reading at [`Engine::serve`], then `connection.rs`, which is the life of one connection.

mod body;
mod config;
mod connection;
mod framing;
mod head;
mod listener;
mod request;
mod response;
mod scratch;
mod serve;

pub use body::{Body, BodyError};
pub use config::Config;
pub use listener::{Listener, UnixSocketOptions};
pub use request::Request;
pub use response::{HeaderValue, Response, ResponseBody, StreamError};
pub use serve::Engine;

pub use ::http::{Method, StatusCode};
use futures::future::BoxFuture;

/// What answers the requests.
pub trait Service: Send + Sync + 'static {
    /// Takes a request and says how its answer will come about.
    ///
    /// Runs on the thread of the connection: it must not block, and what takes longer than a
    /// few microseconds of waiting belongs into one of the futures.
    fn call(&self, request: Request) -> Reaction;
}

impl<F> Service for F
where
    F: Fn(Request) -> Reaction + Send + Sync + 'static,
{
    fn call(&self, request: Request) -> Reaction {
        self(request)
    }
}

/// How the answer to a request comes about.
pub enum Reaction {
    /// It is here.
    Now(Response),
    /// It takes a moment, and the work is carried through even if the client hangs up: the
    /// choice for everything that writes, and for everything that reads a body.
    Later(BoxFuture<'static, Response>),
    /// It may take minutes, and nothing is lost if the future is dropped: the choice for
    /// blocking queries. The future is dropped as soon as the client hangs up (one that only
    /// shuts down its sending side counts as gone) or the engine shuts down.
    /// With a body still on its way it is treated like [`Reaction::Later`].
    Park(BoxFuture<'static, Response>),
}

impl Reaction {
    /// An answer that takes a moment.
    pub fn later(answer: impl Future<Output = Response> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }

    /// An answer that may take minutes.
    pub fn park(answer: impl Future<Output = Response> + Send + 'static) -> Self {
        Self::Park(Box::pin(answer))
    }
}

impl From<Response> for Reaction {
    fn from(response: Response) -> Self {
        Self::Now(response)
    }
}

impl std::fmt::Debug for Reaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(response) => f.debug_tuple("Now").field(response).finish(),
            Self::Later(_) => f.write_str("Later"),
            Self::Park(_) => f.write_str("Park"),
        }
    }
}

/// Reads the bytes as one request, for fuzzing: nothing must panic, and it must not matter in
/// which pieces they come.
pub(crate) fn read_request(bytes: &[u8]) -> Option<Request> {
    let end = head::find_end(bytes, 0).ok().flatten()?;
    let (head_bytes, rest) = bytes.split_at(end);
    for cut in (0..end).step_by(1 + end / 16) {
        let scanned = head::find_end(&head_bytes[..cut], 0);
        assert_eq!(
            scanned,
            Ok(None),
            "the head ends earlier when it comes in pieces"
        );
        assert_eq!(head::find_end(head_bytes, cut), Ok(Some(end)));
    }
    let head = head::parse(head_bytes).ok()?;
    let read = |piece_size: usize| {
        let mut decoder = framing::Decoder::new(head.framing);
        let mut body = Vec::new();
        for piece in rest.chunks(piece_size) {
            let mut at = 0;
            while at < piece.len() && !decoder.is_done() {
                at += decoder.decode(&piece[at..], &mut body).ok()?;
            }
        }
        Some((decoder.is_done(), body))
    };
    let at_once = read(rest.len().max(1));
    assert_eq!(read(1), at_once);
    let (_, body) = at_once?;
    let body = Body::from(::bytes::Bytes::from(body));
    Some(Request::from_head(head, head_bytes, None, body))
}
