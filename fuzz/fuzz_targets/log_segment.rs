//! A file of the log, as it lies on disk after whatever happened to it.
#![no_main]

/// Bytes of a segment's header, and of a record before its payload; `docs/log.md`.
const SEGMENT_HEADER: usize = 64;
const RECORD_HEADER: usize = 32;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    consensus::decode_segment(bytes);
    consensus::decode_records(bytes);
    // No mutation would get past the checksums, so the second time they are made right, as far as the records go.
    let mut mended = bytes.to_vec();
    if mend(&mut mended).is_some() {
        consensus::decode_segment(&mended);
    }
});

/// Makes the checksums of the header and of all records right; nothing if there is no room for a header.
fn mend(bytes: &mut [u8]) -> Option<()> {
    let (header, mut rest) = bytes.split_first_chunk_mut::<SEGMENT_HEADER>()?;
    let (sealed, checksum) = header.split_at_mut(SEGMENT_HEADER - 4);
    checksum.copy_from_slice(&crc32fast::hash(sealed).to_le_bytes());
    let sequence: [u8; 8] = sealed[8..16].try_into().ok()?;
    while rest.len() >= RECORD_HEADER {
        let length = u32::from_le_bytes(rest[4..8].try_into().ok()?) as usize;
        let end = RECORD_HEADER
            .checked_add(length)
            .filter(|end| *end <= rest.len());
        // A record that is cut off stays as it is: that is one more case.
        let Some(end) = end else { break };
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&sequence);
        checksum.update(&rest[4..end]);
        rest[..4].copy_from_slice(&checksum.finalize().to_le_bytes());
        let next = end.next_multiple_of(8).min(rest.len());
        rest = &mut rest[next..];
    }
    Some(())
}
