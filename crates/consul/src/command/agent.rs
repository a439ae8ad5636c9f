//! `consul agent`: flags and files become [`Settings`], and the agent runs on them.

use std::path::PathBuf;

use super::FAILED;
use crate::config::{self, Arguments, Document, Host, Settings};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "agent",
    arguments: "",
    summary: "Runs a Consul agent",
    about: "Runs an agent until it is told to stop. Settings come from configuration files, in the order in which \
            they are given, and from flags, which win over files.\n\n\
            Interrupt, terminate and hang-up signals are handled; see the documentation for which of them leave \
            the cluster.",
    example: "consul agent -dev\n\
              consul agent -server -bootstrap-expect=1 -data-dir=/var/lib/consul -bind=10.0.0.1",
    flags: &[FILES, DEVELOPMENT, IDENTITY, ADDRESSES, JOINING, REST],
};

const fn text(name: &'static str, placeholder: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Value::Text(""), placeholder, help)
}

const fn many(name: &'static str, placeholder: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Value::Many, placeholder, help)
}

const fn int(name: &'static str, placeholder: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Value::Int(0), placeholder, help)
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag::switch(name, false, help)
}

/// What to read.
pub(super) const FILES: &[Flag] = &[
    many("config-file", "path", "A configuration file in JSON."),
    many(
        "config-dir",
        "path",
        "A directory; its files whose names end in .json are read in the order of their names.",
    ),
];

/// A mode of its own.
pub(super) const DEVELOPMENT: &[Flag] = &[switch(
    "dev",
    "A server for development: in memory, alone, at once its own leader.",
)];

/// What the agent is.
pub(super) const IDENTITY: &[Flag] = &[
    switch("server", "Makes this agent a server."),
    switch(
        "bootstrap",
        "Lets this server elect itself when it is the first one.",
    ),
    int(
        "bootstrap-expect",
        "number",
        "How many servers to wait for before the first election.",
    ),
    text("data-dir", "path", "Where everything durable is kept."),
    text(
        "datacenter",
        "name",
        "The datacenter this agent is in; dc1 when not given.",
    ),
    text("dc", "name", "An old name of -datacenter.").hidden(),
    text(
        "node",
        "name",
        "The name of this node; the host's name when not given.",
    ),
    text(
        "node-id",
        "uuid",
        "The identity of this node for its whole life.",
    ),
    many(
        "node-meta",
        "key:value",
        "A fact about this node that others can filter by.",
    ),
    text(
        "domain",
        "name",
        "The domain that DNS answers for; consul. when not given.",
    ),
    Flag::new(
        "protocol",
        Value::Int(-1),
        "number",
        "The protocol version to announce, 2 or 3.",
    ),
];

/// Where it is.
pub(super) const ADDRESSES: &[Flag] = &[
    text("bind", "address", "The address for traffic between agents."),
    text(
        "advertise",
        "address",
        "The address that other agents are told.",
    ),
    text(
        "advertise-wan",
        "address",
        "The address that agents of other datacenters are told.",
    ),
    text(
        "serf-lan-bind",
        "address",
        "The address for gossip in the datacenter.",
    ),
    text(
        "serf-wan-bind",
        "address",
        "The address for gossip between datacenters.",
    ),
    text(
        "client",
        "address",
        "The address for HTTP and DNS; 127.0.0.1 when not given.",
    ),
    int(
        "http-port",
        "port",
        "The port for HTTP; 8500 when not given, a negative number switches HTTP off.",
    ),
    int(
        "dns-port",
        "port",
        "The port for DNS; 8600 when not given, a negative number switches DNS off.",
    ),
    many(
        "recursor",
        "address",
        "A DNS server for names outside of our domain.",
    ),
];

/// Whom it joins.
pub(super) const JOINING: &[Flag] = &[
    many("join", "address", "An agent to join at the start."),
    many(
        "join-wan",
        "address",
        "A server of another datacenter to join at the start.",
    ),
    many(
        "retry-join",
        "address",
        "An agent to join, trying again until it works.",
    ),
    text(
        "retry-interval",
        "time",
        "The time between two tries; 30s when not given.",
    ),
    int(
        "retry-max",
        "number",
        "How often to try again before giving up; without end when not given.",
    ),
    many(
        "retry-join-wan",
        "address",
        "Like -retry-join, for servers of other datacenters.",
    ),
    text(
        "retry-interval-wan",
        "time",
        "Like -retry-interval, for -retry-join-wan.",
    ),
    int(
        "retry-max-wan",
        "number",
        "Like -retry-max, for -retry-join-wan.",
    ),
    text(
        "retry-join-ec2-region",
        "name",
        "The Amazon region to look for agents in.",
    ),
    text(
        "retry-join-ec2-tag-key",
        "key",
        "The tag by which to find instances on Amazon EC2.",
    ),
    text(
        "retry-join-ec2-tag-value",
        "value",
        "The value that this tag must have.",
    ),
    text(
        "retry-join-gce-project-name",
        "name",
        "The Google project to look for agents in.",
    ),
    text(
        "retry-join-gce-zone-pattern",
        "regexp",
        "The Google zones to look in.",
    ),
    text(
        "retry-join-gce-tag-value",
        "tag",
        "The tag by which to find instances on Google Compute Engine.",
    ),
    text(
        "retry-join-gce-credentials-file",
        "path",
        "A file of Google credentials.",
    ),
    switch(
        "rejoin",
        "Joins the cluster again after a restart, even after having left it.",
    ),
    text("encrypt", "key", "The key for encrypted gossip, in base64."),
];

/// The rest.
pub(super) const REST: &[Flag] = &[
    text(
        "log-level",
        "level",
        "TRACE, DEBUG, INFO, WARN or ERR; INFO when not given.",
    ),
    text("pid-file", "path", "Where to write the process id."),
    switch("syslog", "Also logs to syslog."),
    switch("ui", "Serves the web interface."),
    text(
        "ui-dir",
        "path",
        "Serves a web interface from this directory.",
    ),
    text("atlas", "name", "Ignored: the service is gone.").hidden(),
    switch("atlas-join", "Ignored: the service is gone.").hidden(),
    text("atlas-token", "token", "Ignored: the service is gone.").hidden(),
    text("atlas-endpoint", "url", "Ignored: the service is gone.").hidden(),
];

/// The key of the configuration that each flag stands for; the flags that aren't here have their own meaning.
const FLAG_KEYS: &[(&str, &str)] = &[
    ("advertise", "advertise_addr"),
    ("advertise-wan", "advertise_addr_wan"),
    ("atlas", "atlas_infrastructure"),
    ("atlas-endpoint", "atlas_endpoint"),
    ("atlas-join", "atlas_join"),
    ("atlas-token", "atlas_token"),
    ("bind", "bind_addr"),
    ("bootstrap", "bootstrap"),
    ("bootstrap-expect", "bootstrap_expect"),
    ("client", "client_addr"),
    ("data-dir", "data_dir"),
    ("datacenter", "datacenter"),
    ("dns-port", "ports.dns"),
    ("domain", "domain"),
    ("encrypt", "encrypt"),
    ("http-port", "ports.http"),
    ("join", "start_join"),
    ("join-wan", "start_join_wan"),
    ("log-level", "log_level"),
    ("node", "node_name"),
    ("node-id", "node_id"),
    ("node-meta", "node_meta"),
    ("pid-file", "pid_file"),
    ("protocol", "protocol"),
    ("recursor", "recursors"),
    ("rejoin", "rejoin_after_leave"),
    ("retry-interval", "retry_interval"),
    ("retry-interval-wan", "retry_interval_wan"),
    ("retry-join", "retry_join"),
    ("retry-join-ec2-region", "retry_join_ec2.region"),
    ("retry-join-ec2-tag-key", "retry_join_ec2.tag_key"),
    ("retry-join-ec2-tag-value", "retry_join_ec2.tag_value"),
    (
        "retry-join-gce-credentials-file",
        "retry_join_gce.credentials_file",
    ),
    ("retry-join-gce-project-name", "retry_join_gce.project_name"),
    ("retry-join-gce-tag-value", "retry_join_gce.tag_value"),
    ("retry-join-gce-zone-pattern", "retry_join_gce.zone_pattern"),
    ("retry-join-wan", "retry_join_wan"),
    ("retry-max", "retry_max"),
    ("retry-max-wan", "retry_max_wan"),
    ("serf-lan-bind", "serf_lan_bind"),
    ("serf-wan-bind", "serf_wan_bind"),
    ("server", "server"),
    ("syslog", "enable_syslog"),
    ("ui", "ui"),
    ("ui-dir", "ui_dir"),
];

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let settings = match load(parsed) {
        Ok(settings) => settings,
        Err(problem) => {
            console.say(format_args!("==> {problem}"));
            return FAILED;
        }
    };
    match crate::run::agent(settings, &|| load(parsed)) {
        Ok(status) => status,
        Err(problem) => {
            console.say(format_args!("==> Error starting agent: {problem:#}"));
            FAILED
        }
    }
}

fn load(parsed: &Parsed) -> Result<Settings, String> {
    let arguments = arguments(parsed)?;
    config::load(arguments, &Host::here()).map_err(|problem| problem.to_string())
}

/// Turns the flags into the data that configuration is made of.
pub(super) fn arguments(parsed: &Parsed) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        dev: parsed.switch("dev"),
        ..Arguments::default()
    };
    let mut flags = Document::new();
    let mut set = |key, text: &str| {
        flags
            .set_text(key, text)
            .map_err(|why| format!("Error: {why}"))
    };
    for (name, text) in parsed.in_order() {
        match FLAG_KEYS.iter().find(|(flag, _)| *flag == name) {
            Some((_, key)) => set(key, text)?,
            None if name == "config-file" || name == "config-dir" => {
                arguments.sources.push(PathBuf::from(text));
            }
            None => {}
        }
    }
    if parsed.given("dc") {
        let message = "the 'dc' flag has been deprecated. Use 'datacenter' instead";
        arguments.warnings.push(message.to_owned());
        set("datacenter", parsed.text("dc"))?;
    }
    arguments.flags = flags;
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::consul;

    fn settings(line: &str) -> Result<Settings, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        load(&SYNTAX.parse(&words).unwrap())
    }

    #[test]
    fn every_flag_has_a_meaning() {
        for flag in SYNTAX.flags.iter().flat_map(|group| group.iter()) {
            let special = ["config-file", "config-dir", "dev", "dc"].contains(&flag.name());
            let keyed = FLAG_KEYS
                .iter()
                .filter(|(name, _)| *name == flag.name())
                .count();
            assert_eq!(keyed, usize::from(!special), "{}", flag.name());
        }
        for (flag, key) in FLAG_KEYS {
            assert!(
                SYNTAX
                    .flags
                    .iter()
                    .any(|group| group.iter().any(|f| f.name() == *flag)),
                "{flag}"
            );
            assert!(config::keys::find(key).is_some(), "{key}");
        }
    }

    #[test]
    fn flags_become_settings() {
        let all = "-dev -node=n -datacenter=DC2 -bind=10.1.1.1 -client 0.0.0.0 -http-port=81 -log-level=err \
                   -pid-file=/run/c.pid -join=a -join b -retry-interval 5s -dns-port=-1 -node-meta=rack:7 extra";
        let settings = settings(all).unwrap();
        assert!(settings.dev);
        assert_eq!(settings.node_name, "n");
        assert_eq!(settings.datacenter, "dc2");
        assert_eq!(settings.advertise_addr.to_string(), "10.1.1.1");
        assert_eq!(settings.ports.http, Some(81));
        assert_eq!(settings.ports.dns, None);
        assert_eq!(settings.node_meta["rack"], "7");
        let joined: Vec<String> = settings
            .lan
            .start_join
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(joined, ["a:8301", "b:8301"]);
        assert_eq!(settings.lan.retry.interval.as_secs(), 5);
        assert_eq!(settings.no_effect, [""; 0]);
    }

    #[test]
    fn the_old_datacenter_flag_wins_and_warns() {
        let settings = settings("-dev -dc=old -datacenter=new").unwrap();
        assert_eq!(settings.datacenter, "old");
        assert_eq!(settings.warnings.len(), 1);
    }

    #[test]
    fn bad_settings_end_with_one_line() {
        let cases = [
            (
                &["agent"][..],
                "==> Must specify data directory using -data-dir\n",
            ),
            (
                &["agent", "-dev", "-retry-interval=5"],
                "==> Error: RetryInterval invalid: time: missing unit in duration 5\n",
            ),
            (
                &["agent", "-dev", "-config-file=/nonexistent"],
                "==> Error reading '/nonexistent': no such file or directory\n",
            ),
        ];
        for (line, output) in cases {
            let printed = consul(line, b"", &[]);
            assert_eq!(
                (printed.status, printed.output.as_str()),
                (1, output),
                "{line:?}"
            );
        }
    }
}
