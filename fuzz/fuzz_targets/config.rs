//! A configuration file, down to the settings it makes.
#![no_main]

use consul::config::{decode, settings};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(document) => {
            if let Err(error) = settings::validate(&document, true, &Default::default()) {
                let _ = error.to_string();
            }
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
