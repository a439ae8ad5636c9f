//! Threads that answer HTTP beside the one that runs everything.

use std::sync::Arc;
use std::thread;

use api::http::{Engine, Listener};
use tokio::sync::{oneshot, watch};

/// The threads that were started.
pub(super) struct Helpers(Vec<thread::JoinHandle<()>>);

impl Helpers {
    /// On a small machine one thread does it all, which saves handing requests over.
    pub(super) fn start(
        engine: &Arc<Engine<Arc<api::Api>>>,
        listeners: &[Listener],
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let helpers = (cores / 2).saturating_sub(1).min(7);
        let start = |number| {
            let (engine, listeners, mut stopped) =
                (Arc::clone(engine), listeners.to_vec(), stopped.clone());
            let work = move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let until = async move {
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                let served =
                    runtime.and_then(|runtime| runtime.block_on(engine.serve(listeners, until)));
                if let Err(error) = served {
                    tracing::error!("a thread for HTTP ended: {error}");
                }
            };
            thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(work)
        };
        let started = (1..=helpers).filter_map(|number| start(number).ok());
        Self(started.collect())
    }

    /// Waits until they have ended.
    ///
    /// Not on the caller's thread, which still has to carry out what they are waiting for, and not on one of the runtime's
    /// pool, where slow readers of snapshots may hold all places.
    pub(super) async fn join(self) {
        let (ended, all_ended) = oneshot::channel();
        let wait = move || {
            for helper in self.0 {
                if helper.join().is_err() {
                    tracing::error!("a thread for HTTP panicked");
                }
            }
            // Whoever asked twice to stop doesn't wait any more.
            let _ = ended.send(());
        };
        if thread::Builder::new().spawn(wait).is_ok() {
            let _ = all_ended.await;
        }
    }
}
