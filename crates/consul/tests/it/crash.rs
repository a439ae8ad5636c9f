//! kill -9 at random moments: what was acknowledged is there afterwards, and nothing is half there.
//!
//! A run is small by default. `cargo xtask crash` makes it long through the environment: `CRASH_ROUNDS`,
//! `CRASH_RESTORE_ROUNDS`, and `CRASH_SEED`, which is printed so that the same moments can be tried again (what the
//! machine does in between is not ours to repeat).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Agent, PATIENCE};
use testkit::http::Client;

const WRITERS: usize = 4;
/// Keys of one writer that are set one by one.
const SINGLES: usize = 8;
/// Keys of one writer that are only ever set together, by one transaction.
const TOGETHER: usize = 8;

#[test]
fn every_acknowledged_write_survives_and_none_is_half_there() {
    let rounds = number("CRASH_ROUNDS").unwrap_or(5);
    let mut chance = Chance::seeded();
    let folder = tempfile::tempdir().unwrap();
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|name| Writer::new(name, chance.next()))
        .collect();
    let mut index = 0;
    for round in 0..rounds {
        let agent = Agent::start(folder.path());
        index = survived(&agent, &mut writers, index, round);
        let (acknowledged, acknowledgements) = channel();
        let address = agent.address;
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let acknowledged = acknowledged.clone();
                scope.spawn(move || writer.write_until_killed(address, &acknowledged));
            }
            drop(acknowledged);
            wait_for_a_moment(&mut chance, &acknowledgements);
            agent.kill();
            // The writers end by themselves: their connections are gone.
        });
    }
    let agent = Agent::start(folder.path());
    survived(&agent, &mut writers, index, rounds);
    let writes: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    println!("{rounds} kills, {writes} acknowledged writes, none lost");
    assert!(
        writes > 0 || rounds == 0,
        "nothing was ever acknowledged, so nothing was tried"
    );
}

/// Lets a random number of writes pass, and then a random moment within the next one.
fn wait_for_a_moment(chance: &mut Chance, acknowledgements: &Receiver<()>) {
    for _ in 0..chance.below(300) {
        if acknowledgements.recv().is_err() {
            // All writers gave up before the kill; what they saw is checked after it.
            return;
        }
    }
    let moment = Instant::now() + Duration::from_micros(chance.below(2_000));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

/// One client that writes to keys of its own, and remembers what it was told.
#[derive(Debug)]
struct Writer {
    name: usize,
    chance: Chance,
    /// The last acknowledged value of each key of its own, and of the transaction's.
    singles: [Memory; SINGLES],
    together: Memory,
    acknowledged: u64,
}

/// What a key may hold after a kill: what was acknowledged last, or what was under way.
#[derive(Debug, Default)]
struct Memory {
    acknowledged: Option<String>,
    /// Sent and not answered: it may be there or not, but whole. `Some(None)` is a deletion.
    under_way: Option<Option<String>>,
}

impl Memory {
    fn allows(&self, found: Option<&String>) -> bool {
        found == self.acknowledged.as_ref()
            || self
                .under_way
                .as_ref()
                .is_some_and(|value| found == value.as_ref())
    }
}

impl Writer {
    fn new(name: usize, seed: u64) -> Self {
        let singles = std::array::from_fn(|_| Memory::default());
        Self {
            name,
            chance: Chance(seed | 1),
            singles,
            together: Memory::default(),
            acknowledged: 0,
        }
    }

    fn write_until_killed(&mut self, address: SocketAddr, acknowledged: &Sender<()>) {
        let Ok(mut client) = Client::connect(address) else {
            return;
        };
        while self.write_once(&mut client) {
            self.acknowledged += 1;
            // The other side may have stopped counting.
            let _ = acknowledged.send(());
        }
    }

    /// False once the server is gone.
    fn write_once(&mut self, client: &mut Client) -> bool {
        let value = self.value();
        let kind = self.chance.below(8);
        let (memory, value, method, path, body) = match kind {
            0 | 1 => {
                let body = transaction(self.name, &value);
                (
                    &mut self.together,
                    Some(value),
                    "PUT",
                    "/v1/txn".to_owned(),
                    body,
                )
            }
            _ => {
                let at = usize::try_from(self.chance.below(SINGLES as u64)).unwrap();
                let path = format!("/v1/kv/{}", single(self.name, at));
                let memory = &mut self.singles[at];
                if kind == 2 {
                    (memory, None, "DELETE", path, String::new())
                } else {
                    (memory, Some(value.clone()), "PUT", path, value)
                }
            }
        };
        memory.under_way = Some(value);
        match client.request(method, &path, body.as_bytes(), PATIENCE) {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
                memory.acknowledged = memory.under_way.take().unwrap();
                true
            }
            Err(_) => false,
        }
    }

    /// A value that no other write has, from a few bytes to many pages, so that half of it would show.
    fn value(&mut self) -> String {
        let tag = format!("{:016x}.", self.chance.next());
        let times = match self.chance.below(8) {
            0 => 2_000,
            1 | 2 => 200,
            _ => 2,
        };
        tag.repeat(times)
    }
}

fn single(writer: usize, at: usize) -> String {
    format!("crash/{writer}/single/{at}")
}

fn together(writer: usize, at: usize) -> String {
    format!("crash/{writer}/together/{at}")
}

fn transaction(writer: usize, value: &str) -> String {
    let value = base64(value.as_bytes());
    let operations: Vec<Value> = (0..TOGETHER)
        .map(|at| serde_json::json!({"KV": {"Verb": "set", "Key": together(writer, at), "Value": value}}))
        .collect();
    Value::from(operations).to_string()
}

/// Compares the server's keys with what the writers remember; returns the index that the server reports.
fn survived(agent: &Agent, writers: &mut [Writer], index: u64, round: u64) -> u64 {
    let answer = agent.request("GET", "/v1/kv/crash/?recurse", b"");
    let now: u64 = answer
        .header("x-consul-index")
        .unwrap_or("0")
        .parse()
        .unwrap();
    let kept = match answer.status {
        404 => Value::Array(Vec::new()),
        200 => serde_json::from_slice(&answer.body).unwrap(),
        status => panic!("round {round}: {status} {}", answer.text()),
    };
    let value = |key: &str| {
        let row = kept
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["Key"] == key)?;
        Some(String::from_utf8(from_base64(row["Value"].as_str().unwrap())).unwrap())
    };
    for writer in writers {
        for (at, memory) in writer.singles.iter_mut().enumerate() {
            let key = single(writer.name, at);
            settle(memory, value(&key), &key, round);
        }
        let first = value(&together(writer.name, 0));
        for at in 1..TOGETHER {
            let key = together(writer.name, at);
            assert_eq!(
                brief(value(&key).as_ref()),
                brief(first.as_ref()),
                "round {round}: half a transaction at {key}"
            );
        }
        settle(
            &mut writer.together,
            first,
            &together(writer.name, 0),
            round,
        );
    }
    assert!(
        now >= index,
        "round {round}: the index went back from {index} to {now}"
    );
    now
}

fn settle(memory: &mut Memory, found: Option<String>, key: &str, round: u64) {
    assert!(
        memory.allows(found.as_ref()),
        "round {round}: {key} holds {}; acknowledged was {}, under way {:?}",
        brief(found.as_ref()),
        brief(memory.acknowledged.as_ref()),
        memory.under_way.as_ref().map(|value| brief(value.as_ref())),
    );
    *memory = Memory {
        acknowledged: found,
        under_way: None,
    };
}

/// Enough of a value to tell it from others.
fn brief(value: Option<&String>) -> String {
    match value {
        Some(value) => format!("{} bytes of {:.20}", value.len(), value),
        None => "nothing".to_owned(),
    }
}

/// Two states that differ in every row, so that a mix of them can't look like either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Red,
    Blue,
}

impl State {
    const BOTH: [Self; 2] = [Self::Red, Self::Blue];

    fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Blue => "blue",
        }
    }

    fn keys(self) -> usize {
        match self {
            Self::Red => 12_800,
            Self::Blue => 9_600,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Red => Self::Blue,
            Self::Blue => Self::Red,
        }
    }

    /// Makes this the server's state and returns an archive of it.
    fn build(self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        let name = self.name();
        // Long enough that the archive takes several chunks of the log.
        let value = base64(name.repeat(100).as_bytes());
        let keys: Vec<usize> = (0..self.keys()).collect();
        for keys in keys.chunks(64) {
            let operations: Vec<Value> = keys
                .iter()
                .map(|key| serde_json::json!({"KV": {"Verb": "set", "Key": format!("state/{key:06}"), "Value": value}}))
                .collect();
            agent.expect(
                "PUT",
                "/v1/txn",
                Value::from(operations).to_string().as_bytes(),
            );
        }
        let node = serde_json::json!({"Node": name, "Address": "10.0.0.1", "Service": {"Service": name, "Port": 80}});
        agent.expect("PUT", "/v1/catalog/register", node.to_string().as_bytes());
        agent.expect("GET", "/v1/snapshot", b"")
    }

    /// Which of the two states the server is in; anything else fails the test.
    fn of(agent: &Agent, round: u64) -> Self {
        let rows: Value =
            serde_json::from_slice(&agent.expect("GET", "/v1/kv/state/?recurse", b"")).unwrap();
        let rows = rows.as_array().unwrap();
        let first = rows[0]["Value"].as_str().unwrap();
        let found = Self::BOTH
            .into_iter()
            .find(|state| base64(state.name().repeat(100).as_bytes()) == first);
        let found = found.unwrap_or_else(|| panic!("round {round}: a value that nobody wrote"));
        assert_eq!(
            rows.len(),
            found.keys(),
            "round {round}: keys of {}",
            found.name()
        );
        assert!(
            rows.iter().all(|row| row["Value"] == first),
            "round {round}: values of both states"
        );
        for state in Self::BOTH {
            let services =
                agent.expect("GET", &format!("/v1/catalog/service/{}", state.name()), b"");
            let services: Value = serde_json::from_slice(&services).unwrap();
            let expected = usize::from(state == found);
            assert_eq!(
                services.as_array().unwrap().len(),
                expected,
                "round {round}: service {}",
                state.name()
            );
        }
        found
    }
}

#[test]
fn a_killed_restore_leaves_the_old_state_or_the_new_one() {
    let rounds = number("CRASH_RESTORE_ROUNDS").unwrap_or(4);
    let mut chance = Chance::seeded();
    let archives = State::BOTH.map(|state| (state, state.build()));
    let archive = |state| {
        &archives
            .iter()
            .find(|(other, _)| *other == state)
            .unwrap()
            .1
    };
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path());
    let start = Instant::now();
    agent.expect("PUT", "/v1/snapshot", archive(State::Red));
    let usual = start.elapsed();
    agent.kill();
    let mut before = State::Red;
    let mut outcomes = [0, 0];
    for round in 0..rounds {
        let agent = Agent::start(folder.path());
        assert_eq!(
            State::of(&agent, round),
            before,
            "round {round}: the state changed without a restore"
        );
        let wanted = before.other();
        // What tells the states apart is all in this part.
        let path = match round % 2 {
            0 => "/v1/snapshot",
            _ => "/v1/snapshot/part?only=catalog,kv",
        };
        let (done, answered) = channel();
        let mut client = agent.client();
        let acknowledged = std::thread::scope(|scope| {
            let restore = scope.spawn(move || {
                let answer = client.request("PUT", path, archive(wanted), PATIENCE);
                let _ = done.send(());
                answer
            });
            // A little more than it usually takes: some rounds kill it after the answer.
            let span = u64::try_from(usual.as_micros()).unwrap() * 5 / 4;
            let _ = answered.recv_timeout(Duration::from_micros(chance.below(span.max(1))));
            agent.kill();
            match restore.join().unwrap() {
                Ok(answer) => {
                    assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
                    true
                }
                Err(_) => false,
            }
        });
        let agent = Agent::start(folder.path());
        let after = State::of(&agent, round);
        assert!(
            !acknowledged || after == wanted,
            "round {round}: an acknowledged restore is gone"
        );
        outcomes[usize::from(after == wanted)] += 1;
        before = after;
        agent.kill();
    }
    println!(
        "{rounds} kills during a restore: {} left the old state, {} the new one",
        outcomes[0], outcomes[1]
    );
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// A small seeded generator (xorshift).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// From `CRASH_SEED`, or from nowhere; printed, so that it can be given again.
    #[allow(clippy::print_stdout, reason = "a failed test shows what it printed")]
    fn seeded() -> Self {
        let seed = number("CRASH_SEED")
            .unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
        println!("CRASH_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

fn from_base64(text: &str) -> Vec<u8> {
    base64_simd::STANDARD
        .decode_to_vec(text)
        .expect("a value in base64")
}
