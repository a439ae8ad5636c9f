//! Real snapshots, in and out: what the original wrote comes back, by the index rules of a restore, in the dialect that it reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::{Command, KvList, RestoreBegin, RestoreChunk, RestoreCommit, Text, Uuid};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use store::archive::{self, Chunks, Kind, Loader, StateError, Unknown, Verified};
use store::{Read, Store, View, Watch};

use crate::decode::{Decoded, decode_state};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/snapshots")
}

/// The state of a snapshot file.
pub(crate) fn state_of(path: &Path) -> Vec<u8> {
    let file = fs::File::open(path).unwrap();
    let mut state = Vec::new();
    wire::archive::unpack(file, &mut state).unwrap();
    state
}

pub(crate) fn fixture(name: &str) -> Vec<u8> {
    state_of(&fixtures().join(name))
}

/// Restores as a server does: both passes over the state, then everything through the log.
pub(crate) fn restore(
    store: &mut Store,
    state: &[u8],
    unknown: Unknown,
) -> Result<Verified, StateError> {
    restore_at(store, state, unknown, 0)
}

/// The same where the archive's metadata names an index too.
fn restore_at(
    store: &mut Store,
    state: &[u8],
    unknown: Unknown,
    snapshot_index: u64,
) -> Result<Verified, StateError> {
    let verified = archive::verify(state, unknown)?;
    let mut chunks = Chunks::open(state)?;
    let id = Uuid::from_u128(1);
    let mut log_index = store.freeze().log_index();
    let mut apply = |store: &mut Store, command| {
        log_index += 1;
        let entry = model::Entry { at_ms: 1, command };
        store.apply(log_index, 1, entry).result.unwrap();
    };
    apply(
        store,
        Command::RestoreBegin(RestoreBegin {
            id,
            last_index: verified.last_index,
            snapshot_index,
            part: None,
        }),
    );
    let mut sequence = 0;
    while let Some(records) = chunks.next_chunk()? {
        apply(
            store,
            Command::RestoreChunk(RestoreChunk {
                id,
                sequence,
                records,
            }),
        );
        sequence += 1;
    }
    assert_eq!(sequence, verified.chunks);
    apply(
        store,
        Command::RestoreCommit(RestoreCommit {
            id,
            chunks: verified.chunks,
            hash: verified.hash,
        }),
    );
    store.publish();
    Ok(verified)
}

pub(crate) fn restored(state: &[u8]) -> View {
    restored_at(state, 0)
}

pub(crate) fn restored_at(state: &[u8], snapshot_index: u64) -> View {
    let mut store = Store::new();
    restore_at(&mut store, state, Unknown::Skip, snapshot_index).unwrap();
    store.freeze()
}

pub(crate) fn written(view: &View) -> Vec<u8> {
    let mut state = Vec::new();
    let len = archive::write(view, &mut state).unwrap();
    assert_eq!(len, state.len() as u64);
    assert_eq!(len, archive::size(view));
    state
}

/// The records that are to come out where these went in.
fn after_restore(state: &[u8]) -> (u64, Vec<Decoded>) {
    let (header, records) = decode_state(state);
    let last_index = header["LastIndex"].as_u64().unwrap();
    let expected = records
        .into_iter()
        .filter(|record| Kind::from_byte(record.kind).is_some())
        .map(|mut record| {
            if record.kind == Kind::Register.byte() {
                let row = record.object.as_object_mut().unwrap();
                register_after_restore(row, last_index);
            }
            if record.kind == Kind::Query.byte() {
                let row = record.object.as_object_mut().unwrap();
                let service = row["Service"].as_object_mut().unwrap();
                keep(
                    service,
                    &["Failover", "Near", "OnlyPassing", "Service", "Tags"],
                    &["NodeMeta"],
                );
                keep(
                    row["Template"].as_object_mut().unwrap(),
                    &["Regexp", "Type"],
                    &[],
                );
            }
            record
        })
        .collect();
    (last_index, expected)
}

fn register_after_restore(row: &mut Map<String, Value>, last_index: u64) {
    keep(
        row,
        &[
            "Address",
            "Check",
            "Checks",
            "Datacenter",
            "Node",
            "Service",
            "TaggedAddresses",
            "Token",
        ],
        &["ID", "NodeMeta"],
    );
    row.insert("Datacenter".into(), json!(""));
    if let Some(service) = row["Service"].as_object_mut() {
        let fields = [
            "Address",
            "CreateIndex",
            "EnableTagOverride",
            "ID",
            "ModifyIndex",
            "Port",
            "Service",
            "Tags",
        ];
        keep(service, &fields, &["Meta"]);
    }
    if let Some(check) = row["Check"].as_object_mut() {
        let fields = [
            "CheckID",
            "CreateIndex",
            "ModifyIndex",
            "Name",
            "Node",
            "Notes",
            "Output",
            "ServiceID",
            "ServiceName",
            "Status",
        ];
        keep(check, &fields, &[]);
    }
    for part in ["Service", "Check"] {
        if let Some(part) = row[part].as_object_mut() {
            part.insert("CreateIndex".into(), json!(last_index));
            part.insert("ModifyIndex".into(), json!(last_index));
        }
    }
}

/// Of a later release's fields we know some, and write them where they are set.
fn keep(row: &mut Map<String, Value>, always: &[&str], if_set: &[&str]) {
    for field in always {
        assert!(row.contains_key(*field), "{field}");
    }
    row.retain(|field, value| {
        let is_set = !value.is_null() && *value != json!({}) && *value != json!("");
        always.contains(&field.as_str()) || (if_set.contains(&field.as_str()) && is_set)
    });
}

#[test]
fn real_snapshots_come_back() {
    for name in [
        "empty.snap",
        "full-0.7.1.snap",
        "three-servers.snap",
        "large-10k.snap",
        "from-1.4.0.snap",
    ] {
        let original = fixture(name);
        let ours = written(&restored(&original));
        let (last_index, expected) = after_restore(&original);
        let (header, records) = decode_state(&ours);
        // The header names the highest index of any table, and tables may have lost theirs to the rule.
        assert!(
            header["LastIndex"].as_u64().unwrap() <= last_index,
            "{name}"
        );
        assert_eq!(records.len(), expected.len(), "{name}");
        for (ours, theirs) in records.iter().zip(&expected) {
            assert_eq!(ours, theirs, "{name}");
        }
        // Nothing is left to change.
        assert_eq!(written(&restored(&ours)), ours, "{name}");
    }
}

/// Old-dialect strings, sorted keys: byte for byte what the original wrote, but for what a restore changes.
#[test]
fn the_dialect_is_the_original_s() {
    let original = fixture("full-0.7.1.snap");
    let ours = written(&restored(&original));
    let (_, theirs) = decode_state(&original);
    let (_, ours) = decode_state(&ours);
    let mut same = 0;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if ours.object == theirs.object && ours.object["TaggedAddresses"].as_object().is_none() {
            assert_eq!(ours.bytes, theirs.bytes);
            same += 1;
        }
        assert_eq!(ours.kind, theirs.kind);
    }
    assert!(same > 40, "{same}");
}

#[test]
fn the_decoder_of_this_test_agrees_with_the_one_beside_the_fixtures() {
    for name in ["empty", "full-0.7.1", "three-servers", "from-1.4.0"] {
        let text = fs::read_to_string(fixtures().join(format!("{name}.decoded.jsonl"))).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (header, records) = decode_state(&fixture(&format!("{name}.snap")));
        assert_eq!(lines[1]["Data"], header);
        assert_eq!(lines.len(), records.len() + 2);
        for (line, record) in lines[2..].iter().zip(records) {
            let mut theirs = line["Data"].clone();
            let mut ours = record.object;
            // The file beside the fixtures leaves a private key out.
            if record.kind == 14 {
                theirs["PrivateKey"] = Value::Null;
                ours["PrivateKey"] = Value::Null;
            }
            assert_eq!(rounded(theirs), rounded(ours));
        }
    }
}

/// The last digit of a float is lost on the way through JSON.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            json!(format!("{:.12e}", number.as_f64().unwrap()))
        }
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(pairs) => pairs
            .into_iter()
            .map(|(key, value)| (key, rounded(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[test]
fn later_types_are_refused_or_skipped_and_counted() {
    let state = fixture("from-1.4.0.snap");
    let error = archive::verify(&state[..], Unknown::Refuse).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unrecognized msg type: [17] (record 12, type ACLToken, at byte 4641)"
    );
    let verified = archive::verify(&state[..], Unknown::Skip).unwrap();
    let skipped: BTreeMap<String, u64> = verified
        .skipped
        .iter()
        .map(|(byte, tally)| (archive::TypeName(*byte).to_string(), tally.count))
        .collect();
    let expected = [
        ("ACLPolicy", 2),
        ("ACLToken", 4),
        ("Autopilot", 1),
        ("ConnectCA", 1),
        ("ConnectCAConfig", 1),
        ("ConnectCAProviderState", 1),
        ("Index", 17),
        ("Intention", 1),
    ];
    assert_eq!(
        skipped,
        expected
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
    let counted: u64 = verified
        .records
        .values()
        .chain(verified.skipped.values())
        .map(|tally| tally.bytes)
        .sum();
    assert_eq!(counted + verified.header_bytes, state.len() as u64);
}

fn keys(view: &View) -> Vec<String> {
    let list = KvList {
        prefix: Text::default(),
    };
    let entries = list.read(view, &mut Watch::default()).answer;
    entries
        .iter()
        .map(|entry| String::from_utf8_lossy(entry.key()).into_owned())
        .collect()
}

/// Every small archive beside the fixtures, as far as its state is concerned.
#[test]
fn edges_go_as_observed() {
    let observed = fs::read_to_string(fixtures().join("edge/observed-0.7.1.json")).unwrap();
    let observed: BTreeMap<String, Value> = serde_json::from_str(&observed).unwrap();
    let mut seen = BTreeMap::new();
    for (name, observed) in &observed {
        let path = fixtures().join(format!("edge/{name}.snap"));
        let mut state = Vec::new();
        let unpacked = wire::archive::unpack(fs::File::open(path).unwrap(), &mut state);
        let group = name.split('-').next().unwrap().to_owned();
        if unpacked.is_err() {
            // The container is refused: no matter of ours, but it must be one that is to be.
            let on_purpose = ["accept-cut-gzip-trailer", "accept-junk-after-gzip"];
            assert!(
                group == "reject" || on_purpose.contains(&name.as_str()),
                "{name}"
            );
            continue;
        }
        *seen.entry(group.clone()).or_insert(0) += 1;
        let mut store = Store::new();
        let result = restore(&mut store, &state, Unknown::Refuse);
        if group == "crash" {
            let error = result.unwrap_err().to_string();
            assert!(keys(&store.freeze()).is_empty());
            let (_, said) = observed["panic"][0]
                .as_str()
                .unwrap()
                .rsplit_once("failed to restore snapshot ")
                .unwrap();
            let (_, said) = said.split_once(": ").unwrap();
            let expected = match name.as_str() {
                // The position says what the text of the original doesn't.
                "crash-state-empty" => "unexpected EOF (in the header)",
                "crash-state-truncated" | "crash-trailing-byte" => "unexpected EOF (record ",
                "crash-value-is-array" => {
                    "failed decoding: expected an unsigned integer, found an array (0x91) at byte "
                }
                _ => said,
            };
            assert!(error.starts_with(expected), "{name}: {error}");
            assert!(
                error.contains("record ") || name == "crash-state-empty",
                "{name}: {error}"
            );
        } else {
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
            if let Some(keys_after) = observed["kv_keys_after"].as_str()
                && group == "accept"
            {
                let expected: Vec<String> = serde_json::from_str(keys_after).unwrap();
                assert_eq!(keys(&store.freeze()), expected, "{name}");
            }
        }
    }
    assert!(seen["crash"] >= 11 && seen["accept"] >= 17, "{seen:?}");
}

/// A record by hand: what the original takes, though it never writes it.
fn records(records: &[(Kind, Value)]) -> Vec<u8> {
    let mut state = Vec::new();
    crate::decode::encode(&mut state, &json!({"LastIndex": 9}));
    for (kind, object) in records {
        state.push(kind.byte());
        crate::decode::encode(&mut state, object);
    }
    state
}

#[test]
fn takes_what_the_original_takes() {
    let node = json!({"Node": "N", "Address": "a"});
    let combined = json!({
        "Node": "N", "Address": "a",
        "Service": {"ID": "S", "Service": "web", "Tags": null},
        "Check": {"Node": "n", "CheckID": "c1", "ServiceID": "s", "ServiceName": "wrong"},
        "Checks": [{"Node": "N", "CheckID": "c2", "Status": "passing"}],
    });
    let as_array = json!([3, "by-place", 7, "value", "", 4, 5]);
    let session = "00000000-0000-0000-0000-00000000000a";
    let state = records(&[
        (Kind::Kvs, as_array),
        (
            Kind::Kvs,
            json!({"Key": "held", "Session": session, "ModifyIndex": 6, "Value": "v"}),
        ),
        (
            Kind::Session,
            json!({"ID": session, "Node": "n", "Checks": ["c1"], "Behavior": "delete", "ModifyIndex": 5}),
        ),
        (Kind::Tombstone, json!({"Key": "gone", "ModifyIndex": 7})),
        (
            Kind::Coordinates,
            json!([{"Node": "N", "Coord": {"Vec": [1.5]}}, {"Node": "other", "Coord": null}]),
        ),
        (Kind::Register, node),
        (Kind::Register, combined),
    ]);
    let (_, out) = decode_state(&written(&restored(&state)));
    let of = |kind: Kind| -> Vec<&Value> {
        out.iter()
            .filter(|record| record.kind == kind.byte())
            .map(|record| &record.object)
            .collect()
    };
    let registers = of(Kind::Register);
    assert_eq!(registers.len(), 4);
    assert_eq!(registers[2]["Check"]["ServiceName"], "web");
    assert_eq!(registers[2]["Check"]["Status"], "critical");
    assert_eq!(registers[3]["Check"]["ModifyIndex"], 9);
    // The critical check came after the session, and ended it, and with it the key.
    assert!(of(Kind::Session).is_empty());
    let kvs = of(Kind::Kvs);
    assert_eq!(kvs.len(), 1);
    assert_eq!(
        *kvs[0],
        json!({"CreateIndex": 4, "Flags": 7, "Key": "by-place", "LockIndex": 3, "ModifyIndex": 5, "Session": "", "Value": "value"})
    );
    assert_eq!(of(Kind::Tombstone).len(), 2);
    assert_eq!(of(Kind::Coordinates).len(), 2);
}

#[test]
fn takes_structs_by_place_and_what_came_later() {
    let id = "00000000-0000-0000-0000-00000000000a";
    let node =
        json!(["dc1", "N", "addr", {"lan": "l"}, ["S", "web", ["t"], "", 80, true, 3, 4], null]);
    let later = json!({
        "ID": id, "Node": "N", "Checks": ["both"],
        "NodeChecks": ["serfHealth", "both"],
        "ServiceChecks": [{"ID": "service:1", "Namespace": "default"}],
    });
    let state = records(&[(Kind::Register, node), (Kind::Session, later)]);
    let (_, out) = decode_state(&written(&restored(&state)));
    assert_eq!(out.len(), 3);
    assert_eq!(out[1].object["TaggedAddresses"], json!({"lan": "l"}));
    assert_eq!(
        out[1].object["Service"],
        json!({"Address": "", "CreateIndex": 9, "EnableTagOverride": true, "ID": "S", "ModifyIndex": 9, "Port": 80, "Service": "web", "Tags": ["t"]})
    );
    assert_eq!(
        out[2].object["Checks"],
        json!(["both", "serfHealth", "service:1"])
    );
    assert_eq!(out[2].object["Behavior"], "release");
}

#[test]
fn refuses_with_the_record_named() {
    let uuid = "00000000-0000-0000-0000-00000000000a";
    let other = "00000000-0000-0000-0000-00000000000b";
    for (given, expected) in [
        (
            vec![(Kind::Kvs, json!({}))],
            "failed inserting kvs entry: object missing primary index (record 1, type KVS, at byte 25)",
        ),
        (
            vec![(Kind::Kvs, Value::Null)],
            "failed inserting kvs entry: object missing primary index",
        ),
        (
            vec![(Kind::Kvs, json!({"Key": "k", "Session": "x"}))],
            "failed inserting kvs entry: failed to build index 'session': UUID must be 36 characters",
        ),
        (
            vec![(Kind::Kvs, json!({"Key": "k", "ModifyIndex": u64::MAX}))],
            "failed inserting kvs entry: index 18446744073709551615 is beyond all that can be",
        ),
        (
            vec![(Kind::Kvs, json!({"Key": "k", "Flags": -1}))],
            "failed decoding: expected an unsigned integer, found -1",
        ),
        (
            vec![(Kind::Kvs, json!({"Key": "k", "Flags": 1.5}))],
            "failed decoding: expected an unsigned integer, found a float",
        ),
        (
            vec![(Kind::Tombstone, json!({}))],
            "failed restoring tombstone: object missing primary index",
        ),
        (
            vec![(Kind::Session, json!({}))],
            "failed inserting session: object missing primary index",
        ),
        (
            vec![(Kind::Session, json!({"ID": uuid, "Behavior": "x"}))],
            "failed inserting session: Invalid session behavior: x",
        ),
        (
            vec![(Kind::Session, json!({"ID": uuid, "Checks": ["c"]}))],
            "failed inserting session check: object missing primary index",
        ),
        (
            vec![(Kind::Acl, json!({"Name": "x"}))],
            "failed restoring acl: object missing primary index (record 1, type ACL, at byte 25)",
        ),
        (
            vec![(Kind::Coordinates, json!([{"Coord": null}]))],
            "failed restoring coordinate: object missing primary index",
        ),
        (
            vec![(Kind::Query, json!({"ID": "x"}))],
            "failed restoring prepared query: failed to build primary index: UUID must be 36 characters",
        ),
        (
            vec![(Kind::Query, json!({"ID": uuid, "Template": {"Type": "x"}}))],
            "failed compiling template: Bad Template.Type 'x' (record 1, type PreparedQuery, at byte 25)",
        ),
        (
            vec![
                (Kind::Query, json!({"ID": uuid, "Name": "q"})),
                (Kind::Query, json!({"ID": other, "Name": "Q"})),
            ],
            "failed restoring prepared query: name 'Q' aliases an existing query name (record 2,",
        ),
        (
            vec![(Kind::Register, json!({}))],
            "failed inserting node: object missing primary index (record 1, type Register, at byte 25)",
        ),
        (
            vec![(Kind::Register, json!({"Node": "n", "Service": {}}))],
            "failed inserting service: object missing primary index",
        ),
        (
            vec![(Kind::Register, json!({"Node": "n", "Check": {"Node": "n"}}))],
            "failed inserting check: object missing primary index",
        ),
        (
            vec![(
                Kind::Register,
                json!({"Node": "n", "Check": {"CheckID": "c", "Node": "m"}}),
            )],
            "failed inserting check: Missing node registration",
        ),
        (
            vec![(
                Kind::Register,
                json!({"Node": "n", "Check": {"CheckID": "c", "Node": "n", "ServiceID": "s"}}),
            )],
            "failed inserting check: Missing service registration",
        ),
        (
            vec![(Kind::Register, json!({"Node": 7}))],
            "failed decoding: expected a string, found a signed integer",
        ),
    ] {
        let state = records(&given);
        let error = archive::verify(&state[..], Unknown::Skip).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let huge = [&[6, 0xdd, 0, 1, 0, 1][..], &vec![0xc0; 65_537]].concat();
    let state = [records(&[]), huge].concat();
    let error = archive::verify(&state[..], Unknown::Skip).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("failed decoding: more than 65536 items"),
        "{error}"
    );
}

#[test]
fn chunks_hold_whole_records() {
    let big = "x".repeat(700_000);
    let mut given: Vec<(Kind, Value)> = Vec::new();
    for n in 0..6 {
        given.push((Kind::Kvs, json!({"Key": format!("big{n}"), "Value": big})));
        given.push((Kind::Kvs, json!({"Key": format!("small{n}"), "Value": "v"})));
    }
    given.push((Kind::Kvs, json!({"Key": "huge", "Value": big.repeat(3)})));
    given.push((Kind::Kvs, json!({"Key": "last"})));
    let state = records(&given);
    let mut chunks = Chunks::open(&state[..]).unwrap();
    let mut all = Vec::new();
    let mut sizes = Vec::new();
    while let Some(chunk) = chunks.next_chunk().unwrap() {
        // Each can be taken alone.
        Loader::new(9).add_records(&chunk).unwrap();
        sizes.push(chunk.len());
        all.extend(chunk);
    }
    assert!(
        sizes
            .iter()
            .filter(|size| **size > model::RESTORE_CHUNK_MAX)
            .count()
            == 1,
        "{sizes:?}"
    );
    assert_eq!(all, state[25..]);
    assert_eq!(keys(&restored(&state)).len(), 14);
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let sources = ["empty.snap", "full-0.7.1.snap", "from-1.4.0.snap"].map(|name| {
        let state = fixture(name);
        // The large values teach nothing here.
        state[..state.len().min(12_000)].to_vec()
    });
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (
        0..sources.len(),
        prop::collection::vec(change, 0..4),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(move |(source, changes, cut, is_cut)| {
            let mut state = sources[source].clone();
            for (at, byte) in changes {
                let at = at.index(state.len());
                state[at] = byte;
            }
            if is_cut {
                state.truncate(cut.index(state.len()));
            }
            state
        })
}

proptest! {
    /// What passes the verification loads; what does not is an error, never a panic.
    #[test]
    fn verified_is_loadable(state in mutated()) {
        let mut store = Store::new();
        if restore(&mut store, &state, Unknown::Skip).is_ok() {
            let ours = written(&store.freeze());
            // A header below its records is put right the first time, and the catalog then has that index.
            let again = written(&restored(&ours));
            prop_assert_eq!(&written(&restored(&again)), &again);
        }
    }

    /// The loader judges as the verification does.
    #[test]
    fn loader_and_verification_agree(state in mutated()) {
        let Ok(mut reader) = wire::msgpack::RecordReader::open(&state[..]) else {
            return Ok(());
        };
        let mut loader = Loader::new(0);
        let mut verdict = true;
        loop {
            match reader.next_record() {
                Ok(None) => break,
                Ok(Some(record)) => verdict &= loader.add(record.kind, record.bytes).is_ok(),
                Err(_) => verdict = false,
            }
            if !verdict {
                break;
            }
        }
        let verified = archive::verify(&state[..], Unknown::Refuse);
        if let Err(StateError::Header(_)) = verified {
            return Ok(());
        }
        prop_assert_eq!(verdict, verified.is_ok());
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let _ = archive::verify(&bytes[..], Unknown::Skip);
        let _ = Loader::new(1).add_records(&bytes);
    }
}
