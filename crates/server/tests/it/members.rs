//! Servers that find each other through gossip: how a cluster comes to be, grows, heals and shrinks.

use std::time::Duration;

use consensus::NodeId;
use gossip::{Event, sim::Weather};
use model::{
    CatalogNode, CatalogNodes, Check, Command, Coordinate, CoordinateNodes, HealthNode,
    KeyringVerb, KvGet, Node, NodeCoordinate, Operated, Operation, PASSING, Registration,
    SERF_HEALTH, Text,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::{Consistency, SaveOptions};
use server::Start;
use tokio::time::{Instant, sleep, timeout};

use crate::setup::set;
use crate::trio::{SOON, Trio, log_config, peer, pool_address, server_config};

const EXPECT: Start = Start::Expect(3);

fn name(id: NodeId) -> Text {
    Text::from(peer(id).name)
}

/// What the catalog says of a node's `serfHealth`, as this server knows it.
async fn health(trio: &Trio, asked: NodeId, node: &Text) -> Option<Text> {
    let question = HealthNode { node: node.clone() };
    let found = trio.ask(asked, question, Consistency::Default).await.ok()?;
    let mut checks = found.answer.into_iter();
    let check = checks.find(|check| check.check_id == SERF_HEALTH)?;
    Some(check.status.clone())
}

/// Waits until the catalog says this of a node.
async fn until_health(trio: &Trio, asked: NodeId, node: &Text, wanted: Option<&str>) {
    let wanted = wanted.map(Text::from);
    let became = async {
        while health(trio, asked, node).await != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        timeout(SOON * 6, became).await.is_ok(),
        "{node:?} is {:?}, not {wanted:?}",
        health(trio, asked, node).await
    );
}

async fn has_service(trio: &Trio, asked: NodeId, node: &Text) -> bool {
    let question = CatalogNode { node: node.clone() };
    let found = trio
        .ask(asked, question, Consistency::Default)
        .await
        .unwrap();
    let row = found.answer.unwrap();
    row.services
        .iter()
        .any(|service| service.id == "consul" && service.port == 8300)
}

#[tokio::test(start_paused = true)]
async fn servers_that_expect_each_other_become_a_cluster() {
    let began = Instant::now();
    let trio = Trio::expecting(3).await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    for id in 1..=3 {
        until_health(&trio, id, &name(id), Some(PASSING)).await;
        assert!(has_service(&trio, id, &name(id)).await);
    }
    let told = trio.operate(2, Operation::RaftConfiguration, false).await;
    let Ok(Operated::RaftConfiguration(told)) = told else {
        panic!("{told:?}");
    };
    let mut names: Vec<String> = told.servers.into_iter().map(|server| server.node).collect();
    names.sort();
    assert_eq!(names, ["server-1", "server-2", "server-3"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_server_is_taken_in_and_votes() {
    let mut trio = Trio::expecting(3).await;
    trio.write(1, set("k", "v")).await.unwrap();
    for (id, start) in [(4, Start::Join), (5, EXPECT), (6, Start::Bootstrap)] {
        if start == Start::Bootstrap {
            // It made a cluster of its own and is left alone.
            trio.run_as(id, start).await;
            trio.join(id).await;
            sleep(Duration::from_secs(15)).await;
            let status = trio.servers[&id].consensus().status();
            assert_eq!(status.voters, [peer(id)]);
            let status = trio.servers[&1].consensus().status();
            assert_eq!(status.voters.len(), 5);
        } else {
            trio.run_as(id, start).await;
            trio.join(id).await;
            trio.voters(id).await;
            until_health(&trio, 1, &name(id), Some(PASSING)).await;
            holds_k(&trio, id, Consistency::Stale).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_fails_is_critical_until_it_is_back() {
    let mut trio = Trio::expecting(3).await;
    let follower = trio.follower().await;
    let leader = trio.leader().await;
    until_health(&trio, leader, &name(follower), Some(PASSING)).await;
    trio.kill(follower).await;
    until_health(&trio, leader, &name(follower), Some("critical")).await;
    assert!(has_service(&trio, leader, &name(follower)).await);
    assert_eq!(trio.servers[&leader].consensus().status().voters.len(), 3);
    trio.run(follower).await;
    trio.join(follower).await;
    until_health(&trio, leader, &name(follower), Some(PASSING)).await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_taken_out() {
    let mut trio = Trio::expecting(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    until_health(&trio, leader, &name(follower), Some(PASSING)).await;
    let began = Instant::now();
    trio.servers[&follower].leave().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    trio.kill(follower).await;
    trio.voters(2).await;
    until_health(&trio, leader, &name(follower), None).await;
    // The leader as well.
    trio.servers[&leader].leave().await;
    trio.kill(leader).await;
    trio.voters(1).await;
    let last = trio.leader().await;
    until_health(&trio, last, &name(leader), None).await;
    trio.write(last, set("k", "v")).await.unwrap();
    let began = Instant::now();
    trio.servers[&last].leave().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_taken_out_while_a_new_server_is_waited_for() {
    let mut trio = Trio::expecting(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    // It answers when it is asked, but the log doesn't reach it.
    for id in 1..=3 {
        trio.network.cut(id, 4);
    }
    trio.run(4).await;
    trio.join(4).await;
    let is_waited_for = || {
        let status = trio.servers[&leader].consensus().status();
        status.learners.iter().any(|peer| peer.id == 4)
    };
    trio.wait_until("it is waited for", is_waited_for).await;
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    trio.servers[&follower].leave().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let status = trio.servers[&leader].consensus().status();
    assert!(status.voters.iter().all(|peer| peer.id != follower));
    trio.kill(follower).await;
    trio.network.heal();
    trio.voters(3).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_lost_its_disk_takes_its_own_place() {
    let mut trio = Trio::expecting(3).await;
    let follower = trio.follower().await;
    trio.write(follower, set("k", "v")).await.unwrap();
    trio.kill(follower).await;
    trio.wipe(follower);
    trio.run(follower).await;
    trio.join(follower).await;
    let id = trio.id(follower);
    let is_voter = || {
        let leader = trio
            .servers
            .values()
            .find(|server| server.status().is_leader);
        leader.is_some_and(|leader| {
            let status = leader.consensus().status();
            let mut ids: Vec<NodeId> = status.voters.iter().map(|peer| peer.id).collect();
            ids.sort_unstable();
            ids.len() == 3 && ids.contains(&id) && !ids.contains(&follower)
        })
    };
    trio.wait_until("it has its place again", is_voter).await;
    trio.voters(3).await;
    holds_k(&trio, follower, Consistency::Stale).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_lost_its_disk_and_bootstraps_again_mixes_nothing() {
    let mut trio = Trio::pool(1);
    for (id, start) in [(1, Start::Bootstrap), (2, Start::Join), (3, Start::Join)] {
        trio.run_as(id, start).await;
        trio.join(id).await;
        trio.voters(id).await;
    }
    for number in 0..20 {
        let key = format!("k/{number}");
        trio.write(2, set(&key, "acknowledged")).await.unwrap();
    }
    trio.kill(1).await;
    trio.wipe(1);
    trio.leader().await;
    trio.run_as(1, Start::Bootstrap).await;
    let alone = trio.id(1);
    trio.join(1).await;
    for _ in 0..30 {
        sleep(Duration::from_secs(3)).await;
        let status = trio.servers[&1].consensus().status();
        let ids: Vec<NodeId> = status.voters.iter().map(|peer| peer.id).collect();
        assert_eq!((ids, status.learners), (vec![alone], Vec::new()));
    }
    for id in [2, 3] {
        let status = trio.servers[&id].consensus().status();
        let mut ids: Vec<NodeId> = status.voters.iter().map(|peer| peer.id).collect();
        ids.sort_unstable();
        assert_eq!((ids, status.learners), (vec![1, 2, 3], Vec::new()));
        for number in 0..20 {
            let key = Text::from(format!("k/{number}"));
            let found = trio.ask(id, KvGet { key }, Consistency::Consistent).await;
            assert!(found.unwrap().answer.is_some(), "{number}");
        }
    }
    // With an empty directory, and not told to bootstrap, it takes its place.
    trio.kill(1).await;
    trio.wipe(1);
    trio.run(1).await;
    trio.join(1).await;
    trio.voters(3).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_bootstraps_looks_for_a_cluster_first() {
    let patience = Duration::from_secs(5);
    let start = Start::BootstrapUnlessFound(patience);
    let mut trio = Trio::pool(1);
    let began = Instant::now();
    trio.run_as(1, start).await;
    trio.leader().await;
    assert!(began.elapsed() >= patience, "it waits for others");
    for id in [2, 3] {
        trio.run(id).await;
        trio.join(id).await;
        trio.voters(id).await;
    }
    trio.write(2, set("k", "acknowledged")).await.unwrap();
    trio.kill(1).await;
    trio.wipe(1);
    trio.leader().await;
    trio.run_as(1, start).await;
    sleep(Duration::from_secs(1)).await;
    trio.join(1).await;
    // It makes no cluster of its own, but takes its place in the one that there is.
    trio.voters(3).await;
    holds_k(&trio, 1, Consistency::Default).await;
    // A restart has nothing to look for.
    let began = Instant::now();
    for id in 1..=3 {
        trio.kill(id).await;
    }
    for id in 1..=3 {
        trio.run_as(id, start).await;
        trio.join(id).await;
    }
    trio.leader().await;
    assert!(began.elapsed() < patience, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_forced_to_leave_is_taken_out() {
    let mut trio = Trio::expecting(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.kill(follower).await;
    until_health(&trio, leader, &name(follower), Some("critical")).await;
    trio.pool[&leader].force_leave(&peer(follower).name).await;
    trio.voters(2).await;
    until_health(&trio, leader, &name(follower), None).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_another_name_stays_when_its_old_one_is_forced_to_leave() {
    let mut trio = Trio::expecting(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.kill(follower).await;
    until_health(&trio, leader, &name(follower), Some("critical")).await;
    let config = server::Config {
        node_name: "alpha".to_owned(),
        ..server_config(follower)
    };
    trio.run_by(config, follower, Start::Join).await;
    trio.join(follower).await;
    let has_its_name = || {
        let status = trio.servers[&leader].consensus().status();
        let mut voters = status.voters.iter();
        voters.any(|peer| peer.id == follower && peer.name == "alpha")
    };
    trio.wait_until("its name is known", has_its_name).await;
    trio.pool[&leader].force_leave(&peer(follower).name).await;
    until_health(&trio, leader, &name(follower), None).await;
    sleep(Duration::from_secs(65)).await;
    assert!(has_its_name());
    trio.voters(3).await;
}

#[tokio::test(start_paused = true)]
async fn two_that_elect_themselves_stay_two() {
    let mut trio = Trio::pool(1);
    for id in [1, 2] {
        trio.run_as(id, Start::Bootstrap).await;
    }
    trio.join(2).await;
    sleep(Duration::from_secs(65)).await;
    for id in [1, 2] {
        assert_eq!(trio.servers[&id].consensus().status().voters, [peer(id)]);
    }
}

#[tokio::test(start_paused = true)]
async fn conflicting_expectations_make_no_cluster() {
    let mut trio = Trio::pool(1);
    for (id, expected) in [(1, 3), (2, 3), (3, 3), (4, 5)] {
        trio.run_as(id, Start::Expect(expected)).await;
        if id != 3 {
            trio.join(id).await;
        }
    }
    trio.join(3).await;
    sleep(Duration::from_secs(60)).await;
    for server in trio.servers.values() {
        assert!(!server.consensus().initialized().await);
    }
    trio.kill(4).await;
    trio.voters(3).await;
}

/// Servers come one after the other, some of them more than are expected, while packets and calls get lost; whatever each of them sees at which time, they become one cluster.
async fn come_together(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut trio = Trio::pool(seed);
    let net = trio.net.clone().unwrap();
    net.weather(Weather {
        loss: 0.25,
        repetition: 0.05,
        delay_min: Duration::from_micros(200),
        delay_max: Duration::from_millis(150),
    });
    trio.wires.set_quality(0.15, Duration::from_millis(150));
    trio.network
        .set_quality(0.1, 0.05, Duration::from_millis(60));
    let count = chance.random_range(3..=5);
    let mut order: Vec<NodeId> = (1..=count).collect();
    for place in 0..order.len() {
        let other = chance.random_range(place..order.len());
        order.swap(place, other);
    }
    for id in order {
        trio.run_as(id, EXPECT).await;
        trio.join(id).await;
        sleep(Duration::from_millis(chance.random_range(0..1_500))).await;
        if chance.random_bool(0.2) {
            let unlucky = chance.random_range(1..=count);
            if trio.servers.contains_key(&unlucky) {
                trio.kill(unlucky).await;
                sleep(Duration::from_millis(chance.random_range(0..3_000))).await;
                trio.run_as(unlucky, EXPECT).await;
                trio.join(unlucky).await;
            }
        }
    }
    sleep(Duration::from_secs(20)).await;
    net.heal();
    net.weather(Weather::FAIR);
    trio.wires.heal();
    trio.network.heal();
    for id in 1..=count {
        trio.join(id).await;
    }
    trio.voters(count).await;
    trio.write(1, set("k", "v")).await.unwrap();
    for id in 1..=count {
        holds_k(&trio, id, Consistency::Default).await;
    }
    for id in 1..=count {
        trio.kill(id).await;
    }
}

#[test]
fn whatever_they_see_they_become_one_cluster() {
    let seeds = std::env::var("SIM_SEEDS").ok();
    let seeds = seeds.as_deref().and_then(|text| text.split_once(".."));
    let (from, to) = seeds.map_or((1, 7), |(from, to)| {
        (from.parse().unwrap(), to.parse().unwrap())
    });
    for seed in from..to {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(Box::pin(come_together(seed)));
        }));
        assert!(lived.is_ok(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restore_strangers_leave_the_catalog() {
    let trio = Trio::expecting(3).await;
    let leader = trio.leader().await;
    let stranger = |name: &str, checks: Vec<Check>| {
        Command::Register(Box::new(Registration {
            node: Node {
                name: Text::from(name),
                address: Text::from("10.9.9.9"),
                ..Node::default()
            },
            service: None,
            checks,
        }))
    };
    let check = Check {
        node: Text::from("Stranger"),
        check_id: Text::from(SERF_HEALTH),
        status: Text::from(PASSING),
        ..Check::default()
    };
    trio.write(1, stranger("Stranger", vec![check]))
        .await
        .unwrap();
    trio.write(1, stranger("external", Vec::new()))
        .await
        .unwrap();
    let cluster = trio.cluster(leader);
    let mut save = cluster.save(SaveOptions::default()).await.unwrap();
    let mut archive = Vec::new();
    while let Some(piece) = save.archive.next().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    let began = Instant::now();
    trio.restore(1, archive).await.unwrap();
    until_health(&trio, 1, &Text::from("Stranger"), None).await;
    assert!(
        began.elapsed() < Duration::from_secs(75),
        "{:?}",
        began.elapsed()
    );
    let nodes = trio
        .ask(1, CatalogNodes, Consistency::Default)
        .await
        .unwrap();
    let names: Vec<Text> = nodes.answer.iter().map(|node| node.name.clone()).collect();
    let expected = [Text::from("external"), name(1), name(2), name(3)];
    assert_eq!(names, expected);
}

#[tokio::test(start_paused = true)]
async fn coordinates_reach_the_state_through_any_server() {
    let trio = Trio::expecting(3).await;
    let follower = trio.follower().await;
    until_health(&trio, follower, &name(1), Some(PASSING)).await;
    let update = Operation::UpdateCoordinate(Box::new(NodeCoordinate {
        node: name(1),
        coord: Coordinate {
            vec: vec![0.5; 8],
            error: 1.0,
            adjustment: 0.0,
            height: 1e-5,
        },
    }));
    trio.operate(follower, update, false).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    let found = trio.ask(1, CoordinateNodes, Consistency::Default).await;
    assert_eq!(found.unwrap().answer.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_announced() {
    let mut trio = Trio::expecting(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    let mut events = trio.pool[&follower].subscribe();
    trio.kill(leader).await;
    let next = trio.leader().await;
    let told = async {
        loop {
            if let Some(Event::User(event)) = events.next().await
                && event.name == "consul:new-leader"
            {
                return event.payload;
            }
        }
    };
    let payload = timeout(SOON, told).await.unwrap();
    assert_eq!(payload, peer(next).name.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn keys_are_asked_for_in_the_pool() {
    let trio = Trio::expecting(3).await;
    let told = trio
        .operate(1, Operation::Keyring(KeyringVerb::List), false)
        .await;
    let Ok(Operated::Keyring(pools)) = told else {
        panic!("{told:?}");
    };
    let [pool] = &pools[..] else {
        panic!("{pools:?}");
    };
    assert_eq!((pool.wan, pool.members), (false, 3));
    assert_eq!(pool.error, "3/3 nodes reported failure");
    let why = "Keyring is empty (encryption not enabled)";
    assert!(pool.messages.values().all(|text| text == why), "{pool:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_moved_is_found_at_its_new_address() {
    let mut trio = Trio::expecting(3).await;
    let follower = trio.follower().await;
    trio.kill(follower).await;
    // The same disk and name behind another address, which the pool's network knows by its number.
    let config = server::Config {
        server_port: 8399,
        ..server_config(follower)
    };
    trio.run_by(config, follower, Start::Join).await;
    trio.join(follower).await;
    let wanted = format!("{}:8399", pool_address(follower).ip());
    let is_there = || {
        trio.servers.values().all(|server| {
            let status = server.consensus().status();
            status.voters.iter().any(|peer| peer.address == wanted)
        })
    };
    trio.wait_until("its address is known", is_there).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_names_who_is_left_when_a_majority_is_lost() {
    let mut trio = Trio::expecting(3).await;
    trio.write(1, set("k", "v")).await.unwrap();
    for id in 1..=3 {
        trio.kill(id).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    std::fs::write(&path, r#"["10.0.0.1:8300"]"#).unwrap();
    let disk = std::sync::Arc::new(trio.disks[&1].attach());
    let named = server::recover(&path, &log_config(1), disk).await.unwrap();
    assert_eq!(named, Some(vec!["10.0.0.1:8300".to_owned()]));
    assert!(!path.exists(), "it is done once");
    trio.run(1).await;
    trio.voters(1).await;
    holds_k(&trio, 1, Consistency::Default).await;
    // Others come back with empty disks.
    trio.wipe(2);
    trio.run(2).await;
    trio.join(2).await;
    trio.voters(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_leader_without_a_successor_does_not_hold_requests_for_ever() {
    let mut trio = Trio::expecting(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    let other = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    trio.kill(other).await;
    // Calls reach it and are never answered.
    trio.network.cut(leader, follower);
    trio.network.cut(follower, leader);
    let began = Instant::now();
    let key = KvGet {
        key: Text::from("k"),
    };
    let found = trio.ask(follower, key, Consistency::Consistent).await;
    assert!(found.is_err());
    let written = trio.write(follower, set("k", "v")).await;
    assert!(written.is_err(), "{written:?}");
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
}

/// The key that was written for this is there as this server sees it.
async fn holds_k(trio: &Trio, id: NodeId, consistency: Consistency) {
    let key = KvGet {
        key: Text::from("k"),
    };
    let found = trio.ask(id, key, consistency).await.unwrap();
    assert!(found.answer.is_some(), "server {id} lost it");
}
