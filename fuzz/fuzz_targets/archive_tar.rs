//! The tar inside of an archive: the gzip layer is put around it here, because no mutation would get past its checksum.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

libfuzzer_sys::fuzz_target!(|tar: &[u8]| {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(tar).expect("writing to memory");
    let bytes = gzip.finish().expect("writing to memory");
    if let Err(error) = wire::archive::verify(bytes.as_slice()) {
        let _ = error.to_string();
    }
});
