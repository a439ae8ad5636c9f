//! Saving and restoring as a whole: through the archive, the checks and the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{
    CatalogNode, CatalogNodes, Command, Error, KvGet, KvList, KvOp, KvVerb, RestoreMode,
    RestorePart, Section, Text,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use rpc::{Cluster, Consistency, ReadOptions, SaveOptions};

use crate::setup::{Alone, config, fixture, generation};

const LONG: Duration = Duration::from_secs(300);

fn all() -> KvList {
    KvList {
        prefix: Text::default(),
    }
}

fn key(key: &str) -> KvGet {
    KvGet {
        key: Text::from(key),
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_replaces_everything() {
    let server = Alone::start(config("snap-server")).await;
    server.put("was-here", "x").await;
    server.restore(&fixture("full-0.7.1.snap")).await.unwrap();
    assert_eq!(server.ask(key("was-here")).await.answer, None);
    let held = server.ask(key("locks/held")).await;
    assert_eq!(held.meta.index, 40, "a key keeps the index of the snapshot");
    assert_eq!(held.answer.unwrap().value(), b"owner s1");
    assert!(
        server
            .ask(CatalogNodes)
            .await
            .answer
            .iter()
            .any(|node| node.name == "ext-db1")
    );
}

#[tokio::test(start_paused = true)]
async fn the_index_never_goes_back() {
    let server = Alone::start(config("snap-server")).await;
    for n in 0..100 {
        server.put("was-here", &n.to_string()).await;
    }
    let before = server.ask(all()).await.meta.index;
    server.restore(&fixture("full-0.7.1.snap")).await.unwrap();
    let after = server.ask(all()).await.meta.index;
    assert!(after > before && after > 68, "{before} {after}");
    server.put("new", "").await;
    assert!(server.ask(all()).await.meta.index > after);
}

#[tokio::test(start_paused = true)]
async fn who_waits_from_before_a_restore_is_answered() {
    let server = Alone::start(config("snap-server")).await;
    server.put("web/a", "x").await;
    let prefix = || KvList {
        prefix: Text::from("web/"),
    };
    let index = server.ask(prefix()).await.meta.index;
    let archive = fixture("full-0.7.1.snap");
    let began = Instant::now();
    let (woken, restored) =
        tokio::join!(server.wait(prefix(), index, LONG), server.restore(&archive));
    restored.unwrap();
    assert!(woken.answer.is_empty(), "answered from the old state");
    assert!(began.elapsed() < LONG);

    // One who comes only now, with an index from before.
    let began = Instant::now();
    let late = server.wait(prefix(), index, LONG).await;
    assert!(began.elapsed() < LONG && late.meta.index > index);
}

#[tokio::test(start_paused = true)]
async fn who_waits_by_the_index_of_a_restored_key_waits() {
    let server = Alone::start(config("snap-server")).await;
    server.restore(&fixture("full-0.7.1.snap")).await.unwrap();
    let index = server
        .ask(key("locks/held"))
        .await
        .answer
        .unwrap()
        .modify_index();
    let began = Instant::now();
    server
        .wait(key("locks/held"), index, Duration::from_secs(9))
        .await;
    assert!(
        began.elapsed() >= Duration::from_secs(9),
        "the key has not changed"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_can_be_restored_elsewhere() {
    let one = Alone::start(config("snap-server")).await;
    one.restore(&fixture("full-0.7.1.snap")).await.unwrap();
    one.put("new", "value").await;
    let (index, archive) = one.save().await;
    assert!(index > 68);
    let other = Alone::start(config("snap-server")).await;
    other.restore(&archive).await.unwrap();
    assert_eq!(one.ask(all()).await.answer, other.ask(all()).await.answer);
    assert!(other.ask(all()).await.meta.index > index);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_row_was_not_restored_registers_itself_again() {
    let server = Alone::start(config("other")).await;
    server.restore(&fixture("full-0.7.1.snap")).await.unwrap();
    let index = server.ask(CatalogNodes).await.meta.index;
    let me = || CatalogNode {
        node: Text::from("other"),
    };
    let mut row = server.ask(me()).await.answer;
    if row.is_none() {
        row = server.wait(me(), index, LONG).await.answer;
    }
    assert_eq!(row.unwrap().services[0].name, "consul");
}

#[tokio::test(start_paused = true)]
async fn a_bad_snapshot_changes_nothing() {
    let server = Alone::start(config("one")).await;
    server.put("was-here", "x").await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/snapshots/edge");
    let mut refused = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("crash-") && !name.starts_with("reject-") {
            continue;
        }
        let error = server
            .restore(&fixture(&format!("edge/{name}")))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{name}: {error}");
        refused += 1;
    }
    assert!(refused > 30);
    assert_eq!(server.ask(all()).await.answer.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn records_of_later_releases_are_skipped_only_on_request() {
    let server = Alone::start(config("one")).await;
    server.put("was-here", "x").await;
    let archive = fixture("from-1.4.0.snap");
    let error = server.restore(&archive).await.unwrap_err();
    assert!(error.to_string().contains("-skip-unknown"), "{error}");
    assert!(server.ask(key("was-here")).await.answer.is_some());
    let skip = rpc::RestoreOptions {
        skip_unknown: true,
        ..rpc::RestoreOptions::default()
    };
    let archive = crate::setup::stream(archive);
    let restored = server.cluster.restore(skip, archive).await.unwrap();
    let tokens = ("ACLToken".to_owned(), 4);
    assert!(restored.skipped.contains(&tokens), "{restored:?}");
    assert!(server.ask(key("was-here")).await.answer.is_none());
    assert!(
        server
            .ask(CatalogNodes)
            .await
            .answer
            .iter()
            .any(|node| node.name == "v14")
    );
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_changes_nothing() {
    let server = Alone::start(config("one")).await;
    server.put("was-here", "x").await;
    let archive = fixture("full-0.7.1.snap");
    let error = server
        .restore(&archive[..archive.len() - 100])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert!(server.ask(key("was-here")).await.answer.is_some());
}

/// Keys in a generation, and bytes in each value.
const MANY: usize = 200_000;
const LENGTH: usize = 20;

#[tokio::test]
async fn no_reader_sees_a_mix_of_two_states() {
    let server = Alone::start(config("one")).await;
    server.restore(&generation(0, MANY, LENGTH)).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [Consistency::Default, Consistency::Stale]
        .map(|consistency| {
            let (cluster, done) = (server.cluster.clone(), Arc::clone(&done));
            // As the threads do that answer HTTP beside the one that runs the server.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(read_until(&cluster, consistency, &done))
            })
        })
        .into();
    for number in [1, 2] {
        server
            .restore(&generation(number, MANY, LENGTH))
            .await
            .unwrap();
    }
    // A part is as much of one piece.
    let part = RestorePart::new(
        [Section::Kv].into(),
        vec![Text::from("gen/")],
        None,
        RestoreMode::Replace,
    );
    let options = rpc::RestoreOptions {
        part: Some(part.unwrap()),
        ..rpc::RestoreOptions::default()
    };
    let archive = crate::setup::stream(generation(3, MANY, LENGTH));
    server.cluster.restore(options, archive).await.unwrap();
    done.store(true, Ordering::Relaxed);
    let last = server.ask(key("gen/000000")).await;
    assert!(last.answer.unwrap().value().starts_with(b"3"));
    // A last change, for those who wait.
    server.put("gen/end", "").await;
    for reader in readers {
        let seen = reader.join().unwrap();
        assert!(
            seen.len() > 1,
            "read only {seen:?}: the restores were not seen happening"
        );
    }
}

/// Reads all of the keys, sometimes at once and sometimes by waiting for a change; says which generations there were.
async fn read_until(
    cluster: &Cluster,
    consistency: Consistency,
    done: &AtomicBool,
) -> BTreeSet<u8> {
    let mut seen = BTreeSet::new();
    let mut index = 0;
    while !done.load(Ordering::Relaxed) {
        let options = ReadOptions {
            consistency,
            index,
            wait: Duration::from_secs(60),
            ..ReadOptions::default()
        };
        let found = cluster
            .read(
                KvList {
                    prefix: Text::from("gen/"),
                },
                options,
            )
            .await
            .unwrap();
        let values: BTreeSet<&[u8]> = found
            .answer
            .iter()
            .map(model::KvEntry::value)
            .filter(|value| !value.is_empty())
            .collect();
        assert_eq!(values.len(), 1, "a mix of generations");
        assert!(found.answer.len() >= MANY);
        seen.extend(values.first().map(|value| value[0]));
        index = if index == 0 { found.meta.index } else { 0 };
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_in_nobodys_way() {
    let server = Alone::start(config("one")).await;
    let (_never_ends, archive) = rpc::byte_stream();
    let slow = tokio::spawn({
        let cluster = server.cluster.clone();
        async move {
            cluster
                .restore(rpc::RestoreOptions::default(), archive)
                .await
        }
    });
    tokio::task::yield_now().await;
    server.restore(&fixture("empty.snap")).await.unwrap();
    drop(_never_ends);
    assert!(slow.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fits_into_no_entry_is_named() {
    let server = Alone::start(config("one")).await;
    server.put("was-here", "x").await;
    let error = server
        .restore(&generation(1, 1, 4 << 20))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("record 1, type KVS") && text.contains("3145728"),
        "{text}"
    );
    assert!(server.ask(key("was-here")).await.answer.is_some());
}

#[tokio::test]
async fn so_many_are_saved_at_a_time_and_no_more() {
    let server = Alone::start(config("snap-server")).await;
    let mut chance = StdRng::seed_from_u64(1);
    // What can't be compressed fills what lies between the writer and a reader that doesn't read.
    for number in 0..8 {
        let mut value = vec![0; 500_000];
        chance.fill_bytes(&mut value);
        let op = KvOp {
            verb: KvVerb::Set,
            key: Text::from(format!("k/{number}")),
            value: Text::from(value),
            flags: 0,
        };
        server.write(Command::Kv(op)).await.unwrap();
    }
    let save = || server.cluster.save(SaveOptions::default());
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(save().await.unwrap());
    }
    let refused = save().await.map(drop);
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    // As soon as one is not wanted any more, there is room for another.
    unread.pop();
    let freed = async {
        while save().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(30), freed).await;
    freed.expect("its place is free again");
}
