//! The task that owns this node's services and checks.
//!
//! [`Running::wake`] names every way in which it can wake, [`Running::apply`] is where everything changes, and [`Running::go_on`] begins what is to be begun.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLockWriteGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use model::{CatalogNode, Command, Deregister, Error, HealthNode, Reply, Text};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::{Cluster, ReadOptions, WriteOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::files::{self, Batch, Kept};
use super::state::{Effect, State};
use super::sync::{Catalog, Outcome, Push, Schedule, Task, compare};
use super::{Ask, Definitions, LocalConfig, LocalError, Shared, Want};
use crate::checks::{self, Report, Runner};

/// How many reports of checks may wait; a runner that finds no room waits with its next question.
const REPORTS_MAX: usize = 256;

/// How many handles may wait for disk or servers; further ones are not heard before one of these is answered.
const WAITERS_MAX: usize = 4096;

/// How long the servers may take for anything. What they do after that is seen when everything is compared.
const FLIGHT_TIME_MAX: Duration = Duration::from_secs(60);

/// How long something may wait for the disk that only says for longer what is there already.
const PATIENCE: Duration = Duration::from_secs(1);

/// What changes this node's services and checks, runs the checks, and keeps the catalog true.
pub struct Keeper {
    config: LocalConfig,
    asked: mpsc::Receiver<Ask>,
    shared: Arc<Shared>,
    /// Until when the servers are left in peace.
    joined: Option<oneshot::Receiver<()>>,
}

impl Keeper {
    pub(super) fn new(
        config: LocalConfig,
        asked: mpsc::Receiver<Ask>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            config,
            asked,
            shared,
            joined: None,
        }
    }

    /// Asks the servers for nothing until this is heard, or nobody is left who could say it: an agent that has not joined
    /// knows none, and would wait long before it asks again.
    pub fn once(mut self, joined: oneshot::Receiver<()>) -> Self {
        self.joined = Some(joined);
        self
    }

    /// Registers what is defined and what is kept on disk, says in `started` how that went, and keeps the catalog true until it is dropped or all handles are.
    ///
    /// `members` tells how many members the datacenter has: the more they are, the less often each compares everything.
    /// The servers are asked at once, unless [`Keeper::once`] says when.
    pub async fn run(
        mut self,
        cluster: Cluster,
        definitions: Definitions,
        members: impl Fn() -> usize + Send,
        started: oneshot::Sender<Result<(), LocalError>>,
    ) {
        let kept = match self.config.data_dir.clone() {
            Some(data_dir) => aside(move || files::load(&data_dir)).await,
            None => Kept::default(),
        };
        let joined = self.joined.take();
        let mut running = Running::new(self, cluster);
        let now = Instant::now();
        let loaded = running.change(|state| state.load(definitions, kept, now));
        let is_loaded = loaded.is_ok();
        // Whoever started this may have given up already, and then drops it soon.
        let _ = started.send(loaded);
        if is_loaded {
            if let Some(joined) = joined {
                let _ = joined.await;
            }
            running.run(&members).await;
        }
    }
}

/// Does something that may wait for the disk, where nobody else waits for it.
///
/// Never reached without a data directory, so that a simulation has no thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_) => futures::future::pending().await,
        },
    }
}

/// A keeper at work.
struct Running {
    config: LocalConfig,
    cluster: Cluster,
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Ask>,
    runners: BTreeMap<Text, Runner>,
    reports: mpsc::Sender<Report>,
    reported: mpsc::Receiver<Report>,
    chance: StdRng,
    schedule: Schedule,
    /// What the servers were asked or told last and haven't answered yet.
    flight: Option<Flight>,
    /// What goes to disk next.
    batch: Batch,
    /// When that has waited long enough, if nobody waits for it.
    batch_due: Option<Instant>,
    /// Whether somebody waits for it.
    batch_is_urgent: bool,
    /// The number of that batch.
    batch_number: u64,
    /// What is on its way to the disk; it becomes the outcome.
    writing: Option<BoxFuture<'static, io::Result<()>>>,
    waiters: Vec<Waiter>,
}

/// Something that the servers have been asked or told.
struct Flight {
    /// The lowest position of what is told; `None` when everything is being compared.
    oldest: Option<u64>,
    landing: BoxFuture<'static, Landed>,
}

/// What the servers answered.
enum Landed {
    Compared(Result<Catalog, Error>),
    Pushed(Box<Push>, Result<Reply, Error>),
}

/// A handle that gets its answer when its change is on disk and told.
struct Waiter {
    answer: oneshot::Sender<Result<(), LocalError>>,
    /// The batch that has to be on disk; 0 for none.
    batch: u64,
    /// The position in the queue that has to be told; 0 for none.
    position: u64,
    outcome: Result<(), LocalError>,
}

/// Why the keeper woke.
enum Wake {
    Landed(Landed),
    Written(io::Result<()>),
    Reported(Report),
    Asked(Ask),
    ServersChanged,
    /// Something may be due.
    Timer,
    /// All handles are gone.
    Closed,
}

impl Running {
    fn new(keeper: Keeper, cluster: Cluster) -> Self {
        let Keeper {
            config,
            asked,
            shared,
            joined: _,
        } = keeper;
        let mut chance = StdRng::seed_from_u64(config.seed.wrapping_add(1));
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        Self {
            schedule: Schedule::new(Instant::now(), chance.random()),
            config,
            cluster,
            shared,
            asked,
            runners: BTreeMap::new(),
            reports,
            reported,
            chance,
            flight: None,
            batch: Batch::default(),
            batch_due: None,
            batch_is_urgent: false,
            batch_number: 1,
            writing: None,
            waiters: Vec::new(),
        }
    }

    async fn run(mut self, members: &(impl Fn() -> usize + Send)) {
        loop {
            let now = Instant::now();
            self.change(|state| state.tick(now));
            self.go_on(now);
            match self.wake().await {
                Wake::Closed => break,
                wake => self.apply(wake, members()),
            }
        }
        self.runners.clear();
        // What somebody was told is kept, is kept.
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        if let Some(writing) = self.write() {
            let _ = writing.await;
        }
    }

    /// Whether what waits for the disk should go there now.
    fn is_batch_due(&self, now: Instant) -> bool {
        self.batch_is_urgent || self.batch_due.is_some_and(|at| at <= now)
    }

    /// Begins what is to be begun.
    fn go_on(&mut self, now: Instant) {
        if self.flight.is_none() {
            let waits = !self.state().queue.is_empty();
            self.flight = match self.schedule.next(now, waits) {
                Some(Task::Compare) => Some(self.compare()),
                Some(Task::Push) => self.push(),
                None => None,
            };
        }
        if self.writing.is_none() && self.is_batch_due(now) {
            self.writing = self.write();
        }
        self.answer();
    }

    /// Every way to wake. What others wait for comes first; who asks comes after what was asked before.
    async fn wake(&mut self) -> Wake {
        // While the servers are busy with one thing, nothing else is begun.
        let begins = self.flight.is_none().then(|| self.schedule.next_at());
        let happens = self.shared.state().next_deadline();
        let writes = self.batch_due.filter(|_| self.writing.is_none());
        let timer = begins.into_iter().chain(happens).chain(writes).min();
        let has_room = self.waiters.len() < WAITERS_MAX;
        tokio::select! {
            biased;
            landed = landing(&mut self.flight) => {
                self.flight = None;
                Wake::Landed(landed)
            }
            written = until(&mut self.writing) => {
                self.writing = None;
                Wake::Written(written)
            }
            () = self.shared.servers_changed.notified() => Wake::ServersChanged,
            Some(report) = self.reported.recv() => Wake::Reported(report),
            ask = self.asked.recv(), if has_room => ask.map_or(Wake::Closed, Wake::Asked),
            () = sleep_until(timer) => Wake::Timer,
        }
    }

    /// Every change.
    fn apply(&mut self, wake: Wake, members: usize) {
        let now = Instant::now();
        match wake {
            Wake::Landed(Landed::Compared(catalog)) => self.compared(catalog, now, members),
            Wake::Landed(Landed::Pushed(push, answer)) => self.pushed(*push, answer, now, members),
            Wake::Written(outcome) => self.written(outcome),
            Wake::Reported(report) => {
                let Report {
                    id,
                    generation,
                    status,
                    output,
                } = report;
                self.change(|state| state.report(&id, generation, status, output, now));
            }
            Wake::Asked(ask) => self.asked(ask, now),
            Wake::ServersChanged => self.schedule.servers_changed(now, members),
            Wake::Timer | Wake::Closed => {}
        }
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.shared.state()
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        let state = self.shared.state.write();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and sees to it that what follows from the change is done.
    fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
        let (changed, effects, is_news) = {
            let mut state = self.state_mut();
            let marks = state.queue.marks();
            let changed = change(&mut state);
            let is_news = state.queue.marks() != marks;
            (changed, state.take_effects(), is_news)
        };
        if is_news {
            self.schedule.want();
        }
        for effect in effects {
            self.carry_out(effect);
        }
        changed
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Run {
                key,
                id,
                generation,
                kind,
            } => {
                // The earlier one first: it may hold what this one needs.
                self.runners.remove(&key);
                let reports = self.reports.clone();
                let chance = self.chance.random();
                let config = &self.config.checks;
                let runner = checks::start(id, generation, &kind, config, reports, chance);
                self.runners.insert(key, runner);
            }
            Effect::Halt(key) => {
                self.runners.remove(&key);
            }
            Effect::Keep(edit) => {
                if self.config.data_dir.is_some() {
                    self.batch.add(&edit);
                    self.batch_is_urgent |= !edit.may_wait();
                    self.batch_due
                        .get_or_insert_with(|| Instant::now() + PATIENCE);
                }
            }
        }
    }

    /// Does what a handle wants, and answers it now or when it is on disk and told.
    fn asked(&mut self, ask: Ask, now: Instant) {
        let Ask {
            what,
            bearer,
            answer,
        } = ask;
        let is_reload = matches!(what, Want::Reload { .. });
        let outcome = self.change(|state| {
            state.guard(&what, &bearer)?;
            state.fulfil(what, now)
        });
        let (outcome, position) = match outcome {
            Ok(position) => (Ok(()), position),
            Err(why) => (Err(why), 0),
        };
        if is_reload && outcome.is_ok() {
            self.schedule.want_comparison(now);
        }
        self.waiters.push(Waiter {
            answer,
            batch: if self.batch_is_urgent {
                self.batch_number
            } else {
                0
            },
            position: if is_reload { 0 } else { position },
            outcome,
        });
    }

    /// Answers those for whom nothing is left to wait for.
    fn answer(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let in_flight = self.flight.as_ref().and_then(|flight| flight.oldest);
        let waiting = self.state().queue.oldest();
        let oldest = in_flight.into_iter().chain(waiting).min();
        let on_disk = match &self.writing {
            // The batch on its way is the one before that which is being filled.
            Some(_) => self.batch_number.saturating_sub(2),
            None => self.batch_number.saturating_sub(1),
        };
        let is_done = |waiter: &mut Waiter| {
            waiter.batch <= on_disk && oldest.is_none_or(|oldest| waiter.position < oldest)
        };
        for waiter in self.waiters.extract_if(.., is_done) {
            // Whoever asked may have gone.
            let _ = waiter.answer.send(waiter.outcome);
        }
    }

    /// Sends what is to be kept to the disk.
    fn write(&mut self) -> Option<BoxFuture<'static, io::Result<()>>> {
        if self.batch.is_empty() {
            return None;
        }
        let data_dir: PathBuf = self.config.data_dir.clone()?;
        let batch = std::mem::take(&mut self.batch);
        self.batch_number += 1;
        (self.batch_due, self.batch_is_urgent) = (None, false);
        Some(Box::pin(aside(move || batch.write(&data_dir))))
    }

    fn written(&mut self, outcome: io::Result<()>) {
        let Err(error) = outcome else {
            return;
        };
        let number = self.batch_number - 1;
        for waiter in &mut self.waiters {
            if waiter.batch == number && waiter.outcome.is_ok() {
                waiter.outcome = Err(LocalError::NotKept(error.to_string()));
            }
        }
    }

    /// Asks the servers what they have.
    fn compare(&self) -> Flight {
        let cluster = self.cluster.clone();
        let (node, token) = {
            let state = self.state();
            (state.node.name.clone(), state.agent_token.clone())
        };
        let asking = async move {
            let options = ReadOptions {
                token,
                ..ReadOptions::default()
            };
            let question = CatalogNode { node: node.clone() };
            let found = cluster.read(question, options.clone()).await?;
            let checks = cluster.read(HealthNode { node }, options).await?;
            Ok(Catalog {
                node: found.answer,
                checks: checks.answer,
            })
        };
        let landing = async { Landed::Compared(in_time(asking).await) };
        Flight {
            oldest: None,
            landing: Box::pin(landing),
        }
    }

    fn compared(&mut self, catalog: Result<Catalog, Error>, now: Instant, members: usize) {
        match catalog {
            Ok(catalog) => {
                self.change(|state| {
                    let differences = compare(state, &catalog);
                    state.take_over(differences);
                });
                self.schedule.compared(now, members);
            }
            Err(error) => {
                tracing::error!("cannot compare services and checks with the catalog: {error}");
                let is_refused = Outcome::of(&Err::<(), _>(error)) == Outcome::Refused;
                self.schedule.comparison_failed(now, members);
                if !is_refused {
                    // What can't be asked can't be told either.
                    self.schedule.give_up();
                    self.give_up();
                }
            }
        }
    }

    /// Tells the servers the next thing that waits.
    fn push(&mut self) -> Option<Flight> {
        let push = self.state_mut().next_push()?;
        let cluster = self.cluster.clone();
        let oldest = push.oldest();
        let landing = async move {
            let options = WriteOptions {
                token: push.token.clone(),
                ..WriteOptions::default()
            };
            let answer = in_time(cluster.write(push.command.clone(), options)).await;
            Landed::Pushed(Box::new(push), answer)
        };
        Some(Flight {
            oldest,
            landing: Box::pin(landing),
        })
    }

    fn pushed(&mut self, push: Push, answer: Result<Reply, Error>, now: Instant, members: usize) {
        let outcome = push.outcome(&answer);
        let subject = subject(&push.command);
        match answer {
            Ok(_) => tracing::info!("synced {subject}"),
            Err(error) if outcome == Outcome::Done => {
                tracing::info!("synced {subject}, which the servers knew already: {error}");
            }
            Err(error) if is_denied(&error) => {
                tracing::warn!("{subject}: registration blocked by ACLs: {error}");
            }
            Err(error) if outcome == Outcome::Refused => {
                tracing::warn!("the servers refuse to sync {subject}: {error}");
            }
            Err(error) => tracing::error!("cannot sync {subject}: {error}"),
        }
        self.state_mut().settle(push, outcome);
        if outcome == Outcome::Failed {
            self.schedule.push_failed(now, members);
            self.give_up();
        }
    }

    /// Nobody waits for the servers any longer: that they can't be told is no fault of those who asked.
    fn give_up(&mut self) {
        for waiter in &mut self.waiters {
            waiter.position = 0;
        }
    }
}

impl State {
    /// Does what a handle wants, and says the position in the queue of what the catalog has to be told; 0 for nothing.
    fn fulfil(&mut self, want: Want, now: Instant) -> Result<u64, LocalError> {
        match want {
            Want::RegisterService(definition) => self.register_service(*definition, now),
            Want::DeregisterService(id) => self.deregister_service(&id),
            Want::RegisterCheck(definition) => self.register_check(*definition, now),
            Want::DeregisterCheck(id) => self.deregister_check(&id),
            Want::UpdateTtl { id, status, output } => self.update_ttl(&id, status, output, now),
            Want::NodeMaintenance(maintenance) => self.node_maintenance(maintenance, now),
            Want::ServiceMaintenance { id, maintenance } => {
                self.service_maintenance(&id, maintenance, now)
            }
            Want::Reload {
                definitions,
                node_meta,
            } => self.reload(*definitions, node_meta, now).map(|()| 0),
        }
    }
}

/// Whether it is for want of a rule or a token.
fn is_denied(error: &Error) -> bool {
    matches!(
        error.kind(),
        Error::PermissionDenied | Error::PermissionDeniedBecause(_) | Error::AclNotFound
    )
}

/// What a command is about, for the log.
fn subject(command: &Command) -> String {
    match command {
        Command::Register(registration) => match (&registration.service, &*registration.checks) {
            (Some(service), _) => format!("service '{}'", service.id),
            (None, [check, ..]) => format!("check '{}'", check.check_id),
            (None, []) => "node info".to_owned(),
        },
        Command::Deregister(deregistration) => match &deregistration.what {
            Deregister::Service(id) => format!("the end of service '{id}'"),
            Deregister::Check(id) => format!("the end of check '{id}'"),
            Deregister::Node => "the end of the node".to_owned(),
        },
        _ => "something else".to_owned(),
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(FLIGHT_TIME_MAX, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Unavailable(format!(
            "the servers have not answered within {FLIGHT_TIME_MAX:?}"
        ))),
    }
}

async fn landing(flight: &mut Option<Flight>) -> Landed {
    match flight {
        Some(flight) => flight.landing.as_mut().await,
        None => futures::future::pending().await,
    }
}

async fn until(writing: &mut Option<BoxFuture<'static, io::Result<()>>>) -> io::Result<()> {
    match writing {
        Some(writing) => writing.as_mut().await,
        None => futures::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => futures::future::pending().await,
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

#[cfg(test)]
mod tests;
