//! The write pipeline: route, authorise, settle, propose.

use bytes::Bytes;
use consensus::ProposeError;
use model::{ApplyResult, Command, Entry, Error, Filter, Reply};
use rpc::{Hop, Refusal, Request, Response, WriteOptions};
use tokio::time::Instant;

use crate::access::{self, authorise};
use crate::core::Core;
use crate::figures;
use crate::route::{self, Errand, Forwarded, Turn};
use crate::settle;

/// Carries out a command; when it returns, the effect is durable.
///
/// It is tried again as long as it provably reached no leader's log, and never once it may have.
pub(crate) async fn write(
    core: &Core,
    hop: Hop,
    command: Command,
    options: WriteOptions,
) -> Result<Reply, Refusal> {
    core.route(&options.datacenter).map_err(Refusal::Failed)?;
    let mut errand = Errand::new(core, hop);
    loop {
        let turn = errand.turn().await?;
        let leader = match &turn {
            Turn::Here => match write_here(core, command.clone(), &options).await {
                Err(Error::NoLeader) => {
                    errand.failed(&turn);
                    continue;
                }
                result => return result.map_err(Refusal::Failed),
            },
            Turn::There(leader) => leader,
        };
        let request = Request::Write(command.clone(), options.clone());
        match route::instruct(core, leader, request).await? {
            Forwarded::Answered(Response::Write(reply)) => return Ok(reply),
            Forwarded::Answered(_) => return Err(route::absurd()),
            Forwarded::NotDone => errand.failed(&turn),
            Forwarded::Broken => return Err(Refusal::Failed(Error::OutcomeUnknown)),
        }
    }
}

/// The same where this server leads.
async fn write_here(
    core: &Core,
    mut command: Command,
    options: &WriteOptions,
) -> Result<Reply, Error> {
    let began = Instant::now();
    let view = core.shared.view();
    let authority = authorise(core, &view, &options.token, command.need()).await?;
    let judged = command.guard(&authority, &view);
    drop(view);
    if let Some(reply) = access::told(judged, command.name())? {
        return Ok(reply);
    }
    settle::settle(core, &mut command)?;
    let is_of_the_catalog = matches!(command, Command::Register(_) | Command::Deregister(_));
    let timing = figures::accepted(&command);
    let committed = commit(core, command).await;
    if let Some(timing) = timing {
        figures::note(timing, began);
    }
    match committed? {
        // The original does not tell its clients what the catalog refuses, because it drops that answer of its state
        // machine; clients have come to rely on their 200.
        Err(error @ (Error::Invalid(_) | Error::NotFound(_))) if is_of_the_catalog => {
            tracing::warn!("a registration had no effect: {error}");
            Ok(Reply::Nothing)
        }
        Ok(mut reply) => {
            reply.filter(&authority);
            Ok(reply)
        }
        result => result,
    }
}

/// Puts a settled command into the log and waits for its reply.
///
/// [`Error::NoLeader`] means that it provably reached no log: this server does not lead any more.
pub(crate) async fn propose(core: &Core, command: Command) -> Result<Reply, Error> {
    commit(core, command).await?
}

/// The same, but what the state machine answers is apart from why it came not so far.
async fn commit(core: &Core, command: Command) -> Result<ApplyResult, Error> {
    let entry = Entry {
        at_ms: core.now_ms(),
        command,
    };
    let bytes = wire::compact::to_vec(&entry)
        .map_err(|error| Error::Internal(format!("cannot encode a command: {error}")))?;
    drop(entry);
    match core.consensus.propose(Bytes::from(bytes)).await {
        Ok(proposed) => match proposed.reply.downcast::<ApplyResult>() {
            Ok(result) => Ok(*result),
            Err(_) => Err(Error::Internal(
                "the state machine gave no reply".to_owned(),
            )),
        },
        // Nothing was written. If this server has stopped, another may lead by now.
        Err(ProposeError::NotLeader { .. } | ProposeError::Stopped) => Err(Error::NoLeader),
        Err(ProposeError::OutcomeUnknown) => Err(Error::OutcomeUnknown),
        Err(error @ ProposeError::TooLarge { .. }) => Err(Error::Invalid(error.to_string())),
    }
}
