//! One connection from a member, from the answering side: reads requests, runs them side by side, and writes the answers.
//!
//! All happens in one task, so a request costs no hand-over.
//! While the peer does not take its answers, nothing more is read and no question goes on that was begun, so what waits for it in memory stays small.
//! All else goes on: a command holds a place that all share until it is carried out, and whoever stops reading must not keep it from others.

use std::collections::{BTreeMap, VecDeque};
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
use crate::sources::Rooms;
use crate::{Hop, Refusal, Request, Response, Serve};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(5);

/// An asking side that waits for something says so every few seconds; one that is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An asking side closes what it does not need long before this, so no request is on its way when the connection is closed from here.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// An asking side connects because it has something to ask, so one that asks nothing is gone, or wants nothing but the place.
const UNASKED_MAX: Duration = Duration::from_secs(10);

/// Twice what the asking side allows itself.
fn calls_max(protocol: Protocol) -> usize {
    protocol.calls_max() * 2
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Requests that are being answered.
    pub(crate) requests: AtomicUsize,
    pub(crate) requests_max: usize,
}

/// Answers what comes over a connection until it ends, and says why it did.
///
/// Its requests share these rooms with those of other connections from the same source.
pub(crate) async fn run<T>(
    io: T,
    protocol: Protocol,
    serve: Arc<dyn Serve>,
    shared: Arc<Shared>,
    rooms: Rooms,
) -> String
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    // Messages of the log can't be refused, so what they take is only counted, and bounds what is read.
    let running_bytes = match protocol {
        Protocol::Log => Room::new(usize::MAX),
        Protocol::Requests | Protocol::Snapshot => rooms.running,
    };
    let mut answering = Answering {
        protocol,
        link: Link::new(io),
        outbox: Outbox::default(),
        asked: FuturesUnordered::new(),
        running: FuturesUnordered::new(),
        finished: VecDeque::new(),
        waits: BTreeMap::new(),
        assembly: Assembly::new(protocol.ask_max(), rooms.unfinished),
        serve,
        shared,
        running_bytes,
        has_asked: false,
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
    /// Questions. Their answers may be long, and there may be many: they wait while there is no room for them.
    asked: FuturesUnordered<Running>,
    /// All else, whose answers are short.
    running: FuturesUnordered<Running>,
    /// Answers from `running` for which there was no room yet.
    finished: VecDeque<Finished>,
    /// Requests that may wait for long, so that their asker may take them back.
    waits: BTreeMap<u32, AbortHandle>,
    assembly: Assembly,
    serve: Arc<dyn Serve>,
    shared: Arc<Shared>,
    /// Of requests that are being answered.
    running_bytes: Arc<Room>,
    /// Whether anything was ever asked.
    has_asked: bool,
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
    /// Until it has ended.
    place: Option<Place>,
}

/// A request that was answered.
struct Finished {
    id: u32,
    /// `None` if the work panicked.
    answer: Option<Answer>,
    _place: Option<Place>,
}

/// What a request has of what is shared, from its arrival until its answer is encoded.
struct Place {
    shared: Arc<Shared>,
    room: Arc<Room>,
    size: usize,
}

impl Place {
    /// Takes so many bytes, if there are so many left.
    fn take(shared: &Arc<Shared>, room: &Arc<Room>, size: usize) -> Option<Self> {
        if !room.take(size) {
            return None;
        }
        shared.requests.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            shared: Arc::clone(shared),
            room: Arc::clone(room),
            size,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.give_back(self.size);
        self.shared.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Work {
    Request(BoxFuture<'static, Result<Response, Refusal>>),
    Wait(Abortable<BoxFuture<'static, Result<Response, Refusal>>>),
    Log(BoxFuture<'static, Bytes>),
}

impl Running {
    fn new(id: u32, work: Work, place: Option<Place>) -> Self {
        Self {
            id,
            work: AssertUnwindSafe(work).catch_unwind(),
            place,
        }
    }
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
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let done = ready!(self.work.poll_unpin(cx));
        Poll::Ready(Finished {
            id: self.id,
            answer: done.ok(),
            _place: self.place.take(),
        })
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
        // The log's messages can't be refused, so beyond their bounds they wait in the socket.
        let has_room = self.protocol != Protocol::Log
            || (self.count() < calls_max(Protocol::Log)
                && self.running_bytes.taken() < Protocol::Log.queue_max());
        has_room && self.has_outlet()
    }

    /// How many requests have no answer on its way yet.
    fn count(&self) -> usize {
        self.asked.len() + self.running.len() + self.finished.len()
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
        self.has_asked = true;
        let size = message.len();
        if self.protocol == Protocol::Log {
            let place = Place::take(&self.shared, &self.running_bytes, size);
            let work = Work::Log(self.serve.log_message(Bytes::from(message)));
            self.running.push(Running::new(id, work, place));
            return;
        }
        // Before it is decoded, which may make more of it.
        let place = match self.admit(size) {
            Ok(place) => place,
            Err(error) => return self.refuse(id, error),
        };
        let (hop, request) = match compact::from_slice::<(Hop, Request)>(&message) {
            Ok(asked) => asked,
            Err(error) => {
                let text = format!("this server does not understand the request: {error}");
                return self.refuse(id, Error::Internal(text));
            }
        };
        let (is_question, waits) = match &request {
            Request::Read(_, options) => (true, options.index > 0),
            Request::Write(..) | Request::Operate(..) | Request::Ping => (false, false),
        };
        let answer = self.serve.serve(hop, request);
        let work = if waits {
            let (handle, registration) = AbortHandle::new_pair();
            self.waits.insert(id, handle);
            Work::Wait(Abortable::new(answer, registration))
        } else {
            Work::Request(answer)
        };
        let running = Running::new(id, work, Some(place));
        if is_question {
            self.asked.push(running);
        } else {
            self.running.push(running);
        }
    }

    /// Beyond the bounds requests are refused, which their askers can tell from a failure.
    fn admit(&self, size: usize) -> Result<Place, Error> {
        let is_full = self.count() >= calls_max(self.protocol)
            || self.shared.requests.load(Ordering::Relaxed) >= self.shared.requests_max;
        if is_full {
            return Err(Error::Unavailable(
                "this server answers too many requests at once".to_owned(),
            ));
        }
        Place::take(&self.shared, &self.running_bytes, size).ok_or_else(|| {
            Error::Unavailable("this server answers too many long requests at once".to_owned())
        })
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

    /// Goes on with what was begun; true if something has ended or was answered.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_gone_on = false;
        while let Poll::Ready(Some(finished)) = self.running.poll_next_unpin(cx) {
            has_gone_on = true;
            self.finished.push_back(finished);
        }
        while self.has_outlet() {
            let next = self.finished.pop_front();
            let Some(finished) = next.or_else(|| match self.asked.poll_next_unpin(cx) {
                Poll::Ready(finished) => finished,
                Poll::Pending => None,
            }) else {
                break;
            };
            has_gone_on = true;
            self.finish(finished);
        }
        has_gone_on
    }

    /// Queues the answer.
    fn finish(&mut self, finished: Finished) {
        let id = finished.id;
        self.waits.remove(&id);
        match finished.answer {
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
        if self.count() == 0 && self.outbox.is_empty() && self.assembly.is_empty() {
            self.link.rest();
            self.outbox.rest();
            let silence_max = if self.has_asked {
                IDLE_MAX
            } else {
                UNASKED_MAX
            };
            return (silence >= silence_max).then(|| "it was silent for too long".to_owned());
        }
        // While its answers wait for it, nothing is read, and it can't be heard.
        (silence >= SILENCE_MAX && self.has_outlet()).then(|| "it gives no sign of life".to_owned())
    }
}
