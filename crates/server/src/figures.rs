//! What a server counts and times, under the original's names.
//!
//! Each figure is looked up once, since some of them are used for every request; those with a service's name in them are not.

use std::sync::LazyLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use model::{Answer, Command, KvVerb, Question, Text};
use tokio::time::Instant;

type Count = LazyLock<Counter>;
type Timing = LazyLock<Histogram>;

/// Questions that are answered here, each time that one is looked into.
pub(crate) static QUERIES: Count = LazyLock::new(|| counter!("consul.rpc.query"));
/// Reads that had to make sure first that this server leads.
pub(crate) static CONSISTENT: Timing = LazyLock::new(|| histogram!("consul.rpc.consistentRead"));
/// Tokens that were looked up.
pub(crate) static TOKENS: Timing = LazyLock::new(|| histogram!("consul.acl.resolveToken"));
/// A new leader catching up.
pub(crate) static BARRIER: Timing = LazyLock::new(|| histogram!("consul.leader.barrier"));
/// The leader looking at all members.
pub(crate) static RECONCILE: Timing = LazyLock::new(|| histogram!("consul.leader.reconcile"));
/// The leader attending to a member.
pub(crate) static MEMBER: Timing = LazyLock::new(|| histogram!("consul.leader.reconcileMember"));
/// The leader forgetting old deletions.
pub(crate) static REAP: Timing = LazyLock::new(|| histogram!("consul.leader.reapTombstones"));

/// Renewals, on the leader.
pub(crate) static RENEW: Timing = LazyLock::new(|| histogram!("consul.session.renew"));
/// Sessions whose time is up, on the leader.
pub(crate) static EXPIRE: Timing = LazyLock::new(|| histogram!("consul.session_ttl.invalidate"));
/// How many sessions have a timer at this server, which then leads.
pub(crate) static TIMERS: LazyLock<Gauge> = LazyLock::new(|| gauge!("consul.session_ttl.active"));

static KVS: Timing = LazyLock::new(|| histogram!("consul.kvs.apply"));
static TXN: Timing = LazyLock::new(|| histogram!("consul.txn.apply"));
static TXN_READ: Timing = LazyLock::new(|| histogram!("consul.txn.read"));
static SESSION: Timing = LazyLock::new(|| histogram!("consul.session.apply"));
static ACL: Timing = LazyLock::new(|| histogram!("consul.acl.apply"));
static QUERY: Timing = LazyLock::new(|| histogram!("consul.prepared-query.apply"));
static QUERY_EXECUTE: Timing = LazyLock::new(|| histogram!("consul.prepared-query.execute"));
static QUERY_ELSEWHERE: Timing =
    LazyLock::new(|| histogram!("consul.prepared-query.execute_remote"));
static QUERY_EXPLAIN: Timing = LazyLock::new(|| histogram!("consul.prepared-query.explain"));
static REGISTER: Timing = LazyLock::new(|| histogram!("consul.catalog.register"));
static DEREGISTER: Timing = LazyLock::new(|| histogram!("consul.catalog.deregister"));

static FSM_REGISTER: Timing = LazyLock::new(|| histogram!("consul.fsm.register"));
static FSM_DEREGISTER: Timing = LazyLock::new(|| histogram!("consul.fsm.deregister"));
static FSM_TXN: Timing = LazyLock::new(|| histogram!("consul.fsm.txn"));
static FSM_SET: Timing = LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "set"));
static FSM_CAS: Timing = LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "cas"));
static FSM_LOCK: Timing = LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "lock"));
static FSM_UNLOCK: Timing = LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "unlock"));
static FSM_DELETE: Timing = LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "delete"));
static FSM_TREE: Timing = LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "delete-tree"));
static FSM_DELETE_CAS: Timing =
    LazyLock::new(|| histogram!("consul.fsm.kvs", "op" => "delete-cas"));
static FSM_CREATE: Timing = LazyLock::new(|| histogram!("consul.fsm.session", "op" => "create"));
static FSM_DESTROY: Timing = LazyLock::new(|| histogram!("consul.fsm.session", "op" => "destroy"));
static FSM_DELAYS: Timing = LazyLock::new(|| histogram!("consul.fsm.lock-delay", "op" => "begin"));
static FSM_ACL_SET: Timing = LazyLock::new(|| histogram!("consul.fsm.acl", "op" => "set"));
static FSM_ACL_DELETE: Timing = LazyLock::new(|| histogram!("consul.fsm.acl", "op" => "delete"));
static FSM_REAP: Timing = LazyLock::new(|| histogram!("consul.fsm.tombstone", "op" => "reap"));
static FSM_COORDINATES: Timing = LazyLock::new(|| histogram!("consul.fsm.coordinate.batch-update"));
static FSM_QUERY_CREATE: Timing =
    LazyLock::new(|| histogram!("consul.fsm.prepared-query", "op" => "create"));
static FSM_QUERY_UPDATE: Timing =
    LazyLock::new(|| histogram!("consul.fsm.prepared-query", "op" => "update"));
static FSM_QUERY_DELETE: Timing =
    LazyLock::new(|| histogram!("consul.fsm.prepared-query", "op" => "delete"));
static FSM_RESTORE: Timing = LazyLock::new(|| histogram!("consul.fsm.restore"));

/// Notes how long something took that began then, in milliseconds as all of the original's figures.
pub(crate) fn note(timing: &Histogram, began: Instant) {
    timing.record(began.elapsed().as_secs_f64() * 1000.0);
}

/// How long the leader takes for a command, from its arrival there until it is applied; nothing where the original has no name for it.
pub(crate) fn accepted(command: &Command) -> Option<&'static Histogram> {
    Some(match command {
        Command::Kv(_) => &KVS,
        Command::Txn(_) => &TXN,
        Command::SessionCreate(_) | Command::SessionDestroy(_) => &SESSION,
        Command::AclSet(_) | Command::AclDelete(_) => &ACL,
        Command::QuerySet(_) | Command::QueryDelete(_) => &QUERY,
        Command::Register(_) => &REGISTER,
        Command::Deregister(_) => &DEREGISTER,
        Command::Coordinates(_)
        | Command::SessionExpire { .. }
        | Command::LockDelaysBegin(_)
        | Command::TombstoneReap(_)
        | Command::RestoreBegin(_)
        | Command::RestoreChunk(_)
        | Command::RestoreCommit(_) => return None,
    })
}

/// How long the state takes to change.
pub(crate) fn applied(command: &Command) -> &'static Histogram {
    match command {
        Command::Register(_) => &FSM_REGISTER,
        Command::Deregister(_) => &FSM_DEREGISTER,
        Command::Kv(op) => match op.verb {
            KvVerb::Set => &FSM_SET,
            KvVerb::Cas(_) => &FSM_CAS,
            KvVerb::Lock(_) => &FSM_LOCK,
            KvVerb::Unlock(_) => &FSM_UNLOCK,
            KvVerb::Delete => &FSM_DELETE,
            KvVerb::DeleteTree => &FSM_TREE,
            KvVerb::DeleteCas(_) => &FSM_DELETE_CAS,
            // They stand in transactions only.
            KvVerb::Get | KvVerb::GetTree | KvVerb::CheckIndex(_) | KvVerb::CheckSession(_) => {
                &FSM_TXN
            }
        },
        Command::Txn(_) => &FSM_TXN,
        Command::SessionCreate(_) => &FSM_CREATE,
        Command::SessionDestroy(_) | Command::SessionExpire { .. } => &FSM_DESTROY,
        Command::LockDelaysBegin(_) => &FSM_DELAYS,
        Command::AclSet(_) => &FSM_ACL_SET,
        Command::AclDelete(_) => &FSM_ACL_DELETE,
        Command::QuerySet(set) if set.create => &FSM_QUERY_CREATE,
        Command::QuerySet(_) => &FSM_QUERY_UPDATE,
        Command::QueryDelete(_) => &FSM_QUERY_DELETE,
        Command::Coordinates(_) => &FSM_COORDINATES,
        Command::TombstoneReap(_) => &FSM_REAP,
        Command::RestoreBegin(_) | Command::RestoreChunk(_) | Command::RestoreCommit(_) => {
            &FSM_RESTORE
        }
    }
}

/// Counts what was asked about, by service; `began` is when.
pub(crate) fn answered(question: &Question, answer: &Answer, began: Instant) {
    match (question, answer) {
        (Question::TxnRead(_), _) => note(&TXN_READ, began),
        (Question::QueryExecute(_), _) => note(&QUERY_EXECUTE, began),
        (Question::QueryElsewhere(_), _) => note(&QUERY_ELSEWHERE, began),
        (Question::QueryExplain(_), _) => note(&QUERY_EXPLAIN, began),
        (Question::CatalogService(asked), Answer::CatalogService(found)) => {
            let service = || name(&asked.service);
            counter!("consul.catalog.service.query", "service" => service()).increment(1);
            if let Some(tag) = &asked.tag {
                counter!("consul.catalog.service.query-tag", "service" => service(), "tag" => name(tag)).increment(1);
            }
            if found.is_empty() {
                counter!("consul.catalog.service.not-found", "service" => service()).increment(1);
            }
        }
        (Question::ServiceLookup(asked), Answer::ServiceLookup(found)) => {
            of_health(&asked.service, asked.tag.as_ref(), !found.is_any);
        }
        (Question::HealthService(asked), Answer::HealthService(found)) => {
            of_health(&asked.service, asked.tag.as_ref(), found.is_empty());
        }
        _ => {}
    }
}

/// Counts a question about healthy instances of a service.
fn of_health(service: &Text, tag: Option<&Text>, is_missing: bool) {
    counter!("consul.health.service.query", "service" => name(service)).increment(1);
    if let Some(tag) = tag {
        counter!("consul.health.service.query-tag", "service" => name(service), "tag" => name(tag))
            .increment(1);
    }
    if is_missing {
        counter!("consul.health.service.not-found", "service" => name(service)).increment(1);
    }
}

fn name(text: &Text) -> String {
    text.to_lossy().into_owned()
}
