//! User events as gossip carries them, from its name to whom it is for, and what remote exec reads from one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    let Some((name, envelope)) = rest.split_at_checked(usize::from(*length)) else {
        return;
    };
    if let Ok(name) = std::str::from_utf8(name) {
        agent::fuzzing::read_event(name, envelope);
    }
});
