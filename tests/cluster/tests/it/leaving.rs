//! Servers and agents leave.

use cluster::{Chance, Clients, Cluster, Ended, Plan, What, consul};

#[test]
fn a_follower_leaves_and_then_the_leader_and_writes_go_on() {
    let mut chance = Chance::seeded();
    // Servers don't leave when they are interrupted, unless they are told so.
    let settings = serde_json::json!({"skip_leave_on_interrupt": false});
    let mut cluster = Cluster::form(&Plan::servers(3).with(&settings));
    cluster.wait_for_voters(&[0, 1, 2]);
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(100);
    let follower = cluster.follower();
    cluster.agents[follower].interrupt();
    assert_eq!(cluster.agents[follower].end(), Ended::Exited(0));
    let left: Vec<usize> = (0..3).filter(|at| *at != follower).collect();
    cluster.wait_for_voters(&left);
    cluster.wait_for_state(follower, "left");
    clients.wait_for_writes(100);
    let leader = cluster.leader();
    let address = format!("-http-addr={}", cluster.agents[leader].spec.http());
    let told = consul(&["leave", &address]);
    assert_eq!(
        (told.code, told.out.trim()),
        (0, "Graceful leave complete"),
        "{}",
        told.err
    );
    assert_eq!(cluster.agents[leader].end(), Ended::Exited(0));
    let last = left.into_iter().find(|at| *at != leader).unwrap();
    cluster.wait_for_voters(&[last]);
    clients.wait_for_write_after(clients.now());
    clients.wait_for_writes(100);
    let errors = clients.errors();
    assert!(errors.is_empty(), "{errors:#?}\n{}", cluster.logs());
    let name = cluster.agents[last].spec.name.clone();
    // The sessions of the clients live on a node that no agent answers for.
    cluster.wait_for_catalog(&[&name, "holder"]);
    clients.judge(&cluster);
}

#[test]
fn a_client_that_leaves_is_forgotten_and_one_that_died_is_told_to_leave() {
    let mut cluster = Cluster::form(&Plan::servers(1).clients(2));
    cluster.wait_for_catalog(&["c0", "c1", "s0"]);
    cluster.agents[1].interrupt();
    assert_eq!(cluster.agents[1].end(), Ended::Exited(0));
    cluster.wait_for_catalog(&["c1", "s0"]);
    cluster.agents[2].kill();
    cluster.wait_for_state(2, "failed");
    let address = format!("-http-addr={}", cluster.agents[0].spec.http());
    let told = consul(&["force-leave", &address, "c1"]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    cluster.wait_for_catalog(&["s0"]);
    // Back again, it is a member like any other.
    cluster.start(2);
    cluster.wait_for_members(2);
    cluster.wait_for_catalog(&["c1", "s0"]);
}
