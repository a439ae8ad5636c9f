//! Stand-ins for recursors: slow, silent, wrong, refusing, truncating and huge ones.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dns::{Config, Listener};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::catalog::Catalog;
use crate::client::{Face, check};

/// What a stand-in does with a question.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    /// Tells an address, and for `www.example.com` an alias and many addresses.
    Proper,
    /// Says nothing.
    Silent,
    /// Says that it won't.
    Refusing,
    /// Answers first under another id, then to another question, then with a question, and in the end properly.
    Confused,
    /// The same without the end.
    Wrong,
    /// Answers with three bytes and with noise.
    Broken,
    /// Tells that there is more than fits.
    Truncating,
    /// Sends far more than was asked for.
    Huge,
    /// Spells the question in its own way.
    Shouting,
}

/// A name server on a port of its own, over UDP and TCP.
struct Recursor {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Recursor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Recursor {
    async fn new(manner: Manner) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let over_udp = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                for answer in answers(manner, &buffer[..length], false) {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let over_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await.unwrap();
                for answer in answers(manner, &question, true) {
                    let length = u16::try_from(answer.len()).unwrap();
                    let _ = stream.write_u16(length).await;
                    let _ = stream.write_all(&answer).await;
                }
                if manner == Manner::Silent {
                    std::future::pending::<()>().await;
                }
            }
        });
        Self {
            address,
            tasks: vec![over_udp, over_tcp],
        }
    }
}

fn answers(manner: Manner, question: &[u8], is_tcp: bool) -> Vec<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    assert!(question.metadata.recursion_desired);
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    let name = question.queries[0].name().clone();
    let alias = Name::from_ascii("alias.example.com.").unwrap();
    let mut add = |data| {
        answer
            .answers
            .push(Record::from_rdata(name.clone(), 60, data))
    };
    if name == Name::from_ascii("www.example.com.").unwrap() {
        add(RData::CNAME(CNAME(alias.clone())));
        add(RData::TXT(TXT::new(vec!["no address".to_owned()])));
        for n in 1..9 {
            let data = RData::A(A::new(192, 0, 2, n));
            answer
                .answers
                .push(Record::from_rdata(alias.clone(), 60, data));
        }
    } else if question.queries[0].query_type() == RecordType::AAAA {
        add(RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)));
    } else {
        add(RData::A(A::new(192, 0, 2, 7)));
    }
    let proper = answer.to_vec().unwrap();
    let wrong = |change: &dyn Fn(&mut Message)| {
        let mut message = answer.clone();
        message.answers[0].data = RData::A(A::new(6, 6, 6, 6));
        change(&mut message);
        message.to_vec().unwrap()
    };
    let mistakes = vec![
        wrong(&|it| it.metadata.id ^= 1),
        wrong(&|it| it.queries[0].name = alias.clone()),
        wrong(&|it| it.queries[0].query_type = RecordType::MX),
        wrong(&|it| it.queries.clear()),
        wrong(&|it| it.metadata.message_type = MessageType::Query),
    ];
    match manner {
        Manner::Proper => vec![proper],
        Manner::Silent => Vec::new(),
        Manner::Refusing => vec![wrong(&|it| {
            it.answers.clear();
            it.metadata.response_code = ResponseCode::Refused;
        })],
        Manner::Confused => [mistakes, vec![proper]].concat(),
        Manner::Wrong => mistakes,
        Manner::Broken => vec![b"\x00\x00\x00".to_vec(), vec![0xff; 100]],
        Manner::Truncating => vec![wrong(&|it| {
            it.answers.clear();
            it.metadata.truncation = true;
        })],
        Manner::Huge => {
            // Over TCP as many as fit into a message that names its owner each time.
            let count = if is_tcp { 2400 } else { 2000 };
            vec![wrong(&|it| {
                let data = |n: u16| RData::A(A::new(10, 0, (n >> 8) as u8, n as u8));
                let record = |n| Record::from_rdata(it.queries[0].name().clone(), 60, data(n));
                it.answers = (0..count).map(record).collect();
            })]
        }
        Manner::Shouting => vec![wrong(&|it| {
            let shouted = it.queries[0].name().to_ascii().to_uppercase();
            it.queries[0].name = Name::from_ascii(shouted).unwrap();
        })],
    }
}

/// A face that asks these, and has little patience.
async fn face(catalog: &Catalog, manners: &[Manner]) -> (Face, Vec<Recursor>) {
    let mut recursors = Vec::new();
    for manner in manners {
        recursors.push(Recursor::new(*manner).await);
    }
    let config = Config {
        recursors: recursors.iter().map(|it| it.address).collect(),
        recursor_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    (Face::new(catalog, config), recursors)
}

#[tokio::test]
async fn the_first_answer_is_passed_on() {
    use Manner::{Broken, Confused, Proper, Refusing, Shouting, Silent, Truncating, Wrong};
    let found = "noerror qr rd ra\nExample.com. 60 A 192.0.2.7\n";
    for (manners, question, expected) in [
        (&[Proper][..], "Example.com A", found),
        (&[Proper], "Example.com A tcp", found),
        (
            &[Proper],
            "Example.com AAAA",
            "noerror qr rd ra\nExample.com. 60 AAAA 2001:db8::9\n",
        ),
        (&[Silent, Proper], "Example.com A", found),
        (&[Silent, Proper], "Example.com A tcp", found),
        (&[Wrong, Proper], "Example.com A", found),
        (&[Wrong, Proper], "Example.com A tcp", found),
        (&[Broken, Proper], "Example.com A", found),
        (&[Broken, Proper], "Example.com A tcp", found),
        (&[Confused], "Example.com A", found),
        (&[Silent, Wrong], "Example.com A", "servfail qr rd ra\n"),
        (&[Silent, Wrong], "Example.com A tcp", "servfail qr rd ra\n"),
        // whatever it says
        (&[Refusing, Proper], "Example.com A", "refused qr rd ra\n"),
        (
            &[Truncating, Proper],
            "Example.com A",
            "noerror qr tc rd ra\n",
        ),
        (
            &[Proper],
            "9.9.9.9.in-addr.arpa A",
            "noerror qr rd ra\n9.9.9.9.in-addr.arpa. 60 A 192.0.2.7\n",
        ),
    ] {
        let (face, _recursors) = face(&Catalog::default(), manners).await;
        assert_eq!(face.ask(question).await, expected, "{manners:?} {question}");
        face.stop().await;
    }
    let (face, _recursors) = face(&Catalog::default(), &[Shouting]).await;
    // The answer is spelled as it came, the question as it was asked.
    assert!(face.ask("Example.com A").await.contains("6.6.6.6"));
    face.stop().await;
}

#[tokio::test]
async fn too_much_for_a_datagram() {
    let (face, _recursors) = face(&Catalog::default(), &[Manner::Huge]).await;
    for (question, size) in [
        ("example.com A", 512),
        ("example.com A edns=1400", 1400),
        // more than is taken from the recursor itself, so that its end is missing
        ("example.com A edns=65535", 4096),
    ] {
        let (answer, length) = face.answer(question).await;
        assert!(answer.metadata.truncation && length <= size);
        assert!(answer.answers.is_empty());
    }
    let (answer, _) = face.answer("example.com A tcp").await;
    assert_eq!(answer.answers.len(), 2400);
    face.stop().await;
}

#[tokio::test]
async fn nobody_listens() {
    let address = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let config = Config {
        recursors: vec![address],
        ..Config::default()
    };
    let face = Face::new(&Catalog::default(), config);
    assert_eq!(face.ask("example.com A").await, "servfail qr rd ra\n");
    assert_eq!(face.ask("example.com A tcp").await, "servfail qr rd ra\n");
    assert_eq!(
        face.ask("9.9.9.9.in-addr.arpa PTR").await,
        "servfail qr rd ra\n"
    );
    face.stop().await;
}

#[tokio::test]
async fn a_server_does_not_ask_itself() {
    let proper = Recursor::new(Manner::Proper).await;
    for bound in ["127.0.0.1:0", "0.0.0.0:0"] {
        let listener = Listener::bind(bound.parse().unwrap()).unwrap();
        let port = listener.local_address().unwrap().port();
        let own = ["127.0.0.1", "0.0.0.0"].map(|ip| (ip.parse::<IpAddr>().unwrap(), port).into());
        let config = Config {
            recursors: [&own[..], &[proper.address]].concat(),
            // Longer than a test may take.
            recursor_timeout: Duration::from_secs(60),
            ..Config::default()
        };
        let mut face = Face::of(listener, &Catalog::default(), config);
        face.address.set_ip("127.0.0.1".parse().unwrap());
        assert!(face.ask("example.com A").await.contains("192.0.2.7"));
        assert!(face.ask("example.com A tcp").await.contains("192.0.2.7"));
        face.stop().await;
    }
}

#[tokio::test]
async fn addresses_backwards_are_found_elsewhere_while_no_server_answers() {
    let catalog = Catalog::default();
    catalog.state().is_down = true;
    let (face, _recursors) = face(&catalog, &[Manner::Proper]).await;
    assert_eq!(
        face.ask("9.9.9.9.in-addr.arpa A").await,
        "noerror qr rd ra\n9.9.9.9.in-addr.arpa. 60 A 192.0.2.7\n"
    );
    face.stop().await;
}

#[tokio::test]
async fn names_of_hosts_are_followed() {
    let catalog = Catalog::default();
    catalog
        .node("far", "other.example.com")
        .node("web", "www.example.com")
        .node("here", "10.0.0.1")
        .service("here", "out", "other.example.com", 80)
        .service("far", "on", "", 81);
    let (face, _recursors) = face(&catalog, &[Manner::Proper]).await;
    let transcript = "
        ? far.node.consul A
        noerror qr aa rd ra
        far.node.consul. 0 CNAME other.example.com.
        other.example.com. 60 A 192.0.2.7

        ? far.node.consul AAAA
        noerror qr aa rd ra
        far.node.consul. 0 CNAME other.example.com.
        other.example.com. 60 A 192.0.2.7

        ? web.node.consul A
        noerror qr aa rd ra
        web.node.consul. 0 CNAME www.example.com.
        www.example.com. 60 CNAME alias.example.com.
        alias.example.com. 60 A 192.0.2.1
        alias.example.com. 60 A 192.0.2.2
        alias.example.com. 60 A 192.0.2.3
        alias.example.com. 60 A 192.0.2.4

        ? out.service.consul A
        noerror qr aa rd ra
        out.service.consul. 0 CNAME other.example.com.
        other.example.com. 60 A 192.0.2.7

        ? out.service.consul SRV
        noerror qr aa rd ra
        out.service.consul. 0 SRV 1 1 80 other.example.com.
        additional other.example.com. 60 A 192.0.2.7

        ? on.service.consul SRV
        noerror qr aa rd ra
        on.service.consul. 0 SRV 1 1 81 far.node.dc1.consul.
        additional far.node.dc1.consul. 0 CNAME other.example.com.
        additional other.example.com. 60 A 192.0.2.7
    ";
    check(&face, transcript).await;
    face.stop().await;
}

#[tokio::test]
async fn a_silent_recursor_holds_up_nobody_else() {
    let catalog = Catalog::default();
    catalog.node("here", "10.0.0.1");
    let (face, _recursors) = face(&catalog, &[Manner::Silent]).await;
    let waiting = face.ask("example.com A");
    let here = async {
        for _ in 0..50 {
            assert!(face.ask("here.node.consul A").await.contains("10.0.0.1"));
        }
    };
    let mut waiting = Box::pin(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("fifty answers take less than a third of a second"),
        () = here => {}
    }
    assert_eq!(waiting.await, "servfail qr rd ra\n");
    face.stop().await;
}
