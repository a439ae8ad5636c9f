//! Three servers on this machine: what a request costs all of them together, and what the death of their leader costs
//! its clients.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::chance::Chance;
use super::connection::{Response, once, request, succeed};
use super::load::{Until, run};
use super::process::{Agent, Ports};
use super::table::Measure;
use super::{Line, Setting};

/// In brackets in each line: what release 0.7.1 of the original takes.
pub(super) const LINES: &[Line] = &[
    Line {
        name: "cluster-put",
        about: "three servers: durable writes through the leader",
        measure: put_at_leader,
    },
    Line {
        name: "cluster-pass",
        about: "three servers: durable writes through a follower",
        measure: put_at_follower,
    },
    Line {
        name: "cluster-get",
        about: "three servers: default reads through a follower",
        measure: get_at_follower,
    },
    Line {
        name: "cluster-sure",
        about: "three servers: consistent reads at the leader",
        measure: consistent_get,
    },
    Line {
        name: "cluster-kill",
        about: "three servers: what clients see of kill -9 of the leader",
        measure: kill,
    },
    Line {
        name: "cluster-client",
        about: "memory of an agent that is no server",
        measure: client,
    },
];

const KEYS: u64 = 1000;
const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a cluster may take to form, or to find another leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// Three servers that know one another.
struct Trio {
    servers: Vec<(Ports, Agent)>,
}

/// What three servers and their clients are told of each other.
fn settings(all: &[Ports]) -> Value {
    let join: Vec<String> = all.iter().map(|ports| ports.serf()).collect();
    json!({"retry_join": join, "retry_interval": "300ms", "performance": {"raft_multiplier": 1}})
}

impl Trio {
    fn start(setting: &Setting) -> Result<Self> {
        let all = Ports::free::<3>()?;
        let start = Instant::now();
        let mut settings = settings(&all);
        settings["server"] = json!(true);
        settings["bootstrap_expect"] = json!(all.len());
        let mut servers = Vec::new();
        for (at, ports) in all.into_iter().enumerate() {
            let name = format!("bench-{at}");
            let folder = setting.scratch.path();
            let agent = Agent::launch(&setting.program, folder, &name, ports, &settings)?;
            servers.push((ports, agent));
        }
        for (_, server) in &mut servers {
            server.wait_until_ready(start)?;
        }
        let trio = Self { servers };
        trio.wait_until_calm()?;
        Ok(trio)
    }

    /// Waits until servers and gossip have nothing more to say about the start.
    fn wait_until_calm(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let counts = self.servers.iter().map(|(_, server)| -> Result<usize> {
                let members = look(server.address, "/v1/agent/members")?;
                Ok(members.as_array().map_or(0, Vec::len))
            });
            let nodes = look(self.servers[0].1.address, "/v1/catalog/nodes")?;
            let known = nodes.as_array().map_or(0, Vec::len);
            let counts: Vec<usize> = counts.collect::<Result<_>>()?;
            if counts.iter().all(|count| *count == 3) && known == 3 {
                break;
            }
            if start.elapsed() > PATIENCE {
                bail!("the servers know {counts:?} members, and the catalog {known}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for (_, server) in &self.servers {
            server.settle()?;
        }
        Ok(())
    }

    fn leader(&self) -> Result<usize> {
        let start = Instant::now();
        loop {
            let told = look(self.servers[0].1.address, "/v1/status/leader")?;
            let told = told.as_str().unwrap_or_default();
            let mut servers = self.servers.iter();
            if let Some(at) = servers.position(|(ports, _)| ports.server() == told) {
                return Ok(at);
            }
            if start.elapsed() > PATIENCE {
                bail!("{told:?} is named as the leader");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The address of a server that leads, or of one that doesn't.
    fn address(&self, leads: bool) -> Result<SocketAddr> {
        let leader = self.leader()?;
        let at = if leads { leader } else { (leader + 1) % 3 };
        Ok(self.servers[at].1.address)
    }

    /// User and system time of all three so far.
    fn cpu(&self) -> Result<Duration> {
        self.servers.iter().map(|(_, server)| server.cpu()).sum()
    }

    /// Microseconds of CPU for each request, over all three, and requests a second.
    fn cost(
        &self,
        address: SocketAddr,
        time: Duration,
        mut build: impl FnMut(u64, &mut Vec<u8>),
    ) -> Result<(f64, f64)> {
        run(address, CONNECTIONS, Until::Time(WARM_UP), &mut build)?;
        let before = self.cpu()?;
        let seen = run(address, CONNECTIONS, Until::Time(time), build)?;
        let cpu = (self.cpu()? - before).as_secs_f64() * 1e6 / seen.requests as f64;
        Ok((cpu, seen.per_second()))
    }

    fn fill(&self) -> Result<()> {
        let address = self.address(true)?;
        let mut chance = Chance::new(5);
        for key in 0..KEYS {
            succeed(
                address,
                "PUT",
                &format!("/v1/kv/bench/{key}"),
                &chance.value(64),
            )?;
        }
        Ok(())
    }
}

fn look(address: SocketAddr, path: &str) -> Result<Value> {
    let body = succeed(address, "GET", path, b"")?.into_body()?;
    serde_json::from_slice(&body).with_context(|| format!("JSON of {path}"))
}

fn put(setting: &Setting, leads: bool) -> Result<(f64, f64)> {
    let trio = Trio::start(setting)?;
    let mut chance = Chance::new(6);
    trio.cost(trio.address(leads)?, setting.time, |_, out| {
        let key = format!("/v1/kv/bench/{}", chance.below(KEYS));
        request(out, "PUT", &key, &chance.value(64));
    })
}

fn put_at_leader(setting: &Setting) -> Result<Vec<Measure>> {
    let (cpu, pace) = put(setting, true)?;
    Ok(vec![
        Measure::at_most(
            "3 servers: PUT, 64 connections, leader: CPU (388)",
            "µs",
            cpu,
            130.0,
        ),
        Measure::shown("3 servers: PUT, 64 connections, leader: pace", "/s", pace),
    ])
}

fn put_at_follower(setting: &Setting) -> Result<Vec<Measure>> {
    let (cpu, pace) = put(setting, false)?;
    Ok(vec![
        Measure::at_most(
            "3 servers: PUT, 64 connections, follower: CPU (525)",
            "µs",
            cpu,
            180.0,
        ),
        Measure::shown("3 servers: PUT, 64 connections, follower: pace", "/s", pace),
    ])
}

fn get(setting: &Setting, leads: bool, query: &str) -> Result<(f64, f64)> {
    let trio = Trio::start(setting)?;
    trio.fill()?;
    for (_, server) in &trio.servers {
        server.settle()?;
    }
    let mut chance = Chance::new(7);
    trio.cost(trio.address(leads)?, setting.time, |_, out| {
        let key = format!("/v1/kv/bench/{}{query}", chance.below(KEYS));
        request(out, "GET", &key, b"");
    })
}

fn get_at_follower(setting: &Setting) -> Result<Vec<Measure>> {
    let (cpu, pace) = get(setting, false, "")?;
    Ok(vec![
        Measure::at_most(
            "3 servers: GET, 64 connections, follower: CPU (151)",
            "µs",
            cpu,
            60.0,
        ),
        Measure::shown("3 servers: GET, 64 connections, follower: pace", "/s", pace),
    ])
}

fn consistent_get(setting: &Setting) -> Result<Vec<Measure>> {
    let (cpu, pace) = get(setting, true, "?consistent")?;
    Ok(vec![
        Measure::at_most(
            "3 servers: GET ?consistent, leader: CPU (111)",
            "µs",
            cpu,
            35.0,
        ),
        Measure::shown("3 servers: GET ?consistent, leader: pace", "/s", pace),
    ])
}

/// What clients of the two servers that live on see, from before the kill until writes go on.
#[derive(Default)]
struct Seen {
    /// When the first write was acknowledged that was sent after the kill.
    first: Option<Instant>,
    /// Answers that no request should have had.
    errors: Vec<String>,
    /// Writes that were told that their outcome is unknown.
    unknown: u64,
}

fn kill(setting: &Setting) -> Result<Vec<Measure>> {
    const WRITERS: usize = 8;
    const READERS: usize = 4;
    let mut trio = Trio::start(setting)?;
    trio.fill()?;
    let leader = trio.leader()?;
    let mut addresses = Vec::new();
    for (at, (_, server)) in trio.servers.iter().enumerate() {
        if at != leader {
            addresses.push(server.address);
        }
    }
    let victim = &mut trio.servers[leader].1;
    let seen = Mutex::new(Seen::default());
    let answered = AtomicU64::new(0);
    let (killed, ends) = (AtomicBool::new(false), AtomicBool::new(false));
    let lock = || {
        seen.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let ask = |client: usize| {
        let writes = client < WRITERS;
        let address = addresses[client % addresses.len()];
        for number in 0_u64.. {
            if ends.load(Ordering::Acquire) {
                return;
            }
            let was_killed = killed.load(Ordering::Acquire);
            let key = format!("/v1/kv/kill/{client}/{}", number % 100);
            let told = if writes {
                once(address, "PUT", &key, b"value")
            } else {
                once(address, "GET", "/v1/kv/bench/7", b"")
            };
            answered.fetch_add(1, Ordering::Relaxed);
            note(&mut lock(), told, writes && was_killed);
        }
    };
    let took = std::thread::scope(|scope| -> Result<Duration> {
        for client in 0..WRITERS + READERS {
            let ask = &ask;
            scope.spawn(move || ask(client));
        }
        let wait = |what: &str, done: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !done() {
                if start.elapsed() > PATIENCE {
                    bail!("{what} within {PATIENCE:?}");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        let outcome = (|| {
            wait("no load", &|| answered.load(Ordering::Relaxed) > 2_000)?;
            victim.kill();
            // From here on: what was sent earlier may have been answered by the one that is dead now.
            let start = Instant::now();
            killed.store(true, Ordering::Release);
            wait("no write was accepted", &|| lock().first.is_some())?;
            let first = lock().first.unwrap_or(start);
            let goal = answered.load(Ordering::Relaxed) + 2_000;
            wait("no load", &|| answered.load(Ordering::Relaxed) > goal)?;
            Ok(first.saturating_duration_since(start))
        })();
        ends.store(true, Ordering::Release);
        outcome
    })?;
    let seen = lock();
    for error in seen.errors.iter().take(5) {
        println!("   {error}");
    }
    Ok(vec![
        Measure::at_most(
            "3 servers: kill -9 of the leader: first write after it (3.0)",
            "s",
            took.as_secs_f64(),
            1.5,
        ),
        Measure::at_most(
            "3 servers: kill -9 of the leader: requests that could be held and failed",
            "",
            seen.errors.len() as f64,
            0.0,
        ),
        Measure::shown(
            "3 servers: kill -9 of the leader: writes of unknown outcome",
            "",
            seen.unknown as f64,
        ),
    ])
}

fn note(seen: &mut Seen, told: Result<Response>, is_write_after_kill: bool) {
    match told {
        Ok(response) if matches!(response.status, 200 | 404) => {
            if is_write_after_kill && seen.first.is_none() {
                seen.first = Some(Instant::now());
            }
        }
        Ok(response) => {
            let text = response.shown();
            if text.contains("outcome of this write is unknown") {
                seen.unknown += 1;
            } else {
                seen.errors.push(text);
            }
        }
        Err(error) => seen.errors.push(format!("{error:#}")),
    }
}

fn client(setting: &Setting) -> Result<Vec<Measure>> {
    let trio = Trio::start(setting)?;
    let [ports] = Ports::free()?;
    let all: Vec<Ports> = trio.servers.iter().map(|(ports, _)| *ports).collect();
    let start = Instant::now();
    let mut client = Agent::launch(
        &setting.program,
        setting.scratch.path(),
        "bench-client",
        ports,
        &settings(&all),
    )?;
    client.wait_until_ready(start)?;
    client.settle()?;
    Ok(vec![Measure::at_most(
        "3 servers: client agent at rest: memory",
        "MB",
        client.memory()? / 1e6,
        10.0,
    )])
}
