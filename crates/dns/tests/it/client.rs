//! A face under test, and someone who asks it.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dns::{Config, Listener};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::catalog::Catalog;

/// Nothing here takes as long; what does is lost.
const DEADLINE: Duration = Duration::from_secs(20);

/// A face that is being served.
pub(crate) struct Face {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Face {
    pub(crate) fn new(catalog: &Catalog, config: Config) -> Self {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self::of(listener, catalog, config)
    }

    pub(crate) fn of(listener: Listener, catalog: &Catalog, config: Config) -> Self {
        let address = listener.local_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let cluster = catalog.cluster();
        let served = tokio::spawn(listener.serve(config, cluster, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            stop,
            served,
        }
    }

    /// Ends it; what it panicked about is passed on.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .unwrap()
            .unwrap();
    }

    /// Asks `<name> <type>`, perhaps with `tcp`, `edns=<size>` or `do`, and shows the answer.
    pub(crate) async fn ask(&self, question: &str) -> String {
        let (message, is_tcp) = query(question);
        let bytes = message.to_vec().unwrap();
        let answer = if is_tcp {
            over_tcp(self.address, &bytes).await
        } else {
            over_udp(self.address, &bytes).await
        };
        let shown = Message::from_vec(&answer).unwrap();
        assert_eq!(shown.metadata.id, message.metadata.id);
        assert_eq!(shown.queries, message.queries);
        for (told, asked) in shown.queries.iter().zip(&message.queries) {
            assert!(
                told.name().eq_case(asked.name()),
                "the spelling is told back"
            );
        }
        show(&shown)
    }

    /// The same as a message.
    pub(crate) async fn answer(&self, question: &str) -> (Message, usize) {
        let (message, is_tcp) = query(question);
        let bytes = message.to_vec().unwrap();
        let answer = if is_tcp {
            over_tcp(self.address, &bytes).await
        } else {
            over_udp(self.address, &bytes).await
        };
        (Message::from_vec(&answer).unwrap(), answer.len())
    }
}

fn query(question: &str) -> (Message, bool) {
    let mut words = question.split(' ');
    let mut name = Name::from_ascii(words.next().unwrap()).unwrap();
    name.set_fqdn(true);
    let kind = RecordType::from_str(words.next().unwrap()).unwrap();
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let mut is_tcp = false;
    for word in words {
        if word == "tcp" {
            is_tcp = true;
        } else if let Some(size) = word.strip_prefix("edns=") {
            let mut edns = Edns::new();
            edns.set_max_payload(size.parse().unwrap());
            message.set_edns(edns);
        } else if let Some(version) = word.strip_prefix("version=") {
            message
                .edns
                .as_mut()
                .unwrap()
                .set_version(version.parse().unwrap());
        } else if word == "do" {
            message.edns.as_mut().unwrap().set_dnssec_ok(true);
        } else {
            panic!("no such word: {word}");
        }
    }
    (message, is_tcp)
}

pub(crate) async fn over_udp(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let own: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::LOCALHOST, 0).into()
    } else {
        (Ipv6Addr::LOCALHOST, 0).into()
    };
    let socket = UdpSocket::bind(own).await.unwrap();
    socket.connect(address).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut answer = vec![0; 65_535];
    let length = tokio::time::timeout(DEADLINE, socket.recv(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer.truncate(length);
    answer
}

pub(crate) async fn over_tcp(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, bytes].concat()).await.unwrap();
    read_framed(&mut stream).await
}

pub(crate) async fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap()
}

/// An answer as lines: outcome and flags, then the records by section. The time in the zone's authority is left out.
pub(crate) fn show(message: &Message) -> String {
    let meta = &message.metadata;
    let mut out = format!("{:?}", meta.response_code).to_lowercase();
    for (is_set, flag) in [
        (meta.message_type == MessageType::Response, "qr"),
        (meta.authoritative, "aa"),
        (meta.truncation, "tc"),
        (meta.recursion_desired, "rd"),
        (meta.recursion_available, "ra"),
        (meta.authentic_data, "ad"),
    ] {
        if is_set {
            write!(out, " {flag}").unwrap();
        }
    }
    if let Some(edns) = &message.edns {
        let dnssec = if edns.flags().dnssec_ok { " do" } else { "" };
        write!(out, " edns={}{dnssec}", edns.max_payload()).unwrap();
    }
    out.push('\n');
    for (records, mark) in [
        (&message.answers, ""),
        (&message.authorities, "authority "),
        (&message.additionals, "additional "),
    ] {
        for record in records {
            writeln!(out, "{mark}{}", line(record)).unwrap();
        }
    }
    out
}

fn line(record: &Record) -> String {
    let text = record.to_string();
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.retain(|word| *word != "IN");
    if words.contains(&"SOA") {
        let serial: u64 = words[5].parse().unwrap();
        assert!(serial > 1_700_000_000, "the time since 1970");
        words[5] = "<now>";
    }
    words.join(" ")
}

/// Compares transcripts: what is asked, and beneath it what is answered. Questions above one another have the same answer.
pub(crate) async fn check(face: &Face, transcript: &str) {
    let mut failed = String::new();
    for exchange in transcript.split("\n\n") {
        let lines: Vec<&str> = exchange
            .lines()
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        let questions = lines.iter().map_while(|line| line.strip_prefix("? "));
        let questions: Vec<&str> = questions.collect();
        let expected = &lines[questions.len()..];
        assert!(expected.is_empty() || !questions.is_empty(), "{exchange}");
        for question in questions {
            let answer = face.ask(question).await;
            let told: Vec<&str> = answer.lines().collect();
            if told != expected {
                writeln!(
                    failed,
                    "? {question}\n{answer}expected\n{}\n",
                    expected.join("\n")
                )
                .unwrap();
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
}
