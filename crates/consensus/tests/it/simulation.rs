//! Whole clusters from a seed. `SIM_SEEDS=from..to` in the environment says from which.

use std::ops::Range;

use consensus::sim;

/// The seeds that the environment asks for, or a few.
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else {
        return 1..13;
    };
    let bounds = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("SIM_SEEDS must be like 1..1000, not {text:?}"))
}

fn run_seeds(servers: usize) -> sim::Report {
    let mut total = sim::Report::default();
    for seed in seeds() {
        match sim::run(seed, servers) {
            Ok(report) => total.add(&report),
            Err(violation) => panic!("{violation}"),
        }
    }
    // A single seed may well have no crash in it.
    let is_telling = total.acknowledged > 0 && total.crashes > 0 && total.checkpoints > 0;
    assert!(is_telling || seeds().count() < 12, "{total:?}");
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
        for seed in [seeds().start, 77] {
            let first = sim::run(seed, servers).unwrap();
            let second = sim::run(seed, servers).unwrap();
            assert_eq!(first, second);
            assert!(first.events > 100);
        }
    }
}

/// Lives in which something went wrong once, with the number of their servers and what it was.
const FOUND: &[(u64, usize, &str)] = &[
    (
        355,
        3,
        "whose lost end held the new leader's address never came back",
    ),
    (
        589,
        3,
        "whose whole log was lost knew no members and never came back",
    ),
    (919, 3, "as 355, beside a server that had been replaced"),
    (1351, 3, "as 589, after several elections"),
    (71, 5, "as 355, among five"),
];

#[test]
fn what_went_wrong_once_goes_well() {
    for (seed, servers, what) in FOUND {
        if let Err(violation) = sim::run(*seed, *servers) {
            panic!("{violation} (before: a server {what})");
        }
    }
}
