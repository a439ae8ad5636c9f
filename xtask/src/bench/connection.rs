//! One keep-alive HTTP/1.1 connection of the load generator, and many of them behind one epoll.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Writes one request.
pub(crate) fn request(out: &mut Vec<u8>, method: &str, path: &str, body: &[u8]) {
    out.clear();
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\n");
    if method != "GET" {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// A response as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Response {
    bytes: Vec<u8>,
    /// Where the body begins; 0 while the head is incomplete.
    body: usize,
    pub(crate) status: u16,
    /// `X-Consul-Index`, 0 if there was none.
    pub(crate) index: u64,
    length: usize,
    chunked: bool,
    /// Where the next chunk's size line begins.
    chunk: usize,
}

impl Response {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        *self = Self {
            bytes: std::mem::take(&mut self.bytes),
            ..Self::default()
        };
    }

    /// What came so far, for messages.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes)
            .chars()
            .take(300)
            .collect()
    }

    /// The body; still in chunks if it came so.
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(self.body..).unwrap_or_default()
    }

    /// The body of a complete response, joined if it came in chunks.
    pub(crate) fn into_body(mut self) -> Result<Vec<u8>> {
        self.bytes.drain(..self.body);
        if !self.chunked {
            return Ok(self.bytes);
        }
        let mut joined = Vec::with_capacity(self.bytes.len());
        let mut rest = self.bytes.as_slice();
        while let Some(end) = find(rest, b"\r\n", 0) {
            let size = chunk_size(&rest[..end])?;
            let chunk = rest.get(end + 2..end + 2 + size).context("a chunk")?;
            joined.extend_from_slice(chunk);
            rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
        }
        Ok(joined)
    }

    /// Whether the response is complete after these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        self.bytes.extend_from_slice(bytes);
        if self.body == 0 {
            let Some(end) = find(&self.bytes, b"\r\n\r\n", 0) else {
                return Ok(false);
            };
            self.body = end + 4;
            self.chunk = self.body;
            self.read_head(end)?;
        }
        if !self.chunked {
            return Ok(self.bytes.len() >= self.body + self.length);
        }
        while let Some(end) = find(&self.bytes, b"\r\n", self.chunk) {
            let size = chunk_size(&self.bytes[self.chunk..end])?;
            let next = end + 2 + size + 2;
            if self.bytes.len() < next {
                return Ok(false);
            }
            self.chunk = next;
            if size == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_head(&mut self, end: usize) -> Result<()> {
        let head = std::str::from_utf8(&self.bytes[..end]).context("head of a response")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        self.status = status
            .unwrap_or_default()
            .parse()
            .context("status of a response")?;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                self.length = value.parse().context("length of a response")?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                self.chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("x-consul-index") {
                self.index = value.parse().context("index of a response")?;
            }
        }
        Ok(())
    }
}

fn chunk_size(line: &[u8]) -> Result<usize> {
    let line = std::str::from_utf8(line).context("size of a chunk")?;
    usize::from_str_radix(line.trim(), 16).context("size of a chunk")
}

fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(needle.len())
        .position(|window| window == needle)
        .map(|at| from + at)
}

/// A connection with at most one request under way.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// The request; rebuilt in place for each.
    pub(crate) out: Vec<u8>,
    written: usize,
    pub(crate) response: Response,
    pub(crate) sent: Instant,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self {
            stream,
            out: Vec::new(),
            written: 0,
            response: Response::default(),
            sent: now,
        })
    }

    /// True when the whole request is written.
    fn write(&mut self) -> Result<bool> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the connection takes nothing more"),
                Ok(n) => self.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("writing a request"),
            }
        }
        Ok(true)
    }

    /// True when the response is complete.
    fn read(&mut self, scratch: &mut [u8]) -> Result<bool> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(n) => {
                    if self.response.push(&scratch[..n])? {
                        return Ok(true);
                    }
                    if n < scratch.len() {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("reading a response"),
            }
        }
    }
}

/// Many connections to one address, served by one thread.
pub(crate) struct Pool {
    epoll: OwnedFd,
    pub(crate) connections: Vec<Connection>,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
}

impl Pool {
    pub(crate) fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("creating an epoll")?;
        let mut connections = Vec::with_capacity(count);
        for at in 0..count {
            let connection =
                Connection::open(address).with_context(|| format!("connection {at} of {count}"))?;
            epoll::add(
                &epoll,
                &connection.stream,
                EventData::new_u64(at as u64),
                EventFlags::IN,
            )?;
            connections.push(connection);
        }
        Ok(Self {
            epoll,
            connections,
            events: Vec::with_capacity(1024),
            scratch: vec![0; 256 * 1024],
        })
    }

    /// Sends the request that stands in the connection's `out`.
    pub(crate) fn send(&mut self, at: usize) -> Result<()> {
        let connection = &mut self.connections[at];
        connection.written = 0;
        connection.response.clear();
        connection.sent = Instant::now();
        if !connection.write()? {
            let flags = EventFlags::IN | EventFlags::OUT;
            epoll::modify(
                &self.epoll,
                &connection.stream,
                EventData::new_u64(at as u64),
                flags,
            )?;
        }
        Ok(())
    }

    /// Waits for at most `timeout` and calls `done` with the number of each connection whose response is complete.
    pub(crate) fn poll(
        &mut self,
        timeout: Duration,
        mut done: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<usize> {
        let timeout = timeout.try_into().context("a timeout")?;
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(0),
            Err(error) => return Err(error).context("waiting for responses"),
        }
        let events = std::mem::take(&mut self.events);
        let mut complete = 0;
        for event in &events {
            let at = usize::try_from(event.data.u64())?;
            let flags = event.flags;
            let connection = &mut self.connections[at];
            if flags.contains(EventFlags::OUT) && connection.write()? {
                epoll::modify(&self.epoll, &connection.stream, event.data, EventFlags::IN)?;
            }
            let readable = flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
            if readable && connection.read(&mut self.scratch)? {
                complete += 1;
                done(self, at)?;
            }
        }
        self.events = events;
        Ok(complete)
    }
}

/// One request on a connection of its own.
pub(crate) fn once(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<Response> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut out = Vec::new();
    request(&mut out, method, path, body);
    stream
        .write_all(&out)
        .with_context(|| format!("{method} {path}"))?;
    let mut response = Response::default();
    let mut scratch = [0; 16 * 1024];
    loop {
        let n = stream
            .read(&mut scratch)
            .with_context(|| format!("{method} {path}"))?;
        if n == 0 {
            bail!("{method} {path}: the server closed the connection");
        }
        if response.push(&scratch[..n])? {
            return Ok(response);
        }
    }
}

/// Like [`once`], but anything but 200 is an error.
pub(crate) fn succeed(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Response> {
    let response = once(address, method, path, body)?;
    if response.status != 200 {
        bail!("{method} {path}: {}", response.shown());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_at_its_last_byte_however_it_is_cut() {
        let plain: &[u8] = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\ncontent-length: 4\r\n\r\nblue";
        let chunked: &[u8] = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nblue\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let empty: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for (bytes, status, index, text) in [
            (plain, 200, 7, "blue"),
            (chunked, 404, 0, "blue0123456789"),
            (empty, 200, 0, ""),
        ] {
            for cut in 1..bytes.len() {
                let mut response = Response::default();
                assert!(
                    !response.push(&bytes[..cut]).unwrap(),
                    "complete after {cut}"
                );
                assert!(response.push(&bytes[cut..]).unwrap());
                assert_eq!((response.status, response.index), (status, index));
                let body = response.into_body().unwrap();
                assert_eq!(String::from_utf8(body).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_response_that_is_none_is_an_error() {
        assert!(Response::default().push(b"nonsense\r\n\r\n").is_err());
        assert!(
            Response::default()
                .push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
                .is_err()
        );
    }
}
