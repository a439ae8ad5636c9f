//! Makes the list of what runs in an agent at rest, by which the linker lays out the program's code.

mod list;
mod symbols;
mod trace;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::symbols::Function;
use self::trace::Tracer;
use crate::arguments::Arguments;
use crate::bench::connection::once;
use crate::bench::process::{Agent, Ports};
use crate::cargo::{cargo, root, run};

/// How long an agent is watched once it is ready: anti-entropy, gossip and coordinates have gone round by then.
const REST: Duration = Duration::from_secs(25);

/// How long starting may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// `cargo xtask at-rest`.
pub(crate) fn at_rest(mut arguments: Arguments) -> Result<()> {
    let builds = !arguments.switch("--no-build");
    arguments.nothing_more()?;
    if builds {
        let words = [
            "build",
            "--release",
            "--package",
            "consul",
            "--bin",
            "consul",
            "--config",
            NAMES,
        ];
        run(&mut cargo(&words))?;
    }
    let program = root().join("target/release/consul");
    let functions = symbols::functions(&program)?;
    let scratch = TempDir::new().context("creating a folder")?;
    let watched = Watched {
        program: &program,
        scratch: scratch.path(),
        functions: &functions,
    };

    let (mut all, savers) = watched.alone()?;
    let (more, clients) = watched.together()?;
    all.extend(more.iter().chain(&clients).chain(&savers));
    let of_all = list::patterns(&functions, &all);
    let groups = [
        ("every agent", list::patterns(&functions, &clients).precise),
        (
            "snapshot agents",
            list::patterns(&functions, &savers).precise,
        ),
        ("servers", of_all.precise),
    ];
    // Last, so that it costs nothing while hashes are what they were.
    let otherwise = (
        "those of many types, should their hashes be others",
        of_all.otherwise,
    );
    let path = root().join("crates/consul/at-rest.ld");
    std::fs::write(&path, list::script(groups.iter().chain([&otherwise])))
        .with_context(|| format!("writing {}", path.display()))?;
    let bytes = |ran: &BTreeSet<u64>| -> u64 {
        functions
            .iter()
            .filter(|it| ran.contains(&it.address))
            .map(|it| it.size)
            .sum()
    };
    println!(
        "{} functions of {} ran, {} of them in clients, {} in snapshot agents: {} KB of code, {} KB, {} KB; the list takes in {} KB",
        all.len(),
        functions.len(),
        clients.len(),
        savers.len(),
        bytes(&all) / 1024,
        bytes(&clients) / 1024,
        bytes(&savers) / 1024,
        list::fitted(&functions, &groups) / 1024,
    );
    println!(
        "wrote {}; build again and look at `cargo xtask bench idle cluster-client`",
        path.display()
    );
    Ok(())
}

/// The release with the names of its functions left in.
const NAMES: &str = "profile.release.package.consul.strip=\"none\"";

/// The program that is watched.
struct Watched<'a> {
    program: &'a Path,
    scratch: &'a Path,
    functions: &'a [Function],
}

impl Watched<'_> {
    /// What runs in a server without others, and what in a snapshot agent beside it.
    fn alone(&self) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
        let mut tracer = Tracer::new(self.functions);
        let [ports] = Ports::free()?;
        let settings = json!({"server": true, "bootstrap": true});
        let (agent, pid) = self.launch(&mut tracer, "alone", ports, &settings)?;
        ready(&mut tracer, [&agent])?;
        let mut saver = Command::new(self.starter()?)
            .args(["snapshot", "agent", "-interval=1h"])
            .arg(format!("-http-addr={}", agent.address))
            .arg(format!("-local-path={}", self.scratch.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting a snapshot agent")?;
        let taken = tracer.take(saver.id(), self.program);
        if taken.is_err() {
            saver
                .kill()
                .and_then(|()| saver.wait())
                .context("ending a snapshot agent")?;
        }
        rest(&mut tracer)?;
        tracer.end()?;
        Ok((tracer.run(pid), tracer.run(taken?)))
    }

    /// What runs in three servers, and what runs in a client beside them.
    fn together(&self) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
        let mut tracer = Tracer::new(self.functions);
        let all = Ports::free::<4>()?;
        let join: Vec<String> = all[..3].iter().map(|ports| ports.serf()).collect();
        let mut agents = Vec::new();
        for (at, ports) in all.into_iter().enumerate() {
            let mut settings = json!({"retry_join": join, "retry_interval": "300ms"});
            if at < 3 {
                settings["server"] = json!(true);
                settings["bootstrap_expect"] = json!(3);
            }
            agents.push(self.launch(&mut tracer, &format!("agent-{at}"), ports, &settings)?);
        }
        ready(&mut tracer, agents.iter().map(|(agent, _)| agent))?;
        rest(&mut tracer)?;
        tracer.end()?;
        let mut servers = BTreeSet::new();
        for (_, pid) in &agents[..3] {
            servers.extend(tracer.run(*pid));
        }
        Ok((servers, tracer.run(agents[3].1)))
    }

    /// Starts an agent that is watched from its first instruction on.
    fn launch(
        &self,
        tracer: &mut Tracer<'_>,
        name: &str,
        ports: Ports,
        settings: &Value,
    ) -> Result<(Agent, Pid)> {
        let starter = self.starter()?;
        let agent = Agent::launch(&starter, self.scratch, name, ports, settings)?;
        let pid = tracer.take(agent.id(), self.program)?;
        Ok((agent, pid))
    }

    /// A program that stops itself, so that it can be taken over before it is the one that is watched.
    fn starter(&self) -> Result<PathBuf> {
        let starter = self.scratch.join("start");
        let line = format!(
            "#!/bin/sh\nkill -STOP $$\nexec '{}' \"$@\"\n",
            self.program.display()
        );
        std::fs::write(&starter, line).context("writing a script")?;
        std::fs::set_permissions(&starter, PermissionsExt::from_mode(0o700))?;
        Ok(starter)
    }
}

/// Watches until all of them have accepted a write.
fn ready<'a>(tracer: &mut Tracer<'_>, agents: impl IntoIterator<Item = &'a Agent>) -> Result<()> {
    let addresses: Vec<SocketAddr> = agents.into_iter().map(|agent| agent.address).collect();
    // Another thread asks: an agent that stops at a breakpoint while it answers waits for this one.
    let asking = std::thread::spawn(move || {
        let start = Instant::now();
        let accepts =
            |address| once(address, "PUT", "/v1/kv/ready", b"").is_ok_and(|it| it.status == 200);
        while !addresses.iter().copied().all(accepts) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    tracer.watch(PATIENCE * 2, || Ok(asking.is_finished()))
}

fn rest(tracer: &mut Tracer<'_>) -> Result<()> {
    let start = Instant::now();
    tracer.watch(REST * 2, || Ok(start.elapsed() > REST))
}
