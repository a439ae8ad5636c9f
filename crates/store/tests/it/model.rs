//! The store against a naive model of it: lists and maps, a page per subject, written from the contract without a look at the store.
//!
//! Random commands go through both. After each, the replies, all rows, the indexes of the answers and the conditions of waiting must agree.

use proptest::prelude::*;
use store::{Found, Read, Store, Subscription, View, Watch};

use ::model::*;

use crate::archive::{restored, restored_at, written};
use crate::checkpoint::{checkpoint, installed};
use crate::naive::Naive;

const NODES: [&str; 4] = ["alpha", "Alpha", "beta", "gamma"];
const SERVICE_IDS: [&str; 3] = ["s1", "S1", "s2"];
const SERVICE_NAMES: [&str; 3] = ["web", "Web", "db"];
const CHECKS: [&str; 3] = ["c1", "C1", "c2"];
const STATUSES: [&str; 4] = ["passing", "warning", "critical", ""];
const KEYS: [&str; 6] = ["a", "a/b", "a/b/c", "ab", "b", "b\u{e9}"];
const PREFIXES: [&str; 5] = ["", "a", "a/", "b", "none"];
const TOKENS: [&str; 4] = ["t1", "T1", "anonymous", ""];
const QUERY_NAMES: [&str; 4] = ["q", "Q", "", "r"];

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = Text> {
    prop::sample::select(from).prop_map(Text::from)
}

fn session_id() -> impl Strategy<Value = Uuid> {
    (1_u128..5).prop_map(Uuid::from_u128)
}

fn query_id() -> impl Strategy<Value = Uuid> {
    (11_u128..14).prop_map(Uuid::from_u128)
}

fn typed_session() -> impl Strategy<Value = Text> {
    prop_oneof![
        12 => session_id().prop_map(|id| Text::from(id.to_string())),
        1 => Just(Text::default()),
        1 => Just(Text::from("no session")),
    ]
}

fn verb() -> impl Strategy<Value = KvVerb> {
    let index = || prop_oneof![Just(0), 1_u64..40];
    prop_oneof![
        6 => Just(KvVerb::Set),
        3 => index().prop_map(KvVerb::Cas),
        5 => typed_session().prop_map(KvVerb::Lock),
        2 => typed_session().prop_map(KvVerb::Unlock),
        2 => Just(KvVerb::Delete),
        1 => Just(KvVerb::DeleteTree),
        2 => index().prop_map(KvVerb::DeleteCas),
        1 => Just(KvVerb::Get),
        1 => Just(KvVerb::GetTree),
        1 => index().prop_map(KvVerb::CheckIndex),
        1 => typed_session().prop_map(KvVerb::CheckSession),
    ]
}

fn op() -> impl Strategy<Value = KvOp> {
    let key = prop_oneof![20 => pick(&KEYS), 1 => Just(Text::default())];
    let value = prop_oneof![Just(""), Just("v"), Just("other")];
    (verb(), key, value, 0_u64..3).prop_map(|(verb, key, value, flags)| KvOp {
        verb,
        key,
        value: Text::from(value),
        flags,
    })
}

fn check() -> impl Strategy<Value = Check> {
    let service = prop_oneof![Just(""), Just("s1"), Just("S2")];
    (
        prop_oneof![4 => Just(Text::default()), 1 => pick(&NODES)],
        pick(&CHECKS),
        pick(&STATUSES),
        service,
        0..2_u8,
    )
        .prop_map(|(node, check_id, status, service, output)| Check {
            node,
            check_id,
            status,
            service_id: Text::from(service),
            output: Text::from(output.to_string()),
            ..Check::default()
        })
}

fn registration() -> impl Strategy<Value = Registration> {
    let service = (
        pick(&SERVICE_IDS),
        pick(&SERVICE_NAMES),
        0..2_i64,
        prop::option::of(0..2_u8),
    )
        .prop_map(|(id, name, port, tag)| Service {
            id,
            name,
            port,
            tags: tag.map(|tag| vec![Text::from(format!("tag{tag}"))]),
            ..Service::default()
        });
    (
        pick(&NODES),
        0..2_u8,
        prop::option::of(service),
        prop::collection::vec(check(), 0..3),
    )
        .prop_map(|(name, address, service, checks)| Registration {
            node: Node {
                name,
                address: Text::from(format!("10.0.0.{address}")),
                ..Node::default()
            },
            service,
            checks,
        })
}

fn deregistration() -> impl Strategy<Value = Deregistration> {
    let what = prop_oneof![
        1 => Just(Deregister::Node),
        2 => pick(&SERVICE_IDS).prop_map(Deregister::Service),
        2 => pick(&CHECKS).prop_map(Deregister::Check),
    ];
    (pick(&NODES), what).prop_map(|(node, what)| Deregistration { node, what })
}

fn session() -> impl Strategy<Value = Session> {
    (
        session_id(),
        pick(&NODES),
        prop::collection::vec(pick(&CHECKS), 0..2),
        prop_oneof![Just(Behavior::Release), Just(Behavior::Delete)],
        prop_oneof![
            Just(0),
            Just(15_000_000_000),
            Just(1),
            Just(i64::MAX),
            Just(-5)
        ],
    )
        .prop_map(|(id, node, checks, behavior, lock_delay)| Session {
            id,
            node,
            checks,
            behavior,
            lock_delay,
            ..Session::default()
        })
}

fn token() -> impl Strategy<Value = AclToken> {
    let kind = prop_oneof![4 => Just(CLIENT), 2 => Just(MANAGEMENT), 1 => Just("else")];
    (pick(&TOKENS), kind, 0..2_u8).prop_map(|(id, kind, name)| AclToken {
        id,
        kind: Text::from(kind),
        name: Text::from(name.to_string()),
        ..AclToken::default()
    })
}

fn query() -> impl Strategy<Value = QuerySet> {
    (
        query_id(),
        pick(&QUERY_NAMES),
        prop::option::of(session_id()),
        any::<bool>(),
        prop::option::weighted(0.2, prop_oneof![Just("^(.*)$"), Just("(")]),
    )
        .prop_map(|(id, name, session, create, regexp)| QuerySet {
            query: PreparedQuery {
                id,
                name,
                session,
                template: regexp.map_or_else(QueryTemplate::default, |regexp| QueryTemplate {
                    kind: Text::from("name_prefix_match"),
                    regexp: Text::from(regexp),
                }),
                ..PreparedQuery::default()
            },
            create,
        })
}

fn coordinates() -> impl Strategy<Value = Vec<NodeCoordinate>> {
    let row = (pick(&NODES), 0..3).prop_map(|(node, n)| NodeCoordinate {
        node,
        coord: Coordinate {
            vec: vec![f64::from(n); 8],
            ..Coordinate::default()
        },
    });
    prop::collection::vec(row, 0..3)
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        14 => registration().prop_map(|it| Command::Register(Box::new(it))),
        4 => deregistration().prop_map(Command::Deregister),
        14 => op().prop_map(Command::Kv),
        4 => prop::collection::vec(op(), 0..4).prop_map(Command::Txn),
        8 => session().prop_map(|it| Command::SessionCreate(Box::new(it))),
        2 => session_id().prop_map(Command::SessionDestroy),
        1 => (session_id(), 1..3_u64).prop_map(|(id, term)| Command::SessionExpire { id, term }),
        2 => (0_u64..60).prop_map(Command::LockDelaysBegin),
        2 => token().prop_map(|it| Command::AclSet(Box::new(it))),
        1 => pick(&TOKENS).prop_map(|id| Command::AclDelete(TokenId(id))),
        4 => query().prop_map(|it| Command::QuerySet(Box::new(it))),
        1 => query_id().prop_map(Command::QueryDelete),
        2 => coordinates().prop_map(Command::Coordinates),
        1 => (0_u64..60).prop_map(Command::TombstoneReap),
    ]
}

pub(crate) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    // The clock of one leader may be behind that of the last.
    let entry = (0_u64..40_000, command()).prop_map(|(at_ms, command)| Entry { at_ms, command });
    prop::collection::vec(entry, 1..60)
}

/// Everything that can be asked about these names.
pub(crate) fn questions() -> Vec<Question> {
    let text = |name: &&str| Text::from(*name);
    let mut all: Vec<Question> = vec![
        CatalogNodes.into(),
        CatalogServices.into(),
        SessionList.into(),
        AclList.into(),
        QueryList.into(),
        CoordinateNodes.into(),
        CoordinateLookup {
            nodes: vec![Text::from("beta"), Text::from("ALPHA")],
        }
        .into(),
        HealthState {
            state: Text::from("any"),
        }
        .into(),
    ];
    all.extend(KEYS.iter().map(|key| KvGet { key: text(key) }.into()));
    all.extend(PREFIXES.iter().map(|prefix| {
        KvList {
            prefix: text(prefix),
        }
        .into()
    }));
    all.push(
        KvKeys {
            prefix: Text::from("a"),
            separator: Text::from("/"),
        }
        .into(),
    );
    for node in ["ALPHA", "beta", "never"] {
        let node = Text::from(node);
        all.push(CatalogNode { node: node.clone() }.into());
        all.push(HealthNode { node: node.clone() }.into());
        all.push(NodeLookup { node: node.clone() }.into());
        all.push(SessionNode { node }.into());
    }
    for service in ["WEB", "db", "never"] {
        let service = Text::from(service);
        all.push(
            HealthChecks {
                service: service.clone(),
            }
            .into(),
        );
        for tag in [None, Some(Text::from("TAG1"))] {
            all.push(
                CatalogService {
                    service: service.clone(),
                    tag: tag.clone(),
                }
                .into(),
            );
            for only_passing in [false, true] {
                all.push(everywhere(&service, tag.clone(), only_passing).into());
            }
            for passing_only in [false, true] {
                let (service, tag) = (service.clone(), tag.clone());
                all.push(
                    HealthService {
                        service,
                        tag,
                        passing_only,
                    }
                    .into(),
                );
            }
        }
    }
    all.extend(
        ["passing", "warning", "critical"]
            .iter()
            .map(|state| HealthState { state: text(state) }.into()),
    );
    all.extend((1..5).map(|id| {
        SessionInfo {
            id: Uuid::from_u128(id),
        }
        .into()
    }));
    all.extend((11..14).map(|id| {
        QueryGet {
            id: Uuid::from_u128(id),
        }
        .into()
    }));
    all.extend(
        ["t1", "T1"]
            .iter()
            .map(|id| AclInfo { id: text(id) }.into()),
    );
    all
}

/// All instances that a lookup could show.
pub(crate) fn everywhere(service: &Text, tag: Option<Text>, only_passing: bool) -> ServiceLookup {
    ServiceLookup {
        service: service.clone(),
        tag,
        only_passing,
        shown: Shown::Ports,
        prefer_wan: false,
        limit: usize::MAX,
        seed: 7,
    }
}

/// What a question was answered, as bytes to compare, and how it stands in time.
struct Asked {
    answer: Answer,
    shown: Vec<u8>,
    found: Found<()>,
    watch: Watch,
}

fn ask(view: &View, question: &Question) -> Asked {
    fn one<Q: Read>(view: &View, question: &Q) -> (Answer, Found<()>, Watch) {
        let mut watch = Watch::on();
        let found = question.read(view, &mut watch);
        let mut answer = None;
        let found = found.map(|it| answer = Some(Q::wrap(it)));
        (answer.unwrap(), found, watch)
    }
    macro_rules! each {
        ($($name:ident)*) => {
            match question { $(Question::$name(question) => one(view, question),)* }
        };
    }
    let (answer, found, watch) = each!(
        KvGet KvList KvKeys TxnRead CatalogNodes CatalogServices CatalogService CatalogNode
        HealthNode HealthChecks HealthState HealthService SessionInfo SessionList SessionNode
        AclInfo AclList QueryGet QueryList QueryExecute QueryElsewhere QueryExplain CoordinateNodes CoordinateLookup
        NodeLookup AddressLookup ServiceLookup
    );
    let shown = if let Answer::CatalogService(instances) = &answer {
        // Neither the node's own index nor any check is shown in it.
        let rows: Vec<_> = instances
            .iter()
            .map(|it| (&it.node.name, &it.node.address, &*it.service))
            .collect();
        wire::compact::to_vec(&rows).unwrap()
    } else if let Answer::ServiceLookup(placements) = &answer {
        // Their order is left to chance, and which one stands for those that look the same.
        let mut rows: Vec<_> = placements
            .picked
            .iter()
            .map(|it| {
                (
                    &it.node.name,
                    &it.node.address,
                    &it.service.address,
                    it.service.port,
                )
            })
            .collect();
        rows.sort_unstable();
        wire::compact::to_vec(&(placements.is_any, rows)).unwrap()
    } else {
        wire::compact::to_vec(&answer).unwrap()
    };
    Asked {
        answer,
        shown,
        found,
        watch,
    }
}

/// Whether a command could have anything to do with a question; `false` only if it certainly has not.
fn may_concern(command: &Command, question: &Question, before: &Naive, after: &Naive) -> bool {
    let is_about_keys = matches!(
        question,
        Question::KvGet(_) | Question::KvList(_) | Question::KvKeys(_)
    );
    let is_about_catalog = matches!(
        question,
        Question::CatalogNodes(_)
            | Question::CatalogServices(_)
            | Question::CatalogService(_)
            | Question::CatalogNode(_)
            | Question::HealthNode(_)
            | Question::HealthChecks(_)
            | Question::HealthState(_)
            | Question::HealthService(_)
    );
    match command {
        Command::Kv(op) if op.verb != KvVerb::DeleteTree => match question {
            Question::KvGet(get) => get.key == op.key,
            Question::KvList(list) => op.key.starts_with(&list.prefix),
            Question::KvKeys(keys) => op.key.starts_with(&keys.prefix),
            _ => false,
        },
        Command::Kv(_) | Command::Txn(_) => is_about_keys,
        Command::AclSet(token) => match question {
            Question::AclInfo(info) => info.id == token.id,
            question => matches!(question, Question::AclList(_)),
        },
        Command::AclDelete(_) => matches!(question, Question::AclInfo(_) | Question::AclList(_)),
        Command::QuerySet(set) => match question {
            Question::QueryGet(get) => get.id == set.query.id,
            question => matches!(question, Question::QueryList(_)),
        },
        Command::QueryDelete(_) => {
            matches!(question, Question::QueryGet(_) | Question::QueryList(_))
        }
        Command::Coordinates(_) => matches!(
            question,
            Question::CoordinateNodes(_) | Question::CoordinateLookup(_)
        ),
        Command::SessionCreate(session) => match question {
            Question::SessionInfo(info) => info.id == session.id,
            Question::SessionNode(of) => of.node.lower() == session.node.lower(),
            question => matches!(question, Question::SessionList(_)),
        },
        Command::SessionDestroy(_) | Command::SessionExpire { .. } => !is_about_catalog,
        Command::LockDelaysBegin(_) => false,
        Command::Register(registration) => {
            let node = registration.node.name.lower();
            if registration
                .checks
                .iter()
                .any(|check| !check.node.is_empty() && check.node.lower() != node)
            {
                return true;
            }
            let is_there = |name: &Text| {
                [before, after]
                    .iter()
                    .any(|model| model.has_instance(&node, &name.lower()))
            };
            match question {
                Question::CatalogNode(of) => of.node.lower() == node,
                Question::HealthNode(of) => of.node.lower() == node,
                Question::CatalogService(of) => is_there(&of.service),
                Question::HealthService(of) => is_there(&of.service),
                _ => true,
            }
        }
        Command::Deregister(_)
        | Command::TombstoneReap(_)
        | Command::RestoreBegin(_)
        | Command::RestoreChunk(_)
        | Command::RestoreCommit(_) => true,
    }
}

/// What somebody was told who waits for the next answer.
pub(crate) struct Waiting {
    shown: Vec<u8>,
    since: Index,
    subscription: Subscription,
}

impl Waiting {
    pub(crate) fn has_changed(&self) -> bool {
        self.subscription.has_changed()
    }
}

pub(crate) fn cases() -> ProptestConfig {
    // A default that leaves the rest of the suite quick; PROPTEST_CASES asks for more.
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        default.cases
    } else {
        40
    };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn store_and_model_agree(entries in entries()) {
        let questions = questions();
        let mut store = Store::new();
        let shared = store.shared();
        let mut model = Naive::default();
        let mut log_index = 0;
        let mut waiting: Vec<Waiting> = Vec::new();
        for entry in entries {
            // Entries without a command come in between.
            log_index += 1 + u64::from(log_index % 7 == 3);
            let before = model.clone();
            let command = entry.command.clone();
            let expected = model.apply(log_index, &entry);
            let applied = store.apply(log_index, 1, entry);
            prop_assert_eq!(applied.index, log_index);
            match (&applied.result, &expected) {
                (Ok(Reply::Txn(reply)), Ok(Reply::Txn(expected))) => {
                    // What the errors say is for the scripts.
                    let places = |outcome: &TxnOutcome| -> Vec<usize> {
                        outcome.errors.iter().map(|error| error.op_index).collect()
                    };
                    prop_assert_eq!(places(reply), places(expected), "{:?}", command);
                    prop_assert_eq!(&reply.results, &expected.results, "{:?}", command);
                }
                (Ok(reply), Ok(expected)) => prop_assert_eq!(reply, expected, "{:?}", command),
                (Err(_), Err(())) => {}
                _ => prop_assert!(false, "{:?}: {:?}, expected {:?}", command, applied.result, expected),
            }
            check_rows(&model, &store)?;
            store.publish();
            look(&questions, &shared.view(), &shared, &before, &model, &command, &mut waiting)?;
        }
    }

    /// How entries are gathered into batches, and whether a server starts anew in between, leaves no trace.
    #[test]
    fn same_commands_same_bytes(entries in entries(), restart in any::<prop::sample::Index>()) {
        let mut straight = Store::new();
        let mut restarted = Store::new();
        let restart = restart.index(entries.len());
        for (place, entry) in entries.iter().enumerate() {
            let log_index = place as u64 + 1;
            let one = straight.apply(log_index, 1, entry.clone());
            let other = restarted.apply(log_index, 1, entry.clone());
            prop_assert_eq!(one, other);
            straight.publish();
            if place == restart {
                let bytes = checkpoint(&restarted.freeze());
                restarted = installed(&bytes).unwrap();
                prop_assert_eq!(checkpoint(&restarted.freeze()), bytes);
            }
        }
        let (one, other) = (straight.freeze(), restarted.freeze());
        prop_assert_eq!(checkpoint(&one), checkpoint(&other));
        prop_assert_eq!(written(&one), written(&other));
        // What follows from the rows was built again, and says the same.
        let rebuilt = installed(&checkpoint(&one)).unwrap().freeze();
        for question in questions() {
            let expected = ask(&one, &question);
            for view in [&other, &rebuilt] {
                let asked = ask(view, &question);
                prop_assert_eq!(&asked.shown, &expected.shown, "{:?}", question);
                prop_assert_eq!(asked.found.index, expected.found.index);
                prop_assert_eq!(asked.found.changed, expected.found.changed);
            }
        }
    }

    /// A snapshot of a restored snapshot is that snapshot, and the rows that keep their indexes keep them.
    #[test]
    fn archive_out_and_in(entries in entries()) {
        let mut store = Store::new();
        for (place, entry) in entries.into_iter().enumerate() {
            store.apply(place as u64 + 1, 1, entry);
        }
        let original = store.freeze();
        let out = written(&original);
        let back = restored_at(&out, original.index());
        let again = written(&back);
        prop_assert_eq!(&written(&restored(&again)), &again);
        let kept: [Question; 5] = [
            KvList { prefix: Text::default() }.into(),
            SessionList.into(),
            AclList.into(),
            QueryList.into(),
            CoordinateNodes.into(),
        ];
        for question in kept {
            prop_assert_eq!(ask(&original, &question).shown, ask(&back, &question).shown);
        }
        prop_assert!(back.floor() > original.index());
        for question in questions() {
            let found = ask(&back, &question).found;
            let is_key = matches!(question, Question::KvGet(_));
            prop_assert!(found.index >= back.floor() || is_key);
            // Nobody sleeps through it, but for those who wait for a key by the index of its own body.
            prop_assert!(found.is_news(original.index().max(1)) || is_key);
        }
    }
}

proptest! {
    // Each case writes far more than the others do.
    #![proptest_config(ProptestConfig { cases: cases().cases / 5, ..cases() })]

    /// On nodes with many services instances are kept in another way; it must not show.
    #[test]
    fn a_crowded_node_is_like_any_other(services in 60_usize..70, entries in entries()) {
        let mut log_index = 0;
        let mut stores = [Store::new(), Store::new()];
        let crowd = (0..services).map(|n| {
            let service = Service {
                id: Text::from(format!("s{n}")),
                name: Text::from("web"),
                ..Service::default()
            };
            let node = Node { name: Text::from("alpha"), ..Node::default() };
            let check = Check {
                check_id: Text::from(format!("c{n}")),
                service_id: service.id.clone(),
                status: Text::from("passing"),
                ..Check::default()
            };
            let registration = Registration { node, service: Some(service), checks: vec![check] };
            Entry { at_ms: 0, command: Command::Register(Box::new(registration)) }
        });
        let mut apply = |stores: &mut [Store; 2], entry: Entry| {
            log_index += 1;
            for store in stores {
                store.apply(log_index, 1, entry.clone());
            }
        };
        crowd.for_each(|entry| apply(&mut stores, entry));
        for (place, entry) in entries.into_iter().enumerate() {
            if place % 10 == 0 {
                let bytes = checkpoint(&stores[1].freeze());
                stores[1] = installed(&bytes).unwrap();
            }
            apply(&mut stores, entry);
            let [one, other] = stores.each_ref().map(|store| {
                let question = HealthService { service: Text::from("web"), tag: None, passing_only: false };
                ask(&store.freeze(), &question.into())
            });
            prop_assert_eq!(one.shown, other.shown);
            prop_assert_eq!(one.found.changed, other.found.changed);
            let [one, other] = stores.each_ref().map(|store| {
                let question = everywhere(&Text::from("web"), None, false);
                ask(&store.freeze(), &question.into())
            });
            prop_assert_eq!(one.shown, other.shown);
        }
    }
}

/// All rows, side by side.
pub(crate) fn check_rows(model: &Naive, store: &Store) -> Result<(), TestCaseError> {
    let view = store.freeze();
    model.check_rows(|question| ask(&view, &question).answer)
}

/// Asks everything, and compares what was told and who was woken with what happened since it was asked last.
pub(crate) fn look(
    questions: &[Question],
    view: &View,
    shared: &store::Shared,
    before: &Naive,
    after: &Naive,
    command: &Command,
    waiting: &mut Vec<Waiting>,
) -> Result<(), TestCaseError> {
    let mut next = Vec::with_capacity(questions.len());
    for (place, question) in questions.iter().enumerate() {
        let asked = ask(view, question);
        let index = asked.found.index;
        after.check_index(question, index)?;
        // Whoever has this answer waits.
        prop_assert!(index == 0 || !asked.found.is_news(index), "{:?}", question);
        if let Some(old) = waiting.get(place) {
            let is_news = asked.found.is_news(old.since);
            prop_assert!(
                index >= old.since || index == 0,
                "{:?} went back from {} to {index}",
                question,
                old.since
            );
            if asked.shown != old.shown {
                prop_assert!(is_news, "{:?} missed {:?}", question, command);
                prop_assert!(
                    old.subscription.has_changed(),
                    "{:?} slept through {:?}",
                    question,
                    command
                );
            } else if old.since != 0 && index != 0 && !may_concern(command, question, before, after)
            {
                prop_assert!(!is_news, "{:?} woken by {:?}", question, command);
            }
        }
        next.push(Waiting {
            shown: asked.shown,
            since: index,
            subscription: shared.subscribe(view, &asked.watch),
        });
    }
    *waiting = next;
    Ok(())
}
