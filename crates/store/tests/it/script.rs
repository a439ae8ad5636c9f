//! Transcripts: what is done to a store, what it answers, and who is woken.
//!
//! A line that begins with `>` is done; the lines up to the next one are what comes of it.
//! `UPDATE_SCRIPTS=1` rewrites the files with what comes of it now, to be reviewed like code.
//!
//! Answers stand as `index=<header> changed=<condition>` and a line for each row; `[2,5]` are its create and modify index.
//! `wait <name> <index> <question>` asks as a waiting client does; `<name> sleeps`, `<name> is told`, and `<name> was woken for nothing` say how it fares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use model::*;
use sha2::{Digest, Sha256};
use store::{Effect, Found, Read, Shared, Store, Subscription, View, Watch, archive};

#[test]
fn kv() {
    check("kv");
}

#[test]
fn txn() {
    check("txn");
}

#[test]
fn sessions() {
    check("sessions");
}

#[test]
fn catalog() {
    check("catalog");
}

#[test]
fn acl_and_queries() {
    check("acl-and-queries");
}

#[test]
fn queries() {
    check("queries");
}

#[test]
fn waiting_for_keys() {
    check("waiting-for-keys");
}

#[test]
fn waiting_for_the_catalog() {
    check("waiting-for-the-catalog");
}

#[test]
fn reaping() {
    check("reaping");
}

#[test]
fn restoring() {
    check("restoring");
}

#[test]
fn restoring_parts() {
    check("restoring-parts");
}

/// Runs a transcript and compares.
fn check(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/scripts")
        .join(format!("{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let mut stage = Stage::new();
    let mut actual = String::new();
    for line in expected.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(actual, "{line}").unwrap();
            actual.push_str(&stage.run(command));
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(actual, "{line}").unwrap();
        }
    }
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::write(&path, &actual).unwrap();
        return;
    }
    assert_eq!(actual, expected, "{name}: UPDATE_SCRIPTS=1 rewrites it");
}

/// A store, those who wait on it, and what the script has put by.
struct Stage {
    store: Store,
    shared: Shared,
    log_index: u64,
    term: u64,
    now_ms: u64,
    waiting: BTreeMap<String, Waiting>,
    /// The names that scripts give to ids.
    names: BTreeMap<Uuid, String>,
    saved: Vec<u8>,
}

/// A client that waits.
struct Waiting {
    since: Index,
    question: Vec<String>,
    subscription: Subscription,
}

impl Stage {
    fn new() -> Self {
        let store = Store::new();
        Self {
            shared: store.shared(),
            store,
            log_index: 0,
            term: 1,
            now_ms: 1_000_000,
            waiting: BTreeMap::new(),
            names: BTreeMap::new(),
            saved: Vec::new(),
        }
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut out = String::new();
        match words[0].as_str() {
            "clock" => {
                self.now_ms = self
                    .now_ms
                    .checked_add_signed(words[1].parse().unwrap())
                    .unwrap()
            }
            "term" => self.term = words[1].parse().unwrap(),
            "blank" => {
                self.log_index += 1;
                self.store.advance(self.log_index, self.term);
                self.store.publish();
            }
            "wait" => {
                self.wait(
                    &words[1],
                    words[2].parse().unwrap(),
                    words[3..].to_vec(),
                    &mut out,
                );
            }
            "save" => {
                self.saved.clear();
                archive::write(&self.shared.view(), &mut self.saved).unwrap();
            }
            "restore" => {
                for part in ["begin", "chunk", "commit"] {
                    let words = [
                        "restore-".to_owned() + part,
                        words.get(1).cloned().unwrap_or("r".to_owned()),
                    ];
                    let command = self.command(&words).unwrap();
                    self.apply(command, &mut out);
                }
            }
            "restore-part" => self.restore_part(&words, &mut out),
            "open?" => writeln!(out, "{}", self.store.restore_is_open()).unwrap(),
            _ => match self.command(&words) {
                Some(command) => self.apply(command, &mut out),
                None => {
                    let view = self.shared.view();
                    let (_, answer) = self.ask(&view, &mut Watch::off(), &words, 0);
                    out.push_str(&answer);
                }
            },
        }
        out
    }

    /// `restore-part only=<sections> kv-prefix=<prefixes> into=<prefix> mode=<mode>`: what its last entry comes to.
    fn restore_part(&mut self, words: &[String], out: &mut String) {
        let named = Named::new(words);
        let prefixes: Vec<&str> = match named.get("kv-prefix") {
            Some(prefixes) => prefixes.split(',').collect(),
            None => Vec::new(),
        };
        let prefixes: Vec<&[u8]> = prefixes.iter().map(|it| it.as_bytes()).collect();
        let bytes = |name| named.get(name).map(str::as_bytes);
        let part = RestorePart::parse(PartWish {
            only: bytes("only"),
            skip: bytes("skip"),
            kv_prefixes: &prefixes,
            into_prefix: bytes("into"),
            mode: bytes("mode"),
        });
        let part = part.unwrap();
        let saved = self.saved.clone();
        let verified =
            archive::verify_part(&saved[..], archive::Unknown::Refuse, Some(&part)).unwrap();
        let id = self.id("part");
        let mut commands = vec![Command::RestoreBegin(RestoreBegin {
            id,
            last_index: verified.last_index,
            snapshot_index: 0,
            part: Some(part.clone()),
        })];
        let mut chunks = archive::Chunks::of_part(&saved[..], Some(part)).unwrap();
        while let Some(records) = chunks.next_chunk().unwrap() {
            commands.push(Command::RestoreChunk(RestoreChunk {
                id,
                sequence: u32::try_from(commands.len() - 1).unwrap(),
                records,
            }));
        }
        for command in commands {
            let mut silent = String::new();
            self.apply(command, &mut silent);
            assert!(silent.ends_with(": done\n"), "{silent}");
        }
        let commit = Command::RestoreCommit(RestoreCommit {
            id,
            chunks: verified.chunks,
            hash: verified.hash,
        });
        self.apply(commit, out);
    }

    fn apply(&mut self, command: Command, out: &mut String) {
        self.log_index += 1;
        let entry = Entry {
            at_ms: self.now_ms,
            command,
        };
        let applied = self.store.apply(self.log_index, self.term, entry);
        self.store.publish();
        write!(out, "{}: ", applied.index).unwrap();
        match applied.result {
            Ok(Reply::Nothing) => writeln!(out, "done").unwrap(),
            Ok(Reply::Applied(applied)) => writeln!(out, "{applied}").unwrap(),
            Ok(Reply::Id(id)) => {
                let id = parse_uuid(&id).map_or(id.to_string(), |id| self.name(id));
                writeln!(out, "{id}").unwrap();
            }
            Ok(Reply::Txn(outcome)) => {
                writeln!(out, "txn").unwrap();
                self.show_txn(&outcome, out);
            }
            Err(error) => writeln!(out, "error: {error}").unwrap(),
        }
        for effect in applied.effects {
            match effect {
                Effect::SessionCreated { id } => {
                    writeln!(out, "+ session {} begins", self.name(id))
                }
                Effect::SessionEnded { id } => writeln!(out, "+ session {} ends", self.name(id)),
                Effect::KeysDelayed => writeln!(out, "+ keys are delayed"),
                Effect::KeysDeleted { index } => writeln!(out, "+ to be reaped up to {index}"),
                Effect::StateReplaced => writeln!(out, "+ all is new"),
                other => writeln!(out, "+ {other:?}"),
            }
            .unwrap();
        }
        self.wake(out);
    }

    /// Lets everybody who was woken ask again.
    fn wake(&mut self, out: &mut String) {
        let woken: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.subscription.has_changed())
            .map(|(name, _)| name.clone())
            .collect();
        for name in woken {
            let Waiting {
                since, question, ..
            } = self.waiting.remove(&name).unwrap();
            self.wait_again(&name, since, question, "was woken for nothing", out);
        }
    }

    fn wait(&mut self, name: &str, since: Index, question: Vec<String>, out: &mut String) {
        self.wait_again(name, since, question, "sleeps", out);
    }

    fn wait_again(
        &mut self,
        name: &str,
        since: Index,
        question: Vec<String>,
        otherwise: &str,
        out: &mut String,
    ) {
        let view = self.shared.view();
        let mut watch = Watch::on();
        let (is_news, answer) = self.ask(&view, &mut watch, &question, since);
        if is_news {
            writeln!(out, "! {name} is told").unwrap();
            for line in answer.lines() {
                writeln!(out, "    {line}").unwrap();
            }
            return;
        }
        writeln!(out, "! {name} {otherwise}").unwrap();
        let subscription = self.shared.subscribe(&view, &watch);
        assert!(!subscription.has_changed(), "nothing has happened since");
        self.waiting.insert(
            name.to_owned(),
            Waiting {
                since,
                question,
                subscription,
            },
        );
    }

    /// The id that a script means by a name; the empty name stands for none.
    fn id(&mut self, name: &str) -> Uuid {
        let digest = Sha256::digest(name.as_bytes());
        let id = Uuid::from_slice(&digest[..16]).unwrap();
        self.names.insert(id, name.to_owned());
        id
    }

    fn name(&self, id: Uuid) -> String {
        self.names.get(&id).cloned().unwrap_or(id.to_string())
    }

    /// What is written as a session in a script: a name, or `:` and the text itself.
    fn session(&mut self, word: &str) -> Text {
        match word.strip_prefix(':') {
            Some(literal) => Text::from(literal),
            None => Text::from(self.id(word).to_string()),
        }
    }

    fn op(&mut self, words: &[String]) -> Option<KvOp> {
        let named = Named::new(words);
        let index = || named.get("index").unwrap_or("0").parse().unwrap();
        let session = named.get("session").unwrap_or(":");
        let verb = match words[0].as_str() {
            "set" => KvVerb::Set,
            "cas" => KvVerb::Cas(index()),
            "lock" => KvVerb::Lock(self.session(session)),
            "unlock" => KvVerb::Unlock(self.session(session)),
            "delete" => KvVerb::Delete,
            "delete-tree" => KvVerb::DeleteTree,
            "delete-cas" => KvVerb::DeleteCas(index()),
            "get" => KvVerb::Get,
            "get-tree" => KvVerb::GetTree,
            "check-index" => KvVerb::CheckIndex(index()),
            "check-session" => KvVerb::CheckSession(self.session(session)),
            _ => return None,
        };
        Some(KvOp {
            verb,
            key: named.text(1),
            value: named.text(2),
            flags: named.get("flags").unwrap_or("0").parse().unwrap(),
        })
    }

    /// The command that a line means, if it means one.
    fn command(&mut self, words: &[String]) -> Option<Command> {
        let named = Named::new(words);
        Some(match words[0].as_str() {
            "txn" => Command::Txn(
                words[1..]
                    .split(|word| word == ";")
                    .map(|words| self.op(words).unwrap())
                    .collect(),
            ),
            "register" => Command::Register(Box::new(self.registration(&words[1..]))),
            "deregister" => Command::Deregister(Deregistration {
                node: named.text(1),
                what: match (named.get("service"), named.get("check")) {
                    (Some(id), _) => Deregister::Service(Text::from(id)),
                    (None, Some(id)) => Deregister::Check(Text::from(id)),
                    (None, None) => Deregister::Node,
                },
            }),
            "session" => Command::SessionCreate(Box::new(Session {
                id: self.id(&words[1]),
                node: named.text(2),
                checks: named.list("checks").unwrap_or_default(),
                lock_delay: named
                    .get("delay")
                    .map_or(0, |delay| GoDuration::parse(delay).unwrap().0),
                behavior: Behavior::parse(named.get("behavior").unwrap_or("").as_bytes()).unwrap(),
                ..Session::default()
            })),
            "end" => Command::SessionDestroy(self.id(&words[1])),
            "expire" => Command::SessionExpire {
                id: self.id(&words[1]),
                term: words[2].parse().unwrap(),
            },
            "delays-begin" => Command::LockDelaysBegin(words[1].parse().unwrap()),
            "token" => Command::AclSet(Box::new(AclToken {
                id: named.text(1),
                kind: named.text(2),
                ..AclToken::default()
            })),
            "delete-token" => Command::AclDelete(TokenId(named.text(1))),
            verb @ ("new-query" | "update-query") => Command::QuerySet(Box::new(QuerySet {
                query: PreparedQuery {
                    id: self.id(&words[1]),
                    name: named.get("name").map(Text::from).unwrap_or_default(),
                    session: named.get("session").map(|name| self.id(name)),
                    template: QueryTemplate {
                        kind: named.get("type").map(Text::from).unwrap_or_default(),
                        regexp: named.get("regexp").map(Text::from).unwrap_or_default(),
                    },
                    service: QueryService {
                        service: named.text(2),
                        only_passing: words.iter().any(|word| word == "passing"),
                        near: named.get("near").map(Text::from).unwrap_or_default(),
                        tags: named.list("tags"),
                        node_meta: named.pairs("meta"),
                        ..QueryService::default()
                    },
                    dns_ttl: named.get("ttl").map(Text::from).unwrap_or_default(),
                    ..PreparedQuery::default()
                },
                create: verb == "new-query",
            })),
            "delete-query" => Command::QueryDelete(self.id(&words[1])),
            "coordinates" => Command::Coordinates(
                words[1..]
                    .iter()
                    .map(|word| {
                        let (node, milliseconds) = word.split_once('@').unwrap_or((word, "0"));
                        let place: f64 = milliseconds.parse().unwrap();
                        NodeCoordinate {
                            node: Text::from(node),
                            coord: Coordinate {
                                vec: vec![place / 1000.0],
                                ..Coordinate::default()
                            },
                        }
                    })
                    .collect(),
            ),
            "reap" => Command::TombstoneReap(words[1].parse().unwrap()),
            "restore-begin" => Command::RestoreBegin(RestoreBegin {
                id: self.id(&words[1]),
                last_index: self.header().1,
                snapshot_index: named.get("snapshot").unwrap_or("0").parse().unwrap(),
                part: None,
            }),
            "restore-chunk" => Command::RestoreChunk(RestoreChunk {
                id: self.id(&words[1]),
                sequence: named.get("sequence").unwrap_or("0").parse().unwrap(),
                records: match named.get("junk") {
                    Some(junk) => junk.as_bytes().to_vec(),
                    None => self.saved[self.header().0..].to_vec(),
                },
            }),
            "restore-commit" => Command::RestoreCommit(RestoreCommit {
                id: self.id(&words[1]),
                chunks: named.get("chunks").unwrap_or("1").parse().unwrap(),
                hash: Sha256::digest(&self.saved[self.header().0..]).into(),
            }),
            // Alone, these are questions.
            "get" | "get-tree" => return None,
            _ => Command::Kv(self.op(words)?),
        })
    }

    /// How long the header of what was saved is, and the index that it claims.
    fn header(&self) -> (usize, Index) {
        let mut object = wire::msgpack::Decoder::new(&self.saved);
        object.skip().unwrap();
        let mut last_index = 0;
        wire::msgpack::Decoder::new(&self.saved)
            .fields(&["LastIndex"], |value, _| {
                last_index = value.uint()?;
                Ok::<_, wire::msgpack::DecodeError>(())
            })
            .unwrap();
        (object.position(), last_index)
    }

    /// `<node> [address] [service <id> <name> …] [check <id> <status> …]…`
    fn registration(&mut self, words: &[String]) -> Registration {
        let mut parts: Vec<&[String]> = Vec::new();
        let mut start = 0;
        for at in 1..=words.len() {
            if at == words.len() || words[at] == "service" || words[at] == "check" {
                parts.push(&words[start..at]);
                start = at;
            }
        }
        let node = Named::new(parts[0]);
        let mut registration = Registration {
            node: Node {
                name: node.text(0),
                address: node.text(1),
                tagged_addresses: node
                    .get("wan")
                    .map(|wan| Pairs::from([("wan".into(), wan.into())])),
                meta: node.pairs("meta"),
                ..Node::default()
            },
            ..Registration::default()
        };
        for part in &parts[1..] {
            let named = Named::new(part);
            if part[0] == "service" {
                registration.service = Some(Service {
                    id: named.text(1),
                    name: named.text(2),
                    tags: named.list("tags"),
                    address: named.get("address").map(Text::from).unwrap_or_default(),
                    port: named.get("port").unwrap_or("0").parse().unwrap(),
                    ..Service::default()
                });
            } else {
                registration.checks.push(Check {
                    node: named.get("node").map(Text::from).unwrap_or_default(),
                    check_id: named.text(1),
                    status: named.text(2),
                    service_id: named.get("of").map(Text::from).unwrap_or_default(),
                    ..Check::default()
                });
            }
        }
        registration
    }

    /// Asks; whether it is news since then, and the answer as it is shown.
    fn ask(
        &mut self,
        view: &View,
        watch: &mut Watch,
        words: &[String],
        since: Index,
    ) -> (bool, String) {
        let named = Named::new(words);
        let tag = named.get("tag").map(Text::from);
        let mut out = String::new();
        macro_rules! ask {
            ($question:expr, |$found:ident| $show:expr) => {{
                let found = $question.read(view, watch);
                writeln!(out, "index={} changed={}", found.index, found.changed).unwrap();
                let is_news = found.is_news(since);
                let Found { answer: $found, .. } = found;
                $show;
                is_news
            }};
        }
        let is_news = match words[0].as_str() {
            "get" => ask!(KvGet { key: named.text(1) }, |entry| self
                .show_entries(&entry.into_iter().collect::<Vec<_>>(), &mut out)),
            "list" => ask!(
                KvList {
                    prefix: named.text(1)
                },
                |entries| self.show_entries(&entries, &mut out)
            ),
            "keys" => ask!(
                KvKeys {
                    prefix: named.text(1),
                    separator: named.text(2)
                },
                |keys| keys.iter().for_each(|key| writeln!(out, "{key}").unwrap())
            ),
            "txn-read" => {
                let ops = words[1..]
                    .split(|word| word == ";")
                    .map(|words| self.op(words).unwrap())
                    .collect();
                ask!(TxnRead { ops }, |outcome| self.show_txn(&outcome, &mut out))
            }
            "nodes" => ask!(CatalogNodes, |nodes| nodes
                .iter()
                .for_each(|node| show_node(node, &mut out))),
            "services" => ask!(CatalogServices, |services| for (name, tags) in services {
                writeln!(out, "{name} {tags:?}").unwrap();
            }),
            "service" => ask!(
                CatalogService {
                    service: named.text(1),
                    tag
                },
                |instances| for instance in instances {
                    write!(out, "{} ", instance.node.name).unwrap();
                    show_service(&instance.service, &mut out);
                }
            ),
            "node" => ask!(
                CatalogNode {
                    node: named.text(1)
                },
                |node| if let Some(NodeServices { node, services }) = node {
                    show_node(&node, &mut out);
                    services
                        .iter()
                        .for_each(|service| show_service(service, &mut out));
                }
            ),
            "health-node" => ask!(
                HealthNode {
                    node: named.text(1)
                },
                |checks| show_checks(&checks, &mut out)
            ),
            "health-checks" => ask!(
                HealthChecks {
                    service: named.text(1)
                },
                |checks| show_checks(&checks, &mut out)
            ),
            "health-state" => ask!(
                HealthState {
                    state: named.text(1)
                },
                |checks| show_checks(&checks, &mut out)
            ),
            "health" => ask!(
                HealthService {
                    service: named.text(1),
                    tag,
                    passing_only: words.iter().any(|word| word == "passing")
                },
                |instances| for instance in instances {
                    show_node(&instance.node, &mut out);
                    show_service(&instance.service, &mut out);
                    show_checks(&instance.checks, &mut out);
                }
            ),
            "session-info" => ask!(
                SessionInfo {
                    id: self.id(&words[1])
                },
                |found| self
                    .show_sessions(found.map(|standing| standing.session).as_slice(), &mut out)
            ),
            "sessions" => ask!(SessionList, |sessions| self
                .show_sessions(&sessions, &mut out)),
            "sessions-of" => ask!(
                SessionNode {
                    node: named.text(1)
                },
                |sessions| self.show_sessions(&sessions, &mut out)
            ),
            "acl" => ask!(AclInfo { id: named.text(1) }, |token| show_tokens(
                token.as_slice(),
                &mut out
            )),
            "acls" => ask!(AclList, |tokens| show_tokens(&tokens, &mut out)),
            "query" => ask!(
                QueryGet {
                    id: self.id(&words[1])
                },
                |query| match query {
                    Ok(query) => self.show_queries(&[query], &mut out),
                    Err(error) => writeln!(out, "{error}").unwrap(),
                }
            ),
            "execute" => {
                let question = QueryExecute {
                    query: self.query_name(&words[1]),
                    execution: execution(&named, words),
                };
                ask!(question, |executed| show_executed(&executed, &mut out))
            }
            "elsewhere" => {
                let question = QueryElsewhere {
                    service: QueryService {
                        service: named.text(1),
                        near: named.get("near").map(Text::from).unwrap_or_default(),
                        ..QueryService::default()
                    },
                    dns_ttl: Text::from("9s"),
                    execution: execution(&named, words),
                };
                ask!(question, |executed| show_executed(&executed, &mut out))
            }
            "explain" => ask!(
                QueryExplain {
                    query: self.query_name(&words[1])
                },
                |explained| match explained {
                    Ok(Explained(query)) => {
                        let service = &query.service;
                        self.show_queries(&[&query], &mut out);
                        writeln!(
                            out,
                            "near {:?} tags {:?} meta {:?}",
                            service.near, service.tags, service.node_meta
                        )
                        .unwrap();
                    }
                    Err(error) => writeln!(out, "{error}").unwrap(),
                }
            ),
            "queries" => ask!(QueryList, |queries| self.show_queries(&queries, &mut out)),
            "coordinate-nodes" => ask!(CoordinateNodes, |rows| for row in rows {
                writeln!(out, "{}", row.node).unwrap();
            }),
            "coordinates-of" => ask!(
                CoordinateLookup {
                    nodes: words[1..]
                        .iter()
                        .map(|word| Text::from(word.as_str()))
                        .collect()
                },
                |rows| for row in rows {
                    writeln!(out, "{}", row.node).unwrap();
                }
            ),
            other => panic!("no such command: {other}"),
        };
        (is_news, out)
    }

    fn show_entry(&self, entry: &KvEntry, out: &mut String) {
        write!(out, "{}", String::from_utf8_lossy(entry.key())).unwrap();
        write!(out, " = {:?}", String::from_utf8_lossy(entry.value())).unwrap();
        if entry.flags() != 0 {
            write!(out, " flags={}", entry.flags()).unwrap();
        }
        if entry.lock_index() != 0 {
            write!(out, " lock-index={}", entry.lock_index()).unwrap();
        }
        if let Some(session) = entry.session() {
            write!(out, " held-by={}", self.name(session)).unwrap();
        }
        writeln!(out, " [{},{}]", entry.create_index(), entry.modify_index()).unwrap();
    }

    fn show_entries(&self, entries: &[KvEntry], out: &mut String) {
        entries.iter().for_each(|entry| self.show_entry(entry, out));
    }

    fn show_txn(&self, outcome: &TxnOutcome, out: &mut String) {
        for result in &outcome.results {
            out.push_str(if result.with_value { "read " } else { "wrote " });
            self.show_entry(&result.entry, out);
        }
        for error in &outcome.errors {
            writeln!(out, "op {}: {}", error.op_index, error.what).unwrap();
        }
    }

    fn show_sessions<T: AsRef<Session>>(&self, sessions: &[T], out: &mut String) {
        // The ids are hashes: by name, the script reads better.
        let mut shown: Vec<String> = sessions
            .iter()
            .map(AsRef::as_ref)
            .map(|session| {
                format!(
                    "{} on {} {:?} [{},{}]",
                    self.name(session.id),
                    session.node,
                    session.checks,
                    session.create_index,
                    session.modify_index
                )
            })
            .collect();
        shown.sort();
        shown
            .iter()
            .for_each(|line| writeln!(out, "{line}").unwrap());
    }

    /// A name, or after `#` that of a query by whose id it is asked for.
    fn query_name(&mut self, word: &str) -> Text {
        match word.strip_prefix('#') {
            Some(name) => Text::from(self.id(name).to_string()),
            None => Text::from(word),
        }
    }

    fn show_queries<T: AsRef<PreparedQuery>>(&self, queries: &[T], out: &mut String) {
        let mut shown: Vec<String> = queries
            .iter()
            .map(AsRef::as_ref)
            .map(|query| {
                format!(
                    "{} {:?} asks {} [{},{}]",
                    self.name(query.id),
                    query.name,
                    query.service.service,
                    query.create_index,
                    query.modify_index
                )
            })
            .collect();
        shown.sort();
        shown
            .iter()
            .for_each(|line| writeln!(out, "{line}").unwrap());
    }
}

/// `[limit=<n>] [near=<node>] [from=<node>] [dc=<datacenter>] [show=<what>] [translating]`
fn execution(named: &Named<'_>, words: &[String]) -> Execution {
    let text = |name, default| Text::from(named.get(name).unwrap_or(default));
    let shown = named.get("show").map(|shown| match shown {
        "ports" => Shown::Ports,
        "ipv4" => Shown::Ipv4,
        "ipv6" => Shown::Ipv6,
        "nothing" => Shown::Nothing,
        other => panic!("nothing is shown as {other}"),
    });
    Execution {
        datacenter: text("dc", "dc1"),
        source: QuerySource {
            datacenter: Text::from("dc1"),
            node: text("from", "agent"),
            near: text("near", ""),
        },
        limit: named.get("limit").unwrap_or("0").parse().unwrap(),
        portion: shown.map_or(Portion::Whole, |shown| Portion::Places {
            shown,
            translates_wan: words.iter().any(|word| word == "translating"),
        }),
        seed: named.get("seed").unwrap_or("1").parse().unwrap(),
    }
}

fn show_executed(executed: &Result<Executed, Error>, out: &mut String) {
    let executed = match executed {
        Ok(executed) => executed,
        Err(error) => return writeln!(out, "{error}").unwrap(),
    };
    write!(out, "{} in {}", executed.service, executed.datacenter).unwrap();
    write!(out, " ttl={:?}:", executed.dns_ttl).unwrap();
    match &executed.found {
        FoundInstances::Whole(instances) => instances
            .iter()
            .for_each(|it| write!(out, " {}/{}", it.node.name, it.service.id).unwrap()),
        FoundInstances::Places(placements) => {
            if !placements.is_any {
                out.push_str(" none");
            }
            let picked = placements.picked.iter();
            picked.for_each(|it| write!(out, " {}/{}", it.node.name, it.service.id).unwrap());
        }
    }
    out.push('\n');
}

fn show_node(node: &Node, out: &mut String) {
    writeln!(
        out,
        "{} at {} [{},{}]",
        node.name, node.address, node.create_index, node.modify_index
    )
    .unwrap();
}

fn show_service(service: &Service, out: &mut String) {
    writeln!(
        out,
        "{}: {} {:?} [{},{}]",
        service.id,
        service.name,
        service.tags.clone().unwrap_or_default(),
        service.create_index,
        service.modify_index
    )
    .unwrap();
}

fn show_checks<T: AsRef<Check>>(checks: &[T], out: &mut String) {
    for check in checks.iter().map(AsRef::as_ref) {
        writeln!(
            out,
            "{}/{} is {} of {:?} {:?} [{},{}]",
            check.node,
            check.check_id,
            check.status,
            check.service_id,
            check.service_name,
            check.create_index,
            check.modify_index
        )
        .unwrap();
    }
}

fn show_tokens<T: AsRef<AclToken>>(tokens: &[T], out: &mut String) {
    for token in tokens.iter().map(AsRef::as_ref) {
        writeln!(
            out,
            "{} is {} [{},{}]",
            token.id, token.kind, token.create_index, token.modify_index
        )
        .unwrap();
    }
}

/// The words of a line: those by place, and those by name (`name=value`).
struct Named<'a> {
    placed: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Named<'a> {
    fn new(words: &'a [String]) -> Self {
        let (named, placed): (Vec<&str>, Vec<&str>) = words
            .iter()
            .map(String::as_str)
            .partition(|word| word.contains('='));
        Self {
            placed,
            named: named
                .iter()
                .filter_map(|word| word.split_once('='))
                .collect(),
        }
    }

    /// The word in this place; `""` or none stands for the empty text.
    fn text(&self, place: usize) -> Text {
        match self.placed.get(place) {
            None | Some(&"\"\"") => Text::default(),
            Some(word) => Text::from(*word),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.get(name).copied()
    }

    /// `name:value` after commas.
    fn pairs(&self, name: &str) -> Pairs {
        let pairs = self.get(name).unwrap_or("").split(',');
        let pairs = pairs.filter_map(|pair| pair.split_once(':'));
        pairs
            .map(|(name, value)| (Text::from(name), Text::from(value)))
            .collect()
    }

    fn list(&self, name: &str) -> Option<Vec<Text>> {
        let list = self.get(name)?;
        Some(
            list.split(',')
                .filter(|item| !item.is_empty())
                .map(Text::from)
                .collect(),
        )
    }
}
