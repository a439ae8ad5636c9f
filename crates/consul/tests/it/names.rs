//! Questions to a DNS server, byte by byte: a client that shares nothing with the program.

use std::io::{Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::process::PATIENCE;

/// Types of records.
pub(crate) const A: u16 = 1;
pub(crate) const SRV: u16 = 33;

/// How long one question waits before it is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) rcode: u8,
    /// Type and content of the records in the answer section.
    pub(crate) records: Vec<(u16, Vec<u8>)>,
}

/// Asks over UDP until the reply is so; that reply.
pub(crate) fn over_udp(
    server: SocketAddr,
    name: &str,
    kind: u16,
    is_so: impl Fn(&Reply) -> bool,
) -> Reply {
    until(is_so, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.send_to(&question(name, kind), server)?;
        let mut reply = [0; 512];
        let (length, _) = socket.recv_from(&mut reply)?;
        Ok(reply[..length].to_vec())
    })
}

/// The same over TCP.
pub(crate) fn over_tcp(
    server: SocketAddr,
    name: &str,
    kind: u16,
    is_so: impl Fn(&Reply) -> bool,
) -> Reply {
    until(is_so, || {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let question = question(name, kind);
        let length = u16::try_from(question.len()).unwrap();
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&question)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut reply)?;
        Ok(reply)
    })
}

fn until(is_so: impl Fn(&Reply) -> bool, ask: impl Fn() -> Result<Vec<u8>>) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = ask().map(|bytes| parse(&bytes));
        match reply {
            Ok(reply) if is_so(&reply) => return reply,
            other => assert!(Instant::now() < deadline, "no such reply: {other:?}"),
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    // One question, and recursion is desired.
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

fn parse(bytes: &[u8]) -> Reply {
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    assert_eq!(number(0), 0x1234);
    let mut at = 12;
    for _ in 0..number(4) {
        at = after_name(bytes, at) + 4;
    }
    let records = (0..number(6)).map(|_| {
        at = after_name(bytes, at);
        let (kind, length) = (number(at), usize::from(number(at + 8)));
        let content = bytes[at + 10..at + 10 + length].to_vec();
        at += 10 + length;
        (kind, content)
    });
    Reply {
        records: records.collect(),
        rcode: bytes[3] & 0xf,
    }
}

/// Where a name ends that begins here.
fn after_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            // The rest of it is elsewhere.
            0xc0.. => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}
