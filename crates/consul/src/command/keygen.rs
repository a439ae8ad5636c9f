//! `consul keygen`.

use backup::seal::{ExposeSecret, Identities};
use jiff::Timestamp;

use super::OK;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "keygen",
    arguments: "",
    summary: "Makes a new key for the encryption of gossip or snapshots",
    about: "Prints a new random key for -encrypt. It is a secret that all members of a cluster share.\n\n\
            With -snapshot it prints an identity, which reads encrypted snapshots, as a file for -identity; the public \
            key in it is what they are encrypted to. Keep it where the snapshots are not.",
    example: "consul keygen\nconsul keygen -snapshot > backup.key",
    flags: &[&[Flag::switch(
        "snapshot",
        false,
        "Makes an identity for encrypted snapshots instead.",
    )]],
};

/// As long as the original's: AES with 128 bits.
const KEY_SIZE: usize = 16;

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    if parsed.switch("snapshot") {
        let file = Identities::generate().file(Timestamp::now());
        console.say(file.expose_secret().trim_end());
        return OK;
    }
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

    #[test]
    fn an_identity_is_a_file_of_age() {
        let made = consul(&["keygen", "-snapshot"], b"", &[]);
        let lines: Vec<&str> = made.output.lines().collect();
        assert_eq!(made.status, 0);
        assert!(lines[1].starts_with("# public key: age1"), "{lines:?}");
        assert!(lines[2].starts_with("AGE-SECRET-KEY-1"), "{lines:?}");
    }
}
