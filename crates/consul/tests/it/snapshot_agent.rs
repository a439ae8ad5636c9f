//! `consul snapshot agent` beside a real agent: what it prints, registers, keeps and gives back.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::Logged;

use crate::process::{Agent, PATIENCE};

/// How long it may take until a crashed leader's session has run out and its lock-delay has passed.
const FAILOVER: Duration = Duration::from_secs(120);

/// A snapshot agent that runs.
struct Keeper(Logged);

impl Keeper {
    /// Starts one that asks `agent`; `name` tells its log from those of others.
    fn start(agent: &Agent, room: &Path, name: &str, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_consul"));
        command
            .args(["snapshot", "agent"])
            .arg(format!("-http-addr={}", agent.address))
            .args(words)
            .current_dir(room);
        Self(Logged::start(
            &mut command,
            room.join(format!("{name}.log")),
        ))
    }

    fn log(&self) -> String {
        self.0.log()
    }

    fn prints_within(&self, text: &str, time: Duration) {
        let deadline = Instant::now() + time;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "it doesn't print {text:?}:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn prints(&self, text: &str) {
        self.prints_within(text, PATIENCE);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0.child), signal).unwrap();
    }

    /// Waits until it has ended by itself; its status and what it printed.
    fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.child.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            assert!(Instant::now() < deadline, "it doesn't end:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// The snapshots in a folder, by name.
fn snapshots(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".snap")).collect();
    names.sort();
    names
}

/// The services of this name that the agent knows.
fn services(agent: &Agent, name: &str) -> usize {
    let services = agent.request("GET", "/v1/agent/services", b"").json();
    let services = services.as_object().unwrap().values();
    services
        .filter(|service| service["Service"] == name)
        .count()
}

/// The names and states of the checks of a service, in order.
fn checks(agent: &Agent, service: &str) -> Vec<(String, String)> {
    let path = format!("/v1/health/checks/{service}");
    let checks = agent.request("GET", &path, b"").json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut checks: Vec<_> = checks
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (text(&check["Name"]), text(&check["Status"])))
        .collect();
    checks.sort();
    checks
}

fn sessions(agent: &Agent) -> usize {
    let all = agent.request("GET", "/v1/session/list", b"").json();
    all.as_array().unwrap().len()
}

/// Waits until something is so.
fn comes(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn it_stays_saves_and_gives_everything_back() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    agent.expect("PUT", "/v1/kv/color", b"blue");
    let keeper = Keeper::start(&agent, room.path(), "keeper", &["-local-path=kept"]);
    keeper.prints("[INFO] Saved snapshot ");
    let kept = room.path().join("kept");
    let [name] = &snapshots(&kept)[..] else {
        panic!("{:?}", snapshots(&kept));
    };
    let id = name
        .strip_prefix("consul-")
        .and_then(|name| name.strip_suffix(".snap"))
        .unwrap()
        .to_owned();

    // What it prints is what the original prints.
    let log = keeper.log();
    let banner = "==> Consul snapshot agent running!\n\
        \x20            Version: v0.7.1\n\
        \x20         Datacenter: (default)\n\
        \x20           Interval: \"1h0m0s\"\n\
        \x20             Retain: 30\n\
        \x20              Stale: false\n\
        \x20               Mode: Daemon\n\
        \x20            Service: \"consul-snapshot\"\n\
        \x20   Deregister After: \"72h0m0s\"\n\
        \x20           Lock Key: \"consul-snapshot/lock\"\n\
        \x20       Max Failures: 3\n\
        \x20   Snapshot Storage: Local -> Path: \"kept\"\n\
        \n\
        ==> Log data will now stream in as it occurs:\n\n";
    let lines = log.strip_prefix(banner).unwrap_or_else(|| panic!("{log}"));
    let texts: Vec<&str> = lines
        .lines()
        .map(|line| {
            let (indent, rest) = line.split_at(4);
            assert_eq!((indent, rest.as_bytes()[4]), ("    ", b'/'), "{line}");
            &rest[20..]
        })
        .collect();
    let saved = format!("[INFO] Saved snapshot {id}");
    let expected = [
        "[INFO] Snapshot agent running",
        "[INFO] Waiting to obtain leadership...",
        "[INFO] Obtained leadership",
        &saved,
    ];
    let known: Vec<&&str> = texts
        .iter()
        .filter(|text| expected.contains(text))
        .collect();
    assert_eq!(known, expected.iter().collect::<Vec<_>>(), "{log}");

    // What the cluster knows of it.
    let all = [
        "Consul Snapshot Agent Alive",
        "Consul Snapshot Agent Saving Snapshots",
        "Consul Snapshot Agent Verified Restore",
    ];
    comes("three checks that pass", || {
        checks(&agent, "consul-snapshot") == all.map(|name| (name.to_owned(), "passing".to_owned()))
    });
    let lock = agent
        .request("GET", "/v1/kv/consul-snapshot/lock", b"")
        .json();
    assert!(lock[0]["Session"].is_string(), "{lock}");

    keeper.signal(Signal::TERM);
    let (status, log) = keeper.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("==> Caught signal: terminated"), "{log}");
    assert_eq!(services(&agent, "consul-snapshot"), 0);
    assert_eq!(sessions(&agent), 0);
    let lock = agent.request("GET", "/v1/kv/consul-snapshot/lock", b"");
    assert!(
        lock.status == 404 || lock.json()[0]["Session"] == json!(null),
        "{}",
        lock.text()
    );
    assert_eq!(snapshots(&kept).len(), 1);
}

#[test]
fn once_saves_keeps_so_many_and_registers_nothing() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let words = ["-interval=0", "-retain=2", "-local-path=kept"];
    let mut names = Vec::new();
    for round in 0..3 {
        let name = format!("round-{round}");
        let keeper = Keeper::start(&agent, room.path(), &name, &words);
        let (status, log) = keeper.ended();
        assert_eq!(status, Some(0), "{log}");
        assert!(log.contains("               Mode: One-shot\n"), "{log}");
        assert!(!log.contains("leadership"), "{log}");
        assert_eq!(sessions(&agent), 0);
        assert_eq!(services(&agent, "consul-snapshot"), 0);
        names.push(snapshots(&room.path().join("kept")).pop().unwrap());
    }
    assert_eq!(snapshots(&room.path().join("kept")), names[1..]);
    // What was saved can be restored.
    let saved = std::fs::read(room.path().join("kept").join(&names[2])).unwrap();
    agent.expect("PUT", "/v1/snapshot", &saved);

    // Nobody there.
    agent.signal(Signal::TERM);
    let address = agent.address;
    agent.ended();
    let output = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args(["snapshot", "agent", &format!("-http-addr={address}")])
        .args(words)
        .current_dir(room.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(
        out.contains("[ERR]") && out.contains("connection refused"),
        "{out}"
    );
}

#[test]
fn several_destinations_keep_each_their_own() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let text = r#"{"snapshot_agent": {
        "snapshot": {"interval": "0", "encrypt_to": ["age13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf"]},
        "backup_destinations": {"local_storage": [{"path": "many"}, {"path": "few", "retain": 1}]}}}"#;
    std::fs::create_dir(room.path().join("conf.d")).unwrap();
    std::fs::write(room.path().join("conf.d/keeper.json"), text).unwrap();
    let in_folder = |folder: &str| {
        let entries = std::fs::read_dir(room.path().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".json")).collect();
        names.sort();
        names
    };
    for round in 0..3 {
        let name = format!("round-{round}");
        let keeper = Keeper::start(&agent, room.path(), &name, &["-config-dir=conf.d"]);
        let (status, log) = keeper.ended();
        assert_eq!(status, Some(0), "{log}");
        for line in [
            "       Encrypted To: 1 recipient\n",
            "   Snapshot Storage: Local -> Path: \"many\"\n",
            "   Snapshot Storage: Local -> Path: \"few\"\n",
            "       Retain There: 1\n",
        ] {
            assert!(log.contains(line), "{log}");
        }
    }
    let (many, few) = (in_folder("many"), in_folder("few"));
    assert_eq!((many.len(), &few[..]), (3, &many[2..]));
    assert!(
        many.iter().all(|name| name.ends_with(".snap.age")),
        "{many:?}"
    );
}

#[test]
fn a_disk_that_takes_no_more_leaves_nothing_behind() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    // What doesn't get smaller by being compressed.
    let mut noise = 1_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise.to_be_bytes()[0]
    })
    .take(64 << 10)
    .collect();
    agent.expect("PUT", "/v1/kv/noise", &value);
    // A file may have 4 kB, and writing more is an error instead of a signal.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_consul"))
        .args(["snapshot", "agent", "-interval=0", "-local-path=kept"])
        .arg(format!("-http-addr={}", agent.address))
        .current_dir(room.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    let lines: Vec<&str> = out.lines().filter(|line| line.contains("[ERR]")).collect();
    assert!(
        !lines.is_empty()
            && lines
                .iter()
                .all(|line| line.contains("kept: File too large")),
        "{out}"
    );
    let left = std::fs::read_dir(room.path().join("kept")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn one_of_several_saves_and_another_takes_over() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let words = ["-local-path=kept", "-interval=2s"];
    let start = |name: &str| Keeper::start(&agent, room.path(), name, &words);
    let first = start("first");
    first.prints("Saved snapshot");
    let others = ["second", "third"].map(start);
    for other in &others {
        other.prints("Waiting to obtain leadership...");
    }
    comes("three instances", || {
        services(&agent, "consul-snapshot") == 3
    });
    // Those that wait say that they are there, and nothing about saving.
    comes("checks of one leader and two others", || {
        let checks = checks(&agent, "consul-snapshot");
        let count = |name: &str| checks.iter().filter(|(of, _)| of == name).count();
        count("Consul Snapshot Agent Alive") == 3
            && count("Consul Snapshot Agent Saving Snapshots") == 1
    });

    // One that stops gives the lock to another at once.
    first.signal(Signal::INT);
    assert_eq!(first.ended().0, Some(0));
    comes("a second leader", || {
        others
            .iter()
            .any(|other| other.log().contains("Saved snapshot"))
    });
    let (mut leading, waiting): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|other| other.log().contains("Obtained leadership"));
    let (leader, [last]) = (leading.remove(0), &waiting[..]) else {
        panic!("both lead");
    };
    // One that crashes doesn't; its session has to run out.
    leader.signal(Signal::KILL);
    assert_eq!(leader.ended().0, None);
    last.prints_within("Saved snapshot", FAILOVER);
}

#[test]
fn a_reload_goes_on_with_what_can_be() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let file = room.path().join("keeper.json");
    let write = |ours: &str| {
        std::fs::write(&file, format!(r#"{{"snapshot_agent": {ours}}}"#)).unwrap();
    };
    write(r#"{"local_storage": {"path": "one"}, "snapshot": {"interval": "1s"}}"#);
    let words = ["-config-file", file.to_str().unwrap()];
    let keeper = Keeper::start(&agent, room.path(), "keeper", &words);
    keeper.prints("Saved snapshot");
    keeper.signal(Signal::HUP);
    keeper.prints("[INFO] the configuration was read again; the agent goes on\n");
    write(r#"{"local_storage": {"pat": "two"}}"#);
    keeper.signal(Signal::HUP);
    keeper.prints("snapshot_agent.local_storage.pat: there is no such key; did you mean path?\n");
    write(r#"{"local_storage": {"path": "two"}, "snapshot": {"interval": "0"}}"#);
    keeper.signal(Signal::HUP);
    keeper.prints("snapshot.interval can't become 0 while the agent runs\n");
    assert_eq!(keeper.log().matches("Obtained leadership").count(), 1);

    write(
        r#"{"local_storage": {"path": "two"}, "snapshot": {"interval": "1s", "service": "other"}}"#,
    );
    keeper.signal(Signal::HUP);
    keeper.prints("the agent begins anew with it: snapshot.service, local_storage.path\n");
    comes("a snapshot at the new place", || {
        !snapshots(&room.path().join("two")).is_empty()
    });
    assert_eq!(services(&agent, "consul-snapshot"), 0);
    assert_eq!(services(&agent, "other"), 1);
    keeper.signal(Signal::TERM);
    let (status, log) = keeper.ended();
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(services(&agent, "other"), 0);
}

#[test]
fn a_token_that_allows_too_little_is_told() {
    let room = tempfile::tempdir().unwrap();
    let tokens = room.path().join("tokens.json");
    let text = r#"{"acl_datacenter": "dc1", "acl_master_token": "root", "acl_token": "root",
        "snapshot_agent": {"token": "root"}}"#;
    std::fs::write(&tokens, text).unwrap();
    let flag = format!("-config-file={}", tokens.display());
    let agent = Agent::start_as(room.path(), "one", &[&flag]);
    agent.prints(
        "these settings belong to other programs or releases and are ignored: snapshot_agent",
    );
    let rules =
        br#"{"Name": "weak", "Type": "client", "Rules": "key \"\" { policy = \"write\" }"}"#;
    let weak = agent.expect("PUT", "/v1/acl/create?token=root", rules);
    let weak: Value = serde_json::from_slice(&weak).unwrap();
    let weak = format!("-token={}", weak["ID"].as_str().unwrap());

    let words = ["-interval=0", "-local-path=kept", &weak];
    let (status, log) = Keeper::start(&agent, room.path(), "once", &words).ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(
        log.contains("[ERR]") && log.contains("Permission denied"),
        "{log}"
    );
    assert_eq!(snapshots(&room.path().join("kept")).len(), 0);

    let keeper = Keeper::start(&agent, room.path(), "stays", &["-local-path=kept", &weak]);
    keeper.prints("Permission denied");
    keeper.signal(Signal::TERM);
    let (status, log) = keeper.ended();
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(snapshots(&room.path().join("kept")).len(), 0);

    // It may read the same files as the agent.
    let words = ["-interval=0", "-local-path=kept", &flag];
    let (status, log) = Keeper::start(&agent, room.path(), "root", &words).ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn another_datacenter_is_only_saved_once() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let words = ["-local-path=kept", "-datacenter=dc2"];
    let (status, log) = Keeper::start(&agent, room.path(), "stays", &words).ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("[ERR]") && log.contains("dc2"), "{log}");
    let words = [&words[..], &["-interval=0"]].concat();
    let (status, log) = Keeper::start(&agent, room.path(), "once", &words).ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("No path to datacenter"), "{log}");
    assert_eq!(snapshots(&room.path().join("kept")).len(), 0);
    // Its own is no other.
    let own = Keeper::start(
        &agent,
        room.path(),
        "own",
        &["-local-path=kept", "-datacenter=dc1"],
    );
    own.prints("Saved snapshot");
    assert!(own.log().contains("         Datacenter: \"dc1\"\n"));
    assert_eq!(services(&agent, "consul-snapshot"), 1);
}

#[test]
fn settings_that_cannot_be_end_it_with_one_line() {
    let cases = [
        (
            &["-local-path=/dev/null/kept"][..],
            "==> local_storage.path: cannot write to /dev/null/kept: not a directory\n",
        ),
        (
            &["-aws-s3-bucket=b"],
            "==> S3 needs a region, or an endpoint that isn't Amazon's\n",
        ),
        (
            &["-config-file=/nonexistent.json"],
            "==> Error reading '/nonexistent.json': no such file or directory\n",
        ),
    ];
    for (words, line) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_consul"))
            .args(["snapshot", "agent"])
            .args(words)
            .env_remove("AWS_REGION")
            .env_remove("AWS_DEFAULT_REGION")
            .env_remove("AWS_S3_ENDPOINT")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), line, "{words:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args(["snapshot", "agent", "-intervall=1h"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "flag provided but not defined: -intervall\ndid you mean -interval?\n"
    );
}
