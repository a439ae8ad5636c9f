//! A process of the operating system, as far as the simulation needs one: it can be stopped, go on, and be killed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::words;

/// Clones are the same process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Which; no two have the same.
    pub(crate) number: u32,
    /// The machine that it runs on.
    pub(crate) machine: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    is_dead: bool,
    /// Who waits until it goes on, in that order.
    waiting: Vec<Waker>,
}

impl Process {
    pub(crate) fn new(number: u32, machine: usize) -> Self {
        Self {
            number,
            machine,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It does nothing until [`Self::go_on`].
    pub(crate) fn stop(&self) {
        self.state().is_stopped = true;
    }

    pub(crate) fn go_on(&self) {
        let waiting = {
            let mut state = self.state();
            state.is_stopped = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// It never does anything again.
    pub(crate) fn kill(&self) {
        self.state().is_dead = true;
    }

    /// Returns when it does something; never, if it is dead.
    pub(crate) async fn awake(&self) {
        std::future::poll_fn(|context| self.poll_awake(context)).await;
    }

    fn poll_awake(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_dead {
            return Poll::Pending;
        }
        if state.is_stopped {
            state.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Its work, which stands still when it does.
    pub(crate) fn run<F: Future>(&self, work: F) -> Running<F> {
        Running {
            process: self.clone(),
            work: Box::pin(work),
        }
    }
}

/// What a process does.
pub(crate) struct Running<F> {
    process: Process,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Running<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.process.poll_awake(context).is_pending() {
            return Poll::Pending;
        }
        let number = self.process.number;
        words::speak(number, || self.work.as_mut().poll(context))
    }
}
