//! One life of one cluster, from beginning to end.

use std::fmt;
use std::time::Duration;

use consensus::sim::Trace;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::archive::{KEYS, key_name, restored};
use crate::check::{self, Violation};
use crate::clients;
use crate::cluster::{Cluster, Counts, ELECTION_MAX};
use crate::faults::{FAULTS, Trouble};
use crate::network::Network;
use crate::world::World;

/// How a life is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// How long clients and faults go on.
    pub length: Duration,
    /// Whether each event is shown on standard error.
    pub is_told: bool,
}

/// What a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The hash of all events; the same seed gives the same.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// Simulated time from beginning to end.
    pub simulated: Duration,
    /// Servers.
    pub servers: usize,
    /// Operations on keys whose outcome is known.
    pub answered: u64,
    /// And those whose outcome isn't.
    pub unanswered: u64,
    /// States of single servers that were looked at.
    pub glimpses: u64,
    /// Restores that were begun.
    pub restores: u64,
    /// Snapshots that were taken.
    pub saves: u64,
    /// What went wrong.
    pub counts: Counts,
}

/// A seed that breaks a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The promise.
    pub violation: Violation,
    /// The hash of all events up to there.
    pub hash: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.violation)
    }
}

/// How long before the end faults stop.
const PEACE: Duration = Duration::from_secs(12);

/// Lives one life and checks it.
///
/// # Errors
/// The first promise that was broken.
pub fn run(plan: Plan) -> Result<Report, Box<Failure>> {
    block_on(plan, live(plan))
}

/// Runs one life on a clock of its own; it says what it was like, and the hash of all that happened.
pub(crate) fn block_on<T>(
    plan: Plan,
    life: impl Future<Output = (Result<T, Violation>, u64)>,
) -> Result<T, Box<Failure>> {
    let failure = |violation, hash| {
        Box::new(Failure {
            seed: plan.seed,
            violation,
            hash,
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| failure(Violation::new("the simulation runs", error.to_string()), 0))?;
    let (outcome, hash) = runtime.block_on(Box::pin(life));
    outcome.map_err(|violation| failure(violation, hash))
}

async fn live(plan: Plan) -> (Result<Report, Violation>, u64) {
    let mut chance = ChaCha8Rng::seed_from_u64(plan.seed);
    let trace = Trace::begin();
    let network = Network::new(chance.random(), trace.clone());
    let world = World::new(network, trace.clone(), plan.is_told);
    let servers = [3, 3, 3, 5][chance.random_range(0..4)];
    let cluster = Cluster::new(
        servers,
        ChaCha8Rng::seed_from_u64(chance.random()),
        world.clone(),
    );
    let outcome = Box::pin(go_through(plan, chance, world, cluster)).await;
    (outcome, trace.hash().0)
}

async fn go_through(
    plan: Plan,
    mut chance: ChaCha8Rng,
    world: World,
    mut cluster: Cluster,
) -> Result<Report, Violation> {
    let begun = Instant::now();
    cluster.bootstrap().await;
    // Each life has some kinds of trouble only, so that rare combinations are not drowned by the common ones.
    let kinds: Vec<_> = FAULTS
        .iter()
        .copied()
        .filter(|_| chance.random_bool(0.4))
        .collect();
    let restores = chance.random_bool(0.7);
    world.tell("plan", || {
        format!(
            "{} servers, restores: {restores}, {kinds:?}",
            cluster.places.len()
        )
    });
    cluster.form().await?;
    let mut tasks = JoinSet::new();
    clients::spawn(
        &mut tasks,
        &world,
        cluster.places.len(),
        restores,
        &mut chance,
    );
    let trouble_ends = begun + plan.length.saturating_sub(PEACE);
    Trouble::default()
        .make(&mut cluster, &kinds, trouble_ends)
        .await;
    cluster.heal().await;
    world.with(|state| state.calms = true);
    has_leader_soon(&world, &cluster).await?;
    while begun.elapsed() < plan.length && !world.is_broken() {
        sleep(Duration::from_millis(500)).await;
        cluster.look_after();
        cluster.operate().await;
    }
    world.with(|state| state.ends = true);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            world.violate(Violation::new("clients go on", error.to_string()));
        }
    }
    if let Some(violation) = world.with(|state| state.violation.take()) {
        return Err(violation);
    }
    look_at_the_end(&world).await?;
    cluster.compare().await?;
    let mut kept = None;
    for front in world.with(|state| state.fronts.clone()).values() {
        kept = clients::glimpse(&world, front).await.or(kept);
    }
    let simulated = begun.elapsed();
    let counts = cluster.counts;
    let servers = cluster.places.len();
    cluster.end().await;
    if let Some(violation) = world.with(|state| state.violation.take()) {
        return Err(violation);
    }
    let mut history = world.with(|state| std::mem::take(&mut state.history));
    history.kept = kept.unwrap_or_default().into_iter().collect();
    check::check(&history, restored)?;
    world
        .trace
        .event("gossip", &[&cluster.network.pool_hash().to_le_bytes()]);
    let (hash, events) = world.trace.hash();
    let unanswered = history
        .operations
        .iter()
        .filter(|operation| operation.outcome == crate::history::Outcome::Unknown)
        .count();
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    Ok(Report {
        hash,
        events,
        simulated,
        servers,
        answered: count(history.operations.len() - unanswered),
        unanswered: count(unanswered),
        glimpses: count(history.glimpses.len()),
        restores: world.with(|state| state.restores),
        saves: world.with(|state| state.saves),
        counts,
    })
}

/// When nothing goes wrong any more, a leader is found within ten election timeouts.
pub(crate) async fn has_leader_soon(world: &World, cluster: &Cluster) -> Result<(), Violation> {
    let end = Instant::now() + ELECTION_MAX * 10;
    while world.leader().is_none() {
        if Instant::now() > end {
            return Err(Violation::new(
                "a leader within ten election timeouts",
                cluster.describe(),
            ));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// What all keys are at the end becomes part of the history: what was acknowledged has to show in it.
async fn look_at_the_end(world: &World) -> Result<(), Violation> {
    const TRIES: usize = 40;
    for key in 0..KEYS {
        let mut tries = 0;
        loop {
            if let Some(front) = world.leader()
                && clients::read_at_the_end(world, &front, key).await
            {
                break;
            }
            tries += 1;
            if tries > TRIES {
                return Err(Violation::new(
                    "reads succeed when all is well",
                    format!("{} can't be read", key_name(key)),
                ));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}
