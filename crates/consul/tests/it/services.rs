//! Services and checks of a running agent: from files and over HTTP, in the catalog and in DNS.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::names::{self, over_tcp, over_udp};
use crate::process::{Agent, free_ports};

/// Writes a configuration into a folder of its own, and starts a server with it.
fn start(room: &Path, configuration: &Value, flags: &[&str]) -> Agent {
    let folder = configure(room, configuration);
    let flags: Vec<&str> = ["-config-dir", folder.as_str()]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    Agent::start_as(room, "one", &flags)
}

fn configure(room: &Path, configuration: &Value) -> String {
    let folder = room.join("conf");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("services.json"), configuration.to_string()).unwrap();
    folder.display().to_string()
}

/// How the agent sees one of its checks.
fn status(agent: &Agent, check: &str) -> Value {
    let checks = agent.request("GET", "/v1/agent/checks", b"").json();
    checks[check]["Status"].clone()
}

#[test]
fn what_files_define_is_in_the_catalog_and_in_names() {
    let room = tempfile::tempdir().unwrap();
    let configuration = json!({
        "service": {"id": "web1", "name": "web", "tag": "blue", "port": 8080,
                    "check": {"ttl": "1h", "status": "passing"}},
        "check": {"id": "disk", "name": "Disk", "interval": "1s", "args": ["echo", "plenty of room"]},
    });
    let agent = start(room.path(), &configuration, &[]);
    let services = agent.request("GET", "/v1/agent/services", b"").json();
    assert_eq!(services["web1"]["Service"], "web");
    assert_eq!(services["consul"]["Service"], "consul");
    let own = agent.request("GET", "/v1/agent/self", b"").json();
    let figures = json!({"check_monitors": "1", "check_ttls": "1", "checks": "2", "services": "2"});
    assert_eq!(own["Stats"]["agent"], figures);
    agent.answers("/v1/catalog/service/web", r#""ServicePort":8080"#);
    agent.answers("/v1/health/service/web?passing", r#""ID":"web1""#);
    agent.answers("/v1/health/node/one", "plenty of room");

    let some = |reply: &names::Reply| !reply.records.is_empty();
    let reply = over_udp(agent.names, "web.service.consul", names::A, some);
    assert_eq!(reply.records, [(names::A, vec![127, 0, 0, 1])]);
    let reply = over_tcp(agent.names, "blue.web.service.consul", names::SRV, some);
    let (kind, content) = &reply.records[0];
    assert_eq!(
        (*kind, &content[4..6]),
        (names::SRV, &8080_u16.to_be_bytes()[..])
    );
    let nobody = over_udp(agent.names, "db.service.consul", names::A, |_| true);
    assert_eq!((nobody.rcode, nobody.records.len()), (3, 0));

    // Taken out of use by hand, and into use again.
    agent.expect(
        "PUT",
        "/v1/agent/maintenance?enable=true&reason=cleaning",
        b"",
    );
    agent.answers("/v1/health/node/one", "cleaning");
    over_udp(agent.names, "web.service.consul", names::A, |reply| {
        reply.rcode == 3
    });
    agent.expect("PUT", "/v1/agent/maintenance?enable=false", b"");
    over_udp(agent.names, "web.service.consul", names::A, some);
}

#[test]
fn what_was_registered_survives_a_kill() {
    let room = tempfile::tempdir().unwrap();
    let agent = start(room.path(), &json!({}), &[]);
    let definition = json!({"Name": "db", "Port": 5432, "Check": {"TTL": "1h"}});
    let definition = definition.to_string();
    agent.expect("PUT", "/v1/agent/service/register", definition.as_bytes());
    agent.expect("PUT", "/v1/agent/check/pass/service:db?note=well", b"");
    agent.answers("/v1/health/service/db?passing", r#""Output":"well""#);
    agent.kill();

    let agent = start(room.path(), &json!({}), &[]);
    assert_eq!(status(&agent, "service:db"), "passing");
    agent.answers("/v1/health/service/db?passing", r#""Output":"well""#);
    agent.kill();

    // What a file defines goes before what was kept under its id.
    let configuration = json!({"service": {"name": "db", "port": 1}});
    let agent = start(room.path(), &configuration, &[]);
    agent.answers("/v1/catalog/service/db", r#""ServicePort":1,"#);
}

#[test]
fn a_reload_changes_what_it_names_and_nothing_else() {
    let room = tempfile::tempdir().unwrap();
    let ttl = json!({"ttl": "1h"});
    let service = |name: &str| json!({"name": name, "check": ttl});
    let before = json!({"services": [service("stays"), service("goes")]});
    let agent = start(room.path(), &before, &[]);
    let definition = br#"{"Name": "own", "Check": {"TTL": "1h"}}"#;
    agent.expect("PUT", "/v1/agent/service/register", definition);
    for check in ["stays", "goes", "own"] {
        agent.expect("PUT", &format!("/v1/agent/check/pass/service:{check}"), b"");
        let path = format!("/v1/health/service/{check}?passing");
        agent.answers(&path, r#""Status":"passing""#);
    }
    let health = |name: &str| {
        let path = format!("/v1/health/checks/{name}");
        agent.request("GET", &path, b"").json()
    };
    let (stays, own) = (health("stays"), health("own"));

    // A file that can't be registered changes nothing at all.
    let broken = json!({"services": [service("comes")], "check": {"name": "c", "service_id": "nobody", "ttl": "1h"}});
    configure(room.path(), &broken);
    let answer = agent.request("PUT", "/v1/agent/reload", b"");
    assert_ne!(answer.status, 200, "{}", answer.text());
    assert!(
        answer
            .text()
            .contains("ServiceID \"nobody\" does not exist"),
        "{}",
        answer.text()
    );
    agent.prints("==> Failed to reload configs\n");
    assert_eq!(status(&agent, "service:goes"), "passing");
    assert_eq!(status(&agent, "service:comes"), Value::Null);

    let after =
        json!({"services": [service("stays"), service("comes")], "node_meta": {"rack": "7"}});
    configure(room.path(), &after);
    agent.signal(Signal::HUP);
    agent.prints("the configuration was read again\n");
    assert_eq!(status(&agent, "service:comes"), "critical");
    assert_eq!(status(&agent, "service:goes"), Value::Null);
    agent.answers("/v1/catalog/service/comes", r#""ServiceID":"comes""#);
    agent.answers_so("/v1/catalog/service/goes", "is empty", |answer| {
        answer.text() == "[]"
    });
    agent.answers("/v1/catalog/node/one", r#""rack":"7""#);
    // Not even for a moment was anything else, or it would have been written.
    assert_eq!((health("stays"), health("own")), (stays, own));
}

#[test]
fn scripts_come_over_http_only_from_near() {
    let room = tempfile::tempdir().unwrap();
    let definition = br#"{"Name": "disk", "Script": "echo plenty", "Interval": "1s"}"#;
    let register = |agent: &Agent| agent.request("PUT", "/v1/agent/check/register", definition);
    let agent = start(room.path(), &json!({}), &[]);
    let answer = register(&agent);
    assert_eq!(answer.status, 200, "{}", answer.text());
    agent.answers("/v1/agent/checks", "plenty");
    agent.kill();

    // What was kept is judged again: it is there, says why it isn't run, and can't be brought back.
    let agent = start(room.path(), &json!({}), &["-client=0.0.0.0"]);
    assert_eq!(status(&agent, "disk"), "critical");
    agent.answers("/v1/agent/checks", "enable_script_checks");
    let answer = register(&agent);
    assert_ne!(answer.status, 200);
    assert!(
        answer.text().contains("enable_script_checks"),
        "{}",
        answer.text()
    );
    agent.kill();

    let configuration = json!({"enable_script_checks": true});
    let agent = start(room.path(), &configuration, &["-client=0.0.0.0"]);
    agent.answers("/v1/agent/checks", "plenty");
    let answer = register(&agent);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_client_agent_tells_the_servers_and_leaves_nothing_behind() {
    let room = tempfile::tempdir().unwrap();
    let server = Agent::start(room.path());
    let folder = room.path().join("client");
    std::fs::create_dir(&folder).unwrap();
    let conf = configure(
        &folder,
        &json!({"service": {"name": "web", "port": 80}, "check": {"name": "up", "ttl": "1h", "status": "passing"}}),
    );
    let client = Agent::start_client(&folder, "two", &server, &["-config-dir", &conf]);
    server.answers("/v1/health/service/web?passing", r#""Node":"two""#);
    let some = |reply: &names::Reply| !reply.records.is_empty();
    over_udp(client.names, "web.service.consul", names::A, some);
    over_udp(server.names, "two.node.consul", names::A, some);

    client.expect("PUT", "/v1/agent/leave", b"");
    let (status, log) = client.ended();
    assert_eq!(status, Some(0), "{log}");
    server.answers_so("/v1/catalog/nodes", "lacks the node", |answer| {
        !answer.text().contains(r#""two""#)
    });
    server.answers_so("/v1/catalog/service/web", "is empty", |answer| {
        answer.text() == "[]"
    });
}

#[test]
fn what_cannot_be_registered_or_bound_ends_the_start() {
    let room = tempfile::tempdir().unwrap();
    let ends = |configuration: &Value| {
        let [http, rpc, lan, dns] = free_ports();
        let mut configuration = configuration.clone();
        let mut ports = json!({"http": http, "server": rpc, "serf_lan": lan, "dns": dns});
        if let Some(port) = configuration.as_object_mut().unwrap().remove("dns") {
            ports["dns"] = port;
        }
        configuration["ports"] = ports;
        let folder = configure(room.path(), &configuration);
        let ended = Command::new(env!("CARGO_BIN_EXE_consul"))
            .args(["agent", "-dev", "-config-dir", &folder])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{printed}");
        printed
    };
    let printed = ends(&json!({"check": {"name": "c", "service_id": "nobody", "ttl": "1h"}}));
    assert!(
        printed.contains("ServiceID \"nobody\" does not exist"),
        "{printed}"
    );
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let printed = ends(&json!({"dns": address.port()}));
    let expected = format!("==> Error starting agent: listening for DNS on {address}: ");
    assert!(printed.contains(&expected), "{printed}");
}
