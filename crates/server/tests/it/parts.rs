//! Parts of snapshots restored on a server: what stays, what follows, who leads it through, and what its leader has to see to.

use std::time::Duration;

use model::{
    AclInfo, AclToken, Behavior, CatalogNodes, Command, Error, KvGet, KvList, Node, PartWish,
    Registration, Reply, RestorePart, Session, SessionList, Text, Uuid,
};
use rpc::{Consistency, ReadOptions, RestoreOptions, WriteOptions};
use tokio::time::{Instant, sleep};

use crate::setup::{Alone, config, fixture, generation, set, stream};
use crate::trio::Trio;

const LONG: Duration = Duration::from_secs(300);

fn only(sections: &str) -> RestoreOptions {
    of(PartWish {
        only: Some(sections.as_bytes()),
        ..PartWish::default()
    })
}

fn of(wish: PartWish<'_>) -> RestoreOptions {
    RestoreOptions {
        part: Some(RestorePart::parse(wish).unwrap()),
        ..RestoreOptions::default()
    }
}

fn key(key: &str) -> KvGet {
    KvGet {
        key: Text::from(key),
    }
}

fn all() -> KvList {
    KvList {
        prefix: Text::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn keys_alone_leave_the_rest_as_it_is() {
    let server = Alone::start(config("one")).await;
    server.put("was-here", "x").await;
    let nodes = server.ask(CatalogNodes).await.answer.len();
    let archive = || stream(fixture("full-0.7.1.snap"));
    let merge = of(PartWish {
        only: Some(b"kv"),
        mode: Some(b"merge"),
        ..PartWish::default()
    });
    server.cluster.restore(merge, archive()).await.unwrap();
    assert!(server.ask(key("was-here")).await.answer.is_some());
    let held = server.ask(key("locks/held")).await;
    let index = held.meta.index;
    let held = held.answer.unwrap();
    assert_eq!((held.value(), held.session()), (&b"owner s1"[..], None));
    assert_eq!(held.modify_index(), index, "it takes the commit's index");
    server.cluster.restore(only("kv"), archive()).await.unwrap();
    assert!(server.ask(key("was-here")).await.answer.is_none());
    assert_eq!(server.ask(CatalogNodes).await.answer.len(), nodes);
    // Sessions of nodes that aren't there are of no use.
    let refused = server.cluster.restore(only("sessions"), archive()).await;
    let why = refused.unwrap_err();
    assert!(matches!(why, Error::Invalid(_)), "{why}");
    assert!(
        why.to_string().contains("Missing node registration"),
        "{why}"
    );
    assert!(server.ask(SessionList).await.answer.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_written_is_told_and_nobody_else() {
    let server = Alone::start(config("one")).await;
    server.put("gen/000000", "old").await;
    server.put("other", "x").await;
    let index = server.ask(all()).await.meta.index;
    let (told, other) = (server.cluster.clone(), server.cluster.clone());
    let ask = move |question: KvGet, wait: Duration| {
        let options = ReadOptions {
            index,
            wait,
            ..ReadOptions::default()
        };
        (question, options)
    };
    let waiting = tokio::spawn(async move {
        let (question, options) = ask(key("gen/000000"), LONG);
        told.read(question, options).await.unwrap()
    });
    let asleep = tokio::spawn(async move {
        let (question, options) = ask(key("other"), Duration::from_secs(30));
        other.read(question, options).await.unwrap()
    });
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let part = of(PartWish {
        kv_prefixes: &[b"gen/"],
        ..PartWish::default()
    });
    let archive = stream(generation(7, 10, 3));
    server.cluster.restore(part, archive).await.unwrap();
    let found = waiting.await.unwrap();
    assert_eq!(found.answer.unwrap().value(), b"777");
    assert!(found.meta.index > index);
    assert!(began.elapsed() < Duration::from_secs(5));
    let slept = asleep.await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(25));
    assert_eq!(slept.answer.unwrap().value(), b"x");
}

#[tokio::test(start_paused = true)]
async fn the_leader_s_own_tokens_come_back() {
    let mut settings = config("one");
    settings.acl.datacenter = "dc1".to_owned();
    settings.acl.master_token = "root".to_owned();
    let server = Alone::start(settings).await;
    let as_root = || ReadOptions {
        token: Text::from("root"),
        ..ReadOptions::default()
    };
    let info = |id: &str| AclInfo { id: Text::from(id) };
    server.wait(info("root"), 1, LONG).await;
    let extra = AclToken {
        id: Text::from("extra"),
        kind: Text::from("client"),
        ..AclToken::default()
    };
    let options = WriteOptions {
        token: Text::from("root"),
        ..WriteOptions::default()
    };
    let write = server
        .cluster
        .write(Command::AclSet(Box::new(extra)), options);
    write.await.unwrap();
    let refused = server
        .cluster
        .restore(only("acl"), stream(fixture("full-0.7.1.snap")))
        .await;
    let why = refused.unwrap_err();
    assert!(matches!(why, Error::PermissionDeniedBecause(_)), "{why}");
    let options = RestoreOptions {
        token: Text::from("root"),
        ..only("acl")
    };
    let archive = stream(fixture("full-0.7.1.snap"));
    server.cluster.restore(options, archive).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let list = server.cluster.read(model::AclList, as_root()).await;
    let tokens: Vec<Text> = list
        .unwrap()
        .answer
        .iter()
        .map(|it| it.id.clone())
        .collect();
    assert!(tokens.contains(&Text::from("root")), "{tokens:?}");
    assert!(tokens.contains(&Text::from("anonymous")), "{tokens:?}");
    assert!(tokens.len() > 2 && !tokens.contains(&Text::from("extra")));
}

#[tokio::test(start_paused = true)]
async fn sessions_that_come_back_have_all_their_time_and_no_more() {
    let server = Alone::start(config("one")).await;
    let node = Registration {
        node: Node {
            name: Text::from("n"),
            address: Text::from("10.0.0.1"),
            ..Node::default()
        },
        ..Registration::default()
    };
    server
        .write(Command::Register(Box::new(node)))
        .await
        .unwrap();
    let session = Session {
        id: Uuid::nil(),
        node: Text::from("n"),
        ttl: Text::from("10s"),
        behavior: Behavior::Release,
        ..Session::default()
    };
    let create = || Command::SessionCreate(Box::new(session.clone()));
    let created = server.write(create()).await.unwrap();
    let (_, saved) = server.save().await;
    let Reply::Id(id) = created else {
        panic!("{created:?}");
    };
    let id = model::parse_uuid(&id).unwrap();
    server.write(Command::SessionDestroy(id)).await.unwrap();
    let young = server.write(create()).await.unwrap();
    let restore = server.cluster.restore(only("sessions"), stream(saved));
    restore.await.unwrap();
    let sessions = server.ask(SessionList).await.answer;
    assert_eq!(sessions.iter().map(|it| it.id).collect::<Vec<_>>(), [id]);
    assert_ne!(Reply::Id(Text::from(id.to_string())), young);
    sleep(Duration::from_secs(19)).await;
    assert_eq!(server.ask(SessionList).await.answer.len(), 1);
    sleep(Duration::from_secs(3)).await;
    assert!(server.ask(SessionList).await.answer.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_part_goes_through_a_follower_to_all_servers() {
    let trio = Trio::start(3).await;
    let follower = trio.follower().await;
    trio.write(follower, set("gen/old", "x")).await.unwrap();
    trio.write(follower, set("kept", "x")).await.unwrap();
    let copy = of(PartWish {
        kv_prefixes: &[b"gen/"],
        into_prefix: Some(b"copy/"),
        ..PartWish::default()
    });
    let cluster = trio.cluster(follower);
    let archive = stream(generation(3, 5, 1));
    cluster.restore(copy, archive).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    for id in trio.servers.keys() {
        let found = trio.ask(*id, all(), Consistency::Stale).await.unwrap();
        let keys: Vec<String> = found
            .answer
            .iter()
            .map(|it| String::from_utf8_lossy(it.key()).into_owned())
            .collect();
        let wanted = [
            "copy/000000",
            "copy/000001",
            "copy/000002",
            "copy/000003",
            "copy/000004",
            "gen/old",
            "kept",
        ];
        assert_eq!(keys, wanted, "server {id}");
    }
}
