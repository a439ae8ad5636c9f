//! `consul keygen`.

use super::OK;
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "keygen",
    arguments: "",
    summary: "Makes a new key for the encryption of gossip",
    about: "Prints a new random key for -encrypt. It is a secret that all members of a cluster share.",
    example: "consul keygen",
    flags: &[],
};

/// As long as the original's: AES with 128 bits.
const KEY_SIZE: usize = 16;

pub(super) fn run(_: &Parsed, console: &mut Console<'_>) -> u8 {
    let key: [u8; KEY_SIZE] = rand::random();
    console.say(base64_simd::STANDARD.encode_to_string(key));
    OK
}

#[cfg(test)]
mod tests {
    use crate::console::tests::consul;

    #[test]
    fn prints_another_key_each_time() {
        let (one, two) = (consul(&["keygen"], b"", &[]), consul(&["keygen"], b"", &[]));
        let decoded = base64_simd::STANDARD
            .decode_to_vec(one.output.trim())
            .unwrap();
        assert_eq!((one.status, decoded.len()), (0, 16));
        assert_ne!(one.output, two.output);
    }
}
