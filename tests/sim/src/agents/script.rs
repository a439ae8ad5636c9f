//! What happens to the services and checks of one agent, and to the agent: all of it from its seed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::definition::{CheckDefinition, CheckKind, ServiceDefinition, Status};
use agent::{Definitions, LocalError};
use model::{Pairs, Service, Text};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep, timeout};

use super::truth::Truth;
use super::{Agent, Machine};
use crate::check::Violation;
use crate::check::catalog::Expected;

/// An update interval so long that an output may be on its way when all is over.
pub(super) const LONG: Duration = Duration::from_secs(300);

/// A TTL that never runs out in a life.
const HOUR: Duration = Duration::from_secs(3600);

/// Different services that one agent may have.
const SERVICES: u32 = 6;

/// What others may know of an agent.
#[derive(Default)]
pub(super) struct Standing {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<(agent::Local, Truth)>,
    has_left: bool,
    counts: Counts,
}

/// What happened to agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes that were made to services and checks.
    pub acts: u64,
    /// Those of them that the agent did not answer in the time of whoever asked.
    pub unanswered: u64,
    /// Agents that were killed and started again.
    pub restarts: u64,
    /// Agents that have left, some of them for good.
    pub leaves: u64,
    /// Agents that were cut off or paused.
    pub cuts: u64,
}

/// What is to be found of an agent.
pub(super) enum Found {
    /// Nothing: it has left.
    Gone,
    /// This.
    Here(Box<Expected>),
    /// It is starting.
    Unknown,
}

impl Standing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// What the catalog should say now, if the agent itself knows it.
    pub(super) fn look(&self, machine: &Machine) -> Result<Found, Violation> {
        let mut state = self.state();
        if state.has_left {
            return Ok(Found::Gone);
        }
        let Some((local, truth)) = &mut state.running else {
            return Ok(Found::Unknown);
        };
        truth.tick(Instant::now());
        let expected = machine.expected(truth, local);
        machine.is_aware(&expected, local)?;
        Ok(Found::Here(Box::new(expected)))
    }
}

/// How a run of an agent ends.
enum End {
    Killed,
    Leaves {
        for_good: bool,
    },
    /// It doesn't: all trouble is over.
    Stays,
}

/// One agent with all that happens to it.
pub(super) struct Script {
    pub(super) machine: Arc<Machine>,
    pub(super) standing: Arc<Standing>,
    pub(super) chance: ChaCha8Rng,
    /// What its files define; they stay when it is killed.
    pub(super) files: Definitions,
    pub(super) meta: Pairs,
    said: u64,
}

impl Script {
    pub(super) fn new(
        machine: Arc<Machine>,
        standing: Arc<Standing>,
        mut chance: ChaCha8Rng,
    ) -> Self {
        let files = definitions(&mut chance);
        let meta = meta(&mut chance);
        Self {
            machine,
            standing,
            chance,
            files,
            meta,
            said: 0,
        }
    }

    /// Goes on until the end of the life.
    pub(super) async fn run(mut self) {
        if let Err(violation) = self.go_on().await {
            self.machine.world.violate(violation);
        }
    }

    fn calms(&self) -> bool {
        self.machine.world.with(|state| state.calms)
    }

    async fn go_on(&mut self) -> Result<(), Violation> {
        loop {
            let machine = Arc::clone(&self.machine);
            let begun = Instant::now();
            let (files, meta) = (self.files.clone(), self.meta.clone());
            let agent = machine
                .start(files.clone(), meta.clone(), &mut self.chance)
                .await?;
            let truth = Truth::new(files, meta, begun);
            {
                let mut state = self.standing.state();
                state.running = Some((agent.local.clone(), truth));
                state.has_left = false;
            }
            let end = self.act(&agent).await?;
            if !matches!(end, End::Stays) {
                self.standing.state().running = None;
            }
            let rest = match end {
                End::Stays => {
                    while !machine.world.ends() {
                        sleep(Duration::from_millis(500)).await;
                    }
                    machine.kill(agent);
                    return Ok(());
                }
                End::Killed => {
                    self.told("is killed", |counts| counts.restarts += 1);
                    machine.kill(agent);
                    self.chance.random_range(10..15_000)
                }
                End::Leaves { for_good } => {
                    self.told("leaves", |counts| counts.leaves += 1);
                    machine.leave(agent).await;
                    self.standing.state().has_left = true;
                    if for_good {
                        return Ok(());
                    }
                    self.chance.random_range(500..15_000)
                }
            };
            self.rest(Duration::from_millis(rest)).await;
        }
    }

    /// Waits, but no longer than there is trouble.
    async fn rest(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end && !self.calms() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn told(&self, what: &str, count: impl FnOnce(&mut Counts)) {
        let name = self.machine.name();
        self.machine
            .world
            .tell("agent", || format!("{name} {what}"));
        count(&mut self.standing.state().counts);
    }

    /// Changes things until something happens to the agent, or nothing happens any more.
    async fn act(&mut self, agent: &Agent) -> Result<End, Violation> {
        loop {
            let pause = Duration::from_millis(self.chance.random_range(20..2_000));
            self.rest(pause).await;
            if self.calms() {
                return Ok(End::Stays);
            }
            match self.chance.random_range(0..100) {
                0..=2 => return Ok(End::Killed),
                3 if self.machine.has_gossip => {
                    let for_good = self.chance.random_bool(0.3);
                    return Ok(End::Leaves { for_good });
                }
                4..=6 => self.cut(),
                7..=8 => self.pause().await,
                _ => self.change(agent).await?,
            }
        }
    }

    /// The agent and the servers don't hear each other, or one of the two doesn't, until the network is mended.
    fn cut(&mut self) {
        self.told("is cut off", |counts| counts.cuts += 1);
        let place = self.machine.place;
        let (out, back) = match self.chance.random_range(0..4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        for server in 0..self.machine.servers {
            if out {
                self.machine.network.cut(place, server);
            }
            if back {
                self.machine.network.cut(server, place);
            }
        }
        let length = Duration::from_millis(self.chance.random_range(100..20_000));
        let machine = Arc::clone(&self.machine);
        tokio::spawn(async move {
            sleep(length).await;
            machine.network.mend();
        });
    }

    /// What it sends is late, and so is what it is sent.
    async fn pause(&mut self) {
        self.told("is paused", |counts| counts.cuts += 1);
        let length = Duration::from_millis(self.chance.random_range(100..8_000));
        self.machine.network.pause(self.machine.place, length);
        self.rest(length).await;
        self.machine.network.resume(self.machine.place);
    }

    /// Does one thing to the services and checks, to the agent and to the truth.
    async fn change(&mut self, agent: &Agent) -> Result<(), Violation> {
        let now = Instant::now();
        let local = agent.local.clone();
        let standing = Arc::clone(&self.standing);
        let truth = |change: &mut dyn FnMut(&mut Truth)| {
            if let Some((_, truth)) = &mut standing.state().running {
                truth.tick(now);
                change(truth);
            }
        };
        let (what, done): (String, BoxedAct) = match self.chance.random_range(0..16) {
            0..=2 => {
                let definition = service(&mut self.chance);
                truth(&mut |truth| truth.register_service(definition.clone(), now));
                let what = format!("registers {definition:?}");
                (
                    what,
                    Box::pin(async move { local.register_service(definition).await }),
                )
            }
            3 => {
                let id = Text::from(service_id(&mut self.chance));
                truth(&mut |truth| truth.remove_service(&id));
                let what = format!("deregisters service {id}");
                (
                    what,
                    Box::pin(async move { local.deregister_service(id).await }),
                )
            }
            4..=5 => {
                let Some(definition) = self.check() else {
                    return Ok(());
                };
                truth(&mut |truth| truth.register_check(definition.clone(), now));
                let what = format!("registers {definition:?}");
                (
                    what,
                    Box::pin(async move { local.register_check(definition).await }),
                )
            }
            6 => {
                let Some(id) = self.some_check(false) else {
                    return Ok(());
                };
                truth(&mut |truth| truth.remove_check(&id));
                let what = format!("deregisters check {id}");
                (
                    what,
                    Box::pin(async move { local.deregister_check(id).await }),
                )
            }
            7 => {
                let is_on = self.chance.random_bool(0.5);
                let reason = Text::from(format!("reason {}", self.chance.random_range(0..3)));
                let service = self.some_service().filter(|_| self.chance.random_bool(0.7));
                truth(&mut |truth| truth.maintain(service.as_ref(), &reason, is_on));
                let what = format!("maintenance of {service:?}: {is_on}");
                let act = async move {
                    let (reason, token) = (Some(reason), Text::default());
                    match service {
                        Some(id) => local.service_maintenance(id, reason, is_on, token).await,
                        None => local.node_maintenance(reason, is_on, token).await,
                    }
                };
                (what, Box::pin(act))
            }
            8 => {
                self.files = definitions(&mut self.chance);
                self.meta = meta(&mut self.chance);
                let (files, meta) = (self.files.clone(), self.meta.clone());
                truth(&mut |truth| truth.reload(files.clone(), meta.clone(), now));
                let what = format!("reloads {files:?} {meta:?}");
                (
                    what,
                    Box::pin(async move { local.reload(files, meta).await }),
                )
            }
            flip => {
                let Some(id) = self.some_check(true) else {
                    return Ok(());
                };
                // Most often it says what it said, and something beside it.
                let status = if flip < 13 {
                    self.status()
                } else {
                    Status::Passing
                };
                self.said += 1;
                let output = Text::from(format!("output {}", self.said));
                truth(&mut |truth| truth.say(&id, status, output.clone(), now));
                let what = format!("{id} says {status:?}, {output}");
                (
                    what,
                    Box::pin(async move { local.update_ttl(id, status, output).await }),
                )
            }
        };
        self.told(&what, |counts| counts.acts += 1);
        // Whoever asks doesn't always wait for the answer; what was asked is done all the same.
        let patience = Duration::from_millis(self.chance.random_range(1..4_000));
        match timeout(patience, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(Violation::new(
                "an agent does what it is told",
                format!("{} {what}: {why}", self.machine.name()),
            )),
            Err(_) => {
                self.standing.state().counts.unanswered += 1;
                Ok(())
            }
        }
    }

    fn status(&mut self) -> Status {
        [Status::Passing, Status::Warning, Status::Critical][self.chance.random_range(0..3)]
    }

    /// A check that there is, perhaps only one that waits to be told.
    fn some_check(&mut self, is_told: bool) -> Option<Text> {
        let ids: Vec<Text> = {
            let state = self.standing.state();
            let (_, truth) = state.running.as_ref()?;
            let words = truth.checks.iter();
            let words = words.filter(|(_, word)| !is_told || word.ttl.is_some());
            words.map(|(id, _)| id.clone()).collect()
        };
        pick(&ids, &mut self.chance)
    }

    fn some_service(&mut self) -> Option<Text> {
        let ids: Vec<Text> = {
            let state = self.standing.state();
            let (_, truth) = state.running.as_ref()?;
            truth.services.keys().cloned().collect()
        };
        pick(&ids, &mut self.chance)
    }

    /// A check of its own, of the node or of a service that there is.
    fn check(&mut self) -> Option<CheckDefinition> {
        let service_id = if self.chance.random_bool(0.4) {
            Text::default()
        } else {
            self.some_service()?
        };
        let number = self.chance.random_range(0..4);
        Some(CheckDefinition {
            id: Text::from(format!("check-{number}")),
            name: Text::from(format!("Check {number}")),
            service_id,
            ..check(&mut self.chance)
        })
    }
}

type BoxedAct = std::pin::Pin<Box<dyn Future<Output = Result<(), LocalError>> + Send>>;

fn pick(ids: &[Text], chance: &mut ChaCha8Rng) -> Option<Text> {
    (!ids.is_empty()).then(|| ids[chance.random_range(0..ids.len())].clone())
}

fn service_id(chance: &mut ChaCha8Rng) -> String {
    format!("service-{}", chance.random_range(0..SERVICES))
}

fn service(chance: &mut ChaCha8Rng) -> ServiceDefinition {
    let tag = |number: u32| Text::from(format!("tag-{number}"));
    let tags = match chance.random_range(0..4) {
        0 => None,
        1 => Some(Vec::new()),
        _ => Some(vec![
            tag(chance.random_range(0..3)),
            tag(chance.random_range(3..6)),
        ]),
    };
    let id = service_id(chance);
    ServiceDefinition {
        service: Service {
            name: Text::from(["web", "db"][chance.random_range(0..2)]),
            id: Text::from(id),
            tags,
            address: Text::default(),
            port: chance.random_range(0..4),
            enable_tag_override: chance.random_bool(0.15),
            ..Service::default()
        },
        checks: (0..chance.random_range(0..3))
            .map(|_| check(chance))
            .collect(),
        token: Text::default(),
    }
}

/// A check that waits to be told, for some only seconds.
fn check(chance: &mut ChaCha8Rng) -> CheckDefinition {
    let ttl = if chance.random_bool(0.7) {
        HOUR
    } else {
        Duration::from_millis(chance.random_range(2_000..40_000))
    };
    CheckDefinition {
        notes: Text::from(format!("notes {}", chance.random_range(0..2))),
        status: [None, Some(Status::Passing), Some(Status::Warning)][chance.random_range(0..3)],
        kind: Some(CheckKind::Ttl(ttl)),
        ..CheckDefinition::default()
    }
}

fn definitions(chance: &mut ChaCha8Rng) -> Definitions {
    let mut services: Vec<ServiceDefinition> = Vec::new();
    for _ in 0..chance.random_range(0..4) {
        let definition = service(chance);
        if services
            .iter()
            .all(|it| it.service.id != definition.service.id)
        {
            services.push(definition);
        }
    }
    let mut checks = Vec::new();
    if chance.random_bool(0.5) {
        checks.push(CheckDefinition {
            id: Text::from("file-check"),
            name: Text::from("A check from a file"),
            service_id: match services.first() {
                Some(first) if chance.random_bool(0.5) => first.service.id.clone(),
                _ => Text::default(),
            },
            ..check(chance)
        });
    }
    Definitions { services, checks }
}

fn meta(chance: &mut ChaCha8Rng) -> Pairs {
    let count = chance.random_range(0..3);
    (0..count)
        .map(|number| {
            let value = chance.random_range(0..3);
            (
                Text::from(format!("meta-{number}")),
                Text::from(format!("{value}")),
            )
        })
        .collect()
}
