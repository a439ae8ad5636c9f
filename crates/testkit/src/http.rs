//! A small HTTP/1.1 client: blocking, keep-alive, with a deadline for each request.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes that came behind the last answer.
    ahead: Vec<u8>,
    deadline: Instant,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// `X-Consul-Index`; 0 if there is none.
    pub fn index(&self) -> u64 {
        let text = self.header("x-consul-index").unwrap_or_default();
        text.parse().unwrap_or(0)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// When there is no complete answer in time.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
    patience: Duration,
) -> Result<Answer> {
    Client::connect(address)?.request(method, path, body, patience)
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Those of the system; nothing was sent then.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            ahead: Vec::new(),
            deadline: Instant::now(),
        })
    }

    /// Sends a request and reads its answer. After an error the connection is of no more use.
    ///
    /// # Errors
    /// When there is no complete answer in time; what became of the request is unknown then.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        patience: Duration,
    ) -> Result<Answer> {
        self.deadline = Instant::now() + patience;
        self.stream.set_write_timeout(Some(patience))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        let mut answer = self.head()?;
        let is_chunked = answer
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        answer.body = if is_chunked {
            self.chunks()?
        } else {
            let length = answer.header("content-length").unwrap_or("0");
            let length = length.parse().map_err(bad)?;
            self.take(length)?
        };
        Ok(answer)
    }

    fn head(&mut self) -> Result<Answer> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).unwrap_or_default();
        let status = status.parse().map_err(bad)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Answer {
                    status,
                    headers,
                    body: Vec::new(),
                });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(bad)?;
            body.extend(self.take(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<String> {
        let mut searched = 0;
        loop {
            let mut pairs = self.ahead[searched..].windows(2);
            if let Some(end) = pairs.position(|pair| pair == b"\r\n") {
                let mut line = self.take(searched + end + 2)?;
                line.truncate(searched + end);
                return String::from_utf8(line).map_err(bad);
            }
            searched = self.ahead.len().saturating_sub(1);
            self.more()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < length {
            self.more()?;
        }
        let rest = self.ahead.split_off(length);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    fn more(&mut self) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // No time at all would mean to wait without end.
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut scratch = [0; 64 * 1024];
        match self.stream.read(&mut scratch)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.ahead.extend_from_slice(&scratch[..n]);
                Ok(())
            }
        }
    }
}

fn bad(why: impl ToString) -> Error {
    Error::new(ErrorKind::InvalidData, why.to_string())
}
