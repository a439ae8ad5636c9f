//! The promises of stores, kept by a folder, by memory and by S3; and what is S3's own.

use std::sync::Arc;

use backup::stores::{Destination, Local, Objects, S3, StoreError};

use crate::server::{S3Server, open};
use crate::suite::{Kept, content, ids, named, read, write};

store_suite!(folder, async {
    let folder = tempfile::tempdir().unwrap();
    Kept {
        store: Box::new(Local::new(&folder.path().join("made/when/needed"))),
        keeps: Box::new(folder),
    }
});

store_suite!(memory, async {
    let memory = Arc::new(object_store::memory::InMemory::new());
    Kept {
        store: Box::new(Objects::new(memory, "/a/b/", None, "memory".into()).unwrap()),
        keeps: Box::new(()),
    }
});

store_suite!(amazon, async {
    let server = S3Server::start().await;
    Kept {
        store: server.open(),
        keeps: Box::new(server),
    }
});

#[tokio::test]
async fn what_is_not_ours_is_not_seen() {
    let server = S3Server::start().await;
    let store = server.open();
    write(&*store, named(5), b"x").await.unwrap();
    let folder = server.objects();
    std::fs::create_dir_all(folder.join("deeper")).unwrap();
    for stray in [
        "consul-1.snap.part",
        "consul-01.snap",
        "deeper/consul-9.snap",
        "zebra",
        "../consul-8.snap",
        "../consulate-7.snap",
        "consul-6.snap.json",
    ] {
        std::fs::write(folder.join(stray), b"x").unwrap();
    }
    assert_eq!(ids(&*store).await, [5]);
}

#[tokio::test]
async fn one_name_for_all() {
    let server = S3Server::start().await;
    let store = open(&Destination::S3(S3 {
        static_snapshot_name: "dc1/consul/latest.snap".into(),
        ..server.settings()
    }))
    .unwrap();
    write(&*store, named(1), b"first").await.unwrap();
    write(&*store, named(2), &content(9 << 20)).await.unwrap();
    store.write_note(named(2), "{}".into()).await.unwrap();
    assert_eq!(read(&*store, named(7)).await.unwrap(), content(9 << 20));
    assert_eq!(store.list().await.unwrap(), []);
    let (objects, _) = server.files();
    assert_eq!(objects, ["latest.snap", "latest.snap.json"]);
}

#[tokio::test]
async fn the_store_encrypts_as_it_is_told() {
    for (is_kms, key, kind) in [
        (false, "", "AES256"),
        (true, "", "aws:kms"),
        (true, "k-1", "aws:kms"),
    ] {
        let server = S3Server::start().await;
        let store = open(&Destination::S3(S3 {
            server_side_encryption: true,
            enable_kms: is_kms,
            kms_key: key.into(),
            ..server.settings()
        }))
        .unwrap();
        write(&*store, named(1), b"short").await.unwrap();
        write(&*store, named(2), &content(9 << 20)).await.unwrap();
        let asked: Vec<(String, Option<String>)> = (server.server.seen().iter())
            // A whole object, and the beginning of one in parts.
            .filter(|seen| seen.is("PUT", "x-id=PutObject") || seen.is("PUT", "") && seen.query.is_empty() || seen.is("POST", "uploads"))
            .map(|seen| {
                let word = |name| seen.header(name).map(str::to_owned);
                let kind = word("x-amz-server-side-encryption").unwrap_or_default();
                (kind, word("x-amz-server-side-encryption-aws-kms-key-id"))
            })
            .collect();
        let key = Some(key.to_owned()).filter(|key| !key.is_empty());
        assert_eq!(
            asked,
            [(kind.to_owned(), key.clone()), (kind.to_owned(), key)]
        );
    }
}

#[tokio::test]
async fn who_we_are_and_where_the_bucket_is_must_be_right() {
    let server = S3Server::start().await;
    let good = server.settings();
    let bad = |change: fn(&mut S3)| {
        let mut settings = good.clone();
        change(&mut settings);
        settings
    };
    for (settings, expected) in [
        (
            bad(|s3| s3.access_key_id = "AKIAOTHER".into()),
            "the store knows no such access key id; check it (the store says: no such key)",
        ),
        (
            bad(|s3| s3.secret_access_key = "other".into()),
            "the secret access key is not that of the access key id; check both",
        ),
    ] {
        let store = open(&Destination::S3(settings)).unwrap();
        let short = write(&*store, named(1), b"x").await.unwrap_err();
        let long = write(&*store, named(1), &content(9 << 20))
            .await
            .unwrap_err();
        let listed = store.list().await.unwrap_err();
        let noted = store.write_note(named(1), "{}".into()).await.unwrap_err();
        for why in [short, long, listed, noted] {
            let text = why.to_string();
            assert!(matches!(why, StoreError::Failed { .. }), "{text}");
            assert!(text.contains(expected), "{text}");
            assert!(
                text.starts_with("cannot ") && text.lines().count() == 1,
                "{text}"
            );
        }
    }
    assert_eq!(server.files(), (Vec::new(), Vec::new()));
    let store = open(&Destination::S3(S3 {
        bucket: "nobodys".into(),
        ..good
    }))
    .unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(
        why.contains("there is no such bucket; make it, or mend its name in the settings"),
        "{why}"
    );
}
