//! How much is told over UDP, and that a random part of it is.

use std::collections::BTreeMap;

use dns::Config;
use hickory_proto::rr::RecordType;

use crate::catalog::Catalog;
use crate::client::{Face, check};

/// A service on so many nodes.
fn many(count: usize) -> Catalog {
    let catalog = Catalog::default();
    for n in 0..count {
        let node = format!("a-node-with-a-name-{n:04}");
        catalog.node(&node, &format!("10.1.{}.{}", n / 256, n % 256));
        catalog.service(&node, "web", "", 8000);
    }
    catalog
}

#[tokio::test]
async fn answers_over_udp_are_few_and_short() {
    let catalog = many(60);
    catalog.query("longer", "web", "", "");
    for (answers, truncate, question, expected, is_truncated) in [
        (3, false, "web.service.consul A", 3, false),
        (3, true, "web.service.consul A", 3, true),
        (8, false, "web.service.consul A", 8, false),
        (100, true, "web.service.consul A", 8, true),
        (0, false, "web.service.consul A", 0, false),
        // 8 of them take 1,092 bytes without compression
        (8, true, "web.service.consul SRV", 3, true),
        (8, false, "web.service.consul SRV", 3, false),
        (8, true, "web.service.consul SRV edns=700", 4, true),
        (8, false, "web.service.consul SRV edns=4096", 8, false),
        (8, false, "web.service.consul SRV edns=100", 3, false),
        (3, false, "web.service.consul SRV edns=4096", 3, false),
        (3, false, "web.service.consul A tcp", 60, false),
        (3, true, "web.service.consul SRV tcp", 60, false),
    ] {
        let config = Config {
            udp_answer_limit: answers,
            enable_truncate: truncate,
            ..Config::default()
        };
        let face = Face::new(&catalog, config);
        // A prepared query is shown by the same rules.
        let executed = question.replace("web.service", "longer.query");
        let (executed, _) = face.answer(&executed).await;
        let (answer, length) = face.answer(question).await;
        assert_eq!(executed.answers.len(), expected, "{question}");
        assert_eq!(executed.metadata.truncation, is_truncated, "{question}");
        let case = format!("{question} {answers} {truncate}");
        assert_eq!(answer.answers.len(), expected, "{case}");
        assert_eq!(answer.metadata.truncation, is_truncated, "{case}");
        if question.contains("SRV") {
            assert_eq!(answer.additionals.len(), expected, "{case}");
        }
        if !question.contains("tcp") {
            assert!(
                length <= usize::from(answer.max_payload().max(512)),
                "{case}"
            );
        }
        // Nothing is left, and no word of more: then it is said that there is nothing of the kind.
        assert_eq!(
            answer.authorities.len(),
            usize::from(expected == 0),
            "{case}"
        );
        face.stop().await;
    }
}

#[tokio::test]
async fn exactly_as_many_are_not_cut() {
    let config = Config {
        enable_truncate: true,
        ..Config::default()
    };
    let face = Face::new(&many(3), config);
    let (answer, _) = face.answer("web.service.consul A").await;
    assert_eq!(answer.answers.len(), 3);
    assert!(!answer.metadata.truncation);
    face.stop().await;
}

#[tokio::test]
async fn compression_can_be_switched_off() {
    let catalog = many(3);
    let mut lengths = Vec::new();
    for disable_compression in [false, true] {
        let config = Config {
            disable_compression,
            ..Config::default()
        };
        let face = Face::new(&catalog, config);
        lengths.push(face.answer("web.service.consul A").await.1);
        face.stop().await;
    }
    // A reference of two bytes stands for each of three owners of 20.
    assert_eq!(lengths, [12 + 24 + 3 * 16, 12 + 24 + 3 * 34]);
}

#[tokio::test]
async fn thousands_over_tcp_are_cut_where_a_message_ends() {
    let face = Face::new(&many(3000), Config::default());
    let (answer, length) = face.answer("web.service.consul A tcp").await;
    assert_eq!(
        (answer.answers.len(), answer.metadata.truncation),
        (3000, false)
    );
    assert!(length < 65_536);
    let (answer, length) = face.answer("web.service.consul SRV tcp").await;
    assert!(length < 65_536);
    assert!(answer.answers.len() > 500, "{}", answer.answers.len());
    assert!(answer.metadata.truncation);
    face.stop().await;
}

#[tokio::test]
async fn what_looks_the_same_is_told_once() {
    let catalog = Catalog::default();
    catalog.node("foo", "10.0.0.1").node("bar", "10.0.0.2");
    for port in [80, 81] {
        catalog.service("foo", "web", "", port);
        catalog.service("foo", "web", "", port);
    }
    catalog.service("bar", "web", "10.0.0.1", 80);
    let face = Face::new(&catalog, Config::default());
    let transcript = "
        ? web.service.consul A
        noerror qr aa rd
        web.service.consul. 0 A 10.0.0.1

        ? web.service.consul SRV tcp
        noerror qr aa rd
        web.service.consul. 0 SRV 1 1 80 foo.node.dc1.consul.
        web.service.consul. 0 SRV 1 1 81 foo.node.dc1.consul.
        web.service.consul. 0 SRV 1 1 80 0a000001.addr.dc1.consul.
        additional foo.node.dc1.consul. 0 A 10.0.0.1
        additional foo.node.dc1.consul. 0 A 10.0.0.1
        additional 0a000001.addr.dc1.consul. 0 A 10.0.0.1
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn an_address_is_told_for_every_port_while_that_fits() {
    let catalog = Catalog::default();
    catalog.node("foo", "10.0.0.1");
    for port in 1..=1300 {
        catalog.service("foo", "many", "", port);
        if port <= 8 {
            catalog.service("foo", "web", "", port);
        }
    }
    let config = Config {
        udp_answer_limit: 8,
        ..Config::default()
    };
    let face = Face::new(&catalog, config);
    for (question, answers, additionals) in [
        ("web.service.consul SRV tcp", 8, 8),
        ("web.service.consul SRV edns=1232", 8, 8),
        // 36 bytes are not records, 58 an answer, 34 an additional record
        ("web.service.consul SRV", 7, 1),
        ("web.service.consul SRV edns=600", 8, 1),
        // 65,535 bytes take 43 of an answer, but not another 16 for each
        ("many.service.consul SRV tcp", 1300, 1),
    ] {
        let (answer, _) = face.answer(question).await;
        let told = (answer.answers.len(), answer.additionals.len());
        assert_eq!(told, (answers, additionals), "{question}");
        assert!(!answer.metadata.truncation, "{question}");
    }
    face.stop().await;
}

#[tokio::test]
async fn every_question_has_a_seed_of_its_own() {
    let catalog = many(10);
    let face = Face::new(&catalog, Config::default());
    let mut seeds = BTreeMap::new();
    for _ in 0..20 {
        face.ask("web.service.consul A").await;
    }
    for (question, _) in std::mem::take(&mut catalog.state().asked) {
        let model::Question::ServiceLookup(lookup) = question else {
            panic!("nothing else was asked");
        };
        assert_eq!(lookup.limit, 3);
        seeds.insert(lookup.seed, ());
    }
    assert_eq!(seeds.len(), 20);
    face.stop().await;
}

#[tokio::test]
async fn chains_count_as_answers() {
    let catalog = Catalog::default();
    catalog.node("foo", "10.0.0.1");
    for n in 0..4 {
        let name = format!("alias{n}");
        catalog.node(&name, "foo.node.consul").service(
            &name,
            "web",
            &format!("alias{n}.node.consul"),
            80,
        );
    }
    let face = Face::new(&catalog, Config::default());
    let (answer, _) = face.answer("web.service.consul A").await;
    let kinds: Vec<RecordType> = answer.answers.iter().map(|it| it.record_type()).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::CNAME, RecordType::A]);
    face.stop().await;
}
