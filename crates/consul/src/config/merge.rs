//! How a later configuration changes an earlier one: one rule for each shape, and one table of exceptions.

use model::GoDuration;
use serde_json::Value;

use super::document::Document;
use super::keys::{self, Shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The later value, unless it is empty, zero or false. So `0` or `""` never resets anything.
    ReplaceUnlessEmpty,
    /// The later value, whatever it is.
    Replace,
    /// Both, the later after the earlier.
    Append,
    /// Both, the later value for each name that they share.
    MergeByName,
}

/// Keys that don't follow the rule of their shape.
const EXCEPTIONS: &[(&str, Rule)] = &[
    // A deliberate "no" differs from silence, because the default depends on the mode.
    ("leave_on_terminate", Rule::Replace),
    ("skip_leave_on_interrupt", Rule::Replace),
    ("dns_config.allow_stale", Rule::Replace),
    ("acl_enforce_version_8", Rule::Replace),
    // Off by default here and on in the original, so either must be sayable.
    ("disable_remote_exec", Rule::Replace),
    // "0s" means something here.
    ("check_update_interval", Rule::Replace),
    ("acl_ttl", Rule::Replace),
    ("session_ttl_min", Rule::Replace),
    // A list that the original replaces.
    ("telemetry.dogstatsd_tags", Rule::Replace),
];

fn rule(path: &str) -> Rule {
    if let Some((_, rule)) = EXCEPTIONS.iter().find(|(key, _)| *key == path) {
        return *rule;
    }
    match keys::find(path).map(|key| key.shape) {
        Some(Shape::List | Shape::Definitions | Shape::Definition) => Rule::Append,
        Some(Shape::Map | Shape::DurationMap) => Rule::MergeByName,
        Some(Shape::Text | Shape::Int | Shape::Bool | Shape::Duration | Shape::Any) | None => {
            Rule::ReplaceUnlessEmpty
        }
    }
}

/// Merges `later` over `earlier`.
pub(super) fn merge(earlier: &mut Document, later: Document) {
    for (path, new) in later.into_entries() {
        match (rule(path), earlier.get_mut(path), new) {
            (Rule::ReplaceUnlessEmpty, _, new) if says_nothing(path, &new) => {}
            (Rule::Append, Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (Rule::MergeByName, Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, _, new) => earlier.insert(path, new),
        }
    }
}

/// Whether the user would see no difference if the key weren't there.
pub(super) fn is_silent(path: &str, value: &Value) -> bool {
    rule(path) != Rule::Replace && says_nothing(path, value)
}

fn says_nothing(path: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => {
            let is_duration = keys::find(path).is_some_and(|key| key.shape == Shape::Duration);
            text.is_empty() || (is_duration && GoDuration::parse(text) == Ok(GoDuration(0)))
        }
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::decode;

    #[test]
    fn later_over_earlier() {
        let cases = [
            // strings and numbers: empty and zero never reset
            (
                r#"{"datacenter":"a"}"#,
                r#"{"datacenter":"b"}"#,
                r#"{"datacenter":"b"}"#,
            ),
            (
                r#"{"datacenter":"a"}"#,
                r#"{"datacenter":""}"#,
                r#"{"datacenter":"a"}"#,
            ),
            (
                r#"{"ports":{"http":1}}"#,
                r#"{"ports":{"http":0}}"#,
                r#"{"ports":{"http":1}}"#,
            ),
            (
                r#"{"ports":{"http":1}}"#,
                r#"{"ports":{"http":-1}}"#,
                r#"{"ports":{"http":-1}}"#,
            ),
            (
                r#"{"retry_interval":"5s"}"#,
                r#"{"retry_interval":"0s"}"#,
                r#"{"retry_interval":"5s"}"#,
            ),
            // switches: once on, on
            (
                r#"{"server":true}"#,
                r#"{"server":false}"#,
                r#"{"server":true}"#,
            ),
            (
                r#"{"server":false}"#,
                r#"{"server":true}"#,
                r#"{"server":true}"#,
            ),
            // lists and maps grow
            (
                r#"{"start_join":["a"]}"#,
                r#"{"start_join":["b","a"]}"#,
                r#"{"start_join":["a","b","a"]}"#,
            ),
            (
                r#"{"service":{"name":"a"}}"#,
                r#"{"services":[{"name":"b"}]}"#,
                r#"{"services":[{"name":"a"},{"name":"b"}]}"#,
            ),
            (
                r#"{"http_api_response_headers":{"A":"1","B":"1"}}"#,
                r#"{"http_api_response_headers":{"B":"2"}}"#,
                r#"{"http_api_response_headers":{"A":"1","B":"2"}}"#,
            ),
            // the exceptions
            (
                r#"{"leave_on_terminate":true}"#,
                r#"{"leave_on_terminate":false}"#,
                r#"{"leave_on_terminate":false}"#,
            ),
            (
                r#"{"session_ttl_min":"5s"}"#,
                r#"{"session_ttl_min":"0s"}"#,
                r#"{"session_ttl_min":"0s"}"#,
            ),
            (
                r#"{"dogstatsd_tags":["a"]}"#,
                r#"{"telemetry":{"dogstatsd_tags":["b"]}}"#,
                r#"{"dogstatsd_tags":["b"]}"#,
            ),
            // what the later one doesn't mention stays
            (
                r#"{"node_name":"n"}"#,
                r#"{"node_name":null,"server":true}"#,
                r#"{"node_name":"n","server":true}"#,
            ),
        ];
        for (earlier, later, expected) in cases {
            let mut merged = decode(earlier.as_bytes()).unwrap();
            merge(&mut merged, decode(later.as_bytes()).unwrap());
            assert_eq!(
                merged,
                decode(expected.as_bytes()).unwrap(),
                "{earlier} + {later}"
            );
        }
    }
}
