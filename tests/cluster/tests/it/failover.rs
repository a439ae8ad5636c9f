//! Servers die, come back, and come back without their disks.

use std::time::Duration;

use cluster::{Chance, Clients, Cluster, Plan, What};

/// What the original needs. Ours needs less than half of it; `cargo xtask bench` holds it to that, where no other test
/// takes its processor time.
const FIRST_WRITE: Duration = Duration::from_secs(3);

#[test]
fn a_killed_leader_costs_no_acknowledged_write_and_no_error() {
    let mut chance = Chance::seeded();
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(200 + chance.between(0, 100));
    let leader = cluster.leader();
    cluster.agents[leader].kill();
    let first = clients.wait_for_write_after(clients.now());
    println!("first write after the kill: {first:?}");
    assert!(first < FIRST_WRITE, "{first:?}\n{}", cluster.logs());
    clients.wait_for_writes(200);
    // It catches up with what it has missed.
    cluster.start(leader);
    cluster.wait_until_writable();
    clients.wait_for_writes(100);
    let errors = clients.errors();
    assert!(errors.is_empty(), "{errors:#?}\n{}", cluster.logs());
    clients.judge(&cluster);
    cluster.wait_for_voters(&[0, 1, 2]);
}

#[test]
fn a_server_that_lost_its_disk_comes_back_as_a_new_voter() {
    let mut chance = Chance::seeded();
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(100);
    let follower = cluster.follower();
    let before = cluster.agents[follower].raft_id();
    cluster.agents[follower].kill();
    cluster.agents[follower].wipe();
    clients.wait_for_writes(100);
    cluster.start(follower);
    cluster.wait_for_voters(&[0, 1, 2]);
    cluster.wait_until_writable();
    let after = cluster.agents[follower].raft_id();
    assert_ne!(before, after, "a server without its log is another one");
    clients.wait_for_writes(100);
    // It counts: the two others are no majority without it.
    let other = (0..3).find(|at| ![follower, cluster.leader()].contains(at));
    cluster.agents[other.unwrap()].kill();
    clients.wait_for_writes(100);
    cluster.start(other.unwrap());
    cluster.wait_until_writable();
    let errors = clients.errors();
    assert!(errors.is_empty(), "{errors:#?}\n{}", cluster.logs());
    clients.judge(&cluster);
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_comes_back_humbly() {
    let mut chance = Chance::seeded();
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(100);
    let leader = cluster.leader();
    cluster.agents[leader].pause();
    clients.avoid(Some(leader));
    clients.wait_for_write_after(clients.now());
    clients.wait_for_writes(50);
    cluster.agents[leader].resume();
    clients.avoid(None);
    // Those that were under way when it stood still may be told that nobody knows; none is told anything else.
    clients.wait_for_writes(300);
    cluster.wait_for_members(3);
    let errors = clients.errors();
    assert!(errors.is_empty(), "{errors:#?}\n{}", cluster.logs());
    clients.judge(&cluster);
    // All stop when they are told to, and none stays behind.
    for agent in &mut cluster.agents {
        agent.terminate();
        assert_eq!(agent.end(), cluster::Ended::Exited(1));
    }
}
