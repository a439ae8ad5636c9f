use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Node, PASSING, SERF_HEALTH, Service};
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::naive::Servers;
use super::super::{Local, Maintenance};
use super::*;
use crate::definition::{CheckDefinition, CheckKind, Every, ServiceDefinition, Status};

const SECOND: Duration = Duration::from_secs(1);

/// An agent beside servers that are made up.
struct Agent {
    local: Local,
    keeping: JoinHandle<()>,
}

impl Agent {
    async fn start(servers: &Servers, config: LocalConfig) -> Self {
        Self::start_with(servers, config, Definitions::default())
            .await
            .unwrap()
    }

    async fn start_with(
        servers: &Servers,
        config: LocalConfig,
        definitions: Definitions,
    ) -> Result<Self, LocalError> {
        let (local, keeper) = Local::new(config);
        let (started, starts) = oneshot::channel();
        let cluster = servers.cluster();
        let keeping = tokio::spawn(keeper.run(cluster, definitions, || 3, started));
        starts.await.unwrap()?;
        Ok(Self { local, keeping })
    }

    /// As a crash does.
    async fn kill(self) {
        self.keeping.abort();
        let _ = self.keeping.await;
    }

    async fn register(&self, id: &str, port: i64) -> Result<(), LocalError> {
        self.local.register_service(service(id, port)).await
    }

    fn ids(&self) -> Vec<String> {
        let services = self.local.services().into_keys();
        let checks = self.local.checks().into_keys();
        services.chain(checks).map(|id| id.to_string()).collect()
    }

    fn status(&self, id: &str) -> String {
        self.local.checks()[&Text::from(id)].status.to_string()
    }
}

fn config() -> LocalConfig {
    LocalConfig {
        node: "n1".into(),
        address: "10.0.0.1".into(),
        token: "agent".into(),
        agent_token: "agent".into(),
        check_update_interval: 300 * SECOND,
        seed: 7,
        ..LocalConfig::default()
    }
}

fn kept_in(data_dir: &Path) -> LocalConfig {
    LocalConfig {
        data_dir: Some(data_dir.to_owned()),
        ..config()
    }
}

fn service(id: &str, port: i64) -> ServiceDefinition {
    ServiceDefinition {
        service: Service {
            id: id.into(),
            name: "web".into(),
            port,
            ..Service::default()
        },
        checks: vec![ttl("")],
        token: Text::default(),
    }
}

fn ttl(id: &str) -> CheckDefinition {
    CheckDefinition {
        id: id.into(),
        name: id.into(),
        kind: Some(CheckKind::Ttl(100 * SECOND)),
        ..CheckDefinition::default()
    }
}

/// Waits until it is so; time is paused, so this takes none.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + 1000 * SECOND;
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_registers_is_answered_when_the_catalog_has_it() {
    let servers = Servers::default();
    let agent = Agent::start(&servers, config()).await;
    servers.with(|inner| inner.delay = SECOND);
    agent.register("web", 80).await.unwrap();
    let lines = || servers.with(|inner| inner.naive.lines());
    assert_eq!(lines(), ["web 80", "service:web critical"]);
    let update = agent
        .local
        .update_ttl("service:web".into(), Status::Passing, "fine".into());
    update.await.unwrap();
    assert_eq!(lines(), ["web 80", "service:web passing"]);
    agent.local.deregister_service("web".into()).await.unwrap();
    assert_eq!(lines(), [""; 0]);
    let asked = servers.asked();
    assert_eq!(
        asked,
        [
            "read [agent]",
            "write  [agent]",
            "write web, check service:web [agent]",
            "write check service:web [agent]",
            "remove web [agent]",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_without_news_waits_for_nobody() {
    let servers = Servers::default();
    let agent = Agent::start(&servers, config()).await;
    agent.register("web", 80).await.unwrap();
    let say = |output: &str| {
        let output = output.into();
        agent
            .local
            .update_ttl("service:web".into(), Status::Passing, output)
    };
    say("a").await.unwrap();
    servers.with(|inner| inner.delay = 50 * SECOND);
    let other = agent.local.clone();
    let registering = tokio::spawn(async move { other.register_service(service("b", 1)).await });
    sleep(SECOND).await;
    let before = Instant::now();
    say("a").await.unwrap();
    say("only the output").await.unwrap();
    assert_eq!(Instant::now(), before);
    registering.await.unwrap().unwrap();
    assert!(Instant::now() >= before + 49 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_it_is_told_later() {
    let servers = Servers::default();
    servers.with(|inner| inner.error = Some(Error::NoLeader));
    let agent = Agent::start(&servers, config()).await;
    sleep(SECOND).await;
    agent.register("web", 80).await.unwrap();
    assert_eq!(agent.ids(), ["web", "service:web"], "here it is at once");
    let before = Instant::now();
    sleep(10 * SECOND).await;
    servers.with(|inner| inner.error = None);
    agent.local.servers_changed();
    let has_it = || servers.with(|inner| !inner.naive.services.is_empty());
    until("told", has_it).await;
    assert!(Instant::now() < before + 14 * SECOND, "soon after the news");
    // Without any news it takes longer.
    servers.with(|inner| inner.error = Some(Error::NoLeader));
    agent.register("b", 80).await.unwrap();
    servers.with(|inner| inner.error = None);
    let before = Instant::now();
    let has_both = || servers.with(|inner| inner.naive.services.len() == 2);
    until("told", has_both).await;
    let waited = Instant::now() - before;
    assert!(waited >= 15 * SECOND && waited < 31 * SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_others_write_under_its_name_vanishes() {
    let servers = Servers::default();
    let own = Service {
        id: "consul".into(),
        name: "consul".into(),
        port: 8300,
        ..Service::default()
    };
    let config = LocalConfig {
        own_service: Some(own),
        ..config()
    };
    let agent = Agent::start(&servers, config).await;
    agent.register("web", 80).await.unwrap();
    servers.with(|inner| {
        let naive = &mut inner.naive;
        naive.node = Some(Node::default());
        let foreign = service("foreign", 1).service;
        naive.services.insert("foreign".into(), foreign);
        naive.services.remove(&Text::from("consul"));
        naive.checks.clear();
        for id in ["serfHealth", "foreign"] {
            let check = model::Check {
                check_id: id.into(),
                ..model::Check::default()
            };
            naive.checks.insert(check.check_id.lower(), check);
        }
    });
    sleep(120 * SECOND).await;
    servers.with(|inner| {
        let lines = inner.naive.lines();
        assert_eq!(lines, ["consul 8300", "web 80", "service:web critical"]);
        assert!(
            inner
                .naive
                .checks
                .contains_key(&Text::from(SERF_HEALTH).lower())
        );
        let node = inner.naive.node.as_ref().unwrap();
        assert_eq!(node.address, "10.0.0.1");
    });
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_holds_up_nobody() {
    let servers = Servers::default();
    servers.with(|inner| inner.refused = Some("bad".into()));
    let agent = Agent::start(&servers, config()).await;
    let refused = ServiceDefinition {
        token: "bad".into(),
        ..service("a", 1)
    };
    agent.local.register_service(refused).await.unwrap();
    agent.register("b", 2).await.unwrap();
    let lines = || servers.with(|inner| inner.naive.lines());
    assert_eq!(lines(), ["b 2", "service:b critical"]);
    servers.asked();
    sleep(55 * SECOND).await;
    assert_eq!(servers.asked(), [""; 0]);
    servers.with(|inner| inner.refused = None);
    sleep(65 * SECOND).await;
    assert_eq!(lines().len(), 4, "everything was compared");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_read_still_writes() {
    let servers = Servers::default();
    servers.with(|inner| inner.error = Some(Error::PermissionDenied));
    let agent = Agent::start(&servers, config()).await;
    agent.register("web", 1).await.unwrap();
    let asked = servers.asked();
    let write = "write web, check service:web [agent]".to_owned();
    assert!(asked.contains(&write), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_reaches_the_catalog_and_so_does_the_end_of_its_service() {
    let servers = Servers::default();
    let agent = Agent::start(&servers, config()).await;
    let mut definition = service("web", 80);
    definition.checks[0].deregister_after = 60 * SECOND;
    agent.local.register_service(definition).await.unwrap();
    let update = agent
        .local
        .update_ttl("service:web".into(), Status::Passing, "".into());
    update.await.unwrap();
    let lines = || servers.with(|inner| inner.naive.lines());
    sleep(99 * SECOND).await;
    assert_eq!(lines(), ["web 80", "service:web passing"]);
    sleep(SECOND + SECOND / 10).await;
    assert_eq!(lines(), ["web 80", "service:web critical"]);
    sleep(59 * SECOND).await;
    assert_eq!(lines().len(), 2);
    sleep(31 * SECOND).await;
    assert_eq!(lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn checks_are_run_and_stopped() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let check = CheckDefinition {
        kind: Some(CheckKind::Tcp {
            address: taken.local_addr().unwrap().to_string(),
            every: Every {
                interval: SECOND,
                timeout: SECOND,
            },
        }),
        ..ttl("tcp")
    };
    let servers = Servers::default();
    let agent = Agent::start(&servers, config()).await;
    agent.local.register_check(check.clone()).await.unwrap();
    let lines = || servers.with(|inner| inner.naive.lines());
    until("passing", || lines() == ["tcp passing"]).await;
    assert_eq!(agent.local.figures().checks, 1);
    drop(taken);
    until("critical", || lines() == ["tcp critical"]).await;
    agent.local.deregister_check("tcp".into()).await.unwrap();
    assert_eq!(lines(), [""; 0]);
    let definitions = Definitions {
        checks: vec![check],
        ..Definitions::default()
    };
    let reload = agent.local.reload(definitions, model::Pairs::new());
    reload.await.unwrap();
    until("told", || lines() == ["tcp critical"]).await;
}

#[tokio::test(start_paused = true)]
async fn maintenance_reaches_the_catalog() {
    let servers = Servers::default();
    let agent = Agent::start(&servers, config()).await;
    agent.register("web", 80).await.unwrap();
    let local = &agent.local;
    let lines = || servers.with(|inner| inner.naive.lines().len());
    let reason = || Some("r".into());
    local
        .node_maintenance(reason(), true, "t".into())
        .await
        .unwrap();
    let web = || Text::from("web");
    local
        .service_maintenance(web(), reason(), true, "t".into())
        .await
        .unwrap();
    assert_eq!(lines(), 4);
    local
        .node_maintenance(None, false, "t".into())
        .await
        .unwrap();
    local
        .service_maintenance(web(), None, false, "t".into())
        .await
        .unwrap();
    assert_eq!(lines(), 2);
    let unknown = local.service_maintenance("x".into(), None, false, "".into());
    assert_eq!(unknown.await, Err(LocalError::UnknownService("x".into())));
    assert!(matches!(
        Maintenance::new(None, false, web()),
        Maintenance::End
    ));
}

#[tokio::test(start_paused = true)]
async fn a_bad_definition_ends_the_start() {
    let definitions = Definitions {
        checks: vec![CheckDefinition {
            service_id: "x".into(),
            ..ttl("c")
        }],
        ..Definitions::default()
    };
    let servers = Servers::default();
    let started = Agent::start_with(&servers, config(), definitions).await;
    let why = started.err().unwrap().to_string();
    assert_eq!(
        why,
        "Failed to register check 'c': ServiceID \"x\" does not exist"
    );
    assert_eq!(servers.asked(), [""; 0]);
}

#[tokio::test]
async fn without_a_keeper_nothing_is_done() {
    let (local, keeper) = Local::new(config());
    drop(keeper);
    let outcome = local.register_check(ttl("c")).await;
    assert_eq!(outcome, Err(LocalError::Stopping));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_handles() {
    let servers = Servers::default();
    let Agent { local, keeping } = Agent::start(&servers, config()).await;
    drop(local);
    keeping.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services"), "in the way").unwrap();
    let servers = Servers::default();
    let agent = Agent::start(&servers, kept_in(dir.path())).await;
    let outcome = agent.register("web", 80).await;
    assert!(
        matches!(outcome, Err(LocalError::NotKept(_))),
        "{outcome:?}"
    );
    assert_eq!(agent.ids().len(), 2, "done it is all the same");
    assert!(agent.local.register_check(ttl("c")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_with_all_that_was_registered() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::default();
    let agent = Agent::start(&servers, kept_in(dir.path())).await;
    agent.register("web", 80).await.unwrap();
    agent.register("gone", 80).await.unwrap();
    agent.local.deregister_service("gone".into()).await.unwrap();
    let tcp = CheckDefinition {
        status: Some(Status::Passing),
        kind: Some(CheckKind::Tcp {
            address: "127.0.0.1:1".to_owned(),
            every: Every {
                interval: 1000 * SECOND,
                timeout: SECOND,
            },
        }),
        ..ttl("tcp")
    };
    agent.local.register_check(tcp).await.unwrap();
    let say = async |agent: &Agent, output: &str| {
        let id = "service:web".into();
        let update = agent.local.update_ttl(id, Status::Passing, output.into());
        update.await
    };
    say(&agent, "fine").await.unwrap();
    let maintenance = agent.local.node_maintenance(None, true, "".into());
    maintenance.await.unwrap();
    agent.kill().await;

    let agent = Agent::start(&servers, kept_in(dir.path())).await;
    let expected = ["web", "_node_maintenance", "service:web", "tcp"];
    assert_eq!(agent.ids(), expected);
    assert_eq!(agent.status("service:web"), PASSING);
    assert_eq!(
        agent.local.checks()[&Text::from("service:web")].output,
        "fine"
    );
    assert_eq!(
        agent.status("tcp"),
        "critical",
        "until it has proved otherwise"
    );
    until("told", || {
        servers.with(|inner| inner.naive.lines().contains(&"tcp critical".to_owned()))
    })
    .await;
    agent.kill().await;

    let definitions = Definitions {
        services: vec![service("web", 443)],
        ..Definitions::default()
    };
    let agent = Agent::start_with(&servers, kept_in(dir.path()), definitions)
        .await
        .unwrap();
    assert_eq!(agent.local.services()[&Text::from("web")].port, 443);
    assert_eq!(
        agent.status("service:web"),
        PASSING,
        "what was said still counts"
    );
    // Whoever was heard after the files were swept knows that this is done.
    say(&agent, "better").await.unwrap();
    agent.kill().await;
    let agent = Agent::start(&servers, kept_in(dir.path())).await;
    assert_eq!(
        agent.ids(),
        ["_node_maintenance", "tcp"],
        "the file's word was the last"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_only_said_again_goes_to_disk_a_little_later() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::default();
    let agent = Agent::start(&servers, kept_in(dir.path())).await;
    agent.local.register_check(ttl("c")).await.unwrap();
    let say = async || {
        let update = agent
            .local
            .update_ttl("c".into(), Status::Passing, "".into());
        update.await.unwrap();
    };
    say().await;
    let states = dir.path().join("checks/state");
    let file = || std::fs::read_dir(&states).unwrap().next();
    std::fs::remove_file(file().unwrap().unwrap().path()).unwrap();
    say().await;
    assert!(file().is_none(), "nobody waits for it");
    until("written", || file().is_some()).await;
}

/// Something that a handle asks for.
#[derive(Debug, Clone)]
enum Deed {
    Register(&'static str, i64),
    Deregister(&'static str),
    Say(&'static str, Status),
    Kill,
}

fn deed() -> impl Strategy<Value = Deed> {
    let id = || prop::sample::select(vec!["a", "b", "c"]);
    let status = prop::sample::select(vec![Status::Passing, Status::Warning]);
    prop_oneof![
        3 => (id(), 1..5_i64).prop_map(|(id, port)| Deed::Register(id, port)),
        1 => id().prop_map(Deed::Deregister),
        3 => (id(), status).prop_map(|(id, status)| Deed::Say(id, status)),
        2 => Just(Deed::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was answered before a crash is there after it, and in the catalog within one period.
    #[test]
    fn nothing_that_was_answered_gets_lost(deeds in prop::collection::vec(deed(), 0..20), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(survive(deeds, seed));
    }
}

async fn survive(deeds: Vec<Deed>, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::default();
    let mut agent = Agent::start(&servers, kept_in(dir.path())).await;
    let mut expected: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
    for deed in deeds {
        let errors = [None, None, Some(Error::NoLeader)];
        let error = errors.choose(&mut chance).cloned().flatten();
        servers.with(|inner| inner.error = error);
        match deed {
            Deed::Register(id, port) => {
                let mut definition = service(id, port);
                // Paused time may jump while a disk is waited for.
                definition.checks[0].kind = Some(CheckKind::Ttl(1_000_000 * SECOND));
                agent.local.register_service(definition).await.unwrap();
                let said = expected.get(id).map_or("critical", |(_, said)| said);
                expected.insert(id, (port, said));
            }
            Deed::Deregister(id) => {
                agent.local.deregister_service(id.into()).await.unwrap();
                expected.remove(id);
            }
            Deed::Say(id, status) => {
                let check = Text::from(format!("service:{id}"));
                let said = agent.local.update_ttl(check, status, "".into()).await;
                assert_eq!(said.is_ok(), expected.contains_key(id));
                if let Some((_, said)) = expected.get_mut(id) {
                    *said = status.name();
                }
            }
            Deed::Kill => {
                agent.kill().await;
                agent = Agent::start(&servers, kept_in(dir.path())).await;
            }
        }
        let there = agent.local.services();
        let ids: Vec<String> = there.keys().map(Text::to_string).collect();
        assert_eq!(ids, expected.keys().copied().collect::<Vec<_>>());
        for (id, (port, said)) in &expected {
            assert_eq!(there[&Text::from(*id)].port, *port);
            assert_eq!(agent.status(&format!("service:{id}")), *said);
        }
    }
    servers.with(|inner| inner.error = None);
    agent.local.servers_changed();
    sleep(120 * SECOND).await;
    let services = expected
        .iter()
        .map(|(id, (port, _))| format!("{id} {port}"));
    let checks = expected
        .iter()
        .map(|(id, (_, said))| format!("service:{id} {said}"));
    let lines: Vec<String> = services.chain(checks).collect();
    assert_eq!(servers.with(|inner| inner.naive.lines()), lines);
}

#[test]
fn a_seed_decides_everything() {
    let life = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            let servers = Servers::default();
            let config = LocalConfig { seed, ..config() };
            let agent = Agent::start(&servers, config).await;
            let mut life = Vec::new();
            for number in 0..20_i64 {
                let is_down = number % 3 == 1;
                servers.with(|inner| inner.error = is_down.then_some(Error::NoLeader));
                agent
                    .register(&format!("s{}", number % 4), number)
                    .await
                    .unwrap();
                let say = agent.local.update_ttl(
                    "service:s0".into(),
                    Status::Passing,
                    format!("{number}").into(),
                );
                say.await.unwrap();
                sleep(37 * SECOND).await;
                life.push((Instant::now() - began, servers.asked()));
            }
            // Each write's own time shows in what follows it.
            life
        })
    };
    assert_eq!(life(1), life(1));
    assert_ne!(life(1), life(2));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_updates_a_second_write_nothing_to_the_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Servers::default();
    let agent = Agent::start(&servers, kept_in(dir.path())).await;
    for number in 0..100 {
        let check = ttl(&number.to_string());
        agent.local.register_check(check).await.unwrap();
    }
    let updates = AtomicU64::new(0);
    let round = || async {
        for number in 0..100 {
            let id = Text::from(number.to_string());
            let update = agent.local.update_ttl(id, Status::Passing, "".into());
            update.await.unwrap();
            updates.fetch_add(1, Ordering::Relaxed);
        }
    };
    round().await;
    servers.asked();
    for _ in 0..5 {
        round().await;
    }
    assert_eq!(updates.into_inner(), 600);
    assert_eq!(servers.asked(), [""; 0]);
}
