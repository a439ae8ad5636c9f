//! Leads whenever it holds a lock: as long as that is so it says when, so that somebody who listens to several of them
//! can tell whether two ever led at once.
//!
//! A line `held <fence> <nanoseconds>` claims that it led at this moment of the machine's clock; the clock is read
//! before the lock is looked at, so a pause in between can't make the claim a lie. `lost` says that it leads no more.

use std::io::Write as _;
use std::time::Duration;

use client::{Client, Config, Lock, LockOptions};
use rustix::time::{ClockId, clock_gettime};

/// How often it says that it leads.
const PACE: Duration = Duration::from_millis(5);

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, key, ttl, lock_delay] = words.as_slice() else {
        return Err("usage: contender ADDRESS KEY TTL_MS LOCK_DELAY_MS".into());
    };
    let client = Client::new(Config {
        address: address.parse()?,
        ..Config::default()
    })?;
    let mut options = LockOptions::new(key);
    options.new_session.ttl = Some(Duration::from_millis(ttl.parse()?));
    options.new_session.lock_delay = Some(Duration::from_millis(lock_delay.parse()?));
    options.retry_time = Duration::from_millis(200);
    let lock = Lock::new(&client, options);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(contend(&lock))
}

async fn contend(lock: &Lock) -> Result<(), Failed> {
    let mut out = std::io::stdout();
    loop {
        let held = lock.acquire().await?;
        loop {
            let now = now();
            if !held.is_held() {
                break;
            }
            writeln!(out, "held {} {now}", held.fence())?;
            tokio::time::sleep(PACE).await;
        }
        writeln!(out, "lost")?;
        // It may be that the servers can't be told either.
        drop(held.release().await);
    }
}

fn now() -> i128 {
    let time = clock_gettime(ClockId::Boottime);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
