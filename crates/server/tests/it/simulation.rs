//! Whole servers from a seed: writes, restores and crashes, and what must be true whatever happens.
//!
//! `SIM_SEEDS=from..to` in the environment says which seeds; a failure names the one that shows it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consensus::sim::{DiskFault, SimNetwork, Storage, Trace};
use consensus::{NodeId, Peer};
use model::{Error, Index, KvList, Reply, Text};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::{Cluster, Consistency, ReadOptions, RestoreOptions, WriteOptions};
use server::{Checking, Parts, Server, Start, WallClock};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::calls::Wires;
use crate::setup::{self, set, stream};
use crate::trio::{address, log_config, peer};

/// How long things go wrong, on the simulated clock.
const TROUBLE: Duration = Duration::from_secs(4);

/// How long the servers may take to be whole again afterwards.
const RECOVERY_MAX: Duration = Duration::from_secs(120);

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writers at the same time.
const WRITERS: u64 = 3;

/// Generations of state that are restored, and the keys that each of them has.
const GENERATIONS: usize = 3;
const GENERATION_KEYS: usize = 40;

/// The clock on the wall of one server: off by its own amount, and it jumps.
struct CrookedClock {
    begun: Instant,
    chance: Mutex<StdRng>,
}

impl WallClock for CrookedClock {
    fn now_ms(&self) -> u64 {
        let off = self.chance.lock().unwrap().random_range(0..5_000);
        1_700_000_000_000 + u64::try_from(self.begun.elapsed().as_millis()).unwrap() + off
    }
}

struct Place {
    id: NodeId,
    storage: Storage,
    server: Option<Server>,
}

/// What the clients know and have seen.
#[derive(Default)]
struct World {
    clusters: BTreeMap<NodeId, Cluster>,
    /// How many servers were started so far, and which start each running server was.
    starts: u64,
    lives: BTreeMap<NodeId, u64>,
    writes: Vec<Write>,
    /// When each restore began and ended; one whose outcome is unknown may still happen later.
    restores: Vec<(Instant, Instant)>,
    restored: u64,
    ends: bool,
}

/// A write that was acknowledged.
struct Write {
    key: String,
    count: u64,
    began: Instant,
    ended: Instant,
}

type Shared = Arc<Mutex<World>>;

/// What a life was like.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    hash: (u64, u64),
    acknowledged: usize,
    restored: u64,
    crashes: u64,
}

fn run(seed: u64, servers: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(Box::pin(live(seed, servers)))
}

struct Life {
    what: String,
    chance: StdRng,
    trace: Trace,
    network: SimNetwork,
    wires: Wires,
    begun: Instant,
    places: Vec<Place>,
    world: Shared,
    crashes: u64,
}

async fn live(seed: u64, servers: u64) -> Report {
    let mut chance = StdRng::seed_from_u64(seed);
    let trace = Trace::begin();
    let places = (1..=servers).map(|id| Place {
        id,
        storage: Storage::new(&format!("disk {id}"), chance.random(), trace.clone()),
        server: None,
    });
    let places = places.collect();
    let mut life = Life {
        what: format!("seed {seed}, {servers} servers"),
        network: SimNetwork::new(chance.random(), trace.clone()),
        wires: Wires::new(chance.random()),
        chance,
        trace,
        begun: Instant::now(),
        places,
        world: Shared::default(),
        crashes: 0,
    };
    for place in 0..life.places.len() {
        life.start(place).await;
    }
    let voters: Vec<Peer> = life.places.iter().map(|place| peer(place.id)).collect();
    life.places[0]
        .server
        .as_ref()
        .unwrap()
        .consensus()
        .bootstrap(voters)
        .await
        .unwrap();

    let mut clients = JoinSet::new();
    for number in 0..WRITERS {
        clients.spawn(write_on(
            number,
            Arc::clone(&life.world),
            StdRng::seed_from_u64(life.chance.random()),
        ));
    }
    clients.spawn(restore_on(
        Arc::clone(&life.world),
        StdRng::seed_from_u64(life.chance.random()),
    ));
    for place in &life.places {
        let what = life.what.clone();
        let chance = StdRng::seed_from_u64(life.chance.random());
        clients.spawn(read_on(place.id, what, Arc::clone(&life.world), chance));
    }
    life.trouble().await;
    life.mend().await;
    life.world.lock().unwrap().ends = true;
    while let Some(ended) = clients.join_next().await {
        ended.unwrap_or_else(|error| panic!("{}: {error}", life.what));
    }
    let settled = timeout(RECOVERY_MAX, life.settle()).await;
    let Ok(state) = settled else {
        panic!(
            "{}: the servers do not recover: {}",
            life.what,
            life.describe()
        )
    };
    life.check(&state);
    life.end().await
}

impl Life {
    async fn start(&mut self, place: usize) {
        let id = self.places[place].id;
        let log = consensus::Config {
            seed: self.chance.random(),
            ..log_config(id)
        };
        let config = server::Config {
            seed: self.chance.random(),
            checking: Checking::InPlace,
            hold_max: Duration::from_millis(100),
            ..setup::config(&peer(id).name)
        };
        let clock = CrookedClock {
            begun: self.begun,
            chance: Mutex::new(StdRng::seed_from_u64(self.chance.random())),
        };
        let parts = Parts {
            disk: Arc::new(self.places[place].storage.attach()),
            transport: Arc::new(self.network.transport(id)),
            calls: Arc::new(self.wires.calls(address(id))),
            clock: Arc::new(clock),
            gossip: None,
        };
        let server = Server::start(config, log, parts, Start::Join)
            .await
            .unwrap_or_else(|error| panic!("{}: server {id} cannot start: {error}", self.what));
        self.network.connect(server.consensus());
        self.wires.connect(address(id), server.serve());
        let mut world = self.world.lock().unwrap();
        world.starts += 1;
        let life = world.starts;
        world.lives.insert(id, life);
        world.clusters.insert(id, server.cluster());
        drop(world);
        self.places[place].server = Some(server);
    }

    async fn crash(&mut self, place: usize) {
        // Logs that lose their ends at more than one server at once may leave no majority that knows what was promised.
        let others_are_whole = self.places.iter().enumerate().all(|(other, at)| {
            other == place
                || at
                    .server
                    .as_ref()
                    .is_some_and(|server| !server.consensus().status().tail_lost)
        });
        let Place {
            id,
            storage,
            server,
        } = &mut self.places[place];
        storage.crash(others_are_whole);
        self.network.disconnect(*id);
        self.wires.disconnect(address(*id));
        self.world.lock().unwrap().clusters.remove(id);
        if let Some(server) = server.take() {
            server.shutdown().await;
        }
        self.crashes += 1;
    }

    async fn trouble(&mut self) {
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            sleep(Duration::from_millis(self.chance.random_range(30..300))).await;
            let place = self.chance.random_range(0..self.places.len());
            match self.chance.random_range(0..8) {
                0..=2 => {
                    self.crash(place).await;
                    sleep(Duration::from_millis(self.chance.random_range(1..300))).await;
                    self.start(place).await;
                }
                3 => {
                    let id = self.places[place].id;
                    for other in &self.places {
                        self.network.cut(other.id, id);
                        self.network.cut(id, other.id);
                        self.wires.cut(address(other.id), address(id));
                        self.wires.cut(address(id), address(other.id));
                    }
                }
                4 => {
                    let loss = self.chance.random_range(0.0..0.2);
                    let delay = Duration::from_millis(self.chance.random_range(1..60));
                    self.network.set_quality(loss, 0.05, delay);
                    self.wires.set_quality(loss, delay);
                }
                5 => {
                    let delay = Duration::from_millis(self.chance.random_range(0..20));
                    self.places[place].storage.set_sync_delay_max(delay);
                }
                6 => {
                    self.places[place].storage.set_fault(DiskFault::SyncFails);
                    sleep(Duration::from_millis(self.chance.random_range(1..100))).await;
                    self.crash(place).await;
                    self.places[place].storage.set_fault(DiskFault::None);
                    self.start(place).await;
                }
                _ => self.heal(),
            }
        }
    }

    fn heal(&self) {
        self.network.heal();
        self.wires.heal();
    }

    async fn mend(&mut self) {
        self.heal();
        // Writers go on for a while without trouble, so that something stays that no restore came after.
        sleep(Duration::from_secs(2)).await;
    }

    /// Waits until a write has reached all servers, and says what all of them then hold.
    async fn settle(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let clusters: Vec<Cluster> = self
            .world
            .lock()
            .unwrap()
            .clusters
            .values()
            .cloned()
            .collect();
        loop {
            sleep(Duration::from_millis(50)).await;
            let mut written = false;
            for cluster in &clusters {
                let write = cluster.write(set("the-end", "x"), WriteOptions::default());
                written |= matches!(timeout(PATIENCE, write).await, Ok(Ok(_)));
            }
            if !written {
                continue;
            }
            sleep(Duration::from_secs(1)).await;
            let mut states = Vec::new();
            for cluster in &clusters {
                let found = everything(cluster).await;
                states.push(
                    found
                        .1
                        .iter()
                        .map(|entry| (entry.key().to_vec(), entry.value().to_vec()))
                        .collect(),
                );
            }
            let first: Vec<(Vec<u8>, Vec<u8>)> = states.swap_remove(0);
            if states.iter().all(|state| *state == first) {
                return first;
            }
        }
    }

    fn check(&self, state: &[(Vec<u8>, Vec<u8>)]) {
        one_generation(&self.what, state);
        let world = self.world.lock().unwrap();
        let last_restore = world.restores.iter().map(|(_, ended)| *ended).max();
        for write in &world.writes {
            // A restore that was under way when the write was, or began later, may have replaced it.
            if last_restore.is_some_and(|ended| ended >= write.began) {
                continue;
            }
            let found = state.iter().find(|(key, _)| key == write.key.as_bytes());
            let count = found.map_or(0, |(_, value)| {
                String::from_utf8_lossy(value).parse::<u64>().unwrap()
            });
            assert!(
                count >= write.count,
                "{}: {} was acknowledged as {} at {:?} and is {count}",
                self.what,
                write.key,
                write.count,
                write.ended - self.begun
            );
        }
    }

    fn describe(&self) -> String {
        let status = |place: &Place| {
            place
                .server
                .as_ref()
                .map(|server| server.consensus().status())
        };
        self.places
            .iter()
            .map(|place| format!("{}: {:?}; ", place.id, status(place)))
            .collect()
    }

    async fn end(mut self) -> Report {
        for place in &mut self.places {
            self.network.disconnect(place.id);
            self.wires.disconnect(address(place.id));
            if let Some(server) = place.server.take() {
                server.shutdown().await;
            }
        }
        let world = self.world.lock().unwrap();
        Report {
            hash: self.trace.hash(),
            acknowledged: world.writes.len(),
            restored: world.restored,
            crashes: self.crashes,
        }
    }
}

/// Whatever a server holds, it holds the keys of one generation, or of none.
fn one_generation(what: &str, state: &[(Vec<u8>, Vec<u8>)]) {
    let of_generations: Vec<&(Vec<u8>, Vec<u8>)> = state
        .iter()
        .filter(|(key, _)| key.starts_with(b"gen/"))
        .collect();
    let Some((_, first)) = of_generations.first() else {
        return;
    };
    assert_eq!(
        of_generations.len(),
        GENERATION_KEYS,
        "{what}: part of a restore"
    );
    assert!(
        of_generations.iter().all(|(_, value)| value == first),
        "{what}: a mix of restores"
    );
}

async fn everything(cluster: &Cluster) -> (Index, Vec<model::KvEntry>) {
    let options = ReadOptions {
        consistency: Consistency::Stale,
        ..ReadOptions::default()
    };
    let found = cluster
        .read(
            KvList {
                prefix: Text::default(),
            },
            options,
        )
        .await
        .unwrap();
    (found.meta.index, found.answer)
}

/// Some server that is up.
fn any(world: &Shared, chance: &mut StdRng) -> Option<Cluster> {
    let draw: usize = chance.random_range(0..64);
    let world = world.lock().unwrap();
    let count = world.clusters.len().max(1);
    world.clusters.values().nth(draw % count).cloned()
}

fn ends(world: &Shared) -> bool {
    world.lock().unwrap().ends
}

/// Counts up its own keys, and notes what was acknowledged.
async fn write_on(number: u64, world: Shared, mut chance: StdRng) {
    for count in 1.. {
        sleep(Duration::from_millis(chance.random_range(1..80))).await;
        if ends(&world) {
            return;
        }
        let Some(cluster) = any(&world, &mut chance) else {
            continue;
        };
        let key = format!("writer/{number}/{}", count % 3);
        let began = Instant::now();
        let write = cluster.write(set(&key, &count.to_string()), WriteOptions::default());
        let answer = timeout(PATIENCE, write).await;
        if let Ok(Ok(reply)) = answer {
            assert_eq!(reply, Reply::Applied(true));
            world.lock().unwrap().writes.push(Write {
                key,
                count,
                began,
                ended: Instant::now(),
            });
        }
        // One whose outcome is unknown may still happen, but only with a count that is larger than those before it.
    }
}

/// Restores now and then, and not any more when the trouble is over.
async fn restore_on(world: Shared, mut chance: StdRng) {
    let archives: Vec<Vec<u8>> = (0..GENERATIONS).map(archive).collect();
    let end = Instant::now() + TROUBLE;
    while Instant::now() < end {
        sleep(Duration::from_millis(chance.random_range(100..900))).await;
        let archive = archives[chance.random_range(0..GENERATIONS)].clone();
        let Some(cluster) = any(&world, &mut chance) else {
            continue;
        };
        let began = Instant::now();
        let restore = cluster.restore(RestoreOptions::default(), stream(archive));
        let done = timeout(PATIENCE, restore).await;
        let mut world = world.lock().unwrap();
        match done {
            Ok(Ok(_)) => {
                world.restored += 1;
                world.restores.push((began, Instant::now()));
            }
            Ok(Err(Error::NoLeader)) => {}
            // It may have been committed, or may yet be.
            Ok(Err(_)) | Err(_) => world
                .restores
                .push((began, Instant::now() + Duration::from_secs(1))),
        }
    }
}

/// Reads everything that one server holds, again and again: never a mix, and never an index that goes back.
async fn read_on(id: NodeId, what: String, world: Shared, mut chance: StdRng) {
    let mut last = 0;
    let mut last_life = 0;
    while !ends(&world) {
        sleep(Duration::from_millis(chance.random_range(5..60))).await;
        let running = {
            let world = world.lock().unwrap();
            world
                .clusters
                .get(&id)
                .cloned()
                .zip(world.lives.get(&id).copied())
        };
        let Some((cluster, life)) = running else {
            continue;
        };
        let (index, entries) = everything(&cluster).await;
        let state: Vec<(Vec<u8>, Vec<u8>)> = entries
            .iter()
            .map(|entry| (entry.key().to_vec(), entry.value().to_vec()))
            .collect();
        one_generation(&what, &state);
        // A server that was started again may be behind where it was.
        assert!(
            index >= last || life != last_life,
            "{what}: server {id} went back from {last} to {index}"
        );
        (last, last_life) = (index, life);
    }
}

/// A snapshot of a generation.
fn archive(generation: usize) -> Vec<u8> {
    // One of them takes several chunks, the others are quick.
    let length = if generation == 0 { 30_000 } else { 300 };
    setup::generation(generation, GENERATION_KEYS, length)
}

/// The seeds that the environment asks for, or a few.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else {
        return 1..7;
    };
    let bounds = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("SIM_SEEDS must be like 1..1000, not {text:?}"))
}

#[allow(clippy::print_stdout, reason = "a long run says what it saw")]
fn run_seeds(servers: u64) {
    let mut total = Report::default();
    for seed in seeds() {
        let report = run(seed, servers);
        total.acknowledged += report.acknowledged;
        total.restored += report.restored;
        total.crashes += report.crashes;
    }
    println!("{servers} servers: {total:?}");
    assert!(total.acknowledged > 0 && total.restored > 0 && total.crashes > 0);
}

#[test]
fn one_server_keeps_its_promises() {
    run_seeds(1);
}

#[test]
fn three_servers_keep_their_promises() {
    run_seeds(3);
}

#[test]
fn a_seed_run_twice_is_the_same_to_the_bit() {
    for servers in [1, 3] {
        let seed = seeds().start;
        assert_eq!(
            run(seed, servers),
            run(seed, servers),
            "seed {seed}, {servers} servers"
        );
    }
}
