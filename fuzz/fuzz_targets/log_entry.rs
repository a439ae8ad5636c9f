//! A command as it stands in the log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match wire::compact::from_slice::<model::Entry>(bytes) {
        Ok(entry) => {
            // Not every spelling of a value is the one we write, but what we write reads back as the same.
            let written = wire::compact::to_vec(&entry).expect("what was read can be written");
            let again: model::Entry =
                wire::compact::from_slice(&written).expect("what was written can be read");
            assert_eq!(format!("{again:?}"), format!("{entry:?}"));
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
