//! `consul lock`: what stands in the store meanwhile, what is printed, and what becomes of the child.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{Agent, PATIENCE};

/// A command that runs. Killed when dropped.
struct Running {
    child: Child,
    out: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

/// How a command ended, and what else it printed.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: Option<i32>,
    out: Vec<String>,
}

impl Running {
    /// Starts `consul lock` with these words.
    fn start(agent: &Agent, words: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_consul"))
            .arg("lock")
            .arg(format!("-http-addr={}", agent.address))
            .args(words)
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, out }
    }

    /// The next line that it or its child prints.
    fn line(&mut self) -> String {
        self.out.next().unwrap().unwrap()
    }

    fn prints(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    fn ended(mut self) -> Ended {
        // Its end of input, should its child wait for that.
        drop(self.child.stdin.take());
        let out = self.out.by_ref().map(Result::unwrap).collect();
        let status = self.child.wait().unwrap().code();
        Ended { status, out }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ends(agent: &Agent, words: &[&str]) -> (Option<i32>, Vec<String>) {
    let Ended { status, out } = Running::start(agent, words).ended();
    (status, out)
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

/// What stands in a key; null if there is none.
fn key(agent: &Agent, key: &str) -> Value {
    let path = format!("/v1/kv/{key}");
    agent.request("GET", &path, b"").json()[0].clone()
}

fn sessions(agent: &Agent) -> Vec<Value> {
    let all = agent.request("GET", "/v1/session/list", b"").json();
    all.as_array().unwrap().clone()
}

/// Waits until somebody has locked a key; its session.
fn holder(agent: &Agent, path: &str) -> String {
    let path = format!("/v1/kv/{path}");
    let answer = agent.answers_so(&path, "is locked", |answer| {
        answer.json()[0]["Session"].is_string()
    });
    answer.json()[0]["Session"].as_str().unwrap().to_owned()
}

#[test]
fn a_child_runs_under_the_lock() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let mut running = Running::start(
        &agent,
        &[
            "-verbose",
            "-pass-stdin",
            "/p/",
            "echo held=$CONSUL_LOCK_HELD;",
            "read",
            "line;",
            "echo $line",
        ],
    );
    let child = "echo held=$CONSUL_LOCK_HELD; read line; echo $line";
    running.prints("Setting up lock at path: p/.lock");
    running.prints("Attempting lock acquisition");
    running.prints(&format!("Starting handler '{child}'"));
    running.prints("Stdin passed to handler process");
    running.prints("held=true");

    let pair = key(&agent, "p/.lock");
    let session = &sessions(&agent)[0];
    assert_eq!(pair["Session"], session["ID"]);
    assert_eq!(pair["Flags"], json!(3_304_740_253_564_472_344_u64));
    assert_eq!(
        (&pair["Value"], &pair["LockIndex"]),
        (&json!(null), &json!(1))
    );
    assert_eq!(
        session["Name"],
        json!(format!("Consul lock for '{child}' at 'p'"))
    );
    assert_eq!(session["Node"], "one");
    assert_eq!(session["Checks"], json!(["serfHealth"]));
    assert_eq!(
        (&session["TTL"], &session["Behavior"]),
        (&json!("15s"), &json!("release"))
    );
    assert_eq!(session["LockDelay"], json!(15_000_000_000_u64));

    // Who else wants it waits, or gives up.
    let refused = "Shutdown triggered or timeout during lock acquisition";
    assert_eq!(
        ends(&agent, &["-try=30ms", "p", "echo never"]),
        (Some(1), lines(&[refused]))
    );
    let conflict = "Lock acquisition failed: Existing key does not match semaphore use";
    assert_eq!(
        ends(&agent, &["-n=2", "p", "echo never"]),
        (Some(1), lines(&[conflict]))
    );
    let mut next = Running::start(&agent, &["-name=next", "-verbose", "p", "echo mine"]);
    next.prints("Setting up lock at path: p/.lock");
    agent.answers("/v1/session/list", r#""Name":"next""#);

    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"go on\n").unwrap();
    running.prints("go on");
    running.prints("Child terminated, releasing lock");
    let Ended { status, out } = running.ended();
    assert_eq!(status, Some(0));
    assert!(
        out == ["Cleanup succeeded"] || out == ["Cleanup aborted, lock in use"],
        "{out:?}"
    );
    let Ended { status, out } = next.ended();
    assert_eq!(status, Some(0));
    assert!(out.contains(&"mine".to_owned()), "{out:?}");
    assert_eq!(key(&agent, "p/.lock"), json!(null));
    assert_eq!(sessions(&agent), [json!(null); 0]);
}

#[test]
fn some_children_run_under_a_semaphore() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let start = || {
        let mut running = Running::start(
            &agent,
            &["-n=2", "-pass-stdin", "s", "echo in; read x || :"],
        );
        running.prints("in");
        running
    };
    let (one, two) = (start(), start());
    let flags = json!(16_210_313_421_097_356_768_u64);
    let coordination = key(&agent, "s/.lock");
    assert_eq!(coordination["Flags"], flags);
    let mut ids: Vec<String> = Vec::new();
    for session in sessions(&agent) {
        assert_eq!(session["Behavior"], "delete");
        ids.push(session["ID"].as_str().unwrap().to_owned());
        let contender = key(&agent, &format!("s/{}", ids.last().unwrap()));
        assert_eq!(
            (&contender["Flags"], &contender["Session"]),
            (&flags, &session["ID"])
        );
    }
    ids.sort_unstable();
    let value = format!(
        r#"{{"Limit":2,"Holders":{{"{}":true,"{}":true}}}}"#,
        ids[0], ids[1]
    );
    let raw = agent.expect("GET", "/v1/kv/s/.lock?raw", b"");
    assert_eq!(String::from_utf8(raw).unwrap(), value);

    let refused = "Shutdown triggered or timeout during lock acquisition";
    assert_eq!(
        ends(&agent, &["-n=2", "-try=30ms", "s", "echo never"]),
        (Some(1), lines(&[refused]))
    );
    let conflict = "Lock acquisition failed: semaphore limit conflict (lock: 2, local: 3)";
    assert_eq!(
        ends(&agent, &["-n=3", "s", "echo never"]),
        (Some(1), lines(&[conflict]))
    );
    let conflict = "Lock acquisition failed: Existing key does not match lock use";
    assert_eq!(
        ends(&agent, &["s", "echo never"]),
        (Some(1), lines(&[conflict]))
    );

    for running in [one, two] {
        assert_eq!(
            running.ended(),
            Ended {
                status: Some(0),
                out: Vec::new()
            }
        );
    }
    assert_eq!(agent.request("GET", "/v1/kv/s?recurse", b"").status, 404);
    assert_eq!(sessions(&agent), [json!(null); 0]);
}

#[test]
fn a_lost_lock_ends_the_child() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    for flag in ["-n=1", "-n=2"] {
        let words = [
            flag,
            "-verbose",
            "p",
            "trap 'echo bye; exit 3' TERM; echo in; while :; do read x || sleep 0.01; done",
        ];
        let mut running = Running::start(&agent, &words);
        while running.line() != "in" {}
        let id = sessions(&agent)[0]["ID"].as_str().unwrap().to_owned();
        agent.expect("PUT", &format!("/v1/session/destroy/{id}"), b"");
        running.prints("Lock lost, killing child");
        assert!(running.line().starts_with("Terminating child pid "));
        running.prints("bye");
        running.prints("Child terminated");
        let ended = running.ended();
        assert_eq!(
            ended,
            Ended {
                status: Some(0),
                out: lines(&["Cleanup succeeded"])
            }
        );
    }
}

#[test]
fn a_signal_ends_the_child_and_gives_the_lock_back() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    for (signal, flags) in [
        (Signal::TERM, &[][..]),
        (Signal::INT, &["-child-exit-code"]),
    ] {
        let words = [flags, &["p", "echo in; exec sleep 600"]].concat();
        let mut running = Running::start(&agent, &words);
        running.prints("in");
        // One who waits is told as well, and never starts its child.
        let waiting = Running::start(&agent, &["-name=waiting", "p", "echo never"]);
        agent.answers("/v1/session/list", r#""Name":"waiting""#);
        waiting.signal(signal);
        let refused = "Shutdown triggered or timeout during lock acquisition";
        let ended = waiting.ended();
        assert_eq!(
            ended,
            Ended {
                status: Some(1),
                out: lines(&[refused])
            }
        );

        running.signal(signal);
        let status = if flags.is_empty() { 0 } else { 2 };
        assert_eq!(
            running.ended(),
            Ended {
                status: Some(status),
                out: Vec::new()
            }
        );
        assert_eq!(key(&agent, "p/.lock"), json!(null));
        assert_eq!(sessions(&agent), [json!(null); 0]);
    }
}

#[test]
fn a_child_that_does_not_want_to_end_is_killed() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let stubborn = "trap '' TERM; echo in; while :; do read x || sleep 0.01; done";
    let mut running = Running::start(&agent, &["-verbose", "p", stubborn]);
    while running.line() != "in" {}
    let told = Instant::now();
    running.signal(Signal::TERM);
    running.prints("Shutdown triggered, killing child");
    let pid = running.line();
    let pid = pid
        .strip_prefix("Terminating child pid ")
        .unwrap()
        .to_owned();
    // As long as it lives, it runs under the lock.
    holder(&agent, "p/.lock");
    running.prints("Child did not exit after grace period of 5s");
    assert!(told.elapsed().as_secs() >= 5 && told.elapsed() < PATIENCE);
    running.prints(&format!("Killing child pid {pid}"));
    assert_eq!(
        running.ended(),
        Ended {
            status: Some(0),
            out: lines(&["Cleanup succeeded"])
        }
    );
    assert_eq!(key(&agent, "p/.lock"), json!(null));
}

#[test]
fn statuses() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let complaint = ["Error running handler: exit status 3", "exit status 3"];
    for (words, status, printed) in [
        (&["p", "exit 3"][..], 0, &complaint[..]),
        (&["-child-exit-code", "p", "exit 3"], 2, &complaint),
        (&["-child-exit-code", "p", "exit 0"], 0, &[]),
        (
            &["-try=10s", "p/q", "read line;", "echo \"[$line]\""],
            0,
            &["[]"],
        ),
    ] {
        assert_eq!(
            ends(&agent, words),
            (Some(status), lines(printed)),
            "{words:?}"
        );
    }
    // Without an agent there is nothing to wait for.
    let address = agent.address;
    agent.kill();
    let output = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args(["lock", &format!("-http-addr={address}"), "p", "echo never"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "Error querying Consul agent: Get http://{address}/v1/agent/self: dial tcp {address}: connect: connection refused\n"
        )
    );
}
