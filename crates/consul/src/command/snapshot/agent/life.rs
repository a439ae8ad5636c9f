//! The life of the program: started, told things by signals, stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup::agent::{self, AgentError, Place, Surroundings};
use backup::stores::{self, Destination};
use client::{Client, Tls};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::banner::banner;
use super::settings::{Said, Settings, usable};
use crate::command::{FAILED, OK};
use crate::console::Console;
use crate::flags::Parsed;
use crate::logging::{self, Log, Syslog};
use crate::metrics::{Registry, Telemetry};
use crate::run::say;
use crate::run::signals::{Signals, Told};

/// How long the lock and the service may take to be given back; a supervisor who waits longer for it is rare.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What an agent runs on: settings whose stores could be opened.
pub(super) struct Plan {
    client: Client,
    agent: agent::Settings,
    /// Once only.
    is_single: bool,
}

/// What ended an agent.
enum End {
    /// By itself, which it doesn't do unless the settings can't be.
    Itself(Result<(), AgentError>),
    Stopped,
    /// To go on with another plan.
    Reloaded(Box<(Said, Settings, Plan)>),
}

impl Plan {
    /// Opens everything; asks nobody but this machine's disks yet.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let client = Client::new(settings.client.clone()).map_err(|why| why.to_string())?;
        let mut places = Vec::new();
        for kept in &settings.destinations {
            if let Destination::Local(folder) = &kept.destination {
                usable("local_storage.path", folder)?;
            }
            let store = stores::open(&kept.destination).map_err(|why| why.to_string())?;
            places.push(Place {
                store: Arc::from(store),
                retention: kept.retention,
            });
        }
        let agent = agent::Settings {
            interval: settings.interval.unwrap_or_default(),
            stale: settings.stale,
            datacenter: settings.datacenter.clone(),
            service: settings.service.clone(),
            deregister_after: settings.deregister_after,
            lock_key: settings.lock_key.clone(),
            max_failures: settings.max_failures,
            recipients: settings.recipients.clone(),
            places,
        };
        Ok(Self {
            client,
            agent,
            is_single: settings.interval.is_none(),
        })
    }

    fn places(&self) -> Vec<String> {
        let places = self.agent.places.iter();
        places.map(|place| place.store.describe()).collect()
    }
}

/// Runs the agent until it has done its work or is told to stop; the exit status.
pub(super) fn live(
    parsed: &Parsed,
    said: Said,
    settings: Settings,
    plan: Plan,
    console: &mut Console<'_>,
) -> anyhow::Result<u8> {
    let log = Log::start_alone(settings.log_level)?;
    // Nobody is told of the figures, but a signal shows them.
    let figures = Registry::start(&Telemetry::default())?;
    figures.install()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(async {
        // Before anything is begun, so that no signal is lost.
        let signals = Signals::listen(figures.clone())?;
        let mut life = Life {
            parsed,
            log: &log,
            signals,
            console,
        };
        life.run(said, settings, plan).await
    });
    // Threads that still look through a snapshot see that nobody listens any more, and end by themselves.
    runtime.shutdown_background();
    figures.finish();
    log.release();
    log.finish();
    status
}

struct Life<'a, 'c> {
    parsed: &'a Parsed,
    log: &'a Log,
    signals: Signals,
    console: &'a mut Console<'c>,
}

impl Life<'_, '_> {
    async fn run(
        &mut self,
        mut said: Said,
        mut settings: Settings,
        mut plan: Plan,
    ) -> anyhow::Result<u8> {
        if let Some(facility) = settings.syslog {
            let places = logging::PLACES.map(PathBuf::from);
            tokio::select! {
                biased;
                () = self.signals.stop() => return Ok(FAILED),
                syslog = Syslog::open(facility, &places, say) => self.log.tell(syslog?),
            }
        }
        self.console.say(banner(&settings, &plan.places()));
        self.console.output.flush()?;
        self.log.release();
        tell(&settings);
        if plan.is_single {
            return Ok(self.once(plan).await);
        }
        loop {
            match self.stay(&said, &settings, plan).await {
                End::Stopped => return Ok(OK),
                End::Itself(Ok(())) => return Ok(FAILED),
                End::Itself(Err(why)) => {
                    tracing::error!("{why}");
                    return Ok(FAILED);
                }
                End::Reloaded(next) => {
                    (said, settings, plan) = *next;
                    tell(&settings);
                }
            }
        }
    }

    /// One snapshot.
    async fn once(&mut self, plan: Plan) -> u8 {
        let (stop, stopped) = oneshot::channel();
        // Apart, since it is as large as what it streams through.
        let saving = agent::once(plan.client, plan.agent, surroundings(), until(stopped));
        let mut saving = Box::pin(saving);
        let saved = tokio::select! {
            biased;
            () = self.signals.stop() => {
                drop(stop);
                tokio::select! {
                    biased;
                    // What is half-written is taken away.
                    saved = timeout(STOP_MAX, &mut saving) => saved.unwrap_or(Err(AgentError::Stopped)),
                    () = self.signals.stop() => Err(AgentError::Stopped),
                }
            }
            saved = &mut saving => saved,
        };
        match saved {
            Ok(_) => OK,
            Err(why) => {
                tracing::error!("{why}");
                FAILED
            }
        }
    }

    /// The agent that stays, until something ends it.
    async fn stay(&mut self, said: &Said, settings: &Settings, plan: Plan) -> End {
        let (stop, stopped) = oneshot::channel();
        let running = agent::run(plan.client, plan.agent, surroundings(), until(stopped));
        let mut running = Box::pin(running);
        let end = loop {
            let told = tokio::select! {
                biased;
                told = self.signals.next() => told,
                ended = &mut running => return End::Itself(ended),
            };
            match told {
                Told::Stop(_) => break End::Stopped,
                Told::Reload => {
                    if let Some(next) = self.reload(said, settings) {
                        break End::Reloaded(Box::new(next));
                    }
                }
            }
        };
        drop(stop);
        tokio::select! {
            biased;
            ended = timeout(STOP_MAX, &mut running) => match ended {
                Ok(Ok(())) => end,
                Ok(Err(why)) => End::Itself(Err(why)),
                Err(_) => {
                    tracing::warn!("the lock or the service could not be given back in time; both run out by themselves");
                    end
                }
            },
            // Who asks twice wants it now.
            () = self.signals.stop() => End::Stopped,
        }
    }

    /// Reads everything again; what to go on with, unless this agent may go on as it is.
    fn reload(&mut self, said: &Said, settings: &Settings) -> Option<(Said, Settings, Plan)> {
        let read = Said::read(self.parsed).and_then(|said| {
            let settings = said.settle(self.console)?;
            let plan = Plan::new(&settings)?;
            Ok((said, settings, plan))
        });
        let next = match read {
            Ok((_, _, plan)) if plan.is_single => {
                tracing::error!(
                    "the configuration is not used: snapshot.interval can't become 0 while the agent runs"
                );
                return None;
            }
            Ok(next) => next,
            Err(why) => {
                tracing::error!("the configuration is not used: {why}");
                return None;
            }
        };
        self.log.set_level(next.1.log_level);
        let mut changed = next.0.differences(said);
        let late = |key: &str| key == "log.enable_syslog" || key == "log.syslog_facility";
        if changed.iter().any(|key| late(key)) && next.1.syslog != settings.syslog {
            tracing::warn!("syslog is only set up at the start of the agent");
        }
        changed.retain(|key| !key.starts_with("log."));
        // What these files hold may have changed as well.
        if changed.is_empty() && next.1.client.tls == Tls::default() {
            tracing::info!("the configuration was read again; the agent goes on");
            return None;
        }
        tracing::info!(
            "the configuration was read again; the agent begins anew with it: {}",
            match changed.as_slice() {
                [] => "certificates".to_owned(),
                changed => changed.join(", "),
            }
        );
        Some(next)
    }
}

fn tell(settings: &Settings) {
    for word in &settings.words {
        tracing::warn!("{word}");
    }
}

fn surroundings() -> Surroundings {
    Surroundings::system(rand::random())
}

/// Returns when the other end is dropped.
async fn until(stopped: oneshot::Receiver<()>) {
    let _ = stopped.await;
}
