//! A large pool in which little goes wrong: how long news take from one of many agents to the catalogs of all servers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agent::definition::{CheckDefinition, CheckKind, ServiceDefinition, Status};
use agent::{Definitions, LocalError};
use consensus::sim::Trace;
use model::{Check, NodeServices, Pairs, Service, Text};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use super::life::read;
use super::{Agent, Machine};
use crate::check::Violation;
use crate::cluster::Cluster;
use crate::life::{self, Failure, Plan};
use crate::network::Network;
use crate::world::World;

const SERVERS: usize = 3;

/// The place of the first agent.
const FIRST: usize = 10;

/// Services of each agent; each has a check that waits to be told.
const SERVICES: usize = 5;

/// Checks that fail one after the other.
const FAILURES: usize = 40;

/// Agents that are cut off, have a check that fails meanwhile, and return.
const RETURNS: usize = 4;

/// Within which all catalogs say that a check has failed: the agent tells it at once.
const NEWS_MAX: Duration = Duration::from_secs(1);

/// How long the catalogs may take after the return of an agent from a pool of that size: what could not be told is tried
/// again after 15 s and a part of 15 s, which larger pools stretch, and before that a call may hang.
fn return_max(agents: usize) -> Duration {
    const HANGS: Duration = Duration::from_secs(12);
    const RETRY: Duration = Duration::from_secs(15);
    RETRY + RETRY * if agents > 128 { 2 } else { 1 } + HANGS
}

/// How much longer it may take where gossip has to find its way back first.
const WAY_BACK_MAX: Duration = Duration::from_secs(30);

/// How long agents are away: too short to be missed by gossip, and long enough.
const ABSENCES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(40)];

/// A service that an agent takes away while it is cut off.
const FLEETING: &str = "fleeting";

/// What was measured, all of it in simulated time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Agents.
    pub agents: usize,
    /// From the start of the first agent until all catalogs had all services of all.
    pub registered: Duration,
    /// From a check's failure until all catalogs said so: the median, and the longest of all.
    pub news: (Duration, Duration),
    /// The same for an agent that was cut off, from its return: the longest of short absences, and of long ones.
    pub returned: (Duration, Duration),
    /// Simulated time from beginning to end.
    pub simulated: Duration,
    /// The hash of all that was sent.
    pub hash: u64,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "crowd: {} agents with {SERVICES} services each, {SERVERS} servers: all catalogs have all after {:.1} s; a failed check reaches all of them after {:.0} ms (at most {:.0} ms), and of an agent that was away for {} s at most {:.1} s after its return, for {} s {:.1} s",
            self.agents,
            self.registered.as_secs_f64(),
            ms(self.news.0),
            ms(self.news.1),
            ABSENCES[0].as_secs(),
            self.returned.0.as_secs_f64(),
            ABSENCES[1].as_secs(),
            self.returned.1.as_secs_f64(),
        )
    }
}

/// Lives the life of a pool with this many agents.
///
/// # Errors
/// The first promise that was broken.
pub fn crowd(plan: Plan, agents: usize) -> Result<Crowd, Box<Failure>> {
    life::block_on(plan, async {
        let trace = Trace::begin();
        let outcome = Box::pin(live(plan, agents, trace.clone())).await;
        (outcome, trace.hash().0)
    })
}

async fn live(plan: Plan, agents: usize, trace: Trace) -> Result<Crowd, Violation> {
    let mut chance = ChaCha8Rng::seed_from_u64(plan.seed);
    let begun = Instant::now();
    let network = Network::new(chance.random(), trace.clone());
    let world = World::new(network, trace, plan.is_told);
    let seed = ChaCha8Rng::seed_from_u64(chance.random());
    let mut cluster = Cluster::new(SERVERS, seed, world.clone()).with_gossip();
    cluster.bootstrap().await;
    cluster.form().await?;

    let started = Instant::now();
    let mut pool = Vec::new();
    for number in 0..agents {
        let machine = Machine {
            place: FIRST + number,
            servers: SERVERS,
            has_gossip: true,
            update_interval: super::script::LONG,
            network: world.network.clone(),
            world: world.clone(),
        };
        let agent = machine
            .start(definitions(), Pairs::new(), &mut chance)
            .await?;
        pool.push((machine, agent));
        sleep(Duration::from_millis(chance.random_range(1..30))).await;
    }
    let mut measured = Crowd {
        agents,
        registered: has_all(&world, &pool, started).await?,
        ..Crowd::default()
    };
    let mut news = Vec::new();
    for _ in 0..FAILURES {
        sleep(Duration::from_millis(chance.random_range(50..500))).await;
        let of = chance.random_range(0..agents);
        let check = check_id(chance.random_range(0..SERVICES));
        news.push(tell(&world, &pool[of], &check, NEWS_MAX).await?);
    }
    news.sort_unstable();
    measured.news = (news[news.len() / 2], news[news.len() - 1]);
    for round in 0..RETURNS {
        let of = chance.random_range(0..agents);
        let check = check_id(chance.random_range(0..SERVICES));
        let is_short = round % 2 == 0;
        let length = ABSENCES[usize::from(!is_short)];
        let back = be_away(&world, &pool, of, &check, length).await?;
        let longest = if is_short {
            &mut measured.returned.0
        } else {
            &mut measured.returned.1
        };
        *longest = back.max(*longest);
    }
    for (machine, agent) in pool {
        machine.kill(agent);
    }
    cluster.end().await;
    measured.simulated = begun.elapsed();
    measured.hash = world.network.pool_hash() ^ world.trace.hash().0;
    match world.with(|state| state.violation.take()) {
        Some(violation) => Err(violation),
        None => Ok(measured),
    }
}

fn definitions() -> Definitions {
    let service = |number| ServiceDefinition {
        service: Service {
            id: Text::from(format!("service-{number}")),
            name: Text::from(format!("service-{number}")),
            port: 8000,
            ..Service::default()
        },
        checks: vec![CheckDefinition {
            status: Some(Status::Passing),
            kind: Some(CheckKind::Ttl(Duration::from_secs(24 * 3600))),
            ..CheckDefinition::default()
        }],
        ..ServiceDefinition::default()
    };
    Definitions {
        services: (0..SERVICES).map(service).collect(),
        checks: Vec::new(),
    }
}

fn check_id(service: usize) -> Text {
    Text::from(format!("service:service-{service}"))
}

/// Waits until every catalog has all services of all agents with their checks, and sees them alive.
async fn has_all(
    world: &World,
    pool: &[(Machine, Agent)],
    started: Instant,
) -> Result<Duration, Violation> {
    const PATIENCE: Duration = Duration::from_secs(120);
    loop {
        let mut missing = 0;
        for front in world.with(|state| state.fronts.clone()).values() {
            for (machine, _) in pool {
                let is_there = match read(front, machine.name()).await {
                    Ok((Some(node), checks)) => {
                        node.services.len() == SERVICES && checks.len() == SERVICES + 1
                    }
                    Ok((None, _)) | Err(_) => false,
                };
                missing += usize::from(!is_there);
            }
        }
        if missing == 0 {
            return Ok(started.elapsed());
        }
        if started.elapsed() > PATIENCE {
            let what = format!("{missing} nodes are not as they should be");
            return Err(Violation::new("all agents are in all catalogs", what));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A check fails; how long it takes until all catalogs say so.
async fn tell(
    world: &World,
    (machine, agent): &(Machine, Agent),
    check: &Text,
    limit: Duration,
) -> Result<Duration, Violation> {
    let begun = Instant::now();
    say(agent, check);
    let what = format!("a failed check of {}", machine.name());
    until(&what, begun, limit, async || {
        all(world, machine, |_, checks| is_critical(checks, check)).await
    })
    .await
}

fn say(agent: &Agent, check: &Text) {
    let (local, check) = (agent.local.clone(), check.clone());
    // Whoever says so does not wait until the servers know.
    tokio::spawn(async move {
        let output = Text::from("out of order");
        local.update_ttl(check, Status::Critical, output).await
    });
}

fn is_critical(checks: &[Arc<Check>], id: &Text) -> bool {
    let found = checks.iter().find(|check| check.check_id == *id);
    found.is_some_and(|check| check.is_critical())
}

/// Whether this is true of what every catalog says of a node.
async fn all(
    world: &World,
    machine: &Machine,
    is_true: impl Fn(&NodeServices, &[Arc<Check>]) -> bool,
) -> bool {
    for front in world.with(|state| state.fronts.clone()).values() {
        match read(front, machine.name()).await {
            Ok((Some(node), checks)) if is_true(&node, &checks) => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

/// How long it takes until something is true, from `since`.
async fn until(
    what: &str,
    since: Instant,
    limit: Duration,
    is_true: impl AsyncFn() -> bool,
) -> Result<Duration, Violation> {
    loop {
        if is_true().await {
            return Ok(since.elapsed());
        }
        if since.elapsed() > limit {
            return Err(Violation::new(
                "the catalogs are told in time",
                format!("{what} is not in all of them after {limit:?}"),
            ));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// An agent hears nobody for a while, in which a check fails and a service goes; how long after its return it takes until
/// all catalogs say so.
async fn be_away(
    world: &World,
    pool: &[(Machine, Agent)],
    of: usize,
    check: &Text,
    length: Duration,
) -> Result<Duration, Violation> {
    let (machine, agent) = &pool[of];
    let name = machine.name();
    let offers = |node: &NodeServices| node.services.iter().any(|it| it.id == FLEETING);
    let fleeting = ServiceDefinition {
        service: Service {
            id: Text::from(FLEETING),
            name: Text::from(FLEETING),
            ..Service::default()
        },
        ..ServiceDefinition::default()
    };
    let refused =
        |why: LocalError| Violation::new("an agent does what it is told", why.to_string());
    let registered = agent.local.register_service(fleeting).await;
    registered.map_err(refused)?;
    let what = format!("a new service of {name}");
    until(&what, Instant::now(), NEWS_MAX, async || {
        all(world, machine, |node, _| offers(node)).await
    })
    .await?;

    let others = pool.iter().map(|(other, _)| other.place);
    for other in (0..SERVERS).chain(others.filter(|other| *other != machine.place)) {
        world.network.cut(machine.place, other);
        world.network.cut(other, machine.place);
    }
    sleep(length / 2).await;
    let local = agent.local.clone();
    let deregister = async move { local.deregister_service(Text::from(FLEETING)).await };
    // The first is tried in vain, and the other waits behind it.
    if of.is_multiple_of(2) {
        say(agent, check);
        tokio::spawn(deregister);
    } else {
        tokio::spawn(deregister);
        say(agent, check);
    }
    sleep(length / 2).await;
    world.network.mend();
    let mut limit = return_max(pool.len());
    if length > ABSENCES[0] {
        limit += WAY_BACK_MAX;
    }
    let what = format!("what {name} told when it was cut off");
    until(&what, Instant::now(), limit, async || {
        all(world, machine, |node, checks| {
            is_critical(checks, check) && !offers(node)
        })
        .await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stdout, reason = "the figures are for people")]
    fn news_of_many_agents_arrive_in_time() {
        let plan = Plan {
            seed: 1,
            length: Duration::ZERO,
            is_told: false,
        };
        match crowd(plan, 20) {
            Ok(crowd) => println!("{crowd}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}
