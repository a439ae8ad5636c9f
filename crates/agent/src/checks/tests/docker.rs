use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::target::{Act, Asked, Target, send};
use super::*;

/// For engines that answer up to a point and never beyond.
const SHORT: Duration = Duration::from_secs(1);

fn docker(container: &str, script: Script, timeout: Duration) -> CheckKind {
    CheckKind::Docker {
        container: container.to_owned(),
        shell: String::new(),
        script,
        every: every(timeout),
    }
}

fn at(engine: Engine) -> Config {
    Config {
        engine,
        ..Config::default()
    }
}

fn json(status: &str, body: &str) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A part of an output, as the engine's stream has it.
fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text);
    frame
}

fn output(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut stream =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n".to_vec();
    stream.extend(frames.concat());
    stream
}

/// An engine whose containers are named for what goes wrong in them; an execution has the name of its container.
fn engine(asked: &Asked) -> Vec<Act> {
    let (method, path) = asked.line().split_once(' ').unwrap();
    let parts: Vec<_> = path.split('/').skip(1).collect();
    match (method, parts[..].as_ref()) {
        ("POST", ["containers", name, "exec"]) => match *name {
            "missing" => json(
                "404 Not Found",
                r#"{"message":"No such container: missing"}"#,
            ),
            "paused" => json(
                "409 Conflict",
                r#"{"message":"container paused is paused"}"#,
            ),
            "terse" => json("500 Internal Server Error", "no JSON"),
            "flood.refusal" => vec![
                Act::Send(b"HTTP/1.1 500 No\r\n\r\n".to_vec()),
                Act::Flood(&[b'z'; 4096]),
            ],
            "silent" => vec![Act::Silence],
            "gone" => Vec::new(),
            "nonsense" => json("201 Created", "[]"),
            "path" => json("201 Created", r#"{"Id":"../containers"}"#),
            "flood.create" => vec![
                Act::Send(b"HTTP/1.1 201 Created\r\n\r\n".to_vec()),
                Act::Flood(&[b' '; 4096]),
            ],
            name => json(
                "201 Created",
                &format!(r#"{{"Id":"{name}","Warnings":[]}}"#),
            ),
        },
        ("POST", ["exec", name, "start"]) => match *name {
            "no.start" => json("409 Conflict", r#"{"message":"not running"}"#),
            "silent.start" => vec![Act::Send(output(&[frame(1, b"so far")])), Act::Silence],
            "gone.start" => Vec::new(),
            "half" => {
                let mut stream = output(&[frame(1, b"whole"), frame(2, b"half of it")]);
                stream.truncate(stream.len() - 6);
                send(stream)
            }
            "garbled" => send(output(&[b"plain text".to_vec()])),
            "boast" => vec![
                Act::Send(output(&[vec![1, 0, 0, 0, 255, 255, 255, 255]])),
                Act::Flood(&[b'z'; 4096]),
            ],
            "quiet" => send(output(&[])),
            "many" => {
                let frames: Vec<_> = (0..1000).map(|_| frame(1, b"0123456789")).collect();
                send(output(&frames))
            }
            _ => {
                // Heads and texts arrive in pieces.
                let stream = output(&[frame(1, b"out "), frame(2, b""), frame(2, b"err")]);
                stream.chunks(5).flat_map(send).collect()
            }
        },
        ("GET", ["exec", name, "json"]) => match *name {
            "fails" => json("200 OK", r#"{"ExitCode":1,"Running":false}"#),
            "breaks" => json("200 OK", r#"{"ExitCode":127,"Running":false}"#),
            "no.inspect" => json("404 Not Found", r#"{"message":"No such exec instance"}"#),
            "no.code" => json("200 OK", r#"{"ExitCode":null,"Running":false}"#),
            "runs" => json("200 OK", r#"{"ExitCode":0,"Running":true}"#),
            "odd" => json("200 OK", r#"{"ExitCode":"0"}"#),
            _ => json(
                "200 OK",
                r#"{"ID":"x","ExitCode":0,"Running":false,"Pid":7}"#,
            ),
        },
        _ => json("400 Bad Request", r#"{"message":"page not found"}"#),
    }
}

#[tokio::test]
async fn containers_of_all_kinds() {
    use Status::{Critical, Passing, Warning};
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let _engine = Target::at(&socket, engine);
    let config = at(Engine::Socket(socket));
    let many = format!(
        "Captured 4096 of 10000 bytes\n...\n456789{}",
        "0123456789".repeat(409)
    );
    let zs = "z".repeat(4096);
    let flood = format!("Unable to create Exec, error: API error (500): {zs}");
    let create = "Unable to create Exec, error: ";
    let start = "Unable to start Exec: ";
    let inspect = "Unable to inspect Exec: ";
    let with = |begin: &str, end: &str| format!("{begin}{end}");
    let cases = [
        ("fine", Passing, "out err".to_owned()),
        ("fails", Warning, "out err".to_owned()),
        ("breaks", Critical, "out err".to_owned()),
        ("quiet", Passing, String::new()),
        ("many", Passing, many),
        ("half", Passing, "wholehalf".to_owned()),
        (
            "missing",
            Critical,
            with(create, "No such container: missing"),
        ),
        (
            "paused",
            Critical,
            with(create, "API error (409): container paused is paused"),
        ),
        ("terse", Critical, with(create, "API error (500): no JSON")),
        ("flood.refusal", Critical, flood),
        (
            "gone",
            Critical,
            with(create, "connection closed before message completed"),
        ),
        (
            "nonsense",
            Critical,
            with(
                create,
                "the engine's answer can't be read: invalid length 0, expected struct Created with 1 element at line 1 column 2",
            ),
        ),
        (
            "path",
            Critical,
            with(create, "the engine's answer has no usable id"),
        ),
        (
            "flood.create",
            Critical,
            with(create, "the engine's answer is too large"),
        ),
        (
            "../images",
            Critical,
            with(create, "No such container: ../images"),
        ),
        ("", Critical, with(create, "No such container: ")),
        (
            "no.start",
            Critical,
            with(start, "API error (409): not running"),
        ),
        (
            "gone.start",
            Critical,
            with(start, "connection closed before message completed"),
        ),
        (
            "garbled",
            Critical,
            with(start, "the output that the engine sends can't be read"),
        ),
        (
            "no.inspect",
            Critical,
            with(inspect, "API error (404): No such exec instance"),
        ),
        (
            "no.code",
            Critical,
            with(inspect, "the engine's answer has no exit code"),
        ),
        (
            "odd",
            Critical,
            with(
                inspect,
                "the engine's answer can't be read: invalid type: string \"0\", expected i64 at line 1 column 15",
            ),
        ),
    ];
    for (container, status, output) in cases {
        let verdict = ask(&docker(container, line("x"), Duration::ZERO), &config).await;
        assert_eq!(String::from_utf8(verdict.output).unwrap(), output);
        assert_eq!(verdict.status, status, "{container}");
    }
}

#[tokio::test]
async fn engines_that_take_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let _engine = Target::at(&socket, engine);
    let config = at(Engine::Socket(socket));
    for (container, output) in [
        ("silent", "Timed out after 1s and was left alone"),
        (
            "silent.start",
            "so far\nTimed out after 1s and was left alone",
        ),
        ("runs", "out err\nTimed out after 1s and was left alone"),
    ] {
        let verdict = ask(&docker(container, line("x"), SHORT), &config).await;
        assert_eq!(String::from_utf8(verdict.output).unwrap(), output);
        assert_eq!(verdict.status, Status::Critical);
    }
    let verdict = ask(&docker("boast", line("x"), SHORT), &config).await;
    let said = String::from_utf8(verdict.output).unwrap();
    assert!(said.starts_with("Captured 4096 of "), "{said}");
    assert!(
        said.ends_with("z\nTimed out after 1s and was left alone"),
        "{said}"
    );
}

#[tokio::test]
async fn a_program_may_end_after_its_output() {
    let asked = AtomicUsize::new(0);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let engine = Target::at(&socket, move |request| {
        if request.line().ends_with("/json") && asked.fetch_add(1, Ordering::Relaxed) < 3 {
            return json("200 OK", r#"{"ExitCode":null,"Running":true}"#);
        }
        engine(request)
    });
    let config = at(Engine::Socket(socket));
    let verdict = ask(&docker("fails", line("x"), Duration::ZERO), &config).await;
    assert_eq!(verdict.status, Status::Warning);
    let lines: Vec<_> = engine
        .asked()
        .iter()
        .map(|asked| asked.line().to_owned())
        .collect();
    assert_eq!(
        lines[..2],
        ["POST /containers/fails/exec", "POST /exec/fails/start"]
    );
    assert_eq!(lines[2..], ["GET /exec/fails/json"; 4]);
}

#[tokio::test]
async fn what_the_engine_is_told() {
    let engine = Target::new(engine).await;
    let config = Config::new(|name| match name {
        "DOCKER_HOST" => Some(format!("tcp://{}", engine.address)),
        "SHELL" => Some("/bin/agents".to_owned()),
        _ => None,
    });
    let of_its_own = CheckKind::Docker {
        container: "fine".to_owned(),
        shell: "/bin/own".to_owned(),
        script: line("a \"b\""),
        every: every(Duration::ZERO),
    };
    for (kind, command) in [
        (of_its_own, r#"["/bin/own","-c","a \"b\""]"#),
        (
            docker("fine", line("x y"), Duration::ZERO),
            r#"["/bin/agents","-c","x y"]"#,
        ),
        (
            docker("fine", list(&["x", "y z"]), Duration::ZERO),
            r#"["x","y z"]"#,
        ),
    ] {
        let verdict = ask(&kind, &config).await;
        assert_eq!(verdict.status, Status::Passing, "{verdict:?}");
        let asked = engine.asked();
        let [create, start, _] = &asked[asked.len() - 3..] else {
            panic!("{asked:?}");
        };
        let told: serde_json::Value = serde_json::from_str(&create.body).unwrap();
        assert_eq!(told["Cmd"].to_string(), command);
        assert_eq!(
            [
                &told["AttachStdin"],
                &told["AttachStdout"],
                &told["AttachStderr"],
                &told["Tty"]
            ],
            [false, true, true, false]
        );
        let told: serde_json::Value = serde_json::from_str(&start.body).unwrap();
        assert_eq!([&told["Detach"], &told["Tty"]], [false, false]);
    }
}

#[tokio::test]
async fn engines_that_are_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("docker.sock");
    let (closed, _held) = nobody();
    for (engine, why) in [
        (
            Engine::Socket(missing.clone()),
            format!(
                "dial unix {}: No such file or directory (os error 2)",
                missing.display()
            ),
        ),
        (
            Engine::Plain(closed.to_string()),
            format!("dial tcp {closed}: connection refused"),
        ),
        (
            Engine::Tls(
                Target::new(engine).await.address.to_string(),
                "/no/where".into(),
            ),
            "/no/where/key.pem: No such file or directory (os error 2)".to_owned(),
        ),
        (Engine::Unusable("why not".to_owned()), "why not".to_owned()),
    ] {
        let verdict = ask(&docker("fine", line("x"), Duration::ZERO), &at(engine)).await;
        let said = String::from_utf8(verdict.output).unwrap();
        assert_eq!(said, format!("Unable to create Exec, error: {why}"));
        assert_eq!(verdict.status, Status::Critical);
    }
}

/// An authority that signs for both sides; what the check needs is written to `directory`.
fn certified(directory: &Path) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let signed = || {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (client, client_key) = signed();
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("cert.pem", client.pem()),
        ("key.pem", client_key.serialize_pem()),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let (server, server_key) = signed();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), rpc::tls::provider())
            .build()
            .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rpc::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(server)],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn engines_with_certificates() {
    let ours = tempfile::tempdir().unwrap();
    let engine = Target::encrypted(certified(ours.path()), engine).await;
    let config = |directory: &Path| {
        at(Engine::Tls(
            engine.address.to_string(),
            directory.to_owned(),
        ))
    };
    let kind = docker("fine", line("x"), Duration::ZERO);
    let verdict = ask(&kind, &config(ours.path())).await;
    assert_eq!(verdict.status, Status::Passing, "{verdict:?}");

    // Another authority's files: neither side takes the other.
    let others = tempfile::tempdir().unwrap();
    let _ = certified(others.path());
    let verdict = ask(&kind, &config(others.path())).await;
    let said = String::from_utf8(verdict.output).unwrap();
    assert!(said.contains("invalid peer certificate"), "{said}");
}

/// Runs Docker's own client.
fn client(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("docker");
    let done = command.args(arguments).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| said.trim().to_owned())
}

/// With an engine that runs and an image that has a shell; one is built of this machine's busybox if there is none.
#[tokio::test]
async fn a_real_engine() {
    if client(&["info"]).is_none() {
        println!("skipped: `docker info` fails, so there is no engine to ask");
        return;
    }
    let listed = client(&["images", "-q", "busybox"]).filter(|images| !images.is_empty());
    if listed.is_none() && client(&["pull", "-q", "busybox"]).is_none() {
        println!("skipped: there is no image of busybox, and it can't be fetched");
        return;
    }
    let run = ["run", "-d", "--rm", "busybox", "sleep", "300"];
    let Some(container) = client(&run) else {
        println!("skipped: the engine doesn't run containers here");
        return;
    };
    let config = Config {
        shell: "/bin/sh".to_owned(),
        ..Config::new(|name| std::env::var(name).ok())
    };
    let mut verdicts = Vec::new();
    for script in [
        line("echo out; echo err >&2; exit 1"),
        list(&["echo", "$HOME"]),
    ] {
        verdicts.push(ask(&docker(&container, script, Duration::ZERO), &config).await);
    }
    client(&["kill", &container]);
    assert_eq!(verdicts[0].status, Status::Warning, "{verdicts:?}");
    assert!(verdicts[0].output.windows(3).any(|part| part == b"err"));
    assert_eq!(verdicts[1].status, Status::Passing);
    assert_eq!(verdicts[1].output, b"$HOME\n");
}
