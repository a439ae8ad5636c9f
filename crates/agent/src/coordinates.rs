//! This node's place in the space of round-trip times, told to the servers from time to time.

use std::time::Duration;

use gossip::Gossip;
use model::{NodeCoordinate, Operation, Text};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::{Cluster, OperateOptions};

use crate::Neighbours;
use crate::pool::Pool;

/// The shortest time between two updates; the original does the same.
const INTERVAL_MIN: Duration = Duration::from_secs(15);

/// How many updates all nodes together send in a second, whatever their number.
const UPDATES_PER_SECOND: u32 = 64;

/// Tells the servers where this node is, until it is dropped.
///
/// An update that gets lost is made good by the next one.
pub async fn tell(cluster: Cluster, gossip: Gossip, token: Text, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let node = Text::from(gossip.local().name);
    let pool = Pool::new(gossip.clone(), 0);
    loop {
        let interval = interval(gossip.members_count());
        // Spread out, so that agents that were started together don't speak together.
        tokio::time::sleep(interval + interval.mul_f64(chance.random_range(0.0..1.0))).await;
        let Some(coord) = pool.coordinate() else {
            continue;
        };
        let node = node.clone();
        let update = Operation::UpdateCoordinate(Box::new(NodeCoordinate { node, coord }));
        let options = OperateOptions {
            token: token.clone(),
            ..OperateOptions::default()
        };
        if let Err(error) = cluster.operate(update, options).await {
            tracing::debug!("cannot tell the servers where this node is: {error}");
        }
    }
}

/// How long to wait at least in a pool of that size.
fn interval(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    INTERVAL_MIN.max(Duration::from_secs(1) * members / UPDATES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pools_speak_less_often() {
        assert_eq!(interval(1), Duration::from_secs(15));
        assert_eq!(interval(960), Duration::from_secs(15));
        assert_eq!(interval(6400), Duration::from_secs(100));
    }
}
