//! What is taken for a part and what isn't, and how parts are written down.

use super::*;
use crate::{RestoreBegin, Uuid};

fn wish<'a>(parameters: &'a [(&'a str, &'a str)], prefixes: &'a mut Vec<&'a [u8]>) -> PartWish<'a> {
    prefixes.extend(
        parameters
            .iter()
            .filter(|(name, _)| *name == "kv-prefix")
            .map(|(_, value)| value.as_bytes()),
    );
    let get = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.as_bytes())
    };
    PartWish {
        only: get("only"),
        skip: get("skip"),
        kv_prefixes: prefixes,
        into_prefix: get("into-prefix"),
        mode: get("mode"),
    }
}

fn parse(parameters: &[(&str, &str)]) -> Result<RestorePart, String> {
    let mut prefixes = Vec::new();
    RestorePart::parse(wish(parameters, &mut prefixes)).map_err(|error| error.to_string())
}

#[test]
fn what_makes_sense_is_taken() {
    let part = parse(&[("only", "kv,acl")]).unwrap();
    assert!(part.has(Section::Kv) && part.has(Section::Acl) && part.sections().len() == 2);
    assert_eq!(part.mode(), RestoreMode::Replace);
    assert_eq!(part.places(), [Text::default()]);
    assert!(part.takes_key(b"any"));

    let part = parse(&[("skip", "catalog, sessions"), ("mode", "merge")]).unwrap();
    let names: Vec<&str> = part.sections().iter().map(|it| it.name()).collect();
    assert_eq!(names, ["acl", "kv", "queries"]);
    assert_eq!(part.mode(), RestoreMode::Merge);

    let part = parse(&[("kv-prefix", "a/"), ("into-prefix", "b/")]).unwrap();
    assert_eq!(part.sections().len(), 1);
    assert!(part.takes_key(b"a/x") && !part.takes_key(b"b/x"));
    assert_eq!(part.places(), [Text::from("b/")]);

    // One prefix inside of another adds nothing.
    let nested = [
        ("kv-prefix", "b"),
        ("kv-prefix", "a/b"),
        ("kv-prefix", "a"),
        ("kv-prefix", "a"),
    ];
    let part = parse(&nested).unwrap();
    assert_eq!(part.prefixes(), [Text::from("a"), Text::from("b")]);

    let part = parse(&[("only", "sessions")]).unwrap();
    assert!(part.places().is_empty() && !part.takes_key(b"any"));

    // All keys, below a prefix of their own.
    let part = parse(&[("kv-prefix", ""), ("into-prefix", "old/")]).unwrap();
    assert!(part.takes_key(b"any"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "no part is named: give only, skip or kv-prefix"),
        (
            &[("mode", "merge")],
            "no part is named: give only, skip or kv-prefix",
        ),
        (
            &[("only", "kv"), ("skip", "acl")],
            "only and skip can't both be given",
        ),
        (
            &[("only", "")],
            "unknown part \"\": there are catalog, sessions, acl, kv and queries",
        ),
        (
            &[("only", "kv,nodes")],
            "unknown part \"nodes\": there are catalog, sessions, acl, kv and queries",
        ),
        (
            &[("skip", "KV")],
            "unknown part \"KV\": there are catalog, sessions, acl, kv and queries",
        ),
        (
            &[("skip", "catalog,sessions,acl,kv,queries")],
            "nothing is left to restore when all parts are skipped",
        ),
        (
            &[("only", "acl"), ("kv-prefix", "a")],
            "kv-prefix is given, but kv is not among the parts that are restored",
        ),
        (
            &[("only", "kv"), ("into-prefix", "a")],
            "into-prefix takes the place of a kv-prefix, so exactly one must be given",
        ),
        (
            &[("into-prefix", "a")],
            "into-prefix takes the place of a kv-prefix, so exactly one must be given",
        ),
        (
            &[("kv-prefix", "a"), ("kv-prefix", "b"), ("into-prefix", "c")],
            "into-prefix takes the place of a kv-prefix, so exactly one must be given",
        ),
        (
            &[("kv-prefix", "a"), ("into-prefix", "")],
            "into-prefix is empty, so that replacing would remove all other keys: give mode=merge",
        ),
        (
            &[("only", "kv"), ("mode", "add")],
            "unknown mode \"add\": it is replace or merge",
        ),
    ];
    for (parameters, error) in cases {
        assert_eq!(parse(parameters).unwrap_err(), *error, "{parameters:?}");
    }
    let many = vec![("kv-prefix", "a"); PART_PREFIXES_MAX + 1];
    assert!(parse(&many).unwrap_err().starts_with("too many prefixes"));
    let long = "a".repeat(PART_PREFIX_LEN_MAX + 1);
    assert!(parse(&[("kv-prefix", &long)]).is_err());
}

/// What a server wrote before there were parts is read, and what has none is still written so.
#[test]
fn a_begin_without_a_part_is_written_as_it_was_before_there_were_parts() {
    let begin = RestoreBegin {
        id: Uuid::from_u128(7),
        last_index: 1000,
        snapshot_index: 3,
        part: None,
    };
    let mut recorded = vec![0x93, 0xc4, 16];
    recorded.extend([0; 15]);
    recorded.extend([7, 0xcd, 0x03, 0xe8, 3]);
    assert_eq!(rmp_serde::to_vec(&begin).unwrap(), recorded);
    let read: RestoreBegin = rmp_serde::from_slice(&recorded).unwrap();
    assert_eq!(read, begin);

    // One who knows no parts must not take it for a restore of everything.
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only whether it can be read matters")]
    struct Before(Uuid, u64, u64);
    let part = parse(&[
        ("kv-prefix", "a/"),
        ("into-prefix", "b/"),
        ("mode", "merge"),
    ])
    .unwrap();
    let with_part = RestoreBegin {
        part: Some(part),
        ..begin
    };
    let written = rmp_serde::to_vec(&with_part).unwrap();
    assert!(rmp_serde::from_slice::<Before>(&written).is_err());
    let read: RestoreBegin = rmp_serde::from_slice(&written).unwrap();
    assert_eq!(read, with_part);
}

#[test]
fn what_makes_no_sense_is_not_read_either() {
    let plain = Plain {
        sections: BTreeSet::new(),
        prefixes: Vec::new(),
        into: None,
        mode: RestoreMode::Merge,
    };
    let written = rmp_serde::to_vec(&plain).unwrap();
    assert!(rmp_serde::from_slice::<RestorePart>(&written).is_err());
}
