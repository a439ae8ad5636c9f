//! Keys and values: durable writes, reads, bulk loads.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Setting;
use super::ceiling::{append_and_sync, echo};
use super::chance::{Chance, base64};
use super::connection::{request, succeed};
use super::load::{Seen, Until, run};
use super::process::Agent;
use super::table::Measure;

/// Keys that the single-key loads spread over.
const KEYS: u64 = 1000;
/// How many keys one transaction sets: as many as the original takes.
pub(super) const PER_TRANSACTION: u64 = 64;
const WARM_UP: Duration = Duration::from_millis(500);

/// What a load saw and what it cost the server, in microseconds of CPU per request.
struct Cost {
    seen: Seen,
    cpu: f64,
}

fn costed(
    agent: &Agent,
    connections: usize,
    until: Until,
    mut build: impl FnMut(u64, &mut Vec<u8>),
) -> Result<Cost> {
    run(agent.address, connections, Until::Time(WARM_UP), &mut build)?;
    let before = agent.cpu()?;
    let seen = run(agent.address, connections, until, build)?;
    let cpu = (agent.cpu()? - before).as_secs_f64() * 1e6 / seen.requests as f64;
    Ok(Cost { seen, cpu })
}

fn put(chance: &mut Chance, out: &mut Vec<u8>) {
    let key = format!("/v1/kv/bench/{}", chance.below(KEYS));
    request(out, "PUT", &key, &chance.value(64));
}

pub(super) fn put_one(setting: &Setting) -> Result<Vec<Measure>> {
    // The disk's pace changes with what else the machine does, so it is asked before and after; without the server,
    // which makes its next segments ready in the background.
    let before = append_and_sync(setting.scratch.path(), 500)?;
    let agent = setting.agent()?;
    agent.settle()?;
    let mut chance = Chance::new(1);
    let Cost { seen, cpu } = costed(&agent, 1, Until::Time(setting.time), |_, out| {
        put(&mut chance, out)
    })?;
    drop(agent);
    let after = append_and_sync(setting.scratch.path(), 500)?;
    let ceiling = f64::midpoint(before.prepared, after.prepared);
    let limit = (ceiling + 150.0).max(ceiling * 1.3);
    let growing = f64::midpoint(before.growing, after.growing);
    Ok(vec![
        Measure::at_most(
            "PUT 64 B, durable, 1 connection: median",
            "µs",
            seen.latency(0.5),
            limit,
        )
        .beside(ceiling),
        Measure::shown(
            "append and sync at the end of a growing file",
            "µs",
            growing,
        ),
        Measure::at_most("PUT 64 B, durable, 1 connection: CPU", "µs", cpu, 170.0),
    ])
}

pub(super) fn put_many(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    let mut chance = Chance::new(2);
    let Cost { seen, cpu } = costed(&agent, 64, Until::Time(setting.time), |_, out| {
        put(&mut chance, out)
    })?;
    Ok(vec![
        Measure::at_most("PUT 64 B, durable, 64 connections: CPU", "µs", cpu, 35.0),
        Measure::shown(
            "PUT 64 B, durable, 64 connections: pace",
            "/s",
            seen.per_second(),
        ),
    ])
}

pub(super) fn get(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    let mut chance = Chance::new(3);
    for key in 0..KEYS {
        agent.put(&format!("/v1/kv/bench/{key}"), &chance.value(64))?;
    }
    let body = succeed(agent.address, "GET", "/v1/kv/bench/7", b"")?
        .body()
        .len();
    let ceiling = echo(64, setting.time, "/v1/kv/bench/7", body)?;
    let Cost { seen, cpu } = costed(&agent, 64, Until::Time(setting.time), |_, out| {
        request(
            out,
            "GET",
            &format!("/v1/kv/bench/{}", chance.below(KEYS)),
            b"",
        );
    })?;
    Ok(vec![
        Measure::at_most("GET, 64 connections: CPU", "µs", cpu, ceiling * 1.5).beside(ceiling),
        Measure::shown("GET, 64 connections: pace", "/s", seen.per_second()),
    ])
}

pub(super) fn transactions(setting: &Setting) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    let works = [
        (
            "bulk load by transactions of 64, values of 64 B: keys per core",
            64,
        ),
        (
            "bulk load by transactions of 64, values of 256 B: keys per core",
            256,
        ),
    ];
    for (work, size) in works {
        let agent = setting.agent()?;
        let before = agent.cpu()?;
        let keys = 320_000;
        load_keys(agent.address, keys, size, 4)?;
        let cpu = agent.cpu()? - before;
        measures.push(Measure::at_least(
            work,
            "/s",
            keys as f64 / cpu.as_secs_f64(),
            150_000.0,
        ));
    }
    Ok(measures)
}

/// Sets the keys `load/00000000` and on, by transactions.
pub(super) fn load_keys(address: SocketAddr, keys: u64, size: usize, seed: u64) -> Result<Seen> {
    if !keys.is_multiple_of(PER_TRANSACTION) {
        bail!("{keys} keys are not a number of whole transactions");
    }
    let mut chance = Chance::new(seed);
    let mut body = Vec::new();
    run(
        address,
        4,
        Until::Count(keys / PER_TRANSACTION),
        |number, out| {
            body.clear();
            body.push(b'[');
            for at in 0..PER_TRANSACTION {
                if at > 0 {
                    body.push(b',');
                }
                let key = key(number * PER_TRANSACTION + at);
                body.extend_from_slice(
                    format!(r#"{{"KV":{{"Verb":"set","Key":"{key}","Value":""#).as_bytes(),
                );
                base64(&chance.value(size), &mut body);
                body.extend_from_slice(br#""}}"#);
            }
            body.push(b']');
            request(out, "PUT", "/v1/txn", &body);
        },
    )
}

/// The name of the n-th loaded key.
pub(super) fn key(number: u64) -> String {
    format!("load/{number:08}")
}
