use futures::stream;
use object_store::memory::InMemory;

use super::super::NOTE_MAX;
use super::*;

fn named(id: u64) -> Name {
    Name {
        id,
        encrypted: false,
    }
}

async fn read(store: &dyn Store, name: Name) -> Vec<u8> {
    let content = store.get(name).await.unwrap();
    let pieces: Vec<Bytes> = content.try_collect().await.unwrap();
    pieces.concat()
}

/// What every store promises.
async fn keeps_its_promises(store: &dyn Store) {
    assert_eq!(store.list().await.unwrap(), []);
    assert!(matches!(
        store.get(named(1)).await,
        Err(StoreError::NotFound(_))
    ));
    store.remove(named(1)).await.unwrap();

    // Shorter than a part, exactly some parts, and a little more.
    for (id, size) in [(3, 10), (1, 2 * PART), (2, 3 * PART + 1)] {
        let content: Vec<u8> = (0..size)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let mut upload = store.begin(named(id)).await.unwrap();
        for piece in content.chunks(1_000_003) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert!(
            store
                .list()
                .await
                .unwrap()
                .iter()
                .all(|stored| stored.name.id != id)
        );
        upload.publish().await.unwrap();
        assert!(read(store, named(id)).await == content);
    }
    let listed: Vec<(u64, u64)> = (store.list().await.unwrap().iter())
        .map(|stored| (stored.name.id, stored.size))
        .collect();
    assert_eq!(
        listed,
        [(1, 2 * PART as u64), (2, 3 * PART as u64 + 1), (3, 10)]
    );

    // Notes: there or not, another in place of one, no longer than they may be, gone with their snapshot.
    assert_eq!(store.read_note(named(2)).await.unwrap(), None);
    for note in [b"{\"a\":1}".to_vec(), vec![b' '; NOTE_MAX], Vec::new()] {
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

    let mut upload = store.begin(named(4)).await.unwrap();
    upload.write(Bytes::from(vec![7; 2 * PART])).await.unwrap();
    upload.abandon().await;
    let mut upload = store.begin(named(5)).await.unwrap();
    upload.write(Bytes::from_static(b"x")).await.unwrap();
    drop(upload);
    store.remove(named(2)).await.unwrap();
    assert_eq!(store.read_note(named(2)).await.unwrap(), None);
    let listed: Vec<u64> = store
        .list()
        .await
        .unwrap()
        .iter()
        .map(|stored| stored.name.id)
        .collect();
    assert_eq!(listed, [1, 3]);
}

#[tokio::test]
async fn a_bucket() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for stray in [
        "a/b/consul-1.snap.part",
        "a/b/deeper/consul-9.snap",
        "a/consul-8.snap",
        "a/bc/consul-7.snap",
    ] {
        memory
            .put(&Path::from(stray), Bytes::new().into())
            .await
            .unwrap();
    }
    let store = Objects::new(Arc::clone(&memory), "/a/b/", None, "memory".into()).unwrap();
    keeps_its_promises(&store).await;
}

#[tokio::test]
async fn a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = super::super::Local::new(&folder.path().join("made/when/needed"));
    keeps_its_promises(&store).await;
    // Nothing is left of what was broken off, and nothing is given a name twice.
    let left = std::fs::read_dir(folder.path().join("made/when/needed"))
        .unwrap()
        .count();
    assert_eq!(left, 2);
    let again = store.begin(named(1)).await.unwrap();
    assert!(again.publish().await.is_err());
}

#[tokio::test]
async fn one_name_for_all() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Objects::new(
        Arc::clone(&memory),
        "p",
        Some("backup/latest.snap"),
        "memory".into(),
    )
    .unwrap();
    for content in ["first", "second"] {
        let mut upload = store.begin(named(1)).await.unwrap();
        upload
            .write(Bytes::from_static(content.as_bytes()))
            .await
            .unwrap();
        upload.publish().await.unwrap();
    }
    assert_eq!(read(&store, named(9)).await, b"second");
    assert_eq!(store.list().await.unwrap(), []);
    let all: Vec<_> = memory.list(None).try_collect().await.unwrap();
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn a_thousand_and_more_are_listed() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    stream::iter(0..2500_u64)
        .for_each(|id| {
            let memory = Arc::clone(&memory);
            async move {
                memory
                    .put(&Path::from(format!("p/{}", named(id))), Bytes::new().into())
                    .await
                    .unwrap();
            }
        })
        .await;
    let store = Objects::new(memory, "p", None, "memory".into()).unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2500);
}
