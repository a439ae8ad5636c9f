//! Nothing in the clear: gossip with keys, calls between members with certificates on both sides.

use cluster::{Cluster, Plan, consul};
use serde_json::json;
use testkit::Authority;

/// Keys of 16 bytes.
const KEYS: [&str; 2] = ["MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="];

#[test]
fn a_cluster_with_keys_and_certificates_works_and_lets_nobody_else_in() {
    let authority = Authority::new();
    let pair = authority.sign("member", &["server.dc1.consul", "localhost"]);
    let settings = json!({
        "encrypt": KEYS[0],
        "verify_incoming": true,
        "verify_outgoing": true,
        "verify_server_hostname": true,
        "ca_file": authority.file(),
        "cert_file": pair.certificate,
        "key_file": pair.key,
    });
    let mut cluster = Cluster::form(&Plan::servers(3).clients(1).with(&settings));
    cluster.wait_for_voters(&[0, 1, 2]);
    let client = &cluster.agents[3];
    client.get("PUT", "/v1/kv/secret", b"x");
    client.get("GET", "/v1/kv/secret?consistent", b"");

    // Another key for all, and the old one goes.
    let address = format!("-http-addr={}", cluster.agents[0].spec.http());
    for words in [
        ["keyring", &format!("-install={}", KEYS[1])],
        ["keyring", &format!("-use={}", KEYS[1])],
        ["keyring", &format!("-remove={}", KEYS[0])],
    ] {
        let printed = consul(&[words[0], &address, words[1]]);
        assert_eq!(printed.code, 0, "{words:?}: {}{}", printed.out, printed.err);
    }
    let listed = consul(&["keyring", &address, "-list"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(
        listed.out.contains(&format!("{} [4/4]", KEYS[1])),
        "{}",
        listed.out
    );
    assert!(!listed.out.contains(KEYS[0]), "{}", listed.out);

    // One that died meets the others again with the key that it has on its disk by now.
    cluster.agents[3].kill();
    cluster.start(3);
    cluster.wait_for_members(4);
    cluster::until(cluster::PATIENCE, "the agent works again", || {
        cluster.agents[3].look("/v1/kv/secret")
    });

    // One with the old key only is not let in.
    let stranger = cluster.add("c1", false, &json!({"retry_join": []}));
    cluster.start(stranger);
    cluster::until(cluster::PATIENCE, "the agent is up", || {
        cluster.agents[stranger].look("/v1/agent/self")
    });
    let mine = format!("-http-addr={}", cluster.agents[stranger].spec.http());
    let told = consul(&["join", &mine, &cluster.agents[0].spec.serf().to_string()]);
    assert_eq!(told.code, 1, "{}{}", told.out, told.err);
    assert_eq!(cluster.agents[0].members("alive").unwrap().len(), 4);
}
