use std::fs;

use super::*;
use crate::definition::Every;

fn written(batch: Batch) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    batch.write(dir.path()).unwrap();
    dir
}

fn service(id: &str) -> Service {
    Service {
        id: id.into(),
        name: "web".into(),
        tags: Some(vec!["a".into(), "b".into()]),
        address: "10.0.0.9".into(),
        port: 80,
        enable_tag_override: true,
        ..Service::default()
    }
}

fn check(id: &str) -> Check {
    Check {
        node: "n1".into(),
        check_id: id.into(),
        name: "a name".into(),
        status: "critical".into(),
        notes: "a note".into(),
        output: "said".into(),
        service_id: "web".into(),
        service_name: "web".into(),
        ..Check::default()
    }
}

fn definition(id: &str, kind: Option<CheckKind>) -> CheckDefinition {
    CheckDefinition {
        id: id.into(),
        name: "a name".into(),
        notes: "a note".into(),
        service_id: "web".into(),
        token: "secret".into(),
        kind,
        deregister_after: Duration::from_secs(90),
        success_before_passing: 3,
        failures_before_critical: 2,
        ..CheckDefinition::default()
    }
}

fn kinds() -> Vec<CheckKind> {
    let every = Every {
        interval: Duration::from_millis(1500),
        timeout: Duration::from_secs(1),
    };
    let line = || Script::Line("exit 0".to_owned());
    let list = || Script::List(vec!["/bin/true".to_owned(), "x".to_owned()]);
    vec![
        CheckKind::Ttl(Duration::from_secs(10)),
        CheckKind::Script {
            script: line(),
            every,
        },
        CheckKind::Script {
            script: list(),
            every,
        },
        CheckKind::Http {
            url: "http://localhost/".to_owned(),
            tls_skip_verify: true,
            every,
        },
        CheckKind::Tcp {
            address: "localhost:22".to_owned(),
            every,
        },
        CheckKind::Docker {
            container: "c".to_owned(),
            shell: "/bin/zsh".to_owned(),
            script: list(),
            every,
        },
    ]
}

#[test]
fn the_files_are_the_originals() {
    let mut batch = Batch::default();
    batch.add(&Edit::Service {
        service: Arc::new(service("web")),
        token: "secret".into(),
    });
    batch.add(&Edit::Check {
        check: Arc::new(check("service:web")),
        definition: Box::new(CheckDefinition {
            success_before_passing: 0,
            failures_before_critical: 0,
            ..definition("service:web", Some(kinds().swap_remove(0)))
        }),
    });
    let dir = written(batch);
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(
        read("services/2567a5ec9705eb7ac2c984033e06189d"),
        r#"{"Token":"secret","Service":{"ID":"web","Service":"web","Tags":["a","b"],"Address":"10.0.0.9","Port":80,"EnableTagOverride":true,"CreateIndex":0,"ModifyIndex":0}}"#
    );
    assert_eq!(
        read(&format!("checks/{}", file_name(&"service:web".into()))),
        r#"{"Check":{"Node":"n1","CheckID":"service:web","Name":"a name","Status":"critical","Notes":"a note","Output":"said","ServiceID":"web","ServiceName":"web","CreateIndex":0,"ModifyIndex":0},"ChkType":{"Script":"","HTTP":"","TCP":"","Interval":0,"DockerContainerID":"","Shell":"","TLSSkipVerify":false,"Timeout":0,"TTL":10000000000,"DeregisterCriticalServiceAfter":90000000000,"Status":"","Notes":"a note"},"Token":"secret"}"#
    );
    let state = state_json(&"c".into(), Status::Warning, &"hm".into(), 1_479_000_000);
    assert_eq!(
        String::from_utf8(state).unwrap(),
        r#"{"CheckID":"c","Output":"hm","Status":"warning","Expires":1479000000}"#
    );
}

#[test]
fn what_is_kept_comes_back() {
    let mut batch = Batch::default();
    let mut expected = Vec::new();
    let kinds = kinds().into_iter().map(Some).chain([None]);
    for (number, kind) in kinds.enumerate() {
        let id = format!("c{number}");
        let has_kind = kind.is_some();
        let mut definition = definition(&id, kind);
        batch.add(&Edit::Check {
            check: Arc::new(check(&id)),
            definition: Box::new(definition.clone()),
        });
        if !has_kind {
            // What says what it was made to say has none of these.
            definition.deregister_after = Duration::ZERO;
            (
                definition.success_before_passing,
                definition.failures_before_critical,
            ) = (0, 0);
        }
        expected.push(definition);
    }
    let with_meta = Service {
        meta: [("k".into(), "v".into())].into(),
        tags: None,
        ..service("Ä \"x\"")
    };
    batch.add(&Edit::Service {
        service: Arc::new(with_meta.clone()),
        token: Text::default(),
    });
    let said = |id: &str| Edit::State {
        id: id.into(),
        status: Status::Passing,
        output: "fine".into(),
        ttl: Duration::from_secs(60),
        is_news: true,
    };
    batch.add(&said("c0"));
    batch.add(&said("gone"));
    batch.add(&Edit::NoState("gone".into()));
    let dir = written(batch);

    let mut kept = load(dir.path());
    kept.checks.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(kept.checks, expected);
    let [service] = &kept.services[..] else {
        panic!("{:?}", kept.services)
    };
    assert_eq!(service.service, with_meta);
    let [said] = &kept.states[..] else {
        panic!("{:?}", kept.states)
    };
    assert_eq!((&said.id, said.status), (&"c0".into(), Status::Passing));
    assert!(said.left > Duration::from_secs(50) && said.left <= Duration::from_secs(60));

    let mut batch = Batch::default();
    for definition in &kept.checks {
        batch.add(&Edit::NoCheck(definition.id.clone()));
    }
    batch.add(&Edit::NoService("never was".into()));
    batch.write(dir.path()).unwrap();
    assert_eq!(load(dir.path()).checks, []);
}

#[test]
fn a_check_whose_span_ran_backwards_comes_back() {
    let every = Every {
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
    };
    let address = "localhost:22".to_owned();
    for kind in [
        CheckKind::Ttl(Duration::ZERO),
        CheckKind::Tcp { address, every },
    ] {
        let definition = definition("c", Some(kind));
        let file = check_json(&check("c"), &definition);
        assert_eq!(check_read(&file), Ok(("c".into(), definition)));
    }
}

#[test]
fn what_was_said_counts_until_it_expires() {
    let state = state_json(&"c".into(), Status::Warning, &"hm".into(), 100);
    let left = |now| {
        let (_, said) = state_read(&state, now).unwrap();
        said.left.as_secs()
    };
    assert_eq!(left(99), 1);
    assert_eq!(left(100), 0);
    assert_eq!(left(101), 0);
}

#[test]
fn what_was_said_is_written_over_what_was_said_before() {
    let dir = tempfile::tempdir().unwrap();
    for length in [1, 3000, 10, 4096, 0] {
        let mut batch = Batch::default();
        batch.add(&Edit::State {
            id: "c".into(),
            status: Status::Passing,
            output: "x".repeat(length).into(),
            ttl: Duration::from_secs(60),
            is_news: true,
        });
        batch.write(dir.path()).unwrap();
        let kept = load(dir.path());
        assert_eq!(kept.states[0].output.len(), length);
    }
    // What is too long for anybody to have said it is cut.
    let file = dir.path().join(STATES).join(file_name(&"c".into()));
    fs::write(&file, " ".repeat(1 << 20)).unwrap();
    overwrite(&file, b"{}").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"{}");
}

#[test]
fn damaged_files_are_moved_aside() {
    let mut batch = Batch::default();
    batch.add(&Edit::Service {
        service: Arc::new(service("good")),
        token: Text::default(),
    });
    let dir = written(batch);
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("checks/state")).unwrap();
    let name = |id: &str| file_name(&id.into());
    let good = fs::read(at("services").join(name("good"))).unwrap();
    fs::write(at("services").join(name("a copy")), &good).unwrap();
    fs::write(at("services").join(name("torn")), &good[..good.len() / 2]).unwrap();
    fs::write(at("services/notes"), "not ours").unwrap();
    fs::write(at("services").join(name("x")).with_extension("tmp"), "left").unwrap();
    fs::write(at("checks").join(name("empty")), "").unwrap();
    let incomplete = r#"{"Check":{"CheckID":"odd"},"ChkType":{"Interval":5},"Token":""}"#;
    fs::write(at("checks").join(name("odd")), incomplete).unwrap();
    let unknown = r#"{"CheckID":"s","Status":"maybe","Expires":99999999999}"#;
    fs::write(at("checks/state").join(name("s")), unknown).unwrap();

    let kept = load(dir.path());
    assert_eq!(kept.services.len(), 1);
    assert_eq!((kept.checks.len(), kept.states.len()), (0, 0));
    let mut aside: Vec<String> = fs::read_dir(at(DAMAGED))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    aside.sort();
    let mut expected = [
        format!("services-{}", name("a copy")),
        format!("services-{}", name("torn")),
        format!("checks-{}", name("empty")),
        format!("checks-{}", name("odd")),
        format!("checks-state-{}", name("s")),
    ];
    expected.sort();
    assert_eq!(aside, expected);
    assert!(at("services/notes").exists(), "what isn't ours stays");
}

#[test]
fn nothing_there_is_nothing_kept() {
    let dir = tempfile::tempdir().unwrap();
    let kept = load(&dir.path().join("never"));
    assert_eq!((kept.services.len(), kept.checks.len()), (0, 0));
}

#[test]
fn secrets_are_for_the_owner() {
    use std::os::unix::fs::PermissionsExt;
    let mut batch = Batch::default();
    batch.add(&Edit::Service {
        service: Arc::new(service("web")),
        token: "secret".into(),
    });
    let dir = written(batch);
    let mode = |name: &str| {
        let metadata = fs::metadata(dir.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("services"), 0o700);
    assert_eq!(mode("services/2567a5ec9705eb7ac2c984033e06189d"), 0o600);
}

#[test]
fn the_page_about_these_files_is_true() {
    let page = include_str!("../../../../../docs/agent-files.md");
    let example = |kind: &str| {
        let begin = format!("```json {kind}\n");
        let (_, rest) = page.split_once(&begin).unwrap();
        rest.split_once("\n```").unwrap().0
    };
    let (_, service) = service_read(example("service").as_bytes()).unwrap();
    let again = service_json(&service.service, &service.token);
    assert_eq!(String::from_utf8(again).unwrap(), example("service"));
    let (_, definition) = check_read(example("check").as_bytes()).unwrap();
    let of_web = Check {
        name: "Service 'web' check".into(),
        notes: "".into(),
        output: "".into(),
        service_id: "web1".into(),
        ..check("service:web1")
    };
    let again = check_json(&of_web, &definition);
    assert_eq!(String::from_utf8(again).unwrap(), example("check"));
    let (_, said) = state_read(example("state").as_bytes(), 1_479_796_419).unwrap();
    assert_eq!(said.left, Duration::from_secs(10));
    let again = state_json(&said.id, said.status, &said.output, 1_479_796_429);
    assert_eq!(String::from_utf8(again).unwrap(), example("state"));
}

#[test]
fn a_service_comes_after_its_checks_and_goes_before_them() {
    let mut batch = Batch::default();
    let service = Arc::new(Service {
        id: Text::from("web"),
        ..Service::default()
    });
    let check = Arc::new(Check {
        check_id: Text::from("alive"),
        ..Check::default()
    });
    for edit in [
        Edit::Service {
            service,
            token: Text::default(),
        },
        Edit::Check {
            check,
            definition: Box::default(),
        },
        Edit::NoCheck(Text::from("old")),
        Edit::NoService(Text::from("old")),
    ] {
        batch.add(&edit);
    }
    let order: Vec<(String, bool)> = batch
        .in_order()
        .map(|(place, content)| {
            let folder = place.parent().unwrap().display().to_string();
            (folder, content.bytes.is_some())
        })
        .collect();
    let expected = [
        (CHECKS, true),
        (SERVICES, true),
        (SERVICES, false),
        (CHECKS, false),
    ];
    assert_eq!(
        order,
        expected.map(|(folder, kept)| (folder.to_owned(), kept))
    );
}
