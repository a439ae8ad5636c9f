//! One life of a cluster whose clients are agents, from beginning to end.
//!
//! Agents and faults go on for a while, then there is peace, and within one period of the agents' comparisons the catalog
//! of every server has to say of each node what its agent says, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use model::{CatalogNode, CatalogNodes, Error, HealthNode, SERF_HEALTH, Text};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rpc::{Consistency, ReadOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Machine;
use super::script::{Counts, Found, LONG, Script, Standing};
use super::strangers::{self, Stranger};
use crate::check::Violation;
use crate::check::catalog::difference;
use crate::cluster::Cluster;
use crate::life::{self, Course, Failure, Life, Plan};
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
    /// What every life has.
    pub course: Course,
    /// Agents.
    pub agents: usize,
    /// What happened to them.
    pub agents_counts: Counts,
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
    // Far from the chance of the lives without agents.
    let seed = plan.seed ^ 0xa9e7_0000_0000_0000;
    life::block_on(plan, Life::live(plan, seed, &[3, 3, 5], go_through))
}

/// The agents, as those who look at the end see them.
struct Agents {
    machines: Vec<(Arc<Machine>, Arc<Standing>)>,
}

async fn go_through(mut life: Life) -> Result<AgentsReport, Violation> {
    life.cluster.bootstrap().await;
    let kinds = life.draw_kinds(0.25);
    let restores = life.chance.random_bool(0.5);
    let meddles = life.chance.random_bool(0.5);
    let count = life.chance.random_range(2..7);
    let servers = life.cluster.places.len();
    let world = life.world.clone();
    world.tell("plan", || {
        format!("{servers} servers, {count} agents, restores: {restores}, strangers: {meddles}, {kinds:?}")
    });
    life.cluster.form().await?;
    let mut tasks = JoinSet::new();
    let agents = Agents::spawn(count, &mut tasks, &world, &life.cluster, &mut life.chance);
    let stranger = |chance: &mut ChaCha8Rng| Stranger {
        world: world.clone(),
        chance: ChaCha8Rng::seed_from_u64(chance.random()),
        nodes: agents.names(),
    };
    if meddles {
        tasks.spawn(stranger(&mut life.chance).meddle());
    }
    if restores {
        tasks.spawn(stranger(&mut life.chance).go_back());
    }
    let trouble_ends = life.begun + life.plan.length;
    let peace = life.go_wrong(&kinds, trouble_ends).await?;
    let converged = agents.converge(&world, &mut life.cluster, peace).await?;
    life.join(tasks).await?;
    life.cluster.compare().await?;
    let course = life.end().await?;
    Ok(AgentsReport {
        course,
        agents: count,
        agents_counts: agents.counts(),
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
                // Somebody registered it after it had left, and all servers were started again since: a node like any other
                // that no agent stands for.
                if expected.is_none()
                    && !cluster.remembers(&machine.name())
                    && strangers::is_theirs(node.as_ref(), &checks)
                {
                    continue;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::tests::keep_promises;

    #[test]
    fn lives_in_which_something_was_found_keep_their_promises() {
        let what =
            "a stranger registers a node whose agent has left, and every server forgets that agent";
        keep_promises(run_agents, &[(265, what), (359, what)]);
    }
}
