use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::target::{Act, Asked, Target, send};
use super::*;

/// For targets that never answer.
const SHORT: Duration = Duration::from_millis(300);

/// For targets whose head comes and whose body doesn't.
const HEAD_TIME: Duration = Duration::from_secs(2);

fn http(url: &str, timeout: Duration) -> CheckKind {
    CheckKind::Http {
        url: url.to_owned(),
        tls_skip_verify: false,
        every: every(timeout),
    }
}

/// Status and output of a check that asks `url` once.
async fn said_of(url: &str, timeout: Duration) -> (Status, String) {
    let verdict = ask(&http(url, timeout), &Config::default()).await;
    (verdict.status, String::from_utf8(verdict.output).unwrap())
}

fn answer(status: &str, body: &str) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn moved(status: &str, location: &str) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    ))
}

/// All that a target can do, by path.
fn page(asked: &Asked) -> Vec<Act> {
    let path = asked.line().strip_prefix("GET ").unwrap();
    match path {
        "/ok" | "/?q=%20" => answer("200 OK", "hello"),
        "/empty" => answer("204 No Content", ""),
        "/words" => answer("299 Very Fine Indeed", "x"),
        "/wordless" => send("HTTP/1.1 200 \r\n\r\n"),
        "/busy" => answer("429 Too Many Requests", "later"),
        "/missing" => answer("404 Not Found", "no"),
        "/broken" => answer("500 Internal Server Error", "oops"),
        "/away" => answer("503 Service Unavailable", ""),
        "/old" => send("HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        "/chunks" => send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        ),
        "/hints" => send(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny",
        ),
        "/bytes" => send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\0".as_slice()),
        "/large" => answer(
            "200 OK",
            &format!("{}{}", "a".repeat(4096), "b".repeat(4096)),
        ),
        "/flood" => vec![
            Act::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
            Act::Flood(&[b'z'; 1 << 16]),
        ],
        "/flood/chunks" => vec![
            Act::Send(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
            Act::Flood(b"1\r\nz\r\n"),
        ],
        "/flood/chunk" => vec![
            Act::Send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
                    .to_vec(),
            ),
            Act::Flood(&[b'z'; 1 << 16]),
        ],
        "/flood/head" => vec![
            Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Act::Flood(b"X-More: of this\r\n"),
        ],
        "/flood/line" => vec![
            Act::Send(b"HTTP/1.1 200 ".to_vec()),
            Act::Flood(&[b'O'; 4096]),
        ],
        "/flood/hints" => vec![Act::Flood(b"HTTP/1.1 103 Early Hints\r\n\r\n")],
        "/silent" => vec![Act::Silence],
        "/silent/head" => vec![Act::Send(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), Act::Silence],
        "/silent/body" => vec![
            Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()),
            Act::Silence,
        ],
        "/drip" => vec![Act::Send(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), Act::Drip],
        "/drip/body" => vec![
            Act::Send(b"HTTP/1.1 429 Slow\r\nContent-Length: 10000000\r\n\r\n".to_vec()),
            Act::Drip,
        ],
        "/gone" => Vec::new(),
        "/gone/head" => send("HTTP/1.1 200 OK\r\nConte"),
        "/gone/body" => send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        "/gone/broken" => send("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 10\r\n\r\nhalf"),
        "/nonsense" => send("220 smtp.example.org ready\r\n"),
        "/number" => send("HTTP/1.1 99999 What\r\n\r\n"),
        "/size" => send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
        "/moved/301" => moved("301", "/ok"),
        "/moved/302" => moved("302", "ok/../../ok"),
        "/moved/303" => moved("303", "/busy"),
        "/moved/307" => moved("307", "/broken"),
        "/moved/308" => moved("308", "/ok"),
        "/moved/not" => answer("300 Multiple Choices", "which"),
        "/moved/nowhere" => answer("302 Found", "no place"),
        "/moved/file" => moved("302", "file:///etc/passwd"),
        "/loop" => moved("302", "/loop"),
        _ => match path
            .strip_prefix("/hops/")
            .map(|hops| hops.parse::<usize>().unwrap())
        {
            Some(0) => answer("200 OK", "there"),
            Some(hops) => moved("302", &format!("/hops/{}", hops - 1)),
            None => answer("404 Not Found", path),
        },
    }
}

#[tokio::test]
async fn pages_of_all_kinds() {
    use Status::{Critical, Passing, Warning};
    let target = Target::new(page).await;
    let a = "a".repeat(4096);
    let z = "z".repeat(4096);
    // What follows `HTTP GET <url>: `
    let answered = [
        ("/ok", Passing, "200 OK Output: hello"),
        ("/?q= #part", Passing, "200 OK Output: hello"),
        ("/empty", Passing, "204 No Content Output: "),
        ("/words", Passing, "299 Very Fine Indeed Output: x"),
        ("/wordless", Passing, "200 Output: "),
        ("/busy", Warning, "429 Too Many Requests Output: later"),
        ("/missing", Critical, "404 Not Found Output: no"),
        (
            "/broken",
            Critical,
            "500 Internal Server Error Output: oops",
        ),
        ("/away", Critical, "503 Service Unavailable Output: "),
        ("/old", Passing, "200 OK Output: until the end"),
        ("/chunks", Passing, "200 OK Output: onetwo"),
        ("/hints", Passing, "200 OK Output: y"),
        ("/large", Passing, &format!("200 OK Output: {a}")),
        ("/flood", Passing, &format!("200 OK Output: {z}")),
        ("/flood/chunks", Critical, &format!("500 No Output: {z}")),
        ("/gone/body", Passing, "200 OK Output: half"),
        ("/gone/broken", Critical, "502 Bad Gateway Output: half"),
        ("/moved/301", Passing, "200 OK Output: hello"),
        ("/moved/302", Passing, "200 OK Output: hello"),
        ("/moved/303", Warning, "429 Too Many Requests Output: later"),
        (
            "/moved/307",
            Critical,
            "500 Internal Server Error Output: oops",
        ),
        ("/moved/308", Passing, "200 OK Output: hello"),
        ("/moved/not", Critical, "300 Multiple Choices Output: which"),
        ("/moved/nowhere", Critical, "302 Found Output: no place"),
        (
            "/moved/file",
            Critical,
            "302 Moved Output: redirect to file:///etc/passwd is not followed: unsupported protocol scheme \"file\"",
        ),
        ("/hops/10", Passing, "200 OK Output: there"),
    ];
    for (path, status, output) in answered {
        let url = format!("http://{}{path}", target.address);
        let expected = (status, format!("HTTP GET {url}: {output}"));
        assert_eq!(said_of(&url, Duration::ZERO).await, expected);
    }
    // The kernel's buffers and ours took something, but nobody read on.
    assert!(target.flooded() < 64 << 20, "{}", target.flooded());

    let url = format!("http://{}/bytes", target.address);
    let verdict = ask(&http(&url, Duration::ZERO), &Config::default()).await;
    assert!(verdict.output.ends_with(b"Output: \xff\0"));
}

#[tokio::test]
async fn no_answer_is_critical() {
    let target = Target::new(page).await;
    let ten = Duration::ZERO;
    // What follows `Get <url>: `
    let failed = [
        ("/silent", SHORT, "no answer within 300ms"),
        ("/silent/head", SHORT, "no answer within 300ms"),
        ("/drip", SHORT, "no answer within 300ms"),
        ("/flood/hints", SHORT, "no answer within 300ms"),
        ("/flood/head", ten, "message head is too large"),
        ("/flood/line", ten, "message head is too large"),
        ("/gone", ten, "connection closed before message completed"),
        (
            "/gone/head",
            ten,
            "connection closed before message completed",
        ),
        ("/nonsense", ten, "invalid HTTP version parsed"),
        ("/number", ten, "invalid HTTP status-code parsed"),
        ("/size", ten, "invalid content-length parsed"),
        ("/loop", ten, "stopped after 10 redirects"),
        ("/hops/11", ten, "stopped after 10 redirects"),
    ];
    for (path, time, why) in failed {
        let url = format!("http://{}{path}", target.address);
        let expected = (Status::Critical, format!("Get {url}: {why}"));
        assert_eq!(said_of(&url, time).await, expected);
    }
    let loops = target.asked();
    let loops = loops.iter().filter(|asked| asked.line() == "GET /loop");
    assert_eq!(loops.count(), 11);
}

#[tokio::test]
async fn when_time_is_up_the_head_decides() {
    let target = Target::new(page).await;
    for (path, status, output) in [
        ("/silent/body", Status::Passing, "200 OK Output: half"),
        ("/drip/body", Status::Warning, "429 Slow Output: x"),
    ] {
        let url = format!("http://{}{path}", target.address);
        let (verdict, said) = said_of(&url, HEAD_TIME).await;
        let head = format!("HTTP GET {url}: {output}");
        assert!(said.starts_with(&head), "{said}");
        assert_eq!(verdict, status);
    }
}

#[tokio::test]
async fn addresses_that_lead_nowhere() {
    let (closed, _held) = nobody();
    let refused = format!("http://{closed}/");
    for (url, why) in [
        (
            &*refused,
            &*format!("dial tcp {}: connection refused", closed),
        ),
        ("ftp://127.0.0.1/", "unsupported protocol scheme \"ftp\""),
        ("127.0.0.1:80", "relative URL without a base"),
        ("http://", "empty host"),
        ("", "relative URL without a base"),
        ("http://127.0.0.1:99999/", "invalid port number"),
    ] {
        let expected = (Status::Critical, format!("Get {url}: {why}"));
        assert_eq!(said_of(url, Duration::ZERO).await, expected);
    }
}

#[tokio::test]
async fn what_the_target_is_told() {
    let target = Target::new(page).await;
    let url = format!("http://me:s%40me@{}/ok?a=b#c", target.address);
    let (_, said) = said_of(&url, Duration::ZERO).await;
    assert!(
        said.contains("//me:xxxxx@") && !said.contains("s%40me"),
        "{said}"
    );
    let asked = target.asked().pop().unwrap();
    let mut lines: Vec<_> = asked.head.lines().map(str::to_lowercase).collect();
    lines.sort();
    let mut expected = [
        "get /ok?a=b http/1.1".to_owned(),
        format!("host: {}", target.address),
        "user-agent: consul health check".to_owned(),
        "accept: text/plain, text/*, */*".to_owned(),
        "connection: close".to_owned(),
        // me:s@me
        "authorization: basic bwu6c0btzq==".to_owned(),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    assert_eq!(asked.body, "");
}

#[tokio::test]
async fn other_hosts_are_not_asked() {
    let other = Target::new(page).await;
    let elsewhere = format!("http://localhost:{}/ok", other.address.port());
    let location = elsewhere.clone();
    let target = Target::new(move |_| moved("302", &location)).await;
    let url = format!("http://{}/", target.address);
    let why = format!("redirect to {elsewhere} is not followed: it is another host");
    let expected = format!("HTTP GET {url}: 302 Moved Output: {why}");
    let said = said_of(&url, Duration::ZERO).await;
    assert_eq!(said, (Status::Critical, expected));
    assert!(other.asked().is_empty());

    // Another port of the same host is fine.
    let location = format!("http://{}/ok", other.address);
    let target = Target::new(move |_| moved("302", &location)).await;
    let url = format!("http://{}/", target.address);
    let verdict = ask(&http(&url, Duration::ZERO), &Config::default()).await;
    assert_eq!(verdict.status, Status::Passing);
    assert_eq!(other.asked().len(), 1);
}

#[tokio::test]
async fn link_local_addresses_are_not_asked() {
    let hosts = [
        ("169.254.169.254", "169.254.169.254"),
        ("2852039166", "169.254.169.254"),
        ("0xa9.0xfe.0.1", "169.254.0.1"),
        ("[fe80::1]", "fe80::1"),
        ("[::ffff:169.254.169.254]", "::ffff:169.254.169.254"),
        ("[fd00:ec2::254]", "fd00:ec2::254"),
    ];
    for (host, address) in hosts {
        let url = format!("http://{host}/latest/meta-data/");
        let expected = format!(
            "Get {url}: {address} is link-local, and asked only where enable_link_local_checks is set"
        );
        let said = said_of(&url, Duration::ZERO).await;
        assert_eq!(said, (Status::Critical, expected));
    }
    let config = Config {
        allow_link_local: true,
        ..Config::default()
    };
    let url = "http://[fe80::1]:1/";
    let verdict = ask(&http(url, SHORT), &config).await;
    let said = String::from_utf8(verdict.output).unwrap();
    assert!(!said.contains("is link-local"), "{said}");
}

#[tokio::test]
async fn a_name_that_comes_to_mean_a_link_local_address() {
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    fn rebinding(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let metadata = SocketAddr::from(([169, 254, 169, 254], port));
        let here = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(match (name, LOOKUPS.fetch_add(1, Ordering::Relaxed)) {
            ("mixed.example", _) => vec![metadata, here],
            ("rebind.example", 0) => vec![here],
            _ => vec![metadata],
        })
    }
    let config = knowing(rebinding);
    let target = Target::new(|_| moved("302", "/again")).await;
    let port = target.address.port();
    let url = format!("http://rebind.example:{port}/");
    let verdict = ask(&http(&url, Duration::ZERO), &config).await;
    assert_eq!(
        String::from_utf8(verdict.output).unwrap(),
        format!(
            "Get {url}: 169.254.169.254 is link-local, and asked only where enable_link_local_checks is set"
        )
    );
    assert_eq!(LOOKUPS.load(Ordering::Relaxed), 2);
    assert_eq!(target.asked().len(), 1);

    // Where some addresses may be asked, those are.
    let target = Target::new(page).await;
    let url = format!("http://mixed.example:{}/ok", target.address.port());
    let verdict = ask(&http(&url, Duration::ZERO), &config).await;
    assert_eq!(verdict.status, Status::Passing, "{verdict:?}");
}

/// Takes connections with a certificate of nobody's.
fn self_signed() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    acceptor(made.cert.into(), &made.signing_key)
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rpc::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn certificates_count_unless_any_will_do() {
    let target = Target::encrypted(self_signed(), page).await;
    let config = Config::default();
    let check = |skip, path: &str| CheckKind::Http {
        url: format!("https://localhost:{}{path}", target.address.port()),
        tls_skip_verify: skip,
        every: every(Duration::ZERO),
    };
    let verdict = ask(&check(true, "/ok"), &config).await;
    assert_eq!(verdict.status, Status::Passing, "{verdict:?}");
    assert!(verdict.output.ends_with(b": 200 OK Output: hello"));
    let verdict = ask(&check(true, "/flood"), &config).await;
    assert_eq!(verdict.status, Status::Passing);
    let verdict = ask(&check(false, "/ok"), &config).await;
    assert_eq!(verdict.status, Status::Critical);
    let said = String::from_utf8(verdict.output).unwrap();
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(target.asked().len(), 2);
}

/// Where the test below tells its other self what to ask.
const ASKED: &str = "CHECKS_ASKED";

/// It starts itself again, since the environment of a process is for whoever starts it.
#[tokio::test]
async fn the_systems_authorities_count_and_its_proxies_do_not() {
    if let Ok(urls) = std::env::var(ASKED) {
        for url in urls.split(' ') {
            let verdict = ask(&http(url, Duration::ZERO), &Config::default()).await;
            assert_eq!(verdict.status, Status::Passing, "{verdict:?}");
        }
        return;
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let signed = params.signed_by(&key, &issuer).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let authorities = directory.path().join("authorities.pem");
    std::fs::write(&authorities, authority.pem()).unwrap();
    let encrypted = Target::encrypted(acceptor(signed.into(), &key), page).await;
    let plain = Target::new(page).await;
    let port = encrypted.address.port();
    let urls = format!("https://localhost:{port}/ok http://{}/ok", plain.address);
    let (nobody, _held) = nobody();
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", "--nocapture"])
        .arg(std::thread::current().name().unwrap())
        .env(ASKED, urls)
        .env("SSL_CERT_FILE", &authorities)
        .env_remove("SSL_CERT_DIR");
    for proxy in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        again.env(proxy, format!("http://{nobody}"));
    }
    let done = again.kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert_eq!((encrypted.asked().len(), plain.asked().len()), (1, 1));
}

#[tokio::test]
async fn encrypted_and_silent_or_not_encrypted_at_all() {
    let silent = Target::new(|_| vec![Act::Silence]).await;
    // It waits for a request that never comes in the clear.
    let url = format!("https://{}/", silent.address);
    let verdict = ask(&http(&url, SHORT), &Config::default()).await;
    let said = String::from_utf8(verdict.output).unwrap();
    assert_eq!(said, format!("Get {url}: no answer within 300ms"));
    assert_eq!(verdict.status, Status::Critical);
}

#[tokio::test]
async fn checks_of_a_kind_share_one_configuration_while_there_is_one() {
    let target = Target::encrypted(self_signed(), page).await;
    let config = Config::default();
    let check = CheckKind::Http {
        url: format!("https://{}/ok", target.address),
        tls_skip_verify: true,
        every: every(Duration::ZERO),
    };
    let shared = || {
        config
            .shared
            .tls
            .config(crate::checks::tls::Trust::Anyone)
            .unwrap()
    };
    let checks: Vec<_> = (0..3).map(|_| probe(&check, &config).unwrap().1).collect();
    for check in &checks {
        assert_eq!(check.ask().await.status, Status::Passing);
    }
    let now = shared();
    // Ours and one for each check.
    assert_eq!(Arc::strong_count(&now), 4);
    drop(checks);
    assert_eq!(Arc::strong_count(&now), 1);
}
