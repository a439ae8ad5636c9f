//! Service and check definitions in configuration, decoded.
//!
//! Their keys match without regard to case and underscores, and unknown ones are ignored, as in the original.

use agent::definition::{CheckDefinition, Script, ServiceDefinition, Status, Ways};
use model::{GoDuration, Service, Text};
use serde_json::{Map, Value};

use super::document::{self, Document};

/// Decodes the services and checks that a document defines.
///
/// # Errors
/// The first definition that can't be registered, and why.
pub(super) fn judge(document: &Document) -> Result<(), String> {
    let list = |key| match document.get(key) {
        Some(Value::Array(list)) => list.as_slice(),
        _ => &[],
    };
    services(list("services"))?;
    checks(list("checks")).map(drop)
}

/// Decodes a list of service definitions.
///
/// # Errors
/// The first definition that can't be registered, and why.
pub(super) fn services(list: &[Value]) -> Result<Vec<ServiceDefinition>, String> {
    let definitions = list.iter().filter_map(Value::as_object);
    definitions
        .map(|fields| service(Definition(fields)))
        .collect()
}

/// Decodes a list of check definitions.
///
/// # Errors
/// The first definition that can't be registered, and why.
pub(super) fn checks(list: &[Value]) -> Result<Vec<CheckDefinition>, String> {
    let definitions = list.iter().filter_map(Value::as_object);
    let alone = |fields| {
        let check = check(Definition(fields))?;
        if check.id.is_empty() && check.name.is_empty() {
            return Err("Failed to register check '': CheckID missing".to_owned());
        }
        if check.kind.is_none() {
            return Err(format!(
                "Failed to register check '{}': Check type is not valid",
                check.name
            ));
        }
        Ok(check)
    };
    definitions.map(alone).collect()
}

fn service(definition: Definition<'_>) -> Result<ServiceDefinition, String> {
    let service = Service {
        id: definition.text("id")?.into(),
        name: definition.text("name")?.into(),
        tags: tags(definition)?,
        address: definition.text("address")?.into(),
        port: definition.int("port")?,
        enable_tag_override: definition.on("enabletagoverride")?,
        ..Service::default()
    };
    let failed = |why: &str| format!("Failed to register service '{}': {why}", service.id);
    if service.name.is_empty() {
        return Err(failed("Service name missing"));
    }
    // The original numbers the list first, and the single one last.
    let mut checks = Vec::new();
    for embedded in definition
        .list("checks")?
        .iter()
        .chain(definition.member("check"))
    {
        match embedded {
            Value::Object(fields) => {
                let check = check(Definition(fields))?;
                // The original drops what it can't run, and registers the service without it.
                if check.kind.is_some() {
                    checks.push(check);
                }
            }
            Value::Null => {}
            _ => return Err(failed("a check must be an object")),
        }
    }
    Ok(ServiceDefinition {
        service,
        checks,
        token: definition.text("token")?.into(),
    })
}

/// The tags, or the single one that old files have.
fn tags(definition: Definition<'_>) -> Result<Option<Vec<Text>>, String> {
    let single = definition.text("tag")?;
    let tags = definition.texts("tags")?;
    let tags = tags.or_else(|| (!single.is_empty()).then(|| vec![single.to_owned()]));
    Ok(tags.map(|tags| tags.into_iter().map(Text::from).collect()))
}

fn check(definition: Definition<'_>) -> Result<CheckDefinition, String> {
    let name = definition.text("name")?;
    let status = match definition.text("status")? {
        "" => None,
        status => Some(Status::named(status.as_bytes()).ok_or_else(|| {
            format!(
                "Failed to register check '{name}': status must be 'passing', 'warning' or 'critical', not '{status}'"
            )
        })?),
    };
    let ways = Ways {
        ttl: definition.span("ttl")?,
        interval: definition.span("interval")?,
        timeout: definition.span("timeout")?,
        script: script(definition)?,
        http: definition.text("http")?.to_owned(),
        tls_skip_verify: definition.on("tlsskipverify")?,
        tcp: definition.text("tcp")?.to_owned(),
        docker_container: definition.text("dockercontainerid")?.to_owned(),
        shell: definition.text("shell")?.to_owned(),
    };
    let deregister_after = definition.span("deregistercriticalserviceafter")?;
    Ok(CheckDefinition {
        id: definition.text("id")?.into(),
        name: name.into(),
        notes: definition.text("notes")?.into(),
        service_id: definition.text("serviceid")?.into(),
        status,
        token: definition.text("token")?.into(),
        kind: ways.kind(),
        deregister_after: deregister_after.to_std(),
        success_before_passing: definition.count("successbeforepassing")?,
        failures_before_critical: definition.count("failuresbeforecritical")?,
    })
}

/// What is run: a list in `args`, as later releases have it, goes before `script`, which may be a line or a list here.
fn script(definition: Definition<'_>) -> Result<Option<Script>, String> {
    let args = definition.texts("args")?.filter(|args| !args.is_empty());
    let script = match definition.member("script") {
        Some(Value::Array(_)) => definition.texts("script")?.map(Script::List),
        _ => Some(Script::Line(definition.text("script")?.to_owned())),
    };
    Ok(args.map(Script::List).or(script))
}

/// The fields of one definition. What isn't given, or is null, is empty.
#[derive(Clone, Copy)]
struct Definition<'a>(&'a Map<String, Value>);

impl<'a> Definition<'a> {
    fn member(self, name: &str) -> Option<&'a Value> {
        let found = self.0.iter().find(|(key, _)| is_named(key, name));
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    fn text(self, name: &str) -> Result<&'a str, String> {
        match self.member(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(mistyped(name, other)),
        }
    }

    fn on(self, name: &str) -> Result<bool, String> {
        match self.member(name) {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(other) => Err(mistyped(name, other)),
        }
    }

    fn int(self, name: &str) -> Result<i64, String> {
        match self.member(name) {
            None => Ok(0),
            Some(value) => whole(value).ok_or_else(|| mistyped(name, value)),
        }
    }

    /// How many of something.
    fn count(self, name: &str) -> Result<u32, String> {
        let number = self.int(name)?;
        u32::try_from(number).map_err(|_| format!("a definition's '{name}' can't be {number}"))
    }

    /// A duration: text, or a number of nanoseconds.
    fn span(self, name: &str) -> Result<GoDuration, String> {
        match self.member(name) {
            None => Ok(GoDuration(0)),
            Some(Value::String(text)) if text.is_empty() => Ok(GoDuration(0)),
            Some(Value::String(text)) => GoDuration::parse(text)
                .map_err(|why| format!("invalid {name} in a definition: {why}")),
            Some(value) => whole(value)
                .map(GoDuration)
                .ok_or_else(|| mistyped(name, value)),
        }
    }

    fn list(self, name: &str) -> Result<&'a [Value], String> {
        match self.member(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(mistyped(name, other)),
        }
    }

    fn texts(self, name: &str) -> Result<Option<Vec<String>>, String> {
        let Some(list) = self.member(name) else {
            return Ok(None);
        };
        let text = |item: &Value| item.as_str().map(str::to_owned);
        let texts: Option<Vec<String>> = self.list(name)?.iter().map(text).collect();
        texts.map(Some).ok_or_else(|| mistyped(name, list))
    }
}

/// Whether this is the name, in any case and with underscores anywhere.
fn is_named(key: &str, name: &str) -> bool {
    let letters = key.chars().filter(|c| *c != '_');
    letters.map(|c| c.to_ascii_lowercase()).eq(name.chars())
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => document::integer(number),
        _ => None,
    }
}

/// What holds other values isn't shown: one of them may be a token.
fn mistyped(name: &str, value: &Value) -> String {
    let what = match value {
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        scalar => &scalar.to_string(),
    };
    format!("a definition's '{name}' has a value of the wrong type: {what}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agent::definition::{CheckKind, Every};
    use serde_json::json;

    use super::*;

    #[test]
    fn judges_definitions() {
        type Judge = fn(&[Value]) -> Result<(), String>;
        let check_services: Judge = |list| services(list).map(drop);
        let check_checks: Judge = |list| checks(list).map(drop);
        let cases: &[(Judge, Value, &str)] = &[
            (
                check_services,
                json!({"Name": "web", "Port": 80, "nonsense": {}}),
                "",
            ),
            (
                check_services,
                json!({"name": "web", "enable_tag_override": true, "checks": [{"ttl": "5s"}]}),
                "",
            ),
            (
                check_services,
                json!({"id": "w"}),
                "Failed to register service 'w': Service name missing",
            ),
            (
                check_services,
                json!({"name": "w", "port": "80"}),
                "a definition's 'port' has a value of the wrong type: \"80\"",
            ),
            (
                check_services,
                json!({"name": "w", "check": {"interval": "5"}}),
                "invalid interval in a definition: time: missing unit in duration 5",
            ),
            (check_checks, json!({"name": "c", "TTL": "5s"}), ""),
            (
                check_checks,
                json!({"ttl": "5s"}),
                "Failed to register check '': CheckID missing",
            ),
            (
                check_checks,
                json!({"name": "c", "script": "x"}),
                "Failed to register check 'c': Check type is not valid",
            ),
            (
                check_services,
                json!({"name": "w", "check": 5}),
                "Failed to register service '': a check must be an object",
            ),
            (
                check_services,
                json!({"name": "w", "checks": {"token": "secret"}}),
                "a definition's 'checks' has a value of the wrong type: an object",
            ),
            (
                check_services,
                json!({"name": "w", "tags": [1]}),
                "a definition's 'tags' has a value of the wrong type: a list",
            ),
            (
                check_services,
                json!({"name": "w", "check": {"status": "fine"}}),
                "Failed to register check '': status must be 'passing', 'warning' or 'critical', not 'fine'",
            ),
            (
                check_checks,
                json!({"name": "c", "ttl": "5s", "failures_before_critical": -1}),
                "a definition's 'failuresbeforecritical' can't be -1",
            ),
            (
                check_checks,
                json!({"name": "c", "interval": "5s", "args": []}),
                "Failed to register check 'c': Check type is not valid",
            ),
        ];
        for (judge, definition, problem) in cases {
            let expected = if problem.is_empty() {
                Ok(())
            } else {
                Err((*problem).to_owned())
            };
            assert_eq!(
                judge(std::slice::from_ref(definition)),
                expected,
                "{definition}"
            );
        }
    }

    #[test]
    fn services_as_they_are_meant() {
        let second = Duration::from_secs(1);
        let check = |kind| CheckDefinition {
            kind: Some(kind),
            ..CheckDefinition::default()
        };
        let cases = [
            (json!({"name": "web"}), ServiceDefinition::default()),
            (
                json!({"ID": "w1", "Name": "web", "Tags": ["b", "a"], "tag": "c", "Address": "10.0.0.1", "PORT": 80.0,
                       "Token": "t", "Enable_Tag_Override": true, "unknown": {}, "check": null}),
                ServiceDefinition {
                    service: Service {
                        id: "w1".into(),
                        tags: Some(vec!["b".into(), "a".into()]),
                        address: "10.0.0.1".into(),
                        port: 80,
                        enable_tag_override: true,
                        ..Service::default()
                    },
                    token: "t".into(),
                    ..ServiceDefinition::default()
                },
            ),
            (
                json!({"name": "web", "tag": "c"}),
                ServiceDefinition {
                    service: Service {
                        tags: Some(vec!["c".into()]),
                        ..Service::default()
                    },
                    ..ServiceDefinition::default()
                },
            ),
            (
                json!({"name": "web", "tags": [], "check": {"ttl": "1s"},
                       "checks": [{"tcp": "a:1", "interval": 1_000_000_000}, {"script": "never run"}]}),
                ServiceDefinition {
                    service: Service {
                        tags: Some(Vec::new()),
                        ..Service::default()
                    },
                    checks: vec![
                        check(CheckKind::Tcp {
                            address: "a:1".to_owned(),
                            every: Every {
                                interval: second,
                                timeout: Duration::ZERO,
                            },
                        }),
                        check(CheckKind::Ttl(second)),
                    ],
                    ..ServiceDefinition::default()
                },
            ),
        ];
        for (written, mut meant) in cases {
            meant.service.name = "web".into();
            assert!(
                services(std::slice::from_ref(&written)) == Ok(vec![meant]),
                "{written}"
            );
        }
    }

    #[test]
    fn checks_as_they_are_meant() {
        let every = Every {
            interval: Duration::from_secs(10),
            timeout: Duration::from_millis(300),
        };
        let line = Script::Line("true".to_owned());
        let words = Script::List(vec!["/bin/true".to_owned(), "-x".to_owned()]);
        let cases = [
            (
                json!({"script": "true"}),
                CheckKind::Script {
                    script: line.clone(),
                    every,
                },
            ),
            (
                json!({"script": ["/bin/true", "-x"]}),
                CheckKind::Script {
                    script: words.clone(),
                    every,
                },
            ),
            (
                json!({"args": ["/bin/true", "-x"], "script": "true"}),
                CheckKind::Script {
                    script: words,
                    every,
                },
            ),
            (
                json!({"docker_container_id": "box", "Script": "true", "args": [], "shell": "/bin/ash"}),
                CheckKind::Docker {
                    container: "box".to_owned(),
                    shell: "/bin/ash".to_owned(),
                    script: line,
                    every,
                },
            ),
            (
                json!({"HTTP": "https://localhost", "TLSSkipVerify": true, "script": "never run"}),
                CheckKind::Http {
                    url: "https://localhost".to_owned(),
                    tls_skip_verify: true,
                    every,
                },
            ),
        ];
        for (written, kind) in cases {
            let mut whole = json!({"id": "c1", "name": "c", "notes": "for people", "ServiceID": "w", "status": "warning",
                "token": "t", "interval": "10s", "timeout": "300ms", "deregister_critical_service_after": "90m",
                "success_before_passing": 2, "FailuresBeforeCritical": 3});
            let fields = whole.as_object_mut().unwrap();
            fields.extend(written.as_object().unwrap().clone());
            let meant = CheckDefinition {
                id: "c1".into(),
                name: "c".into(),
                notes: "for people".into(),
                service_id: "w".into(),
                status: Some(Status::Warning),
                token: "t".into(),
                kind: Some(kind),
                deregister_after: Duration::from_secs(90 * 60),
                success_before_passing: 2,
                failures_before_critical: 3,
            };
            assert!(checks(&[whole]) == Ok(vec![meant]), "{written}");
        }
    }
}
