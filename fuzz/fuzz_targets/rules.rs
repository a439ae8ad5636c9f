//! The rules of a token, HCL or JSON, and the policy that they make.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| server::fuzzing::read_rules(bytes));
