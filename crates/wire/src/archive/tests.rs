use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::msgpack::{DecodeError, Decoder, RecordReader};

const MTIME: u64 = 1_795_329_324;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/snapshots")
        .join(name);
    fs::read(path).unwrap()
}

fn unpacked(bytes: &[u8]) -> Result<(Meta, Vec<u8>), String> {
    let mut state = Vec::new();
    let contents = unpack(bytes, &mut state).map_err(|error| error.to_string())?;
    assert_eq!(contents.state_size, state.len() as u64);
    Ok((contents.meta, state))
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    gzip::Decoder::open(bytes)
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    tar
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    out.write_all(tar).unwrap();
    out.finish().unwrap()
}

fn written(meta: &Meta, state: &[u8], compression: Compression) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), meta, MTIME, compression).unwrap();
    writer.write_all(state).unwrap();
    writer.finish().unwrap()
}

fn meta(size: usize) -> Meta {
    Meta {
        version: 1,
        id: "2-68-1795329324463".into(),
        index: 68,
        term: 2,
        peers: Meta::encode_peers(["127.0.0.1:8300"].into_iter()),
        configuration: Configuration {
            servers: vec![Server {
                suffrage: Suffrage::VOTER,
                id: "127.0.0.1:8300".into(),
                address: "127.0.0.1:8300".into(),
            }],
        },
        configuration_index: 1,
        size: i64::try_from(size).unwrap(),
    }
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let size = bytes.len() as u64;
    [
        &tar::header(name, size, MTIME)[..],
        bytes,
        tar::padding(size),
    ]
    .concat()
}

/// The three files of a small archive, apart.
fn files() -> [Vec<u8>; 3] {
    let (meta, state) = (meta(5).encode(), b"state");
    [
        file(META, &meta),
        file(STATE, state),
        file(SUMS, sums_of(&meta, state).as_bytes()),
    ]
}

fn sums_of(meta: &[u8], state: &[u8]) -> String {
    let hash = |bytes| {
        let mut hasher = sums::Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    };
    sums::encode(&hash(meta), &hash(state))
}

#[test]
fn edge_files_are_judged_as_by_the_original() {
    let observed: serde_json::Value =
        serde_json::from_slice(&fixture("edge/observed-0.7.1.json")).unwrap();
    let observed = observed.as_object().unwrap();
    assert_eq!(observed.len(), 56);
    for (name, observed) in observed {
        let bytes = fixture(&format!("edge/{name}.snap"));
        let mut state = Vec::new();
        let restorable = unpack(&bytes[..], &mut state)
            .map_err(|error| error.to_string())
            .and_then(|contents| {
                let size = contents.state_size;
                contents
                    .meta
                    .check_restorable(size)
                    .map_err(|error| error.to_string())
            });
        // Where ours is stricter or better on purpose, or the text is the JSON decoder's own.
        let expected = match name.as_str() {
            "accept-cut-gzip-trailer" => {
                "failed to decompress snapshot: gzip: the trailer is cut off"
            }
            "accept-junk-after-gzip" => {
                "failed to decompress snapshot: gzip: unexpected data after the end"
            }
            "reject-meta-not-json" => {
                "failed to read snapshot file: failed to decode snapshot metadata: expected ident at line 1 column 2"
            }
            name if name.starts_with("reject-") => observed["put_body"].as_str().unwrap(),
            _ => "",
        };
        assert_eq!(restorable.err().unwrap_or_default(), expected, "{name}");
        // The original looks into archives whose restore it refuses, and so do we.
        let inspected = verify(&bytes[..]).is_ok();
        let stricter =
            ["accept-cut-gzip-trailer", "accept-junk-after-gzip"].contains(&name.as_str());
        let better = name.starts_with("quirk-");
        assert_eq!(
            inspected,
            (observed["inspect_exit"] == 0 || better) && !stricter,
            "{name}"
        );
    }
}

#[test]
fn metadata_is_read_whole() {
    let (meta, state) = unpacked(&fixture("three-servers.snap")).unwrap();
    let decoded = String::from_utf8(fixture("three-servers.decoded.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(decoded.lines().next().unwrap()).unwrap();
    let data = &line["Data"];
    assert_eq!(meta.version, 1);
    assert_eq!(data["ID"], meta.id);
    assert_eq!(data["Index"], meta.index);
    assert_eq!(data["Term"], meta.term);
    assert_eq!(data["Peers"], meta.peers);
    assert_eq!(data["ConfigurationIndex"], meta.configuration_index);
    assert_eq!(data["Size"], meta.size);
    assert_eq!(
        data["Configuration"],
        serde_json::to_value(&meta.configuration).unwrap()
    );
    assert_eq!(meta.configuration.servers.len(), 3);
    assert_eq!(meta.size, i64::try_from(state.len()).unwrap());
    // In 0.7.1 the servers are named by their address.
    let voters = meta
        .configuration
        .servers
        .iter()
        .map(|server| server.address.as_str());
    assert_eq!(Meta::encode_peers(voters), meta.peers);
}

/// The bytes of a tar with the lines of its sums, which the original writes in random order, in ours.
fn with_sums_in_order(mut tar: Vec<u8>) -> Vec<u8> {
    let at = tar.len() - 2 * 512 - 512;
    let lines = String::from_utf8(tar[at..at + 152].to_vec()).unwrap();
    let mut lines: Vec<_> = lines.split_inclusive('\n').collect();
    lines.sort_by_key(|line| line.rsplit(' ').next().map(str::to_owned));
    tar[at..at + 152].copy_from_slice(lines.concat().as_bytes());
    tar
}

#[test]
fn ours_differs_from_the_originals_in_compression_alone() {
    for name in [
        "empty",
        "full-0.7.1",
        "three-servers",
        "large-10k",
        "from-1.4.0",
    ] {
        let theirs = fixture(&format!("{name}.snap"));
        let (meta, state) = unpacked(&theirs).unwrap();
        let tar = gunzip(&theirs);
        // The time of the files stands in their headers.
        let mtime = std::str::from_utf8(&tar[136..147]).unwrap();
        let mtime = u64::from_str_radix(mtime, 8).unwrap();
        let mut writer = Writer::new(Vec::new(), &meta, mtime, Compression::default()).unwrap();
        writer.write_all(&state).unwrap();
        let ours = writer.finish().unwrap();
        assert_eq!(ours[..10], theirs[..10], "{name}");
        assert!(gunzip(&ours) == with_sums_in_order(tar), "{name}");
        assert_eq!(unpacked(&ours).unwrap(), (meta, state), "{name}");
    }
}

#[test]
fn no_flipped_bit_changes_what_is_read() {
    let check = |bytes: &[u8], step: usize| {
        let tar = gunzip(bytes);
        let mut accepted = 0;
        for bit in (0..8 * bytes.len()).step_by(step) {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if unpacked(&flipped).is_ok() {
                accepted += 1;
                assert!(gunzip(&flipped) == tar, "bit {bit}");
            }
        }
        accepted
    };
    // Accepted is what nobody reads: 49 bits of the header, bits that fill a byte,
    // and a distance to another place where the same bytes stand.
    let empty = fixture("empty.snap");
    assert!((49..100).contains(&check(&empty, 1)));
    check(&fixture("full-0.7.1.snap"), 37);
    let (meta, state) = unpacked(&fixture("full-0.7.1.snap")).unwrap();
    check(&written(&meta, &state, Compression::default()), 41);
}

#[test]
fn no_cut_archive_is_read() {
    let bytes = fixture("empty.snap");
    for length in 0..bytes.len() {
        let error = unpacked(&bytes[..length]).unwrap_err();
        let known = [
            "failed to decompress snapshot: EOF",
            "failed to decompress snapshot: unexpected EOF",
            "failed to read snapshot file: failed reading snapshot: unexpected EOF",
            "failed to read snapshot file: failed to read or write snapshot data: unexpected EOF",
            "failed to decompress snapshot: gzip: the trailer is cut off",
        ];
        assert!(known.contains(&error.as_str()), "{length}: {error}");
    }
}

/// A header with something else in it, and its checksum put right.
fn header(name: &str, size: u64, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut block = tar::header(name, size, MTIME);
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().copied().map(u64::from).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

/// A file of that kind, for what comes before the file it is about.
fn extension(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let size = bytes.len() as u64;
    [
        &header("extension", size, |block| block[156] = kind),
        bytes,
        tar::padding(size),
    ]
    .concat()
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    // Two digits, which all of these have.
    extension(b'x', format!("{}{rest}", rest.len() + 2).as_bytes())
}

fn put(block: &mut [u8; 512], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn tars_of_other_tools_are_read() {
    let body = file("", b"state")[512..].to_vec();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("ours", header(STATE, 5, |_| ())),
        (
            "pax with times",
            [pax("mtime", "1795329324.25"), header(STATE, 5, |_| ())].concat(),
        ),
        (
            "pax with a name",
            [pax("path", STATE), header("other", 5, |_| ())].concat(),
        ),
        (
            "pax with a size",
            [pax("size", "00005"), header(STATE, 0, |_| ())].concat(),
        ),
        (
            "pax for all",
            [extension(b'g', b"13 comment=x\n"), header(STATE, 5, |_| ())].concat(),
        ),
        (
            "long name",
            [extension(b'L', b"state.bin\0"), header("other", 5, |_| ())].concat(),
        ),
        (
            "gnu, where times stand in place of the prefix",
            header(STATE, 5, |block| {
                put(block, 257, b"ustar  \0");
                put(block, 345, b"14771312345");
            }),
        ),
        (
            "the oldest, without magic",
            header(STATE, 5, |block| block[156..].fill(0)),
        ),
        (
            "size in binary",
            header(STATE, 5, |block| {
                put(block, 124, b"\x80\0\0\0\0\0\0\0\0\0\0\x05")
            }),
        ),
        (
            "size with blanks",
            header(STATE, 5, |block| put(block, 124, b"         5 \0")),
        ),
    ];
    let [meta, _, sums] = files();
    for (name, state) in table {
        let parts = [&meta, &state, &body, &sums, &tar::END[..]];
        let read = unpacked(&gzip(&parts.concat())).map(|(_, state)| state);
        assert_eq!(read, Ok(b"state".to_vec()), "{name}");
    }
    let ends: [(&str, &[u8]); 4] = [
        ("none", b""),
        ("half", &[0; 512]),
        ("ours", &tar::END),
        ("up to a record of ten kB", &[0; 7168]),
    ];
    for (name, end) in ends {
        let bytes = gzip(&[&files().concat(), end].concat());
        assert!(unpacked(&bytes).is_ok(), "{name}");
    }
}

#[test]
fn whatever_else_is_in_a_tar_is_refused() {
    const FILE: &str = "failed to read snapshot file: ";
    const BAD_HEADER: &str = "failed reading snapshot: archive/tar: invalid tar header";
    const STATE_HASH: &str =
        "failed checking integrity of snapshot: hash check failed for \"state.bin\"";
    let [meta, state, sums] = files();
    let end = tar::END.to_vec();
    let with = |state: Vec<u8>| [&meta[..], &state, &sums, &end].concat();
    let long = vec![b' '; 1 + (1 << 20)];
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "state twice",
            with([&state[..], &state].concat()),
            "file \"state.bin\" is there twice",
        ),
        (
            "metadata twice",
            with([&meta[..], &state].concat()),
            "file \"meta.json\" is there twice",
        ),
        (
            "sums twice",
            with([&state[..], &sums].concat()),
            "file \"SHA256SUMS\" is there twice",
        ),
        (
            "a directory",
            with([&header("./", 0, |block| block[156] = b'5')[..], &state].concat()),
            "unexpected file \"./\" in snapshot",
        ),
        (
            "a link",
            with(header(STATE, 5, |block| block[156] = b'2')),
            STATE_HASH,
        ),
        (
            "a prefix",
            with(header(STATE, 5, |block| block[345] = b'd')),
            "unexpected file \"d/state.bin\" in snapshot",
        ),
        (
            "metadata without end",
            with(file(META, &long)),
            "file \"meta.json\" is longer than 1048576 bytes",
        ),
        (
            "sums without end",
            with(file(SUMS, &long)),
            "file \"SHA256SUMS\" is longer than 65536 bytes",
        ),
        (
            "a long name without end",
            with(extension(b'L', &long)),
            BAD_HEADER,
        ),
        (
            "an extension that lies",
            with(extension(b'x', b"99 path=state.bin\n")),
            BAD_HEADER,
        ),
        (
            "an extension without length",
            with(extension(b'x', b"path=state.bin\n")),
            BAD_HEADER,
        ),
        ("an empty record", with(extension(b'x', b"0 ")), BAD_HEADER),
        (
            "a negative size",
            with(header(STATE, 5, |block| block[124..136].fill(0xff))),
            BAD_HEADER,
        ),
        (
            "a size beyond sense",
            with(header(STATE, 5, |block| {
                put(block, 124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")
            })),
            BAD_HEADER,
        ),
        (
            "a size that is none",
            with(header(STATE, 5, |block| block[130] = b'9')),
            BAD_HEADER,
        ),
        (
            "a size that is not there",
            with(header(STATE, 1 << 40, |_| ())),
            "failed to read or write snapshot data: unexpected EOF",
        ),
        (
            "half an end",
            [&files().concat()[..], &[0; 512], &meta].concat(),
            BAD_HEADER,
        ),
        (
            "a file after the end",
            [&with(state.clone())[..], &meta].concat(),
            "unexpected data after the end of the tar",
        ),
        (
            "zeros without end",
            [with(state.clone()), vec![0; 2 << 20]].concat(),
            "unexpected data after the end of the tar",
        ),
        (
            "a cut header",
            with(state.clone())[..700].to_vec(),
            "failed reading snapshot: unexpected EOF",
        ),
        ("no state", [&meta[..], &sums, &end].concat(), STATE_HASH),
        (
            "no state, and the hash of nothing",
            [
                &meta[..],
                &file(SUMS, sums_of(&self::meta(5).encode(), b"").as_bytes()),
                &end,
            ]
            .concat(),
            STATE_HASH,
        ),
    ];
    for (name, tar, expected) in table {
        let error = unpacked(&gzip(&tar)).unwrap_err();
        assert_eq!(error, format!("{FILE}{expected}"), "{name}");
    }
}

#[test]
fn gzip_headers_of_other_tools_are_read() {
    let [_, _, _, _, _, _, _, _, _, _, body @ ..] = &fixture("empty.snap")[..] else {
        panic!("shorter than a header");
    };
    let sixteen = |bytes: &[u8]| {
        let mut crc = crc32fast::Hasher::new();
        crc.update(bytes);
        [bytes, &crc.finalize().to_le_bytes()[..2]].concat()
    };
    let invalid = Err("failed to decompress snapshot: gzip: invalid header");
    let cut = Err("failed to decompress snapshot: unexpected EOF");
    let table: Vec<(&str, Vec<u8>, Result<(), &str>)> = vec![
        (
            "gzip, with the name of the file",
            b"\x1f\x8b\x08\x08abcd\0\x03state.tar\0".to_vec(),
            Ok(()),
        ),
        (
            "a comment",
            b"\x1f\x8b\x08\x10abcd\0\x03comment\0".to_vec(),
            Ok(()),
        ),
        (
            "an extra field",
            b"\x1f\x8b\x08\x04abcd\0\x03\x03\0xyz".to_vec(),
            Ok(()),
        ),
        (
            "all of them",
            b"\x1f\x8b\x08\x1dabcd\0\x03\x01\0xname\0comment\0".to_vec(),
            Ok(()),
        ),
        (
            "its own checksum",
            sixteen(b"\x1f\x8b\x08\x0aabcd\0\x03name\0"),
            Ok(()),
        ),
        (
            "a wrong one",
            b"\x1f\x8b\x08\x02abcd\0\x03xx".to_vec(),
            invalid,
        ),
        (
            "a flag of the future",
            b"\x1f\x8b\x08\x20abcd\0\x03".to_vec(),
            invalid,
        ),
        (
            "another method",
            b"\x1f\x8b\x07\0abcd\0\x03".to_vec(),
            invalid,
        ),
        (
            "a name without end",
            [&b"\x1f\x8b\x08\x08abcd\0\x03"[..], &[b'x'; 70_000]].concat(),
            invalid,
        ),
    ];
    for (name, header, expected) in table {
        let read = unpacked(&[&header, body].concat()).map(|_| ());
        assert_eq!(read, expected.map_err(str::to_owned), "{name}");
        if expected.is_ok() {
            for length in 1..header.len() {
                let read = unpacked(&header[..length]).map(|_| ());
                assert_eq!(read, cut.map_err(str::to_owned), "{name} cut to {length}");
            }
        }
    }
}

#[test]
fn sums_are_scanned_as_the_original_does() {
    let (meta, state) = ([0x0a; 32], [0xb1; 32]);
    let (meta_hex, state_hex) = ("0A".repeat(32), "b1".repeat(32));
    let both = |line: &str| format!("{meta_hex}  meta.json\n{line}");
    let table: &[(String, &str)] = &[
        (sums::encode(&meta, &state), ""),
        (both(&format!("{state_hex}  state.bin\n")), ""),
        (both(&format!("{state_hex}  state.bin")), ""),
        (both(&format!("{state_hex} state.bin\n")), ""),
        (both(&format!("{state_hex}\t \tstate.bin\r\n")), ""),
        (both(&format!(" {state_hex}  state.bin and more\n")), ""),
        (
            both(&format!("{meta_hex}  meta.json\n{state_hex}  state.bin\n")),
            "",
        ),
        (String::new(), "file missing for \"meta.json\""),
        (both(""), "file missing for \"state.bin\""),
        (
            format!("{state_hex}  state.bin\n"),
            "file missing for \"meta.json\"",
        ),
        (
            both(&format!("{meta_hex}  state.bin\n")),
            "hash check failed for \"state.bin\"",
        ),
        (
            both("b1  state.bin\n"),
            "hash check failed for \"state.bin\"",
        ),
        (
            both(&format!("{state_hex}b1  state.bin\n")),
            "hash check failed for \"state.bin\"",
        ),
        (
            both(&format!("{state_hex}  other\n")),
            "list missing hash for \"other\"",
        ),
        (
            both(&format!("{state_hex} *state.bin\n")),
            "list missing hash for \"*state.bin\"",
        ),
        (both("\n"), "EOF"),
        ("\n".into(), "EOF"),
        (both("\r\n"), "EOF"),
        (both(" \n"), "unexpected EOF"),
        (both(&format!("{state_hex}\n")), "unexpected EOF"),
        (both("state.bin\n"), "no hex data for %x string"),
        (both("b1b  state.bin\n"), "illegal hex digit"),
        (
            both(&format!("{state_hex}state.bin\n")),
            "expected space in input to match format",
        ),
    ];
    for (lines, expected) in table {
        let result = sums::check(lines.as_bytes(), &meta, &state);
        let text = result
            .map_err(|error| error.to_string())
            .err()
            .unwrap_or_default();
        assert_eq!(text, *expected, "{lines:?}");
    }
}

#[test]
fn metadata_is_read_leniently() {
    let zero = Meta::default();
    let table: &[(&str, Result<Meta, &str>)] = &[
        ("{}", Ok(zero.clone())),
        ("null", Ok(zero.clone())),
        (
            " {\n\t\"Version\" : 1 }\n",
            Ok(Meta {
                version: 1,
                ..zero.clone()
            }),
        ),
        (
            "{\"version\":-1,\"SIZE\":-2}",
            Ok(Meta {
                version: -1,
                size: -2,
                ..zero.clone()
            }),
        ),
        (
            "{\"Index\":18446744073709551615,\"CRC\":\"AAAA\"}",
            Ok(Meta {
                index: u64::MAX,
                ..zero.clone()
            }),
        ),
        (
            "{\"Version\":null,\"Peers\":null,\"Configuration\":{\"Servers\":null},\"Size\":null}",
            Ok(zero.clone()),
        ),
        (
            "{\"Version\":1,\"Version\":2}",
            Ok(Meta {
                version: 2,
                ..zero.clone()
            }),
        ),
        ("{} {\"Version\":1}", Ok(zero.clone())),
        ("", Err("EOF")),
        ("  \n", Err("EOF")),
        ("{\"Version\":1", Err("unexpected EOF")),
        ("[]", Err("the metadata is not an object")),
        (
            "{\"Version\":1.5}",
            Err("Version is not an integer of 64 bits"),
        ),
        (
            "{\"Index\":-1}",
            Err("Index is not an unsigned integer of 64 bits"),
        ),
        ("{\"ID\":7}", Err("ID is not a string")),
        (
            "{\"Configuration\":7}",
            Err("Configuration is not an object"),
        ),
        (
            "{\"Configuration\":{\"Servers\":7}}",
            Err("Servers is not an array"),
        ),
        (
            "{\"Configuration\":{\"Servers\":[{\"Suffrage\":\"x\"}]}}",
            Err("Suffrage is not an integer of 64 bits"),
        ),
    ];
    for (text, expected) in table {
        let decoded = Meta::decode(text.as_bytes());
        assert_eq!(
            decoded.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|text| *text),
            "{text}"
        );
    }
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert!(Meta::decode(&deep).is_err());
}

#[test]
fn metadata_is_written_as_by_the_original() {
    let encoded = String::from_utf8(meta(141_161).encode()).unwrap();
    assert_eq!(
        encoded,
        concat!(
            r#"{"Version":1,"ID":"2-68-1795329324463","Index":68,"Term":2,"Peers":"ka4xMjcuMC4wLjE6ODMwMA==","#,
            r#""Configuration":{"Servers":[{"Suffrage":0,"ID":"127.0.0.1:8300","Address":"127.0.0.1:8300"}]},"#,
            r#""ConfigurationIndex":1,"Size":141161}"#,
            "\n"
        )
    );
    let encoded = String::from_utf8(Meta::default().encode()).unwrap();
    assert!(encoded.contains(r#""Configuration":{"Servers":null}"#));
}

#[test]
fn lengths_that_the_original_misreads_have_no_newline() {
    let bare = Meta::default().encode().len() - 1;
    for length in bare..4000 {
        let meta = Meta {
            id: "x".repeat(length - bare),
            ..Meta::default()
        };
        let encoded = meta.encode();
        let expected = if [512, 1536, 3584].contains(&length) {
            length
        } else {
            length + 1
        };
        assert_eq!(encoded.len(), expected);
        assert_eq!(Meta::decode(&encoded), Ok(meta));
    }
}

#[test]
fn restorable_is_said_with_the_originals_words() {
    let size = |size| Meta {
        version: 1,
        size,
        ..Meta::default()
    };
    let version = |version| Meta {
        version,
        size: 7,
        ..Meta::default()
    };
    let table = [
        (size(7), ""),
        (
            size(8),
            "failed to write snapshot, size didn't match (7 != 8)",
        ),
        (
            size(-1),
            "failed to write snapshot, size didn't match (7 != -1)",
        ),
        (version(2), "unsupported snapshot version 2"),
        (version(-1), "unsupported snapshot version -1"),
        (
            version(0),
            "failed to create snapshot: unsupported snapshot version 0",
        ),
    ];
    for (meta, expected) in table {
        let error = meta
            .check_restorable(7)
            .map_err(|error| error.to_string())
            .err();
        let expected = (!expected.is_empty())
            .then(|| format!("Raft error when restoring snapshot: {expected}"));
        assert_eq!(error, expected);
    }
}

/// Bytes that compress somewhat, the same for every run.
fn state_of(size: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut state = Vec::with_capacity(size + 16);
    while state.len() < size {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        state.extend_from_slice(b"key/");
        state.extend_from_slice(&seed.to_le_bytes());
    }
    state.truncate(size);
    state
}

#[test]
fn the_number_of_workers_changes_nothing() {
    // Around the size of a piece, where mistakes live; and far more pieces than can be out at a time.
    for size in [
        0, 1, 511, 512, 260_000, 262_144, 524_288, 524_289, 3_000_000,
    ] {
        let (meta, state) = (meta(size), state_of(size));
        let with = |workers| {
            written(
                &meta,
                &state,
                Compression {
                    workers,
                    ..Compression::default()
                },
            )
        };
        let inline = with(0);
        assert_eq!(
            unpacked(&inline),
            Ok((meta.clone(), state.clone())),
            "{size}"
        );
        for workers in [1, 2, 3, 7] {
            assert!(with(workers) == inline, "{size} with {workers}");
        }
    }
}

#[test]
fn every_level_is_read_back() {
    let state = state_of(700_000);
    let meta = meta(state.len());
    for level in 0..=10 {
        let compression = Compression {
            level,
            ..Compression::default()
        };
        let bytes = written(&meta, &state, compression);
        assert!(
            unpacked(&bytes) == Ok((meta.clone(), state.clone())),
            "{level}"
        );
    }
    // What doesn't compress grows by next to nothing.
    let noise = gzip(&state_of(900_000));
    let bytes = written(&self::meta(noise.len()), &noise, Compression::default());
    assert!(bytes.len() < noise.len() + noise.len() / 100 + 2000);
    assert!(unpacked(&bytes).unwrap().1 == noise);
}

#[test]
fn the_state_is_as_long_as_announced() {
    let compression = Compression::default();
    let mut writer = Writer::new(Vec::new(), &meta(5), MTIME, compression).unwrap();
    writer.write_all(b"stat").unwrap();
    let error = writer.write_all(b"e?").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the state of the snapshot is longer than the announced 5 bytes"
    );
    let error = writer.finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the state of the snapshot is 1 bytes short of the announced 5"
    );
    let negative = Meta {
        size: -1,
        ..Meta::default()
    };
    assert!(Writer::new(Vec::new(), &negative, MTIME, compression).is_err());
}

/// Takes so many bytes and then fails.
#[derive(Debug)]
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("full"));
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_and_threads_end() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let state = state_of(4_000_000);
    let compression = Compression {
        workers: 2,
        before_work: || {
            STARTED.fetch_add(1, Ordering::SeqCst);
        },
        ..Compression::default()
    };
    let whole = written(&meta(state.len()), &state, compression).len();
    for room in (0..whole).step_by(whole / 20) {
        let result = Writer::new(Full(room), &meta(state.len()), MTIME, compression)
            .and_then(|mut writer| {
                writer.write_all(&state)?;
                writer.finish()
            })
            .map(|_| ());
        assert_eq!(result.unwrap_err().to_string(), "full", "{room}");
    }
    // Given up half way: dropping it joins its threads, which would hang here if they could wait for anyone.
    let mut writer = Writer::new(Vec::new(), &meta(state.len()), MTIME, compression).unwrap();
    writer.write_all(&state[..2_000_000]).unwrap();
    drop(writer);
    assert!(STARTED.load(Ordering::SeqCst) > 0);
}

#[test]
fn an_archive_that_was_given_up_is_refused() {
    let state = state_of(2_000_000);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(
        &mut bytes,
        &meta(state.len()),
        MTIME,
        Compression::default(),
    )
    .unwrap();
    writer.write_all(&state[..1_900_000]).unwrap();
    drop(writer);
    assert_eq!(
        unpacked(&bytes).unwrap_err(),
        "failed to read snapshot file: failed to read or write snapshot data: unexpected EOF"
    );
}

#[test]
fn a_scratch_file_that_is_full_is_told() {
    let error = unpack(&fixture("empty.snap")[..], &mut Full(100)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to read snapshot file: failed to read or write snapshot data: full"
    );
}

#[derive(Debug)]
struct Unplugged;

impl Read for Unplugged {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("unplugged"))
    }
}

#[test]
fn a_source_that_fails_is_told() {
    let bytes = fixture("empty.snap");
    for (length, expected) in [
        (0, "failed to decompress snapshot: unplugged"),
        (
            15,
            "failed to read snapshot file: failed reading snapshot: unplugged",
        ),
        (bytes.len() - 4, "failed to decompress snapshot: unplugged"),
        (bytes.len(), "failed to decompress snapshot: unplugged"),
    ] {
        let error = verify(bytes[..length].chain(Unplugged)).unwrap_err();
        assert_eq!(error.to_string(), expected, "{length}");
    }
}

proptest! {
    #[test]
    fn any_state_comes_back(state: Vec<u8>, id: String, mtime: u64, level in 0..10_u32) {
        let meta = Meta { id, ..meta(state.len()) };
        let compression = Compression { level, ..Compression::default() };
        let mut writer = Writer::new(Vec::new(), &meta, mtime, compression).unwrap();
        writer.write_all(&state).unwrap();
        let bytes = writer.finish().unwrap();
        prop_assert_eq!(unpacked(&bytes), Ok((meta, state)));
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
        let _ = unpacked(&bytes);
        let _ = unpacked(&gzip(&bytes));
        let _ = unpacked(&gzip(&[&file(META, &bytes)[..], &file(SUMS, &bytes)].concat()));
        let _ = unpacked(&gzip(&[&extension(b'x', &bytes)[..], &files().concat()].concat()));
    }
}
/// The bytes of the blocks of hex in `docs/snapshot.md`, without the remarks.
fn examples() -> Vec<Vec<u8>> {
    let page = include_str!("../../../../docs/snapshot.md");
    let blocks = page
        .split("```hex\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let lines = block.lines().map(|line| line.split('#').next().unwrap());
            let digits: Vec<_> = lines
                .flat_map(str::chars)
                .filter_map(|digit| digit.to_digit(16))
                .collect();
            digits
                .chunks(2)
                .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
                .collect()
        })
        .collect()
}

#[test]
fn the_page_about_it_is_right() {
    let [state, archive] = &examples()[..] else {
        panic!("not two examples");
    };
    let (meta, unpacked_state) = unpacked(archive).unwrap();
    assert_eq!(unpacked_state, *state);
    assert_eq!(meta, self::meta(state.len()));

    let mut reader = RecordReader::open(&state[..]).unwrap();
    assert_eq!(reader.header(), b"\x81\xa9LastIndex\x44");
    let record = reader.next_record().unwrap().unwrap();
    assert_eq!((record.kind, record.offset, record.number), (2, 12, 1));
    let names = [
        "CreateIndex",
        "Flags",
        "Key",
        "LockIndex",
        "ModifyIndex",
        "Session",
        "Value",
    ];
    let mut fields = Vec::new();
    let mut decoder = Decoder::new(record.bytes);
    decoder
        .fields(&names, |value, field| {
            fields.push(match field {
                2 | 5 | 6 => value.raw()?.escape_ascii().to_string(),
                _ => value.uint()?.to_string(),
            });
            Ok::<_, DecodeError>(())
        })
        .unwrap();
    let session = "d6d8c994-0f6c-4a7b-9ed5-1c1d7d6f5a01";
    assert_eq!(
        fields,
        ["40", "7", "locks/held", "1", "200", session, "owner"]
    );
    assert_eq!(reader.next_record().unwrap(), None);
}
