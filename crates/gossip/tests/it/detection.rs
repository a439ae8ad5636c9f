//! How soon a death is noticed, and whether anybody is buried alive.

use std::time::Duration;

use gossip::Status;
use gossip::sim::Weather;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use crate::pool::{Pool, address, simulate};

/// What the original takes: 6.1 to 6.8 seconds.
const NOTICED_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn all_of_five_notice_a_death_within_six_seconds() {
    let mut times = Vec::new();
    for seed in 0..200 {
        times.push(simulate(async {
            let mut pool = Pool::of(seed, 5).await;
            let calm = ChaCha8Rng::seed_from_u64(seed).random_range(5_000..15_000);
            sleep(Duration::from_millis(calm)).await;
            let early = pool.failures(0..5);
            assert!(early.is_empty(), "seed {seed}: {early:?}");
            pool.net.kill(address(4));
            pool.wait_for_status(0..4, [4], Status::Failed).await
        }));
    }
    times.sort_unstable();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "fastest {:?}, median {median:?}, 99 % {:?}, slowest {slowest:?}",
        times[0],
        times[times.len() * 99 / 100]
    );
    assert!(slowest <= NOTICED_WITHIN, "slowest {slowest:?}");
}

#[test]
fn nobody_is_accused_in_a_calm_pool() {
    for seed in 0..5 {
        simulate(async {
            let mut pool = Pool::of(seed, 10).await;
            sleep(Duration::from_secs(300)).await;
            assert!(pool.failures(0..10).is_empty(), "seed {seed}");
            for member in &pool.members {
                assert_eq!(member.stats().health_score, 0);
            }
        });
    }
}

#[test]
fn loss_of_some_packets_buries_nobody() {
    for seed in 0..10 {
        simulate(async {
            let mut pool = Pool::of(seed, 10).await;
            pool.net.weather(Weather {
                loss: 0.1,
                repetition: 0.05,
                delay_min: Duration::from_millis(1),
                delay_max: Duration::from_millis(80),
            });
            sleep(Duration::from_secs(120)).await;
            let failures = pool.failures(0..10);
            assert!(failures.is_empty(), "seed {seed}: {failures:?}");
        });
    }
}

/// How the processor is withheld: pauses in milliseconds, and how long it runs between them.
#[derive(Debug, Clone, Copy)]
struct Starvation {
    pause: (u64, u64),
    run: (u64, u64),
    loss: f64,
}

/// Of a hundred members five get no time to run, again and again. Returns which healthy ones were reported as failed,
/// and how many reports there were of starved ones.
async fn starve(
    seed: u64,
    size: usize,
    starved: usize,
    how: Starvation,
) -> (Vec<(usize, String)>, usize) {
    let mut pool = Pool::of(seed, size).await;
    pool.net.weather(Weather {
        loss: how.loss,
        ..Weather::FAIR
    });
    sleep(Duration::from_secs(10)).await;
    let starving = (0..starved).map(|index| {
        let net = pool.net.clone();
        let mut chance = ChaCha8Rng::seed_from_u64(seed * 1000 + index as u64);
        async move {
            let until = Instant::now() + Duration::from_secs(180);
            while Instant::now() < until {
                let pause = Duration::from_millis(chance.random_range(how.pause.0..how.pause.1));
                net.starve(address(index), pause);
                let run = Duration::from_millis(chance.random_range(how.run.0..how.run.1));
                sleep(pause + run).await;
            }
        }
    });
    futures::future::join_all(starving).await;
    let failures = pool.failures(0..size);
    let reports = failures.len();
    let is_starved = |name: &str| (0..starved).any(|index| *name == crate::pool::name(index));
    let healthy: Vec<_> = failures
        .into_iter()
        .filter(|(_, name)| !is_starved(name))
        .collect();
    let of_starved = reports - healthy.len();
    (healthy, of_starved)
}

/// Pauses of seconds with seconds between them; hardly ever running; and running in small pieces.
const STARVATIONS: [Starvation; 3] = [
    Starvation {
        pause: (500, 10_000),
        run: (100, 4000),
        loss: 0.0,
    },
    Starvation {
        pause: (2000, 32_000),
        run: (1, 100),
        loss: 0.0,
    },
    Starvation {
        pause: (50, 1000),
        run: (1, 50),
        loss: 0.02,
    },
];

#[test]
fn starved_members_bury_no_healthy_one() {
    for (seed, how) in (0..).zip(STARVATIONS) {
        let (healthy, of_starved) = simulate(starve(seed, 100, 5, how));
        println!("{how:?}: {of_starved} reports of starved members");
        assert!(healthy.is_empty(), "seed {seed}, {how:?}: {healthy:?}");
    }
}

/// A suspicion is short in a small pool, so that who starves has little time to notice its mistake.
#[test]
fn nor_do_they_in_a_small_pool() {
    for seed in 0..30 {
        for how in STARVATIONS {
            let (healthy, _) = simulate(starve(seed, 3, 1, how));
            assert!(healthy.is_empty(), "seed {seed}, {how:?}: {healthy:?}");
            let (healthy, _) = simulate(starve(seed, 6, 2, how));
            assert!(healthy.is_empty(), "seed {seed}, {how:?}: {healthy:?}");
        }
    }
}
