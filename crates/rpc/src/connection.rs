//! One connection to a server, from the asking side: many calls at a time, their frames gathered into few writes.
//!
//! Callers put frames into the connection's outbox and wait for their answer; one task does all reading and writing.
//! The task counts what the stream has taken, so that the end of a connection tells each of its calls apart: a call whose last byte never left was provably not sent.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::CallError;
use crate::frame::{self, Assembly, FrameError, Kind, Room};
use crate::link::{Link, Outbox};
use crate::protocol::{ASK, Protocol, SIGN_WAIT, SILENCE_MAX};

/// How often deadlines are looked at while there are calls.
const TICK: Duration = Duration::from_secs(1);

/// How often a connection without calls looks whether it has been idle for too long.
const IDLE_TICK: Duration = Duration::from_secs(30);

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Connection {
    protocol: Protocol,
    state: Mutex<State>,
    /// Of the task that drives it.
    task: AtomicWaker,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    calls: BTreeMap<u32, Call>,
    next: u32,
    /// Since when there have been calls without a break.
    busy_since: Instant,
    is_connected: bool,
    is_stopping: bool,
    closed: Option<Closed>,
}

/// A call that waits for its answer.
#[derive(Debug)]
struct Call {
    answer: oneshot::Sender<Result<Bytes, CallError>>,
    deadline: Instant,
    /// Where its last byte stands among all that is written; unknown while a long one goes out in parts.
    end: u64,
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) at: Instant,
    /// What callers are told, or nothing if it just was not needed any more.
    pub(crate) why: String,
    /// Whether there ever was a connection.
    pub(crate) was_connected: bool,
}

/// Why a call could not be put on a connection.
#[derive(Debug)]
pub(crate) enum AskError {
    /// The connection has ended; another may be made.
    Closed,
    /// There is no room; the text says of what.
    Full(String),
}

impl Connection {
    /// A connection on which calls may be put already, although somebody has yet to drive it by [`run`].
    pub(crate) fn new(protocol: Protocol) -> Arc<Self> {
        let mut outbox = Outbox::default();
        outbox.raw(&protocol.preface());
        Arc::new(Self {
            protocol,
            state: Mutex::new(State {
                outbox,
                calls: BTreeMap::new(),
                next: 1,
                busy_since: Instant::now(),
                is_connected: false,
                is_stopping: false,
                closed: None,
            }),
            task: AtomicWaker::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message and waits for the answer; dropping the future forgets the call.
    pub(crate) fn ask(
        self: &Arc<Self>,
        message: Bytes,
        deadline: Instant,
        on_drop: OnDrop,
    ) -> Result<Asked, AskError> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        if state.closed.is_some() || state.is_stopping {
            return Err(AskError::Closed);
        }
        let calls_max = self.protocol.calls_max();
        if state.calls.len() >= calls_max {
            let text = format!("{calls_max} calls wait for this server already");
            return Err(AskError::Full(text));
        }
        let queue_max = self.protocol.queue_max();
        if state.outbox.len() + message.len() > queue_max {
            let text = format!("{queue_max} bytes wait to be sent to this server already");
            return Err(AskError::Full(text));
        }
        // After four billion calls numbers come again; one may still be waiting.
        while state.next == 0 || state.calls.contains_key(&state.next) {
            state.next = state.next.wrapping_add(1);
        }
        let id = state.next;
        state.next = id.wrapping_add(1);
        if state.calls.is_empty() {
            state.busy_since = Instant::now();
        }
        let end = state.outbox.message(ASK, id, message);
        let call = Call {
            answer,
            deadline,
            end: end.unwrap_or(u64::MAX),
        };
        state.calls.insert(id, call);
        drop(state);
        self.task.wake();
        Ok(Asked {
            connection: Arc::clone(self),
            id,
            answered,
            on_drop,
            is_done: false,
        })
    }

    /// How it ended, if it has.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.lock().closed.clone()
    }

    /// Ends it; its calls fail.
    pub(crate) fn stop(&self) {
        self.lock().is_stopping = true;
        self.task.wake();
    }

    fn forget(&self, id: u32, on_drop: OnDrop) {
        let mut state = self.lock();
        let was_waiting = state.calls.remove(&id).is_some();
        if was_waiting && on_drop == OnDrop::Cancel && state.closed.is_none() {
            state.outbox.signal(Kind::Cancel, id);
            drop(state);
            self.task.wake();
        }
    }

    /// Tells every call how it ended.
    fn close(&self, why: &str, written: u64) {
        let mut state = self.lock();
        let calls = std::mem::take(&mut state.calls);
        state.outbox = Outbox::default();
        state.closed = Some(Closed {
            at: Instant::now(),
            why: why.to_owned(),
            was_connected: state.is_connected,
        });
        drop(state);
        for call in calls.into_values() {
            let error = if call.end <= written {
                CallError::Broken(why.to_owned())
            } else {
                CallError::NotSent(why.to_owned())
            };
            let _ = call.answer.send(Err(error));
        }
    }
}

/// What becomes of a call whose caller goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDrop {
    /// The server stops waiting.
    Cancel,
    /// The server goes on; its answer is thrown away.
    Ignore,
}

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Asked {
    connection: Arc<Connection>,
    id: u32,
    answered: oneshot::Receiver<Result<Bytes, CallError>>,
    on_drop: OnDrop,
    is_done: bool,
}

impl Future for Asked {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = ready!(Pin::new(&mut self.answered).poll(cx));
        self.is_done = true;
        // The sender lives in the connection, which answers all that it drops.
        let gone = || Err(CallError::Broken("the connection is gone".to_owned()));
        Poll::Ready(answered.unwrap_or_else(|_| gone()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.forget(self.id, self.on_drop);
        }
    }
}

/// Closes a connection whatever ends its task: an error, a panic, the end of the runtime.
struct Ending {
    connection: Arc<Connection>,
    why: String,
    written: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.connection.close(&self.why, self.written);
    }
}

/// Connects by `dial` and serves the calls on the connection until it breaks, or has been idle for so long.
pub(crate) async fn run<T, D>(connection: Arc<Connection>, dial: D, idle_max: Duration)
where
    T: AsyncRead + AsyncWrite + Unpin,
    D: Future<Output = Result<T, String>>,
{
    let mut ending = Ending {
        connection: Arc::clone(&connection),
        why: "this agent is stopping".to_owned(),
        written: 0,
    };
    let stopped = std::future::poll_fn(|cx| {
        connection.task.register(cx.waker());
        if connection.lock().is_stopping {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let dialled = tokio::select! {
        biased;
        () = stopped => return,
        dialled = dial => dialled,
    };
    let io = match dialled {
        Ok(io) => io,
        Err(why) => {
            ending.why = why;
            return;
        }
    };
    connection.lock().is_connected = true;
    let room = Room::new(usize::MAX);
    let mut driver = Driver {
        link: Link::new(io),
        assembly: Assembly::new(connection.protocol.answer_max(), room),
        idle_max,
        heard: Instant::now(),
        is_asked: false,
        is_slow: false,
        tick: Box::pin(tokio::time::sleep(TICK)),
        ending,
        connection,
    };
    let why = std::future::poll_fn(|cx| {
        let polled = driver.poll(cx);
        // Also if the task is dropped before it ends by itself.
        driver.ending.written = driver.link.written();
        polled
    })
    .await;
    driver.ending.why = why;
}

/// The task of a connection.
struct Driver<T> {
    connection: Arc<Connection>,
    link: Link<T>,
    assembly: Assembly,
    idle_max: Duration,
    /// When the server was last heard of.
    heard: Instant,
    /// Whether it was asked for a sign of life since.
    is_asked: bool,
    /// Whether the next tick is an idle one.
    is_slow: bool,
    tick: Pin<Box<Sleep>>,
    ending: Ending,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Goes on as far as it can; ready with the reason when the connection is at its end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.connection.task.register(cx.waker());
        if let Poll::Ready(why) = self.poll_read(cx) {
            return Poll::Ready(why);
        }
        if let Poll::Ready(why) = self.poll_write(cx) {
            return Poll::Ready(why);
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            if let Some(why) = self.look_at_deadlines() {
                return Poll::Ready(why);
            }
            // What it may have queued has to go out.
            if let Poll::Ready(why) = self.poll_write(cx) {
                return Poll::Ready(why);
            }
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if self.link.is_drained() {
                let mut guard = self.connection.lock();
                let state = &mut *guard;
                if state.is_stopping {
                    return Poll::Ready("this agent is stopping".to_owned());
                }
                if self.is_slow && !state.calls.is_empty() {
                    self.is_slow = false;
                    self.tick.as_mut().reset(Instant::now() + TICK);
                }
                if state.outbox.is_empty() {
                    drop(guard);
                    // Flushes what is left.
                    return match self.link.poll_drain(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(broken(&error)),
                        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                    };
                }
                let State { outbox, calls, .. } = state;
                let next = outbox.next(|id, end| {
                    if let Some(call) = calls.get_mut(&id) {
                        call.end = end;
                    }
                });
                self.link.load(next);
            }
            match ready!(self.link.poll_drain(cx)) {
                Ok(()) => {}
                Err(error) => return Poll::Ready(broken(&error)),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            match ready!(self.link.poll_fill(cx)) {
                Ok(0) => return Poll::Ready("the server has closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(broken(&error)),
            }
            self.heard = Instant::now();
            self.is_asked = false;
            if let Err(error) = self.take_frames() {
                return Poll::Ready(format!("the server sent {error}"));
            }
        }
    }

    /// Gives the answers that have arrived to their callers.
    fn take_frames(&mut self) -> Result<(), FrameError> {
        while let Some((frame, size)) = frame::decode(self.link.unread())? {
            let mut pong = false;
            match frame.kind {
                Kind::Answer => {
                    let message = self.assembly.last(frame.id, frame.payload)?;
                    let call = self.connection.lock().calls.remove(&frame.id);
                    // Nobody may be waiting any more.
                    if let Some(call) = call {
                        let _ = call.answer.send(Ok(Bytes::from(message)));
                    }
                }
                Kind::AnswerPart => self.assembly.part(frame.id, frame.payload)?,
                Kind::Ping => pong = true,
                Kind::Pong => {}
                kind @ (Kind::Ask
                | Kind::AskPart
                | Kind::Cancel
                | Kind::Piece
                | Kind::End
                | Kind::Broken) => return Err(FrameError::Misplaced(kind)),
            }
            if pong {
                self.connection.lock().outbox.signal(Kind::Pong, 0);
            }
            self.link.consume(size);
        }
        Ok(())
    }

    /// Gives up what has waited for too long: calls, or the connection itself.
    fn look_at_deadlines(&mut self) -> Option<String> {
        let now = Instant::now();
        let mut late = Vec::new();
        let mut guard = self.connection.lock();
        let state = &mut *guard;
        if state.calls.is_empty() {
            let quiet_since = self.heard.max(state.busy_since);
            if now.duration_since(quiet_since) >= self.idle_max {
                // Under the same lock under which calls are put on it, so none is lost.
                state.is_stopping = true;
                return Some("the connection was not needed any more".to_owned());
            }
            state.outbox.rest();
            self.link.rest();
            self.is_slow = true;
            let wait = IDLE_TICK.min(self.idle_max);
            self.tick.as_mut().reset(now + wait);
            return None;
        }
        self.tick.as_mut().reset(now + TICK);
        let silence = now.duration_since(self.heard.max(state.busy_since));
        if silence >= SILENCE_MAX + SIGN_WAIT {
            return Some(format!(
                "no sign of life from the server for {} s",
                silence.as_secs()
            ));
        }
        if silence >= SILENCE_MAX && !self.is_asked {
            self.is_asked = true;
            state.outbox.signal(Kind::Ping, 0);
        }
        late.extend(
            state
                .calls
                .extract_if(.., |_, call| call.deadline <= now)
                .map(|(_, call)| call),
        );
        drop(guard);
        for call in late {
            // Not even if it is still in the queue: it will leave that.
            let error = CallError::Broken("the server did not answer in time".to_owned());
            let _ = call.answer.send(Err(error));
        }
        None
    }
}

fn broken(error: &std::io::Error) -> String {
    format!("the connection broke: {error}")
}
