//! What the commands that ask an agent have in common: flags, environment variables, a client, a small runtime.

use std::future::Future;

use client::{Address, Client, Config, Consistency, Credentials, QueryOptions, WriteOptions};

use tokio::signal::unix::{SignalKind, signal};

use super::FAILED;
use crate::console::Console;
use crate::flags::{self, Flag, Parsed, Value};

/// Which agent to ask, and as whom.
pub(super) const AGENT: &[Flag] = &[
    Flag::new(
        "http-addr",
        Value::Text(""),
        "address",
        "The agent to ask: host:port, also with http:// in front, or unix:///path. CONSUL_HTTP_ADDR when not given, \
         else 127.0.0.1:8500.",
    ),
    Flag::new(
        "token",
        Value::Text(""),
        "token",
        "The ACL token to ask with. CONSUL_HTTP_TOKEN when not given.",
    ),
];

/// Where to.
pub(super) const DATACENTER: &[Flag] = &[Flag::new(
    "datacenter",
    Value::Text(""),
    "name",
    "The datacenter to ask; the agent's own when not given.",
)];

/// How fresh the answer must be.
pub(super) const STALE: &[Flag] = &[Flag::switch(
    "stale",
    false,
    "Any server may answer, also while there is no leader, with a state that may be old.",
)];

/// A flag of releases whose command line had a protocol of its own.
pub(super) const RPC: &[Flag] =
    &[Flag::new("rpc-addr", Value::Text(""), "address", "Ignored.").hidden()];

/// The client that flags and environment ask for.
pub(super) fn client(parsed: &Parsed, console: &mut Console<'_>) -> Result<Client, client::Error> {
    let variable = |name| console.variable(name).map(str::to_owned);
    let flag = |name| Some(parsed.text(name).to_owned()).filter(|text| !text.is_empty());

    let address = flag("http-addr").or_else(|| variable("CONSUL_HTTP_ADDR"));
    let mut address = address.map_or_else(|| Ok(Address::default()), |text| text.parse())?;
    let token = flag("token")
        .or_else(|| variable("CONSUL_HTTP_TOKEN"))
        .unwrap_or_default();
    let credentials = variable("CONSUL_HTTP_AUTH").map(|text| match text.split_once(':') {
        Some((user, password)) => Credentials {
            user: user.to_owned(),
            password: Some(password.to_owned()),
        },
        None => Credentials {
            user: text,
            password: None,
        },
    });
    for name in ["CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY"] {
        let Some(text) = console.variable(name).map(str::to_owned) else {
            continue;
        };
        match flags::parse_bool(&text) {
            Some(true) if name == "CONSUL_HTTP_SSL" => address = address.with_tls(),
            Some(_) => {}
            None => console.note(format_args!("{name} is neither true nor false: {text}")),
        }
    }
    Client::new(Config {
        address,
        token,
        credentials,
        ..Config::default()
    })
}

/// How the flags want a read to be made.
pub(super) fn query_options(parsed: &Parsed) -> QueryOptions {
    let consistency = if parsed.switch("stale") {
        Consistency::Stale
    } else {
        Consistency::Leader
    };
    QueryOptions {
        datacenter: parsed.text("datacenter").to_owned(),
        consistency,
        ..QueryOptions::default()
    }
}

/// How the flags want a write to be made.
pub(super) fn write_options(parsed: &Parsed) -> WriteOptions {
    WriteOptions {
        datacenter: parsed.text("datacenter").to_owned(),
        ..WriteOptions::default()
    }
}

/// Runs the part of a command that waits for an agent.
pub(super) fn wait_for<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| format!("Error starting: {why}"))?;
    runtime.block_on(work)
}

/// Gives up on `work` when a signal asks the program to end, so that what was begun on disk is cleared away.
///
/// Only for work that never blocks on a stream of the console: from the first call on these signals do nothing else.
pub(super) async fn unless_stopped<T>(
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|why| format!("Error starting: {why}"))?;
    tokio::select! {
        biased;
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err("Interrupted".to_owned()),
        _ = terminate.recv() => Err("Terminated".to_owned()),
    }
}

/// Says why a command failed, where the original says it, and gives the status.
pub(super) fn failed(console: &mut Console<'_>, why: impl std::fmt::Display) -> u8 {
    console.say(why);
    FAILED
}

/// The text for a client that can't be made.
pub(super) fn cannot_connect(why: &client::Error) -> String {
    format!("Error connecting to Consul agent: {why}")
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn flags_and_environment_choose_agent_and_token() {
        let stub = Stub::tcp(|_| Reply::ok(r#"[{"Key":"k","Value":null}]"#));
        let address = stub.address.as_str();
        let (http, elsewhere) = (format!("http://{address}"), "127.0.0.1:1");
        let flag = format!("-http-addr={address}");
        type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
        let cases: &[Case<'_>] = &[
            (&[&flag], &[("CONSUL_HTTP_ADDR", elsewhere)], ""),
            (&[], &[("CONSUL_HTTP_ADDR", address)], ""),
            (
                &[],
                &[("CONSUL_HTTP_ADDR", &http), ("CONSUL_HTTP_TOKEN", "env")],
                "env",
            ),
            (
                &[&flag, "-token=flag"],
                &[("CONSUL_HTTP_TOKEN", "env")],
                "flag",
            ),
            (&[&flag, "-token="], &[("CONSUL_HTTP_TOKEN", "env")], "env"),
            (
                &[&flag],
                &[
                    ("CONSUL_HTTP_SSL", "false"),
                    ("CONSUL_HTTP_SSL_VERIFY", "0"),
                ],
                "",
            ),
        ];
        for (flags, environment, token) in cases {
            let printed = consul(&[&["kv", "get"], *flags, &["k"]].concat(), b"", environment);
            assert_eq!(
                (printed.status, printed.output.as_str()),
                (0, "\n"),
                "{flags:?} {environment:?}"
            );
            let asked = stub.asked().remove(0);
            let sent = asked
                .headers
                .get("x-consul-token")
                .map_or("", String::as_str);
            assert_eq!(sent, *token, "{flags:?} {environment:?}");
        }

        consul(
            &["kv", "get", &flag, "k"],
            b"",
            &[("CONSUL_HTTP_AUTH", "user:pass")],
        );
        assert_eq!(
            stub.asked()[0].headers["authorization"],
            "Basic dXNlcjpwYXNz"
        );
        let printed = consul(
            &["kv", "get", &flag, "k"],
            b"",
            &[("CONSUL_HTTP_SSL", "maybe")],
        );
        assert_eq!(
            printed.errors,
            "CONSUL_HTTP_SSL is neither true nor false: maybe\n"
        );
    }

    #[test]
    fn speaks_over_a_unix_socket() {
        let room = tempfile::tempdir().unwrap();
        let stub = Stub::unix(&room.path().join("c.sock"), |_| {
            Reply::ok(r#"[{"Key":"k","Value":"NQ=="}]"#)
        });
        let printed = consul(
            &["kv", "get", "k"],
            b"",
            &[("CONSUL_HTTP_ADDR", &stub.address)],
        );
        assert_eq!((printed.status, printed.output.as_str()), (0, "5\n"));
    }

    #[test]
    fn says_why_nobody_answered() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let cases = [
            (
                format!("-http-addr={address}"),
                format!("Error querying Consul agent: Get http://{address}/v1/kv/k: dial tcp {address}: connect: connection refused\n"),
            ),
            (
                "-http-addr=unix:///nonexistent/c.sock".to_owned(),
                "Error querying Consul agent: Get http://unix.sock/v1/kv/k: dial unix /nonexistent/c.sock: connect: no such file or directory\n".to_owned(),
            ),
            (
                "-http-addr=https://127.0.0.1:1".to_owned(),
                "Error connecting to Consul agent: https is not supported by this version; use http or a unix socket\n".to_owned(),
            ),
            (
                "-http-addr=a b".to_owned(),
                "Error connecting to Consul agent: invalid address \"a b\"\n".to_owned(),
            ),
            (
                "-token=a\nb".to_owned(),
                "Error connecting to Consul agent: the token can't be sent in an HTTP header\n".to_owned(),
            ),
        ];
        for (flag, output) in cases {
            let printed = consul(&["kv", "get", &flag, "k"], b"", &[]);
            assert_eq!((printed.status, printed.output), (1, output));
        }
    }
}
