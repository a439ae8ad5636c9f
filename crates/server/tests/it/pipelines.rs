//! Writes, reads, waits, and who may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{
    AclInfo, AclList, AclToken, CatalogNode, Check, Command, Deregister, Deregistration, Error,
    HealthNode, KvGet, KvList, KvOp, KvVerb, MANAGEMENT, Node, PreparedQuery, QueryService,
    QuerySet, Registration, Reply, Session, SessionInfo, Text, parse_uuid,
};
use rpc::{ReadOptions, SaveOptions, WriteOptions};
use server::WallClock;
use tokio::time::Instant;

use crate::setup::{Alone, config, set};

const LONG: Duration = Duration::from_secs(300);

fn key(key: &str) -> KvGet {
    KvGet {
        key: Text::from(key),
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_can_be_read() {
    let server = Alone::start(config("one")).await;
    server.put("a", "1").await;
    let first = server.ask(key("a")).await;
    assert_eq!(first.answer.unwrap().value(), b"1");
    assert!(first.meta.known_leader && first.meta.last_contact.is_zero());
    server.put("a", "2").await;
    let second = server.ask(key("a")).await;
    assert_eq!(second.answer.unwrap().value(), b"2");
    assert!(second.meta.index > first.meta.index);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_change_and_not_before() {
    let server = Alone::start(config("one")).await;
    server.put("a", "1").await;
    let index = server.ask(key("a")).await.meta.index;
    let waiting = server.wait(key("a"), index, LONG);
    let changing = async {
        server.put("ab", "elsewhere").await;
        server.put("b", "elsewhere").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        server.put("a", "2").await;
    };
    let began = Instant::now();
    let (found, ()) = tokio::join!(waiting, changing);
    assert_eq!(found.answer.unwrap().value(), b"2");
    assert!(found.meta.index > index);
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(20)..Duration::from_secs(21)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_time() {
    let server = Alone::start(config("one")).await;
    server.put("a", "1").await;
    let index = server.ask(key("a")).await.meta.index;
    let began = Instant::now();
    let found = server.wait(key("a"), index, Duration::from_secs(5)).await;
    assert_eq!(found.meta.index, index);
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_server_is_in_its_own_catalog() {
    let server = Alone::start(config("one")).await;
    let me = CatalogNode {
        node: Text::from("one"),
    };
    let row = server.wait(me, 1, LONG).await.answer.unwrap();
    assert_eq!(row.node.address, "127.0.0.1");
    assert_eq!(row.services[0].name, "consul");
    let checks = server
        .ask(HealthNode {
            node: Text::from("ONE"),
        })
        .await;
    assert!(checks.answer[0].is_passing());
}

#[tokio::test(start_paused = true)]
async fn ids_are_drawn_by_the_leader() {
    let server = Alone::start(config("one")).await;
    server
        .wait(
            CatalogNode {
                node: Text::from("one"),
            },
            1,
            LONG,
        )
        .await;
    let session = Session {
        node: Text::from("one"),
        checks: vec![Text::from("serfHealth")],
        ..Session::default()
    };
    let Ok(Reply::Id(id)) = server
        .write(Command::SessionCreate(Box::new(session)))
        .await
    else {
        panic!("no id")
    };
    let id = parse_uuid(&id).unwrap();
    assert!(!id.is_nil());
    let found = server.ask(SessionInfo { id }).await.answer.unwrap();
    assert_eq!(found.session.node, "one");
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_is_refused_before_it_is_written() {
    let server = Alone::start(config("one")).await;
    let session = |ttl: &str, node: &str| {
        Command::SessionCreate(Box::new(Session {
            node: Text::from(node),
            ttl: Text::from(ttl),
            ..Session::default()
        }))
    };
    let register = |name: &str, address: &str| {
        let node = Node {
            name: Text::from(name),
            address: Text::from(address),
            ..Node::default()
        };
        Command::Register(Box::new(Registration {
            node,
            ..Registration::default()
        }))
    };
    let query = |service: QueryService, ttl: &str, token: &str| {
        let query = PreparedQuery {
            service,
            dns_ttl: Text::from(ttl),
            token: Text::from(token),
            ..PreparedQuery::default()
        };
        Command::QuerySet(Box::new(QuerySet {
            query,
            create: true,
        }))
    };
    let named = || QueryService {
        service: Text::from("web"),
        ..QueryService::default()
    };
    let cases = [
        (
            query(QueryService::default(), "", ""),
            "Invalid prepared query: Must provide a Service name to query",
        ),
        (
            query(
                QueryService {
                    nearest_n: -1,
                    ..named()
                },
                "",
                "",
            ),
            "Invalid prepared query: Bad NearestN '-1', must be >= 0",
        ),
        (
            query(named(), "-1s", ""),
            "Invalid prepared query: DNS TTL '-1000000000', must be >=0",
        ),
        (
            query(named(), "", "<hidden>"),
            "Invalid prepared query: Bad Token '<hidden>', it looks like a query definition with a redacted token was submitted",
        ),
        (session("", ""), "Must provide Node"),
        (
            session("5s", "one"),
            "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]",
        ),
        (
            session("25h", "one"),
            "Invalid Session TTL '90000000000000', must be between [10s=24h0m0s]",
        ),
        (register("n", ""), "Must provide node and address"),
        (register("", "a"), "Must provide node and address"),
        (
            Command::Deregister(Deregistration {
                node: Text::default(),
                what: Deregister::Node,
            }),
            "Must provide node",
        ),
        (
            Command::AclSet(Box::new(AclToken {
                kind: Text::from("root"),
                ..AclToken::default()
            })),
            "Invalid ACL Type",
        ),
        (
            Command::AclSet(Box::new(AclToken {
                id: Text::from("manage"),
                ..AclToken::default()
            })),
            "Permission denied: Cannot modify root ACL",
        ),
    ];
    // The server's own registration must not come in between.
    server
        .wait(
            CatalogNode {
                node: Text::from("one"),
            },
            1,
            LONG,
        )
        .await;
    let before = server.server.status().log.last_log_index;
    for (command, text) in cases {
        let error = server.write(command).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(server.server.status().log.last_log_index, before);
}

#[tokio::test(start_paused = true)]
async fn other_datacenters_are_not_here() {
    let server = Alone::start(config("one")).await;
    let there = Text::from("dc2");
    let read = ReadOptions {
        datacenter: there.clone(),
        ..ReadOptions::default()
    };
    assert_eq!(
        server.cluster.read(key("a"), read).await.unwrap_err(),
        Error::NoPath
    );
    let write = WriteOptions {
        datacenter: there.clone(),
        ..WriteOptions::default()
    };
    assert_eq!(
        server.cluster.write(set("a", ""), write).await.unwrap_err(),
        Error::NoPath
    );
    let save = SaveOptions {
        datacenter: there,
        ..SaveOptions::default()
    };
    assert_eq!(server.cluster.save(save).await.unwrap_err(), Error::NoPath);
}

fn needs_management() -> Error {
    Error::PermissionDeniedBecause("this needs a management token".to_owned())
}

#[tokio::test(start_paused = true)]
async fn only_management_may_see_tokens_and_take_snapshots() {
    let mut settings = config("one");
    settings.acl.datacenter = "dc1".to_owned();
    settings.acl.master_token = "root".to_owned();
    let server = Alone::start(settings).await;
    let as_who = |token: &str| ReadOptions {
        token: Text::from(token),
        ..ReadOptions::default()
    };
    // Both tokens are made when the server begins to lead.
    let info = |id: &str| AclInfo { id: Text::from(id) };
    assert_eq!(
        server
            .wait(info("anonymous"), 1, LONG)
            .await
            .answer
            .unwrap()
            .kind,
        "client"
    );
    assert_eq!(
        server
            .wait(info("root"), 1, LONG)
            .await
            .answer
            .unwrap()
            .kind,
        MANAGEMENT
    );

    let list = |token: &str| server.cluster.read(AclList, as_who(token));
    assert_eq!(list("root").await.unwrap().answer.len(), 2);
    assert_eq!(list("").await.unwrap_err(), needs_management());
    assert_eq!(list("nobody").await.unwrap_err(), Error::AclNotFound);
    assert_eq!(
        list("manage").await.unwrap_err().to_string(),
        "Cannot resolve root ACL"
    );

    let prefix = || KvList {
        prefix: Text::default(),
    };
    assert!(server.cluster.read(prefix(), as_who("")).await.is_ok());
    assert_eq!(
        server
            .cluster
            .read(prefix(), as_who("nobody"))
            .await
            .unwrap_err(),
        Error::AclNotFound
    );

    let save = |token: &str| {
        server.cluster.save(SaveOptions {
            token: Text::from(token),
            ..SaveOptions::default()
        })
    };
    assert_eq!(save("").await.unwrap_err(), needs_management());
    assert!(save("root").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_stopped_says_so() {
    let server = Alone::start(config("one")).await;
    server.server.shutdown().await;
    let error = server.write(set("a", "1")).await.unwrap_err();
    assert!(
        matches!(error, Error::NoLeader | Error::Internal(_)),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_catalog_refuses_is_not_told() {
    let server = Alone::start(config("one")).await;
    let node = Node {
        name: Text::from("n"),
        address: Text::from("a"),
        ..Node::default()
    };
    let check = Check {
        name: Text::from("c"),
        service_id: Text::from("nowhere"),
        ..Check::default()
    };
    let registration = Registration {
        node,
        checks: vec![check],
        ..Registration::default()
    };
    let reply = server
        .write(Command::Register(Box::new(registration)))
        .await;
    assert_eq!(reply, Ok(Reply::Nothing));
    assert_eq!(
        server
            .ask(CatalogNode {
                node: Text::from("n")
            })
            .await
            .answer,
        None
    );
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_the_log_cannot_take_is_told() {
    let server = Alone::start(config("one")).await;
    let node = Node {
        name: Text::from("n"),
        address: Text::from("a".repeat(5 << 20)),
        ..Node::default()
    };
    let registration = Registration {
        node,
        ..Registration::default()
    };
    let reply = server
        .write(Command::Register(Box::new(registration)))
        .await;
    let told = matches!(&reply, Err(Error::Invalid(why)) if why.contains("is too large"));
    assert!(told, "{reply:?}");
}

/// A clock that was once a century ahead, until somebody set it right.
#[derive(Default)]
struct OnceWrong(AtomicU64);

impl WallClock for OnceWrong {
    fn now_ms(&self) -> u64 {
        const NOW: u64 = 1_800_000_000_000;
        const CENTURY: u64 = 100 * 365 * 24 * 3600 * 1000;
        if self.0.fetch_add(1, Ordering::Relaxed) < 2 {
            NOW + CENTURY
        } else {
            NOW
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_once_ahead_does_not_stop_time() {
    let server = Alone::start_by(config("one"), Arc::new(OnceWrong::default())).await;
    server
        .wait(
            CatalogNode {
                node: Text::from("one"),
            },
            1,
            LONG,
        )
        .await;
    server.put("some", "entries").await;
    server.put("some", "more").await;
    let create = || async {
        let session = Session {
            node: Text::from("one"),
            lock_delay: 15_000_000_000,
            ..Session::default()
        };
        match server
            .write(Command::SessionCreate(Box::new(session)))
            .await
        {
            Ok(Reply::Id(id)) => id,
            other => panic!("{other:?}"),
        }
    };
    let lock = |id: Text| {
        let op = KvOp {
            verb: KvVerb::Lock(id),
            key: Text::from("lock"),
            value: Text::default(),
            flags: 0,
        };
        server.write(Command::Kv(op))
    };
    // From here on this server leads by a log whose clock is far ahead of the wall's.
    let (first, second) = (create().await, create().await);
    assert_eq!(lock(first.clone()).await, Ok(Reply::Applied(true)));
    server
        .write(Command::SessionDestroy(parse_uuid(&first).unwrap()))
        .await
        .unwrap();
    assert_eq!(
        lock(second.clone()).await,
        Ok(Reply::Applied(false)),
        "the lock-delay holds"
    );
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(lock(second).await, Ok(Reply::Applied(true)), "and ends");
}
