//! Other name servers, asked about what is not ours.
//!
//! An answer is believed only if it comes from where the question went, to the port that was opened for it alone, under its random id and with its question: whoever can't see the question has to guess all of these at once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::message::{self, HEADER, Question, Request};
use crate::server::Transport;

/// Questions that wait for others at a time; each has a socket of its own. Those beyond fail at once.
const OUTSTANDING_MAX: usize = 512;

/// How long an answer over UDP may be that is asked for.
const DATAGRAM_MAX: u16 = 4096;

/// How long one may be that is passed on: what is longer has come without its end.
pub(crate) const TAKEN_MAX: usize = DATAGRAM_MAX as usize;

/// Who is asked, in this order.
#[derive(Debug)]
pub(crate) struct Recursors {
    addresses: Vec<SocketAddr>,
    /// How long each may take.
    timeout: Duration,
    room: Semaphore,
}

impl Recursors {
    pub(crate) fn new(addresses: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self {
            addresses,
            timeout,
            room: Semaphore::new(OUTSTANDING_MAX),
        }
    }

    /// Whether nobody can be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The first answer that anybody gives, whatever it says, as it came but for the id, which is that of the request; `None` if nobody does.
    ///
    /// It may be longer than the asker takes.
    pub(crate) async fn ask(
        &self,
        request: &Request,
        question: &Question,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let Ok(_seat) = self.room.try_acquire() else {
            tracing::warn!("more than {OUTSTANDING_MAX} questions wait for recursors");
            return None;
        };
        for address in &self.addresses {
            let asking = exchange(*address, request, question, transport);
            match tokio::time::timeout(self.timeout, asking).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::warn!("recursor {address} failed: {error}"),
                Err(_) => tracing::warn!("recursor {address} didn't answer in time"),
            }
        }
        tracing::warn!("no recursor answered for {}", question.name);
        None
    }
}

async fn exchange(
    address: SocketAddr,
    request: &Request,
    question: &Question,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let size = request
        .extension
        .map_or(0, |extension| extension.size.min(DATAGRAM_MAX));
    let mut query = message::encode_question(request, question, size);
    // Not from the chance that shuffles: whoever watches the order of answers must not be able to tell it.
    let id = rand::random::<[u8; 2]>();
    query[..2].copy_from_slice(&id);
    let mut answer = match transport {
        Transport::Udp => over_udp(address, &query).await?,
        Transport::Tcp => over_tcp(address, &query).await?,
    };
    answer[..2].copy_from_slice(&request.id.to_be_bytes());
    // In the asker's spelling.
    let name = question.name.wire();
    answer[HEADER..HEADER + name.len()].copy_from_slice(name);
    Ok(answer)
}

async fn over_udp(address: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // Port 0: one that the kernel draws. Connected: from nobody else is anything received.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(query).await?;
    // With room for a byte too many.
    let mut buffer = vec![0; TAKEN_MAX + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Others are thrown away, and the right one may still come.
        if answers(&buffer[..length], query) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(address: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = Vec::new();
    // It grows with what arrives.
    let mut limited = stream.take(u64::from(length));
    limited.read_to_end(&mut answer).await?;
    if answer.len() < usize::from(length) || !answers(&answer, query) {
        let text = "what came is no answer to the question";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(answer)
}

/// Whether this is an answer to that question: its id, and its one question in whatever case.
fn answers(answer: &[u8], query: &[u8]) -> bool {
    let asked = match message::decode(query) {
        message::Decoded::Request(Request {
            question: Some(question),
            ..
        }) => question.name.wire().len(),
        _ => return false,
    };
    let (name, rest) = (HEADER..HEADER + asked, HEADER + asked..HEADER + asked + 4);
    let (Some(header), Some(told), Some(told_kind)) = (
        answer.first_chunk::<HEADER>(),
        answer.get(name.clone()),
        answer.get(rest.clone()),
    ) else {
        return false;
    };
    header[..2] == query[..2]
        // An answer, of the plain operation.
        && header[2] & 0xf8 == 0x80
        && header[4..6] == [0, 1]
        && told.eq_ignore_ascii_case(&query[name])
        && *told_kind == query[rest]
}
