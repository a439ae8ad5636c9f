//! Which servers a client agent asks, and in which order.
//!
//! The list comes from gossip; the first one is asked, and whoever fails goes to the end.
//! Every few minutes the order is drawn anew, so that servers that were restarted get their share of the agents again.
//! All of this is a function of what it is told and of a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::ServerAddress;

/// The shortest time between two draws.
const REBALANCE_MIN: Duration = Duration::from_secs(120);

/// As much as this is added at random, so that agents that started together don't draw together.
const REBALANCE_JITTER: Duration = Duration::from_secs(60);

/// How many agents per second may come anew to one server because of the draws.
const NEW_CONNECTIONS_PER_SECOND: u64 = 64;

/// The servers that an agent knows, in the order in which it asks them.
#[derive(Debug)]
pub struct Servers {
    list: Vec<ServerAddress>,
    chance: StdRng,
}

impl Servers {
    /// Knows nobody yet.
    pub fn new(seed: u64) -> Self {
        Self {
            list: Vec::new(),
            chance: StdRng::seed_from_u64(seed),
        }
    }

    /// A server is there, or is elsewhere now: servers are told apart by the names of their nodes.
    ///
    /// A new one gets a place at random, or all agents would ask the last one last.
    pub fn add(&mut self, server: ServerAddress) {
        if let Some(known) = self.list.iter_mut().find(|known| is_same(known, &server)) {
            *known = server;
            return;
        }
        let place = self.chance.random_range(0..=self.list.len());
        self.list.insert(place, server);
    }

    /// A server has failed or left.
    pub fn remove(&mut self, node: &str) {
        self.list.retain(|known| known.node != node);
    }

    /// These are the servers, and no others. Those that were known keep their places.
    pub fn set(&mut self, servers: Vec<ServerAddress>) {
        self.list
            .retain(|known| servers.iter().any(|server| is_same(known, server)));
        for server in servers {
            self.add(server);
        }
    }

    /// Whom to ask; `None` if no server is known.
    pub fn head(&self) -> Option<&ServerAddress> {
        self.list.first()
    }

    /// All that are known, in the order in which they are asked.
    pub fn all(&self) -> &[ServerAddress] {
        &self.list
    }

    /// This one did not answer as it should: others are asked before it from now on.
    ///
    /// Nothing happens if it isn't the first any more, because many calls fail when one server does.
    pub fn failed(&mut self, server: &ServerAddress) {
        if self.head() == Some(server) {
            self.list.rotate_left(1);
        }
    }

    /// Another order, to be tried from its beginning; [`Self::prefer`] makes it the order.
    pub fn draw(&mut self) -> Vec<ServerAddress> {
        let mut drawn = self.list.clone();
        drawn.shuffle(&mut self.chance);
        drawn
    }

    /// This is the order of those that are still known. Servers that came meanwhile keep their places at the end.
    pub fn prefer(&mut self, order: &[ServerAddress]) {
        let place = |server: &ServerAddress| {
            let place = order.iter().position(|known| is_same(known, server));
            place.unwrap_or(order.len())
        };
        self.list.sort_by_key(place);
    }

    /// How long to keep the order, in a pool of so many members.
    pub fn rebalance_after(&mut self, members: usize) -> Duration {
        let jitter = REBALANCE_JITTER.mul_f64(self.chance.random());
        let servers = u64::try_from(self.list.len()).unwrap_or(u64::MAX).max(1);
        let members = u64::try_from(members).unwrap_or(u64::MAX);
        let stretched =
            Duration::from_secs(members / NEW_CONNECTIONS_PER_SECOND.saturating_mul(servers));
        (REBALANCE_MIN + jitter).max(stretched)
    }

    /// A pause between two rounds of attempts, at random up to `max`.
    pub(crate) fn pause(&mut self, max: Duration) -> Duration {
        max.mul_f64(self.chance.random())
    }
}

fn is_same(a: &ServerAddress, b: &ServerAddress) -> bool {
    a.node == b.node && a.datacenter == b.datacenter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(node: &str) -> ServerAddress {
        ServerAddress {
            address: ([127, 0, 0, 1], 8300).into(),
            node: node.to_owned(),
            datacenter: "dc1".to_owned(),
        }
    }

    fn servers(nodes: &[&str]) -> Servers {
        let mut servers = Servers::new(7);
        for node in nodes {
            servers.add(server(node));
        }
        servers
    }

    fn names(servers: &Servers) -> Vec<&str> {
        servers.all().iter().map(|s| &*s.node).collect()
    }

    #[test]
    fn who_fails_goes_to_the_end_once() {
        let mut servers = servers(&["a", "b", "c"]);
        let first = servers.head().unwrap().clone();
        let rest: Vec<_> = servers.all()[1..].to_vec();
        servers.failed(&first);
        servers.failed(&first);
        assert_eq!(servers.all(), [&rest[..], &[first]].concat());
        assert_eq!(Servers::new(1).head(), None);
    }

    #[test]
    fn gossip_adds_moves_and_removes() {
        let mut servers = servers(&["a", "b", "c"]);
        let order: Vec<_> = servers.all().to_vec();
        let mut moved = server("b");
        moved.address.set_port(9300);
        servers.add(moved.clone());
        let expected: Vec<_> = order
            .iter()
            .map(|server| if server.node == "b" { &moved } else { server })
            .collect();
        assert_eq!(servers.all().iter().collect::<Vec<_>>(), expected);
        servers.remove("b");
        assert_eq!(servers.all().len(), 2);
        servers.set(vec![server("d"), server("a")]);
        let mut known = names(&servers);
        known.sort_unstable();
        assert_eq!(known, ["a", "d"]);
    }

    #[test]
    fn a_new_order_keeps_whoever_came_meanwhile() {
        let mut servers = servers(&["a", "b", "c"]);
        let order = vec![server("c"), server("a"), server("b")];
        servers.add(server("d"));
        servers.remove("a");
        servers.prefer(&order);
        assert_eq!(names(&servers), ["c", "b", "d"]);
        let mut drawn = servers.draw();
        drawn.sort();
        assert_eq!(drawn, [server("b"), server("c"), server("d")]);
    }

    #[test]
    fn agents_spread_over_the_servers_from_their_seeds() {
        let mut heads = std::collections::BTreeMap::new();
        for seed in 0..300 {
            let mut servers = Servers::new(seed);
            servers.set(vec![server("a"), server("b"), server("c")]);
            *heads
                .entry(servers.head().unwrap().node.clone())
                .or_insert(0) += 1;
        }
        assert!(heads.values().all(|count| *count > 60), "{heads:?}");
    }

    #[test]
    fn no_server_gets_more_than_64_new_connections_a_second() {
        let mut three = servers(&["a", "b", "c"]);
        for (members, least) in [(10, 120), (20_000, 120), (192_000, 1000), (1_000_000, 5208)] {
            let after = three.rebalance_after(members);
            assert!(after.as_secs() >= least, "{members}: {after:?}");
            assert!(
                after.as_secs() < least.max(121) + 61,
                "{members}: {after:?}"
            );
        }
        assert!(Servers::new(1).rebalance_after(5) >= REBALANCE_MIN);
    }
}
