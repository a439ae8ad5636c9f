//! Every form of names, and what is answered to each type.

use std::collections::BTreeMap;
use std::time::Duration;

use dns::{Config, Listener};
use model::{QueryExecute, Question, Text};
use rpc::Consistency;

use crate::catalog::Catalog;
use crate::client::{Face, check};

fn catalog() -> Catalog {
    let catalog = Catalog::default();
    catalog
        .node("foo", "10.0.0.1")
        .node("Dotted.Node", "10.0.0.2")
        .node("six", "2001:db8::6")
        .node_with("far", "10.0.0.9", Some("198.51.100.9"))
        .node("named", "db.example.com")
        .node("inner", "foo.node.consul")
        .node("circle", "circle.node.consul")
        .node("s1", "10.0.0.101");
    catalog
        .service("foo", "web,v1,a.b", "", 80)
        .service("six", "web6", "", 80)
        .service("foo", "other,udp", "10.0.0.77", 81)
        .service("foo", "other6", "2001:db8::77", 82)
        .service("far", "remote", "", 90)
        .service("foo", "hosted", "www.example.com", 83)
        .service("named", "onnamed", "", 84)
        .service("inner", "oninner", "", 85)
        .service_that_is("critical", "foo", "sick", "", 86)
        .service_that_is("warning", "foo", "weak", "", 87)
        .service("s1", "consul", "", 8300);
    catalog
}

#[tokio::test]
async fn nodes() {
    let face = Face::new(
        &catalog(),
        Config {
            node_ttl: Duration::from_secs(7),
            ..Config::default()
        },
    );
    let transcript = "
        ? foo.node.consul A
        noerror qr aa rd
        foo.node.consul. 7 A 10.0.0.1

        ? FOO.Node.DC1.Consul A
        noerror qr aa rd
        FOO.Node.DC1.Consul. 7 A 10.0.0.1

        ? foo.node.consul ANY
        noerror qr aa rd
        foo.node.consul. 7 A 10.0.0.1

        ? foo.node.consul AAAA
        ? six.node.consul A
        ? nobody.node.consul TXT
        ? foo.node.consul SRV
        ? named.node.consul CNAME
        noerror qr aa rd

        ? six.node.consul AAAA
        noerror qr aa rd
        six.node.consul. 7 AAAA 2001:db8::6

        ? dotted.node.node.consul A
        noerror qr aa rd
        dotted.node.node.consul. 7 A 10.0.0.2

        ? nobody.node.consul A
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? nobody.node.consul SOA
        noerror qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? foo.node.dc9.consul A
        servfail qr aa rd

        ? named.node.consul A
        noerror qr aa rd
        named.node.consul. 7 CNAME db.example.com.

        ? inner.node.consul A
        noerror qr aa rd
        inner.node.consul. 7 CNAME foo.node.consul.
        foo.node.consul. 7 A 10.0.0.1

        ? foo.node.consul A tcp
        noerror qr aa rd
        foo.node.consul. 7 A 10.0.0.1
    ";
    check(&face, transcript).await;
    // A circle ends.
    let (answer, _) = face.answer("circle.node.consul A tcp").await;
    assert!((2..=20).contains(&answer.answers.len()), "{answer}");
    face.stop().await;
}

#[tokio::test]
async fn services() {
    let ttl = [("web", 5), ("*", 9), ("Weak", 11)];
    let ttl = ttl.map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
    let face = Face::new(
        &catalog(),
        Config {
            service_ttl: BTreeMap::from(ttl),
            ..Config::default()
        },
    );
    let transcript = "
        ? web.service.consul A
        noerror qr aa rd
        web.service.consul. 5 A 10.0.0.1

        ? wEb.SERVICE.consul A
        noerror qr aa rd
        wEb.SERVICE.consul. 5 A 10.0.0.1

        ? v1.web.service.dc1.consul A
        noerror qr aa rd
        v1.web.service.dc1.consul. 5 A 10.0.0.1

        ? A.B.web.service.consul A
        noerror qr aa rd
        A.B.web.service.consul. 5 A 10.0.0.1

        ? b.web.service.consul A
        ? sick.service.consul A
        ? missing.service.consul SRV
        ? any.query.consul A
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? web.service.consul ANY
        noerror qr aa rd
        web.service.consul. 5 A 10.0.0.1

        ? web.service.consul AAAA
        ? web.service.consul TXT
        ? web.service.consul CNAME
        noerror qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? web.service.consul SOA
        noerror qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? web6.service.consul AAAA
        noerror qr aa rd
        web6.service.consul. 9 AAAA 2001:db8::6

        ? weak.service.consul A
        noerror qr aa rd
        weak.service.consul. 9 A 10.0.0.1

        ? hosted.service.consul A
        noerror qr aa rd
        hosted.service.consul. 9 CNAME www.example.com.

        ? hosted.service.consul CNAME
        noerror qr aa rd
        hosted.service.consul. 9 CNAME www.example.com.

        ? web.service.dc9.consul A
        servfail qr aa rd
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn ports() {
    let face = Face::new(&catalog(), Config::default());
    let transcript = "
        ? web.service.consul SRV
        noerror qr aa rd
        web.service.consul. 0 SRV 1 1 80 foo.node.dc1.consul.
        additional foo.node.dc1.consul. 0 A 10.0.0.1

        ? _web._tcp.service.consul SRV
        noerror qr aa rd
        _web._tcp.service.consul. 0 SRV 1 1 80 foo.node.dc1.consul.
        additional foo.node.dc1.consul. 0 A 10.0.0.1

        ? _web._v1.service.consul A
        noerror qr aa rd
        _web._v1.service.consul. 0 A 10.0.0.1

        ? _web._udp.service.consul SRV
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? _other._udp.service.consul SRV
        noerror qr aa rd
        _other._udp.service.consul. 0 SRV 1 1 81 0a00004d.addr.dc1.consul.
        additional 0a00004d.addr.dc1.consul. 0 A 10.0.0.77

        ? other6.service.dc2.consul SRV
        noerror qr aa rd
        other6.service.dc2.consul. 0 SRV 1 1 82 20010db8000000000000000000000077.addr.dc2.consul.
        additional 20010db8000000000000000000000077.addr.dc2.consul. 0 AAAA 2001:db8::77

        ? hosted.service.consul SRV
        noerror qr aa rd
        hosted.service.consul. 0 SRV 1 1 83 www.example.com.

        ? onnamed.service.consul SRV
        noerror qr aa rd
        onnamed.service.consul. 0 SRV 1 1 84 named.node.dc1.consul.
        additional named.node.dc1.consul. 0 CNAME db.example.com.

        ? oninner.service.consul SRV
        noerror qr aa rd
        oninner.service.consul. 0 SRV 1 1 85 inner.node.dc1.consul.
        additional inner.node.dc1.consul. 0 CNAME foo.node.consul.
        additional foo.node.consul. 0 A 10.0.0.1
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn addresses_and_the_rest() {
    let face = Face::new(
        &catalog(),
        Config {
            node_ttl: Duration::from_secs(3),
            ..Config::default()
        },
    );
    let transcript = "
        ? 0a000001.addr.consul A
        noerror qr aa rd
        0a000001.addr.consul. 3 A 10.0.0.1

        ? 0a000001.addr.dc1.consul TXT
        noerror qr aa rd
        0a000001.addr.dc1.consul. 3 A 10.0.0.1

        ? 20010db8000000000000000000000001.addr.consul A
        noerror qr aa rd
        20010db8000000000000000000000001.addr.consul. 3 AAAA 2001:db8::1

        ? 0a00.addr.consul A
        noerror qr aa rd

        ? 0a00000g.addr.consul A
        ? consul A
        ? service.consul A
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? Consul SOA
        noerror qr aa rd
        Consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? consul NS
        noerror qr aa rd
        consul. 0 NS s1.node.dc1.consul.
        additional s1.node.dc1.consul. 3 A 10.0.0.101

        ? foo.bar.consul SOA
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? 1.0.0.10.in-addr.arpa PTR
        noerror qr aa rd
        1.0.0.10.in-addr.arpa. 0 PTR foo.node.dc1.consul.

        ? 2.0.0.10.IN-ADDR.arpa A
        noerror qr aa rd
        2.0.0.10.IN-ADDR.arpa. 0 PTR Dotted.Node.node.dc1.consul.

        ? 6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR
        noerror qr aa rd
        6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 0 PTR six.node.dc1.consul.

        ? 9.9.9.9.in-addr.arpa PTR
        servfail qr rd ra

        ? example.com A
        servfail qr rd

        ? foo.node.consul A edns=4096
        noerror qr aa rd edns=1232
        foo.node.consul. 3 A 10.0.0.1

        ? foo.node.consul A edns=512 do
        noerror qr aa rd edns=1232 do
        foo.node.consul. 3 A 10.0.0.1

        ? foo.node.consul A edns=1232 version=1
        badsig qr rd edns=1232
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn prepared_queries() {
    let catalog = catalog();
    catalog
        .query("geo.web", "web", "", "")
        .query("kept", "Weak", "1m30s", "")
        .query("spelled", "Weak", "", "")
        .query("loud", "WEB", "", "")
        .query("far", "remote", "0s", "dc2")
        .query("ill", "sick", "10s", "")
        .query("odd", "web", "who knows", "")
        .query("broken", "", "", "")
        .query("named", "hosted", "", "")
        .query("six", "web6", "", "");
    let ttl = [("web", 5), ("*", 9), ("Weak", 11)];
    let ttl = ttl.map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
    let face = Face::new(
        &catalog,
        Config {
            service_ttl: BTreeMap::from(ttl),
            translate_wan_addrs: true,
            // Of no account here: a query says itself whether it minds warnings.
            only_passing: true,
            node: Text::from("foo"),
            ..Config::default()
        },
    );
    let transcript = "
        ? geo.web.query.consul A
        noerror qr aa rd
        geo.web.query.consul. 5 A 10.0.0.1

        ? Geo.Web.Query.DC1.Consul A
        noerror qr aa rd
        Geo.Web.Query.DC1.Consul. 5 A 10.0.0.1

        ? geo.web.query.consul ANY
        noerror qr aa rd
        geo.web.query.consul. 5 A 10.0.0.1

        ? geo.web.query.consul SRV
        noerror qr aa rd
        geo.web.query.consul. 5 SRV 1 1 80 foo.node.dc1.consul.
        additional foo.node.dc1.consul. 5 A 10.0.0.1

        ? geo.web.query.consul AAAA
        ? geo.web.query.consul TXT
        noerror qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? six.query.consul AAAA
        noerror qr aa rd
        six.query.consul. 9 AAAA 2001:db8::6

        ? kept.query.consul A
        noerror qr aa rd
        kept.query.consul. 90 A 10.0.0.1

        ? spelled.query.consul A
        noerror qr aa rd
        spelled.query.consul. 11 A 10.0.0.1

        ? loud.query.consul A
        noerror qr aa rd
        loud.query.consul. 5 A 10.0.0.1

        ? odd.query.consul A
        noerror qr aa rd
        odd.query.consul. 0 A 10.0.0.1

        ? named.query.consul A
        noerror qr aa rd
        named.query.consul. 9 CNAME www.example.com.

        ? far.query.consul A
        noerror qr aa rd
        far.query.consul. 0 A 198.51.100.9

        ? far.query.consul SRV
        noerror qr aa rd
        far.query.consul. 0 SRV 1 1 90 c6336409.addr.dc2.consul.
        additional c6336409.addr.dc2.consul. 0 A 198.51.100.9

        ? ill.query.consul A
        ? nobody.query.consul A
        ? query.consul A
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0

        ? broken.query.consul A
        ? geo.web.query.dc9.consul A
        servfail qr aa rd
    ";
    check(&face, transcript).await;
    let asked = std::mem::take(&mut catalog.state().asked);
    for (question, options) in asked {
        let Question::QueryExecute(QueryExecute { execution, .. }) = question else {
            panic!("nothing else is asked than {question:?}");
        };
        // What is near to this agent is near to its node; where that holds, the servers see from the datacenters.
        assert_eq!(execution.source.node, "foo");
        assert_eq!(execution.source.datacenter, "dc1");
        let datacenter = execution.datacenter.to_lossy();
        assert!(options.datacenter.is_empty() || *options.datacenter == *datacenter.as_bytes());
        assert_eq!(options.consistency, Consistency::Stale);
    }
    face.stop().await;
}

#[tokio::test]
async fn another_domain_and_the_wide_area() {
    let face = Face::new(
        &catalog(),
        Config {
            domain: "my.test.".to_owned(),
            translate_wan_addrs: true,
            ..Config::default()
        },
    );
    let transcript = "
        ? web.service.MY.Test A
        noerror qr aa rd
        web.service.MY.Test. 0 A 10.0.0.1

        ? web.service.consul A
        servfail qr rd

        ? far.node.my.test A
        noerror qr aa rd
        far.node.my.test. 0 A 10.0.0.9

        ? far.node.dc1.my.test A
        noerror qr aa rd
        far.node.dc1.my.test. 0 A 10.0.0.9

        ? far.node.dc2.my.test A
        noerror qr aa rd
        far.node.dc2.my.test. 0 A 198.51.100.9

        ? remote.service.dc2.my.test A
        noerror qr aa rd
        remote.service.dc2.my.test. 0 A 198.51.100.9

        ? remote.service.dc2.my.test SRV
        noerror qr aa rd
        remote.service.dc2.my.test. 0 SRV 1 1 90 c6336409.addr.dc2.my.test.
        additional c6336409.addr.dc2.my.test. 0 A 198.51.100.9

        ? remote.service.my.test SRV
        noerror qr aa rd
        remote.service.my.test. 0 SRV 1 1 90 far.node.dc1.my.test.
        additional far.node.dc1.my.test. 0 A 10.0.0.9

        ? 9.0.0.10.in-addr.arpa PTR
        noerror qr aa rd
        9.0.0.10.in-addr.arpa. 0 PTR far.node.dc1.my.test.
    ";
    check(&face, transcript).await;
    face.stop().await;
}

/// A client takes an answer only from the address that it asked, as these sockets do.
#[tokio::test]
async fn answers_come_from_where_the_question_went() {
    let catalog = catalog();
    for (bound, asked) in [
        ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.8.7"][..]),
        ("[::]:0", &["::1", "127.0.0.1", "127.0.0.2"]),
    ] {
        let Ok(listener) = Listener::bind(bound.parse().unwrap()) else {
            println!("skipped: {bound} can't be had here");
            continue;
        };
        let mut face = Face::of(listener, &catalog, Config::default());
        for ip in asked {
            face.address.set_ip(ip.parse().unwrap());
            for is_slow in [false, true] {
                catalog.state().is_slow = is_slow;
                let answer = face.ask("web.service.consul A").await;
                assert!(answer.contains("10.0.0.1"), "{bound} {ip}");
            }
        }
        face.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_a_domain_is_not_everybodys() {
    let config = Config {
        domain: "no..domain.".to_owned(),
        ..Config::default()
    };
    let face = Face::new(&catalog(), config);
    let transcript = "
        ? example.com A
        servfail qr rd

        ? foo.node.consul A
        noerror qr aa rd
        foo.node.consul. 0 A 10.0.0.1
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn only_what_passes() {
    let config = Config {
        only_passing: true,
        token: Text::from("secret"),
        ..Config::default()
    };
    let catalog = catalog();
    let face = Face::new(&catalog, config);
    let transcript = "
        ? weak.service.consul A
        nxdomain qr aa rd
        authority consul. 0 SOA ns.consul. postmaster.consul. <now> 3600 600 86400 0
    ";
    check(&face, transcript).await;
    let asked = std::mem::take(&mut catalog.state().asked);
    assert!(asked.iter().all(|(_, options)| options.token == "secret"));
    face.stop().await;
}

#[tokio::test]
async fn old_answers_are_asked_for_again() {
    let max_stale = Duration::from_secs(60);
    let stale = [Consistency::Stale];
    let both = [Consistency::Stale, Consistency::Default];
    for (allow_stale, last_contact, expected) in [
        (true, 0, &stale[..]),
        (true, 60, &stale),
        (true, 61, &both),
        (false, 0, &both[1..]),
    ] {
        let catalog = catalog();
        catalog.state().last_contact = Duration::from_secs(last_contact);
        let face = Face::new(
            &catalog,
            Config {
                allow_stale,
                max_stale,
                ..Config::default()
            },
        );
        assert!(face.ask("web.service.consul A").await.contains("10.0.0.1"));
        let asked = std::mem::take(&mut catalog.state().asked);
        let asked: Vec<Consistency> = asked.iter().map(|(_, it)| it.consistency).collect();
        assert_eq!(asked, expected);
        face.stop().await;
    }
}

#[tokio::test]
async fn nobody_to_ask() {
    let catalog = catalog();
    catalog.state().is_down = true;
    let face = Face::new(&catalog, Config::default());
    let transcript = "
        ? web.service.consul A
        ? web.service.consul SOA
        ? foo.node.consul A
        servfail qr aa rd

        ? 1.0.0.10.in-addr.arpa PTR
        servfail qr rd ra

        ? 0a000001.addr.consul A
        noerror qr aa rd
        0a000001.addr.consul. 0 A 10.0.0.1
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn many_wait_at_a_time() {
    let catalog = catalog();
    catalog.state().is_slow = true;
    let face = Face::new(&catalog, Config::default());
    let questions = (0..64).map(|_| face.ask("web.service.consul A"));
    for answer in futures::future::join_all(questions).await {
        assert!(answer.contains("10.0.0.1"));
    }
    face.stop().await;
}
