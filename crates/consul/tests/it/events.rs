//! User events and remote exec between a server and a client agent, as the commands and HTTP show them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{Agent, PATIENCE};

/// Longer than a busy machine is silent.
const PATIENT: &str = "-wait=5s";

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: Option<i32>,
    out: String,
    errors: String,
}

fn command(agent: &Agent, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consul"));
    command
        .arg(words[0])
        .arg(format!("-http-addr={}", agent.address))
        .args(&words[1..])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs `consul` with these words against this agent.
fn consul(agent: &Agent, words: &[&str], input: &[u8]) -> Ended {
    let mut child = command(agent, words).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Writes a configuration into this folder; the flags that bring it in.
fn configured(room: &Path, configuration: &Value) -> [String; 1] {
    let folder = room.join("conf");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("more.json"), configuration.to_string()).unwrap();
    [format!("-config-dir={}", folder.display())]
}

/// A server that takes no part in remote exec, and a client agent with a service that does.
fn pair(one: &Path, two: &Path) -> (Agent, Agent) {
    let server = Agent::start(one);
    let client = start_two(two, &server);
    (server, client)
}

fn start_two(room: &Path, server: &Agent) -> Agent {
    let configuration = json!({
        "service": {"id": "web-1", "name": "frontend", "tags": ["v1"]},
        "disable_remote_exec": false,
    });
    let [flag] = configured(room, &configuration);
    Agent::start_client(room, "two", server, &[&flag])
}

/// The names of the events that an agent shows.
fn names(list: &Value) -> Vec<String> {
    let events = list.as_array().unwrap().iter();
    events
        .map(|event| event["Name"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until the agent shows these events.
fn shows(agent: &Agent, expected: &[&str]) -> Value {
    agent
        .answers_so("/v1/event/list", &format!("shows {expected:?}"), |answer| {
            answer.status == 200 && names(&answer.json()) == expected
        })
        .json()
}

#[test]
fn an_event_reaches_whom_it_is_for() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, client) = pair(one.path(), two.path());
    shows(&server, &[]);

    // Asked before it comes; who waits is answered when it has come.
    let waiting = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            client
                .request("GET", "/v1/event/list?index=1&name=deploy", b"")
                .json()
        });
        let fired = consul(
            &client,
            &["event", "-name=deploy", "-service=^web", "-tag=v", "v2"],
            b"",
        );
        assert_eq!((fired.status, fired.errors.as_str()), (Some(0), ""));
        (waiting.join().unwrap(), fired.out)
    });
    let (list, fired) = waiting;
    let event = &list[0];
    assert_eq!(
        fired,
        format!("Event ID: {}\n", event["ID"].as_str().unwrap())
    );
    assert_eq!(
        (
            &event["Payload"],
            &event["ServiceFilter"],
            &event["Version"]
        ),
        (&json!("djI="), &json!("^web"), &json!(1))
    );
    assert!(event["LTime"].as_u64().unwrap() > 0, "{event}");

    // Fired by the server, for all; its order shows that the first wasn't for the server.
    let largest = vec![b'x'; 430];
    server.expect("PUT", "/v1/event/fire/large", &largest);
    let refused = client.request("PUT", "/v1/event/fire/large", &vec![b'x'; 450]);
    assert_eq!(refused.status, 500);
    assert!(
        refused
            .text()
            .ends_with("user event exceeds limit of 512 bytes"),
        "{}",
        refused.text()
    );
    shows(&server, &["large"]);
    let all = shows(&client, &["deploy", "large"]);
    let refused = consul(&client, &["event", "-name=x", "-datacenter=nowhere"], b"");
    let why =
        "Error firing event: Unexpected response code: 500 (rpc error: No path to datacenter)\n";
    assert_eq!((refused.status, refused.out.as_str()), (Some(1), why));

    // Who is started anew doesn't hear of them again.
    let file = two.path().join("data/serf/local.snapshot");
    let newest = all[1]["LTime"].as_u64().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let known = std::fs::read_to_string(&file).unwrap_or_default();
        let clocks = known
            .lines()
            .filter_map(|line| line.strip_prefix("event-clock: "));
        if clocks
            .filter_map(|clock| clock.parse::<u64>().ok())
            .any(|clock| clock > newest)
        {
            break;
        }
        assert!(Instant::now() < deadline, "{known}");
        thread::park_timeout(std::time::Duration::from_millis(2));
    }
    client.kill();
    let client = start_two(two.path(), &server);
    server.expect("PUT", "/v1/event/fire/later", b"");
    shows(&client, &["later"]);
    shows(&server, &["large", "later"]);
}

#[test]
fn remote_exec_runs_where_it_is_switched_on() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, _client) = pair(one.path(), two.path());
    let done = |lines: &[&str]| {
        lines
            .iter()
            .flat_map(|line| [line, "\n"])
            .collect::<String>()
    };

    // At once, or it might come in two pieces from a machine that is busy.
    let line = [
        "exec",
        PATIENT,
        "printf",
        "'hello\\nthere\\n';",
        "exit",
        "3",
    ];
    let ended = consul(&server, &line, b"");
    let expected = done(&[
        "    two: hello",
        "    two: there",
        "    two:",
        "==> two: finished with exit code 3",
        "1 / 1 node(s) completed / acknowledged",
    ]);
    assert_eq!((ended.status, ended.out), (Some(2), expected));
    assert_eq!(ended.errors, "");

    let script = b"#!/bin/sh\ntest -x \"$0\" && echo script\n";
    let ended = consul(
        &server,
        &["exec", PATIENT, "-service=web", "-tag=v1", "-"],
        script,
    );
    let expected = done(&[
        "    two: script",
        "    two:",
        "==> two: finished with exit code 0",
        "1 / 1 node(s) completed / acknowledged",
    ]);
    assert_eq!((ended.status, ended.out), (Some(0), expected));

    let ended = consul(&server, &["exec", "-node=one", "true"], b"");
    let expected = "0 / 0 node(s) completed / acknowledged\n";
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), expected));
    assert!(
        ended.errors.contains("\"disable_remote_exec\": false"),
        "{}",
        ended.errors
    );
    server.prints("ignoring a remote exec event");

    // Neither is kept as an event, and nothing is left behind.
    shows(&server, &[]);
    assert_eq!(server.request("GET", "/v1/kv/_rexec?keys", b"").status, 404);
    assert_eq!(server.request("GET", "/v1/session/list", b"").text(), "[]");
}

#[test]
fn who_interrupts_remote_exec_leaves_nothing_behind() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, client) = pair(one.path(), two.path());
    let note = two.path().join("pid");
    let line = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        note.display()
    );
    let mut child = command(&server, &["exec", "-verbose", &line])
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut read = String::new();
    while !read.contains("==> two: acknowledged\n") {
        assert!(out.read_line(&mut read).unwrap() > 0, "{read}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    out.read_to_string(&mut read).unwrap();
    assert!(!read.contains("completed / acknowledged"), "{read}");
    server.answers_so("/v1/session/list", "shows no session", |answer| {
        answer.text() == "[]"
    });
    server.answers_so("/v1/kv/_rexec?keys", "shows no keys", |answer| {
        answer.status == 404
    });

    // The program goes on, but not without its agent.
    let deadline = Instant::now() + PATIENCE;
    let pid = loop {
        if let Ok(text) = std::fs::read_to_string(&note) {
            break text.trim().to_owned();
        }
        assert!(Instant::now() < deadline);
        thread::park_timeout(std::time::Duration::from_millis(2));
    };
    let is_running = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(sleep) S") || stat.contains("(sh) S")
    };
    client.signal(Signal::TERM);
    client.ended();
    while is_running() {
        assert!(Instant::now() < deadline);
        thread::park_timeout(std::time::Duration::from_millis(2));
    }
}
