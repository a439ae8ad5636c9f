//! Restores in a live cluster while servers die, are slow, come back without a disk, or come later.

use std::collections::BTreeMap;
use std::time::Duration;

use consensus::NodeId;
use model::{Error, KvList, RestoreMode, RestorePart, Section, Text};
use rpc::{Consistency, RestoreOptions};
use server::Start;
use tokio::time::{sleep, timeout};

use crate::setup::{generation, set, stream};
use crate::trio::{SOON, Trio};

/// Keys in each generation; together several chunks.
const KEYS: usize = 60;
const LENGTH: usize = 50_000;

/// All that a server holds: which generation, if any, and the other keys.
async fn held(trio: &Trio, id: NodeId) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
    let all = KvList {
        prefix: Text::default(),
    };
    let found = trio.ask(id, all, Consistency::Stale).await.unwrap();
    let mut values = BTreeMap::new();
    let mut others = Vec::new();
    for entry in &found.answer {
        if entry.key().starts_with(b"gen/") {
            *values.entry(entry.value().to_vec()).or_insert(0) += 1;
        } else {
            others.push(entry.key().to_vec());
        }
    }
    assert!(values.len() <= 1, "server {id} holds a mix");
    let generation = values.into_iter().next().map(|(value, count)| {
        assert_eq!(count, KEYS, "server {id} holds a part");
        value
    });
    (generation, others)
}

fn of(number: usize) -> Vec<u8> {
    number.to_string().repeat(LENGTH).into_bytes()
}

fn archive(number: usize) -> Vec<u8> {
    generation(number, KEYS, LENGTH)
}

/// Waits until all servers hold this generation, and nothing else that is different.
async fn until_all_hold(trio: &Trio, number: usize) {
    let wanted = Some(of(number));
    let became = async {
        loop {
            let mut states = Vec::new();
            for id in trio.servers.keys() {
                states.push(held(trio, *id).await);
            }
            let is_same = states.iter().all(|state| *state == states[0]);
            if is_same && states[0].0 == wanted {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(SOON, became).await.is_ok(), "not all hold {number}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_in_the_middle_leaves_all_or_nothing() {
    let mut outcomes = BTreeMap::new();
    for moment in [1, 2, 4, 6, 8, 12, 16, 24, 40, 200] {
        let mut trio = Trio::start(3).await;
        let (leader, follower) = (trio.leader().await, trio.follower().await);
        trio.restore(follower, archive(1)).await.unwrap();
        trio.write(follower, set("mark", "x")).await.unwrap();
        for disk in trio.disks.values() {
            disk.set_sync_delay_max(Duration::from_millis(3));
        }
        let cluster = trio.cluster(follower);
        let restoring = tokio::spawn(async move {
            let options = RestoreOptions::default();
            cluster.restore(options, stream(archive(2))).await
        });
        sleep(Duration::from_millis(moment)).await;
        trio.kill(leader).await;
        let said = restoring.await.unwrap();
        let next = trio.leader().await;
        // Whatever was in the log is decided once the new leader has written.
        trio.write(next, set("later", "x")).await.unwrap();
        let (generation, others) = held(&trio, next).await;
        let is_done = generation == Some(of(2));
        assert!(is_done || generation == Some(of(1)));
        assert_eq!(others.contains(&b"mark".to_vec()), !is_done);
        let outcome = match &said {
            Ok(_) => {
                assert!(is_done, "it was said to be done at {moment} ms");
                "done"
            }
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error.kind(), Error::Unavailable(_)), "{text}");
                if text.contains("nothing was changed") {
                    assert!(
                        !is_done,
                        "it was said to have changed nothing at {moment} ms"
                    );
                    "unchanged"
                } else {
                    assert!(text.contains("repeating it is safe"), "{text}");
                    "in doubt"
                }
            }
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        // Repeating it is safe.
        trio.restore(follower, archive(2)).await.unwrap();
        trio.run(leader).await;
        until_all_hold(&trio, 2).await;
    }
    assert!(
        outcomes.contains_key("done") && outcomes.len() > 1,
        "{outcomes:?}"
    );
}

/// The keys of a generation, and nothing else.
fn generation_only(mode: RestoreMode) -> RestoreOptions {
    let prefixes = vec![Text::from("gen/")];
    let part = RestorePart::new([Section::Kv].into(), prefixes, None, mode);
    RestoreOptions {
        part: Some(part.unwrap()),
        ..RestoreOptions::default()
    }
}

/// As with a whole restore, but that everything else stays, whatever becomes of it.
#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_in_the_middle_of_a_part_leaves_all_or_nothing_of_it() {
    let mut outcomes = BTreeMap::new();
    for moment in [1, 4, 8, 12, 16, 24, 200] {
        let mut trio = Trio::start(3).await;
        let (leader, follower) = (trio.leader().await, trio.follower().await);
        trio.restore(follower, archive(1)).await.unwrap();
        trio.write(follower, set("mark", "x")).await.unwrap();
        trio.write(follower, set("gen0", "x")).await.unwrap();
        for disk in trio.disks.values() {
            disk.set_sync_delay_max(Duration::from_millis(3));
        }
        let cluster = trio.cluster(follower);
        let options = generation_only(RestoreMode::Replace);
        let again = options.clone();
        let restoring =
            tokio::spawn(async move { cluster.restore(options, stream(archive(2))).await });
        sleep(Duration::from_millis(moment)).await;
        trio.write(follower, set("meanwhile", "x")).await.ok();
        trio.kill(leader).await;
        let said = restoring.await.unwrap();
        let next = trio.leader().await;
        trio.write(next, set("later", "x")).await.unwrap();
        let (generation, others) = held(&trio, next).await;
        let is_done = generation == Some(of(2));
        assert!(is_done || generation == Some(of(1)));
        assert!(others.contains(&b"mark".to_vec()) && others.contains(&b"gen0".to_vec()));
        if said.is_ok() {
            assert!(is_done, "it was said to be done at {moment} ms");
        }
        *outcomes.entry(is_done).or_insert(0) += 1;
        let cluster = trio.cluster(follower);
        cluster.restore(again, stream(archive(2))).await.unwrap();
        trio.run(leader).await;
        until_all_hold(&trio, 2).await;
    }
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_down_gets_what_was_restored() {
    for compacted in [false, true] {
        let mut trio = Trio::start(3).await;
        let follower = trio.follower().await;
        trio.kill(follower).await;
        let leader = trio.leader().await;
        trio.restore(leader, archive(1)).await.unwrap();
        if compacted {
            for number in 0..100 {
                let key = format!("later/{number}");
                trio.write(leader, set(&key, "x")).await.unwrap();
            }
            let log = trio.servers[&leader].consensus();
            log.checkpoint().await.unwrap();
            log.checkpoint().await.unwrap();
        }
        trio.run(follower).await;
        until_all_hold(&trio, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_die_and_logs_are_cut_in_the_middle_of_it() {
    for moment in [2, 5, 9, 14, 20] {
        let mut trio = Trio::start(3).await;
        let (leader, follower) = (trio.leader().await, trio.follower().await);
        for disk in trio.disks.values() {
            disk.set_sync_delay_max(Duration::from_millis(3));
        }
        for number in 0..50 {
            trio.write(leader, set(&format!("before/{number}"), "x"))
                .await
                .unwrap();
        }
        let cluster = trio.cluster(leader);
        let restoring = tokio::spawn(async move {
            let options = RestoreOptions::default();
            cluster.restore(options, stream(archive(1))).await
        });
        sleep(Duration::from_millis(moment)).await;
        trio.kill(follower).await;
        for server in trio.servers.values() {
            // Not while a restore is open; that is no error.
            server.consensus().checkpoint().await.unwrap();
        }
        trio.run(follower).await;
        restoring.await.unwrap().unwrap();
        trio.servers[&leader]
            .consensus()
            .checkpoint()
            .await
            .unwrap();
        until_all_hold(&trio, 1).await;
        // What was restored is there after all of them were down.
        for id in 1..=3 {
            trio.kill(id).await;
        }
        for id in 1..=3 {
            trio.run(id).await;
        }
        trio.leader().await;
        until_all_hold(&trio, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_does_not_hold_it_up() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.disks[&follower].set_sync_delay_max(Duration::from_millis(400));
    for number in 1..=4 {
        trio.restore(leader, archive(number)).await.unwrap();
    }
    until_all_hold(&trio, 4).await;
}

#[tokio::test(start_paused = true)]
async fn wiped_and_new_servers_get_what_was_restored() {
    let mut trio = Trio::expecting(3).await;
    let follower = trio.follower().await;
    trio.kill(follower).await;
    trio.wipe(follower);
    let leader = trio.leader().await;
    let cluster = trio.cluster(leader);
    let restoring = tokio::spawn(async move {
        let options = RestoreOptions::default();
        cluster.restore(options, stream(archive(3))).await
    });
    trio.run(follower).await;
    trio.join(follower).await;
    restoring.await.unwrap().unwrap();
    trio.run_as(4, Start::Join).await;
    trio.join(4).await;
    trio.voters(4).await;
    until_all_hold(&trio, 3).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_broken_off_is_cleared_away() {
    let trio = Trio::start(3).await;
    let leader = trio.leader().await;
    trio.restore(leader, archive(1)).await.unwrap();
    for disk in trio.disks.values() {
        disk.set_sync_delay_max(Duration::from_millis(5));
    }
    let mut given_up = 0;
    for moment in 1..10 {
        let cluster = trio.cluster(leader);
        let options = RestoreOptions::default();
        let restore = cluster.restore(options, stream(archive(1)));
        let done = timeout(Duration::from_millis(moment), restore).await;
        given_up += usize::from(done.is_err());
        // As long as it is being cleared away, it is still under way.
        sleep(Duration::from_millis(100)).await;
    }
    assert!(given_up > 3, "{given_up}");
    sleep(Duration::from_secs(1)).await;
    // Nothing holds back a checkpoint any more.
    trio.write(leader, set("later", "x")).await.unwrap();
    for server in trio.servers.values() {
        let log = server.consensus();
        sleep(Duration::from_millis(200)).await;
        log.checkpoint().await.unwrap();
        let status = log.status();
        assert_eq!(status.last_checkpoint_index, status.applied_index);
    }
    until_all_hold(&trio, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_between_follower_and_leader_says_what_it_means() {
    let trio = Trio::start(3).await;
    let (leader, follower) = (trio.leader().await, trio.follower().await);
    trio.restore(follower, archive(1)).await.unwrap();
    let cluster = trio.cluster(follower);
    let restoring = tokio::spawn(async move {
        let options = RestoreOptions::default();
        cluster.restore(options, stream(archive(2))).await
    });
    sleep(Duration::from_millis(10)).await;
    trio.wires.set_quality(1.0, Duration::from_millis(1));
    let said = restoring.await.unwrap().unwrap_err();
    assert!(said.to_string().contains("repeating it is safe"), "{said}");
    trio.wires.heal();
    trio.restore(leader, archive(2)).await.unwrap();
    until_all_hold(&trio, 2).await;
}

/// Half a restore does not outlast its failure where the leader goes on in its term, and no new one's first entry drops it.
#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_heard_clears_away_what_it_left() {
    let mut stayed = 0;
    for moment in [2, 6, 12] {
        let trio = Trio::start(3).await;
        let leader = trio.leader().await;
        for disk in trio.disks.values() {
            disk.set_sync_delay_max(Duration::from_millis(5));
        }
        let term = trio.servers[&leader].consensus().status().term;
        let cluster = trio.cluster(leader);
        let restoring = tokio::spawn(async move {
            let options = RestoreOptions::default();
            cluster.restore(options, stream(archive(2))).await
        });
        sleep(Duration::from_millis(moment)).await;
        // The others hear nobody either, so that none of them is elected.
        for id in trio.servers.keys() {
            trio.isolate(*id);
        }
        let said = restoring.await.unwrap().unwrap_err();
        assert!(said.to_string().contains("leadership was lost"), "{said}");
        // It is silent for four of the longest election timeouts, and then speaks again.
        sleep(Duration::from_millis(1700)).await;
        trio.network.heal();
        trio.wires.heal();
        while trio.write(leader, set("later", "x")).await.is_err() {}
        sleep(Duration::from_secs(2)).await;
        let status = trio.servers[&leader].consensus().status();
        stayed += usize::from(status.term == term);
        for server in trio.servers.values() {
            let log = server.consensus();
            log.checkpoint().await.unwrap();
            let status = log.status();
            assert_eq!(status.last_checkpoint_index, status.applied_index);
        }
    }
    assert!(stayed > 0, "another was elected each time");
}
