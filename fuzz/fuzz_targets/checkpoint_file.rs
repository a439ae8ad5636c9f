//! The file around a checkpoint: its header and its checksummed blocks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    consensus::decode_checkpoint(bytes);
});
