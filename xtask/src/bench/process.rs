//! The server under measurement, as a process of its own, and what the kernel says about it.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::connection::{once, succeed};

/// A running agent with a data folder of its own. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From the start of the process to its first accepted write.
    pub(crate) ready_after: Duration,
    folder: TempDir,
}

/// The ports of one agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    http: u16,
    server: u16,
    serf: u16,
    wan: u16,
}

impl Ports {
    /// Those of so many agents, all free a moment ago.
    pub(crate) fn free<const N: usize>() -> Result<[Self; N]> {
        let mut ports = [const { [0; 4] }; N];
        let found = free_ports(N * 4)?;
        for (at, port) in found.into_iter().enumerate() {
            ports[at / 4][at % 4] = port;
        }
        Ok(ports.map(|[http, server, serf, wan]| Self {
            http,
            server,
            serf,
            wan,
        }))
    }

    /// Where gossip is heard.
    pub(crate) fn serf(self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.serf)
    }

    /// How `/v1/status/leader` names this agent.
    pub(crate) fn server(self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.server)
    }
}

impl Agent {
    /// Starts a server with an empty data folder under `scratch`, and waits for its first accepted write.
    pub(crate) fn start(program: &Path, scratch: &Path) -> Result<Self> {
        let [ports] = Ports::free()?;
        let settings = json!({"server": true, "bootstrap": true});
        let start = Instant::now();
        let mut agent = Self::launch(program, scratch, "bench", ports, &settings)?;
        agent.wait_until_ready(start)?;
        agent.ready_after = start.elapsed();
        Ok(agent)
    }

    /// The same, and where it answers DNS.
    pub(crate) fn start_with_names(program: &Path, scratch: &Path) -> Result<(Self, SocketAddr)> {
        let [ports] = Ports::free()?;
        let [names] = free_ports(1)?[..] else {
            bail!("no port is free");
        };
        let settings = json!({"server": true, "bootstrap": true, "ports": {"dns": names}});
        let start = Instant::now();
        let mut agent = Self::launch(program, scratch, "bench", ports, &settings)?;
        agent.wait_until_ready(start)?;
        Ok((agent, SocketAddr::from((Ipv4Addr::LOCALHOST, names))))
    }

    /// Starts an agent with an empty data folder under `scratch` and these settings; it is not waited for.
    pub(crate) fn launch(
        program: &Path,
        scratch: &Path,
        name: &str,
        ports: Ports,
        settings: &Value,
    ) -> Result<Self> {
        let folder =
            TempDir::with_prefix_in("agent-", scratch).context("creating a data folder")?;
        let Ports {
            http,
            server,
            serf,
            wan,
        } = ports;
        let mut all = json!({
            "node_name": name,
            "log_level": "warn",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "data_dir": folder.path().join("data"),
            "ports": {"http": http, "server": server, "serf_lan": serf, "serf_wan": wan, "dns": -1},
        });
        for (name, value) in settings.as_object().into_iter().flatten() {
            match (all[name].as_object_mut(), value.as_object()) {
                (Some(group), Some(more)) => group.extend(more.clone()),
                _ => all[name] = value.clone(),
            }
        }
        let configuration = folder.path().join("agent.json");
        std::fs::write(&configuration, all.to_string()).context("writing the configuration")?;
        let log = File::create(folder.path().join("log")).context("creating the log")?;
        let child = Command::new(program)
            .arg("agent")
            .arg(format!("-config-file={}", configuration.display()))
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, http)),
            ready_after: Duration::ZERO,
            folder,
        })
    }

    /// Waits for its first accepted write.
    pub(crate) fn wait_until_ready(&mut self, start: Instant) -> Result<()> {
        loop {
            if let Ok(response) = once(self.address, "PUT", "/v1/kv/ready", b"")
                && response.status == 200
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}: {}", self.log());
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the agent accepts no write after 30 s: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill or to wait for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(&format!("/proc/{}/stat", self.child.id()))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// The most resident memory since [`Self::forget_peak`].
    pub(crate) fn peak(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        let mut file = File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {path}"))?;
        // proc(5): 5 resets the peak to the current size.
        file.write_all(b"5")
            .with_context(|| format!("writing {path}"))
    }

    fn status(&self, name: &str) -> Result<f64> {
        status_of(self.child.id(), name)
    }

    /// Waits until the server has used less than two percent of a core for a second: what it does in the
    /// background, such as a checkpoint, is not part of what is measured next.
    pub(crate) fn settle(&self) -> Result<()> {
        let start = Instant::now();
        let mut before = self.cpu()?;
        while start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.cpu()?;
            if now - before <= Duration::from_millis(20) {
                return Ok(());
            }
            before = now;
        }
        bail!("the server is still busy two minutes after the load")
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Result<()> {
        succeed(self.address, "PUT", path, body).map(drop)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A size in the status of a process, in bytes.
pub(crate) fn status_of(process: u32, name: &str) -> Result<f64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .context("a line of the status")?;
    let kilobytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("a size of the status")?;
    Ok(kilobytes * 1024.0)
}

/// User and system time in a `stat` file of a process or of one of its threads.
pub(crate) fn cpu_of(path: &str) -> Result<Duration> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    // The name in parentheses may hold anything; what follows the last of them is numbers.
    let (_, numbers) = text.rsplit_once(')').context("a stat file")?;
    let mut numbers = numbers.split_whitespace().skip(11);
    let mut ticks = 0;
    for _ in 0..2 {
        let number: u64 = numbers
            .next()
            .context("a stat file")?
            .parse()
            .context("a stat file")?;
        ticks += number;
    }
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All are held until the last is found, so that no two are the same.
    let mut held = Vec::with_capacity(count);
    let mut ports = Vec::with_capacity(count);
    while ports.len() < count {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
        ports.push(listener.local_addr()?.port());
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_time_can_be_read() {
        cpu_of("/proc/self/stat").unwrap();
        assert!(cpu_of("/proc/self/comm").is_err());
    }

    #[test]
    fn free_ports_differ() {
        let ports = free_ports(2).unwrap();
        assert_ne!(ports[0], ports[1]);
    }
}
