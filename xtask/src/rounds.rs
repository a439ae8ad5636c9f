//! Commands that repeat a test many times: seeds of single crates, kill rounds, fuzzing, compatibility.
//!
//! The tests themselves live beside what they test; this file only knows in which modules, and how they are told how
//! often to run:
//!
//! | what | modules | told by |
//! | --- | --- | --- |
//! | simulation | [`SIMULATION`] | `SIM_SEEDS=from..to`, half open |
//! | kill -9 | `crash` of the program | `CRASH_ROUNDS`, `CRASH_RESTORE_ROUNDS`, `CRASH_SEED` |
//! | compatibility | [`COMPATIBILITY`] | |

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arguments::{Arguments, parse_number, unknown_name};
use crate::cargo::{cargo, forget_this_package, has, root, run};
use crate::check::never_write;
use crate::steps::Steps;

/// Whole clusters in one thread, from a seed.
const SIMULATION: &[&str] = &["simulation"];

/// What the original answered, as transcripts and as snapshot files, against ours.
const COMPATIBILITY: &[&str] = &["archive", "scripts", "snapshots"];

/// The simulations of single crates under chosen seeds.
pub(crate) fn lives(mut arguments: Arguments) -> Result<()> {
    let seeds = arguments.number("--seeds")?;
    let release = arguments.switch("--release");
    let named = arguments.operands()?;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for word in &named {
        let seed = parse_number(word)?;
        let end = seed
            .checked_add(1)
            .context("the largest number is no seed")?;
        ranges.push((seed, end));
    }
    if let Some(seeds) = seeds.or(named.is_empty().then_some(1000)) {
        ranges.push((0, seeds));
    }
    let mut steps = Steps::default();
    for (from, to) in ranges {
        steps.run(&format!("seeds {from}..{to}"), || {
            let mut command = tests_in(SIMULATION, release);
            run(command.env("SIM_SEEDS", format!("{from}..{to}")))
        });
    }
    steps.finish()
}

/// kill -9 under load and during restores.
pub(crate) fn crash(mut arguments: Arguments) -> Result<()> {
    let rounds = arguments.number("--rounds")?.unwrap_or(200);
    let restores = arguments.number("--restore-rounds")?.unwrap_or(100);
    let seed = match arguments.number("--seed")? {
        Some(seed) => seed,
        None => chance_seed()?,
    };
    arguments.nothing_more()?;
    println!(
        "seed {seed}; the same rounds again: cargo xtask crash --rounds {rounds} --restore-rounds {restores} --seed {seed}"
    );
    let mut command = cargo(&[
        "test",
        "-p",
        "consul",
        "--test",
        "it",
        "--locked",
        "crash::",
        "--",
        "--nocapture",
        "--test-threads=1",
    ]);
    run(command
        .env("CRASH_ROUNDS", rounds.to_string())
        .env("CRASH_RESTORE_ROUNDS", restores.to_string())
        .env("CRASH_SEED", seed.to_string()))
}

/// The recorded behaviour of the original, against ours.
pub(crate) fn compat(arguments: Arguments) -> Result<()> {
    arguments.nothing_more()?;
    run(&mut tests_in(COMPATIBILITY, false))
}

/// Every fuzz target for a while.
pub(crate) fn fuzz(mut arguments: Arguments) -> Result<()> {
    let seconds = arguments.number("--seconds")?.unwrap_or(60);
    let named = arguments.operands()?;
    let known = fuzz_targets()?;
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for name in &named {
        if !known.contains(&name.as_str()) {
            return Err(unknown_name(name, &known));
        }
    }
    if !has("fuzz") {
        bail!("cargo-fuzz is missing; install it with: cargo install cargo-fuzz --locked");
    }
    if !nightly(&["rustc", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        bail!(
            "a nightly compiler is missing; install it with: rustup toolchain install nightly --profile minimal"
        );
    }
    let mut steps = Steps::default();
    for target in known {
        if !named.is_empty() && !named.iter().any(|name| name == target) {
            continue;
        }
        steps.run(&format!("{target} for {seconds} s"), || {
            fuzz_one(target, seconds)
        });
    }
    steps.finish()
}

fn fuzz_one(target: &str, seconds: u64) -> Result<()> {
    // What the run finds grows in the build directory; the corpus in the tree is only the seeds.
    let grown = root().join("fuzz/target/corpus").join(target);
    std::fs::create_dir_all(&grown).with_context(|| format!("creating {}", grown.display()))?;
    let seconds = format!("-max_total_time={seconds}");
    let grown = grown.to_string_lossy().into_owned();
    let seeds = format!("fuzz/corpus/{target}");
    let output = nightly(&[
        "cargo",
        "fuzz",
        "run",
        target,
        &grown,
        &seeds,
        "--",
        &seconds,
        "-rss_limit_mb=2048",
        // An input that takes this long is a bug too: decoders answer in time proportional to what they read.
        "-timeout=10",
    ])
    .output()
    .context("starting rustup")?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{log}\n{target}: {}", output.status);
    }
    let summary = log.lines().rfind(|line| line.starts_with("Done "));
    println!("{}", summary.unwrap_or("no summary"));
    Ok(())
}

/// A call under the nightly compiler, which the sanitizers of cargo-fuzz need.
fn nightly(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly"])
        .args(words)
        .current_dir(root());
    forget_this_package(&mut command);
    // These name the pinned compiler and would win over `rustup run`.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    command
}

/// The names of the fuzz targets: one file each.
fn fuzz_targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "rs")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The tests of all crates that lie in modules of these names.
fn tests_in(modules: &[&str], release: bool) -> Command {
    let nextest = has("nextest");
    let mut command = if nextest {
        cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ])
    } else {
        cargo(&[
            "test",
            "--workspace",
            "--tests",
            "--locked",
            "--no-fail-fast",
        ])
    };
    if release {
        command.arg("--release");
    }
    if nextest {
        let filter = format!("test(/^({})::/)", modules.join("|"));
        command.args(["-E", &filter]);
    } else {
        command
            .arg("--")
            .args(modules.iter().map(|module| format!("{module}::")));
    }
    never_write(&mut command);
    command
}

/// A seed nobody chose.
pub(crate) fn chance_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    let mut source = std::fs::File::open("/dev/urandom").context("opening the source of chance")?;
    std::io::Read::read_exact(&mut source, &mut bytes).context("reading a seed")?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}
