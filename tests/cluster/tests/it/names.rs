//! Every form of names, asked by `dig`: the transcript lies in `names.txt`.

use std::time::{SystemTime, UNIX_EPOCH};

use cluster::{Agent, Cluster, Dig, PATIENCE, Plan, Reply, until};
use serde_json::{Value, json};

const TRANSCRIPT: &str = include_str!("names.txt");

/// What the catalog is told, beside the agent's own service.
fn catalog() -> Vec<Value> {
    let sick = json!([{"CheckID": "s", "Name": "s", "ServiceID": "sick", "Status": "critical"}]);
    let warned = json!([{"CheckID": "w", "Name": "w", "ServiceID": "warned", "Status": "warning"}]);
    vec![
        json!({"Node": "ext", "Address": "10.0.0.1", "Service": {"Service": "db", "Port": 5432, "Tags": ["main"]}}),
        json!({"Node": "far", "Address": "10.0.0.2",
               "Service": {"Service": "db", "Port": 5433, "Address": "10.9.9.9", "Tags": ["eu.west", "Spare"]}}),
        json!({"Node": "six", "Address": "2001:db8::6", "Service": {"Service": "new", "Port": 6}}),
        json!({"Node": "dotted.name", "Address": "10.0.0.3", "Service": {"Service": "sick", "Port": 1}, "Checks": sick}),
        json!({"Node": "dotted.name", "Address": "10.0.0.3", "Service": {"Service": "warned", "Port": 2}, "Checks": warned}),
        json!({"Node": "alias", "Address": "ext.node.consul", "Service": {"Service": "aliased", "Port": 7}}),
        json!({"Node": "hosted", "Address": "10.0.0.4", "Service": {"Service": "elsewhere", "Port": 8, "Address": "host.example"}}),
    ]
}

/// Prepared queries.
fn queries() -> Vec<Value> {
    let main = json!({"Type": "name_prefix_match", "Regexp": "^by-(.+)-(.+?)$"});
    vec![
        json!({"Name": "All.Of.It", "Service": {"Service": "db"}, "DNS": {"TTL": "30s"}}),
        json!({"Name": "by-", "Template": main, "Service": {"Service": "${match(2)}", "Tags": ["${match(1)}", "!spare"]}}),
        json!({"Name": "own", "Service": {"Service": "web", "Near": "_agent"}}),
        json!({"Name": "careful", "Service": {"Service": "warned", "OnlyPassing": true}}),
        json!({"Name": "elsewhere", "Service": {"Service": "sick", "Failover": {"NearestN": 2, "Datacenters": ["dc2"]}}}),
    ]
}

/// A server with its own service and others', once names lead to it.
fn serving(dig: &Dig, settings: &Value) -> (Cluster, Dig) {
    let cluster = Cluster::form(&Plan::servers(1).with(settings));
    let agent = &cluster.agents[0];
    for row in catalog() {
        put(agent, "/v1/catalog/register", &row);
    }
    for query in queries() {
        agent.get("POST", "/v1/query", query.to_string().as_bytes());
    }
    put(
        agent,
        "/v1/agent/service/register",
        &json!({"Name": "web", "Port": 8080, "Check": {"TTL": "10m", "Status": "passing"}}),
    );
    let dig = dig.asking(agent.spec.dns());
    until(PATIENCE, "the agent's own service has a name", || {
        let reply = dig.ask("web.service.consul");
        if reply.status == "NOERROR" {
            Ok(())
        } else {
            Err(reply.to_string())
        }
    });
    (cluster, dig)
}

fn put(agent: &Agent, path: &str, body: &Value) {
    agent.get("PUT", path, body.to_string().as_bytes());
}

/// With words for what is different each time.
fn told(reply: &Reply, agent: &Agent) -> String {
    let mut text = reply.to_string();
    text = text.replace(&agent.spec.address.to_string(), "OWN");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock that was set").as_secs();
    // The zone's serial number is the time.
    for second in now.saturating_sub(30)..=now {
        text = text.replace(&format!(" {second} "), " NOW ");
    }
    text
}

#[test]
fn dig_understands_every_form_of_names() {
    let Some(dig) = Dig::find() else {
        return;
    };
    let (cluster, dig) = serving(&dig, &json!({}));
    let agent = &cluster.agents[0];
    let mut said = String::new();
    for line in TRANSCRIPT.lines() {
        if line.starts_with('#') {
            said.push_str(line);
            said.push_str("\n\n");
        }
        if let Some(question) = line.strip_prefix("$ dig ") {
            let reply = told(&dig.ask(question), agent);
            said.push_str(&format!("$ dig {question}\n{reply}\n"));
        }
    }
    let said = said.trim_end();
    assert!(
        said == TRANSCRIPT.trim_end(),
        "names.txt says something else than this:\n{said}\n{}",
        agent.log()
    );
}
