//! A request as it comes from a socket: head, body in its framing, path and parameters.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| api::decode_request(bytes));
