//! Three snapshot agents that save to one folder, while one of them, a server or the folder goes.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::{Cluster, Plan, consul, program, until};
use testkit::Logged;

/// The time between two snapshots, and what clocks and timers may be wrong by: a snapshot is numbered by the clock on
/// the wall and waited for by another.
const INTERVAL: Duration = Duration::from_secs(2);
const BLUR: Duration = Duration::from_millis(50);

/// How many the agents keep.
const RETAIN: usize = 5;

/// Within which another agent saves when the one that did has gone: its session runs out after twice its TTL at most,
/// 30 s, the lock-delay is 15 s, and the machine is busy with other tests.
const FAILOVER: Duration = Duration::from_secs(120);

/// A snapshot agent as a process.
struct Keeper(Logged);

impl Keeper {
    fn start(cluster: &Cluster, at: usize, room: &Path) -> Self {
        let mut command = Command::new(program());
        command
            .args(["snapshot", "agent", "-interval=2s"])
            .arg(format!("-retain={RETAIN}"))
            .arg(format!("-http-addr={}", cluster.agents[at].spec.http()))
            .arg(format!("-local-path={}", room.join("store").display()))
            .current_dir(room);
        Self(Logged::start(
            &mut command,
            room.join(format!("keeper-{at}.log")),
        ))
    }

    fn log(&self) -> String {
        self.0.log()
    }

    /// Whether it saves, by what it says.
    fn leads(&self) -> bool {
        let log = self.log();
        let got = log.rfind("Obtained leadership");
        got.is_some() && got > log.rfind("Waiting to obtain leadership")
    }

    fn kill(&mut self) {
        self.0.kill();
    }
}

/// Looks into the folder all the time, and keeps all names that ever were there. Ends when dropped.
struct Watcher {
    seen: Arc<Mutex<Vec<u64>>>,
    ends: Arc<AtomicBool>,
    eye: Option<JoinHandle<Result<(), String>>>,
}

impl Watcher {
    fn start(folder: PathBuf) -> Self {
        let seen = Arc::<Mutex<Vec<u64>>>::default();
        let ends = Arc::<AtomicBool>::default();
        let (noting, ending) = (Arc::clone(&seen), Arc::clone(&ends));
        let eye = std::thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                let there = ids(&folder);
                let mut seen = noting.lock().unwrap();
                for id in &there {
                    if !seen.contains(id) {
                        seen.push(*id);
                    }
                }
                seen.sort_unstable();
                // Whoever is there keeps all that came later.
                let kept = &seen[seen.len() - there.len()..];
                if kept != there || there.len() < RETAIN.min(seen.len()) {
                    return Err(format!("of {seen:?} only {there:?} are there"));
                }
                drop(seen);
                std::thread::park_timeout(Duration::from_millis(10));
            }
            Ok(())
        });
        Self {
            seen,
            ends,
            eye: Some(eye),
        }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until so many new ones have come.
    fn wait_for(&self, new: usize, keepers: &[Keeper]) {
        let before = self.seen().len();
        until(FAILOVER, "further snapshots", || {
            let count = self.seen().len();
            if count >= before + new {
                return Ok(());
            }
            let logs: Vec<String> = keepers.iter().map(Keeper::log).collect();
            Err(format!(
                "{} of {new} came\n{}",
                count - before,
                logs.join("\n")
            ))
        });
    }

    /// All that ever were there, if nothing was wrong with what went.
    fn end(mut self) -> Vec<u64> {
        self.ends.store(true, Ordering::Relaxed);
        let judged = self.eye.take().unwrap().join().unwrap();
        assert_eq!(judged, Ok(()));
        self.seen()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// The numbers of the snapshots in a folder, in order.
fn ids(folder: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut ids: Vec<u64> = names
        .filter_map(|name| {
            let number = name.strip_prefix("consul-")?.strip_suffix(".snap")?;
            number.parse().ok()
        })
        .collect();
    ids.sort_unstable();
    ids
}

/// The keeper that saves.
fn leader(keepers: &[Keeper]) -> usize {
    let (at, _) = until(FAILOVER, "a leader among the snapshot agents", || {
        let leading = keepers.iter().position(Keeper::leads);
        leading.ok_or("nobody leads")
    });
    at
}

/// Lets the name of the store lead somewhere else, in one step.
fn lead_to(room: &Path, target: &str) {
    let next = room.join("next");
    symlink(room.join(target), &next).unwrap();
    std::fs::rename(&next, room.join("store")).unwrap();
}

#[test]
fn one_snapshot_comes_in_an_interval_whoever_goes() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    std::fs::create_dir(room.join("kept")).unwrap();
    File::create(room.join("no-folder")).unwrap();
    lead_to(room, "kept");
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    let watcher = Watcher::start(room.join("kept"));
    let mut keepers: Vec<Keeper> = (0..3).map(|at| Keeper::start(&cluster, at, room)).collect();
    watcher.wait_for(RETAIN + 2, &keepers);

    // The agent that saves is killed, and comes back later.
    let gone = leader(&keepers);
    keepers[gone].kill();
    let before = keepers.remove(gone);
    let heir = leader(&keepers);
    watcher.wait_for(2, &keepers);
    assert!(keepers[heir].log().contains("Saved snapshot"));
    drop(before);
    keepers.insert(gone, Keeper::start(&cluster, gone, room));

    // The server that leads is killed, perhaps the one that the agent asks that saves.
    let server = cluster.leader();
    cluster.agents[server].kill();
    watcher.wait_for(2, &keepers);
    cluster.start(server);
    cluster.wait_until_writable();
    cluster.wait_for_members(3);

    // The cluster gets an earlier state, in which somebody else has the lock, or nobody.
    let oldest = ids(&room.join("kept"))[RETAIN - 1];
    let archive = room.join("kept").join(format!("consul-{oldest}.snap"));
    let archive = std::fs::read(archive).unwrap();
    cluster.agents[0].get("PUT", "/v1/snapshot", &archive);
    watcher.wait_for(2, &keepers);

    // The store goes, and comes back.
    lead_to(room, "no-folder");
    let failures = |keepers: &[Keeper]| {
        let logs = keepers.iter().map(Keeper::log);
        logs.map(|log| log.matches("[ERR").count()).sum::<usize>()
    };
    let failed = failures(&keepers);
    until(FAILOVER, "a snapshot fails", || {
        if failures(&keepers) > failed {
            Ok(())
        } else {
            Err("none has")
        }
    });
    lead_to(room, "kept");
    watcher.wait_for(3, &keepers);

    // What is there now can be restored.
    for id in ids(&room.join("kept")).iter().rev().take(2) {
        let file = room.join("kept").join(format!("consul-{id}.snap"));
        let printed = consul(&["snapshot", "verify", &file.to_string_lossy()]);
        // Rotation may have been faster.
        let is_gone = !file.exists();
        assert!(printed.code == 0 || is_gone, "{printed:?}");
    }
    let seen = watcher.end();
    let least = INTERVAL - BLUR;
    for pair in seen.windows(2) {
        let apart = Duration::from_nanos(pair[1] - pair[0]);
        assert!(apart >= least, "{pair:?} are {apart:?} apart, of {seen:?}");
    }
}
