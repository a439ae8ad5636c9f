//! `docs/snapshots.md` as somebody who follows it: its blocks, in its order, in one folder.
//!
//! A block `sh run` must succeed, `sh run=2` end with that status, `sh run=until` succeed within a while, and what
//! `sh run=starts` starts goes on beside the others. A remark `<!-- run: … -->` is something that happens to the operator.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::{PATIENCE, free_ports};

/// How a block is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Status(i32),
    Until,
    Starts,
}

/// What the guide says next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Run(Way, String),
    /// All servers end, and their data is gone.
    Lose,
    /// A file of the repository is there under a name.
    Put(String, String),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The steps of a page.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(remark) = line.strip_prefix("<!-- run: ") {
            let remark = remark.strip_suffix(" -->").expect("the end of a remark");
            steps.push(
                match remark
                    .strip_prefix("put ")
                    .and_then(|it| it.split_once(" as "))
                {
                    Some((file, name)) => Step::Put(file.to_owned(), name.to_owned()),
                    None if remark == "the servers are lost" => Step::Lose,
                    None => panic!("unknown remark {remark:?}"),
                },
            );
        }
        let Some(info) = line.strip_prefix("```sh run") else {
            continue;
        };
        let way = match info {
            "" => Way::Status(0),
            "=until" => Way::Until,
            "=starts" => Way::Starts,
            status => Way::Status(status[1..].parse().expect("a status")),
        };
        let block = lines.by_ref().take_while(|line| *line != "```");
        let script: Vec<&str> = block
            .map(|line| line.strip_prefix("$ ").unwrap_or(line))
            .collect();
        steps.push(Step::Run(way, script.join("\n")));
    }
    steps
}

/// Where the guide is followed. What it started ends with it.
struct Room {
    folder: tempfile::TempDir,
    address: String,
    started: Vec<Child>,
}

impl Room {
    /// A folder with a program `consul` in it, whose agents listen on free ports.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [http, server, serf_lan, serf_wan, dns] = free_ports();
        let ports = serde_json::json!({
            "bind_addr": "127.0.0.1",
            "ports": {"http": http, "server": server, "serf_lan": serf_lan, "serf_wan": serf_wan, "dns": dns},
        });
        fs::create_dir(folder.path().join(".bin")).unwrap();
        let settings = folder.path().join(".bin/ports.json");
        fs::write(&settings, ports.to_string()).unwrap();
        let program = folder.path().join(".bin/consul");
        let script = format!(
            "#!/bin/sh\nreal='{}'\ncase \"$1\" in\nagent) exec \"$real\" \"$@\" -config-file='{}' ;;\n*) exec \"$real\" \"$@\" ;;\nesac\n",
            env!("CARGO_BIN_EXE_consul"),
            settings.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            folder,
            address: format!("127.0.0.1:{http}"),
            started: Vec::new(),
        }
    }

    fn shell(&self, script: &str) -> Command {
        let mut path = self.folder.path().join(".bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell
            .args(["-eu", "-c", script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("CONSUL_HTTP_ADDR", &self.address)
            .stdin(Stdio::null());
        shell
    }

    fn run(&mut self, way: Way, script: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if way == Way::Starts {
                let log = File::create(
                    self.folder
                        .path()
                        .join(format!(".log-{}", self.started.len())),
                )
                .unwrap();
                // A group of its own, so that the shell ends together with what it runs.
                let child = self
                    .shell(script)
                    .process_group(0)
                    .stderr(log.try_clone().unwrap())
                    .stdout(log)
                    .spawn();
                self.started.push(child.unwrap());
                return;
            }
            let output = self.shell(script).output().unwrap();
            let expected = if let Way::Status(status) = way {
                status
            } else {
                0
            };
            if output.status.code() == Some(expected) {
                return;
            }
            let is_over = way != Way::Until || Instant::now() > deadline;
            assert!(
                !is_over,
                "{script}\nended with {}\n{}{}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
                self.logs()
            );
            // Asked again soon; nothing tells when another process is ready.
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    }

    fn logs(&self) -> String {
        let log = |number| fs::read_to_string(self.folder.path().join(format!(".log-{number}")));
        (0..self.started.len())
            .map(|number| log(number).unwrap_or_default())
            .collect()
    }

    fn end_all(&mut self) {
        for mut child in std::mem::take(&mut self.started) {
            // It may have ended by itself.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.end_all();
    }
}

#[test]
fn the_guide_to_snapshots_can_be_followed() {
    let page = fs::read_to_string(root().join("docs/snapshots.md")).unwrap();
    let mut left = VecDeque::from(steps(&page));
    assert!(left.len() > 20, "the page has too few steps: {left:?}");
    let mut room = Room::new();
    while let Some(step) = left.pop_front() {
        match step {
            Step::Run(way, script) => room.run(way, &script),
            Step::Lose => {
                room.end_all();
                fs::remove_dir_all(room.folder.path().join("data")).unwrap();
            }
            Step::Put(file, name) => {
                fs::copy(root().join(file), room.folder.path().join(name)).unwrap();
            }
        }
    }
}

#[test]
fn steps_are_read_from_a_page() {
    let page = "a\n```sh run=2\n$ x \\\n  y\n$ z\n```\n```sh\nnot this\n```\n<!-- run: put a as b -->\n<!-- run: the servers are lost -->\n```sh run=until\n$ u\n```\n";
    let expected = [
        Step::Run(Way::Status(2), "x \\\n  y\nz".to_owned()),
        Step::Put("a".to_owned(), "b".to_owned()),
        Step::Lose,
        Step::Run(Way::Until, "u".to_owned()),
    ];
    assert_eq!(steps(page), expected);
}

#[test]
fn units_call_the_program_as_it_can_be_called() {
    let room = Room::new();
    for file in [
        "systemd/consul-snapshot.service",
        "systemd/consul-snapshot-once.service",
        "cron/consul-snapshot",
    ] {
        let text = fs::read_to_string(root().join("packaging").join(file)).unwrap();
        let at = text
            .find("/usr/local/bin/consul ")
            .unwrap_or_else(|| panic!("{file} calls no consul"));
        let call = &text[at + "/usr/local/bin/".len()..];
        let end = call.find(['\n', '>']).unwrap_or(call.len());
        let call = call[..end].trim_end_matches(" 2");
        // Everything is understood but for the folder, which isn't there.
        let asked = call.replace("/etc/consul-snapshot.d", "missing");
        let output = room.shell(&asked).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("missing") && !said.contains("flag provided"),
            "{file}: {said}"
        );
    }
}
