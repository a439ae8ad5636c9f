//! Watches in configuration, decoded: what to look at, and what is told of changes.
//!
//! Their keys are spelled exactly so, as in the original; of one that is refused everything is shown but what may be secret.

use std::time::Duration;

use client::{HookConfig, Plan};
use model::GoDuration;
use serde_json::{Map, Value};

/// How long a request may take that tells of a change, if nobody says otherwise.
const HOOK_TIME: Duration = Duration::from_secs(10);

/// A watch of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchDefinition {
    /// What to look at.
    pub plan: Plan,
    /// What is told of changes.
    pub handler: Handler,
}

/// What is told of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// A line for the shell, never empty.
    Line(String),
    /// A program and its arguments, never without a program.
    List(Vec<String>),
    /// A page.
    Page(Box<HookConfig>),
}

/// Decodes a list of watches.
///
/// # Errors
/// The first one that can't run, and why.
pub(super) fn watches(list: &[Value]) -> Result<Vec<WatchDefinition>, String> {
    list.iter()
        .filter_map(Value::as_object)
        .map(watch)
        .collect()
}

fn watch(fields: &Map<String, Value>) -> Result<WatchDefinition, String> {
    let mut rest = fields.clone();
    let given = Given {
        kind: rest.remove("handler_type"),
        line: rest.remove("handler"),
        list: rest.remove("args"),
        page: rest.remove("http_handler_config"),
    };
    let shown = || Value::Object(without_secrets(fields));
    let plan =
        Plan::parse(rest).map_err(|why| format!("Failed to parse watch ({}): {why}", shown()))?;
    let handler = given
        .handler()
        .map_err(|why| format!("Failed to setup watch handler ({}): {why}", shown()))?;
    Ok(WatchDefinition { plan, handler })
}

/// What says who is told, as it was written.
struct Given {
    kind: Option<Value>,
    line: Option<Value>,
    list: Option<Value>,
    page: Option<Value>,
}

impl Given {
    fn handler(self) -> Result<Handler, String> {
        let is_page = match self.kind.as_ref().map(Value::as_str) {
            None | Some(Some("" | "script")) => false,
            Some(Some("http")) => true,
            Some(Some(other)) => return Err(format!("Handler type '{other}' not recognized")),
            Some(None) => return Err("Watch handler_type must be a string".to_owned()),
        };
        match (self.line, self.list, self.page) {
            (None, None, Some(config)) if is_page => {
                page(&config).map(|page| Handler::Page(Box::new(page)))
            }
            (None, None, None) if is_page => {
                Err("Handler type 'http' needs http_handler_config".to_owned())
            }
            (_, _, Some(_)) if !is_page => {
                Err("http_handler_config needs handler_type 'http'".to_owned())
            }
            (Some(_), None, _) | (None, Some(_), _) if is_page => {
                Err("Only one watch handler allowed".to_owned())
            }
            (Some(_), Some(_), _) => Err("Only one watch handler allowed".to_owned()),
            (None, None, _) => Err("Must provide watch handler".to_owned()),
            (Some(Value::String(line)), None, _) if line.is_empty() => {
                Err("Must provide watch handler".to_owned())
            }
            (Some(Value::String(line)), None, _) => Ok(Handler::Line(line)),
            (Some(_), None, _) => Err("Watch handler must be a string".to_owned()),
            (None, Some(list), _) => texts(&list)
                .filter(|list| list.first().is_some_and(|program| !program.is_empty()))
                .map(Handler::List)
                .ok_or_else(|| "Watch args must be a list of strings".to_owned()),
        }
    }
}

/// Who is told over HTTP, as later releases spell it.
fn page(config: &Value) -> Result<HookConfig, String> {
    let Value::Object(config) = config else {
        return Err("http_handler_config must be an object".to_owned());
    };
    let mut config = config.clone();
    let mut text = |name: &str| match config.remove(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("http_handler_config: {name} must be a string")),
    };
    let (path, method, timeout) = (text("path")?, text("method")?, text("timeout")?);
    if path.is_empty() {
        return Err("http_handler_config: path must be specified".to_owned());
    }
    let method = if method.is_empty() { "POST" } else { &method };
    let timeout = match timeout.as_str() {
        "" => HOOK_TIME,
        text => GoDuration::parse(text)
            .map_err(|why| format!("http_handler_config: invalid timeout: {why}"))?
            .to_std(),
    };
    if timeout.is_zero() {
        return Err("http_handler_config: timeout must be more than nothing".to_owned());
    }
    let skip_verification = match config.remove("tls_skip_verify") {
        None => false,
        Some(Value::Bool(skip)) => skip,
        Some(_) => return Err("http_handler_config: tls_skip_verify must be a boolean".to_owned()),
    };
    let headers = match config.remove("header") {
        None => Vec::new(),
        Some(Value::Object(headers)) => pairs(&headers)?,
        Some(_) => return Err(HEADER.to_owned()),
    };
    if !config.is_empty() {
        let names: Vec<String> = config.into_iter().map(|(name, _)| name).collect();
        let names = names.join(" ");
        return Err(format!(
            "http_handler_config: Invalid parameters: [{names}]"
        ));
    }
    HookConfig::new(&path, method, &headers, timeout, skip_verification)
        .map_err(|why| format!("http_handler_config: {why}"))
}

const HEADER: &str = "http_handler_config: header must be an object of lists of strings";

fn pairs(headers: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (name, values) in headers {
        let values = match values {
            Value::String(value) => vec![value.clone()],
            list => texts(list).ok_or(HEADER)?,
        };
        pairs.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    Ok(pairs)
}

fn texts(list: &Value) -> Option<Vec<String>> {
    let items = list.as_array()?.iter();
    items.map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The same, to be shown: errors end up in logs.
fn without_secrets(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut shown = fields.clone();
    for (name, value) in &mut shown {
        if name.eq_ignore_ascii_case("token") || name == "http_handler_config" {
            *value = Value::from("<hidden>");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(definition: Value) -> Result<WatchDefinition, String> {
        let mut read = watches(&[definition])?;
        assert_eq!(read.len(), 1);
        Ok(read.remove(0))
    }

    #[test]
    fn watches_as_they_are_meant() {
        let plan =
            |parameters: Value| Plan::parse(parameters.as_object().unwrap().clone()).unwrap();
        let nodes = || plan(json!({"type": "nodes", "stale": true}));
        let hook = |method, headers: &[(&str, &str)], seconds, skip| {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let timeout = Duration::from_secs(seconds);
            let page = HookConfig::new("http://h/x", method, &headers, timeout, skip);
            Handler::Page(Box::new(page.unwrap()))
        };
        let cases = [
            (
                json!({"type": "key", "key": "k", "token": "t", "handler": "cat > x"}),
                plan(json!({"type": "key", "key": "k", "token": "t"})),
                Handler::Line("cat > x".to_owned()),
            ),
            (
                json!({"type": "nodes", "stale": true, "args": ["prog", "a b"], "handler_type": "script"}),
                nodes(),
                Handler::List(vec!["prog".to_owned(), "a b".to_owned()]),
            ),
            (
                json!({"type": "nodes", "stale": true, "handler_type": "http", "http_handler_config": {"path": "http://h/x"}}),
                nodes(),
                hook("POST", &[], 10, false),
            ),
            (
                json!({"type": "nodes", "stale": true, "handler_type": "http", "http_handler_config": {
                    "path": "http://h/x", "method": "PUT", "timeout": "3s", "tls_skip_verify": true,
                    "header": {"a": ["1", "2"], "b": "3"}}}),
                nodes(),
                hook("PUT", &[("a", "1"), ("a", "2"), ("b", "3")], 3, true),
            ),
        ];
        for (definition, plan, handler) in cases {
            let read = read(definition.clone());
            assert_eq!(read, Ok(WatchDefinition { plan, handler }), "{definition}");
        }
    }

    #[test]
    fn the_manuals_examples_can_run() {
        const MANUAL: &str = include_str!("../../../../docs/watches.md");
        let (_, rest) = MANUAL.split_once("```json watches\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let example: Value = serde_json::from_str(example).unwrap();
        let read = watches(example["watches"].as_array().unwrap()).unwrap();
        assert_eq!(read.len(), 3);
        // The page of the example says nothing that isn't so anyway, but for its header.
        let headers = [("X-Key".to_owned(), "k1".to_owned())];
        let url = "https://hooks.example.com/deploy";
        let page = HookConfig::new(url, "POST", &headers, HOOK_TIME, false).unwrap();
        assert_eq!(read[2].handler, Handler::Page(Box::new(page)));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let refused = |mut definition: Value, why: &str| {
            let said = read(definition.clone()).unwrap_err();
            let fields = definition.as_object_mut().unwrap();
            for secret in ["token", "Token", "http_handler_config"] {
                if let Some(value) = fields.get_mut(secret) {
                    *value = json!("<hidden>");
                }
            }
            assert_eq!(
                said,
                format!(
                    "Failed to {} ({definition}): {}",
                    if why.starts_with('!') {
                        "setup watch handler"
                    } else {
                        "parse watch"
                    },
                    why.trim_start_matches('!')
                )
            );
        };
        for (definition, why) in [
            (json!({}), "Watch type must be specified"),
            (
                json!({"type": "key", "handler": "x"}),
                "Must specify a single key to watch",
            ),
            (
                json!({"type": 1, "handler": "x"}),
                "Expecting type to be a string",
            ),
            (
                json!({"type": "nodes", "handler": "x", "Token": "secret"}),
                "Invalid parameters: [Token]",
            ),
            (
                json!({"type": "nodes", "handler": "x", "token": {"a": "secret"}}),
                "Expecting token to be a string",
            ),
            (
                json!({"type": "nodes", "token": "secret"}),
                "!Must provide watch handler",
            ),
            (
                json!({"type": "nodes", "handler": ""}),
                "!Must provide watch handler",
            ),
            (
                json!({"type": "nodes", "handler": 1}),
                "!Watch handler must be a string",
            ),
            (
                json!({"type": "nodes", "handler": null}),
                "!Watch handler must be a string",
            ),
            (
                json!({"type": "nodes", "args": []}),
                "!Watch args must be a list of strings",
            ),
            (
                json!({"type": "nodes", "args": ["a", 1]}),
                "!Watch args must be a list of strings",
            ),
            (
                json!({"type": "nodes", "args": "a"}),
                "!Watch args must be a list of strings",
            ),
            (
                json!({"type": "nodes", "args": ["a"], "handler": "a"}),
                "!Only one watch handler allowed",
            ),
            (
                json!({"type": "nodes", "handler_type": "mail", "handler": "a"}),
                "!Handler type 'mail' not recognized",
            ),
            (
                json!({"type": "nodes", "handler_type": 1, "handler": "a"}),
                "!Watch handler_type must be a string",
            ),
            (
                json!({"type": "nodes", "handler_type": "http"}),
                "!Handler type 'http' needs http_handler_config",
            ),
            (
                json!({"type": "nodes", "handler_type": "http", "handler": "a"}),
                "!Only one watch handler allowed",
            ),
            (
                json!({"type": "nodes", "handler_type": "http", "args": ["a"], "http_handler_config": {"path": "http://h"}}),
                "!Only one watch handler allowed",
            ),
            (
                json!({"type": "nodes", "http_handler_config": {"path": "http://h"}}),
                "!http_handler_config needs handler_type 'http'",
            ),
        ] {
            refused(definition, why);
        }
        for (config, why) in [
            (json!([]), "http_handler_config must be an object"),
            (json!({}), "http_handler_config: path must be specified"),
            (
                json!({"path": 1}),
                "http_handler_config: path must be a string",
            ),
            (
                json!({"path": "ftp://h"}),
                "http_handler_config: ftp: is no scheme of HTTP",
            ),
            (
                json!({"path": "http://h", "timeout": "5"}),
                "http_handler_config: invalid timeout: time: missing unit in duration 5",
            ),
            (
                json!({"path": "http://h", "timeout": "-5s"}),
                "http_handler_config: timeout must be more than nothing",
            ),
            (
                json!({"path": "http://h", "tls_skip_verify": "yes"}),
                "http_handler_config: tls_skip_verify must be a boolean",
            ),
            (json!({"path": "http://h", "header": ["a"]}), HEADER),
            (json!({"path": "http://h", "header": {"a": [1]}}), HEADER),
            (
                json!({"path": "http://h", "body": "x", "Header": {}}),
                "http_handler_config: Invalid parameters: [Header body]",
            ),
        ] {
            let definition =
                json!({"type": "nodes", "handler_type": "http", "http_handler_config": config});
            refused(definition, &format!("!{why}"));
        }
    }
}
