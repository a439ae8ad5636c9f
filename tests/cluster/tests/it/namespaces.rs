//! Each server in a network of its own, with a cable that can be pulled: nothing is refused or closed then, packets
//! are just gone, for connections as well as for datagrams.
//!
//! That takes a machine on which one may make network namespaces. Where one may not, the test says so and is content.

use std::net::Ipv4Addr;
use std::process::Command;

use cluster::{Chance, Clients, Cluster, Home, Plan, Ports, What};

/// Tells the test that it runs in a network of its own.
const INSIDE: &str = "CLUSTER_INSIDE";

const NAME: &str = "namespaces::a_leader_whose_cable_is_pulled_is_replaced";

/// A folder for the names of networks, and a bridge to plug the cables into.
const BRIDGE: &str = "mount -t tmpfs none /run && mkdir -p /run/netns && ip link set lo up \
    && ip link add bridge type bridge && ip addr add 10.9.0.254/24 dev bridge && ip link set bridge up";

fn sh(script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-ec", script]).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// A network with the server of that number in it.
fn plug(number: u8) -> String {
    let address = address(number);
    format!(
        "ip netns add net{number}
         ip link add cable{number} type veth peer name eth0 netns net{number}
         ip link set cable{number} master bridge up
         ip netns exec net{number} ip link set lo up
         ip netns exec net{number} ip addr add {address}/24 dev eth0
         ip netns exec net{number} ip link set eth0 up"
    )
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number + 1)
}

#[test]
fn a_leader_whose_cable_is_pulled_is_replaced() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let probe = format!("unshare -rnm sh -ec '{BRIDGE}\n{}'", plug(0));
    if let Err(why) = sh(&probe) {
        println!("skipped: no network namespaces on this machine: {why}");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("-rnm")
        .arg(test)
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success());
}

fn inside() {
    sh(BRIDGE).expect("it worked a moment ago");
    let homes = (0..3).map(|number| {
        sh(&plug(number)).expect("it worked a moment ago");
        Home {
            address: address(number),
            // Nobody else is there: what is free here is free there.
            ports: Ports::free(Ipv4Addr::LOCALHOST),
            wrapping: ["ip", "netns", "exec", &format!("net{number}")]
                .map(ToOwned::to_owned)
                .to_vec(),
        }
    });
    let mut chance = Chance::seeded();
    let cluster = Cluster::form(&Plan::servers(3).at(homes.collect()));
    cluster.wait_for_voters(&[0, 1, 2]);
    let clients = Clients::start(&cluster.addresses(), 3, What::KEYS, &mut chance);
    clients.wait_for_writes(100);
    let leader = cluster.leader();
    sh(&format!("ip link set cable{leader} down")).expect("it is there");
    clients.avoid(Some(leader));
    let first = clients.wait_for_write_after(clients.now());
    println!("first write elsewhere after {first:?}");
    clients.wait_for_writes(200);
    for error in clients.errors() {
        assert_eq!(error.place, leader, "{error:?}\n{}", cluster.logs());
    }
    cluster.wait_for_state(leader, "failed");
    sh(&format!("ip link set cable{leader} up")).expect("it is there");
    clients.avoid(None);
    cluster.wait_until_writable();
    cluster.wait_for_members(3);
    clients.wait_for_writes(50);
    clients.judge(&cluster);
    cluster.wait_for_voters(&[0, 1, 2]);
}
