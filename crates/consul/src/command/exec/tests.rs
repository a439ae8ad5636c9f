use std::sync::Mutex;

use super::*;
use crate::command::stub::{Asked, Reply, Stub};
use crate::console::tests::{Printed, consul};

const SELF: &str = r#"{"Config":{"NodeName":"n1","Datacenter":"dc1"}}"#;

/// Indexes for answers, whose headers live for ever.
const INDEXES: [&[(&str, &str)]; 4] = [
    &[("X-Consul-Index", "10")],
    &[("X-Consul-Index", "11")],
    &[("X-Consul-Index", "12")],
    &[("X-Consul-Index", "13")],
];

/// What agents write: what is there at each look, the last for ever after.
type Looks = &'static [&'static [(&'static str, &'static str)]];

/// An agent below whose `_rexec/s/` these keys appear; a refusal is the answer to the request with that line.
fn agent(looks: Looks, refusal: Option<(&'static str, u16, &'static str)>) -> Stub {
    let looked = Mutex::new(0);
    Stub::tcp(move |asked| {
        let line = asked.line.as_str();
        if let Some((refused, status, text)) = refusal
            && line == refused
        {
            return Reply::status(status, text);
        }
        if line == "GET /v1/agent/self" {
            return Reply::ok(SELF);
        }
        if line.starts_with("PUT /v1/session/create") {
            return Reply::ok(r#"{"ID":"s"}"#);
        }
        if line.starts_with("PUT /v1/event/fire/_rexec") {
            return Reply::ok(r#"{"ID":"e"}"#);
        }
        if line.starts_with("GET /v1/health/service/consul") {
            return Reply::ok(
                r#"[{"Node":{"Node":"far1"},"Service":{"Service":"consul"},"Checks":null}]"#,
            );
        }
        if line.starts_with("GET /v1/kv/_rexec/s/?keys=") {
            let mut looked = looked.lock().unwrap();
            let at = usize::min(*looked, looks.len() - 1);
            *looked += 1;
            let mut keys = vec!["_rexec/s/job".to_owned()];
            keys.extend(looks[at].iter().map(|(key, _)| format!("_rexec/s/{key}")));
            return Reply {
                headers: INDEXES[at],
                ..Reply::ok(serde_json::to_vec(&keys).unwrap())
            };
        }
        if let Some(key) = line.strip_prefix("GET /v1/kv/_rexec/s/") {
            let key = key.split('?').next().unwrap();
            let found = looks
                .iter()
                .flat_map(|look| look.iter())
                .find(|(known, _)| *known == key);
            let value = STANDARD.encode_to_string(found.unwrap().1);
            return Reply::ok(format!(r#"[{{"Key":"_rexec/s/{key}","Value":"{value}"}}]"#));
        }
        Reply::ok("true")
    })
}

/// Runs the command against this agent; time is short, for nothing else comes.
fn exec(agent: &Stub, arguments: &[&str]) -> (Printed, Vec<Asked>) {
    let address = format!("-http-addr={}", agent.address);
    let line = [
        &["exec", &address, "-wait=300ms", "-wait-repl=0s"],
        arguments,
    ]
    .concat();
    let printed = consul(&line, b"#!/bin/sh\nuptime\n", &[]);
    (printed, agent.asked())
}

/// Without the looks, whose number depends on the machine.
fn changes(asked: &[Asked]) -> Vec<&str> {
    let lines = asked.iter().map(|asked| asked.line.as_str());
    lines.filter(|line| !line.starts_with("GET ")).collect()
}

const TWO_NODES: Looks = &[
    &[],
    &[("srv1/ack", ""), ("srv1/out/00000", "hello\n")],
    &[
        ("srv1/ack", ""),
        ("srv1/exit", "0"),
        ("srv1/out/00000", "hello\n"),
        ("srv2/ack", ""),
        ("srv2/out/00000", ""),
        ("srv2/out/00001", "a\n\n  b  \n\n"),
    ],
    &[("srv2/exit", "0"), ("srv2/out/00001", "")],
];

#[test]
fn shows_what_nodes_say() {
    let agent = agent(TWO_NODES, None);
    let (printed, asked) = exec(&agent, &["echo", "hello", "-n"]);
    // Blanks are left out at the end of a piece and nowhere else, as with the original.
    let expected = [
        "    srv1: hello",
        "    srv1:",
        "==> srv1: finished with exit code 0",
        "    srv2: a",
        "    srv2: ",
        "    srv2:   b  ",
        "    srv2: ",
        "    srv2:",
        "==> srv2: finished with exit code 0",
        "2 / 2 node(s) completed / acknowledged",
        "",
    ]
    .join("\n");
    let expected = expected.as_str();
    assert_eq!((printed.status, printed.output.as_str()), (0, expected));
    assert_eq!(printed.errors, "");
    let expected = [
        "PUT /v1/session/create",
        "PUT /v1/kv/_rexec/s/job?acquire=s",
        "PUT /v1/event/fire/_rexec",
        "PUT /v1/session/destroy/s",
        "DELETE /v1/kv/_rexec/s/?recurse=",
    ];
    assert_eq!(changes(&asked), expected);
    let body = |line: &str| {
        let asked = asked
            .iter()
            .find(|asked| asked.line.starts_with(line))
            .unwrap();
        String::from_utf8(asked.body.clone()).unwrap()
    };
    assert_eq!(
        body("PUT /v1/session/create"),
        r#"{"Name":"Remote Exec","Behavior":"delete","TTL":"15s"}"#
    );
    assert_eq!(
        body("PUT /v1/kv/"),
        r#"{"Command":"echo hello -n","Wait":300000000}"#
    );
    assert_eq!(
        body("PUT /v1/event/"),
        r#"{"Prefix":"_rexec","Session":"s"}"#
    );
}

#[test]
fn says_more_if_asked_to() {
    let agent = agent(TWO_NODES, None);
    let (printed, _) = exec(&agent, &["-verbose", "true"]);
    let mut lines: Vec<&str> = printed.output.lines().collect();
    let took = lines.pop().unwrap();
    assert!(
        took.starts_with("Completed in ") && took.ends_with(" seconds"),
        "{took}"
    );
    let expected = [
        "Created remote execution session: s",
        "Uploaded remote execution spec",
        "Fired remote execution event: e",
        "==> srv1: acknowledged",
    ];
    assert_eq!(lines[..4], expected);
    for line in ["==> srv2: acknowledged", "==> srv2: heartbeat received"] {
        assert!(lines.contains(&line), "{line}");
    }
    assert_eq!(printed.status, 0);
}

#[test]
fn filters_go_into_the_event_and_a_script_into_the_job() {
    let agent = agent(&[&[]], None);
    let flags = ["-node=^n1$", "-service=web", "-tag=v1", "-"];
    let (printed, asked) = exec(&agent, &flags);
    assert_eq!(
        (printed.status, printed.output.as_str()),
        (0, "0 / 0 node(s) completed / acknowledged\n")
    );
    // Who gets no answer is told why that may be, beside the output that scripts read.
    assert!(
        printed.errors.contains("\"disable_remote_exec\": false"),
        "{}",
        printed.errors
    );
    let fired = asked
        .iter()
        .find(|asked| asked.line.starts_with("PUT /v1/event"));
    assert_eq!(
        fired.unwrap().line,
        "PUT /v1/event/fire/_rexec?node=%5En1%24&service=web&tag=v1"
    );
    let job = asked
        .iter()
        .find(|asked| asked.line.starts_with("PUT /v1/kv/"));
    assert_eq!(
        job.unwrap().body,
        br#"{"Script":"IyEvYmluL3NoCnVwdGltZQo=","Wait":300000000}"#
    );
}

#[test]
fn the_status_says_whether_it_went_well_everywhere() {
    const CASES: [(Looks, &str, u8); 3] = [
        (
            &[&[
                ("a/ack", ""),
                ("a/exit", "0"),
                ("b/ack", ""),
                ("b/exit", "3"),
            ]],
            "==> a: finished with exit code 0\n==> b: finished with exit code 3\n2 / 2 node(s) completed / acknowledged\n",
            2,
        ),
        (
            &[&[("a/ack", "")]],
            "0 / 1 node(s) completed / acknowledged\n",
            2,
        ),
        (
            &[&[("a/ack", ""), ("a/exit", "x"), ("a/what", "")]],
            "Failed to parse exit code: invalid digit found in string\nUnknown key \"_rexec/s/a/what\", ignoring.\n0 / 1 node(s) completed / acknowledged\n",
            2,
        ),
    ];
    for (looks, output, status) in CASES {
        let agent = agent(looks, None);
        let (printed, _) = exec(&agent, &["true"]);
        assert_eq!((printed.output.as_str(), printed.status), (output, status));
        assert_eq!(printed.errors, "");
    }
}

#[test]
fn elsewhere_the_session_lives_on_a_server() {
    let agent = agent(&[&[("a/ack", ""), ("a/exit", "0")]], None);
    let (printed, asked) = exec(
        &agent,
        &["-datacenter=dc2", "-prefix=/_rexec/", "-verbose", "true"],
    );
    assert_eq!(printed.status, 0, "{}", printed.output);
    let begins = "Remote exec in foreign datacenter, using Session TTL\nBinding session to remote node far1@dc2\n";
    assert!(printed.output.starts_with(begins), "{}", printed.output);
    for asked in &asked[1..] {
        assert!(asked.line.contains("dc=dc2"), "{}", asked.line);
    }
    let session = asked
        .iter()
        .find(|asked| asked.line.starts_with("PUT /v1/session/create"));
    assert_eq!(
        String::from_utf8(session.unwrap().body.clone()).unwrap(),
        r#"{"Name":"Remote Exec via n1@dc1","Node":"far1","Checks":[],"Behavior":"delete","TTL":"15s"}"#
    );

    let agent = self::agent(&[&[]], None);
    let (printed, asked) = exec(&agent, &["-datacenter=dc1", "true"]);
    assert_eq!(printed.status, 0);
    assert!(!asked.iter().any(|asked| asked.line.contains("/health/")));
}

#[test]
fn says_what_the_agent_refuses_and_clears_up() {
    for (line, output, cleared) in [
        (
            "GET /v1/agent/self",
            "Error querying Consul agent: Unexpected response code: 500 (no)\n",
            0,
        ),
        (
            "PUT /v1/session/create",
            "Failed to create session: Unexpected response code: 500 (no)\n",
            0,
        ),
        (
            "PUT /v1/kv/_rexec/s/job?acquire=s",
            "Failed to create job file: Unexpected response code: 500 (no)\n",
            2,
        ),
        (
            "PUT /v1/event/fire/_rexec",
            "Failed to fire event: Unexpected response code: 500 (no)\n",
            2,
        ),
        (
            "GET /v1/kv/_rexec/s/?keys=",
            "Failed to read results: Unexpected response code: 500 (no)\n",
            2,
        ),
    ] {
        let agent = agent(&[&[]], Some((line, 500, "no")));
        let (printed, asked) = exec(&agent, &["true"]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (1, output),
            "{line}"
        );
        let ends = changes(&asked).into_iter();
        let ends = ends.filter(|line| line.contains("/destroy/") || line.starts_with("DELETE "));
        assert_eq!(ends.count(), cleared, "{line}");
    }
    let agent = agent(
        &[&[]],
        Some(("PUT /v1/kv/_rexec/s/job?acquire=s", 200, "false")),
    );
    let (printed, _) = exec(&agent, &["true"]);
    let expected = "Failed to create job file: failed to acquire key _rexec/s/job\n";
    assert_eq!((printed.status, printed.output.as_str()), (1, expected));
}

#[test]
fn what_makes_no_sense_is_not_asked() {
    for (arguments, begins) in [
        (
            &[][..],
            "Must specify a command to execute\n\nUsage: consul exec ",
        ),
        (
            &["-node=(", "true"],
            "Failed to compile node filter regexp: error parsing regexp: missing closing ): `(`\n",
        ),
        (
            &["-tag=v1", "true"],
            "Cannot provide tag filter without service filter.\n",
        ),
    ] {
        let agent = agent(&[&[]], None);
        let (printed, asked) = exec(&agent, arguments);
        assert_eq!((printed.status, asked.len()), (1, 0), "{arguments:?}");
        assert!(printed.output.starts_with(begins), "{}", printed.output);
    }
    // Nothing came in.
    let printed = consul(&["exec", "-"], b"", &[]);
    assert_eq!(printed.status, 1);
    assert!(
        printed
            .output
            .starts_with("Must specify a command to execute\n")
    );
}
