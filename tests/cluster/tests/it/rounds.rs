//! Whatever chance brings, for as long as it is asked to: `cargo xtask cluster --rounds N --seed S`.

use cluster::relay::Link;
use cluster::{Chance, Clients, Cluster, Plan, What, number};

/// What goes wrong in a round.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    KillLeader,
    KillFollower,
    KillAll,
    Pause,
    Wipe,
    Isolate,
    Cut,
    OneWay,
    Poor,
    Nothing,
}

const TROUBLE: [Trouble; 10] = [
    Trouble::KillLeader,
    Trouble::KillFollower,
    Trouble::KillAll,
    Trouble::Pause,
    Trouble::Wipe,
    Trouble::Isolate,
    Trouble::Cut,
    Trouble::OneWay,
    Trouble::Poor,
    Trouble::Nothing,
];

/// So much trouble comes over one cluster before another is made.
const TROUBLES: u64 = 4;

#[test]
fn promises_are_kept_whatever_goes_wrong() {
    let rounds = number("CLUSTER_ROUNDS").unwrap_or(1);
    let mut chance = Chance::seeded();
    for round in 0..rounds {
        let servers = if chance.percent(25) { 5 } else { 3 };
        println!("round {round}: {servers} servers");
        go_through(&mut chance, servers);
    }
}

fn go_through(chance: &mut Chance, servers: usize) {
    let mut cluster = Cluster::form(&Plan::servers(servers).clients(1).routed());
    let all: Vec<usize> = (0..servers).collect();
    cluster.wait_for_voters(&all);
    let clients = Clients::start(&cluster.addresses(), servers, What::ALL, chance);
    for _ in 0..TROUBLES {
        clients.wait_for_writes(chance.between(20, 150));
        let trouble = TROUBLE[chance.place(TROUBLE.len())];
        println!("  {trouble:?}");
        let before = clients.errors().len();
        meet(&mut cluster, chance, &clients, trouble);
        // Healthy again before the next.
        clients.avoid(None);
        if let Some(relays) = &cluster.relays {
            relays.heal();
        }
        for at in 0..servers {
            if !cluster.agents[at].runs() {
                cluster.start(at);
            }
        }
        cluster.wait_until_writable();
        cluster.wait_for_voters(&all);
        clients.wait_for_write_after(clients.now());
        for error in clients.errors().iter().skip(before) {
            println!("    {error:?}");
        }
    }
    let (restores, saves) = clients.bulk();
    println!(
        "  {restores} restores, {saves} snapshots, {} without an answer",
        clients.unknown()
    );
    clients.calm();
    clients.judge(&cluster);
}

fn meet(cluster: &mut Cluster, chance: &mut Chance, clients: &Clients, trouble: Trouble) {
    let leader = cluster.leader();
    let any = chance.place(cluster.servers);
    let follower = (leader + 1 + chance.place(cluster.servers - 1)) % cluster.servers;
    let relays = cluster.relays.as_ref().expect("a cluster with relays");
    let further = chance.between(20, 100);
    let goes_on = || {
        clients.wait_for_write_after(clients.now());
        clients.wait_for_writes(further);
    };
    match trouble {
        Trouble::KillLeader => {
            cluster.agents[leader].kill();
            goes_on();
        }
        Trouble::KillFollower => {
            cluster.agents[follower].kill();
            goes_on();
        }
        Trouble::KillAll => {
            for at in 0..cluster.servers {
                cluster.agents[at].kill();
            }
        }
        Trouble::Pause => {
            cluster.agents[any].pause();
            clients.avoid(Some(any));
            goes_on();
            cluster.agents[any].resume();
        }
        Trouble::Wipe => {
            cluster.agents[follower].kill();
            cluster.agents[follower].wipe();
            goes_on();
        }
        Trouble::Isolate => {
            relays.isolate(any, Link::STALLED);
            clients.avoid(Some(any));
            goes_on();
        }
        Trouble::Cut => {
            relays.isolate(any, Link::CUT);
            clients.avoid(Some(any));
            goes_on();
        }
        Trouble::OneWay => {
            let is_heard = chance.percent(50);
            for other in (0..cluster.servers).filter(|at| *at != leader) {
                if is_heard {
                    relays.set(other, leader, Link::STALLED);
                } else {
                    relays.set(leader, other, Link::STALLED);
                }
            }
            clients.avoid(Some(leader));
            goes_on();
        }
        Trouble::Poor => {
            relays.set_all(Link::POOR);
            goes_on();
        }
        Trouble::Nothing => goes_on(),
    }
}
