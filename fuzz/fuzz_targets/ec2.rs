//! The pages of instances that EC2 sends, and its refusals.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent::fuzzing::read_ec2(bytes));
