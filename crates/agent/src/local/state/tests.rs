use super::*;
use crate::definition::{Every, Script};

const SECOND: Duration = Duration::from_secs(1);

/// A state and its clock.
struct World {
    state: State,
    now: Instant,
}

fn config() -> LocalConfig {
    LocalConfig {
        node: "n1".into(),
        address: "10.0.0.1".into(),
        token: "agent".into(),
        agent_token: "agent".into(),
        check_update_interval: 300 * SECOND,
        data_dir: Some("unused".into()),
        ..LocalConfig::default()
    }
}

impl World {
    fn new() -> Self {
        Self::with(&config())
    }

    fn with(config: &LocalConfig) -> Self {
        let mut world = Self {
            state: State::new(config),
            now: Instant::now(),
        };
        world.synced();
        world
    }

    /// Lets time pass, and happen what happens by itself.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.state.tick(self.now);
        }
        self.now = end;
        self.state.tick(self.now);
    }

    /// What waits to be told, in order, without what the catalog does by itself; nothing waits afterwards.
    fn synced(&mut self) -> Vec<String> {
        let mut items = Vec::new();
        while let Some((_, item)) = self.state.queue.pop() {
            let gone = self.state.gone.remove(&item);
            let verb = if gone.is_some() { "-" } else { "" };
            for check in gone.into_iter().flat_map(|gone| gone.checks) {
                let item = Item::Check(check);
                if self.state.gone.remove(&item).is_some() {
                    self.state.queue.remove(&item);
                }
            }
            items.push(match item {
                Item::Node => "node".to_owned(),
                Item::Service(key) => format!("{verb}{key}"),
                Item::Check(key) => format!("{verb}check {key}"),
            });
        }
        items
    }

    fn service(&mut self, id: &str, checks: Vec<CheckDefinition>) {
        let definition = service(id, checks);
        self.state.register_service(definition, self.now).unwrap();
    }

    fn check(&mut self, definition: CheckDefinition) {
        self.state.register_check(definition, self.now).unwrap();
    }

    fn say(&mut self, id: &str, status: Status, output: &str) {
        self.state
            .update_ttl(&id.into(), status, output.into(), self.now)
            .unwrap();
    }

    fn report(&mut self, id: &str, status: Status) {
        let generation = self.state.checks[&Text::from(id).lower()].generation;
        let id = id.into();
        self.state
            .report(&id, generation, status, "output".into(), self.now);
    }

    fn reload(&mut self, definitions: Definitions) -> Result<(), LocalError> {
        self.state.reload(definitions, Pairs::new(), self.now)
    }

    fn says(&self, id: &str) -> (String, String) {
        let check = &self.state.checks[&Text::from(id).lower()].check;
        (check.status.to_string(), check.output.to_string())
    }

    fn status(&self, id: &str) -> String {
        self.says(id).0
    }

    fn ids(&self) -> Vec<String> {
        let services = self.state.services().into_keys();
        let checks = self.state.checks().into_keys();
        services.chain(checks).map(|id| id.to_string()).collect()
    }

    fn edits(&mut self) -> Vec<Edit> {
        let effects = self.state.take_effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Keep(edit) => Some(edit),
                Effect::Run { .. } | Effect::Halt(_) => None,
            })
            .collect()
    }

    /// What is run, and what no longer.
    fn runs(&mut self) -> Vec<String> {
        let effects = self.state.take_effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Run { id, .. } => Some(format!("run {id}")),
                Effect::Halt(key) => Some(format!("halt {key}")),
                Effect::Keep(_) => None,
            })
            .collect()
    }
}

fn service(id: &str, checks: Vec<CheckDefinition>) -> ServiceDefinition {
    ServiceDefinition {
        service: Service {
            id: id.into(),
            name: "web".into(),
            ..Service::default()
        },
        checks,
        token: "of web".into(),
    }
}

fn ttl(id: &str) -> CheckDefinition {
    CheckDefinition {
        id: id.into(),
        name: id.into(),
        kind: Some(CheckKind::Ttl(10 * SECOND)),
        ..CheckDefinition::default()
    }
}

fn every() -> Every {
    Every {
        interval: SECOND,
        timeout: SECOND,
    }
}

fn tcp(id: &str) -> CheckDefinition {
    CheckDefinition {
        kind: Some(CheckKind::Tcp {
            address: "127.0.0.1:1".to_owned(),
            every: every(),
        }),
        ..ttl(id)
    }
}

fn script(id: &str) -> CheckDefinition {
    CheckDefinition {
        kind: Some(CheckKind::Script {
            script: Script::Line("true".to_owned()),
            every: every(),
        }),
        ..ttl(id)
    }
}

fn of(service: &str, check: CheckDefinition) -> CheckDefinition {
    CheckDefinition {
        service_id: service.into(),
        ..check
    }
}

fn critical() -> (String, String) {
    ("critical".to_owned(), String::new())
}

#[test]
fn a_service_names_its_checks() {
    let mut world = World::new();
    world.service("one", vec![ttl("ignored")]);
    let incomplete = CheckDefinition::default();
    world.service("two", vec![ttl(""), incomplete, tcp("x")]);
    world.service("none", vec![CheckDefinition::default()]);
    assert_eq!(
        world.ids(),
        [
            "none",
            "one",
            "two",
            "service:one",
            "service:two:1",
            "service:two:2"
        ]
    );
    let check = Arc::clone(&world.state.checks()[&Text::from("service:two:2")]);
    assert_eq!(check.name, "Service 'web' check");
    assert_eq!(
        (&check.service_id, &check.service_name),
        (&"two".into(), &"web".into())
    );
    assert_eq!(check.node, "n1");
    assert_eq!(
        world.synced(),
        [
            "one",
            "check service:one",
            "two",
            "check service:two:1",
            "check service:two:2",
            "none"
        ]
    );
    assert_eq!(
        world.state.checks[&Text::from("service:one")].token,
        "of web"
    );
}

#[test]
fn ids_default_to_names() {
    let mut world = World::new();
    let mut definition = service("", Vec::new());
    world
        .state
        .register_service(definition.clone(), world.now)
        .unwrap();
    let check = CheckDefinition {
        id: Text::default(),
        ..ttl("mem")
    };
    let check = CheckDefinition {
        name: "mem".into(),
        ..check
    };
    world.check(check);
    assert_eq!(world.ids(), ["web", "mem"]);
    definition.service.name = Text::default();
    let refused = world.state.register_service(definition, world.now);
    assert_eq!(refused.unwrap_err().to_string(), "Service name missing");
}

#[test]
fn registered_anew_a_service_keeps_what_its_checks_said() {
    let mut world = World::new();
    world.service("web", vec![ttl("a"), ttl("b")]);
    world.say("service:web:1", Status::Passing, "fine");
    world.service("web", vec![tcp("a"), ttl("b"), ttl("c")]);
    assert_eq!(
        world.says("service:web:1"),
        ("passing".into(), "fine".into())
    );
    assert_eq!(world.says("service:web:3"), critical());
    // Checks that it mentions no longer stay.
    world.service("web", vec![ttl("a")]);
    assert_eq!(world.ids().len(), 5);
}

#[test]
fn a_check_registered_anew_says_what_it_says_at_first() {
    let mut world = World::new();
    world.check(tcp("c"));
    world.report("c", Status::Passing);
    assert_eq!(world.status("c"), "passing");
    world.check(tcp("c"));
    assert_eq!(world.says("c"), critical());
    let definition = CheckDefinition {
        status: Some(Status::Warning),
        ..tcp("c")
    };
    world.check(definition);
    assert_eq!(world.status("c"), "warning");
}

#[test]
fn what_was_said_of_a_check_counts_for_its_time_if_it_is_kept() {
    for (keeps, status) in [(true, "passing"), (false, "critical")] {
        let mut world = World::with(&LocalConfig {
            data_dir: keeps.then(|| "unused".into()),
            ..config()
        });
        world.check(ttl("c"));
        world.say("c", Status::Passing, "fine");
        world.pass(9 * SECOND);
        world.check(ttl("c"));
        assert_eq!(world.status("c"), status);
        world.pass(11 * SECOND);
        assert_eq!(world.status("c"), "critical");
        world.check(ttl("c"));
        assert_eq!(world.says("c"), critical());
    }
}

#[test]
fn silence_is_critical() {
    let mut world = World::new();
    world.check(CheckDefinition {
        status: Some(Status::Passing),
        ..ttl("c")
    });
    world.pass(10 * SECOND);
    assert_eq!(world.says("c"), ("critical".into(), "TTL expired".into()));
    world.say("c", Status::Warning, "so so");
    world.pass(9 * SECOND);
    assert_eq!(world.says("c"), ("warning".into(), "so so".into()));
    world.say("c", Status::Passing, "better");
    world.pass(9 * SECOND);
    assert_eq!(world.status("c"), "passing");
    world.pass(SECOND);
    let output = "TTL expired (last output before timeout follows): better";
    assert_eq!(world.says("c"), ("critical".into(), output.into()));
    world.say("c", Status::Passing, "late");
    assert_eq!(world.says("c"), ("passing".into(), "late".into()));
    let unknown = world
        .state
        .update_ttl(&"x".into(), Status::Passing, "".into(), world.now);
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "CheckID \"x\" does not have associated TTL"
    );
    world.check(tcp("t"));
    let other = world
        .state
        .update_ttl(&"t".into(), Status::Passing, "".into(), world.now);
    assert!(matches!(other, Err(LocalError::NotTtl(_))));
}

#[test]
fn long_outputs_are_cut_once() {
    let mut world = World::new();
    world.check(ttl("c"));
    world.say("c", Status::Passing, &"x".repeat(5000));
    let (_, output) = world.says("c");
    let end = " ... (captured 4096 of 5000 bytes)";
    assert_eq!(output, "x".repeat(4096) + end);
    world.say("c", Status::Passing, &output);
    assert_eq!(world.says("c").1, output);
}

#[test]
fn what_a_runner_has_cut_is_not_cut_again() {
    let mut world = World::new();
    world.check(tcp("c"));
    let generation = world.state.checks[&Text::from("c")].generation;
    let output = format!(
        "HTTP GET {}: 200 OK Output: {}",
        "u".repeat(200),
        "x".repeat(4096)
    );
    let said = Text::from(output.as_str());
    let now = world.now;
    world
        .state
        .report(&"c".into(), generation, Status::Passing, said, now);
    assert_eq!(world.says("c"), ("passing".to_owned(), output));
}

#[test]
fn nobody_waits_for_what_is_no_news() {
    let mut world = World::new();
    world.check(ttl("c"));
    let now = world.now;
    let mut say = |status, output: &str| {
        let output = output.into();
        let said = world.state.update_ttl(&"c".into(), status, output, now);
        said.unwrap()
    };
    assert!(say(Status::Passing, "") > 0);
    // It still waits to be told, since no server answers, and is not tried again for what follows.
    assert_eq!(say(Status::Passing, ""), 0);
    assert_eq!(say(Status::Passing, "new"), 0);
    assert!(say(Status::Warning, "new") > 0);
    let mut maintain = |enable| {
        let maintenance = Maintenance::new(None, enable, Text::default());
        world.state.node_maintenance(maintenance, now).unwrap()
    };
    assert!(maintain(true) > 0);
    assert_eq!(maintain(true), 0);
    assert!(maintain(false) > 0);
    assert_eq!(maintain(false), 0);
}

#[test]
fn a_status_is_told_at_once_and_an_output_later() {
    let mut world = World::new();
    world.check(ttl("c"));
    world.say("c", Status::Passing, "one");
    assert_eq!(world.synced(), ["check c"]);
    for number in 0..30 {
        world.say("c", Status::Passing, &format!("{number}"));
        world.pass(5 * SECOND - Duration::from_millis(1));
        assert_eq!(
            world.synced(),
            [""; 0],
            "no sooner than half of five minutes"
        );
    }
    let mut told = 0;
    for number in 0..120 {
        world.say("c", Status::Passing, &format!("{number}"));
        world.pass(5 * SECOND);
        told += world.synced().len();
    }
    assert!((1..=4).contains(&told), "{told}");
    // The same again is no news.
    world.pass(SECOND);
    let (_, output) = world.says("c");
    let before = world.state.queue.marks();
    world.say("c", Status::Passing, &output);
    assert_eq!(world.state.queue.marks(), before);
    // A new status takes the output along.
    world.say("c", Status::Passing, "new");
    assert_eq!(world.state.outputs.len(), 1);
    world.say("c", Status::Warning, "newer");
    assert_eq!(world.synced(), ["check c"]);
    assert!(world.state.outputs.is_empty());
}

#[test]
fn without_an_interval_outputs_are_told_at_once() {
    let mut world = World::with(&LocalConfig {
        check_update_interval: Duration::ZERO,
        ..config()
    });
    world.check(ttl("c"));
    world.synced();
    world.say("c", Status::Critical, "new");
    assert_eq!(world.synced(), ["check c"]);
}

#[test]
fn results_may_have_to_come_in_a_row() {
    use Status::{Critical, Passing, Warning};
    let mut world = World::new();
    world.check(CheckDefinition {
        success_before_passing: 2,
        failures_before_critical: 3,
        ..tcp("c")
    });
    let results = [
        (Passing, "critical"),
        (Critical, "critical"),
        (Passing, "critical"),
        (Passing, "passing"),
        (Critical, "passing"),
        (Critical, "passing"),
        (Passing, "passing"),
        (Critical, "passing"),
        (Critical, "passing"),
        (Critical, "critical"),
        (Warning, "warning"),
        (Passing, "warning"),
        (Passing, "passing"),
        (Critical, "passing"),
        (Warning, "warning"),
        (Critical, "warning"),
    ];
    for (number, (result, status)) in results.into_iter().enumerate() {
        world.report("c", result);
        assert_eq!(world.status("c"), status, "result {number}");
    }
    world.check(tcp("one"));
    for (result, status) in [
        (Passing, "passing"),
        (Critical, "critical"),
        (Passing, "passing"),
    ] {
        world.report("one", result);
        assert_eq!(world.status("one"), status);
    }
}

#[test]
fn reports_of_earlier_runners_are_not_heard() {
    let mut world = World::new();
    world.check(tcp("c"));
    let before = world.state.checks[&Text::from("c")].generation;
    world.check(tcp("c"));
    let report = |world: &mut World, generation| {
        let now = world.now;
        let output = "".into();
        world
            .state
            .report(&"c".into(), generation, Status::Passing, output, now);
    };
    report(&mut world, before);
    assert_eq!(world.status("c"), "critical");
    report(&mut world, before + 1);
    assert_eq!(world.status("c"), "passing");
    world
        .state
        .report(&"none".into(), 1, Status::Passing, "".into(), world.now);
}

#[test]
fn a_service_that_is_critical_for_too_long_goes() {
    let mut world = World::new();
    let definition = CheckDefinition {
        deregister_after: SECOND,
        ..ttl("")
    };
    world.service("web", vec![definition.clone(), tcp("")]);
    // What it says at first doesn't count.
    world.pass(9 * SECOND);
    world.say("service:web:1", Status::Passing, "");
    world.pass(10 * SECOND);
    assert_eq!(world.status("service:web:1"), "critical");
    world.pass(59 * SECOND);
    assert_eq!(world.ids().len(), 3);
    // Back in time.
    world.say("service:web:1", Status::Passing, "");
    world.pass(9 * SECOND);
    world.say("service:web:1", Status::Critical, "");
    world.synced();
    world.pass(59 * SECOND);
    assert_eq!(world.ids().len(), 3);
    world.pass(31 * SECOND);
    assert_eq!(world.ids(), [""; 0]);
    assert_eq!(world.synced(), ["-web"], "its checks go with it");
}

#[test]
fn the_clock_of_a_critical_check_is_started_by_any_registration_of_a_service() {
    let mut world = World::new();
    let definition = CheckDefinition {
        deregister_after: 60 * SECOND,
        ..tcp("")
    };
    world.service("a", vec![definition.clone()]);
    world.pass(600 * SECOND);
    assert_eq!(
        world.ids().len(),
        2,
        "what it says at first starts no clock"
    );
    world.service("b", Vec::new());
    world.pass(59 * SECOND);
    assert_eq!(world.ids().len(), 3);
    // Its own starts it anew.
    world.service("a", vec![definition.clone()]);
    world.pass(59 * SECOND);
    assert_eq!(world.ids().len(), 3);
    world.pass(31 * SECOND);
    assert_eq!(world.ids(), ["b"]);
    // A check of the node takes nothing away.
    world.check(CheckDefinition {
        id: "node".into(),
        ..definition
    });
    world.service("b", Vec::new());
    world.pass(600 * SECOND);
    assert_eq!(world.ids().len(), 2);
}

#[test]
fn services_are_looked_for_every_half_minute() {
    let mut world = World::new();
    for (id, after) in [("a", 60), ("b", 61), ("c", 91)] {
        let definition = CheckDefinition {
            deregister_after: after * SECOND,
            ..tcp("")
        };
        world.service(id, vec![definition]);
        world.report(&format!("service:{id}"), Status::Critical);
    }
    world.pass(60 * SECOND);
    assert_eq!(world.state.services.len(), 2);
    world.pass(29 * SECOND);
    assert_eq!(world.state.services.len(), 2);
    world.pass(SECOND);
    assert_eq!(world.state.services.len(), 1);
    world.pass(30 * SECOND);
    assert_eq!(world.state.services.len(), 0);
}

#[test]
fn a_servers_own_service_stays() {
    let mut world = World::with(&LocalConfig {
        own_service: Some(Service {
            id: "consul".into(),
            name: "consul".into(),
            port: 8300,
            ..Service::default()
        }),
        ..config()
    });
    let refused = world.state.deregister_service(&"CONSUL".into());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Deregistering the CONSUL service is not allowed"
    );
    // A file may describe it otherwise, for as long as it does.
    let definition = CheckDefinition {
        deregister_after: SECOND,
        ..ttl("")
    };
    let mut described = service("consul", vec![definition]);
    described.service.tags = Some(vec!["eu".into()]);
    let definitions = Definitions {
        services: vec![described],
        ..Definitions::default()
    };
    world.reload(definitions).unwrap();
    world.pass(600 * SECOND);
    assert_eq!(world.ids(), ["consul", "service:consul"]);
    world.synced();
    world.reload(Definitions::default()).unwrap();
    assert_eq!(world.ids(), ["consul"]);
    assert_eq!(world.state.services()[&Text::from("consul")].port, 8300);
    assert_eq!(world.synced(), ["consul", "-check service:consul"]);
}

#[test]
fn what_is_removed_is_removed_from_the_catalog_even_if_it_was_never_here() {
    let mut world = World::new();
    world.service("web", vec![ttl("")]);
    world.check(of("web", ttl("c")));
    world.synced();
    world.check(of("web", ttl("d")));
    world.state.deregister_service(&"WEB".into()).unwrap();
    assert_eq!(world.ids(), [""; 0]);
    // Nobody knows where the catalog has the one that was on its way.
    assert_eq!(world.synced(), ["-check d", "-web"]);
    world.state.deregister_service(&"x".into()).unwrap();
    world.state.deregister_check(&"y".into()).unwrap();
    assert_eq!(world.synced(), ["-x", "-check y"]);
    world.state.deregister_check(&"SerfHealth".into()).unwrap();
    assert_eq!(world.synced(), [""; 0], "that one is the leader's");
    for empty in [
        world.state.deregister_check(&"".into()),
        world.state.deregister_service(&"".into()),
    ] {
        assert!(empty.unwrap_err().to_string().ends_with("ID missing"));
    }
}

#[test]
fn what_comes_back_is_not_removed() {
    let mut world = World::new();
    world.service("web", vec![ttl("")]);
    world.state.deregister_service(&"web".into()).unwrap();
    world.service("Web", vec![ttl("")]);
    assert_eq!(world.synced(), ["web", "check service:web"]);
    assert_eq!(world.ids(), ["Web", "service:Web"]);
}

#[test]
fn checks_need_a_service_and_a_way() {
    let mut world = World::new();
    let mut refused = |definition| {
        let outcome = world.state.register_check(definition, world.now);
        outcome.unwrap_err().to_string()
    };
    assert_eq!(refused(of("x", ttl("c"))), "ServiceID \"x\" does not exist");
    let none = CheckDefinition {
        kind: None,
        ..ttl("c")
    };
    assert_eq!(refused(none), "Check type is not valid");
    let unnamed = CheckDefinition {
        name: Text::default(),
        ..ttl("")
    };
    assert_eq!(refused(unnamed), "CheckID missing");
    assert!(refused(ttl("serfHealth")).contains("leader"));
    assert!(refused(ttl(&"x".repeat(5000))).contains("4096 bytes"));
    let large = CheckDefinition {
        notes: "x".repeat(1 << 20).into(),
        ..ttl("c")
    };
    assert!(refused(large).contains("larger than"));
    assert_eq!(world.ids(), [""; 0]);
}

#[test]
fn there_are_only_so_many() {
    let mut world = World::new();
    for number in 0..ITEMS_MAX {
        world.check(ttl(&number.to_string()));
    }
    let one_more = world.state.register_check(ttl("x"), world.now);
    assert!(one_more.unwrap_err().to_string().contains("65536 checks"));
    world.check(ttl("7"));
    let with_checks = service("web", vec![ttl("")]);
    assert!(
        world
            .state
            .register_service(with_checks, world.now)
            .is_err()
    );
    assert!(world.state.services.is_empty());
    world.synced();
    // Nor do wishes to forget pile up without end.
    for number in 0..3 * ITEMS_MAX {
        let id = format!("unknown {number}").into();
        world.state.deregister_check(&id).unwrap();
    }
    assert_eq!(world.state.gone.len(), 2 * ITEMS_MAX);
}

#[test]
fn scripts_of_files_are_run_wherever_those_of_the_api_are_refused() {
    let mut world = World::new();
    assert_eq!(world.state.api_scripts, ApiScripts::Refused);
    let definitions = Definitions {
        services: vec![service("web", vec![ttl(""), script("")])],
        checks: vec![script("c")],
    };
    world.reload(definitions).unwrap();
    assert_eq!(world.ids().len(), 4);
}

#[test]
fn maintenance_is_a_critical_check() {
    let mut world = World::new();
    world.service("Web", vec![tcp("")]);
    world.synced();
    let begin = |reason: Option<&str>| Maintenance::Begin {
        reason: reason.map(Text::from),
        token: "ops".into(),
    };
    let now = world.now;
    world
        .state
        .node_maintenance(begin(Some("broken")), now)
        .unwrap();
    world
        .state
        .node_maintenance(begin(Some("again")), now)
        .unwrap();
    world
        .state
        .service_maintenance(&"web".into(), begin(None), now)
        .unwrap();
    let checks = world.state.checks();
    let check = &checks[&Text::from("_node_maintenance")];
    assert_eq!(
        (&check.name, &check.notes),
        (&"Node Maintenance Mode".into(), &"broken".into())
    );
    assert_eq!(
        (&check.status, &check.service_id),
        (&"critical".into(), &"".into())
    );
    let check = &checks[&Text::from("_service_maintenance:Web")];
    assert_eq!(check.name, "Service Maintenance Mode");
    assert_eq!(
        check.notes,
        "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
    );
    assert_eq!(
        (&check.service_id, &check.service_name),
        (&"Web".into(), &"web".into())
    );
    let unknown = world
        .state
        .service_maintenance(&"x".into(), begin(None), now);
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "No service registered with ID \"x\""
    );
    world.synced();
    world.state.node_maintenance(Maintenance::End, now).unwrap();
    world.state.node_maintenance(Maintenance::End, now).unwrap();
    world
        .state
        .service_maintenance(&"web".into(), Maintenance::End, now)
        .unwrap();
    assert_eq!(
        world.synced(),
        [
            "-check _node_maintenance",
            "-check _service_maintenance:web"
        ]
    );
}

#[test]
fn a_reload_makes_nothing_flap() {
    let mut world = World::new();
    let definitions = |port| {
        let mut kept = service("kept", vec![tcp("")]);
        kept.service.port = port;
        Definitions {
            services: vec![kept, service("dropped", vec![ttl("")])],
            checks: vec![of("kept", tcp("c")), ttl("d")],
        }
    };
    world.reload(definitions(1)).unwrap();
    world.service("api", vec![ttl("")]);
    world.check(of("dropped", ttl("on dropped")));
    for id in ["service:kept", "c"] {
        world.report(id, Status::Passing);
    }
    world.say("service:api", Status::Passing, "");
    world.say("d", Status::Warning, "");
    world.synced();
    world.runs();

    world.reload(definitions(1)).unwrap();
    assert_eq!(world.synced(), [""; 0], "nothing has changed");
    assert_eq!(world.runs(), [""; 0], "and what runs, runs");

    let mut less = definitions(2);
    less.services.pop();
    less.checks[1] = tcp("d");
    world.reload(less).unwrap();
    assert_eq!(
        world.synced(),
        ["kept", "-dropped"],
        "the status stays also where another way leads to it"
    );
    assert_eq!(
        world.runs(),
        ["run d", "halt on dropped", "halt service:dropped"]
    );
    for id in ["service:kept", "c", "service:api"] {
        assert_eq!(world.status(id), "passing");
    }
    assert_eq!(world.status("d"), "warning");
}

#[test]
fn a_check_moves_to_another_service_with_what_it_said() {
    let mut world = World::new();
    let definitions = |service_id: &str| Definitions {
        services: vec![service(service_id, Vec::new())],
        checks: vec![of(service_id, tcp("c"))],
    };
    world.reload(definitions("old")).unwrap();
    world.report("c", Status::Passing);
    world.synced();
    world.runs();
    world.reload(definitions("new")).unwrap();
    assert_eq!(world.status("c"), "passing");
    assert_eq!(world.ids(), ["new", "c"]);
    assert_eq!(world.synced(), ["new", "check c", "-old"]);
    assert_eq!(world.runs(), [""; 0]);
    let bad = Definitions {
        services: Vec::new(),
        checks: vec![of("new", tcp("c"))],
    };
    let why = world.reload(bad).unwrap_err().to_string();
    assert_eq!(
        why,
        "Failed to register check 'c': ServiceID \"new\" does not exist"
    );
    assert_eq!(world.ids(), ["new", "c"]);
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let mut world = World::new();
    let good = Definitions {
        services: vec![service("a", Vec::new())],
        ..Definitions::default()
    };
    world.reload(good).unwrap();
    world.synced();
    let bad = Definitions {
        services: vec![service("b", Vec::new())],
        checks: vec![of("a", ttl("c"))],
    };
    let why = world.reload(bad).unwrap_err().to_string();
    assert_eq!(
        why,
        "Failed to register check 'c': ServiceID \"a\" does not exist"
    );
    assert_eq!(world.ids(), ["a"]);
    assert_eq!(world.synced(), [""; 0]);
    let nameless = Definitions {
        services: vec![ServiceDefinition::default()],
        ..Definitions::default()
    };
    let why = world.reload(nameless).unwrap_err().to_string();
    assert_eq!(why, "Failed to register service '': Service name missing");
}

#[test]
fn a_reload_tells_of_new_metadata() {
    let mut world = World::new();
    let meta = Pairs::from([("rack".into(), "7".into())]);
    world
        .state
        .reload(Definitions::default(), meta.clone(), world.now)
        .unwrap();
    assert_eq!(world.synced(), ["node"]);
    world
        .state
        .reload(Definitions::default(), meta, world.now)
        .unwrap();
    assert_eq!(world.synced(), [""; 0]);
}

#[test]
fn files_win_over_what_was_registered_and_purge_it() {
    let mut world = World::new();
    world.service("web", vec![ttl("")]);
    world.check(ttl("c"));
    world.say("c", Status::Passing, "");
    world.edits();
    let definitions = Definitions {
        services: vec![service("web", vec![ttl("")])],
        checks: vec![ttl("c")],
    };
    world.reload(definitions).unwrap();
    assert_eq!(
        world.edits(),
        [
            Edit::NoService("web".into()),
            Edit::NoCheck("service:web".into()),
            Edit::NoCheck("c".into()),
        ]
    );
    assert_eq!(world.status("c"), "passing");
    world.reload(Definitions::default()).unwrap();
    assert_eq!(world.ids(), [""; 0]);
    assert_eq!(
        world.edits(),
        [
            Edit::NoState("service:web".into()),
            Edit::NoState("c".into())
        ],
        "also where nothing counts that was said before this start"
    );
}

#[test]
fn what_is_kept_on_disk_is_restored() {
    let said = |id: &str, left| super::super::files::Said {
        id: id.into(),
        status: Status::Passing,
        output: "before".into(),
        left,
    };
    let definitions = Definitions {
        services: vec![service("file", vec![ttl("")])],
        checks: vec![of("api", ttl("on api"))],
    };
    let kept = Kept {
        services: vec![service("file", Vec::new()), service("api", Vec::new())],
        checks: vec![
            of("file", ttl("service:file")),
            of("gone", ttl("lost")),
            CheckDefinition {
                status: Some(Status::Passing),
                ..of("api", tcp("tcp"))
            },
            of("api", ttl("said")),
            CheckDefinition {
                deregister_after: SECOND,
                ..of("api", script("script"))
            },
            CheckDefinition {
                kind: None,
                ..ttl("_node_maintenance")
            },
        ],
        states: vec![
            said("said", 5 * SECOND),
            said("on api", Duration::MAX),
            said("No check", SECOND),
            said("long ago", Duration::ZERO),
        ],
    };
    let mut world = World::new();
    let now = world.now;
    world.state.load(definitions, kept, now).unwrap();
    assert_eq!(
        world.ids(),
        [
            "api",
            "file",
            "_node_maintenance",
            "on api",
            "said",
            "script",
            "service:file",
            "tcp"
        ]
    );
    assert_eq!(world.says("tcp"), critical());
    assert_eq!(world.says("said"), ("passing".into(), "before".into()));
    assert_eq!(world.says("on api"), ("passing".into(), "before".into()));
    assert_eq!(world.says("_node_maintenance"), critical());
    let (status, output) = world.says("script");
    assert_eq!(status, "critical");
    assert!(output.contains("enable_script_checks"), "{output}");
    let effects = world.state.take_effects();
    let edits = effects.iter().filter_map(|effect| match effect {
        Effect::Keep(edit) => Some(edit.clone()),
        Effect::Run { .. } | Effect::Halt(_) => None,
    });
    assert_eq!(
        edits.collect::<Vec<_>>(),
        [
            Edit::NoState("long ago".into()),
            Edit::NoService("file".into()),
            Edit::NoCheck("service:file".into()),
            Edit::NoState("lost".into()),
            Edit::NoCheck("lost".into()),
            Edit::NoState("No check".into()),
        ],
        "what was read is not written again"
    );
    let runs = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Run { .. }));
    assert_eq!(runs.count(), 1, "and no script is run");
    world.pass(10 * SECOND - Duration::from_millis(1));
    assert_eq!(world.status("said"), "passing", "its time begins anew");
    world.pass(SECOND);
    assert_eq!(world.status("said"), "critical");
    world.pass(600 * SECOND);
    assert_eq!(
        world.ids().len(),
        8,
        "a script that is not run takes no service away"
    );
}

#[test]
fn kept_scripts_run_again_where_somebody_was_let_in_for_them() {
    for (api_scripts, expected) in [
        (ApiScripts::Refused, ["critical", "critical"]),
        (ApiScripts::Admitted, ["critical", "runs"]),
        (ApiScripts::Allowed, ["runs", "runs"]),
    ] {
        let mut world = World::with(&LocalConfig {
            api_scripts,
            ..config()
        });
        let with_token = CheckDefinition {
            token: "t".into(),
            ..script("lent")
        };
        let kept = Kept {
            checks: vec![script("own"), with_token],
            ..Kept::default()
        };
        let now = world.now;
        world.state.load(Definitions::default(), kept, now).unwrap();
        let effects = world.state.take_effects();
        let found = ["own", "lent"].map(|id| {
            let is_run =
                |effect: &Effect| matches!(effect, Effect::Run { id: it, .. } if *it == id);
            if effects.iter().any(is_run) {
                "runs"
            } else {
                assert_eq!(world.status(id), "critical");
                "critical"
            }
        });
        assert_eq!(found, expected, "{api_scripts:?}");
    }
}

#[test]
fn what_is_registered_is_kept() {
    let mut world = World::new();
    world.service("web", vec![ttl("")]);
    world.say("service:web", Status::Passing, "fine");
    let kinds: Vec<&str> = world.edits().iter().map(kind).collect();
    assert_eq!(kinds, ["service", "check", "state"]);
    world.state.deregister_service(&"web".into()).unwrap();
    let kinds: Vec<&str> = world.edits().iter().map(kind).collect();
    assert_eq!(kinds, ["no service", "no check", "no state"]);
    let mut world = World::with(&LocalConfig {
        data_dir: None,
        ..config()
    });
    world.service("web", vec![ttl("")]);
    world.say("service:web", Status::Passing, "fine");
    world.state.deregister_service(&"web".into()).unwrap();
    assert_eq!(world.edits(), []);
}

#[test]
fn what_was_said_under_another_spelling_of_an_id_is_not_kept_twice() {
    let mut world = World::new();
    world.check(ttl("C"));
    world.say("C", Status::Passing, "fine");
    world.edits();
    world.check(ttl("c"));
    assert_eq!(world.status("c"), "passing");
    let edits = world.edits();
    assert!(edits.contains(&Edit::NoCheck("C".into())), "{edits:?}");
    assert!(edits.contains(&Edit::NoState("C".into())), "{edits:?}");
}

fn kind(edit: &Edit) -> &'static str {
    match edit {
        Edit::Service { .. } => "service",
        Edit::Check { .. } => "check",
        Edit::State { .. } => "state",
        Edit::NoService(_) => "no service",
        Edit::NoCheck(_) => "no check",
        Edit::NoState(_) => "no state",
    }
}

#[test]
fn a_renamed_service_renames_its_checks() {
    let mut world = World::new();
    world.service("a", vec![ttl("")]);
    world.check(of("a", ttl("c")));
    world.synced();
    let mut definition = service("a", Vec::new());
    definition.service.name = "db".into();
    world.state.register_service(definition, world.now).unwrap();
    for check in world.state.checks().values() {
        assert_eq!(check.service_name, "db");
    }
    assert_eq!(world.synced(), ["check c", "check service:a", "a"]);
}

#[test]
fn figures_count() {
    let mut world = World::with(&LocalConfig {
        api_scripts: ApiScripts::Allowed,
        ..config()
    });
    world.service("web", vec![ttl(""), tcp(""), script("")]);
    world.check(script("c"));
    let figures = LocalFigures {
        check_monitors: 2,
        check_ttls: 1,
        checks: 4,
        services: 1,
    };
    assert_eq!(world.state.figures(), figures);
}
