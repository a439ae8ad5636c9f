//! The catalog says of a node what the node's agent says, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Check, NodeServices, Pairs, SERF_HEALTH, Service, Text};

/// What must be found of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// Where it is reached.
    pub address: Text,
    /// Its addresses by kind.
    pub tagged_addresses: Option<Pairs>,
    /// Its metadata.
    pub meta: Pairs,
    /// Its services by id.
    pub services: BTreeMap<Text, Service>,
    /// Its checks by id, without `serfHealth`.
    pub checks: BTreeMap<Text, Check>,
    /// Whether what checks have to say besides their status is there already, or may come later.
    pub outputs_count: bool,
    /// Whether the servers see for themselves that the node is alive.
    pub is_watched: bool,
}

/// The first thing that isn't as it should be; `expected` is `None` for a node that has left.
pub fn difference(
    expected: Option<&Expected>,
    node: Option<&NodeServices>,
    checks: &[Arc<Check>],
) -> Option<String> {
    let Some(expected) = expected else {
        let is_gone = node.is_none() && checks.is_empty();
        return (!is_gone).then(|| format!("it has left, and is there: {node:?} {checks:?}"));
    };
    let Some(found) = node else {
        return Some("it is not there".to_owned());
    };
    let told = (
        &found.node.address,
        &found.node.tagged_addresses,
        &found.node.meta,
    );
    let true_of_it = (
        &expected.address,
        &expected.tagged_addresses,
        &expected.meta,
    );
    if told != true_of_it {
        return Some(format!("it is {true_of_it:?}, and is told of as {told:?}"));
    }
    let services = found.services.iter().map(|service| {
        let mut service = Service::clone(service);
        (service.create_index, service.modify_index) = (0, 0);
        (service.id.clone(), service)
    });
    let mut others = BTreeMap::new();
    others.extend(services);
    if let Some(what) = unequal("service", &expected.services, &others) {
        return Some(what);
    }
    let mut others = BTreeMap::new();
    for check in checks {
        let mut check = Check::clone(check);
        (check.create_index, check.modify_index) = (0, 0);
        if let Some(true_of_it) = expected.checks.get(&check.check_id)
            && !expected.outputs_count
        {
            check.output = true_of_it.output.clone();
        }
        others.insert(check.check_id.clone(), check);
    }
    let serf_health = others.remove(&Text::from(SERF_HEALTH));
    let is_well = serf_health.as_ref().map(Check::is_passing);
    if expected.is_watched && is_well != Some(true) {
        return Some(format!("it is alive, and told of as {serf_health:?}"));
    }
    unequal("check", &expected.checks, &others)
}

fn unequal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    here: &BTreeMap<Text, T>,
    there: &BTreeMap<Text, T>,
) -> Option<String> {
    for (id, one) in here {
        let other = there.get(id);
        if other != Some(one) {
            return Some(format!(
                "{what} {id} is {one:?}, and is told of as {other:?}"
            ));
        }
    }
    let stray = there.iter().find(|(id, _)| !here.contains_key(*id));
    stray.map(|(id, other)| format!("{what} {id} isn't there, and is told of as {other:?}"))
}

#[cfg(test)]
mod tests {
    use model::Node;

    use super::*;

    fn service(id: &str, port: i64) -> Service {
        Service {
            id: Text::from(id),
            port,
            ..Service::default()
        }
    }

    fn check(id: &str, status: &str, output: &str) -> Check {
        Check {
            check_id: Text::from(id),
            status: Text::from(status),
            output: Text::from(output),
            ..Check::default()
        }
    }

    fn expected() -> Expected {
        Expected {
            services: [(Text::from("a"), service("a", 1))].into(),
            checks: [(Text::from("c"), check("c", "passing", "x"))].into(),
            outputs_count: true,
            ..Expected::default()
        }
    }

    fn judge(expected: Option<&Expected>, services: &[Service], checks: &[Check]) -> bool {
        let found = NodeServices {
            node: Arc::new(Node::default()),
            services: services.iter().cloned().map(Arc::new).collect(),
        };
        let checks: Vec<_> = checks.iter().cloned().map(Arc::new).collect();
        difference(expected, Some(&found), &checks).is_none()
    }

    #[test]
    fn what_is_there_is_all_and_as_it_is() {
        let here = expected();
        let (a, c) = ([service("a", 1)], [check("c", "passing", "x")]);
        let there = |services: &[Service], checks: &[Check]| judge(Some(&here), services, checks);
        assert!(there(&a, &c));
        assert!(!there(&[], &c), "a service is missing");
        assert!(!there(&[service("a", 2)], &c), "it is another");
        assert!(!there(&[a[0].clone(), service("b", 1)], &c), "one too many");
        assert!(!there(&a, &[]), "a check is missing");
        assert!(!there(&a, &[check("c", "critical", "x")]));
        assert!(!there(&a, &[check("c", "passing", "y")]));
        let serf_health = check(SERF_HEALTH, "critical", "");
        assert!(there(&a, &[c[0].clone(), serf_health.clone()]));
        assert!(difference(Some(&here), None, &[]).is_some());

        let later = Expected {
            outputs_count: false,
            ..here.clone()
        };
        assert!(judge(Some(&later), &a, &[check("c", "passing", "y")]));
        let watched = Expected {
            is_watched: true,
            ..here.clone()
        };
        assert!(!judge(Some(&watched), &a, &c));
        assert!(!judge(Some(&watched), &a, &[c[0].clone(), serf_health]));
        let well = check(SERF_HEALTH, "passing", "");
        assert!(judge(Some(&watched), &a, &[c[0].clone(), well]));
    }

    #[test]
    fn nothing_stays_of_who_has_left() {
        assert!(difference(None, None, &[]).is_none());
        assert!(!judge(None, &[], &[]));
    }
}
