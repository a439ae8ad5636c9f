//! Access rules that deny by default, with version 8: nobody gets anywhere without a token that says so, agents included.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster::{Agent, Cluster, Plan, Ports, until};
use serde_json::{Value, json};
use testkit::http::{Answer, request};

const PATIENCE: Duration = Duration::from_secs(45);

/// May everything.
const ROOT: &str = "secret-of-root";

/// What agents do for themselves is done with it.
const AGENTS: &str = "secret-of-agents";

/// Runs the node of the client, and what it offers as `web`.
const OPS: &str = "secret-of-ops";

/// Runs `web`, on whatever node.
const WEB: &str = "secret-of-web";

/// Opens agents while nobody can be asked.
const EMERGENCY: &str = "secret-for-emergencies";

fn attempt(agent: &Agent, token: &str, line: &str, body: &Value) -> std::io::Result<Answer> {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let mark = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{mark}token={token}");
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    request(agent.spec.http(), method, &path, &body, PATIENCE)
}

fn ask(agent: &Agent, token: &str, line: &str, body: &Value) -> Answer {
    match attempt(agent, token, line, body) {
        Ok(answer) => answer,
        Err(error) => panic!("{line}: {error}\n{}", agent.log()),
    }
}

fn expect(agent: &Agent, token: &str, line: &str, body: &Value) -> Value {
    let answer = ask(agent, token, line, body);
    let (status, text) = (answer.status, answer.text());
    assert_eq!(status, 200, "{line}: {text}\n{}", agent.log());
    answer.json()
}

/// Waits until this is answered so.
fn wait(agent: &Agent, token: &str, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    until(PATIENCE, what, || {
        // It may not even listen yet.
        match attempt(agent, token, &format!("GET {path}"), &Value::Null) {
            Ok(answer) if answer.status == 200 && is_so(&answer.json()) => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        }
    });
}

#[test]
fn nobody_gets_anywhere_without_a_token_that_says_so() {
    let settings = json!({
        "acl_datacenter": "dc1",
        "acl_default_policy": "deny",
        "acl_down_policy": "deny",
        "acl_ttl": "1s",
        "acl_enforce_version_8": true,
        "acl_master_token": ROOT,
        "acl_agent_token": AGENTS,
        "acl_agent_master_token": EMERGENCY,
    });
    let mut cluster = Cluster::new(&Plan::servers(3).clients(1).with(&settings));
    // One that is reached from everywhere, for the rule about scripts.
    let client = &mut cluster.agents[3].spec;
    client.ports = Ports::free(Ipv4Addr::UNSPECIFIED);
    let everywhere = json!({"http": "0.0.0.0"});
    client.settings.insert("addresses".to_owned(), everywhere);
    for at in 0..3 {
        cluster.start(at);
    }
    let nothing = Value::Null;
    let server = &cluster.agents[0];
    wait(
        server,
        ROOT,
        "/v1/acl/list",
        "the master token is there",
        |_| true,
    );

    // Without their token the servers can't tell of themselves.
    let anonymous = ask(server, "", "PUT /v1/kv/a", &json!(1));
    let denial = r#"Permission denied: this needs write on key "a""#;
    assert_eq!(anonymous.status, 403);
    assert!(anonymous.text().ends_with(denial), "{}", anonymous.text());
    for (id, rules) in [
        (
            AGENTS,
            r#"node "" { policy = "write" } service "" { policy = "read" }"#,
        ),
        (
            OPS,
            r#"agent "c0" { policy = "write" } node "c0" { policy = "write" } service "web" { policy = "write" }"#,
        ),
        (WEB, r#"{"service": {"web": {"policy": "write"}}}"#),
    ] {
        let token = json!({"ID": id, "Name": "n", "Rules": rules});
        expect(server, ROOT, "PUT /v1/acl/create", &token);
    }
    // A server that comes up makes the others try again at once.
    cluster.agents[2].kill();
    cluster.start(2);
    cluster.start(3);
    let server = &cluster.agents[0];
    wait(
        server,
        ROOT,
        "/v1/catalog/nodes",
        "all agents tell of themselves",
        |nodes| {
            let nodes = nodes.as_array().map_or(&[][..], Vec::as_slice);
            nodes.len() == 4
                && nodes
                    .iter()
                    .all(|node| node["TaggedAddresses"]["lan"].is_string())
        },
    );

    // Nobody sees anything without a token.
    let client = &cluster.agents[3];
    for agent in [server, client] {
        assert_eq!(
            expect(agent, "", "GET /v1/catalog/nodes", &nothing),
            json!([])
        );
        assert_eq!(
            expect(agent, "", "GET /v1/catalog/services", &nothing),
            json!({})
        );
        assert_eq!(
            expect(agent, "", "GET /v1/agent/members", &nothing),
            json!([])
        );
        assert_eq!(
            expect(agent, "", "GET /v1/agent/services", &nothing),
            json!({})
        );
        let hidden = ask(agent, "", "GET /v1/agent/self", &nothing);
        let name = &agent.spec.name;
        let denial = format!("Permission denied: this needs read on agent \"{name}\"");
        assert_eq!((hidden.status, hidden.text()), (403, denial));
        let unknown = ask(agent, "nobody", "GET /v1/agent/self", &nothing);
        assert_eq!(
            (unknown.status, unknown.text().as_str()),
            (403, "ACL not found")
        );
    }
    let own = expect(client, OPS, "GET /v1/agent/self", &nothing);
    let shown = own.to_string();
    assert!(!shown.contains("secret"), "{shown}");
    assert_eq!(own["Config"]["ACLDefaultPolicy"], "deny");
    let refused = ask(
        client,
        WEB,
        "PUT /v1/agent/maintenance?enable=true",
        &nothing,
    );
    assert_eq!(refused.status, 403);

    // Scripts, over a listener that everybody reaches.
    let script = json!({"Script": "echo well; true", "Interval": "1s"});
    let of_node = json!({"Name": "disk", "Script": "true", "Interval": "1s"});
    let web = json!({"Name": "web", "Port": 80, "Check": script});
    let other = json!({"Name": "db", "Check": script});
    for (token, path, body, status) in [
        ("", "service/register", &web, 403),
        ("", "check/register", &of_node, 403),
        ("nobody", "service/register", &web, 403),
        (WEB, "service/register", &other, 403),
        (WEB, "check/register", &of_node, 403),
        (AGENTS, "service/register", &web, 403),
        (EMERGENCY, "service/register", &web, 403),
        (WEB, "service/register", &web, 200),
        (OPS, "check/register", &of_node, 200),
    ] {
        let answer = ask(client, token, &format!("PUT /v1/agent/{path}"), body);
        assert_eq!(answer.status, status, "{token} {path}: {}", answer.text());
    }
    // Whose token says nothing about the node doesn't see what is there.
    let hidden = expect(client, WEB, "GET /v1/health/service/web", &nothing);
    assert_eq!(hidden, json!([]));
    wait(
        server,
        OPS,
        "/v1/health/service/web",
        "the service is well",
        |found| found[0]["Checks"].to_string().contains("well"),
    );
    wait(
        server,
        ROOT,
        "/v1/health/node/c0",
        "the check of the node is there",
        |checks| checks.to_string().contains("disk"),
    );
    let answer = ask(client, OPS, "PUT /v1/agent/service/deregister/db", &nothing);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (500, "Unknown service \"db\"")
    );

    // Whoever can ask nobody lets nobody in, but for one.
    for at in 0..3 {
        cluster.agents[at].kill();
    }
    let client = &cluster.agents[3];
    until(PATIENCE, "nobody can be asked", || {
        let answer = ask(client, OPS, "GET /v1/agent/self", &nothing);
        if answer.status == 403 {
            Ok(())
        } else {
            Err(answer.text())
        }
    });
    expect(client, EMERGENCY, "GET /v1/agent/self", &nothing);
    let members = expect(client, EMERGENCY, "GET /v1/agent/members", &nothing);
    assert_eq!(members.as_array().map(Vec::len), Some(4));
    assert!(!cluster.logs().contains("secret"), "{}", cluster.logs());
}
