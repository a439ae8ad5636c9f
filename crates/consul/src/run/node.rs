//! The parts of an agent that talk to other members, started in order and stopped in reverse.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use agent::Identity;
use agent::join::{JoinAddress, JoinHost};
use anyhow::Context as _;
use consensus::{Disk, MemoryDisk, RealDisk};
use gossip::known::{FileMedium, Medium};
use gossip::{Gossip, Keyring, Member, Sockets};
use rpc::tls::Tls;
use rpc::{Cluster, Distant, ListenerConfig, Pool, PoolConfig, Servers};
use server::{Parts, PoolTransport, Server, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::figures::{self, Counted};
use super::say;
use crate::config::Settings;

/// What this agent is made of, beside its faces.
pub(super) struct Node {
    pub(super) gossip: Gossip,
    pub(super) cluster: Cluster,
    pub(super) role: Role,
    pub(super) is_encrypted: bool,
    pool: Pool,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What it does in the cluster.
pub(super) enum Role {
    /// It keeps the state.
    Server(Arc<Server>),
    /// It asks those who do.
    Client(Distant),
}

/// Gossip's files in the data directory; the original's are called the same.
const KEYS_FILE: &str = "serf/local.keyring";
const MEMBERS_FILE: &str = "serf/local.snapshot";

/// Where an operator names the servers that are left when a majority is lost for good.
const PEERS_FILE: &str = "raft/peers.json";

/// How long a server in bootstrap mode with an empty directory looks for those that it is to join, before it makes a cluster: long enough to be answered by one that is there.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(5);

/// Which pool this is to gossip: members of the pool of all datacenters can't be mixed up with those of this one.
const LAN: &str = "lan";

/// Raft's timings at a multiplier of 1.
///
/// A follower stands for election when the lease of a leader that went silent, as long as the longest timeout, has run
/// out and then a timeout has passed: here after 1 to 1.2 s.
const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION_MIN: Duration = Duration::from_millis(400);
const ELECTION_MAX: Duration = Duration::from_millis(600);

impl Node {
    /// Opens the data directory, takes part in gossip, and on a server in consensus; `calls` are the bounds on what other members may ask.
    pub(super) async fn start(
        settings: &Settings,
        identity: &Identity,
        shown: &agent::Settings,
        tls: &Tls,
        calls: ListenerConfig,
    ) -> anyhow::Result<Self> {
        if let Some(data_dir) = &settings.data_dir {
            for folder in ["serf", "scratch"] {
                make_private(&data_dir.join(folder))?;
            }
        }
        // What listens comes first: a port that is taken is the most likely thing to go wrong.
        let listener = if settings.server {
            let address = (settings.bind_addr, settings.ports.server).into();
            let listener = rpc::Listener::bind(address, calls).await;
            Some(listener.with_context(|| format!("listening for other members on {address}"))?)
        } else {
            None
        };
        let sockets = Sockets::bind(settings.lan.bind)
            .await
            .with_context(|| format!("listening for gossip on {}", settings.lan.bind))?;
        let keyring = keyring(settings)?;
        let is_encrypted = keyring.is_some();
        let config = gossip_config(settings, identity, shown, keyring);
        let gossip = Gossip::start(config, Arc::new(sockets)).await?;

        let pool = Pool::new(
            PoolConfig::default(),
            Some(tls.clone()),
            &settings.datacenter,
        );
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![spawn_until(
            &stopped,
            agent::members::report(gossip.clone()),
        )];
        let (cluster, role) = if let Some(listener) = listener {
            let server = start_server(settings, &gossip, &pool).await?;
            let counted = Arc::new(Counted(server.serve()));
            let answering = listener.serve(counted, Some(tls.clone()), until(&stopped));
            tasks.push(tokio::spawn(answering));
            let server = Arc::new(server);
            tasks.push(spawn_until(
                &stopped,
                figures::follow_leaders(Arc::clone(&server)),
            ));
            (server.cluster(), Role::Server(server))
        } else {
            let distant = Distant::new(Arc::new(pool.clone()), Servers::new(rand::random()));
            let (gossip, datacenter) = (gossip.clone(), settings.datacenter.clone());
            let servers = distant.clone();
            tasks.push(spawn_until(&stopped, async move {
                let members = || gossip.members_count();
                tokio::select! {
                    biased;
                    () = agent::servers::follow(gossip.clone(), datacenter, servers.clone()) => {}
                    () = servers.rebalance(members) => {}
                }
            }));
            (Cluster::new(distant.clone()), Role::Client(distant))
        };
        if !settings.disable_coordinates {
            let tell = agent::coordinates::tell(
                cluster.clone(),
                gossip.clone(),
                settings.acl.agent_token.as_str().into(),
                rand::random(),
            );
            tasks.push(spawn_until(&stopped, tell));
        }
        let server = match &role {
            Role::Server(server) => Some(Arc::clone(server)),
            Role::Client(_) => None,
        };
        tasks.push(spawn_until(&stopped, figures::look(gossip.clone(), server)));
        Ok(Self {
            gossip,
            cluster,
            role,
            is_encrypted,
            pool,
            stop,
            tasks: Mutex::new(tasks),
        })
    }

    /// Says good-bye to the others.
    pub(super) async fn leave(&self) {
        match &self.role {
            Role::Server(server) => server.leave().await,
            Role::Client(_) => self.gossip.leave().await,
        }
    }

    /// Returns with the reason when this agent can't go on.
    pub(super) async fn failed(&self) -> String {
        match &self.role {
            Role::Server(server) => server.consensus().failed().await,
            Role::Client(_) => std::future::pending().await,
        }
    }

    /// Stops; returns when everything is on disk and nothing runs any more.
    pub(super) async fn shutdown(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of this agent panicked");
            }
        }
        if let Role::Server(server) = &self.role {
            server.shutdown().await;
        }
        self.pool.shutdown().await;
        self.gossip.shutdown().await;
    }
}

/// Returns when the agent is to stop.
pub(super) fn until(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stopped.clone();
    async move {
        // A closed channel means the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    }
}

/// Runs a part of the agent until it has ended or the agent is to stop.
pub(super) fn spawn_until(
    stopped: &watch::Receiver<bool>,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let stopped = until(stopped);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stopped => {}
            () = work => {}
        }
    })
}

/// A folder that only its owner may look into: it holds every secret of the cluster.
pub(super) fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.with_context(|| format!("creating the data directory {}", folder.display()))
}

/// Takes the folder for this process alone, as long as what is returned lives: two agents would overwrite each other's files.
///
/// The system gives it back when the process ends, however that comes about.
pub(super) fn take(folder: &Path) -> anyhow::Result<fs::File> {
    let opened = fs::File::open(folder)
        .with_context(|| format!("opening the data directory {}", folder.display()))?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
            "the data directory {} is in use by another agent",
            folder.display()
        ),
        // A file system without locks can't tell us of others.
        Err(fs::TryLockError::Error(why)) => {
            tracing::warn!(
                "cannot make sure that no other agent uses the data directory {}: {why}",
                folder.display()
            );
            Ok(opened)
        }
    }
}

/// The keys of gossip, if it is encrypted.
fn keyring(settings: &Settings) -> anyhow::Result<Option<Keyring>> {
    let given = settings.encrypt.as_ref().map(|key| key.as_base64());
    let Some(data_dir) = &settings.data_dir else {
        let keyring = given.map(|key| {
            let key = gossip::keyring::parse_key(key)?;
            Keyring::in_memory(vec![key])
        });
        return Ok(keyring.transpose()?);
    };
    let path = data_dir.join(KEYS_FILE);
    // The error names the file, and what is wrong with it.
    let loaded = Keyring::load_or_create(&path, given)
        .map_err(|why| anyhow::anyhow!("Failed to configure keyring: {why}"))?;
    Ok(loaded.map(|loaded| {
        if loaded.ignored_given {
            say("==> WARNING: LAN keyring exists but -encrypt given, using keyring");
        }
        loaded.keyring
    }))
}

fn gossip_config(
    settings: &Settings,
    identity: &Identity,
    shown: &agent::Settings,
    keyring: Option<Keyring>,
) -> gossip::Config {
    let datacenter = settings.datacenter.clone();
    let admit = move |member: &Member| match member.tags.get("dc") {
        Some(other) if *other == datacenter => Ok(()),
        other => Err(format!(
            "Member '{}' part of wrong datacenter '{}'",
            member.name,
            other.map_or("", String::as_str)
        )),
    };
    gossip::Config {
        tags: identity.member(shown).tags,
        reconnect_timeout: settings.lan.reconnect_timeout,
        rejoin_after_leave: settings.rejoin_after_leave,
        known: settings.data_dir.as_ref().map(|data_dir| {
            let file = FileMedium::new(data_dir.join(MEMBERS_FILE));
            Arc::new(file) as Arc<dyn Medium>
        }),
        keyring,
        coordinates: !settings.disable_coordinates,
        admit: Arc::new(admit),
        seed: rand::random(),
        ..gossip::Config::new(settings.node_name.clone(), settings.lan.advertise, LAN)
    }
}

/// Whether there are other agents that this one is to find; the same list everywhere names this one as well.
fn joins(settings: &Settings) -> bool {
    let Settings { lan, discovery, .. } = settings;
    let me = JoinAddress {
        host: JoinHost::Ip(lan.advertise.ip()),
        port: lan.advertise.port(),
    };
    let mut named = lan.start_join.iter().chain(&lan.retry_join);
    named.any(|address| *address != me) || discovery.is_some()
}

async fn start_server(settings: &Settings, gossip: &Gossip, pool: &Pool) -> anyhow::Result<Server> {
    let (disk, scratch_dir): (Arc<dyn Disk>, PathBuf) = match &settings.data_dir {
        Some(data_dir) => {
            let raft = data_dir.join("raft");
            let disk =
                RealDisk::open(&raft).with_context(|| format!("opening {}", raft.display()))?;
            (Arc::new(disk), data_dir.join("scratch"))
        }
        None => (Arc::new(MemoryDisk::new()), std::env::temp_dir()),
    };
    let config = server::Config {
        datacenter: settings.datacenter.clone(),
        node_name: settings.node_name.clone(),
        advertise_address: settings.lan.advertise.ip(),
        advertise_address_wan: settings.advertise_addr_wan,
        server_port: settings.rpc_advertise.port(),
        acl: settings.acl.server.clone(),
        session_ttl_min: settings.session_ttl_min,
        hold_max: server::Config::HOLD_MAX,
        scratch_dir,
        compress_threads: thread::available_parallelism()
            .map_or(1, usize::from)
            .min(2),
        checking: server::Checking::OnAThread,
        seed: rand::random(),
    };
    if settings.rpc_advertise.ip() != config.advertise_address {
        tracing::warn!(
            "other members call this server at the address of gossip, {}; advertise_addrs.rpc changes only the port",
            config.raft_address()
        );
    }
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
    if let Some(data_dir) = &settings.data_dir {
        let peers = data_dir.join(PEERS_FILE);
        if let Some(members) = server::recover(&peers, &log, Arc::clone(&disk)).await? {
            say(&format!(
                "==> WARNING: {} names the members anew: {}",
                peers.display(),
                members.join(", ")
            ));
        }
    }
    let start = match settings.bootstrap_expect {
        _ if settings.bootstrap && joins(settings) => {
            server::Start::BootstrapUnlessFound(BOOTSTRAP_PATIENCE)
        }
        _ if settings.bootstrap || settings.dev => server::Start::Bootstrap,
        Some(expected) => server::Start::Expect(usize::try_from(expected).unwrap_or(usize::MAX)),
        None => server::Start::Join,
    };
    let parts = Parts {
        disk,
        transport: Arc::new(PoolTransport::new(pool.clone())),
        calls: Arc::new(pool.clone()),
        clock: Arc::new(SystemClock),
        gossip: Some(gossip.clone()),
    };
    Ok(Server::start(config, log, parts, start).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_belongs_to_one_agent() {
        let room = tempfile::tempdir().unwrap();
        let mine = take(room.path()).unwrap();
        let why = take(room.path()).unwrap_err().to_string();
        assert!(why.ends_with("is in use by another agent"), "{why}");
        drop(mine);
        take(room.path()).unwrap();
    }
}
