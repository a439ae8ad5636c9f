//! What a changed configuration means to an agent that runs: what it can take on, and what waits for a restart.

use super::Settings;

/// The difference between the configuration in effect and a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// What can be taken on at once, in this order.
    pub live: Vec<Live>,
    /// The keys whose new values wait for a restart; each deserves a line in the log.
    pub restart: Vec<&'static str>,
}

/// A part of the configuration that can change while the agent runs.
///
/// The TLS files are read anew at every reload, since their content changes more often than their names;
/// here they appear when their names have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// `log_level`.
    LogLevel,
    /// `node_meta`.
    NodeMeta,
    /// `services` and `checks`.
    Definitions,
    /// `watches`.
    Watches,
    /// `ca_file`, `cert_file`, `key_file`.
    TlsFiles,
    /// `leave_on_terminate`.
    LeaveOnTerminate,
    /// `skip_leave_on_interrupt`.
    SkipLeaveOnInterrupt,
    /// `http_api_response_headers`.
    ResponseHeaders,
}

/// Compares two validated configurations.
pub fn differences(old: &Settings, new: &Settings) -> Reload {
    let live = [
        (Live::LogLevel, old.log_level != new.log_level),
        (Live::NodeMeta, old.node_meta != new.node_meta),
        (Live::Definitions, old.definitions != new.definitions),
        (Live::Watches, old.watches != new.watches),
        (Live::TlsFiles, tls_files(old) != tls_files(new)),
        (
            Live::LeaveOnTerminate,
            old.leave_on_terminate != new.leave_on_terminate,
        ),
        (
            Live::SkipLeaveOnInterrupt,
            old.skip_leave_on_interrupt != new.skip_leave_on_interrupt,
        ),
        (
            Live::ResponseHeaders,
            old.http_api_response_headers != new.http_api_response_headers,
        ),
    ];
    let changed = |changes: &[(&'static str, bool)]| -> Vec<&'static str> {
        let changed = changes.iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| *key).collect()
    };

    let (o, n) = (&old.ports, &new.ports);
    let acl = (&old.acl, &new.acl);
    let told = (&old.acl.server, &new.acl.server);
    let mut restart = changed(&[
        ("server", old.server != new.server),
        ("bootstrap", old.bootstrap != new.bootstrap),
        (
            "bootstrap_expect",
            old.bootstrap_expect != new.bootstrap_expect,
        ),
        ("datacenter", old.datacenter != new.datacenter),
        ("data_dir", old.data_dir != new.data_dir),
        ("node_name", old.node_name != new.node_name),
        ("node_id", old.node_id != new.node_id),
        ("domain", old.domain != new.domain),
        ("protocol", old.protocol != new.protocol),
        ("pid_file", old.pid_file != new.pid_file),
        ("enable_syslog or syslog_facility", old.syslog != new.syslog),
        ("telemetry", old.telemetry != new.telemetry),
        (
            "performance.raft_multiplier",
            old.raft_multiplier != new.raft_multiplier,
        ),
        ("bind_addr", old.bind_addr != new.bind_addr),
        ("client_addr", old.client_addr != new.client_addr),
        ("unix_sockets", old.unix_sockets != new.unix_sockets),
        ("ports.dns", o.dns != n.dns),
        ("ports.http", o.http != n.http),
        ("ports.https", o.https != n.https),
        ("ports.serf_lan", o.serf_lan != n.serf_lan),
        ("ports.serf_wan", o.serf_wan != n.serf_wan),
        ("ports.server", o.server != n.server),
        (
            "session_ttl_min",
            old.session_ttl_min != new.session_ttl_min,
        ),
        (
            "disable_coordinates",
            old.disable_coordinates != new.disable_coordinates,
        ),
        ("acl_datacenter", told.0.datacenter != told.1.datacenter),
        (
            "acl_default_policy",
            told.0.default_policy != told.1.default_policy,
        ),
        ("acl_down_policy", told.0.down_policy != told.1.down_policy),
        ("acl_ttl", told.0.ttl != told.1.ttl),
        (
            "acl_enforce_version_8",
            told.0.enforce_version_8 != told.1.enforce_version_8,
        ),
        ("acl_token", acl.0.token != acl.1.token),
        (
            "acl_agent_master_token",
            acl.0.agent_master_token != acl.1.agent_master_token,
        ),
        (
            "acl_master_token",
            told.0.master_token != told.1.master_token,
        ),
        ("start_join", old.lan.start_join != new.lan.start_join),
        ("retry_join", old.lan.retry_join != new.lan.retry_join),
        (
            "retry_interval",
            old.lan.retry.interval != new.lan.retry.interval,
        ),
        (
            "retry_max",
            old.lan.retry.retries_max != new.lan.retry.retries_max,
        ),
        (
            "retry_join_ec2 or retry_join_gce",
            old.discovery != new.discovery,
        ),
        (
            "rejoin_after_leave",
            old.rejoin_after_leave != new.rejoin_after_leave,
        ),
        (
            "reconnect_timeout",
            old.lan.reconnect_timeout != new.lan.reconnect_timeout,
        ),
        ("encrypt", old.encrypt != new.encrypt),
        ("recursors", old.dns.recursors != new.dns.recursors),
        ("dns_config", dns(old) != dns(new)),
        (
            "translate_wan_addrs",
            old.dns.translate_wan_addrs != new.dns.translate_wan_addrs,
        ),
        (
            "check_update_interval",
            old.check_update_interval != new.check_update_interval,
        ),
        (
            "enable_script_checks",
            old.enable_script_checks != new.enable_script_checks,
        ),
        ("disable_remote_exec", old.remote_exec != new.remote_exec),
        (
            "enable_link_local_checks",
            old.enable_link_local_checks != new.enable_link_local_checks,
        ),
        ("server_name", old.tls.server_name != new.tls.server_name),
        (
            "verify_incoming",
            old.tls.verify_incoming != new.tls.verify_incoming,
        ),
        (
            "verify_outgoing",
            old.tls.verify_outgoing != new.tls.verify_outgoing,
        ),
        (
            "verify_server_hostname",
            old.tls.verify_server_hostname != new.tls.verify_server_hostname,
        ),
        (
            "tls_min_version",
            old.tls.min_version != new.tls.min_version,
        ),
    ]);

    // These follow from others unless they were given, and are named only where the others don't explain it.
    if !restart.contains(&"bind_addr") {
        restart.extend(changed(&[(
            "advertise_addr",
            old.advertise_addr != new.advertise_addr,
        )]));
    }
    let same = |keys: &[&str]| !keys.iter().any(|key| restart.contains(key));
    let derived = changed(&[
        (
            "acl_agent_token",
            acl.0.agent_token != acl.1.agent_token && same(&["acl_token"]),
        ),
        (
            "addresses.dns",
            old.dns_at != new.dns_at && same(&["client_addr", "ports.dns"]),
        ),
        (
            "addresses.http",
            old.http != new.http && same(&["client_addr", "ports.http"]),
        ),
        (
            "addresses.https",
            old.https != new.https && same(&["client_addr", "ports.https"]),
        ),
        (
            "serf_lan_bind",
            old.lan.bind != new.lan.bind && same(&["bind_addr", "ports.serf_lan"]),
        ),
        (
            "advertise_addrs.serf_lan",
            old.lan.advertise != new.lan.advertise
                && same(&["bind_addr", "advertise_addr", "ports.serf_lan"]),
        ),
        (
            "advertise_addrs.rpc",
            old.rpc_advertise != new.rpc_advertise
                && same(&["bind_addr", "advertise_addr", "ports.server"]),
        ),
        (
            "advertise_addr_wan",
            old.advertise_addr_wan != new.advertise_addr_wan
                && same(&["bind_addr", "advertise_addr"]),
        ),
    ]);
    restart.extend(derived);
    Reload {
        live: live
            .into_iter()
            .filter_map(|(part, changed)| changed.then_some(part))
            .collect(),
        restart,
    }
}

fn tls_files(settings: &Settings) -> [&Option<std::path::PathBuf>; 3] {
    let tls = &settings.tls;
    [&tls.ca_file, &tls.cert_file, &tls.key_file]
}

/// What the keys of `dns_config` say; the other settings of DNS are compared under their own names.
fn dns(settings: &Settings) -> dns::Config {
    let dns::Config {
        recursor_timeout,
        allow_stale,
        max_stale,
        node_ttl,
        ref service_ttl,
        enable_truncate,
        udp_answer_limit,
        only_passing,
        disable_compression,
        ..
    } = settings.dns;
    dns::Config {
        recursor_timeout,
        allow_stale,
        max_stale,
        node_ttl,
        service_ttl: service_ttl.clone(),
        enable_truncate,
        udp_answer_limit,
        only_passing,
        disable_compression,
        ..dns::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::{Host, Interface};
    use super::super::settings::validate;
    use super::super::{decode, merge};
    use super::*;

    fn settings(text: &str) -> Settings {
        let host = Host {
            name: "host".to_owned(),
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                address: "10.0.0.1".parse().unwrap(),
            }],
        };
        let mut document = decode(br#"{"server": true, "data_dir": "/nonexistent/c"}"#).unwrap();
        merge::merge(&mut document, decode(text.as_bytes()).unwrap());
        validate(&document, false, &host).unwrap()
    }

    #[test]
    fn nothing_changed() {
        let same = differences(&settings("{}"), &settings(r#"{"datacenter": "DC1"}"#));
        assert_eq!(same, Reload::default());
    }

    #[test]
    fn what_is_live_and_what_waits() {
        let new = settings(
            r#"{"log_level": "warn", "node_meta": {"a": "b"}, "key_file": "/k", "leave_on_terminate": true,
                "skip_leave_on_interrupt": false, "http_api_response_headers": {"A": "b"},
                "datacenter": "dc2", "ports": {"serf_lan": 9301, "http": -1}, "advertise_addrs": {"rpc": "1.1.1.1:1"}}"#,
        );
        let reload = differences(&settings("{}"), &new);
        assert_eq!(
            reload.live,
            [
                Live::LogLevel,
                Live::NodeMeta,
                Live::TlsFiles,
                Live::LeaveOnTerminate,
                Live::SkipLeaveOnInterrupt,
                Live::ResponseHeaders
            ]
        );
        // The socket addresses that follow from the port are not named beside it.
        assert_eq!(
            reload.restart,
            [
                "datacenter",
                "ports.http",
                "ports.serf_lan",
                "advertise_addrs.rpc"
            ]
        );
        assert_eq!(differences(&new, &new), Reload::default());
        // Nor the addresses that follow from another address.
        let moved = differences(&settings("{}"), &settings(r#"{"bind_addr": "10.0.0.2"}"#));
        assert_eq!(moved.restart, ["bind_addr"]);
        let told = settings(r#"{"advertise_addr": "10.0.0.2"}"#);
        assert_eq!(
            differences(&settings("{}"), &told).restart,
            ["advertise_addr"]
        );
    }
}
