//! Checks that run a program in a container, through the engine's own interface (`docs.docker.com/reference/api/engine`).
//!
//! Three questions: the execution is created, started, which brings its output, and inspected, which brings its exit code.
//! Exit codes and output mean what they mean for scripts.
//! A line is given to the shell of the definition, else to the agent's; a list is run without one.
//!
//! The interface knows no way to end an execution: at the timeout (the script's, 30 s unless set; the original has none here) the
//! check is critical, and the program in the container goes on.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::exchange::Connection;
use super::tail::Tail;
use super::{Config, Probe, Shared, Verdict, dial, exchange, exit_status, script_time, tls};
use crate::definition::{Every, Script};

/// The largest answer that is more than output.
const ANSWER_SIZE_MAX: usize = 256 << 10;

/// The longest wait between two questions whether a program has ended whose output has.
const INSPECTION_DELAY_MAX: Duration = Duration::from_secs(1);

/// Where the engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// At a socket of this machine.
    Socket(PathBuf),
    /// At `host:port`, in the clear.
    Plain(String),
    /// At `host:port`, with the certificates of a directory.
    Tls(String, PathBuf),
    /// Nowhere, for this reason.
    Unusable(String),
}

impl Engine {
    /// Where `DOCKER_HOST`, `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` of an environment say, else at its usual socket.
    pub(super) fn named(environment: impl Fn(&str) -> Option<String>) -> Self {
        let Some(host) = environment("DOCKER_HOST") else {
            return Self::Socket("/var/run/docker.sock".into());
        };
        let Some((scheme, place)) = host.split_once("://") else {
            return Self::Unusable(format!("DOCKER_HOST {host:?} names no protocol"));
        };
        let place = place.trim_end_matches('/');
        let verify = environment("DOCKER_TLS_VERIFY").is_some();
        let encrypted = match scheme {
            "unix" => return Self::Socket(place.into()),
            "tcp" | "http" => verify,
            "https" => true,
            _ => return Self::Unusable(format!("DOCKER_HOST {host:?} is of an unknown kind")),
        };
        let with_port = |port| match dial::split(place) {
            Ok(_) => place.to_owned(),
            Err(_) => format!("{place}:{port}"),
        };
        if !encrypted {
            return Self::Plain(with_port(2375));
        }
        let certificates = environment("DOCKER_CERT_PATH").map(PathBuf::from);
        let home = environment("HOME").map(|home| PathBuf::from(home).join(".docker"));
        Self::Tls(with_port(2376), certificates.or(home).unwrap_or_default())
    }
}

/// What is run in the container.
pub(super) fn command(script: &Script, shell: &str, config: &Config) -> Vec<String> {
    match script {
        Script::List(list) => list.clone(),
        Script::Line(line) => {
            let shell = if shell.is_empty() {
                &config.shell
            } else {
                shell
            };
            vec![shell.to_owned(), "-c".to_owned(), line.clone()]
        }
    }
}

#[derive(Debug)]
pub(super) struct Docker {
    container: String,
    command: Vec<String>,
    time: Duration,
    output_max: usize,
    engine: Engine,
    shared: Arc<Shared>,
}

impl Docker {
    pub(super) fn new(
        container: &str,
        command: Vec<String>,
        every: &Every,
        config: &Config,
    ) -> Self {
        Self {
            container: container.to_owned(),
            command,
            time: script_time(every),
            output_max: config.output_max,
            engine: config.engine.clone(),
            shared: Arc::clone(&config.shared),
        }
    }

    async fn run(&self) -> Verdict {
        let mut output = Tail::new(self.output_max);
        match timeout(self.time, self.execute(&mut output)).await {
            Ok(Ok(code)) => Verdict {
                status: exit_status(Some(code)),
                output: output.into_text(),
            },
            Ok(Err(why)) => Verdict::critical(why),
            Err(_) => {
                let mut text = output.into_text();
                if text.last().is_some_and(|last| *last != b'\n') {
                    text.push(b'\n');
                }
                text.extend_from_slice(
                    format!("Timed out after {:?} and was left alone", self.time).as_bytes(),
                );
                Verdict::critical(text)
            }
        }
    }

    /// The exit code.
    async fn execute(&self, output: &mut Tail) -> Result<i64, String> {
        let id = self
            .create()
            .await
            .map_err(|why| format!("Unable to create Exec, error: {why}"))?;
        self.start(&id, output)
            .await
            .map_err(|why| format!("Unable to start Exec: {why}"))?;
        self.inspect(&id)
            .await
            .map_err(|why| format!("Unable to inspect Exec: {why}"))
    }

    async fn create(&self) -> Result<String, String> {
        let container = &self.container;
        // What can't be a name of a container could be a path to something else of the engine.
        if !is_name(container) {
            return Err(format!("No such container: {container}"));
        }
        let path = format!("/containers/{container}/exec");
        let wish = json!({
            "AttachStdin": false,
            "AttachStdout": true,
            "AttachStderr": true,
            "Tty": false,
            "Cmd": self.command,
        });
        let created: Created = self.tell(Method::POST, path, wish.to_string()).await?;
        if is_name(&created.id) {
            Ok(created.id)
        } else {
            Err("the engine's answer has no usable id".to_owned())
        }
    }

    async fn start(&self, id: &str, output: &mut Tail) -> Result<(), String> {
        let wish = json!({ "Detach": false, "Tty": false }).to_string();
        let mut frames = Frames::default();
        self.ask(Method::POST, format!("/exec/{id}/start"), wish, |piece| {
            frames.take(piece, output)
        })
        .await
    }

    /// The end of the output and the end of the program are not the same moment.
    async fn inspect(&self, id: &str) -> Result<i64, String> {
        let mut delay = Duration::from_millis(10);
        loop {
            let path = format!("/exec/{id}/json");
            let found: Inspected = self.tell(Method::GET, path, String::new()).await?;
            match found.exit_code {
                Some(code) if !found.running => return Ok(code),
                None if !found.running => {
                    return Err("the engine's answer has no exit code".to_owned());
                }
                _ => sleep(delay).await,
            }
            delay = (delay * 2).min(INSPECTION_DELAY_MAX);
        }
    }

    /// Asks for something that is JSON.
    async fn tell<T>(&self, method: Method, path: String, body: String) -> Result<T, String>
    where
        T: for<'a> Deserialize<'a>,
    {
        let mut answer = Vec::new();
        self.ask(method, path, body, |piece| {
            if answer.len() + piece.len() > ANSWER_SIZE_MAX {
                return Err("the engine's answer is too large".to_owned());
            }
            answer.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        serde_json::from_slice(&answer)
            .map_err(|why| format!("the engine's answer can't be read: {why}"))
    }

    /// Asks over a connection of its own, and gives what the answer holds to `take` if it is a good one.
    async fn ask(
        &self,
        method: Method,
        path: String,
        body: String,
        mut take: impl FnMut(&[u8]) -> Result<(), String> + Send,
    ) -> Result<(), String> {
        let connection = self.connect().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(body)
            .map_err(|why| why.to_string())?;
        let answered = exchange::ask(connection, request, async |mut response| {
            if !response.status().is_success() {
                return Err(self.refusal(response).await);
            }
            let mut refused = None;
            let read = exchange::read(response.body_mut(), |piece| match take(piece) {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    refused = Some(why);
                    ControlFlow::Break(())
                }
            });
            let read = read.await.map_err(|why| why.to_string());
            refused.map_or(read, Err)
        });
        answered.await.map_err(|why| why.to_string())?
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, String> {
        let (address, certificates) = match &self.engine {
            Engine::Unusable(why) => return Err(why.clone()),
            Engine::Socket(path) => {
                let connection = UnixStream::connect(path).await;
                let why = |why| format!("dial unix {}: {}", path.display(), dial::reason(&why));
                return Ok(Box::new(connection.map_err(why)?));
            }
            Engine::Plain(address) => (address, None),
            Engine::Tls(address, certificates) => (address, Some(certificates)),
        };
        let (host, port) = dial::split(address)?;
        let why = |why| format!("dial tcp {address}: {}", dial::reason(&why));
        let addresses = self.shared.names.addresses(host, port).await.map_err(why)?;
        let connection = dial::connect(&addresses).await.map_err(why)?;
        Ok(match certificates {
            None => Box::new(connection),
            // Read each time, for they are small and may have been renewed.
            Some(directory) => {
                Box::new(tls::encrypt(connection, host, tls::docker(directory)?).await?)
            }
        })
    }

    /// What the engine says when it doesn't do what it is asked.
    async fn refusal(&self, mut response: Response<Incoming>) -> String {
        let mut said = Vec::new();
        let max = self.output_max;
        let read = exchange::read(response.body_mut(), |piece| {
            said.extend_from_slice(&piece[..piece.len().min(max - said.len())]);
            if said.len() < max {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        // Half of a reason is better than none.
        let _ = read.await;
        let status = response.status();
        let said = match serde_json::from_slice::<Refused>(&said) {
            Ok(refused) => refused.message,
            Err(_) => String::from_utf8_lossy(&said).trim().to_owned(),
        };
        if status == StatusCode::NOT_FOUND && said.to_lowercase().contains("no such container") {
            return format!("No such container: {}", self.container);
        }
        format!("API error ({}): {said}", status.as_u16())
    }
}

impl Probe for Docker {
    fn ask(&self) -> BoxFuture<'_, Verdict> {
        self.run().boxed()
    }
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "ExitCode")]
    exit_code: Option<i64>,
    #[serde(rename = "Running", default)]
    running: bool,
}

#[derive(Deserialize)]
struct Refused {
    message: String,
}

/// Whether `text` can be the name or id of something of the engine's.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Takes apart the stream that carries both outputs: heads of eight bytes, each with the size of what follows it.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    /// Bytes of the current frame that are still to come; only counted, never reserved.
    left: u64,
}

impl Frames {
    fn take(&mut self, mut piece: &[u8], output: &mut Tail) -> Result<(), String> {
        while !piece.is_empty() {
            if self.left > 0 {
                let size =
                    usize::try_from(self.left).map_or(piece.len(), |left| left.min(piece.len()));
                let (now, later) = piece.split_at(size);
                output.push(now);
                self.left -= size as u64;
                piece = later;
                continue;
            }
            let (now, later) = piece.split_at(piece.len().min(8 - self.head.len()));
            self.head.extend_from_slice(now);
            piece = later;
            if let [stream, x, y, z, a, b, c, d] = self.head[..] {
                if stream > 2 || [x, y, z] != [0; 3] {
                    return Err("the output that the engine sends can't be read".to_owned());
                }
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.head.clear();
            }
        }
        Ok(())
    }
}

/// Takes the bytes apart as what an engine sends, for fuzzing: it doesn't matter how the network cuts them.
pub(crate) fn fuzz(bytes: &[u8]) {
    let read = |size: usize| {
        let mut frames = Frames::default();
        let mut output = Tail::new(64);
        let taken = bytes
            .chunks(size)
            .try_for_each(|piece| frames.take(piece, &mut output));
        (taken, output.into_text())
    };
    let whole = read(bytes.len().max(1));
    for size in [1, 7, 8, 100] {
        assert_eq!(read(size), whole, "in pieces of {size} bytes");
    }
    let _ = serde_json::from_slice::<Created>(bytes);
    let _ = serde_json::from_slice::<Inspected>(bytes);
    let _ = serde_json::from_slice::<Refused>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_the_stream_is_cut_the_output_is_the_same() {
        let mut stream = Vec::new();
        for (kind, text) in [(1, "out"), (2, ""), (2, "error"), (0, "x"), (1, "\n\0")] {
            stream.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0]);
            stream.push(u8::try_from(text.len()).unwrap());
            stream.extend_from_slice(text.as_bytes());
        }
        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let mut output = Tail::new(64);
            for piece in stream.chunks(size) {
                frames.take(piece, &mut output).unwrap();
            }
            assert_eq!(output.into_text(), b"outerrorx\n\0", "{size}");
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for head in [
            [3, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 0, 0, 0],
            *b"HTTP/1.1",
        ] {
            let mut output = Tail::new(64);
            assert!(Frames::default().take(&head, &mut output).is_err());
        }
        // A size beyond what comes is only counted.
        let mut frames = Frames::default();
        let mut output = Tail::new(4);
        frames
            .take(&[1, 0, 0, 0, 255, 255, 255, 255], &mut output)
            .unwrap();
        frames.take(b"some", &mut output).unwrap();
        assert_eq!(frames.left, u64::from(u32::MAX) - 4);
        assert_eq!(output.into_text(), b"some");
    }
}
