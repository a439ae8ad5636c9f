//! How the cluster sees the snapshot agent: a service with checks that it keeps telling how things are.
//!
//! "Alive" is there for every instance. "Saving Snapshots" and "Verified Restore" are there for the one that saves and
//! for no other, so a standby is told from it by what it hasn't.
//! They hold what they were told for an interval and a while longer: a save that hangs shows by itself.
//! Only "Alive" takes the service away when it has been critical for too long: a service that is taken away because
//! its snapshots fail would take away the alarm.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{CheckStatus, Client, Error, NewService, NewTtlCheck};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::chance::{Chance, doubled};
use super::status::short;

/// For how long an instance is alive that hasn't said so.
const ALIVE_TTL: Duration = Duration::from_secs(30);

/// How often it says so.
const ALIVE_PERIOD: Duration = Duration::from_secs(10);

/// How much later than due a snapshot may be complete, at least.
const SAVING_SLACK: Duration = Duration::from_secs(5 * 60);

/// How long one call to the local agent may take.
const CALL_TIME: Duration = Duration::from_secs(10);

/// How long one may take when this process is about to end.
const LEAVE_TIME: Duration = Duration::from_secs(4);

/// One of the service's checks, in the order in which they are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Alive,
    Saving,
    Verified,
}

const KINDS: [Kind; 3] = [Kind::Alive, Kind::Saving, Kind::Verified];

impl Kind {
    fn id(self, service: &str) -> String {
        let end = match self {
            Self::Alive => "alive",
            Self::Saving => "saving",
            Self::Verified => "verified",
        };
        format!("{service}:{end}")
    }

    fn name(self) -> &'static str {
        match self {
            Self::Alive => "Consul Snapshot Agent Alive",
            Self::Saving => "Consul Snapshot Agent Saving Snapshots",
            Self::Verified => "Consul Snapshot Agent Verified Restore",
        }
    }

    fn notes(self) -> &'static str {
        match self {
            Self::Alive => "The snapshot agent says that it runs.",
            Self::Saving => {
                "This instance holds the lock and takes the snapshots; this is what came of the last one."
            }
            Self::Verified => {
                "Whether the last snapshot was downloaded from everywhere and loaded, and was what had been received."
            }
        }
    }
}

/// What a check is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    status: CheckStatus,
    text: String,
    /// Told apart from the one before even if it says the same: it holds for longer.
    number: u64,
}

/// What the checks are to say. The one who saves writes it, the one who tells the local agent reads it.
#[derive(Debug, Default)]
pub(super) struct Board {
    reports: Mutex<BTreeMap<Kind, Report>>,
    news: Notify,
}

impl Board {
    pub(super) fn report(&self, kind: Kind, status: CheckStatus, text: &str) {
        let mut reports = self.reports();
        let number = reports.get(&kind).map_or(0, |report| report.number + 1);
        let text = short(text);
        reports.insert(
            kind,
            Report {
                status,
                text,
                number,
            },
        );
        self.news.notify_one();
    }

    /// What this instance has nothing to say about any more.
    pub(super) fn withdraw(&self, kinds: &[Kind]) {
        let mut reports = self.reports();
        reports.retain(|kind, _| !kinds.contains(kind));
        self.news.notify_one();
    }

    fn reports(&self) -> MutexGuard<'_, BTreeMap<Kind, Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who tells the local agent.
pub(super) struct Keeper<'a> {
    client: &'a Client,
    board: &'a Board,
    chance: &'a Chance,
    /// Of this process alone: several may sit on one agent.
    id: &'a str,
    name: &'a str,
    interval: Duration,
    deregister_after: Option<Duration>,
    /// Whether the local agent has the service, as far as is known.
    is_registered: bool,
    /// What each check of it was told.
    told: BTreeMap<Kind, Report>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        client: &'a Client,
        settings: &'a super::Settings,
        board: &'a Board,
        chance: &'a Chance,
        id: &'a str,
    ) -> Self {
        Self {
            client,
            board,
            chance,
            id,
            name: &settings.service,
            interval: settings.interval,
            deregister_after: settings.deregister_after,
            is_registered: false,
            told: BTreeMap::new(),
        }
    }

    /// Keeps the local agent told, for ever. A local agent that was restarted is told everything again.
    pub(super) async fn keep(&mut self) {
        let text = "the snapshot agent runs";
        (self.board).report(Kind::Alive, CheckStatus::Passing, text);
        let mut failures = 0_u32;
        let mut complaint = String::new();
        loop {
            match self.tell().await {
                Ok(()) => {
                    if !complaint.is_empty() {
                        tracing::info!("The local agent has the service {:?} again", self.name);
                    }
                    complaint.clear();
                    failures = 0;
                    // Whatever comes first. What is new is told at once, and that we are alive with it.
                    let _ = timeout(ALIVE_PERIOD, self.board.news.notified()).await;
                }
                Err(why) => {
                    let text = why.to_string();
                    let hint = match why {
                        Error::Unexpected { code: 403, .. } => {
                            "; let the token write this service, or wait until all servers know the token"
                        }
                        _ => "",
                    };
                    // Once is enough for a night without servers.
                    if text != complaint {
                        tracing::warn!(
                            "The service {:?} can't be told to the local agent, which is tried again: {text}{hint}",
                            self.name
                        );
                    }
                    complaint = text;
                    failures = failures.saturating_add(1);
                    sleep(self.chance.about(doubled(failures))).await;
                }
            }
        }
    }

    /// Tells what has not been told yet, and that we are alive.
    async fn tell(&mut self) -> Result<(), Error> {
        let told = self.try_tell().await;
        if let Err(Error::Unexpected { .. }) = told {
            // It doesn't have what it had: it was restarted, or somebody took it away.
            self.is_registered = false;
        }
        told
    }

    async fn try_tell(&mut self) -> Result<(), Error> {
        let client = self.client;
        if !self.is_registered {
            let service = NewService {
                id: self.id.to_owned(),
                name: self.name.to_owned(),
                ..NewService::default()
            };
            self.told.clear();
            soon(client.agent_service_register(&service)).await?;
            self.is_registered = true;
        }
        for kind in KINDS {
            let wanted = self.board.reports().get(&kind).cloned();
            let id = kind.id(self.id);
            match (wanted, self.told.get(&kind)) {
                (None, None) => {}
                (None, Some(_)) => {
                    soon(client.agent_check_deregister(&id)).await?;
                    self.told.remove(&kind);
                }
                (Some(wanted), Some(told)) if kind != Kind::Alive && *told == wanted => {}
                (Some(wanted), told) => {
                    if told.is_none() {
                        let check = self.check(kind, wanted.status);
                        soon(client.agent_check_register(&check)).await?;
                    }
                    soon(client.agent_check_update(&id, wanted.status, &wanted.text)).await?;
                    self.told.insert(kind, wanted);
                }
            }
        }
        Ok(())
    }

    fn check(&self, kind: Kind, status: CheckStatus) -> NewTtlCheck {
        let (ttl, deregister_after) = match kind {
            Kind::Alive => (ALIVE_TTL, self.deregister_after),
            Kind::Saving | Kind::Verified => {
                let slack = self.interval.max(SAVING_SLACK);
                (self.interval.saturating_add(slack), None)
            }
        };
        NewTtlCheck {
            id: kind.id(self.id),
            name: kind.name().to_owned(),
            notes: kind.notes().to_owned(),
            service_id: self.id.to_owned(),
            ttl,
            status,
            deregister_after,
        }
    }

    /// Takes the service away, as far as that can be done soon. The local agent does it by itself later, if it is to.
    pub(super) async fn leave(self) {
        let left = timeout(LEAVE_TIME, self.client.agent_service_deregister(self.id)).await;
        let why = match left {
            Ok(Ok(())) => return,
            // It never was there.
            Ok(Err(_)) if !self.is_registered => return,
            Ok(Err(why)) => why.to_string(),
            Err(_) => "i/o timeout".to_owned(),
        };
        tracing::warn!("The service {:?} stays registered: {why}", self.name);
    }
}

async fn soon(call: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let answer = timeout(CALL_TIME, call).await;
    answer.unwrap_or_else(|_| Err(Error::Body("i/o timeout".to_owned())))
}
