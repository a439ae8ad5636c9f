//! Asking again and again whether something is well: what the checks of this node run.
//!
//! `start` gives a check its `Runner`, which asks after a random part of the interval, and from then on an interval after each answer.
//! Each answer is a `Report`; what becomes of it is decided where local state is kept.
//!
//! A further kind of check is a file here with a `Probe` in it, and its line in `probe`.
//! Its head says what the kind promises; what the kinds share is in `dial` (names and connections), `exchange` (one request over one
//! connection), `tls` and `tail` (the end of an output).
//!
//! At rest a check is a timer and its definition: buffers, connections and configurations of TLS exist only while somebody asks.

mod dial;
mod docker;
mod exchange;
mod http;
mod script;
mod tail;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use model::Text;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::definition::{CheckKind, Every, Status};

pub use docker::Engine;
pub(crate) use docker::fuzz as fuzz_docker;
pub use tail::Tail;

/// Nothing is asked more often than this, whatever its definition says.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How long a question over the network may take if nobody says otherwise.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a script may take if nobody says otherwise.
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(30);

/// How much of what is said of a check is kept; the original does the same.
const OUTPUT_BYTES_MAX: usize = 4096;

/// By how much a report may exceed that: before an output that it has cut, a runner puts what it asked and how that went.
const REPORT_SLACK: usize = 4096;

/// What all checks of an agent have in common.
#[derive(Debug, Clone)]
pub struct Config {
    /// What runs a script that is a line, and Docker's scripts that name no shell: `$SHELL`, else `/bin/sh`.
    pub shell: String,
    /// Where Docker is reached: what `DOCKER_HOST` and its kin say, else its socket on this machine.
    pub engine: Engine,
    /// Whether HTTP checks may ask link-local addresses, where clouds keep their metadata; `false` unless set.
    pub allow_link_local: bool,
    /// What HTTP checks call themselves.
    pub user_agent: String,
    /// How many bytes of a check's output are kept.
    pub output_max: usize,
    shared: Arc<Shared>,
}

/// What runners share; each part is made when one needs it.
#[derive(Debug, Default)]
struct Shared {
    names: dial::Names,
    tls: tls::Authorities,
}

impl Config {
    /// The defaults, with what `environment` says of shells and of Docker.
    pub fn new(environment: impl Fn(&str) -> Option<String>) -> Self {
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        Self {
            shell: environment("SHELL").unwrap_or_else(|| "/bin/sh".to_owned()),
            engine: Engine::named(environment),
            allow_link_local: false,
            user_agent: "Consul Health Check".to_owned(),
            output_max: OUTPUT_BYTES_MAX,
            shared: Arc::default(),
        }
    }
}

impl Default for Config {
    /// As in an empty environment.
    fn default() -> Self {
        Self::new(|_| None)
    }
}

/// One answer of a check.
#[derive(Debug)]
pub(crate) struct Report {
    /// Which check.
    pub(crate) id: Text,
    /// Which runner of this check, as it was told.
    pub(crate) generation: u64,
    /// The verdict.
    pub(crate) status: Status,
    /// What goes with it, cut to its limit.
    pub(crate) output: Text,
}

/// A check that is being run; dropping it ends that, and kills what it has started.
#[derive(Debug)]
#[must_use = "dropping it stops the check"]
pub(crate) struct Runner {
    task: Option<JoinHandle<()>>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Starts what asks again and again; a TTL asks nobody, so its runner does nothing.
///
/// `chance` decides how long the first run is put off, so that the checks of many agents don't march in step.
/// When nobody takes the reports, the runner waits with its next question.
pub(crate) fn start(
    id: Text,
    generation: u64,
    kind: &CheckKind,
    config: &Config,
    reports: mpsc::Sender<Report>,
    chance: u64,
) -> Runner {
    let Some((every, probe)) = probe(kind, config) else {
        return Runner { task: None };
    };
    let interval = every.interval.max(INTERVAL_MIN);
    let task = tokio::spawn(async move {
        sleep(part(interval, chance)).await;
        loop {
            let Verdict { status, output } = probe.ask().await;
            say(&id, status);
            let report = Report {
                id: id.clone(),
                generation,
                status,
                // What was asked may be as long as a definition, and reports wait for somebody to take them.
                output: shortened(output.into(), REPORT_SLACK),
            };
            if reports.send(report).await.is_err() {
                return;
            }
            sleep(interval).await;
        }
    });
    Runner { task: Some(task) }
}

/// What asks for a check of this kind, and how often.
fn probe(kind: &CheckKind, config: &Config) -> Option<(Every, Box<dyn Probe>)> {
    Some(match kind {
        CheckKind::Ttl(_) => return None,
        CheckKind::Script { script, every } => {
            (*every, Box::new(script::Script::new(script, every, config)))
        }
        CheckKind::Http {
            url,
            tls_skip_verify,
            every,
        } => (
            *every,
            Box::new(http::Http::new(url, *tls_skip_verify, every, config)),
        ),
        CheckKind::Tcp { address, every } => {
            (*every, Box::new(tcp::Tcp::new(address, every, config)))
        }
        CheckKind::Docker {
            container,
            shell,
            script,
            every,
        } => {
            let command = docker::command(script, shell, config);
            let docker = docker::Docker::new(container, command, every, config);
            (*every, Box::new(docker))
        }
    })
}

/// Asks once.
///
/// It must end by itself, within the time that its definition grants; it must not panic, whatever it meets; and dropping
/// the future must leave nothing behind that still runs.
trait Probe: Send + Sync {
    fn ask(&self) -> BoxFuture<'_, Verdict>;
}

/// What came of asking once.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    status: Status,
    output: Vec<u8>,
}

impl Verdict {
    fn critical(output: impl Into<Vec<u8>>) -> Self {
        Self {
            status: Status::Critical,
            output: output.into(),
        }
    }
}

/// What the exit of a program says, here or in a container.
fn exit_status(code: Option<i64>) -> Status {
    match code {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        Some(_) | None => Status::Critical,
    }
}

/// How long a question over the network may take: a time of its own counts only if it is shorter than the interval.
fn question_time(every: &Every) -> Duration {
    let interval = every.interval.max(INTERVAL_MIN);
    if every.timeout > Duration::ZERO && every.timeout < interval {
        every.timeout
    } else {
        interval.min(QUESTION_TIME_MAX)
    }
}

/// How long a script may take.
fn script_time(every: &Every) -> Duration {
    if every.timeout > Duration::ZERO {
        every.timeout
    } else {
        SCRIPT_TIME_MAX
    }
}

/// A part of `whole`: none of it for a chance of 0, nearly all for the greatest.
fn part(whole: Duration, chance: u64) -> Duration {
    // The upper half of the chance is plenty, and a factor below 1 can't overflow.
    let upper = u32::try_from(chance >> 32).unwrap_or(u32::MAX);
    whole.mul_f64(f64::from(upper) / (f64::from(u32::MAX) + 1.0))
}

/// The output as far as it is kept; what is cut off is counted, in the original's words.
pub(crate) fn shortened(output: Text, slack: usize) -> Text {
    if output.len() <= OUTPUT_BYTES_MAX + slack {
        return output;
    }
    let end = format!(
        " ... (captured {OUTPUT_BYTES_MAX} of {} bytes)",
        output.len()
    );
    Text::from([&output[..OUTPUT_BYTES_MAX], end.as_bytes()].concat())
}

fn say(id: &Text, status: Status) {
    match status {
        Status::Passing => tracing::debug!("Check '{id}' is passing"),
        Status::Warning => tracing::warn!("Check '{id}' is now warning"),
        Status::Critical => tracing::warn!("Check '{id}' is now critical"),
    }
}
