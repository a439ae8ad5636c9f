//! A thousand members.

use std::time::Duration;

use gossip::Status;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use crate::pool::{Pool, address, config, simulate};

const SIZE: usize = 1000;

/// From the start of the first until all agree.
const FORMED_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_thousand_form_one_pool_within_thirty_seconds() {
    simulate(async {
        let seed = 1;
        let begun = Instant::now();
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let mut pool = Pool::new(seed);
        for index in 0..SIZE {
            pool.add(config(seed, index)).await;
        }
        // Each joins through one of the first three, at some moment within five seconds.
        let mut joins = tokio::task::JoinSet::new();
        for index in 1..SIZE {
            let member = pool.members[index].clone();
            let to = address(chance.random_range(0..3.min(index)));
            let delay = Duration::from_millis(chance.random_range(0..5000));
            joins.spawn(async move {
                sleep(delay).await;
                member.join(&[to], false).await
            });
        }
        while let Some(joined) = joins.join_next().await {
            assert_eq!(joined.unwrap().reached, 1);
        }
        let took = pool.wait_for_all(Status::Alive, begun).await;
        println!("{took:?}, {} packets", pool.net.delivered());
        assert!(took <= FORMED_WITHIN, "{took:?}");
        let failures = pool.failures(0..SIZE);
        assert!(failures.is_empty(), "{failures:?}");
    });
}
