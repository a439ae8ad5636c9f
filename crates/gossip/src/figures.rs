//! What gossip counts, under the original's names: those of its two layers, `memberlist` and `serf`.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::item::Item;

type Count = LazyLock<Counter>;
type Sample = LazyLock<Histogram>;

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

/// Probes that began while this member was not well itself.
pub(crate) static DEGRADED_PROBE: Count = LazyLock::new(|| counter!("memberlist.degraded.probe"));
/// Members that were declared down with fewer witnesses than were hoped for.
pub(crate) static DEGRADED_TIMEOUT: Count =
    LazyLock::new(|| counter!("memberlist.degraded.timeout"));

static PROBED: Sample = LazyLock::new(|| histogram!("memberlist.probeNode"));
static COMPARED: Sample = LazyLock::new(|| histogram!("memberlist.pushPullNode"));
static SENT: Sample = LazyLock::new(|| histogram!("serf.msgs.sent"));
static RECEIVED: Sample = LazyLock::new(|| histogram!("serf.msgs.received"));

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

/// Counts a probe that was answered after so long, or never and was given up.
pub(crate) fn probed(took: Duration) {
    PROBED.record(milliseconds(took));
}

/// Counts a comparison with another member, from the request to the answer.
pub(crate) fn compared(took: Duration) {
    COMPARED.record(milliseconds(took));
}

/// Counts a good-bye or a user event of so many bytes that comes up here to be passed on.
pub(crate) fn passed_on(bytes: usize) {
    SENT.record(count(bytes));
}

/// Counts one that came from another member.
pub(crate) fn received(bytes: usize) {
    RECEIVED.record(count(bytes));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A count as a sample takes it.
#[expect(clippy::cast_precision_loss, reason = "a packet has a few kB")]
fn count(bytes: usize) -> f64 {
    bytes as f64
}
