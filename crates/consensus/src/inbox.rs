//! Messages of peers: decoded, judged, handed to the Raft library, answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::raft::AppendEntriesResponse;
use openraft::storage::Snapshot;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::checkpoint::Fingerprint;
use crate::contact::Contact;
use crate::disk::Disk;
use crate::figures;
use crate::log::{EntryId, Log};
use crate::lost_tail::LostTail;
use crate::peer::NodeId;
use crate::raft::codec::{Chunk, Envelope, Malformed, Request, Response};
use crate::raft::machine::{Board, IncomingFile, check_incoming};
use crate::raft::{Raft, Vote, from_log_id};
use crate::tasks;

/// Bytes of one chunk of a checkpoint, at most.
const CHUNK_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Inbox {
    id: NodeId,
    raft: Raft,
    log: Log,
    disk: Arc<dyn Disk>,
    lost_tail: Arc<LostTail>,
    contact: Arc<Contact>,
    board: Arc<Board>,
    /// Before this a vote could break a lease that was granted before a restart.
    votes_from: Instant,
    /// A vote that was given before the start though the library was not told of it: it gives no other in that term.
    given: Option<Vote>,
    /// The checkpoint that is being received; one at a time.
    incoming: Mutex<Option<Incoming>>,
    /// How many have been begun.
    transfers: AtomicU64,
}

#[derive(Debug)]
struct Incoming {
    last: EntryId,
    fingerprint: Fingerprint,
    file: Arc<IncomingFile>,
    offset: u64,
}

impl Inbox {
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a part of the member, made where the member is"
    )]
    pub(crate) fn new(
        id: NodeId,
        raft: Raft,
        log: Log,
        disk: Arc<dyn Disk>,
        lost_tail: Arc<LostTail>,
        contact: Arc<Contact>,
        board: Arc<Board>,
        may_vote_after: Duration,
        given: Option<Vote>,
    ) -> Self {
        let votes_from = Instant::now() + may_vote_after;
        Self {
            id,
            raft,
            log,
            disk,
            lost_tail,
            contact,
            board,
            votes_from,
            given,
            incoming: Mutex::default(),
            transfers: AtomicU64::new(0),
        }
    }

    pub(crate) async fn handle(&self, message: Bytes) -> Bytes {
        let response = match Envelope::decode(&message) {
            Ok(envelope) if envelope.to == self.id => {
                let (timing, began) = (figures::asked(&envelope.request), Instant::now());
                let response = self.answer(envelope.request).await;
                if let Some(timing) = timing {
                    figures::note(timing, began);
                }
                response
            }
            Ok(envelope) => {
                Response::Refused(format!("this is server {}, not {}", self.id, envelope.to))
            }
            Err(Malformed(reason)) => Response::Refused(format!("malformed message: {reason}")),
        };
        response.encode()
    }

    async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Append(request) => {
                let arrived = Instant::now();
                if !self.lost_tail.can_tell(request.vote) {
                    return Response::Stranger;
                }
                if !self.lost_tail.may_append(request.vote).await {
                    return refused("the log lost its end and its leader does not know yet");
                }
                match self.raft.append_entries(request).await {
                    Ok(response) => {
                        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                            self.contact.note(arrived);
                        }
                        match self.lost_tail.check().await {
                            Ok(()) => Response::Append(response),
                            Err(error) => Response::Refused(error.to_string()),
                        }
                    }
                    Err(error) => Response::Refused(error.to_string()),
                }
            }
            Request::Vote(_) | Request::PreVote(_) if self.lost_tail.is_waiting() => {
                refused("the log lost its end, this server does not vote")
            }
            Request::Vote(_) | Request::PreVote(_) if Instant::now() < self.votes_from => {
                refused("this server has just started and may have granted a lease")
            }
            Request::Vote(request)
                if self
                    .given
                    .is_some_and(|given| request.vote.leader_id.term <= given.leader_id.term) =>
            {
                refused("this server has voted in this term")
            }
            Request::Vote(request) => match self.raft.vote(request).await {
                Ok(response) => Response::Vote(response),
                Err(error) => Response::Refused(error.to_string()),
            },
            Request::PreVote(request) => match self.raft.pre_vote(request).await {
                Ok(response) => Response::Vote(response),
                Err(error) => Response::Refused(error.to_string()),
            },
            Request::Snapshot(chunk) => self
                .take_chunk(chunk)
                .await
                .unwrap_or_else(|error| Response::Refused(error.to_string())),
            Request::Transfer(_) if self.lost_tail.is_waiting() => {
                refused("the log lost its end, this server cannot lead")
            }
            Request::Transfer(request) => match self.raft.handle_transfer_leader(request).await {
                Ok(outcome) => Response::Transfer {
                    accepted: outcome.is_ok(),
                },
                Err(error) => Response::Refused(error.to_string()),
            },
            Request::Readmit { node } => self.readmit(node).await,
            Request::Introduce(leader) => {
                self.lost_tail.introduce(leader);
                Response::Introduced
            }
        }
    }

    /// A follower tells that it may be behind what it acknowledged.
    async fn readmit(&self, node: NodeId) -> Response {
        match self.raft.trigger().allow_next_revert(&node, true).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Response::Refused(error.to_string()),
            Err(error) => return Response::Refused(error.to_string()),
        }
        let answer = self.raft.with_raft_state(|state| {
            let is_leader = state.server_state == ServerState::Leader;
            is_leader.then(|| *state.vote_ref())
        });
        match answer.await {
            Ok(Some(vote)) => Response::Readmit {
                vote,
                last: self.log.ends().1,
            },
            Ok(None) => refused("not the leader"),
            Err(error) => Response::Refused(error.to_string()),
        }
    }

    async fn take_chunk(&self, chunk: Chunk) -> io::Result<Response> {
        if !self.lost_tail.may_append(chunk.vote).await {
            return Ok(refused(
                "the log lost its end and its leader does not know yet",
            ));
        }
        let state = self
            .raft
            .with_raft_state(|state| (state.server_state, *state.vote_ref()));
        let (server_state, vote) = state.await.map_err(io::Error::other)?;
        if vote > chunk.vote {
            return Ok(Response::SnapshotDone { vote });
        }
        if server_state == ServerState::Leader {
            // The library says yes to this on a live leader and never recovers. The sender's heartbeats will make this
            // server a follower, if the sender leads.
            return Ok(refused("this server leads"));
        }
        self.contact.note(Instant::now());
        if chunk.bytes.len() > CHUNK_MAX {
            return Ok(refused("the chunk is too large"));
        }
        let applied = self.board.applied();
        if applied.is_some_and(|applied| applied.index >= chunk.last.index)
            && !self.lost_tail.is_waiting()
        {
            // The answer to an earlier one got lost, or entries were faster.
            return Ok(Response::SnapshotDone { vote });
        }
        let mut incoming = self.incoming.lock().await;
        // Whoever sends it: the same bytes are worth the same.
        let is_same = incoming.as_ref().is_some_and(|incoming| {
            incoming.last == chunk.last && incoming.fingerprint == chunk.fingerprint
        });
        if !is_same {
            if chunk.offset != 0 {
                return Ok(Response::SnapshotNext { offset: 0 });
            }
            // The one before makes room first.
            *incoming = None;
            let number = self.transfers.fetch_add(1, Ordering::Relaxed);
            let disk = Arc::clone(&self.disk);
            let create = move || IncomingFile::create(&disk, number);
            *incoming = Some(Incoming {
                last: chunk.last,
                fingerprint: chunk.fingerprint,
                file: Arc::new(tasks::blocking(&self.disk, create).await?),
                offset: 0,
            });
        }
        let Some(receiving) = incoming.as_mut() else {
            return Ok(Response::SnapshotNext { offset: 0 });
        };
        if chunk.offset != receiving.offset {
            return Ok(Response::SnapshotNext {
                offset: receiving.offset,
            });
        }
        let length = chunk.bytes.len() as u64;
        if chunk.is_last != (chunk.offset + length == chunk.fingerprint.length) {
            return Ok(refused("the checkpoint has another length"));
        }
        let file = Arc::clone(&receiving.file);
        let written = tasks::blocking(&self.disk, move || {
            file.file.write_at(chunk.offset, &chunk.bytes)
        })
        .await;
        if let Err(error) = written {
            *incoming = None;
            return Err(error);
        }
        receiving.offset += length;
        if !chunk.is_last {
            return Ok(Response::SnapshotNext {
                offset: receiving.offset,
            });
        }
        // Whatever comes of it, the next transfer starts anew.
        let file = Arc::clone(&receiving.file);
        *incoming = None;
        crate::durable::pause(&*self.disk).await;
        let (meta, file) = tasks::blocking(&self.disk, move || check_incoming(file)).await?;
        if meta.last_log_id.map(from_log_id) != Some(chunk.last) {
            return Ok(refused("the checkpoint stands at another entry"));
        }
        let installed = self
            .raft
            .install_full_snapshot(
                chunk.vote,
                Snapshot {
                    meta,
                    snapshot: file,
                },
            )
            .await;
        let response = installed.map_err(io::Error::other)?;
        self.lost_tail.check().await?;
        Ok(Response::SnapshotDone {
            vote: response.vote,
        })
    }
}

fn refused(reason: &str) -> Response {
    Response::Refused(String::from(reason))
}
