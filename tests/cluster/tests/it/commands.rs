//! The command line against a cluster.

use cluster::{Cluster, Plan, Printed, consul};

fn run(cluster: &Cluster, at: usize, words: &[&str], rest: &[&str]) -> Printed {
    let address = format!("-http-addr={}", cluster.agents[at].spec.http());
    let mut all = words.to_vec();
    all.push(&address);
    all.extend(rest);
    let printed = consul(&all);
    assert_eq!(printed.code, 0, "{all:?}: {}{}", printed.out, printed.err);
    printed
}

#[test]
fn commands_for_members_and_operators() {
    let mut cluster = Cluster::form(&Plan::servers(3).clients(1));
    cluster.wait_for_voters(&[0, 1, 2]);
    let members = run(&cluster, 3, &["members"], &[]).out;
    for name in ["s0", "s1", "s2", "c0"] {
        assert!(
            members.lines().any(|line| line.starts_with(name)),
            "{members}"
        );
    }
    assert_eq!(members.matches("alive").count(), 4, "{members}");
    assert_eq!(members.matches("server").count(), 3, "{members}");
    let detailed = run(&cluster, 0, &["members", "-detailed"], &[]).out;
    assert!(
        detailed.contains("role=consul") && detailed.contains("role=node"),
        "{detailed}"
    );
    let some = run(&cluster, 0, &["members", "-status=alive"], &[]).out;
    assert!(some.contains("c0"), "{some}");

    let peers = run(&cluster, 3, &["operator", "raft", "-list-peers"], &[]).out;
    assert_eq!(peers.matches("leader").count(), 1, "{peers}");
    assert_eq!(peers.matches("follower").count(), 2, "{peers}");

    // An agent that knows nobody joins by command.
    let lonely = cluster.add("c1", false, &serde_json::json!({"retry_join": []}));
    cluster.start(lonely);
    cluster::until(cluster::PATIENCE, "the agent is up", || {
        cluster.agents[lonely].look("/v1/agent/self")
    });
    let known = cluster.agents[0].spec.serf().to_string();
    let joined = run(&cluster, lonely, &["join"], &[&known]).out;
    assert!(
        joined.contains("joined cluster by contacting 1 nodes"),
        "{joined}"
    );
    cluster.wait_for_members(5);

    let info = run(&cluster, 0, &["info"], &[]).out;
    assert!(
        info.contains("num_peers = 2") || info.contains("num_peers"),
        "{info}"
    );

    let reloaded = run(&cluster, 0, &["reload"], &[]).out;
    assert!(reloaded.contains("reload triggered"), "{reloaded}");

    let (rtt, took) = cluster::until(cluster::PATIENCE, "there are coordinates", || {
        let address = format!("-http-addr={}", cluster.agents[0].spec.http());
        let printed = consul(&["rtt", &address, "s0", "s1"]);
        if printed.code == 0 {
            Ok(printed.out)
        } else {
            Err(printed.err)
        }
    });
    assert!(rtt.contains("s0 <-> s1 rtt:"), "{rtt}");
    println!("coordinates were there after {took:?}");
}

#[test]
fn the_log_can_be_followed() {
    let cluster = Cluster::form(&Plan::servers(1));
    let address = format!("-http-addr={}", cluster.agents[0].spec.http());
    let mut monitor = std::process::Command::new(cluster::program())
        .args(["monitor", &address, "-log-level=debug"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut out = monitor.stdout.take().unwrap();
    // The last lines come at once.
    while !seen.contains("[INFO]") {
        let mut bytes = [0; 4096];
        let length = std::io::Read::read(&mut out, &mut bytes).unwrap();
        assert_ne!(length, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}
