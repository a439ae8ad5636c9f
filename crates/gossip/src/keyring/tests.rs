use std::os::unix::fs::PermissionsExt;
use std::thread;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

const FIRST: &str = "AAECAwQFBgcICQoLDA0ODw==";
const SECOND: &str = "EBESExQVFhcYGRobHB0eHw==";
const THIRD: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn chance() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn key(text: &str) -> Vec<u8> {
    parse_key(text).unwrap()
}

fn ring(texts: &[&str]) -> Keyring {
    Keyring::in_memory(texts.iter().map(|text| key(text)).collect()).unwrap()
}

fn said(result: Result<(), KeyringError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn base64_is_read_as_go_reads_it() {
    let good: [(&str, &[u8]); 9] = [
        ("", b""),
        ("\n", b""),
        ("AAA=\n", b"\0\0"),
        ("AA\r\nAA\n", b"\0\0\0"),
        ("AA==", b"\0"),
        ("AA=\n=", b"\0"),
        ("AB==", b"\0"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("Y29uc3Vs", b"consul"),
    ];
    for (text, bytes) in good {
        assert_eq!(decode_base64(text).unwrap(), bytes, "{text:?}");
    }
    let bad = [
        ("!!!!", 0),
        ("====", 0),
        ("x===", 1),
        ("=AAA", 0),
        ("A=AA", 1),
        ("AA=A", 2),
        ("AA==A", 4),
        ("AAA=AAAA", 4),
        ("AAAAA", 4),
        ("AAAAAA", 4),
        ("A=", 1),
        ("A==", 1),
        ("AA=", 3),
        ("AAAAAA=", 7),
        ("YWJjZA=====", 8),
        ("A!\n", 1),
        ("A=\n", 1),
        ("AAAA-AAA", 4),
        ("AAAAAAA\u{fc}", 7),
        (" AAAA", 0),
    ];
    for (text, at) in bad {
        assert_eq!(
            decode_base64(text).unwrap_err().to_string(),
            format!("illegal base64 data at input byte {at}"),
            "{text:?}"
        );
    }
}

#[test]
fn keys_have_one_of_three_sizes() {
    for size in 0..40 {
        let parsed = parse_key(&encode_key(&vec![7; size]));
        if matches!(size, 16 | 24 | 32) {
            assert_eq!(parsed.unwrap(), vec![7; size]);
        } else {
            let error = parsed.unwrap_err().to_string();
            assert_eq!(error, "key size must be 16, 24 or 32 bytes");
        }
    }
    let made = generate_key(&mut chance());
    assert_eq!(parse_key(&encode_key(&made)).unwrap(), made);
    assert_ne!(generate_key(&mut ChaCha8Rng::seed_from_u64(2)), made);
}

#[test]
fn what_is_sealed_opens_with_every_key_of_the_ring() {
    for size in [16, 24, 32] {
        let old = vec![1; size];
        let new = vec![2; size];
        let sender = Keyring::in_memory(vec![old.clone()]).unwrap();
        let receiver = Keyring::in_memory(vec![new.clone(), vec![3; 16], old]).unwrap();
        let packet = sender.seal(&mut chance(), b"pool", b"who is there");
        assert_eq!(packet.len(), 12 + SEAL_BYTES);
        assert_eq!(receiver.open(b"pool", &packet).unwrap(), b"who is there");
        let answer = receiver.seal(&mut chance(), b"pool", b"me");
        assert_eq!(sender.open(b"pool", &answer), None);
        sender.install(&new).unwrap();
        assert_eq!(sender.open(b"pool", &answer).unwrap(), b"me");
    }
}

#[test]
fn a_packet_that_was_changed_does_not_open() {
    let ring = ring(&[FIRST, SECOND]);
    let packet = ring.seal(&mut chance(), b"lan", b"hello");
    assert_eq!(ring.open(b"wan", &packet), None);
    for byte in 0..packet.len() {
        for bit in 0..8 {
            let mut changed = packet.clone();
            changed[byte] ^= 1 << bit;
            assert_eq!(ring.open(b"lan", &changed), None);
        }
        assert_eq!(ring.open(b"lan", &packet[..byte]), None);
    }
    let empty = ring.seal(&mut chance(), b"", b"");
    assert_eq!(ring.open(b"", &empty).unwrap(), b"");
}

#[test]
fn sealing_is_aes_gcm() {
    // Test case 4 of the specification of GCM, with our nonce in front; the generator gives its nonce.
    struct Fixed([u8; 12]);
    impl rand::TryRng for Fixed {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(0)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(0)
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            out.copy_from_slice(&self.0);
            Ok(())
        }
    }
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    };
    let nonce = bytes("cafebabefacedbaddecaf888");
    let ring = Keyring::in_memory(vec![bytes("feffe9928665731c6d6a8f9467308308")]).unwrap();
    let packet = ring.seal(
        &mut Fixed(nonce.clone().try_into().unwrap()),
        &bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        &bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        ),
    );
    let expected = [
        nonce,
        bytes(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        ),
        bytes("5bc94fbc3221a5db94fae95ae7121a47"),
    ];
    assert_eq!(packet, expected.concat());
}

#[test]
fn keys_are_changed_in_three_steps() {
    let ring = ring(&[FIRST]);
    let other_handle = ring.clone();
    ring.install(&key(SECOND)).unwrap();
    ring.install(&key(SECOND)).unwrap();
    ring.install(&key(THIRD)).unwrap();
    assert_eq!(other_handle.list(), [FIRST, SECOND, THIRD]);
    ring.use_key(&key(THIRD)).unwrap();
    assert_eq!(other_handle.primary(), THIRD);
    assert_eq!(other_handle.list(), [THIRD, FIRST, SECOND]);
    ring.remove(&key(FIRST)).unwrap();
    ring.remove(&key(FIRST)).unwrap();
    assert_eq!(other_handle.list(), [THIRD, SECOND]);

    assert_eq!(
        said(ring.remove(&key(THIRD))),
        "Removing the primary key is not allowed"
    );
    assert_eq!(
        said(ring.use_key(&key(FIRST))),
        "Requested key is not in the keyring"
    );
    assert_eq!(
        said(ring.use_key(b"short")),
        "Requested key is not in the keyring"
    );
    assert_eq!(
        said(ring.install(b"short")),
        "key size must be 16, 24 or 32 bytes"
    );
    assert_eq!(other_handle.list(), [THIRD, SECOND]);
}

#[test]
fn a_ring_has_keys_and_not_too_many() {
    let empty = Keyring::in_memory(Vec::new()).unwrap_err();
    assert!(matches!(empty, KeyringError::Empty));
    let twice = Keyring::in_memory(vec![vec![1; 16], vec![2; 16], vec![1; 16]]).unwrap();
    assert_eq!(twice.list().len(), 2);
    for number in 3..=KEYS_MAX {
        twice.install(&[u8::try_from(number).unwrap(); 24]).unwrap();
    }
    assert!(matches!(twice.install(&[0; 24]), Err(KeyringError::Full)));
}

#[test]
fn no_key_is_ever_shown() {
    let ring = ring(&[FIRST, SECOND]);
    assert_eq!(format!("{ring:?}"), "Keyring { keys: 2, .. }");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    for content in [
        format!("[\"{FIRST}\", 5]"),
        format!("{{\"{FIRST}\":1}}"),
        format!("\"{FIRST}\""),
        format!("[\"{FIRST}\", \"!{SECOND}\"]"),
    ] {
        fs::write(&path, &content).unwrap();
        let error = Keyring::load_or_create(&path, None).unwrap_err();
        for text in [format!("{error}"), format!("{error:?}")] {
            assert!(!text.contains(&FIRST[..8]), "{text}");
            assert!(!text.contains(&SECOND[..8]), "{text}");
        }
    }
}

#[test]
fn the_file_is_made_from_the_key_that_was_given_and_wins_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serf").join("local.keyring");
    assert!(Keyring::load_or_create(&path, None).unwrap().is_none());
    assert!(!path.exists());
    assert_eq!(
        Keyring::load_or_create(&path, Some("AAAA"))
            .unwrap_err()
            .to_string(),
        "key size must be 16, 24 or 32 bytes"
    );
    assert!(!path.exists());

    let made = Keyring::load_or_create(&path, Some(FIRST))
        .unwrap()
        .unwrap();
    assert!(!made.ignored_given);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("[\"{FIRST}\"]"));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);

    made.keyring.install(&key(SECOND)).unwrap();
    made.keyring.use_key(&key(SECOND)).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("[\n  \"{SECOND}\",\n  \"{FIRST}\"\n]")
    );
    assert_eq!(mode(&path), 0o600);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1);

    for (given, ignored_given) in [(None, false), (Some(FIRST), true), (Some("no key"), true)] {
        let found = Keyring::load_or_create(&path, given).unwrap().unwrap();
        assert_eq!(found.ignored_given, ignored_given);
        assert_eq!(found.keyring.list(), [SECOND, FIRST]);
    }
}

#[test]
fn the_page_shows_what_is_read() {
    let page = include_str!("../../../../docs/gossip-files.md");
    let (_, example) = page.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("\n```").unwrap();
    assert_eq!(
        decode_keys(example.as_bytes()).unwrap(),
        [key(SECOND), key(FIRST)]
    );
}

#[test]
fn a_file_that_is_no_keyring_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("local.keyring");
    let large = format!("[{}]", " ".repeat(70_000));
    let cases = [
        ("", "not a JSON list of keys: line 1, column 0"),
        ("[]", "a keyring needs at least one key"),
        ("[\"AAAA\"]", "key size must be 16, 24 or 32 bytes"),
        ("[\"!\"]", "illegal base64 data at input byte 0"),
        (large.as_str(), "it has more than 65536 bytes"),
    ];
    for (content, expected) in cases {
        fs::write(&path, content).unwrap();
        let error = Keyring::load_or_create(&path, Some(FIRST)).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with(expected), "{text}");
        assert!(text.contains("local.keyring"), "{text}");
        // It stays for whoever wants to mend it.
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_change_that_cannot_be_written_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("local.keyring");
    let ring = Keyring::load_or_create(&path, Some(FIRST))
        .unwrap()
        .unwrap()
        .keyring;
    // A folder where the new file would be written.
    fs::create_dir(folder.path().join("local.keyring.tmp")).unwrap();
    let error = ring.install(&key(SECOND)).unwrap_err();
    assert!(matches!(error, KeyringError::Io { verb: "write", .. }));
    assert_eq!(ring.list(), [FIRST]);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("[\"{FIRST}\"]"));
    fs::remove_dir(folder.path().join("local.keyring.tmp")).unwrap();
    ring.install(&key(SECOND)).unwrap();
    assert_eq!(ring.list(), [FIRST, SECOND]);
}

#[test]
fn what_a_crash_left_behind_does_not_stand_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("local.keyring");
    let beside = folder.path().join("local.keyring.tmp");
    fs::write(&beside, "half").unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o666)).unwrap();
    Keyring::load_or_create(&path, Some(FIRST))
        .unwrap()
        .unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!beside.exists());
}

#[test]
fn changes_from_many_sides_are_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("local.keyring");
    let ring = Keyring::load_or_create(&path, Some(FIRST))
        .unwrap()
        .unwrap()
        .keyring;
    thread::scope(|scope| {
        for number in 1..=8 {
            let ring = &ring;
            scope.spawn(move || ring.install(&[number; 32]).unwrap());
        }
    });
    let again = Keyring::load_or_create(&path, None).unwrap().unwrap();
    assert_eq!(again.keyring.list(), ring.list());
    assert_eq!(ring.list().len(), 9);
}

proptest! {
    #[test]
    fn base64_out_and_in(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(decode_base64(&encode_key(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn any_text_is_read(text in "[A-Da=/+!\n]{0,12}|\\PC{0,12}") {
        match decode_base64(&text) {
            // What the strict reader takes is taken alike.
            Ok(bytes) => if let Ok(strict) = base64_simd::STANDARD.decode_to_vec(text.as_bytes()) {
                prop_assert_eq!(bytes, strict);
            },
            Err(_) => prop_assert!(base64_simd::STANDARD.decode_to_vec(text.as_bytes()).is_err()),
        }
    }

    #[test]
    fn any_packet_is_looked_at(packet in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(ring(&[FIRST, SECOND, THIRD]).open(b"", &packet), None);
    }

    #[test]
    fn any_content_is_read(content in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode_keys(&content);
    }
}
