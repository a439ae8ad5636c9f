//! The running agent: composed of the other crates' parts, started, and stopped by signals.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use agent::Wish;
use anyhow::Context as _;
use api::http::{Engine, Listener, UnixSocketOptions};
use consensus::{Disk, MemoryDisk, RealDisk};
use server::{NoPeers, Parts, Server, SystemClock};
use tokio::sync::{mpsc, watch};

use crate::config::{self, Settings};
use crate::logging::Log;

mod http_threads;
mod pid_file;
mod shown;
mod signals;

use http_threads::Helpers;
use pid_file::PidFile;
use shown::{banner, complain, describe, face};
use signals::{Signals, Stop};

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
        gossip: None,
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

/// Prints to standard output, where the original's agent prints everything.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
