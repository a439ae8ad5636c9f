use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::LocalConfig;
use super::super::naive::Naive;
use super::*;
use crate::definition::{CheckDefinition, CheckKind, ServiceDefinition, Status};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> LocalConfig {
    LocalConfig {
        node: "n1".into(),
        address: "10.0.0.1".into(),
        tagged_addresses: [("lan".into(), "10.0.0.1".into())].into(),
        node_meta: [("rack".into(), "7".into())].into(),
        token: "agent".into(),
        agent_token: "agent".into(),
        check_update_interval: 300 * SECOND,
        ..LocalConfig::default()
    }
}

/// What can be done to a state.
#[derive(Debug, Clone)]
enum Deed {
    Service {
        id: String,
        name: String,
        tags: Option<Vec<String>>,
        checks: usize,
        overridable: bool,
        token: String,
    },
    NoService(String),
    Check {
        id: String,
        service: String,
        token: String,
    },
    NoCheck(String),
    Say(String, Status, String),
    Push(Outcome),
}

fn id() -> impl Strategy<Value = String> {
    // Some differ in their case alone.
    prop::sample::select(vec!["a", "A", "b", "c"]).prop_map(str::to_owned)
}

fn token() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "t"]).prop_map(str::to_owned)
}

fn tags() -> impl Strategy<Value = Option<Vec<String>>> {
    let tag = prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned);
    prop::option::of(vec(tag, 0..3))
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::Passing, Status::Warning, Status::Critical])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![Outcome::Done, Outcome::Refused, Outcome::Failed])
}

fn check_id() -> impl Strategy<Value = String> {
    let ids = ["a", "B", "service:a", "service:A:1", "service:b:2", "k"];
    prop::sample::select(ids.to_vec()).prop_map(str::to_owned)
}

fn deed() -> impl Strategy<Value = Deed> {
    let name = prop::sample::select(vec!["web", "db"]).prop_map(str::to_owned);
    let service = (id(), name, tags(), 0..3_usize, any::<bool>(), token());
    prop_oneof![
        4 => service.prop_map(|(id, name, tags, checks, overridable, token)| Deed::Service {
            id, name, tags, checks, overridable, token,
        }),
        2 => id().prop_map(Deed::NoService),
        2 => (check_id(), prop_oneof![Just(String::new()), id()], token())
            .prop_map(|(id, service, token)| Deed::Check { id, service, token }),
        1 => check_id().prop_map(Deed::NoCheck),
        4 => (check_id(), status(), "[ab]").prop_map(|(id, status, said)| Deed::Say(id, status, said)),
        4 => outcome().prop_map(Deed::Push),
    ]
}

fn ttl() -> CheckDefinition {
    CheckDefinition {
        kind: Some(CheckKind::Ttl(1000 * SECOND)),
        ..CheckDefinition::default()
    }
}

/// Does it; what can't be done isn't.
fn perform(state: &mut State, naive: &mut Naive, deed: Deed, now: Instant) {
    match deed {
        Deed::Service {
            id,
            name,
            tags,
            checks,
            overridable,
            token,
        } => {
            let tags = tags.map(|tags| tags.into_iter().map(Text::from).collect());
            let definition = ServiceDefinition {
                service: Service {
                    id: id.into(),
                    name: name.into(),
                    tags,
                    enable_tag_override: overridable,
                    ..Service::default()
                },
                checks: vec![ttl(); checks],
                token: token.into(),
            };
            state.register_service(definition, now).unwrap();
        }
        Deed::NoService(id) => {
            state.deregister_service(&id.into()).unwrap();
        }
        Deed::Check { id, service, token } => {
            let definition = CheckDefinition {
                id: id.as_str().into(),
                name: id.into(),
                service_id: service.into(),
                token: token.into(),
                ..ttl()
            };
            let _ = state.register_check(definition, now);
        }
        Deed::NoCheck(id) => {
            state.deregister_check(&id.into()).unwrap();
        }
        Deed::Say(id, status, output) => {
            let _ = state.update_ttl(&id.into(), status, output.into(), now);
        }
        Deed::Push(outcome) => {
            if let Some(push) = state.next_push() {
                if outcome == Outcome::Done {
                    // What it refuses is found out by comparing.
                    let _ = naive.apply(&push.command);
                }
                state.settle(push, outcome);
            }
        }
    }
}

fn naive() -> impl Strategy<Value = Naive> {
    let service = (
        id(),
        prop::sample::select(vec!["web", "db"]),
        tags(),
        any::<bool>(),
    );
    let service = service.prop_map(|(id, name, tags, enable_tag_override)| Service {
        id: id.into(),
        name: name.into(),
        tags: tags.map(|tags| tags.into_iter().map(Text::from).collect()),
        enable_tag_override,
        ..Service::default()
    });
    let check = (
        check_id(),
        prop_oneof![Just(String::new()), id()],
        "[ab]",
        status(),
    );
    let check = check.prop_map(|(id, service, output, status)| Check {
        node: "n1".into(),
        check_id: id.into(),
        status: status.name().into(),
        output: output.into(),
        service_id: service.into(),
        ..Check::default()
    });
    (any::<bool>(), vec(service, 0..4), vec(check, 0..4)).prop_map(
        |(is_there, services, checks)| {
            let mut naive = Naive::default();
            if is_there {
                naive.node = Some(Node::default());
                for service in services {
                    naive.services.insert(service.id.lower(), service);
                }
                for check in checks {
                    let service = naive.services.get(&check.service_id.lower());
                    if service.is_some() || check.service_id.is_empty() {
                        naive.checks.insert(check.check_id.lower(), check);
                    }
                }
                naive.checks.insert("serfhealth".into(), serf_health());
            }
            naive
        },
    )
}

fn serf_health() -> Check {
    Check {
        check_id: SERF_HEALTH.into(),
        output: "the leader's".into(),
        ..Check::default()
    }
}

/// Compares, and tells all that is found; the servers take everything.
fn sync(state: &mut State, naive: &mut Naive) -> usize {
    let differences = compare(state, &naive.catalog());
    state.take_over(differences);
    let mut pushes = 0;
    while let Some(push) = state.next_push() {
        naive
            .apply(&push.command)
            .expect("nothing that is told is refused");
        state.settle(push, Outcome::Done);
        pushes += 1;
    }
    pushes
}

/// Whether the catalog has this node's services and checks, and nothing else but the leader's check.
fn assert_true(state: &State, naive: &Naive, had_serf_health: bool) {
    let node = naive.node.as_ref().expect("the node is there");
    assert!(is_same_node(&state.node, node));
    let here: Vec<&Service> = state.services.values().map(|it| &*it.service).collect();
    assert_eq!(naive.services.values().collect::<Vec<_>>(), here);
    let mut checks = naive.checks.clone();
    let serf_health = checks.remove(&Text::from("serfhealth"));
    assert_eq!(serf_health.is_some(), had_serf_health);
    if had_serf_health {
        assert_eq!(serf_health, Some(self::serf_health()), "it is the leader's");
    }
    assert_eq!(checks.len(), state.checks.len());
    for (key, checked) in &state.checks {
        assert!(is_same_check(checked, &checks[key]), "{:?}", checks[key]);
    }
    assert!(state.queue.is_empty() && state.gone.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened here, whatever got lost on its way and whatever others wrote there: comparing once makes the catalog true.
    #[test]
    fn comparing_makes_the_catalog_true(
        deeds in vec(deed(), 0..30),
        mut there in naive(),
        meddled in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut state = State::new(&config());
        let mut naive = there.clone();
        for deed in deeds {
            perform(&mut state, &mut naive, deed, now);
        }
        if !meddled {
            there = naive;
        }
        let had_serf_health = there.checks.contains_key(&Text::from("serfhealth"));
        let older = |key: &Text| state.services.get(key).is_some_and(|here| here.has_new_tags);
        let tags = there.services.iter().filter(|(key, _)| !older(key));
        let tags: BTreeMap<_, _> = tags.map(|(key, it)| (key.clone(), it.tags.clone())).collect();
        sync(&mut state, &mut there);
        assert_true(&state, &there, had_serf_health);
        for (key, offered) in &state.services {
            if offered.service.enable_tag_override && let Some(tags) = tags.get(key) {
                prop_assert_eq!(&offered.service.tags, tags, "the catalog's tags count, unless they are older");
            }
        }
        prop_assert_eq!(sync(&mut state, &mut there), 0, "once is enough");
    }

    /// As long as nothing gets lost and nobody else writes, telling what changes is enough.
    #[test]
    fn telling_changes_keeps_the_catalog_true(deeds in vec(deed(), 0..30)) {
        let now = Instant::now();
        let mut state = State::new(&config());
        let mut naive = Naive::default();
        naive.checks.insert("serfhealth".into(), serf_health());
        sync(&mut state, &mut naive);
        for deed in deeds {
            let deed = match deed {
                Deed::Push(Outcome::Refused) => Deed::Push(Outcome::Done),
                other => other,
            };
            perform(&mut state, &mut naive, deed, now);
        }
        while let Some(push) = state.next_push() {
            naive.apply(&push.command).expect("nothing that is told is refused");
            state.settle(push, Outcome::Done);
        }
        assert_true(&state, &naive, true);
    }

    /// Positions tell when something is done.
    #[test]
    fn what_has_a_lower_position_is_done(deeds in vec(deed(), 0..20)) {
        let now = Instant::now();
        let mut state = State::new(&config());
        let mut naive = Naive::default();
        for deed in deeds {
            perform(&mut state, &mut naive, deed, now);
        }
        let items: Vec<Item> = state.queue.items().cloned().collect();
        let positions: BTreeMap<_, _> = items.into_iter().map(|item| (state.queue.position(&item), item)).collect();
        while let Some(push) = state.next_push() {
            state.settle(push, Outcome::Done);
            let oldest = state.queue.oldest().unwrap_or(u64::MAX);
            for (position, item) in &positions {
                if *position < oldest {
                    prop_assert!(!state.queue.contains(item));
                }
            }
        }
    }

    /// More agents take more time, in steps of one interval for each doubling.
    #[test]
    fn intervals_grow_with_the_logarithm(members in 0..100_000_usize) {
        let expected = match members {
            0..=128 => 1,
            129..=256 => 2,
            257..=512 => 3,
            513..=1024 => 4,
            1025..=2048 => 5,
            2049..=4096 => 6,
            4097..=8192 => 7,
            8193..=16384 => 8,
            16385..=32768 => 9,
            32769..=65536 => 10,
            _ => 11,
        };
        prop_assert_eq!(scaled(SECOND, members), SECOND * expected);
    }

    /// Pairs of ids and tokens never change who speaks for what.
    #[test]
    fn everything_is_told_with_its_own_token(tokens in btree_map("[a-d]", token(), 0..4)) {
        let mut state = State::new(&config());
        for (id, token) in &tokens {
            let definition = CheckDefinition { id: id.as_str().into(), token: token.as_str().into(), ..ttl() };
            state.register_check(definition, Instant::now()).unwrap();
        }
        while let Some(push) = state.next_push() {
            let Command::Register(registration) = &push.command else { unreachable!() };
            for check in &registration.checks {
                let own = match &*tokens[&check.check_id.to_string()] { "" => "agent", own => own };
                prop_assert_eq!(&push.token, &Text::from(own));
            }
            state.settle(push, Outcome::Done);
        }
    }
}

#[test]
fn a_service_takes_its_checks_along() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let definition = |token: &str| ServiceDefinition {
        service: Service {
            name: "web".into(),
            ..Service::default()
        },
        checks: vec![ttl(), ttl()],
        token: token.into(),
    };
    state.register_service(definition("t"), now).unwrap();
    let other = CheckDefinition {
        id: "other".into(),
        service_id: "web".into(),
        token: "u".into(),
        ..ttl()
    };
    state.register_check(other, now).unwrap();
    let push = state.next_push().unwrap();
    let Command::Register(registration) = &push.command else {
        panic!("{push:?}")
    };
    assert_eq!(registration.checks.len(), 2);
    assert_eq!(
        registration.node.tagged_addresses,
        Some(config().tagged_addresses)
    );
    assert_eq!(push.token, "t");
    state.settle(push, Outcome::Failed);
    assert_eq!(state.queue.items().count(), 4, "nothing is forgotten");
    let push = state.next_push().unwrap();
    state.settle(push, Outcome::Done);
    let push = state.next_push().unwrap();
    assert_eq!(push.token, "u");
    state.settle(push, Outcome::Done);
    assert!(state.next_push().is_none());
    // What follows goes alone.
    state
        .update_ttl(&"service:web:2".into(), Status::Passing, "".into(), now)
        .unwrap();
    let push = state.next_push().unwrap();
    let Command::Register(registration) = &push.command else {
        panic!("{push:?}")
    };
    assert!(registration.service.is_none());
    assert_eq!(registration.checks.len(), 1);
}

#[test]
fn what_is_refused_waits_for_a_comparison_and_the_node_goes_with_the_agents_own_token() {
    let mut state = State::new(&config());
    let mut naive = Naive::default();
    let check = CheckDefinition {
        id: "c".into(),
        token: "bad".into(),
        ..ttl()
    };
    state.register_check(check, Instant::now()).unwrap();
    state.take_over(compare(&state, &naive.catalog()));
    // The check's token need not be good for the node.
    let push = state.next_push().unwrap();
    assert_eq!(push.token, "agent");
    naive.apply(&push.command).unwrap();
    state.settle(push, Outcome::Done);
    let push = state.next_push().unwrap();
    assert_eq!(push.token, "bad");
    state.settle(push, Outcome::Refused);
    assert!(state.next_push().is_none());
    let differences = compare(&state, &naive.catalog());
    assert_eq!(differences.items, [Item::Check("c".into())].into());
}

#[test]
fn what_changes_on_its_way_is_told_again() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let check = CheckDefinition {
        id: "c".into(),
        ..ttl()
    };
    state.register_check(check, now).unwrap();
    let push = state.next_push().unwrap();
    state
        .update_ttl(&"c".into(), Status::Passing, "".into(), now)
        .unwrap();
    state.settle(push, Outcome::Done);
    let push = state.next_push().unwrap();
    state.deregister_check(&"c".into()).unwrap();
    state.settle(push, Outcome::Done);
    let push = state.next_push().unwrap();
    assert!(matches!(push.command, Command::Deregister(_)));
    // Registered again before the servers have answered.
    let check = CheckDefinition {
        id: "c".into(),
        ..ttl()
    };
    state.register_check(check, now).unwrap();
    state.settle(push, Outcome::Done);
    let push = state.next_push().unwrap();
    assert!(matches!(push.command, Command::Register(_)));
    state.settle(push, Outcome::Done);
    assert!(state.next_push().is_none() && state.gone.is_empty());
}

#[test]
fn a_service_that_is_back_at_once_leaves_no_check_behind() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let mut naive = Naive::default();
    let definition = |checks| ServiceDefinition {
        service: Service {
            name: "web".into(),
            ..Service::default()
        },
        checks,
        ..ServiceDefinition::default()
    };
    state
        .register_service(definition(vec![ttl()]), now)
        .unwrap();
    sync(&mut state, &mut naive);
    state.deregister_service(&"web".into()).unwrap();
    state.register_service(definition(vec![]), now).unwrap();
    while let Some(push) = state.next_push() {
        naive.apply(&push.command).unwrap();
        state.settle(push, Outcome::Done);
    }
    assert_eq!(naive.lines(), ["web 0"]);
}

#[test]
fn an_output_that_waits_is_no_difference() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let mut naive = Naive::default();
    let check = CheckDefinition {
        id: "c".into(),
        ..ttl()
    };
    state.register_check(check, now).unwrap();
    sync(&mut state, &mut naive);
    state
        .update_ttl(&"c".into(), Status::Critical, "new".into(), now)
        .unwrap();
    assert_eq!(sync(&mut state, &mut naive), 0);
    // Other differences take it along.
    naive.checks.clear();
    assert_eq!(sync(&mut state, &mut naive), 1);
    assert_eq!(naive.checks[&Text::from("c")].output, "new");
    assert_eq!(
        state.next_deadline(),
        Some(now + 1000 * SECOND),
        "nothing waits any more"
    );
}

#[test]
fn tags_that_were_adopted_survive_a_reload_of_the_same() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let mut naive = Naive::default();
    let definitions = |tag: &str| super::super::Definitions {
        services: vec![ServiceDefinition {
            service: Service {
                name: "web".into(),
                tags: Some(vec![tag.into()]),
                enable_tag_override: true,
                ..Service::default()
            },
            ..ServiceDefinition::default()
        }],
        ..super::super::Definitions::default()
    };
    let meta = config().node_meta;
    let key = Text::from("web");
    state.reload(definitions("a"), meta.clone(), now).unwrap();
    sync(&mut state, &mut naive);
    let changed = Some(vec!["changed".into()]);
    naive.services.get_mut(&key).unwrap().tags = changed.clone();
    assert_eq!(sync(&mut state, &mut naive), 0);
    state.reload(definitions("a"), meta.clone(), now).unwrap();
    assert_eq!(state.services[&key].service.tags, changed);
    assert!(state.next_push().is_none());
    state.reload(definitions("b"), meta, now).unwrap();
    assert_eq!(state.services[&key].service.tags, Some(vec!["b".into()]));
    assert!(state.next_push().is_some());
}

#[test]
fn tags_that_were_just_defined_are_not_exchanged_for_older_ones() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let mut naive = Naive::default();
    let key = Text::from("web");
    let definition = |tag: &str| ServiceDefinition {
        service: Service {
            name: "web".into(),
            tags: Some(vec![tag.into()]),
            enable_tag_override: true,
            ..Service::default()
        },
        ..ServiceDefinition::default()
    };
    state.register_service(definition("a"), now).unwrap();
    sync(&mut state, &mut naive);
    // Asked for before the new definition came, answered after it.
    let catalog = naive.catalog();
    state.register_service(definition("b"), now).unwrap();
    state.take_over(compare(&state, &catalog));
    let b = Some(vec![Text::from("b")]);
    assert_eq!(state.services[&key].service.tags, b);
    assert_eq!(sync(&mut state, &mut naive), 1);
    assert_eq!(naive.services[&key].tags, b);
    // Once they are told, those of the catalog count.
    let changed = Some(vec![Text::from("changed")]);
    naive.services.get_mut(&key).unwrap().tags = changed.clone();
    assert_eq!(sync(&mut state, &mut naive), 0);
    assert_eq!(state.services[&key].service.tags, changed);
    // So they do if the catalog had the new ones anyhow.
    state.register_service(definition("c"), now).unwrap();
    naive.services.get_mut(&key).unwrap().tags = Some(vec!["c".into()]);
    state.take_over(compare(&state, &naive.catalog()));
    assert!(state.next_push().is_none());
    naive.services.get_mut(&key).unwrap().tags = changed.clone();
    assert_eq!(sync(&mut state, &mut naive), 0);
    assert_eq!(state.services[&key].service.tags, changed);
}

#[test]
fn many_small_checks_go_in_pieces() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let web = ServiceDefinition {
        service: Service {
            id: "w".repeat(4000).into(),
            name: "web".into(),
            ..Service::default()
        },
        checks: vec![ttl(); 300],
        ..ServiceDefinition::default()
    };
    state.register_service(web, now).unwrap();
    let mut told = 0;
    while let Some(push) = state.next_push() {
        if let Command::Register(registration) = &push.command {
            let size = registration.checks.iter().map(size_of_check);
            assert!(size.sum::<usize>() <= CHECKS_BYTES_MAX);
            told += registration.checks.len();
        }
        state.settle(push, Outcome::Done);
    }
    assert_eq!(told, 300);
}

#[test]
fn many_large_checks_go_in_pieces() {
    let now = Instant::now();
    let mut state = State::new(&config());
    let definition = ServiceDefinition {
        service: Service {
            name: "web".into(),
            ..Service::default()
        },
        checks: vec![
            CheckDefinition {
                notes: "x".repeat(400 << 10).into(),
                ..ttl()
            };
            5
        ],
        ..ServiceDefinition::default()
    };
    state.register_service(definition, now).unwrap();
    let mut naive = Naive::default();
    assert_eq!(sync(&mut state, &mut naive), 4);
    assert_eq!(naive.checks.len(), 5);
}

#[test]
fn errors_hold_up_the_rest_or_not() {
    let of = |error: Error| Outcome::of(&Err::<(), _>(error.from_afar()));
    assert_eq!(of(Error::PermissionDenied), Outcome::Refused);
    assert_eq!(of(Error::AclNotFound), Outcome::Refused);
    assert_eq!(of(Error::invalid("x")), Outcome::Refused);
    assert_eq!(of(Error::NoLeader), Outcome::Failed);
    assert_eq!(of(Error::OutcomeUnknown), Outcome::Failed);
    assert_eq!(Outcome::of(&Ok(())), Outcome::Done);
}

#[test]
fn what_the_servers_do_not_know_need_not_be_forgotten() {
    let push = |command| Push {
        command,
        token: Text::default(),
        covers: Vec::new(),
    };
    let forget = push(Command::Deregister(Deregistration {
        node: Text::from("n"),
        what: Deregister::Service(Text::from("web")),
    }));
    let register = push(Command::Register(Box::default()));
    for (error, forgotten, registered) in [
        (
            Error::invalid("Unknown service 'web'"),
            Outcome::Done,
            Outcome::Refused,
        ),
        (Error::PermissionDenied, Outcome::Refused, Outcome::Refused),
        (Error::NoLeader, Outcome::Failed, Outcome::Failed),
    ] {
        let answer = Err::<(), _>(error.from_afar());
        assert_eq!(forget.outcome(&answer), forgotten, "{answer:?}");
        assert_eq!(register.outcome(&answer), registered, "{answer:?}");
    }
}

#[test]
fn everything_is_compared_at_once_and_then_every_minute_or_two() {
    for seed in 0..50 {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now, seed);
        assert_eq!(schedule.next(now, true), Some(Task::Compare));
        schedule.compared(now, 300);
        assert_eq!(schedule.next(now, true), Some(Task::Push));
        assert_eq!(schedule.next(now, false), None);
        let wait = schedule.next_at() - now;
        assert!(wait >= 180 * SECOND && wait < 360 * SECOND, "{wait:?}");
        now += wait;
        assert_eq!(schedule.next(now, false), Some(Task::Compare));
    }
}

#[test]
fn what_failed_is_tried_again_sooner_if_a_server_came_up() {
    for seed in 0..50 {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, seed);
        let wait = |schedule: &Schedule| schedule.next_at() - now;
        schedule.comparison_failed(now, 1);
        let retry = wait(&schedule);
        assert!(retry >= 15 * SECOND && retry < 30 * SECOND, "{retry:?}");
        schedule.servers_changed(now, 1);
        assert!(wait(&schedule) < 3 * SECOND);

        // The news came before the failure did.
        let mut schedule = Schedule::new(now, seed);
        schedule.servers_changed(now, 1);
        schedule.comparison_failed(now, 1);
        assert!(wait(&schedule) < 3 * SECOND);

        // News from before it was begun count for nothing.
        let mut schedule = Schedule::new(now, seed);
        schedule.servers_changed(now, 1);
        assert_eq!(schedule.next(now, false), Some(Task::Compare));
        schedule.comparison_failed(now, 1);
        assert!(wait(&schedule) >= 15 * SECOND);

        let mut schedule = Schedule::new(now, seed);
        schedule.compared(now, 1);
        schedule.push_failed(now, 1);
        assert_eq!(schedule.next(now, true), None);
        let retry = wait(&schedule);
        assert!(retry >= 15 * SECOND && retry < 30 * SECOND, "{retry:?}");
        assert_eq!(schedule.next(now + retry, true), Some(Task::Push));
        schedule.push_failed(now, 1);
        schedule.want();
        assert_eq!(
            schedule.next(now, true),
            Some(Task::Push),
            "a change is told at once"
        );
        // While all is well, new servers change nothing.
        let mut schedule = Schedule::new(now, seed);
        schedule.compared(now, 1);
        schedule.servers_changed(now, 1);
        assert!(wait(&schedule) >= 60 * SECOND);
    }
}
