//! Snapshots that the original made, restored into the program: it answers as the original did.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::Agent;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/snapshots")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&read(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An agent with tokens in use, as the one was that made the answers.
fn start_with_tokens(folder: &Path, node: &str) -> Agent {
    let tokens = folder.join("tokens.json");
    std::fs::write(
        &tokens,
        r#"{"acl_datacenter": "dc1", "acl_master_token": "root", "acl_token": "root"}"#,
    )
    .unwrap();
    Agent::start_as(
        folder,
        node,
        &[&format!("-config-file={}", tokens.display())],
    )
}

/// Asks everything that the original was asked, and compares.
fn compare(agent: &Agent, expected: &Path) {
    let mut differences = Vec::new();
    for case in read_json(&expected.join("index.json")).as_array().unwrap() {
        let path = case["path"].as_str().unwrap();
        let answer = agent.request("GET", path, b"");
        let status = u64::from(answer.status);
        if status != case["status"] {
            differences.push(format!(
                "{path}: status {status} instead of {}",
                case["status"]
            ));
            continue;
        }
        let want = read_json(&expected.join(case["file"].as_str().unwrap()));
        let got = match serde_json::from_slice::<Value>(&answer.body) {
            Ok(body) => body,
            Err(_) => Value::from(answer.text()),
        };
        if normal(got.clone()) != normal(want.clone()) {
            differences.push(format!("{path}:\n  ours     {got}\n  original {want}"));
        }
        let index = answer
            .header("x-consul-index")
            .map_or(0, |index| index.parse().unwrap());
        let least = case["x_consul_index"].as_u64().unwrap();
        if index < least || (index == 0) != (least == 0) {
            differences.push(format!("{path}: index {index}, the original's was {least}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The order of tags is that of a hash table in the original, and it doesn't tell how long sessions have left.
fn normal(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("TTLLeft");
            for (_, field) in fields.iter_mut() {
                *field = normal(field.take());
            }
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
        Value::Array(items) => {
            for item in items {
                *item = normal(item.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

#[test]
fn a_restored_snapshot_is_answered_as_the_original_answers() {
    let folder = tempfile::tempdir().unwrap();
    let agent = start_with_tokens(folder.path(), "snap-server");
    agent.expect(
        "PUT",
        "/v1/snapshot",
        &read(&fixtures().join("full-0.7.1.snap")),
    );
    let expected = fixtures().join("full-0.7.1.expected/after-restore-same-name");
    compare(&agent, &expected);

    // The same after a crash. (Starting an agent writes a key of its own.)
    agent.kill();
    let agent = start_with_tokens(folder.path(), "snap-server");
    agent.expect("DELETE", "/v1/kv/ready", b"");
    let keys = agent.expect("GET", "/v1/kv/?keys", b"");
    let keys: Value = serde_json::from_slice(&keys).unwrap();
    assert_eq!(keys, read_json(&expected.join("v1_kv_keys.json")));
}

#[test]
fn what_is_restored_and_saved_again_has_the_same_records() {
    for name in ["full-0.7.1", "three-servers", "large-10k", "empty"] {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = fixtures().join(format!("{name}.snap"));
        // A node of the name that made the snapshot, so that nothing registers itself in between.
        let node = match name {
            "full-0.7.1" => "snap-server",
            "three-servers" => "srv-1",
            "large-10k" => "large-server",
            _ => "empty-server",
        };
        let agent = Agent::start_as(folder.path(), node, &[]);
        agent.expect("PUT", "/v1/snapshot", &read(&snapshot));
        let saved = folder.path().join("saved.snap");
        std::fs::write(&saved, agent.expect("GET", "/v1/snapshot", b"")).unwrap();
        // Without showing both, which would be ten thousand keys.
        assert!(
            inspect(&saved) == inspect(&snapshot),
            "{name}: other records than before"
        );
    }
}

#[test]
fn lists_are_in_the_order_of_coordinates_that_were_measured() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_as(folder.path(), "snap-server", &[]);
    let snapshot = read(&fixtures().join("full-0.7.1.snap"));
    agent.expect("PUT", "/v1/snapshot", &snapshot);
    // The original had measured its server and its client; nobody measured the others.
    // The way out of the server was so long that the client seemed nearer to it than the server itself.
    let names = |path: &str| {
        let list = agent.expect("GET", path, b"");
        let list: Vec<Value> = serde_json::from_slice(&list).unwrap();
        let names = list.iter().map(|row| row["Node"].as_str().unwrap());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        // Checks of one node stand together.
        names.dedup();
        names
    };
    let others = ["ext-db1", "ext-node", "ext-web1"];
    let (client, server) = ("snap-client", "snap-server");
    for (near, expected) in [
        ("", [&others[..], &[client, server]].concat()),
        (
            "?near=snap-client",
            [&[client, server], &others[..]].concat(),
        ),
        (
            "?near=SNAP-server",
            [&[client, server], &others[..]].concat(),
        ),
        ("?near=_agent", [&[client, server], &others[..]].concat()),
        ("?near=ext-node", [&others[..], &[client, server]].concat()),
        ("?near=nobody", [&others[..], &[client, server]].concat()),
    ] {
        assert_eq!(
            names(&format!("/v1/catalog/nodes{near}")),
            expected,
            "{near}"
        );
    }
    for (path, first) in [
        ("/v1/health/state/any?near=snap-server", client),
        ("/v1/health/state/passing?near=snap-client", client),
    ] {
        assert_eq!(names(path)[0], first, "{path}");
    }
}

/// What is in a snapshot, by type and by key.
fn inspect(file: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args([
            "snapshot",
            "inspect",
            "-format=json",
            "-kvdetails",
            "-kvdepth=100",
        ])
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let mut shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Which index and term it was taken at may differ, and rows of the catalog have other indexes after a restore.
    shown
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !["Meta", "TotalSize"].contains(&name.as_str()));
    for row in shown["Stats"].as_array_mut().unwrap() {
        if row["Name"] == "Register" {
            row["Sum"] = Value::Null;
        }
    }
    shown["Stats"]
        .as_array_mut()
        .unwrap()
        .sort_by_key(|row| row["Name"].to_string());
    shown
}

#[test]
fn every_edge_is_taken_or_refused_as_the_original_does_or_better() {
    let edge = fixtures().join("edge");
    let observed = read_json(&edge.join("observed-0.7.1.json"));
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_as(folder.path(), "empty-server", &[]);
    for (name, observed) in observed.as_object().unwrap() {
        agent.expect("DELETE", "/v1/kv/?recurse", b"");
        agent.expect("PUT", "/v1/kv/was-here", b"x");
        let answer = agent.request(
            "PUT",
            "/v1/snapshot",
            &read(&edge.join(format!("{name}.snap"))),
        );
        let keys = agent.request("GET", "/v1/kv/?keys", b"").text();
        let text = answer.text();
        let (kind, _) = name.split_once('-').unwrap();
        // Ours refuses on purpose what was damaged on its way, even if the damage did no harm.
        let damaged =
            ["accept-cut-gzip-trailer", "accept-junk-after-gzip"].contains(&name.as_str());
        if kind == "quirk" || (kind == "accept" && !damaged) {
            assert_eq!((answer.status, text.as_str()), (200, ""), "{name}");
            let expected = if kind == "quirk" {
                "[]"
            } else {
                observed["kv_keys_after"].as_str().unwrap()
            };
            assert_eq!(keys, expected, "{name}");
            continue;
        }
        assert_eq!(answer.status, 500, "{name}: {text}");
        assert_eq!(keys, r#"["was-here"]"#, "{name}");
        match name.as_str() {
            _ if damaged => assert!(
                text.starts_with("failed to decompress snapshot: gzip: "),
                "{name}: {text}"
            ),
            // The end of this text is that of Go's JSON parser.
            "reject-meta-not-json" => {
                let start = "failed to read snapshot file: failed to decode snapshot metadata: ";
                assert!(text.starts_with(start), "{text}");
            }
            _ if kind == "reject" => {
                assert_eq!(text, observed["put_body"].as_str().unwrap(), "{name}")
            }
            _ => {
                let start = "Raft error when restoring snapshot: failed to restore snapshot: ";
                assert!(text.starts_with(start), "{name}: {text}");
                let said = text.contains("record ") || text.contains("header");
                assert!(said, "{name} does not say where: {text}");
            }
        }
    }
}

#[test]
fn a_snapshot_of_a_later_release_is_restored_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_as(folder.path(), "v14", &[]);
    let snapshot = read(&fixtures().join("from-1.4.0.snap"));
    let refused = agent.request("PUT", "/v1/snapshot", &snapshot);
    assert_eq!(refused.status, 500, "{}", refused.text());
    agent.expect("PUT", "/v1/snapshot?skip-unknown", &snapshot);
    let expected = fixtures().join("from-1.4.0.expected/at-save/v1_kv_recurse.json");
    let keys: Value = serde_json::from_slice(&agent.expect("GET", "/v1/kv/?recurse", b"")).unwrap();
    assert_eq!(keys, read_json(&expected));
}

/// Runs a command on snapshots against an agent; its exit status, and what it printed.
fn snapshot(agent: &Agent, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_consul"))
        .arg("snapshot")
        .args(words)
        .env("CONSUL_HTTP_ADDR", agent.address.to_string())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn what_would_change_is_told_before_and_is_what_changes() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path());
    for (key, value) in [("app/a", "1"), ("app/b", "1"), ("db/x", "1")] {
        agent.expect("PUT", &format!("/v1/kv/{key}"), value.as_bytes());
    }
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (identity, file) = (path("key.txt"), path("a.snap.age"));
    std::fs::write(
        &identity,
        "AGE-SECRET-KEY-1RJ2JAYD44W0XMDYKVDGN6E24XLW70CL8QYWNYQM8FU9RZGTQJH5S8A9ESF\n",
    )
    .unwrap();
    let identity = format!("-identity={identity}");
    let recipient = "-encrypt-to=age13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf";
    let (status, text) = snapshot(&agent, &["save", recipient, &file]);
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = snapshot(&agent, &["verify", &identity, &file]);
    assert_eq!(status, Some(0), "{text}");

    // Everything is as it was, and then it isn't.
    let whole = ["restore", "-dry-run", &identity, &file];
    assert_eq!(
        snapshot(&agent, &whole),
        (Some(0), "No difference\n".to_owned())
    );
    agent.expect("DELETE", "/v1/kv/app/a", b"");
    agent.expect("PUT", "/v1/kv/app/b", b"2");
    agent.expect("PUT", "/v1/kv/app/c", b"2");
    agent.expect("PUT", "/v1/kv/db/x", b"2");
    let (status, text) = snapshot(&agent, &["diff", "-live", &identity, &file]);
    assert_eq!(status, Some(2), "{text}");
    let part = ["-kv-prefix=app/", &identity, &file];
    let dry = [&["restore", "-dry-run"], &part[..]].concat();
    assert_eq!(
        snapshot(&agent, &dry),
        (
            Some(2),
            "keys: 1 added, 1 changed, 1 removed, 2 the same\n  + app/a\n  ~ app/b\n  - app/c\n"
                .to_owned()
        )
    );
    assert_eq!(
        snapshot(&agent, &[&["restore"], &part[..]].concat()),
        (Some(0), "Restored kv of the snapshot\n".to_owned())
    );
    assert_eq!(
        snapshot(&agent, &dry),
        (Some(0), "No difference\n".to_owned())
    );
    let keys = agent.request("GET", "/v1/kv/?keys", b"").json();
    assert_eq!(keys, serde_json::json!(["app/a", "app/b", "db/x", "ready"]));
    assert_eq!(agent.expect("GET", "/v1/kv/db/x?raw", b""), b"2");

    // Somewhere else, beside what is there.
    let moved = [
        "restore",
        "-kv-prefix=db/",
        "-into-prefix=old/",
        "-merge",
        &identity,
        &file,
    ];
    let (status, text) = snapshot(&agent, &moved);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(agent.expect("GET", "/v1/kv/old/x?raw", b""), b"1");
    assert_eq!(agent.expect("GET", "/v1/kv/db/x?raw", b""), b"2");
}
