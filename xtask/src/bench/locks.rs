//! Sessions and locks: what a renewal costs, and how soon a lock that is given back is held by the one who waits.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Setting;
use super::ceiling::append_and_sync;
use super::connection::{Pool, request, succeed};
use super::load::{Until, run};
use super::table::Measure;

const SESSIONS: u64 = 1_000;
const HAND_OVERS: usize = 200;
const KEY: &str = "/v1/kv/bench/.lock";

/// The id of a new session.
fn session(address: SocketAddr, wish: &[u8]) -> Result<String> {
    let created = succeed(address, "PUT", "/v1/session/create", wish)?;
    let created: Value = serde_json::from_slice(&created.into_body()?)?;
    let id = created["ID"].as_str().context("the id of a session")?;
    Ok(id.to_owned())
}

pub(super) fn renew(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    let mut ids = Vec::new();
    for _ in 0..SESSIONS {
        ids.push(session(agent.address, br#"{"TTL": "10m"}"#)?);
    }
    let mut build = |number: u64, out: &mut Vec<u8>| {
        let id = usize::try_from(number % SESSIONS).map(|at| ids[at].as_str());
        let path = format!("/v1/session/renew/{}", id.unwrap_or_default());
        request(out, "PUT", &path, b"");
    };
    run(
        agent.address,
        64,
        Until::Time(Duration::from_millis(500)),
        &mut build,
    )?;
    let before = agent.cpu()?;
    let seen = run(agent.address, 64, Until::Time(setting.time), &mut build)?;
    let cpu = (agent.cpu()? - before).as_secs_f64() * 1e6 / seen.requests as f64;
    Ok(vec![
        Measure::at_most("renewal of a session, 64 connections: CPU", "µs", cpu, 40.0),
        Measure::shown(
            "renewal of a session, 64 connections: pace",
            "/s",
            seen.per_second(),
        ),
    ])
}

/// Two clients that hold a lock in turn, each waiting for the other as the recipe of locks says.
struct Pair {
    pool: Pool,
    sessions: [String; 2],
    /// Whether each client's last request was answered.
    are_answered: [bool; 2],
}

impl Pair {
    fn send(&mut self, client: usize, method: &str, path: &str) -> Result<()> {
        request(&mut self.pool.connections[client].out, method, path, b"");
        self.are_answered[client] = false;
        self.pool.send(client)
    }

    /// Waits until this client's request is answered.
    fn answered(&mut self, client: usize) -> Result<()> {
        let start = Instant::now();
        while !self.are_answered[client] {
            let are_answered = &mut self.are_answered;
            self.pool.poll(Duration::from_millis(100), |_, client| {
                are_answered[client] = true;
                Ok(())
            })?;
            if start.elapsed() > Duration::from_secs(60) {
                bail!("no answer for a minute");
            }
        }
        Ok(())
    }

    fn asks(&mut self, client: usize, method: &str, path: &str) -> Result<()> {
        self.send(client, method, path)?;
        self.answered(client)
    }

    fn locks(&mut self, client: usize) -> Result<()> {
        let path = format!("{KEY}?acquire={}", self.sessions[client]);
        self.asks(client, "PUT", &path)?;
        self.says_true(client)
    }

    fn says_true(&self, client: usize) -> Result<()> {
        let response = &self.pool.connections[client].response;
        if response.status != 200 || !response.body().starts_with(b"true") {
            bail!("answered {}", response.shown());
        }
        Ok(())
    }

    /// From the one's release until the other holds the lock.
    fn hand_over(&mut self, from: usize, to: usize) -> Result<Duration> {
        self.asks(to, "GET", KEY)?;
        let index = self.pool.connections[to].response.index;
        self.send(to, "GET", &format!("{KEY}?wait=1m&index={index}"))?;
        // Nothing says that the server has taken it; were it later than the release, it would not be the wait that is
        // measured.
        sleep(Duration::from_millis(2));
        let start = Instant::now();
        self.send(
            from,
            "PUT",
            &format!("{KEY}?release={}", self.sessions[from]),
        )?;
        // Who waits doesn't care whether the other was answered.
        self.answered(to)?;
        self.locks(to)?;
        let took = start.elapsed();
        self.answered(from)?;
        self.says_true(from)?;
        Ok(took)
    }
}

pub(super) fn hand_over(setting: &Setting) -> Result<Vec<Measure>> {
    // The disk's pace changes with what else the machine does, so it is asked before and after.
    let before = append_and_sync(setting.scratch.path(), 500)?;
    let agent = setting.agent()?;
    agent.settle()?;
    let wish = br#"{"TTL": "10m", "LockDelay": "0s"}"#;
    let mut pair = Pair {
        pool: Pool::open(agent.address, 2)?,
        sessions: [session(agent.address, wish)?, session(agent.address, wish)?],
        are_answered: [true; 2],
    };
    pair.locks(0)?;
    let mut times = Vec::new();
    for turn in 0..HAND_OVERS {
        let took = pair.hand_over(turn % 2, (turn + 1) % 2)?;
        times.push(took.as_secs_f64() * 1e6);
    }
    drop(agent);
    let after = append_and_sync(setting.scratch.path(), 500)?;
    times.sort_by(f64::total_cmp);
    let ceiling = f64::midpoint(before.prepared, after.prepared);
    Ok(vec![
        Measure::at_most(
            "hand-over of a lock to the one who waits: median",
            "µs",
            times[times.len() / 2],
            3.0 * ceiling + 2_000.0,
        )
        // A release and a lock, one after the other.
        .beside(2.0 * ceiling),
    ])
}
