//! A stand-in for a cloud's services: answers what a test tells it to, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What arrived.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// The head as it was sent.
    head: String,
    pub(super) body: String,
}

impl Request {
    /// The value of a header, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().skip(1);
        lines
            .find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found.eq_ignore_ascii_case(name).then_some(value.trim())
            })
            .unwrap_or_default()
    }
}

/// What to do about it.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Answer with this status and body.
    Say(u16, String),
    /// Never answer.
    Silence,
    /// Answer without an end.
    Flood,
    /// Hang up in the middle of an answer.
    HangUp,
}

/// The running stand-in; it stops when it is dropped.
#[derive(Debug)]
pub(super) struct StandIn {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl StandIn {
    /// Starts one that does as `reply` says.
    pub(super) async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let reply = Arc::new(reply);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
                connections.spawn(async move {
                    let mut stream = stream;
                    let Some(request) = read(&mut stream).await else {
                        return;
                    };
                    seen.lock().unwrap().push(request.clone());
                    answer(&mut stream, reply(&request)).await;
                });
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    /// Its address, as the beginning of a URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    let mut first = head.lines().next().unwrap().split(' ');
    let mut request = Request {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        head: head.clone(),
        body: String::new(),
    };
    let length: usize = request.header("content-length").parse().unwrap_or(0);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

/// Errors are the other side's: it may have had enough.
async fn answer(stream: &mut TcpStream, reply: Reply) {
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    match reply {
        Reply::Say(status, body) => {
            let whole = head(status, body.len()) + &body;
            let _ = stream.write_all(whole.as_bytes()).await;
        }
        Reply::Silence => std::future::pending().await,
        Reply::Flood => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n")
                .await;
            let part = vec![b' '; 64 << 10];
            while stream.write_all(&part).await.is_ok() {}
        }
        Reply::HangUp => {
            let _ = stream
                .write_all((head(200, 1000) + "half").as_bytes())
                .await;
        }
    }
}
