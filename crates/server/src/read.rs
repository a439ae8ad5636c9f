//! The read pipeline: route, authorise, then take a view, ask, and wait on just what was asked.

use model::{Answer, Error, Filter, Question};
use rpc::{Answered, Consistency, Meta, ReadOptions};
use store::Watch;
use tokio::time::Instant;

use crate::access::authorise;
use crate::core::Core;
use crate::registry;

/// Answers a question; with an index, as soon as the answer has changed since.
pub(crate) async fn read(
    core: &Core,
    question: Question,
    options: ReadOptions,
) -> Result<Answered<Answer>, Error> {
    core.route(&options.datacenter)?;
    let blocking = options.index > 0;
    let deadline = blocking.then(|| Instant::now() + options.wait);
    loop {
        be_fresh(core, options.consistency).await?;
        let view = core.shared.view();
        let authority = authorise(&core.config, &view, &options.token, question.need())?;
        let mut watch = if blocking { Watch::on() } else { Watch::off() };
        let mut found = registry::ask(&question, &view, &mut watch);
        let due = deadline.is_none_or(|at| Instant::now() >= at);
        if due || found.is_news(options.index) {
            found.answer.filter(authority);
            return Ok(Answered {
                meta: meta(core, found.index),
                answer: found.answer,
            });
        }
        drop(found);
        // The subscription knows the view that was read: a change since then wakes it at once.
        let mut subscription = core.shared.subscribe(&view, &watch);
        drop(view);
        let deadline = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = subscription.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Returns when an answer from here is as fresh as asked for.
async fn be_fresh(core: &Core, consistency: Consistency) -> Result<(), Error> {
    match consistency {
        Consistency::Stale => Ok(()),
        Consistency::Default if core.leads() && core.consensus.has_lease() => Ok(()),
        // Without a lease the leader asks its peers, which is what a consistent read does anyway.
        Consistency::Default | Consistency::Consistent => {
            core.hold_for_leader().await?;
            core.consensus
                .read_barrier()
                .await
                .map_err(|error| match error {
                    consensus::BarrierError::NotLeader { .. }
                    | consensus::BarrierError::NoQuorum => Error::NoLeader,
                    consensus::BarrierError::Stopped => {
                        Error::Internal("this server has stopped".to_owned())
                    }
                })
        }
    }
}

/// How an answer from this server stands in time.
pub(crate) fn meta(core: &Core, index: model::Index) -> Meta {
    let leadership = core.leadership.borrow();
    Meta {
        index,
        last_contact: if leadership.is_leader {
            std::time::Duration::ZERO
        } else {
            core.consensus.status().last_contact.unwrap_or_default()
        },
        known_leader: leadership.leader.is_some(),
    }
}
