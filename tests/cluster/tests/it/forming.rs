//! A cluster forms by itself, and only once.

use cluster::{Cluster, Plan};

#[test]
fn three_servers_form_a_cluster_and_take_writes_through_each() {
    let cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    cluster.leader();
    for at in 0..3 {
        let key = format!("/v1/kv/through/{at}");
        let told = cluster.agents[at].get("PUT", &key, b"x").text();
        assert_eq!(told.trim(), "true");
        // What was acknowledged through one is seen through another at once.
        let other = &cluster.agents[(at + 1) % 3];
        other.get("GET", &key, b"");
        other.get("GET", &format!("{key}?consistent"), b"");
    }
    let peers = cluster.agents[0].get("GET", "/v1/status/peers", b"").json();
    assert_eq!(peers.as_array().map(Vec::len), Some(3), "{peers}");
    cluster.wait_for_catalog(&["s0", "s1", "s2"]);
}

#[test]
fn a_fourth_server_joins_as_a_voter_and_bootstraps_nothing() {
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.agents[0].get("PUT", "/v1/kv/old", b"x");
    // It is told to expect others too, but finds that there is a cluster already.
    let fourth = cluster.add("s3", true, &serde_json::json!({"bootstrap_expect": 3}));
    cluster.start(fourth);
    cluster.wait_for_members(4);
    cluster.wait_for_voters(&[0, 1, 2, fourth]);
    let agent = &cluster.agents[fourth];
    agent.get("GET", "/v1/kv/old?consistent", b"");
    agent.get("PUT", "/v1/kv/new", b"x");
}
