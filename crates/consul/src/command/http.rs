//! What the commands that ask an agent have in common: flags, environment variables, a client, a small runtime.

use std::future::Future;
use std::path::PathBuf;

use client::{Address, Client, Config, Consistency, Credentials, QueryOptions, Tls, WriteOptions};

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
        "The agent to ask: host:port, also with http:// or https:// in front, or unix:///path. CONSUL_HTTP_ADDR when not given, \
         else 127.0.0.1:8500.",
    ),
    Flag::new(
        "token",
        Value::Text(""),
        "token",
        "The ACL token to ask with. CONSUL_HTTP_TOKEN when not given.",
    ),
    Flag::new(
        "ca-file",
        Value::Text(""),
        "file",
        "With https: the certificate authorities to trust, in PEM. CONSUL_CACERT when not given, else the system's.",
    ),
    Flag::new(
        "ca-path",
        Value::Text(""),
        "folder",
        "With https: a folder of such files, all of which are trusted. CONSUL_CAPATH when not given.",
    ),
    Flag::new(
        "client-cert",
        Value::Text(""),
        "file",
        "With https: a certificate to show to the agent, in PEM. CONSUL_CLIENT_CERT when not given.",
    ),
    Flag::new(
        "client-key",
        Value::Text(""),
        "file",
        "With https: the key of that certificate, in PEM. CONSUL_CLIENT_KEY when not given.",
    ),
    Flag::new(
        "tls-server-name",
        Value::Text(""),
        "name",
        "With https: the name that the agent's certificate must be valid for. CONSUL_TLS_SERVER_NAME when not given, \
         else the host in the address.",
    ),
    Flag::switch(
        "tls-skip-verify",
        false,
        "With https: any certificate will do. Also with CONSUL_HTTP_SSL_VERIFY=false.",
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
    let address = address.map_or_else(|| Ok(Address::default()), |text| text.parse())?;
    let token = flag("token")
        .or_else(|| variable("CONSUL_HTTP_TOKEN"))
        .unwrap_or_default();
    let file = |name, or| flag(name).or_else(|| variable(or)).map(PathBuf::from);
    let tls = Tls {
        ca_file: file("ca-file", "CONSUL_CACERT"),
        ca_path: file("ca-path", "CONSUL_CAPATH"),
        cert_file: file("client-cert", "CONSUL_CLIENT_CERT"),
        key_file: file("client-key", "CONSUL_CLIENT_KEY"),
        server_name: flag("tls-server-name").or_else(|| variable("CONSUL_TLS_SERVER_NAME")),
        skip_verification: parsed.switch("tls-skip-verify"),
    };
    let config = Config {
        address,
        token,
        tls,
        ..Config::default()
    };
    Client::new(from_environment(config, console))
}

/// The same with what only environment variables say: a password, and switches of TLS.
pub(super) fn from_environment(mut config: Config, console: &mut Console<'_>) -> Config {
    config.credentials =
        console
            .variable("CONSUL_HTTP_AUTH")
            .map(|text| match text.split_once(':') {
                Some((user, password)) => Credentials {
                    user: user.to_owned(),
                    password: Some(password.to_owned()),
                },
                None => Credentials {
                    user: text.to_owned(),
                    password: None,
                },
            });
    for name in ["CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY"] {
        let Some(text) = console.variable(name).map(str::to_owned) else {
            continue;
        };
        match flags::parse_bool(&text) {
            Some(true) if name == "CONSUL_HTTP_SSL" => config.address = config.address.with_tls(),
            Some(false) if name == "CONSUL_HTTP_SSL_VERIFY" => config.tls.skip_verification = true,
            Some(_) => {}
            None => console.note(format_args!("{name} is neither true nor false: {text}")),
        }
    }
    config
}

/// The same for commands that once had a protocol of their own.
pub(super) fn client_instead_of_rpc(
    parsed: &Parsed,
    console: &mut Console<'_>,
) -> Result<Client, client::Error> {
    if parsed.given("rpc-addr") {
        console.note("-rpc-addr is ignored: the RPC interface is gone, HTTP is used instead");
    }
    client(parsed, console)
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

/// Waits for `work` until a signal asks the program to end; `None` if one did.
pub(super) async fn until_stopped<T>(
    work: impl Future<Output = Result<T, String>>,
) -> Result<Option<T>, String> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|why| format!("Error starting: {why}"))?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(None),
        _ = terminate.recv() => Ok(None),
        done = work => done.map(Some),
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
    use std::io::{Read, Write};
    use std::path::{Path, PathBuf};
    use std::thread::JoinHandle;

    use api::http::{Engine, Listener, Reaction, Request, Response, StatusCode};
    use client::{Address, Client, Config, QueryOptions, Tls};
    use rpc::tls;
    use testkit::{Authority, Pair};
    use tokio::sync::oneshot;

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

        for (text, header) in [
            ("user:pass", "Basic dXNlcjpwYXNz"),
            ("user", "Basic dXNlcjo="),
            ("user:a:b", "Basic dXNlcjphOmI="),
        ] {
            let environment = [("CONSUL_HTTP_AUTH", text)];
            consul(&["kv", "get", &flag, "k"], b"", &environment);
            assert_eq!(stub.asked()[0].headers["authorization"], header, "{text}");
        }
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

    /// An agent that answers over HTTPS alone, with the value 5 for every key.
    struct Secure {
        address: String,
        authority: Authority,
        pair: Pair,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Secure {
        /// One whose certificate is for a name that the address doesn't have, unless `names` has it.
        fn start(names: &[&str], verify_incoming: bool) -> Self {
            let authority = Authority::new();
            let pair = authority.sign("agent", names);
            let settings = tls::Config {
                ca_file: Some(authority.file()),
                cert_file: Some(pair.certificate.clone()),
                key_file: Some(pair.key.clone()),
                verify_incoming,
                verify_outgoing: true,
                https: true,
                ..tls::Config::default()
            };
            let incoming = tls::Tls::load(settings).unwrap().https().unwrap();
            let address = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::https(address, incoming).unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (stop, stopped) = oneshot::channel();
            let thread = std::thread::spawn(move || {
                let answer = |_: Request| {
                    let body = r#"[{"Key":"k","Value":"NQ=="}]"#;
                    Reaction::Now(Response::text(StatusCode::OK, body))
                };
                let engine = Engine::new(answer, api::http::Config::default());
                let serving = engine.serve(vec![listener], async { drop(stopped.await) });
                super::wait_for(async { serving.await.map_err(|why| why.to_string()) }).unwrap();
            });
            Self {
                address,
                authority,
                pair,
                stop: Some(stop),
                thread: Some(thread),
            }
        }
    }

    impl Drop for Secure {
        fn drop(&mut self) {
            drop(self.stop.take());
            self.thread.take().map(JoinHandle::join);
        }
    }

    #[test]
    fn speaks_tls_as_flags_and_environment_say() {
        let agent = Secure::start(&["127.0.0.1"], false);
        let elsewhere = Secure::start(&["agent.example"], false);
        let demanding = Secure::start(&["127.0.0.1"], true);
        let get = |agent: &Secure, flags: &[&str], environment: &[(&str, &str)]| {
            let address = format!("-http-addr=https://{}", agent.address);
            consul(
                &[&["kv", "get", &address], flags, &["k"]].concat(),
                b"",
                environment,
            )
        };
        let path = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let ca = |agent: &Secure| path(agent.authority.file());
        let failed = |agent: &Secure, why: &str| {
            let url = format!("https://{}/v1/kv/k", agent.address);
            (
                1,
                format!("Error querying Consul agent: Get {url}: TLS: {why}\n"),
            )
        };
        let found = || (0, "5\n".to_owned());
        let check = |printed: crate::console::tests::Printed, expected: (u8, String)| {
            assert_eq!((printed.status, printed.output), expected);
        };

        // Whom to trust.
        let unknown = "invalid peer certificate: UnknownIssuer";
        let foreign = ca(&elsewhere);
        check(get(&agent, &["-ca-file", &ca(&agent)], &[]), found());
        check(get(&agent, &[], &[("CONSUL_CACERT", &ca(&agent))]), found());
        check(
            get(
                &agent,
                &["-ca-file", &ca(&agent)],
                &[("CONSUL_CACERT", "/nonexistent")],
            ),
            found(),
        );
        let printed = get(&agent, &["-ca-file", &foreign], &[]);
        assert!(
            printed.output.contains("TLS: invalid peer certificate: "),
            "{}",
            printed.output
        );
        check(get(&agent, &["-tls-skip-verify"], &[]), found());
        check(
            get(&agent, &[], &[("CONSUL_HTTP_SSL_VERIFY", "false")]),
            found(),
        );
        check(
            get(
                &agent,
                &["-tls-skip-verify=false"],
                &[
                    ("CONSUL_HTTP_SSL_VERIFY", "1"),
                    ("CONSUL_CACERT", &ca(&agent)),
                ],
            ),
            found(),
        );
        // Where this machine has authorities of its own, they don't know ours.
        let printed = get(&agent, &[], &[]);
        assert!(
            (printed.status, printed.output.clone()) == failed(&agent, unknown)
                || printed
                    .output
                    .contains("the system's certificate authorities can't be used"),
            "{}",
            printed.output
        );

        // The scheme may come from the environment.
        let flag = format!("-http-addr={}", agent.address);
        for (value, expected) in [("true", found()), ("1", found())] {
            let environment = [("CONSUL_HTTP_SSL", value), ("CONSUL_CACERT", &ca(&agent))];
            check(
                consul(&["kv", "get", &flag, "k"], b"", &environment),
                expected,
            );
        }
        let printed = consul(&["kv", "get", &flag, "k"], b"", &[("CONSUL_HTTP_SSL", "0")]);
        assert_eq!(printed.status, 1);

        // The name.
        let trusted = ["-ca-file", &foreign];
        let printed = get(&elsewhere, &trusted, &[]);
        assert!(
            printed.output.contains(
                "TLS: invalid peer certificate: certificate not valid for name \"127.0.0.1\""
            ),
            "{}",
            printed.output
        );
        let name = "agent.example";
        check(
            get(
                &elsewhere,
                &[&trusted[..], &["-tls-server-name", name]].concat(),
                &[],
            ),
            found(),
        );
        check(
            get(&elsewhere, &trusted, &[("CONSUL_TLS_SERVER_NAME", name)]),
            found(),
        );

        // What to show.
        let trusted = ["-ca-file", &ca(&demanding)];
        let (cert, key) = (
            path(demanding.pair.certificate.clone()),
            path(demanding.pair.key.clone()),
        );
        check(
            get(&demanding, &trusted, &[]),
            failed(&demanding, "the agent demands a client certificate"),
        );
        check(
            get(
                &demanding,
                &[&trusted[..], &["-client-cert", &cert, "-client-key", &key]].concat(),
                &[],
            ),
            found(),
        );
        check(
            get(
                &demanding,
                &trusted,
                &[("CONSUL_CLIENT_CERT", &cert), ("CONSUL_CLIENT_KEY", &key)],
            ),
            found(),
        );
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let authority = Authority::new();
        let (pair, other) = (authority.sign("a", &["a"]), authority.sign("b", &["b"]));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (cert, key) = (text(&pair.certificate), text(&pair.key));
        let other_key = text(&other.key);
        let junk = text(&authority.room().join("junk"));
        std::fs::write(&junk, "nothing").unwrap();
        let ca = format!("-ca-file={}", text(&authority.file()));
        let cases: &[(&[&str], String)] = &[
            (
                &["-ca-file=/nonexistent/ca"],
                "CA file /nonexistent/ca: no such file or directory".to_owned(),
            ),
            (
                &["-ca-file", &junk],
                format!("CA file {junk}: no PEM certificate in it"),
            ),
            (
                &["-ca-file", &key],
                format!("CA file {key}: no PEM certificate in it"),
            ),
            (
                &[&ca, "-client-cert", &cert],
                "a client certificate needs its key".to_owned(),
            ),
            (
                &[&ca, "-client-key", &key],
                "a client key needs its certificate".to_owned(),
            ),
            (
                &[&ca, "-client-cert", &cert, "-client-key", &cert],
                format!("client key {cert}: no PEM private key in it"),
            ),
            (
                &[&ca, "-client-cert", &cert, "-client-key", &other_key],
                format!("client key {other_key}: doesn't match the certificate in {cert}"),
            ),
            (
                &[&ca, "-tls-server-name", "a b"],
                "\"a b\" can't be the name in a certificate".to_owned(),
            ),
        ];
        for (flags, text) in cases {
            let printed = consul(
                &[
                    &["kv", "get", "-http-addr=https://127.0.0.1:1"],
                    *flags,
                    &["k"],
                ]
                .concat(),
                b"",
                &[],
            );
            let output = format!("Error connecting to Consul agent: {text}\n");
            assert_eq!((printed.status, printed.output), (1, output));
        }
        // Without TLS nobody reads them.
        let stub = Stub::tcp(|_| Reply::ok(r#"[{"Key":"k","Value":"NQ=="}]"#));
        let address = format!("-http-addr={}", stub.address);
        let printed = consul(
            &["kv", "get", &address, "-ca-file=/nonexistent/ca", "k"],
            b"",
            &[],
        );
        assert_eq!((printed.status, printed.output.as_str()), (0, "5\n"));
        // And HTTPS with somebody who speaks HTTP is told apart from a certificate that is refused.
        let environment = [
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("-http-addr={}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
            // Until the other side has had enough.
            drop(stream.read_to_end(&mut Vec::new()));
        });
        let printed = consul(&["kv", "get", &address, "k"], b"", &environment);
        thread.join().unwrap();
        assert_eq!(printed.status, 1);
        assert!(
            printed
                .output
                .contains("TLS: what answers there doesn't speak it"),
            "{}",
            printed.output
        );
    }

    #[test]
    fn authorities_can_be_a_folder_of_files() {
        let agent = Secure::start(&["127.0.0.1"], false);
        let foreign = Authority::new();
        let get = |folder: &Path| {
            let client = Client::new(Config {
                address: Address::Https(agent.address.clone()),
                tls: Tls {
                    ca_path: Some(folder.to_owned()),
                    ..Tls::default()
                },
                ..Config::default()
            })
            .map_err(|why| why.to_string())?;
            super::wait_for(async {
                let answer = client.kv_get("k", &QueryOptions::default()).await;
                answer.map(drop).map_err(|why| why.to_string())
            })
        };
        let room = tempfile::tempdir().unwrap();
        let folder = room.path();
        let shown = folder.display();
        let read = |what: &str, why: &str| Err(format!("CA file {what}: {why}"));
        std::fs::create_dir(folder.join("folder")).unwrap();
        std::fs::write(folder.join(".hidden"), "x").unwrap();
        let empty = get(folder);
        std::fs::copy(foreign.file(), folder.join("a.pem")).unwrap();
        let refused = get(folder).unwrap_err();
        assert!(refused.contains("invalid peer certificate"), "{refused}");
        std::fs::copy(agent.authority.file(), folder.join("b.pem")).unwrap();
        assert_eq!(get(folder), Ok(()));
        std::fs::write(folder.join("c.pem"), "x").unwrap();
        let bad = get(folder).unwrap_err();
        assert!(bad.contains(&format!("{shown}/c.pem")), "{bad}");
        assert_eq!(empty, read(&shown.to_string(), "no file is in this folder"));
        let gone = get(&folder.join("gone")).unwrap_err();
        assert!(gone.contains(&format!("{shown}/gone")), "{gone}");
    }
}
