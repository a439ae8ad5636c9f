//! The read pipeline: route, authorise, then take a view, ask, and wait on just what was asked.

use model::{Answer, Error, Filter, Question};
use rpc::{Answered, Consistency, Hop, Meta, ReadOptions, Refusal, Request, Response};
use store::Watch;
use tokio::time::{Duration, Instant};

use crate::access::{self, authorise};
use crate::core::Core;
use crate::failover;
use crate::figures;
use crate::registry;
use crate::route::{self, Errand, Forwarded, Turn};

/// A question that was attended to for so long was not turned away: if it has to look for a leader after that, its hold begins anew.
const ATTENDED: Duration = Duration::from_secs(1);

/// Answers a question; with an index, as soon as the answer has changed since.
///
/// A question changes nothing, so it is asked again as often as it takes, of whoever leads by then.
pub(crate) async fn read(
    core: &Core,
    hop: Hop,
    question: Question,
    options: ReadOptions,
) -> Result<Answered<Answer>, Refusal> {
    core.route(&options.datacenter).map_err(Refusal::Failed)?;
    let deadline = (options.index > 0).then(|| Instant::now() + options.wait);
    if options.consistency == Consistency::Stale {
        let answered = answer(core, &question, &options, deadline).await;
        return answered.map_err(Refusal::Failed);
    }
    let mut errand = Errand::new(core, hop);
    loop {
        let turn = errand.turn().await?;
        let began = Instant::now();
        match &turn {
            Turn::Here => match answer(core, &question, &options, deadline).await {
                Err(Error::NoLeader) => {}
                result => return result.map_err(Refusal::Failed),
            },
            Turn::There(leader) => {
                let options = ReadOptions {
                    wait: deadline.map_or(Duration::ZERO, |at| at.duration_since(began)),
                    ..options.clone()
                };
                let request = Request::Read(question.clone(), options);
                match route::ask(core, leader, request).await? {
                    Forwarded::Answered(Response::Read(answered)) => return Ok(answered),
                    Forwarded::Answered(_) => return Err(route::absurd()),
                    Forwarded::NotDone | Forwarded::Broken => {}
                }
            }
        }
        let now = Instant::now();
        if now - began >= ATTENDED && deadline.is_some_and(|at| now < at) {
            errand.was_attended();
        }
        errand.failed(&turn);
    }
}

/// Answers from what this server has, once that is as fresh as asked for.
///
/// [`Error::NoLeader`] means that this server can't say so, or can't any more.
async fn answer(
    core: &Core,
    question: &Question,
    options: &ReadOptions,
    deadline: Option<Instant>,
) -> Result<Answered<Answer>, Error> {
    loop {
        let began = Instant::now();
        figures::QUERIES.increment(1);
        be_fresh(core, options.consistency).await?;
        let view = core.shared.view();
        let token = registry::token(question, &view).unwrap_or(&options.token);
        let authority = match authorise(core, &view, token, question.need()).await {
            Ok(authority) => authority,
            Err(error) => {
                let answer = registry::unresolved(question, &view).ok_or(error)?;
                let meta = meta(core, view.index());
                return Ok(Answered { answer, meta });
            }
        };
        if let Some(answer) = access::told(question.guard(&authority), question.name())? {
            let meta = meta(core, view.index());
            return Ok(Answered { answer, meta });
        }
        let mut watch = if deadline.is_some() {
            Watch::on()
        } else {
            Watch::off()
        };
        let mut found = registry::ask(question, &view, &mut watch, &authority);
        let due = deadline.is_none_or(|at| Instant::now() >= at);
        if due || found.is_news(options.index) {
            figures::answered(question, &found.answer, began);
            found.answer.filter(&authority);
            core.timers.complete(&mut found.answer);
            let mut answered = Answered {
                meta: meta(core, found.index),
                answer: found.answer,
            };
            failover::go_on(core, question, options, &mut answered.answer).await;
            return Ok(answered);
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
pub(crate) async fn be_fresh(core: &Core, consistency: Consistency) -> Result<(), Error> {
    match consistency {
        Consistency::Stale => Ok(()),
        Consistency::Default if core.leads() && core.consensus.has_lease() => Ok(()),
        // Without a lease the leader asks its peers, which is what a consistent read does anyway.
        Consistency::Default | Consistency::Consistent => {
            if !core.leads() {
                return Err(Error::NoLeader);
            }
            let began = Instant::now();
            let passed = core.consensus.read_barrier().await;
            figures::note(&figures::CONSISTENT, began);
            passed.map_err(|_| Error::NoLeader)
        }
    }
}

/// How an answer from this server stands in time.
pub(crate) fn meta(core: &Core, index: model::Index) -> Meta {
    Meta {
        index,
        last_contact: core.last_contact(),
        known_leader: core.knows_leader(),
    }
}
