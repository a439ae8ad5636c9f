//! Any state, redacted: what can be read comes out with as much of everything, can be read again, and has no secret of before.
#![no_main]

use std::io::Write;

use store::archive::{Record, Rules, is_known};
use wire::archive::{Compression, Meta, Writer, unpack};
use wire::msgpack::RecordReader;

libfuzzer_sys::fuzz_target!(|state: &[u8]| {
    let archive = archive(state);
    let mut out = Vec::new();
    let redacted = backup::redact(&archive[..], &mut out);
    let before = match (backup::digest(&archive[..]), redacted) {
        (Ok(before), Ok(_)) => before,
        (Err(_), Err(why)) => {
            let _ = why.to_string();
            return;
        }
        (before, redacted) => panic!("{before:?} but {redacted:?}"),
    };
    let after = backup::digest(&out[..]).expect("what was redacted can be read");
    assert_eq!(before.digest.counts, after.digest.counts);
    let difference =
        backup::diff(|| Ok(&archive[..]), || Ok(&archive[..])).expect("it was read before");
    assert!(difference.is_empty());
    let mut after = Vec::new();
    unpack(&out[..], &mut after).expect("it was read before");
    each_record(&after, |record| match record {
        Record::Register(registration) => {
            for check in registration.checks {
                assert!(is_filler(&check.output) && is_filler(&check.notes));
            }
        }
        Record::Kv(entry) => assert!(is_filler(entry.value)),
        Record::Acl(row) => assert!(row.id == model::ANONYMOUS || !holds(state, &row.id)),
        Record::Query(row) => {
            let token = row.token;
            assert!(token.is_empty() || token == model::ANONYMOUS || !holds(state, &token));
        }
        Record::Session(_) | Record::Tombstone(..) | Record::Coordinates(_) => {}
    });
});

fn archive(state: &[u8]) -> Vec<u8> {
    let meta = Meta {
        version: 1,
        size: i64::try_from(state.len()).expect("a short state"),
        ..Meta::default()
    };
    let mut writer = Writer::new(Vec::new(), &meta, 0, Compression::default()).expect("memory");
    writer.write_all(state).expect("as long as was said");
    writer.finish().expect("memory")
}

fn each_record(state: &[u8], mut each: impl FnMut(Record<'_>)) {
    let mut reader = RecordReader::open(state).expect("it was read before");
    let mut rules = Rules::default();
    while let Some(record) = reader.next_record().expect("it was read before") {
        assert!(is_known(record.kind));
        each(
            rules
                .take(record.kind, record.bytes)
                .expect("it was read before"),
        );
    }
}

fn is_filler(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == b'x')
}

fn holds(state: &[u8], text: &[u8]) -> bool {
    state.windows(text.len()).any(|window| window == text)
}
