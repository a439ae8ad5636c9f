//! Who asks: each client is a task that does one kind of thing until the end, and notes what it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::{
    Behavior, Command, Error, KvEntry, KvGet, KvList, KvOp, KvVerb, Node, Registration, Reply,
    RestoreMode, RestorePart, Section, Session, Text, Uuid,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rpc::{
    ByteStream, Consistency, ReadOptions, RestoreOptions, SaveOptions, WriteOptions, byte_stream,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::archive::{KEYS, MARKS, archive, key_name};
use crate::check::Violation;
use crate::history::{
    Action, Generation, Glimpse, Keepsake, Operation, Outcome, Row, SessionNumber, Sweep,
    SweepOperation, Waiting,
};
use crate::world::{Front, PATIENCE, Told, World};

/// The node that sessions live on.
const NODE: &str = "holder";

/// Starts all clients.
pub(crate) fn spawn(
    tasks: &mut JoinSet<()>,
    world: &World,
    places: usize,
    restores: bool,
    chance: &mut ChaCha8Rng,
) {
    let mut number = 0;
    let mut client = || {
        number += 1;
        Client {
            number,
            world: world.clone(),
            chance: ChaCha8Rng::seed_from_u64(chance.random()),
            seen: BTreeMap::new(),
        }
    };
    for _ in 0..4 {
        tasks.spawn(client().use_keys());
    }
    for _ in 0..2 {
        tasks.spawn(client().use_locks());
    }
    tasks.spawn(client().keep());
    for place in 0..places {
        tasks.spawn(client().look_at(place));
        tasks.spawn(client().wait_at(place));
        tasks.spawn(client().read_at(place));
    }
    if restores {
        let client_of_wholes = client();
        let client_of_parts = client_of_wholes.another();
        tasks.spawn(client_of_wholes.restore(false));
        tasks.spawn(client_of_parts.restore(true));
        tasks.spawn(client().save());
    }
}

struct Client {
    number: u64,
    world: World,
    chance: ChaCha8Rng,
    /// What it last saw of each key, to make a condition of.
    seen: BTreeMap<u32, Option<Row>>,
}

fn kv(verb: KvVerb, key: &str, value: &str) -> Command {
    Command::Kv(KvOp {
        verb,
        key: Text::from(key),
        value: Text::from(value),
        flags: 0,
    })
}

impl Client {
    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let pause = self.chance.random_range(from_ms..to_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    /// A server to ask. Most clients go to the leader if they know one, as those do that stay where it went well.
    fn front(&mut self) -> Option<Front> {
        let draw = self.chance.random();
        let goes_anywhere = self.chance.random_bool(ANYWHERE);
        let leader = if goes_anywhere {
            None
        } else {
            self.world.leader()
        };
        leader.or_else(|| self.world.any(draw))
    }

    /// Operations on single keys.
    async fn use_keys(mut self) {
        while !self.world.ends() {
            self.pause(100, 700).await;
            let key = self.chance.random_range(0..KEYS - 2);
            let seen = self.seen.get(&key).copied().flatten();
            let action = match self.chance.random_range(0..10) {
                0..=3 => Action::Get,
                4..=5 => Action::Put(self.world.value()),
                6..=7 => Action::Cas {
                    expected: seen.map_or(0, |row| row.modify),
                    seen: seen.map(|row| row.value),
                    value: self.world.value(),
                },
                8 => Action::Delete,
                _ => Action::DeleteCas {
                    expected: seen.map_or(7, |row| row.modify),
                },
            };
            let Some(front) = self.front() else { continue };
            self.act(&front, key, action).await;
        }
    }

    /// Sessions that take and give locks.
    async fn use_locks(mut self) {
        while !self.world.ends() {
            self.pause(100, 600).await;
            let Some(front) = self.front() else { continue };
            let Some((session, id, deletes)) = self.begin_session(&front).await else {
                continue;
            };
            for _ in 0..self.chance.random_range(1..14) {
                if self.world.ends() {
                    return;
                }
                self.pause(100, 900).await;
                let key = self.chance.random_range(KEYS - 3..KEYS);
                let action = match self.chance.random_range(0..8) {
                    0..=3 => Action::Lock {
                        session,
                        value: self.world.value(),
                    },
                    4..=6 => Action::Unlock {
                        session,
                        value: self.world.value(),
                    },
                    _ => Action::Get,
                };
                let Some(front) = self.front() else { continue };
                if self.act(&front, key, action).await == Outcome::NoSession {
                    break;
                }
            }
            let Some(front) = self.front() else { continue };
            self.end_session(&front, session, id, deletes).await;
        }
    }

    async fn begin_session(&mut self, front: &Front) -> Option<(SessionNumber, Uuid, bool)> {
        let registration = Registration {
            node: Node {
                name: Text::from(NODE),
                address: Text::from("10.1.0.1"),
                ..Node::default()
            },
            ..Registration::default()
        };
        self.write(front, Command::Register(Box::new(registration)))
            .await;
        let deletes = self.chance.random_bool(0.3);
        let session = Session {
            node: Text::from(NODE),
            behavior: if deletes {
                Behavior::Delete
            } else {
                Behavior::Release
            },
            ..Session::default()
        };
        let called = self.world.now();
        let told = self
            .write(front, Command::SessionCreate(Box::new(session)))
            .await;
        let Told::Answer(Reply::Id(id)) = told else {
            return None;
        };
        let id = model::parse_uuid(&id)?;
        let returned = self.world.now();
        let session = self.world.with(|state| {
            let number = SessionNumber::try_from(state.sessions.len()).unwrap_or(Row::STRANGER);
            state.sessions.insert(id, number);
            state.history.sweeps.push(SweepOperation {
                sweep: Sweep::Begin(number),
                called,
                returned,
                is_known: true,
            });
            number
        });
        Some((session, id, deletes))
    }

    async fn end_session(
        &mut self,
        front: &Front,
        session: SessionNumber,
        id: Uuid,
        deletes: bool,
    ) {
        let called = self.world.now();
        let told = self.write(front, Command::SessionDestroy(id)).await;
        if matches!(told, Told::Refused(_)) {
            return;
        }
        let returned = self.world.now();
        let sweep = Sweep::End { session, deletes };
        let is_known = matches!(told, Told::Answer(_));
        self.world.with(|state| {
            state.history.sweeps.push(SweepOperation {
                sweep,
                called,
                returned,
                is_known,
            });
        });
    }

    async fn write(&mut self, front: &Front, command: Command) -> Told<Reply> {
        let patience = Duration::from_millis(self.chance.random_range(1_500..12_000));
        let call = front.cluster.write(command, WriteOptions::default());
        self.world.ask(front, patience, call).await
    }

    /// Does one thing to a key and notes what it was told.
    async fn act(&mut self, front: &Front, key: u32, action: Action) -> Outcome {
        let called = self.world.now();
        let outcome = match &action {
            Action::Get => self.get(front, key).await,
            Action::Put(_)
            | Action::Cas { .. }
            | Action::Delete
            | Action::DeleteCas { .. }
            | Action::Lock { .. }
            | Action::Unlock { .. } => self.change(front, key, &action).await,
        };
        let Some(outcome) = outcome else {
            self.world
                .tell("nothing", || format!("client {} {action:?}", self.number));
            return Outcome::Unknown;
        };
        let operation = Operation {
            client: self.number,
            key,
            action,
            called,
            returned: self.world.now(),
            outcome: outcome.clone(),
        };
        self.world.tell("client", || {
            format!("at server {}: {operation:?}", front.place)
        });
        self.world
            .with(|state| state.history.operations.push(operation));
        outcome
    }

    async fn get(&mut self, front: &Front, key: u32) -> Option<Outcome> {
        let options = ReadOptions {
            consistency: if self.chance.random_bool(0.4) {
                Consistency::Consistent
            } else {
                Consistency::Default
            },
            ..ReadOptions::default()
        };
        let question = KvGet {
            key: Text::from(key_name(key)),
        };
        let call = front.cluster.read(question, options);
        match self.world.ask(front, READ_PATIENCE, call).await {
            Told::Answer(found) => {
                let row = found.answer.map(|entry| row_of(&self.world, &entry));
                self.seen.insert(key, row);
                Some(Outcome::Found(row))
            }
            Told::Refused(_) | Told::Unknown => None,
        }
    }

    /// `None` if nothing was done.
    async fn change(&mut self, front: &Front, key: u32, action: &Action) -> Option<Outcome> {
        let id = |session: SessionNumber| {
            self.world.with(|state| {
                let mut known = state.sessions.iter();
                let id = known.find(|(_, number)| **number == session);
                Text::from(id.map(|(id, _)| id.to_string()).unwrap_or_default())
            })
        };
        let (verb, value) = match *action {
            Action::Get => return None,
            Action::Put(value) => (KvVerb::Set, value),
            Action::Cas {
                expected, value, ..
            } => (KvVerb::Cas(expected), value),
            Action::Delete => (KvVerb::Delete, 0),
            Action::DeleteCas { expected } => (KvVerb::DeleteCas(expected), 0),
            Action::Lock { session, value } => (KvVerb::Lock(id(session)), value),
            Action::Unlock { session, value } => (KvVerb::Unlock(id(session)), value),
        };
        let command = kv(verb, &key_name(key), &value.to_string());
        match self.write(front, command).await {
            Told::Answer(Reply::Applied(done)) => Some(Outcome::Applied(done)),
            Told::Answer(Reply::Nothing | Reply::Id(_) | Reply::Txn(_)) => {
                self.world.violate(Violation::new(
                    "a command is answered by its own reply",
                    format!("client {} got another for {action:?}", self.number),
                ));
                None
            }
            Told::Refused(error) => match error.kind() {
                Error::Invalid(text) if text.starts_with("invalid session") => {
                    Some(Outcome::NoSession)
                }
                _ => None,
            },
            Told::Unknown => Some(Outcome::Unknown),
        }
    }

    /// Writes keys that nobody touches again.
    async fn keep(mut self) {
        for number in 0.. {
            self.pause(600, 2600).await;
            if self.world.with(|state| state.ends) {
                return;
            }
            let Some(front) = self.front() else { continue };
            let called = self.world.now();
            let command = kv(KvVerb::Set, &format!("keep/{number}"), "x");
            if let Told::Answer(_) = self.write(&front, command).await {
                let keepsake = Keepsake {
                    number,
                    called,
                    acknowledged: self.world.now(),
                };
                self.world
                    .with(|state| state.history.keepsakes.push(keepsake));
            }
        }
    }

    /// Reads all that one server holds, from that server alone, and what index it has applied.
    async fn look_at(mut self, place: usize) {
        while !self.world.ends() {
            self.pause(300, 1500).await;
            let Some(front) = self.world.front(place) else {
                continue;
            };
            glimpse(&self.world, &front).await;
        }
    }

    /// Reads keys at one server, however it fares, and does not wait long: a leader that was deposed and doesn't know it
    /// is found by those who keep asking it.
    async fn read_at(mut self, place: usize) {
        while !self.world.ends() {
            self.pause(100, 700).await;
            let key = self.chance.random_range(0..KEYS);
            let Some(front) = self.world.front(place) else {
                continue;
            };
            self.act(&front, key, Action::Get).await;
        }
    }

    /// Waits for changes of keys at one server.
    async fn wait_at(mut self, place: usize) {
        while !self.world.ends() {
            self.pause(50, 400).await;
            let key = self.chance.random_range(0..KEYS);
            let wait = Duration::from_millis(self.chance.random_range(500..15_000));
            let is_stale = self.chance.random_bool(0.6);
            let Some(front) = self.world.front(place) else {
                continue;
            };
            let consistency = if is_stale {
                Consistency::Stale
            } else {
                Consistency::Default
            };
            let question = KvGet {
                key: Text::from(key_name(key)),
            };
            let options = ReadOptions {
                consistency,
                ..ReadOptions::default()
            };
            let call = front.cluster.read(question.clone(), options.clone());
            let Told::Answer(before) = self.world.ask(&front, PATIENCE, call).await else {
                continue;
            };
            let index = before.meta.index;
            let options = ReadOptions {
                index,
                wait,
                ..options
            };
            let called = self.world.now();
            let call = front.cluster.read(question, options);
            let Told::Answer(after) = self.world.ask(&front, wait + PATIENCE, call).await else {
                continue;
            };
            let returned = self.world.now();
            let row = after.answer.map(|entry| row_of(&self.world, &entry));
            let waiting = Waiting {
                server: place,
                life: front.life,
                key,
                index,
                existed: before.answer.is_some(),
                called,
                returned,
            };
            self.world.tell("waited", || format!("{waiting:?} {row:?}"));
            self.world.with(|state| {
                if is_stale {
                    state.history.waits.push(waiting);
                } else {
                    state.history.operations.push(Operation {
                        client: self.number,
                        key,
                        action: Action::Get,
                        called,
                        returned,
                        outcome: Outcome::Found(row),
                    });
                }
            });
        }
    }

    /// One who does the same at other moments, and draws nothing of the life's chance for that.
    fn another(&self) -> Self {
        let mut chance = self.chance.clone();
        chance.set_stream(1);
        Self {
            number: self.number + 1000,
            world: self.world.clone(),
            chance,
            seen: BTreeMap::new(),
        }
    }

    /// Replaces everything, now and then; or the keys of clients and the marks, and nothing else.
    async fn restore(mut self, of_parts: bool) {
        loop {
            self.pause(5_000, 25_000).await;
            if self.world.with(|state| state.calms) {
                return;
            }
            let Some(front) = self.front() else { continue };
            let generation = self.world.with(|state| {
                state.generations += 1;
                state.generations
            });
            let merges = of_parts && self.chance.random_bool(0.5);
            let part = of_parts.then(|| part(merges));
            let called = self.world.now();
            let stream = stream(pieces(&archive(generation)));
            let options = RestoreOptions {
                part,
                ..RestoreOptions::default()
            };
            let call = front.cluster.restore(options, stream);
            let told = self.world.ask(&front, PATIENCE * 2, call).await;
            let told = match told {
                // It says that it happened wholly or not at all, and nobody knows which.
                Told::Refused(error) if error.to_string().contains("either") => Told::Unknown,
                told => told,
            };
            let returned = self.world.now();
            self.world.tell("restore", || {
                let outcome = match &told {
                    Told::Answer(_) => "done".to_owned(),
                    Told::Refused(error) => format!("refused: {error}"),
                    Told::Unknown => "unknown".to_owned(),
                };
                let what = if of_parts { "part of " } else { "" };
                format!("{what}{generation} at server {}: {outcome}", front.place)
            });
            if matches!(told, Told::Refused(_)) {
                continue;
            }
            self.world.with(|state| {
                state.restores += 1;
                state.history.sweeps.push(SweepOperation {
                    sweep: if of_parts {
                        Sweep::RestorePart { generation, merges }
                    } else {
                        Sweep::Restore(generation)
                    },
                    called,
                    returned,
                    is_known: matches!(told, Told::Answer(_)),
                });
            });
        }
    }

    /// Takes snapshots.
    async fn save(mut self) {
        while !self.world.ends() {
            self.pause(5_000, 25_000).await;
            let stale = self.chance.random_bool(0.5);
            let Some(front) = self.front() else { continue };
            let options = SaveOptions {
                stale,
                ..SaveOptions::default()
            };
            let call = async {
                let mut save = front.cluster.save(options).await?;
                let mut bytes = Vec::new();
                while let Some(piece) = save.archive.next().await {
                    match piece {
                        Ok(piece) => bytes.extend_from_slice(&piece),
                        Err(error) => return Err(Error::Internal(error.to_string())),
                    }
                }
                Ok(bytes)
            };
            if let Told::Answer(bytes) = self.world.ask(&front, PATIENCE, call).await {
                self.world
                    .tell("saved", || format!("{} bytes", bytes.len()));
                self.world.with(|state| state.saves += 1);
                let read = wire::archive::unpack(std::io::Cursor::new(bytes), &mut std::io::sink());
                if let Err(error) = read {
                    self.world.violate(Violation::new(
                        "a snapshot can be read",
                        format!("server {}: {error}", front.place),
                    ));
                }
            }
        }
    }
}

/// All of an archive that clients look at, and nothing of what it would replace besides.
fn part(merges: bool) -> RestorePart {
    let prefixes = ["key/", "gen/"].map(Text::from).to_vec();
    let mode = if merges {
        RestoreMode::Merge
    } else {
        RestoreMode::Replace
    };
    RestorePart::new([Section::Kv].into(), prefixes, None, mode)
        .expect("keys by their prefixes are a part")
}

/// How long a client waits for the answer to a question, of which nothing depends.
const READ_PATIENCE: Duration = Duration::from_millis(1500);

/// How often clients ask some server or other rather than the leader.
const ANYWHERE: f64 = 0.6;

/// A stream of these pieces.
pub(crate) fn stream(pieces: Vec<Bytes>) -> ByteStream {
    let (sender, stream) = byte_stream();
    tokio::spawn(async move {
        for piece in pieces {
            if !sender.send(Ok(piece)).await {
                break;
            }
        }
    });
    stream
}

/// These bytes in small pieces.
pub(crate) fn pieces(bytes: &[u8]) -> Vec<Bytes> {
    bytes.chunks(64 << 10).map(Bytes::copy_from_slice).collect()
}

fn row_of(world: &World, entry: &KvEntry) -> Row {
    let text = String::from_utf8_lossy(entry.value());
    let session = entry
        .session()
        .map(|id| world.with(|state| state.sessions.get(&id).copied().unwrap_or(Row::STRANGER)));
    Row {
        value: text.parse().unwrap_or(u64::MAX),
        modify: entry.modify_index(),
        session,
        lock_index: entry.lock_index(),
    }
}

/// Notes what a server holds.
pub(crate) async fn glimpse(world: &World, front: &Front) -> Option<Vec<u64>> {
    let options = ReadOptions {
        consistency: Consistency::Stale,
        ..ReadOptions::default()
    };
    let question = KvList {
        prefix: Text::default(),
    };
    // Nothing runs between the answer and the index, or the index says so.
    let before = front.server.status().index;
    let found = front.cluster.read(question, options).await.ok()?;
    let index = front.server.status().index;
    if before != index {
        return None;
    }
    let mut glimpse = Glimpse {
        server: front.place,
        life: front.life,
        at: world.now(),
        index,
        generation: 0,
        rows: Vec::new(),
    };
    let mut marks: Vec<Generation> = Vec::new();
    let mut kept = Vec::new();
    for entry in &found.answer {
        let name = String::from_utf8_lossy(entry.key());
        if let Some(key) = name.strip_prefix("key/").and_then(|key| key.parse().ok()) {
            glimpse.rows.push((key, row_of(world, entry)));
        } else if let Some(number) = name.strip_prefix("keep/") {
            kept.extend(number.parse::<u64>());
        } else if name.starts_with("gen/") {
            let text = String::from_utf8_lossy(entry.value());
            marks.push(text.trim_start_matches('0').parse().unwrap_or(0));
        }
    }
    glimpse.generation = marks.first().copied().unwrap_or(0);
    let is_whole = marks.is_empty() || marks.len() == MARKS;
    if !is_whole || marks.iter().any(|mark| *mark != glimpse.generation) {
        world.violate(Violation::new(
            "a restore is all or nothing",
            format!(
                "server {} shows the marks {marks:?} at index {index}",
                front.place
            ),
        ));
    }
    world.tell("glimpse", || {
        format!(
            "server {} at index {index}, restore {}",
            front.place, glimpse.generation
        )
    });
    world.with(|state| state.history.glimpses.push(glimpse));
    Some(kept)
}

/// Reads a key as it is at the end, and says whether that worked.
pub(crate) async fn read_at_the_end(world: &World, front: &Front, key: u32) -> bool {
    let called = world.now();
    let options = ReadOptions {
        consistency: Consistency::Consistent,
        ..ReadOptions::default()
    };
    let question = KvGet {
        key: Text::from(key_name(key)),
    };
    let call = front.cluster.read(question, options);
    let Told::Answer(found) = world.ask(front, PATIENCE, call).await else {
        return false;
    };
    let row = found.answer.map(|entry| row_of(world, &entry));
    let operation = Operation {
        client: 0,
        key,
        action: Action::Get,
        called,
        returned: world.now(),
        outcome: Outcome::Found(row),
    };
    world.with(|state| state.history.operations.push(operation));
    true
}
