//! What a Docker engine answers to a check that runs inside a container.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent::fuzzing::read_docker(bytes));
