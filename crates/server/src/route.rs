//! Where a request goes that the leader must see: here, to the server that leads, or on hold until there is one.
//!
//! A request that provably reached no leader's log is held for a while, since elections are usually over by then; what it waits for is news about who leads, and not the next tick of a clock.
//! A leader that is known but doesn't answer is asked again ever more slowly: a hold must not be burnt on the dead.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use consensus::{Leadership, NodeId};
use model::Error;
use rpc::{CallError, Hop, Refusal, Request, Response, ServerAddress};
use tokio::time::Instant;

use crate::core::Core;

/// How long to wait before a server that did not do it is asked again, at first and at most.
const DELAY_MIN: Duration = Duration::from_millis(25);
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Another server that leads, as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    pub(crate) id: NodeId,
    pub(crate) server: ServerAddress,
}

impl Leader {
    /// Who leads, if that is another server than `me` and can be reached at all.
    pub(crate) fn of(leadership: &Leadership, me: NodeId, datacenter: &str) -> Option<Self> {
        let peer = leadership.leader.as_ref()?;
        if peer.id == me {
            return None;
        }
        let address: SocketAddr = match peer.address.parse() {
            Ok(address) => address,
            Err(error) => {
                tracing::warn!("the leader's address {:?}: {error}", peer.address);
                return None;
            }
        };
        Some(Self {
            term: leadership.term,
            id: peer.id,
            server: ServerAddress {
                address,
                node: peer.name.clone(),
                datacenter: datacenter.to_owned(),
            },
        })
    }
}

/// Who is to do it.
pub(crate) enum Turn {
    /// This server, which leads.
    Here,
    /// That one.
    There(Arc<Leader>),
}

/// A request on its way to the leader.
pub(crate) struct Errand<'a> {
    core: &'a Core,
    hop: Hop,
    /// When it is given up; set when it first has to wait.
    deadline: Option<Instant>,
    /// The term and the server that did not do it, and when to ask that one again all the same.
    avoided: Option<(u64, NodeId, Instant)>,
    delay: Duration,
}

impl<'a> Errand<'a> {
    pub(crate) fn new(core: &'a Core, hop: Hop) -> Self {
        Self {
            core,
            hop,
            deadline: None,
            avoided: None,
            delay: DELAY_MIN,
        }
    }

    /// Who is to do it, as soon as that is known.
    pub(crate) async fn turn(&mut self) -> Result<Turn, Refusal> {
        if self.avoided.is_none()
            && let Some(turn) = self.look()?
        {
            return Ok(turn);
        }
        let deadline = self.deadline();
        loop {
            let mut news = pin!(self.core.leader_changed.notified());
            // Enrolled before looking, so that nothing slips in between.
            news.as_mut().enable();
            let now = Instant::now();
            if now >= deadline {
                return Err(match self.hop {
                    Hop::First => Refusal::Failed(Error::NoLeader),
                    Hop::Forwarded => Refusal::NotLeader,
                });
            }
            let mut until = deadline;
            if let Some(turn) = self.look()? {
                match self.avoided {
                    Some((term, id, at)) if self.is_same(&turn, term, id) && now < at => {
                        until = until.min(at);
                    }
                    _ => return Ok(turn),
                }
            }
            tokio::select! {
                biased;
                () = news => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Who is to do it, if that is known now.
    fn look(&self) -> Result<Option<Turn>, Refusal> {
        if self.core.leads() {
            return Ok(Some(Turn::Here));
        }
        match self.hop {
            Hop::First => Ok(self.core.leader().map(Turn::There)),
            Hop::Forwarded if self.core.is_elected() => Ok(None),
            Hop::Forwarded => Err(Refusal::NotLeader),
        }
    }

    fn is_same(&self, turn: &Turn, term: u64, id: NodeId) -> bool {
        match turn {
            Turn::Here => (term, id) == (self.core.term(), self.core.consensus.id()),
            Turn::There(leader) => (term, id) == (leader.term, leader.id),
        }
    }

    /// Whoever had its turn did not do it, and nothing was done.
    pub(crate) fn failed(&mut self, turn: &Turn) {
        let (term, id) = match turn {
            Turn::Here => (self.core.term(), self.core.consensus.id()),
            Turn::There(leader) => (leader.term, leader.id),
        };
        let is_same = self
            .avoided
            .is_some_and(|(before, who, _)| (before, who) == (term, id));
        self.delay = if is_same {
            (self.delay * 2).min(DELAY_MAX)
        } else {
            DELAY_MIN
        };
        self.avoided = Some((term, id, Instant::now() + self.delay));
        self.deadline();
    }

    /// It was being attended to for a while, so that waiting for another leader begins anew.
    pub(crate) fn was_attended(&mut self) {
        self.deadline = None;
    }

    fn deadline(&mut self) -> Instant {
        let hold_max = self.core.config.hold_max;
        *self
            .deadline
            .get_or_insert_with(|| Instant::now() + hold_max)
    }
}

/// Who is to do what is not held while there is no leader; one that was elected and has to catch up is waited for all the same.
pub(crate) async fn at_once(core: &Core, hop: Hop) -> Result<Turn, Refusal> {
    if core.leads() {
        return Ok(Turn::Here);
    }
    if core.is_elected() {
        return Errand::new(core, Hop::Forwarded).turn().await;
    }
    match (hop, core.leader()) {
        (Hop::First, Some(leader)) if core.knows_leader() => Ok(Turn::There(leader)),
        (Hop::First, _) => Err(Refusal::Failed(Error::NoLeader)),
        (Hop::Forwarded, _) => Err(Refusal::NotLeader),
    }
}

/// What a call to the leader came to.
pub(crate) enum Forwarded {
    /// It answered.
    Answered(Response),
    /// It provably did nothing.
    NotDone,
    /// It may have been done.
    Broken,
}

/// Asks the leader to answer a question: as soon as another one is known, or none, the first is not waited for any more.
pub(crate) async fn ask(
    core: &Core,
    leader: &Leader,
    request: Request,
) -> Result<Forwarded, Refusal> {
    let call = core.calls.call(&leader.server, Hop::Forwarded, request);
    tokio::select! {
        biased;
        answer = call => judge(leader, answer),
        () = core.deposed(leader) => Ok(Forwarded::Broken),
    }
}

/// Asks the leader to change something. One that was deposed meanwhile may still know what became of it, so it gets some time to say so.
pub(crate) async fn instruct(
    core: &Core,
    leader: &Leader,
    request: Request,
) -> Result<Forwarded, Refusal> {
    let mut call = core.calls.call(&leader.server, Hop::Forwarded, request);
    let too_late = async {
        core.deposed(leader).await;
        tokio::time::sleep(core.config.hold_max).await;
    };
    tokio::select! {
        biased;
        answer = &mut call => judge(leader, answer),
        () = too_late => Ok(Forwarded::Broken),
    }
}

fn judge(leader: &Leader, answer: Result<Response, CallError>) -> Result<Forwarded, Refusal> {
    match answer {
        Ok(response) => Ok(Forwarded::Answered(response)),
        Err(CallError::Refused(Refusal::Failed(error))) => Err(Refusal::Failed(error.from_afar())),
        Err(error @ (CallError::NotSent(_) | CallError::Refused(Refusal::NotLeader))) => {
            tracing::debug!(
                "not done by the leader at {}: {error}",
                leader.server.address
            );
            Ok(Forwarded::NotDone)
        }
        Err(error @ CallError::Broken(_)) => {
            tracing::debug!(
                "no answer from the leader at {}: {error}",
                leader.server.address
            );
            Ok(Forwarded::Broken)
        }
    }
}

/// For an answer of another kind than the request: the other server is of another mind about the protocol.
pub(crate) fn absurd() -> Refusal {
    Refusal::Failed(Error::Internal(
        "a server answered another question".to_owned(),
    ))
}

/// What a failed transfer of a snapshot means to whoever asked for it; such are not held.
pub(crate) fn transfer_error(error: CallError) -> Refusal {
    Refusal::Failed(match error {
        CallError::Refused(Refusal::NotLeader) => Error::NoLeader,
        CallError::Refused(Refusal::Failed(error)) => error.from_afar(),
        CallError::NotSent(text) | CallError::Broken(text) => Error::Unavailable(text).from_afar(),
    })
}
