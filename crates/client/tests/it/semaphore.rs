//! The recipe of a semaphore.

use std::time::Duration;

use client::{Cleanup, HeldSlot, LockError, Loss, SEMAPHORE_FLAGS, Semaphore, SemaphoreOptions};
use tokio::time::timeout;

use crate::servers::{Fault, PATIENCE, Servers};

const KEY: &str = "p/.lock";

fn semaphore(servers: &Servers, limit: u64) -> Semaphore {
    let mut options = SemaphoreOptions::new("p", limit);
    options.value = "me".into();
    Semaphore::new(&servers.client(), options)
}

async fn acquire(semaphore: &Semaphore) -> Result<HeldSlot, LockError> {
    timeout(PATIENCE, semaphore.acquire()).await.unwrap()
}

async fn lost(held: &HeldSlot) -> Loss {
    let loss = timeout(PATIENCE, held.lost()).await.unwrap();
    assert!(!held.is_held());
    loss
}

#[tokio::test]
async fn what_stands_in_the_keys() {
    let servers = Servers::start();
    let two = semaphore(&servers, 2);
    let (a, b) = (acquire(&two).await.unwrap(), acquire(&two).await.unwrap());
    assert!(a.is_held() && b.is_held());
    let flags = 16_210_313_421_097_356_768;
    let json = r#"{"Limit":2,"Holders":{"session-1":true,"session-2":true}}"#;
    assert_eq!(
        servers.key(KEY).unwrap(),
        (json.to_owned(), flags, String::new())
    );
    let contender = ("me".to_owned(), flags, "session-2".to_owned());
    assert_eq!(servers.key("p/session-2").unwrap(), contender);
    assert_eq!(servers.session("session-2")["Behavior"], "delete");
    assert!(matches!(
        two.clean_up().await,
        Err(LockError::InUse("semaphore"))
    ));

    assert!(a.release().await.unwrap() && b.release().await.unwrap());
    let json = r#"{"Limit":2,"Holders":{}}"#;
    assert_eq!(servers.key(KEY).unwrap().0, json);
    assert_eq!(servers.key("p/session-2"), None);
    assert_eq!(servers.sessions(), [""; 0]);
    assert_eq!(two.clean_up().await.unwrap(), Cleanup::Removed);
    assert_eq!(two.clean_up().await.unwrap(), Cleanup::Absent);
}

#[tokio::test]
async fn who_does_not_fit() {
    let servers = Servers::start();
    let held = acquire(&semaphore(&servers, 2)).await.unwrap();
    let why = acquire(&semaphore(&servers, 3))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(why, "semaphore limit conflict (lock: 2, local: 3)");
    assert_eq!(servers.sessions(), [held.session()]);
    held.release().await.unwrap();

    servers.set(KEY, "", 7, "");
    let why = acquire(&semaphore(&servers, 2))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(why, "Existing key does not match semaphore use");
    for value in [
        "nonsense",
        r#"{"Limit":-1}"#,
        r#"{"Limit":2,"Holders":[1]}"#,
    ] {
        servers.set(KEY, value, SEMAPHORE_FLAGS, "");
        let why = acquire(&semaphore(&servers, 2)).await.unwrap_err();
        assert!(matches!(why, LockError::Value(_)), "{value}: {why}");
    }
    // As it is written by a client that has removed the last holder.
    servers.set(KEY, r#"{"Limit":2,"Holders":null}"#, SEMAPHORE_FLAGS, "");
    acquire(&semaphore(&servers, 2)).await.unwrap();
}

#[tokio::test]
async fn a_slot_becomes_free_when_its_holder_goes_or_dies() {
    let servers = Servers::start();
    let one = semaphore(&servers, 1);
    let first = acquire(&one).await.unwrap();
    let wait = |semaphore: Semaphore| tokio::spawn(async move { acquire(&semaphore).await });
    let waiting = wait(one.clone());
    servers
        .has_been_asked("GET /v1/kv/p/?recurse=&index=", 1)
        .await;
    assert!(!waiting.is_finished());
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();

    let waiting = wait(one.clone());
    servers.has_been_asked("PUT /v1/kv/p/session-3", 1).await;
    servers.invalidate(second.session());
    let third = waiting.await.unwrap().unwrap();
    assert_eq!(lost(&second).await, Loss::Taken);
    assert!(!second.release().await.unwrap());
    assert!(third.is_held());

    // Who gives up leaves nothing behind.
    for time in [Duration::ZERO, Duration::from_millis(20)] {
        let taken = one.acquire_unless(std::future::pending(), Some(time)).await;
        assert!(taken.unwrap().is_none());
        assert_eq!(servers.sessions(), [third.session()]);
    }
    let json = r#"{"Limit":1,"Holders":{"session-3":true}}"#;
    assert_eq!(servers.key(KEY).unwrap().0, json);
}

#[tokio::test]
async fn a_race_is_run_again_and_a_failure_leaves_nothing() {
    let servers = Servers::start();
    let many = semaphore(&servers, 20);
    let all: Vec<_> = (0..20)
        .map(|_| {
            let many = many.clone();
            tokio::spawn(async move { acquire(&many).await })
        })
        .collect();
    for one in all {
        let held = one.await.unwrap().unwrap();
        assert!(held.is_held());
        held.release().await.unwrap();
    }
    servers.fail("PUT /v1/kv/p/.lock?", 1, Fault::LostAnswer);
    let why = acquire(&many).await.unwrap_err().to_string();
    assert!(
        why.starts_with("failed to update semaphore: Put http://"),
        "{why}"
    );
    let json = r#"{"Limit":20,"Holders":{}}"#;
    assert_eq!(servers.key(KEY).unwrap().0, json);
    assert_eq!(servers.sessions(), [""; 0]);
}
