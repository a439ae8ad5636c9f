//! What members ask each other over gossip's connections, and what they answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gossip::decode_stream(bytes);
});
