//! The built program as a process: started on free ports, waited for, killed.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::http::{Answer, Client};

/// How long a server may take to come up, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often an agent is started anew because its port was taken between finding it free and binding it.
const STARTS_MAX: usize = 5;

/// A server that needs no other.
const SERVER: &[&str] = &["-server", "-bootstrap"];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_consul"))
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where it takes calls from other members.
    pub(crate) calls: SocketAddr,
    /// Where it answers DNS.
    pub(crate) names: SocketAddr,
    log: PathBuf,
}

impl Agent {
    /// Starts a server over the data in `folder` and waits until it accepts writes. `folder` also takes its
    /// configuration and its log.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_as(folder, "one", &[])
    }

    /// The same under this node name, with further flags.
    pub(crate) fn start_as(folder: &Path, node: &str, flags: &[&str]) -> Self {
        Self::start_by(program, folder, node, SERVER, flags)
    }

    /// Starts an agent that is no server and asks `server`, and waits until it is answered.
    pub(crate) fn start_client(folder: &Path, node: &str, server: &Self, flags: &[&str]) -> Self {
        let own = server.request("GET", "/v1/agent/self", b"").json();
        let contact = format!("-join=127.0.0.1:{}", own["Config"]["Ports"]["SerfLan"]);
        let flags: Vec<&str> = [contact.as_str()].iter().chain(flags).copied().collect();
        Self::start_by(program, folder, node, &[], &flags)
    }

    /// Starts a server that may open so many files.
    pub(crate) fn start_with_files(folder: &Path, files: u32) -> Self {
        let program = || {
            let mut shell = Command::new("sh");
            let limit = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
            shell.args(["-c", &limit, env!("CARGO_BIN_EXE_consul")]);
            shell
        };
        Self::start_by(program, folder, "one", SERVER, &[])
    }

    fn start_by(
        program: impl Fn() -> Command,
        folder: &Path,
        node: &str,
        role: &[&str],
        flags: &[&str],
    ) -> Self {
        for _ in 0..STARTS_MAX {
            let mut agent = Self::spawn(program(), folder, node, role, flags);
            if agent.becomes_ready() {
                return agent;
            }
        }
        panic!("{STARTS_MAX} times in a row somebody else took a port that had been free");
    }

    fn spawn(
        mut program: Command,
        folder: &Path,
        node: &str,
        role: &[&str],
        flags: &[&str],
    ) -> Self {
        let [http, rpc, serf_lan, serf_wan, dns] = free_ports();
        let configuration = folder.join("agent.json");
        let ports = format!(
            r#"{{"ports": {{"http": {http}, "server": {rpc}, "serf_lan": {serf_lan}, "serf_wan": {serf_wan}, "dns": {dns}}}}}"#
        );
        std::fs::write(&configuration, ports).expect("writing the configuration");
        let log = folder.join("agent.log");
        let output = File::create(&log).expect("creating the log");
        let child = program
            .args(["agent", "-log-level=info"])
            .args(role)
            .arg(format!("-node={node}"))
            .args(["-bind=127.0.0.1", "-client=127.0.0.1"])
            .arg(format!("-data-dir={}", folder.join("data").display()))
            .arg(format!("-config-file={}", configuration.display()))
            .args(flags)
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("the log twice"))
            .stdout(output)
            .spawn()
            .expect("starting the program");
        Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, http)),
            calls: SocketAddr::from((Ipv4Addr::LOCALHOST, rpc)),
            names: SocketAddr::from((Ipv4Addr::LOCALHOST, dns)),
            log,
        }
    }

    /// False if it ended because another process has got hold of its port in the meantime.
    fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The write changes nothing that a test looks at.
            let ready = Client::connect(self.address)
                .and_then(|mut client| client.request("PUT", "/v1/kv/ready", b"", PATIENCE));
            if let Some(status) = self.child.try_wait().expect("asking for the process") {
                let log = self.log();
                assert!(
                    log.to_lowercase().contains("address already in use"),
                    "the agent ended with {status}:\n{log}"
                );
                return false;
            }
            if ready.as_ref().is_ok_and(|answer| answer.status == 200) {
                return true;
            }
            assert!(
                Instant::now() < deadline,
                "the agent accepts no writes ({ready:?}):\n{}",
                self.log()
            );
            // Asked again soon; nothing wakes us when a process begins to listen.
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// What the agent has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Client {
        match Client::connect(self.address) {
            Ok(client) => client,
            Err(error) => panic!("connecting: {error}\n{}", self.log()),
        }
    }

    /// One request that must be answered.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        match self.client().request(method, path, body, PATIENCE) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}\n{}", self.log()),
        }
    }

    /// One request that must be answered with 200; returns the body.
    pub(crate) fn expect(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let answer = self.request(method, path, body);
        assert_eq!(
            answer.status,
            200,
            "{method} {path}: {}\n{}",
            answer.text(),
            self.log()
        );
        answer.body
    }

    /// Tells the agent something.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalling the agent");
    }

    /// Waits until the agent has printed this.
    pub(crate) fn prints(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "the agent doesn't print {text:?}:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Waits until the answer to a `GET` contains this.
    pub(crate) fn answers(&self, path: &str, text: &str) {
        self.answers_so(path, &format!("contains {text:?}"), |answer| {
            answer.text().contains(text)
        });
    }

    /// Waits until the answer to a `GET` is so; that answer.
    pub(crate) fn answers_so(
        &self,
        path: &str,
        what: &str,
        is_so: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.request("GET", path, b"");
            if is_so(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "no answer to {path} that {what}; the last one: {}\n{}",
                answer.text(),
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Waits until the agent has ended by itself; its exit status, and what it has printed.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("asking for the process") {
                return (status.code(), self.log());
            }
            assert!(
                Instant::now() < deadline,
                "the agent doesn't end:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// `kill -9`: nothing in the process gets to run any more.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last is found, so that no two are the same.
    let held = [(); N]
        .map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("looking for a free port"));
    held.each_ref().map(|listener| {
        listener
            .local_addr()
            .expect("the port that was found")
            .port()
    })
}
