//! The running agent: composed of the other crates' parts, started, and stopped by signals.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use agent::join::Exhausted;
use agent::{Agent, Events, Exec, Local, Parts, Pool, Wish};
use anyhow::Context as _;
use api::http::{Engine, Listener, UnixSocketOptions};
use rpc::ListenerConfig;
use rpc::tls::Tls;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{self, Settings};
use crate::logging::{self, Log, Syslog};
use crate::metrics::Registry;

mod figures;
mod http_threads;
mod joining;
mod local;
mod node;
mod node_id;
mod pid_file;
mod reload;
mod shown;
pub(crate) mod signals;
mod watches;

use http_threads::Helpers;
use local::Keeping;
use node::Node;
use pid_file::PidFile;
use reload::Reload;
use signals::{Signals, Stop, Told};
use watches::Watches;

/// Wishes that may wait; who comes later waits for room.
const WISHES_MAX: usize = 16;

/// The exit status of an agent that was told to stop without leaving, as the original has it.
const STOPPED: u8 = 1;

/// How long a good-bye that a signal asked for may take; who is then not through just stops, and its status says so.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// The exit status of an agent that has left.
const LEFT: u8 = 0;

/// Runs an agent until it is told to stop, and returns the exit status.
///
/// `reread` reads the configuration once more, for a reload.
///
/// # Errors
/// When it can't start, with the reason.
pub fn agent(
    settings: Settings,
    reread: &dyn Fn() -> Result<Settings, String>,
) -> anyhow::Result<u8> {
    let log = Log::start(settings.log_level)?;
    let figures = Registry::start(&settings.telemetry)?;
    figures.install()?;
    for warning in &settings.warnings {
        say(&format!("==> WARNING: {warning}"));
    }
    say("==> Starting Consul agent...");
    let open_files = raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(run(settings, reread, &log, &figures, open_files));
    // Threads that still read or write a snapshot see that nobody listens any more and end by themselves.
    runtime.shutdown_background();
    figures.finish();
    log.release();
    log.finish();
    status
}

/// Judges what `agent` would read before it opens anything: files of certificates, and what watches need.
///
/// # Errors
/// Why it wouldn't start.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    Tls::load(settings.tls.clone())?;
    watches::Prepared::new(&settings.watches, settings, &settings.tls).map(drop)
}

/// Takes as many open files as the system lets us have, and says how many: every client is one, and soft limits are made
/// for smaller programs.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    // None is no limit.
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Open files that connections must leave: the log stops if it can't open its next one.
const FILES_RESERVED: u64 = 256;

/// How many connections one kind of listener may hold, of so many open files.
fn connections_max(open_files: u64, at_most: usize) -> usize {
    let share = open_files.saturating_sub(FILES_RESERVED) / 2;
    usize::try_from(share).map_or(at_most, |share| share.clamp(16, at_most))
}

async fn run(
    mut settings: Settings,
    reread: &dyn Fn() -> Result<Settings, String>,
    log: &Log,
    figures: &Registry,
    open_files: u64,
) -> anyhow::Result<u8> {
    // Before anything is opened, so that a signal during the start isn't lost.
    let mut signals = Signals::listen(figures.clone())?;
    if let Some(facility) = settings.syslog {
        let places = logging::PLACES.map(PathBuf::from);
        tokio::select! {
            biased;
            () = signals.stop() => return Ok(STOPPED),
            syslog = Syslog::open(facility, &places, say) => log.tell(syslog?),
        }
    }
    let tls = Tls::load(settings.tls.clone())?;
    let _data_dir = match &settings.data_dir {
        Some(data_dir) => {
            node::make_private(data_dir)?;
            Some(node::take(data_dir)?)
        }
        None => None,
    };
    settings.node_id = node_id::settle(settings.data_dir.as_deref(), settings.node_id.as_deref())?;
    let (identity, shown) = shown::describe(&settings);
    let watches = watches::Prepared::new(&settings.watches, &settings, &settings.tls)?;
    // A port that is taken is noticed before anybody else is bothered.
    let listeners = listen(&settings, &tls)?;
    let names = settings.dns_at.map(listen_for_names).transpose()?;
    let calls = ListenerConfig::default();
    let calls = ListenerConfig {
        connections_max: connections_max(open_files, calls.connections_max),
        ..calls
    };
    let node = tokio::select! {
        biased;
        // What it has begun is as after a crash, which it must survive anyway.
        () = signals.stop() => return Ok(STOPPED),
        node = Node::start(&settings, &identity, &shown, &tls, calls) => node?,
    };
    let (local, keeper) = Local::new(local::config(&settings, &identity));
    let mut keeping = match Keeping::start(&settings, &node, &local, keeper).await {
        Ok(keeping) => keeping,
        Err(why) => {
            node.shutdown().await;
            return Err(why);
        }
    };
    let (stop, stopped) = watch::channel(false);
    let (wishes, mut wished) = mpsc::channel(WISHES_MAX);
    let events = Events::default();
    let parts = Parts {
        neighbours: Box::new(Pool::new(node.gossip.clone(), settings.ports.serf_lan)),
        journal: log.journal().clone(),
        wishes,
        stats: Box::new(shown::stats(&node, &settings, &local)),
        figures: Box::new(figures.clone()),
        local,
        tokens: local::tokens(&settings, &node.cluster),
        events: events.clone(),
    };
    let agent = Agent::new(identity, shown, parts);
    let service = api::service(node.cluster.clone(), agent.clone(), shown::face(&settings));
    let config = api::http::Config::default();
    let config = api::http::Config {
        connections_max: connections_max(open_files, config.connections_max),
        ..config
    };
    let engine = Engine::new(Arc::clone(&service), config);
    let joined = tokio::select! {
        biased;
        () = signals.stop() => None,
        joined = joining::at_once(&settings, &node.gossip) => Some(joined),
    };
    match joined {
        Some(Ok(())) => {}
        Some(Err(why)) => {
            keeping.stop().await;
            node.shutdown().await;
            anyhow::bail!(why);
        }
        None => {
            keeping.stop().await;
            node.shutdown().await;
            return Ok(STOPPED);
        }
    }

    keeping.has_joined();

    // Until the end: what remote exec runs may be what ends this agent.
    let receiving = node::spawn_until(
        &stopped,
        agent::events::receive(
            node.gossip.clone(),
            agent.local().clone(),
            events,
            Exec::new(local::exec(&settings), node.cluster.clone()),
        ),
    );

    let _pid_file = settings
        .pid_file
        .as_deref()
        .map(PidFile::write)
        .transpose()?;
    shown::banner(&settings, &node, &tls);
    log.release();
    shown::complain(&settings, &node);

    let helpers = Helpers::start(&engine, &listeners, &stopped);
    let mut serving = pin!(engine.serve(listeners, node::until(&stopped)));
    let mut naming = names.map(|names| {
        let config = dns::Config {
            seed: rand::random(),
            ..settings.dns.clone()
        };
        tokio::spawn(names.serve(config, node.cluster.clone(), node::until(&stopped)))
    });
    let mut joining = pin!(joining::again_and_again(&settings, &node.gossip));
    let mut reload = Reload {
        current: settings.clone(),
        reread,
        log,
        tls: &tls,
        agent: &agent,
        api: &service,
        watches: Watches::default(),
    };
    reload.watches.start(watches);
    let end = loop {
        let waiting = tokio::select! {
            biased;
            told = signals.next() => match told {
                Told::Stop(signal) => break End::Signal(signal),
                Told::Reload => None,
            },
            Some(wish) = wished.recv() => match wish {
                Wish::Leave(answer) => break End::Left(answer),
                Wish::Reload(answer) => Some(answer),
            },
            reason = node.failed() => break End::Failed(reason),
            () = keeping.ended() => break End::Failed("the keeper of services and checks ended".to_owned()),
            () = local::ended(&mut naming) => break End::Failed("the DNS server ended".to_owned()),
            exhausted = &mut joining => break End::Alone(exhausted),
            served = &mut serving => break End::Served(served),
        };
        // HTTP goes on meanwhile, also for who waits for the outcome.
        let reloaded = tokio::select! {
            biased;
            reloaded = reload.run() => reloaded,
            signal = signals.next_stop() => break End::Signal(signal),
            reason = node.failed() => break End::Failed(reason),
            served = &mut serving => break End::Served(served),
        };
        // What is wrong has been said, and nobody waits for it if the client has hung up.
        if let Some(answer) = waiting {
            let _ = answer.send(reloaded);
        }
    };
    let is_leaving = match &end {
        End::Left(_) => true,
        End::Signal(signal) => leaves(&reload.current, *signal),
        End::Failed(_) | End::Alone(_) | End::Served(_) => false,
    };
    let orderly = async {
        // Nobody is to hear of the end of this agent as of a change.
        reload.watches.stop().await;
        let mut has_left = is_leaving;
        if is_leaving {
            say("==> Gracefully shutting down agent...");
            let leave = async {
                // Or it would bring the node back into the catalog, from which the leader takes it.
                keeping.stop().await;
                if matches!(end, End::Signal(_)) {
                    tokio::time::timeout(LEAVE_MAX, node.leave()).await.is_ok()
                } else {
                    node.leave().await;
                    true
                }
            };
            // Requests are answered meanwhile: whoever asked it to leave is among those that wait.
            has_left = tokio::select! {
                biased;
                has_left = leave => has_left,
                served = &mut serving => {
                    served.context("serving HTTP")?;
                    anyhow::bail!("serving HTTP ended while the agent was leaving");
                }
            };
            if !has_left {
                say("==> The others have not all heard that this agent leaves");
            }
        }
        let end = match end {
            End::Left(answer) => {
                // Nobody waits for it if the client has hung up.
                let _ = answer.send(Ok(()));
                None
            }
            other => Some(other),
        };
        stop.send_replace(true);
        // Or whoever follows it would hold up the end.
        log.journal().close();
        if !matches!(end, Some(End::Served(_))) {
            serving.await.context("serving HTTP")?;
        }
        // Who wants it to leave or to reload now is told that it is stopping already.
        wished.close();
        while wished.try_recv().is_ok() {}
        helpers.join().await;
        if receiving.await.is_err() {
            tracing::error!("the task of user events panicked");
        }
        if let Some(naming) = naming
            && naming.await.is_err()
        {
            tracing::error!("the DNS server panicked");
        }
        keeping.stop().await;
        node.shutdown().await;
        anyhow::Ok((end, has_left))
    };
    let (end, has_left) = tokio::select! {
        biased;
        ended = orderly => ended?,
        // Who asks twice wants it now; what was acknowledged is on disk.
        () = signals.stop() => return Ok(STOPPED),
    };
    match end {
        None => Ok(LEFT),
        Some(End::Signal(_)) if has_left => Ok(LEFT),
        // Who found nobody has said so in the log.
        Some(End::Signal(_) | End::Left(_) | End::Alone(Exhausted)) => Ok(STOPPED),
        Some(End::Failed(reason)) => {
            say(&format!("==> this agent had to stop: {reason}"));
            Ok(STOPPED)
        }
        Some(End::Served(served)) => {
            served.context("serving HTTP")?;
            Ok(STOPPED)
        }
    }
}

/// Why an agent ends.
enum End {
    Signal(Stop),
    /// Somebody asked it to leave, and waits to hear that it has.
    Left(oneshot::Sender<Result<(), String>>),
    /// A part of it failed; a supervisor should start the agent anew.
    Failed(String),
    /// It has found nobody to join.
    Alone(Exhausted),
    Served(std::io::Result<()>),
}

/// Whether this signal is a wish to leave the cluster rather than just to stop.
fn leaves(settings: &Settings, signal: Stop) -> bool {
    match signal {
        Stop::Interrupt => !settings.skip_leave_on_interrupt,
        Stop::Terminate => settings.leave_on_terminate,
    }
}

fn listen(settings: &Settings, tls: &Tls) -> anyhow::Result<Vec<Listener>> {
    let options = UnixSocketOptions {
        user: settings.unix_sockets.user,
        group: settings.unix_sockets.group,
        mode: settings.unix_sockets.mode,
    };
    let unix = |path: &Path, face: &str| {
        Listener::unix(path, &options)
            .with_context(|| format!("listening for {face} on {}", path.display()))
    };
    let mut listeners = Vec::new();
    for listener in &settings.http {
        listeners.push(match listener {
            config::Listener::Tcp(address) => Listener::tcp(*address)
                .with_context(|| format!("listening for HTTP on {address}"))?,
            config::Listener::Unix(path) => unix(path, "HTTP")?,
        });
    }
    for listener in &settings.https {
        listeners.push(match listener {
            config::Listener::Tcp(address) => {
                let incoming = tls.https().context("HTTPS needs cert_file and key_file")?;
                Listener::https(*address, incoming)
                    .with_context(|| format!("listening for HTTPS on {address}"))?
            }
            config::Listener::Unix(path) => anyhow::bail!(
                "HTTPS can't be served on the unix socket {}; use addresses.http for it",
                path.display()
            ),
        });
    }
    Ok(listeners)
}

fn listen_for_names(address: SocketAddr) -> anyhow::Result<dns::Listener> {
    dns::Listener::bind(address).with_context(|| format!("listening for DNS on {address}"))
}

/// Prints to standard output, where the original's agent prints everything.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
