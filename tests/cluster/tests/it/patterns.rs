//! What people build on sessions and keys: a leader, a lock, a semaphore, a queue.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::{
    Client, Config, Consistency, DeleteCondition, KvPair, KvPut, Lock, LockOptions, PutCondition,
    QueryOptions, Semaphore, SemaphoreOptions, Wait, WriteOptions,
};
use cluster::{Cluster, PATIENCE, Plan, until};
use rustix::process::{Pid, Signal, kill_process};

fn client(address: SocketAddr) -> Client {
    let config = Config {
        address: address.to_string().parse().unwrap(),
        ..Config::default()
    };
    Client::new(config).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// A process that leads whenever it can. Killed when dropped.
struct Contender {
    child: Child,
    heard: Arc<Mutex<Heard>>,
    ear: Option<JoinHandle<()>>,
}

/// What a contender has said.
#[derive(Debug, Clone, Default)]
struct Heard {
    /// The fencing number, and a moment at which the lock was held.
    claims: Vec<(u64, i128)>,
    losses: usize,
}

impl Contender {
    fn start(address: SocketAddr, key: &str, ttl: Duration, lock_delay: Duration) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_contender"))
            .args([&address.to_string(), key])
            .args([ttl, lock_delay].map(|time| time.as_millis().to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let heard = Arc::<Mutex<Heard>>::default();
        let hearing = Arc::clone(&heard);
        let ear = std::thread::spawn(move || {
            // A line that was cut off is none.
            for line in lines.map_while(Result::ok) {
                let mut heard = hearing.lock().unwrap();
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    ["held", fence, time] => {
                        let claim = (fence.parse().unwrap(), time.parse().unwrap());
                        heard.claims.push(claim);
                    }
                    _ => heard.losses += 1,
                }
            }
        });
        Self {
            child,
            heard,
            ear: Some(ear),
        }
    }

    fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it; everything that it has said.
    fn end(mut self) -> Heard {
        self.kill();
        self.heard()
    }

    fn kill(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(ear) = self.ear.take() {
            let heard = ear.join();
            assert!(heard.is_ok() || std::thread::panicking());
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_leader_that_dies_or_stands_still_is_followed_by_another() {
    const TTL: Duration = Duration::from_secs(10);
    const LOCK_DELAY: Duration = Duration::from_millis(500);
    let cluster = Cluster::form(&Plan::servers(1));
    let address = cluster.agents[0].spec.http();
    // Two elections at a time, since most of this is waiting.
    let mut elections: Vec<(Signal, Contender, Contender)> = Vec::new();
    for (key, signal) in [("killed", Signal::KILL), ("paused", Signal::STOP)] {
        let leader = Contender::start(address, key, TTL, LOCK_DELAY);
        until(PATIENCE, "somebody leads", || {
            leader.heard().claims.first().copied().ok_or("nobody")
        });
        let other = Contender::start(address, key, TTL, LOCK_DELAY);
        elections.push((signal, leader, other));
    }
    until(PATIENCE, "both others wait", || {
        let all = cluster.agents[0].look("/v1/session/list")?;
        let count = all.as_array().map_or(0, Vec::len);
        (count == 4)
            .then_some(())
            .ok_or(format!("{count} sessions"))
    });
    for (signal, leader, _) in &elections {
        leader.signal(*signal);
    }
    let begun = Instant::now();
    for (signal, _, other) in &elections {
        until(PATIENCE, "the other leads", || {
            other.heard().claims.first().copied().ok_or("not yet")
        });
        let took = begun.elapsed();
        println!("after {signal:?} the other led in {took:?}");
        // The last renewal was at most half a TTL ago, and a session never ends before its TTL has passed.
        assert!(took > TTL / 2, "{took:?}");
    }
    for (signal, leader, other) in elections {
        if signal == Signal::STOP {
            leader.signal(Signal::CONT);
            until(
                PATIENCE,
                "the one who was paused sees that it leads no more",
                || {
                    let losses = leader.heard().losses;
                    (losses > 0).then_some(()).ok_or("not yet")
                },
            );
        }
        let mut claims = leader.end().claims;
        claims.extend(other.end().claims);
        claims.sort_unstable_by_key(|(_, time)| *time);
        // Each next holder has a greater number, so two at once would be a step back.
        let mut fences: Vec<u64> = claims.iter().map(|(fence, _)| *fence).collect();
        assert!(fences.is_sorted(), "{signal:?}: {claims:?}");
        fences.dedup();
        assert_eq!(fences.len(), 2, "{signal:?}: {claims:?}");
    }
}

/// How many are inside at once, and how many were at most.
#[derive(Debug, Default)]
struct Room {
    inside: AtomicUsize,
    most: AtomicUsize,
    visits: AtomicUsize,
}

impl Room {
    async fn visit(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.visits.fetch_add(1, Ordering::SeqCst);
        // Others get to run, should they be able to come in.
        tokio::task::yield_now().await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn visited(&self) -> (usize, usize) {
        let (visits, most) = (&self.visits, &self.most);
        (visits.load(Ordering::SeqCst), most.load(Ordering::SeqCst))
    }
}

/// So many of them come at once, and each does this.
async fn crowd<F>(count: usize, contend: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let begun = Instant::now();
    let all: Vec<_> = (0..count).map(|_| tokio::spawn(contend())).collect();
    for one in all {
        one.await.unwrap();
    }
    println!("{count} contenders were done after {:?}", begun.elapsed());
}

#[test]
fn each_of_200_contenders_gets_the_lock_once() {
    let cluster = Cluster::form(&Plan::servers(1));
    let client = client(cluster.agents[0].spec.http());
    let room = Arc::<Room>::default();
    run(async {
        let contend = || {
            let lock = Lock::new(&client, LockOptions::new("crowd/.lock"));
            let room = Arc::clone(&room);
            async move {
                let held = lock.acquire().await.unwrap();
                room.visit().await;
                assert!(held.is_held());
                assert!(held.release().await.unwrap());
            }
        };
        crowd(200, contend).await;
        let key = client.kv_get("crowd/.lock", &QueryOptions::default()).await;
        assert_eq!(key.unwrap().value.unwrap().lock_index, 200);
    });
    assert_eq!(room.visited(), (200, 1));
}

#[test]
fn of_50_contenders_5_hold_the_semaphore() {
    let cluster = Cluster::form(&Plan::servers(1));
    let client = client(cluster.agents[0].spec.http());
    let room = Arc::<Room>::default();
    let contend = || {
        let semaphore = Semaphore::new(&client, SemaphoreOptions::new("some", 5));
        let room = Arc::clone(&room);
        async move {
            let held = semaphore.acquire().await.unwrap();
            room.visit().await;
            assert!(held.is_held());
            assert!(held.release().await.unwrap());
        }
    };
    run(crowd(50, contend));
    let (visits, most) = room.visited();
    assert_eq!(visits, 50);
    assert!(most <= 5, "{most} at once");
}

/// One who does jobs that others do as well.
struct Worker {
    client: Client,
    name: String,
    /// How often each job was done, by anybody.
    done: Arc<Mutex<BTreeMap<String, u64>>>,
}

const JOBS: usize = 120;

impl Worker {
    async fn run(self) {
        let mut index = 0;
        loop {
            let options = QueryOptions {
                wait: (index > 0).then_some(Wait {
                    index,
                    time: Duration::from_secs(1),
                }),
                ..QueryOptions::default()
            };
            let Ok(seen) = self.client.kv_list("queue/", &options).await else {
                index = 0;
                continue;
            };
            if seen.value.is_empty() {
                return;
            }
            index = seen.meta.index;
            for job in seen.value {
                if job.value == "todo" && self.takes(&job).await {
                    *self
                        .done
                        .lock()
                        .unwrap()
                        .entry(job.key.clone())
                        .or_default() += 1;
                    self.remove(&job.key).await;
                    // What was seen is old by now.
                    index = 0;
                }
            }
        }
    }

    /// Whether the job is this worker's alone. Where an answer is lost the same is asked again: whether the first
    /// attempt or the second one came through, the job was taken once.
    async fn takes(&self, job: &KvPair) -> bool {
        let put = KvPut {
            key: job.key.clone(),
            value: self.name.clone().into(),
            flags: 0,
            condition: PutCondition::Unchanged(job.modify_index),
        };
        let mut is_in_doubt = false;
        loop {
            match self.client.kv_put(&put, &WriteOptions::default()).await {
                Ok(true) => return true,
                Ok(false) if !is_in_doubt => return false,
                Ok(false) => return self.stands_at(&job.key).await.is_some(),
                Err(_) => is_in_doubt = true,
            }
        }
    }

    /// When the key last changed, if this worker's name stands there.
    async fn stands_at(&self, key: &str) -> Option<u64> {
        let options = QueryOptions {
            consistency: Consistency::Consistent,
            ..QueryOptions::default()
        };
        loop {
            if let Ok(seen) = self.client.kv_get(key, &options).await {
                let ours = seen.value.filter(|pair| pair.value == self.name);
                return ours.map(|pair| pair.modify_index);
            }
        }
    }

    async fn remove(&self, key: &str) {
        while let Some(index) = self.stands_at(key).await {
            let unchanged = DeleteCondition::Unchanged(index);
            let options = WriteOptions::default();
            // Where that is in doubt it is looked at again.
            let _ = self.client.kv_delete(key, unchanged, &options).await;
        }
    }
}

#[test]
fn every_job_of_a_queue_is_done_once_although_the_leader_dies() {
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    for job in 0..JOBS {
        cluster.agents[0].get("PUT", &format!("/v1/kv/queue/{job:03}"), b"todo");
    }
    let leader = cluster.leader();
    let addresses = cluster.addresses();
    let done = Arc::<Mutex<BTreeMap<String, u64>>>::default();
    let working = {
        let done = Arc::clone(&done);
        let others = addresses.into_iter().enumerate();
        let others: Vec<SocketAddr> = others
            .filter(|(at, _)| *at != leader)
            .map(|(_, address)| address)
            .collect();
        std::thread::spawn(move || {
            run(async {
                let all = (0..6).map(|number| {
                    let worker = Worker {
                        client: client(others[number % others.len()]),
                        name: format!("worker {number}"),
                        done: Arc::clone(&done),
                    };
                    tokio::spawn(worker.run())
                });
                let all: Vec<_> = all.collect();
                for one in all {
                    one.await.unwrap();
                }
            });
        })
    };
    until(PATIENCE, "some jobs are done", || {
        let count = done.lock().unwrap().len();
        (count >= JOBS / 4).then_some(()).ok_or(count)
    });
    cluster.agents[leader].kill();
    working.join().unwrap();
    let done = done.lock().unwrap();
    assert_eq!(done.len(), JOBS);
    assert!(done.values().all(|times| *times == 1), "{done:?}");
}
