//! What a face may want that only the whole program can do.

use tokio::sync::oneshot;

/// A wish, with the way back for its outcome.
#[derive(Debug)]
pub enum Wish {
    /// Leave the cluster, then stop.
    Leave(oneshot::Sender<Result<(), String>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
}
