//! A stream of state in the original's MessagePack: cut into records, and each walked through in every way.
#![no_main]

use wire::msgpack::{Decoder, RecordReader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut reader = match RecordReader::open(bytes) {
        Ok(reader) => reader,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    walk(reader.header());
    loop {
        match reader.next_record() {
            Ok(Some(record)) => walk(record.bytes),
            Ok(None) => break,
            Err(error) => {
                let _ = error.to_string();
                break;
            }
        }
    }
});

/// What the reader cut out is one object, whole; whatever else is asked of it is answered without a panic.
fn walk(object: &[u8]) {
    let mut whole = Decoder::new(object);
    whole.skip().expect("a record is sound as structure");
    whole.finish().expect("a record is one object");

    let mut decoder = Decoder::new(object);
    while !decoder.is_empty() {
        let before = decoder.position();
        let _ = decoder.nil();
        let _ = decoder.raw();
        let _ = decoder.bytes();
        let _ = decoder.uint();
        let _ = decoder.int();
        let _ = decoder.f64();
        let _ = decoder.bool();
        let _ = decoder.map();
        let _ = decoder.array();
        if decoder.position() == before && decoder.skip().is_err() {
            break;
        }
    }
}
