//! Agents that run well, with a network between them that does not.

use cluster::relay::{Flow, Link};
use cluster::{Chance, Clients, Cluster, Plan, What};

#[test]
fn a_leader_behind_a_partition_is_replaced_and_nobody_reads_what_is_past() {
    let mut chance = Chance::seeded();
    let cluster = Cluster::form(&Plan::servers(3).routed());
    cluster.wait_for_voters(&[0, 1, 2]);
    let relays = cluster.relays.as_ref().unwrap();
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(100);
    let mut isolated = Vec::new();
    for link in [Link::STALLED, Link::CUT] {
        let leader = cluster.leader();
        isolated.push(leader);
        relays.isolate(leader, link);
        clients.avoid(Some(leader));
        let first = clients.wait_for_write_after(clients.now());
        println!("{:?}: first write elsewhere after {first:?}", link.flow);
        clients.wait_for_writes(200);
        relays.heal();
        clients.avoid(None);
        cluster.wait_until_writable();
        clients.wait_for_writes(50);
        // Only who asks the one that is alone hears that nobody leads.
        for error in clients.errors() {
            let is_held_in_vain =
                isolated.contains(&error.place) && error.answer.contains("No cluster leader");
            assert!(is_held_in_vain, "{error:?}\n{}", cluster.logs());
        }
        if link.flow == Flow::Stalled {
            cluster.wait_for_members(3);
        }
    }
    clients.judge(&cluster);
    cluster.wait_for_voters(&[0, 1, 2]);
}

#[test]
fn a_leader_that_is_not_heard_is_replaced() {
    one_way(false);
}

/// Its heartbeats arrive, so that nobody else would think of an election, but no answer comes back.
#[test]
fn a_leader_that_hears_nobody_makes_room() {
    one_way(true);
}

fn one_way(is_heard: bool) {
    let mut chance = Chance::seeded();
    let cluster = Cluster::form(&Plan::servers(3).routed());
    cluster.wait_for_voters(&[0, 1, 2]);
    let relays = cluster.relays.as_ref().expect("a cluster with relays");
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(50);
    let leader = cluster.leader();
    for other in (0..3).filter(|at| *at != leader) {
        let (from, to) = if is_heard {
            (other, leader)
        } else {
            (leader, other)
        };
        relays.set(from, to, Link::STALLED);
    }
    clients.avoid(Some(leader));
    let first = clients.wait_for_write_after(clients.now());
    println!("first write elsewhere after {first:?}");
    clients.wait_for_writes(50);
    relays.heal();
    clients.avoid(None);
    cluster.wait_until_writable();
    clients.judge(&cluster);
}

#[test]
fn a_poor_network_slows_a_cluster_and_breaks_nothing() {
    let mut chance = Chance::seeded();
    let cluster = Cluster::form(&Plan::servers(3).routed());
    let relays = cluster.relays.as_ref().unwrap();
    relays.set_all(Link::POOR);
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(300);
    // Datagrams that are late, lost or doubled must not make anybody look dead.
    cluster.wait_for_members(3);
    let errors = clients.errors();
    assert!(errors.is_empty(), "{errors:#?}\n{}", cluster.logs());
    relays.heal();
    clients.judge(&cluster);
    cluster.wait_for_members(3);
}
