//! One answer, and how it is written down.

use std::borrow::Cow;
use std::fmt;

use ::http::StatusCode;
use bytes::Bytes;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;

use super::scratch;

/// One answer.
///
/// The engine adds what belongs to the connection (`Date`, `Content-Length`,
/// `Transfer-Encoding`, `Connection`), and what no endpoint may forget:
/// `X-Content-Type-Options: nosniff` always, and `Content-Type: text/plain; charset=utf-8`
/// where there is a body of which nobody said what it is.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    headers: Vec<(Cow<'static, str>, HeaderValue)>,
    /// The body.
    pub body: ResponseBody,
}

/// The value of a header. Line breaks in it are written as spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// Some text.
    Text(Cow<'static, str>),
    /// A decimal number.
    Number(u64),
}

/// The body of an answer.
pub enum ResponseBody {
    /// All of it.
    Full(Bytes),
    /// Pieces, as they come. If one of them is an error, the connection is cut, so that the
    /// client sees that something is missing (one of HTTP/1.0 cannot: for it the end of the
    /// connection is the end of the body). The client's hanging up drops the stream.
    Stream(BoxStream<'static, Result<Bytes, StreamError>>),
}

/// Why a streamed body ended before its end; it goes into the log.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

impl Response {
    /// An answer without a body.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: ResponseBody::Full(Bytes::new()),
        }
    }

    /// A plain text.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status).with_body(text)
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = ResponseBody::Full(body.into());
        self
    }

    /// The same with a body of pieces.
    #[must_use]
    pub fn with_stream<E>(
        mut self,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Self
    where
        E: Into<StreamError> + 'static,
    {
        self.body = ResponseBody::Stream(pieces.map(|piece| piece.map_err(Into::into)).boxed());
        self
    }

    /// The same with a body of pieces out of a channel, complete when all senders are gone.
    #[must_use]
    pub fn with_channel<E>(self, mut pieces: mpsc::Receiver<Result<Bytes, E>>) -> Self
    where
        E: Into<StreamError> + Send + 'static,
    {
        self.with_stream(futures::stream::poll_fn(move |cx| pieces.poll_recv(cx)))
    }

    /// The same with this header, instead of one that has the name already. The name is written
    /// as it stands here; clients of the original are used to `Title-Case`.
    #[must_use]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<HeaderValue>,
    ) -> Self {
        self.set_header(name, value);
        self
    }

    /// Sets a header, instead of one that has the name already.
    pub fn set_header(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<HeaderValue>,
    ) {
        let (name, value) = (name.into(), value.into());
        match self
            .headers
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
        {
            Some((_, known)) => *known = value,
            None => self.headers.push((name, value)),
        }
    }

    /// All headers that were set, in that order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (&**name, value))
    }

    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// What the head of an answer says beyond the answer itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// The request spoke HTTP/1.1, otherwise 1.0; the answer speaks the same.
    pub(super) is_1_1: bool,
    /// The request was a `HEAD`: all headers, no body.
    pub(super) head_only: bool,
    /// Another request may follow on the connection.
    pub(super) keep_alive: bool,
}

/// The head of an answer, apart from its body: a stream can't be shared between threads, and
/// what is shared while we write must be.
#[derive(Debug)]
pub(super) struct ResponseHead {
    status: StatusCode,
    headers: Vec<(Cow<'static, str>, HeaderValue)>,
    /// The length of the body, `None` for a stream.
    length: Option<usize>,
}

impl Response {
    pub(super) fn split(self) -> (ResponseHead, ResponseBody) {
        let Self {
            status,
            headers,
            body,
        } = self;
        let length = match &body {
            ResponseBody::Full(bytes) => Some(bytes.len()),
            ResponseBody::Stream(_) => None,
        };
        (
            ResponseHead {
                status,
                headers,
                length,
            },
            body,
        )
    }
}

impl ResponseHead {
    /// Appends status line and headers, to the empty line.
    pub(super) fn render(&self, manners: Manners, out: &mut Vec<u8>) {
        out.extend_from_slice(if manners.is_1_1 {
            b"HTTP/1.1 "
        } else {
            b"HTTP/1.0 "
        });
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        let mut typed = false;
        for (name, value) in &self.headers {
            typed |= name.eq_ignore_ascii_case("content-type");
            append_clean(name, out);
            out.extend_from_slice(b": ");
            match value {
                HeaderValue::Text(text) => append_clean(text, out),
                HeaderValue::Number(number) => append_number(*number, out),
            }
            out.extend_from_slice(b"\r\n");
        }
        if !typed && self.length != Some(0) {
            out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        }
        out.extend_from_slice(b"X-Content-Type-Options: nosniff\r\nDate: ");
        scratch::append_date(out);
        match self.length {
            _ if self.ends_with_head() => {}
            Some(length) => {
                out.extend_from_slice(b"\r\nContent-Length: ");
                append_number(length as u64, out);
            }
            None if manners.is_1_1 => {
                out.extend_from_slice(b"\r\nTransfer-Encoding: chunked");
            }
            // The end of the connection is the end of the body.
            None => {}
        }
        if !manners.keep_alive {
            out.extend_from_slice(b"\r\nConnection: close");
        } else if !manners.is_1_1 {
            out.extend_from_slice(b"\r\nConnection: keep-alive");
        }
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// Whether the status alone says that no body follows.
    pub(super) fn ends_with_head(&self) -> bool {
        self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED
    }
}

fn reason(status: StatusCode) -> &'static str {
    match status {
        // As the original says it.
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        status => status.canonical_reason().unwrap_or("Unknown"),
    }
}

fn append_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends text that must not end its line: a header made of something a client sent would
/// let that client write the next one.
fn append_clean(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n' | 0) {
            *byte = b' ';
        }
    }
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl From<&'static str> for HeaderValue {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for HeaderValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body)
            .finish()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => f.debug_tuple("Full").field(bytes).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Manners = Manners {
        is_1_1: true,
        head_only: false,
        keep_alive: true,
    };

    fn render(response: Response, manners: Manners) -> String {
        let mut out = Vec::new();
        response.split().0.render(manners, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (before, rest) = text.split_once("Date: ").unwrap();
        let (date, after) = rest.split_once("\r\n").unwrap();
        assert_eq!(date.len(), "Tue, 15 Nov 1994 08:12:31 GMT".len());
        format!("{before}{after}")
    }

    #[test]
    fn the_head_says_what_follows() {
        let response = Response::text(StatusCode::OK, "hello")
            .with_header("X-Consul-Index", 1)
            .with_header("x-consul-index", 7);
        assert_eq!(
            render(response, PLAIN),
            "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!(
            render(
                Response::new(StatusCode::NO_CONTENT),
                Manners {
                    keep_alive: false,
                    ..PLAIN
                }
            ),
            "HTTP/1.1 204 No Content\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(
            render(
                Response::new(StatusCode::OK),
                Manners {
                    is_1_1: false,
                    ..PLAIN
                }
            ),
            "HTTP/1.0 200 OK\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 0\r\n\
             Connection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn no_header_can_end_its_line() {
        let response = Response::new(StatusCode::OK)
            .with_header("Location", String::from("/a\r\nSet-Cookie: b\0"))
            .with_header(String::from("X\r\nY"), "z");
        let text = render(response, PLAIN);
        assert!(
            text.contains("\r\nLocation: /a  Set-Cookie: b \r\nX  Y: z\r\n"),
            "{text}"
        );
    }
}
