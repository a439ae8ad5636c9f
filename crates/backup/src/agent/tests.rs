//! Lives of agents: a cluster and stores in memory, on paused time.

mod cluster;
mod log;
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use client::Client;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::cluster::{Cluster, Sent};
use self::log::Log;
use self::memory::{Fault, Memory};
use super::*;
use crate::fixtures::snapshot;
use crate::seal::{Identities, Opened};
use crate::{Retention, digest};

const KEY: &str = "consul-snapshot/lock";
const STATUS: &str = "consul-snapshot/status";
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// What time it is on all clocks when a test begins.
const BEGIN: u64 = 1_479_474_972_000_000_000;

/// A snapshot comes within four seconds.
const TAKES: Duration = Duration::from_secs(10);

/// A cluster, and the time since which it exists.
struct World {
    cluster: Cluster,
    began: Instant,
    log: Log,
}

/// A running agent.
struct Instance {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), AgentError>>,
    /// By how much its clock is wrong, in nanoseconds.
    offset: Arc<AtomicI64>,
}

impl World {
    fn new() -> Self {
        Self {
            cluster: Cluster::new(snapshot("full-0.7.1.snap")),
            began: Instant::now(),
            log: Log::begin(),
        }
    }

    fn surroundings(&self, seed: u64) -> (Surroundings, Arc<AtomicI64>) {
        let (began, offset) = (self.began, Arc::<AtomicI64>::default());
        let theirs = Arc::clone(&offset);
        let clock = Clock::new(move || {
            let since = u64::try_from(began.elapsed().as_nanos()).unwrap();
            (BEGIN + since).saturating_add_signed(theirs.load(Ordering::Relaxed))
        });
        let surroundings = Surroundings {
            clock,
            seed,
            checking: Checking::InPlace,
        };
        (surroundings, offset)
    }

    fn start(&self, client: Client, seed: u64, settings: Settings) -> Instance {
        let (surroundings, offset) = self.surroundings(seed);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(run(client, settings, surroundings, async {
            let _ = stopped.await;
        }));
        Instance {
            stop: Some(stop),
            task,
            offset,
        }
    }

    async fn once(&self, settings: Settings) -> Result<Saved, AgentError> {
        let (surroundings, _) = self.surroundings(7);
        let client = self.cluster.client("once");
        once(client, settings, surroundings, std::future::pending()).await
    }
}

impl Instance {
    async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap();
    }

    /// As if it had been killed: nothing of it goes on, and nobody is told.
    async fn kill(mut self) {
        self.task.abort();
        (&mut self.task).await.unwrap_err();
    }
}

fn place(store: &Memory) -> Place {
    Place {
        store: Arc::new(store.clone()),
        retention: Retention {
            newest: 3,
            ..Retention::default()
        },
    }
}

fn settings(stores: &[&Memory]) -> Settings {
    Settings {
        places: stores.iter().map(|store| place(store)).collect(),
        ..Settings::default()
    }
}

/// The seconds between snapshots.
fn gaps(store: &Memory) -> Vec<u64> {
    let published = store.published();
    let starts: Vec<u64> = published.iter().map(|(name, _)| name.id).collect();
    (starts.windows(2))
        .map(|pair| (pair[1] - pair[0]) / 1_000_000_000)
        .collect()
}

/// Waits until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + 2 * HOUR;
    while !is_so() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(100)).await;
    }
}

fn json(text: Option<String>) -> serde_json::Value {
    serde_json::from_str(&text.unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_life() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(TAKES).await;
    // At once, proved, noted.
    let [(first, _)] = store.published()[..] else {
        panic!("{:?}", store.published());
    };
    assert_eq!(store.content(first), snapshot("full-0.7.1.snap"));
    let note = store.note(first).unwrap();
    assert_eq!((note.id, note.failure), (first.id, None));
    let received = digest(&snapshot("full-0.7.1.snap")[..]).unwrap();
    assert_eq!(note.summary, crate::Summary::of(&received));
    let lines = [
        "INFO Snapshot agent running".to_owned(),
        "INFO Waiting to obtain leadership...".to_owned(),
        "INFO Obtained leadership".to_owned(),
        format!("INFO Saved snapshot {}", first.id),
    ];
    assert_eq!(world.log.lines(), lines);

    // What the cluster sees.
    assert_eq!(cluster.services("a"), ["consul-snapshot"]);
    let check = |name| cluster.check("a", name).unwrap();
    let alive = check("Consul Snapshot Agent Alive");
    assert_eq!(
        (alive.status.as_str(), alive.ttl.as_str()),
        ("passing", "30s")
    );
    assert_eq!(alive.deregister_after, "72h0m0s");
    let saving = check("Consul Snapshot Agent Saving Snapshots");
    assert_eq!(
        (saving.status.as_str(), saving.ttl.as_str()),
        ("passing", "2h0m0s")
    );
    assert_eq!(saving.deregister_after, serde_json::Value::Null);
    assert_eq!(
        saving.output,
        format!("saved snapshot {}, 3997 bytes", first.id)
    );
    let verified = check("Consul Snapshot Agent Verified Restore");
    assert_eq!(
        (verified.status.as_str(), verified.ttl.as_str()),
        ("passing", "2h0m0s")
    );
    let status = json(cluster.value(STATUS));
    assert_eq!(status["LastSaved"]["ID"], first.id.to_string());
    assert_eq!(status["LastVerified"]["ID"], first.id.to_string());
    assert_eq!(status["LastSaved"]["Places"][0]["State"], "verified");
    assert_eq!(
        (&status["Node"], &status["Interval"]),
        (&"a".into(), &"1h0m0s".into())
    );
    assert_eq!(status["NextAt"], "2016-11-18T14:16:12.005Z");

    // Every hour, from start to start, and no more than three of them are kept.
    sleep(5 * HOUR).await;
    assert_eq!(gaps(&store), [3600; 5]);
    assert_eq!(store.names().len(), 3);
    let removed: Vec<_> = store.published()[..3]
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(store.removed(), removed);

    agent.stop().await;
    assert_eq!(cluster.holder(KEY), "");
    assert_eq!(cluster.sessions(), 0);
    assert_eq!(cluster.services("a"), [""; 0]);
    assert_eq!(cluster.check("a", "Alive"), None);
}

#[tokio::test(start_paused = true)]
async fn one_of_several_saves() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let first = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(Duration::from_secs(1)).await;
    let second = world.start(cluster.client("b"), 2, settings(&[&store]));
    // Both may sit on one agent.
    let third = world.start(cluster.client("c"), 3, settings(&[&store]));
    sleep(HOUR / 2).await;
    assert_eq!(store.published().len(), 1);
    assert!(cluster.check("a", "Saving Snapshots").is_some());
    for node in ["b", "c"] {
        assert!(cluster.check(node, "Alive").is_some());
        assert_eq!(cluster.check(node, "Saving Snapshots"), None);
        assert_eq!(cluster.check(node, "Verified Restore"), None);
    }
    // A clean end: another is there at once, and waits for the rest of the interval.
    first.stop().await;
    sleep(TAKES).await;
    let holder = cluster.holder(KEY);
    assert!(!holder.is_empty());
    assert_eq!(store.published().len(), 1);
    // What is known of the last one stays known.
    let verified = ["b", "c"].map(|node| cluster.check(node, "Verified Restore"));
    let ([Some(verified), None] | [None, Some(verified)]) = verified else {
        panic!("{verified:?}");
    };
    assert_eq!(verified.status, "passing");
    assert!(verified.output.contains(" was proved at 2016-11-18T13:16:"));
    sleep(HOUR).await;
    assert_eq!(gaps(&store), [3600]);
    // A crash, late in the interval: when the session has run out and the lock-delay passed.
    sleep(Duration::from_secs(1770)).await;
    let (leader, standby) = if cluster.check("b", "Saving Snapshots").is_some() {
        (second, third)
    } else {
        (third, second)
    };
    leader.kill().await;
    sleep(HOUR).await;
    let gaps = gaps(&store);
    assert!(
        gaps.len() == 2 && (3600..3600 + 50).contains(&gaps[1]),
        "{gaps:?}"
    );
    standby.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_lost_in_the_middle_of_a_save() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    for (count, lose) in [
        (1, &(|| cluster.invalidate_holder(KEY)) as &dyn Fn()),
        (2, &|| cluster.delete(KEY)),
        (3, &|| cluster.restore()),
    ] {
        until(|| store.unfinished() > 0).await;
        lose();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(
            (store.unfinished(), store.published().len()),
            (0, count - 1)
        );
        // When it has the lock again, at once.
        sleep(MINUTE).await;
        assert_eq!(store.published().len(), count);
        assert!(cluster.check("a", "Saving Snapshots").is_some());
        sleep(HOUR - 2 * MINUTE).await;
    }
    assert_eq!(world.log.count("WARN Lost leadership"), 3);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_look_at_the_lock_counts() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(HOUR).await;
    // While the snapshot comes, the servers go, and are back before the session has run out.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(store.unfinished(), 1);
    cluster.agent_away("a", true);
    sleep(Duration::from_secs(4)).await;
    cluster.agent_away("a", false);
    sleep(MINUTE).await;
    // Whether the lock was lost over it or not: nothing half, nothing twice.
    assert_eq!(store.unfinished(), 0);
    sleep(MINUTE).await;
    assert_eq!(store.published().len(), 2);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_day_without_servers() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(HOUR / 2).await;
    cluster.servers_away(true);
    sleep(24 * HOUR).await;
    assert_eq!(store.published().len(), 1);
    assert!(world.log.lines().len() < 12, "{:#?}", world.log.lines());
    cluster.servers_away(false);
    sleep(2 * MINUTE).await;
    assert_eq!(store.published().len(), 2);
    // The same without the local agent, which forgets everything meanwhile.
    cluster.agent_away("a", true);
    sleep(24 * HOUR).await;
    cluster.restart_agent("a");
    sleep(2 * MINUTE).await;
    assert_eq!(store.published().len(), 3);
    assert_eq!(cluster.check("a", "Alive").unwrap().status, "passing");
    assert_eq!(
        cluster.check("a", "Saving Snapshots").unwrap().status,
        "passing"
    );
    assert_eq!(
        cluster.check("a", "Verified Restore").unwrap().status,
        "passing"
    );
    // And when it forgets while nothing else happens.
    cluster.restart_agent("a");
    sleep(MINUTE).await;
    assert_eq!(
        cluster.check("a", "Saving Snapshots").unwrap().status,
        "passing"
    );
    assert!(world.log.lines().len() < 30, "{:#?}", world.log.lines());
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_is_survived() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agents = [("a", 1), ("b", 2), ("c", 3)]
        .map(|(node, seed)| world.start(cluster.client(node), seed, settings(&[&store])));
    sleep(HOUR / 2).await;
    for _ in 0..3 {
        cluster.restore();
        sleep(MINUTE).await;
        assert!(!cluster.holder(KEY).is_empty());
    }
    sleep(6 * HOUR).await;
    // The status entry was wiped away with the lock; the store knows better.
    assert_eq!(gaps(&store), [3600; 6]);
    for agent in agents {
        agent.stop().await;
    }
    assert_eq!(cluster.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_too_many_failures_another_may_try() {
    let world = World::new();
    let cluster = &world.cluster;
    let (full, free) = (Memory::new("full"), Memory::new("free"));
    full.fail(Fault::Write);
    let first = world.start(cluster.client("a"), 1, settings(&[&full]));
    sleep(Duration::from_secs(1)).await;
    let second = world.start(cluster.client("b"), 2, settings(&[&free]));
    sleep(10 * MINUTE).await;
    assert_eq!((full.published().len(), full.unfinished()), (0, 0));
    assert_eq!(
        world
            .log
            .count("ERROR No snapshot: full: cannot write: told to fail"),
        3
    );
    assert_eq!(
        world
            .log
            .count("WARN Gave up leadership after 3 failed snapshots"),
        1
    );
    assert_eq!(free.published().len(), 1);
    assert_eq!(cluster.check("a", "Saving Snapshots"), None);
    second.stop().await;
    // Alone it gets the lock again, and it goes on to try, less and less often.
    sleep(10 * HOUR).await;
    let failed = world.log.count("ERROR No snapshot");
    assert!((20..60).contains(&failed), "{failed}");
    let check = cluster.check("a", "Saving Snapshots");
    assert!(check.is_none_or(|check| check.status != "passing"));
    full.heal();
    sleep(HOUR / 2).await;
    assert_eq!(full.published().len(), 1);
    assert_eq!(
        cluster.check("a", "Saving Snapshots").unwrap().status,
        "passing"
    );
    assert_eq!(json(cluster.value(STATUS))["Failures"], 0);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_in_a_row() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(TAKES).await;
    for _ in 0..4 {
        store.fail(Fault::Publish);
        let check = || cluster.check("a", "Saving Snapshots").unwrap();
        until(|| check().status == "critical").await;
        let check = check();
        assert_eq!(check.status, "critical");
        assert_eq!(check.output, "shelf: cannot publish: told to fail");
        store.heal();
        sleep(2 * MINUTE).await;
        let check = cluster.check("a", "Saving Snapshots").unwrap();
        assert_eq!(check.status, "passing");
    }
    assert_eq!(world.log.count("Gave up leadership"), 0);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_place_fails_and_the_others_have_theirs() {
    for fault in [Fault::Begin, Fault::Write, Fault::Hang, Fault::Publish] {
        let world = World::new();
        let cluster = &world.cluster;
        let (good, bad) = (Memory::new("good"), Memory::new("bad"));
        bad.fail(fault);
        let agent = world.start(cluster.client("a"), 1, settings(&[&bad, &good]));
        sleep(20 * MINUTE).await;
        // There isn't a second one at the place where it is.
        assert_eq!(
            (good.published().len(), bad.published().len()),
            (1, 0),
            "{fault:?}"
        );
        assert_eq!((good.unfinished(), bad.unfinished()), (0, 0));
        let check = cluster.check("a", "Saving Snapshots").unwrap();
        assert_eq!(check.status, "critical");
        assert!(check.output.starts_with("bad: "), "{}", check.output);
        assert_eq!(
            cluster.check("a", "Verified Restore").unwrap().status,
            "critical"
        );
        let status = json(cluster.value(STATUS));
        let places = &status["LastSaved"]["Places"];
        assert_eq!(
            (&places[0]["State"], &places[1]["State"]),
            (&"failed".into(), &"verified".into())
        );
        assert_eq!(
            (&status["Failures"], &status["LastVerified"]),
            (&1.into(), &serde_json::Value::Null)
        );
        bad.heal();
        sleep(HOUR).await;
        assert_eq!(
            (good.published().len(), bad.published().len()),
            (2, 1),
            "{fault:?}"
        );
        assert_eq!(
            cluster.check("a", "Saving Snapshots").unwrap().status,
            "passing"
        );
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_lies_there_is_something_else() {
    for (fault, text) in [
        (Fault::Corrupt, "can't be restored: "),
        (Fault::Short, "can't be restored: "),
        (Fault::Another, "is another snapshot there: of index "),
    ] {
        let world = World::new();
        let (cluster, store) = (&world.cluster, Memory::new("shelf"));
        store.has_another(snapshot("three-servers.snap"));
        let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
        sleep(2 * HOUR + TAKES).await;
        store.fail(fault);
        sleep(2 * HOUR).await;
        let last = store.published()[4].0;
        let check = cluster.check("a", "Verified Restore").unwrap();
        assert_eq!(check.status, "critical");
        assert!(check.output.contains(text), "{}", check.output);
        assert_eq!(
            cluster.check("a", "Saving Snapshots").unwrap().status,
            "critical"
        );
        assert!(store.note(last).unwrap().failure.unwrap().contains(text));
        // Those that are good don't go for it.
        assert_eq!(store.removed(), []);
        store.heal();
        sleep(HOUR).await;
        assert_eq!(
            cluster.check("a", "Verified Restore").unwrap().status,
            "passing"
        );
        assert_eq!(store.names().len(), 3);
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_back_is_no_failure() {
    for fault in [Fault::Read, Fault::BreakOff] {
        let world = World::new();
        let (cluster, store) = (&world.cluster, Memory::new("shelf"));
        store.fail(fault);
        let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
        sleep(5 * HOUR + TAKES).await;
        assert_eq!(gaps(&store), [3600; 5]);
        assert_eq!(store.names().len(), 3);
        assert_eq!(
            cluster.check("a", "Saving Snapshots").unwrap().status,
            "passing"
        );
        assert_eq!(
            cluster.check("a", "Verified Restore").unwrap().status,
            "critical"
        );
        assert_eq!(world.log.count("ERROR"), 0);
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_failure_at_all() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    for fault in [Fault::List, Fault::Remove, Fault::Note] {
        store.fail(fault);
    }
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(5 * HOUR + TAKES).await;
    assert_eq!(gaps(&store), [3600; 5]);
    for name in ["Saving Snapshots", "Verified Restore"] {
        assert_eq!(cluster.check("a", name).unwrap().status, "passing");
    }
    assert_eq!(world.log.count("ERROR"), 0);
    assert_eq!(
        world
            .log
            .count("WARN Old snapshots stay longer than they should"),
        6
    );
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clocks_that_are_wrong() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(HOUR + TAKES).await;
    // It is set back by a day while it runs: intervals are not measured by it.
    agent.offset.store(-86_400_000_000_000, Ordering::Relaxed);
    sleep(2 * HOUR).await;
    let ids = |count| {
        let ids: Vec<u64> = store.published().iter().map(|(name, _)| name.id).collect();
        assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
        assert_eq!(ids.len(), count);
        ids
    };
    let before = ids(4);
    let steps = before[3] - before[1];
    assert!((2..=2 * schedule::STEP_MAX).contains(&steps), "{steps}");
    assert_eq!(world.log.count("ahead of this machine's clock"), 1);
    agent.stop().await;
    // Another one, whose clock is as wrong, doesn't know when that was, and rather has one too many.
    let agent = world.start(cluster.client("b"), 2, settings(&[&store]));
    agent.offset.store(-86_400_000_000_000, Ordering::Relaxed);
    sleep(TAKES).await;
    let step = ids(5)[4] - before[3];
    assert!((1..=schedule::STEP_MAX).contains(&step), "{step}");
    agent.stop().await;
    // A little behind is as good as right.
    let agent = world.start(cluster.client("c"), 3, settings(&[&store]));
    agent.offset.store(86_400_000_000_000, Ordering::Relaxed);
    sleep(TAKES).await;
    agent.stop().await;
    ids(6);
    let agent = world.start(cluster.client("d"), 4, settings(&[&store]));
    agent
        .offset
        .store(86_400_000_000_000 - 30_000_000_000, Ordering::Relaxed);
    sleep(HOUR - TAKES).await;
    ids(6);
    sleep(2 * TAKES).await;
    ids(7);
    // What anybody can write into the status entry isn't taken for a number.
    agent.stop().await;
    cluster.set(STATUS, r#"{"LastSaved":{"ID":"18446744073709551615","Name":"","Size":0,"Index":0,"Term":0,"StateSize":0,"Digest":"","Counts":{},"Places":[]}}"#);
    let agent = world.start(cluster.client("f"), 6, settings(&[&store]));
    agent
        .offset
        .store(2 * 86_400_000_000_000, Ordering::Relaxed);
    sleep(TAKES).await;
    ids(8);
    // Nothing comes after the last number there is.
    store.put(u64::MAX);
    agent.stop().await;
    let agent = world.start(cluster.client("e"), 5, settings(&[&store]));
    sleep(TAKES).await;
    assert_eq!(
        world
            .log
            .count("ERROR No snapshot: there is a snapshot with the number 18446744073709551615"),
        1
    );
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_answer_is_lost() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    store.fail(Fault::LostAnswer);
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    sleep(3 * HOUR + TAKES).await;
    // It counts as a failure, but there isn't a second one for it.
    assert_eq!(gaps(&store), [3600; 3]);
    assert_eq!(world.log.count("is there after all"), 4);
    assert_eq!(world.log.count("Gave up leadership"), 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopped_in_the_middle() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let agent = world.start(cluster.client("a"), 1, settings(&[&store]));
    until(|| store.unfinished() > 0).await;
    let began = Instant::now();
    agent.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!((store.unfinished(), store.published().len()), (0, 0));
    assert_eq!((cluster.holder(KEY).as_str(), cluster.sessions()), ("", 0));
    assert_eq!(cluster.services("a"), [""; 0]);
    // Also while nobody answers.
    let agent = world.start(cluster.client("a"), 2, settings(&[&store]));
    sleep(Duration::from_secs(2)).await;
    cluster.agent_away("a", true);
    agent.stop().await;
    // And while a store takes its time with the name.
    cluster.agent_away("a", false);
    sleep(MINUTE).await;
    store.fail(Fault::SlowPublish);
    let agent = world.start(cluster.client("a"), 5, settings(&[&store]));
    sleep(Duration::from_secs(6)).await;
    let began = Instant::now();
    agent.stop().await;
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!((store.unfinished(), store.published().len()), (0, 0));
    store.heal();
    // And while it waits for its turn.
    let holder = world.start(cluster.client("b"), 3, settings(&[&store]));
    sleep(2 * MINUTE).await;
    let waiting = world.start(cluster.client("c"), 4, settings(&[&store]));
    sleep(MINUTE).await;
    waiting.stop().await;
    assert_eq!(cluster.sessions(), 1);
    holder.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_is_no_snapshot() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let sound = snapshot("full-0.7.1.snap");
    let mut damaged = sound.clone();
    damaged[2000] ^= 1;
    for (sent, text) in [
        (
            Sent::Broken(sound.clone()),
            "the snapshot broke off on its way: connection reset by peer",
        ),
        (
            Sent::Whole(damaged),
            "what the servers sent is no sound snapshot: ",
        ),
        (
            Sent::Whole(sound[..3000].to_vec()),
            "what the servers sent is no sound snapshot: ",
        ),
        (
            Sent::Stuck(sound.clone()),
            "the snapshot broke off on its way: i/o timeout",
        ),
    ] {
        cluster.sends(sent);
        let why = world
            .once(settings(&[&store]))
            .await
            .unwrap_err()
            .to_string();
        assert!(why.starts_with(&format!("no snapshot: {text}")), "{why}");
        assert_eq!((store.unfinished(), store.published().len()), (0, 0));
    }
    cluster.sends(Sent::Whole(sound));
    world.once(settings(&[&store])).await.unwrap();
    assert_eq!(store.published().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_single_one() {
    let world = World::new();
    let cluster = &world.cluster;
    let (one, other) = (Memory::new("one"), Memory::new("other"));
    for _ in 0..5 {
        let saved = world.once(settings(&[&one, &other])).await.unwrap();
        assert!(saved.is_verified());
    }
    assert_eq!((one.names().len(), other.names().len()), (3, 3));
    assert_eq!(one.names(), other.names());
    // Nobody is asked for a lock or told of a service.
    assert_eq!(cluster.asked("PUT /v1/session/"), 0);
    assert_eq!(cluster.asked("PUT /v1/agent/"), 0);
    assert_eq!(json(cluster.value(STATUS))["Failures"], 0);

    other.fail(Fault::Write);
    let why = world.once(settings(&[&one, &other])).await.unwrap_err();
    assert_eq!(why.to_string(), "other: cannot write: told to fail");
    assert_eq!(one.published().len(), 6);
    assert_eq!(json(cluster.value(STATUS))["Failures"], 1);
    let why = world.once(Settings::default()).await.unwrap_err();
    assert_eq!(
        why.to_string(),
        "there is no place for snapshots; name one at least"
    );
    cluster.servers_away(true);
    let why = world.once(settings(&[&one])).await.unwrap_err().to_string();
    let text = "no snapshot: the servers gave no snapshot: Unexpected response code: 500 (No cluster leader)";
    assert_eq!(why, text);
}

#[tokio::test(start_paused = true)]
async fn encrypted_ones_are_proved_as_well() {
    let world = World::new();
    let store = Memory::new("shelf");
    let owner = Identities::generate();
    let encrypted = Settings {
        recipients: owner.recipients(),
        ..settings(&[&store])
    };
    let saved = world.once(encrypted.clone()).await.unwrap();
    assert!(saved.is_verified() && saved.name.encrypted);
    let content = store.content(saved.name);
    assert_eq!(saved.size, content.len() as u64);
    let opened = Opened::new(&content[..], Some(&owner)).unwrap();
    assert_eq!(digest(opened).unwrap(), saved.received);
    assert!(digest(&content[..]).is_err());
    store.fail(Fault::Corrupt);
    let why = world.once(encrypted).await.unwrap_err().to_string();
    assert!(why.contains(".snap.age can't be restored: "), "{why}");
}

#[tokio::test(start_paused = true)]
async fn registration_is_tried_again() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let client = cluster.client("a");
    cluster.refuse_registrations("a", 4);
    let agent = world.start(client, 1, settings(&[&store]));
    sleep(TAKES).await;
    // It doesn't wait for that.
    assert_eq!(store.published().len(), 1);
    assert_eq!(
        world
            .log
            .count("WARN The service \"consul-snapshot\" can't be told"),
        1
    );
    sleep(TAKES).await;
    assert_eq!(cluster.check("a", "Alive").unwrap().status, "passing");
    assert_eq!(
        cluster.check("a", "Saving Snapshots").unwrap().status,
        "passing"
    );
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_datacenter_is_only_for_single_ones() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    let of = |datacenter: &str| Settings {
        datacenter: datacenter.to_owned(),
        ..settings(&[&store])
    };
    let agent = world.start(cluster.client("a"), 1, of("dc2"));
    let why = agent.task.await.unwrap().unwrap_err().to_string();
    assert!(
        why.starts_with("the agent is in the datacenter \"dc1\""),
        "{why}"
    );
    assert_eq!(store.published().len(), 0);
    let agent = world.start(cluster.client("a"), 1, of("DC1"));
    sleep(TAKES).await;
    assert_eq!(store.published().len(), 1);
    agent.stop().await;
    world.once(of("dc2")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_to_publish_is_the_race_that_remains() {
    let world = World::new();
    let (cluster, store) = (&world.cluster, Memory::new("shelf"));
    store.fail(Fault::SlowPublish);
    let first = world.start(cluster.client("a"), 1, settings(&[&store]));
    let second = world.start(cluster.client("b"), 2, settings(&[&store]));
    // The lock is lost after the last look at it, and the store takes a minute.
    sleep(Duration::from_secs(6)).await;
    assert_eq!((store.unfinished(), store.published().len()), (1, 0));
    cluster.invalidate_holder(KEY);
    sleep(5 * MINUTE).await;
    // Two in one interval, with names of their own, both whole.
    assert_eq!(store.published().len(), 2);
    for (name, _) in store.published() {
        assert_eq!(store.content(name), snapshot("full-0.7.1.snap"));
    }
    first.stop().await;
    second.stop().await;
}

// Paused time doesn't go on while a thread works.
#[tokio::test]
async fn on_threads_as_well() {
    let world = World::new();
    world.cluster.hurries();
    let store = Memory::new("shelf");
    let surroundings = Surroundings {
        checking: Checking::OnAThread,
        ..Surroundings::system(3)
    };
    let client = world.cluster.client("a");
    let saved = once(
        client,
        settings(&[&store]),
        surroundings,
        std::future::pending(),
    )
    .await;
    assert!(saved.unwrap().is_verified());
}
