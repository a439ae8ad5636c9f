//! A configuration file of the snapshot agent.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(consul::command::speaks_to_snapshot_agent(bytes));
});
