//! Reads an archive to its end while it passes by.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Checking;
use crate::pipe::to_thread;
use crate::stores::Content;
use crate::{Proof, Unreadable};

/// What reads an archive, and comes to a judgement.
type Work = Box<dyn FnOnce(Box<dyn Read + Send>) -> Result<Proof, Unreadable> + Send>;

/// Somebody who reads an archive that passes by.
pub(super) enum Checker {
    Thread(JoinHandle<Result<Proof, Unreadable>>),
    InPlace {
        archive: Arc<Mutex<BytesMut>>,
        work: Work,
    },
}

/// The end into which the pieces of the archive go; dropped, there are no more.
enum Entrance {
    Thread(mpsc::Sender<Bytes>),
    InPlace(Arc<Mutex<BytesMut>>),
}

impl Entrance {
    fn pass(&self, piece: &Bytes) -> impl Future<Output = ()> + Send + use<> {
        let sending = match self {
            Self::Thread(sender) => Some((sender.clone(), piece.clone())),
            Self::InPlace(all) => {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(piece);
                None
            }
        };
        async {
            if let Some((sender, piece)) = sending {
                // Who takes no more has found a fault, and says so at the end.
                let _ = sender.send(piece).await;
            }
        }
    }
}

impl Checker {
    /// Somebody who does this work, and the same archive as it is on its way past him.
    pub(super) fn watch(
        checking: Checking,
        work: impl FnOnce(Box<dyn Read + Send>) -> Result<Proof, Unreadable> + Send + 'static,
        archive: Content,
    ) -> (Self, Content) {
        let (checker, entrance) = match checking {
            Checking::OnAThread => {
                let (sender, pieces) = to_thread();
                let thread = tokio::task::spawn_blocking(move || work(Box::new(pieces)));
                (Self::Thread(thread), Entrance::Thread(sender))
            }
            Checking::InPlace => {
                let all = Arc::<Mutex<BytesMut>>::default();
                let checker = Self::InPlace {
                    archive: Arc::clone(&all),
                    work: Box::new(work),
                };
                (checker, Entrance::InPlace(all))
            }
        };
        let watched = archive.then(move |piece| {
            let passing = piece.as_ref().ok().map(|piece| entrance.pass(piece));
            async {
                if let Some(passing) = passing {
                    passing.await;
                }
                piece
            }
        });
        let watched = watched.boxed();
        (checker, watched)
    }

    /// What came of it. The archive must have been dropped, or the thread waits for more of it.
    pub(super) async fn finish(self) -> Result<Proof, Unreadable> {
        match self {
            Self::Thread(thread) => match thread.await {
                Ok(judgement) => judgement,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Only a runtime that ends gives up its threads.
                    Err(_) => std::future::pending().await,
                },
            },
            Self::InPlace { archive, work } => {
                let all =
                    std::mem::take(&mut *archive.lock().unwrap_or_else(PoisonError::into_inner));
                work(Box::new(all.reader()))
            }
        }
    }
}
