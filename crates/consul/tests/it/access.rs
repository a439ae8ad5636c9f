//! Every endpoint and every kind of token, before version 8 of access control and with it: who may, as HTTP shows it.
//!
//! The endpoints are those of the program's own list, so one that nobody has thought about here fails the test.
//! `access.txt` has what comes out, one line for each request.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use testkit::http::Answer;

use crate::process::Agent;

/// The tokens, as the columns of the table: without rules, not there, with a right to read everything, to write
/// everything, and of management.
const TOKENS: [&str; 5] = ["anonymous", "unknown", "reader", "writer", "root"];

/// How the answers to different tokens are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Somebody may see less of it than others.
    Shown,
    /// Somebody may do it, or not. Before each attempt there is something new to do it to.
    Done,
    /// The same, and the agent is gone afterwards: only those are asked who may not change an agent.
    Ends,
    /// The answer has no end: only those are asked who may not look at an agent.
    Endless,
}

use Kind::{Done, Endless, Ends, Shown};

/// A request: method, path and body, in which names in braces stand for what was made just before.
type Asked = (&'static str, String, String);

/// What to ask an endpoint.
fn requests(method: &str, path: &str) -> Option<Vec<(Kind, Asked)>> {
    let kv = "[{\"KV\":{\"Verb\":\"VERB\",\"Key\":\"app/x\",\"Value\":\"eA==\"}}]";
    let node = r#"{"Node":"NODE","Address":"10.0.0.9"}"#;
    let web = r#"{"Node":"other","Address":"10.0.0.7","Service":{"ID":"web","Service":"web"}}"#;
    let check = r#"{"Node":"other","Address":"10.0.0.7","Check":{"CheckID":"c","Name":"c"}}"#;
    let query = r#"{"Name":"NAME","Service":{"Service":"web"}}"#;
    let key = r#"{"Key":"cg8StVXbQJ0gPvMd9o7yrg=="}"#;
    let get = |path: &str| (Shown, ("GET", path.to_owned(), String::new()));
    let send = |method, path: &str, body: &str| (Done, (method, path.to_owned(), body.to_owned()));
    let put = |path: &str, body: &str| send("PUT", path, body);
    let same = || vec![get(path)];
    Some(match (method, path) {
        ("GET", "/v1/kv/") => vec![
            get("/v1/kv/app/x"),
            get("/v1/kv/?recurse"),
            get("/v1/kv/?keys&separator=/"),
        ],
        ("PUT", "/v1/kv/") => vec![put("/v1/kv/app/y", "x")],
        ("DELETE", "/v1/kv/") => vec![
            send("DELETE", "/v1/kv/app/y", ""),
            send("DELETE", "/v1/kv/app/y?recurse", ""),
        ],
        ("PUT", "/v1/txn") => vec![
            put(path, &kv.replace("VERB", "set")),
            put(path, &kv.replace("VERB", "check-index")),
            (Shown, ("PUT", path.to_owned(), kv.replace("VERB", "get"))),
        ],
        ("ANY", "/v1/health/service/") => vec![get("/v1/health/service/web")],
        ("ANY", "/v1/health/checks/") => vec![get("/v1/health/checks/web")],
        ("ANY", "/v1/health/node/") => vec![get("/v1/health/node/other")],
        ("ANY", "/v1/health/state/") => vec![get("/v1/health/state/any")],
        ("ANY", "/v1/catalog/register") => vec![
            put(path, &node.replace("NODE", "{fresh}")),
            put(path, web),
            put(path, check),
        ],
        ("ANY", "/v1/catalog/deregister") => vec![
            put(path, r#"{"Node":"{node}"}"#),
            put(path, r#"{"Node":"{node}","ServiceID":"s"}"#),
            put(path, r#"{"Node":"{node}","CheckID":"c"}"#),
        ],
        ("ANY", "/v1/catalog/service/") => vec![get("/v1/catalog/service/web")],
        ("ANY", "/v1/catalog/node/") => vec![get("/v1/catalog/node/other")],
        (
            "ANY",
            "/v1/catalog/datacenters"
            | "/v1/catalog/nodes"
            | "/v1/catalog/services"
            | "/v1/session/list"
            | "/v1/acl/list"
            | "/v1/acl/replication"
            | "/v1/coordinate/datacenters"
            | "/v1/coordinate/nodes"
            | "/v1/status/leader"
            | "/v1/status/peers"
            | "/v1/agent/members"
            | "/v1/agent/services"
            | "/v1/agent/checks"
            | "/v1/event/list",
        )
        | ("GET", "/v1/query" | "/v1/operator/raft/configuration") => same(),
        ("PUT", "/v1/session/create") => vec![put(path, r#"{"Node":"other","Checks":[]}"#)],
        ("PUT", "/v1/session/destroy/" | "/v1/session/renew/") => {
            vec![put(&format!("{path}{{session}}"), "")]
        }
        ("ANY", "/v1/session/info/") => vec![get("/v1/session/info/{session}")],
        ("ANY", "/v1/session/node/") => vec![get("/v1/session/node/other")],
        ("POST", "/v1/query") => vec![
            send("POST", path, &query.replace("NAME", "{fresh}")),
            send("POST", path, &query.replace("NAME", "")),
        ],
        ("GET", "/v1/query/") => vec![
            get("/v1/query/{query}"),
            get("/v1/query/{query}/explain"),
            get("/v1/query/{query}/execute"),
        ],
        ("PUT", "/v1/query/") => {
            vec![put(
                "/v1/query/{query}",
                r#"{"Name":"{fresh}","Service":{"Service":"web"}}"#,
            )]
        }
        ("DELETE", "/v1/query/") => vec![send("DELETE", "/v1/query/{query}", "")],
        ("PUT", "/v1/acl/create") => vec![put(path, "{}")],
        ("PUT", "/v1/acl/update") => vec![put(path, r#"{"ID":"extra"}"#)],
        ("PUT", "/v1/acl/destroy/") => vec![put("/v1/acl/destroy/extra", "")],
        ("PUT", "/v1/acl/clone/") => vec![put("/v1/acl/clone/reader", "")],
        ("ANY", "/v1/acl/info/") => vec![get("/v1/acl/info/reader")],
        ("ANY", "/v1/agent/self")
        | ("GET", "/v1/agent/metrics" | "/v1/operator/keyring" | "/v1/snapshot") => {
            vec![send("GET", path, "")]
        }
        ("ANY", "/v1/agent/join/") => vec![put("/v1/agent/join/127.0.0.1:1", "")],
        ("ANY", "/v1/agent/force-leave/") => vec![put("/v1/agent/force-leave/nobody", "")],
        ("PUT", "/v1/agent/leave") => vec![(Ends, ("PUT", path.to_owned(), String::new()))],
        ("PUT", "/v1/agent/reload") => vec![put(path, "")],
        ("GET", "/v1/agent/monitor") => vec![(Endless, ("GET", path.to_owned(), String::new()))],
        ("ANY", "/v1/agent/check/register") => vec![
            put(path, r#"{"Name":"node-check","TTL":"1h"}"#),
            put(path, r#"{"Name":"web-check","TTL":"1h","ServiceID":"web"}"#),
        ],
        ("ANY", "/v1/agent/check/deregister/") => {
            vec![put("/v1/agent/check/deregister/{check}", "")]
        }
        ("ANY", "/v1/agent/check/pass/" | "/v1/agent/check/warn/" | "/v1/agent/check/fail/") => {
            vec![
                put(&format!("{path}mem"), ""),
                put(&format!("{path}none"), ""),
            ]
        }
        ("PUT", "/v1/agent/check/update/") => {
            vec![put("/v1/agent/check/update/mem", r#"{"Status":"passing"}"#)]
        }
        ("ANY", "/v1/agent/service/register") => vec![put(path, r#"{"Name":"web"}"#)],
        ("ANY", "/v1/agent/service/deregister/") => {
            vec![put("/v1/agent/service/deregister/{service}", "")]
        }
        ("PUT", "/v1/agent/service/maintenance/") => {
            vec![put("/v1/agent/service/maintenance/web?enable=false", "")]
        }
        ("PUT", "/v1/agent/maintenance") => vec![put("/v1/agent/maintenance?enable=false", "")],
        ("PUT", "/v1/event/fire/") => vec![put("/v1/event/fire/deploy", "")],
        ("DELETE", "/v1/operator/raft/peer") => {
            vec![send(
                "DELETE",
                "/v1/operator/raft/peer?address=10.9.9.9:1",
                "",
            )]
        }
        ("POST" | "PUT" | "DELETE", "/v1/operator/keyring") => {
            let method = ["POST", "PUT", "DELETE"]
                .into_iter()
                .find(|it| *it == method)?;
            vec![send(method, path, key)]
        }
        ("PUT", "/v1/snapshot") => vec![put(path, "no snapshot")],
        ("PUT", "/v1/snapshot/part") => vec![put(&format!("{path}?only=kv"), "no snapshot")],
        _ => return None,
    })
}

/// An agent with rules, and things for them to be about.
struct Ruled {
    agent: Agent,
    made: u32,
}

impl Ruled {
    fn start(room: &Path, enforce_version_8: bool) -> Self {
        let configuration = json!({
            "acl_datacenter": "dc1",
            "acl_default_policy": "deny",
            "acl_master_token": "root",
            // Who brings no token here is the operator who sets the stage; the table's tokens are always brought.
            "acl_token": "root",
            "acl_enforce_version_8": enforce_version_8,
            // They come when they like, and would change what is compared.
            "disable_coordinates": true,
        });
        let folder = room.join("conf");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("acl.json"), configuration.to_string()).unwrap();
        let flag = format!("-config-dir={}", folder.display());
        let mut ruled = Self {
            agent: Agent::start_as(room, "one", &[&flag]),
            made: 0,
        };
        for (token, access) in [("reader", "read"), ("writer", "write")] {
            let mut rules = format!("operator = \"{access}\" keyring = \"{access}\"\n");
            for kind in [
                "key", "service", "event", "query", "node", "session", "agent",
            ] {
                writeln!(rules, "{kind} \"\" {{ policy = \"{access}\" }}").unwrap();
            }
            ruled.set(
                "/v1/acl/create",
                &json!({"ID": token, "Rules": rules}).to_string(),
            );
        }
        ruled.set("/v1/kv/app/x", "x");
        ruled.set("/v1/kv/other", "x");
        ruled.set(
            "/v1/catalog/register",
            r#"{"Node":"other","Address":"10.0.0.7","Service":{"ID":"web","Service":"web"},
                "Checks":[{"CheckID":"up","Name":"up","ServiceID":"web"},{"CheckID":"c","Name":"c"}]}"#,
        );
        // A single instance, since of several the order is drawn by lot, on a node that nothing is said to be wrong with.
        ruled.set(
            "/v1/catalog/register",
            r#"{"Node":"third","Address":"10.0.0.6","Service":{"ID":"api","Service":"api"}}"#,
        );
        ruled.set("/v1/agent/service/register", r#"{"Name":"web"}"#);
        ruled.set("/v1/agent/check/register", r#"{"Name":"mem","TTL":"1h"}"#);
        ruled.set("/v1/event/fire/deploy", "");
        let (session, query) = (ruled.make("{session}"), ruled.make("{query}"));
        assert!(session.len() == 36 && query.len() == 36);
        ruled.agent.answers("/v1/event/list", "deploy");
        ruled
    }

    /// Does something that must succeed.
    fn set(&mut self, path: &str, body: &str) -> Answer {
        let answer = self.agent.request("PUT", path, body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer
    }

    /// What stands for a name in braces.
    fn make(&mut self, name: &str) -> String {
        self.made += 1;
        let fresh = format!("fresh-{}", self.made);
        let id = |answer: &Answer| answer.json()["ID"].as_str().unwrap().to_owned();
        match name {
            "{session}" => {
                let session = r#"{"Node":"other","Checks":[]}"#;
                return id(&self.set("/v1/session/create", session));
            }
            "{query}" => {
                let query = json!({"Name": fresh, "Service": {"Service": "api"}}).to_string();
                let made = self.agent.request("POST", "/v1/query", query.as_bytes());
                return id(&made);
            }
            "{node}" => {
                let node = json!({
                    "Node": fresh, "Address": "10.0.0.8", "Service": {"ID": "s", "Service": "web"},
                    "Check": {"CheckID": "c", "Name": "c"},
                });
                self.set("/v1/catalog/register", &node.to_string());
            }
            "{service}" => {
                let service = json!({"Name": fresh}).to_string();
                self.set("/v1/agent/service/register", &service);
            }
            "{check}" => {
                let check = json!({"Name": fresh, "TTL": "1h"}).to_string();
                self.set("/v1/agent/check/register", &check);
            }
            _ => {}
        }
        fresh
    }

    /// The same request with what its names stand for.
    fn filled(&mut self, (method, path, body): &Asked) -> Asked {
        let (mut path, mut body) = (path.clone(), body.clone());
        for name in [
            "{session}",
            "{query}",
            "{node}",
            "{service}",
            "{check}",
            "{fresh}",
        ] {
            if path.contains(name) || body.contains(name) {
                let value = self.make(name);
                path = path.replace(name, &value);
                body = body.replace(name, &value);
            }
        }
        (method, path, body)
    }

    fn ask(&self, token: &str, (method, path, body): &Asked) -> Answer {
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{mark}token={token}");
        self.agent.request(method, &path, body.as_bytes())
    }

    /// What each token comes to, in a word.
    fn verdicts(
        &mut self,
        kind: Kind,
        asked: &Asked,
        enforce_version_8: bool,
    ) -> [&'static str; 5] {
        match kind {
            Shown => {
                let asked = self.filled(asked);
                let whole = self.ask("root", &asked);
                TOKENS.map(|token| {
                    let answer = self.ask(token, &asked);
                    let is_less = (answer.status, &answer.body) != (whole.status, &whole.body);
                    verdict(&answer).unwrap_or(if is_less { "less" } else { "yes" })
                })
            }
            Done => TOKENS.map(|token| {
                let asked = self.filled(asked);
                verdict(&self.ask(token, &asked)).unwrap_or("yes")
            }),
            Ends | Endless => TOKENS.map(|token| {
                let may = match token {
                    "anonymous" | "unknown" => false,
                    "reader" => kind == Endless,
                    _ => true,
                };
                if may || !enforce_version_8 {
                    return "-";
                }
                verdict(&self.ask(token, asked)).unwrap_or("yes")
            }),
        }
    }
}

/// `None` if it was not refused for the token's sake.
fn verdict(answer: &Answer) -> Option<&'static str> {
    let text = answer.text();
    match answer.status {
        403 if text.contains("ACL not found") => Some("unknown"),
        403 => Some("no"),
        // The texts about the keyring.
        500 if text.contains("denied") => Some("no"),
        // A transaction says it for each operation.
        409 if text.contains("Permission denied") => Some("no"),
        _ => None,
    }
}

#[test]
fn every_endpoint_and_every_kind_of_token() {
    let rooms = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut before, mut with] = [false, true]
        .map(|version_8| Ruled::start(rooms[usize::from(version_8)].path(), version_8));
    let mut table = String::from(
        "# Who may: each of five tokens before version 8 of access control, and with it. Everything is denied by default.\n\
         # no: refused; unknown: refused because there is no such token; less: shown less than management is; -: not asked.\n",
    );
    let columns = TOKENS.map(|token| format!("{token:<9} ")).concat();
    writeln!(table, "{:<84} {columns}| {}", "", columns.trim_end()).unwrap();
    for (method, path) in api::endpoints() {
        let requests = requests(method, path);
        let requests = requests.unwrap_or_else(|| panic!("nobody says who may {method} {path}"));
        for (kind, asked) in requests {
            let row = [(&mut before, false), (&mut with, true)].map(|(ruled, version_8)| {
                let verdicts = ruled.verdicts(kind, &asked, version_8);
                verdicts.map(|verdict| format!("{verdict:<9} ")).concat()
            });
            let (method, path, body) = &asked;
            let what = match path.as_str() {
                "/v1/txn"
                | "/v1/catalog/register"
                | "/v1/catalog/deregister"
                | "/v1/query"
                | "/v1/agent/check/register" => {
                    let body = body.replace("\"", "").replace(['\n', ' '], "");
                    format!("{method} {path} {body}")
                }
                _ => format!("{method} {path}"),
            };
            let what: String = what.chars().take(84).collect();
            writeln!(table, "{what:<84} {}| {}", row[0], row[1].trim_end()).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/access.txt");
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::write(path, &table).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert_eq!(table, expected, "UPDATE_SCRIPTS=1 rewrites {path}");
}
