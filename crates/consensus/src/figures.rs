//! What a member of the log counts and times, under the original's names.

use std::sync::LazyLock;

use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;

use crate::raft::codec::Request;

type Count = LazyLock<Counter>;
type Timing = LazyLock<Histogram>;

/// Commands that were proposed here.
pub(crate) static APPLY: Count = LazyLock::new(|| counter!("raft.apply"));
/// From a proposal until it is committed and applied here.
pub(crate) static COMMIT: Timing = LazyLock::new(|| histogram!("raft.commitTime"));
/// Times that somebody wanted to know for sure that this server leads.
pub(crate) static VERIFY: Count = LazyLock::new(|| counter!("raft.verify_leader"));
/// A batch of committed entries that the state takes.
pub(crate) static FSM_APPLY: Timing = LazyLock::new(|| histogram!("raft.fsm.apply"));
/// Taking a view of the state for a checkpoint.
pub(crate) static FSM_SNAPSHOT: Timing = LazyLock::new(|| histogram!("raft.fsm.snapshot"));
/// Replacing the state by a leader's checkpoint.
pub(crate) static FSM_RESTORE: Timing = LazyLock::new(|| histogram!("raft.fsm.restore"));
/// Making a checkpoint, from the wish to its being there.
pub(crate) static SNAPSHOT: Timing = LazyLock::new(|| histogram!("raft.snapshot.takeSnapshot"));
/// Writing its file.
pub(crate) static PERSIST: Timing = LazyLock::new(|| histogram!("raft.snapshot.persist"));
/// Dropping the log behind it.
pub(crate) static COMPACT: Timing = LazyLock::new(|| histogram!("raft.compactLogs"));
/// A group of entries on its way to the disk, synced.
pub(crate) static DISPATCH: Timing = LazyLock::new(|| histogram!("raft.leader.dispatchLog"));
/// A vote that was asked for, until its answer.
pub(crate) static ELECT: Timing = LazyLock::new(|| histogram!("raft.candidate.electSelf"));
/// Elections that this server stands for.
pub(crate) static CANDIDATE: Count = LazyLock::new(|| counter!("raft.state.candidate"));
/// What made it stand: silence of the leader.
pub(crate) static SILENCE: Count = LazyLock::new(|| counter!("raft.transition.heartbeat_timeout"));

static APPEND: Timing = LazyLock::new(|| histogram!("raft.rpc.appendEntries"));
static HEARTBEAT: Timing = LazyLock::new(|| histogram!("raft.rpc.processHeartbeat"));
static VOTE: Timing = LazyLock::new(|| histogram!("raft.rpc.requestVote"));
static INSTALL: Timing = LazyLock::new(|| histogram!("raft.rpc.installSnapshot"));

/// Notes how long something took that began then, in milliseconds as all of the original's figures.
pub(crate) fn note(timing: &Histogram, began: Instant) {
    timing.record(began.elapsed().as_secs_f64() * 1000.0);
}

/// How long a message of a peer takes to be answered; nothing where the original has no such message.
pub(crate) fn asked(request: &Request) -> Option<&'static Histogram> {
    Some(match request {
        Request::Append(append) if append.entries.is_empty() => &HEARTBEAT,
        Request::Append(_) => &APPEND,
        Request::Vote(_) | Request::PreVote(_) => &VOTE,
        Request::Snapshot(_) => &INSTALL,
        Request::Transfer(_) | Request::Readmit { .. } | Request::Introduce(_) => return None,
    })
}

/// What a leader notes of one peer.
#[derive(Clone)]
pub(crate) struct OfPeer {
    /// A message of entries until its answer.
    pub(crate) append: Histogram,
    /// How many entries.
    pub(crate) entries: Counter,
    /// The same of a message without any.
    pub(crate) heartbeat: Histogram,
    /// A whole checkpoint.
    pub(crate) install: Histogram,
}

impl OfPeer {
    pub(crate) fn new(address: &str) -> Self {
        let peer = || address.to_owned();
        Self {
            append: histogram!("raft.replication.appendEntries.rpc", "peer_id" => peer()),
            entries: counter!("raft.replication.appendEntries.logs", "peer_id" => peer()),
            heartbeat: histogram!("raft.replication.heartbeat", "peer_id" => peer()),
            install: histogram!("raft.replication.installSnapshot", "peer_id" => peer()),
        }
    }
}
