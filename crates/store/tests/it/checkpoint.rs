//! The state exactly as it is, out and in.

use std::io;

use model::{Command, KvOp, KvVerb, Text};
use proptest::prelude::*;
use store::checkpoint::{self, LoadError};
use store::{Store, View};

use crate::archive::{fixture, restored};

pub(crate) fn checkpoint(view: &View) -> Vec<u8> {
    let mut bytes = Vec::new();
    checkpoint::write(view, &mut bytes).unwrap();
    bytes
}

pub(crate) fn installed(bytes: &[u8]) -> Result<Store, LoadError> {
    let mut store = Store::new();
    store.install(&mut &bytes[..])?;
    Ok(store)
}

#[test]
fn out_and_in_changes_nothing() {
    let empty = checkpoint(&Store::new().freeze());
    assert_eq!(checkpoint(&installed(&empty).unwrap().freeze()), empty);
    for name in ["full-0.7.1.snap", "large-10k.snap", "from-1.4.0.snap"] {
        let view = restored(&fixture(name));
        let bytes = checkpoint(&view);
        let again = installed(&bytes).unwrap().freeze();
        assert_eq!(checkpoint(&again), bytes, "{name}");
        assert_eq!(again.floor(), view.floor());
        assert_eq!(again.log_index(), view.log_index());
        assert_eq!(again.key_count(), view.key_count());
    }
}

#[test]
fn a_row_may_be_larger_than_a_frame() {
    let mut store = Store::new();
    let entry = model::Entry {
        at_ms: 1,
        command: Command::Kv(KvOp {
            verb: KvVerb::Set,
            key: Text::from("k"),
            value: Text::from(vec![7; 3 << 20]),
            flags: 0,
        }),
    };
    store.apply(1, 1, entry).result.unwrap();
    let bytes = checkpoint(&store.freeze());
    assert_eq!(checkpoint(&installed(&bytes).unwrap().freeze()), bytes);
}

#[test]
fn whatever_is_missing_or_flipped_is_noticed() {
    let bytes = checkpoint(&restored(&fixture("empty.snap")));
    for len in 0..bytes.len() {
        assert!(installed(&bytes[..len]).is_err(), "{len}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(installed(&flipped).is_err(), "{at}.{bit}");
        }
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    assert!(installed(&twice).is_err());
}

/// Sound frames around something else.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = wire::frame::FrameWriter::new(Vec::new());
    out.write_frame(payload).unwrap();
    out.into_inner()
}

#[test]
fn says_what_is_wrong() {
    let header = wire::compact::to_vec(&("consul checkpoint", 1)).unwrap();
    let later = wire::compact::to_vec(&("consul checkpoint", 2)).unwrap();
    let other = wire::compact::to_vec(&("something else", 1)).unwrap();
    for (bytes, expected) in [
        (Vec::new(), "this is no checkpoint"),
        (framed(b"text"), "this is no checkpoint"),
        (framed(&other), "this is no checkpoint"),
        (
            framed(&later),
            "the checkpoint has version 2, this program reads version 1",
        ),
        (
            framed(&header),
            "the checkpoint is torn: it ends after 0 records, and not with its last",
        ),
        (
            framed(&[&header[..], &[200, 0]].concat()),
            "the checkpoint is damaged: record 1 is of the unknown type 200",
        ),
        (
            framed(&[&header[..], &[1, 0]].concat()),
            "the checkpoint is damaged: record 1 of type 1: decoding a value: ",
        ),
        (
            framed(&[&header[..], &[255, 1]].concat()),
            "the checkpoint is torn: it ends after 0 records, and not with its last",
        ),
        (
            framed(&header)[..9].to_vec(),
            "reading the checkpoint: the frame at byte 0 is torn: its end is missing",
        ),
        (
            b"no frame at all".to_vec(),
            "reading the checkpoint: the frame at byte 0 is damaged: ",
        ),
    ] {
        let error = installed(&bytes).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_failed_install_leaves_the_store_as_it_was() {
    let view = restored(&fixture("full-0.7.1.snap"));
    let bytes = checkpoint(&view);
    let mut store = installed(&bytes).unwrap();
    let torn = &bytes[..bytes.len() - 1];
    assert!(store.install(&mut &torn[..]).is_err());
    assert_eq!(checkpoint(&store.freeze()), bytes);
}

#[test]
fn errors_of_the_disk_are_passed_on() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = checkpoint::write(&Store::new().freeze(), &mut Full).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        prop_assert!(installed(&bytes).is_err());
        prop_assert!(installed(&framed(&bytes)).is_err());
    }

    /// Sound frames, a sound header, and behind it what nobody wrote.
    #[test]
    fn any_records_are_survived(records in prop::collection::vec((0_u8..13, any::<Vec<u8>>()), 0..8)) {
        let mut payload = wire::compact::to_vec(&("consul checkpoint", 1)).unwrap();
        for (kind, bytes) in records {
            payload.push(kind);
            payload.extend(bytes);
        }
        let _ = installed(&framed(&payload));
    }

    /// No entry of the log panics its reader.
    #[test]
    fn any_log_entry_is_survived(bytes: Vec<u8>) {
        let _ = wire::compact::from_slice::<model::Entry>(&bytes);
    }
}
