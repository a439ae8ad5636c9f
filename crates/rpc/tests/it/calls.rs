//! Requests and messages of the log.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::Error;
use rpc::{CallError, Calls as _, Hop, Refusal, Request, Response};

use crate::member::{Listening, get, pool, put, server, until, value};

#[tokio::test]
async fn a_call_is_answered() {
    let listening = Listening::start().await;
    let pool = pool();
    assert_eq!(value(&pool, &listening.server, "color").await, b"color");
    let pong = pool
        .call(&listening.server, Hop::First, Request::Ping)
        .await;
    assert!(matches!(pong, Ok(Response::Ping)));
    let write = pool.call(&listening.server, Hop::Forwarded, put("a", vec![1]));
    assert!(matches!(write.await, Ok(Response::Write(_))));
    pool.shutdown().await;
    let late = pool
        .call(&listening.server, Hop::First, Request::Ping)
        .await;
    assert!(matches!(late, Err(CallError::NotSent(_))));
}

#[tokio::test]
async fn a_refusal_keeps_its_kind() {
    let listening = Listening::start().await;
    let request = Request::Read(model::AclList.into(), rpc::ReadOptions::default());
    let refused = pool().call(&listening.server, Hop::First, request).await;
    assert_eq!(
        refused.unwrap_err(),
        CallError::Refused(Refusal::Failed(Error::PermissionDenied))
    );
}

#[tokio::test]
async fn long_messages_go_both_ways_and_keep_nobody_waiting() {
    let listening = Listening::start().await;
    let pool = pool();
    let long = format!("long/{}", 20 << 20);
    let (answer, short) = tokio::join!(
        value(&pool, &listening.server, &long),
        value(&pool, &listening.server, "short"),
    );
    assert_eq!((answer.len(), &*short), (20 << 20, &b"short"[..]));
    let write = put("k", vec![1; 5 << 20]);
    pool.call(&listening.server, Hop::First, write)
        .await
        .unwrap();
    let write = put("k", vec![1; 9 << 20]);
    let refused = pool.call(&listening.server, Hop::First, write).await;
    assert!(matches!(
        refused,
        Err(CallError::Refused(Refusal::Failed(Error::Invalid(_))))
    ));
}

#[tokio::test]
async fn messages_of_the_log_have_their_own_connection() {
    let listening = Listening::start().await;
    let pool = pool();
    for size in [0, 1, 65_536, 65_537, 256 << 10, 5 << 20] {
        let answer = pool
            .log_message(listening.server.address, "s1", Bytes::from(vec![1; size]))
            .await
            .unwrap();
        let size = u64::try_from(size).unwrap();
        assert_eq!(*answer, size.to_le_bytes());
    }
}

#[tokio::test]
async fn what_cannot_connect_was_not_sent() {
    let mut listening = Listening::start().await;
    let address = listening.server.address;
    listening.stop().await;
    let pool = pool();
    for _ in 0..3 {
        let error = pool
            .call(&server(address), Hop::First, put("a", vec![]))
            .await
            .unwrap_err();
        let text = format!("failed to get conn: dial tcp {address}: connection refused");
        assert_eq!(error, CallError::NotSent(text));
    }
}

#[tokio::test]
async fn who_goes_away_is_waited_for_no_more() {
    let listening = Listening::start().await;
    let (pool, echo) = (pool(), &listening.member.0);
    let mut call = pool.call(&listening.server, Hop::First, get("k", 1));
    tokio::select! {
        biased;
        answer = &mut call => panic!("nothing has changed: {answer:?}"),
        () = until(|| echo.waiting.load(Ordering::SeqCst) == 1) => {}
    }
    drop(call);
    until(|| echo.waiting.load(Ordering::SeqCst) == 0).await;
}
