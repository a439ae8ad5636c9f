//! One agent: a process with a loopback address, a configuration and a folder of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};

use crate::patience::{PATIENCE, until};
use crate::program::program;
use testkit::http::{Answer, request};

/// The ports an agent listens on.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// HTTP.
    pub http: u16,
    /// Calls between members.
    pub server: u16,
    /// Gossip in the datacenter.
    pub serf: u16,
    /// Gossip between datacenters.
    pub wan: u16,
    /// DNS.
    pub dns: u16,
}

impl Ports {
    /// Some that are free at this address, for TCP and UDP alike.
    ///
    /// # Panics
    /// If there are none.
    pub fn free(address: Ipv4Addr) -> Self {
        let [http, server, serf, wan, dns] = free_ports(address);
        Self {
            http,
            server,
            serf,
            wan,
            dns,
        }
    }
}

/// Ports that were free at this address a moment ago, for TCP and UDP alike.
///
/// # Panics
/// If there are none.
pub fn free_ports<const N: usize>(address: Ipv4Addr) -> [u16; N] {
    // All are held until the last is found, so that no two are the same.
    let held = [(); N].map(|()| {
        loop {
            let tcp = TcpListener::bind((address, 0)).expect("an address with a free port");
            let port = tcp.local_addr().expect("a bound socket has one").port();
            if let Ok(udp) = UdpSocket::bind((address, port)) {
                return (port, tcp, udp);
            }
        }
    });
    held.map(|(port, _, _)| port)
}

/// What an agent is.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its node name.
    pub name: String,
    /// Where it listens.
    pub address: Ipv4Addr,
    /// On which ports.
    pub ports: Ports,
    /// Whether it is a server.
    pub is_server: bool,
    /// What else its configuration file says.
    pub settings: Map<String, Value>,
    /// What goes in front of the program's name, to start it somewhere else.
    pub wrapping: Vec<String>,
}

impl Spec {
    /// Where it answers HTTP.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.ports.http))
    }

    /// Where it answers DNS.
    pub fn dns(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.ports.dns))
    }

    /// Where it listens for gossip.
    pub fn serf(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.ports.serf))
    }

    /// Where it listens for calls of other members.
    pub fn server(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.ports.server))
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// An agent, running or not. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    /// What it is.
    pub spec: Spec,
    folder: PathBuf,
    child: Option<Child>,
    /// How often it was started.
    pub life: u64,
}

impl Agent {
    /// One that is not started yet, with a folder of its own under `room`.
    ///
    /// # Panics
    /// If the folder can't be made.
    pub fn new(room: &Path, spec: Spec) -> Self {
        let folder = room.join(&spec.name);
        std::fs::create_dir_all(&folder).expect("making a folder of our own");
        Self {
            spec,
            folder,
            child: None,
            life: 0,
        }
    }

    /// Writes its configuration and starts it; it is not waited for.
    ///
    /// # Panics
    /// If it runs already, or can't be started.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.spec.name);
        let file = self.folder.join("agent.json");
        let settings = Value::Object(self.configuration());
        std::fs::write(&file, settings.to_string()).expect("writing a file of our own");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("opening a file of our own");
        let program = program();
        let mut words: Vec<String> = self.spec.wrapping.clone();
        words.push(program.display().to_string());
        words.push("agent".to_owned());
        words.push(format!("-config-file={}", file.display()));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("one file twice"))
            .stdout(log)
            .spawn();
        self.child = Some(child.expect("starting the program"));
        self.life += 1;
    }

    fn configuration(&self) -> Map<String, Value> {
        let Spec {
            name,
            address,
            ports,
            is_server,
            settings,
            ..
        } = &self.spec;
        let own = serde_json::json!({
            "node_name": name,
            "server": is_server,
            "data_dir": self.data(),
            "bind_addr": address.to_string(),
            "client_addr": address.to_string(),
            "log_level": "debug",
            "ports": {"http": ports.http, "server": ports.server, "serf_lan": ports.serf, "serf_wan": ports.wan, "dns": ports.dns},
            "performance": {"raft_multiplier": 1},
        });
        let mut all = own.as_object().cloned().unwrap_or_default();
        all.extend(settings.clone());
        all
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Who it is in consensus: the bytes of the file that says so, made once for each data directory.
    ///
    /// # Panics
    /// If it has none.
    pub fn raft_id(&self) -> Vec<u8> {
        std::fs::read(self.data().join("raft/identity")).expect("a server that has started")
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("agent.json")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// The end of what it has printed.
    pub fn log(&self) -> String {
        const LINES: usize = 80;
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        format!(
            "-- log of {} --\n{}\n",
            self.spec.name,
            lines[from..].join("\n")
        )
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it has been started and not been seen to end.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process().expect("an agent that runs");
        let process = i32::try_from(process).ok().and_then(Pid::from_raw);
        // It can't be another's: a child that nobody waited for keeps its number.
        kill_process(process.expect("a process has a number"), signal)
            .expect("our own child can be signalled");
    }

    /// Nothing in it runs until [`Self::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to leave the cluster.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// `kill -9`: nothing in the process gets to run any more.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If that does not come.
    pub fn end(&mut self) -> Ended {
        let mut child = self.child.take().expect("an agent that runs");
        let (status, _) = until(PATIENCE, &format!("{} ends", self.spec.name), || {
            let status = child.try_wait().map_err(|error| error.to_string())?;
            status.ok_or_else(|| self.log())
        });
        match status.code() {
            Some(code) => Ended::Exited(code),
            None => Ended::Killed(status.signal().unwrap_or(0)),
        }
    }

    /// Whether it has ended by itself; it counts as stopped then.
    pub fn has_ended(&mut self) -> bool {
        let ended = self
            .child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
        if ended {
            self.child = None;
        }
        ended
    }

    /// Loses its disk.
    ///
    /// # Panics
    /// If it runs, or its files can't be removed.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "{} runs", self.spec.name);
        std::fs::remove_dir_all(self.data()).expect("removing a folder of our own");
    }

    /// One request that must be answered.
    ///
    /// # Panics
    /// If it isn't.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        match request(self.spec.http(), method, path, body, PATIENCE) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}\n{}", self.log()),
        }
    }

    /// One request that must be answered with 200.
    ///
    /// # Panics
    /// If it isn't.
    pub fn get(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let answer = self.ask(method, path, body);
        let status = answer.status;
        assert_eq!(
            status,
            200,
            "{method} {path} at {}: {}\n{}",
            self.spec.name,
            answer.text(),
            self.log()
        );
        answer
    }

    /// What one request is answered with as JSON, or why there is no such answer yet.
    ///
    /// # Errors
    /// When the answer isn't one of 200.
    pub fn look(&self, path: &str) -> Result<Value, String> {
        match request(self.spec.http(), "GET", path, b"", Duration::from_secs(12)) {
            Ok(answer) if answer.status == 200 => Ok(answer.json()),
            Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
