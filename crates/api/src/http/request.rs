//! One request.

use std::net::SocketAddr;
use std::ops::Range;

use ::http::Method;
use bytes::Bytes;

use super::body::Body;
use super::head;

/// One request, with its path as the client wrote it.
#[derive(Debug)]
pub struct Request {
    method: Method,
    /// The bytes from the request line to the empty line, once [`head`] found them sound. The
    /// rest are ranges in it: a request costs one allocation, and headers are looked up by
    /// walking its lines, because a handler asks for one or two of them.
    head: Box<[u8]>,
    path: Range<usize>,
    query: Option<Range<usize>>,
    headers: usize,
    peer: Option<SocketAddr>,
    body: Body,
}

impl Request {
    /// A request as a client could have sent it, for callers that have no socket; `None` if a
    /// client could not.
    pub fn new(
        method: &Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<Self> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        let head = head::parse(text.as_bytes()).ok()?;
        Some(Self::from_head(head, text.as_bytes(), None, body.into()))
    }

    pub(super) fn from_head(
        head: head::Head,
        bytes: &[u8],
        peer: Option<SocketAddr>,
        body: Body,
    ) -> Self {
        Self {
            method: head.method,
            head: bytes.into(),
            path: head.path,
            query: head.query,
            headers: head.headers,
            peer,
            body,
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, not decoded. Every `%` in it is followed by two hexadecimal digits.
    pub fn path(&self) -> &[u8] {
        &self.head[self.path.clone()]
    }

    /// What follows the `?`, not decoded and not checked; `None` without a `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.query.clone().map(|range| &self.head[range])
    }

    /// The value of the first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All headers, in the order and the case in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        head::lines(&self.head[self.headers..])
    }

    /// Where the request came from; `None` over a unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The body.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// The body, for keeps.
    pub fn into_body(self) -> Body {
        self.body
    }

    /// The body, for keeps; an empty one takes its place.
    pub fn take_body(&mut self) -> Body {
        std::mem::replace(&mut self.body, Body::empty())
    }
}
