//! Checksummed frames, as a checkpoint has them on disk. What the reader gives out, written again, is what it read.
#![no_main]

use wire::frame::{FrameReader, FrameWriter};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut writer = FrameWriter::new(Vec::new());
    let mut reader = FrameReader::new(bytes);
    loop {
        match reader.next_frame() {
            Ok(Some(payload)) => writer.write_frame(payload).expect("writing to memory"),
            Ok(None) => break,
            Err(error) => {
                let _ = error.to_string();
                break;
            }
        }
    }
    let written = writer.into_inner();
    assert!(bytes.starts_with(&written));
});
