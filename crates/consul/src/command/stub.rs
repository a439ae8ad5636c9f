//! A stand-in for an agent: answers whatever a test says, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Method and target, such as `GET /v1/kv/a?stale=`.
    pub(crate) line: String,
    /// The headers, with their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: Vec<u8>,
    /// How much of the body really comes before the connection ends.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: &[],
            body: body.into(),
            cut: None,
        }
    }

    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self {
            status,
            ..Self::ok(body)
        }
    }
}

/// A running stand-in; it ends when it is dropped.
pub(crate) struct Stub {
    /// Where it is, for `-http-addr`.
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopping: Arc<AtomicBool>,
    wake: Box<dyn Fn()>,
    acceptor: Option<JoinHandle<()>>,
}

impl Stub {
    pub(crate) fn tcp(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || {
            let stream = listener.accept().unwrap().0;
            (
                Box::new(stream.try_clone().unwrap()) as Box<dyn Read + Send>,
                Box::new(stream) as Box<dyn Write + Send>,
            )
        };
        let wake = move || drop(std::net::TcpStream::connect(address));
        Self::start(address.to_string(), accept, wake, answer)
    }

    pub(crate) fn unix(
        path: &Path,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let accept = move || {
            let stream = listener.accept().unwrap().0;
            (
                Box::new(stream.try_clone().unwrap()) as Box<dyn Read + Send>,
                Box::new(stream) as Box<dyn Write + Send>,
            )
        };
        let path = path.to_owned();
        let address = format!("unix://{}", path.display());
        Self::start(
            address,
            accept,
            move || drop(std::os::unix::net::UnixStream::connect(&path)),
            answer,
        )
    }

    fn start(
        address: String,
        accept: impl Fn() -> (Box<dyn Read + Send>, Box<dyn Write + Send>) + Send + 'static,
        wake: impl Fn() + 'static,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (log, stop, answer) = (Arc::clone(&asked), Arc::clone(&stopping), Arc::new(answer));
        let acceptor = std::thread::spawn(move || {
            let mut connections = Vec::new();
            loop {
                let (input, output) = accept();
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                connections.push(std::thread::spawn(move || {
                    serve(input, output, &log, &*answer)
                }));
            }
            // They end when the caller has closed its side.
            for connection in connections {
                connection.join().unwrap();
            }
        });
        Self {
            address,
            asked,
            stopping,
            wake: Box::new(wake),
            acceptor: Some(acceptor),
        }
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The request lines of what was asked since the last time.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        (self.wake)();
        let ended = self.acceptor.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn serve(
    input: Box<dyn Read + Send>,
    mut output: Box<dyn Write + Send>,
    log: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&Asked) -> Reply + Send + Sync),
) {
    let mut input = BufReader::new(input);
    while let Some(asked) = read_request(&mut input) {
        let reply = answer(&asked);
        log.lock().unwrap().push(asked);
        let mut text = format!(
            "HTTP/1.1 {} Status\r\nContent-Length: {}\r\n",
            reply.status,
            reply.body.len()
        );
        for (name, value) in reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let body = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
        if output.write_all(text.as_bytes()).is_err()
            || output.write_all(body).is_err()
            || reply.cut.is_some()
        {
            break;
        }
    }
}

fn read_request(input: &mut impl BufRead) -> Option<Asked> {
    let line = |input: &mut dyn BufRead| {
        let mut line = String::new();
        let size = input.read_line(&mut line).unwrap_or(0);
        (size > 0).then(|| line.trim_end().to_owned())
    };
    let first = line(input)?;
    let mut asked = Asked {
        line: first.trim_end_matches(" HTTP/1.1").to_owned(),
        ..Asked::default()
    };
    loop {
        let header = line(input)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        asked
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(length) = asked.headers.get("content-length") {
        asked.body = vec![0; length.parse().unwrap()];
        input.read_exact(&mut asked.body).ok()?;
    } else if asked.headers.contains_key("transfer-encoding") {
        loop {
            let size = usize::from_str_radix(&line(input)?, 16).unwrap();
            let mut chunk = vec![0; size + 2];
            input.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            asked.body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(asked)
}
