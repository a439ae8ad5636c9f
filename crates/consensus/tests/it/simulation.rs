//! Whole clusters from a seed. `SEEDS` and `FIRST_SEED` in the environment say how many and from where.

use consensus::sim;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn run_seeds(servers: usize) -> sim::Report {
    let first = number("FIRST_SEED", 1);
    let mut total = sim::Report::default();
    for seed in first..first + number("SEEDS", 12) {
        match sim::run(seed, servers) {
            Ok(report) => {
                total.acknowledged += report.acknowledged;
                total.crashes += report.crashes;
                total.lost_tails += report.lost_tails;
                total.checkpoints += report.checkpoints;
                total.events += report.events;
            }
            Err(violation) => panic!("{violation}"),
        }
    }
    assert!(total.acknowledged > 0 && total.crashes > 0 && total.checkpoints > 0);
    total
}

#[test]
fn one_server_keeps_its_promises() {
    println!("{:?}", run_seeds(1));
}

#[test]
fn three_servers_keep_their_promises() {
    println!("{:?}", run_seeds(3));
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for servers in [1, 3] {
        for seed in [number("FIRST_SEED", 1), 77] {
            let first = sim::run(seed, servers).unwrap();
            let second = sim::run(seed, servers).unwrap();
            assert_eq!(first, second);
            assert!(first.events > 100);
        }
    }
}

/// Seeds that once showed a defect.
#[test]
fn old_seeds_stay_clean() {
    // A leader that went on after a restart in the same term wrote other entries at places that followers held.
    sim::run(15, 3).unwrap();
}
