//! Sessions that are kept alive, and those that can't be.

use std::time::Duration;

use client::{NewSession, Session, SessionBehavior, SessionEnd, WriteOptions};
use serde_json::json;
use tokio::time::timeout;

use crate::servers::{Fault, PATIENCE, Servers};

/// Short, where its end is waited for.
const SHORT: Duration = Duration::from_millis(300);

async fn open(servers: &Servers, ttl: Option<Duration>) -> Session {
    let wish = NewSession {
        name: "test".to_owned(),
        ttl,
        ..NewSession::default()
    };
    let opened = Session::open(&servers.client(), &wish, &WriteOptions::default()).await;
    opened.unwrap()
}

async fn end(session: &Session) -> SessionEnd {
    let end = timeout(PATIENCE, session.ended()).await.unwrap();
    assert!(!session.is_alive());
    end
}

#[tokio::test]
async fn what_is_asked_for() {
    let servers = Servers::start();
    let client = servers.client();
    let options = WriteOptions::default();
    let cases = [
        (NewSession::default(), json!({"Behavior": "release"})),
        (
            NewSession {
                name: "Consul API Lock".to_owned(),
                node: "n".to_owned(),
                checks: Some(Vec::new()),
                lock_delay: Some(Duration::ZERO),
                behavior: SessionBehavior::Delete,
                ttl: Some(Duration::from_secs(15)),
            },
            json!({
                "Name": "Consul API Lock", "Node": "n", "Checks": [], "LockDelay": "0ms", "Behavior": "delete",
                "TTL": "15s",
            }),
        ),
        (
            NewSession {
                checks: Some(vec!["web".to_owned()]),
                // A delay, however short, is not none.
                lock_delay: Some(Duration::from_nanos(1)),
                ..NewSession::default()
            },
            json!({"Checks": ["web"], "LockDelay": "1ms", "Behavior": "release"}),
        ),
    ];
    for (wish, asked) in cases {
        let id = client.session_create(&wish, &options).await.unwrap();
        assert_eq!(servers.session(&id), asked);
    }
    let renewed = client.session_renew("session-1", &options).await.unwrap();
    assert_eq!(renewed.unwrap().ttl, "15s");
    let renewed = client.session_renew("a/b", &options).await.unwrap();
    assert_eq!(renewed, None);
    assert_eq!(
        servers.asked().last().unwrap(),
        "PUT /v1/session/renew/a%2Fb"
    );
}

#[tokio::test]
async fn a_session_is_renewed_until_it_is_closed() {
    let servers = Servers::start();
    let session = open(&servers, Some(Duration::from_millis(200))).await;
    servers
        .has_been_asked("PUT /v1/session/renew/session-1", 3)
        .await;
    session.close().await.unwrap();
    assert_eq!(servers.sessions(), [""; 0]);
    let asked = servers.asked();
    assert_eq!(asked.last().unwrap(), "PUT /v1/session/destroy/session-1");

    // One without a TTL needs no renewal, and lives for ever.
    let session = open(&servers, None).await;
    assert!(session.is_alive());
    timeout(Duration::from_millis(20), session.ended())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn servers_that_fail_for_a_while_end_nothing() {
    let servers = Servers::start();
    servers.fail("PUT /v1/session/renew", 3, Fault::Status(500));
    servers.fail("PUT /v1/session/renew", 1, Fault::LostAnswer);
    let session = open(&servers, Some(Duration::from_secs(4))).await;
    servers.has_been_asked("PUT /v1/session/renew", 6).await;
    assert!(session.is_alive());
}

#[tokio::test]
async fn a_session_that_is_gone_has_ended() {
    let servers = Servers::start();
    let session = open(&servers, Some(SHORT)).await;
    servers.invalidate(session.id());
    // Only a machine that stands still finds it expired first.
    assert!(matches!(
        end(&session).await,
        SessionEnd::Gone | SessionEnd::Expired
    ));
}

#[tokio::test]
async fn a_session_that_cannot_be_renewed_has_ended_before_its_time() {
    for fault in [Fault::Status(500), Fault::Silence, Fault::LostAnswer] {
        let servers = Servers::start();
        servers.fail("PUT /v1/session/renew", usize::MAX, fault);
        let opened = std::time::Instant::now();
        let session = open(&servers, Some(SHORT)).await;
        assert_eq!(end(&session).await, SessionEnd::Expired, "{fault:?}");
        assert!(opened.elapsed() >= SHORT * 9 / 10, "{fault:?}");
        // It was tried more than once, even where an attempt was never answered.
        let tries = servers.asked().len() - 1;
        assert!(tries >= 2, "{fault:?}: {tries}");
        servers.heal();
        assert!(!session.is_alive());
    }
}

#[tokio::test]
async fn a_process_that_stood_still_knows_before_it_asks() {
    let servers = Servers::start();
    let session = open(&servers, Some(SHORT)).await;
    // Nothing runs on this runtime meanwhile: no timer, no renewal.
    let start = std::time::Instant::now();
    while start.elapsed() < SHORT {
        std::thread::park_timeout(SHORT);
    }
    assert!(!session.is_alive());
    // The servers still have it, and would renew it; that changes nothing any more.
    assert_eq!(servers.sessions(), [session.id()]);
    assert_eq!(end(&session).await, SessionEnd::Expired);
}
