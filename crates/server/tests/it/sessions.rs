//! Sessions end when nobody renews them and not before, whoever leads meanwhile; what they held stays locked for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{
    CatalogNode, Command, Error, KvOp, KvVerb, Node, Operated, Operation, Registration, Reply,
    Session, SessionInfo, SessionStanding, Text, Uuid, parse_uuid,
};
use rpc::{Cluster, Consistency, OperateOptions, ReadOptions, WriteOptions};
use server::WallClock;
use tokio::time::{Instant, sleep};

use crate::setup::{Alone, config};
use crate::trio::Trio;

const TTL: Duration = Duration::from_secs(10);

const NODE: &str = "holder";

fn register() -> Command {
    let node = Node {
        name: Text::from(NODE),
        address: Text::from("10.1.0.1"),
        ..Node::default()
    };
    Command::Register(Box::new(Registration {
        node,
        ..Registration::default()
    }))
}

fn create(ttl: &str, lock_delay: Duration) -> Command {
    Command::SessionCreate(Box::new(Session {
        node: Text::from(NODE),
        ttl: Text::from(ttl),
        lock_delay: i64::try_from(lock_delay.as_nanos()).unwrap(),
        ..Session::default()
    }))
}

fn lock(id: Uuid) -> Command {
    Command::Kv(KvOp {
        verb: KvVerb::Lock(Text::from(id.to_string())),
        key: Text::from("lock"),
        value: Text::default(),
        flags: 0,
    })
}

async fn write(cluster: &Cluster, command: Command) -> Result<Reply, Error> {
    cluster.write(command, WriteOptions::default()).await
}

async fn begin(cluster: &Cluster, ttl: &str, lock_delay: Duration) -> Uuid {
    write(cluster, register()).await.unwrap();
    match write(cluster, create(ttl, lock_delay)).await {
        Ok(Reply::Id(id)) => parse_uuid(&id).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn renew(cluster: &Cluster, id: Uuid) -> Result<Option<Arc<Session>>, Error> {
    let operated = cluster.operate(Operation::SessionRenew(id), OperateOptions::default());
    match operated.await? {
        Operated::Session(session) => Ok(session),
        other => panic!("{other:?}"),
    }
}

async fn look(cluster: &Cluster, id: Uuid, consistency: Consistency) -> Option<SessionStanding> {
    let options = ReadOptions {
        consistency,
        ..ReadOptions::default()
    };
    let found = cluster.read(SessionInfo { id }, options).await;
    found.unwrap().answer
}

/// How long it takes from now until the session is gone.
async fn end_of(cluster: &Cluster, id: Uuid) -> Duration {
    let began = Instant::now();
    while look(cluster, id, Consistency::Default).await.is_some() {
        sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

fn about(found: Duration, expected: Duration) {
    assert!(
        found >= expected.saturating_sub(Duration::from_millis(50))
            && found <= expected + Duration::from_millis(1500),
        "{found:?} is not {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_not_renewed_ends_after_twice_its_ttl() {
    let server = Alone::start(config("one")).await;
    let cluster = &server.cluster;
    let id = begin(cluster, "10s", Duration::ZERO).await;
    let for_ever = begin(cluster, "", Duration::ZERO).await;
    about(end_of(cluster, id).await, TTL * 2);
    assert_eq!(renew(cluster, id).await, Ok(None), "it is gone");

    let id = begin(cluster, "10s", Duration::ZERO).await;
    for _ in 0..7 {
        sleep(TTL + Duration::from_secs(5)).await;
        let session = renew(cluster, id).await.unwrap().unwrap();
        assert_eq!((session.id, &*session.ttl), (id, &b"10s"[..]));
    }
    about(end_of(cluster, id).await, TTL * 2);
    let session = renew(cluster, for_ever).await.unwrap();
    assert!(session.is_some(), "without a TTL there is nothing to renew");
}

#[tokio::test(start_paused = true)]
async fn the_time_left_is_told() {
    let server = Alone::start(config("one")).await;
    let cluster = &server.cluster;
    let id = begin(cluster, "10s", Duration::ZERO).await;
    sleep(Duration::from_secs(4)).await;
    let left = |standing: Option<SessionStanding>| standing.unwrap().left;
    let found = left(look(cluster, id, Consistency::Default).await).unwrap();
    about(found, Duration::from_secs(16));
    renew(cluster, id).await.unwrap();
    let found = left(look(cluster, id, Consistency::Stale).await).unwrap();
    about(found, TTL * 2);
    let for_ever = begin(cluster, "0s", Duration::ZERO).await;
    assert_eq!(
        left(look(cluster, for_ever, Consistency::Default).await),
        None
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_gives_all_their_time() {
    let mut trio = Trio::start(3).await;
    let first = trio.leader().await;
    let cluster = trio.cluster(first);
    let id = begin(&cluster, "10s", Duration::ZERO).await;
    sleep(Duration::from_secs(14)).await;
    let follower = trio.follower().await;
    let stale = look(&trio.cluster(follower), id, Consistency::Stale).await;
    assert_eq!(stale.unwrap().left, None, "only the leader knows");
    let session = renew(&trio.cluster(follower), id).await.unwrap();
    assert!(session.is_some(), "the leader is asked");
    sleep(Duration::from_secs(18)).await;
    trio.kill(first).await;
    let second = trio.leader().await;
    about(end_of(&trio.cluster(second), id).await, TTL * 2);
}

#[tokio::test(start_paused = true)]
async fn a_restore_gives_all_their_time() {
    let server = Alone::start(config("one")).await;
    let cluster = &server.cluster;
    let id = begin(cluster, "10s", Duration::ZERO).await;
    let (_, archive) = server.save().await;
    // Gone before the restore, and there again.
    let gone = begin(cluster, "10s", Duration::ZERO).await;
    sleep(Duration::from_secs(17)).await;
    server.restore(&archive).await.unwrap();
    assert_eq!(look(cluster, gone, Consistency::Default).await, None);
    about(end_of(cluster, id).await, TTL * 2);
    server.restore(&archive).await.unwrap();
    sleep(Duration::from_secs(15)).await;
    assert!(renew(cluster, id).await.unwrap().is_some());
    about(end_of(cluster, id).await, TTL * 2);
}

#[tokio::test(start_paused = true)]
async fn many_end_together() {
    const MANY: usize = 2000;
    let server = Alone::start(config("one")).await;
    let cluster = &server.cluster;
    let mut ids = Vec::new();
    for _ in 0..MANY {
        ids.push(begin(cluster, "10s", Duration::ZERO).await);
    }
    let kept = ids.pop().unwrap();
    sleep(Duration::from_secs(15)).await;
    renew(cluster, kept).await.unwrap();
    // All came within one simulated second, and go within one.
    sleep(Duration::from_secs(7)).await;
    for id in ids {
        assert_eq!(look(cluster, id, Consistency::Default).await, None);
    }
    assert!(look(cluster, kept, Consistency::Default).await.is_some());
}

/// A clock on the wall that shows what it is told to.
struct Wall(AtomicU64);

impl WallClock for Wall {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_delay_lasts_as_long_as_it_says_whatever_the_wall_clock_does() {
    const NOW: u64 = 1_800_000_000_000;
    let wall = Arc::new(Wall(AtomicU64::new(NOW)));
    let server = Alone::start_by(config("one"), wall.clone()).await;
    let cluster = &server.cluster;
    let me = CatalogNode {
        node: Text::from("one"),
    };
    server.wait(me, 1, TTL).await;
    let delay = Duration::from_secs(15);
    for jump in [3_600_000_i64, -7_200_000] {
        let first = begin(cluster, "", delay).await;
        let second = begin(cluster, "", Duration::ZERO).await;
        let held = write(cluster, lock(first)).await;
        assert_eq!(held, Ok(Reply::Applied(true)));
        write(cluster, Command::SessionDestroy(first))
            .await
            .unwrap();
        let began = Instant::now();
        let shown = NOW.checked_add_signed(jump).unwrap();
        wall.0.store(shown, Ordering::Relaxed);
        loop {
            match write(cluster, lock(second)).await {
                Ok(Reply::Applied(true)) => break,
                Ok(Reply::Applied(false)) => sleep(Duration::from_millis(100)).await,
                other => panic!("{other:?}"),
            }
        }
        about(began.elapsed(), delay);
        write(cluster, Command::SessionDestroy(second))
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_else_can_say_that_time_is_up() {
    let server = Alone::start(config("one")).await;
    let id = begin(&server.cluster, "", Duration::ZERO).await;
    for command in [
        Command::SessionExpire { id, term: 1 },
        Command::LockDelaysBegin(99),
    ] {
        let refused = write(&server.cluster, command).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let standing = look(&server.cluster, id, Consistency::Default).await;
    assert!(standing.is_some());
}
