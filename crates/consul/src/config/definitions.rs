//! Service, check and watch definitions in configuration: what can be judged before the agent runs.
//!
//! Their keys match without regard to case and underscores, and unknown ones are ignored, as in the original.

use serde_json::{Map, Value};

/// Checks a list of service definitions.
///
/// # Errors
/// The first definition that can't be registered, and why.
pub(super) fn check_services(list: &[Value]) -> Result<(), String> {
    for service in list.iter().filter_map(Value::as_object) {
        expect(
            service,
            &[
                ("id", Kind::Text),
                ("name", Kind::Text),
                ("tag", Kind::Text),
                ("tags", Kind::List),
                ("address", Kind::Text),
                ("port", Kind::Int),
                ("token", Kind::Text),
                ("enabletagoverride", Kind::Bool),
            ],
        )?;
        let id = text(service, "id").unwrap_or_default();
        if text(service, "name").unwrap_or_default().is_empty() {
            return Err(format!(
                "Failed to register service '{id}': Service name missing"
            ));
        }
        for check in member(service, "check")
            .into_iter()
            .chain(items(service, "checks"))
        {
            let Some(check) = check.as_object() else {
                return Err(format!(
                    "Failed to register service '{id}': a check must be an object"
                ));
            };
            check_fields(check)?;
        }
    }
    Ok(())
}

/// Checks a list of check definitions.
///
/// # Errors
/// The first definition that can't be registered, and why.
pub(super) fn check_checks(list: &[Value]) -> Result<(), String> {
    for check in list.iter().filter_map(Value::as_object) {
        check_fields(check)?;
        let name = text(check, "name").unwrap_or_default();
        let id = text(check, "id")
            .filter(|id| !id.is_empty())
            .unwrap_or(name);
        if id.is_empty() {
            return Err(format!(
                "Failed to register check '{name}': CheckID missing"
            ));
        }
        if !has_kind(check) {
            return Err(format!(
                "Failed to register check '{name}': Check type is not valid"
            ));
        }
    }
    Ok(())
}

/// Checks a list of watches.
///
/// # Errors
/// The first watch that can't run, and why.
pub(super) fn check_watches(list: &[Value]) -> Result<(), String> {
    for watch in list.iter().filter_map(Value::as_object) {
        let problem = match (member(watch, "type"), member(watch, "handler")) {
            (None | Some(Value::Null), _) => "Watch type must be specified",
            (Some(Value::String(_)), None | Some(Value::Null)) => "Must provide watch handler",
            (Some(Value::String(_)), Some(Value::String(_))) => continue,
            (Some(Value::String(_)), Some(_)) => "Watch handler must be a string",
            (Some(_), _) => "Watch type must be a string",
        };
        return Err(format!(
            "Failed to parse watch ({}): {problem}",
            Value::Object(watch.clone())
        ));
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bool,
    List,
    /// A duration: text, or a number of nanoseconds.
    Span,
}

fn check_fields(check: &Map<String, Value>) -> Result<(), String> {
    expect(
        check,
        &[
            ("id", Kind::Text),
            ("name", Kind::Text),
            ("notes", Kind::Text),
            ("serviceid", Kind::Text),
            ("token", Kind::Text),
            ("status", Kind::Text),
            ("script", Kind::Text),
            ("http", Kind::Text),
            ("tcp", Kind::Text),
            ("dockercontainerid", Kind::Text),
            ("shell", Kind::Text),
            ("tlsskipverify", Kind::Bool),
            ("interval", Kind::Span),
            ("timeout", Kind::Span),
            ("ttl", Kind::Span),
            ("deregistercriticalserviceafter", Kind::Span),
        ],
    )
}

fn has_kind(check: &Map<String, Value>) -> bool {
    let set = |name| match member(check, name) {
        Some(Value::String(text)) => !text.is_empty() && text != "0s",
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        _ => false,
    };
    set("ttl") || (set("interval") && (set("script") || set("http") || set("tcp")))
}

fn expect(definition: &Map<String, Value>, fields: &[(&str, Kind)]) -> Result<(), String> {
    for (name, kind) in fields {
        let Some(value) = member(definition, name) else {
            continue;
        };
        let fits = match (kind, value) {
            (_, Value::Null)
            | (Kind::Text, Value::String(_))
            | (Kind::Bool, Value::Bool(_))
            | (Kind::Span, Value::Number(_)) => true,
            (Kind::Int, Value::Number(number)) => number.as_i64().is_some(),
            (Kind::List, Value::Array(items)) => items.iter().all(Value::is_string),
            (Kind::Span, Value::String(text)) => {
                if let Err(why) = model::GoDuration::parse(text) {
                    return Err(format!("invalid {name} in a definition: {why}"));
                }
                true
            }
            _ => false,
        };
        if !fits {
            return Err(format!(
                "a definition's '{name}' has a value of the wrong type: {value}"
            ));
        }
    }
    Ok(())
}

fn member<'a>(definition: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    definition
        .iter()
        .find(|(key, _)| {
            key.chars()
                .filter(|c| *c != '_')
                .map(|c| c.to_ascii_lowercase())
                .eq(name.chars())
        })
        .map(|(_, value)| value)
}

fn text<'a>(definition: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member(definition, name).and_then(Value::as_str)
}

fn items<'a>(definition: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    member(definition, name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn judges_definitions() {
        type Judge = fn(&[Value]) -> Result<(), String>;
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
            (check_watches, json!({"type": "key", "handler": "cat"}), ""),
            (
                check_watches,
                json!({"type": "key"}),
                "Failed to parse watch ({\"type\":\"key\"}): Must provide watch handler",
            ),
            (
                check_watches,
                json!({"type": "key", "handler": 1}),
                "Failed to parse watch ({\"handler\":1,\"type\":\"key\"}): Watch handler must be a string",
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
}
