//! Names that are looked up, and what they ask for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns::fuzzing::read_name(bytes));
