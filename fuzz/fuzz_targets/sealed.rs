//! A snapshot's file that may be encrypted: as it comes, and a sound one with some of its bytes changed.
#![no_main]

use std::io::{self, Read};

use backup::seal::{Identities, Opened};

/// Opens what is in `sealed.age`, and nothing else in the world.
const IDENTITY: &str = "AGE-SECRET-KEY-1RJ2JAYD44W0XMDYKVDGN6E24XLW70CL8QYWNYQM8FU9RZGTQJH5S8A9ESF";
const SEALED: &[u8] = include_bytes!("../sealed.age");
const PLAIN: &[u8] = include_bytes!("../../fixtures/snapshots/empty.snap");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let identities = Identities::read(IDENTITY.as_bytes()).expect("an identity");
    for identities in [None, Some(&identities)] {
        match Opened::new(bytes, identities) {
            Ok(mut opened) => {
                let _ = io::copy(&mut opened, &mut io::sink());
            }
            Err(why) => {
                let _ = why.to_string();
            }
        }
    }
    // Keys are read from files too.
    if let Err(why) = Identities::read(bytes) {
        let _ = why.to_string();
    }
    let changed = change(bytes);
    let mut plain = Vec::new();
    let opened = Opened::new(&changed[..], Some(&identities)).map_err(io::Error::from);
    if let Ok(mut opened) = opened
        && opened.is_sealed()
        && opened.read_to_end(&mut plain).is_ok()
    {
        assert_eq!(plain, PLAIN);
        assert_eq!(changed, SEALED);
    }
});

/// The sound file after so many edits of three bytes each: where, which may be an end, and what.
fn change(edits: &[u8]) -> Vec<u8> {
    let mut changed = SEALED.to_vec();
    for edit in edits.as_chunks().0 {
        let [high, low, with] = *edit;
        let place = usize::from(u16::from_be_bytes([high, low]));
        match changed.get_mut(place) {
            Some(byte) => *byte ^= with,
            None if high & 0x80 == 0 => changed.truncate(usize::from(low) * 4),
            None => changed.push(with),
        }
    }
    changed
}
