//! The commands against stand-ins for agents.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::command::OK;
use crate::command::stub::{Reply, Stub};
use crate::console::Console;
use crate::console::tests::{Printed, consul};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/snapshots")
        .join(name)
}

fn saving(reply: Reply) -> Stub {
    Stub::tcp(move |_| Reply {
        headers: &[("X-Consul-Index", "68")],
        ..reply.clone()
    })
}

fn run(stub: &Stub, words: &[&str], input: &[u8]) -> Printed {
    let address = format!("-http-addr={}", stub.address);
    consul(
        &[&["snapshot", words[0], &address], &words[1..]].concat(),
        input,
        &[],
    )
}

fn names_in(room: &Path) -> Vec<String> {
    let entries = fs::read_dir(room).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn saves_whole_files_that_only_the_owner_reads() {
    let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
    let stub = saving(Reply::ok(archive.clone()));
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("a.snap");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let link = room.path().join("link.snap");
    std::os::unix::fs::symlink(&file, &link).unwrap();

    let printed = run(&stub, &["save", "-stale", link.to_str().unwrap()], b"");
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Saved and verified snapshot to index 68\n", 0)
    );
    assert_eq!(fs::read(&file).unwrap(), archive);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(stub.lines(), ["GET /v1/snapshot?stale="]);
    let mut names = names_in(room.path());
    names.sort();
    assert_eq!(names, ["a.snap", "link.snap"]);
}

#[test]
fn a_failed_save_leaves_no_trace() {
    let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
    let broken = fs::read(fixture("edge/crash-state-truncated.snap")).unwrap();
    let cases = [
        (
            Reply::status(403, "Permission denied"),
            "Error saving snapshot: Unexpected response code: 403 (Permission denied)\n",
        ),
        (
            Reply {
                cut: Some(1000),
                ..Reply::ok(archive.clone())
            },
            "Error writing snapshot file: ",
        ),
        (
            Reply::ok(&archive[..1000]),
            "Error verifying snapshot file: failed to read snapshot file: ",
        ),
        (
            Reply::ok(broken),
            "Error verifying snapshot file: unexpected EOF (record ",
        ),
        (
            Reply::ok(""),
            "Error verifying snapshot file: failed to decompress snapshot: EOF\n",
        ),
    ];
    for (reply, problem) in cases {
        let stub = saving(reply);
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("a.snap");
        let printed = run(&stub, &["save", file.to_str().unwrap()], b"");
        assert_eq!(printed.status, 1);
        assert!(printed.output.starts_with(problem), "{}", printed.output);
        assert_eq!(names_in(room.path()), [""; 0]);

        fs::write(&file, "old").unwrap();
        assert_eq!(run(&stub, &["save", file.to_str().unwrap()], b"").status, 1);
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(names_in(room.path()), ["a.snap"]);

        let printed = run(&stub, &["save", "-"], b"");
        assert_eq!((printed.output.as_str(), printed.status), ("", 1));
        assert!(printed.errors.starts_with(problem), "{}", printed.errors);
    }
}

#[test]
fn saves_to_standard_output_and_refuses_odd_places() {
    let archive = fs::read(fixture("empty.snap")).unwrap();
    let stub = saving(Reply::ok(archive.clone()));
    let mut output = Vec::new();
    let mut errors = Vec::new();
    let mut console = Console {
        input: &mut io::empty(),
        output: &mut output,
        errors: &mut errors,
        errors_is_terminal: false,
        environment: [("CONSUL_HTTP_ADDR".to_owned(), stub.address.clone())].into(),
    };
    let line = ["snapshot", "save", "-"].map(str::to_owned);
    assert_eq!(crate::command::dispatch(&line, &mut console), OK);
    assert_eq!(output, archive);
    assert_eq!(errors, b"Saved and verified snapshot to index 68\n");

    assert_eq!(run(&stub, &["save", "/dev/null"], b"").status, OK);
    assert!(
        fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
    let cases = [
        (
            "/nonexistent/a",
            "Error creating snapshot file: open /nonexistent/a: no such file or directory\n",
        ),
        (
            "/",
            "Error creating snapshot file: open /: is a directory\n",
        ),
    ];
    for (file, problem) in cases {
        assert_eq!(run(&stub, &["save", file], b"").output, problem);
    }
}

#[test]
fn restores_from_a_file_or_standard_input() {
    let stub = Stub::tcp(|_| Reply::ok(""));
    let path = fixture("large-10k.snap");
    let archive = fs::read(&path).unwrap();
    let printed = run(&stub, &["restore", path.to_str().unwrap()], b"");
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Restored snapshot\n", 0)
    );
    let printed = run(
        &stub,
        &["restore", "-skip-unknown", "-datacenter=d", "-"],
        &archive,
    );
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Restored snapshot\n", 0)
    );
    let asked = stub.asked();
    assert!(asked.iter().all(|asked| asked.body == archive));
    assert_eq!(asked[0].line, "PUT /v1/snapshot");
    assert_eq!(asked[1].line, "PUT /v1/snapshot?dc=d&skip-unknown=");
}

#[test]
fn restores_a_part() {
    let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
    let empty = fs::read(fixture("empty.snap")).unwrap();
    let stub = Stub::tcp(move |asked| {
        if asked.line.starts_with("PUT ") {
            return Reply::ok(r#"{"Skipped": []}"#);
        }
        Reply {
            headers: &[("X-Consul-Index", "68")],
            ..Reply::ok(empty.clone())
        }
    });
    let asked = |words: &[&str]| {
        let line = [&["restore"], words, &["-"]].concat();
        let printed = run(&stub, &line, &archive);
        (printed.output, stub.lines().concat())
    };
    let part = "PUT /v1/snapshot/part?";
    assert_eq!(
        asked(&["-only=queries,kv"]),
        (
            "Restored kv, queries of the snapshot\n".to_owned(),
            format!("{part}only=kv%2Cqueries&mode=replace")
        )
    );
    assert_eq!(
        asked(&[
            "-skip=catalog,sessions,acl,queries",
            "-kv-prefix=a",
            "-kv-prefix=b",
            "-merge"
        ])
        .1,
        format!("{part}only=kv&mode=merge&kv-prefix=a&kv-prefix=b")
    );
    assert_eq!(
        asked(&["-kv-prefix=a/", "-into-prefix=b/"]).1,
        format!("{part}only=kv&mode=replace&kv-prefix=a%2F&into-prefix=b%2F")
    );
    for (words, problem) in [
        (&["-merge"][..], "No part is named: "),
        (&["-only=kv", "-skip=kv"], "Only one of -only and -skip"),
        (&["-only=kv,nodes"], "Error: unknown part \"nodes\": "),
        (&["-only="], "Error: unknown part \"\": "),
        (&["-only=acl", "-kv-prefix=a"], "-kv-prefix is given, but"),
        (
            &["-only=kv", "-into-prefix=a"],
            "-into-prefix needs exactly one",
        ),
        (
            &["-kv-prefix=a", "-into-prefix="],
            "With an empty -into-prefix",
        ),
        (
            &["-skip=catalog,sessions,acl,kv,queries"],
            "Error: nothing is left",
        ),
    ] {
        let (output, lines) = asked(words);
        assert!(output.starts_with(problem), "{words:?}: {output}");
        assert_eq!(lines, "");
    }

    // Told before: what it would change in a cluster that has nothing.
    let told = |words: &[&str]| {
        let line = [&["restore", "-dry-run"], words, &["-"]].concat();
        let printed = run(&stub, &line, &archive);
        stub.asked();
        (printed.status, printed.output)
    };
    let (status, all) = told(&[]);
    assert_eq!(status, 2);
    assert!(
        all.contains("\nkeys: 24 added") && all.contains("\ntokens: "),
        "{all}"
    );
    let (status, keys) = told(&["-only=kv"]);
    assert_eq!(status, 2);
    assert!(
        keys.starts_with("keys: 24 added, 0 changed, 0 removed"),
        "{keys}"
    );
    assert!(!keys.contains("tokens: "), "{keys}");
    let (status, moved) = told(&["-kv-prefix=tomb/", "-into-prefix=moved/"]);
    assert_eq!(status, 2);
    assert!(
        moved.contains("  + moved/") && !moved.contains("tomb/"),
        "{moved}"
    );
    assert_eq!(
        told(&["-kv-prefix=no such prefix"]),
        (0, "No difference\n".to_owned())
    );
    let (status, why) = told(&["-only=sessions"]);
    assert_eq!(status, 1);
    assert!(why.starts_with("A restore would fail: "), "{why}");
}

#[test]
fn says_why_a_restore_failed() {
    let stub =
        Stub::tcp(|_| Reply::status(500, "failed to decompress snapshot: gzip: invalid header"));
    let printed = run(&stub, &["restore", "-"], b"x");
    assert_eq!(
        printed.output,
        "Error restoring snapshot: Unexpected response code: 500 (failed to decompress snapshot: gzip: invalid header)\n"
    );
    let cases: &[(&[&str], &str)] = &[
        (&["restore"], "Missing FILE argument\n"),
        (
            &["restore", "a", "b"],
            "Too many arguments (expected 1, got 2)\n",
        ),
        (
            &["restore", "/nonexistent"],
            "Error opening snapshot file: open /nonexistent: no such file or directory\n",
        ),
        (&["save"], "Missing FILE argument\n"),
        (&["inspect"], "Missing FILE argument\n"),
        (
            &["inspect", "a", "b"],
            "Too many arguments (expected 1, got 2)\n",
        ),
    ];
    for (words, problem) in cases {
        let line: Vec<&str> = std::iter::once(&"snapshot")
            .chain(*words)
            .copied()
            .collect();
        let printed = consul(&line, b"", &[]);
        assert_eq!(
            (printed.output.as_str(), printed.status),
            (*problem, 1),
            "{words:?}"
        );
    }
    let printed = consul(&["snapshot", "restore", "-stale", "a"], b"", &[]);
    assert_eq!(
        printed.errors.lines().next(),
        Some("flag provided but not defined: -stale")
    );
}

#[test]
fn inspects_without_a_server() {
    let path = fixture("full-0.7.1.snap");
    let printed = consul(&["snapshot", "inspect", path.to_str().unwrap()], b"", &[]);
    assert_eq!(printed.status, 0);
    assert_eq!(
        printed.output,
        "ID           2-68-1795329324463\n\
         Size         141161\n\
         Index        68\n\
         Term         2\n\
         Version      1\n\
         \n\
         Type                       Count      Size\n\
         ----                       ----       ----\n\
         KVS                        24         131KB\n\
         Register                   18         3.8KB\n\
         PreparedQuery              5          1.2KB\n\
         Session                    4          615B\n\
         ACL                        5          588B\n\
         Tombstone                  5          383B\n\
         CoordinateBatchUpdate      2          310B\n\
         ----                       ----       ----\n\
         Total                      63         137.9KB\n"
    );

    let archive = fs::read(fixture("from-1.4.0.snap")).unwrap();
    let printed = consul(&["snapshot", "inspect", "-"], &archive, &[]);
    assert_eq!(printed.status, 0);
    let (_, skipped) = printed.output.split_once("\nSkipped: ").unwrap();
    assert!(skipped.contains("\nACLToken "), "{}", printed.output);
}

#[test]
fn inspects_keys_and_speaks_json() {
    let path = fixture("full-0.7.1.snap");
    let path = path.to_str().unwrap();
    let words = [
        "snapshot",
        "inspect",
        "-kvdetails",
        "-kvdepth=1",
        "-kvfilter=tomb/",
        path,
    ];
    let printed = consul(&words, b"", &[]);
    let (_, keys) = printed.output.split_once("\nKey Name ").unwrap();
    assert!(keys.contains("\ntomb "), "{}", printed.output);

    let words = ["snapshot", "inspect", "-kvdetails", "-format=json", path];
    let json: serde_json::Value = serde_json::from_str(&consul(&words, b"", &[]).output).unwrap();
    assert_eq!(json["Meta"]["ID"], "2-68-1795329324463");
    assert_eq!(
        json["Stats"][0],
        json!({"Name": "KVS", "Sum": 134_145, "Count": 24})
    );
    assert_eq!(json["TotalSize"], 141_161);
    assert_eq!(json["TotalSizeKV"], 134_145, "{json}");
    let printed = consul(&["snapshot", "inspect", "-format=xml", path], b"", &[]);
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Unknown format xml: it is pretty or json\n", 1)
    );
}

#[test]
fn inspecting_a_bad_file_is_a_failure_and_no_more() {
    let printed = consul(&["snapshot", "inspect", "-"], b"", &[]);
    assert_eq!(
        (printed.output.as_str(), printed.status),
        (
            "Error verifying snapshot: failed to decompress snapshot: EOF\n",
            1
        )
    );
    let edge = fs::read(fixture("edge/reject-meta-version-2.snap")).unwrap();
    let printed = consul(&["snapshot", "inspect", "-"], &edge, &[]);
    assert!(
        printed
            .output
            .ends_with("\nA restore would fail: Raft error when restoring snapshot: unsupported snapshot version 2\n"),
        "{}",
        printed.output
    );
    for file in fs::read_dir(fixture("edge")).unwrap() {
        let path = file.unwrap().path();
        let printed = consul(&["snapshot", "inspect", path.to_str().unwrap()], b"", &[]);
        let refused = printed.output.contains("Error verifying snapshot: ");
        assert_eq!(printed.status == 1, refused, "{path:?}: {}", printed.output);
    }
}

#[test]
fn sizes_for_people() {
    let cases = [
        (0, "0"),
        (1, "1B"),
        (1023, "1023B"),
        (1024, "1KB"),
        (1536, "1.5KB"),
        (134_145, "131KB"),
        (1 << 20, "1MB"),
        (5 << 40, "5TB"),
        (u64::MAX, "16777216TB"),
    ];
    for (size, text) in cases {
        assert_eq!(human(size), text, "{size}");
    }
}

#[test]
fn names_cannot_steer_the_terminal() {
    assert_eq!(printable("a/ü\u{1b}[31m\n"), "a/ü\\u{1b}[31m\\n");
}

/// A key pair that was made for these tests.
const RECIPIENT: &str = "age13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf";
const IDENTITY: &str =
    "# a comment\nAGE-SECRET-KEY-1RJ2JAYD44W0XMDYKVDGN6E24XLW70CL8QYWNYQM8FU9RZGTQJH5S8A9ESF\n";

#[test]
fn what_is_encrypted_is_opened_with_its_identity_alone() {
    let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
    let stub = saving(Reply::ok(archive.clone()));
    let room = tempfile::tempdir().unwrap();
    let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let (file, key) = (path("a.snap.age"), path("key.txt"));
    fs::write(&key, IDENTITY).unwrap();
    let identity = format!("-identity={key}");

    let printed = run(&stub, &["save", "-encrypt-to", RECIPIENT, &file], b"");
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Saved and verified snapshot to index 68\n", 0)
    );
    let sealed = fs::read(&file).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1\n"));

    let plain = fixture("full-0.7.1.snap");
    let plain = plain.to_str().unwrap();
    for words in [
        &["inspect"][..],
        &["verify"],
        &["diff", plain],
        &["redact", "-"],
        &["restore", "-http-addr=127.0.0.1:1"],
    ] {
        let line = [&["snapshot", words[0]], &words[1..], &[file.as_str()]].concat();
        let printed = consul(&line, b"", &[]);
        assert_eq!(printed.status, 1, "{words:?}");
        assert!(
            words[0] == "redact" || printed.output.contains("encrypted; give -identity FILE"),
            "{words:?}: {}",
            printed.output
        );
    }
    let open = |words: &[&str]| {
        let line = [&["snapshot", words[0], &identity], &words[1..]].concat();
        consul(&line, &sealed, &[])
    };
    assert_eq!(
        open(&["inspect", &file]).output,
        consul(&["snapshot", "inspect", plain], b"", &[]).output
    );
    assert_eq!(open(&["verify", "-"]).status, 0);
    assert_eq!(open(&["diff", plain, &file]).output, "No difference\n");
    assert_eq!(open(&["diff", "-", &file]).output, "No difference\n");
    let address = format!("-http-addr={}", stub.address);
    stub.asked();
    assert_eq!(open(&["restore", &address, &file]).status, 0);
    assert_eq!(stub.asked()[0].body, archive);

    // Half of it is sent before it shows that it was cut; the servers must not take it for a whole one.
    fs::write(&file, &sealed[..sealed.len() - 1]).unwrap();
    let printed = open(&["restore", &address, &file]);
    assert_eq!(printed.status, 1);
    assert!(
        printed.output.starts_with("Error reading snapshot file: "),
        "{}",
        printed.output
    );

    for (flag, problem) in [
        ("-encrypt-to=age1x", "Error in -encrypt-to: "),
        ("-append-filename=when", "Unknown part \"when\""),
    ] {
        let printed = run(&stub, &["save", flag, &file], b"");
        assert_eq!(printed.status, 1);
        assert!(printed.output.starts_with(problem), "{}", printed.output);
    }
    let printed = open(&["inspect", "-identity=/nonexistent", &file]);
    assert!(
        printed
            .output
            .starts_with("Error reading identity file /nonexistent: "),
        "{}",
        printed.output
    );
}

#[test]
fn decodes_to_lines() {
    let plain = fixture("full-0.7.1.snap");
    let printed = consul(&["snapshot", "decode", plain.to_str().unwrap()], b"", &[]);
    assert_eq!(printed.status, 0);
    let lines: Vec<serde_json::Value> = (printed.output.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 64);
    assert_eq!(
        lines[0],
        json!({
            "Data": {"ID": "2-68-1795329324463", "Index": 68, "Size": 141_161, "Term": 2, "Version": 1},
            "Type": "SnapshotHeader",
        })
    );
    let keys = lines.iter().filter(|line| line["Type"] == "KVS");
    assert_eq!(
        keys.filter(|line| line["Data"]["Key"].is_string()).count(),
        24
    );
    let cut = fs::read(plain).unwrap();
    let printed = consul(&["snapshot", "decode", "-"], &cut[..cut.len() - 1], &[]);
    assert_eq!(printed.status, 1);
    assert!(
        printed.output.starts_with("Error decoding snapshot: "),
        "{}",
        printed.output
    );
}

#[test]
fn redacts() {
    let room = tempfile::tempdir().unwrap();
    let plain = fixture("full-0.7.1.snap");
    let plain = plain.to_str().unwrap();
    let redacted = room.path().join("r.snap");
    let redacted = redacted.to_str().unwrap();
    let printed = consul(&["snapshot", "redact", plain, redacted], b"", &[]);
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Redacted snapshot to index 68\n", 0)
    );
    assert_eq!(
        consul(&["snapshot", "verify", redacted], b"", &[]).status,
        0
    );
    assert_eq!(
        consul(&["snapshot", "diff", plain, redacted], b"", &[]).status,
        2
    );
    let newer = fs::read(fixture("from-1.4.0.snap")).unwrap();
    let printed = consul(&["snapshot", "redact", "-", redacted], &newer, &[]);
    assert!(printed.output.contains("\nLeft out "), "{}", printed.output);
    for (words, problem) in [
        (&[plain][..], "Two FILE arguments are needed"),
        (
            &["/nonexistent", redacted],
            "Error opening snapshot file: open /nonexistent: ",
        ),
        (
            &[plain, "/nonexistent/r"],
            "Error creating snapshot file: open /nonexistent/r: ",
        ),
    ] {
        let printed = consul(&[&["snapshot", "redact"], words].concat(), b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(printed.output.starts_with(problem), "{}", printed.output);
    }
}

#[test]
fn names_tell_of_the_agent() {
    let archive = fs::read(fixture("empty.snap")).unwrap();
    let stub = Stub::tcp(move |asked| {
        if asked.line == "GET /v1/agent/self" {
            return Reply::ok(
                r#"{"Config": {"NodeName": "a/b", "Datacenter": "dc1"},
                    "Stats": {"build": {"version": "0.7.1"}, "consul": {"server": "true", "leader": "false"}}}"#,
            );
        }
        Reply {
            headers: &[("X-Consul-Index", "7")],
            ..Reply::ok(archive.clone())
        }
    });
    let room = tempfile::tempdir().unwrap();
    for (parts, file, expected) in [
        (
            "version,dc,node,status",
            "x.snap",
            "x-0.7.1-dc1-a_b-follower.snap",
        ),
        ("dc", "y.tar.gz", "y.tar-dc1.gz"),
        ("dc,version", ".z", ".z-dc1-0.7.1"),
    ] {
        let file = room.path().join(file);
        let parts = format!("-append-filename={parts}");
        let printed = run(&stub, &["save", &parts, file.to_str().unwrap()], b"");
        let expected = room.path().join(expected);
        let expected_line = format!(
            "Saved and verified snapshot to index 7 in {}\n",
            expected.display()
        );
        assert_eq!((printed.output, printed.status), (expected_line, 0));
        assert!(expected.exists() && !file.exists());
    }
    let printed = run(&stub, &["save", "-append-filename=dc", "-"], b"");
    assert_eq!(printed.status, 1);
}

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket that has what was put into it, and asks nobody who he is.
fn bucket() -> (Stub, Objects) {
    let objects = Objects::default();
    let held = Arc::clone(&objects);
    let stub = Stub::tcp(move |asked| {
        let (method, target) = asked.line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut held = held.lock().unwrap();
        match (method, held.get(path)) {
            ("PUT", _) => {
                held.insert(path.to_owned(), asked.body.clone());
                Reply {
                    headers: &[("ETag", "\"e\"")],
                    ..Reply::ok("")
                }
            }
            ("GET", _) if query.contains("list-type=2") => {
                let prefix = format!("{path}/");
                let contents = held.iter().map(|(key, body)| {
                    format!(
                        "<Contents><Key>{}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
                         <ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                        key.strip_prefix(&prefix).unwrap(),
                        body.len()
                    )
                });
                Reply::ok(format!(
                    "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
                    contents.collect::<String>()
                ))
            }
            ("GET", Some(body)) => Reply {
                headers: &[
                    ("ETag", "\"e\""),
                    ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
                ],
                ..Reply::ok(body.clone())
            },
            ("GET", None) => Reply::status(
                404,
                "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>",
            ),
            _ => Reply::status(405, ""),
        }
    });
    (stub, objects)
}

#[test]
fn objects_in_a_cloud_are_files_as_well() {
    let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
    let (bucket, objects) = bucket();
    let endpoint = format!("http://{}", bucket.address);
    let environment = [
        ("AWS_S3_ENDPOINT", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let url = "s3://backups/a/b.snap";
    let with = |stub: Option<&Stub>, words: &[&str]| {
        let address = stub.map(|stub| format!("-http-addr={}", stub.address));
        let line: Vec<&str> = ["snapshot", words[0]]
            .into_iter()
            .chain(address.as_deref())
            .chain(words[1..].iter().copied())
            .collect();
        consul(&line, b"", &environment)
    };

    // What isn't sound never gets its name.
    let broken = saving(Reply::ok(&archive[..1000]));
    let printed = with(Some(&broken), &["save", url]);
    assert_eq!(printed.status, 1);
    assert!(
        printed
            .output
            .starts_with("Error verifying snapshot file: "),
        "{}",
        printed.output
    );
    assert!(objects.lock().unwrap().is_empty());

    let stub = saving(Reply::ok(archive.clone()));
    let printed = with(Some(&stub), &["save", url]);
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("Saved and verified snapshot to index 68\n", 0)
    );
    assert_eq!(objects.lock().unwrap()["/backups/a/b.snap"], archive);

    let plain = fixture("full-0.7.1.snap");
    let plain = plain.to_str().unwrap();
    for (words, status) in [
        (&["inspect", url][..], 0),
        (&["verify", url], 0),
        (&["diff", plain, url], 0),
        (&["diff", url, url], 0),
        (
            &[
                "redact",
                url,
                "s3://backups/a/consul-1479503772206993731.snap",
            ],
            0,
        ),
        (
            &[
                "diff",
                url,
                "s3://backups/a/consul-1479503772206993731.snap",
            ],
            2,
        ),
    ] {
        let printed = with(None, words);
        assert_eq!(printed.status, status, "{words:?}: {}", printed.output);
    }
    stub.asked();
    assert_eq!(
        with(Some(&stub), &["restore", url]).output,
        "Restored snapshot\n"
    );
    assert_eq!(stub.asked()[0].body, archive);
    assert_eq!(
        with(Some(&stub), &["diff", "-live", url]).output,
        "No difference\n"
    );

    let listed = with(None, &["list", "s3://backups/a"]).output;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(
        listed.contains("consul-1479503772206993731.snap"),
        "{listed}"
    );

    let printed = with(None, &["inspect", "s3://backups/nothing"]);
    assert_eq!(printed.status, 1);
    assert!(
        printed
            .output
            .starts_with("Error opening snapshot file: s3://backups/nothing: "),
        "{}",
        printed.output
    );
    let printed = consul(
        &["snapshot", "inspect", url],
        b"",
        &[("HOME", "/nonexistent")],
    );
    assert_eq!(printed.status, 1);
    assert!(printed.output.contains("region"), "{}", printed.output);
    for (words, problem) in [
        (
            &["inspect", "http://x/y"][..],
            "Error: http:// is no place for snapshots",
        ),
        (&["list", "-"], "A store is a folder"),
        (&["list"], "Missing STORE argument"),
        (
            &["show", "s3://backups/a/b.snap"],
            "Error: \"b.snap\" is not the name of a snapshot",
        ),
        (
            &["show", "s3://backups/a/consul-1.snap"],
            "Error: consul-1.snap is not there",
        ),
    ] {
        let printed = with(None, words);
        assert_eq!(printed.status, 1, "{words:?}");
        assert!(printed.output.starts_with(problem), "{}", printed.output);
    }
}

/// A folder with four snapshots: one that was proved, one whose proof failed, one with a note that makes no sense, and one
/// without.
fn kept_snapshots() -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    let begin = 1_704_067_200_000_000_000_u64;
    let proof = backup::digest(&fs::read(fixture("empty.snap")).unwrap()[..]).unwrap();
    for hour in 0..4_u64 {
        let id = begin + hour * 3_600_000_000_000;
        let file = room.path().join(format!("consul-{id}.snap"));
        fs::write(&file, vec![0; 2048]).unwrap();
        let note = backup::Note {
            id,
            summary: backup::Summary::of(&proof),
            size: 2048,
            checked_at: jiff::Timestamp::from_second(1_704_067_260).unwrap(),
            failure: (hour == 1).then(|| "the object is cut off\u{1b}".to_owned()),
            rules: (hour == 1).then_some(backup::Rules {
                retention: backup::Retention {
                    newest: 2,
                    ..backup::Retention::default()
                },
                interval: std::time::Duration::from_secs(3600),
            }),
        };
        let note = match hour {
            0 | 1 => note.encode(),
            2 => b"{}".to_vec(),
            _ => continue,
        };
        fs::write(file.with_extension("snap.json"), note).unwrap();
    }
    fs::write(room.path().join("other"), "").unwrap();
    room
}

#[test]
fn lists_what_a_store_has() {
    let room = kept_snapshots();
    let folder = room.path().to_str().unwrap();
    let printed = consul(&["snapshot", "list", folder], b"", &[]);
    assert_eq!(printed.status, 0);
    let lines: Vec<&str> = printed.output.lines().collect();
    assert!(lines[0].starts_with("Name "), "{}", printed.output);
    assert!(lines[0].ends_with("  Verified  Kept until") || lines[0].ends_with("  Kept until"));
    assert!(
        lines[1].starts_with("consul-1704078000000000000.snap ") && lines[1].contains("  no  ")
    );
    assert!(lines[2].contains("  unknown: "), "{}", lines[2]);
    assert!(
        lines[3].contains("  FAILED 2024-01-01 00:01Z: the object is cut off\\u{1b}  "),
        "{}",
        lines[3]
    );
    assert!(
        lines[4].contains("  2KB   2024-01-01 00:01Z  "),
        "{}",
        lines[4]
    );

    let words = ["snapshot", "list", "-format=json", folder];
    let json: serde_json::Value = serde_json::from_str(&consul(&words, b"", &[]).output).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 4);
    assert_eq!(json[3]["ID"], "1704067200000000000");
    assert_eq!(json[3]["Verified"], true);
    assert_eq!(json[2]["Verified"], false);
    assert!(json[0]["KeptUntil"].as_str() > json[1]["KeptUntil"].as_str());
    assert_eq!(json[2]["KeptUntil"], json[3]["KeptUntil"]);

    let words = ["snapshot", "list", "-retain=0", folder];
    assert!(consul(&words, b"", &[]).output.contains("  for ever\n"));
    let nothing = tempfile::tempdir().unwrap();
    let printed = consul(
        &["snapshot", "list", nothing.path().to_str().unwrap()],
        b"",
        &[],
    );
    assert_eq!(
        (printed.output.as_str(), printed.status),
        ("No snapshots\n", 0)
    );
    let printed = consul(&["snapshot", "list", "/nonexistent"], b"", &[]);
    assert_eq!(
        printed.output,
        "Error: cannot list the snapshots in /nonexistent: no such file or directory\n"
    );
}

#[test]
fn shows_what_is_known_of_one() {
    let room = kept_snapshots();
    let path = |hour: u64| {
        let id = 1_704_067_200_000_000_000 + hour * 3_600_000_000_000;
        let file = room.path().join(format!("consul-{id}.snap"));
        file.to_str().unwrap().to_owned()
    };
    let printed = consul(&["snapshot", "show", "-retain=9", &path(0)], b"", &[]);
    assert_eq!(printed.status, 0);
    for line in [
        "Name         consul-1704067200000000000.snap",
        "Size         2KB",
        "Encrypted    no",
        "Verified     2024-01-01 00:01Z",
    ] {
        assert!(
            printed.output.contains(&format!("{line}\n")),
            "{}",
            printed.output
        );
    }
    assert!(
        printed.output.contains("\nKept until   "),
        "{}",
        printed.output
    );
    let words = [
        "snapshot",
        "show",
        "-format=json",
        "-retain-daily=9",
        &path(1),
    ];
    let json: serde_json::Value = serde_json::from_str(&consul(&words, b"", &[]).output).unwrap();
    assert_eq!(json["Failure"], "the object is cut off\u{1b}");
    assert_eq!(json["Begun"], "2024-01-01T01:00:00Z");
    assert!(json["KeptUntil"].is_string());
    assert!(json["Counts"].is_object());
    let printed = consul(&["snapshot", "show", &path(9)], b"", &[]);
    assert_eq!(printed.status, 1);
}
