//! `consul watch`.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use client::{Change, Client, Error, Plan, Watch};
use serde_json::{Map, Value as Json};
use tokio::time::timeout;

use super::child::{self, Child, Input};
use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{self, Flag, Parsed, Syntax, Value};

const fn text(name: &'static str, placeholder: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Value::Text(""), placeholder, help)
}

pub(super) const SYNTAX: Syntax = Syntax {
    name: "watch",
    arguments: "[CHILD...]",
    summary: "Waits for changes, and runs a program for each",
    about: "Looks at keys, nodes, services, checks or events. Without a child it prints what there is, as JSON, and \
            ends. With one it runs it once for what there is and then for each change, with the JSON on its standard \
            input and the index in CONSUL_INDEX, until the child fails. The words of the child are joined by blanks \
            and given to the shell.",
    example: "consul watch -type=key -key=config/db cat\n\
              consul watch -type=service -service=web -passingonly=true /usr/local/bin/reload\n\
              consul watch -type=nodes",
    flags: &[
        &[
            text(
                "type",
                "type",
                "What to look at: key, keyprefix, services, nodes, service, checks or event.",
            ),
            text("key", "key", "With key: which one."),
            text("prefix", "prefix", "With keyprefix: how the keys begin."),
            text(
                "service",
                "name",
                "With service: which one. With checks: those of this service.",
            ),
            text("tag", "tag", "With service: only instances with this tag."),
            text(
                "passingonly",
                "bool",
                "With service: true for only instances that are well.",
            ),
            text(
                "state",
                "state",
                "With checks: those in this state, passing, warning, critical or any.",
            ),
            text("name", "name", "With event: only those of this name."),
            text(
                "stale",
                "bool",
                "True if any server may answer, also while there is no leader, with a state that may be old. Not with event.",
            ),
        ],
        http::DATACENTER,
        http::AGENT,
    ],
};

/// How long a child may take to end that is told to.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    if parsed.text("type").is_empty() {
        console.say("Watch type must be specified\n");
        console.say(SYNTAX.help());
        return FAILED;
    }
    let plan = match plan(parsed) {
        Ok(plan) => plan,
        Err(why) => return http::failed(console, why),
    };
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let line = parsed.arguments.join(" ");
    let followed = http::wait_for(async {
        let mut stopped = pin!(http::until_stopped(pending::<Result<(), String>>()));
        tokio::select! {
            biased;
            _ = &mut stopped => return Ok(()),
            reached = reach(&client) => reached?,
        }
        let mut watch = Watch::new(client, plan);
        loop {
            let next = tokio::select! {
                biased;
                _ = &mut stopped => return Ok(()),
                next = watch.next() => next,
            };
            match next {
                Ok(change) if line.is_empty() => {
                    let json = change.value.json_indented();
                    console.say(json.map_err(|why| format!("Error encoding output: {why}"))?);
                    return Ok(());
                }
                Ok(change) => {
                    if handle(&line, &change, console, stopped.as_mut()).await? {
                        return Ok(());
                    }
                }
                Err(failure) => {
                    let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
                    console.note(format_args!("{now} consul.watch: {failure}"));
                }
            }
        }
    });
    match followed {
        Ok(()) => OK,
        Err(why) => http::failed(console, why),
    }
}

/// What the flags ask to look at.
fn plan(parsed: &Parsed) -> Result<Plan, String> {
    let mut parameters = Map::new();
    for name in [
        "type",
        "datacenter",
        "key",
        "prefix",
        "service",
        "tag",
        "state",
        "name",
    ] {
        let text = parsed.text(name);
        if !text.is_empty() {
            parameters.insert(name.to_owned(), Json::from(text));
        }
    }
    for name in ["passingonly", "stale"] {
        let text = parsed.text(name);
        if !text.is_empty() {
            let on = flags::parse_bool(text).ok_or_else(|| {
                format!(
                    "Failed to parse {name} flag: strconv.ParseBool: parsing {text:?}: invalid syntax"
                )
            })?;
            parameters.insert(name.to_owned(), Json::from(on));
        }
    }
    Plan::parse(parameters).map_err(|why| why.to_string())
}

/// Makes sure that there is an agent, since later nobody would hear that there is none.
async fn reach(client: &Client) -> Result<(), String> {
    match client.agent_node().await {
        // An answer is an answer: access rules may hide from this token who the agent is.
        Ok(_) | Err(Error::Unexpected { code: 403, .. }) => Ok(()),
        Err(why) => Err(format!("Error querying Consul agent: {why}")),
    }
}

/// Runs the child for a change; true if the command is to end.
async fn handle(
    line: &str,
    change: &Change,
    console: &mut Console<'_>,
    mut stopped: std::pin::Pin<&mut impl Future>,
) -> Result<bool, String> {
    let failed = |why: String| format!("Error executing handler: {why}");
    let mut json = change.value.json().map_err(|why| failed(why.to_string()))?;
    json.push('\n');
    let variables = [("CONSUL_INDEX", change.index.to_string())];
    let input = Input::Bytes(json.into_bytes());
    let mut child = Child::start(&child::shell(console), line, &variables, input)
        .map_err(|why| failed(why.to_string()))?;
    let status = tokio::select! {
        biased;
        _ = &mut stopped => None,
        status = child.wait() => Some(status),
    };
    let Some(status) = status else {
        child.terminate();
        // Who is not through then is killed.
        let _ = timeout(GRACE, child.wait()).await;
        return Ok(true);
    };
    match child::complaint(status.map_err(|why| failed(why.to_string()))?) {
        None => Ok(false),
        Some(complaint) => Err(failed(complaint)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    /// An agent with one key, whose index moves with every question.
    fn agent() -> Stub {
        let asked = AtomicUsize::new(0);
        Stub::tcp(move |question| {
            if question.line.contains("/v1/agent/self") {
                return Reply::ok(r#"{"Config":{"NodeName":"n"}}"#);
            }
            let indexes: [&[(&str, &str)]; 3] = [
                &[("X-Consul-Index", "7")],
                &[("X-Consul-Index", "8")],
                &[("X-Consul-Index", "9")],
            ];
            let number = asked.fetch_add(1, Ordering::SeqCst).min(2);
            let value = ["NQ==", "NQ==", "Ng=="][number];
            Reply {
                headers: indexes[number],
                ..Reply::ok(format!(
                    r#"[{{"LockIndex":0,"Key":"<k>","Flags":0,"Value":"{value}","CreateIndex":7,"ModifyIndex":7}}]"#
                ))
            }
        })
    }

    #[test]
    fn prints_what_there_is() {
        let stub = agent();
        let address = format!("-http-addr={}", stub.address);
        let printed = consul(
            &[
                "watch",
                &address,
                "-type=key",
                "-key",
                "k",
                "-stale",
                "true",
            ],
            b"",
            &[],
        );
        let expected = r#"{
    "Key": "\u003ck\u003e",
    "CreateIndex": 7,
    "ModifyIndex": 7,
    "LockIndex": 0,
    "Flags": 0,
    "Value": "NQ==",
    "Session": ""
}
"#;
        assert_eq!((printed.status, printed.output.as_str()), (0, expected));
        assert_eq!(stub.lines(), ["GET /v1/agent/self", "GET /v1/kv/k?stale="]);

        let missing = Stub::tcp(|question| {
            if question.line.contains("/v1/agent/self") {
                Reply::status(403, "Permission denied")
            } else {
                Reply::status(404, "")
            }
        });
        let address = format!("-http-addr={}", missing.address);
        let printed = consul(&["watch", &address, "-type=key", "-key=k"], b"", &[]);
        assert_eq!((printed.status, printed.output.as_str()), (0, "null\n"));
    }

    #[test]
    fn runs_a_child_for_each_change_until_it_fails() {
        let stub = agent();
        let address = format!("-http-addr={}", stub.address);
        let room = tempfile::tempdir().unwrap();
        let log = room.path().join("log").display().to_string();
        // The value stays the same once, and the second different one is one too many.
        let line =
            format!("echo $CONSUL_INDEX >> {log}; cat >> {log}; test $(wc -l < {log}) -lt 4");
        let printed = consul(
            &[
                "watch",
                &address,
                "-type=key",
                "-key=k",
                "sh -c",
                &format!("'{line}'"),
            ],
            b"",
            &[("SHELL", "/bin/sh")],
        );
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (1, "Error executing handler: exit status 1\n")
        );
        let fields = r#""CreateIndex":7,"ModifyIndex":7,"LockIndex":0,"Flags":0"#;
        let expected = format!(
            "7\n{{\"Key\":\"\\u003ck\\u003e\",{fields},\"Value\":\"NQ==\",\"Session\":\"\"}}\n\
             9\n{{\"Key\":\"\\u003ck\\u003e\",{fields},\"Value\":\"Ng==\",\"Session\":\"\"}}\n"
        );
        assert_eq!(std::fs::read_to_string(&log).unwrap(), expected);
        assert_eq!(
            stub.lines(),
            [
                "GET /v1/agent/self",
                "GET /v1/kv/k",
                "GET /v1/kv/k?index=7&wait=300000ms",
                "GET /v1/kv/k?index=8&wait=300000ms"
            ]
        );

        let printed = consul(
            &["watch", &address, "-type=key", "-key=k", "true"],
            b"",
            &[("SHELL", "/no/shell")],
        );
        assert_eq!(printed.status, 1);
        assert!(
            printed.output.starts_with("Error executing handler: "),
            "{}",
            printed.output
        );
    }

    #[test]
    fn what_makes_no_sense_is_not_asked() {
        let stub = agent();
        let address = format!("-http-addr={}", stub.address);
        for (flags, output) in [
            (&["-type=moon"][..], "Unsupported watch type: moon\n"),
            (&["-type=key"], "Must specify a single key to watch\n"),
            (
                &["-type=keyprefix"],
                "Must specify a single prefix to watch\n",
            ),
            (
                &["-type=service"],
                "Must specify a single service to watch\n",
            ),
            (
                &["-type=nodes", "-key=x", "-tag=y"],
                "Invalid parameters: [key tag]\n",
            ),
            (
                &["-type=checks", "-service=x", "-state=any"],
                "Cannot specify service and state\n",
            ),
            (
                &["-type=service", "-service=x", "-passingonly", "maybe"],
                "Failed to parse passingonly flag: strconv.ParseBool: parsing \"maybe\": invalid syntax\n",
            ),
        ] {
            let printed = consul(&[&["watch", &address], flags].concat(), b"", &[]);
            assert_eq!(
                (printed.status, printed.output.as_str()),
                (1, output),
                "{flags:?}"
            );
        }
        let printed = consul(&["watch", &address], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(
            printed
                .output
                .starts_with("Watch type must be specified\n\nUsage: consul watch "),
            "{}",
            printed.output
        );
        assert_eq!(stub.lines(), [""; 0]);
    }

    #[test]
    fn without_an_agent_it_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let flag = format!("-http-addr={address}");
        let printed = consul(&["watch", &flag, "-type=nodes"], b"", &[]);
        assert_eq!(
            (printed.status, printed.output),
            (
                1,
                format!(
                    "Error querying Consul agent: Get http://{address}/v1/agent/self: dial tcp {address}: connect: connection refused\n"
                )
            )
        );
    }
}
