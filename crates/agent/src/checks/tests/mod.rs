//! Every kind of check against something that behaves, and something that does not.

mod docker;
mod http;
mod script;
mod target;
mod tcp;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

use super::*;
use crate::definition::Script;

/// Nothing here takes that long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Of an interval that no time is capped by, unless a test says so.
fn every(timeout: Duration) -> Every {
    Every {
        interval: Duration::from_secs(3600),
        timeout,
    }
}

/// What comes of asking once.
async fn ask(kind: &CheckKind, config: &Config) -> Verdict {
    let (_, probe) = probe(kind, config).unwrap();
    let asked = timeout(DEADLINE, probe.ask()).await;
    asked.expect("a verdict")
}

/// Waits until `found` finds something, which is tried at intervals: other people's processes tell nobody that they end.
async fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        let mut tries = interval(Duration::from_millis(5));
        loop {
            tries.tick().await;
            if let Some(found) = found() {
                return found;
            }
        }
    };
    let waited = timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| panic!("no {what}"))
}

/// An address of this machine at which nobody listens, and what keeps others from it.
fn nobody() -> (SocketAddr, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// Something that is critical without asking anybody, so that it takes no time of a paused clock.
fn hopeless(interval: Duration) -> CheckKind {
    CheckKind::Tcp {
        address: "nowhere".to_owned(),
        every: Every {
            interval,
            timeout: Duration::ZERO,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn an_interval_lies_between_an_answer_and_the_next_question() {
    let second = Duration::from_secs(1);
    let cases = [
        // (interval, chance, first, then)
        (10 * second, 0, Duration::ZERO, 10 * second),
        (10 * second, 1 << 63, 5 * second, 10 * second),
        (second / 10, 1 << 63, second / 2, second),
        (Duration::ZERO, 0, Duration::ZERO, second),
    ];
    for (interval, chance, first, then) in cases {
        let (sender, mut reports) = mpsc::channel(1);
        let begin = Instant::now();
        let kind = hopeless(interval);
        let runner = start("c".into(), 7, &kind, &Config::default(), sender, chance);
        for n in 0..3 {
            let report = reports.recv().await.unwrap();
            assert_eq!(report.id, "c");
            assert_eq!(report.generation, 7);
            assert_eq!(report.status, Status::Critical);
            assert_eq!(report.output, "dial tcp missing port in address nowhere");
            let due = first + then * n;
            let off = begin.elapsed().abs_diff(due);
            assert!(off <= 5 * Duration::from_millis(1), "{off:?} off {due:?}");
        }
        drop(runner);
        assert!(reports.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn reports_are_bounded_whatever_was_asked() {
    let (sender, mut reports) = mpsc::channel(1);
    let kind = CheckKind::Tcp {
        address: "x".repeat(500_000),
        every: every(Duration::ZERO),
    };
    let _runner = start("c".into(), 0, &kind, &Config::default(), sender, 0);
    let output = reports.recv().await.unwrap().output.to_string();
    assert!(output.starts_with("dial tcp missing port in address xxx"));
    assert!(output.ends_with(" ... (captured 4096 of 500033 bytes)"));
    assert!(output.len() < 4200);
}

#[tokio::test(start_paused = true)]
async fn reports_that_nobody_takes_hold_up_the_next_question() {
    let (sender, mut reports) = mpsc::channel(1);
    let kind = hopeless(Duration::from_secs(1));
    let _runner = start("c".into(), 0, &kind, &Config::default(), sender, 0);
    tokio::time::advance(Duration::from_secs(3600)).await;
    // One lies in the channel, one is held; no more than these come at once.
    let begin = Instant::now();
    for _ in 0..3 {
        reports.recv().await.unwrap();
    }
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_ttl_asks_nobody() {
    let (sender, mut reports) = mpsc::channel(1);
    let kind = CheckKind::Ttl(Duration::from_secs(1));
    let _runner = start("c".into(), 0, &kind, &Config::default(), sender, 0);
    assert!(reports.recv().await.is_none());
}

#[test]
fn how_long_a_question_may_take() {
    let second = Duration::from_secs(1);
    for (interval, timeout, question, script) in [
        (30, 0, 10, 30),
        (5, 0, 5, 30),
        (0, 0, 1, 30),
        (30, 20, 20, 20),
        (30, 30, 10, 30),
        (5, 6, 5, 6),
    ] {
        let every = Every {
            interval: interval * second,
            timeout: timeout * second,
        };
        assert_eq!(question_time(&every), question * second, "{every:?}");
        assert_eq!(script_time(&every), script * second, "{every:?}");
    }
}

#[test]
fn the_first_question_falls_within_the_interval() {
    for whole in [Duration::from_secs(1), Duration::MAX / 2, Duration::ZERO] {
        assert_eq!(part(whole, 0), Duration::ZERO);
        assert!(part(whole, u64::MAX) <= whole);
    }
    assert!(part(Duration::from_secs(10), u64::MAX) < Duration::from_secs(10));
    assert!(part(Duration::from_secs(10), u64::MAX) > Duration::from_secs(9));
    // The greatest interval that a definition can hold.
    let _ = part(Duration::MAX, u64::MAX);
}

#[test]
fn the_environment_names_shell_and_engine() {
    let config = |pairs: &[(&str, &str)]| {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name);
        Config::new(|name| find(name).map(|(_, value)| (*value).to_owned()))
    };
    assert_eq!(config(&[]).shell, "/bin/sh");
    assert_eq!(config(&[("SHELL", "")]).shell, "/bin/sh");
    assert_eq!(config(&[("SHELL", "/bin/bash")]).shell, "/bin/bash");
    let plain = |address: &str| Engine::Plain(address.to_owned());
    let tls = |address: &str, directory: &str| Engine::Tls(address.to_owned(), directory.into());
    let cases: [(&[(&str, &str)], Engine); 9] = [
        (&[], Engine::Socket("/var/run/docker.sock".into())),
        (
            &[("DOCKER_HOST", "unix:///x/y.sock")],
            Engine::Socket("/x/y.sock".into()),
        ),
        (&[("DOCKER_HOST", "tcp://h:1")], plain("h:1")),
        (&[("DOCKER_HOST", "tcp://h/")], plain("h:2375")),
        (&[("DOCKER_HOST", "tcp://[::1]")], plain("[::1]:2375")),
        (
            &[
                ("DOCKER_HOST", "tcp://h"),
                ("DOCKER_TLS_VERIFY", "1"),
                ("HOME", "/h"),
            ],
            tls("h:2376", "/h/.docker"),
        ),
        (
            &[
                ("DOCKER_HOST", "https://h:1"),
                ("DOCKER_CERT_PATH", "/certs"),
                ("HOME", "/h"),
            ],
            tls("h:1", "/certs"),
        ),
        (
            &[("DOCKER_HOST", "ssh://h")],
            Engine::Unusable("DOCKER_HOST \"ssh://h\" is of an unknown kind".to_owned()),
        ),
        (
            &[("DOCKER_HOST", "h:1")],
            Engine::Unusable("DOCKER_HOST \"h:1\" names no protocol".to_owned()),
        ),
    ];
    for (pairs, engine) in cases {
        assert_eq!(config(pairs).engine, engine);
    }
}

/// A configuration in which names are what `resolver` says.
fn knowing(resolver: dial::Resolver) -> Config {
    let names = dial::Names::of(resolver);
    let tls = tls::Authorities::default();
    Config {
        shared: Arc::new(Shared { names, tls }),
        ..Config::default()
    }
}

fn line(text: &str) -> Script {
    Script::Line(text.to_owned())
}

fn list(words: &[&str]) -> Script {
    Script::List(words.iter().map(|word| (*word).to_owned()).collect())
}
