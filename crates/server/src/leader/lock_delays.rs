//! Lock-delays begin when the leader has seen what caused them.
//!
//! The entry that ends a session bears the time at which it was proposed. It may be on its way for seconds, if a disk
//! hangs or a majority is hard to reach, and all that time whoever holds a lock with that session can read that it does.
//! So the delay of what it held runs from a second entry, which is proposed once the first was applied here.
//! A leader that doesn't come to that leaves it to the next one: until then such keys can't be locked at all.

use std::pin::pin;
use std::time::Duration;

use model::Command;

use crate::core::Core;
use crate::write::propose;

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Lets delays begin, for ever.
pub(super) async fn run(core: &Core) {
    loop {
        let mut news = pin!(core.delayed.notified());
        // Enrolled before looking, so that nothing slips in between.
        news.as_mut().enable();
        let Some(upto) = core.shared.view().lock_delays_wait_until() else {
            news.await;
            continue;
        };
        if let Err(error) = propose(core, Command::LockDelaysBegin(upto)).await {
            tracing::warn!("cannot let lock-delays begin: {error}; trying again in {RETRY:?}");
            tokio::time::sleep(RETRY).await;
        }
    }
}
