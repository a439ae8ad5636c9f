//! What every `Cluster` does, wherever its servers are: one list of obligations for all implementations.

use std::time::Duration;

use bytes::Bytes;
use model::{Answer, Command, Error, KvEntry, KvGet, KvOp, KvParts, KvVerb, Reply};
use rpc::{
    ByteStream, Cluster, Meta, ReadOptions, RestoreOptions, Restored, SaveOptions, StreamError,
    WriteOptions, byte_stream,
};

use crate::Fake;

/// An implementation under test.
pub trait Subject {
    /// The handle through which it is asked.
    fn cluster(&self) -> Cluster;

    /// What is to come of the next request. Who makes answers up has to be told; real servers know by themselves.
    fn expect(&self, _: Fake) {}
}

const KEY: &str = "suite/key";
const VALUE: &[u8] = b"\x00value\xff";

fn entry() -> KvEntry {
    KvEntry::new(&KvParts {
        key: KEY.as_bytes(),
        value: VALUE,
        flags: 42,
        create_index: 7,
        modify_index: 7,
        ..KvParts::default()
    })
}

fn found(index: u64) -> Fake {
    let meta = Meta {
        index,
        last_contact: Duration::ZERO,
        known_leader: true,
    };
    Fake::Answer(Answer::KvGet(Some(entry())), meta)
}

/// Holds an implementation to its obligations.
///
/// # Panics
/// When it breaks one, which is what the test is for.
pub async fn cluster_suite(subject: &impl Subject) {
    let cluster = subject.cluster();
    let index = what_was_written_is_read(subject, &cluster).await;
    a_wait_ends(subject, &cluster, index).await;
    an_error_keeps_its_kind(subject, &cluster).await;
    a_snapshot_comes_back(subject, &cluster).await;
    half_a_snapshot_changes_nothing(subject, &cluster).await;
    peers_are_told(&cluster).await;
}

async fn read(subject: &impl Subject, cluster: &Cluster, options: ReadOptions) -> u64 {
    subject.expect(found(options.index.max(7)));
    let question = KvGet { key: KEY.into() };
    let read = cluster.read(question, options).await.expect("a read");
    let read_entry = read.answer.expect("the key is there");
    assert_eq!(read_entry.key(), KEY.as_bytes());
    assert_eq!(read_entry.value(), VALUE, "any bytes come through");
    assert_eq!(read_entry.flags(), 42);
    assert!(read.meta.known_leader && read.meta.index > 0);
    read.meta.index
}

async fn what_was_written_is_read(subject: &impl Subject, cluster: &Cluster) -> u64 {
    subject.expect(Fake::Reply(Reply::Applied(true)));
    let set = Command::Kv(KvOp {
        verb: KvVerb::Set,
        key: KEY.into(),
        value: VALUE.into(),
        flags: 42,
    });
    let reply = cluster.write(set, WriteOptions::default()).await;
    assert_eq!(reply, Ok(Reply::Applied(true)));
    read(subject, cluster, ReadOptions::default()).await
}

async fn a_wait_ends(subject: &impl Subject, cluster: &Cluster, index: u64) {
    subject.expect(Fake::Wait);
    let options = ReadOptions {
        index,
        wait: Duration::from_millis(20),
        ..ReadOptions::default()
    };
    let after = read(subject, cluster, options).await;
    assert!(after >= index, "an index never goes back");
}

async fn an_error_keeps_its_kind(subject: &impl Subject, cluster: &Cluster) {
    subject.expect(Fake::Error(Error::NoPath));
    let options = ReadOptions {
        datacenter: "nowhere".into(),
        ..ReadOptions::default()
    };
    let error = cluster.read(KvGet { key: KEY.into() }, options).await;
    let error = error.expect_err("there is no such datacenter");
    assert_eq!(error.kind(), &Error::NoPath);
    let text = error.to_string();
    assert_eq!(
        text.trim_start_matches("rpc error: "),
        "No path to datacenter"
    );
}

async fn bytes_of(mut archive: ByteStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = archive.next().await {
        bytes.extend_from_slice(&piece.expect("a whole snapshot"));
    }
    bytes
}

async fn a_snapshot_comes_back(subject: &impl Subject, cluster: &Cluster) {
    let meta = Meta {
        index: 7,
        known_leader: true,
        ..Meta::default()
    };
    subject.expect(Fake::Save(
        meta,
        vec![Ok(Bytes::from_static(b"an archive"))],
    ));
    let save = cluster.save(SaveOptions::default()).await;
    let save = save.expect("a snapshot");
    assert!(save.meta.index > 0);
    let bytes = bytes_of(save.archive).await;
    assert!(!bytes.is_empty());

    subject.expect(Fake::Restored(Restored::default()));
    let (sender, archive) = byte_stream();
    let feed = async {
        for piece in bytes.chunks(1000) {
            if !sender.send(Ok(Bytes::copy_from_slice(piece))).await {
                break;
            }
        }
        drop(sender);
    };
    let restore = cluster.restore(RestoreOptions::default(), archive);
    let (restored, ()) = futures::future::join(restore, feed).await;
    assert_eq!(restored, Ok(Restored::default()));
    read(subject, cluster, ReadOptions::default()).await;
}

async fn half_a_snapshot_changes_nothing(subject: &impl Subject, cluster: &Cluster) {
    subject.expect(Fake::Error(Error::invalid("the upload broke off")));
    let (sender, archive) = byte_stream();
    let broken = StreamError("the upload broke off".to_owned());
    assert!(sender.send(Ok(Bytes::from_static(b"half"))).await);
    assert!(sender.send(Err(broken)).await);
    drop(sender);
    let restored = cluster.restore(RestoreOptions::default(), archive).await;
    assert!(restored.is_err(), "{restored:?}");
    read(subject, cluster, ReadOptions::default()).await;
}

async fn peers_are_told(cluster: &Cluster) {
    cluster.peers().await.expect("any server knows its peers");
}
