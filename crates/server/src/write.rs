//! The write pipeline: route, authorise, settle, propose.

use bytes::Bytes;
use consensus::ProposeError;
use model::{ApplyResult, Command, Entry, Error, Reply};
use rpc::WriteOptions;
use tokio::time::{Duration, Instant};

use crate::access::authorise;
use crate::core::Core;
use crate::settle;

/// How long to wait before a command that reached no log is proposed again.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Carries out a command; when it returns, the effect is durable.
pub(crate) async fn write(
    core: &Core,
    mut command: Command,
    options: WriteOptions,
) -> Result<Reply, Error> {
    core.route(&options.datacenter)?;
    core.hold_for_leader().await?;
    authorise(
        &core.config,
        &core.shared.view(),
        &options.token,
        command.need(),
    )?;
    settle::settle(core, &mut command)?;
    let is_of_the_catalog = matches!(command, Command::Register(_) | Command::Deregister(_));
    match propose(core, command).await {
        // The original does not tell its clients what the catalog refuses, because it drops that answer of its state
        // machine; clients have come to rely on their 200.
        Err(error @ (Error::Invalid(_) | Error::NotFound(_))) if is_of_the_catalog => {
            tracing::warn!("a registration had no effect: {error}");
            Ok(Reply::Nothing)
        }
        result => result,
    }
}

/// Puts a settled command into the log and waits for its reply.
///
/// It is proposed again only if it provably reached no log.
pub(crate) async fn propose(core: &Core, command: Command) -> Result<Reply, Error> {
    let entry = Entry {
        at_ms: core.now_ms(),
        command,
    };
    let bytes = wire::compact::to_vec(&entry)
        .map_err(|error| Error::Internal(format!("cannot encode a command: {error}")))?;
    drop(entry);
    let bytes = Bytes::from(bytes);
    let deadline = Instant::now() + core.config.hold_max;
    loop {
        match core.consensus.propose(bytes.clone()).await {
            Ok(proposed) => {
                return match proposed.reply.downcast::<ApplyResult>() {
                    Ok(result) => *result,
                    Err(_) => Err(Error::Internal(
                        "the state machine gave no reply".to_owned(),
                    )),
                };
            }
            Err(ProposeError::NotLeader { .. }) if Instant::now() >= deadline => {
                return Err(Error::NoLeader);
            }
            Err(ProposeError::NotLeader { .. }) => {
                // The log knew before the rest of this server did; give that a moment.
                tokio::time::sleep(RETRY_DELAY).await;
                core.hold_for_leader().await?;
            }
            Err(ProposeError::OutcomeUnknown) => return Err(Error::OutcomeUnknown),
            Err(error @ ProposeError::TooLarge { .. }) => {
                return Err(Error::Invalid(error.to_string()));
            }
            Err(ProposeError::Stopped) => {
                let why = core.consensus.status().failure;
                let why = why.map_or_else(
                    || "this server has stopped".to_owned(),
                    |why| format!("this server has stopped: {why}"),
                );
                return Err(Error::Internal(why));
            }
        }
    }
}
