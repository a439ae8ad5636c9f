//! What every store promises, whatever it is made of.

use backup::stores::{NOTE_MAX, Store, StoreError};
use backup::{Name, Retention};
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};

/// A store to be tested, and what keeps it alive.
pub(crate) struct Kept {
    pub(crate) store: Box<dyn Store>,
    pub(crate) keeps: Box<dyn std::any::Any>,
}

/// Makes a test of each promise for a kind of store; the second argument makes a new and empty one.
macro_rules! store_suite {
    ($kind:ident, $new:expr) => {
        store_suite!($kind, $new;
            nothing_is_there_at_first
            what_was_written_is_read
            nothing_is_shown_before_it_is_published
            what_is_broken_off_leaves_nothing
            uploads_do_not_know_each_other
            notes_lie_beside_snapshots
            what_was_removed_is_gone
            a_thousand_and_more_are_listed_and_rotated
        );
    };
    ($kind:ident, $new:expr; $($promise:ident)*) => {
        mod $kind {
            #[allow(unused_imports, reason = "not each kind needs all of what is around it")]
            use super::*;
            $(
                #[tokio::test]
                async fn $promise() {
                    let kept: crate::suite::Kept = $new.await;
                    crate::suite::$promise(&*kept.store).await;
                    drop(kept.keeps);
                }
            )*
        }
    };
}

/// As long as the parts of an upload are.
const PART: usize = 8 << 20;

pub(crate) fn named(id: u64) -> Name {
    Name {
        id,
        encrypted: false,
    }
}

/// So many bytes, not all alike.
pub(crate) fn content(size: usize) -> Bytes {
    let pattern: Vec<u8> = (0..=250).collect();
    pattern.iter().copied().cycle().take(size).collect()
}

pub(crate) async fn write(store: &dyn Store, name: Name, content: &[u8]) -> Result<(), StoreError> {
    let mut upload = store.begin(name).await?;
    for piece in content.chunks(1_000_003) {
        if let Err(why) = upload.write(Bytes::copy_from_slice(piece)).await {
            upload.abandon().await;
            return Err(why);
        }
    }
    upload.publish().await
}

pub(crate) async fn read(store: &dyn Store, name: Name) -> std::io::Result<Bytes> {
    let content = store.get(name).await.map_err(std::io::Error::other)?;
    let pieces: Vec<Bytes> = content.try_collect().await?;
    Ok(pieces.concat().into())
}

pub(crate) async fn ids(store: &dyn Store) -> Vec<u64> {
    let listed = store.list().await.unwrap();
    listed.iter().map(|stored| stored.name.id).collect()
}

pub(crate) async fn nothing_is_there_at_first(store: &dyn Store) {
    assert_eq!(store.list().await.unwrap(), []);
    let got = store.get(named(1)).await.map(|_| ());
    assert!(matches!(got, Err(StoreError::NotFound(_))), "{got:?}");
    assert_eq!(store.read_note(named(1)).await.unwrap(), None);
    store.remove(named(1)).await.unwrap();
    assert_ne!(store.describe(), "");
}

pub(crate) async fn what_was_written_is_read(store: &dyn Store) {
    // Nothing, less than a part, some parts, and a little more.
    for (id, size) in [(4, 0), (3, 10), (1, 2 * PART), (2, 3 * PART + 1)] {
        write(store, named(id), &content(size)).await.unwrap();
        assert!(
            read(store, named(id)).await.unwrap() == content(size),
            "{size}"
        );
    }
    let listed: Vec<(u64, u64)> = (store.list().await.unwrap().iter())
        .map(|stored| (stored.name.id, stored.size))
        .collect();
    let sizes = [
        (1, 2 * PART as u64),
        (2, 3 * PART as u64 + 1),
        (3, 10),
        (4, 0),
    ];
    assert_eq!(listed, sizes);
    let encrypted = Name {
        id: 3,
        encrypted: true,
    };
    write(store, encrypted, b"sealed").await.unwrap();
    assert_eq!(read(store, encrypted).await.unwrap(), &b"sealed"[..]);
    assert_eq!(ids(store).await, [1, 2, 3, 3, 4]);
}

pub(crate) async fn nothing_is_shown_before_it_is_published(store: &dyn Store) {
    for size in [10, 2 * PART + 10] {
        let mut upload = store.begin(named(1)).await.unwrap();
        upload.write(content(size)).await.unwrap();
        assert_eq!(store.list().await.unwrap(), []);
        assert!(store.get(named(1)).await.is_err());
        upload.publish().await.unwrap();
        let listed = store.list().await.unwrap();
        assert_eq!((listed.len(), listed[0].size), (1, size as u64));
        let age = listed[0].written.elapsed().unwrap_or_default();
        assert!(age.as_secs() < 600, "{age:?}");
        store.remove(named(1)).await.unwrap();
    }
}

pub(crate) async fn what_is_broken_off_leaves_nothing(store: &dyn Store) {
    for size in [10, 2 * PART + 10] {
        let mut upload = store.begin(named(1)).await.unwrap();
        upload.write(content(size)).await.unwrap();
        upload.abandon().await;
        let mut upload = store.begin(named(2)).await.unwrap();
        upload.write(content(size)).await.unwrap();
        drop(upload);
    }
    assert_eq!(store.list().await.unwrap(), []);
    assert!(store.get(named(1)).await.is_err());
    // The same again goes well.
    write(store, named(1), b"now").await.unwrap();
    assert_eq!(read(store, named(1)).await.unwrap(), &b"now"[..]);
}

pub(crate) async fn uploads_do_not_know_each_other(store: &dyn Store) {
    let written = (1..=3).map(|id| async move {
        let size = PART + usize::try_from(id).unwrap();
        write(store, named(id), &content(size)).await.unwrap();
    });
    join_all(written).await;
    for id in 1..=3 {
        let size = PART + usize::try_from(id).unwrap();
        assert_eq!(read(store, named(id)).await.unwrap().len(), size);
    }
}

pub(crate) async fn notes_lie_beside_snapshots(store: &dyn Store) {
    for id in 1..=3 {
        write(store, named(id), b"x").await.unwrap();
    }
    assert_eq!(store.read_note(named(2)).await.unwrap(), None);
    // One in place of another, as long as they may be, and none longer.
    for note in [b"{\"a\":1}".to_vec(), vec![b' '; NOTE_MAX], b"{}".to_vec()] {
        let note = Bytes::from(note);
        store.write_note(named(2), note.clone()).await.unwrap();
        assert_eq!(store.read_note(named(2)).await.unwrap(), Some(note));
    }
    let long = Bytes::from(vec![b' '; NOTE_MAX + 1]);
    store.write_note(named(3), long).await.unwrap_err();
    let noted: Vec<(u64, bool)> = (store.list().await.unwrap().iter())
        .map(|stored| (stored.name.id, stored.has_note))
        .collect();
    assert_eq!(noted, [(1, false), (2, true), (3, false)]);
    store.remove(named(2)).await.unwrap();
    assert_eq!(store.read_note(named(2)).await.unwrap(), None);
    assert_eq!(ids(store).await, [1, 3]);
}

pub(crate) async fn what_was_removed_is_gone(store: &dyn Store) {
    for id in 1..=3 {
        write(store, named(id), b"x").await.unwrap();
    }
    store.remove(named(2)).await.unwrap();
    store.remove(named(2)).await.unwrap();
    assert_eq!(ids(store).await, [1, 3]);
    let got = store.get(named(2)).await.map(|_| ());
    assert!(matches!(got, Err(StoreError::NotFound(_))), "{got:?}");
}

pub(crate) async fn a_thousand_and_more_are_listed_and_rotated(store: &dyn Store) {
    let all: Vec<u64> = (1_479_503_772_000_000_000..).take(1_050).collect();
    stream::iter(&all)
        .for_each_concurrent(16, |id| async move {
            write(store, named(*id), b"x").await.unwrap();
        })
        .await;
    assert_eq!(ids(store).await, all);
    let retention = Retention {
        newest: 1_020,
        ..Retention::default()
    };
    let names: Vec<Name> = all.iter().copied().map(named).collect();
    for expired in retention.expired(&names) {
        store.remove(expired).await.unwrap();
    }
    assert_eq!(ids(store).await, all[30..]);
}
