//! Remote execution: what `consul exec` asks every node to run.
//!
//! A job, its output and its end are keys below `<prefix>/<session>/`; `docs/events.md` says which.
//! All are written by taking their lock under the session of whoever asks, so when that is gone nothing can be written any more.
//!
//! Whoever may write those keys and fire the event runs programs on every node that takes part, so a node takes part only
//! if its configuration says so.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64_simd::STANDARD;
use futures::future::BoxFuture;
use model::{Command, Error, KvGet, KvOp, KvVerb, Reply, Text};
use rpc::{Cluster, Consistency, ReadOptions, WriteOptions};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, sleep_until};

use crate::process::{self, Group, LINGER};

/// The event that asks for it.
pub(crate) const EVENT: &str = "_rexec";

/// How many jobs run at the same time; who asks for more is not acknowledged.
const JOBS_MAX: usize = 16;

/// How much output one key holds.
const CHUNK_SIZE: usize = 4 << 10;

/// How long a program must be silent before a piece of output is written that is not full.
const SILENCE: Duration = Duration::from_millis(500);

/// The shortest and the longest time between two signs of life: each is an entry of the log.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// How much output of one job is written. It is state of every server, and a program that never ends must not fill them.
const OUTPUT_MAX: usize = 16 << 20;

/// How often it is tried to write something, and how long after a failure the next time.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// The exit code of what could not be started, or whose output could not be written.
const NOT_RUN: i32 = 255;

/// The exit code of what ended without one, as by a signal.
const UNKNOWN: i32 = 1;

/// What remote execution stands on.
#[derive(Clone)]
pub struct ExecConfig {
    /// Whether this node takes part. Default: no.
    pub enabled: bool,
    /// The node's name.
    pub node: Text,
    /// The agent's own token, with which jobs are read and output is written.
    pub token: Text,
    /// What runs commands. Default: `/bin/sh`.
    pub shell: String,
    /// Where scripts are put while they run. Default: the system's folder for such things.
    pub scripts: PathBuf,
}

impl Default for ExecConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            node: Text::default(),
            token: Text::default(),
            shell: "/bin/sh".to_owned(),
            scripts: std::env::temp_dir(),
        }
    }
}

/// Without the token.
impl std::fmt::Debug for ExecConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecConfig")
            .field("enabled", &self.enabled)
            .field("node", &self.node)
            .field("shell", &self.shell)
            .field("scripts", &self.scripts)
            .finish_non_exhaustive()
    }
}

/// Runs what `consul exec` asks for.
#[derive(Debug, Clone)]
pub struct Exec {
    config: Arc<ExecConfig>,
    cluster: Cluster,
}

impl Exec {
    /// One that finds jobs in this cluster.
    pub fn new(config: ExecConfig, cluster: Cluster) -> Self {
        Self {
            config: Arc::new(config),
            cluster,
        }
    }

    /// The job that an event with this payload asks for, beside so many that run; none if it won't be run, and the log says why.
    pub(crate) fn job(&self, payload: &[u8], running: usize) -> Option<BoxFuture<'static, ()>> {
        if !self.config.enabled {
            tracing::info!("ignoring a remote exec event: disable_remote_exec is on");
            return None;
        }
        let call = match Call::read(payload) {
            Ok(call) => call,
            Err(why) => {
                tracing::warn!("ignoring a remote exec event: {why}");
                return None;
            }
        };
        if running >= JOBS_MAX {
            tracing::warn!("ignoring a remote exec event: {running} jobs are running already");
            return None;
        }
        let job = Job {
            exec: self.clone(),
            keys: call.keys(),
            session: call.session,
            written: 0,
            number: 0,
        };
        Some(Box::pin(job.run()))
    }
}

/// What the event says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Call {
    prefix: String,
    session: String,
}

impl Call {
    fn read(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// What all keys of the job begin with.
    fn keys(&self) -> String {
        let parts = self.prefix.split('/').chain([&*self.session]);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }
}

/// What is to be run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Spec {
    command: Option<String>,
    /// In base64.
    script: Option<String>,
    /// In nanoseconds.
    wait: i64,
}

/// The same once it makes sense.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    what: What,
    /// How long after the last output a sign of life is given.
    wait: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Command(String),
    Script(Vec<u8>),
}

impl Work {
    fn read(job: &[u8]) -> Result<Self, String> {
        let spec: Spec = serde_json::from_slice(job).map_err(|why| why.to_string())?;
        let script = spec.script.unwrap_or_default();
        let script = STANDARD.decode_to_vec(script.as_bytes());
        let script = script.map_err(|_| "the script is not base64".to_owned())?;
        let command = spec.command.unwrap_or_default();
        let what = if script.is_empty() {
            What::Command(command)
        } else {
            What::Script(script)
        };
        let wait = Duration::from_nanos(u64::try_from(spec.wait).unwrap_or(0));
        Ok(Self {
            what,
            wait: wait.clamp(WAIT_MIN, WAIT_MAX),
        })
    }
}

pub(crate) fn fuzz(payload: &[u8]) {
    if let Ok(call) = Call::read(payload) {
        let _ = call.keys();
    }
    let _ = Work::read(payload);
}

/// Something could not be written, and the log has heard why.
#[derive(Debug)]
struct Unwritten;

/// A job on its way.
struct Job {
    exec: Exec,
    /// What its keys begin with.
    keys: String,
    session: String,
    /// How much output was written.
    written: usize,
    /// The number of the next piece.
    number: u32,
}

impl Job {
    async fn run(mut self) {
        let work = match self.fetch().await {
            Ok(work) => work,
            Err(why) => {
                tracing::warn!("cannot read the remote exec job {}: {why}", self.keys);
                return;
            }
        };
        tracing::info!("remote exec: running the job {}", self.keys);
        if self.write("ack", b"").await.is_err() {
            return;
        }
        let code = match self.start(&work.what).await {
            // The script is deleted when the program has ended, or with this job.
            Ok((_script, group, output)) => self.follow(group, output, work.wait).await,
            Err(why) => {
                tracing::warn!("remote exec: cannot start the job {}: {why}", self.keys);
                Some(NOT_RUN)
            }
        };
        if let Some(code) = code {
            tracing::info!("remote exec: the job {} ended with {code}", self.keys);
            let _ = self.write("exit", code.to_string().as_bytes()).await;
        }
    }

    /// Reads the job: from any server, and where that lags behind from the leader.
    async fn fetch(&self) -> Result<Work, String> {
        for consistency in [Consistency::Stale, Consistency::Default] {
            let question = KvGet {
                key: Text::from(format!("{}/job", self.keys)),
            };
            let options = ReadOptions {
                token: self.exec.config.token.clone(),
                consistency,
                ..ReadOptions::default()
            };
            let answered = self.exec.cluster.read(question, options).await;
            let answered = answered.map_err(|why| why.to_string())?;
            if let Some(entry) = answered.answer {
                return Work::read(entry.value());
            }
        }
        Err("there is none, or the agent's token may not read it".to_owned())
    }

    async fn start(&self, what: &What) -> io::Result<(Option<ScriptFile>, Group, pipe::Receiver)> {
        let (script, line) = match what {
            What::Command(line) => (None, line.clone()),
            What::Script(text) => {
                let (folder, text) = (self.exec.config.scripts.clone(), text.clone());
                let written =
                    tokio::task::spawn_blocking(move || ScriptFile::write(&folder, &text));
                let script = written.await.map_err(io::Error::other)??;
                let line = quoted(&script.0);
                (Some(script), line)
            }
        };
        let (group, output) = process::start(&self.exec.config.shell, &["-c".to_owned(), line])?;
        Ok((script, group, output))
    }

    /// Writes what the program says until it has ended, and returns its exit code; `None` if that was written already.
    async fn follow(
        &mut self,
        mut group: Group,
        mut output: pipe::Receiver,
        wait: Duration,
    ) -> Option<i32> {
        let mut chunk = [0; CHUNK_SIZE];
        let mut filled = 0;
        let mut last_read = Instant::now();
        let mut last_written = last_read;
        let mut exit: Option<(i32, Instant)> = None;
        let mut is_open = true;
        loop {
            // Silence matters only where something waits to be written, and signs of life are given by the living.
            let silent = (filled > 0).then(|| last_read + SILENCE);
            let patient = exit.is_none().then(|| last_written + wait);
            let over = exit.map(|(_, at)| at + LINGER);
            let due = [silent, patient, over].into_iter().flatten().min();
            let due = due.unwrap_or(last_written + wait);
            let is_due = tokio::select! {
                biased;
                code = group.ended(), if exit.is_none() => {
                    exit = Some((code.unwrap_or(UNKNOWN), Instant::now()));
                    false
                }
                () = sleep_until(due) => true,
                read = output.read(&mut chunk[filled..]), if is_open => {
                    match read {
                        Ok(0) | Err(_) => is_open = false,
                        Ok(size) => filled += size,
                    }
                    last_read = Instant::now();
                    false
                }
            };
            let is_over = match exit {
                Some((_, at)) => !is_open || at + LINGER <= Instant::now(),
                None => false,
            };
            let is_alive_unsaid = is_due && exit.is_none();
            if filled == CHUNK_SIZE || (filled > 0 && (is_due || is_over)) || is_alive_unsaid {
                let piece = std::mem::take(&mut filled);
                if self.write_output(&chunk[..piece]).await.is_err() {
                    // Whoever waits is told if that is possible; the program may be in the middle of something and runs on.
                    let _ = self.write("exit", NOT_RUN.to_string().as_bytes()).await;
                    drain(group, output).await;
                    return None;
                }
                last_written = Instant::now();
            }
            if is_over {
                return exit.map(|(code, _)| code);
            }
        }
    }

    /// Writes a piece of output, or without one a sign of life.
    async fn write_output(&mut self, piece: &[u8]) -> Result<(), Unwritten> {
        let before = self.written;
        self.written = before.saturating_add(piece.len());
        let mut piece = piece.to_vec();
        if self.written > OUTPUT_MAX {
            // What is beyond it still says that the program lives.
            piece.clear();
            if before <= OUTPUT_MAX {
                let note = format!("\n[output beyond {} MiB is left out]\n", OUTPUT_MAX >> 20);
                piece = note.into_bytes();
            } else {
                // A flood of signs of life would be no better; it is taken and thrown away at this pace.
                sleep(WAIT_MIN).await;
            }
        }
        let name = format!("out/{:05x}", self.number);
        self.number = self.number.saturating_add(1);
        self.write(&name, &piece).await
    }

    /// Writes a key of this node, if the session that asks is still there.
    async fn write(&self, name: &str, value: &[u8]) -> Result<(), Unwritten> {
        let key = format!("{}/{}/{name}", self.keys, self.exec.config.node);
        let op = KvOp {
            verb: KvVerb::Lock(Text::from(&*self.session)),
            key: Text::from(&*key),
            value: Text::from(value),
            flags: 0,
        };
        let options = WriteOptions {
            token: self.exec.config.token.clone(),
            ..WriteOptions::default()
        };
        let mut attempt = 1;
        loop {
            let command = Command::Kv(op.clone());
            let why = match self.exec.cluster.write(command, options.clone()).await {
                Ok(Reply::Applied(true)) => return Ok(()),
                Ok(_) => "whoever asked for it is gone".to_owned(),
                // To take a lock twice for the same session is to take it once, so it doesn't matter what became of it.
                Err(why) if attempt < ATTEMPTS && is_passing(&why) => {
                    attempt += 1;
                    sleep(PAUSE).await;
                    continue;
                }
                Err(why) => why.to_string(),
            };
            tracing::warn!("remote exec: cannot write {key}: {why}");
            return Err(Unwritten);
        }
    }
}

/// Whether the same may go well a little later.
fn is_passing(error: &Error) -> bool {
    match error.kind() {
        Error::NoLeader
        | Error::NoServers
        | Error::Restored
        | Error::OutcomeUnknown
        | Error::Unavailable(_) => true,
        Error::NoPath
        | Error::PermissionDenied
        | Error::PermissionDeniedBecause(_)
        | Error::AclNotFound
        | Error::NotFound(_)
        | Error::Invalid(_)
        | Error::Internal(_)
        | Error::Remote(_) => false,
    }
}

/// Lets a program run to its end, whatever it says.
async fn drain(mut group: Group, mut output: pipe::Receiver) {
    let mut rest = [0; CHUNK_SIZE];
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            _ = group.ended() => return,
            read = output.read(&mut rest), if is_open => match read {
                Ok(0) | Err(_) => is_open = false,
                // A flood leaves this thread to others.
                Ok(_) => sleep(Duration::from_millis(1)).await,
            },
        }
    }
}

/// A script as a file that can be run; dropping it deletes the file.
#[derive(Debug)]
struct ScriptFile(PathBuf);

impl ScriptFile {
    fn write(folder: &Path, text: &[u8]) -> io::Result<Self> {
        let path = folder.join(format!("consul-exec-{:032x}", rand::random::<u128>()));
        // A file that is there already is somebody's trap.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)?;
        let script = Self(path);
        file.write_all(text)?;
        // Whatever the process's own mask would have left of it.
        file.set_permissions(Permissions::from_mode(0o750))?;
        Ok(script)
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_file(&self.0) {
            tracing::warn!("cannot delete the script {}: {why}", self.0.display());
        }
    }
}

/// A path as one word for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
