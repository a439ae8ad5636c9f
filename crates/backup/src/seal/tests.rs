//! Round trips, damage of every kind, and what real tools wrote.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, executor::block_on, stream};

use super::*;
use crate::fixtures;

/// A key pair of no use to anybody, as age-keygen wrote it.
const KEYGEN: &str = "# created: 2026-11-23T02:10:00Z\n\
    # public key: age13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf\n\
    AGE-SECRET-KEY-1RJ2JAYD44W0XMDYKVDGN6E24XLW70CL8QYWNYQM8FU9RZGTQJH5S8A9ESF\n";

fn seal(bytes: &[u8], recipients: &[Recipient]) -> Vec<u8> {
    seal_in_pieces(bytes, 1000, recipients)
}

fn seal_in_pieces(bytes: &[u8], size: usize, recipients: &[Recipient]) -> Vec<u8> {
    let pieces: Vec<io::Result<Bytes>> = bytes
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let pieces: Vec<Bytes> =
        block_on(sealed(stream::iter(pieces).boxed(), recipients).try_collect()).unwrap();
    pieces.concat()
}

fn open(bytes: &[u8], identities: Option<&Identities>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    Opened::new(bytes, identities)?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// The same file, made to be text.
fn armored(bytes: &[u8]) -> Vec<u8> {
    let mut writer =
        age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn identities(text: &str) -> Result<Identities, BadIdentities> {
    Identities::read(text.as_bytes())
}

fn other() -> Identities {
    identities("AGE-SECRET-KEY-1GA2NNJX39KF6T0KF4VV65M55DV78GK6G4ZQ2ZMPKMU3PGF9JAMAS23EYNK")
        .unwrap()
}

#[test]
fn what_was_sealed_is_opened_again() {
    let (one, two) = (Identities::generate(), Identities::generate());
    let recipients = [one.recipients(), two.recipients()].concat();
    for (name, bytes) in fixtures::sound() {
        let sealed = seal(&bytes, &recipients);
        assert!(sealed.starts_with(b"age-encryption.org/v1\n"), "{name}");
        for identities in [&one, &two] {
            assert_eq!(open(&sealed, Some(identities)).unwrap(), bytes, "{name}");
        }
        assert_eq!(
            open(&armored(&sealed), Some(&one)).unwrap(),
            bytes,
            "{name}"
        );
        // What is not encrypted passes, whoever reads it.
        assert_eq!(open(&bytes, None).unwrap(), bytes, "{name}");
        assert_eq!(open(&bytes, Some(&one)).unwrap(), bytes, "{name}");
        let opened = Opened::new(&sealed[..], Some(&one)).unwrap();
        assert_eq!(
            crate::prove(opened).unwrap(),
            crate::prove(&bytes[..]).unwrap(),
            "{name}"
        );
    }
}

/// Release 1.1.1 of age wrote these, the second with `-a`.
#[test]
fn what_age_wrote_is_opened() {
    let one = identities(KEYGEN).unwrap();
    let plain = fixtures::snapshot("empty.snap");
    for sealed in [
        &include_bytes!("by-age/empty.snap.age")[..],
        include_bytes!("by-age/empty.snap.txt"),
    ] {
        assert_eq!(open(sealed, Some(&one)).unwrap(), plain);
    }
}

/// Lengths around those of a chunk, in pieces of lengths that don't fit them.
#[test]
fn every_length_comes_back() {
    const CHUNK: usize = 64 << 10;
    let one = Identities::generate();
    let content: Vec<u8> = (0..=u8::MAX).cycle().take(9 * CHUNK).collect();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 9 * CHUNK] {
        for piece in [4096, CHUNK - 1, 5 * CHUNK, 9 * CHUNK] {
            let sealed = seal_in_pieces(&content[..length], piece, &one.recipients());
            assert_eq!(
                open(&sealed, Some(&one)).unwrap(),
                content[..length],
                "{length} {piece}"
            );
        }
    }
}

#[test]
fn the_right_identity_is_asked_for() {
    let one = Identities::generate();
    let sealed = seal(b"a snapshot", &one.recipients());
    for sealed in [armored(&sealed), sealed] {
        let why = |identities| open(&sealed, identities).unwrap_err().to_string();
        assert_eq!(why(None), "this snapshot is encrypted; give -identity FILE");
        assert_eq!(
            why(Some(&other())),
            "none of the identities opens this snapshot; it was encrypted to other recipients"
        );
    }
}

/// Every bit of a small file, and of a large one every bit of its header and ends, and of places between.
#[test]
fn every_flipped_bit_is_refused() {
    let one = Identities::generate();
    for (name, places) in [("empty.snap", usize::MAX), ("large-10k.snap", 400)] {
        let bytes = fixtures::snapshot(name);
        let sealed = seal(&bytes, &one.recipients());
        let step = (sealed.len() / places).max(1);
        let edges = (0..400).chain(sealed.len() - 100..sealed.len());
        let between = (0..sealed.len()).step_by(step);
        for place in edges.chain(between).filter(|place| *place < sealed.len()) {
            // A large file has all its bits flipped, but not each at each place.
            let bits = if step == 1 {
                0..8
            } else {
                place % 8..place % 8 + 1
            };
            for bit in bits {
                let mut flipped = sealed.clone();
                flipped[place] ^= 1 << bit;
                let refused = match Opened::new(&flipped[..], Some(&one)) {
                    Err(_) => true,
                    Ok(mut opened) if opened.is_sealed() => {
                        io::copy(&mut opened, &mut io::sink()).is_err()
                    }
                    // The very first bytes say that it is encrypted at all: without them it is nothing, and no archive.
                    Ok(opened) => crate::prove(opened).is_err(),
                };
                assert!(refused, "{name}: {place} {bit}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_text_is_refused_or_says_the_same() {
    let one = Identities::generate();
    let bytes = fixtures::snapshot("empty.snap");
    let text = armored(&seal(&bytes, &one.recipients()));
    let mut refused = 0;
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[place] ^= 1 << bit;
            match Opened::new(&flipped[..], Some(&one)) {
                Err(_) => refused += 1,
                Ok(opened) if !opened.is_sealed() => {
                    crate::prove(opened).unwrap_err();
                    refused += 1;
                }
                Ok(mut opened) => {
                    let mut plain = Vec::new();
                    match opened.read_to_end(&mut plain) {
                        Err(_) => refused += 1,
                        // The last line may end otherwise.
                        Ok(_) => assert_eq!(plain, bytes, "{place} {bit}"),
                    }
                }
            }
        }
    }
    assert!(
        refused >= 8 * text.len() - 16,
        "{refused} of {}",
        8 * text.len()
    );
}

#[test]
fn every_cut_is_refused() {
    let one = Identities::generate();
    let bytes = fixtures::snapshot("three-servers.snap");
    let sealed = seal(&bytes, &one.recipients());
    for end in 4..sealed.len() {
        let why = open(&sealed[..end], Some(&one)).unwrap_err().to_string();
        assert!(
            why.starts_with("the encrypted snapshot is "),
            "{end}: {why}"
        );
    }
    let text = armored(&sealed);
    // The line break at the end is nothing that could be missed.
    for end in 4..text.len() - 1 {
        open(&text[..end], Some(&one)).unwrap_err();
    }
    // Whole chunks that are missing at the end are missed too.
    let long = seal(&vec![7; 3 << 16], &one.recipients());
    let header = long.len() - 3 * ((64 << 10) + 16);
    for chunks in 0..3 {
        open(&long[..header + chunks * ((64 << 10) + 16)], Some(&one)).unwrap_err();
    }
}

#[test]
fn what_follows_is_refused() {
    let one = Identities::generate();
    for length in [0, 10, 64 << 10] {
        let sealed = seal(&vec![1; length], &one.recipients());
        for more in [&b"\0"[..], b"\n", &sealed, &[0; 70_000]] {
            open(&[&sealed, more].concat(), Some(&one)).unwrap_err();
        }
        open(&[&armored(&sealed), &b"x"[..]].concat(), Some(&one)).unwrap_err();
    }
}

/// Once it failed it doesn't go on behind the damage.
#[test]
fn a_failure_lasts() {
    let one = Identities::generate();
    let mut sealed = seal(&vec![1; 5 << 16], &one.recipients());
    let middle = sealed.len() / 2;
    sealed[middle] ^= 1;
    let mut opened = Opened::new(&sealed[..], Some(&one)).unwrap();
    opened.read_to_end(&mut Vec::new()).unwrap_err();
    opened.read(&mut [0; 100]).unwrap_err();
    opened.read(&mut [0; 100]).unwrap_err();
}

/// Claims and floods in a header, or in text, cost nothing.
#[test]
fn nothing_is_believed_to_be_long() {
    let one = Identities::generate();
    let endless = |line: &'static [u8]| {
        let mut first = true;
        std::iter::from_fn(move || {
            Some(if std::mem::take(&mut first) {
                &b"age-encryption.org/v1\n"[..]
            } else {
                line
            })
        })
    };
    for line in [&b"-> X25519 a\n\n"[..], b"->", b"x", b"\n"] {
        let why = Opened::new(Pieces(endless(line), b""), Some(&one)).unwrap_err();
        assert!(matches!(why, SealError::Header), "{why}");
    }
    let mut first = true;
    let text = std::iter::from_fn(move || {
        Some(if std::mem::take(&mut first) {
            &b"-----BEGIN AGE ENCRYPTED FILE-----\n"[..]
        } else {
            b"AAAA"
        })
    });
    let why = Opened::new(Pieces(text, b""), Some(&one)).unwrap_err();
    assert!(matches!(why, SealError::Damaged), "{why}");
}

/// Reads what an iterator gives.
struct Pieces<I>(I, &'static [u8]);

impl<I: Iterator<Item = &'static [u8]>> Read for Pieces<I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.next().unwrap_or_default();
        }
        self.1.read(into)
    }
}

#[test]
fn passphrases_and_later_versions_are_told_apart() {
    let one = Identities::generate();
    let mut recipient = age::scrypt::Recipient::new("a passphrase".to_owned().into());
    recipient.set_work_factor(1);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as _)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(b"text").unwrap();
    let sealed = writer.finish().unwrap();
    for identities in [None, Some(&one)] {
        assert!(matches!(
            Opened::new(&sealed[..], identities),
            Err(SealError::Passphrase)
        ));
    }
    let later = b"age-encryption.org/v2\nand so on, whatever that will be\n";
    assert!(matches!(
        Opened::new(&later[..], Some(&one)),
        Err(SealError::Version)
    ));
    // Files of identities may be protected themselves.
    assert!(matches!(
        Identities::read(&sealed[..]),
        Err(BadIdentities::Protected)
    ));
    assert!(matches!(
        Identities::read(&armored(&sealed)[..]),
        Err(BadIdentities::Protected)
    ));
}

#[test]
fn an_error_on_the_way_ends_what_is_sealed() {
    let one = Identities::generate();
    let pieces = vec![
        Ok(Bytes::from(vec![1; 200_000])),
        Err(io::Error::other("the server is gone")),
    ];
    let mut sealed = sealed(stream::iter(pieces).boxed(), &one.recipients());
    let (bytes, why) = block_on(async {
        let mut bytes = Vec::new();
        loop {
            match sealed.next().await.unwrap() {
                Ok(piece) => bytes.extend(piece),
                Err(why) => break (bytes, why),
            }
        }
    });
    assert_eq!(why.to_string(), "the server is gone");
    assert!(block_on(sealed.next()).is_none());
    assert_eq!(
        open(&bytes, Some(&one)).unwrap_err().to_string(),
        "the encrypted snapshot is cut off"
    );
}

#[test]
fn nothing_is_sealed_for_nobody() {
    let content = stream::iter([Ok(Bytes::from_static(b"secret"))]).boxed();
    let pieces: Vec<_> = block_on(sealed(content, &[]).collect());
    assert_eq!(pieces.len(), 1);
    assert_eq!(
        pieces[0].as_ref().unwrap_err().to_string(),
        "there is nobody to encrypt the snapshot to"
    );
}

#[test]
fn recipients_are_read() {
    let one = identities(KEYGEN).unwrap();
    let text = "age13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf";
    let recipient: Recipient = text.parse().unwrap();
    assert_eq!(recipient.to_string(), text);
    assert_eq!(one.recipients(), std::slice::from_ref(&recipient));
    assert_eq!(
        format!(" {text}\n").parse::<Recipient>().unwrap(),
        recipient
    );
    let cases = [
        (KEYGEN.lines().last().unwrap(), BadRecipient::Identity),
        (
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFJf",
            BadRecipient::Ssh,
        ),
        ("age1pq1qqqq", BadRecipient::Kind),
        ("age1yubikey1qqqq", BadRecipient::Kind),
        (&text[..50], BadRecipient::Mistyped),
        ("ops@example.com", BadRecipient::Mistyped),
        ("", BadRecipient::Mistyped),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Recipient>().unwrap_err(), expected, "{text}");
    }
}

#[test]
fn identities_are_read() {
    identities(KEYGEN).unwrap();
    assert_eq!(
        identities(&KEYGEN.replace('\n', "\r\n")).unwrap().0.len(),
        1
    );
    assert_eq!(identities(&KEYGEN.repeat(3)).unwrap().0.len(), 3);
    let secret = KEYGEN.lines().last().unwrap();
    let cases = [
        (
            "",
            "there is no identity in it, which would begin with AGE-SECRET-KEY-1",
        ),
        (
            "# nothing\n\n",
            "there is no identity in it, which would begin with AGE-SECRET-KEY-1",
        ),
        (
            &secret[..70],
            "line 1: this is no identity, or not a whole one",
        ),
        (
            "\nage13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf",
            "line 2: this is a recipient, to which one encrypts; what decrypts begins with AGE-SECRET-KEY-1",
        ),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            "line 1: this is a key of another program; identities are what age-keygen makes",
        ),
        (
            "AGE-PLUGIN-YUBIKEY-1QQQQ",
            "line 1: this identity is not of age's own classic kind; decrypt the snapshot with age itself",
        ),
        (
            "\u{1f511}",
            "line 1: this is no identity, or not a whole one",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(
            identities(text).unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
    let long = io::repeat(b'#');
    assert!(matches!(
        Identities::read(long),
        Err(BadIdentities::TooLong)
    ));
    let missing = Identities::from_file(std::path::Path::new("/nonexistent/key")).unwrap_err();
    assert!(
        missing.to_string().starts_with("it can't be read: "),
        "{missing}"
    );
}

/// Neither what is shown for debugging nor an error holds a secret.
#[test]
fn what_is_made_is_read() {
    let made = Identities::generate();
    let file = made.file(jiff::Timestamp::UNIX_EPOCH);
    let text = file.expose_secret();
    let public = format!("# public key: {}", made.recipients()[0]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["# created: 1970-01-01T00:00:00Z", &public]);
    assert_eq!(identities(text).unwrap().recipients(), made.recipients());
}

#[test]
fn secrets_are_not_shown() {
    let secret = KEYGEN.lines().last().unwrap();
    let secret_part = &secret[30..50];
    let shown = format!("{:?}", identities(KEYGEN).unwrap());
    assert!(
        shown.contains("age13zkp9lpp") && !shown.contains("SECRET"),
        "{shown}"
    );
    let broken = identities(&secret.replace(&secret[50..52], "b")).unwrap_err();
    assert!(
        !format!("{broken:?} {broken}").contains(secret_part),
        "{broken:?}"
    );
    let misplaced = secret.parse::<Recipient>().unwrap_err();
    assert!(!format!("{misplaced:?} {misplaced}").contains(secret_part));
}
