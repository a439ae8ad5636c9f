//! What a server does with requests that are the leader's business.

use std::time::Duration;

use model::{
    AclInfo, Command, Error, KvGet, KvOp, KvVerb, Operated, Operation, Reply, Session, Text,
};
use rpc::{
    CallError, Calls, Consistency, Hop, ReadOptions, Refusal, Request, Response, SaveOptions,
    ServerAddress, WriteOptions,
};
use tokio::time::{Instant, sleep};

use crate::setup::{generation, set};
use crate::trio::{Trio, address};

fn key(key: &str) -> KvGet {
    KvGet {
        key: Text::from(key),
    }
}

const LONG: Duration = Duration::from_secs(300);

#[tokio::test(start_paused = true)]
async fn any_server_takes_any_request() {
    let trio = Trio::start(3).await;
    for id in 1..=3 {
        let written = trio.write(id, set("k", &id.to_string())).await;
        assert_eq!(written, Ok(Reply::Applied(true)));
        for reader in 1..=3 {
            for consistency in [Consistency::Default, Consistency::Consistent] {
                let found = trio.ask(reader, key("k"), consistency).await.unwrap();
                assert_eq!(found.answer.unwrap().value(), id.to_string().as_bytes());
                assert!(found.meta.known_leader && found.meta.last_contact.is_zero());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_answered_where_it_is_asked() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.write(follower, set("k", "v")).await.unwrap();
    let before = trio.wires.reached(address(leader));
    let found = trio.ask(follower, key("k"), Consistency::Stale).await;
    assert!(found.unwrap().meta.known_leader);
    // It may also wait there.
    let options = ReadOptions {
        consistency: Consistency::Stale,
        index: 1_000,
        wait: Duration::from_secs(3),
        ..ReadOptions::default()
    };
    let began = Instant::now();
    trio.cluster(follower)
        .read(key("k"), options)
        .await
        .unwrap();
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!(trio.wires.reached(address(leader)), before);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_says_so() {
    let trio = Trio::start(3).await;
    let follower = trio.follower().await;
    trio.write(follower, set("k", "v")).await.unwrap();
    trio.isolate(follower);
    sleep(Duration::from_secs(20)).await;
    let found = trio.ask(follower, key("k"), Consistency::Stale).await;
    let meta = found.unwrap().meta;
    assert!(meta.last_contact >= Duration::from_secs(19), "{meta:?}");
    assert!(!meta.known_leader);
}

#[tokio::test(start_paused = true)]
async fn an_error_says_from_how_far_it_comes() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    let nobody = Command::SessionCreate(Box::new(Session {
        node: Text::from("nowhere"),
        ..Session::default()
    }));
    let here = trio.write(leader, nobody.clone()).await.unwrap_err();
    let there = trio.write(follower, nobody).await.unwrap_err();
    assert_eq!(there, here.clone().from_afar());
    assert_eq!(there.to_string(), format!("rpc error: {here}"));
    let unknown = KvOp {
        verb: KvVerb::Lock(Text::from("nobody")),
        key: Text::from("k"),
        value: Text::default(),
        flags: 0,
    };
    let there = trio.write(follower, Command::Kv(unknown)).await;
    assert!(matches!(there, Err(Error::Remote(_))), "{there:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forwarded_twice() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    let other = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    let calls = trio.wires.calls(address(follower));
    let server = ServerAddress {
        address: address(other),
        node: String::new(),
        datacenter: "dc1".to_owned(),
    };
    let read = || Request::Read(key("k").into(), ReadOptions::default());
    let refused = calls.call(&server, Hop::Forwarded, read()).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::NotLeader))),
        "{refused:?}"
    );
    let write = Request::Write(set("k", "v"), WriteOptions::default());
    let refused = calls.call(&server, Hop::Forwarded, write).await;
    assert!(matches!(
        refused,
        Err(CallError::Refused(Refusal::NotLeader))
    ));
    let passed_on = calls.call(&server, Hop::First, read()).await;
    assert!(matches!(passed_on, Ok(Response::Read(_))));
    let save = calls.save(&server, Hop::Forwarded, SaveOptions::default());
    assert!(matches!(
        save.await,
        Err(CallError::Refused(Refusal::NotLeader))
    ));
}

#[tokio::test(start_paused = true)]
async fn requests_are_held_until_there_is_a_leader() {
    let mut trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.write(follower, set("k", "1")).await.unwrap();
    trio.kill(leader).await;
    // The leader is known, and dead.
    let began = Instant::now();
    let write = trio.write(follower, set("k", "2"));
    let read = trio.ask(follower, key("k"), Consistency::Default);
    let (written, read) = tokio::join!(write, read);
    assert_eq!(written, Ok(Reply::Applied(true)));
    assert!(read.unwrap().answer.is_some());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(trio.wires.reached(address(leader)) < 20);
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends() {
    let mut trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    let other = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    trio.kill(leader).await;
    trio.kill(other).await;
    let reached = trio.wires.reached(address(leader));
    for _ in 0..2 {
        let began = Instant::now();
        let (read, write, listed) = tokio::join!(
            trio.ask(follower, key("k"), Consistency::Default),
            trio.write(follower, set("k", "v")),
            trio.operate(follower, Operation::RaftConfiguration, false),
        );
        assert_eq!(read.unwrap_err(), Error::NoLeader);
        assert_eq!(write, Err(Error::NoLeader));
        assert_eq!(listed, Err(Error::NoLeader));
        let took = began.elapsed();
        assert!(
            (Duration::from_secs(7)..Duration::from_millis(7_100)).contains(&took),
            "{took:?}"
        );
    }
    assert!(trio.wires.reached(address(leader)) - reached < 80);
    // Snapshots aren't held, and stale ones are there.
    let began = Instant::now();
    let options = SaveOptions::default();
    let save = trio.cluster(follower).save(options.clone()).await;
    assert_eq!(save.unwrap_err(), Error::NoLeader);
    let restore = trio.restore(follower, generation(1, 3, 10));
    assert_eq!(restore.await.unwrap_err(), Error::NoLeader);
    let stale = SaveOptions {
        stale: true,
        ..options
    };
    assert!(trio.cluster(follower).save(stale).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_on_its_way_is_not_repeated() {
    let mut trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    // It reaches the leader, and neither the other servers nor an answer comes of it.
    for other in (1..=3).filter(|id| *id != leader) {
        trio.network.cut(leader, other);
    }
    let cluster = trio.cluster(follower);
    let write = tokio::spawn(async move {
        let write = cluster.write(set("k", "v"), WriteOptions::default());
        write.await
    });
    sleep(Duration::from_millis(10)).await;
    trio.kill(leader).await;
    assert_eq!(write.await.unwrap(), Err(Error::OutcomeUnknown));
    trio.network.heal();
    let found = trio.ask(follower, key("k"), Consistency::Default).await;
    assert!(found.unwrap().answer.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_follower_outlives_the_leader() {
    let mut trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.write(follower, set("k", "1")).await.unwrap();
    let found = trio.ask(follower, key("k"), Consistency::Default).await;
    let index = found.unwrap().meta.index;
    let began = Instant::now();
    let woken = tokio::spawn(trio.wait(follower, key("k"), index, LONG));
    let patient = tokio::spawn(trio.wait(follower, key("other"), 1_000, Duration::from_secs(60)));
    sleep(Duration::from_secs(20)).await;
    trio.kill(leader).await;
    let other = trio.leader().await;
    sleep(Duration::from_secs(20)).await;
    assert!(!woken.is_finished() && !patient.is_finished());
    trio.write(other, set("k", "2")).await.unwrap();
    let answered = woken.await.unwrap().unwrap();
    assert_eq!(answered.answer.unwrap().value(), b"2");
    assert!(began.elapsed() < Duration::from_secs(43));
    patient.await.unwrap().unwrap();
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(60)..Duration::from_secs(61)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_left_with_a_leader_that_froze() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.write(follower, set("k", "1")).await.unwrap();
    let found = trio.ask(follower, key("k"), Consistency::Default).await;
    let index = found.unwrap().meta.index;
    let woken = tokio::spawn(trio.wait(follower, key("k"), index, LONG));
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    // The call hangs, since nobody says that the wire is cut.
    trio.isolate(leader);
    let written = trio.write(follower, set("k", "2")).await;
    assert_eq!(written, Ok(Reply::Applied(true)));
    let answered = woken.await.unwrap().unwrap();
    assert_eq!(answered.answer.unwrap().value(), b"2");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn snapshots_pass_through_followers() {
    let trio = Trio::start(3).await;
    let follower = trio.follower().await;
    trio.write(follower, set("k", "v")).await.unwrap();
    let mut save = trio
        .cluster(follower)
        .save(SaveOptions::default())
        .await
        .unwrap();
    let mut archive = Vec::new();
    while let Some(piece) = save.archive.next().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    trio.write(follower, set("k", "w")).await.unwrap();
    let restore = trio.restore(follower, archive);
    restore.await.unwrap();
    let found = trio.ask(follower, key("k"), Consistency::Default).await;
    assert_eq!(found.unwrap().answer.unwrap().value(), b"v");
    let bad = trio.restore(follower, b"no snapshot".to_vec());
    let error = bad.await.unwrap_err();
    assert!(matches!(error, Error::Remote(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn operators_ask_any_server() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    for (id, stale) in [(leader, false), (follower, false), (follower, true)] {
        let told = trio.operate(id, Operation::RaftConfiguration, stale).await;
        let Ok(Operated::RaftConfiguration(told)) = told else {
            panic!("{told:?}");
        };
        assert_eq!(told.servers.len(), 3);
        assert!(told.servers.iter().all(|server| server.voter));
        let leads: Vec<&str> = told
            .servers
            .iter()
            .filter(|server| server.leader)
            .map(|server| server.address.as_str())
            .collect();
        assert_eq!(leads, [address(leader).to_string()]);
    }
    let absent = Operation::RaftRemovePeer("10.0.0.9:8300".to_owned());
    let told = trio.operate(follower, absent, false).await;
    assert_eq!(
        told.unwrap_err().kind().to_string(),
        "address \"10.0.0.9:8300\" was not found in the Raft configuration"
    );
    let other = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    let ghost = Operation::RaftRemovePeer(address(other).to_string());
    trio.operate(follower, ghost, false).await.unwrap();
    let status = trio.servers[&leader].consensus().status();
    assert_eq!(status.voters.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_judged_by_the_leader() {
    let trio = Trio::start(3).await;
    let follower = trio.follower().await;
    let token = AclInfo {
        id: Text::from("x"),
    };
    let found = trio.ask(follower, token, Consistency::Default).await;
    assert!(found.unwrap().answer.is_none());
}
