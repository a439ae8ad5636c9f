//! What clients share: the servers that are up, and the history they write together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use consensus::sim::Trace;
use model::{Error, Uuid};
use rpc::Cluster;
use server::Server;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::check::Violation;
use crate::history::backups::BackupHistory;
use crate::history::locks::LockHistory;
use crate::history::{Generation, History, Moment, Pause, SessionNumber};
use crate::network::Network;

/// How long a client waits for an answer before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);

/// A server that is up, as clients hold it.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) place: usize,
    pub(crate) life: u64,
    pub(crate) server: Arc<Server>,
    pub(crate) cluster: Cluster,
    pub(crate) death: Arc<Death>,
}

/// The end of a server's life.
#[derive(Default)]
pub(crate) struct Death {
    has_come: AtomicBool,
    coming: Notify,
}

impl Death {
    pub(crate) fn strike(&self) {
        self.has_come.store(true, Ordering::Release);
        self.coming.notify_waiters();
    }

    /// Returns when it has come.
    pub(crate) async fn come(&self) {
        let coming = self.coming.notified();
        if !self.has_come.load(Ordering::Acquire) {
            coming.await;
        }
    }
}

/// What a client was told.
pub(crate) enum Told<T> {
    /// The answer.
    Answer(T),
    /// That nothing was done, and why.
    Refused(Error),
    /// Nothing that it could rely on.
    Unknown,
}

/// Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    begun: Instant,
    is_told: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) fronts: BTreeMap<usize, Front>,
    pub(crate) history: History,
    pub(crate) locks: LockHistory,
    pub(crate) backups: BackupHistory,
    pub(crate) sessions: BTreeMap<Uuid, SessionNumber>,
    pub(crate) generations: Generation,
    pub(crate) values: u64,
    pub(crate) violation: Option<Violation>,
    /// No more restores, and then no more of anything.
    pub(crate) calms: bool,
    pub(crate) ends: bool,
    pub(crate) saves: u64,
    pub(crate) restores: u64,
}

impl World {
    pub(crate) fn new(network: Network, trace: Trace, is_told: bool) -> Self {
        Self {
            state: Arc::default(),
            network,
            trace,
            begun: Instant::now(),
            is_told,
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Moment {
        u64::try_from((at - self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    /// All that clients know, and when nobody could have told them.
    pub(crate) fn take_history(&self) -> History {
        let mut history = self.with(|state| std::mem::take(&mut state.history));
        let pauses = self.network.pauses().into_iter();
        history.pauses = pauses
            .map(|(server, from, to)| Pause {
                server,
                from: self.moment(from),
                to: self.moment(to),
            })
            .collect();
        history
    }

    /// Notes an event, and shows it if somebody wants to read along.
    #[allow(clippy::print_stderr, reason = "the trace is for people")]
    pub(crate) fn tell(&self, kind: &str, what: impl FnOnce() -> String) {
        if self.is_told {
            let what = what();
            self.trace.event(kind, &[what.as_bytes()]);
            let mut line = String::new();
            let _ = write!(
                line,
                "{:>12.6} {:08x} {kind}: {what}",
                self.begun.elapsed().as_secs_f64(),
                self.trace.hash().0 >> 32
            );
            eprintln!("{line}");
        } else {
            self.trace.event(kind, &[what().as_bytes()]);
        }
    }

    /// The first broken promise is the one that counts.
    pub(crate) fn violate(&self, violation: Violation) {
        self.with(|state| {
            state.violation.get_or_insert(violation);
        });
    }

    /// The broken promise, if there is one.
    pub(crate) fn verdict(&self) -> Result<(), Violation> {
        match self.with(|state| state.violation.take()) {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.with(|state| state.violation.is_some())
    }

    pub(crate) fn ends(&self) -> bool {
        self.with(|state| state.ends)
    }

    /// Some server that is up; the draw decides.
    pub(crate) fn any(&self, draw: u64) -> Option<Front> {
        self.with(|state| {
            let count = u64::try_from(state.fronts.len()).unwrap_or(0).max(1);
            let nth = usize::try_from(draw % count).unwrap_or(0);
            state.fronts.values().nth(nth).cloned()
        })
    }

    /// The server in a place.
    pub(crate) fn front(&self, place: usize) -> Option<Front> {
        self.with(|state| state.fronts.get(&place).cloned())
    }

    /// A server that leads, if one does.
    pub(crate) fn leader(&self) -> Option<Front> {
        self.with(|state| {
            let mut fronts = state.fronts.values();
            fronts
                .find(|front| front.server.status().is_leader)
                .cloned()
        })
    }

    /// A value that nobody has written before.
    pub(crate) fn value(&self) -> u64 {
        self.with(|state| {
            state.values += 1;
            state.values
        })
    }

    /// Asks a server as a client does over a connection: if the server dies, the connection breaks and says nothing
    /// about what became of the request.
    pub(crate) async fn ask<T>(
        &self,
        front: &Front,
        patience: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Told<T> {
        let asked = async {
            self.network.awake(front.place).await;
            let answer = call.await;
            self.network.awake(front.place).await;
            answer
        };
        let told = tokio::select! {
            biased;
            () = front.death.come() => return Told::Unknown,
            told = timeout(patience, asked) => told,
        };
        match told {
            Err(_) => Told::Unknown,
            Ok(Ok(answer)) => Told::Answer(answer),
            Ok(Err(error)) => match error.kind() {
                Error::OutcomeUnknown | Error::Internal(_) | Error::Restored | Error::Remote(_) => {
                    Told::Unknown
                }
                Error::NoLeader
                | Error::NoServers
                | Error::NoPath
                | Error::PermissionDenied
                | Error::PermissionDeniedBecause(_)
                | Error::AclNotFound
                | Error::NotFound(_)
                | Error::Invalid(_)
                | Error::Unavailable(_) => Told::Refused(error),
            },
        }
    }
}
