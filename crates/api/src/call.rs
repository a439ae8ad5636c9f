//! One request on its way through a handler, and the answer on its way back.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Ask, Error};
use rpc::{Answered, Meta, ReadOptions};

use crate::error;
use crate::http::{Body, Request, Response, StatusCode};
use crate::json::{self, DecodeError, Encode, Reader};
use crate::query_string::QueryString;
use crate::routes::Api;

/// A request, taken apart as far as every handler needs it.
pub(crate) struct Call<'a> {
    /// What it is asked of.
    pub(crate) api: &'a Arc<Api>,
    /// Its head.
    pub(crate) request: &'a Request,
    /// What follows the route's prefix, decoded once.
    pub(crate) argument: &'a [u8],
    /// What follows the `?`.
    pub(crate) query: QueryString<'a>,
    /// Its body.
    pub(crate) body: Body,
}

/// A function that answers the requests of one route.
///
/// An early `Err` is an answer like any other; it is there for the sake of `?`.
pub(crate) type Handler = fn(Call<'_>) -> Result<Answer, Response>;

/// An answer, or the promise of one.
pub(crate) enum Answer {
    /// It is here.
    Now(Response),
    /// It will be.
    Soon(BoxFuture<'static, Response>),
}

impl Answer {
    /// What this future gives, at once if it has it already: most reads and many writes do not wait at all.
    pub(crate) fn soon(
        answer: impl Future<Output = Result<Response, Response>> + Send + 'static,
    ) -> Self {
        let mut answer: BoxFuture<'static, Response> =
            Box::pin(async { answer.await.unwrap_or_else(|refusal| refusal) });
        // Whoever polls it next brings a waker of its own, so nothing is lost by this look.
        match answer.as_mut().now_or_never() {
            Some(response) => Self::Now(response),
            None => Self::Soon(answer),
        }
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Now(response)
    }
}

impl Call<'_> {
    /// Whether JSON is for people.
    pub(crate) fn pretty(&self) -> bool {
        self.api.config.pretty || self.query.has("pretty")
    }

    /// Asks the cluster and shows the answer with its headers.
    ///
    /// An error has the headers too, as of a server that knows nothing.
    pub(crate) fn ask<Q: Ask + 'static>(
        &self,
        question: Q,
        options: ReadOptions,
        show: impl FnOnce(Q::Answer) -> Response + Send + 'static,
    ) -> Answer {
        let cluster = self.api.cluster.clone();
        Answer::soon(async move {
            match cluster.read(question, options).await {
                Ok(Answered { answer, meta }) => Ok(with_meta(show(answer), &meta)),
                Err(error) => Ok(failed_read(&error)),
            }
        })
    }

    /// The same for an answer that is shown as it is.
    pub(crate) fn ask_json<Q: Ask + 'static>(&self, question: Q, options: ReadOptions) -> Answer
    where
        Q::Answer: Encode,
    {
        let pretty = self.pretty();
        self.ask(question, options, move |answer| json(&answer, pretty))
    }

    /// The argument, or a 400 with this text if it is empty.
    pub(crate) fn argument_or(&self, missing: &str) -> Result<&[u8], Response> {
        if self.argument.is_empty() {
            return Err(error::bad_request(missing));
        }
        Ok(self.argument)
    }
}

/// An error of a read that has headers: those of a server that knows nothing.
pub(crate) fn failed_read(error: &Error) -> Response {
    with_meta(error::failed(error), &Meta::default())
}

/// A body that is to be JSON, as far as it is believed.
pub(crate) async fn collect_json(api: &Api, body: Body) -> Result<Bytes, Response> {
    let limit = api.config.json_bytes_max;
    body.collect(limit).await.map_err(|error| {
        error::not_read(error, || format!("Request body exceeds {limit} byte limit"))
    })
}

/// What is in a body.
pub(crate) fn decoded<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, Response> {
    json::decode(bytes, read).map_err(|error| error::not_decoded(&error))
}

/// The same where there need not be a body.
pub(crate) fn decoded_if_any<'a, T: Default>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, Response> {
    if bytes.is_empty() {
        Ok(T::default())
    } else {
        decoded(bytes, read)
    }
}

/// A value, shown.
pub(crate) fn json(value: &(impl Encode + ?Sized), pretty: bool) -> Response {
    rendered(json::render(value, pretty))
}

/// JSON that is there already.
pub(crate) fn rendered(bytes: Vec<u8>) -> Response {
    Response::new(StatusCode::OK)
        .with_header("Content-Type", "application/json")
        .with_body(bytes)
}

/// The answer with the headers that say how it stands in time.
pub(crate) fn with_meta(mut response: Response, meta: &Meta) -> Response {
    response.set_header("X-Consul-Index", meta.index);
    set_contact(&mut response, meta);
    response
}

/// The headers without the index.
pub(crate) fn set_contact(response: &mut Response, meta: &Meta) {
    // Spelled as the original's appear on the wire.
    let known = if meta.known_leader { "true" } else { "false" };
    response.set_header("X-Consul-Knownleader", known);
    let millis = u64::try_from(meta.last_contact.as_millis()).unwrap_or(u64::MAX);
    response.set_header("X-Consul-Lastcontact", millis);
}
