//! Who spawns, joins: the tasks and threads of one member.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::disk::{Disk, Workers};

/// The tasks and threads of one member.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tasks: Mutex<JoinSet<()>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Tasks {
    /// Runs a future until it ends by itself or the member is dropped.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(future);
    }

    /// Runs a thread that ends by itself when the member shuts down.
    pub(crate) fn thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let handle = thread::Builder::new().name(String::from(name)).spawn(run)?;
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(handle);
        Ok(())
    }

    /// Waits for all of them; each has been told to end before.
    pub(crate) async fn join(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in threads {
            if handle.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

/// Tells all tasks of a member to end. Clones are the same signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    state: Arc<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    is_stopped: AtomicBool,
    stopped: Notify,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.state.is_stopped.store(true, Ordering::Release);
        self.state.stopped.notify_waiters();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.is_stopped.load(Ordering::Acquire)
    }

    /// Returns when the signal was given.
    pub(crate) async fn stopped(&self) {
        let mut stopped = pin!(self.state.stopped.notified());
        stopped.as_mut().enable();
        if !self.is_stopped() {
            stopped.await;
        }
    }
}

/// Runs blocking work as the disk wants it: on a thread of its own, or right here.
///
/// The work isn't stopped when the future is dropped; it ends by itself.
pub(crate) async fn blocking<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match disk.workers() {
        Workers::Tasks => work(),
        Workers::Threads => {
            let (done, outcome) = oneshot::channel();
            let run = move || {
                // Nobody may be waiting any more.
                let _ = done.send(work());
            };
            thread::Builder::new()
                .name(String::from("disk"))
                .spawn(run)?;
            outcome
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the work panicked")))
        }
    }
}
