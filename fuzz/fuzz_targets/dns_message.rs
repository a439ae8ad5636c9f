//! DNS messages, as clients send them and as recursors answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns::fuzzing::read_message(bytes));
