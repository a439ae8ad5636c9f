//! The limits of the engine.

use std::time::Duration;

/// The limits of the engine. Each has a default that suits an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections that may be open at the same time, over all listeners and threads of one
    /// engine. One that comes beyond is answered `503 Service Unavailable` and closed.
    /// Default 16,384.
    pub connections_max: usize,
    /// Bytes that the request line and the headers of one request may have. Beyond, the request
    /// is answered `431 Request Header Fields Too Large` and the connection closed.
    /// Default 64 KiB.
    pub head_bytes_max: usize,
    /// Time from the first byte of a request to the end of its headers; then the connection is
    /// closed. Default 10 s.
    pub head_timeout: Duration,
    /// Time in which the next byte of an awaited body must come; then the handler is told
    /// [`BodyError::TimedOut`](super::BodyError::TimedOut). Default 60 s.
    pub body_timeout: Duration,
    /// Time in which a client that doesn't read its answer must take the next byte of it; then
    /// the connection is closed. Default 60 s.
    pub write_timeout: Duration,
    /// Time that a connection may stay open without a request; then it is closed.
    /// Default 10 min.
    pub idle_timeout: Duration,
    /// Time that requests which are being answered get at shutdown; then they are cut off.
    /// Default 5 s.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            head_bytes_max: 64 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}
