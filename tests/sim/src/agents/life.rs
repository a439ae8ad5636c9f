//! One life of a cluster whose clients are agents, from beginning to end.
//!
//! Agents and faults go on for a while, then there is peace, and within one period of the agents' comparisons the catalog
//! of every server has to say of each node what its agent says, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use consensus::sim::Trace;
use model::{CatalogNode, CatalogNodes, Error, HealthNode, SERF_HEALTH, Text};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rpc::{Consistency, ReadOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Machine;
use super::script::{Counts, Found, LONG, Script, Standing};
use super::strangers::Stranger;
use crate::check::Violation;
use crate::check::catalog::difference;
use crate::cluster::{self, Cluster};
use crate::faults::{FAULTS, Trouble};
use crate::life::{self, Failure, Plan, has_leader_soon};
use crate::network::Network;
use crate::world::{Front, World};

/// How long after all faults something may still be on its way that was begun before.
const SETTLING: Duration = Duration::from_secs(25);

/// The longest time between two comparisons of one agent: the interval of small pools, and as much again by chance.
const PERIOD: Duration = Duration::from_secs(2 * 60);

/// How long the last of it may take.
const TELLING: Duration = Duration::from_secs(5);

/// How often the catalogs are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The place of the first agent; the servers have the first ones.
const FIRST: usize = 10;

/// What such a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentsReport {
    /// The hash of all events; the same seed gives the same.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// Simulated time from beginning to end.
    pub simulated: Duration,
    /// Servers.
    pub servers: usize,
    /// Agents.
    pub agents: usize,
    /// What happened to the agents.
    pub agents_counts: Counts,
    /// What happened to the servers.
    pub counts: cluster::Counts,
    /// Restores of earlier states.
    pub restores: u64,
    /// How long after the last fault all catalogs were true.
    pub converged: Duration,
}

/// Lives one life with agents and checks it. Its seeds have nothing to do with those of [`run`](crate::run).
///
/// # Errors
/// The first promise that was broken.
pub fn run_agents(plan: Plan) -> Result<AgentsReport, Box<Failure>> {
    life::block_on(plan, live(plan))
}

async fn live(plan: Plan) -> (Result<AgentsReport, Violation>, u64) {
    // Far from the chance of the lives without agents.
    let mut chance = ChaCha8Rng::seed_from_u64(plan.seed ^ 0xa9e7_0000_0000_0000);
    let trace = Trace::begin();
    let network = Network::new(chance.random(), trace.clone());
    let world = World::new(network, trace.clone(), plan.is_told);
    let servers = [3, 3, 5][chance.random_range(0..3)];
    let cluster = Cluster::new(
        servers,
        ChaCha8Rng::seed_from_u64(chance.random()),
        world.clone(),
    );
    let outcome = Box::pin(go_through(plan, chance, world, cluster)).await;
    (outcome, trace.hash().0)
}

/// The agents, as those who look at the end see them.
struct Agents {
    machines: Vec<(Arc<Machine>, Arc<Standing>)>,
}

async fn go_through(
    plan: Plan,
    mut chance: ChaCha8Rng,
    world: World,
    mut cluster: Cluster,
) -> Result<AgentsReport, Violation> {
    let begun = Instant::now();
    cluster.bootstrap().await;
    let kinds: Vec<_> = FAULTS
        .iter()
        .copied()
        .filter(|_| chance.random_bool(0.25))
        .collect();
    let restores = chance.random_bool(0.5);
    let meddles = chance.random_bool(0.5);
    let count = chance.random_range(2..7);
    world.tell("plan", || {
        format!(
            "{} servers, {count} agents, restores: {restores}, strangers: {meddles}, {kinds:?}",
            cluster.places.len()
        )
    });
    cluster.form().await?;
    let mut tasks = JoinSet::new();
    let agents = Agents::spawn(count, &mut tasks, &world, &cluster, &mut chance);
    let stranger = |chance: &mut ChaCha8Rng| Stranger {
        world: world.clone(),
        chance: ChaCha8Rng::seed_from_u64(chance.random()),
        nodes: agents.names(),
    };
    if meddles {
        tasks.spawn(stranger(&mut chance).meddle());
    }
    if restores {
        tasks.spawn(stranger(&mut chance).go_back());
    }
    Trouble::default()
        .make(&mut cluster, &kinds, begun + plan.length)
        .await;
    cluster.heal().await;
    world.with(|state| state.calms = true);
    let peace = Instant::now();
    has_leader_soon(&world, &cluster).await?;
    let converged = agents.converge(&world, &mut cluster, peace).await?;
    world.with(|state| state.ends = true);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            world.violate(Violation::new("agents go on", error.to_string()));
        }
    }
    cluster.compare().await?;
    let simulated = begun.elapsed();
    let counts = cluster.counts;
    let servers = cluster.places.len();
    cluster.end().await;
    if let Some(violation) = world.with(|state| state.violation.take()) {
        return Err(violation);
    }
    world
        .trace
        .event("gossip", &[&cluster.network.pool_hash().to_le_bytes()]);
    let (hash, events) = world.trace.hash();
    Ok(AgentsReport {
        hash,
        events,
        simulated,
        servers,
        agents: count,
        agents_counts: agents.counts(),
        counts,
        restores: world.with(|state| state.restores),
        converged,
    })
}

impl Agents {
    fn spawn(
        count: usize,
        tasks: &mut JoinSet<()>,
        world: &World,
        cluster: &Cluster,
        chance: &mut ChaCha8Rng,
    ) -> Self {
        let mut machines = Vec::new();
        for number in 0..count {
            let intervals = [Duration::ZERO, Duration::from_secs(10), LONG];
            let machine = Arc::new(Machine {
                place: FIRST + number,
                servers: cluster.places.len(),
                has_gossip: cluster.has_gossip(),
                update_interval: intervals[chance.random_range(0..3)],
                network: world.network.clone(),
                world: world.clone(),
            });
            let standing = Arc::new(Standing::default());
            let seed = ChaCha8Rng::seed_from_u64(chance.random());
            let script = Script::new(Arc::clone(&machine), Arc::clone(&standing), seed);
            tasks.spawn(script.run());
            machines.push((machine, standing));
        }
        Self { machines }
    }

    fn names(&self) -> Vec<Text> {
        let machines = self.machines.iter();
        machines.map(|(machine, _)| machine.name()).collect()
    }

    fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for (_, standing) in &self.machines {
            let one = standing.counts();
            all.acts += one.acts;
            all.unanswered += one.unanswered;
            all.restarts += one.restarts;
            all.leaves += one.leaves;
            all.cuts += one.cuts;
        }
        all
    }

    /// Waits until every catalog is true, and sees to it that it stays so; says how long that took.
    async fn converge(
        &self,
        world: &World,
        cluster: &mut Cluster,
        peace: Instant,
    ) -> Result<Duration, Violation> {
        let mut true_since = None;
        let mut wrong_before = None;
        while peace.elapsed() < SETTLING + PERIOD + TELLING && !world.is_broken() {
            sleep(LOOK).await;
            cluster.look_after();
            cluster.operate().await;
            let wrong = self.look(world, cluster).await.err();
            match &wrong {
                None => {
                    true_since.get_or_insert(peace.elapsed());
                }
                // Something may be on its way in a single moment.
                Some(what) if wrong_before.is_some() => {
                    let was_true = true_since.take().is_some();
                    if was_true && peace.elapsed() > SETTLING + TELLING {
                        world.tell("untrue", || what.to_string());
                    }
                }
                Some(_) => {}
            }
            wrong_before = wrong;
        }
        match (wrong_before, true_since) {
            (None, Some(since)) => Ok(since),
            (wrong, _) => Err(wrong.unwrap_or_else(|| {
                Violation::new("catalogs become true", "they don't stay so".to_owned())
            })),
        }
    }

    /// The first thing that isn't as it should be.
    async fn look(&self, world: &World, cluster: &Cluster) -> Result<(), Violation> {
        let property = "every catalog becomes true to the agents";
        let names = self.names();
        for front in world.with(|state| state.fronts.clone()).values() {
            for (machine, standing) in &self.machines {
                let expected = match standing.look(machine)? {
                    Found::Gone => None,
                    Found::Here(expected) => Some(expected),
                    Found::Unknown => {
                        return Err(Violation::new(property, "an agent is still starting"));
                    }
                };
                let found = read(front, machine.name()).await;
                let (node, checks) = found
                    .map_err(|error| Violation::new(property, format!("can't be read: {error}")))?;
                // Nobody heard its good-bye: to the servers it has failed, and they keep it in mind.
                if expected.is_none() && cluster.takes_for_failed(&machine.name()) {
                    let health = checks.iter().find(|check| check.check_id == SERF_HEALTH);
                    if health.is_some_and(|check| check.is_critical()) {
                        continue;
                    }
                }
                if let Some(what) = difference(expected.as_deref(), node.as_ref(), &checks) {
                    let text = format!("at server {}, {}: {what}", front.place, machine.name());
                    return Err(Violation::new(property, text));
                }
            }
            let nodes = front.cluster.read(CatalogNodes, stale()).await;
            let nodes = nodes.map(|found| found.answer).unwrap_or_default();
            let is_known = |name: &Text| names.contains(name) || name.starts_with(b"server-");
            if let Some(node) = nodes.iter().find(|node| !is_known(&node.name)) {
                return Err(Violation::new(property, format!("nobody is {node:?}")));
            }
        }
        Ok(())
    }
}

fn stale() -> ReadOptions {
    ReadOptions {
        consistency: Consistency::Stale,
        ..ReadOptions::default()
    }
}

/// What one server's catalog says of a node.
pub(super) async fn read(
    front: &Front,
    node: Text,
) -> Result<(Option<model::NodeServices>, Vec<Arc<model::Check>>), Error> {
    let question = CatalogNode { node: node.clone() };
    let found = front.cluster.read(question, stale()).await?.answer;
    let checks = front.cluster.read(HealthNode { node }, stale()).await?;
    Ok((found, checks.answer))
}
