//! Where a snapshot agent is run, and what happens to it there: all of it from its seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backup::Retention;
use backup::agent::{AgentError, Checking, Clock, Place, Settings, Surroundings};
use client::{Client, Config};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep, timeout};

use super::LOCK_KEY;
use super::depot::{Depot, EPOCH};
use super::machine::{Host, Loopback};
use super::process::Process;
use super::witness::Witness;
use crate::check::Violation;
use crate::history::backups::What;
use crate::world::World;

/// How long a process may take to end when it is told to.
const END_MAX: Duration = Duration::from_secs(120);

/// What may happen to processes in this life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mishaps {
    pub(super) kills: bool,
    pub(super) ends: bool,
    pub(super) stops: bool,
    pub(super) hosts: bool,
    pub(super) clocks: bool,
}

impl Mishaps {
    fn any(self) -> bool {
        self.kills || self.ends || self.stops || self.hosts || self.clocks
    }
}

/// What all agents of a life are told.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) interval: Duration,
    pub(super) stale: bool,
    pub(super) max_failures: u32,
    pub(super) retentions: Vec<Retention>,
}

/// One snapshot agent with all that happens to it.
pub(super) struct Post {
    pub(super) host: Arc<Host>,
    pub(super) depots: Vec<Arc<Depot>>,
    pub(super) orders: Orders,
    pub(super) mishaps: Mishaps,
    pub(super) world: World,
    pub(super) witness: Witness,
    pub(super) chance: ChaCha8Rng,
    /// By how many milliseconds its machine's clock is wrong.
    pub(super) off_ms: Arc<AtomicI64>,
}

/// A process that runs.
struct Running {
    process: Process,
    task: JoinHandle<Result<(), AgentError>>,
    stop: oneshot::Sender<()>,
}

impl Post {
    /// Runs it until the end of all.
    pub(super) async fn run(mut self) {
        if let Err(violation) = self.live().await {
            self.world.violate(violation);
        }
    }

    async fn live(&mut self) -> Result<(), Violation> {
        loop {
            let running = self.start()?;
            let Some(pause) = self.attend(running).await? else {
                return Ok(());
            };
            self.rest(pause).await;
        }
    }

    fn start(&mut self) -> Result<Running, Violation> {
        let process = self.witness.new_process(self.host.machine.place);
        let broken = |why: String| Violation::new("a snapshot agent can start", why);
        let loopback = Loopback {
            host: Arc::clone(&self.host),
            process: process.clone(),
            witness: Some(self.witness.clone()),
        };
        let client = Client::over(loopback, Config::default());
        let client = client.map_err(|why| broken(why.to_string()))?;
        let places = self.depots.iter().zip(&self.orders.retentions);
        let settings = Settings {
            interval: self.orders.interval,
            stale: self.orders.stale,
            max_failures: self.orders.max_failures,
            lock_key: LOCK_KEY.to_owned(),
            places: places
                .map(|(depot, retention)| Place {
                    store: depot.open(&process),
                    retention: *retention,
                })
                .collect(),
            ..Settings::default()
        };
        let (begun, off_ms) = (Instant::now(), Arc::clone(&self.off_ms));
        let since = Duration::from_nanos(self.witness.now());
        let clock = Clock::new(move || {
            let now = EPOCH + since + begun.elapsed();
            let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            now.saturating_add_signed(off_ms.load(Ordering::Relaxed) * 1_000_000)
        });
        let surroundings = Surroundings {
            clock,
            seed: self.chance.random(),
            checking: Checking::InPlace,
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // The post itself ends only with everything else.
            let _ = stopped.await;
        };
        self.witness.notes(&process, What::Began);
        let work = backup::agent::run(client, settings, surroundings, stopped);
        let task = tokio::spawn(process.run(work));
        Ok(Running {
            process,
            task,
            stop,
        })
    }

    /// Sees to it until something ends it; says after how long it is started again, if ever.
    async fn attend(&mut self, running: Running) -> Result<Option<Duration>, Violation> {
        let Running {
            process,
            mut task,
            stop,
        } = running;
        loop {
            let quiet = self.chance.random_range(1_000..40_000);
            let end = Instant::now() + Duration::from_millis(quiet);
            while Instant::now() < end && !self.world.ends() {
                tokio::select! {
                    biased;
                    ended = &mut task => return Err(self.went(&process, ended)),
                    () = sleep(Duration::from_millis(500)) => {}
                }
            }
            if self.world.ends() {
                self.end(&process, task, stop).await?;
                return Ok(None);
            }
            // Who leads has more to fear.
            let is_spared = !self.witness.leads(&process) && self.chance.random_bool(0.7);
            if is_spared || !self.mishaps.any() || self.world.with(|state| state.calms) {
                continue;
            }
            let from = self.witness.now();
            match self.chance.random_range(0..8) {
                0..=2 if self.mishaps.kills => {
                    process.kill();
                    task.abort();
                    // It was cancelled; what it held is dropped.
                    let _ = task.await;
                    self.witness.notes(&process, What::Ended);
                    let pause = self.chance.random_range(100..60_000);
                    return Ok(Some(Duration::from_millis(pause)));
                }
                3 if self.mishaps.ends => {
                    self.end(&process, task, stop).await?;
                    let pause = self.chance.random_range(100..20_000);
                    return Ok(Some(Duration::from_millis(pause)));
                }
                4 if self.mishaps.stops => {
                    let length = self.chance.random_range(200..90_000);
                    process.stop();
                    self.rest(Duration::from_millis(length)).await;
                    process.go_on();
                    self.witness.stood_still(&process, from);
                }
                5 if self.mishaps.hosts => {
                    self.host.kill();
                    let length = self.chance.random_range(200..30_000);
                    self.rest(Duration::from_millis(length)).await;
                    self.host.start(&mut self.chance).await?;
                    self.witness.troubled(from);
                }
                6 | 7 if self.mishaps.clocks => {
                    let off = self.chance.random_range(-600_000..600_000);
                    self.off_ms.store(off, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }

    async fn end(
        &self,
        process: &Process,
        task: JoinHandle<Result<(), AgentError>>,
        stop: oneshot::Sender<()>,
    ) -> Result<(), Violation> {
        let from = self.witness.now();
        // It may have ended by itself, which its task tells.
        let _ = stop.send(());
        let property = "a snapshot agent ends when it is told to";
        let who = process.number;
        let ended = match timeout(END_MAX, task).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(why))) => Err(Violation::new(property, format!("process {who}: {why}"))),
            Ok(Err(why)) => Err(Violation::new(property, format!("process {who}: {why}"))),
            Err(_) => Err(Violation::new(
                property,
                format!("process {who} goes on for more than {END_MAX:?}, from {from}"),
            )),
        };
        process.kill();
        self.witness.notes(process, What::Ended);
        ended
    }

    fn went(
        &self,
        process: &Process,
        ended: Result<Result<(), AgentError>, JoinError>,
    ) -> Violation {
        self.witness.notes(process, What::Ended);
        Violation::new(
            "a snapshot agent goes on",
            format!("process {} has ended: {ended:?}", process.number),
        )
    }

    /// Waits, but no longer than there is trouble.
    async fn rest(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end && !self.world.with(|state| state.calms || state.ends) {
            let left = end - Instant::now();
            sleep(left.min(Duration::from_millis(500))).await;
        }
    }
}
