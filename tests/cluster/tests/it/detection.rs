//! How soon all know that one is gone, at the timings of a local network.

use std::time::Duration;

use cluster::{Cluster, Plan};

/// The original takes 6.1 to 6.8 s.
const NOTICED: Duration = Duration::from_secs(6);

#[test]
fn all_know_of_a_killed_agent_within_six_seconds() {
    let mut cluster = Cluster::form(&Plan::servers(3).clients(2));
    cluster.wait_for_catalog(&["c0", "c1", "s0", "s1", "s2"]);
    cluster.agents[4].kill();
    let took = cluster.wait_for_state(4, "failed");
    println!("all saw it failed after {took:?}");
    assert!(took <= NOTICED, "{took:?}\n{}", cluster.logs());
    // The catalog follows, and the node stays in it.
    cluster::until(cluster::PATIENCE, "the catalog shows it", || {
        let checks = cluster.agents[0].look("/v1/health/node/c1")?;
        if checks[0]["Status"] == "critical" {
            Ok(())
        } else {
            Err(checks.to_string())
        }
    });
    for agent in cluster.agents.iter().filter(|agent| agent.runs()) {
        assert_eq!(agent.members("alive").unwrap().len(), 4);
    }
}
