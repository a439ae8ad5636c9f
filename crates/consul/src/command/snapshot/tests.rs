//! The commands against stand-ins for agents.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
