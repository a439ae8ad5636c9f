//! The one task that owns the state of the pool: all waiting in one place, all change in another.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{Config, StartError};
use crate::handle::{View, Wish};
use crate::network::{Network, NetworkFuture};

/// Makes the task of a member.
pub(crate) fn start(
    config: Config,
    network: Arc<dyn Network>,
    view: Arc<View>,
    mut wishes: mpsc::Receiver<Wish>,
) -> Result<NetworkFuture<'static, ()>, StartError> {
    let _ = (config, view);
    let runner = Arc::clone(&network);
    Ok(runner.run(Box::pin(async move {
        while let Some(wish) = wishes.recv().await {
            if let Wish::Shutdown { answer } = wish {
                network.close().await;
                let _ = answer.send(());
                return;
            }
        }
    })))
}
