//! Who notes what goes between snapshot agents and the rest of the world.

use http::{Method, StatusCode};

use super::LOCK_KEY;
use super::process::Process;
use crate::history::Moment;
use crate::history::backups::{BackupHistory, Event, Span, What};
use crate::world::World;

/// Clones write into the same history.
#[derive(Clone)]
pub(super) struct Witness {
    world: World,
}

/// Where in the history a call stands, if it is of interest.
#[derive(Clone, Copy)]
pub(super) struct Call(Option<usize>);

impl Witness {
    pub(super) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.world.now()
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut BackupHistory) -> T) -> T {
        self.world.with(|state| look(&mut state.backups))
    }

    /// A process that nobody had before.
    pub(super) fn new_process(&self, machine: usize) -> Process {
        let number = self.with(|history| {
            history.processes += 1;
            history.processes
        });
        Process::new(number, machine)
    }

    /// Something happens to a process.
    pub(super) fn notes(&self, process: &Process, what: What) {
        let call = self.asks(process, what);
        self.is_told(process, call);
    }

    /// Whether a process got the lock last, as far as anybody has told it.
    pub(super) fn leads(&self, process: &Process) -> bool {
        self.with(|history| {
            let mut events = history.events.iter().rev();
            let last = events.find(|event| matches!(event.what, What::Takes { taken: true, .. }));
            last.is_some_and(|event| event.process == process.number)
        })
    }

    /// A process has done nothing since then.
    pub(super) fn stood_still(&self, process: &Process, from: Moment) {
        let to = self.now();
        let stop = (process.number, Span { from, to });
        self.with(|history| history.stops.push(stop));
    }

    /// Something was wrong since then.
    pub(super) fn troubled(&self, from: Moment) {
        let to = self.now();
        self.with(|history| history.troubles.push(Span { from, to }));
    }

    /// A process says something.
    pub(super) fn hears(&self, process: Option<u32>, line: &str) {
        self.world
            .tell("says", || format!("process {process:?}: {line}"));
        if let Some(process) = process
            && line.starts_with("Gave up leadership")
        {
            let called = self.now();
            self.with(|history| {
                history.events.push(Event {
                    process,
                    called,
                    returned: Some(called),
                    what: What::GivesUp,
                });
            });
        }
    }

    /// Something is asked.
    pub(super) fn asks(&self, process: &Process, what: What) -> Call {
        self.world.tell("backups", || {
            format!(
                "process {} on {}: {what:?}",
                process.number, process.machine
            )
        });
        let event = Event {
            process: process.number,
            called: self.now(),
            returned: None,
            what,
        };
        self.with(|history| {
            history.events.push(event);
            Call(Some(history.events.len() - 1))
        })
    }

    /// More is known about it.
    pub(super) fn learns(&self, call: Call, change: impl FnOnce(&mut What)) {
        if let Call(Some(place)) = call {
            self.with(|history| change(&mut history.events[place].what));
        }
    }

    /// It was answered.
    pub(super) fn is_told(&self, process: &Process, call: Call) {
        let now = self.now();
        if let Call(Some(place)) = call {
            let what = self.with(|history| {
                let event = &mut history.events[place];
                event.returned = Some(now);
                event.what.clone()
            });
            self.world.tell("backups", || {
                format!("process {} is told: {what:?}", process.number)
            });
        }
    }

    /// A request goes to the agent.
    pub(super) fn called(&self, process: &Process, method: &Method, target: &str) -> Call {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| {
            let mut pairs = query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.find_map(|(known, value)| (known == name).then(|| value.to_owned()))
        };
        let is_lock = path
            .strip_prefix("/v1/kv/")
            .is_some_and(|key| key == LOCK_KEY);
        let what = if *method == Method::GET && path == "/v1/snapshot" {
            What::Saves
        } else if *method == Method::GET && is_lock {
            What::Reads {
                consistent: parameter("consistent").is_some(),
                holder: None,
            }
        } else if *method == Method::PUT && is_lock {
            match (parameter("acquire"), parameter("release")) {
                (Some(session), _) => What::Takes {
                    session,
                    taken: false,
                },
                (None, Some(_)) => What::Releases,
                (None, None) => return Call(None),
            }
        } else if let Some(session) = path.strip_prefix("/v1/session/renew/") {
            What::Renews {
                session: session.to_owned(),
                gone: false,
            }
        } else {
            return Call(None);
        };
        self.asks(process, what)
    }

    /// It answers. A snapshot is answered with its beginning.
    pub(super) fn answered(&self, process: &Process, call: Call, status: StatusCode, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        self.learns(call, |what| match what {
            What::Takes { taken, .. } => *taken = status == StatusCode::OK && text.trim() == "true",
            What::Renews { gone, .. } => *gone = status == StatusCode::NOT_FOUND,
            What::Reads { holder, .. } => {
                if status == StatusCode::OK || status == StatusCode::NOT_FOUND {
                    *holder = Some(session_in(&text).unwrap_or_default().to_owned());
                }
            }
            What::Began
            | What::Ended
            | What::Saves
            | What::GivesUp
            | What::Releases
            | What::Lists { .. }
            | What::Publishes { .. }
            | What::Removes { .. } => {}
        });
        self.is_told(process, call);
    }
}

/// The session in an entry as it is shown.
fn session_in(entry: &str) -> Option<&str> {
    let (_, rest) = entry.split_once("\"Session\":\"")?;
    rest.split_once('"').map(|(session, _)| session)
}
