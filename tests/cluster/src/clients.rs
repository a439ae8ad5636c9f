//! Clients that use a cluster through any of its agents, and remember what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulation::archive::{KEYS, MARKS, archive, key_name, restored};
use simulation::check::{Violation, check};
use simulation::history::{
    Action, Generation, Glimpse, History, Keepsake, Moment, Operation, Outcome, Row, SessionNumber,
    Sweep, SweepOperation,
};

use crate::chance::Chance;
use crate::form::Cluster;
use crate::patience::{PATIENCE, until};
use testkit::http::{Answer, Client as Connection};

/// How long a client waits for an answer: longer than a server holds a request while nobody leads.
const ANSWER: Duration = Duration::from_secs(10);

/// How long restores and snapshots may take.
const BULK: Duration = Duration::from_secs(30);

/// The node that sessions live on.
const NODE: &str = "holder";

/// What is asked of a cluster, and how often.
#[derive(Debug, Clone, Copy)]
pub struct What {
    /// How many clients read and write single keys through any agent, beside one for each agent that stays with it.
    pub keys: usize,
    /// How many take and give locks.
    pub locks: usize,
    /// Whether everything is replaced now and then.
    pub restores: bool,
    /// Whether snapshots are taken now and then.
    pub saves: bool,
    /// How long each client pauses between two requests, at most.
    pub pace: Duration,
}

impl What {
    /// Single keys and locks.
    pub const KEYS: Self = Self {
        keys: 4,
        locks: 2,
        restores: false,
        saves: false,
        pace: Duration::from_millis(20),
    };

    /// Everything.
    pub const ALL: Self = Self {
        restores: true,
        saves: true,
        ..Self::KEYS
    };
}

/// An answer that no request should have had.
#[derive(Debug, Clone)]
pub struct Told {
    /// When the request was sent.
    pub called: Moment,
    /// When it was answered.
    pub returned: Moment,
    /// Through which agent.
    pub place: usize,
    /// The request.
    pub request: String,
    /// The status and the text.
    pub answer: String,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    sessions: BTreeMap<String, SessionNumber>,
    generations: Generation,
    values: u64,
    answered: u64,
    written: u64,
    restores: u64,
    saves: u64,
    errors: Vec<Told>,
    unknown: u64,
    violation: Option<Violation>,
    avoided: Option<usize>,
    calms: bool,
    ends: bool,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    addresses: Vec<SocketAddr>,
    state: Mutex<State>,
    moved: Condvar,
    pace: Duration,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn value(&self) -> u64 {
        let mut state = self.state();
        state.values += 1;
        state.values
    }

    fn ends(&self) -> bool {
        self.state().ends
    }
}

/// Clients at work, each a thread. They end when this is [judged](Self::judge) or dropped.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them. They go through all of these agents; the first `servers` of them are also looked at one by one.
    pub fn start(
        addresses: &[SocketAddr],
        servers: usize,
        what: What,
        chance: &mut Chance,
    ) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            addresses: addresses.to_vec(),
            state: Mutex::default(),
            moved: Condvar::new(),
            pace: what.pace,
        });
        let mut clients = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        for _ in 0..what.keys {
            clients.spawn(chance, Client::use_keys);
        }
        for place in 0..addresses.len() {
            clients.spawn(chance, move |client| {
                client.home = Some(place);
                client.use_keys();
            });
        }
        for _ in 0..what.locks {
            clients.spawn(chance, Client::use_locks);
        }
        clients.spawn(chance, Client::keep);
        for place in 0..servers {
            clients.spawn(chance, move |client| client.look_at(place));
        }
        if what.restores {
            clients.spawn(chance, Client::restore);
        }
        if what.saves {
            clients.spawn(chance, Client::save);
        }
        clients
    }

    fn spawn(&mut self, chance: &mut Chance, work: impl FnOnce(&mut Client) + Send + 'static) {
        let mut client = self.client(chance.draw());
        client.number = u64::try_from(self.threads.len()).unwrap_or(0) + 1;
        self.threads
            .push(std::thread::spawn(move || work(&mut client)));
    }

    fn client(&self, seed: u64) -> Client {
        Client {
            number: 0,
            home: None,
            shared: Arc::clone(&self.shared),
            chance: Chance::new(seed),
            connections: BTreeMap::new(),
            connected: 0,
            seen: BTreeMap::new(),
        }
    }

    /// How many writes have been acknowledged so far.
    pub fn written(&self) -> u64 {
        self.shared.state().written
    }

    /// The present moment, as the history counts.
    pub fn now(&self) -> Moment {
        self.shared.now()
    }

    /// Waits until so many further writes have been acknowledged, and returns how long that took.
    pub fn wait_for_writes(&self, further: u64) -> Duration {
        let goal = self.written() + further;
        let (_, took) = until(PATIENCE, "writes are acknowledged", || {
            let state = self.shared.state();
            if state.written >= goal {
                Ok(())
            } else {
                let last: Vec<_> = state.errors.iter().rev().take(5).cloned().collect();
                Err(format!("{} of {goal}; errors: {last:?}", state.written))
            }
        });
        took
    }

    /// Waits until a write has been acknowledged that was sent after this moment, and returns how long after it that was.
    pub fn wait_for_write_after(&self, moment: Moment) -> Duration {
        let (first, _) = until(PATIENCE, "a write is acknowledged", || {
            let state = self.shared.state();
            let applied = state.history.operations.iter();
            let applied = applied
                .filter(|one| matches!(one.outcome, Outcome::Applied(_)) && one.called >= moment)
                .map(|one| one.returned);
            let kept = state.history.keepsakes.iter();
            let kept = kept
                .filter(|keepsake| keepsake.called >= moment)
                .map(|keepsake| keepsake.acknowledged);
            let first = applied.chain(kept).min();
            first.ok_or_else(|| format!("errors: {:?}", state.errors.last()))
        });
        Duration::from_nanos(first - moment)
    }

    /// From now on only those go to this agent that always do, as if somebody watched over the others' list.
    pub fn avoid(&self, place: Option<usize>) {
        self.shared.state().avoided = place;
    }

    /// From now on nothing is replaced any more.
    pub fn calm(&self) {
        self.shared.state().calms = true;
    }

    /// Restores that were answered or may have happened, and snapshots that were taken.
    pub fn bulk(&self) -> (u64, u64) {
        let state = self.shared.state();
        (state.restores, state.saves)
    }

    /// Answers that were errors, other than that an outcome is unknown.
    pub fn errors(&self) -> Vec<Told> {
        self.shared.state().errors.clone()
    }

    /// How many were told that the outcome is unknown, or nothing.
    pub fn unknown(&self) -> u64 {
        self.shared.state().unknown
    }

    /// Ends all work, waits until all running servers hold the same, reads everything once more, and checks that what
    /// all clients saw keeps every promise. Nothing goes wrong any more.
    ///
    /// # Panics
    /// With the promise that was broken.
    #[allow(clippy::print_stdout, reason = "a failed test shows what it printed")]
    pub fn judge(mut self, cluster: &Cluster) {
        self.stop();
        cluster.wait_until_alike();
        let running = cluster.running();
        let mut client = self.client(1);
        for key in 0..KEYS {
            until(PATIENCE, "every key can be read at the end", || {
                let place = running[client.chance.place(running.len())];
                let before = client.shared.state().history.operations.len();
                client.get(place, key, "?consistent");
                let state = client.shared.state();
                if state.history.operations.len() > before {
                    Ok(())
                } else {
                    Err(format!("{:?}", state.errors.last()))
                }
            });
        }
        for place in running {
            until(PATIENCE, "every server can be read at the end", || {
                let kept = client.glimpse(place).ok_or("no answer")?;
                client.shared.state().history.kept = kept.into_iter().collect();
                Ok::<(), &str>(())
            });
        }
        let mut state = client.shared.state();
        let history = std::mem::take(&mut state.history);
        println!(
            "{} answers ({} acknowledged writes, {} keepsakes), {} without, {} errors, {} glimpses, {} restores, {} snapshots",
            state.answered,
            state.written,
            history.keepsakes.len(),
            state.unknown,
            state.errors.len(),
            history.glimpses.len(),
            state.restores,
            state.saves
        );
        if let Some(violation) = state.violation.take() {
            panic!("{violation}");
        }
        if let Err(violation) = check(&history, restored) {
            panic!("{violation}");
        }
    }

    fn stop(&mut self) {
        self.shared.state().ends = true;
        self.shared.moved.notify_all();
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.state().ends = true;
        self.shared.moved.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of its own would hide the one that brought us here.
            let _ = thread.join();
        }
    }
}

/// What became of a request.
enum Fate {
    Answered(Answer),
    /// Nothing was done.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

struct Client {
    number: u64,
    /// The agent that it stays with.
    home: Option<usize>,
    shared: Arc<Shared>,
    chance: Chance,
    connections: BTreeMap<usize, Connection>,
    /// How often a connection was opened; no connection survives the server's process.
    connected: u64,
    /// What it last saw of each key, to make a condition of.
    seen: BTreeMap<u32, Option<Row>>,
}

impl Client {
    /// Waits between two requests, or for the end.
    fn pause(&mut self, pace: Duration) {
        let longest = u64::try_from(pace.as_micros()).unwrap_or(u64::MAX);
        let time = Duration::from_micros(self.chance.between(0, longest));
        let state = self.shared.state();
        let _ = self
            .shared
            .moved
            .wait_timeout_while(state, time, |state| !state.ends);
    }

    fn any(&mut self) -> usize {
        let drawn = self.chance.place(self.shared.addresses.len());
        let avoided = self.shared.state().avoided;
        match self.home {
            Some(home) => home,
            None if avoided == Some(drawn) => (drawn + 1) % self.shared.addresses.len(),
            None => drawn,
        }
    }

    fn ask(
        &mut self,
        place: usize,
        method: &str,
        path: &str,
        body: &[u8],
        patience: Duration,
    ) -> Fate {
        let called = self.shared.now();
        let mut connection = match self.connections.remove(&place) {
            Some(connection) => connection,
            None => match Connection::connect(self.shared.addresses[place]) {
                Ok(connection) => {
                    self.connected += 1;
                    connection
                }
                Err(error) => return Fate::Refused(error.to_string()),
            },
        };
        let Ok(answer) = connection.request(method, path, body, patience) else {
            self.shared.state().unknown += 1;
            return Fate::Unknown;
        };
        self.connections.insert(place, connection);
        let mut state = self.shared.state();
        if matches!(answer.status, 200 | 404) {
            state.answered += 1;
            return Fate::Answered(answer);
        }
        let text = answer.text();
        let is_unknown = [
            "outcome of this write is unknown",
            "snapshot restored while",
            "either",
        ]
        .iter()
        .any(|words| text.contains(words));
        if is_unknown {
            state.unknown += 1;
            return Fate::Unknown;
        }
        if text.contains("invalid session") {
            return Fate::Refused(text);
        }
        let returned = self.shared.now();
        state.errors.push(Told {
            called,
            returned,
            place,
            request: format!("{method} {path}"),
            answer: format!("{} {text}", answer.status),
        });
        // Only this is certain to have reached no log.
        if text.contains("No cluster leader") || text.contains("No known Consul servers") {
            Fate::Refused(text)
        } else {
            Fate::Unknown
        }
    }

    /// Operations on single keys.
    fn use_keys(&mut self) {
        while !self.shared.ends() {
            self.pause(self.shared.pace);
            let key = u32::try_from(self.chance.place(KEYS as usize - 2)).unwrap_or(0);
            let seen = self.seen.get(&key).copied().flatten();
            let action = match self.chance.between(0, 10) {
                0..=3 => Action::Get,
                4..=5 => Action::Put(self.shared.value()),
                6..=7 => Action::Cas {
                    expected: seen.map_or(0, |row| row.modify),
                    seen: seen.map(|row| row.value),
                    value: self.shared.value(),
                },
                8 => Action::Delete,
                _ => Action::DeleteCas {
                    expected: seen.map_or(7, |row| row.modify),
                },
            };
            let place = self.any();
            self.act(place, key, action, &BTreeMap::new());
        }
    }

    /// Sessions that take and give locks.
    fn use_locks(&mut self) {
        while !self.shared.ends() {
            self.pause(self.shared.pace);
            let place = self.any();
            let Some((session, id, deletes)) = self.begin_session(place) else {
                continue;
            };
            let names = BTreeMap::from([(session, id.clone())]);
            for _ in 0..self.chance.between(20, 80) {
                if self.shared.ends() {
                    return;
                }
                self.pause(self.shared.pace);
                let key = KEYS - 1 - u32::try_from(self.chance.place(3)).unwrap_or(0);
                let action = match self.chance.between(0, 8) {
                    0..=3 => Action::Lock {
                        session,
                        value: self.shared.value(),
                    },
                    4..=6 => Action::Unlock {
                        session,
                        value: self.shared.value(),
                    },
                    _ => Action::Get,
                };
                let place = self.any();
                if self.act(place, key, action, &names) == Some(Outcome::NoSession) {
                    break;
                }
            }
            let place = self.any();
            self.end_session(place, session, &id, deletes);
        }
    }

    fn begin_session(&mut self, place: usize) -> Option<(SessionNumber, String, bool)> {
        // A history has room for so many sessions of one key.
        const SESSIONS_MAX: usize = 120;
        if self.shared.state().sessions.len() >= SESSIONS_MAX {
            self.pause(Duration::from_millis(200));
            return None;
        }
        let node = json!({"Node": NODE, "Address": "10.1.0.1"}).to_string();
        self.ask(
            place,
            "PUT",
            "/v1/catalog/register",
            node.as_bytes(),
            ANSWER,
        );
        let deletes = self.chance.percent(30);
        let behavior = if deletes { "delete" } else { "release" };
        let session = json!({"Node": NODE, "Behavior": behavior, "LockDelay": "0s", "Checks": []})
            .to_string();
        let called = self.shared.now();
        let path = "/v1/session/create";
        let Fate::Answered(answer) = self.ask(place, "PUT", path, session.as_bytes(), ANSWER)
        else {
            return None;
        };
        let returned = self.shared.now();
        let id = answer.json()["ID"].as_str()?.to_owned();
        let mut state = self.shared.state();
        let number = SessionNumber::try_from(state.sessions.len()).unwrap_or(Row::STRANGER);
        state.sessions.insert(id.clone(), number);
        state.history.sweeps.push(SweepOperation {
            sweep: Sweep::Begin(number),
            called,
            returned,
            is_known: true,
        });
        Some((number, id, deletes))
    }

    fn end_session(&mut self, place: usize, session: SessionNumber, id: &str, deletes: bool) {
        let called = self.shared.now();
        let path = format!("/v1/session/destroy/{id}");
        let fate = self.ask(place, "PUT", &path, b"", ANSWER);
        if matches!(fate, Fate::Refused(_)) {
            return;
        }
        let sweep = SweepOperation {
            sweep: Sweep::End { session, deletes },
            called,
            returned: self.shared.now(),
            is_known: matches!(fate, Fate::Answered(_)),
        };
        self.shared.state().history.sweeps.push(sweep);
    }

    /// Does one thing to a key and notes what it was told.
    fn act(
        &mut self,
        place: usize,
        key: u32,
        action: Action,
        sessions: &BTreeMap<SessionNumber, String>,
    ) -> Option<Outcome> {
        let name = format!("/v1/kv/{}", key_name(key));
        let session = |number: &SessionNumber| sessions.get(number).cloned().unwrap_or_default();
        let (method, path, value) = match &action {
            Action::Get => {
                let query = if self.chance.percent(40) {
                    "?consistent"
                } else {
                    ""
                };
                return self.get(place, key, query);
            }
            Action::Put(value) => ("PUT", name, *value),
            Action::Cas {
                expected, value, ..
            } => ("PUT", format!("{name}?cas={expected}"), *value),
            Action::Delete => ("DELETE", name, 0),
            Action::DeleteCas { expected } => ("DELETE", format!("{name}?cas={expected}"), 0),
            Action::Lock { session: s, value } => {
                ("PUT", format!("{name}?acquire={}", session(s)), *value)
            }
            Action::Unlock { session: s, value } => {
                ("PUT", format!("{name}?release={}", session(s)), *value)
            }
        };
        let body = match method {
            "PUT" => value.to_string(),
            _ => String::new(),
        };
        let called = self.shared.now();
        let outcome = match self.ask(place, method, &path, body.as_bytes(), ANSWER) {
            Fate::Answered(answer) => Outcome::Applied(answer.text().trim() == "true"),
            Fate::Refused(text) if text.contains("invalid session") => Outcome::NoSession,
            Fate::Refused(_) => return None,
            Fate::Unknown => Outcome::Unknown,
        };
        let returned = self.shared.now();
        let mut state = self.shared.state();
        state.written += u64::from(matches!(outcome, Outcome::Applied(_)));
        state.history.operations.push(Operation {
            client: self.number,
            key,
            action,
            called,
            returned,
            outcome: outcome.clone(),
        });
        Some(outcome)
    }

    fn get(&mut self, place: usize, key: u32, query: &str) -> Option<Outcome> {
        let called = self.shared.now();
        let path = format!("/v1/kv/{}{query}", key_name(key));
        let Fate::Answered(answer) = self.ask(place, "GET", &path, b"", ANSWER) else {
            return None;
        };
        let returned = self.shared.now();
        let mut state = self.shared.state();
        let row = answer.json().get(0).map(|row| row_of(&state, row));
        self.seen.insert(key, row);
        let outcome = Outcome::Found(row);
        state.history.operations.push(Operation {
            client: self.number,
            key,
            action: Action::Get,
            called,
            returned,
            outcome: outcome.clone(),
        });
        Some(outcome)
    }

    /// Writes keys that nobody touches again.
    fn keep(&mut self) {
        for number in 0.. {
            self.pause(self.shared.pace * 2);
            if self.shared.ends() {
                return;
            }
            let place = self.any();
            let called = self.shared.now();
            let path = format!("/v1/kv/keep/{number}");
            if let Fate::Answered(_) = self.ask(place, "PUT", &path, b"x", ANSWER) {
                let acknowledged = self.shared.now();
                let mut state = self.shared.state();
                state.written += 1;
                state.history.keepsakes.push(Keepsake {
                    number,
                    called,
                    acknowledged,
                });
            }
        }
    }

    /// Reads all that one server holds, from that server alone.
    fn look_at(&mut self, place: usize) {
        while !self.shared.ends() {
            self.pause(self.shared.pace * 8);
            self.glimpse(place);
        }
    }

    /// Notes what a server holds, and returns the keepsakes.
    ///
    /// The index of the list is that of its newest change, which orders states of one log as well as the index that the
    /// server has applied.
    fn glimpse(&mut self, place: usize) -> Option<Vec<u64>> {
        let answer = self.ask(place, "GET", "/v1/kv/?recurse&stale", b"", ANSWER);
        let Fate::Answered(answer) = answer else {
            return None;
        };
        let mut glimpse = Glimpse {
            server: place,
            life: self.connected,
            at: self.shared.now(),
            index: answer.index(),
            generation: 0,
            rows: Vec::new(),
        };
        let mut marks: Vec<Generation> = Vec::new();
        let mut kept = Vec::new();
        let found = answer.json();
        let mut state = self.shared.state();
        for row in found.as_array().into_iter().flatten() {
            let name = row["Key"].as_str().unwrap_or_default();
            if let Some(key) = name.strip_prefix("key/").and_then(|key| key.parse().ok()) {
                glimpse.rows.push((key, row_of(&state, row)));
            } else if let Some(number) = name.strip_prefix("keep/") {
                kept.extend(number.parse::<u64>());
            } else if name.starts_with("gen/") {
                let text = text_of(row);
                marks.push(text.trim_start_matches('0').parse().unwrap_or(0));
            }
        }
        glimpse.generation = marks.first().copied().unwrap_or(0);
        let is_whole = marks.is_empty() || marks.len() == MARKS;
        if !is_whole || marks.iter().any(|mark| *mark != glimpse.generation) {
            state.violation.get_or_insert(Violation {
                property: "a restore is all or nothing",
                what: format!(
                    "server {place} shows the marks {marks:?} at {}",
                    glimpse.index
                ),
            });
        }
        state.history.glimpses.push(glimpse);
        Some(kept)
    }

    /// Replaces everything, now and then.
    fn restore(&mut self) {
        loop {
            self.pause(self.shared.pace * 150);
            let generation = {
                let mut state = self.shared.state();
                if state.calms || state.ends {
                    return;
                }
                state.generations += 1;
                state.generations
            };
            let place = self.any();
            let called = self.shared.now();
            let fate = self.ask(place, "PUT", "/v1/snapshot", &archive(generation), BULK);
            if matches!(fate, Fate::Refused(_)) {
                continue;
            }
            let sweep = SweepOperation {
                sweep: Sweep::Restore(generation),
                called,
                returned: self.shared.now(),
                is_known: matches!(fate, Fate::Answered(_)),
            };
            let mut state = self.shared.state();
            state.restores += 1;
            state.history.sweeps.push(sweep);
        }
    }

    /// Takes snapshots.
    fn save(&mut self) {
        while !self.shared.ends() {
            self.pause(self.shared.pace * 100);
            let place = self.any();
            let path = if self.chance.percent(50) {
                "/v1/snapshot?stale"
            } else {
                "/v1/snapshot"
            };
            if let Fate::Answered(answer) = self.ask(place, "GET", path, b"", BULK) {
                let mut state = self.shared.state();
                state.saves += 1;
                // The magic bytes of gzip; what is inside is for others to test.
                if !answer.body.starts_with(&[0x1f, 0x8b]) {
                    state.violation.get_or_insert(Violation {
                        property: "a snapshot can be read",
                        what: format!("{} bytes from server {place}", answer.body.len()),
                    });
                }
            }
        }
    }
}

fn text_of(row: &Value) -> String {
    let coded = row["Value"].as_str().unwrap_or_default();
    let bytes = base64_simd::STANDARD.decode_to_vec(coded);
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

fn row_of(state: &State, row: &Value) -> Row {
    let session = row["Session"].as_str().filter(|id| !id.is_empty());
    let session = session.map(|id| state.sessions.get(id).copied().unwrap_or(Row::STRANGER));
    Row {
        value: text_of(row).parse().unwrap_or(u64::MAX),
        modify: row["ModifyIndex"].as_u64().unwrap_or(0),
        session,
        lock_index: row["LockIndex"].as_u64().unwrap_or(0),
    }
}
