//! What a server does whose log lost its end.
//!
//! It may have acknowledged what it no longer holds. Until it holds all of its leader's log again it gives no vote, since
//! a vote compares logs, and stands in no election. A leader still counts what the server acknowledged before; so the
//! server takes nothing from a leader before it has told that leader, which then starts from what the server really
//! holds. The leader's log is complete in any case: it was elected by a majority, and a majority for a lost entry
//! shares a server with that other than this one, or this one's vote came before the loss.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::durable::{self, LOST_TAIL_FILE};
use crate::log::recover::Spot;
use crate::log::{EntryId, Log};
use crate::peer::{NodeId, Peer};
use crate::raft::codec::{Request, Response};
use crate::raft::network::{Network, to_peer};
use crate::raft::{Raft, Vote};

/// How long the leader may take to answer.
const READMIT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct LostTail {
    id: NodeId,
    raft: Raft,
    log: Log,
    network: Network,
    state: Mutex<State>,
    /// A leader that said where it is reached. The members that this server knew may have been in what it lost.
    introduced: Mutex<Option<Peer>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is missing.
    Whole,
    /// No leader knows yet.
    Outside,
    /// The leader is being told.
    Asking,
    /// The leader with this vote knows; its log ended here when it was told.
    Admitted { vote: Vote, last: Option<EntryId> },
}

impl LostTail {
    pub(crate) fn new(is_lost: bool, id: NodeId, raft: Raft, log: Log, network: Network) -> Self {
        let state = if is_lost {
            State::Outside
        } else {
            State::Whole
        };
        Self {
            id,
            raft,
            log,
            network,
            state: Mutex::new(state),
            introduced: Mutex::default(),
        }
    }

    /// Whether an earlier start wrote down that the end was lost.
    pub(crate) fn is_marked(disk: &dyn Disk) -> io::Result<bool> {
        // A damaged mark is a mark.
        Ok(!matches!(
            durable::read(disk, LOST_TAIL_FILE)?,
            durable::Read::Missing
        ))
    }

    /// Writes down that the end was lost, before it is cut off.
    pub(crate) async fn mark(disk: &dyn Disk, spot: &Spot) -> io::Result<()> {
        let content = format!("{} at offset {}: {}", spot.file, spot.offset, spot.reason);
        durable::replace(disk, LOST_TAIL_FILE, content.as_bytes()).await
    }

    /// Forgets it again.
    pub(crate) async fn unmark(log: &Log) -> io::Result<()> {
        let (done, removed) = oneshot::channel();
        log.remove(
            LOST_TAIL_FILE,
            Box::new(move |outcome| drop(done.send(outcome))),
        );
        removed
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the log is closed")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this server neither votes nor stands for election.
    pub(crate) fn is_waiting(&self) -> bool {
        *self.state() != State::Whole
    }

    /// Nobody else exists who could know better.
    pub(crate) async fn forgive(&self) -> io::Result<()> {
        if !self.is_waiting() {
            return Ok(());
        }
        Self::unmark(&self.log).await?;
        *self.state() = State::Whole;
        self.raft.runtime_config().elect(true);
        Ok(())
    }

    /// Whether entries of the leader with this vote may be taken. Tells the leader first, if it doesn't know.
    pub(crate) async fn may_append(&self, leader: Vote) -> bool {
        {
            let mut state = self.state();
            match *state {
                State::Whole => return true,
                State::Admitted { vote, .. } if vote == leader => return true,
                // One question at a time; the leader sends again.
                State::Asking => return false,
                State::Outside | State::Admitted { .. } => *state = State::Asking,
            }
        }
        let asking = Asking { lost_tail: self };
        let answer = self.ask(leader).await;
        std::mem::forget(asking);
        let mut state = self.state();
        match answer {
            Some((vote, last)) if vote == leader => {
                *state = State::Admitted { vote, last };
                true
            }
            Some(_) | None => {
                *state = State::Outside;
                false
            }
        }
    }

    /// Whether this server could reach the leader with this vote, if it has to tell it something.
    pub(crate) fn can_tell(&self, leader: Vote) -> bool {
        !self.is_waiting() || self.peer(leader).is_some()
    }

    /// A leader says where it is reached.
    pub(crate) fn introduce(&self, leader: Peer) {
        *self
            .introduced
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(leader);
    }

    fn peer(&self, leader: Vote) -> Option<Peer> {
        let id = leader.leader_id.voted_for;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let known = membership.get_node(&id).map(|node| to_peer(id, node));
        let introduced = self
            .introduced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.or_else(|| introduced.clone().filter(|peer| peer.id == id))
    }

    async fn ask(&self, leader: Vote) -> Option<(Vote, Option<EntryId>)> {
        let peer = self.peer(leader)?;
        match self
            .network
            .call(&peer, Request::Readmit { node: self.id }, READMIT_TIMEOUT)
            .await
        {
            Ok(Response::Readmit { vote, last }) => Some((vote, last)),
            Ok(_) | Err(_) => None,
        }
    }

    /// After entries or a checkpoint were taken: is everything there again?
    pub(crate) async fn check(&self) -> io::Result<()> {
        let State::Admitted { last, .. } = *self.state() else {
            return Ok(());
        };
        let holds_it = match last {
            None => true,
            Some(last) => {
                let (dropped, _) = self.log.ends();
                dropped.is_some_and(|dropped| dropped >= last)
                    || self.log.id_at(last.index)? == Some(last)
            }
        };
        if holds_it {
            self.forgive().await?;
            tracing::info!("the log is complete again, this server votes again");
        }
        Ok(())
    }
}

/// If the question is dropped half way, the next one may be asked.
struct Asking<'a> {
    lost_tail: &'a LostTail,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        *self.lost_tail.state() = State::Outside;
    }
}
