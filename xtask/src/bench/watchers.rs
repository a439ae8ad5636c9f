//! Clients that wait: what each costs, how soon the last is told, and that nobody is told of what it didn't ask.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Setting;
use super::connection::{Connection, Pool, request};
use super::process::Agent;
use super::services::{register, registration};
use super::table::Measure;

const WATCHERS: usize = 9_500;
const SERVICE_WATCHERS: usize = 5_000;
const SERVICES: usize = 50;
const WAKES: usize = 5;

/// Sends a plain request on every connection and waits for all answers: afterwards each knows an index.
fn ask_all(pool: &mut Pool, path: impl Fn(usize) -> String) -> Result<()> {
    // In portions, so that neither side's queue of unread answers grows without need.
    let count = pool.connections.len();
    for start in (0..count).step_by(256) {
        let end = (start + 256).min(count);
        for at in start..end {
            request(&mut pool.connections[at].out, "GET", &path(at), b"");
            pool.send(at)?;
        }
        let mut left = end - start;
        let begin = Instant::now();
        while left > 0 {
            left -= pool.poll(Duration::from_millis(100), |pool, at| {
                expect_success(&pool.connections[at])
            })?;
            if begin.elapsed() > Duration::from_secs(60) {
                bail!("{left} requests without an answer for a minute");
            }
        }
    }
    Ok(())
}

/// Waits from the index of the connection's last answer on.
fn arm(pool: &mut Pool, at: usize, path: &str) -> Result<()> {
    let connection = &mut pool.connections[at];
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!(
        "{path}{separator}wait=10m&index={}",
        connection.response.index
    );
    request(&mut connection.out, "GET", &path, b"");
    pool.send(at)
}

fn expect_success(connection: &Connection) -> Result<()> {
    if connection.response.status != 200 {
        bail!("a watcher was answered {}", connection.response.shown());
    }
    Ok(())
}

pub(super) fn one_key(setting: &Setting) -> Result<Vec<Measure>> {
    const KEY: &str = "/v1/kv/watched/one";
    let agent = setting.agent()?;
    agent.put(KEY, b"0")?;
    agent.settle()?;
    let memory = agent.memory()?;
    let mut pool = Pool::open(agent.address, WATCHERS)?;
    ask_all(&mut pool, |_| KEY.to_owned())?;
    for at in 0..WATCHERS {
        arm(&mut pool, at, KEY)?;
    }
    agent.settle()?;
    let each = (agent.memory()? - memory) / WATCHERS as f64;
    let mut last = Vec::new();
    let mut cpu = Duration::ZERO;
    for wake in 0..WAKES {
        let before = agent.cpu()?;
        let (told, all) = wake_all(&agent, &mut pool, KEY, wake)?;
        if all != WATCHERS {
            bail!("{all} of {WATCHERS} watchers were told");
        }
        last.push(told.as_secs_f64() * 1e3);
        agent.settle()?;
        cpu += agent.cpu()? - before;
        for at in 0..WATCHERS {
            arm(&mut pool, at, KEY)?;
        }
        agent.settle()?;
    }
    last.sort_by(f64::total_cmp);
    let cpu = cpu.as_secs_f64() * 1e6 / (WATCHERS * WAKES) as f64;
    Ok(vec![
        Measure::at_most(
            "9,500 watchers on one key: memory each",
            "kB",
            each / 1e3,
            4.0,
        ),
        Measure::at_most(
            "9,500 watchers on one key: last one told",
            "ms",
            last[last.len() / 2],
            150.0,
        ),
        Measure::at_most("9,500 watchers on one key: CPU each", "µs", cpu, 18.0),
    ])
}

/// Writes the key; returns after how long the last watcher was told, and how many were.
fn wake_all(agent: &Agent, pool: &mut Pool, key: &str, value: usize) -> Result<(Duration, usize)> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        // The writer waits for its own answer, which comes while watchers are told.
        let writer = scope.spawn(|| agent.put(key, value.to_string().as_bytes()));
        let mut told = 0;
        let mut last = start;
        while told < WATCHERS && start.elapsed() < Duration::from_secs(20) {
            told += pool.poll(Duration::from_millis(50), |pool, at| {
                last = Instant::now();
                expect_success(&pool.connections[at])
            })?;
        }
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok((last.duration_since(start), told))
    })
}

pub(super) fn elsewhere(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    let name = |at: usize| format!("watched-{}", at % SERVICES);
    let path = |at: usize| format!("/v1/health/service/{}", name(at));
    for at in 0..SERVICES {
        register(agent.address, &format!("node-{at}"), &name(at), "fine")?;
    }
    register(agent.address, "elsewhere", "other", "fine")?;
    let mut pool = Pool::open(agent.address, SERVICE_WATCHERS)?;
    ask_all(&mut pool, path)?;
    for at in 0..SERVICE_WATCHERS {
        arm(&mut pool, at, &path(at))?;
    }
    agent.settle()?;
    let (early, changes) = change_elsewhere(&agent, &mut pool, setting.time * 2, path)?;
    // The same watchers, when it is their service: otherwise a server that never wakes anybody would do best.
    register(agent.address, "node-0", &name(0), "changed")?;
    let mut told = 0;
    let start = Instant::now();
    while told < SERVICE_WATCHERS / SERVICES && start.elapsed() < Duration::from_secs(10) {
        told += pool.poll(Duration::from_millis(50), |pool, at| {
            expect_success(&pool.connections[at])
        })?;
    }
    Ok(vec![
        Measure::at_most(
            "5,000 service watchers, 100 changes/s elsewhere: answered early",
            "",
            early as f64,
            0.0,
        ),
        Measure::at_least(
            "5,000 service watchers: changes elsewhere",
            "/s",
            changes,
            90.0,
        ),
        Measure::at_least(
            "5,000 service watchers: told of their own",
            "",
            told as f64,
            100.0,
        ),
    ])
}

/// Changes a service nobody watches, a hundred times a second; returns how many watchers were answered and the pace
/// that was held.
fn change_elsewhere(
    agent: &Agent,
    pool: &mut Pool,
    time: Duration,
    path: impl Fn(usize) -> String,
) -> Result<(u64, f64)> {
    let mut writer = Pool::open(agent.address, 1)?;
    let interval = Duration::from_millis(10);
    let start = Instant::now();
    let mut early = 0;
    let mut changes: u32 = 0;
    while start.elapsed() < time {
        request(
            &mut writer.connections[0].out,
            "PUT",
            "/v1/catalog/register",
            registration("elsewhere", "other", &format!("change {changes}")).as_bytes(),
        );
        writer.send(0)?;
        while writer.poll(Duration::from_secs(5), |writer, at| {
            expect_success(&writer.connections[at])
        })? == 0
        {
            if start.elapsed() > time + Duration::from_secs(30) {
                bail!("a change without an answer");
            }
        }
        changes += 1;
        loop {
            let left = (interval * changes).saturating_sub(start.elapsed());
            pool.poll(left, |pool, at| {
                early += 1;
                expect_success(&pool.connections[at])?;
                arm(pool, at, &path(at))
            })?;
            if left.is_zero() {
                break;
            }
        }
    }
    Ok((early, f64::from(changes) / start.elapsed().as_secs_f64()))
}
