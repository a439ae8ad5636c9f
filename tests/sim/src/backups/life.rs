//! One life of a cluster whose clients are snapshot agents, from beginning to end.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use backup::Retention;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::depot::Depot;
use super::machine::Host;
use super::post::{Mishaps, Orders, Post};
use super::trouble::{Outsider, TROUBLES, Trouble};
use super::witness::Witness;
use super::words;
use crate::agents::Machine;
use crate::check::{Violation, check_backups};
use crate::history::backups::{BackupHistory, Span, What};
use crate::life::{self, Course, Failure, Life, Plan};

/// Snapshot agents, each on a machine of its own.
const POSTS: usize = 3;

/// The place of the first machine; the servers have the first ones.
const FIRST: usize = 10;

/// How long nothing goes wrong at the end, in intervals, after what agents may need to find each other again.
const PEACE_INTERVALS: u32 = 4;

/// What agents may need for that: see the promise that snapshots go on.
const RECOVERY: Duration = Duration::from_secs(180);

/// What such a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupsReport {
    /// What every life has.
    pub course: Course,
    /// Processes that were started.
    pub processes: usize,
    /// Times at which one of them got the lock.
    pub taken: usize,
    /// Snapshots that got their name.
    pub published: usize,
    /// Those that were removed.
    pub removed: usize,
    /// Restores of earlier states.
    pub restores: usize,
    /// How long it took at most after the last fault until there was a new snapshot.
    pub recovered: Duration,
}

/// Lives one life with snapshot agents and checks it. Its seeds have nothing to do with those of other kinds.
///
/// # Errors
/// The first promise that was broken.
pub fn run_backups(plan: Plan) -> Result<BackupsReport, Box<Failure>> {
    let seed = plan.seed ^ 0xbac0_0000_0000_0000;
    life::block_on(plan, Life::live(plan, seed, &[3, 3, 3, 5], go_through))
}

/// What a life is to be like.
#[derive(Debug)]
struct Draw {
    orders: Orders,
    mishaps: Mishaps,
    troubles: Vec<Trouble>,
}

fn draw(chance: &mut ChaCha8Rng) -> Draw {
    let seconds = [20, 40, 90][chance.random_range(0..3)];
    let stores = chance.random_range(1..=2);
    let retention = |chance: &mut ChaCha8Rng| Retention {
        newest: [0, 2, 3, 5][chance.random_range(0..4)],
        ..Retention::default()
    };
    let orders = Orders {
        interval: Duration::from_secs(seconds),
        stale: chance.random_bool(0.15),
        max_failures: [0, 1, 3][chance.random_range(0..3)],
        retentions: (0..stores).map(|_| retention(chance)).collect(),
    };
    let mut may = |probability| chance.random_bool(probability);
    let mishaps = Mishaps {
        kills: may(0.5),
        ends: may(0.4),
        stops: may(0.4),
        hosts: may(0.3),
        clocks: may(0.3),
    };
    let troubles = TROUBLES.iter().copied().filter(|_| may(0.35)).collect();
    Draw {
        orders,
        mishaps,
        troubles,
    }
}

async fn go_through(mut life: Life) -> Result<BackupsReport, Violation> {
    // Sessions live with the health that gossip gives their nodes.
    life.cluster = life.cluster.with_gossip();
    life.cluster.bootstrap().await;
    let share = [0.0, 0.0, 0.06, 0.15][life.chance.random_range(0..4)];
    let kinds = life.draw_kinds(share);
    let drawn = draw(&mut life.chance);
    let servers = life.cluster.places.len();
    let world = life.world.clone();
    world.tell("plan", || {
        format!("{servers} servers, {drawn:?}, {kinds:?}")
    });
    let Draw {
        orders,
        mishaps,
        troubles,
    } = drawn;
    life.cluster.form().await?;

    let witness = Witness::new(&world);
    let _listening = words::listen(&witness);
    witness.with(|history| {
        history.interval = orders.interval;
        history.stale = orders.stale;
        history.max_failures = orders.max_failures;
        history.clocks_are_wrong = mishaps.clocks;
        history.retentions.clone_from(&orders.retentions);
    });
    let split = |chance: &mut ChaCha8Rng| ChaCha8Rng::seed_from_u64(chance.random());
    let stores = 0..orders.retentions.len();
    let depots: Vec<Arc<Depot>> = stores
        .map(|number| Arc::new(Depot::new(number, split(&mut life.chance), witness.clone())))
        .collect();
    let hosts: Vec<Arc<Host>> = (0..POSTS)
        .map(|number| {
            Arc::new(Host::new(Machine {
                place: FIRST + number,
                servers,
                has_gossip: true,
                update_interval: Duration::from_secs(300),
                network: world.network.clone(),
                world: world.clone(),
            }))
        })
        .collect();
    let mut outsider = || Outsider {
        hosts: hosts.clone(),
        depots: depots.clone(),
        servers,
        world: world.clone(),
        witness: witness.clone(),
        chance: split(&mut life.chance),
    };
    let (mut starter, troublemaker, writer, looker) =
        (outsider(), outsider(), outsider(), outsider());
    starter.start_all().await?;

    let mut tasks = JoinSet::new();
    for host in &hosts {
        let post = Post {
            host: Arc::clone(host),
            depots: depots.clone(),
            orders: orders.clone(),
            mishaps,
            world: world.clone(),
            witness: witness.clone(),
            chance: split(&mut life.chance),
            off_ms: Arc::new(AtomicI64::new(0)),
        };
        tasks.spawn(post.run());
    }
    tasks.spawn(troublemaker.make(troubles));
    tasks.spawn(writer.write());
    tasks.spawn(looker.look());

    let from = witness.now();
    let trouble_ends = life.begun + life.plan.length;
    life.go_wrong(&kinds, trouble_ends).await?;
    if !kinds.is_empty() {
        witness.troubled(from);
    }
    let peace = witness.now();
    let peace_ends = Instant::now() + RECOVERY + orders.interval * PEACE_INTERVALS;
    while Instant::now() < peace_ends && !world.is_broken() {
        sleep(Duration::from_millis(500)).await;
        life.cluster.look_after();
        life.cluster.operate().await;
    }
    let to = witness.now();
    witness.with(|history| history.peace = Some(Span { from: peace, to }));
    life.join(tasks).await?;
    life.cluster.compare().await?;
    let course = life.end().await?;
    for host in &hosts {
        host.kill();
    }
    let history = world.with(|state| std::mem::take(&mut state.backups));
    let recovered = check_backups(&history)?;
    Ok(report(course, &history, recovered))
}

fn report(course: Course, history: &BackupHistory, recovered: Duration) -> BackupsReport {
    let count = |is_so: fn(&What) -> bool| {
        let events = history.events.iter();
        events.filter(|event| is_so(&event.what)).count()
    };
    BackupsReport {
        course,
        processes: count(|what| *what == What::Began),
        taken: count(|what| matches!(what, What::Takes { taken: true, .. })),
        published: count(|what| {
            matches!(
                what,
                What::Publishes {
                    visible: Some(_),
                    ..
                }
            )
        }),
        removed: count(|what| matches!(what, What::Removes { gone: Some(_), .. })),
        restores: history.restores.len(),
        recovered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::tests::keep_promises_for;

    #[test]
    fn lives_in_which_something_was_found_keep_their_promises() {
        let what = "two leaders whose clocks were set back go on from the same number";
        keep_promises_for(Duration::from_secs(400), run_backups, &[(158, what)]);
    }
}
