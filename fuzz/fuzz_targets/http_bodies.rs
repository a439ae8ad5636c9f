//! The JSON bodies of all requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| api::decode_bodies(bytes));
