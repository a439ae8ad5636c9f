//! One configuration file, read and checked against the list of keys: from bytes to plain data.

use std::collections::BTreeMap;

use model::GoDuration;
use serde_json::Value;

use super::keys::{self, Key, Shape};

/// Configuration as data: the path of a key, and a value of that key's shape.
/// Integers are JSON numbers that fit an `i64`; keys without a value are absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    values: BTreeMap<&'static str, Value>,
}

/// Why a text is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There was nothing in it.
    #[error("EOF")]
    Empty,
    /// It isn't JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is JSON, but no object.
    #[error("expected a map, got '{0}'")]
    NotAnObject(&'static str),
    /// Values of the wrong type, one line each.
    #[error("{} error(s) decoding:\n\n{}", .0.len(), bullets(.0))]
    Types(Vec<String>),
    /// Keys that don't exist.
    #[error("Config has invalid keys: {}", .0.join(","))]
    InvalidKeys(Vec<String>),
    /// A duration that isn't one.
    #[error("{name} invalid: {why}")]
    Duration {
        /// The key, as the original's messages name it.
        name: String,
        /// What is wrong with the value.
        why: String,
    },
}

fn bullets(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("* {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Decodes one configuration file.
///
/// Only the first JSON value counts, as in the original: text after it is ignored.
///
/// # Errors
/// With the original's texts for keys and types that don't fit.
pub fn decode(bytes: &[u8]) -> Result<Document, DecodeError> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let root = match values.next() {
        None => return Err(DecodeError::Empty),
        Some(Err(why)) => return Err(DecodeError::Syntax(why.to_string())),
        Some(Ok(root)) => root,
    };
    let Value::Object(root) = root else {
        return Err(DecodeError::NotAnObject(go_type(&root)));
    };

    let mut reading = Reading::default();
    reading.level("", root);
    reading.finish()
}

impl Document {
    /// A document with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `path` from text, as a flag does: the text is read according to the key's shape.
    ///
    /// # Errors
    /// When the text isn't of that shape.
    ///
    /// # Panics
    /// When there is no such key: flags name keys of our own list.
    pub fn set_text(&mut self, path: &'static str, text: &str) -> Result<(), DecodeError> {
        let key = keys::find(path).expect("a flag sets a key of the list");
        let value = match key.shape {
            Shape::Int => crate::flags::parse_int(text)
                .map(Value::from)
                .map_err(|_| {
                    DecodeError::Types(vec![mistyped(&keys::shown(path), "int", "string")])
                })?,
            Shape::Bool => Value::Bool(crate::flags::parse_bool(text).unwrap_or(false)),
            Shape::List => {
                let mut list = match self.values.remove(path) {
                    Some(Value::Array(list)) => list,
                    _ => Vec::new(),
                };
                list.push(Value::from(text));
                Value::Array(list)
            }
            Shape::Map => {
                let mut map = match self.values.remove(path) {
                    Some(Value::Object(map)) => map,
                    _ => serde_json::Map::new(),
                };
                let (name, value) = text.split_once(':').unwrap_or((text, ""));
                map.insert(name.to_owned(), Value::from(value));
                Value::Object(map)
            }
            Shape::Duration => {
                check_duration(path, text)?;
                Value::from(text)
            }
            Shape::Text
            | Shape::DurationMap
            | Shape::Definitions
            | Shape::Definition
            | Shape::Any => Value::from(text),
        };
        self.values.insert(path, value);
        Ok(())
    }

    /// The value of a key, if it has one.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.values.get(path)
    }

    /// Every key that has a value, in alphabetical order.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.values.iter().map(|(path, value)| (*path, value))
    }

    /// Gives a key a value of its shape.
    pub(super) fn insert(&mut self, path: &'static str, value: Value) {
        self.values.insert(path, value);
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Value> {
        self.values.get_mut(path)
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (&'static str, Value)> {
        self.values.into_iter()
    }
}

/// A file being taken apart; errors are collected so that the user sees them all at once.
#[derive(Debug, Default)]
struct Reading {
    document: Document,
    /// Values of other spellings and single elements, added after the keys they belong to.
    aliased: Vec<(&'static Key, Value)>,
    mistyped: Vec<String>,
    unknown: Vec<String>,
    durations: Vec<DecodeError>,
}

impl Reading {
    /// Reads an object whose keys all lie under `group`, which ends with a dot or is empty.
    fn level(&mut self, group: &str, object: serde_json::Map<String, Value>) {
        // An exact spelling wins over one that differs in case, whichever comes first.
        let (exact, other): (Vec<_>, Vec<_>) = object.into_iter().partition(|(name, _)| {
            keys::find(&format!("{group}{name}")).is_some()
                || (group.is_empty() && keys::find_group(name) == Some(name))
        });
        let mut taken = Vec::new();
        for (name, value) in exact.into_iter().chain(other) {
            let path = format!("{group}{name}");
            let meaning = match keys::find_spelled(&path) {
                Some(key) => key.path,
                None if group.is_empty() => keys::find_group(&name).unwrap_or(""),
                None => "",
            };
            if meaning.is_empty() || taken.contains(&meaning) {
                self.unknown.push(keys::shown(&path));
                continue;
            }
            taken.push(meaning);
            match (keys::find(meaning), value) {
                (_, Value::Null) => {}
                (Some(key), value) => self.value(key, value),
                (None, Value::Object(members)) => self.level(&format!("{meaning}."), members),
                (None, value) => {
                    self.mistyped.push(format!(
                        "'{meaning}' expected a map, got '{}'",
                        go_type(&value)
                    ));
                }
            }
        }
    }

    fn value(&mut self, key: &'static Key, value: Value) {
        let shown = keys::shown(key.path);
        let value = match (key.shape, value) {
            (Shape::Any, value)
            | (Shape::Text, value @ Value::String(_))
            | (Shape::Bool, value @ Value::Bool(_))
            | (Shape::Definition, value @ Value::Object(_)) => value,
            (Shape::Int, Value::Number(number)) => match integer(&number) {
                Some(integer) => Value::from(integer),
                None => return self.mistyped.push(mistyped(&shown, "int", "float64")),
            },
            (Shape::Duration, Value::String(text)) => {
                if let Err(why) = check_duration(key.path, &text) {
                    return self.durations.push(why);
                }
                Value::String(text)
            }
            (Shape::List, Value::Array(items)) => {
                for (position, item) in items.iter().enumerate() {
                    if !item.is_string() {
                        let item_name = format!("{shown}[{position}]");
                        self.mistyped
                            .push(mistyped(&item_name, "string", go_type(item)));
                    }
                }
                Value::Array(items)
            }
            (Shape::Map | Shape::DurationMap, Value::Object(members)) => {
                for (name, member) in &members {
                    match member {
                        Value::String(text) if key.shape == Shape::DurationMap => {
                            if let Err(why) = check_duration(key.path, text) {
                                self.durations.push(why);
                            }
                        }
                        Value::String(_) => {}
                        other => {
                            let member_name = format!("{shown}[{name}]");
                            self.mistyped
                                .push(mistyped(&member_name, "string", go_type(other)));
                        }
                    }
                }
                Value::Object(members)
            }
            (Shape::Definitions, Value::Array(items)) => {
                for (position, item) in items.iter().enumerate() {
                    if !item.is_object() {
                        let found = go_type(item);
                        self.mistyped.push(format!(
                            "'{shown}[{position}]' expected a map, got '{found}'"
                        ));
                    }
                }
                Value::Array(items)
            }
            (shape, value) => return self.mistyped.push(misshapen(&shown, shape, &value)),
        };
        match key.into {
            None => self.document.insert(key.path, value),
            Some(_) => self.aliased.push((key, value)),
        }
    }

    fn finish(mut self) -> Result<Document, DecodeError> {
        if !self.mistyped.is_empty() {
            self.mistyped.sort();
            return Err(DecodeError::Types(self.mistyped));
        }
        if !self.unknown.is_empty() {
            self.unknown.sort();
            return Err(DecodeError::InvalidKeys(self.unknown));
        }
        if let Some(why) = self.durations.into_iter().next() {
            return Err(why);
        }
        for (key, value) in self.aliased {
            let Some(path) = key.into else { continue };
            match (
                keys::find(path).map(|target| target.shape),
                self.document.get_mut(path),
            ) {
                (Some(Shape::Definitions), Some(Value::Array(list))) => list.push(value),
                (Some(Shape::List), Some(Value::Array(list))) => match value {
                    Value::Array(more) => list.extend(more),
                    single => list.push(single),
                },
                (Some(Shape::Definitions | Shape::List), None) if !value.is_array() => {
                    self.document.insert(path, Value::Array(vec![value]));
                }
                (_, None) => self.document.insert(path, value),
                // The new spelling wins over the old one.
                (_, Some(_)) => {}
            }
        }
        Ok(self.document)
    }
}

/// The whole number that was written, also as `8500.0` or `8.5e3`; the original takes those.
pub(super) fn integer(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
        format!("{float:.0}").parse().ok()
    })
}

fn check_duration(path: &str, text: &str) -> Result<(), DecodeError> {
    // An empty text counts as unset, as everywhere.
    if text.is_empty() {
        return Ok(());
    }
    let why = match GoDuration::parse(text) {
        Ok(GoDuration(0..)) => return Ok(()),
        Ok(_) => format!("time: negative duration {text}"),
        Err(why) => why.to_string(),
    };
    Err(DecodeError::Duration {
        name: keys::shown_duration(path),
        why,
    })
}

fn misshapen(shown: &str, shape: Shape, found: &Value) -> String {
    let found = go_type(found);
    match shape {
        Shape::Bool => mistyped(shown, "bool", found),
        Shape::Int => mistyped(shown, "int", found),
        Shape::Text | Shape::Duration | Shape::Any => mistyped(shown, "string", found),
        Shape::List | Shape::Definitions => {
            format!("'{shown}': source data must be an array or slice, got {found}")
        }
        Shape::Map | Shape::DurationMap | Shape::Definition => {
            format!("'{shown}' expected a map, got '{found}'")
        }
    }
}

fn mistyped(shown: &str, expected: &str, found: &str) -> String {
    format!("'{shown}' expected type '{expected}', got unconvertible type '{found}'")
}

/// The original's word for the type of a JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decoded(text: &str) -> Vec<(&'static str, Value)> {
        decode(text.as_bytes()).unwrap().into_entries().collect()
    }

    #[test]
    fn reads_keys_in_any_case_and_ignores_what_follows() {
        assert_eq!(
            decoded(
                r#"{"SERVER": true, "Ports": {"HTTP": 81.0}, "encrypt": null} {"server": 7} x"#
            ),
            [("ports.http", json!(81)), ("server", json!(true))]
        );
        assert_eq!(
            decoded(
                r#"{"service": {"Name": "a"}, "services": [{"name": "b"}], "recursor": "1.2.3.4"}"#
            ),
            [
                ("recursors", json!(["1.2.3.4"])),
                ("services", json!([{"name": "b"}, {"Name": "a"}]))
            ]
        );
        assert_eq!(
            decoded(
                r#"{"statsd_addr": "a", "dogstatsd_tags": ["x"], "snapshot_agent": {"any": [1]}}"#
            ),
            [
                ("snapshot_agent", json!({"any": [1]})),
                ("telemetry.dogstatsd_tags", json!(["x"])),
                ("telemetry.statsd_address", json!("a"))
            ]
        );
    }

    #[test]
    fn refuses_with_the_texts_people_know() {
        let cases = [
            ("", "EOF"),
            ("  \n", "EOF"),
            ("[]", "expected a map, got 'slice'"),
            (
                r#"{"server": "true"}"#,
                "1 error(s) decoding:\n\n* 'server' expected type 'bool', got unconvertible type 'string'",
            ),
            (
                r#"{"ports": {"http": "8500"}, "bootstrap": 1}"#,
                "2 error(s) decoding:\n\n* 'Ports.http' expected type 'int', got unconvertible type 'string'\n* 'bootstrap' expected type 'bool', got unconvertible type 'float64'",
            ),
            (
                r#"{"ports": {"http": 1.5}}"#,
                "1 error(s) decoding:\n\n* 'Ports.http' expected type 'int', got unconvertible type 'float64'",
            ),
            (
                r#"{"ports": 1}"#,
                "1 error(s) decoding:\n\n* 'ports' expected a map, got 'float64'",
            ),
            (
                r#"{"start_join": "a"}"#,
                "1 error(s) decoding:\n\n* 'start_join': source data must be an array or slice, got string",
            ),
            (
                r#"{"start_join": ["a", 1]}"#,
                "1 error(s) decoding:\n\n* 'start_join[1]' expected type 'string', got unconvertible type 'float64'",
            ),
            (
                r#"{"services": [1]}"#,
                "1 error(s) decoding:\n\n* 'services[0]' expected a map, got 'float64'",
            ),
            (
                r#"{"b": 1, "a": 2, "ports": {"x": 3}}"#,
                "Config has invalid keys: Ports.x,a,b",
            ),
            (
                r#"{"server": true, "SERVER": true}"#,
                "Config has invalid keys: SERVER",
            ),
            (
                r#"{"retry_interval": "5"}"#,
                "RetryInterval invalid: time: missing unit in duration 5",
            ),
            (
                r#"{"dns_config": {"service_ttl": {"*": "1d"}}}"#,
                "ServiceTTL invalid: time: unknown unit d in duration 1d",
            ),
            (
                r#"{"node_meta": {"a": 1}}"#,
                "1 error(s) decoding:\n\n* 'node_meta[a]' expected type 'string', got unconvertible type 'float64'",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(
                decode(text.as_bytes()).unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
        for broken in [
            "{",
            "{\"a\"",
            "nul",
            "{]",
            "\u{feff}{}",
            &"[".repeat(100_000),
        ] {
            decode(broken.as_bytes()).unwrap_err();
        }
        decode(&[0xff, 0xfe, 0]).unwrap_err();
    }

    #[test]
    fn flags_become_the_same_data() {
        let mut document = Document::new();
        document.set_text("start_join", "a").unwrap();
        document.set_text("start_join", "b").unwrap();
        document.set_text("ports.http", "-1").unwrap();
        document.set_text("server", "true").unwrap();
        document.set_text("node_meta", "rack:a:1").unwrap();
        let entries: Vec<_> = document.clone().into_entries().collect();
        assert_eq!(
            entries,
            [
                ("node_meta", json!({"rack": "a:1"})),
                ("ports.http", json!(-1)),
                ("server", json!(true)),
                ("start_join", json!(["a", "b"])),
            ]
        );
        let why = document.set_text("retry_interval", "x").unwrap_err();
        assert_eq!(
            why.to_string(),
            "RetryInterval invalid: time: invalid duration x"
        );
    }
}
