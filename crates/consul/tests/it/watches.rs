//! Watches: in the configuration of a running agent, and from the command line.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{Agent, PATIENCE};

/// A file of configuration with these watches; its name.
fn configure(room: &Path, watches: &Value) -> String {
    let file = room.join("watches.json");
    std::fs::write(&file, json!({ "watches": watches }).to_string()).unwrap();
    file.display().to_string()
}

/// Waits until the file contains this.
fn contains(file: &Path, text: &str, agent: &Agent) {
    let deadline = Instant::now() + PATIENCE;
    let content = || std::fs::read_to_string(file).unwrap_or_default();
    while !content().contains(text) {
        let content = content();
        assert!(
            Instant::now() < deadline,
            "{} doesn't contain {text:?} but {content:?}:\n{}",
            file.display(),
            agent.log()
        );
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}

/// A page that can be told.
struct Page {
    url: String,
    told: mpsc::Receiver<String>,
    _thread: JoinHandle<()>,
}

impl Page {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/told", listener.local_addr().unwrap());
        let (teller, told) = mpsc::channel();
        // It ends with the process.
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                // Each body is one line, and no head ends in a single line break.
                while !request.ends_with(b"\n") || request.ends_with(b"\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(size) => request.extend_from_slice(&buffer[..size]),
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks";
                let _ = stream.write_all(answer);
                if teller.send(String::from_utf8(request).unwrap()).is_err() {
                    break;
                }
            }
        });
        Self {
            url,
            told,
            _thread: thread,
        }
    }

    /// The next request.
    fn told(&self) -> String {
        self.told.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn programs_and_pages_are_told_of_changes() {
    let room = tempfile::tempdir().unwrap();
    let (line, list) = (room.path().join("line"), room.path().join("list"));
    let page = Page::open();
    let watches = json!([
        {"type": "key", "key": "k", "handler": format!("cat >> {}; echo said it; exit 3", line.display())},
        {"type": "service", "service": "web", "args": ["tee", "-a", list.display().to_string()]},
        {"type": "key", "key": "k", "handler_type": "http",
         "http_handler_config": {"path": page.url, "method": "PUT", "header": {"X-Key": ["secret"]}}},
    ]);
    let file = configure(room.path(), &watches);
    let flags = ["-log-level=debug", "-config-file", &file];
    let agent = Agent::start_as(room.path(), "one", &flags);

    contains(&line, "null\n", &agent);
    contains(&list, "[]\n", &agent);
    let first = page.told();
    assert!(first.starts_with("PUT /told HTTP/1.1\r\n"), "{first}");
    for head in [
        "x-key: secret\r\n",
        "x-consul-index: ",
        "content-type: application/json\r\n",
    ] {
        assert!(first.contains(head), "{first}");
    }
    assert!(first.ends_with("\r\n\r\nnull\n"), "{first}");

    // What else happens tells nobody.
    agent.expect("PUT", "/v1/kv/other", b"x");
    agent.expect("PUT", "/v1/kv/k", b"5");
    contains(&line, r#""Value":"NQ==","Session":""}"#, &agent);
    let second = page.told();
    assert!(second.contains(r#"{"Key":"k","CreateIndex":"#), "{second}");
    let service = br#"{"Name": "web", "Port": 80, "Tags": ["<a>"]}"#;
    agent.expect("PUT", "/v1/agent/service/register", service);
    contains(&list, r#""Tags":["\u003ca\u003e"]"#, &agent);
    agent.expect("DELETE", "/v1/kv/k", b"");
    assert!(page.told().ends_with("\r\n\r\nnull\n"));
    let shown = format!("'cat >> {}; echo said it; exit 3'", line.display());
    agent.prints(&format!(
        "[DEBUG] agent: watch handler {shown} output: said it\\n\n"
    ));
    agent.prints(&format!(
        "[ERR] agent: Failed to invoke watch handler {shown}: exit status 3\n"
    ));
    agent.prints(&format!(
        "[DEBUG] agent: watch handler '{}' output: thanks\n",
        page.url
    ));
    assert!(!agent.log().contains("secret"), "{}", agent.log());
}

#[test]
fn a_reload_begins_them_anew() {
    let room = tempfile::tempdir().unwrap();
    let file = |name: &str| room.path().join(name);
    let (old, new, kept) = (file("old"), file("new"), file("kept"));
    let write = |to: &PathBuf| json!({"type": "key", "key": "k", "handler": format!("cat >> {}", to.display())});
    let configuration = configure(room.path(), &json!([write(&old), write(&kept)]));
    let agent = Agent::start_as(room.path(), "one", &["-config-file", &configuration]);
    contains(&old, "null\n", &agent);
    contains(&kept, "null\n", &agent);

    configure(room.path(), &json!([{"type": "moon", "handler": "true"}]));
    let answer = agent.request("PUT", "/v1/agent/reload", b"");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("Unsupported watch type: moon"),
        "{}",
        answer.text()
    );
    agent.expect("PUT", "/v1/kv/k", b"5");
    contains(&old, r#""Value":"NQ==""#, &agent);
    contains(&kept, r#""Value":"NQ==""#, &agent);

    configure(room.path(), &json!([write(&kept), write(&new)]));
    agent.expect("PUT", "/v1/agent/reload", b"");
    contains(&new, r#""Value":"NQ==""#, &agent);
    let before = std::fs::read_to_string(&old).unwrap();
    agent.expect("PUT", "/v1/kv/k", b"6");
    contains(&new, r#""Value":"Ng==""#, &agent);
    contains(&kept, r#""Value":"Ng==""#, &agent);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), before);
    let kept = std::fs::read_to_string(&kept).unwrap();
    // What there was, the change, what there was at the reload, the change.
    assert_eq!(kept.lines().count(), 4, "{kept}");
}

#[test]
fn programs_neither_overlap_nor_outlive_the_agent() {
    let room = tempfile::tempdir().unwrap();
    let pipe = room.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let opened = rustix::fs::open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty());
    let mut output = std::fs::File::from(opened.unwrap());
    let mut said = String::new();
    // Reads until it was said so often that one was started, or that all are gone.
    let mut read_until = |started: Option<usize>, agent: Option<&Agent>| {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        while started.is_none_or(|started| said.matches("started\n").count() < started) {
            match output.read(&mut buffer) {
                Ok(0) if started.is_none() => break,
                Ok(size) => said.push_str(std::str::from_utf8(&buffer[..size]).unwrap()),
                Err(why) => assert_eq!(why.kind(), ErrorKind::WouldBlock),
            }
            assert!(
                Instant::now() < deadline,
                "{said}\n{}",
                agent.map(Agent::log).unwrap_or_default()
            );
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        said.clone()
    };
    // The shell and its child keep the pipe open as long as they live.
    let line = format!(
        "exec > {}; echo started; sleep 100000; true",
        pipe.display()
    );
    let watches = json!([{"type": "key", "key": "k", "handler": line}]);
    let configuration = configure(room.path(), &watches);
    let agent = Agent::start_as(room.path(), "one", &["-config-file", &configuration]);
    read_until(Some(1), Some(&agent));
    // Neither a change nor the same watch after a reload runs a second one meanwhile.
    agent.expect("PUT", "/v1/kv/k", b"5");
    agent.expect("PUT", "/v1/agent/reload", b"");
    agent.expect("PUT", "/v1/kv/k", b"6");
    agent.signal(Signal::TERM);
    let (status, log) = agent.ended();
    assert_eq!(status, Some(1), "{log}");
    assert_eq!(read_until(None, None), "started\n", "{log}");
}

#[test]
fn a_watch_that_cannot_run_keeps_the_agent_from_starting() {
    let room = tempfile::tempdir().unwrap();
    let cases = [
        (
            json!([{"type": "key", "key": "k", "token": "secret"}]),
            "==> Failed to setup watch handler ({\"key\":\"k\",\"token\":\"<hidden>\",\"type\":\"key\"}): Must provide watch handler\n",
        ),
        (
            json!([{"type": "key", "handler": "true"}]),
            "==> Failed to parse watch ({\"handler\":\"true\",\"type\":\"key\"}): Must specify a single key to watch\n",
        ),
    ];
    for (watches, printed) in cases {
        let configuration = configure(room.path(), &watches);
        let ended = Command::new(env!("CARGO_BIN_EXE_consul"))
            .args(["agent", "-dev", "-config-file", &configuration])
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&ended.stdout), printed);
    }
}

/// `consul watch` at this agent.
fn watch(agent: &Agent, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_consul"))
        .arg("watch")
        .args(arguments)
        .env("CONSUL_HTTP_ADDR", agent.address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn printed(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_command_prints_or_runs_a_program() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let once = watch(&agent, &["-type=services"])
        .wait_with_output()
        .unwrap();
    let services = "{\n    \"consul\": []\n}\n".to_owned();
    assert_eq!(printed(&once), (Some(0), services, String::new()));

    let told = room.path().join("told");
    // What is looked for last is written last, or the signal comes in between.
    let line = format!("echo $CONSUL_INDEX; cat >> {}", told.display());
    let watching = watch(&agent, &["-type=key", "-key=k", &line]);
    contains(&told, "null\n", &agent);
    agent.expect("PUT", "/v1/kv/k", b"5");
    contains(&told, r#""Value":"NQ=="#, &agent);
    kill_process(Pid::from_child(&watching), Signal::INT).unwrap();
    let (status, output, errors) = printed(&watching.wait_with_output().unwrap());
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    let indexes: Vec<u64> = output.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(indexes.len(), 2);
    assert!(indexes[0] < indexes[1], "{indexes:?}");

    // Interrupted while the program runs, it takes it along.
    let line = format!("echo on >> {}; exec sleep 100000", told.display());
    let watching = watch(&agent, &["-type=nodes", &line]);
    contains(&told, "on\n", &agent);
    kill_process(Pid::from_child(&watching), Signal::TERM).unwrap();
    let (status, _, errors) = printed(&watching.wait_with_output().unwrap());
    assert_eq!((status, errors.as_str()), (Some(0), ""));

    let failing = watch(&agent, &["-type=key", "-key=k", "exit", "4"]);
    let failed = "Error executing handler: exit status 4\n".to_owned();
    assert_eq!(
        printed(&failing.wait_with_output().unwrap()),
        (Some(1), failed, String::new())
    );
}
