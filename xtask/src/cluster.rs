//! Rounds of trouble for clusters of the real program.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::cargo::{cargo, root, run};
use crate::rounds::chance_seed;

/// Clusters that meet whatever chance brings.
pub(crate) fn cluster(mut arguments: Arguments) -> Result<()> {
    let rounds = arguments.number("--rounds")?.unwrap_or(20);
    let seed = match arguments.number("--seed")? {
        Some(seed) => seed,
        None => chance_seed()?,
    };
    arguments.nothing_more()?;
    println!(
        "seed {seed}; the same trouble again: cargo xtask cluster --rounds {rounds} --seed {seed}"
    );
    run(&mut cargo(&[
        "build",
        "--release",
        "-p",
        "consul",
        "--locked",
    ]))?;
    let mut command = cargo(&[
        "test",
        "-p",
        "cluster",
        "--test",
        "it",
        "--locked",
        "rounds::",
        "--",
        "--nocapture",
        "--test-threads=1",
    ]);
    run(command
        .env("CONSUL_PROGRAM", root().join("target/release/consul"))
        .env("CLUSTER_ROUNDS", rounds.to_string())
        .env("CLUSTER_SEED", seed.to_string()))
}
