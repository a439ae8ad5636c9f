//! What gossip counts, under the original's names: those of its two layers, `memberlist` and `serf`.

use std::sync::LazyLock;

use metrics::{Counter, counter};

use crate::item::Item;

type Count = LazyLock<Counter>;

/// Bytes of datagrams that were sent.
pub(crate) static UDP_SENT: Count = LazyLock::new(|| counter!("memberlist.udp.sent"));
/// Bytes of datagrams that came.
pub(crate) static UDP_RECEIVED: Count = LazyLock::new(|| counter!("memberlist.udp.received"));
/// Connections that were taken.
pub(crate) static TCP_ACCEPT: Count = LazyLock::new(|| counter!("memberlist.tcp.accept"));
/// Connections that were made.
pub(crate) static TCP_CONNECT: Count = LazyLock::new(|| counter!("memberlist.tcp.connect"));
/// Bytes that were sent on connections.
pub(crate) static TCP_SENT: Count = LazyLock::new(|| counter!("memberlist.tcp.sent"));

static ALIVE: Count = LazyLock::new(|| counter!("memberlist.msg.alive"));
static SUSPECT: Count = LazyLock::new(|| counter!("memberlist.msg.suspect"));
static DEAD: Count = LazyLock::new(|| counter!("memberlist.msg.dead"));

/// Counts news that came in.
pub(crate) fn heard(item: &Item) {
    match item {
        Item::Alive(_) => ALIVE.increment(1),
        Item::Suspect(_) => SUSPECT.increment(1),
        Item::Down(_) => DEAD.increment(1),
        Item::Leave(_) | Item::User(_) | Item::Nack { .. } | Item::Who | Item::Coordinate(_) => {}
    }
}
