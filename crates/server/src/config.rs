//! What can be set.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::{DefaultPolicy, DownPolicy};

/// Settings of a server.
#[derive(Clone)]
pub struct Config {
    /// The datacenter it serves, in lower case.
    pub datacenter: String,
    /// Its node's name in the catalog.
    pub node_name: String,
    /// Where other members reach it.
    pub advertise_address: IpAddr,
    /// Where members of other datacenters reach it.
    pub advertise_address_wan: IpAddr,
    /// The port for requests between servers, as registered with the `consul` service.
    pub server_port: u16,
    /// Tokens, and what holds without one.
    pub acl: Acl,
    /// The shortest TTL that a session may have; default 10 s.
    pub session_ttl_min: Duration,
    /// How long a request is held while there is no leader; default 7 s.
    pub hold_max: Duration,
    /// Where an uploaded snapshot is kept while it is checked; files there have no name and vanish with the process.
    pub scratch_dir: PathBuf,
    /// How many threads compress a snapshot at the same time; 1 to 64, default as many as there are cores, at most 2.
    pub compress_threads: usize,
    /// Where an uploaded snapshot is checked, and where one is written.
    pub checking: Checking,
    /// Seeds the drawing of ids: in production drawn at random, in the simulator chosen.
    pub seed: u64,
}

/// Settings of access control. The default is to have none.
#[derive(Clone, PartialEq, Eq)]
pub struct Acl {
    /// The datacenter that decides about tokens, in lower case; empty: tokens are not in use.
    pub datacenter: String,
    /// What holds where a token's rules say nothing; said by the servers of the deciding datacenter. Default: everything.
    pub default_policy: DefaultPolicy,
    /// What holds while the deciding datacenter can't be asked. Default: what was last known, or else nothing.
    pub down_policy: DownPolicy,
    /// How long what the deciding datacenter said about a token is believed elsewhere. Default: 30 s.
    pub ttl: Duration,
    /// A management token to make sure of on gaining leadership; empty for none.
    pub master_token: String,
    /// Whether rules about nodes, sessions and agents hold. Default: no.
    pub enforce_version_8: bool,
}

impl Default for Acl {
    fn default() -> Self {
        Self {
            datacenter: String::new(),
            default_policy: DefaultPolicy::default(),
            down_policy: DownPolicy::default(),
            ttl: Duration::from_secs(30),
            master_token: String::new(),
            enforce_version_8: false,
        }
    }
}

impl std::fmt::Debug for Acl {
    /// Without the master token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acl")
            .field("datacenter", &self.datacenter)
            .field("default_policy", &self.default_policy)
            .field("down_policy", &self.down_policy)
            .field("ttl", &self.ttl)
            .field("enforce_version_8", &self.enforce_version_8)
            .finish_non_exhaustive()
    }
}

impl Acl {
    /// Whether tokens are in use.
    pub fn is_enabled(&self) -> bool {
        !self.datacenter.is_empty()
    }
}

/// Where work on whole snapshots is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checking {
    /// On a thread of its own, as the bytes come in.
    #[default]
    OnAThread,
    /// Right there, with all of it in memory: for the simulator, where nothing may depend on threads.
    InPlace,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("datacenter", &self.datacenter)
            .field("node_name", &self.node_name)
            .field("advertise_address", &self.advertise_address)
            .field("server_port", &self.server_port)
            .field("acl", &self.acl)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// How long the original holds requests.
    pub const HOLD_MAX: Duration = Duration::from_secs(7);

    /// Whether this server's datacenter is the one that decides about tokens.
    pub fn decides_about_tokens(&self) -> bool {
        self.acl.is_enabled() && self.acl.datacenter == self.datacenter
    }

    /// This server's place in the log's membership, `ip:port`.
    pub fn raft_address(&self) -> String {
        std::net::SocketAddr::new(self.advertise_address, self.server_port).to_string()
    }
}
