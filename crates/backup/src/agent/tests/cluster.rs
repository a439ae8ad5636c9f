//! Servers and local agents as the protocol has them, in this task, on its time; they fail when they are told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use client::{Body, Client, Config, Pieces, Request, Response, Transport};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

const LOCK_DELAY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Default)]
struct Pair {
    value: Vec<u8>,
    flags: u64,
    session: String,
    lock_index: u64,
    modified: u64,
    /// Nobody locks it before.
    free_at: Option<Instant>,
}

#[derive(Debug)]
struct Session {
    ttl: Duration,
    ends_at: Instant,
}

/// A check of a local agent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) ttl: String,
    pub(crate) status: String,
    pub(crate) output: String,
    pub(crate) deregister_after: Value,
}

#[derive(Debug, Default)]
struct Node {
    services: BTreeMap<String, String>,
    checks: BTreeMap<String, Check>,
    /// Nobody answers there.
    is_away: bool,
    /// So many registrations are refused.
    refused: u32,
}

/// What comes as a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    Whole(Vec<u8>),
    /// It stops halfway and never goes on.
    Stuck(Vec<u8>),
    /// It breaks off halfway.
    Broken(Vec<u8>),
}

#[derive(Debug)]
struct State {
    keys: BTreeMap<String, Pair>,
    sessions: BTreeMap<String, Session>,
    nodes: BTreeMap<String, Node>,
    index: u64,
    made: u64,
    are_servers_away: bool,
    sent: Sent,
    /// How far the pieces of a snapshot are apart.
    pace: Duration,
    asked: Vec<String>,
}

/// A cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

/// The way to one local agent.
#[derive(Debug)]
struct Line {
    cluster: Cluster,
    node: String,
}

impl Cluster {
    pub(crate) fn new(snapshot: Vec<u8>) -> Self {
        let state = State {
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            index: 1,
            made: 0,
            are_servers_away: false,
            sent: Sent::Whole(snapshot),
            pace: Duration::from_secs(1),
            asked: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            news: Arc::default(),
        }
    }

    pub(crate) fn client(&self, node: &str) -> Client {
        self.state().nodes.insert(node.to_owned(), Node::default());
        let line = Line {
            cluster: self.clone(),
            node: node.to_owned(),
        };
        Client::over(line, Config::default()).unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn node<T>(&self, node: &str, change: impl FnOnce(&mut Node) -> T) -> T {
        change(self.state().nodes.get_mut(node).unwrap())
    }

    /// What it sends as a snapshot from now on.
    pub(crate) fn sends(&self, sent: Sent) {
        self.state().sent = sent;
    }

    /// All of a snapshot comes at once from now on, for tests whose time can't be skipped.
    pub(crate) fn hurries(&self) {
        self.state().pace = Duration::ZERO;
    }

    pub(crate) fn servers_away(&self, are_away: bool) {
        self.state().are_servers_away = are_away;
        self.news.notify_waiters();
    }

    pub(crate) fn agent_away(&self, node: &str, is_away: bool) {
        self.node(node, |node| node.is_away = is_away);
    }

    /// A local agent that keeps nothing on disk.
    pub(crate) fn restart_agent(&self, node: &str) {
        self.node(node, |node| *node = Node::default());
    }

    pub(crate) fn refuse_registrations(&self, node: &str, count: u32) {
        self.node(node, |node| node.refused = count);
    }

    /// All of the state becomes another one.
    pub(crate) fn restore(&self) {
        let mut state = self.state();
        state.keys.clear();
        state.sessions.clear();
        state.index += 10;
        self.news.notify_waiters();
    }

    pub(crate) fn delete(&self, key: &str) {
        let mut state = self.state();
        state.keys.remove(key);
        state.index += 1;
        self.news.notify_waiters();
    }

    /// Writes a key as anybody may.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let mut state = self.state();
        state.index += 1;
        let modified = state.index;
        let pair = Pair {
            value: value.as_bytes().to_vec(),
            modified,
            ..Pair::default()
        };
        state.keys.insert(key.to_owned(), pair);
    }

    /// Ends the session that holds a key, as a node that fails would.
    pub(crate) fn invalidate_holder(&self, key: &str) {
        let mut state = self.state();
        let session = state.keys[key].session.clone();
        assert!(!session.is_empty());
        state.end(&session);
        self.news.notify_waiters();
    }

    pub(crate) fn holder(&self, key: &str) -> String {
        let mut state = self.state();
        state.expire();
        (state.keys.get(key)).map_or_else(String::new, |pair| pair.session.clone())
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let state = self.state();
        let pair = state.keys.get(key)?;
        Some(String::from_utf8(pair.value.clone()).unwrap())
    }

    pub(crate) fn sessions(&self) -> usize {
        let mut state = self.state();
        state.expire();
        state.sessions.len()
    }

    pub(crate) fn services(&self, node: &str) -> Vec<String> {
        self.node(node, |node| node.services.values().cloned().collect())
    }

    /// A check of a node whose name ends so.
    pub(crate) fn check(&self, node: &str, name: &str) -> Option<Check> {
        self.node(node, |node| {
            let mut checks = node.checks.values();
            checks.find(|check| check.name.ends_with(name)).cloned()
        })
    }

    /// How often something was asked that begins so.
    pub(crate) fn asked(&self, line: &str) -> usize {
        let state = self.state();
        (state.asked.iter())
            .filter(|asked| asked.starts_with(line))
            .count()
    }

    async fn answer(
        &self,
        node: &str,
        method: &Method,
        uri: &http::Uri,
        body: &Bytes,
    ) -> io::Result<(u16, u64, Answered)> {
        let path = percent(uri.path());
        let query: BTreeMap<String, String> = (uri.query().unwrap_or_default())
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (name.to_owned(), percent(value)))
            .collect();
        {
            let mut state = self.state();
            let line = format!("{method} {path}");
            state.asked.push(line);
            if state.nodes[node].is_away {
                return Err(io::Error::other("connection refused"));
            }
        }
        if let Some(path) = path.strip_prefix("/v1/agent/") {
            let mut state = self.state();
            let answer = state.nodes.get_mut(node).unwrap().answer(node, path, body);
            return Ok((answer.0, 0, Answered::Text(answer.1)));
        }
        let no_leader = || Ok((500, 0, Answered::Text("No cluster leader".to_owned())));
        if self.state().are_servers_away {
            return no_leader();
        }
        if path == "/v1/snapshot" {
            let state = self.state();
            return Ok((200, 0, Answered::Snapshot(state.sent.clone(), state.pace)));
        }
        if let Some(key) = path.strip_prefix("/v1/kv/") {
            if *method == Method::GET {
                return match self.get(key, &query).await {
                    Some((status, index, text)) => Ok((status, index, Answered::Text(text))),
                    None => no_leader(),
                };
            }
            let answer = self.put(key, &query, body);
            self.news.notify_waiters();
            return Ok((answer.0, 0, Answered::Text(answer.1)));
        }
        let (verb, id) = (path.strip_prefix("/v1/session/").unwrap())
            .split_once('/')
            .unwrap_or(("create", ""));
        let answer = self.state().session(verb, id, body);
        self.news.notify_waiters();
        Ok((answer.0, 0, Answered::Text(answer.1)))
    }

    async fn get(&self, key: &str, query: &BTreeMap<String, String>) -> Option<(u16, u64, String)> {
        let after: u64 = query.get("index").map_or(0, |index| index.parse().unwrap());
        let wait: u64 = query
            .get("wait")
            .map_or(0, |wait| wait.strip_suffix("ms").unwrap().parse().unwrap());
        let deadline = Instant::now() + Duration::from_millis(wait);
        loop {
            let news = self.news.notified();
            {
                let mut state = self.state();
                state.expire();
                if state.are_servers_away {
                    return None;
                }
                if state.index > after || Instant::now() >= deadline {
                    let index = state.index;
                    return Some(match state.keys.get(key) {
                        None => (404, index, String::new()),
                        Some(pair) => (200, index, pair.shown(key)),
                    });
                }
            }
            tokio::select! {
                biased;
                () = news => {}
                // Sessions run out by themselves.
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    fn put(&self, key: &str, query: &BTreeMap<String, String>, body: &Bytes) -> (u16, String) {
        let mut state = self.state();
        state.expire();
        let mut pair = state.keys.get(key).cloned().unwrap_or_default();
        let done = if let Some(session) = query.get("acquire") {
            if !state.sessions.contains_key(session) {
                return (500, format!("invalid session {session:?}"));
            }
            let is_delayed = pair.free_at.is_some_and(|at| at > Instant::now());
            let is_free = pair.session.is_empty() && !is_delayed;
            let done = is_free || pair.session == *session;
            pair.lock_index += u64::from(is_free);
            pair.session.clone_from(session);
            done
        } else if let Some(session) = query.get("release") {
            let done = pair.session == *session;
            pair.session.clear();
            done
        } else {
            true
        };
        if done {
            state.index += 1;
            pair.modified = state.index;
            pair.value = body.to_vec();
            pair.flags = query.get("flags").map_or(0, |flags| flags.parse().unwrap());
            state.keys.insert(key.to_owned(), pair);
        }
        (200, done.to_string())
    }
}

impl Pair {
    fn shown(&self, key: &str) -> String {
        json!([{
            "Key": key,
            "Value": encoded(&self.value),
            "Flags": self.flags,
            "Session": self.session,
            "LockIndex": self.lock_index,
            "ModifyIndex": self.modified,
        }])
        .to_string()
    }
}

/// Base64, since a value is carried so.
fn encoded(value: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in value.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(group.get(at).copied().unwrap_or_default())
        });
        for at in 0..4 {
            let letter = char::from(LETTERS[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= group.len() { letter } else { '=' });
        }
    }
    text
}

impl State {
    /// Ends the sessions whose time is up.
    fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<String> = (self.sessions.iter())
            .filter(|(_, session)| session.ends_at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        over.iter().for_each(|id| self.end(id));
    }

    fn end(&mut self, id: &str) {
        self.sessions.remove(id);
        self.index += 1;
        for pair in self.keys.values_mut().filter(|pair| pair.session == id) {
            pair.session.clear();
            pair.modified = self.index;
            pair.free_at = Some(Instant::now() + LOCK_DELAY);
        }
    }

    fn session(&mut self, verb: &str, id: &str, body: &Bytes) -> (u16, String) {
        self.expire();
        match verb {
            "create" => {
                let wish: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(wish["TTL"], "15s");
                self.made += 1;
                let id = format!("session-{}", self.made);
                let ttl = Duration::from_secs(15);
                let ends_at = Instant::now() + 2 * ttl;
                self.sessions.insert(id.clone(), Session { ttl, ends_at });
                (200, json!({"ID": id}).to_string())
            }
            "renew" => match self.sessions.get_mut(id) {
                Some(session) => {
                    session.ends_at = Instant::now() + 2 * session.ttl;
                    (200, json!([{"ID": id, "TTL": "15s"}]).to_string())
                }
                None => (404, format!("Session id '{id}' not found")),
            },
            _ => {
                self.end(id);
                (200, "true".to_owned())
            }
        }
    }
}

impl Node {
    fn answer(&mut self, name: &str, path: &str, body: &Bytes) -> (u16, String) {
        let (what, id) = match path.rsplit_once('/') {
            Some((what, id)) if what.contains('/') => (what, id),
            _ => (path, ""),
        };
        let json = || serde_json::from_slice::<Value>(body).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match what {
            "self" => {
                let config = json!({"Config": {"NodeName": name, "Datacenter": "dc1"}});
                return (200, config.to_string());
            }
            "service/register" => {
                if self.refused > 0 {
                    self.refused -= 1;
                    return (403, "Permission denied".to_owned());
                }
                let service = json();
                let (id, name) = (text(&service["ID"]), text(&service["Name"]));
                self.services.insert(id, name);
            }
            "service/deregister" => {
                self.services.remove(id);
                self.checks.retain(|_, check| check.service != id);
            }
            "check/register" => {
                let check = json();
                let service = text(&check["ServiceID"]);
                if !self.services.contains_key(&service) {
                    return (500, format!("ServiceID {service:?} does not exist"));
                }
                let added = Check {
                    name: text(&check["Name"]),
                    service,
                    ttl: text(&check["TTL"]),
                    status: text(&check["Status"]),
                    output: String::new(),
                    deregister_after: check["DeregisterCriticalServiceAfter"].clone(),
                };
                self.checks.insert(text(&check["ID"]), added);
            }
            "check/deregister" => {
                self.checks.remove(id);
            }
            "check/update" => {
                let Some(check) = self.checks.get_mut(id) else {
                    return (500, format!("CheckID {id:?} does not have associated TTL"));
                };
                let update = json();
                check.status = text(&update["Status"]);
                check.output = text(&update["Output"]);
            }
            _ => panic!("{path}"),
        }
        (200, String::new())
    }
}

enum Answered {
    Text(String),
    Snapshot(Sent, Duration),
}

impl Transport for Line {
    fn send(&self, request: Request) -> BoxFuture<'_, io::Result<Response>> {
        Box::pin(async move {
            // Nothing comes back in the moment in which it is asked.
            sleep(Duration::from_millis(1)).await;
            let (parts, body) = request.into_parts();
            let Body::Whole(body) = body else {
                panic!("nothing here sends a stream");
            };
            let (method, uri) = (parts.method, parts.uri);
            let answer = self.cluster.answer(&self.node, &method, &uri, &body);
            let answer = answer.await?;
            let (status, index, answered) = answer;
            let pieces = match answered {
                Answered::Text(text) => Pieces::new(stream::iter([Ok(Bytes::from(text))])),
                Answered::Snapshot(sent, pace) => in_pieces(sent, pace),
            };
            let response = http::Response::builder()
                .status(status)
                .header("X-Consul-Index", index.to_string());
            Ok(response.body(pieces).unwrap())
        })
    }
}

fn in_pieces(sent: Sent, pace: Duration) -> Pieces {
    let (archive, end) = match sent {
        Sent::Whole(archive) => (archive, None),
        Sent::Stuck(archive) => (archive, Some(false)),
        Sent::Broken(archive) => (archive, Some(true)),
    };
    let count = if end.is_some() { 2 } else { 4 };
    let length = archive.len().div_ceil(4);
    let pieces: Vec<_> = (archive.chunks(length).take(count))
        .map(Bytes::copy_from_slice)
        .collect();
    let pieces = stream::iter(pieces).then(move |piece| async move {
        sleep(pace).await;
        Ok(piece)
    });
    let end = stream::iter(end).then(|breaks| async move {
        if !breaks {
            std::future::pending::<()>().await;
        }
        Err(io::Error::other("connection reset by peer"))
    });
    Pieces::new(pieces.chain(end))
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        out.push(char::from(u8::from_str_radix(&after[..2], 16).unwrap()));
        rest = &after[2..];
    }
    out + rest
}
