//! What the cluster answers in the transcripts, by name.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::agent::{
    Agent, Events, FiguresSnapshot, Gauge, Identity, JoinError, Journal, Labels, Member,
    MemberStatus, Neighbours, Parts, Role, Sampled, Section, Sections, Settings, Severity, Start,
    Total, Totals, Wish,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Access, AclToken, Answer, Behavior, Check, Coordinate, Error, EventFilters, Executed,
    Explained, FoundInstances, Grant, Instance, KeyringPool, KvEntry, KvParts, NewEvent, Node,
    NodeCoordinate, NodeServices, Operated, Pairs, Policy, PreparedQuery, QueryService,
    QueryTemplate, RaftConfiguration, RaftServer, Reply, Resolved, Resource, Service, Session,
    SessionStanding, Text, TxnError, TxnOutcome, TxnResult, UserEvent, Uuid,
};
use rpc::{Meta, StreamError};
use testkit::Fake;

/// The answer of that name.
pub(crate) fn answer(name: &str, meta: &Meta) -> Fake {
    let (word, rest) = name.split_once(' ').unwrap_or((name, ""));
    let answer = match word {
        "wait" => return Fake::Wait,
        "error" => return Fake::Error(error(rest)),
        "reply" => return Fake::Reply(reply(rest)),
        "restored" => {
            let skipped = rest
                .split_whitespace()
                .map(|kind| (kind.to_owned(), 3))
                .collect();
            return Fake::Restored(rpc::Restored { skipped });
        }
        "raft" => return Fake::Operated(Operated::RaftConfiguration(raft())),
        "keyring" => return Fake::Operated(Operated::Keyring(keyring(rest))),
        "done" => return Fake::Operated(Operated::Nothing),
        "fired" => return Fake::Operated(Operated::Fired(rest.parse().unwrap())),
        "archive" => return Fake::Save(*meta, archive(rest)),
        "key" => Answer::KvGet(key(rest)),
        "entries" => Answer::KvList(rest.split_whitespace().filter_map(key).collect()),
        "keys" => Answer::KvKeys(rest.split_whitespace().map(Text::from).collect()),
        "txn" => Answer::TxnRead(outcome(rest)),
        "nodes" => Answer::CatalogNodes(rest.split_whitespace().map(node).collect()),
        "services" => Answer::CatalogServices(services(rest)),
        "catalog-service" => Answer::CatalogService(instances(rest)),
        "node" => Answer::CatalogNode((rest != "none").then(|| NodeServices {
            node: node(rest),
            services: vec![service("web-1"), service("plain")],
        })),
        "node-checks" => Answer::HealthNode(rest.split_whitespace().map(check).collect()),
        "service-checks" => Answer::HealthChecks(rest.split_whitespace().map(check).collect()),
        "state-checks" => Answer::HealthState(rest.split_whitespace().map(check).collect()),
        "health-service" => Answer::HealthService(instances(rest)),
        "session" => Answer::SessionInfo((rest != "none").then(|| standing(rest))),
        "renewed" => {
            let session = (rest != "none").then(|| session(rest));
            return Fake::Operated(Operated::Session(session));
        }
        "sessions" => Answer::SessionList(rest.split_whitespace().map(session).collect()),
        "node-sessions" => Answer::SessionNode(rest.split_whitespace().map(session).collect()),
        "acl" => Answer::AclInfo((rest != "none").then(|| token(rest))),
        "acls" => Answer::AclList(rest.split_whitespace().map(token).collect()),
        "query" if rest == "none" => {
            Answer::QueryGet(Err(Error::NotFound("Query not found".to_owned())))
        }
        "query" if rest == "denied" => Answer::QueryGet(Err(Error::PermissionDenied)),
        "query" => Answer::QueryGet(Ok(query(rest))),
        "executed" => Answer::QueryExecute(match rest.split_once(' ') {
            Some(("error", text)) => Err(error(text)),
            _ => Ok(executed(rest)),
        }),
        "explained" => Answer::QueryExplain(match rest.split_once(' ') {
            Some(("error", text)) => Err(error(text)),
            _ => Ok(Explained(query(rest))),
        }),
        "queries" => Answer::QueryList(rest.split_whitespace().map(query).collect()),
        "coordinates" => Answer::CoordinateNodes(rest.split_whitespace().map(coordinate).collect()),
        "coordinates-of" => {
            Answer::CoordinateLookup(rest.split_whitespace().map(coordinate).collect())
        }
        other => panic!("unknown answer {other:?}"),
    };
    Fake::Answer(answer, *meta)
}

/// A session, and after its name how many milliseconds it has, if that is known.
fn standing(words: &str) -> SessionStanding {
    let (name, left) = words.split_once(' ').unwrap_or((words, ""));
    let left = left.parse().ok().map(Duration::from_millis);
    SessionStanding {
        session: session(name),
        left,
    }
}

fn raft() -> RaftConfiguration {
    let server = |node: &str, address: &str, leader| RaftServer {
        node: node.to_owned(),
        address: address.to_owned(),
        leader,
        voter: true,
    };
    RaftConfiguration {
        servers: vec![
            server("n1", "10.0.0.1:8300", true),
            server("(unknown)", "10.0.0.2:8300", false),
        ],
        index: 22,
    }
}

fn keyring(how: &str) -> Vec<KeyringPool> {
    let mut pool = KeyringPool {
        datacenter: "dc1".to_owned(),
        keys: [("pUqJrVyVRj5jsiYEkM/tFQ==".to_owned(), 2)].into(),
        members: 2,
        ..KeyringPool::default()
    };
    if how == "fails" {
        pool.error = "1/2 nodes reported failure".to_owned();
        pool.messages = [(
            "n2".to_owned(),
            "Requested key is not in the keyring".to_owned(),
        )]
        .into();
    }
    vec![pool]
}

fn error(name: &str) -> Error {
    let (kind, text) = name.split_once(' ').unwrap_or((name, ""));
    if kind == "remote" {
        return error(text).from_afar();
    }
    let text = text.to_owned();
    match kind {
        "no-leader" => Error::NoLeader,
        "no-servers" => Error::NoServers,
        "no-path" => Error::NoPath,
        "denied" if text.is_empty() => Error::PermissionDenied,
        "denied" => Error::PermissionDeniedBecause(text),
        "acl-not-found" => Error::AclNotFound,
        "not-found" => Error::NotFound(text),
        "invalid" => Error::Invalid(text),
        "restored" => Error::Restored,
        "unknown" => Error::OutcomeUnknown,
        "unavailable" => Error::Unavailable(text),
        "internal" => Error::Internal(text),
        other => panic!("unknown error {other:?}"),
    }
}

fn reply(name: &str) -> Reply {
    let (kind, rest) = name.split_once(' ').unwrap_or((name, ""));
    match kind {
        "nothing" => Reply::Nothing,
        "true" => Reply::Applied(true),
        "false" => Reply::Applied(false),
        "id" => Reply::Id(Text::from(rest)),
        "txn" => Reply::Txn(outcome(rest)),
        other => panic!("unknown reply {other:?}"),
    }
}

fn archive(how: &str) -> Vec<Result<Bytes, StreamError>> {
    let mut pieces = vec![Ok(Bytes::from("first ")), Ok(Bytes::from("second"))];
    if how == "cut" {
        pieces.push(Err(StreamError("disk on fire".to_owned())));
    }
    pieces
}

fn key(name: &str) -> Option<KvEntry> {
    let parts = KvParts {
        key: name.as_bytes(),
        value: b"hello",
        create_index: 8,
        modify_index: 9,
        ..KvParts::default()
    };
    Some(KvEntry::new(&match name {
        "none" => return None,
        "locked" => KvParts {
            flags: 3_304_740_253_564_472_344,
            lock_index: 2,
            session: Some(Uuid::from_u128(0xaa)),
            ..parts
        },
        "empty" => KvParts {
            value: b"",
            ..parts
        },
        "page" => KvParts {
            value: b"<script>alert(1)</script>",
            ..parts
        },
        "odd" => KvParts {
            key: b"<odd>\xff&\xe2\x80\xa8",
            value: b"\x00\xff",
            ..parts
        },
        _ => parts,
    }))
}

fn outcome(names: &str) -> TxnOutcome {
    if let Some(what) = names.strip_prefix("fails ") {
        let errors = vec![
            TxnError {
                op_index: 0,
                what: what.to_owned(),
            },
            TxnError {
                op_index: 2,
                what: "key \"b\" doesn't exist".to_owned(),
            },
        ];
        return TxnOutcome {
            results: Vec::new(),
            errors,
        };
    }
    let result = |name: &str| TxnResult {
        entry: key(name.trim_start_matches('+')).unwrap(),
        with_value: name.starts_with('+'),
    };
    TxnOutcome {
        results: names.split_whitespace().map(result).collect(),
        errors: Vec::new(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Pairs {
    pairs
        .iter()
        .map(|(name, value)| (Text::from(*name), Text::from(*value)))
        .collect()
}

fn node(name: &str) -> Arc<Node> {
    let mut node = Node {
        name: Text::from(name),
        address: Text::from("10.1.2.10"),
        create_index: 3,
        modify_index: 5,
        ..Node::default()
    };
    match name {
        "plain" => {}
        "later" => {
            node.id = Text::from("40e4a748-2192-161a-0510-9bf59fe950b5");
            node.meta = pairs(&[("rack", "r1")]);
        }
        _ => node.tagged_addresses = Some(pairs(&[("wan", "198.51.100.10"), ("lan", "10.1.2.10")])),
    }
    Arc::new(node)
}

fn service(id: &str) -> Arc<Service> {
    let plain = Service {
        id: Text::from(id),
        name: Text::from("web"),
        create_index: 4,
        modify_index: 6,
        ..Service::default()
    };
    Arc::new(match id {
        "plain" => plain,
        _ => Service {
            tags: Some(vec![Text::from("v1"), Text::from("<b>")]),
            address: Text::from("10.1.2.11"),
            port: 8080,
            enable_tag_override: true,
            ..plain
        },
    })
}

fn check(name: &str) -> Arc<Check> {
    // `serfHealth@n2`: on that node
    let (id, node) = name.split_once('@').unwrap_or((name, "n1"));
    let check = Check {
        node: Text::from(node),
        check_id: Text::from(id),
        name: Text::from("alive"),
        status: Text::from("passing"),
        create_index: 4,
        modify_index: 7,
        ..Check::default()
    };
    Arc::new(match id {
        "serfHealth" => Check {
            output: Text::from(&b"alive\xe2\x82"[..]),
            ..check
        },
        _ => Check {
            service_id: Text::from("web-1"),
            service_name: Text::from("web"),
            notes: Text::from("\"ours\""),
            ..check
        },
    })
}

fn services(names: &str) -> Vec<(Text, Vec<Text>)> {
    let service = |name: &str| {
        let mut parts = name.split(',').map(Text::from);
        (parts.next().unwrap(), parts.collect())
    };
    names.split_whitespace().map(service).collect()
}

fn instances(names: &str) -> Vec<Arc<Instance>> {
    let instance = |name: &str| {
        let (node_name, id) = name.split_once('/').unwrap();
        Arc::new(Instance {
            node: node(node_name),
            service: service(id),
            checks: vec![check("serfHealth"), check("service:web-1")],
            rendered: OnceLock::new(),
        })
    };
    names.split_whitespace().map(instance).collect()
}

/// `<datacenter> <failovers> [<node>/<service>…]`
fn executed(rest: &str) -> Executed {
    let mut words = rest.splitn(3, ' ');
    Executed {
        service: Text::from("web"),
        dns_ttl: Text::from("10s"),
        datacenter: Text::from(words.next().unwrap()),
        failovers: words.next().unwrap().parse().unwrap(),
        found: FoundInstances::Whole(instances(words.next().unwrap_or_default())),
    }
}

fn session(name: &str) -> Arc<Session> {
    let plain = Session {
        id: Uuid::from_u128(0xaa),
        name: Text::from(name),
        node: Text::from("n1"),
        create_index: 36,
        modify_index: 36,
        ..Session::default()
    };
    Arc::new(match name {
        "plain" => plain,
        _ => Session {
            checks: vec![Text::from("serfHealth")],
            lock_delay: 15_000_000_000,
            behavior: Behavior::Delete,
            ttl: Text::from("86400s"),
            ..plain
        },
    })
}

fn token(name: &str) -> Arc<AclToken> {
    Arc::new(AclToken {
        id: Text::from(format!("{name}-id")),
        name: Text::from(name),
        kind: Text::from("client"),
        rules: Text::from("key \"\" { policy = \"read\" }"),
        create_index: 47,
        modify_index: 48,
    })
}

fn query(name: &str) -> Arc<PreparedQuery> {
    let plain = PreparedQuery {
        id: Uuid::from_u128(0xbb),
        name: Text::from(name),
        service: QueryService {
            service: Text::from("web"),
            ..QueryService::default()
        },
        create_index: 52,
        modify_index: 53,
        ..PreparedQuery::default()
    };
    Arc::new(match name {
        "plain" => plain,
        _ => PreparedQuery {
            session: Some(Uuid::from_u128(0xaa)),
            token: Text::from("<hidden>"),
            template: QueryTemplate {
                kind: Text::from("name_prefix_match"),
                regexp: Text::from("^(.*)$"),
            },
            service: QueryService {
                nearest_n: 3,
                datacenters: Some(vec![Text::from("dc2")]),
                only_passing: true,
                near: Text::from("_agent"),
                tags: Some(vec![Text::from("primary"), Text::from("!old")]),
                node_meta: pairs(&[("rack", "r1")]),
                ..plain.service.clone()
            },
            dns_ttl: Text::from("10s"),
            ..plain
        },
    })
}

fn coordinate(node: &str) -> NodeCoordinate {
    let mut coord = Coordinate {
        vec: vec![
            0.0,
            -0.000_172_284_972_593_551_6,
            2.144_769_388_268_762_4e-6,
            1e-7,
            0.25,
            0.0,
            0.0,
            0.0,
        ],
        error: 1.5,
        adjustment: -6.265_714_814_545_531e-5,
        height: 1e-5,
    };
    // `n1@0.5`: that far away from where all others are
    let (node, away) = node.split_once('@').unwrap_or((node, "0"));
    coord.vec[0] = away.parse().unwrap();
    NodeCoordinate {
        node: Text::from(node),
        coord,
    }
}

/// The agent that is asked.
pub(crate) fn agent() -> Agent {
    agent_where(::agent::Tokens::unjudged())
}

/// The same that judges tokens so.
pub(crate) fn agent_where(tokens: ::agent::Tokens) -> Agent {
    agent_judging(
        ::agent::Local::new(::agent::LocalConfig::default()).0,
        tokens,
    )
}

/// What tokens allow on an agent whose servers say this of each.
pub(crate) fn tokens(grant: Grant) -> ::agent::Tokens {
    tokens_that(std::iter::repeat_n(grant, 100))
}

/// The same where they say these in turn, and the last of them from then on.
pub(crate) fn tokens_in_turn(grants: &[&str]) -> ::agent::Tokens {
    let last = std::iter::repeat_n(grants.last().unwrap(), 100);
    tokens_that(grants.iter().chain(last).map(|text| grant(text)))
}

fn tokens_that(grants: impl Iterator<Item = Grant>) -> ::agent::Tokens {
    let fake = testkit::FakeCluster::new();
    for grant in grants {
        // Believed for no time at all.
        let ttl = Duration::ZERO;
        let resolved = Box::new(Resolved { grant, ttl });
        fake.answer(Fake::Operated(Operated::Policy(resolved)));
    }
    let config = ::agent::access::Config {
        node: "n1".into(),
        ..::agent::access::Config::default()
    };
    ::agent::Tokens::judged(config, fake.cluster())
}

/// Rules such as `agent:n1=read` over nothing, or `disabled`, `unknown` and `everything`.
pub(crate) fn grant(text: &str) -> Grant {
    match text {
        "disabled" => return Grant::Disabled,
        "unknown" => return Grant::Unknown,
        "everything" => return Grant::Everything,
        _ => {}
    }
    let resources = [
        Resource::Key,
        Resource::Service,
        Resource::Event,
        Resource::Query,
        Resource::Node,
        Resource::Session,
        Resource::Agent,
    ];
    let rules = text.split_whitespace().filter(|rule| *rule != "nothing");
    let rules = rules.map(|rule| {
        let (what, access) = rule.split_once('=').unwrap();
        let (kind, name) = what.split_once(':').unwrap();
        let resource = resources
            .into_iter()
            .find(|it| it.as_str() == kind)
            .unwrap();
        let access = Access::parse(access.as_bytes()).unwrap();
        (resource, Text::from(name), access)
    });
    Grant::Rules(Policy::new(rules, Access::Deny))
}

/// The same with these services and checks.
pub(crate) fn agent_judging(local: ::agent::Local, tokens: ::agent::Tokens) -> Agent {
    let address: IpAddr = [10, 0, 0, 1].into();
    let identity = Identity {
        node: "n1".to_owned(),
        datacenter: "dc1".to_owned(),
        id: String::new(),
        address,
        address_wan: address,
        role: Role::Server(Start::Bootstrap),
        version: "0.7.1".to_owned(),
        prerelease: String::new(),
        revision: "a9455cd4fc809cf0e15bd2a9c8f12ba5cbb8ef0a".to_owned(),
        build: "0.0.0".to_owned(),
    };
    let settings = Settings {
        acl_datacenter: "dc1".to_owned(),
        data_dir: "/var/lib/consul".to_owned(),
        http_api_response_headers: vec![("Access-Control-Allow-Origin".to_owned(), "*".to_owned())],
        ..Settings::default()
    };
    let raft = || {
        Section::from([
            ("state".to_owned(), "Leader".to_owned()),
            ("term".to_owned(), "2".to_owned()),
        ])
    };
    let journal = Journal::default();
    journal.push(Severity::Info, "2016/11/22 06:33:49 [INFO] agent: hello");
    journal.push(Severity::Debug, "2016/11/22 06:33:50 [DEBUG] agent: psst");
    let (wishes, mut wished) = tokio::sync::mpsc::channel(1);
    // On the runtime of whoever asks, so that no answer is there before somebody waits for it; this ends with the agent.
    tokio::spawn(async move {
        while let Some(wish) = wished.recv().await {
            let (answer, outcome) = match wish {
                Wish::Leave(answer) => (answer, Ok(())),
                Wish::Reload(answer) => (answer, Err("Config has invalid keys: x".to_owned())),
            };
            let _ = answer.send(outcome);
        }
    });
    let parts = Parts {
        neighbours: Box::new(Neighbourhood {
            this: identity.member(&settings),
        }),
        journal,
        wishes,
        stats: Box::new(move || Sections::from([("raft".to_owned(), raft())])),
        figures: Box::new(figures),
        local,
        tokens,
        events: events(),
    };
    Agent::new(identity, settings, parts)
}

/// A figure of each kind.
fn figures() -> FiguresSnapshot {
    let labels = || Labels::from([("peer".to_owned(), "n\"2".to_owned())]);
    let gauge = || Gauge {
        name: "consul.n1.runtime.alloc_bytes".to_owned(),
        labels: Labels::new(),
        value: 1234.5,
    };
    let sampled = |name: &str, labels| Sampled {
        name: name.to_owned(),
        labels,
        count: 4,
        rate: 0.8,
        sum: 8.0,
        min: 1.0,
        max: 3.0,
        mean: 2.0,
        deviation: 0.5,
    };
    let total = |name: &str, labels| Total {
        name: name.to_owned(),
        labels,
        count: 40,
        sum: 80.25,
    };
    FiguresSnapshot {
        timestamp: "2016-11-22 06:33:40 +0000 UTC".to_owned(),
        gauges: vec![gauge()],
        counters: vec![sampled("consul.rpc.query", labels())],
        samples: vec![sampled("consul.http.GET.v1.kv._", Labels::new())],
        totals: Totals {
            gauges: vec![gauge()],
            counters: vec![total("consul.rpc.query", labels())],
            samples: vec![total("consul.http.GET.v1.kv._", Labels::new())],
        },
    }
}

/// This node, and one that has failed.
struct Neighbourhood {
    this: Member,
}

impl Neighbours for Neighbourhood {
    fn members(&self) -> Vec<Member> {
        let other = Member {
            name: "n2".to_owned(),
            address: [10, 0, 0, 2].into(),
            tags: [("role".to_owned(), "node".to_owned())].into(),
            status: MemberStatus::Failed,
            ..self.this.clone()
        };
        vec![self.this.clone(), other]
    }

    fn coordinate(&self) -> Option<Coordinate> {
        Some(coordinate("n1").coord)
    }

    fn join(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<usize, JoinError>> {
        Box::pin(async move {
            let refused = |address: &String| {
                address
                    .starts_with("10.9.")
                    .then(|| format!("Failed to join {address}: connection refused"))
            };
            let refusals: Vec<String> = addresses.iter().filter_map(refused).collect();
            match addresses.len() - refusals.len() {
                0 => Err(JoinError(refusals)),
                reached => Ok(reached),
            }
        })
    }

    fn force_leave(&self, _: String) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Two events that this agent was meant by.
fn events() -> Events {
    let events = Events::default();
    let ids = [
        "f4a4d3e6-7b1c-4d0a-9d5b-2f7e7c8a1b02",
        "b54fe110-7af5-cafc-d1fb-afc8ba432b1c",
    ];
    for (ltime, (id, name)) in (4..).zip(ids.into_iter().zip(["backup", "deploy"])) {
        let event = NewEvent {
            name: name.into(),
            payload: if name == "deploy" { "v2 <b>" } else { "" }.into(),
            filters: EventFilters {
                service: "^web".into(),
                ..EventFilters::default()
            },
        };
        events.keep(UserEvent {
            ltime,
            ..event.fired(id.parse().unwrap())
        });
    }
    events
}
