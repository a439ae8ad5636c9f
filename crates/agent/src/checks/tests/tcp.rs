use tokio::net::TcpListener;

use super::*;

fn tcp(address: &str, timeout: Duration) -> CheckKind {
    CheckKind::Tcp {
        address: address.to_owned(),
        every: every(timeout),
    }
}

#[tokio::test]
async fn connections_that_stand_and_that_do_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closed, _held) = nobody();
    let port = address.port();
    let cases = [
        (format!("127.0.0.1:{port}"), None),
        // A name with addresses of both families, of which one refuses.
        (format!("localhost:{port}"), None),
        (format!(":{port}"), None),
        (closed.to_string(), Some("connection refused")),
        (format!("[::1]:{}", closed.port()), Some("")),
        (
            "127.0.0.1".to_owned(),
            Some("missing port in address 127.0.0.1"),
        ),
        (
            "127.0.0.1:http".to_owned(),
            Some("not a port number in address 127.0.0.1:http"),
        ),
        (
            "::1:80".to_owned(),
            Some("too many colons in address ::1:80"),
        ),
        ("no.such.name.invalid:80".to_owned(), Some("")),
        ("a b\0c:80".to_owned(), Some("")),
        (format!("{}:80", "x".repeat(100_000)), Some("")),
    ];
    for (address, why) in cases {
        let verdict = ask(&tcp(&address, Duration::ZERO), &Config::default()).await;
        let output = String::from_utf8(verdict.output).unwrap();
        match why {
            None => {
                assert_eq!(output, format!("TCP connect {address}: Success"));
                assert_eq!(verdict.status, Status::Passing);
            }
            Some(why) => {
                assert!(
                    output.starts_with("dial tcp ") && output.ends_with(why),
                    "{output}"
                );
                assert_eq!(verdict.status, Status::Critical);
            }
        }
    }
}

#[tokio::test]
async fn the_other_family_is_tried_too() {
    fn both(_: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        // The first belongs to nobody: connections there end at once or never.
        let addresses: [std::net::IpAddr; 2] =
            ["100::1", "127.0.0.1"].map(|address| address.parse().unwrap());
        Ok(addresses.map(|address| (address, port).into()).to_vec())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = knowing(both);
    let verdict = ask(&tcp(&format!("both:{port}"), Duration::ZERO), &config).await;
    assert_eq!(verdict.status, Status::Passing, "{verdict:?}");
}

#[tokio::test]
async fn a_name_that_is_looked_up_for_ever() {
    fn slow(_: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
        std::thread::park_timeout(Duration::from_secs(2));
        Ok(Vec::new())
    }
    let config = knowing(slow);
    let verdict = ask(&tcp("slow:80", Duration::from_millis(100)), &config).await;
    assert_eq!(
        verdict.output,
        b"dial tcp slow:80: no connection within 100ms"
    );
    assert_eq!(verdict.status, Status::Critical);
}
