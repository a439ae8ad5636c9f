//! The file of a keyring, and a key as the configuration gives it.
#![no_main]

use gossip::Keyring;
use gossip::keyring::{KEYS_MAX, decode_keys, encode_key, parse_key};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        match parse_key(text) {
            Ok(key) => {
                let again = parse_key(&encode_key(&key)).expect("what was encoded can be parsed");
                assert_eq!(again, key);
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    }
    match decode_keys(bytes) {
        Ok(keys) if !keys.is_empty() => {
            let ring = Keyring::in_memory(keys.clone()).expect("every key was looked at");
            assert!(ring.list().len() <= KEYS_MAX);
            assert_eq!(ring.primary(), encode_key(&keys[0]));
        }
        Ok(_) => {}
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
