//! The files below the data directory: services, checks, and what was said of checks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent::fuzzing::read_file(bytes));
