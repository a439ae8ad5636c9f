//! The running agent: composed of the other crates' parts, started, and stopped by signals.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use agent::{
    Agent, Identity, JoinError, Member, Neighbours, Parts as AgentParts, Role, Section, Sections,
    Start, Wish,
};
use anyhow::Context as _;
use api::http::{Engine, Listener, UnixSocketOptions};
use consensus::{Disk, MemoryDisk, RealDisk};
use futures::future::BoxFuture;
use server::{NoPeers, Parts, Server, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::config::{self, ClientAddr, Settings};
use crate::logging::Log;
use crate::release;

/// Wishes that may wait; who comes later waits for room.
const WISHES_MAX: usize = 16;

/// The exit status of an agent that was told to stop without leaving, as the original has it.
const STOPPED: u8 = 1;

/// The exit status of an agent that has left.
const LEFT: u8 = 0;

/// Runs an agent until it is told to stop, and returns the exit status.
///
/// # Errors
/// When it can't start, with the reason.
pub fn agent(settings: Settings) -> anyhow::Result<u8> {
    refuse_what_is_missing(&settings)?;
    let log = Log::start(settings.log_level)?;
    for warning in &settings.warnings {
        say(&format!("==> WARNING: {warning}"));
    }
    say("==> Starting Consul agent...");
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(run(&settings, &log));
    // Threads that still read or write a snapshot see that nobody listens any more and end by themselves.
    runtime.shutdown_background();
    log.release();
    status
}

/// Takes as many open files as the system lets us have: every client is one, and soft limits are made for smaller programs.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// What the configuration may ask for and this version does not do yet.
fn refuse_what_is_missing(settings: &Settings) -> anyhow::Result<()> {
    anyhow::ensure!(
        settings.server,
        "this version runs servers only; start it with -server -bootstrap, or with -dev to try it out"
    );
    if let Some(expected) = settings.bootstrap_expect {
        anyhow::bail!(
            "clusters of {expected} servers are not possible in this version; use -bootstrap-expect=1 for a single server"
        );
    }
    Ok(())
}

async fn run(settings: &Settings, log: &Log) -> anyhow::Result<u8> {
    // Before anything is opened, so that a signal during the start isn't lost.
    let mut signals = Signals::listen()?;
    let server = start_server(settings).await?;
    let listeners = listen(settings)?;
    let (stop, stopped) = watch::channel(false);
    let server = Arc::new(server);
    let (wishes, mut wished) = mpsc::channel(WISHES_MAX);
    let agent = describe(settings, log, wishes, Arc::clone(&server));
    let service = api::service(server.cluster(), agent, face(settings));
    let engine = Engine::new(service, api::http::Config::default());

    let _pid_file = settings
        .pid_file
        .as_deref()
        .map(PidFile::write)
        .transpose()?;
    banner(settings);
    log.release();
    complain(settings);

    let helpers = Helpers::start(&engine, &listeners, &stopped);
    let until = {
        let mut stopped = stopped.clone();
        async move {
            // A closed channel means the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let mut serving = pin!(engine.serve(listeners, until));
    let end = tokio::select! {
        biased;
        signal = signals.stop() => End::Signal(signal),
        answer = leave_wished(&mut wished) => {
            // A server that is alone has nobody to say good-bye to.
            let _ = answer.send(Ok(()));
            End::Left
        }
        reason = server.consensus().failed() => End::Failed(reason),
        served = &mut serving => End::Served(served),
    };
    stop.send_replace(true);
    let orderly = async {
        if !matches!(end, End::Served(_)) {
            serving.await.context("serving HTTP")?;
        }
        // Not on this thread, which still has to carry out what the helpers are waiting for.
        let joined = tokio::task::spawn_blocking(move || helpers.join()).await;
        joined.context("waiting for the threads that serve HTTP")?;
        server.shutdown().await;
        anyhow::Ok(())
    };
    tokio::select! {
        biased;
        ended = orderly => ended?,
        // Who asks twice wants it now; what was acknowledged is on disk.
        _ = signals.stop() => return Ok(STOPPED),
    }
    match end {
        End::Left => Ok(LEFT),
        End::Signal(signal) if leaves(settings, signal) => Ok(LEFT),
        End::Signal(_) => Ok(STOPPED),
        End::Failed(reason) => Err(anyhow::anyhow!("this server had to stop: {reason}")),
        End::Served(served) => {
            served.context("serving HTTP")?;
            Ok(STOPPED)
        }
    }
}

/// Why an agent ends.
enum End {
    Signal(Stop),
    /// Somebody asked it to leave.
    Left,
    /// The log or the state failed; a supervisor should start the agent anew.
    Failed(String),
    Served(std::io::Result<()>),
}

/// Whether this signal is a wish to leave the cluster rather than just to stop.
fn leaves(settings: &Settings, signal: Stop) -> bool {
    let leaves = match signal {
        Stop::Interrupt => !settings.skip_leave_on_interrupt,
        Stop::Terminate => settings.leave_on_terminate,
    };
    if leaves {
        // A server that is alone has nobody to say good-bye to.
        say("==> Gracefully shutting down agent...");
    }
    leaves
}

/// Waits for the wish to leave; the configuration can't be read again while this runs.
async fn leave_wished(
    wished: &mut mpsc::Receiver<Wish>,
) -> tokio::sync::oneshot::Sender<Result<(), String>> {
    loop {
        match wished.recv().await {
            Some(Wish::Leave(answer)) => return answer,
            Some(Wish::Reload(answer)) => {
                let _ = answer.send(Err("this version can't reload".to_owned()));
            }
            None => std::future::pending().await,
        }
    }
}

async fn start_server(settings: &Settings) -> anyhow::Result<Server> {
    let bootstrap = settings.bootstrap || settings.dev;
    let (disk, scratch_dir): (Arc<dyn Disk>, PathBuf) = match &settings.data_dir {
        Some(data_dir) => {
            let scratch = data_dir.join("scratch");
            for folder in [data_dir, &scratch] {
                make_private(folder)?;
            }
            let raft = data_dir.join("raft");
            let disk =
                RealDisk::open(&raft).with_context(|| format!("opening {}", raft.display()))?;
            (Arc::new(disk), scratch)
        }
        None => (Arc::new(MemoryDisk::new()), std::env::temp_dir()),
    };
    let config = server::Config {
        datacenter: settings.datacenter.clone(),
        node_name: settings.node_name.clone(),
        advertise_address: settings.advertise_addr,
        advertise_address_wan: settings.advertise_addr_wan,
        server_port: settings.ports.server,
        acl_enabled: settings.acl.is_some(),
        acl_master_token: settings
            .acl
            .as_ref()
            .map(|acl| acl.master_token.clone())
            .unwrap_or_default(),
        session_ttl_min: settings.session_ttl_min,
        hold_max: server::Config::HOLD_MAX,
        scratch_dir,
        compress_threads: thread::available_parallelism()
            .map_or(1, usize::from)
            .min(2),
        checking: server::Checking::OnAThread,
        seed: rand::random(),
    };
    let multiplier = settings.raft_multiplier;
    let log = consensus::Config {
        id: rand::random(),
        address: config.raft_address(),
        name: settings.node_name.clone(),
        heartbeat_interval: HEARTBEAT * multiplier,
        election_timeout_min: ELECTION_MIN * multiplier,
        election_timeout_max: ELECTION_MAX * multiplier,
        seed: rand::random(),
        ..consensus::Config::default()
    };
    let parts = Parts {
        disk,
        transport: Arc::new(NoPeers),
        calls: Arc::new(rpc::NoCalls),
        clock: Arc::new(SystemClock),
    };
    let start = if bootstrap {
        server::Start::Bootstrap
    } else {
        server::Start::Join
    };
    let server = Server::start(config, log, parts, start).await?;
    if !bootstrap && !server.consensus().initialized().await {
        server.shutdown().await;
        anyhow::bail!(
            "this server is new and was not told to elect itself, and this version does not look for others: start it with -bootstrap"
        );
    }
    Ok(server)
}

/// Raft's timings at a multiplier of 1.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_millis(100);
const ELECTION_MIN: std::time::Duration = std::time::Duration::from_millis(500);
const ELECTION_MAX: std::time::Duration = std::time::Duration::from_millis(1000);

/// A folder that only its owner may look into: it holds every secret of the cluster.
fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.with_context(|| format!("creating the data directory {}", folder.display()))
}

fn listen(settings: &Settings) -> anyhow::Result<Vec<Listener>> {
    let options = UnixSocketOptions {
        user: settings.unix_sockets.user,
        group: settings.unix_sockets.group,
        mode: settings.unix_sockets.mode,
    };
    let open = |listener: &config::Listener| match listener {
        config::Listener::Tcp(address) => {
            Listener::tcp(*address).with_context(|| format!("listening for HTTP on {address}"))
        }
        config::Listener::Unix(path) => Listener::unix(path, &options)
            .with_context(|| format!("listening for HTTP on {}", path.display())),
    };
    settings.http.iter().map(open).collect()
}

/// How `/v1` looks on this agent.
fn face(settings: &Settings) -> api::Config {
    api::Config {
        acl_datacenter: settings
            .acl
            .as_ref()
            .map(|acl| acl.datacenter.as_str().into())
            .unwrap_or_default(),
        acl_token: settings.acl_token.as_str().into(),
        response_headers: settings
            .http_api_response_headers
            .clone()
            .into_iter()
            .collect(),
        disable_coordinates: settings.disable_coordinates,
        seed: rand::random(),
        ..api::Config::default()
    }
}

/// What this node says of itself.
fn describe(
    settings: &Settings,
    log: &Log,
    wishes: mpsc::Sender<Wish>,
    server: Arc<Server>,
) -> Agent {
    let start = if settings.bootstrap {
        Start::Bootstrap
    } else {
        Start::Join
    };
    let identity = Identity {
        node: settings.node_name.clone(),
        datacenter: settings.datacenter.clone(),
        id: String::new(),
        meta: std::collections::BTreeMap::new(),
        address: settings.advertise_addr,
        address_wan: settings.advertise_addr_wan,
        role: Role::Server(start),
        version: release::COMPATIBLE_VERSION.to_owned(),
        prerelease: String::new(),
        revision: String::new(),
        build: release::BUILD.to_owned(),
    };
    let mut shown = agent::Settings {
        domain: settings.domain.clone(),
        dev: settings.dev,
        data_dir: shown_path(settings.data_dir.as_deref()),
        bind_addr: settings.bind_addr.to_string(),
        client_addr: client_addr(settings),
        ports: agent::Ports {
            dns: settings.ports.dns.unwrap_or(0),
            http: settings.ports.http.unwrap_or(0),
            https: settings.ports.https.unwrap_or(0),
            serf_lan: settings.ports.serf_lan,
            serf_wan: settings.ports.serf_wan,
            server: settings.ports.server,
        },
        protocol: settings.protocol,
        log_level: format!("{:?}", settings.log_level).to_uppercase(),
        pid_file: shown_path(settings.pid_file.as_deref()),
        leave_on_terminate: settings.leave_on_terminate,
        skip_leave_on_interrupt: settings.skip_leave_on_interrupt,
        session_ttl_min: settings.session_ttl_min,
        disable_coordinates: settings.disable_coordinates,
        raft_multiplier: settings.raft_multiplier,
        http_api_response_headers: settings
            .http_api_response_headers
            .clone()
            .into_iter()
            .collect(),
        ..agent::Settings::default()
    };
    if let Some(acl) = &settings.acl {
        shown.acl_datacenter.clone_from(&acl.datacenter);
    }
    let bootstrap = settings.bootstrap;
    let parts = AgentParts {
        neighbours: Box::new(Alone(identity.member(&shown))),
        journal: log.journal().clone(),
        wishes,
        stats: Box::new(move || sections(&server, bootstrap)),
    };
    Agent::new(identity, shown, parts)
}

/// A pool without others.
struct Alone(Member);

impl Neighbours for Alone {
    fn members(&self) -> Vec<Member> {
        vec![self.0.clone()]
    }

    fn coordinate(&self) -> Option<model::Coordinate> {
        None
    }

    fn join(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<usize, JoinError>> {
        let failed = |address| format!("Failed to join {address}: this server runs alone");
        let reasons = addresses.into_iter().map(failed).collect();
        Box::pin(async { Err(JoinError(reasons)) })
    }

    fn force_leave(&self, _: String) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

fn shown_path(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}

fn client_addr(settings: &Settings) -> String {
    match &settings.client_addr {
        ClientAddr::Ip(ip) => ip.to_string(),
        ClientAddr::Unix(path) => format!("unix://{}", path.display()),
    }
}

/// The figures that `consul info` shows, under the original's names.
fn sections(server: &Server, bootstrap: bool) -> Sections {
    let status = server.status();
    let log = &status.log;
    let section = |pairs: &[(&str, String)]| -> Section {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    };
    let voters: Vec<String> = log
        .voters
        .iter()
        .map(|peer| format!("{{Suffrage:Voter ID:{0} Address:{0}}}", peer.address))
        .collect();
    let consul = section(&[
        ("bootstrap", bootstrap.to_string()),
        ("known_datacenters", "1".to_owned()),
        ("leader", status.is_leader.to_string()),
        (
            "leader_addr",
            log.leader
                .as_ref()
                .map(|peer| peer.address.clone())
                .unwrap_or_default(),
        ),
        ("server", "true".to_owned()),
    ]);
    let last_contact = if status.is_leader {
        "0".to_owned()
    } else {
        "never".to_owned()
    };
    let raft = section(&[
        ("applied_index", log.applied_index.to_string()),
        ("commit_index", log.commit_index.to_string()),
        (
            "fsm_pending",
            log.commit_index
                .saturating_sub(log.applied_index)
                .to_string(),
        ),
        ("last_contact", last_contact),
        ("last_log_index", log.last_log_index.to_string()),
        ("last_log_term", log.last_log_term.to_string()),
        ("last_snapshot_index", log.last_checkpoint_index.to_string()),
        ("last_snapshot_term", log.last_checkpoint_term.to_string()),
        ("latest_configuration", format!("[{}]", voters.join(" "))),
        ("num_peers", log.voters.len().saturating_sub(1).to_string()),
        ("protocol_version", "1".to_owned()),
        ("protocol_version_max", "3".to_owned()),
        ("protocol_version_min", "0".to_owned()),
        ("snapshot_version_max", "1".to_owned()),
        ("snapshot_version_min", "0".to_owned()),
        ("state", format!("{:?}", log.state)),
        ("term", log.term.to_string()),
    ]);
    let cores = thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let runtime = section(&[
        ("arch", std::env::consts::ARCH.to_owned()),
        ("cpu_count", cores.clone()),
        ("goroutines", "0".to_owned()),
        ("max_procs", cores),
        ("os", std::env::consts::OS.to_owned()),
        ("version", format!("rust {}", release::COMPILER)),
    ]);
    // This version keeps no local services or checks.
    let agent = section(&[
        ("check_monitors", "0".to_owned()),
        ("check_ttls", "0".to_owned()),
        ("checks", "0".to_owned()),
        ("services", "1".to_owned()),
    ]);
    [
        ("agent", agent),
        ("consul", consul),
        ("raft", raft),
        ("runtime", runtime),
    ]
    .map(|(name, section)| (name.to_owned(), section))
    .into()
}

/// The lines that say what is running, in the original's form.
fn banner(settings: &Settings) {
    let port = |port: Option<u16>| port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let ports = &settings.ports;
    say("==> Consul agent running!");
    let lines = [
        ("Version", format!("'v{}'", release::COMPATIBLE_VERSION)),
        ("Build", format!("'{}'", release::BUILD)),
        ("Node name", format!("'{}'", settings.node_name)),
        ("Datacenter", format!("'{}'", settings.datacenter)),
        (
            "Server",
            format!("true (bootstrap: {})", settings.bootstrap),
        ),
        (
            "Client Addr",
            format!("{} (HTTP: {})", client_addr(settings), port(ports.http)),
        ),
        (
            "Cluster Addr",
            format!("{} (server: {})", settings.advertise_addr, ports.server),
        ),
    ];
    for (label, value) in lines {
        say(&format!("{label:>18}: {value}"));
    }
    say("\n==> Log data will now stream in as it occurs:\n");
}

/// Says once what was asked for in vain.
fn complain(settings: &Settings) {
    if !settings.no_effect.is_empty() {
        tracing::warn!(
            "these settings have no effect in this version: {}",
            settings.no_effect.join(", ")
        );
    }
    if !settings.ignored.is_empty() {
        tracing::info!(
            "these settings belong to other releases and are ignored: {}",
            settings.ignored.join(", ")
        );
    }
}

/// Prints to standard output, where the original's agent prints everything.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Threads that answer HTTP beside the one that runs everything.
struct Helpers(Vec<thread::JoinHandle<()>>);

impl Helpers {
    /// On a small machine one thread does it all, which saves handing requests over.
    fn start(
        engine: &Arc<Engine<Arc<api::Api>>>,
        listeners: &[Listener],
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let helpers = (cores / 2).saturating_sub(1).min(7);
        let start = |number| {
            let (engine, listeners, mut stopped) =
                (Arc::clone(engine), listeners.to_vec(), stopped.clone());
            let work = move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let until = async move {
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                let served =
                    runtime.and_then(|runtime| runtime.block_on(engine.serve(listeners, until)));
                if let Err(error) = served {
                    tracing::error!("a thread for HTTP ended: {error}");
                }
            };
            thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(work)
        };
        let started = (1..=helpers).filter_map(|number| start(number).ok());
        Self(started.collect())
    }

    fn join(self) {
        for helper in self.0 {
            if helper.join().is_err() {
                tracing::error!("a thread for HTTP panicked");
            }
        }
    }
}

/// The signals that an agent heeds.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    dump: tokio::signal::unix::Signal,
}

/// A signal that asks the agent to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Interrupt,
    Terminate,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            dump: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns when the agent is to stop.
    async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => {
                    say("==> Caught signal: interrupt");
                    return Stop::Interrupt;
                }
                _ = self.terminate.recv() => {
                    say("==> Caught signal: terminated");
                    return Stop::Terminate;
                }
                _ = self.hang_up.recv() => {
                    say("==> Caught signal: hangup");
                    tracing::warn!("this version reads its configuration only when it starts; nothing was reloaded");
                }
                _ = self.dump.recv() => {
                    say("==> Caught signal: user defined signal 1");
                    tracing::warn!("this version has no metrics to dump");
                }
            }
        }
    }
}

/// A file with the process id, removed at the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> anyhow::Result<Self> {
        fs::write(path, std::process::id().to_string())
            .with_context(|| format!("writing the pid file {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}
