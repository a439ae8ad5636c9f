//! User events: fired by any server, with or without a leader, and heard in the whole pool.

use gossip::Event;
use model::{Error, EventFilters, NewEvent, Operated, Operation, Text, Uuid};
use rpc::OperateOptions;
use tokio::time::timeout;

use crate::trio::{SOON, Trio};

fn deploy(payload: &[u8]) -> NewEvent {
    NewEvent {
        name: "deploy".into(),
        payload: payload.into(),
        filters: EventFilters::default(),
    }
}

async fn fire(trio: &Trio, id: u64, event: &NewEvent) -> Result<Uuid, Error> {
    let operation = Operation::FireEvent(Box::new(event.clone()));
    match trio.operate(id, operation, false).await? {
        Operated::Fired(id) => Ok(id),
        other => panic!("{other:?}"),
    }
}

/// The next user event that a member hears.
async fn heard(events: &mut gossip::Events) -> model::UserEvent {
    let next = async {
        loop {
            if let Some(Event::User(event)) = events.next().await
                && let Some(decoded) = rpc::event::decode(&event.name, &event.payload)
            {
                return decoded.unwrap();
            }
        }
    };
    timeout(SOON, next).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn everybody_hears_of_it_also_without_a_leader() {
    let mut trio = Trio::expecting(3).await;
    trio.leader().await;
    let mut told: Vec<_> = trio
        .pool
        .values()
        .map(|member| member.subscribe())
        .collect();
    let event = deploy(b"v2");
    let first = fire(&trio, 2, &event).await.unwrap();
    for events in &mut told {
        assert_eq!(heard(events).await, event.fired(first));
    }
    drop(told);

    trio.kill(1).await;
    trio.kill(2).await;
    let mut told = trio.pool[&3].subscribe();
    let second = fire(&trio, 3, &event).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(heard(&mut told).await, event.fired(second));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_hear_is_refused() {
    let trio = Trio::expecting(1).await;
    fire(&trio, 1, &deploy(&[b'x'; 430])).await.unwrap();
    let named = |name: &[u8]| NewEvent {
        name: Text::from(name),
        ..deploy(b"")
    };
    let filtered = NewEvent {
        filters: EventFilters {
            node: "(".into(),
            ..EventFilters::default()
        },
        ..deploy(b"")
    };
    for (event, why) in [
        (
            deploy(&[b'x'; 450]),
            "user event exceeds limit of 512 bytes",
        ),
        (named(b""), "User event missing name"),
        (named(b"\xff"), "user event name is not valid UTF-8"),
        (named(b"a\nb"), "user event name has control characters"),
        (
            filtered,
            "Invalid node filter: error parsing regexp: missing closing ): `(`",
        ),
    ] {
        let refused = fire(&trio, 1, &event).await;
        assert_eq!(refused, Err(Error::invalid(why)), "{event:?}");
    }

    let elsewhere = OperateOptions {
        datacenter: "dc9".into(),
        ..OperateOptions::default()
    };
    let operation = Operation::FireEvent(Box::new(deploy(b"")));
    let refused = trio.cluster(1).operate(operation, elsewhere).await;
    assert_eq!(refused, Err(Error::NoPath));
}
