//! The table of keys is complete and true: what it says of a key is what the key does, and what the manual says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::host::{Host, Interface};
use super::keys::{Effect, KEYS, Key, Shape, shown};
use super::settings::validate;
use super::{Document, Settings, decode, differences, merge};

/// For each key that acts: what it needs beside it, and a value that isn't its default.
fn samples() -> Vec<(&'static str, Value, Value)> {
    let alone = |path, value| (path, json!({}), value);
    vec![
        alone("bootstrap", json!(true)),
        alone("bootstrap_expect", json!(3)),
        alone("datacenter", json!("dc2")),
        alone("data_dir", json!("/nonexistent/other")),
        alone("node_name", json!("other")),
        alone("node_id", json!("01234567-89ab-CDEF-0123-456789abcdef")),
        alone("node_meta", json!({"rack": "7"})),
        alone("domain", json!("example")),
        alone("protocol", json!(3)),
        alone("pid_file", json!("/run/consul.pid")),
        alone("performance.raft_multiplier", json!(1)),
        alone("log_level", json!("warn")),
        alone("leave_on_terminate", json!(true)),
        alone("skip_leave_on_interrupt", json!(false)),
        alone("bind_addr", json!("10.0.0.9")),
        alone("serf_lan_bind", json!("10.0.0.9")),
        alone("advertise_addr", json!("10.0.0.9")),
        alone("advertise_addr_wan", json!("10.0.0.9")),
        alone("advertise_addrs.serf_lan", json!("10.0.0.9:1")),
        alone("advertise_addrs.rpc", json!("10.0.0.9:1")),
        alone("client_addr", json!("10.0.0.9")),
        alone("addresses.http", json!("unix:///run/consul.sock")),
        (
            "addresses.https",
            json!({"ports": {"https": 8501}}),
            json!("10.0.0.9"),
        ),
        alone("unix_sockets.user", json!("7")),
        alone("unix_sockets.group", json!("7")),
        alone("unix_sockets.mode", json!("0600")),
        alone("addresses.dns", json!("10.0.0.9")),
        alone("ports.dns", json!(-1)),
        alone("ports.http", json!(-1)),
        alone("ports.https", json!(8501)),
        alone("ports.serf_lan", json!(1)),
        alone("ports.serf_wan", json!(1)),
        alone("ports.server", json!(1)),
        alone("translate_wan_addrs", json!(true)),
        alone("http_api_response_headers", json!({"A": "b"})),
        alone("session_ttl_min", json!("5s")),
        alone("disable_coordinates", json!(true)),
        alone("acl_datacenter", json!("dc1")),
        (
            "acl_master_token",
            json!({"acl_datacenter": "dc1"}),
            json!("root"),
        ),
        alone("acl_token", json!("t")),
        alone("acl_agent_token", json!("t")),
        alone("acl_agent_master_token", json!("t")),
        alone("acl_default_policy", json!("deny")),
        alone("acl_down_policy", json!("deny")),
        alone("acl_ttl", json!("0s")),
        alone("acl_enforce_version_8", json!(true)),
        alone("start_join", json!(["a"])),
        alone("retry_join", json!(["a"])),
        alone("retry_interval", json!("5s")),
        alone("retry_max", json!(1)),
        ("retry_join_ec2.region", ec2(), json!("eu-west-1")),
        ("retry_join_ec2.tag_key", ec2(), json!("other")),
        ("retry_join_ec2.tag_value", ec2(), json!("other")),
        (
            "retry_join_ec2.access_key_id",
            json!({"retry_join_ec2": {"tag_key": "a", "tag_value": "b", "access_key_id": "a", "secret_access_key": "s"}}),
            json!("other"),
        ),
        (
            "retry_join_ec2.secret_access_key",
            json!({"retry_join_ec2": {"tag_key": "a", "tag_value": "b", "access_key_id": "a", "secret_access_key": "s"}}),
            json!("other"),
        ),
        ("retry_join_gce.project_name", gce(), json!("project")),
        ("retry_join_gce.zone_pattern", gce(), json!("us-.*")),
        ("retry_join_gce.tag_value", gce(), json!("other")),
        ("retry_join_gce.credentials_file", gce(), json!("/c.json")),
        alone("rejoin_after_leave", json!(true)),
        alone("reconnect_timeout", json!("8h")),
        alone("encrypt", json!("MDEyMzQ1Njc4OWFiY2RlZg==")),
        alone("ca_file", json!("/ca")),
        alone("cert_file", json!("/cert")),
        alone("key_file", json!("/key")),
        alone("server_name", json!("s")),
        alone("verify_incoming", json!(true)),
        alone("verify_outgoing", json!(true)),
        alone("verify_server_hostname", json!(true)),
        alone("tls_min_version", json!("tls13")),
        alone("recursors", json!(["10.0.0.9"])),
        alone("recursor", json!("10.0.0.9")),
        alone("dns_config.allow_stale", json!(false)),
        alone("dns_config.max_stale", json!("5s")),
        alone("dns_config.node_ttl", json!("5s")),
        alone("dns_config.service_ttl", json!({"*": "5s"})),
        alone("dns_config.enable_truncate", json!(true)),
        alone("dns_config.udp_answer_limit", json!(1)),
        alone("dns_config.only_passing", json!(true)),
        alone("dns_config.disable_compression", json!(true)),
        alone("dns_config.recursor_timeout", json!("5s")),
        alone("services", json!([{"name": "web"}])),
        alone("service", json!({"name": "web"})),
        alone("checks", json!([{"name": "c", "ttl": "5s"}])),
        alone("check", json!({"name": "c", "ttl": "5s"})),
        alone(
            "watches",
            json!([{"type": "key", "key": "k", "handler": "h"}]),
        ),
        alone("check_update_interval", json!("0s")),
        alone("enable_script_checks", json!(true)),
        alone("disable_remote_exec", json!(false)),
        alone("enable_link_local_checks", json!(true)),
        alone("enable_syslog", json!(true)),
        (
            "syslog_facility",
            json!({"enable_syslog": true}),
            json!("daemon"),
        ),
        alone("telemetry.statsite_address", json!("h:8125")),
        alone("telemetry.statsd_address", json!("h:8125")),
        alone("telemetry.statsite_prefix", json!("us")),
        alone("telemetry.disable_hostname", json!(true)),
        alone("telemetry.single_prefix", json!(true)),
        alone("telemetry.dogstatsd_addr", json!("h:8125")),
        alone("telemetry.dogstatsd_tags", json!(["a:b"])),
        alone("statsite_addr", json!("h:8125")),
        alone("statsd_addr", json!("h:8125")),
        alone("statsite_prefix", json!("us")),
        alone("dogstatsd_addr", json!("h:8125")),
        alone("dogstatsd_tags", json!(["a:b"])),
    ]
}

fn ec2() -> Value {
    json!({"retry_join_ec2": {"tag_key": "a", "tag_value": "b"}})
}

fn gce() -> Value {
    json!({"retry_join_gce": {"tag_value": "b"}})
}

/// Keys that act in a way that one value on top of a server's settings can't show; their own tests do.
const SHOWN_ELSEWHERE: &[&str] = &[
    // Everything else here is a server.
    "server",
];

fn document(json: &Value) -> Document {
    decode(json.to_string().as_bytes()).unwrap()
}

fn settings(documents: &[Document]) -> Settings {
    let host = Host {
        name: "host".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            address: "10.0.0.1".parse().unwrap(),
        }],
    };
    let mut all = document(&json!({"server": true, "data_dir": "/nonexistent/consul"}));
    for document in documents {
        merge::merge(&mut all, document.clone());
    }
    validate(&all, false, &host).unwrap()
}

/// The configuration that gives one key a value.
fn with(path: &str, value: &Value) -> Document {
    document(&match path.split_once('.') {
        Some((group, name)) => json!({group: {name: value}}),
        None => json!({path: value}),
    })
}

#[test]
fn a_key_that_acts_changes_something() {
    let samples = samples();
    for key in KEYS.iter().filter(|key| key.effect == Effect::Acts) {
        let sample = samples.iter().find(|(path, ..)| *path == key.path);
        let Some((path, beside, value)) = sample else {
            assert!(SHOWN_ELSEWHERE.contains(&key.path), "{}", key.path);
            continue;
        };
        let base = settings(&[document(beside)]);
        let changed = settings(&[document(beside), with(path, value)]);
        assert!(changed.no_effect.is_empty() && changed.ignored.is_empty());
        // A reload notices it too, and names it if it has to wait.
        let reload = differences(&base, &changed);
        let told = key.into.unwrap_or(path);
        let named = reload
            .restart
            .iter()
            .any(|named| *named == *path || named.contains(group(told)));
        assert!(named || !reload.live.is_empty(), "{path}: {reload:?}");
        assert!(reload.restart.len() <= 3, "{path}: {reload:?}");
    }
    for (path, ..) in &samples {
        let key = KEYS.iter().find(|key| key.path == *path);
        assert_eq!(key.map(|key| key.effect), Some(Effect::Acts), "{path}");
    }
}

fn group(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// Some value of the key's shape that passes every check.
fn any_value(key: &Key) -> Value {
    let text = match key.path {
        "advertise_addrs.serf_wan" => "10.0.0.9:1",
        _ => "10.0.0.9",
    };
    match key.shape {
        Shape::Text => json!(text),
        Shape::Int => json!(7),
        Shape::Bool => json!(true),
        Shape::Duration => json!("9h"),
        Shape::List => json!([text]),
        Shape::Map => json!({"a": "b"}),
        Shape::DurationMap => json!({"a": "1s"}),
        Shape::Definitions => json!([definition(key)]),
        Shape::Definition => definition(key),
        Shape::Any => json!({"anything": [1]}),
    }
}

fn definition(key: &Key) -> Value {
    match key.path {
        "watches" => json!({"type": "key", "key": "k", "handler": "h"}),
        _ => json!({"name": "n", "ttl": "5s"}),
    }
}

#[test]
fn a_key_without_effect_changes_nothing_and_is_told() {
    let base = settings(&[]);
    for key in KEYS.iter().filter(|key| key.effect != Effect::Acts) {
        let changed = settings(&[with(key.path, &any_value(key))]);
        let told = key.into.unwrap_or(key.path).to_owned();
        let (no_effect, ignored) = match key.effect {
            Effect::Later => (vec![told], Vec::new()),
            Effect::Ignored => (Vec::new(), vec![told]),
            Effect::Moot | Effect::Acts => (Vec::new(), Vec::new()),
        };
        assert_eq!(changed.no_effect, no_effect, "{}", key.path);
        assert_eq!(changed.ignored, ignored, "{}", key.path);
        let reload = differences(&base, &changed);
        assert_eq!(reload.restart, [""; 0], "{}", key.path);
        assert_eq!(reload.live, [], "{}", key.path);
    }
}

fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Acts => "acts",
        Effect::Later => "later",
        Effect::Ignored => "ignored",
        Effect::Moot => "nothing to do",
    }
}

fn shape_word(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "text",
        Shape::Int => "number",
        Shape::Bool => "switch",
        Shape::Duration => "duration",
        Shape::List => "list of texts",
        Shape::Map => "object of texts",
        Shape::DurationMap => "object of durations",
        Shape::Definitions => "list of objects",
        Shape::Definition => "object",
        Shape::Any => "anything",
    }
}

/// The manual has one row for each key, with its shape and its effect, and no others.
#[test]
fn the_manual_lists_every_key() {
    const MANUAL: &str = include_str!("../../../../docs/configuration.md");
    let rows: BTreeMap<String, (String, String)> = MANUAL
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let key = cells[0].strip_prefix('`')?.strip_suffix('`')?;
            let (shape, effect) = (cells.get(1)?, cells.get(2)?);
            Some((key.to_owned(), ((*shape).to_owned(), (*effect).to_owned())))
        })
        .collect();
    let expected: BTreeMap<String, (String, String)> = KEYS
        .iter()
        .map(|key| {
            let shape = shape_word(key.shape).to_owned();
            let effect = effect_word(key.effect).to_owned();
            (key.path.to_owned(), (shape, effect))
        })
        .collect();
    assert_eq!(rows, expected);
}

/// Nothing else may show a key that the list doesn't have.
#[test]
fn messages_spell_keys_of_the_list() {
    for key in KEYS {
        assert!(shown(key.path).eq_ignore_ascii_case(key.path));
    }
}
