//! Servers that keep keys and sessions as the protocol says, in one process, and fail when they are told to.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use client::{Client, Config};
use serde_json::{Value, json};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered with this status and nothing happens.
    Status(u16),
    /// It is never answered, and nothing happens.
    Silence,
    /// It is done, and the connection breaks before the answer.
    LostAnswer,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<String, Pair>,
    /// By id, what becomes of its keys.
    sessions: BTreeMap<String, Value>,
    index: u64,
    made: u64,
    /// Requests whose line begins so, how many of them, and what becomes of them.
    faults: Vec<(String, usize, Fault)>,
    /// Keys that can't be locked.
    delayed: Vec<String>,
    asked: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Pair {
    value: Vec<u8>,
    flags: u64,
    session: String,
    lock_index: u64,
    modified: u64,
}

/// Running servers. Their threads end with the connections, and with the process.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    address: std::net::SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
    /// Told of each request.
    news: Arc<tokio::sync::Notify>,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let servers = Self {
            address,
            state,
            news: Arc::default(),
        };
        let serving = servers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (serving, stream) = (serving.clone(), stream.unwrap());
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        servers
    }

    pub(crate) fn client(&self) -> Client {
        let config = Config {
            address: self.address.to_string().parse().unwrap(),
            ..Config::default()
        };
        Client::new(config).unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    fn changed(&self, state: &mut State) -> u64 {
        state.index += 1;
        self.state.1.notify_all();
        state.index
    }

    /// From now on this becomes of so many requests that begin so.
    pub(crate) fn fail(&self, line: &str, count: usize, fault: Fault) {
        self.state().faults.push((line.to_owned(), count, fault));
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    /// Whether a lock-delay is in force for a key.
    pub(crate) fn delay(&self, key: &str, is_delayed: bool) {
        let mut state = self.state();
        state.delayed.retain(|other| other != key);
        if is_delayed {
            state.delayed.push(key.to_owned());
        }
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Waits until so many requests that begin so have come.
    pub(crate) async fn has_been_asked(&self, line: &str, count: usize) {
        let so_many = || {
            let asked = self.asked();
            asked.iter().filter(|asked| asked.starts_with(line)).count() >= count
        };
        let waiting = async {
            loop {
                let news = self.news.notified();
                if so_many() {
                    return;
                }
                news.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            waited.is_ok(),
            "no {count} times {line}: {:?}",
            self.asked()
        );
    }

    /// The ids of the sessions that there are.
    pub(crate) fn sessions(&self) -> Vec<String> {
        self.state().sessions.keys().cloned().collect()
    }

    /// What a session was created with.
    pub(crate) fn session(&self, id: &str) -> Value {
        self.state().sessions[id].clone()
    }

    /// Ends a session as a check that fails would.
    pub(crate) fn invalidate(&self, id: &str) {
        let mut state = self.state();
        let Some(session) = state.sessions.remove(id) else {
            return;
        };
        let index = self.changed(&mut state);
        for pair in state.keys.values_mut().filter(|pair| pair.session == id) {
            pair.session.clear();
            pair.modified = index;
        }
        if session["Behavior"] == "delete" {
            state
                .keys
                .retain(|_, pair| pair.modified != index || !pair.session.is_empty());
        }
    }

    /// A key's value, flags and holder.
    pub(crate) fn key(&self, key: &str) -> Option<(String, u64, String)> {
        let state = self.state();
        let pair = state.keys.get(key)?;
        let value = String::from_utf8_lossy(&pair.value).into_owned();
        Some((value, pair.flags, pair.session.clone()))
    }

    /// Writes a key as somebody would who knows of no lock.
    pub(crate) fn set(&self, key: &str, value: &str, flags: u64, session: &str) {
        let mut state = self.state();
        let modified = self.changed(&mut state);
        let pair = Pair {
            value: value.as_bytes().to_vec(),
            flags,
            session: session.to_owned(),
            lock_index: 0,
            modified,
        };
        state.keys.insert(key.to_owned(), pair);
    }

    fn serve(&self, stream: &TcpStream) {
        let mut input = BufReader::new(stream);
        while let Some((line, body)) = request(&mut input) {
            let fault = self.fault(&line);
            match fault {
                Some(Fault::Silence) => {
                    // Until the client has had enough.
                    let _ = input.read_to_end(&mut Vec::new());
                    return;
                }
                Some(Fault::Status(status)) => answer(stream, status, 0, "told to fail"),
                Some(Fault::LostAnswer) => {
                    // A read that waits would wait here, and nothing becomes of it.
                    if !line.starts_with("GET") {
                        self.react(&line, &body);
                    }
                    return;
                }
                None => {
                    let (status, index, text) = self.react(&line, &body);
                    answer(stream, status, index, &text);
                }
            }
        }
    }

    fn fault(&self, line: &str) -> Option<Fault> {
        let mut state = self.state();
        state.asked.push(line.to_owned());
        self.news.notify_waiters();
        let (_, count, fault) = state
            .faults
            .iter_mut()
            .find(|(start, count, _)| *count > 0 && line.starts_with(start))?;
        *count -= 1;
        Some(*fault)
    }

    fn react(&self, line: &str, body: &[u8]) -> (u16, u64, String) {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<&str, &str> = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .collect();
        if let Some(key) = path.strip_prefix("/v1/kv/") {
            return match method {
                "GET" => self.get(key, &query),
                "PUT" => self.put(key, &query, body),
                _ => self.delete(key, &query),
            };
        }
        let (verb, id) = path
            .strip_prefix("/v1/session/")
            .unwrap()
            .split_once('/')
            .unwrap_or(("create", ""));
        let mut state = self.state();
        match verb {
            "create" => {
                state.made += 1;
                let id = format!("session-{}", state.made);
                let wish = serde_json::from_slice(body).unwrap();
                state.sessions.insert(id.clone(), wish);
                (200, 0, json!({"ID": id}).to_string())
            }
            "renew" if state.sessions.contains_key(id) => {
                (200, 0, json!([{"ID": id, "TTL": "15s"}]).to_string())
            }
            "renew" => (404, 0, format!("Session id '{id}' not found")),
            _ => {
                drop(state);
                self.invalidate(id);
                (200, 0, "true".to_owned())
            }
        }
    }

    fn get(&self, key: &str, query: &BTreeMap<&str, &str>) -> (u16, u64, String) {
        let after: u64 = query.get("index").map_or(0, |index| index.parse().unwrap());
        let wait = query
            .get("wait")
            .map_or(0, |wait| wait.strip_suffix("ms").unwrap().parse().unwrap());
        let deadline = Instant::now() + Duration::from_millis(wait);
        let mut state = self.state();
        while state.index <= after && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.state.1.wait_timeout(state, left).unwrap().0;
        }
        let is_list = query.contains_key("recurse");
        let found: Vec<Value> = state
            .keys
            .iter()
            .filter(|(name, _)| *name == key || is_list && name.starts_with(key))
            .map(|(name, pair)| {
                json!({
                    "Key": name,
                    "Value": base64_simd::STANDARD.encode_to_string(&pair.value),
                    "Flags": pair.flags,
                    "Session": pair.session,
                    "LockIndex": pair.lock_index,
                    "ModifyIndex": pair.modified,
                })
            })
            .collect();
        // One index for all keys: whoever waits is woken by everything, as with the original's missing keys.
        let index = state.index.max(1);
        if found.is_empty() {
            (404, index, String::new())
        } else {
            (200, index, Value::from(found).to_string())
        }
    }

    fn put(&self, key: &str, query: &BTreeMap<&str, &str>, body: &[u8]) -> (u16, u64, String) {
        let mut state = self.state();
        let mut pair = state.keys.get(key).cloned().unwrap_or_default();
        let done = if let Some(session) = query.get("acquire") {
            if !state.sessions.contains_key(*session) {
                return (500, 0, format!("invalid session {session:?}"));
            }
            let is_free =
                pair.session.is_empty() && !state.delayed.iter().any(|other| other == key);
            pair.lock_index += u64::from(is_free);
            let done = is_free || pair.session == *session;
            pair.session = (*session).to_owned();
            done
        } else if let Some(session) = query.get("release") {
            let done = pair.session == *session;
            pair.session.clear();
            done
        } else {
            let expected: u64 = query["cas"].parse().unwrap();
            expected == pair.modified
        };
        if done {
            pair.value = body.to_vec();
            pair.flags = query.get("flags").map_or(0, |flags| flags.parse().unwrap());
            pair.modified = self.changed(&mut state);
            state.keys.insert(key.to_owned(), pair);
        }
        (200, 0, done.to_string())
    }

    fn delete(&self, key: &str, query: &BTreeMap<&str, &str>) -> (u16, u64, String) {
        let mut state = self.state();
        let modified = state.keys.get(key).map(|pair| pair.modified);
        let expected: Option<u64> = query.get("cas").map(|index| index.parse().unwrap());
        let done = expected.is_none() || modified.is_none() || modified == expected;
        if done && state.keys.remove(key).is_some() {
            self.changed(&mut state);
        }
        (200, 0, done.to_string())
    }
}

fn request(input: &mut BufReader<&TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    if input.read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        input.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    Some((
        line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(),
        body,
    ))
}

fn answer(mut stream: &TcpStream, status: u16, index: u64, text: &str) {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nX-Consul-Index: {index}\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    // Who has gone needs no answer.
    let _ = stream.write_all(format!("{head}{text}").as_bytes());
}
