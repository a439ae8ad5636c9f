//! A million keys: save, restore, memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Setting;
use super::chance::Chance;
use super::connection::{request, succeed};
use super::kv::{key, load_keys};
use super::load::{Seen, Until, run};
use super::process::Agent;
use super::table::Measure;

const KEYS: u64 = 1_000_000;
const SIZE: usize = 256;
const MEGABYTE: f64 = 1e6;
/// Enough writers that a pause of the server shows, few enough that they don't fill both cores.
const WRITERS: usize = 4;

fn loaded(setting: &Setting) -> Result<Agent> {
    let agent = setting.agent()?;
    load_keys(agent.address, KEYS, SIZE, 5)?;
    agent.settle()?;
    Ok(agent)
}

pub(super) fn memory(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = loaded(setting)?;
    let loaded = agent.memory()?;
    for seed in [6, 7] {
        load_keys(agent.address, KEYS, SIZE, seed)?;
    }
    agent.settle()?;
    Ok(vec![
        Measure::at_most(
            "memory with 1 million keys of 256 B",
            "MB",
            loaded / MEGABYTE,
            400.0,
        ),
        Measure::at_most(
            "the same, each overwritten twice",
            "MB",
            agent.memory()? / MEGABYTE,
            400.0,
        ),
    ])
}

pub(super) fn save(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = loaded(setting)?;
    let (_, alone) = save_once(&agent)?;
    agent.settle()?;

    // Again, with writers at work: first their pace by themselves, then during a save.
    let quiet = overwrite(&agent, Until::Time(setting.time))?;
    agent.settle()?;
    let resting = agent.memory()?;
    agent.forget_peak()?;
    let saved = AtomicBool::new(false);
    let (busy, saving) = std::thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let result = save_once(&agent);
            saved.store(true, Ordering::Relaxed);
            result
        });
        let seen = overwrite(&agent, Until::Told(&saved));
        let (_, took) = saver
            .join()
            .map_err(|_| anyhow::anyhow!("the saver panicked"))??;
        Ok::<_, anyhow::Error>((seen?, took))
    })?;
    let above = agent.peak()? - resting;
    let limit = 32.0 * MEGABYTE + 600.0 * busy.requests as f64;
    let pace = busy.per_second() / quiet.per_second() * 100.0;
    Ok(vec![
        Measure::at_most(
            "save, 1 million keys of 256 B",
            "s",
            alone.as_secs_f64(),
            5.0,
        ),
        Measure::at_most(
            "save under writes: memory above resting",
            "MB",
            above / MEGABYTE,
            limit / MEGABYTE,
        ),
        Measure::at_most(
            "save under writes: longest gap between writes",
            "ms",
            busy.gap.as_secs_f64() * 1e3,
            50.0,
        )
        .beside(quiet.gap.as_secs_f64() * 1e3),
        Measure::at_least(
            "save under writes: pace kept by the writes",
            "%",
            pace,
            50.0,
        ),
        Measure::shown("save under writes", "s", saving.as_secs_f64()),
    ])
}

/// Overwrites keys at random.
fn overwrite(agent: &Agent, until: Until) -> Result<Seen> {
    let mut chance = Chance::new(8);
    run(agent.address, WRITERS, until, |_, out| {
        request(
            out,
            "PUT",
            &format!("/v1/kv/{}", key(chance.below(KEYS))),
            &chance.value(SIZE),
        );
    })
}

/// An archive of the state, and how long it took from the request to its last byte.
fn save_once(agent: &Agent) -> Result<(Vec<u8>, Duration)> {
    let start = Instant::now();
    let response = succeed(agent.address, "GET", "/v1/snapshot", b"")?;
    let took = start.elapsed();
    Ok((response.into_body()?, took))
}

pub(super) fn restore(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = loaded(setting)?;
    let (archive, _) = save_once(&agent)?;
    agent.put("/v1/kv/after-the-save", b"1")?;
    agent.settle()?;
    let resting = agent.memory()?;
    agent.forget_peak()?;
    let start = Instant::now();
    agent.put("/v1/snapshot", &archive)?;
    let took = start.elapsed();
    let peak = agent.peak()?;
    succeed(
        agent.address,
        "GET",
        &format!("/v1/kv/{}", key(KEYS - 1)),
        b"",
    )
    .context("a restored key")?;
    if succeed(agent.address, "GET", "/v1/kv/after-the-save", b"").is_ok() {
        anyhow::bail!("the restore changed nothing");
    }
    agent.settle()?;
    Ok(vec![
        Measure::at_most(
            "restore, 1 million keys of 256 B",
            "s",
            took.as_secs_f64(),
            8.0,
        ),
        Measure::at_most(
            "restore: peak memory, against twice the state",
            "MB",
            peak / MEGABYTE,
            2.0 * resting / MEGABYTE,
        ),
        Measure::shown(
            "restore: memory afterwards",
            "MB",
            agent.memory()? / MEGABYTE,
        ),
    ])
}
