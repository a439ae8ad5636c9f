//! Every key that a configuration file may hold: its shape and what it does in this program.
//! Reading, merging and the "no effect" warning all follow from this one list.

/// What a key's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A JSON string.
    Text,
    /// A JSON number without a fraction.
    Int,
    /// `true` or `false`.
    Bool,
    /// A JSON string in Go's duration syntax.
    Duration,
    /// A list of strings.
    List,
    /// An object of strings.
    Map,
    /// An object of durations.
    DurationMap,
    /// A list of objects whose own keys are somebody else's business.
    Definitions,
    /// One such object; it is added to the list that [`Key::into`] names.
    Definition,
    /// Anything: the value is never looked at.
    Any,
}

/// What a key does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does what its documentation says.
    Acts,
    /// It is read and checked, and does nothing until a later version; the user is told.
    Later,
    /// It belongs to another release or a discontinued service; the log says that it is ignored.
    Ignored,
    /// What it switches off doesn't exist here, so there is nothing to do or to say.
    Moot,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The key, with its group in front: `ports.http`.
    pub path: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// What it does.
    pub effect: Effect,
    /// The key whose value this one is another spelling of, or a single element for.
    pub into: Option<&'static str>,
}

const fn key(path: &'static str, shape: Shape, effect: Effect) -> Key {
    Key {
        path,
        shape,
        effect,
        into: None,
    }
}

const fn alias(path: &'static str, shape: Shape, effect: Effect, into: &'static str) -> Key {
    Key {
        path,
        shape,
        effect,
        into: Some(into),
    }
}

use Effect::{Acts, Ignored, Later, Moot};
use Shape::{Any, Bool, Definition, Definitions, DurationMap, Int, List, Map, Text};

/// The keys, by subject.
pub const KEYS: &[Key] = &[
    // what this agent is
    key("server", Bool, Acts),
    key("bootstrap", Bool, Acts),
    key("bootstrap_expect", Int, Acts),
    key("datacenter", Text, Acts),
    key("data_dir", Text, Acts),
    key("node_name", Text, Acts),
    key("node_id", Text, Acts),
    key("node_meta", Map, Acts),
    key("domain", Text, Acts),
    key("protocol", Int, Acts),
    key("pid_file", Text, Acts),
    key("performance.raft_multiplier", Int, Acts),
    // what it says
    key("log_level", Text, Acts),
    key("enable_syslog", Bool, Acts),
    key("syslog_facility", Text, Acts),
    key("enable_debug", Bool, Later),
    key("disable_update_check", Bool, Moot),
    key("disable_anonymous_signature", Bool, Moot),
    // how it stops
    key("leave_on_terminate", Bool, Acts),
    key("skip_leave_on_interrupt", Bool, Acts),
    // addresses and ports
    key("bind_addr", Text, Acts),
    key("serf_lan_bind", Text, Acts),
    key("serf_wan_bind", Text, Later),
    key("advertise_addr", Text, Acts),
    key("advertise_addr_wan", Text, Acts),
    key("advertise_addrs.serf_lan", Text, Acts),
    key("advertise_addrs.serf_wan", Text, Later),
    key("advertise_addrs.rpc", Text, Acts),
    key("client_addr", Text, Acts),
    key("addresses.dns", Text, Acts),
    key("addresses.http", Text, Acts),
    key("addresses.https", Text, Acts),
    key("addresses.rpc", Text, Ignored),
    key("unix_sockets.user", Text, Acts),
    key("unix_sockets.group", Text, Acts),
    key("unix_sockets.mode", Text, Acts),
    key("ports.dns", Int, Acts),
    key("ports.http", Int, Acts),
    key("ports.https", Int, Acts),
    key("ports.rpc", Int, Ignored),
    key("ports.serf_lan", Int, Acts),
    key("ports.serf_wan", Int, Acts),
    key("ports.server", Int, Acts),
    key("translate_wan_addrs", Bool, Acts),
    // HTTP
    key("http_api_response_headers", Map, Acts),
    key("ui", Bool, Later),
    key("ui_dir", Text, Later),
    // sessions, coordinates, remote execution
    key("session_ttl_min", Shape::Duration, Acts),
    key("disable_coordinates", Bool, Acts),
    key("disable_remote_exec", Bool, Acts),
    // access control
    key("acl_datacenter", Text, Acts),
    key("acl_default_policy", Text, Acts),
    key("acl_down_policy", Text, Acts),
    key("acl_ttl", Shape::Duration, Acts),
    key("acl_token", Text, Acts),
    key("acl_master_token", Text, Acts),
    key("acl_replication_token", Text, Later),
    key("acl_agent_token", Text, Acts),
    key("acl_agent_master_token", Text, Acts),
    key("acl_enforce_version_8", Bool, Acts),
    // joining
    key("start_join", List, Acts),
    key("start_join_wan", List, Later),
    key("retry_join", List, Acts),
    key("retry_join_wan", List, Later),
    key("retry_interval", Shape::Duration, Acts),
    key("retry_interval_wan", Shape::Duration, Later),
    key("retry_max", Int, Acts),
    key("retry_max_wan", Int, Later),
    key("retry_join_ec2.region", Text, Acts),
    key("retry_join_ec2.tag_key", Text, Acts),
    key("retry_join_ec2.tag_value", Text, Acts),
    key("retry_join_ec2.access_key_id", Text, Acts),
    key("retry_join_ec2.secret_access_key", Text, Acts),
    key("retry_join_gce.project_name", Text, Acts),
    key("retry_join_gce.zone_pattern", Text, Acts),
    key("retry_join_gce.tag_value", Text, Acts),
    key("retry_join_gce.credentials_file", Text, Acts),
    key("rejoin_after_leave", Bool, Acts),
    key("reconnect_timeout", Shape::Duration, Acts),
    key("reconnect_timeout_wan", Shape::Duration, Later),
    key("encrypt", Text, Acts),
    // TLS
    key("ca_file", Text, Acts),
    key("cert_file", Text, Acts),
    key("key_file", Text, Acts),
    key("server_name", Text, Acts),
    key("verify_incoming", Bool, Acts),
    key("verify_outgoing", Bool, Acts),
    key("verify_server_hostname", Bool, Acts),
    key("tls_min_version", Text, Acts),
    // DNS
    key("recursors", List, Acts),
    alias("recursor", Text, Acts, "recursors"),
    key("dns_config.allow_stale", Bool, Acts),
    key("dns_config.max_stale", Shape::Duration, Acts),
    key("dns_config.node_ttl", Shape::Duration, Acts),
    key("dns_config.service_ttl", DurationMap, Acts),
    key("dns_config.enable_truncate", Bool, Acts),
    key("dns_config.udp_answer_limit", Int, Acts),
    key("dns_config.only_passing", Bool, Acts),
    key("dns_config.disable_compression", Bool, Acts),
    key("dns_config.recursor_timeout", Shape::Duration, Acts),
    // services, checks, watches
    key("services", Definitions, Acts),
    alias("service", Definition, Acts, "services"),
    key("checks", Definitions, Acts),
    alias("check", Definition, Acts, "checks"),
    key("check_update_interval", Shape::Duration, Acts),
    key("enable_script_checks", Bool, Acts),
    key("enable_link_local_checks", Bool, Acts),
    key("watches", Definitions, Acts),
    // telemetry
    key("telemetry.statsite_address", Text, Acts),
    key("telemetry.statsd_address", Text, Acts),
    key("telemetry.statsite_prefix", Text, Acts),
    key("telemetry.disable_hostname", Bool, Acts),
    key("telemetry.single_prefix", Bool, Acts),
    key("telemetry.dogstatsd_addr", Text, Acts),
    key("telemetry.dogstatsd_tags", List, Acts),
    key("telemetry.circonus_api_token", Text, Ignored),
    key("telemetry.circonus_api_app", Text, Ignored),
    key("telemetry.circonus_api_url", Text, Ignored),
    key("telemetry.circonus_submission_interval", Text, Ignored),
    key("telemetry.circonus_submission_url", Text, Ignored),
    key("telemetry.circonus_check_id", Text, Ignored),
    key(
        "telemetry.circonus_check_force_metric_activation",
        Text,
        Ignored,
    ),
    key("telemetry.circonus_check_instance_id", Text, Ignored),
    key("telemetry.circonus_check_search_tag", Text, Ignored),
    key("telemetry.circonus_check_display_name", Text, Ignored),
    key("telemetry.circonus_check_tags", Text, Ignored),
    key("telemetry.circonus_broker_id", Text, Ignored),
    key("telemetry.circonus_broker_select_tag", Text, Ignored),
    alias("statsite_addr", Text, Acts, "telemetry.statsite_address"),
    alias("statsd_addr", Text, Acts, "telemetry.statsd_address"),
    alias("statsite_prefix", Text, Acts, "telemetry.statsite_prefix"),
    alias("dogstatsd_addr", Text, Acts, "telemetry.dogstatsd_addr"),
    alias("dogstatsd_tags", List, Acts, "telemetry.dogstatsd_tags"),
    // other releases' and discontinued
    key("snapshot_agent", Any, Ignored),
    key("atlas_infrastructure", Any, Ignored),
    key("atlas_token", Any, Ignored),
    key("atlas_acl_token", Any, Ignored),
    key("atlas_join", Any, Ignored),
    key("atlas_endpoint", Any, Ignored),
    key("reap", Any, Ignored),
];

/// The key of that exact path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The key that a file's spelling means: the exact one, or else one that differs in case only.
pub fn find_spelled(path: &str) -> Option<&'static Key> {
    find(path).or_else(|| KEYS.iter().find(|key| key.path.eq_ignore_ascii_case(path)))
}

/// The group that a file's spelling means, such as `ports` for `Ports`.
pub fn find_group(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .filter_map(|key| key.path.split_once('.').map(|(group, _)| group))
        .find(|group| group.eq_ignore_ascii_case(name))
}

/// How error messages spell a path: the original names two groups after its own fields.
pub fn shown(path: &str) -> String {
    match path.split_once('.') {
        Some(("ports", name)) => format!("Ports.{name}"),
        Some(("addresses", name)) => format!("Addresses.{name}"),
        _ => path.to_owned(),
    }
}

/// The name that a message about a malformed duration uses: `retry_interval` is `RetryInterval`.
pub fn shown_duration(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    name.split('_')
        .map(|word| match word {
            "acl" | "ttl" => word.to_uppercase(),
            "wan" => "Wan".to_owned(),
            _ => {
                let mut letters = word.chars();
                letters.next().map_or_else(String::new, |first| {
                    first.to_uppercase().chain(letters).collect()
                })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_consistent() {
        for (position, key) in KEYS.iter().enumerate() {
            assert!(
                !KEYS[..position].iter().any(|other| other.path == key.path),
                "{}",
                key.path
            );
            if let Some(into) = key.into {
                let target = find(into).unwrap();
                assert!(target.into.is_none(), "{}", key.path);
                assert_eq!(target.effect, key.effect, "{}", key.path);
            }
            if let Some((group, rest)) = key.path.split_once('.') {
                assert!(find(group).is_none() && !rest.contains('.'), "{}", key.path);
            }
        }
    }

    #[test]
    fn names_in_messages() {
        assert_eq!(shown("ports.http"), "Ports.http");
        assert_eq!(shown("dns_config.only_passing"), "dns_config.only_passing");
        assert_eq!(shown_duration("retry_interval_wan"), "RetryIntervalWan");
        assert_eq!(shown_duration("acl_ttl"), "ACLTTL");
        assert_eq!(shown_duration("dns_config.max_stale"), "MaxStale");
    }
}
