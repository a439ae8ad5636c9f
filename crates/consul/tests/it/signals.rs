//! What a running agent does when the system or an operator tells it something, and with which status it ends.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::process::{Agent, free_ports};

/// Runs an agent that ends by itself; its status and what it printed.
fn ends(flags: &[&str], configuration: &Path, text: &str) -> (Option<i32>, String) {
    std::fs::write(configuration, text).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args(["agent", "-bind=127.0.0.1", "-client=127.0.0.1"])
        .arg(format!("-config-file={}", configuration.display()))
        .args(flags)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    (ended.status.code(), printed)
}

#[test]
fn a_signal_ends_a_server_and_a_wish_lets_it_leave() {
    let room = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let agent = Agent::start(room.path());
        agent.signal(signal);
        let (status, log) = agent.ended();
        assert_eq!(status, Some(1), "{log}");
        assert!(log.contains("==> Caught signal: "), "{log}");
    }
    let file = room.path().join("leave.json");
    std::fs::write(&file, r#"{"leave_on_terminate": true}"#).unwrap();
    let file = file.display().to_string();
    let agent = Agent::start_as(room.path(), "one", &["-config-file", &file]);
    agent.signal(Signal::TERM);
    let (status, log) = agent.ended();
    assert_eq!(status, Some(0), "{log}");

    let agent = Agent::start(room.path());
    agent.expect("PUT", "/v1/agent/leave", b"");
    let (status, log) = agent.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("==> Gracefully shutting down agent..."),
        "{log}"
    );
}

#[test]
fn a_broken_configuration_changes_nothing_and_a_good_one_does() {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("more.json");
    std::fs::write(&file, "{}").unwrap();
    let agent = Agent::start_as(
        room.path(),
        "one",
        &["-config-file", &file.display().to_string()],
    );
    std::fs::write(&file, r#"{"nonsense": 1}"#).unwrap();
    agent.signal(Signal::HUP);
    agent.prints("==> Failed to reload configs\n");
    std::fs::write(&file, r#"{"leave_on_terminate": true, "domain": "other"}"#).unwrap();
    agent.signal(Signal::HUP);
    agent.prints("at the next start of this agent: domain\n");
    agent.prints("the configuration was read again\n");
    agent.signal(Signal::TERM);
    let (status, log) = agent.ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn a_data_directory_and_a_port_belong_to_one_agent() {
    let room = tempfile::tempdir().unwrap();
    let agent = Agent::start(room.path());
    let [serf_lan] = free_ports();
    let data_dir = format!("-data-dir={}", room.path().join("data").display());
    let configuration = room.path().join("second.json");
    let ports = format!(r#"{{"ports": {{"http": -1, "dns": -1, "serf_lan": {serf_lan}}}}}"#);
    let (status, printed) = ends(&[&data_dir], &configuration, &ports);
    assert_eq!(status, Some(1));
    assert!(
        printed.ends_with("is in use by another agent\n"),
        "{printed}"
    );
    drop(agent);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!(r#"{{"ports": {{"http": {port}, "dns": -1, "serf_lan": {serf_lan}}}}}"#);
    let (status, printed) = ends(&[&data_dir], &configuration, &ports);
    assert_eq!(status, Some(1));
    assert!(
        printed.contains(&format!(
            "==> Error starting agent: listening for HTTP on 127.0.0.1:{port}: "
        )),
        "{printed}"
    );
}

#[test]
fn who_finds_nobody_gives_up_when_told_so() {
    let room = tempfile::tempdir().unwrap();
    let [serf_lan, nobody] = free_ports();
    let data_dir = format!("-data-dir={}", room.path().join("data").display());
    let configuration = room.path().join("agent.json");
    let ports = format!(r#"{{"ports": {{"http": -1, "dns": -1, "serf_lan": {serf_lan}}}}}"#);
    let nobody = format!("127.0.0.1:{nobody}");
    let retry = [
        &data_dir,
        "-retry-join",
        &nobody,
        "-retry-max=1",
        "-retry-interval=10ms",
    ];
    let (status, printed) = ends(&retry, &configuration, &ports);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains(", retrying in 10ms\n"), "{printed}");
    assert!(
        printed.ends_with("[ERR] agent: max join retry exhausted, exiting\n"),
        "{printed}"
    );

    let (status, printed) = ends(&[&data_dir, "-join", &nobody], &configuration, &ports);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("==> Joining cluster...\n"), "{printed}");
    assert!(
        printed.contains("* Failed to join 127.0.0.1: "),
        "{printed}"
    );
}

#[test]
fn a_signal_ends_an_agent_that_is_still_joining() {
    let room = tempfile::tempdir().unwrap();
    // The system takes the connection, and nobody ever answers on it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let contact = silent.local_addr().unwrap().to_string();
    let [serf_lan] = free_ports();
    let configuration = room.path().join("agent.json");
    let ports = format!(r#"{{"ports": {{"http": -1, "dns": -1, "serf_lan": {serf_lan}}}}}"#);
    std::fs::write(&configuration, ports).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args(["agent", "-bind=127.0.0.1", "-join", &contact])
        .arg(format!("-data-dir={}", room.path().join("data").display()))
        .arg(format!("-config-file={}", configuration.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(agent.stdout.take().unwrap()).lines();
    let joins = printed.any(|line| line.unwrap() == "==> Joining cluster...");
    assert!(joins, "it ended before it joined");
    rustix::process::kill_process(Pid::from_child(&agent), Signal::INT).unwrap();
    let rest: Vec<String> = printed.map(Result::unwrap).collect();
    assert_eq!(agent.wait().unwrap().code(), Some(1), "{rest:?}");
    assert_eq!(rest[0], "==> Caught signal: interrupt", "{rest:?}");
    assert!(
        !rest.iter().any(|line| line.contains("Failed to join")),
        "{rest:?}"
    );
}

#[test]
fn a_good_bye_that_nobody_can_confirm_ends_with_a_failure() {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("leave.json");
    std::fs::write(&file, r#"{"skip_leave_on_interrupt": false}"#).unwrap();
    let file = file.display().to_string();
    let one = Agent::start_as(room.path(), "one", &["-config-file", &file]);
    let own: serde_json::Value =
        serde_json::from_slice(&one.expect("GET", "/v1/agent/self", b"")).unwrap();
    let contact = format!("127.0.0.1:{}", own["Config"]["Ports"]["SerfLan"]);

    let [rpc, serf_lan] = free_ports();
    let configuration = room.path().join("two.json");
    let ports = format!(
        r#"{{"ports": {{"http": -1, "dns": -1, "server": {rpc}, "serf_lan": {serf_lan}}}}}"#
    );
    std::fs::write(&configuration, ports).unwrap();
    let mut two = Command::new(env!("CARGO_BIN_EXE_consul"))
        .args(["agent", "-server", "-node=two", "-bind=127.0.0.1"])
        .args(["-retry-join", &contact])
        .arg(format!("-config-file={}", configuration.display()))
        .arg(format!("-data-dir={}", room.path().join("two").display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let voter = format!(r#""Address":"127.0.0.1:{rpc}","Leader":false,"Voter":true"#);
    one.answers("/v1/operator/raft/configuration", &voter);
    two.kill().unwrap();
    two.wait().unwrap();

    one.signal(Signal::INT);
    let (status, log) = one.ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(
        log.contains("==> The others have not all heard that this agent leaves\n"),
        "{log}"
    );
}
