//! The real snapshots that tests read.

use std::fs;
use std::path::PathBuf;

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
