//! Who may what, before version 8 of access control and with it.

use std::time::Duration;

use model::{
    Access, AclInfo, AclList, AclToken, CatalogNode, CatalogNodes, CatalogService, CatalogServices,
    Check, Command, Coordinate, CoordinateNodes, DefaultPolicy, Deregister, Deregistration,
    DownPolicy, Error, Executed, Execution, FoundInstances, Grant, HealthNode, HealthService,
    Instance, KeyringVerb, KvGet, KvKeys, KvList, KvOp, KvVerb, NewEvent, Node, NodeCoordinate,
    NodeLookup, Operated, Operation, Portion, PreparedQuery, QueryExecute, QueryExplain, QueryGet,
    QueryList, QueryService, QuerySet, QuerySource, Registration, Reply, Resolved, Resource,
    Service, Session, SessionInfo, SessionList, Shown, Text, TokenId, TxnRead, Uuid,
};
use rpc::{Consistency, OperateOptions, ReadOptions, RestoreOptions, SaveOptions, WriteOptions};
use server::{Acl, Config, Start};

use crate::setup::{Alone, config, set};
use crate::trio::{SOON, Trio, peer, server_config};

const LONG: Duration = Duration::from_secs(60);

/// Settings of a server that decides about tokens.
fn settings(default_policy: DefaultPolicy, enforce_version_8: bool) -> Config {
    Config {
        acl: Acl {
            datacenter: "dc1".to_owned(),
            default_policy,
            master_token: "root".to_owned(),
            enforce_version_8,
            ..Acl::default()
        },
        ..config("one")
    }
}

/// A server with rules, asked by the bearers of tokens.
struct Ruled(Alone);

impl Ruled {
    /// One that denies by default, with the tokens of these rules.
    async fn start(enforce_version_8: bool, tokens: &[(&str, &str)]) -> Self {
        Self::start_as(settings(DefaultPolicy::Deny, enforce_version_8), tokens).await
    }

    async fn start_as(settings: Config, tokens: &[(&str, &str)]) -> Self {
        let ruled = Self(Alone::start(settings).await);
        let master = AclInfo {
            id: Text::from("root"),
        };
        assert!(ruled.0.wait(master, 1, LONG).await.answer.is_some());
        for (id, rules) in tokens {
            let set = Command::AclSet(Box::new(token(id, rules)));
            assert_eq!(ruled.write("root", set).await, Ok(Reply::Id((*id).into())));
        }
        ruled
    }

    async fn write(&self, token: &str, command: Command) -> Result<Reply, Error> {
        let options = WriteOptions {
            token: Text::from(token),
            ..WriteOptions::default()
        };
        self.0.cluster.write(command, options).await
    }

    async fn read<Q: model::Ask>(&self, token: &str, question: Q) -> Result<Q::Answer, Error> {
        let options = ReadOptions {
            token: Text::from(token),
            ..ReadOptions::default()
        };
        let answered = self.0.cluster.read(question, options).await;
        answered.map(|answered| answered.answer)
    }

    async fn operate(&self, token: &str, operation: Operation) -> Result<Operated, Error> {
        let options = OperateOptions {
            token: Text::from(token),
            ..OperateOptions::default()
        };
        self.0.cluster.operate(operation, options).await
    }

    /// What each of these tokens gets for the same command: `ok`, or the error.
    async fn outcomes(&self, tokens: &[&str], command: &Command) -> Vec<String> {
        let mut outcomes = Vec::new();
        for token in tokens {
            outcomes.push(match self.write(token, command.clone()).await {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        outcomes
    }
}

fn token(id: &str, rules: &str) -> AclToken {
    AclToken {
        id: Text::from(id),
        kind: Text::from("client"),
        rules: Text::from(rules),
        ..AclToken::default()
    }
}

fn text(text: &str) -> Text {
    Text::from(text)
}

fn kv(verb: KvVerb, key: &str) -> KvOp {
    KvOp {
        verb,
        key: text(key),
        value: text("v"),
        flags: 0,
    }
}

fn node(name: &str) -> Registration {
    Registration {
        node: Node {
            name: text(name),
            address: text("10.0.0.1"),
            ..Node::default()
        },
        ..Registration::default()
    }
}

fn with_service(mut registration: Registration, id: &str, name: &str) -> Registration {
    registration.service = Some(Service {
        id: text(id),
        name: text(name),
        ..Service::default()
    });
    registration
}

fn with_check(mut registration: Registration, id: &str, service_id: &str) -> Registration {
    registration.checks.push(Check {
        check_id: text(id),
        status: text("passing"),
        service_id: text(service_id),
        ..Check::default()
    });
    registration
}

fn register(registration: Registration) -> Command {
    Command::Register(Box::new(registration))
}

fn deregister(node: &str, what: Deregister) -> Command {
    Command::Deregister(Deregistration {
        node: text(node),
        what,
    })
}

fn missing(rule: &str) -> String {
    format!("Permission denied: this needs {rule}")
}

fn refused(rule: &str) -> Error {
    Error::PermissionDeniedBecause(format!("this needs {rule}"))
}

#[tokio::test(start_paused = true)]
async fn keys() {
    let rules = r#"
        key "" { policy = "read" }
        key "app/" { policy = "write" }
        key "app/secret/" { policy = "deny" }
    "#;
    let ruled = Ruled::start(false, &[("app", rules)]).await;
    for key in ["a", "app/x", "app/secret/y", "b"] {
        ruled.write("root", set(key, "1")).await.unwrap();
    }
    let keys = || KvList {
        prefix: Text::default(),
    };
    let seen = ruled.read("app", keys()).await.unwrap();
    let seen: Vec<&[u8]> = seen.iter().map(|entry| entry.key()).collect();
    assert_eq!(seen, [&b"a"[..], b"app/x", b"b"]);
    assert!(ruled.read("", keys()).await.unwrap().is_empty());
    assert_eq!(ruled.read("root", keys()).await.unwrap().len(), 4);
    assert_eq!(
        ruled.read("x", keys()).await.unwrap_err(),
        Error::AclNotFound
    );
    // Folded names are judged as they are shown.
    let folded = KvKeys {
        prefix: Text::default(),
        separator: text("/"),
    };
    let seen = ruled.read("app", folded).await.unwrap();
    assert_eq!(seen, [text("a"), text("app/"), text("b")]);

    for (verb, key, outcome) in [
        (KvVerb::Set, "app/x", "ok".to_owned()),
        (KvVerb::Set, "a", missing("write on key \"a\"")),
        (KvVerb::Lock(text("")), "a", missing("write on key \"a\"")),
        (
            KvVerb::Delete,
            "app/secret/y",
            missing("write on key \"app/secret/y\""),
        ),
        (KvVerb::DeleteTree, "app/", missing("write on key \"app/\"")),
        (KvVerb::DeleteTree, "app/x", "ok".to_owned()),
        (KvVerb::DeleteTree, "", missing("write on key \"\"")),
    ] {
        let command = Command::Kv(kv(verb.clone(), key));
        assert_eq!(
            ruled.outcomes(&["app", "root"], &command).await[0],
            outcome,
            "{verb:?} {key}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_be_seen_is_not_there() {
    let ruled = Ruled::start(false, &[("none", "")]).await;
    ruled.write("root", set("seen", "1")).await.unwrap();
    ruled.write("root", set("other", "1")).await.unwrap();
    let get = |token: &str, key: &str, index| {
        let options = ReadOptions {
            token: text(token),
            index,
            wait: Duration::from_secs(10),
            ..ReadOptions::default()
        };
        ruled.0.cluster.read(KvGet { key: text(key) }, options)
    };
    let there = get("root", "seen", 0).await.unwrap();
    let hidden = get("none", "seen", 0).await.unwrap();
    let absent = get("none", "nothing", 0).await.unwrap();
    assert!(there.answer.is_some());
    assert!(hidden.answer.is_none());
    assert!(absent.answer.is_none());
    assert_eq!(hidden.meta.index, absent.meta.index);
    assert_ne!(hidden.meta.index, there.meta.index);
    // Nor does waiting tell when it is written.
    let began = tokio::time::Instant::now();
    let wait = get("none", "seen", hidden.meta.index);
    let (waited, written) = tokio::join!(wait, ruled.write("root", set("seen", "2")));
    written.unwrap();
    assert!(waited.unwrap().answer.is_none());
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn transactions_say_for_each_operation_what_is_missing() {
    let rules = r#"key "a" { policy = "write" } key "r" { policy = "read" }"#;
    let ruled = Ruled::start(false, &[("some", rules)]).await;
    for key in ["a/1", "r/1", "x/1"] {
        ruled.write("root", set(key, "1")).await.unwrap();
    }
    let txn = |ops: &[(KvVerb, &str)]| {
        let ops = ops.iter().map(|(verb, key)| kv(verb.clone(), key));
        ops.collect::<Vec<_>>()
    };
    let outcome = |reply| match reply {
        Ok(Reply::Txn(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    let ops = txn(&[
        (KvVerb::Set, "a/1"),
        (KvVerb::Set, "r/1"),
        (KvVerb::Get, "x/1"),
        (KvVerb::CheckIndex(1), "x/1"),
        (KvVerb::CheckIndex(1), "r/1"),
        (KvVerb::DeleteTree, "a"),
        (KvVerb::DeleteTree, ""),
        (KvVerb::Set, ""),
    ]);
    let denied = outcome(ruled.write("some", Command::Txn(ops)).await);
    assert!(denied.results.is_empty());
    let errors: Vec<(usize, &str)> = denied
        .errors
        .iter()
        .map(|error| (error.op_index, error.what.as_str()))
        .collect();
    assert_eq!(
        errors,
        [
            (1, missing("write on key \"r/1\"").as_str()),
            (3, &missing("read on key \"x/1\"")),
            (6, &missing("write on key \"\"")),
            (7, "Must provide key"),
        ]
    );
    // What may not be seen is left out of what comes back.
    let ops = txn(&[
        (KvVerb::Set, "a/1"),
        (KvVerb::Get, "a/1"),
        (KvVerb::Get, "r/1"),
        (KvVerb::Get, "x/1"),
    ]);
    let done = outcome(ruled.write("some", Command::Txn(ops.clone())).await);
    assert!(done.errors.is_empty());
    let keys = |outcome: &model::TxnOutcome| {
        let results = outcome.results.iter();
        let keys = results.map(|result| String::from_utf8_lossy(result.entry.key()).into_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(&done), ["a/1", "a/1", "r/1"]);
    let read = TxnRead {
        ops: ops[1..].to_vec(),
    };
    let seen = ruled.read("some", read).await.unwrap();
    assert_eq!(keys(&seen), ["a/1", "r/1"]);
    let read = TxnRead {
        ops: txn(&[(KvVerb::CheckSession(text("")), "x/1")]),
    };
    let seen = ruled.read("some", read).await.unwrap();
    assert_eq!(seen.errors[0].what, missing("read on key \"x/1\""));
}

#[tokio::test(start_paused = true)]
async fn the_catalog_before_version_8() {
    let rules = r#"service "web" { policy = "write" } service "db" { policy = "read" }"#;
    let ruled = Ruled::start(false, &[("web", rules)]).await;
    for (registration, web) in [
        (node("n"), "ok".to_owned()),
        (with_check(node("n"), "disk", ""), "ok".to_owned()),
        (with_service(node("n"), "web-1", "web"), "ok".to_owned()),
        (
            with_service(node("n"), "web-1", "db"),
            missing("write on service \"db\""),
        ),
        (with_service(node("n"), "c", "consul"), "ok".to_owned()),
        (
            with_service(node("n"), "", "other"),
            missing("write on service \"other\""),
        ),
    ] {
        let outcomes = ruled
            .outcomes(&["web", "root"], &register(registration.clone()))
            .await;
        assert_eq!(outcomes, [web, "ok".to_owned()], "{registration:?}");
    }
    // Where no service is concerned not even the token is looked at.
    let of_node = register(with_check(node("n"), "disk", ""));
    assert_eq!(ruled.write("nobody", of_node).await, Ok(Reply::Nothing));
    let registered = register(with_check(
        with_service(node("n"), "web-1", "web"),
        "up",
        "web-1",
    ));
    ruled.write("web", registered).await.unwrap();
    let services = ruled.read("web", CatalogServices).await.unwrap();
    let names: Vec<&Text> = services.iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&text("consul"), &text("web")]);
    let services = ruled.read("", CatalogServices).await.unwrap();
    assert_eq!(services.len(), 1, "{services:?}");
    // Everybody sees nodes, sessions and what belongs to nodes.
    let nodes = ruled.read("root", CatalogNodes).await.unwrap();
    for token in ["", "nobody"] {
        assert_eq!(ruled.read(token, CatalogNodes).await.unwrap(), nodes);
    }
    let health = HealthNode { node: text("n") };
    let checks = ruled.read("", health).await.unwrap();
    assert_eq!(checks.len(), 1, "{checks:?}");
    // What a node runs is judged by the services' names and not by their ids.
    let services = ruled.read("web", CatalogNode { node: text("n") }).await;
    let services = services.unwrap().unwrap().services;
    let ids: Vec<&Text> = services.iter().map(|service| &service.id).collect();
    assert_eq!(ids, [&text("c"), &text("web-1")]);
    // Nobody needs a token to take away.
    for what in [
        Deregister::Service(text("nothing")),
        Deregister::Service(text("web-1")),
        Deregister::Check(text("disk")),
        Deregister::Node,
    ] {
        let taken = ruled.write("nobody", deregister("n", what)).await;
        assert_eq!(taken, Ok(Reply::Nothing));
    }
}

#[tokio::test(start_paused = true)]
async fn the_catalog_with_version_8() {
    let tokens = [
        (
            "node",
            r#"node "n" { policy = "write" } service "" { policy = "read" }"#,
        ),
        (
            "web",
            r#"service "web" { policy = "write" } node "n" { policy = "read" }"#,
        ),
        ("none", ""),
    ];
    let ruled = Ruled::start(true, &tokens).await;
    let ok = || "ok".to_owned();
    let asked = ["none", "web", "node", "root"];
    let mut moved = node("n");
    moved.node.address = text("10.0.0.2");
    let mut foreign = with_check(node("n"), "c", "");
    foreign.checks[0].node = text("m");
    let mismatch = "Node 'm' for check 'c' doesn't match register request node 'n'";
    let no_node = || missing("write on node \"n\"");
    for (registration, expected) in [
        (node("n"), [no_node(), no_node(), ok(), ok()]),
        // The same again is no change of the node.
        (node("n"), [ok(), ok(), ok(), ok()]),
        (moved, [no_node(), no_node(), ok(), ok()]),
        (node("n"), [no_node(), no_node(), ok(), ok()]),
        (
            node("N"),
            [no_node(), no_node(), missing("write on node \"N\""), ok()],
        ),
        (
            node("n"),
            [
                missing("write on node \"N\""),
                missing("write on node \"N\""),
                missing("write on node \"N\""),
                ok(),
            ],
        ),
        (
            with_service(node("n"), "1", "web"),
            [
                missing("write on service \"web\""),
                ok(),
                missing("write on service \"web\""),
                ok(),
            ],
        ),
        (
            with_service(node("n"), "c", "consul"),
            [
                missing("write on service \"consul\""),
                missing("write on service \"consul\""),
                missing("write on service \"consul\""),
                ok(),
            ],
        ),
        // Whoever replaces a service must have a right to that one, too.
        (
            with_service(node("n"), "c", "web"),
            [
                missing("write on service \"web\""),
                missing("write on service \"consul\""),
                missing("write on service \"web\""),
                ok(),
            ],
        ),
        (
            with_check(node("n"), "disk", ""),
            [no_node(), no_node(), ok(), ok()],
        ),
        (
            with_check(with_service(node("n"), "1", "web"), "up", "1"),
            [
                missing("write on service \"web\""),
                ok(),
                missing("write on service \"web\""),
                ok(),
            ],
        ),
        (
            with_check(node("n"), "up", "1"),
            [
                missing("write on service \"web\""),
                ok(),
                missing("write on service \"web\""),
                ok(),
            ],
        ),
        (
            with_check(node("n"), "up", "9"),
            [
                "Unknown service '9' for check 'up'".to_owned(),
                "Unknown service '9' for check 'up'".to_owned(),
                "Unknown service '9' for check 'up'".to_owned(),
                ok(),
            ],
        ),
        (
            foreign,
            [
                mismatch.to_owned(),
                mismatch.to_owned(),
                mismatch.to_owned(),
                ok(),
            ],
        ),
    ] {
        let outcomes = ruled
            .outcomes(&asked, &register(registration.clone()))
            .await;
        assert_eq!(outcomes, expected, "{registration:?}");
    }

    let nodes = |token: &'static str| ruled.read(token, CatalogNodes);
    assert_eq!(nodes("none").await.unwrap().len(), 0);
    assert_eq!(nodes("web").await.unwrap().len(), 1);
    assert_eq!(nodes("unknown").await.unwrap_err(), Error::AclNotFound);
    let of_node = |token: &'static str| ruled.read(token, CatalogNode { node: text("n") });
    assert_eq!(of_node("none").await.unwrap(), None);
    assert_eq!(of_node("web").await.unwrap().unwrap().services.len(), 2);
    let lookup = ruled.read("none", NodeLookup { node: text("n") }).await;
    assert_eq!(lookup.unwrap(), None);
    let instances = |token: &'static str| {
        let service = CatalogService {
            service: text("web"),
            tag: None,
        };
        ruled.read(token, service)
    };
    let count = |instances: Vec<std::sync::Arc<Instance>>| instances.len();
    assert_eq!(count(instances("none").await.unwrap()), 0);
    assert_eq!(count(instances("web").await.unwrap()), 2);
    let health = HealthService {
        service: text("web"),
        tag: None,
        passing_only: false,
    };
    assert_eq!(ruled.read("node", health).await.unwrap().len(), 2);
    let checks = |token: &'static str| ruled.read(token, HealthNode { node: text("n") });
    assert_eq!(checks("none").await.unwrap().len(), 0);
    assert_eq!(checks("node").await.unwrap().len(), 2);

    let unknown = |what: &str| [what.to_owned(), what.to_owned(), what.to_owned(), ok()];
    for (what, expected) in [
        (
            Deregister::Service(text("9")),
            unknown("Unknown service '9'"),
        ),
        (Deregister::Check(text("9")), unknown("Unknown check '9'")),
        (
            Deregister::Service(text("1")),
            [
                missing("write on service \"web\""),
                ok(),
                "Unknown service '1'".to_owned(),
                ok(),
            ],
        ),
        (
            Deregister::Check(text("disk")),
            [no_node(), no_node(), ok(), ok()],
        ),
        (Deregister::Node, [no_node(), no_node(), ok(), ok()]),
    ] {
        let outcomes = ruled.outcomes(&asked, &deregister("n", what.clone())).await;
        assert_eq!(outcomes, expected, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_and_coordinates() {
    for version_8 in [false, true] {
        let tokens = [
            (
                "own",
                r#"session "n" { policy = "write" } node "n" { policy = "write" }"#,
            ),
            (
                "see",
                r#"session "" { policy = "read" } node "" { policy = "read" }"#,
            ),
        ];
        let ruled = Ruled::start(version_8, &tokens).await;
        ruled.write("root", register(node("n"))).await.unwrap();
        let session = Command::SessionCreate(Box::new(Session {
            node: text("n"),
            ..Session::default()
        }));
        let mut ids = Vec::new();
        for (who, may) in [("", !version_8), ("see", !version_8), ("own", true)] {
            match ruled.write(who, session.clone()).await {
                Ok(Reply::Id(id)) if may => {
                    ids.push(model::parse_uuid(&id).unwrap());
                }
                Err(error) if !may => {
                    assert_eq!(error, refused("write on session \"n\""));
                }
                other => panic!("{who} {version_8}: {other:?}"),
            }
        }
        let id = *ids.last().unwrap();
        let seen = |token: &'static str| ruled.read(token, SessionList);
        let all = ids.len();
        assert_eq!(seen("see").await.unwrap().len(), all);
        assert_eq!(
            seen("").await.unwrap().len(),
            if version_8 { 0 } else { all }
        );
        let info = ruled.read("", SessionInfo { id }).await.unwrap();
        assert_eq!(info.is_some(), !version_8);
        let renewed = ruled.operate("see", Operation::SessionRenew(id)).await;
        assert_eq!(renewed.is_ok(), !version_8, "{renewed:?}");
        let unknown = Command::SessionDestroy(Uuid::from_u128(7));
        assert_eq!(ruled.write("see", unknown).await, Ok(Reply::Nothing));
        let destroyed = ruled.write("see", Command::SessionDestroy(id)).await;
        if version_8 {
            assert_eq!(destroyed, Err(refused("write on session \"n\"")));
        } else {
            assert_eq!(destroyed, Ok(Reply::Nothing));
        }
        let destroyed = ruled.write("own", Command::SessionDestroy(id)).await;
        assert_eq!(destroyed, Ok(Reply::Nothing));

        let coordinate = Operation::UpdateCoordinate(Box::new(NodeCoordinate {
            node: text("n"),
            coord: Coordinate {
                vec: vec![0.0; 8],
                error: 1.5,
                ..Coordinate::default()
            },
        }));
        let told = ruled.operate("see", coordinate.clone()).await;
        if version_8 {
            assert_eq!(told, Err(refused("write on node \"n\"")));
        }
        assert_eq!(
            ruled.operate("own", coordinate).await,
            Ok(Operated::Nothing)
        );
        tokio::time::sleep(LONG).await;
        let seen = |token: &'static str| ruled.read(token, CoordinateNodes);
        assert_eq!(seen("see").await.unwrap().len(), 1);
        assert_eq!(seen("").await.unwrap().len(), usize::from(!version_8));
    }
}

fn query(name: &str) -> PreparedQuery {
    PreparedQuery {
        name: text(name),
        token: text("a-secret"),
        service: QueryService {
            service: text("web"),
            ..QueryService::default()
        },
        ..PreparedQuery::default()
    }
}

fn new_query(query: PreparedQuery) -> Command {
    Command::QuerySet(Box::new(QuerySet {
        query,
        create: true,
    }))
}

#[tokio::test(start_paused = true)]
async fn prepared_queries() {
    let tokens = [
        ("mine", r#"query "mine" { policy = "write" }"#),
        ("see", r#"query "" { policy = "read" }"#),
    ];
    let ruled = Ruled::start(false, &tokens).await;
    let id = |reply: Result<Reply, Error>| match reply {
        Ok(Reply::Id(id)) => model::parse_uuid(&id).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        ruled.write("see", new_query(query("mine"))).await,
        Err(refused("write on query \"mine\""))
    );
    let mut catch_all = query("");
    catch_all.template.kind = text("name_prefix_match");
    assert_eq!(
        ruled.write("mine", new_query(catch_all)).await,
        Err(refused("write on query \"\""))
    );
    let mine = id(ruled.write("mine", new_query(query("mine"))).await);
    let other = id(ruled.write("root", new_query(query("other"))).await);
    let unnamed = id(ruled.write("", new_query(query(""))).await);

    let update = |id: Uuid, name: &str| {
        Command::QuerySet(Box::new(QuerySet {
            query: PreparedQuery { id, ..query(name) },
            create: false,
        }))
    };
    // Both names count, the old one and the new one.
    assert_eq!(
        ruled.write("mine", update(mine, "other-2")).await,
        Err(refused("write on query \"other-2\""))
    );
    assert_eq!(
        ruled.write("mine", update(other, "mine-2")).await,
        Err(refused("write on query \"other\""))
    );
    assert!(ruled.write("mine", update(mine, "mine-2")).await.is_ok());
    assert_eq!(
        ruled.write("mine", Command::QueryDelete(other)).await,
        Err(refused("write on query \"other\""))
    );
    let nothing = Uuid::from_u128(7);
    let error = ruled.write("mine", Command::QueryDelete(nothing)).await;
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("Cannot modify non-existent"), "{text}");

    let get = |token: &'static str, id| ruled.read(token, QueryGet { id });
    let seen = get("mine", mine).await.unwrap().unwrap();
    assert_eq!(seen.token, *"<hidden>");
    assert_eq!(get("root", mine).await.unwrap().unwrap().token, *"a-secret");
    assert_eq!(
        get("mine", other).await.unwrap().unwrap_err(),
        refused("read on query \"other\"")
    );
    assert!(get("", unnamed).await.unwrap().is_ok());
    let listed = |token: &'static str| ruled.read(token, QueryList);
    assert_eq!(listed("root").await.unwrap().len(), 3);
    assert_eq!(listed("see").await.unwrap().len(), 2);
    assert_eq!(listed("mine").await.unwrap().len(), 1);
    assert_eq!(listed("").await.unwrap().len(), 0);
    assert!(
        (ruled.write("", Command::QueryDelete(unnamed)).await).is_ok(),
        "whoever knows the id may"
    );
}

#[tokio::test(start_paused = true)]
async fn a_query_finds_what_its_own_token_may_see() {
    let tokens = [
        (
            "web",
            r#"service "web" { policy = "read" } query "" { policy = "write" }"#,
        ),
        ("none", r#"query "" { policy = "write" }"#),
    ];
    let ruled = Ruled::start(false, &tokens).await;
    for (at, name) in [("n1", "web"), ("n2", "WEB"), ("n3", "db")] {
        let registration = with_service(node(at), "s", name);
        assert!(ruled.write("root", register(registration)).await.is_ok());
    }
    let named = |name: &str, token: &str| {
        new_query(PreparedQuery {
            token: text(token),
            ..query(name)
        })
    };
    for (name, token) in [
        ("open", ""),
        ("ours", "web"),
        ("shut", "none"),
        ("lost", "gone"),
    ] {
        assert!(ruled.write("none", named(name, token)).await.is_ok());
    }
    // Before how many are wanted is counted, what may not be seen is left out: of one it is always the one that may.
    for seed in 0..5 {
        for (portion, limit) in [
            (Portion::Whole, 1),
            (Portion::Whole, 0),
            (
                Portion::Places {
                    shown: Shown::Ports,
                    translates_wan: false,
                },
                1,
            ),
        ] {
            let execution = Execution {
                datacenter: text("dc1"),
                source: QuerySource {
                    datacenter: text("dc1"),
                    ..QuerySource::default()
                },
                limit,
                portion,
                seed,
            };
            let found = async |token: &str, name: &str| {
                let (query, execution) = (text(name), execution.clone());
                let executed = ruled.read(token, QueryExecute { query, execution }).await?;
                let Executed {
                    found,
                    datacenter,
                    failovers,
                    ..
                } = executed.unwrap();
                assert_eq!((&*datacenter, failovers), (&b"dc1"[..], 0));
                let is_empty = found.is_empty();
                let names: Vec<String> = match found {
                    FoundInstances::Whole(all) => {
                        all.iter().map(|it| it.service.name.to_string()).collect()
                    }
                    FoundInstances::Places(places) => places
                        .picked
                        .iter()
                        .map(|it| it.service.name.to_string())
                        .collect(),
                };
                assert_eq!(is_empty, names.is_empty());
                Ok::<_, Error>(names)
            };
            assert_eq!(found("web", "open").await.unwrap(), ["web"]);
            assert!(found("none", "open").await.unwrap().is_empty());
            assert!(found("", "open").await.unwrap().is_empty());
            // Whoever asks, even with a token that there isn't.
            for token in ["web", "none", "", "gone"] {
                assert_eq!(found(token, "ours").await.unwrap(), ["web"]);
                assert!(found(token, "shut").await.unwrap().is_empty());
                assert_eq!(found(token, "lost").await, Err(Error::AclNotFound));
            }
            assert_eq!(found("gone", "open").await, Err(Error::AclNotFound));
        }
    }
    let explain = |token: &'static str| {
        let query = text("ours");
        ruled.read(token, QueryExplain { query })
    };
    let denied = explain("").await.unwrap().unwrap_err();
    assert_eq!(denied, refused("read on query \"ours\""));
    assert_eq!(explain("none").await.unwrap().unwrap().0.token, *"<hidden>");
    assert_eq!(explain("root").await.unwrap().unwrap().0.token, *"web");
}

#[tokio::test(start_paused = true)]
async fn with_version_8_a_query_without_a_name_belongs_to_a_session() {
    let ruled = Ruled::start(true, &[]).await;
    let error = ruled.write("root", new_query(query(""))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Invalid prepared query: Must be bound to a session"
    );
    assert!(ruled.write("root", new_query(query("q"))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_operators_ask() {
    let tokens = [
        (
            "see",
            r#"operator = "read" keyring = "read" event "" { policy = "read" }"#,
        ),
        ("do", r#"operator = "write" keyring = "write""#),
        ("event", r#"event "deploy" { policy = "write" }"#),
        ("none", ""),
    ];
    // Where everything is allowed by default, a rule to read still doesn't allow to write.
    for default_policy in [DefaultPolicy::Allow, DefaultPolicy::Deny] {
        let ruled = Ruled::start_as(settings(default_policy, false), &tokens).await;
        let by_default = default_policy == DefaultPolicy::Allow;
        let list = || Operation::Keyring(KeyringVerb::List);
        let change = || Operation::Keyring(KeyringVerb::Use("key".to_owned()));
        let remove = || Operation::RaftRemovePeer("10.0.0.9:1".to_owned());
        let fire = |name: &str| {
            Operation::FireEvent(Box::new(NewEvent {
                name: name.into(),
                ..NewEvent::default()
            }))
        };
        let operator = |access| refused(&format!("{access} on the operator"));
        let reading =
            Error::invalid("Reading keyring denied by ACLs: this needs read on the keyring");
        let modifying =
            Error::invalid("Modifying keyring denied due to ACLs: this needs write on the keyring");
        for (token, operation, denied) in [
            ("see", Operation::RaftConfiguration, None),
            ("see", remove(), Some(operator("write"))),
            ("see", list(), None),
            ("see", change(), Some(modifying.clone())),
            (
                "see",
                fire("deploy"),
                Some(refused("write on event \"deploy\"")),
            ),
            ("do", remove(), None),
            ("do", change(), None),
            ("event", fire("deploy-2"), None),
            (
                "none",
                Operation::RaftConfiguration,
                Some(operator("read")).filter(|_| !by_default),
            ),
            ("none", list(), Some(reading).filter(|_| !by_default)),
            (
                "none",
                remove(),
                Some(operator("write")).filter(|_| !by_default),
            ),
            ("none", Operation::Peers, None),
            ("unknown", Operation::Peers, None),
            (
                "unknown",
                Operation::RaftConfiguration,
                Some(Error::AclNotFound),
            ),
        ] {
            let what = format!("{token} {operation:?} {default_policy:?}");
            let outcome = ruled.operate(token, operation).await;
            match denied {
                Some(error) => assert_eq!(outcome, Err(error), "{what}"),
                // Whether it succeeds then depends on other things.
                None => {
                    let text = outcome.map_or_else(|error| error.to_string(), |_| String::new());
                    assert!(
                        !text.contains("denied") && !text.contains("ACL"),
                        "{what}: {text}"
                    );
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_management_is_above_rules() {
    let all = r#"
        key "" { policy = "write" } service "" { policy = "write" } event "" { policy = "write" }
        query "" { policy = "write" } node "" { policy = "write" } session "" { policy = "write" }
        agent "" { policy = "write" } keyring = "write" operator = "write"
    "#;
    for default_policy in [DefaultPolicy::Allow, DefaultPolicy::Deny] {
        let ruled = Ruled::start_as(settings(default_policy, true), &[("all", all)]).await;
        let management = || Error::PermissionDeniedBecause("this needs a management token".into());
        for who in ["", "all"] {
            assert_eq!(ruled.read(who, AclList).await.unwrap_err(), management());
            let set = Command::AclSet(Box::new(token("new", "")));
            assert_eq!(ruled.write(who, set).await, Err(management()));
            let delete = Command::AclDelete(TokenId(text("all")));
            assert_eq!(ruled.write(who, delete).await, Err(management()));
            let save = SaveOptions {
                token: text(who),
                ..SaveOptions::default()
            };
            assert_eq!(ruled.0.cluster.save(save).await.unwrap_err(), management());
            let restore = RestoreOptions {
                token: text(who),
                ..RestoreOptions::default()
            };
            let archive = crate::setup::stream(Vec::new());
            let error = ruled.0.cluster.restore(restore, archive).await.unwrap_err();
            assert_eq!(error, management());
            // Whoever knows an id may see its token.
            let info = ruled.read(who, AclInfo { id: text("all") }).await.unwrap();
            assert_eq!(info.unwrap().rules, *all);
        }
        let mut manager = token("manager", r#"key "" { policy = "deny" }"#);
        manager.kind = text("management");
        let made = ruled
            .write("root", Command::AclSet(Box::new(manager)))
            .await;
        assert!(made.is_ok());
        // Its rules are of no account.
        assert!(ruled.write("manager", set("a", "1")).await.is_ok());
        assert!(ruled.read("manager", AclList).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn rules_that_cannot_be_compiled_are_refused() {
    let ruled = Ruled::start(false, &[]).await;
    for (rules, why) in [
        (
            r#"key "x" { policy = "nope" }"#,
            r#"Invalid key policy: acl.KeyPolicy{Prefix:"x", Policy:"nope"}"#,
        ),
        (
            "key",
            "Failed to parse ACL rules: At 1:4: expected a name or a block, found the end",
        ),
    ] {
        for kind in ["client", "management"] {
            let mut token = token("t", rules);
            token.kind = text(kind);
            let error = ruled
                .write("root", Command::AclSet(Box::new(token)))
                .await
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("ACL rule compilation failed: {why}")
            );
        }
    }
    let mut other = token("t", "");
    other.kind = text("other");
    let error = ruled.write("root", Command::AclSet(Box::new(other))).await;
    assert_eq!(error.unwrap_err().to_string(), "Invalid ACL Type");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_changes_counts_at_once() {
    let ruled = Ruled::start(false, &[("t", r#"key "" { policy = "write" }"#)]).await;
    assert!(ruled.write("t", set("a", "1")).await.is_ok());
    let lesser = token("t", r#"key "" { policy = "read" }"#);
    ruled
        .write("root", Command::AclSet(Box::new(lesser)))
        .await
        .unwrap();
    assert_eq!(
        ruled.write("t", set("a", "1")).await,
        Err(refused("write on key \"a\""))
    );
    ruled
        .write("root", Command::AclDelete(TokenId(text("t"))))
        .await
        .unwrap();
    assert_eq!(
        ruled.write("t", set("a", "1")).await,
        Err(Error::AclNotFound)
    );
    // So does the one of nobody.
    assert!(ruled.write("", set("a", "1")).await.is_err());
    let nobody = token("anonymous", r#"key "a" { policy = "write" }"#);
    ruled
        .write("root", Command::AclSet(Box::new(nobody)))
        .await
        .unwrap();
    assert!(ruled.write("", set("a", "1")).await.is_ok());
}

fn granted(operated: Result<Operated, Error>) -> Resolved {
    match operated {
        Ok(Operated::Policy(resolved)) => *resolved,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_missing_is_missing_whatever_the_token_is() {
    let ruled = Ruled::start(false, &[]).await;
    let query = PreparedQuery {
        name: text("there"),
        service: QueryService {
            service: text("web"),
            ..QueryService::default()
        },
        ..PreparedQuery::default()
    };
    let create = QuerySet {
        query,
        create: true,
    };
    let created = ruled
        .write("root", Command::QuerySet(Box::new(create)))
        .await;
    let Ok(Reply::Id(there)) = created else {
        panic!("{created:?}");
    };
    for token in ["deny", "gone"] {
        let ask = async |name: &str, id: Uuid| {
            let query = text(name);
            let execution = Execution {
                datacenter: text("dc1"),
                source: QuerySource::default(),
                limit: 0,
                portion: Portion::Whole,
                seed: 0,
            };
            let explain = QueryExplain {
                query: query.clone(),
            };
            let execute = QueryExecute { query, execution };
            [
                ruled.read(token, QueryGet { id }).await.map(|it| it.err()),
                ruled.read(token, explain).await.map(|it| it.err()),
                ruled.read(token, execute).await.map(|it| it.err()),
            ]
        };
        let missing = Error::NotFound("Query not found".to_owned());
        for told in ask("missing", Uuid::from_u128(7)).await {
            assert_eq!(told, Ok(Some(missing.clone())), "{token}");
        }
        for told in ask("there", model::parse_uuid(&there).unwrap()).await {
            assert!(told.is_err(), "{token}: {told:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_agents_are_told_of_tokens() {
    let ruled = Ruled::start(false, &[("t", r#"key "a" { policy = "read" }"#)]).await;
    let resolve = |token: &'static str| ruled.operate(token, Operation::ResolveToken);
    let Grant::Rules(policy) = granted(resolve("t").await).grant else {
        panic!("a client token has rules");
    };
    assert_eq!(policy.access(Resource::Key, b"ab"), Access::Read);
    assert_eq!(policy.access(Resource::Service, b"ab"), Access::Deny);
    assert_eq!(granted(resolve("root").await).grant, Grant::Everything);
    assert_eq!(granted(resolve("x").await).grant, Grant::Unknown);
    assert!(matches!(granted(resolve("").await).grant, Grant::Rules(_)));
    assert_eq!(granted(resolve("t").await).ttl, Duration::from_secs(30));
    let error = resolve("manage").await.unwrap_err();
    assert_eq!(error.to_string(), "Cannot resolve root ACL");
    let open = Alone::start(config("one")).await;
    let told = open
        .cluster
        .operate(Operation::ResolveToken, OperateOptions::default());
    assert_eq!(granted(told.await).grant, Grant::Disabled);
}

#[tokio::test(start_paused = true)]
async fn elsewhere_the_down_policy_decides_while_nobody_can_be_asked() {
    for (down_policy, may) in [
        (DownPolicy::Allow, true),
        (DownPolicy::Deny, false),
        (DownPolicy::ExtendCache, false),
    ] {
        let mut settings = settings(DefaultPolicy::Allow, false);
        settings.acl.datacenter = "far".to_owned();
        settings.acl.down_policy = down_policy;
        let alone = Ruled(Alone::start(settings).await);
        for token in ["", "root", "x"] {
            let written = alone.write(token, set("a", "1")).await;
            assert_eq!(
                written.is_ok(),
                may,
                "{down_policy:?} {token:?}: {written:?}"
            );
            let listed = alone.read(token, AclList).await;
            assert!(listed.is_err(), "nobody is above the rules then");
        }
        // No tokens are made where they aren't decided about.
        let master = alone.read("", AclInfo { id: text("root") }).await.unwrap();
        assert_eq!(master, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_asks_about_tokens_that_it_does_not_know_yet() {
    let mut trio = Trio::nobody(1);
    for id in 1..=3 {
        let config = Config {
            acl: settings(DefaultPolicy::Deny, false).acl,
            ..server_config(id)
        };
        trio.run_by(config, id, Start::Join).await;
    }
    let voters = (1..=3).map(peer).collect();
    let first = &trio.servers[&1];
    first.consensus().bootstrap(voters).await.unwrap();
    let leader = trio.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let as_root = || WriteOptions {
        token: text("root"),
        ..WriteOptions::default()
    };
    let at = |id| trio.servers[&id].cluster();
    tokio::time::timeout(SOON, async {
        while at(leader).write(set("a", "1"), as_root()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    // Its log is held up, but not what the servers ask each other.
    trio.network.cut(leader, follower);
    let new = Command::AclSet(Box::new(token("new", r#"key "" { policy = "read" }"#)));
    at(leader).write(new, as_root()).await.unwrap();
    let stale = |token: &str| ReadOptions {
        token: text(token),
        consistency: Consistency::Stale,
        ..ReadOptions::default()
    };
    let get = || KvGet { key: text("a") };
    let answered = at(follower).read(get(), stale("new")).await.unwrap();
    assert!(answered.answer.is_some());
    let error = at(follower).read(get(), stale("none")).await.unwrap_err();
    assert_eq!(error, Error::AclNotFound);
    // Nor does it go in circles where nobody leads.
    trio.wires.set_quality(1.0, Duration::from_millis(1));
    let began = tokio::time::Instant::now();
    let error = at(follower).read(get(), stale("new")).await.unwrap_err();
    assert_eq!(error, Error::AclNotFound);
    assert!(began.elapsed() < Duration::from_secs(5));
}
