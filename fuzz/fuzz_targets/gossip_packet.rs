//! What is inside of a gossip datagram, and datagrams with their frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gossip::decode_content(bytes);
    let _ = gossip::decode_packet("lan:dc1", bytes);
});
