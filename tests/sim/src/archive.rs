//! Snapshots made up for the simulation: each tells by every one of its rows which restore it is.

use std::io::Write;

use wire::archive::{Compression, Meta, Writer};
use wire::msgpack::Encoder;

use crate::history::{Generation, Row};

/// Keys that clients write.
pub const KEYS: u32 = 8;

/// Keys that only restores write, to see whether one came whole.
pub const MARKS: usize = 12;

/// Values of restored rows begin here; clients' values lie below.
const VALUES: u64 = 1 << 40;

/// Length of the marks' values in a small archive, and in one that takes several entries of the log.
const MARK_BYTES: [usize; 2] = [24, 200_000];

/// What a restore puts in the place of a client's key.
pub fn restored(generation: Generation, key: u32) -> Option<Row> {
    // Some are not in the archive, so that a restore also removes.
    (!(u64::from(key) + generation).is_multiple_of(3)).then(|| Row {
        value: VALUES + generation,
        modify: base(generation) + u64::from(key),
        session: None,
        lock_index: 0,
    })
}

/// Where an archive's indexes begin: now behind what the servers have come to, now ahead.
fn base(generation: Generation) -> u64 {
    if generation.is_multiple_of(2) {
        40
    } else {
        20_000 * generation
    }
}

/// The name of a client's key.
pub fn key_name(key: u32) -> String {
    format!("key/{key}")
}

/// The archive of a restore; every few of them are large.
pub fn archive(generation: Generation) -> Vec<u8> {
    let base = base(generation);
    let newest = base + 100;
    let is_large = generation.is_multiple_of(5);
    let zeros = "0".repeat(MARK_BYTES[usize::from(is_large)]);
    let mark = format!("{zeros}{generation}");
    let mut state = Vec::new();
    Encoder::new(&mut state)
        .map_len(1)
        .raw(b"LastIndex")
        .uint(newest);
    for number in 0..MARKS {
        row(&mut state, &format!("gen/{number:02}"), &mark, base);
    }
    for key in 0..KEYS {
        if let Some(found) = restored(generation, key) {
            row(
                &mut state,
                &key_name(key),
                &found.value.to_string(),
                found.modify,
            );
        }
    }
    let meta = Meta {
        version: 1,
        id: format!("1-{newest}-0"),
        index: newest,
        term: 1,
        size: i64::try_from(state.len()).expect("an archive is small"),
        ..Meta::default()
    };
    let compression = Compression {
        workers: 0,
        ..Compression::default()
    };
    let written = Writer::new(Vec::new(), &meta, 0, compression).and_then(|mut writer| {
        writer.write_all(&state)?;
        writer.finish()
    });
    written.expect("memory takes all that is written")
}

fn row(state: &mut Vec<u8>, key: &str, value: &str, index: u64) {
    const KIND: u8 = 2;
    state.push(KIND);
    Encoder::new(state)
        .map_len(7)
        .raw(b"CreateIndex")
        .uint(index)
        .raw(b"Flags")
        .uint(0)
        .raw(b"Key")
        .raw(key.as_bytes())
        .raw(b"LockIndex")
        .uint(0)
        .raw(b"ModifyIndex")
        .uint(index)
        .raw(b"Session")
        .raw(b"")
        .raw(b"Value")
        .raw(value.as_bytes());
}
