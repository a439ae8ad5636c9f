//! The state of a snapshot, all the way: what the check before a restore accepts can be restored, and what is saved
//! afterwards can be restored again.
#![no_main]

use model::{Command, Entry, RestoreBegin, RestoreChunk, RestoreCommit, Uuid};
use store::Store;
use store::archive::{Chunks, Unknown, verify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = verify(bytes, Unknown::Refuse) {
        let _ = error.to_string();
    }
    if let Some(saved) = restore_and_save(bytes, Unknown::Skip) {
        let again =
            restore_and_save(&saved, Unknown::Refuse).expect("what was saved can be restored");
        assert_eq!(again.len(), saved.len());
    }
});

/// Nothing if the state is refused.
fn restore_and_save(bytes: &[u8], unknown: Unknown) -> Option<Vec<u8>> {
    let verified = verify(bytes, unknown).ok()?;
    let id = Uuid::from_u128(1);
    let mut store = Store::new();
    let mut index = 0;
    let mut apply = |command| {
        index += 1;
        store.apply(index, 1, Entry { at_ms: 0, command }).result
    };
    let begin = RestoreBegin {
        id,
        last_index: verified.last_index,
        snapshot_index: 0,
        part: None,
    };
    // An index beyond all reason is refused here; the caller would have asked before.
    apply(Command::RestoreBegin(begin)).ok()?;
    let mut chunks = Chunks::open(bytes).expect("it was read before");
    let mut sequence = 0;
    while let Some(records) = chunks.next_chunk().expect("it was read before") {
        apply(Command::RestoreChunk(RestoreChunk {
            id,
            sequence,
            records,
        }))
        .expect("it was verified");
        sequence += 1;
    }
    assert_eq!(sequence, verified.chunks);
    let commit = RestoreCommit {
        id,
        chunks: verified.chunks,
        hash: verified.hash,
    };
    apply(Command::RestoreCommit(commit)).ok()?;
    store.publish();
    let view = store.freeze();
    let mut saved = Vec::new();
    let written = store::archive::write(&view, &mut saved).expect("writing to memory");
    assert_eq!(written, saved.len() as u64);
    assert_eq!(written, store::archive::size(&view));
    Some(saved)
}
