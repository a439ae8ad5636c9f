//! What only the whole program can count, under the original's names: its memory and tasks, calls of other members, and who leads.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use consensus::Leadership;
use futures::future::BoxFuture;
use gossip::Gossip;
use metrics::Counter;
use rpc::{
    ByteStream, Hop, Refusal, Request, Response, RestoreOptions, Restored, Save, SaveOptions, Serve,
};
use server::Server;
use tokio::runtime::Handle;

/// How often the figures that stand by themselves are looked at: once in each bucket of those that are kept.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks at the figures again and again.
pub(super) async fn look(gossip: Gossip, server: Option<Arc<Server>>) {
    let tasks = Handle::current().metrics();
    loop {
        metrics::gauge!("runtime.num_goroutines").set(small(tasks.num_alive_tasks()));
        if let Some(bytes) = memory("VmRSS:") {
            metrics::gauge!("runtime.sys_bytes").set(small(bytes));
        }
        if let Some(bytes) = memory("RssAnon:") {
            metrics::gauge!("runtime.alloc_bytes").set(small(bytes));
        }
        let stats = gossip.stats();
        metrics::gauge!("memberlist.health.score").set(f64::from(stats.health_score));
        metrics::histogram!("serf.queue.Event").record(small(stats.event_queue));
        metrics::histogram!("serf.queue.Intent").record(small(stats.intent_queue));
        metrics::histogram!("serf.queue.Query").record(small(stats.query_queue));
        if let Some(server) = &server {
            let log = server.status().log;
            if let Some(ago) = log.last_contact {
                metrics::gauge!("raft.lastContact").set(ago.as_secs_f64() * 1000.0);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A count as a gauge takes it.
#[expect(clippy::cast_precision_loss, reason = "no machine has so much")]
fn small(count: usize) -> f64 {
    count as f64
}

/// The memory of a kind that this process occupies, in bytes, where the system tells.
fn memory(kind: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind))?;
    let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Tells the log who leads and counts the changes, until the server has stopped.
pub(super) async fn follow_leaders(server: Arc<Server>) {
    let mut leadership = server.consensus().leadership();
    let mut before = Leadership::default();
    loop {
        let now = leadership.borrow_and_update().clone();
        if let Some(line) = news(&before, &now) {
            tracing::info!("{line}");
        }
        if now.is_leader != before.is_leader {
            metrics::counter!(if now.is_leader {
                "raft.state.leader"
            } else {
                "raft.state.follower"
            })
            .increment(1);
        }
        before = now;
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// What a change of leaders is to a server that doesn't lead; one that does tells it itself.
fn news(before: &Leadership, now: &Leadership) -> Option<String> {
    let term = now.term;
    match (&before.leader, &now.leader) {
        _ if now.is_leader => None,
        (_, None) if before.is_leader => Some(format!("this server leads no longer; term {term}")),
        (Some(lost), None) => Some(format!(
            "no leader: server '{}' leads no longer; term {term}",
            lost.name
        )),
        (before, Some(leader)) if before.as_ref() != Some(leader) => {
            Some(format!("following server '{}' in term {term}", leader.name))
        }
        _ => None,
    }
}

/// Counts what other members ask of a server.
pub(super) struct Counted(pub(super) Arc<dyn Serve>);

/// Made once: somebody asks for each request.
static REQUESTS: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("consul.rpc.request"));

impl Serve for Counted {
    fn serve(&self, hop: Hop, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        REQUESTS.increment(1);
        self.0.serve(hop, request)
    }

    fn save(&self, hop: Hop, options: SaveOptions) -> BoxFuture<'static, Result<Save, Refusal>> {
        REQUESTS.increment(1);
        self.0.save(hop, options)
    }

    fn restore(
        &self,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Refusal>> {
        REQUESTS.increment(1);
        self.0.restore(hop, options, archive)
    }

    fn log_message(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        self.0.log_message(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(leader: Option<&str>, is_leader: bool, term: u64) -> Leadership {
        let leader = leader.map(|name| consensus::Peer {
            id: term,
            name: name.to_owned(),
            address: "10.0.0.1:8300".to_owned(),
        });
        Leadership {
            is_leader,
            leader,
            term,
        }
    }

    #[test]
    fn followers_say_whom_they_follow() {
        let (none, a, b) = (
            at(None, false, 1),
            at(Some("a"), false, 1),
            at(Some("b"), false, 2),
        );
        let line = news(&none, &a).unwrap();
        assert_eq!(line, "following server 'a' in term 1");
        assert_eq!(news(&a, &a), None);
        assert_eq!(news(&none, &none), None);
        assert_eq!(news(&a, &b).unwrap(), "following server 'b' in term 2");
        let line = news(&b, &at(None, false, 3)).unwrap();
        assert_eq!(line, "no leader: server 'b' leads no longer; term 3");
        let leads = at(Some("me"), true, 4);
        assert_eq!(news(&none, &leads), None);
        let line = news(&leads, &at(None, false, 5)).unwrap();
        assert_eq!(line, "this server leads no longer; term 5");
    }

    #[test]
    fn this_process_occupies_memory() {
        assert!(memory("VmRSS:").is_none_or(|bytes| bytes > 1 << 20));
    }
}
