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
use crate::faults::{FAULTS, Fault, Trouble};
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

/// What can be said of every life, whoever the clients are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The hash of all events; the same seed gives the same.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// Simulated time from beginning to end.
    pub simulated: Duration,
    /// Servers.
    pub servers: usize,
    /// What went wrong.
    pub counts: Counts,
}

/// What a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What every life has.
    pub course: Course,
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
    block_on(plan, Life::live(plan, plan.seed, &[3, 3, 3, 5], go_through))
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

/// What every life is made of, whoever the clients are.
pub(crate) struct Life {
    pub(crate) plan: Plan,
    pub(crate) chance: ChaCha8Rng,
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
    pub(crate) begun: Instant,
}

impl Life {
    /// Prepares a cluster of one of the sizes and goes through its life; says also the hash of all that happened.
    ///
    /// A kind of life makes its own `seed` of the plan's, so that the kinds have nothing to do with each other.
    pub(crate) async fn live<T>(
        plan: Plan,
        seed: u64,
        sizes: &[usize],
        go_through: impl AsyncFnOnce(Self) -> Result<T, Violation>,
    ) -> (Result<T, Violation>, u64) {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let trace = Trace::begin();
        let network = Network::new(chance.random(), trace.clone());
        let world = World::new(network, trace.clone(), plan.is_told);
        let servers = sizes[chance.random_range(0..sizes.len())];
        let cluster = Cluster::new(
            servers,
            ChaCha8Rng::seed_from_u64(chance.random()),
            world.clone(),
        );
        let life = Self {
            plan,
            chance,
            world,
            cluster,
            begun: Instant::now(),
        };
        let outcome = Box::pin(go_through(life)).await;
        (outcome, trace.hash().0)
    }

    /// Each life has some kinds of trouble only, so that rare combinations are not drowned by the common ones.
    pub(crate) fn draw_kinds(&mut self, probability: f64) -> Vec<Fault> {
        let kinds = FAULTS.iter().copied();
        kinds
            .filter(|_| self.chance.random_bool(probability))
            .collect()
    }

    /// Lets things of these kinds go wrong until `end`, undoes all, and waits for a leader; says when all was undone.
    pub(crate) async fn go_wrong(
        &mut self,
        kinds: &[Fault],
        end: Instant,
    ) -> Result<Instant, Violation> {
        Trouble::default().make(&mut self.cluster, kinds, end).await;
        self.cluster.heal().await;
        self.world.with(|state| state.calms = true);
        let peace = Instant::now();
        has_leader_soon(&self.world, &self.cluster).await?;
        Ok(peace)
    }

    /// Tells the clients to end, and waits for them.
    pub(crate) async fn join(&self, mut clients: JoinSet<()>) -> Result<(), Violation> {
        self.world.with(|state| state.ends = true);
        while let Some(ended) = clients.join_next().await {
            if let Err(error) = ended {
                let violation = Violation::new("clients go on", error.to_string());
                self.world.violate(violation);
            }
        }
        self.world.verdict()
    }

    /// Ends the servers, and says what can be said of every life.
    pub(crate) async fn end(mut self) -> Result<Course, Violation> {
        let simulated = self.begun.elapsed();
        let counts = self.cluster.counts;
        let servers = self.cluster.places.len();

        self.cluster.end().await;
        self.world.verdict()?;
        let trace = &self.world.trace;
        trace.event("gossip", &[&self.cluster.network.pool_hash().to_le_bytes()]);
        let (hash, events) = trace.hash();
        Ok(Course {
            hash,
            events,
            simulated,
            servers,
            counts,
        })
    }
}

async fn go_through(mut life: Life) -> Result<Report, Violation> {
    life.cluster.bootstrap().await;
    let kinds = life.draw_kinds(0.4);
    let restores = life.chance.random_bool(0.7);
    let servers = life.cluster.places.len();
    life.world.tell("plan", || {
        format!("{servers} servers, restores: {restores}, {kinds:?}")
    });
    life.cluster.form().await?;
    let mut tasks = JoinSet::new();
    clients::spawn(&mut tasks, &life.world, servers, restores, &mut life.chance);
    let length = life.plan.length;
    let trouble_ends = life.begun + length.saturating_sub(PEACE);
    life.go_wrong(&kinds, trouble_ends).await?;
    while life.begun.elapsed() < length && !life.world.is_broken() {
        sleep(Duration::from_millis(500)).await;
        life.cluster.look_after();
        life.cluster.operate().await;
    }
    life.join(tasks).await?;
    let world = life.world.clone();
    look_at_the_end(&world).await?;
    life.cluster.compare().await?;
    let mut kept = None;
    for front in world.with(|state| state.fronts.clone()).values() {
        kept = clients::glimpse(&world, front).await.or(kept);
    }
    let course = life.end().await?;
    let mut history = world.take_history();
    history.kept = kept.unwrap_or_default().into_iter().collect();
    check::check(&history, restored)?;
    let unanswered = history
        .operations
        .iter()
        .filter(|operation| operation.outcome == crate::history::Outcome::Unknown)
        .count();
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    Ok(Report {
        course,
        answered: count(history.operations.len() - unanswered),
        unanswered: count(unanswered),
        glimpses: count(history.glimpses.len()),
        restores: world.with(|state| state.restores),
        saves: world.with(|state| state.saves),
    })
}

/// When nothing goes wrong any more, a leader is found within ten election timeouts.
async fn has_leader_soon(world: &World, cluster: &Cluster) -> Result<(), Violation> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Lives in which something was found once, with what it was.
    const FOUND: &[(u64, &str)] = &[(
        6115,
        "a server stays paused while a transfer of leadership hangs, and who waits there waits as long",
    )];

    #[test]
    fn lives_in_which_something_was_found_keep_their_promises() {
        keep_promises(run, FOUND);
    }

    /// Lives these lives, and finds nothing any more.
    pub(crate) fn keep_promises<T: fmt::Debug + Send + 'static>(
        live: fn(Plan) -> Result<T, Box<Failure>>,
        found: &[(u64, &str)],
    ) {
        keep_promises_for(Duration::from_secs(120), live, found);
    }

    /// The same where trouble goes on for so long.
    pub(crate) fn keep_promises_for<T: fmt::Debug + Send + 'static>(
        length: Duration,
        live: fn(Plan) -> Result<T, Box<Failure>>,
        found: &[(u64, &str)],
    ) {
        for &(seed, what) in found {
            let plan = Plan {
                seed,
                length,
                is_told: false,
            };
            // The log's library draws from one generator a thread.
            let life = std::thread::spawn(move || live(plan));
            let outcome = life.join().expect("it doesn't panic");
            assert!(outcome.is_ok(), "{what}: {outcome:?}");
        }
    }
}
