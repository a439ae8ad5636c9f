//! Both ends of TLS in one process, over pipes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use testkit::{Authority, Dates, Pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;

const SERVER: &[&str] = &["server.dc1.consul"];

fn settings() -> Config {
    Config {
        datacenter: "dc1".to_owned(),
        domain: "consul.".to_owned(),
        ..Config::default()
    }
}

/// A server with all of TLS.
fn server(authority: &Authority, pair: &Pair) -> Config {
    Config {
        server: true,
        verify_incoming: true,
        ..client(authority, pair)
    }
}

/// A client agent that calls servers.
fn client(authority: &Authority, pair: &Pair) -> Config {
    Config {
        ca_file: Some(authority.file()),
        cert_file: Some(pair.certificate.clone()),
        key_file: Some(pair.key.clone()),
        verify_outgoing: true,
        ..settings()
    }
}

/// What the two ends of a handshake come to. The client sends a byte, because with TLS 1.3 it
/// learns only afterwards whether it was let in.
async fn meet(
    from: &Tls,
    to: &Tls,
) -> (Result<PeerIdentity, String>, Result<PeerIdentity, String>) {
    let (near, far) = duplex(64 << 10);
    let (outgoing, incoming) = (from.outgoing().unwrap(), to.incoming().unwrap());
    let calls = async {
        let (mut stream, peer) = outgoing.connect(near, "dc1").await?;
        stream
            .write_all(b"?")
            .await
            .map_err(HandshakeError::Failed)?;
        stream.flush().await.map_err(HandshakeError::Failed)?;
        let answer = stream.read_u8().await.map_err(HandshakeError::Failed)?;
        assert_eq!(answer, b'!');
        Ok::<_, HandshakeError>(peer)
    };
    let takes = async {
        let (mut stream, peer) = incoming.accept(far).await?;
        assert_eq!(
            stream.read_u8().await.map_err(HandshakeError::Failed)?,
            b'?'
        );
        stream
            .write_all(b"!")
            .await
            .map_err(HandshakeError::Failed)?;
        stream.flush().await.map_err(HandshakeError::Failed)?;
        Ok::<_, HandshakeError>(peer)
    };
    let (calls, takes) = tokio::join!(calls, takes);
    (
        calls.map_err(|why| why.to_string()),
        takes.map_err(|why| why.to_string()),
    )
}

#[test]
fn half_of_tls_is_refused_with_what_would_be_in_the_clear() {
    // Which of: ca, cert, key, verify_incoming, verify_outgoing, verify_server_hostname, server, https.
    let config = |letters: &str| {
        let has = |letter| letters.contains(letter);
        let file = |letter| has(letter).then(|| PathBuf::from("f"));
        Config {
            ca_file: file('a'),
            cert_file: file('c'),
            key_file: file('k'),
            verify_incoming: has('i'),
            verify_outgoing: has('o'),
            verify_server_hostname: has('n'),
            server: has('S'),
            https: has('H'),
            ..settings()
        }
    };
    // The table of `docs/tls.md`. An error, warnings, or neither.
    type Verdict = Result<&'static [&'static str], &'static str>;
    let cases: &[(&str, Verdict)] = &[
        // Nothing of it.
        ("", Ok(&[])),
        ("S", Ok(&[])),
        // All of it.
        ("acki o S", Ok(&[])),
        ("ackin S", Ok(&[])),
        ("ackino SH", Ok(&[])),
        ("acko", Ok(&[])),
        ("acki o H", Ok(&[])),
        // A client that only calls needs no certificate of its own.
        ("ao", Ok(&[])),
        ("an", Ok(&[])),
        // Texts of the original.
        (
            "i S",
            Err("VerifyIncoming set, and no CA certificate provided!"),
        ),
        (
            "cki S",
            Err("VerifyIncoming set, and no CA certificate provided!"),
        ),
        (
            "cki H",
            Err("VerifyIncoming set, and no CA certificate provided!"),
        ),
        (
            "ai S",
            Err("VerifyIncoming set, and no Cert/Key pair provided!"),
        ),
        (
            "aio H",
            Err("VerifyIncoming set, and no Cert/Key pair provided!"),
        ),
        (
            "o",
            Err("VerifyOutgoing set, and no CA certificate provided!"),
        ),
        (
            "cko S",
            Err("VerifyOutgoing set, and no CA certificate provided!"),
        ),
        (
            "n",
            Err("VerifyOutgoing set, and no CA certificate provided!"),
        ),
        // A client without HTTPS has no listener that verify_incoming could be about.
        (
            "i",
            Ok(&[
                "verify_incoming has no effect: this agent has no TLS listener, and its calls to servers are in the clear",
            ]),
        ),
        (
            "ai",
            Ok(&[
                "verify_incoming has no effect: this agent has no TLS listener, and its calls to servers are in the clear",
            ]),
        ),
        ("aio", Ok(&[])),
        // Half of a pair.
        (
            "c",
            Err(
                "cert_file is set and key_file is not: without both of them nothing could be encrypted with this certificate",
            ),
        ),
        (
            "acio S",
            Err(
                "cert_file is set and key_file is not: without both of them nothing could be encrypted with this certificate",
            ),
        ),
        (
            "k H",
            Err(
                "key_file is set and cert_file is not: without both of them nothing could be encrypted with this certificate",
            ),
        ),
        // One direction.
        (
            "acki S",
            Err(
                "verify_incoming is set and verify_outgoing is not: this agent's own calls to servers would be in the clear",
            ),
        ),
        (
            "acki H",
            Err(
                "verify_incoming is set and verify_outgoing is not: this agent's own calls to servers would be in the clear",
            ),
        ),
        (
            "ao S",
            Err(
                "verify_outgoing is set on a server without cert_file and key_file: calls to this server would be in the clear",
            ),
        ),
        (
            "an S",
            Err(
                "verify_server_hostname is set on a server without cert_file and key_file: calls to this server would be in the clear",
            ),
        ),
        (
            "acko S",
            Ok(&["verify_incoming is not set: members may still call this server in the clear"]),
        ),
        // An authority that nobody asks.
        (
            "a",
            Err(
                "ca_file is set, and neither verify_incoming nor verify_outgoing is: nothing would be checked against it, and calls between members would be in the clear",
            ),
        ),
        (
            "ack S",
            Err(
                "ca_file is set, and neither verify_incoming nor verify_outgoing is: nothing would be checked against it, and calls between members would be in the clear",
            ),
        ),
        // HTTPS, and the first step of a cluster that moves to TLS.
        (
            "H",
            Err(
                "ports.https is set, and no Cert/Key pair provided: HTTPS can't be served without cert_file and key_file",
            ),
        ),
        (
            "ck H",
            Ok(&[
                "neither verify_incoming nor verify_outgoing is set: calls between members are in the clear",
            ]),
        ),
        (
            "ck S",
            Ok(&[
                "neither verify_incoming nor verify_outgoing is set: calls between members are in the clear, though TLS is accepted",
            ]),
        ),
    ];
    for (letters, verdict) in cases {
        let judged = config(letters).judge().map_err(|why| why.to_string());
        match (judged, verdict) {
            (Ok(warnings), Ok(expected)) => assert_eq!(warnings, *expected, "{letters}"),
            (Err(why), Err(expected)) => assert_eq!(why, *expected, "{letters}"),
            (judged, _) => panic!("{letters}: {judged:?}"),
        }
    }
}

#[test]
fn old_versions_are_raised_and_said() {
    let config = |text: &str| Config {
        min_version: text.parse().unwrap(),
        ..settings()
    };
    for (text, warned) in [
        ("tls10", true),
        ("tls11", true),
        ("tls12", false),
        ("tls13", false),
    ] {
        let warnings = config(text).judge().unwrap();
        assert_eq!(
            warnings,
            warned
                .then(|| format!(
                    "tls_min_version {text} is taken as tls12, the oldest version that is spoken"
                ))
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
    assert!("ssl3".parse::<MinVersion>().is_err());
    let warnings = Config {
        server_name: Some("x".to_owned()),
        ..settings()
    };
    assert_eq!(
        warnings.judge().unwrap(),
        ["server_name has no effect without verify_outgoing"]
    );
}

#[test]
fn errors_name_the_file_and_what_is_wrong_with_it() {
    let authority = Authority::new();
    let pair = authority.sign("n1", SERVER);
    let other = authority.sign("n2", SERVER);
    let room = authority.room();
    let junk = room.join("junk");
    fs::write(&junk, "no certificate").unwrap();
    let bad = room.join("bad");
    fs::write(
        &bad,
        "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let bad_key = room.join("bad_key");
    fs::write(
        &bad_key,
        "-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let large = room.join("large");
    fs::File::create(&large)
        .unwrap()
        .set_len(wire::pem::FILE_BYTES_MAX + 1)
        .unwrap();
    let missing = room.join("missing");

    let good = server(&authority, &pair);
    assert!(Tls::load(good.clone()).is_ok());
    let cases = [
        (
            Config {
                ca_file: Some(missing.clone()),
                ..good.clone()
            },
            format!(
                "ca_file {}: No such file or directory (os error 2)",
                missing.display()
            ),
        ),
        (
            Config {
                ca_file: Some(room.to_owned()),
                ..good.clone()
            },
            format!("ca_file {}: Is a directory (os error 21)", room.display()),
        ),
        (
            Config {
                ca_file: Some(junk.clone()),
                ..good.clone()
            },
            format!("ca_file {}: no PEM certificate in it", junk.display()),
        ),
        (
            Config {
                ca_file: Some(large.clone()),
                ..good.clone()
            },
            format!("ca_file {}: larger than 4194304 bytes", large.display()),
        ),
        (
            Config {
                ca_file: Some(bad.clone()),
                ..good.clone()
            },
            format!(
                "ca_file {}: certificate 1 in it can't be used: invalid peer certificate: BadEncoding",
                bad.display()
            ),
        ),
        (
            Config {
                cert_file: Some(bad.clone()),
                ..good.clone()
            },
            format!(
                "cert_file {}: certificate 1 in it can't be used: invalid peer certificate: BadEncoding",
                bad.display()
            ),
        ),
        (
            Config {
                cert_file: Some(pair.key.clone()),
                ..good.clone()
            },
            format!("cert_file {}: no PEM certificate in it", pair.key.display()),
        ),
        (
            Config {
                key_file: Some(pair.certificate.clone()),
                ..good.clone()
            },
            format!(
                "key_file {}: no PEM private key in it",
                pair.certificate.display()
            ),
        ),
        (
            Config {
                key_file: Some(other.key.clone()),
                ..good.clone()
            },
            format!(
                "key_file {}: the key doesn't match the certificate in {}",
                other.key.display(),
                pair.certificate.display()
            ),
        ),
        (
            Config {
                server_name: Some("a b".to_owned()),
                ..good.clone()
            },
            "server_name \"a b\" can't be the name in a certificate".to_owned(),
        ),
    ];
    for (config, text) in cases {
        assert_eq!(Tls::load(config).unwrap_err().to_string(), text);
    }
    let why = Tls::load(Config {
        key_file: Some(bad_key.clone()),
        ..good
    });
    let why = why.unwrap_err().to_string();
    let start = format!(
        "key_file {}: the key in it can't be used: ",
        bad_key.display()
    );
    assert!(why.starts_with(&start), "{why}");
}

#[test]
fn what_others_will_refuse_is_told_beforehand() {
    let authority = Authority::new();
    let doubts = |config: &Config| {
        let provider = provider();
        let material = Material::read(config, &provider).unwrap();
        material.doubts(config, &provider, UnixTime::now())
    };
    let pair = authority.sign("good", SERVER);
    assert_eq!(doubts(&server(&authority, &pair)), [""; 0]);

    for (dates, what) in [
        (Dates::Expired, "has expired"),
        (Dates::Later, "is not valid yet"),
    ] {
        let pair = authority.sign_for("dated", SERVER, dates);
        let file = pair.certificate.display();
        assert_eq!(
            doubts(&server(&authority, &pair)),
            [format!("cert_file {file}: the certificate {what}")]
        );
    }

    let stranger = Authority::new().sign("n", SERVER);
    // Its folder is gone with its authority.
    assert!(Material::read(&server(&authority, &stranger), &provider()).is_err());
    let foreign = Authority::new();
    let stranger = foreign.sign("n", SERVER);
    assert_eq!(
        doubts(&server(&authority, &stranger)),
        [format!(
            "cert_file {}: members that trust {} alone will refuse this certificate: invalid peer certificate: BadSignature",
            stranger.certificate.display(),
            authority.file().display(),
        )]
    );

    let nameless = authority.sign("client", &["n7"]);
    let config = Config {
        verify_server_hostname: true,
        ..server(&authority, &nameless)
    };
    assert_eq!(
        doubts(&config),
        [format!(
            "cert_file {}: members that verify the host name will refuse this certificate, since it is not valid for server.dc1.consul",
            nameless.certificate.display(),
        )]
    );
}

#[tokio::test]
async fn both_ends_check_the_chain() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (pair, stranger) = (ours.sign("n1", &["n1"]), theirs.sign("n2", &["n2"]));
    let good = Tls::load(server(&ours, &pair)).unwrap();

    let (calls, takes) = meet(&good, &good).await;
    assert!(calls.unwrap().is_authenticated());
    assert!(takes.unwrap().is_authenticated());

    // Its server's certificate was signed by somebody else.
    let other = Tls::load(server(&theirs, &stranger)).unwrap();
    let (calls, takes) = meet(&good, &other).await;
    assert_eq!(
        calls.unwrap_err(),
        "TLS handshake failed: invalid peer certificate: BadSignature"
    );
    assert!(takes.is_err());

    // It trusts the server, which doesn't trust it.
    let caller = Config {
        ca_file: Some(ours.file()),
        ..client(&theirs, &stranger)
    };
    let (calls, takes) = meet(&Tls::load(caller).unwrap(), &good).await;
    assert!(calls.is_err());
    assert_eq!(
        takes.unwrap_err(),
        "TLS handshake failed: invalid peer certificate: BadSignature"
    );

    // It has nothing to show.
    let caller = Config {
        cert_file: None,
        key_file: None,
        ..client(&ours, &pair)
    };
    let caller = Tls::load(caller).unwrap();
    let (calls, takes) = meet(&caller, &good).await;
    assert!(calls.is_err());
    assert_eq!(
        takes.unwrap_err(),
        "TLS handshake failed: peer sent no certificates"
    );

    // A server that doesn't ask lets it in.
    let lenient = Config {
        verify_incoming: false,
        ..server(&ours, &pair)
    };
    let (calls, takes) = meet(&caller, &Tls::load(lenient.clone()).unwrap()).await;
    assert!(calls.is_ok());
    assert!(!takes.unwrap().is_authenticated());
    // And so does one that asks whom it could let speak Raft.
    let asking = Config {
        verify_server_hostname: true,
        ..lenient
    };
    let asking = Tls::load(asking).unwrap();
    let (calls, takes) = meet(&caller, &asking).await;
    assert!(calls.is_ok());
    assert!(!takes.unwrap().is_server_of("dc1", "consul"));
    let (calls, takes) = meet(&good, &asking).await;
    assert!(calls.is_ok());
    assert!(takes.unwrap().is_authenticated());
}

#[tokio::test]
async fn expired_certificates_are_refused() {
    let authority = Authority::new();
    let good = Tls::load(server(&authority, &authority.sign("n1", SERVER))).unwrap();
    let old = authority.sign_for("n2", SERVER, Dates::Expired);
    let old = Tls::load(server(&authority, &old)).unwrap();
    let (calls, _) = meet(&good, &old).await;
    let why = calls.unwrap_err();
    assert!(why.contains("certificate expired"), "{why}");
    let (_, takes) = meet(&old, &good).await;
    let why = takes.unwrap_err();
    assert!(why.contains("certificate expired"), "{why}");
}

#[tokio::test]
async fn names_are_checked_as_configured() {
    let authority = Authority::new();
    let named = authority.sign("named", &["server.dc1.consul", "n1"]);
    let nameless = authority.sign("nameless", &["n2"]);
    let load = |config| Tls::load(config).unwrap();
    let named_server = load(server(&authority, &named));
    let nameless_server = load(server(&authority, &nameless));
    let caller = |host_name, server_name: Option<&str>| {
        load(Config {
            verify_server_hostname: host_name,
            server_name: server_name.map(str::to_owned),
            ..client(&authority, &nameless)
        })
    };
    let cases = [
        (caller(false, None), true, true),
        (caller(true, None), true, false),
        (caller(false, Some("n1")), true, false),
        (caller(false, Some("n2")), false, true),
        // The host name goes before.
        (caller(true, Some("n2")), true, false),
    ];
    for (caller, takes_named, takes_nameless) in cases {
        let (calls, _) = meet(&caller, &named_server).await;
        assert_eq!(calls.is_ok(), takes_named, "{caller:?} {calls:?}");
        let (calls, _) = meet(&caller, &nameless_server).await;
        assert_eq!(calls.is_ok(), takes_nameless, "{caller:?} {calls:?}");
    }

    let (calls, takes) = meet(&caller(false, None), &named_server).await;
    let (server, client) = (calls.unwrap(), takes.unwrap());
    assert!(server.is_server_of("dc1", "consul"));
    assert!(server.is_server_of("DC1", "consul."));
    assert!(!server.is_server_of("dc2", "consul"));
    assert!(!server.is_server_of("dc1", "example"));
    assert!(!server.is_server_of("", ""));
    assert!(!client.is_server_of("dc1", "consul"));
    assert!(!PeerIdentity::default().is_server_of("dc1", "consul"));

    // A datacenter that can't be part of a name.
    let (near, _far) = duplex(1);
    let outgoing = caller(true, None).outgoing().unwrap();
    let why = outgoing.connect(near, "a b").await.unwrap_err();
    assert_eq!(
        why.to_string(),
        "\"server.a b.consul\" can't be the name in a certificate"
    );
}

#[tokio::test]
async fn new_files_hold_for_new_connections() {
    let authority = Authority::new();
    let pair = authority.sign("n1", &["n1"]);
    let config = Config {
        verify_server_hostname: true,
        ..server(&authority, &pair)
    };
    let tls = Tls::load(config).unwrap();
    let incoming = tls.incoming().unwrap();
    assert!(meet(&tls, &tls).await.0.is_err());

    // Half of a new pair: what was in use stays.
    let key = fs::read(&pair.key).unwrap();
    authority.sign("n1", SERVER);
    let new_key = fs::read(&pair.key).unwrap();
    fs::write(&pair.key, key).unwrap();
    let why = tls.reload().unwrap_err().to_string();
    assert!(why.contains("the key doesn't match"), "{why}");
    assert!(meet(&tls, &tls).await.0.is_err());

    fs::write(&pair.key, new_key).unwrap();
    tls.reload().unwrap();
    assert!(meet(&tls, &tls).await.0.is_ok());

    // What was handed out before uses the new ones as well.
    let (near, far) = duplex(64 << 10);
    let outgoing = tls.outgoing().unwrap();
    let (calls, takes) = tokio::join!(outgoing.connect(near, "dc1"), incoming.accept(far));
    assert!(calls.is_ok() && takes.is_ok());

    fs::remove_file(authority.file()).unwrap();
    assert!(tls.reload().is_err());
    assert!(meet(&tls, &tls).await.0.is_ok());
}

#[tokio::test]
async fn other_files_hold_for_new_connections() {
    let authority = Authority::new();
    let pair = authority.sign("n1", &["n1"]);
    let config = Config {
        verify_server_hostname: true,
        ..server(&authority, &pair)
    };
    let tls = Tls::load(config.clone()).unwrap();
    assert!(meet(&tls, &tls).await.0.is_err());

    let other = authority.sign("n2", SERVER);
    let moved = Config {
        cert_file: Some(other.certificate.clone()),
        key_file: Some(other.key.clone()),
        ..config.clone()
    };
    let half = Config {
        key_file: None,
        ..moved.clone()
    };
    assert!(tls.reload_from(&half).is_err());
    assert!(meet(&tls, &tls).await.0.is_err());
    tls.reload_from(&moved).unwrap();
    assert!(meet(&tls, &tls).await.0.is_ok());
}

#[tokio::test]
async fn the_oldest_version_is_as_configured() {
    let authority = Authority::new();
    let pair = authority.sign("n1", SERVER);
    let material = Material::read(&server(&authority, &pair), &provider()).unwrap();
    let config = server(&authority, &pair);
    let old: &[&SupportedProtocolVersion] = &[&version::TLS12];
    for (min_version, taken) in [("tls10", true), ("tls12", true), ("tls13", false)] {
        let tls = Config {
            min_version: min_version.parse().unwrap(),
            ..config.clone()
        };
        let incoming = Tls::load(tls).unwrap().incoming().unwrap();
        // A client that knows nothing newer, and shows its certificate.
        let client = client_config(&material, &config, &provider(), old);
        let connector = tokio_rustls::TlsConnector::from(client.unwrap().unwrap());
        let (near, far) = duplex(64 << 10);
        let name = "server.dc1.consul".try_into().unwrap();
        let (calls, takes) = tokio::join!(connector.connect(name, near), incoming.accept(far));
        assert_eq!(calls.is_ok(), taken, "{min_version}");
        match takes {
            Ok((_, peer)) => assert!(taken && peer.is_server_of("dc1", "consul")),
            Err(_) => assert!(!taken, "{min_version}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_cut_off() {
    let authority = Authority::new();
    let tls = Tls::load(server(&authority, &authority.sign("n1", SERVER))).unwrap();
    let begun = Instant::now();
    let (near, far) = duplex(64);
    let why = tls.incoming().unwrap().accept(far).await.unwrap_err();
    assert!(matches!(why, HandshakeError::TimedOut), "{why}");
    assert_eq!(begun.elapsed(), HANDSHAKE_TIMEOUT);
    drop(near);

    let begun = Instant::now();
    let (near, far) = duplex(4096);
    let outgoing = tls.outgoing().unwrap();
    let why = outgoing.connect(near, "dc1").await.unwrap_err();
    assert!(matches!(why, HandshakeError::TimedOut), "{why}");
    assert_eq!(begun.elapsed(), HANDSHAKE_TIMEOUT);
    drop(far);
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let authority = Authority::new();
    let tls = Tls::load(server(&authority, &authority.sign("n1", SERVER))).unwrap();
    let (mut near, far) = duplex(4096);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let why = tls.incoming().unwrap().accept(far).await.unwrap_err();
    assert!(matches!(why, HandshakeError::Failed(_)), "{why}");
}

#[tokio::test(start_paused = true)]
async fn slow_handshakes_give_way_to_quick_ones() {
    let authority = Authority::new();
    let tls = Tls::load(server(&authority, &authority.sign("n1", SERVER))).unwrap();
    let mut held: Vec<DuplexStream> = Vec::new();
    let mut slow = tokio::task::JoinSet::new();
    let more = 3;
    for number in 0..handshake::HANDSHAKES_MAX + more {
        let (near, far) = duplex(64);
        held.push(near);
        let incoming = tls.incoming().unwrap();
        slow.spawn(async move { (number, incoming.accept(far).await.map(|_| ())) });
        tokio::task::yield_now().await;
    }
    for _ in 0..more {
        let (number, outcome) = slow.join_next().await.unwrap().unwrap();
        assert!(number < more, "{number}");
        assert!(matches!(outcome, Err(HandshakeError::Displaced)));
    }
    // All places are taken, and an honest client gets in at once.
    let begun = Instant::now();
    let (_, takes) = meet(&tls, &tls).await;
    takes.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    slow.shutdown().await;
    assert_eq!(tls.0.rpc_handshakes.open(), 0);
}

#[test]
fn dates_are_read_from_any_bytes_without_harm() {
    let authority = Authority::new();
    let pair = authority.sign("n1", SERVER);
    let der = wire::pem::certificates(&fs::read(pair.certificate).unwrap()).unwrap();
    let dates = validity::read(&der[0]).unwrap();
    // 2000-01-01, 2090-01-01
    assert_eq!(
        (dates.not_before, dates.not_after),
        (946_684_800, 3_786_912_000)
    );
    let mut bytes = der[0].to_vec();
    for end in 0..bytes.len() {
        let _ = validity::read(&bytes[..end]);
    }
    for at in 0..bytes.len().min(256) {
        for value in 0..=u8::MAX {
            let before = std::mem::replace(&mut bytes[at], value);
            let _ = validity::read(&bytes);
            bytes[at] = before;
        }
    }
}
