//! The configuration decoded, completed and judged: what the rest of the program starts from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use agent::Definitions;
use agent::discover;
use agent::join::{JoinAddress, Retry};
use model::{DefaultPolicy, DownPolicy, GoDuration};
use rpc::tls;
use serde_json::Value;

use super::document::Document;
use super::host::{self, Host};
use super::keys::{self, Effect};
use super::watches::{self, WatchDefinition};
use super::{definitions, merge};
use crate::logging::Facility;
use crate::metrics::{self, Telemetry};

/// Everything the agent is told to be, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this node, never empty. Default: the host's name.
    pub node_name: String,
    /// The id of this node for its whole life, in lower case, in the form of a UUID; `None` to keep or make one.
    pub node_id: Option<String>,
    /// Facts about this node that others can filter by: at most 64, with names of 1 to 128 letters, digits, `_` and `-`,
    /// and values of at most 512 bytes.
    pub node_meta: BTreeMap<String, String>,
    /// The datacenter, in lower case, of letters, digits, `_` and `-`. Default: `dc1`.
    pub datacenter: String,
    /// The DNS zone, in lower case, with its final dot. Default: `consul.`.
    pub domain: String,
    /// Whether this is a development agent: one server in memory that writes nothing to disk.
    pub dev: bool,
    /// Where everything durable lies; `None` exactly in development mode.
    pub data_dir: Option<PathBuf>,
    /// Whether this agent is a server. Always so in development mode.
    pub server: bool,
    /// Whether this server may elect itself when the data directory is empty. Servers only.
    pub bootstrap: bool,
    /// How many servers to wait for before the first election, at least 2; `None` when not asked for.
    pub bootstrap_expect: Option<u32>,
    /// The protocol version that is announced: 2 or 3. Default: 2.
    pub protocol: u8,
    /// Raft's timings are multiplied by this, from 1 to 10. Default: 5; 1 in development mode.
    pub raft_multiplier: u32,

    /// The address that servers listen on, and gossip unless it has one of its own. Default: any IPv4 address.
    pub bind_addr: IpAddr,
    /// The address that other agents are told. Default: `bind_addr`, or the machine's only private one.
    pub advertise_addr: IpAddr,
    /// The address that agents of other datacenters are told. Default: `advertise_addr`.
    pub advertise_addr_wan: IpAddr,
    /// Where other members are told to call this server. Default: `advertise_addr` and `ports.server`.
    pub rpc_advertise: SocketAddr,
    /// Gossip in the datacenter.
    pub lan: Pool,
    /// Gossip between datacenters, which doesn't exist yet.
    pub wan: Pool,
    /// The search for agents to join among a cloud's machines, made with each attempt of `lan.retry_join`.
    pub discovery: Option<discover::Config>,
    /// Whether a restarted agent joins its cluster again although it had left. Default: no.
    pub rejoin_after_leave: bool,
    /// The key of gossip where there is no keyring yet; `None` for gossip in the clear.
    pub encrypt: Option<EncryptKey>,
    /// Encryption of calls between members and of HTTPS. Whether its parts go together is judged where they are read.
    pub tls: tls::Config,
    /// The address that faces for clients listen on. Default: 127.0.0.1.
    pub client_addr: ClientAddr,
    /// Where HTTP is served; empty when it is switched off.
    pub http: Vec<Listener>,
    /// Where HTTPS is served; empty when it is switched off, which is the default.
    pub https: Vec<Listener>,
    /// Where DNS is served, over UDP and TCP; `None` when it is switched off.
    pub dns_at: Option<SocketAddr>,
    /// How names are answered; its seed is whoever's who starts it.
    pub dns: dns::Config,
    /// The port numbers.
    pub ports: Ports,
    /// Owner and mode of unix sockets.
    pub unix_sockets: UnixSockets,
    /// Headers that go with every answer of `/v1`.
    pub http_api_response_headers: BTreeMap<String, String>,

    /// The services and checks of this node that its files define.
    pub definitions: Definitions,
    /// About how long a check's output may wait before it is written to the catalog; zero for not at all. Default: 5 minutes.
    pub check_update_interval: Duration,
    /// Whether checks that arrive over HTTP may run scripts, whoever can reach it. Default: only if nobody from elsewhere can.
    pub enable_script_checks: bool,
    /// Whether this node runs what `consul exec` asks for. Default: no.
    pub remote_exec: bool,
    /// Whether HTTP checks may ask link-local addresses, where clouds keep their secrets. Default: no.
    pub enable_link_local_checks: bool,

    /// What is told of changes of what.
    pub watches: Vec<WatchDefinition>,

    /// What is logged. Default: INFO; DEBUG in development mode.
    pub log_level: LogLevel,
    /// Under which facility what is logged is sent to syslog as well; `None` if it is not. Default: not.
    pub syslog: Option<Facility>,
    /// Whom figures are told.
    pub telemetry: Telemetry,
    /// Where to write the process id once running.
    pub pid_file: Option<PathBuf>,
    /// Whether SIGTERM leaves the cluster instead of just stopping. Default: only clients do.
    pub leave_on_terminate: bool,
    /// Whether SIGINT just stops instead of leaving the cluster. Default: only servers do.
    pub skip_leave_on_interrupt: bool,

    /// Access control.
    pub acl: Acl,
    /// The shortest time to live a session may ask for. Default: 10 s.
    pub session_ttl_min: Duration,
    /// Whether network coordinates are switched off.
    pub disable_coordinates: bool,

    /// Lines to print before anything else, each after `WARNING: `.
    pub warnings: Vec<String>,
    /// Keys that were given and do nothing in this version.
    pub no_effect: Vec<String>,
    /// Keys that were given and belong to other releases or discontinued services.
    pub ignored: Vec<String>,
}

/// How this agent takes part in one pool of gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Where it listens. Default: `bind_addr` and the pool's port.
    pub bind: SocketAddr,
    /// Where others are told to reach it. Default: the advertised address and the pool's port.
    pub advertise: SocketAddr,
    /// Agents to join once, before anything else; if none of them answers, the agent ends.
    pub start_join: Vec<JoinAddress>,
    /// Agents to join in the background, as often as `retry` says.
    pub retry_join: Vec<JoinAddress>,
    /// How often `retry_join` is tried. Default: every 30 s without end.
    pub retry: Retry,
    /// How long a failed member is remembered and tried, at least 8 h. Default: 72 h.
    pub reconnect_timeout: Duration,
}

/// A key of gossip: 16, 24 or 32 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptKey(String);

impl EncryptKey {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = base64_simd::STANDARD
            .decode_to_vec(text)
            .map_err(|_| "Invalid encryption key: it is not base64".to_owned())?;
        if matches!(bytes.len(), 16 | 24 | 32) {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "Failed to configure keyring: Invalid key: key size must be 16, 24 or 32 bytes"
                    .to_owned(),
            )
        }
    }

    /// The key, in base64.
    pub fn as_base64(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EncryptKey {
    /// The key is a secret, so only its presence is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// Access control. Every token may be empty, which is to have none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Acl {
    /// What a server goes by; on any agent, what this one was told about it.
    pub server: server::Acl,
    /// What requests without a token are made with, names are looked up with, and services and checks without a token are registered with.
    pub token: String,
    /// What this agent does for itself is done with: `acl_agent_token`, or else the token above.
    pub agent_token: String,
    /// The token that opens this agent to its operator while no server can be asked.
    pub agent_master_token: String,
}

impl Acl {
    /// Whether nobody may do anything on this agent whose token doesn't say so, as far as this agent was told.
    pub fn denies_by_default(&self) -> bool {
        let told = &self.server;
        told.is_enabled() && told.enforce_version_8 && told.default_policy == DefaultPolicy::Deny
    }
}

impl fmt::Debug for Acl {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acl")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// The port numbers that are told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Calls between members. Default: 8300.
    pub server: u16,
    /// Gossip in the datacenter. Default: 8301.
    pub serf_lan: u16,
    /// Gossip between datacenters. Default: 8302.
    pub serf_wan: u16,
    /// HTTP; `None` when it is switched off. Default: 8500.
    pub http: Option<u16>,
    /// HTTPS; `None` when it is switched off, which is the default.
    pub https: Option<u16>,
    /// DNS; `None` when it is switched off. Default: 8600.
    pub dns: Option<u16>,
}

/// Where a face for clients is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// On a TCP port.
    Tcp(SocketAddr),
    /// On a unix socket; a file that is in the way is replaced.
    Unix(PathBuf),
}

/// `client_addr`: what the faces for clients listen on unless they have an address of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAddr {
    /// An address.
    Ip(IpAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl ClientAddr {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://") {
            Some("") => Err("a unix socket needs a path, as in unix:///run/consul.sock".to_owned()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => parse_ip(text)
                .map(Self::Ip)
                .ok_or_else(|| format!("Failed to parse IP: {text}")),
        }
    }

    fn at(self, port: u16) -> Listener {
        match self {
            Self::Ip(ip) => Listener::Tcp(SocketAddr::new(ip, port)),
            Self::Unix(path) => Listener::Unix(path),
        }
    }
}

/// Owner and mode of unix sockets; what isn't given stays as the system makes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnixSockets {
    /// The owner's id.
    pub user: Option<u32>,
    /// The group's id.
    pub group: Option<u32>,
    /// The permission bits.
    pub mode: Option<u32>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator would tell a colleague.
    Info,
    /// What should not have happened.
    Warn,
    /// What a person must look at.
    Err,
}

impl LogLevel {
    /// The level of that name, in any case.
    ///
    /// # Errors
    /// The text for the user when there is no such level.
    pub fn parse(name: &str) -> Result<Self, String> {
        Ok(match name.to_ascii_uppercase().as_str() {
            "TRACE" => Self::Trace,
            "DEBUG" => Self::Debug,
            "INFO" => Self::Info,
            "WARN" => Self::Warn,
            "ERR" => Self::Err,
            other => {
                return Err(format!(
                    "Invalid log level: {other}. Valid log levels are: [TRACE DEBUG INFO WARN ERR]"
                ));
            }
        })
    }
}

/// Decodes merged configuration, fills in defaults and judges the whole.
///
/// # Errors
/// The first problem, as a text for the user.
pub fn validate(document: &Document, dev: bool, host: &Host) -> Result<Settings, String> {
    let document = resolved(document, host)?;
    let given = Given(&document);
    let mut warnings = Vec::new();

    let node_name = match given.text("node_name") {
        Some(name) => name.trim().to_owned(),
        None => host.name.trim().to_owned(),
    };
    if node_name.is_empty() {
        return Err("Node name can not be empty".to_owned());
    }

    let server = dev || given.on("server");
    let data_dir = data_dir(given, dev, server)?;
    let datacenter = datacenter_name(given.text("datacenter").unwrap_or("dc1"), "Datacenter")?;
    let (bootstrap, bootstrap_expect) = bootstrap(given, dev, server, &mut warnings)?;

    let ports = ports(given)?;
    let (bind_addr, advertise_addr, advertise_addr_wan) = addresses(given, dev, host)?;
    let client_addr = ClientAddr::parse(given.text("client_addr").unwrap_or("127.0.0.1"))
        .map_err(|why| format!("Invalid client address: {why}"))?;
    let face = |path, name, port: Option<u16>| -> Result<Vec<Listener>, String> {
        let address = match given.text(path) {
            Some(text) => ClientAddr::parse(text)
                .map_err(|why| format!("Invalid {name} bind address: {why}"))?,
            None => client_addr.clone(),
        };
        Ok(port.map(|port| address.at(port)).into_iter().collect())
    };
    let http = face("addresses.http", "HTTP", ports.http)?;
    let https = face("addresses.https", "HTTPS", ports.https)?;
    endpoints_unique(given, ports)?;
    // Two different texts may mean one place.
    if http.iter().any(|listener| https.contains(listener)) {
        return Err(
            "All listening endpoints must be unique: HTTPS address already configured for HTTP"
                .to_owned(),
        );
    }

    let log_level = match given.text("log_level") {
        Some(name) => LogLevel::parse(name)?,
        None if dev => LogLevel::Debug,
        None => LogLevel::Info,
    };
    let acl = acl(given, server, &mut warnings)?;
    let domain = domain(given.text("domain").unwrap_or("consul."))?;
    let tls = tls::Config {
        ca_file: given.text("ca_file").map(PathBuf::from),
        cert_file: given.text("cert_file").map(PathBuf::from),
        key_file: given.text("key_file").map(PathBuf::from),
        verify_incoming: given.on("verify_incoming"),
        verify_outgoing: given.on("verify_outgoing"),
        verify_server_hostname: given.on("verify_server_hostname"),
        server_name: given.text("server_name").map(str::to_owned),
        datacenter: datacenter.clone(),
        domain: domain.clone(),
        min_version: match given.text("tls_min_version") {
            Some(version) => version
                .parse()
                .map_err(|why: tls::UnknownVersion| why.to_string())?,
            None => tls::MinVersion::default(),
        },
        server,
        https: !https.is_empty(),
    };
    let dns_at = match (given.text("addresses.dns"), ports.dns) {
        (_, None) => None,
        (Some(text), Some(port)) => {
            let address = ClientAddr::parse(text)
                .map_err(|why| format!("Invalid DNS bind address: {why}"))?;
            Some(dns_address(address, port)?)
        }
        (None, Some(port)) => Some(dns_address(client_addr.clone(), port)?),
    };
    let dns = dns::Config {
        domain: domain.clone(),
        datacenter: datacenter.as_str().into(),
        node: node_name.as_str().into(),
        token: acl.token.as_str().into(),
        ..dns_config(given, &mut warnings)?
    };
    let pool = |keys: &PoolKeys, advertise, port| pool(given, keys, bind_addr, advertise, port);
    let session_ttl_min = given
        .span("session_ttl_min")
        .unwrap_or(Duration::from_secs(10));
    let check_update_interval = given
        .span("check_update_interval")
        .unwrap_or(Duration::from_secs(5 * 60));
    let watches = watches::watches(given.list("watches"))?;
    if !watches.is_empty() && http.is_empty() && https.is_empty() {
        return Err("watches ask this agent over HTTP, which is switched off".to_owned());
    }

    Ok(Settings {
        node_name,
        node_id: node_id(given)?,
        node_meta: node_meta(given)?,
        datacenter,
        domain,
        dev,
        data_dir,
        server,
        bootstrap,
        bootstrap_expect,
        protocol: protocol(given)?,
        raft_multiplier: raft_multiplier(given, dev)?,
        bind_addr,
        advertise_addr,
        advertise_addr_wan,
        rpc_advertise: match given.text("advertise_addrs.rpc") {
            Some(text) => host_port("advertise_addrs.rpc", text)?,
            None => SocketAddr::new(advertise_addr, ports.server),
        },
        lan: pool(&LAN, advertise_addr, ports.serf_lan)?,
        wan: pool(&WAN, advertise_addr_wan, ports.serf_wan)?,
        discovery: discovery(given)?,
        rejoin_after_leave: given.on("rejoin_after_leave"),
        encrypt: given.text("encrypt").map(EncryptKey::parse).transpose()?,
        tls,
        client_addr,
        http,
        https,
        dns_at,
        dns,
        ports,
        unix_sockets: unix_sockets(given)?,
        http_api_response_headers: given.headers()?,
        definitions: Definitions {
            services: definitions::services(given.list("services"))?,
            checks: definitions::checks(given.list("checks"))?,
        },
        watches,
        check_update_interval,
        enable_script_checks: given.on("enable_script_checks"),
        // The original does it unless told otherwise, and machines were taken over by that.
        remote_exec: !given.decided("disable_remote_exec").unwrap_or(true),
        enable_link_local_checks: given.on("enable_link_local_checks"),
        log_level,
        syslog: syslog(given)?,
        telemetry: telemetry(given, host)?,
        pid_file: given.text("pid_file").map(PathBuf::from),
        leave_on_terminate: given.decided("leave_on_terminate").unwrap_or(!server),
        skip_leave_on_interrupt: given.decided("skip_leave_on_interrupt").unwrap_or(server),
        acl,
        session_ttl_min,
        disable_coordinates: given.on("disable_coordinates"),
        warnings,
        no_effect: given.asked_in_vain(),
        ignored: given.keys_with(Effect::Ignored),
    })
}

/// The same document, with what its address templates stand for on this machine.
fn resolved(document: &Document, host: &Host) -> Result<Document, String> {
    const ADDRESSES: &[&str] = &[
        "addresses.dns",
        "addresses.http",
        "addresses.https",
        "advertise_addr",
        "advertise_addr_wan",
        "bind_addr",
        "client_addr",
        "serf_lan_bind",
        "serf_wan_bind",
    ];
    let mut resolved = document.clone();
    for path in ADDRESSES {
        if let Some(text) = Given(document).text(path) {
            resolved.insert(path, Value::from(host.resolve(text)?));
        }
    }
    Ok(resolved)
}

/// The merged document, read by key. Empty and zero mean "not given", as everywhere in the original.
#[derive(Clone, Copy)]
struct Given<'a>(&'a Document);

impl<'a> Given<'a> {
    fn text(self, path: &str) -> Option<&'a str> {
        self.0
            .get(path)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    fn int(self, path: &str) -> Option<i64> {
        self.0
            .get(path)
            .and_then(Value::as_i64)
            .filter(|number| *number != 0)
    }

    fn on(self, path: &str) -> bool {
        self.decided(path).unwrap_or(false)
    }

    fn decided(self, path: &str) -> Option<bool> {
        self.0.get(path).and_then(Value::as_bool)
    }

    fn span(self, path: &str) -> Option<Duration> {
        self.text(path)
            .and_then(|text| GoDuration::parse(text).ok())
            .map(GoDuration::to_std)
    }

    fn list(self, path: &str) -> &'a [Value] {
        self.0
            .get(path)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    fn map(self, path: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let members = self.0.get(path).and_then(Value::as_object);
        members
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")))
    }

    /// What was asked for and is not there yet.
    fn asked_in_vain(self) -> Vec<String> {
        self.keys_with(Effect::Later)
    }

    fn keys_with(self, effect: Effect) -> Vec<String> {
        self.0
            .entries()
            .filter(|(path, value)| !merge::is_silent(path, value))
            .filter(|(path, _)| keys::find(path).is_some_and(|key| key.effect == effect))
            .map(|(path, _)| path.to_owned())
            .collect()
    }

    /// Header names and values must be ones that HTTP can carry, or every answer would fail.
    fn headers(self) -> Result<BTreeMap<String, String>, String> {
        self.map("http_api_response_headers")
            .map(|(name, value)| {
                let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                if name.is_empty() || !name.bytes().all(token) {
                    return Err(format!(
                        "http_api_response_headers: {name:?} is no header name"
                    ));
                }
                if !value
                    .bytes()
                    .all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f))
                {
                    return Err(format!(
                        "http_api_response_headers: the value of {name} is no header value"
                    ));
                }
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

fn data_dir(given: Given<'_>, dev: bool, server: bool) -> Result<Option<PathBuf>, String> {
    if dev {
        return Ok(None);
    }
    let Some(path) = given.text("data_dir").map(PathBuf::from) else {
        return Err("Must specify data directory using -data-dir".to_owned());
    };
    if path.exists() && !path.is_dir() {
        return Err(format!(
            "The data-dir specified at {path:?} is not a directory"
        ));
    }
    if server && path.join("mdb").exists() {
        return Err(format!(
            "{:?} holds data of a release before 0.6; restore a snapshot into an empty data directory instead",
            path.join("mdb")
        ));
    }
    Ok(Some(path))
}

fn datacenter_name(name: &str, what: &str) -> Result<String, String> {
    if name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        Ok(name.to_ascii_lowercase())
    } else {
        // The original's spelling; people search for it.
        Err(format!(
            "{what} must be alpha-numeric with underscores and hypens only"
        ))
    }
}

fn bootstrap(
    given: Given<'_>,
    dev: bool,
    server: bool,
    warnings: &mut Vec<String>,
) -> Result<(bool, Option<u32>), String> {
    let mut bootstrap = given.on("bootstrap");
    let expect = match given.int("bootstrap_expect") {
        None => None,
        Some(count) => Some(
            u32::try_from(count).map_err(|_| "bootstrap_expect must not be negative".to_owned())?,
        ),
    };
    // Development mode makes a server of us, but not one that was asked for.
    let asked_for_server = given.on("server");
    if bootstrap && !asked_for_server && !dev {
        return Err("Bootstrap mode cannot be enabled when server mode is not enabled".to_owned());
    }
    if expect.is_some() && dev {
        return Err("Expect mode cannot be enabled when dev mode is enabled".to_owned());
    }
    if expect.is_some() && !server {
        return Err("Expect mode cannot be enabled when server mode is not enabled".to_owned());
    }
    if expect.is_some() && bootstrap {
        return Err("Bootstrap cannot be provided with an expected server count".to_owned());
    }
    let expect = match expect {
        Some(1) => {
            warnings.push(
                "BootstrapExpect Mode is specified as 1; this is the same as Bootstrap mode."
                    .to_owned(),
            );
            bootstrap = true;
            None
        }
        Some(count) => {
            warnings.push(format!("Expect Mode enabled, expecting {count} servers"));
            Some(count)
        }
        None => None,
    };
    if bootstrap {
        warnings.push("Bootstrap mode enabled! Do not enable unless necessary".to_owned());
    }
    Ok((bootstrap, expect))
}

fn protocol(given: Given<'_>) -> Result<u8, String> {
    match given.int("protocol") {
        // The flag's default of -1 means "not given".
        None | Some(-1 | 2) => Ok(2),
        Some(3) => Ok(3),
        Some(version) if version < 2 => Err(format!(
            "Protocol version '{version}' too low. Must be in range: [2, 3]"
        )),
        Some(version) => Err(format!(
            "Protocol version '{version}' too high. Must be in range: [2, 3]"
        )),
    }
}

fn raft_multiplier(given: Given<'_>, dev: bool) -> Result<u32, String> {
    match given.int("performance.raft_multiplier") {
        None if dev => Ok(1),
        None => Ok(5),
        Some(factor) => match u32::try_from(factor) {
            Ok(factor @ 1..=10) => Ok(factor),
            Ok(_) => Err("Performance.RaftMultiplier must be <= 10".to_owned()),
            Err(_) => Err("Performance.RaftMultiplier must not be negative".to_owned()),
        },
    }
}

fn ports(given: Given<'_>) -> Result<Ports, String> {
    let port = |path: &str, default: i64| {
        let number = given.int(path).unwrap_or(default);
        if number > i64::from(u16::MAX) {
            return Err(format!("{}: {number} is no port number", keys::shown(path)));
        }
        // Zero and below switch off what can be switched off.
        Ok(u16::try_from(number).ok().filter(|port| *port != 0))
    };
    let needed = |path: &str, default: i64| {
        port(path, default)?.ok_or_else(|| format!("{} can't be switched off", keys::shown(path)))
    };
    Ok(Ports {
        server: needed("ports.server", 8300)?,
        serf_lan: needed("ports.serf_lan", 8301)?,
        serf_wan: needed("ports.serf_wan", 8302)?,
        http: port("ports.http", 8500)?,
        https: port("ports.https", -1)?,
        dns: port("ports.dns", 8600)?,
    })
}

fn addresses(given: Given<'_>, dev: bool, host: &Host) -> Result<(IpAddr, IpAddr, IpAddr), String> {
    let bind = match given.text("bind_addr") {
        Some(text) => {
            parse_ip(text).ok_or_else(|| format!("Failed to parse bind address: {text}"))?
        }
        None if dev => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let advertise = match given.text("advertise_addr") {
        Some(text) => {
            parse_ip(text).ok_or_else(|| format!("Failed to parse advertise address: {text}"))?
        }
        None if !bind.is_unspecified() => bind,
        None if bind.is_ipv4() => host
            .private_ipv4()
            .map_err(|why| format!("Failed to get advertise address: {why}"))?,
        None => host
            .public_ipv6()
            .map_err(|why| format!("Failed to get advertise address: {why}"))?,
    };
    if advertise.is_unspecified() {
        return Err(format!(
            "Failed to parse advertise address: {advertise} is nobody's address"
        ));
    }
    let wan = match given.text("advertise_addr_wan") {
        Some(text) => parse_ip(text)
            .ok_or_else(|| format!("Failed to parse advertise address for wan: {text}"))?,
        None => advertise,
    };
    Ok((bind, advertise, wan))
}

/// Reads an address, also an IPv6 one in brackets, as `[::]` is usually written.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().ok()
}

/// Refuses two listeners at one place. As in the original it is the configured texts that are compared.
fn endpoints_unique(given: Given<'_>, ports: Ports) -> Result<(), String> {
    let address = |path| given.text(path).unwrap_or("0.0.0.0");
    let client = |path| given.text(path).unwrap_or("0.0.0.0");
    let endpoints = [
        ("DNS", client("addresses.dns"), ports.dns),
        ("HTTP", client("addresses.http"), ports.http),
        ("HTTPS", client("addresses.https"), ports.https),
        ("RPC Server", address("advertise_addr"), Some(ports.server)),
        ("Serf LAN", address("advertise_addr"), Some(ports.serf_lan)),
        (
            "Serf WAN",
            address("advertise_addr_wan"),
            Some(ports.serf_wan),
        ),
    ];
    for (position, (name, address, port)) in endpoints.iter().enumerate() {
        // A unix socket is the same place whatever the port.
        let is_socket = address.starts_with("unix://");
        let clash = endpoints[..position].iter().find(|(_, other, other_port)| {
            port.is_some()
                && other_port.is_some()
                && other == address
                && (is_socket || other_port == port)
        });
        if let Some((other, _, _)) = clash {
            return Err(format!(
                "All listening endpoints must be unique: {name} address already configured for {other}"
            ));
        }
    }
    Ok(())
}

fn syslog(given: Given<'_>) -> Result<Option<Facility>, String> {
    let facility = match given.text("syslog_facility") {
        Some(name) => Facility::parse(name)?,
        None => Facility::LOCAL0,
    };
    Ok(given.on("enable_syslog").then_some(facility))
}

fn telemetry(given: Given<'_>, host: &Host) -> Result<Telemetry, String> {
    let address = |path| {
        let text = given.text(path);
        text.map(|text| metrics::Address::parse(text).map_err(|why| format!("{path}: {why}")))
            .transpose()
    };
    let tags = given.list("telemetry.dogstatsd_tags").iter();
    Ok(Telemetry {
        prefix: given
            .text("telemetry.statsite_prefix")
            .unwrap_or("consul")
            .to_owned(),
        single_prefix: given.on("telemetry.single_prefix"),
        hostname: (!given.on("telemetry.disable_hostname")).then(|| host.name.clone()),
        statsite: address("telemetry.statsite_address")?,
        statsd: address("telemetry.statsd_address")?,
        dogstatsd: address("telemetry.dogstatsd_addr")?,
        dogstatsd_tags: tags.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn unix_sockets(given: Given<'_>) -> Result<UnixSockets, String> {
    let user = match given.text("unix_sockets.user") {
        Some(user) => {
            Some(host::user_id(user).ok_or_else(|| format!("invalid user specified: {user}"))?)
        }
        None => None,
    };
    let group = match given.text("unix_sockets.group") {
        Some(group) => Some(
            group
                .parse()
                .map_err(|_| format!("invalid group specified: {group}"))?,
        ),
        None => None,
    };
    let mode = match given.text("unix_sockets.mode") {
        Some(mode) => Some(
            u32::from_str_radix(mode, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
                .ok_or_else(|| format!("invalid mode specified: {mode}"))?,
        ),
        None => None,
    };
    Ok(UnixSockets { user, group, mode })
}

fn acl(given: Given<'_>, server: bool, warnings: &mut Vec<String>) -> Result<Acl, String> {
    let default_policy = match given.text("acl_default_policy") {
        None => DefaultPolicy::default(),
        Some(policy) => DefaultPolicy::parse(policy)
            .ok_or_else(|| format!("Unsupported default ACL policy: {policy}"))?,
    };
    let down_policy = match given.text("acl_down_policy") {
        None => DownPolicy::default(),
        Some(policy) => DownPolicy::parse(policy)
            .ok_or_else(|| format!("Unsupported down ACL policy: {policy}"))?,
    };
    let token = |path| given.text(path).unwrap_or_default().to_owned();
    let agent_token = match given.text("acl_agent_token") {
        Some(token) => token.to_owned(),
        None => token("acl_token"),
    };
    let defaults = server::Acl::default();
    let told = server::Acl {
        datacenter: match given.text("acl_datacenter") {
            Some(datacenter) => datacenter_name(datacenter, "ACL datacenter")?,
            None => defaults.datacenter,
        },
        default_policy,
        down_policy,
        ttl: given.span("acl_ttl").unwrap_or(defaults.ttl),
        master_token: token("acl_master_token"),
        enforce_version_8: given.on("acl_enforce_version_8"),
    };
    // On a server these do nothing then. What others are told by their servers needs no `acl_datacenter` there.
    if server && !told.is_enabled() {
        let in_vain = [
            ("acl_master_token", !told.master_token.is_empty()),
            (
                "acl_default_policy = \"deny\"",
                told.default_policy == DefaultPolicy::Deny,
            ),
            ("acl_enforce_version_8", told.enforce_version_8),
        ];
        for (key, _) in in_vain.iter().filter(|(_, is_given)| *is_given) {
            warnings.push(format!(
                "{key} does nothing without acl_datacenter; access control is off"
            ));
        }
    }
    Ok(Acl {
        server: told,
        token: token("acl_token"),
        agent_token,
        agent_master_token: token("acl_agent_master_token"),
    })
}

/// How the keys of one pool are spelled.
struct PoolKeys {
    bind: &'static str,
    advertise: &'static str,
    start_join: &'static str,
    retry_join: &'static str,
    retry_interval: &'static str,
    retry_max: &'static str,
    reconnect_timeout: &'static str,
    /// What messages call the last of them.
    reconnect_timeout_shown: &'static str,
}

const LAN: PoolKeys = PoolKeys {
    bind: "serf_lan_bind",
    advertise: "advertise_addrs.serf_lan",
    start_join: "start_join",
    retry_join: "retry_join",
    retry_interval: "retry_interval",
    retry_max: "retry_max",
    reconnect_timeout: "reconnect_timeout",
    reconnect_timeout_shown: "ReconnectTimeoutLan",
};

const WAN: PoolKeys = PoolKeys {
    bind: "serf_wan_bind",
    advertise: "advertise_addrs.serf_wan",
    start_join: "start_join_wan",
    retry_join: "retry_join_wan",
    retry_interval: "retry_interval_wan",
    retry_max: "retry_max_wan",
    reconnect_timeout: "reconnect_timeout_wan",
    reconnect_timeout_shown: "ReconnectTimeoutWan",
};

fn pool(
    given: Given<'_>,
    keys: &PoolKeys,
    bind: IpAddr,
    advertise: IpAddr,
    port: u16,
) -> Result<Pool, String> {
    const HOUR: Duration = Duration::from_secs(3600);
    let bind = match given.text(keys.bind) {
        Some(text) => {
            parse_ip(text).ok_or_else(|| format!("Failed to parse {}: {text}", keys.bind))?
        }
        None => bind,
    };
    let advertise = match given.text(keys.advertise) {
        Some(text) => host_port(keys.advertise, text)?,
        None => SocketAddr::new(advertise, port),
    };
    let addresses = |path| -> Result<Vec<JoinAddress>, String> {
        let texts = given.list(path).iter().filter_map(Value::as_str);
        texts
            .map(|text| JoinAddress::parse(text, port).map_err(|why| format!("{path}: {why}")))
            .collect()
    };
    let span = |path| given.span(path).filter(|span| !span.is_zero());
    let reconnect_timeout = span(keys.reconnect_timeout).unwrap_or(72 * HOUR);
    if reconnect_timeout < 8 * HOUR {
        return Err(format!(
            "{} must be >= 8h0m0s",
            keys.reconnect_timeout_shown
        ));
    }
    let retries_max = match given.int(keys.retry_max) {
        None => None,
        Some(count) => Some(
            u32::try_from(count)
                .map_err(|_| format!("{}: {count} is no number of retries", keys.retry_max))?,
        ),
    };
    Ok(Pool {
        bind: SocketAddr::new(bind, port),
        advertise,
        start_join: addresses(keys.start_join)?,
        retry_join: addresses(keys.retry_join)?,
        retry: Retry {
            interval: span(keys.retry_interval).unwrap_or(Retry::default().interval),
            retries_max,
        },
        reconnect_timeout,
    })
}

fn host_port(path: &str, text: &str) -> Result<SocketAddr, String> {
    let parsed = text.parse::<SocketAddr>().ok();
    parsed
        .filter(|address| address.port() != 0 && !address.ip().is_unspecified())
        .ok_or_else(|| format!("{path}: {text} is no host:port"))
}

/// The search among a cloud's machines, if one was asked for.
fn discovery(given: Given<'_>) -> Result<Option<discover::Config>, String> {
    let mut chosen = None;
    for provider in discover::PROVIDERS {
        let group = format!("retry_join_{}.", provider.name);
        let options = provider
            .options
            .iter()
            .filter_map(|option| Some((*option, given.text(&format!("{group}{option}"))?)))
            .collect();
        let Some(config) = (provider.read)(&options)? else {
            continue;
        };
        if chosen.is_some() {
            return Err(
                "EC2 and GCE discovery are mutually exclusive. Please provide one or the other."
                    .to_owned(),
            );
        }
        chosen = Some(config);
    }
    Ok(chosen)
}

/// Where DNS is served: names are asked for over the network only.
fn dns_address(address: ClientAddr, port: u16) -> Result<SocketAddr, String> {
    match address {
        ClientAddr::Ip(ip) => Ok(SocketAddr::new(ip, port)),
        ClientAddr::Unix(path) => Err(format!(
            "Invalid DNS bind address: DNS can't be served on the unix socket {}; give addresses.dns an address, or switch \
             DNS off with a negative ports.dns",
            path.display()
        )),
    }
}

/// How names are answered, as far as the keys of DNS say.
fn dns_config(given: Given<'_>, warnings: &mut Vec<String>) -> Result<dns::Config, String> {
    let default = dns::Config::default();
    // Zero counts as not given where it would make no sense.
    let span = |path, default| {
        let span = given.span(path).filter(|span| !span.is_zero());
        span.unwrap_or(default)
    };
    let recursors = given.list("recursors").iter().filter_map(Value::as_str);
    let udp_answer_limit = match given
        .int("dns_config.udp_answer_limit")
        .map(usize::try_from)
    {
        None => default.udp_answer_limit,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            warnings.push(format!(
                "dns_config.udp_answer_limit must be greater than zero; {} is used",
                default.udp_answer_limit
            ));
            default.udp_answer_limit
        }
    };
    let ttl = |text| GoDuration::parse(text).map_or(Duration::ZERO, GoDuration::to_std);
    let mut service_ttl = BTreeMap::new();
    for (name, text) in given.map("dns_config.service_ttl") {
        let lower = name.to_lowercase();
        // Questions have no case; of several spellings the one that the original would look for counts.
        if lower == name {
            service_ttl.insert(lower, ttl(text));
        } else {
            service_ttl.entry(lower).or_insert_with(|| ttl(text));
        }
    }
    Ok(dns::Config {
        recursors: recursors.map(recursor).collect::<Result<_, _>>()?,
        recursor_timeout: span("dns_config.recursor_timeout", default.recursor_timeout),
        allow_stale: given
            .decided("dns_config.allow_stale")
            .unwrap_or(default.allow_stale),
        max_stale: span("dns_config.max_stale", default.max_stale),
        node_ttl: span("dns_config.node_ttl", default.node_ttl),
        service_ttl,
        enable_truncate: given.on("dns_config.enable_truncate"),
        udp_answer_limit,
        only_passing: given.on("dns_config.only_passing"),
        disable_compression: given.on("dns_config.disable_compression"),
        translate_wan_addrs: given.on("translate_wan_addrs"),
        ..default
    })
}

/// A name server; its port is that of DNS unless it says another.
/// A zone in lower case and with its final dot. The original takes any text, and then answers no name.
fn domain(text: &str) -> Result<String, String> {
    const LABEL_MAX: usize = 63;
    const NAME_MAX: usize = 253;
    let labels = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| !label.is_empty() && label.len() <= LABEL_MAX;
    if labels.len() > NAME_MAX || !labels.split('.').all(fits) {
        return Err(format!("Invalid domain: {text}"));
    }
    Ok(format!("{}.", labels.to_lowercase()))
}

fn recursor(text: &str) -> Result<SocketAddr, String> {
    const PORT: u16 = 53;
    let alone = parse_ip(text).map(|ip| SocketAddr::new(ip, PORT));
    alone
        .or_else(|| text.parse().ok())
        .filter(|address| address.port() != 0 && !address.ip().is_unspecified())
        .ok_or_else(|| format!("Invalid recursor address: {text}"))
}

fn node_id(given: Given<'_>) -> Result<Option<String>, String> {
    let Some(id) = given.text("node_id") else {
        return Ok(None);
    };
    let hyphens = [8, 13, 18, 23];
    let fits = id.len() == 36
        && id.bytes().enumerate().all(|(at, b)| {
            if hyphens.contains(&at) {
                b == b'-'
            } else {
                b.is_ascii_hexdigit()
            }
        });
    if fits {
        Ok(Some(id.to_ascii_lowercase()))
    } else {
        Err(format!("node_id: {id} is no UUID"))
    }
}

fn node_meta(given: Given<'_>) -> Result<BTreeMap<String, String>, String> {
    let failed = |why: String| Err(format!("Failed to parse node metadata: {why}"));
    if given.map("node_meta").count() > 64 {
        return failed("more than 64 pairs".to_owned());
    }
    let mut meta = BTreeMap::new();
    for (name, value) in given.map("node_meta") {
        let fits = (1..=128).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            return failed(format!(
                "{name:?} is no key of 1 to 128 letters, digits, _ and -"
            ));
        }
        if name.starts_with("consul-") {
            return failed(format!(
                "{name:?}: keys that start with consul- are reserved"
            ));
        }
        if value.len() > 512 {
            return failed(format!("the value of {name:?} is longer than 512 bytes"));
        }
        meta.insert(name.to_owned(), value.to_owned());
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::decode;

    fn host() -> Host {
        Host {
            name: "host".to_owned(),
            interfaces: vec![host::Interface {
                name: "eth0".to_owned(),
                address: "10.0.0.1".parse().unwrap(),
            }],
        }
    }

    fn judged(text: &str, dev: bool) -> Result<Settings, String> {
        validate(&decode(text.as_bytes()).unwrap(), dev, &host())
    }

    /// A server with a data directory, and what `text` adds to it.
    fn server(text: &str) -> Result<Settings, String> {
        let mut document =
            decode(br#"{"server": true, "data_dir": "/nonexistent/consul"}"#).unwrap();
        merge::merge(&mut document, decode(text.as_bytes()).unwrap());
        validate(&document, false, &host())
    }

    #[test]
    fn defaults() {
        let settings = server("{}").unwrap();
        assert_eq!(settings.node_name, "host");
        assert_eq!(settings.datacenter, "dc1");
        assert_eq!(settings.domain, "consul.");
        assert_eq!(
            settings.data_dir,
            Some(PathBuf::from("/nonexistent/consul"))
        );
        assert!(settings.server && !settings.bootstrap && settings.skip_leave_on_interrupt);
        assert!(!settings.leave_on_terminate);
        assert_eq!(settings.bind_addr.to_string(), "0.0.0.0");
        assert_eq!(settings.advertise_addr.to_string(), "10.0.0.1");
        assert_eq!(settings.advertise_addr_wan.to_string(), "10.0.0.1");
        assert_eq!(
            settings.http,
            [Listener::Tcp("127.0.0.1:8500".parse().unwrap())]
        );
        assert_eq!(settings.ports.dns, Some(8600));
        assert_eq!(settings.ports.https, None);
        assert_eq!((settings.raft_multiplier, settings.protocol), (5, 2));
        assert_eq!(settings.session_ttl_min, Duration::from_secs(10));
        assert_eq!(settings.acl, Acl::default());
        assert_eq!(settings.log_level, LogLevel::Info);
        assert_eq!(settings.warnings, [""; 0]);
        assert_eq!(settings.no_effect, [""; 0]);
    }

    #[test]
    fn development_mode() {
        let settings = judged("{}", true).unwrap();
        assert!(settings.dev && settings.server && !settings.bootstrap);
        assert_eq!(settings.data_dir, None);
        assert_eq!(settings.bind_addr.to_string(), "127.0.0.1");
        assert_eq!(settings.advertise_addr.to_string(), "127.0.0.1");
        assert_eq!(settings.log_level, LogLevel::Debug);
        let settings = judged(r#"{"log_level": "warn", "ports": {"http": 80}}"#, true).unwrap();
        assert_eq!(settings.log_level, LogLevel::Warn);
        assert_eq!(
            settings.http,
            [Listener::Tcp("127.0.0.1:80".parse().unwrap())]
        );
    }

    #[test]
    fn addresses_and_sockets() {
        let http = |text| server(text).unwrap().http;
        assert_eq!(
            http(r#"{"client_addr": "0.0.0.0"}"#),
            [Listener::Tcp("0.0.0.0:8500".parse().unwrap())]
        );
        assert_eq!(
            http(r#"{"client_addr": "::1"}"#),
            [Listener::Tcp("[::1]:8500".parse().unwrap())]
        );
        assert_eq!(
            http(r#"{"addresses": {"http": "unix:///run/c.sock"}}"#),
            [Listener::Unix(PathBuf::from("/run/c.sock"))]
        );
        assert_eq!(http(r#"{"ports": {"http": -1}}"#), []);
        let settings =
            server(r#"{"unix_sockets": {"user": "root", "group": "12", "mode": "0600"}}"#).unwrap();
        assert_eq!(
            settings.unix_sockets,
            UnixSockets {
                user: Some(0),
                group: Some(12),
                mode: Some(0o600)
            }
        );
        let settings = server(r#"{"client_addr": "{{ GetPrivateIP }}"}"#).unwrap();
        assert_eq!(
            settings.client_addr,
            ClientAddr::Ip("10.0.0.1".parse().unwrap())
        );
        let settings =
            server(r#"{"bind_addr": "10.9.9.9", "advertise_addr_wan": "8.8.8.8"}"#).unwrap();
        assert_eq!(settings.advertise_addr.to_string(), "10.9.9.9");
        assert_eq!(settings.advertise_addr_wan.to_string(), "8.8.8.8");
    }

    #[test]
    fn pools() {
        let settings = server("{}").unwrap();
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(settings.rpc_advertise, socket("10.0.0.1:8300"));
        assert_eq!(
            settings.lan,
            Pool {
                bind: socket("0.0.0.0:8301"),
                advertise: socket("10.0.0.1:8301"),
                start_join: Vec::new(),
                retry_join: Vec::new(),
                retry: Retry {
                    interval: Duration::from_secs(30),
                    retries_max: None
                },
                reconnect_timeout: Duration::from_secs(72 * 3600),
            }
        );
        let settings = server(
            r#"{"bind_addr": "10.0.0.2", "advertise_addr_wan": "8.8.8.8", "serf_lan_bind": "{{ GetPrivateIP }}",
                "ports": {"serf_lan": 9301, "serf_wan": 9302},
                "advertise_addrs": {"serf_lan": "1.1.1.1:1", "rpc": "[::1]:2"},
                "start_join": ["a", "10.1.1.1:5"], "retry_join": ["[::1]"], "retry_join_wan": ["b"],
                "retry_interval": "5s", "retry_max": 3, "reconnect_timeout": "8h"}"#,
        )
        .unwrap();
        assert_eq!(settings.rpc_advertise, socket("[::1]:2"));
        assert_eq!(settings.lan.bind, socket("10.0.0.1:9301"));
        assert_eq!(settings.lan.advertise, socket("1.1.1.1:1"));
        assert_eq!(settings.wan.bind, socket("10.0.0.2:9302"));
        assert_eq!(settings.wan.advertise, socket("8.8.8.8:9302"));
        let shown = |list: &[JoinAddress]| -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&settings.lan.start_join), ["a:9301", "10.1.1.1:5"]);
        assert_eq!(shown(&settings.lan.retry_join), ["[::1]:9301"]);
        assert_eq!(shown(&settings.wan.retry_join), ["b:9302"]);
        assert_eq!(settings.lan.retry.interval, Duration::from_secs(5));
        assert_eq!(settings.lan.retry.retries_max, Some(3));
        assert_eq!(
            settings.lan.reconnect_timeout,
            Duration::from_secs(8 * 3600)
        );
    }

    #[test]
    fn clients_leave_where_servers_stay() {
        let settings = judged(r#"{"data_dir": "/nonexistent/consul"}"#, false).unwrap();
        assert!(!settings.server && !settings.tls.server);
        assert!(settings.leave_on_terminate && !settings.skip_leave_on_interrupt);
        let settings = judged(
            r#"{"data_dir": "/nonexistent/consul", "leave_on_terminate": false, "skip_leave_on_interrupt": true}"#,
            false,
        )
        .unwrap();
        assert!(!settings.leave_on_terminate && settings.skip_leave_on_interrupt);
    }

    #[test]
    fn encryption() {
        let settings = server(
            r#"{"encrypt": "MDEyMzQ1Njc4OWFiY2RlZg==", "ca_file": "/ca", "cert_file": "/cert", "key_file": "/key",
                "verify_incoming": true, "verify_server_hostname": true, "server_name": "s", "domain": "Example",
                "tls_min_version": "tls13", "ports": {"https": 8501}, "addresses": {"https": "0.0.0.0"}}"#,
        )
        .unwrap();
        let key = settings.encrypt.as_ref().unwrap();
        assert_eq!(key.as_base64(), "MDEyMzQ1Njc4OWFiY2RlZg==");
        assert!(!format!("{settings:?}").contains("MDEy"));
        assert_eq!(
            settings.https,
            [Listener::Tcp("0.0.0.0:8501".parse().unwrap())]
        );
        assert_eq!(
            settings.tls,
            tls::Config {
                ca_file: Some(PathBuf::from("/ca")),
                cert_file: Some(PathBuf::from("/cert")),
                key_file: Some(PathBuf::from("/key")),
                verify_incoming: true,
                verify_outgoing: false,
                verify_server_hostname: true,
                server_name: Some("s".to_owned()),
                datacenter: "dc1".to_owned(),
                domain: "example.".to_owned(),
                min_version: tls::MinVersion::Tls13,
                server: true,
                https: true,
            }
        );
    }

    #[test]
    fn searches() {
        let settings = server(
            r#"{"retry_join_ec2": {"region": "eu-west-1", "tag_key": "role", "tag_value": "consul",
                "access_key_id": "AKID", "secret_access_key": "hidden-from-all"}}"#,
        )
        .unwrap();
        assert!(!format!("{settings:?}").contains("hidden-from-all"));
        let Some(discover::Config::Ec2(ec2)) = settings.discovery else {
            unreachable!()
        };
        assert_eq!(
            (ec2.region.as_str(), ec2.tag_key.as_str()),
            ("eu-west-1", "role")
        );
        let settings = server(r#"{"retry_join_gce": {"tag_value": "consul"}}"#).unwrap();
        assert!(matches!(settings.discovery, Some(discover::Config::Gce(_))));
        // Every option of every provider can be configured.
        for provider in discover::PROVIDERS {
            for option in provider.options {
                let path = format!("retry_join_{}.{option}", provider.name);
                assert!(keys::find(&path).is_some(), "{path}");
            }
        }
    }

    #[test]
    fn names() {
        let settings = server("{}").unwrap();
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(settings.dns_at, Some(socket("127.0.0.1:8600")));
        let default = dns::Config {
            node: "host".into(),
            ..dns::Config::default()
        };
        assert!(settings.dns == default);

        let settings = server(
            r#"{"client_addr": "10.0.0.1", "addresses": {"dns": "::1"}, "ports": {"dns": 53}, "domain": "Example",
                "datacenter": "dc2", "node_name": "n", "acl_token": "t", "translate_wan_addrs": true,
                "recursors": ["8.8.8.8", "[::1]:54"], "recursor": "::2",
                "dns_config": {"allow_stale": false, "max_stale": "5s", "node_ttl": "10s", "enable_truncate": true,
                    "service_ttl": {"*": "1s", "Web": "2s", "web": "3s", "Db": "4s", "zero": "0s"}, "udp_answer_limit": 7,
                    "only_passing": true, "disable_compression": true, "recursor_timeout": "300ms"}}"#,
        )
        .unwrap();
        assert_eq!(settings.dns_at, Some(socket("[::1]:53")));
        let second = Duration::from_secs(1);
        let ttls = [("*", 1), ("db", 4), ("web", 3), ("zero", 0)];
        let expected = dns::Config {
            domain: "example.".to_owned(),
            datacenter: "dc2".into(),
            node: "n".into(),
            token: "t".into(),
            recursors: vec![socket("8.8.8.8:53"), socket("[::1]:54"), socket("[::2]:53")],
            recursor_timeout: Duration::from_millis(300),
            allow_stale: false,
            max_stale: second * 5,
            node_ttl: second * 10,
            service_ttl: ttls
                .map(|(name, seconds)| (name.to_owned(), second * seconds))
                .into(),
            enable_truncate: true,
            udp_answer_limit: 7,
            only_passing: true,
            disable_compression: true,
            translate_wan_addrs: true,
            seed: 0,
        };
        assert!(settings.dns == expected, "{:?}", settings.dns);

        // Zero is as if it were not said, and less is told.
        let settings = server(
            r#"{"dns_config": {"max_stale": "0s", "recursor_timeout": "0s", "udp_answer_limit": -1}}"#,
        )
        .unwrap();
        assert!(settings.dns == default);
        assert_eq!(
            settings.warnings,
            ["dns_config.udp_answer_limit must be greater than zero; 3 is used"]
        );
        let off = server(r#"{"ports": {"dns": -1}, "client_addr": "unix:///c"}"#).unwrap();
        assert_eq!((off.dns_at, off.ports.dns), (None, None));
        let why = server(r#"{"client_addr": "unix:///c"}"#).unwrap_err();
        assert!(why.starts_with("Invalid DNS bind address: "), "{why}");
    }

    #[test]
    fn services_and_checks() {
        let settings = server("{}").unwrap();
        assert_eq!(settings.check_update_interval, Duration::from_secs(300));
        let settings = server(
            r#"{"service": {"name": "web"}, "checks": [{"name": "c", "ttl": "5s"}], "check_update_interval": "0s"}"#,
        )
        .unwrap();
        assert_eq!(settings.definitions.services[0].service.name, "web");
        assert_eq!(settings.definitions.checks[0].name, "c");
        assert_eq!(settings.check_update_interval, Duration::ZERO);
        assert_eq!(settings.no_effect, [""; 0]);
    }

    #[test]
    fn says_what_has_no_effect() {
        let settings = server(
            r#"{"start_join_wan": ["a"], "ports": {"rpc": 1}, "ui": false, "retry_max_wan": 0,
                "telemetry": {"circonus_api_token": "x"}, "atlas_token": "t", "snapshot_agent": {}, "disable_update_check": true,
                "acl_replication_token": "r"}"#,
        )
        .unwrap();
        assert_eq!(
            settings.no_effect,
            ["acl_replication_token", "start_join_wan"]
        );
        assert_eq!(
            settings.ignored,
            ["atlas_token", "ports.rpc", "telemetry.circonus_api_token"]
        );
    }

    #[test]
    fn remote_exec_is_off_unless_it_is_not_disabled() {
        for (text, expected) in [
            ("{}", false),
            (r#"{"disable_remote_exec": true}"#, false),
            (r#"{"disable_remote_exec": false}"#, true),
        ] {
            let settings = server(text).unwrap();
            assert_eq!(settings.remote_exec, expected, "{text}");
            assert_eq!(settings.no_effect, [""; 0]);
        }
    }

    #[test]
    fn whom_figures_and_the_log_are_told() {
        let settings = server(
            r#"{"statsd_addr": "a:1", "telemetry": {"statsite_address": "b:2", "dogstatsd_tags": ["x"]},
                "enable_syslog": true, "syslog_facility": "local3"}"#,
        )
        .unwrap();
        let address = |text| metrics::Address::parse(text).ok();
        let expected = Telemetry {
            statsd: address("a:1"),
            statsite: address("b:2"),
            dogstatsd_tags: vec!["x".to_owned()],
            ..server("{}").unwrap().telemetry
        };
        assert_eq!(settings.telemetry, expected);
        assert!(settings.telemetry.hostname.is_some());
        assert_eq!(settings.syslog, Facility::parse("LOCAL3").ok());
        assert_eq!(server("{}").unwrap().syslog, None);
        for (wrong, why) in [
            (
                r#"{"statsd_addr": "a"}"#,
                "telemetry.statsd_address: a is no host:port",
            ),
            (r#"{"syslog_facility": "x"}"#, "invalid syslog facility: x"),
        ] {
            assert_eq!(server(wrong).unwrap_err(), why);
        }
    }

    #[test]
    fn bootstrap_rules() {
        let settings = server(r#"{"bootstrap_expect": 1}"#).unwrap();
        assert!(settings.bootstrap && settings.bootstrap_expect.is_none());
        assert_eq!(settings.warnings.len(), 2);
        let settings = server(r#"{"bootstrap_expect": 3}"#).unwrap();
        assert_eq!(
            (settings.bootstrap, settings.bootstrap_expect),
            (false, Some(3))
        );
        assert_eq!(
            settings.warnings,
            ["Expect Mode enabled, expecting 3 servers"]
        );
        assert_eq!(
            judged(r#"{"bootstrap_expect": 1}"#, true).unwrap_err(),
            "Expect mode cannot be enabled when dev mode is enabled"
        );
        for (text, problem) in [
            (
                r#"{"bootstrap": true}"#,
                "Bootstrap mode cannot be enabled when server mode is not enabled",
            ),
            (
                r#"{"bootstrap_expect": 1}"#,
                "Expect mode cannot be enabled when server mode is not enabled",
            ),
        ] {
            let mut document = decode(text.as_bytes()).unwrap();
            merge::merge(&mut document, decode(br#"{"data_dir": "/x"}"#).unwrap());
            assert_eq!(validate(&document, false, &host()).unwrap_err(), problem);
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let cases = [
            (r#"{"node_name": "  "}"#, "Node name can not be empty"),
            (
                r#"{"datacenter": "a.b"}"#,
                "Datacenter must be alpha-numeric with underscores and hypens only",
            ),
            (
                r#"{"acl_datacenter": "a b"}"#,
                "ACL datacenter must be alpha-numeric with underscores and hypens only",
            ),
            (
                r#"{"bootstrap": true, "bootstrap_expect": 2}"#,
                "Bootstrap cannot be provided with an expected server count",
            ),
            (
                r#"{"log_level": "loud"}"#,
                "Invalid log level: LOUD. Valid log levels are: [TRACE DEBUG INFO WARN ERR]",
            ),
            (
                r#"{"protocol": 1}"#,
                "Protocol version '1' too low. Must be in range: [2, 3]",
            ),
            (
                r#"{"protocol": 4}"#,
                "Protocol version '4' too high. Must be in range: [2, 3]",
            ),
            (
                r#"{"performance": {"raft_multiplier": 11}}"#,
                "Performance.RaftMultiplier must be <= 10",
            ),
            (
                r#"{"advertise_addr": "foo"}"#,
                "Failed to parse advertise address: foo",
            ),
            (
                r#"{"client_addr": "foo"}"#,
                "Invalid client address: Failed to parse IP: foo",
            ),
            (
                r#"{"ports": {"http": 70000}}"#,
                "Ports.http: 70000 is no port number",
            ),
            (
                r#"{"ports": {"server": -1}}"#,
                "Ports.server can't be switched off",
            ),
            (
                r#"{"ports": {"http": 8600}}"#,
                "All listening endpoints must be unique: HTTP address already configured for DNS",
            ),
            (
                r#"{"unix_sockets": {"user": "no such user"}}"#,
                "invalid user specified: no such user",
            ),
            (
                r#"{"unix_sockets": {"group": "wheel"}}"#,
                "invalid group specified: wheel",
            ),
            (
                r#"{"unix_sockets": {"mode": "0888"}}"#,
                "invalid mode specified: 0888",
            ),
            (
                r#"{"acl_default_policy": "maybe"}"#,
                "Unsupported default ACL policy: maybe",
            ),
            (
                r#"{"acl_down_policy": "maybe"}"#,
                "Unsupported down ACL policy: maybe",
            ),
            (r#"{"domain": "a..b"}"#, "Invalid domain: a..b"),
            (r#"{"recursors": ["x"]}"#, "Invalid recursor address: x"),
            (
                r#"{"recursor": "10.0.0.1:0"}"#,
                "Invalid recursor address: 10.0.0.1:0",
            ),
            (
                r#"{"addresses": {"dns": "x"}}"#,
                "Invalid DNS bind address: Failed to parse IP: x",
            ),
            (
                r#"{"reconnect_timeout": "1h"}"#,
                "ReconnectTimeoutLan must be >= 8h0m0s",
            ),
            (
                r#"{"encrypt": "c2hvcnQ="}"#,
                "Failed to configure keyring: Invalid key: key size must be 16, 24 or 32 bytes",
            ),
            (
                r#"{"retry_join_ec2": {"tag_key": "a"}}"#,
                "tag key and value are both required for EC2 retry-join",
            ),
            (
                r#"{"retry_join_ec2": {"tag_key": "a", "tag_value": "b"}, "retry_join_gce": {"tag_value": "b"}}"#,
                "EC2 and GCE discovery are mutually exclusive. Please provide one or the other.",
            ),
            (
                r#"{"reconnect_timeout_wan": "7h59m"}"#,
                "ReconnectTimeoutWan must be >= 8h0m0s",
            ),
            (
                r#"{"encrypt": "no base64"}"#,
                "Invalid encryption key: it is not base64",
            ),
            (
                r#"{"start_join": ["10.0.0.1", "a b"]}"#,
                "start_join: \"a b\" is no address to join",
            ),
            (
                r#"{"retry_join_wan": [""]}"#,
                "retry_join_wan: \"\" is no address to join",
            ),
            (
                r#"{"retry_max": -1}"#,
                "retry_max: -1 is no number of retries",
            ),
            (
                r#"{"serf_lan_bind": "lan"}"#,
                "Failed to parse serf_lan_bind: lan",
            ),
            (
                r#"{"advertise_addrs": {"rpc": "10.0.0.1"}}"#,
                "advertise_addrs.rpc: 10.0.0.1 is no host:port",
            ),
            (
                r#"{"advertise_addrs": {"serf_lan": "0.0.0.0:1"}}"#,
                "advertise_addrs.serf_lan: 0.0.0.0:1 is no host:port",
            ),
            (
                r#"{"addresses": {"https": "x"}, "ports": {"https": 1}}"#,
                "Invalid HTTPS bind address: Failed to parse IP: x",
            ),
            (
                r#"{"ports": {"https": 8500}}"#,
                "All listening endpoints must be unique: HTTPS address already configured for HTTP",
            ),
            (
                r#"{"addresses": {"https": "127.0.0.1"}, "ports": {"https": 8500}}"#,
                "All listening endpoints must be unique: HTTPS address already configured for HTTP",
            ),
            (
                r#"{"client_addr": "unix:///c", "ports": {"https": 8501, "dns": -1}}"#,
                "All listening endpoints must be unique: HTTPS address already configured for HTTP",
            ),
            (
                r#"{"ports": {"serf_lan": 8300}}"#,
                "All listening endpoints must be unique: Serf LAN address already configured for RPC Server",
            ),
            (
                r#"{"tls_min_version": "ssl3"}"#,
                "unknown tls_min_version \"ssl3\"; tls12 and tls13 are known, tls10 and tls11 are taken as tls12",
            ),
            (r#"{"node_id": "1234"}"#, "node_id: 1234 is no UUID"),
            (
                r#"{"http_api_response_headers": {"A B": "x"}}"#,
                "http_api_response_headers: \"A B\" is no header name",
            ),
            (
                r#"{"http_api_response_headers": {"A": "x\ny"}}"#,
                "http_api_response_headers: the value of A is no header value",
            ),
            (
                r#"{"node_meta": {"consul-x": ""}}"#,
                "Failed to parse node metadata: \"consul-x\": keys that start with consul- are reserved",
            ),
            (
                r#"{"service": {"id": "x"}}"#,
                "Failed to register service 'x': Service name missing",
            ),
        ];
        for (text, problem) in cases {
            assert_eq!(server(text).unwrap_err(), problem, "{text}");
        }
        assert_eq!(
            judged("{}", false).unwrap_err(),
            "Must specify data directory using -data-dir"
        );
        let mut nowhere = host();
        nowhere.interfaces.clear();
        let document = decode(br#"{"data_dir": "/x"}"#).unwrap();
        assert_eq!(
            validate(&document, false, &nowhere).unwrap_err(),
            "Failed to get advertise address: No private IP address found"
        );
    }

    #[test]
    fn access_control() {
        let settings = server(
            r#"{"acl_datacenter": "DC1", "acl_master_token": "root", "acl_token": "secret-t", "acl_default_policy": "deny",
                "acl_down_policy": "allow", "acl_ttl": "5s", "acl_agent_master_token": "secret-m", "acl_enforce_version_8": true}"#,
        )
        .unwrap();
        let expected = Acl {
            server: server::Acl {
                datacenter: "dc1".to_owned(),
                default_policy: DefaultPolicy::Deny,
                down_policy: DownPolicy::Allow,
                ttl: Duration::from_secs(5),
                master_token: "root".to_owned(),
                enforce_version_8: true,
            },
            token: "secret-t".to_owned(),
            agent_token: "secret-t".to_owned(),
            agent_master_token: "secret-m".to_owned(),
        };
        assert!(settings.acl == expected, "{:?}", settings.acl);
        assert!(settings.acl.denies_by_default());
        assert!(settings.warnings.is_empty());
        let shown = format!("{:?}", settings.acl);
        assert!(
            !shown.contains("secret") && !shown.contains("root"),
            "{shown}"
        );

        let own = r#"{"acl_token": "t", "acl_agent_token": "a"}"#;
        let settings = server(own).unwrap();
        assert_eq!(
            (settings.acl.token, settings.acl.agent_token),
            ("t".into(), "a".into())
        );

        // What a server is told without the datacenter that decides does nothing, and is said.
        let open = r#"{"acl_master_token": "root", "acl_default_policy": "deny", "acl_enforce_version_8": true}"#;
        let settings = server(open).unwrap();
        assert!(!settings.acl.denies_by_default());
        assert_eq!(settings.warnings.len(), 3, "{:?}", settings.warnings);
        // Other agents ask their servers.
        assert!(
            judged(
                r#"{"data_dir": "/x", "acl_enforce_version_8": true}"#,
                false
            )
            .unwrap()
            .warnings
            .is_empty()
        );
    }

    /// Whatever becomes of a file's bytes, it ends in settings or in a message.
    #[test]
    fn damaged_files_are_refused_or_read() {
        let whole = br#"{"server":true,"data_dir":"/x","ports":{"http":81,"dns":-1},"acl_ttl":"1h2m","encrypt":"MDEyMzQ1Njc4OWFiY2RlZg==",
            "unix_sockets":{"mode":"0600"},"bind_addr":"{{ GetPrivateIP }}","service":{"name":"a","check":{"ttl":"5s"}},
            "watches":[{"type":"key","key":"k","handler":"x"}],"node_meta":{"a":"b"},"recursor":"1.1.1.1","start_join":["\u0061"],"retry_join_ec2":{"tag_key":"\u00e4","tag_value":"b"}}"#;
        let judged = |bytes: &[u8]| {
            if let Ok(document) = decode(bytes) {
                let _ = validate(&document, false, &host()).map_err(|why| why.len());
            }
        };
        validate(&decode(whole).unwrap(), false, &host()).unwrap();
        for at in 0..whole.len() {
            judged(&whole[..at]);
            for replacement in [
                b'0',
                b'"',
                b'{',
                b'}',
                b',',
                b'-',
                b'e',
                0xff,
                whole[at] ^ 1,
                whole[at] ^ 0x20,
            ] {
                let mut damaged = whole.to_vec();
                damaged[at] = replacement;
                judged(&damaged);
            }
        }
    }
}
