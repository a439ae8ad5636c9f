//! The recipe of a lock, and what becomes of it when servers fail.

use std::sync::Arc;
use std::time::Duration;

use client::{
    Cleanup, HeldLock, LOCK_FLAGS, Lock, LockError, LockOptions, Loss, NewSession, Session,
    SessionEnd, WriteOptions,
};
use tokio::time::timeout;

use crate::servers::{Fault, PATIENCE, Servers};

const KEY: &str = "p/.lock";

fn lock(servers: &Servers, change: impl FnOnce(&mut LockOptions)) -> Lock {
    let mut options = LockOptions::new(KEY);
    change(&mut options);
    Lock::new(&servers.client(), options)
}

async fn acquire(lock: &Lock) -> Result<HeldLock, LockError> {
    timeout(PATIENCE, lock.acquire()).await.unwrap()
}

async fn lost(held: &HeldLock) -> Loss {
    let loss = timeout(PATIENCE, held.lost()).await.unwrap();
    assert!(!held.is_held());
    loss
}

/// What stands in the key.
fn stands(servers: &Servers) -> (String, u64, String) {
    servers.key(KEY).unwrap()
}

#[tokio::test]
async fn what_stands_in_the_key() {
    let servers = Servers::start();
    let lock = lock(&servers, |options| options.value = "me".into());
    let held = acquire(&lock).await.unwrap();
    assert!(held.is_held());
    assert_eq!((held.session(), held.lock_index()), ("session-1", 1));
    let expected = (
        "me".to_owned(),
        3_304_740_253_564_472_344,
        "session-1".to_owned(),
    );
    assert_eq!(stands(&servers), expected);
    assert!(matches!(
        lock.clean_up().await,
        Err(LockError::InUse("lock"))
    ));

    let before = held.fence();
    assert!(held.release().await.unwrap());
    assert_eq!(stands(&servers).2, "");
    assert_eq!(servers.sessions(), [""; 0]);
    let held = acquire(&lock).await.unwrap();
    assert_eq!(held.lock_index(), 2);
    assert!(held.fence() > before);
    held.release().await.unwrap();
    assert_eq!(lock.clean_up().await.unwrap(), Cleanup::Removed);
    assert_eq!(lock.clean_up().await.unwrap(), Cleanup::Absent);
}

#[tokio::test]
async fn a_key_that_is_used_for_something_else() {
    let servers = Servers::start();
    let lock = lock(&servers, |_| ());
    servers.set(KEY, "", 7, "");
    for failed in [
        acquire(&lock).await.map(drop),
        lock.clean_up().await.map(drop),
    ] {
        let why = failed.unwrap_err().to_string();
        assert_eq!(why, "Existing key does not match lock use");
    }
    assert_eq!(servers.sessions(), [""; 0]);
}

#[tokio::test]
async fn the_next_one_waits_its_turn() {
    let servers = Servers::start();
    let first = acquire(&lock(&servers, |_| ())).await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock(&servers, |_| ());
        async move { acquire(&lock).await }
    });
    servers.has_been_asked("GET /v1/kv/p/.lock?index=", 1).await;
    assert!(!waiting.is_finished() && first.is_held());
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    assert_eq!((second.session(), second.lock_index()), ("session-2", 2));
}

#[tokio::test]
async fn who_gives_up_leaves_nothing_behind() {
    let servers = Servers::start();
    let contender = lock(&servers, |_| ());
    let holder = acquire(&contender).await.unwrap();
    let forever = std::future::pending;
    // The time is up.
    for time in [Duration::ZERO, Duration::from_millis(30)] {
        let taken = contender.acquire_unless(forever(), Some(time)).await;
        assert!(taken.unwrap().is_none());
        assert_eq!(servers.sessions(), [holder.session()]);
    }
    // Somebody says stop.
    let asked = servers.asked().len();
    let stop = servers.has_been_asked("GET /v1/kv/p/.lock?index=", asked);
    let taken = contender
        .acquire_unless(
            async { timeout(Duration::from_millis(50), stop).await.unwrap_or(()) },
            None,
        )
        .await;
    assert!(taken.unwrap().is_none());
    assert_eq!(servers.sessions(), [holder.session()]);
    holder.release().await.unwrap();
    // It is tried once, however short the time.
    let taken = contender
        .acquire_unless(forever(), Some(Duration::ZERO))
        .await;
    let held = taken.unwrap().unwrap();
    held.release().await.unwrap();
    // And not at all by somebody who was told before.
    let taken = contender.acquire_unless(std::future::ready(()), None).await;
    assert!(taken.unwrap().is_none());
    assert_eq!(stands(&servers).2, "");
    assert_eq!(servers.sessions(), [""; 0]);
}

#[tokio::test]
async fn a_lock_delay_is_waited_for() {
    let servers = Servers::start();
    servers.delay(KEY, true);
    let contender = lock(&servers, |options| {
        options.retry_time = Duration::from_millis(50)
    });
    let waiting = tokio::spawn(async move { acquire(&contender).await });
    servers.has_been_asked("PUT /v1/kv/p/.lock?", 2).await;
    // Between two tries it waits, even if other keys change.
    servers.set("other", "", 0, "");
    servers.delay(KEY, false);
    let held = waiting.await.unwrap().unwrap();
    assert_eq!(held.lock_index(), 1);

    // A time that is up ends that wait too.
    servers.delay(KEY, true);
    held.release().await.unwrap();
    let contender = lock(&servers, |_| ());
    let time = Some(Duration::from_millis(20));
    let taken = contender.acquire_unless(std::future::pending(), time).await;
    assert!(taken.unwrap().is_none());
    assert_eq!(servers.sessions(), [""; 0]);
}

#[tokio::test]
async fn a_lock_that_is_taken_away_is_lost() {
    let servers = Servers::start();
    let contender = lock(&servers, |_| ());
    // The session is ended by somebody.
    let held = acquire(&contender).await.unwrap();
    servers.invalidate(held.session());
    assert_eq!(lost(&held).await, Loss::Taken);
    assert!(!held.release().await.unwrap());

    // The key is written by somebody who doesn't know of locks.
    let held = acquire(&contender).await.unwrap();
    servers.set(KEY, "", LOCK_FLAGS, "");
    assert_eq!(lost(&held).await, Loss::Taken);
    held.release().await.unwrap();

    // Another holds it.
    let held = acquire(&contender).await.unwrap();
    servers.set(KEY, "", LOCK_FLAGS, "another");
    assert_eq!(lost(&held).await, Loss::Taken);
    assert!(!held.release().await.unwrap());
    assert_eq!(stands(&servers).2, "another");
}

#[tokio::test]
async fn a_lock_that_nobody_can_see_is_lost() {
    let servers = Servers::start();
    let monitored = |retries| {
        lock(&servers, |options| {
            options.monitor_retries = retries;
            options.monitor_retry_time = Duration::from_millis(1);
        })
    };
    let reads = "GET /v1/kv/p/.lock?consistent=&index=";
    // The first read of the monitor waits; it is woken, and the next one fails.
    let fail = |count, fault| {
        servers.fail("GET /v1/kv/p/.lock?consistent=", count, fault);
        servers.set("wake", "", 0, "");
    };
    let mut waited = 0;
    for (retries, failures, fault) in [
        (0, 1, Fault::Status(500)),
        (2, 3, Fault::Status(500)),
        (3, 1, Fault::Status(403)),
        (3, 1, Fault::LostAnswer),
    ] {
        let held = acquire(&monitored(retries)).await.unwrap();
        waited += 1;
        servers.has_been_asked(reads, waited).await;
        fail(failures, fault);
        let loss = lost(&held).await;
        assert!(matches!(loss, Loss::Unseen(_)), "{fault:?}: {loss:?}");
        servers.heal();
        held.release().await.unwrap();
        waited = servers
            .asked()
            .iter()
            .filter(|line| line.starts_with(reads))
            .count();
    }
    // A few failures are taken.
    let held = acquire(&monitored(3)).await.unwrap();
    servers.has_been_asked(reads, waited + 1).await;
    fail(3, Fault::Status(500));
    servers.has_been_asked(reads, waited + 2).await;
    assert!(held.is_held());
}

#[tokio::test]
async fn a_lock_whose_session_cannot_be_renewed_is_lost() {
    let servers = Servers::start();
    let contender = lock(&servers, |options| {
        options.new_session.ttl = Some(Duration::from_millis(300));
    });
    servers.fail("PUT /v1/session/renew", usize::MAX, Fault::Silence);
    let held = acquire(&contender).await.unwrap();
    assert_eq!(lost(&held).await, Loss::Session(SessionEnd::Expired));
    // The servers still think that it is held.
    assert_eq!(stands(&servers).2, held.session());
    assert!(held.release().await.unwrap());
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_no_lock_behind() {
    let servers = Servers::start();
    let contender = lock(&servers, |_| ());
    servers.fail("PUT /v1/kv/p/.lock?", 1, Fault::LostAnswer);
    let why = acquire(&contender).await.unwrap_err().to_string();
    assert!(
        why.starts_with("failed to acquire lock: Put http://"),
        "{why}"
    );
    assert_eq!(stands(&servers).2, "");
    assert_eq!(servers.sessions(), [""; 0]);
}

#[tokio::test]
async fn a_session_may_hold_several_locks() {
    let servers = Servers::start();
    let wish = NewSession {
        ttl: Some(Duration::from_secs(15)),
        ..NewSession::default()
    };
    let session = Session::open(&servers.client(), &wish, &WriteOptions::default()).await;
    let session = Arc::new(session.unwrap());
    let mut all = Vec::new();
    for key in ["a", "b"] {
        let mut options = LockOptions::new(key);
        options.session = Some(Arc::clone(&session));
        let lock = Lock::new(&servers.client(), options);
        all.push(acquire(&lock).await.unwrap());
    }
    let b = all.pop().unwrap();
    b.release().await.unwrap();
    let a = all.pop().unwrap();
    assert!(a.is_held() && session.is_alive());
    servers.invalidate(session.id());
    assert_eq!(lost(&a).await, Loss::Taken);
}

#[tokio::test]
async fn who_waits_learns_that_its_session_has_ended() {
    let servers = Servers::start();
    let holder = acquire(&lock(&servers, |_| ())).await.unwrap();
    let contender = lock(&servers, |options| {
        options.new_session.ttl = Some(Duration::from_millis(300));
    });
    servers.fail(
        "PUT /v1/session/renew/session-2",
        usize::MAX,
        Fault::Status(500),
    );
    let why = acquire(&contender).await.unwrap_err();
    assert!(
        matches!(why, LockError::Session(SessionEnd::Expired)),
        "{why}"
    );
    assert_eq!(servers.sessions(), [holder.session()]);
}
