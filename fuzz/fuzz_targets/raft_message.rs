//! What servers send each other for the log, and the small files that each keeps: votes, memberships, its identity.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    consensus::decode_message(bytes);
    consensus::decode_small(bytes);
});
