use std::time::Duration;

use model::{Authority, Policy, Service};
use tokio::time::Instant;

use super::super::{LocalConfig, Maintenance};
use super::*;
use crate::definition::{CheckKind, Every, Script, ServiceDefinition, Status};

fn ttl(id: &str, service_id: &str) -> CheckDefinition {
    CheckDefinition {
        id: id.into(),
        name: id.into(),
        service_id: service_id.into(),
        kind: Some(CheckKind::Ttl(Duration::from_secs(10))),
        ..CheckDefinition::default()
    }
}

fn script() -> CheckDefinition {
    let every = Every {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
    };
    CheckDefinition {
        kind: Some(CheckKind::Script {
            script: Script::Line("true".into()),
            every,
        }),
        token: "t".into(),
        ..ttl("script", "")
    }
}

fn service(id: &str, name: &str, checks: Vec<CheckDefinition>) -> ServiceDefinition {
    ServiceDefinition {
        service: Service {
            id: id.into(),
            name: name.into(),
            ..Service::default()
        },
        checks,
        ..ServiceDefinition::default()
    }
}

/// A node that offers `web` as `w` and `db` as `db`, with a check of its own.
fn state(api_scripts: ApiScripts) -> State {
    let mut state = State::new(&LocalConfig {
        node: "n1".into(),
        api_scripts,
        ..LocalConfig::default()
    });
    let now = Instant::now();
    for definition in [
        service("w", "web", vec![ttl("", "")]),
        service("db", "db", vec![]),
    ] {
        state.register_service(definition, now).unwrap();
    }
    for definition in [ttl("mem", ""), ttl("of-db", "db"), ttl("service:new", "")] {
        state.register_check(definition, now).unwrap();
    }
    state
}

fn holder(rules: &[(Resource, &str, Access)], otherwise: Access) -> Bearer {
    let rules = rules.iter();
    let rules = rules.map(|(resource, name, access)| (*resource, Text::from(*name), *access));
    Bearer::Holder(Authority::limited(Policy::new(rules, otherwise), true))
}

fn register(definition: ServiceDefinition) -> Want {
    Want::RegisterService(Box::new(definition))
}

fn check(definition: CheckDefinition) -> Want {
    Want::RegisterCheck(Box::new(definition))
}

fn say(id: &str) -> Want {
    Want::UpdateTtl {
        id: id.into(),
        status: Status::Passing,
        output: Text::default(),
    }
}

fn begin() -> Maintenance {
    Maintenance::new(None, true, Text::default())
}

fn of_service(id: &str) -> Want {
    Want::ServiceMaintenance {
        id: id.into(),
        maintenance: begin(),
    }
}

#[tokio::test]
async fn every_change_needs_the_rule_of_what_it_changes() {
    use Access::{Deny, Write};
    let state = state(ApiScripts::Allowed);
    let web = holder(&[(Resource::Service, "web", Write)], Deny);
    let new = holder(&[(Resource::Service, "new", Write)], Deny);
    let node = holder(&[(Resource::Node, "n1", Write)], Deny);
    let nobody = holder(&[], Deny);
    let denied = |what: &str| Err(format!("Permission denied: this needs write on {what}"));
    for (number, (want, bearer, expected)) in [
        (register(service("w", "web", vec![])), &web, Ok(())),
        (
            register(service("W", "web", vec![ttl("", "")])),
            &web,
            Ok(()),
        ),
        (register(service("", "web-2", vec![])), &web, Ok(())),
        (register(service("", "new", vec![])), &new, Ok(())),
        (
            register(service("", "x", vec![])),
            &web,
            denied("service \"x\""),
        ),
        // What is replaced counts as well: a service, and a check by the id that it will have.
        (
            register(service("db", "web", vec![])),
            &web,
            denied("service \"db\""),
        ),
        (
            register(service("", "new", vec![ttl("", "")])),
            &new,
            denied("node \"n1\""),
        ),
        (
            register(service("", "new", vec![ttl("", ""), ttl("", "")])),
            &new,
            Ok(()),
        ),
        (check(ttl("c", "w")), &web, Ok(())),
        (check(ttl("c", "")), &node, Ok(())),
        (check(ttl("c", "")), &web, denied("node \"n1\"")),
        (check(ttl("c", "db")), &web, denied("service \"db\"")),
        (check(ttl("of-db", "w")), &web, denied("service \"db\"")),
        (check(ttl("MEM", "w")), &web, denied("node \"n1\"")),
        (
            check(ttl("c", "x")),
            &web,
            Err("ServiceID \"x\" does not exist".to_owned()),
        ),
        (Want::DeregisterService("w".into()), &web, Ok(())),
        (
            Want::DeregisterService("db".into()),
            &web,
            denied("service \"db\""),
        ),
        (
            Want::DeregisterService("x".into()),
            &web,
            Err("Unknown service \"x\"".to_owned()),
        ),
        (Want::DeregisterCheck("service:w".into()), &web, Ok(())),
        (Want::DeregisterCheck("mem".into()), &node, Ok(())),
        (
            Want::DeregisterCheck("mem".into()),
            &nobody,
            denied("node \"n1\""),
        ),
        (
            Want::DeregisterCheck("x".into()),
            &nobody,
            Err("Unknown check \"x\"".to_owned()),
        ),
        (say("service:w"), &web, Ok(())),
        (say("of-db"), &web, denied("service \"db\"")),
        (say("mem"), &web, denied("node \"n1\"")),
        (say("x"), &web, Err("Unknown check \"x\"".to_owned())),
        (of_service("w"), &web, Ok(())),
        (of_service("db"), &web, denied("service \"db\"")),
        (
            of_service("x"),
            &web,
            Err("Unknown service \"x\"".to_owned()),
        ),
        (Want::NodeMaintenance(begin()), &node, Ok(())),
        (Want::NodeMaintenance(begin()), &web, denied("node \"n1\"")),
    ]
    .into_iter()
    .enumerate()
    {
        let guarded = state
            .guard(&want, bearer)
            .map_err(|error| error.to_string());
        assert_eq!(guarded, expected, "case {number}");
        if !expected.is_err_and(|why| why.starts_with("ServiceID")) {
            assert_eq!(
                state.guard(&want, &Bearer::Anybody),
                Ok(()),
                "case {number}"
            );
        }
    }
    // Who may everything is told of what there isn't as well.
    let everything = Bearer::Holder(Authority::unlimited());
    let unknown = state.guard(&Want::DeregisterService("x".into()), &everything);
    assert_eq!(unknown.unwrap_err().to_string(), "Unknown service \"x\"");
}

#[tokio::test]
async fn scripts_are_taken_where_nobody_brings_them_uncalled() {
    let denying = holder(&[(Resource::Node, "n1", Access::Write)], Access::Deny);
    let allowing = holder(&[], Access::Write);
    let everything = Bearer::Holder(Authority::unlimited());
    let bearers = [&Bearer::Anybody, &allowing, &denying, &everything];
    for (api_scripts, expected) in [
        (ApiScripts::Allowed, [true, true, true, true]),
        (ApiScripts::Admitted, [false, false, true, true]),
        (ApiScripts::Refused, [false, false, false, false]),
    ] {
        let state = state(api_scripts);
        let taken = bearers.map(|bearer| state.guard(&check(script()), bearer).is_ok());
        assert_eq!(taken, expected, "{api_scripts:?}");
        let with_service = || register(service("", "s", vec![script()]));
        let refused = state.guard(&with_service(), &Bearer::Anybody);
        let is_refused = refused == Err(LocalError::ScriptsRefused);
        assert_eq!(is_refused, !expected[0], "{api_scripts:?}");
    }
    // What the agent lends to those who bring no token is not enough, and neither is a token alone.
    let lent = CheckDefinition {
        token: Text::default(),
        ..script()
    };
    let refused = state(ApiScripts::Admitted).guard(&check(lent), &denying);
    assert_eq!(refused, Err(LocalError::ScriptsRefused));
    let stranger = holder(&[], Access::Deny);
    let refused = state(ApiScripts::Admitted).guard(&check(script()), &stranger);
    assert!(matches!(refused, Err(LocalError::Denied(_))));
}
