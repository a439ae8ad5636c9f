//! One connection from a member, from the answering side: reads requests, runs them side by side, and writes the answers.
//!
//! All happens in one task, so a request costs no hand-over.
//! While the peer does not take its answers, nothing more is read and nothing goes on that was begun, so what waits for it in memory stays small.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{AbortHandle, Abortable, BoxFuture, CatchUnwind};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use model::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use wire::compact;

use crate::frame::{self, Assembly, FrameError, Kind, Room};
use crate::link::{Link, OUTPUT_MAX, Outbox};
use crate::protocol::{ANSWER, Protocol, STALL_MAX};
use crate::{Hop, Refusal, Request, Response, Serve};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(5);

/// An asking side that waits for something says so every few seconds; one that is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An asking side closes what it does not need long before this, so no request is on its way when the connection is closed from here.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Twice what the asking side allows itself.
fn calls_max(protocol: Protocol) -> usize {
    protocol.calls_max() * 2
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// For messages that are not whole.
    pub(crate) room: Arc<Room>,
    /// Requests that are being answered.
    pub(crate) requests: AtomicUsize,
    pub(crate) requests_max: usize,
}

/// Answers what comes over a connection until it ends, and says why it did.
pub(crate) async fn run<T>(
    io: T,
    protocol: Protocol,
    serve: Arc<dyn Serve>,
    shared: Arc<Shared>,
) -> String
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut answering = Answering {
        protocol,
        link: Link::new(io),
        outbox: Outbox::default(),
        running: FuturesUnordered::new(),
        waits: BTreeMap::new(),
        assembly: Assembly::new(protocol.ask_max(), Arc::clone(&shared.room)),
        serve,
        shared,
        heard: now,
        moved: now,
        tick: Box::pin(tokio::time::sleep(TICK)),
    };
    std::future::poll_fn(|cx| answering.poll(cx)).await
}

struct Answering<T> {
    protocol: Protocol,
    link: Link<T>,
    outbox: Outbox,
    running: FuturesUnordered<Running>,
    /// Requests that may wait for long, so that their asker may take them back.
    waits: BTreeMap<u32, AbortHandle>,
    assembly: Assembly,
    serve: Arc<dyn Serve>,
    shared: Arc<Shared>,
    /// When the peer was last heard of.
    heard: Instant,
    /// When the peer last took something, or there was nothing for it to take.
    moved: Instant,
    tick: Pin<Box<Sleep>>,
}

/// What a request gave.
enum Answer {
    Request(Result<Response, Refusal>),
    Log(Bytes),
    /// Its asker has taken it back.
    Cancelled,
}

/// A request that is being answered.
struct Running {
    id: u32,
    work: CatchUnwind<AssertUnwindSafe<Work>>,
    shared: Arc<Shared>,
}

enum Work {
    Request(BoxFuture<'static, Result<Response, Refusal>>),
    Wait(Abortable<BoxFuture<'static, Result<Response, Refusal>>>),
    Log(BoxFuture<'static, Bytes>),
}

impl Future for Work {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.get_mut() {
            Self::Request(future) => future.poll_unpin(cx).map(Answer::Request),
            Self::Wait(future) => future
                .poll_unpin(cx)
                .map(|done| done.map_or(Answer::Cancelled, Answer::Request)),
            Self::Log(future) => future.poll_unpin(cx).map(Answer::Log),
        }
    }
}

impl Future for Running {
    /// `None` if the work panicked.
    type Output = (u32, Option<Answer>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = ready!(self.work.poll_unpin(cx));
        Poll::Ready((self.id, done.ok()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Answering<T> {
    /// Goes on as far as it can; ready with the reason when the connection is at its end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            // Reads first and writes last, so that what goes on at the same time leaves in one write.
            if self.may_read()
                && let Poll::Ready(why) = self.poll_read(cx)
            {
                return Poll::Ready(why);
            }
            let has_gone_on = self.poll_running(cx);
            match self.poll_write(cx) {
                Poll::Ready(Ok(has_written)) if has_written || has_gone_on => {}
                Poll::Ready(Ok(_)) | Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(format!("writing: {error}")),
            }
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            if let Some(why) = self.look_at_deadlines() {
                return Poll::Ready(why);
            }
        }
        Poll::Pending
    }

    fn may_read(&self) -> bool {
        // The log's messages can't be refused, so beyond their bound they wait in the socket.
        let has_room =
            self.protocol != Protocol::Log || self.running.len() < calls_max(Protocol::Log);
        has_room && self.has_outlet()
    }

    /// Whether the peer takes what it is sent.
    fn has_outlet(&self) -> bool {
        self.outbox.len() < OUTPUT_MAX
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            // First what was left when there was no room.
            if let Err(error) = self.take_frames() {
                return Poll::Ready(format!("it sent {error}"));
            }
            if !self.may_read() {
                // Comes back when it has written.
                return Poll::Pending;
            }
            match ready!(self.link.poll_fill(cx)) {
                Ok(0) => return Poll::Ready("it has closed the connection".to_owned()),
                Ok(_) => self.heard = Instant::now(),
                Err(error) => return Poll::Ready(format!("reading: {error}")),
            }
        }
    }

    fn take_frames(&mut self) -> Result<(), FrameError> {
        while self.may_read()
            && let Some((frame, size)) = frame::decode(self.link.unread())?
        {
            let id = frame.id;
            match frame.kind {
                Kind::Ask => {
                    let message = self.assembly.last(id, frame.payload)?;
                    self.begin(id, message);
                }
                Kind::AskPart => self.assembly.part(id, frame.payload)?,
                Kind::Cancel => {
                    // It may have been answered meanwhile.
                    if let Some(wait) = self.waits.remove(&id) {
                        wait.abort();
                    }
                }
                Kind::Ping => self.outbox.signal(Kind::Pong, 0),
                Kind::Pong => {}
                kind @ (Kind::Answer
                | Kind::AnswerPart
                | Kind::Piece
                | Kind::End
                | Kind::Broken) => return Err(FrameError::Misplaced(kind)),
            }
            self.link.consume(size);
        }
        Ok(())
    }

    fn begin(&mut self, id: u32, message: Vec<u8>) {
        let work = match self.protocol {
            Protocol::Log => Work::Log(self.serve.log_message(Bytes::from(message))),
            Protocol::Requests | Protocol::Snapshot => {
                let (hop, request) = match compact::from_slice::<(Hop, Request)>(&message) {
                    Ok(asked) => asked,
                    Err(error) => {
                        let text = format!("this server does not understand the request: {error}");
                        return self.refuse(id, Error::Internal(text));
                    }
                };
                if let Err(error) = self.admit() {
                    return self.refuse(id, error);
                }
                let waits = matches!(&request, Request::Read(_, options) if options.index > 0);
                let answer = self.serve.serve(hop, request);
                if waits {
                    let (handle, registration) = AbortHandle::new_pair();
                    self.waits.insert(id, handle);
                    Work::Wait(Abortable::new(answer, registration))
                } else {
                    Work::Request(answer)
                }
            }
        };
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.running.push(Running {
            id,
            work: AssertUnwindSafe(work).catch_unwind(),
            shared: Arc::clone(&self.shared),
        });
    }

    /// Beyond the bounds requests are refused, which their askers can tell from a failure.
    fn admit(&self) -> Result<(), Error> {
        let is_full = self.running.len() >= calls_max(self.protocol)
            || self.shared.requests.load(Ordering::Relaxed) >= self.shared.requests_max;
        if is_full {
            return Err(Error::Unavailable(
                "this server answers too many requests at once".to_owned(),
            ));
        }
        Ok(())
    }

    fn refuse(&mut self, id: u32, error: Error) {
        self.answer(id, &Err(Refusal::Failed(error)));
    }

    /// Encodes an answer, only now that there is room: until then it shares its rows with the state.
    fn answer(&mut self, id: u32, answer: &Result<Response, Refusal>) {
        let answer_max = self.protocol.answer_max();
        let encoded = self.outbox.encoded(ANSWER, id, |out| {
            let start = out.len();
            compact::append(out, answer).map_err(|error| error.to_string())?;
            if out.len() - start > answer_max {
                return Err(format!("the answer is longer than {answer_max} bytes"));
            }
            Ok(())
        });
        if let Err(text) = encoded {
            let refusal: Result<Response, Refusal> = Err(Refusal::Failed(Error::Internal(text)));
            // A text can always be encoded; if not, the asker's deadline ends the call.
            let _ = (self.outbox).encoded(ANSWER, id, |out| compact::append(out, &refusal));
        }
    }

    /// Goes on with what was begun, while the peer takes the answers; true if something has ended.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_gone_on = false;
        while self.has_outlet()
            && let Poll::Ready(Some((id, answer))) = self.running.poll_next_unpin(cx)
        {
            has_gone_on = true;
            self.waits.remove(&id);
            match answer {
                Some(Answer::Request(answer)) => self.answer(id, &answer),
                Some(Answer::Log(answer)) => {
                    self.outbox.message(ANSWER, id, answer);
                }
                Some(Answer::Cancelled) => {}
                None => {
                    tracing::error!("a request from another member made its handler panic");
                    if self.protocol != Protocol::Log {
                        let text = "this server failed to answer".to_owned();
                        self.refuse(id, Error::Internal(text));
                    }
                }
            }
        }
        has_gone_on
    }

    /// Writes all there is; true if there was something, so that there may be room for more now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let mut has_written = false;
        loop {
            if self.link.is_drained() {
                self.moved = Instant::now();
                if self.outbox.is_empty() {
                    ready!(self.link.poll_drain(cx))?;
                    return Poll::Ready(Ok(has_written));
                }
                let next = self.outbox.next(|_, _| {});
                self.link.load(next);
                has_written = true;
            }
            let before = self.link.written();
            let drained = self.link.poll_drain(cx);
            if self.link.written() > before {
                self.moved = Instant::now();
            }
            ready!(drained)?;
        }
    }

    fn look_at_deadlines(&mut self) -> Option<String> {
        let now = Instant::now();
        self.tick.as_mut().reset(now + TICK);
        if now.duration_since(self.moved) >= STALL_MAX && !self.link.is_drained() {
            return Some("it does not take its answers".to_owned());
        }
        let silence = now.duration_since(self.heard);
        if self.running.is_empty() && self.outbox.is_empty() {
            self.link.rest();
            self.outbox.rest();
            return (silence >= IDLE_MAX).then(|| "it was silent for too long".to_owned());
        }
        // While its answers wait for it, nothing is read, and it can't be heard.
        (silence >= SILENCE_MAX && self.has_outlet()).then(|| "it gives no sign of life".to_owned())
    }
}
