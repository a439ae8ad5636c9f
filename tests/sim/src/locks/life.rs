//! One life with locks, from beginning to end.

use std::time::Duration;

use model::{KvVerb, Text};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::holder::{Done, Holder};
use super::{LIMIT, LOCKS, lock};
use crate::check::{Violation, check_locks};
use crate::faults::Fault;
use crate::history::locks::What;
use crate::life::{self, Course, Failure, Life, Plan};
use crate::world::World;

/// How long before the end faults stop.
const PEACE: Duration = Duration::from_secs(20);

/// When nobody renews any more, within so long every lock can be had: twice the longest TTL, the longest delay, and
/// some time to ask.
const FREE_AGAIN: Duration = Duration::from_secs(2 * 10 + 10 + 5);

/// What such a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocksReport {
    /// What every life has.
    pub course: Course,
    /// Sessions.
    pub sessions: usize,
    /// Renewals that were acknowledged.
    pub renewals: usize,
    /// Sessions that were found gone.
    pub gone: usize,
    /// Locks that were taken.
    pub acquired: usize,
    /// Places in semaphores that were taken.
    pub entered: usize,
}

/// Lives one life with locks and checks it. Its seeds have nothing to do with those of [`run`](crate::run).
///
/// # Errors
/// The first promise that was broken.
pub fn run_locks(plan: Plan) -> Result<LocksReport, Box<Failure>> {
    // Far from the chance of the other kinds.
    let seed = plan.seed ^ 0x10c5_0000_0000_0000;
    life::block_on(plan, Life::live(plan, seed, &[3, 3, 3, 5], go_through))
}

async fn go_through(mut life: Life) -> Result<LocksReport, Violation> {
    life.cluster.bootstrap().await;
    // Where little goes wrong much is done, and the other way round.
    let share = [0.06, 0.15, 0.3][life.chance.random_range(0..3)];
    let mut kinds = life.draw_kinds(share);
    // What ends a session was proposed long before it is true, and meanwhile its locks are seen with it.
    if life.chance.random_bool(0.4) {
        kinds.push(Fault::SlowSyncs);
    }
    let holders = life.chance.random_range(2..6);
    let contenders = life.chance.random_range(0..6);
    let troubles = life.chance.random_bool(0.7);
    let servers = life.cluster.places.len();
    let world = life.world.clone();
    world.tell("plan", || {
        format!(
            "{servers} servers, {holders} and {contenders} clients, a check: {troubles}, {kinds:?}"
        )
    });
    world.with(|state| {
        state.locks.limit = LIMIT;
        state.locks.kept = vec![0];
    });
    life.cluster.form().await?;
    let mut number = 0;
    let mut client = |chance: &mut ChaCha8Rng| {
        number += 1;
        Holder {
            number,
            world: world.clone(),
            chance: ChaCha8Rng::seed_from_u64(chance.random()),
            mine: None,
        }
    };
    client(&mut life.chance).introduce().await;
    let mut tasks = JoinSet::new();
    for _ in 0..holders {
        tasks.spawn(client(&mut life.chance).use_locks());
    }
    for _ in 0..contenders {
        tasks.spawn(client(&mut life.chance).use_semaphore());
    }
    if troubles {
        tasks.spawn(client(&mut life.chance).attend());
    }
    let last = client(&mut life.chance);
    let length = life.plan.length;
    let trouble_ends = life.begun + length.saturating_sub(PEACE);
    life.go_wrong(&kinds, trouble_ends).await?;
    while life.begun.elapsed() < length && !world.is_broken() {
        sleep(Duration::from_millis(500)).await;
        life.cluster.look_after();
        life.cluster.operate().await;
    }
    life.join(tasks).await?;
    are_free_again(&world, last).await?;
    life.cluster.compare().await?;
    let course = life.end().await?;
    let history = world.with(|state| std::mem::take(&mut state.locks));
    check_locks(&history)?;
    let count = |is_so: fn(&What) -> bool| {
        let events = history.events.iter();
        events.filter(|event| is_so(&event.what)).count()
    };
    Ok(LocksReport {
        course,
        sessions: count(|what| matches!(what, What::Begun(_))),
        renewals: count(|what| *what == What::Renewed),
        gone: count(|what| *what == What::Gone),
        acquired: count(|what| matches!(what, What::Acquired(_))),
        entered: count(|what| matches!(what, What::Entered(_))),
    })
}

/// Nothing is locked for ever: somebody who comes when all others are gone gets every lock.
async fn are_free_again(world: &World, mut last: Holder) -> Result<(), Violation> {
    let end = Instant::now() + FREE_AGAIN;
    let mut wanted: Vec<_> = (0..LOCKS).collect();
    while !wanted.is_empty() {
        if Instant::now() > end {
            return Err(Violation::new(
                "locks whose holders are gone can be had again",
                format!("{wanted:?} can't"),
            ));
        }
        sleep(Duration::from_millis(500)).await;
        let Some(front) = world.leader() else {
            continue;
        };
        let Some(mine) = last.mine.clone() else {
            last.begin(&front, false).await;
            continue;
        };
        last.keep_alive(&front).await;
        let mut refused = Vec::new();
        for lock in wanted {
            let verb = KvVerb::Lock(Text::from(mine.id.to_string()));
            let called = world.now();
            let done = last.change(&front, verb, &lock::key(lock), "last").await;
            if done == Done::Yes {
                last.note(mine.number, What::Acquired(lock), called, true);
            } else {
                refused.push(lock);
            }
        }
        wanted = refused;
    }
    Ok(())
}
