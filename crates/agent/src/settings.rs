//! The configuration in effect, as far as it is nobody's secret.

use std::collections::BTreeMap;
use std::time::Duration;

/// What this agent was told to be.
///
/// There is no place in here for tokens, keys and passwords: it is shown to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Facts about this node that others can filter by. Default: none.
    pub node_meta: BTreeMap<String, String>,
    /// The DNS zone, with its final dot. Default: `consul.`.
    pub domain: String,
    /// Whether this is a development agent that keeps everything in memory. Default: no.
    pub dev: bool,
    /// Where everything durable lies; empty in development mode, which is the default.
    pub data_dir: String,
    /// The address that servers and gossip listen on. Default: `0.0.0.0`.
    pub bind_addr: String,
    /// The address that faces for clients listen on. Default: `127.0.0.1`.
    pub client_addr: String,
    /// The port numbers.
    pub ports: Ports,
    /// The protocol version that is announced, 2 or 3. Default: 2.
    pub protocol: u8,
    /// What is logged. Default: `INFO`.
    pub log_level: String,
    /// Where the process id is written; empty (the default) for nowhere.
    pub pid_file: String,
    /// Whether SIGTERM leaves the cluster. Default: no.
    pub leave_on_terminate: bool,
    /// Whether SIGINT just stops. Default: no.
    pub skip_leave_on_interrupt: bool,
    /// The datacenter that decides about tokens; empty (the default) for none.
    pub acl_datacenter: String,
    /// What a client token may where its rules say nothing. Default: `allow`.
    pub acl_default_policy: String,
    /// What counts while the servers that decide are out of reach. Default: `extend-cache`.
    pub acl_down_policy: String,
    /// How long a decision about a token is kept. Default: 30 s.
    pub acl_ttl: Duration,
    /// Whether rules about nodes, sessions and agents hold. Default: no.
    pub acl_enforce_version_8: bool,
    /// The shortest time to live that a session may ask for. Default: 10 s.
    pub session_ttl_min: Duration,
    /// How long a check's output may wait before it is written to the catalog. Default: 5 minutes.
    pub check_update_interval: Duration,
    /// Whether network coordinates are switched off. Default: no.
    pub disable_coordinates: bool,
    /// Raft's timings are multiplied by this. Default: 5.
    pub raft_multiplier: u32,
    /// Headers that go with every answer of the HTTP interface. Default: none.
    pub http_api_response_headers: Vec<(String, String)>,
}

/// The port numbers; 0 for what is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// DNS. Default: 8600.
    pub dns: u16,
    /// HTTP. Default: 8500.
    pub http: u16,
    /// HTTPS. Default: off.
    pub https: u16,
    /// Gossip in the datacenter. Default: 8301.
    pub serf_lan: u16,
    /// Gossip between datacenters. Default: 8302.
    pub serf_wan: u16,
    /// Calls between members. Default: 8300.
    pub server: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            dns: 8600,
            http: 8500,
            https: 0,
            serf_lan: 8301,
            serf_wan: 8302,
            server: 8300,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_meta: BTreeMap::new(),
            domain: "consul.".to_owned(),
            dev: false,
            data_dir: String::new(),
            bind_addr: "0.0.0.0".to_owned(),
            client_addr: "127.0.0.1".to_owned(),
            ports: Ports::default(),
            protocol: 2,
            log_level: "INFO".to_owned(),
            pid_file: String::new(),
            leave_on_terminate: false,
            skip_leave_on_interrupt: false,
            acl_datacenter: String::new(),
            acl_default_policy: "allow".to_owned(),
            acl_down_policy: "extend-cache".to_owned(),
            acl_ttl: Duration::from_secs(30),
            acl_enforce_version_8: false,
            session_ttl_min: Duration::from_secs(10),
            check_update_interval: Duration::from_secs(5 * 60),
            disable_coordinates: false,
            raft_multiplier: 5,
            http_api_response_headers: Vec::new(),
        }
    }
}
