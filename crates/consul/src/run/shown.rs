//! What a running agent tells of itself: identity, settings, figures, banner.

use std::path::Path;
use std::thread;

use agent::{Identity, Local, Role, Section, Sections, Start, Stats};
use gossip::Gossip;
use rpc::Distant;
use rpc::tls::Tls;
use server::Server;

use super::node::{self, Node};
use super::say;
use crate::config::{ClientAddr, Settings};
use crate::release;

/// What this node says of itself.
pub(super) fn describe(settings: &Settings) -> (Identity, agent::Settings) {
    let start = match settings.bootstrap_expect {
        _ if settings.bootstrap => Start::Bootstrap,
        Some(expected) => Start::Expect(expected),
        None => Start::Join,
    };
    let identity = Identity {
        node: settings.node_name.clone(),
        datacenter: settings.datacenter.clone(),
        id: settings.node_id.clone().unwrap_or_default(),
        address: settings.lan.advertise.ip(),
        address_wan: settings.advertise_addr_wan,
        role: if settings.server {
            Role::Server(start)
        } else {
            Role::Client
        },
        version: release::COMPATIBLE_VERSION.to_owned(),
        prerelease: String::new(),
        revision: String::new(),
        build: release::BUILD.to_owned(),
    };
    let shown = agent::Settings {
        node_meta: settings.node_meta.clone(),
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
            server: settings.rpc_advertise.port(),
        },
        protocol: settings.protocol,
        log_level: format!("{:?}", settings.log_level).to_uppercase(),
        pid_file: shown_path(settings.pid_file.as_deref()),
        leave_on_terminate: settings.leave_on_terminate,
        skip_leave_on_interrupt: settings.skip_leave_on_interrupt,
        acl_datacenter: settings.acl.server.datacenter.clone(),
        acl_default_policy: settings.acl.server.default_policy.as_str().to_owned(),
        acl_down_policy: settings.acl.server.down_policy.as_str().to_owned(),
        acl_ttl: settings.acl.server.ttl,
        acl_enforce_version_8: settings.acl.server.enforce_version_8,
        session_ttl_min: settings.session_ttl_min,
        check_update_interval: settings.check_update_interval,
        disable_coordinates: settings.disable_coordinates,
        raft_multiplier: settings.raft_multiplier,
        http_api_response_headers: settings
            .http_api_response_headers
            .clone()
            .into_iter()
            .collect(),
    };
    (identity, shown)
}

/// How `/v1` looks on this agent.
pub(super) fn face(settings: &Settings) -> api::Config {
    api::Config {
        acl_datacenter: settings.acl.server.datacenter.as_str().into(),
        acl_token: settings.acl.token.as_str().into(),
        response_headers: response_headers(settings),
        disable_coordinates: settings.disable_coordinates,
        translate_wan_addrs: settings.dns.translate_wan_addrs,
        seed: rand::random(),
        ..api::Config::default()
    }
}

/// What goes with every answer of `/v1`.
pub(super) fn response_headers(settings: &Settings) -> Vec<(String, String)> {
    let mut headers: Vec<_> = settings
        .http_api_response_headers
        .clone()
        .into_iter()
        .collect();
    if settings.dns.translate_wan_addrs {
        let translates = "X-Consul-Translate-Addresses";
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(translates));
        headers.push((translates.to_owned(), "true".to_owned()));
    }
    headers
}

/// The lines that say what is running, in the original's form.
pub(super) fn banner(settings: &Settings, node: &Node, tls: &Tls) {
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
            format!("{} (bootstrap: {})", settings.server, settings.bootstrap),
        ),
        (
            "Client Addr",
            format!(
                "{} (HTTP: {}, HTTPS: {}, DNS: {}, RPC: -1)",
                client_addr(settings),
                port(ports.http),
                port(ports.https),
                port(ports.dns),
            ),
        ),
        (
            "Cluster Addr",
            format!(
                "{} (LAN: {}, WAN: {})",
                settings.advertise_addr, ports.serf_lan, ports.serf_wan
            ),
        ),
        (
            "Gossip encrypt",
            format!(
                "{}, RPC-TLS: {}, TLS-Incoming: {}",
                node.is_encrypted,
                tls.outgoing().is_some(),
                tls.config().verify_incoming
            ),
        ),
        ("Atlas", "<disabled>".to_owned()),
    ];
    for (label, value) in lines {
        say(&format!("{label:>18}: {value}"));
    }
    say("\n==> Log data will now stream in as it occurs:\n");
}

/// Says once what was asked for in vain, and what is missing.
pub(super) fn complain(settings: &Settings, node: &Node) {
    let knows_nobody = settings.lan.start_join.is_empty()
        && settings.lan.retry_join.is_empty()
        && settings.discovery.is_none();
    let makes_none = !settings.bootstrap && !settings.dev && settings.bootstrap_expect.is_none();
    if let node::Role::Server(server) = &node.role
        && knows_nobody
        && makes_none
        && server.status().log.voters.is_empty()
    {
        tracing::warn!(
            "no cluster yet, and nothing says how this server gets one: it is told neither to bootstrap nor whom to join; \
             it waits until somebody joins it"
        );
    }
    if !settings.no_effect.is_empty() {
        tracing::warn!(
            "these settings have no effect in this version: {}",
            settings.no_effect.join(", ")
        );
    }
    if !settings.ignored.is_empty() {
        tracing::info!(
            "these settings belong to other programs or releases and are ignored: {}",
            settings.ignored.join(", ")
        );
    }
}

/// The figures that `consul info` shows, under the original's names.
pub(super) fn stats(node: &Node, settings: &Settings, local: &Local) -> impl Stats + use<> {
    let (gossip, local) = (node.gossip.clone(), local.clone());
    // Of the runtime that everything but HTTP runs on; whoever asks may be on another one.
    let tasks = tokio::runtime::Handle::current().metrics();
    let bootstrap = settings.bootstrap;
    let role = match &node.role {
        node::Role::Server(server) => node::Role::Server(server.clone()),
        node::Role::Client(servers) => node::Role::Client(servers.clone()),
    };
    move || {
        let mut sections = vec![
            ("agent", of_agent(&local)),
            ("runtime", of_runtime(tasks.num_alive_tasks())),
            ("serf_lan", of_gossip(&gossip)),
        ];
        match &role {
            node::Role::Server(server) => sections.extend(of_server(server, bootstrap)),
            node::Role::Client(servers) => sections.push(("consul", of_client(servers))),
        }
        let named = sections
            .into_iter()
            .map(|(name, section)| (name.to_owned(), section));
        Sections::from_iter(named)
    }
}

fn section(pairs: &[(&str, String)]) -> Section {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn of_agent(local: &Local) -> Section {
    let figures = local.figures();
    section(&[
        ("check_monitors", figures.check_monitors.to_string()),
        ("check_ttls", figures.check_ttls.to_string()),
        ("checks", figures.checks.to_string()),
        ("services", figures.services.to_string()),
    ])
}

/// What counts as goroutines in the original are tasks here.
fn of_runtime(tasks: usize) -> Section {
    let cores = thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    section(&[
        ("arch", std::env::consts::ARCH.to_owned()),
        ("cpu_count", cores.clone()),
        ("goroutines", tasks.to_string()),
        ("max_procs", cores),
        ("os", std::env::consts::OS.to_owned()),
        ("version", format!("rust {}", release::COMPILER)),
    ])
}

fn of_gossip(gossip: &Gossip) -> Section {
    let stats = gossip.stats();
    section(&[
        ("encrypted", stats.encrypted.to_string()),
        ("event_queue", stats.event_queue.to_string()),
        ("event_time", stats.event_time.to_string()),
        ("failed", stats.failed.to_string()),
        ("health_score", stats.health_score.to_string()),
        ("intent_queue", stats.intent_queue.to_string()),
        ("left", stats.left.to_string()),
        ("member_time", stats.member_time.to_string()),
        ("members", stats.members.to_string()),
        ("query_queue", stats.query_queue.to_string()),
        ("query_time", stats.query_time.to_string()),
    ])
}

fn of_client(servers: &Distant) -> Section {
    section(&[
        ("known_servers", servers.servers().all().len().to_string()),
        ("server", "false".to_owned()),
    ])
}

fn of_server(server: &Server, bootstrap: bool) -> [(&'static str, Section); 2] {
    let status = server.status();
    let log = &status.log;
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
    let last_contact = match log.last_contact {
        _ if status.is_leader => "0".to_owned(),
        Some(ago) => model::GoDuration::from(ago).to_string(),
        None => "never".to_owned(),
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
    [("consul", consul), ("raft", raft)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, decode, settings::validate};

    #[test]
    fn who_translates_addresses_says_so() {
        let headers = |text: &str| {
            let host = Host {
                name: "host".to_owned(),
                ..Host::default()
            };
            let settings = validate(&decode(text.as_bytes()).unwrap(), true, &host).unwrap();
            response_headers(&settings)
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let own =
            r#"{"http_api_response_headers": {"A": "b", "x-consul-translate-addresses": "no"}}"#;
        let given = pair("x-consul-translate-addresses", "no");
        assert_eq!(headers(own), [pair("A", "b"), given]);
        let both = own.replacen('{', r#"{"translate_wan_addrs": true, "#, 1);
        let translates = pair("X-Consul-Translate-Addresses", "true");
        assert_eq!(headers(&both), [pair("A", "b"), translates]);
    }
}
