//! The real snapshots that tests read.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use store::archive::Record;
use wire::archive::{Compression, Meta, Writer};
use wire::msgpack::Encoder;

/// One of them.
pub(crate) fn snapshot(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/snapshots")
}

/// Those that can be restored, by name.
pub(crate) fn sound() -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "snap"))
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .filter(|(_, bytes)| crate::prove(&bytes[..]).is_ok())
        .collect();
    found.sort();
    assert!(found.len() > 2);
    found
}

/// An archive of these records.
pub(crate) fn archive_of(records: &[Record<'_>]) -> Vec<u8> {
    let mut state = Vec::new();
    Encoder::new(&mut state)
        .map_len(1)
        .raw(b"LastIndex")
        .uint(9);
    for record in records {
        record.encode(&mut state);
    }
    let meta = Meta {
        version: 1,
        size: i64::try_from(state.len()).unwrap(),
        ..Meta::default()
    };
    let mut writer = Writer::new(Vec::new(), &meta, 0, Compression::default()).unwrap();
    writer.write_all(&state).unwrap();
    writer.finish().unwrap()
}
