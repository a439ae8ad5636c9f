//! Agents that are no servers: everything works through them, whichever server dies.

use cluster::{Cluster, Plan};
use serde_json::{Value, json};

#[test]
fn everything_works_through_an_agent_that_is_no_server() {
    let cluster = Cluster::form(&Plan::servers(3).clients(1));
    cluster.wait_for_catalog(&["c0", "s0", "s1", "s2"]);
    let client = &cluster.agents[3];
    let put = |path: &str, body: Value| client.get("PUT", path, body.to_string().as_bytes()).json();
    let get = |path: &str| client.get("GET", path, b"").json();
    // Keys.
    client.get("PUT", "/v1/kv/a/b?flags=7", b"value");
    assert_eq!(get("/v1/kv/a/b")[0]["Flags"], 7);
    assert_eq!(get("/v1/kv/a/b?consistent")[0]["Flags"], 7);
    get("/v1/kv/a/?keys&stale");
    put("/v1/txn", json!([{"KV": {"Verb": "get", "Key": "a/b"}}]));
    // Catalog and health.
    put(
        "/v1/catalog/register",
        json!({"Node": "other", "Address": "10.0.0.1", "Service": {"Service": "web", "Port": 80},
               "Check": {"CheckID": "alive", "Name": "alive", "Status": "passing"}}),
    );
    assert!(get("/v1/catalog/services")["web"].is_array());
    assert_eq!(get("/v1/catalog/service/web")[0]["Node"], "other");
    assert_eq!(get("/v1/catalog/node/other")["Node"]["Address"], "10.0.0.1");
    assert_eq!(get("/v1/catalog/datacenters"), json!(["dc1"]));
    assert_eq!(get("/v1/health/node/other")[0]["CheckID"], "alive");
    assert_eq!(
        get("/v1/health/service/web?passing")[0]["Node"]["Node"],
        "other"
    );
    assert_eq!(get("/v1/health/node/c0")[0]["CheckID"], "serfHealth");
    get("/v1/health/state/passing");
    get("/v1/health/checks/web");
    put(
        "/v1/catalog/deregister",
        json!({"Node": "other", "ServiceID": "web"}),
    );
    // Sessions and locks, which need the node's own health.
    let session = put("/v1/session/create", json!({"Node": "c0", "TTL": "60s"}));
    let session = session["ID"].as_str().unwrap().to_owned();
    assert_eq!(
        put(&format!("/v1/kv/lock?acquire={session}"), json!(1)),
        true
    );
    assert_eq!(get(&format!("/v1/session/info/{session}"))[0]["Node"], "c0");
    put(&format!("/v1/session/renew/{session}"), json!({}));
    get("/v1/session/node/c0");
    get("/v1/session/list");
    put(&format!("/v1/session/destroy/{session}"), json!({}));
    // Prepared queries.
    let query = client.get(
        "POST",
        "/v1/query",
        br#"{"Name": "q", "Service": {"Service": "consul"}}"#,
    );
    let query = query.json()["ID"].as_str().unwrap().to_owned();
    get("/v1/query");
    get(&format!("/v1/query/{query}"));
    client.get("DELETE", &format!("/v1/query/{query}"), b"");
    // Consensus, coordinates, the agent itself.
    assert!(!get("/v1/status/leader").as_str().unwrap().is_empty());
    assert_eq!(get("/v1/status/peers").as_array().map(Vec::len), Some(3));
    let servers = get("/v1/operator/raft/configuration");
    assert_eq!(servers["Servers"].as_array().map(Vec::len), Some(3));
    get("/v1/coordinate/nodes");
    get("/v1/coordinate/datacenters");
    assert_eq!(get("/v1/agent/self")["Config"]["Server"], false);
    assert_eq!(get("/v1/agent/members").as_array().map(Vec::len), Some(4));
    // A snapshot there and back.
    let archive = client.get("GET", "/v1/snapshot", b"").body;
    client.get("DELETE", "/v1/kv/a/b", b"");
    client.get("PUT", "/v1/snapshot", &archive);
    assert_eq!(get("/v1/kv/a/b")[0]["Flags"], 7);
    // Waiting.
    let index = client.get("GET", "/v1/kv/a/b", b"").index();
    let waited = std::thread::scope(|scope| {
        let wait = scope.spawn(|| get(&format!("/v1/kv/a/b?index={index}&wait=30s")));
        cluster.agents[0].get("PUT", "/v1/kv/a/b?flags=8", b"value");
        wait.join().unwrap()
    });
    assert_eq!(waited[0]["Flags"], 8);
}

#[test]
fn an_agent_that_is_no_server_survives_the_death_of_each_server() {
    let mut cluster = Cluster::form(&Plan::servers(3).clients(1));
    cluster.wait_for_voters(&[0, 1, 2]);
    for victim in 0..3 {
        cluster.agents[victim].kill();
        // Ten requests one after the other; what it asked the dead one it asks another.
        for at in 0..10 {
            let client = &cluster.agents[3];
            client.get("PUT", "/v1/kv/count", at.to_string().as_bytes());
            client.get("GET", "/v1/kv/count?consistent", b"");
            client.get("GET", "/v1/kv/count", b"");
            client.get("GET", "/v1/kv/count?stale", b"");
        }
        cluster.start(victim);
        cluster.wait_until_writable();
        cluster.wait_for_voters(&[0, 1, 2]);
        cluster.wait_for_members(4);
    }
}
