//! The life of one connection: wait, read a request, have it answered, write the answer, again.
//!
//! All of it is one task. It waits in four places, and each of them says what else may happen
//! there: [`Connection::poll_request`], [`Connection::poll_parked`], [`Connection::poll_upload`]
//! and the writes. None of them keeps a buffer that has nothing in it.
//! Rare and large stretches (uploads, streams, slow readers) are boxed, so that the task of a
//! connection that waits stays small.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::Method;
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use rpc::tls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, Sleep, sleep};

use super::body::{Body, BodyError, Feeder};
use super::framing::{Decoder, Framing};
use super::head::{self, Refusal};
use super::listener::Accepted;
use super::request::Request;
use super::response::{Manners, Response, ResponseBody, ResponseHead, StreamError};
use super::scratch;
use super::serve::{Admission, Closing};
use super::{Reaction, Service};

/// Bodies up to this size are copied behind their head, to leave with one plain write.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// What may be left of a body that nobody read, for the connection to survive it: so much is
/// read and thrown away, like the original does.
const DISCARD_BYTES_MAX: u64 = 256 << 10;

/// How long we go on reading after the last answer on a connection, so that the client has
/// received it before our closing resets what it still sends.
const LINGER: Duration = Duration::from_secs(2);

/// What is read ahead while an answer is awaited. Reading is how a hang-up is noticed, so a client
/// that sends more ahead is found to be gone only when its answer is there.
const AHEAD_BYTES_MAX: usize = 16 << 10;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Says in one attempt that there is no room, and hangs up.
pub(super) fn turn_away(accepted: &Accepted) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
        Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
        Content-Length: 20\r\nConnection: close\r\n\r\ntoo many connections";
    // The socket buffer of a fresh connection has room; if not, hanging up says enough.
    let outcome = match accepted {
        Accepted::Tcp(stream, _) => stream.try_write(ANSWER),
        Accepted::Unix(stream) => stream.try_write(ANSWER),
        // To be understood it would need the handshake that there is no room for.
        Accepted::Tls(..) => return,
    };
    if let Err(error) = outcome {
        tracing::debug!("cannot write to a connection that is turned away: {error}");
    }
}

/// Lives through one connection.
///
/// Not an `async fn`, whose future would keep room for its arguments twice.
pub(super) fn run<S: Service, T: AsyncRead + AsyncWrite + Unpin>(
    engine: Admission<S>,
    closing: Arc<Closing>,
    stream: T,
    peer: Option<SocketAddr>,
) -> impl Future<Output = ()> {
    let told = Arc::clone(&closing.notify).notified_owned();
    let mut connection = Connection {
        alarm: Alarm::new(engine.config.idle_timeout),
        engine,
        closing,
        stream,
        peer,
        input: BytesMut::new(),
        scanned: 0,
    };
    async move {
        let mut told = pin!(told);
        // Registers this task to be woken; that it was woken for this is seen in `closing`.
        poll_fn(|cx| Poll::Ready(told.as_mut().poll(cx).is_ready())).await;
        while let Some(exchange) = connection.next_request().await {
            if !connection.answer(exchange).await {
                break;
            }
            // A client that pipelines without end must let others have their turn.
            consume_budget().await;
        }
    }
}

/// Performs a handshake, and lives through the connection inside of it.
///
/// Not an `async fn` either, and what the handshake needs lies in a box that is soon gone.
pub(super) fn run_tls<S: Service>(
    engine: Admission<S>,
    closing: Arc<Closing>,
    stream: TcpStream,
    peer: SocketAddr,
    incoming: tls::Incoming,
) -> impl Future<Output = ()> {
    let shaking = Box::pin(shake_hands(Arc::clone(&closing), stream, peer, incoming));
    async move {
        if let Some(stream) = shaking.await {
            run(engine, closing, stream, Some(peer)).await;
        }
    }
}

/// What is inside of TLS, unless the client can't get there or we are closing.
async fn shake_hands(
    closing: Arc<Closing>,
    stream: TcpStream,
    peer: SocketAddr,
    incoming: tls::Incoming,
) -> Option<Box<tls::Stream<TcpStream>>> {
    let told = Arc::clone(&closing.notify).notified_owned();
    let outcome = tokio::select! {
        biased;
        () = closing.wait(told) => return None,
        outcome = incoming.accept(stream) => outcome,
    };
    match outcome {
        Ok((stream, _)) => Some(Box::new(stream)),
        Err(error) => {
            // Whoever scans ports must not fill the log.
            tracing::debug!("no HTTPS with {peer}: {error}");
            None
        }
    }
}

struct Connection<S: Service, T> {
    engine: Admission<S>,
    closing: Arc<Closing>,
    stream: T,
    peer: Option<SocketAddr>,
    /// What was received ahead: a part of a head, a part of a body, requests that wait for
    /// their turn. Without memory when empty.
    input: BytesMut,
    /// How many bytes of `input` are known not to end a head.
    scanned: usize,
    alarm: Alarm,
}

/// The client hung up.
struct Gone;

/// A request that is to be answered.
struct Exchange {
    request: Request,
    manners: Manners,
    upload: Option<Box<Upload>>,
}

/// A body on its way in.
struct Upload {
    feeder: Feeder,
    decoder: Decoder,
    /// What is still to be said before the client sends the body.
    invitation: &'static [u8],
    /// Whether the alarm is set for the next byte.
    awaited: bool,
    /// Whether the feeder was told the outcome.
    ended: bool,
}

/// Why no further request is answered.
enum End {
    /// The client is gone or too slow, or we are closing.
    Silent,
    Refusal(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl<S: Service, T: AsyncRead + AsyncWrite + Unpin> Connection<S, T> {
    async fn next_request(&mut self) -> Option<Box<Exchange>> {
        self.alarm.set(if self.input.is_empty() {
            self.engine.config.idle_timeout
        } else {
            self.engine.config.head_timeout
        });
        let found = poll_fn(|cx| self.poll_request(cx)).await;
        self.alarm.clear();
        match found {
            Ok(exchange) => Some(exchange),
            Err(End::Silent) => None,
            Err(End::Refusal(refusal)) => {
                Box::pin(self.refuse(refusal)).await;
                None
            }
        }
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Exchange>, End>> {
        loop {
            if let Some(exchange) = self.cut_input()? {
                return Poll::Ready(Ok(exchange));
            }
            if self.closing.has_begun() || self.alarm.poll(cx) {
                return Poll::Ready(Err(End::Silent));
            }
            let found = ready!(scratch::with_read(|buffer| {
                match ready!(poll_read(&mut self.stream, cx, buffer)) {
                    Ok(received) if !received.is_empty() => Poll::Ready(self.take_in(received)),
                    Ok(_) | Err(_) => Poll::Ready(Err(End::Silent)),
                }
            }))?;
            if let Some(exchange) = found {
                return Poll::Ready(Ok(exchange));
            }
        }
    }

    /// Looks for a request in what was received before.
    fn cut_input(&mut self) -> Result<Option<Box<Exchange>>, End> {
        if self.scanned == self.input.len() {
            return Ok(None);
        }
        let limit = self.engine.config.head_bytes_max;
        let Some((exchange, used)) = cut(&self.input, self.scanned, limit, self.peer)? else {
            self.scanned = self.input.len();
            return Ok(None);
        };
        self.consume(used);
        Ok(Some(exchange))
    }

    /// Takes in what was just received; a whole request, the common case, never touches `input`.
    fn take_in(&mut self, received: &[u8]) -> Result<Option<Box<Exchange>>, End> {
        if !self.input.is_empty() {
            self.input.extend_from_slice(received);
            return Ok(None);
        }
        let limit = self.engine.config.head_bytes_max;
        let Some((exchange, used)) = cut(received, 0, limit, self.peer)? else {
            self.input.extend_from_slice(received);
            self.scanned = received.len();
            self.alarm.set(self.engine.config.head_timeout);
            return Ok(None);
        };
        self.input.extend_from_slice(&received[used..]);
        Ok(Some(exchange))
    }

    fn consume(&mut self, bytes: usize) {
        self.input.advance(bytes);
        self.scanned = 0;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Has a request answered, and says whether the connection can take another.
    async fn answer(&mut self, exchange: Box<Exchange>) -> bool {
        let (reaction, manners, mut upload) = self.call(*exchange);
        let response = match (reaction, &mut upload) {
            (Reaction::Now(response), _) => response,
            (Reaction::Later(answer) | Reaction::Park(answer), Some(upload)) => {
                Box::pin(self.receive(answer, upload)).await
            }
            (Reaction::Later(answer), None) => answer.await,
            (Reaction::Park(answer), None) => {
                let Some(response) = self.park(answer).await else {
                    return false;
                };
                response
            }
        };
        let rest = upload.as_ref().map_or(Some(0), |upload| upload.rest());
        let ends_with_connection =
            !manners.is_1_1 && matches!(response.body, ResponseBody::Stream(_));
        let manners = Manners {
            keep_alive: manners.keep_alive
                && !ends_with_connection
                && !self.closing.has_begun()
                && rest.is_some_and(|rest| rest <= DISCARD_BYTES_MAX),
            ..manners
        };
        if self.send(response, manners).await.is_err() {
            return false;
        }
        match (upload, manners.keep_alive) {
            (None, true) => true,
            (Some(upload), true) => {
                upload.decoder.is_done() || Box::pin(self.discard(upload)).await
            }
            (_, false) if rest == Some(0) => {
                Box::pin(self.say_goodbye()).await;
                false
            }
            (_, false) => {
                Box::pin(self.linger()).await;
                false
            }
        }
    }

    /// A function of its own, so that the request is in no future.
    fn call(&self, exchange: Exchange) -> (Reaction, Manners, Option<Box<Upload>>) {
        let Exchange {
            request,
            manners,
            upload,
        } = exchange;
        (self.engine.service.call(request), manners, upload)
    }

    /// Waits for an answer that may take long; `None` when nobody wants it any more.
    async fn park(&mut self, mut answer: BoxFuture<'static, Response>) -> Option<Response> {
        poll_fn(|cx| self.poll_parked(&mut answer, cx)).await
    }

    fn poll_parked(
        &mut self,
        answer: &mut BoxFuture<'static, Response>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response>> {
        if let Poll::Ready(response) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        if self.closing.has_begun() {
            return Poll::Ready(None);
        }
        let Gone = ready!(self.poll_ahead(cx));
        Poll::Ready(None)
    }

    /// Reads what a client sends ahead of its turn, and is ready when the client is gone.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        while self.input.len() < AHEAD_BYTES_MAX {
            let received = ready!(scratch::with_read(|buffer| {
                let room = AHEAD_BYTES_MAX - self.input.len();
                let room = room.min(buffer.len());
                poll_read(&mut self.stream, cx, &mut buffer[..room]).map_ok(|received| {
                    self.input.extend_from_slice(received);
                    received.len()
                })
            }));
            if !received.is_ok_and(|received| received > 0) {
                return Poll::Ready(Gone);
            }
        }
        Poll::Pending
    }

    /// Waits for an answer while its body comes in as fast as it is asked for.
    async fn receive(
        &mut self,
        mut answer: BoxFuture<'static, Response>,
        upload: &mut Upload,
    ) -> Response {
        let response = poll_fn(|cx| {
            loop {
                if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                    return Poll::Ready(response);
                }
                if upload.ended || !upload.feeder.wanted(cx) {
                    return Poll::Pending;
                }
                let outcome = ready!(self.poll_upload(upload, cx));
                self.alarm.clear();
                upload.awaited = false;
                match outcome {
                    Ok(Some(piece)) => upload.feeder.give(piece),
                    Ok(None) => upload.end(Ok(())),
                    Err(error) => upload.end(Err(error)),
                }
            }
        })
        .await;
        self.alarm.clear();
        response
    }

    /// The next piece of a body, `None` at its end.
    fn poll_upload(
        &mut self,
        upload: &mut Upload,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        if !upload.awaited {
            upload.awaited = true;
            self.alarm.set(self.engine.config.body_timeout);
        }
        loop {
            if !self.input.is_empty() {
                let mut piece = Vec::new();
                let used = upload.decoder.decode(&self.input, &mut piece);
                self.consume(used.map_err(|_| BodyError::Broken)?);
                if !piece.is_empty() {
                    return Poll::Ready(Ok(Some(piece.into())));
                }
            }
            if upload.decoder.is_done() {
                return Poll::Ready(Ok(None));
            }
            if self.alarm.poll(cx) {
                return Poll::Ready(Err(BodyError::TimedOut));
            }
            while !upload.invitation.is_empty() {
                let written = Pin::new(&mut self.stream).poll_write(cx, upload.invitation);
                match ready!(written) {
                    Ok(written) if written > 0 => {
                        upload.invitation = &upload.invitation[written..];
                    }
                    Ok(_) | Err(_) => return Poll::Ready(Err(BodyError::Broken)),
                }
            }
            // Inside of TLS the invitation may have been taken and not have left yet.
            if let Poll::Ready(Err(_)) = Pin::new(&mut self.stream).poll_flush(cx) {
                return Poll::Ready(Err(BodyError::Broken));
            }
            let piece = ready!(scratch::with_read(|buffer| {
                let received = match ready!(poll_read(&mut self.stream, cx, buffer)) {
                    Ok(received) if !received.is_empty() => received,
                    Ok(_) | Err(_) => return Poll::Ready(Err(BodyError::Broken)),
                };
                let mut piece = Vec::new();
                let used = upload.decoder.decode(received, &mut piece);
                self.input
                    .extend_from_slice(&received[used.map_err(|_| BodyError::Broken)?..]);
                Poll::Ready(Ok(piece))
            }))?;
            if !piece.is_empty() {
                return Poll::Ready(Ok(Some(piece.into())));
            }
        }
    }

    /// Reads the rest of a body that nobody wanted, and says whether its end came. What is read
    /// was found small enough before.
    async fn discard(&mut self, mut upload: Box<Upload>) -> bool {
        upload.awaited = false;
        loop {
            match poll_fn(|cx| self.poll_upload(&mut upload, cx)).await {
                Ok(Some(_)) => upload.awaited = false,
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    async fn refuse(&mut self, refusal: Refusal) {
        let manners = Manners {
            is_1_1: true,
            head_only: false,
            keep_alive: false,
        };
        let response = Response::text(refusal.status(), refusal.text());
        if self.send(response, manners).await.is_ok() {
            self.linger().await;
        }
    }

    /// Says that nothing more will come; inside of TLS that takes bytes, which a client that doesn't read never lets go.
    /// False if there is nobody to say it to.
    async fn say_goodbye(&mut self) -> bool {
        self.alarm.set(LINGER);
        poll_fn(|cx| {
            // An error here means that the client is gone already.
            if let Poll::Ready(said) = Pin::new(&mut self.stream).poll_shutdown(cx) {
                return Poll::Ready(said.is_ok());
            }
            if self.alarm.poll(cx) || self.closing.has_begun() {
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// Says that nothing more will come, and gives the client a moment to read what came.
    async fn linger(&mut self) {
        if !self.say_goodbye().await {
            return;
        }
        self.alarm.set(LINGER);
        poll_fn(|cx| {
            loop {
                if self.alarm.poll(cx) || self.closing.has_begun() {
                    return Poll::Ready(());
                }
                let received = ready!(scratch::with_read(|buffer| {
                    poll_read(&mut self.stream, cx, buffer).map_ok(|received| received.len())
                }));
                if !received.is_ok_and(|received| received > 0) {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }

    async fn send(&mut self, response: Response, manners: Manners) -> io::Result<()> {
        let (head, body) = response.split();
        let bodiless = manners.head_only || head.ends_with_head();
        let (bytes, pieces) = match body {
            ResponseBody::Full(bytes) if !bodiless => (bytes, None),
            ResponseBody::Stream(pieces) if !bodiless => (Bytes::new(), Some(pieces)),
            ResponseBody::Full(_) | ResponseBody::Stream(_) => (Bytes::new(), None),
        };
        let rest =
            poll_fn(|cx| Poll::Ready(self.start_to_send(&head, &bytes, manners, cx))).await?;
        if let Some((head, body_from)) = rest {
            Box::pin(self.write(&[&head, &bytes[body_from..]])).await?;
        }
        match pieces {
            Some(pieces) => Box::pin(self.send_stream(pieces, manners)).await,
            None => Ok(()),
        }
    }

    /// Renders the head, and writes it with its body if the socket takes it all. Otherwise the
    /// rest of the head, and where the rest of the body begins.
    fn start_to_send(
        &mut self,
        head: &ResponseHead,
        body: &[u8],
        manners: Manners,
        cx: &mut Context<'_>,
    ) -> io::Result<Option<(Vec<u8>, usize)>> {
        scratch::with_write(|out| {
            head.render(manners, out);
            let head_length = out.len();
            let stream = Pin::new(&mut self.stream);
            let written = if body.len() <= JOINED_BYTES_MAX {
                out.extend_from_slice(body);
                stream.poll_write(cx, out)
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(body)])
            };
            let written = match written {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            let flushed = written == head_length + body.len()
                && matches!(
                    Pin::new(&mut self.stream).poll_flush(cx),
                    Poll::Ready(Ok(()))
                );
            if flushed {
                return Ok(None);
            }
            let rest = out[written.min(head_length)..head_length].to_vec();
            Ok(Some((rest, written.saturating_sub(head_length))))
        })
    }

    async fn send_stream(
        &mut self,
        mut pieces: BoxStream<'static, Result<Bytes, StreamError>>,
        manners: Manners,
    ) -> io::Result<()> {
        while let Some(piece) = self.next_piece(&mut pieces).await? {
            // An empty chunk would end the body.
            if piece.is_empty() {
                continue;
            }
            if manners.is_1_1 {
                let size = format!("{:x}\r\n", piece.len());
                self.write(&[size.as_bytes(), &piece, b"\r\n"]).await?;
            } else {
                self.write(&[&piece]).await?;
            }
        }
        if manners.is_1_1 {
            self.write(&[b"0\r\n\r\n"]).await
        } else {
            Ok(())
        }
    }

    /// Waits for the next piece of an answer, and notices meanwhile if the client hangs up.
    async fn next_piece(
        &mut self,
        pieces: &mut BoxStream<'static, Result<Bytes, StreamError>>,
    ) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| {
            if let Poll::Ready(piece) = pieces.poll_next_unpin(cx) {
                return Poll::Ready(piece.transpose().map_err(|error| {
                    tracing::warn!("cut an answer off: {error}");
                    io::Error::other(error)
                }));
            }
            let Gone = ready!(self.poll_ahead(cx));
            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        })
        .await
    }

    /// Writes all of it, as fast as the client reads.
    async fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = &mut slices[..];
        // Drops empty parts, of which a write could only report that it wrote nothing.
        IoSlice::advance_slices(&mut slices, 0);
        let mut awaited = false;
        let outcome = poll_fn(|cx| {
            loop {
                let progress = if slices.is_empty() {
                    Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0)
                } else {
                    Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
                };
                match progress {
                    Poll::Ready(Ok(0)) if slices.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => {
                        awaited = false;
                        IoSlice::advance_slices(&mut slices, written);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if !awaited {
                            awaited = true;
                            self.alarm.set(self.engine.config.write_timeout);
                        }
                        if self.alarm.poll(cx) {
                            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                        }
                        return Poll::Pending;
                    }
                }
            }
        })
        .await;
        self.alarm.clear();
        outcome
    }
}

impl Upload {
    fn end(&mut self, outcome: Result<(), BodyError>) {
        self.ended = true;
        self.feeder.end(outcome);
    }

    /// How much of the body the client will still send for sure.
    fn rest(&self) -> Option<u64> {
        match self.decoder.rest() {
            // A client that waits for its invitation may send the body or the next request.
            Some(rest) if rest > 0 && !self.invitation.is_empty() => None,
            // It broke, or the client is too slow.
            Some(rest) if rest > 0 && self.ended => None,
            rest => rest,
        }
    }
}

/// Cuts the first request out of the bytes at hand, and says how many of them it used up; `None`
/// if its head is not all there. The first `scanned` bytes are known not to end a head.
fn cut(
    bytes: &[u8],
    scanned: usize,
    limit: usize,
    peer: Option<SocketAddr>,
) -> Result<Option<(Box<Exchange>, usize)>, Refusal> {
    // Some clients send an empty line after a body.
    let start = 2 * bytes.chunks(2).take_while(|pair| pair == b"\r\n").count();
    let end = match head::find_end(bytes, start.max(scanned))? {
        Some(end) if end <= limit => end,
        None if bytes.len() <= limit => return Ok(None),
        Some(_) | None => return Err(Refusal::TooLarge),
    };
    let head = head::parse(&bytes[start..end])?;
    let manners = Manners {
        is_1_1: head.is_1_1,
        head_only: head.method == Method::HEAD,
        keep_alive: head.keep_alive,
    };
    let (body, upload, used) = match head.framing {
        Framing::Empty => (Body::empty(), None, end),
        Framing::Length(length) if length <= (bytes.len() - end) as u64 => {
            let used = end + usize::try_from(length).unwrap_or_default();
            (
                Body::from(Bytes::copy_from_slice(&bytes[end..used])),
                None,
                used,
            )
        }
        framing @ (Framing::Length(_) | Framing::Chunked) => {
            let (feeder, feed) = Feeder::new();
            let length = match framing {
                Framing::Length(length) => Some(length),
                Framing::Empty | Framing::Chunked => None,
            };
            // Whoever sends the body right away waits for nothing.
            let invited = !head.expects_continue || bytes.len() > end;
            let upload = Upload {
                feeder,
                decoder: Decoder::new(framing),
                invitation: if invited { b"" } else { CONTINUE },
                awaited: false,
                ended: false,
            };
            (Body::arriving(feed, length), Some(Box::new(upload)), end)
        }
    };
    let request = Request::from_head(head, &bytes[start..end], peer, body);
    let exchange = Exchange {
        request,
        manners,
        upload,
    };
    Ok(Some((Box::new(exchange), used)))
}

fn poll_read<'a, T: AsyncRead + Unpin>(
    stream: &mut T,
    cx: &mut Context<'_>,
    buffer: &'a mut [u8],
) -> Poll<io::Result<&'a [u8]>> {
    let mut filled = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut filled))?;
    let length = filled.filled().len();
    Poll::Ready(Ok(&buffer[..length]))
}

/// One timer for all that a connection waits for in turn.
///
/// Moving a deadline back costs nothing: the timer fires at the old one and is then set anew.
/// So the deadline that every request moves a little is set only once in its length.
struct Alarm {
    timer: Pin<Box<Sleep>>,
    due: Option<Instant>,
}

impl Alarm {
    fn new(after: Duration) -> Self {
        Self {
            timer: Box::pin(sleep(after)),
            due: None,
        }
    }

    fn set(&mut self, after: Duration) {
        // A time that is too far away to be written down never comes.
        self.due = Instant::now().checked_add(after);
        if let Some(due) = self.due
            && (due < self.timer.deadline() || self.timer.is_elapsed())
        {
            self.timer.as_mut().reset(due);
        }
    }

    fn clear(&mut self) {
        self.due = None;
    }

    /// Whether the time has come; if not, `cx` is woken when it has.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.due else { return false };
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return true;
            }
            self.timer.as_mut().reset(due);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Config, Engine, StatusCode};

    /// An agent holds thousands of these; see the module's documentation.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let service = |_: Request| Reaction::Now(Response::new(StatusCode::OK));
        let engine = Engine::new(service, Config::default());
        let future = run(engine.admission(), Arc::default(), tokio::io::empty(), None);
        let size = size_of_val(&future);
        assert!(size <= 768, "{size} bytes");
    }

    /// What the handshake needs is gone by the time that a connection waits.
    #[tokio::test]
    async fn the_task_of_a_connection_inside_of_tls_is_hardly_larger() {
        let service = |_: Request| Reaction::Now(Response::new(StatusCode::OK));
        let engine = Engine::new(service, Config::default());
        let authority = testkit::Authority::new();
        let pair = authority.sign("agent", &["localhost"]);
        let settings = tls::Config {
            cert_file: Some(pair.certificate),
            key_file: Some(pair.key),
            https: true,
            ..tls::Config::default()
        };
        let incoming = tls::Tls::load(settings).unwrap().https().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let future = run_tls(
            engine.admission(),
            Arc::default(),
            stream,
            address,
            incoming,
        );
        let size = size_of_val(&future);
        assert!(size <= 1024, "{size} bytes");
    }

    /// Brings one request, takes all answers, and never lets go of the last bytes.
    struct Stuck(&'static [u8]);

    impl AsyncRead for Stuck {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            buffer.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_no_goodbye_is_left() {
        for request in [
            &b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"[..],
            b"GET / nonsense\r\n\r\n",
        ] {
            let service = |_: Request| Reaction::Now(Response::new(StatusCode::OK));
            let engine = Engine::new(service, Config::default());
            let begun = tokio::time::Instant::now();
            run(engine.admission(), Arc::default(), Stuck(request), None).await;
            assert!(begun.elapsed() <= 2 * LINGER, "{:?}", begun.elapsed());
        }
    }
}
