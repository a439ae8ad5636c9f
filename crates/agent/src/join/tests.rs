use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::time::Instant;

use super::*;
use crate::discover::DiscoverError;

fn address(text: &str) -> JoinAddress {
    JoinAddress::parse(text, 8301).unwrap()
}

fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Names that stand for what the test says; what isn't there is unknown, and `slow` never answers.
struct Names(BTreeMap<&'static str, Vec<IpAddr>>);

impl Names {
    fn none() -> Self {
        Self(BTreeMap::new())
    }

    fn of(names: &[(&'static str, &[&str])]) -> Self {
        let parsed = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Self(
            names
                .iter()
                .map(|(name, ips)| (*name, parsed(ips)))
                .collect(),
        )
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if name == "slow" {
                std::future::pending::<()>().await;
            }
            let ips = self.0.get(name).cloned();
            ips.ok_or_else(|| io::Error::other("name not known"))
        })
    }
}

/// A cloud that gives its answers one after the other.
#[derive(Debug)]
struct Cloud(Mutex<Vec<Result<Vec<IpAddr>, DiscoverError>>>);

impl Cloud {
    fn boxed(mut answers: Vec<Result<Vec<IpAddr>, DiscoverError>>) -> Box<dyn Discover> {
        answers.reverse();
        Box::new(Self(Mutex::new(answers)))
    }
}

impl Discover for Cloud {
    fn name(&self) -> &'static str {
        "CLOUD"
    }

    fn addresses(&self) -> BoxFuture<'_, Result<Vec<IpAddr>, DiscoverError>> {
        let answer = self.0.lock().unwrap().pop();
        Box::pin(async move { answer.expect("asked more often than expected") })
    }
}

#[test]
fn addresses_in_every_form() {
    let cases = [
        ("10.0.0.1", "10.0.0.1:8301"),
        ("10.0.0.1:9000", "10.0.0.1:9000"),
        ("consul.example.org", "consul.example.org:8301"),
        ("node_1:1", "node_1:1"),
        ("::1", "[::1]:8301"),
        ("fe80::1:9000", "[fe80::1:9000]:8301"),
        ("[::1]", "[::1]:8301"),
        ("[2001:db8::1]:9000", "[2001:db8::1]:9000"),
    ];
    for (text, shown) in cases {
        assert_eq!(address(text).to_string(), shown);
    }
    for text in [
        "",
        ":8301",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:-1",
        "a:b",
        "a:1:2",
        "[::1",
        "[::1]9",
        "[::1]:",
        "[10.0.0.1]:1",
        "[a]:1",
        "a b",
        "a/b",
        "http://a",
        "a\n",
        "ä",
        &"a".repeat(254),
    ] {
        let why = JoinAddress::parse(text, 8301).unwrap_err();
        assert_eq!(why, format!("{text:?} is no address to join"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_gives_all_its_addresses_once() {
    let names = Names::of(&[("three", &["10.0.0.1", "10.0.0.2", "::3"]), ("none", &[])]);
    let given = ["10.0.0.2", "three", "three:1", "none", "slow", "unknown"].map(address);
    let (found, problems) = resolve(&given, &names).await;
    assert_eq!(
        found,
        sockets(&[
            "10.0.0.2:8301",
            "10.0.0.1:8301",
            "[::3]:8301",
            "10.0.0.1:1",
            "10.0.0.2:1",
            "[::3]:1"
        ])
    );
    assert_eq!(
        problems,
        [
            "none: no such host",
            "slow: the name servers don't answer",
            "unknown: name not known"
        ]
    );
}

#[tokio::test]
async fn the_system_resolves() {
    let ips = SystemResolver.resolve("localhost").await.unwrap();
    assert!(!ips.is_empty() && ips.iter().all(IpAddr::is_loopback));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_finds_afresh_until_one_works() {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    let providers = [Cloud::boxed(vec![
        Err(DiscoverError::Overdue),
        Ok(Vec::new()),
        Ok(vec![ip(1)]),
        Ok(vec![ip(2), ip(9)]),
    ])];
    let names = Names::none();
    let named = [address("10.0.0.9:8301")];
    let sources = Sources {
        addresses: &named,
        providers: &providers,
        port: 8301,
        resolver: &names,
    };
    let start = Instant::now();
    let tried = RefCell::new(Vec::new());
    let join = |addresses: Vec<SocketAddr>| {
        let works = addresses.contains(&"10.0.0.2:8301".parse().unwrap());
        tried
            .borrow_mut()
            .push((start.elapsed().as_secs(), addresses));
        async move {
            if works {
                Ok(1)
            } else {
                Err("connection refused")
            }
        }
    };
    let retry = Retry {
        interval: Duration::from_secs(7),
        retries_max: None,
    };
    assert_eq!(retry_join(&sources, retry, join).await, Ok(1));
    assert_eq!(
        tried.into_inner(),
        [
            (0, sockets(&["10.0.0.9:8301"])),
            (7, sockets(&["10.0.0.9:8301"])),
            (14, sockets(&["10.0.0.1:8301", "10.0.0.9:8301"])),
            (21, sockets(&["10.0.0.2:8301", "10.0.0.9:8301"])),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_maximum_counts_retries_not_attempts() {
    let names = Names::none();
    let named = [address("10.0.0.1")];
    let sources = Sources {
        addresses: &named,
        providers: &[],
        port: 8301,
        resolver: &names,
    };
    for (retries_max, expected) in [(1, 2), (3, 4)] {
        let start = Instant::now();
        let attempts = RefCell::new(0);
        let join = |_| {
            *attempts.borrow_mut() += 1;
            async { Err::<usize, _>("refused") }
        };
        let retry = Retry {
            retries_max: Some(retries_max),
            ..Retry::default()
        };
        let outcome = retry_join(&sources, retry, join).await;
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "max join retry exhausted, exiting"
        );
        assert_eq!(attempts.into_inner(), expected);
        let waits = u64::from(retries_max) * 30;
        assert_eq!(start.elapsed(), Duration::from_secs(waits));
    }
}

#[tokio::test(start_paused = true)]
async fn without_addresses_nothing_is_tried() {
    let names = Names::none();
    let failing = [Cloud::boxed(vec![Err(DiscoverError::Overdue)])];
    let unknown = [address("unknown")];
    let none: (&[JoinAddress], &[Box<dyn Discover>]) = (&[], &[]);
    let cases = [
        (none.0, none.1, "No servers to join"),
        (&unknown, none.1, "unknown: name not known"),
        (
            none.0,
            &failing,
            "Unable to query CLOUD instances: no result within 60 seconds",
        ),
    ];
    for (addresses, providers, expected) in cases {
        let sources = Sources {
            addresses,
            providers,
            port: 8301,
            resolver: &names,
        };
        let join = |_| async { Err::<usize, String>("tried".to_owned()) };
        assert_eq!(join_once(&sources, join).await, Err(expected.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded() {
    let many: Vec<IpAddr> = (0..=u32::try_from(TRIED_MAX).unwrap())
        .map(|number| IpAddr::V4(number.into()))
        .collect();
    let providers = [Cloud::boxed(vec![Ok(many)])];
    let names = Names::none();
    let sources = Sources {
        addresses: &[],
        providers: &providers,
        port: 1,
        resolver: &names,
    };
    let join = |addresses: Vec<SocketAddr>| async move { Ok::<_, String>(addresses.len()) };
    assert_eq!(join_once(&sources, join).await, Ok(TRIED_MAX));
}

#[test]
fn causes_are_told_in_one_line() {
    let cause = "1 error(s) occurred:\n\n* Failed to join 10.0.0.1: refused";
    assert_eq!(
        one_line(cause),
        "1 error(s) occurred: * Failed to join 10.0.0.1: refused"
    );
}
