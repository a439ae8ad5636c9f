//! Bytes of what lies on disk or goes to peers: members, votes, messages.
//!
//! Nothing here believes a length before the bytes are there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::{Address, Command, Entry, LogId, Membership, Types, Vote, from_log_id, to_log_id};
use crate::checkpoint::Fingerprint;
use crate::log::record::PAYLOAD_MAX;
use crate::log::{self, Body, EntryId};
use crate::peer::{NodeId, PEER_TEXT_MAX, Peer};

/// Members that are accepted, with and without a vote.
const MEMBERS_MAX: usize = 1024;

/// Voter sets of a membership: one, or two while it changes.
const CONFIGS_MAX: usize = 4;

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// A message to a peer.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(Chunk),
    Transfer(TransferLeaderRequest<Types>),
    /// From a server whose log lost its end, to the leader: from now on it may be behind what it acknowledged.
    Readmit {
        node: NodeId,
    },
    /// From a leader to a server that doesn't know where it is reached.
    Introduce(Peer),
}

/// A piece of a checkpoint file.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) vote: Vote,
    /// The entry at which the checkpoint stands.
    pub(crate) last: EntryId,
    /// Which file it is a piece of.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) offset: u64,
    pub(crate) is_last: bool,
    pub(crate) bytes: Bytes,
}

/// The answer to a message.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    /// The chunk was taken, or one from another offset is wanted.
    SnapshotNext {
        offset: u64,
    },
    /// The checkpoint is installed, or a later leader is known.
    SnapshotDone {
        vote: Vote,
    },
    Transfer {
        accepted: bool,
    },
    /// The leader's vote and the last entry of its log.
    Readmit {
        vote: Vote,
        last: Option<EntryId>,
    },
    /// The log lost its end, and this server doesn't know where the leader is reached, to tell it so.
    Stranger,
    /// Now it does.
    Introduced,
    /// It cannot be answered, for this reason.
    Refused(String),
}

/// A message with its addressee, so that a server that took over an address doesn't answer for its predecessor.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) to: NodeId,
    pub(crate) request: Request,
}

const VERSION: u8 = 1;

impl Envelope {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.to);
        match &self.request {
            Request::Append(request) => {
                out.u8(1);
                out.vote(&request.vote);
                out.optional_id(request.prev_log_id.map(from_log_id));
                out.optional_id(request.leader_commit.map(from_log_id));
                out.u32(narrow(request.entries.len()));
                for entry in &request.entries {
                    out.entry(&to_log_entry(entry));
                }
            }
            Request::Vote(request) => {
                out.u8(2);
                out.vote_request(request);
            }
            Request::PreVote(request) => {
                out.u8(3);
                out.vote_request(request);
            }
            Request::Snapshot(chunk) => {
                out.u8(4);
                out.vote(&chunk.vote);
                out.id(chunk.last);
                out.u64(chunk.fingerprint.length);
                out.u64(chunk.fingerprint.value);
                out.u64(chunk.offset);
                out.u8(u8::from(chunk.is_last));
                out.bytes(&chunk.bytes);
            }
            Request::Transfer(request) => {
                out.u8(5);
                out.vote(request.from_leader());
                out.u64(*request.to_node_id());
                out.optional_id(request.last_log_id().copied().map(from_log_id));
            }
            Request::Readmit { node } => {
                out.u8(6);
                out.u64(*node);
            }
            Request::Introduce(peer) => {
                out.u8(7);
                out.u64(peer.id);
                out.bytes(peer.address.as_bytes());
                out.bytes(peer.name.as_bytes());
            }
        }
        out.0.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self> {
        let mut input = Reader::new(bytes);
        input.version()?;
        let to = input.u64()?;
        let request = match input.u8()? {
            1 => {
                let vote = input.vote()?;
                let prev_log_id = input.optional_id()?.map(to_log_id);
                let leader_commit = input.optional_id()?.map(to_log_id);
                let count = input.u32()?;
                let mut entries: Vec<Entry> = Vec::new();
                let mut expected =
                    prev_log_id.map_or(0, |previous| previous.index.saturating_add(1));
                for _ in 0..count {
                    let entry = input.entry()?;
                    if entry.id.index != expected {
                        return Err(Malformed("the entries are out of order"));
                    }
                    expected = expected.saturating_add(1);
                    entries.push(from_log_entry(entry)?);
                }
                Request::Append(AppendEntriesRequest {
                    vote,
                    prev_log_id,
                    entries,
                    leader_commit,
                })
            }
            2 => Request::Vote(input.vote_request()?),
            3 => Request::PreVote(input.vote_request()?),
            4 => Request::Snapshot(Chunk {
                vote: input.vote()?,
                last: input.id()?,
                fingerprint: Fingerprint {
                    length: input.u64()?,
                    value: input.u64()?,
                },
                offset: input.u64()?,
                is_last: input.flag()?,
                bytes: input.bytes()?,
            }),
            5 => {
                let from = input.vote()?;
                let to = input.u64()?;
                let last = input.optional_id()?.map(to_log_id);
                Request::Transfer(TransferLeaderRequest::new(from, to, last))
            }
            6 => Request::Readmit { node: input.u64()? },
            7 => Request::Introduce(Peer {
                id: input.u64()?,
                address: input.text()?,
                name: input.text()?,
            }),
            _ => return Err(Malformed("the kind of message is unknown")),
        };
        input.end()?;
        Ok(Self { to, request })
    }
}

impl Response {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION);
        match self {
            Self::Append(AppendEntriesResponse::Success) => out.u8(1),
            Self::Append(AppendEntriesResponse::PartialSuccess(id)) => {
                out.u8(2);
                out.optional_id(id.map(from_log_id));
            }
            Self::Append(AppendEntriesResponse::Conflict) => out.u8(3),
            Self::Append(AppendEntriesResponse::HigherVote(vote)) => {
                out.u8(4);
                out.vote(vote);
            }
            Self::Vote(response) => {
                out.u8(5);
                out.vote(&response.vote);
                out.u8(u8::from(response.vote_granted));
                out.optional_id(response.last_log_id.map(from_log_id));
            }
            Self::SnapshotNext { offset } => {
                out.u8(6);
                out.u64(*offset);
            }
            Self::SnapshotDone { vote } => {
                out.u8(7);
                out.vote(vote);
            }
            Self::Transfer { accepted } => {
                out.u8(8);
                out.u8(u8::from(*accepted));
            }
            Self::Readmit { vote, last } => {
                out.u8(9);
                out.vote(vote);
                out.optional_id(*last);
            }
            Self::Stranger => out.u8(11),
            Self::Introduced => out.u8(12),
            Self::Refused(reason) => {
                out.u8(10);
                out.bytes(reason.as_bytes());
            }
        }
        out.0.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self> {
        let mut input = Reader::new(bytes);
        input.version()?;
        let response = match input.u8()? {
            1 => Self::Append(AppendEntriesResponse::Success),
            2 => Self::Append(AppendEntriesResponse::PartialSuccess(
                input.optional_id()?.map(to_log_id),
            )),
            3 => Self::Append(AppendEntriesResponse::Conflict),
            4 => Self::Append(AppendEntriesResponse::HigherVote(input.vote()?)),
            5 => Self::Vote(VoteResponse {
                vote: input.vote()?,
                vote_granted: input.flag()?,
                last_log_id: input.optional_id()?.map(to_log_id),
            }),
            6 => Self::SnapshotNext {
                offset: input.u64()?,
            },
            7 => Self::SnapshotDone {
                vote: input.vote()?,
            },
            8 => Self::Transfer {
                accepted: input.flag()?,
            },
            9 => Self::Readmit {
                vote: input.vote()?,
                last: input.optional_id()?,
            },
            10 => Self::Refused(String::from_utf8_lossy(&input.bytes()?).into_owned()),
            11 => Self::Stranger,
            12 => Self::Introduced,
            _ => return Err(Malformed("the kind of answer is unknown")),
        };
        input.end()?;
        Ok(response)
    }
}

pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    let mut out = Writer::default();
    let configs = membership.get_joint_config();
    out.u32(narrow(configs.len()));
    for config in configs {
        out.u32(narrow(config.len()));
        for id in config {
            out.u64(*id);
        }
    }
    out.u32(narrow(membership.nodes().count()));
    for (id, node) in membership.nodes() {
        out.u64(*id);
        out.bytes(node.address.as_bytes());
        out.bytes(node.name.as_bytes());
    }
    out.0.into()
}

pub(crate) fn decode_membership(bytes: &Bytes) -> Result<Membership> {
    let mut input = Reader::new(bytes);
    let mut configs = Vec::new();
    for _ in 0..input.count(CONFIGS_MAX)? {
        let mut config = BTreeSet::new();
        for _ in 0..input.count(MEMBERS_MAX)? {
            config.insert(input.u64()?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..input.count(MEMBERS_MAX)? {
        let id = input.u64()?;
        let address = input.text()?;
        let name = input.text()?;
        nodes.insert(id, Address { address, name });
    }
    input.end()?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Malformed("the members contradict themselves"))
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Writer::default();
    out.vote(vote);
    out.0
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote> {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut input = Reader::new(&bytes);
    let vote = input.vote()?;
    input.end()?;
    Ok(vote)
}

/// The entry as the log keeps it.
pub(crate) fn to_log_entry(entry: &Entry) -> log::Entry {
    let body = match &entry.payload {
        openraft::EntryPayload::Blank => Body::Blank,
        openraft::EntryPayload::Normal(command) => Body::Command(command.0.clone()),
        openraft::EntryPayload::Membership(membership) => {
            Body::Membership(encode_membership(membership))
        }
    };
    log::Entry {
        id: from_log_id(entry.log_id),
        body,
    }
}

/// The entry as the library wants it.
pub(crate) fn from_log_entry(entry: log::Entry) -> Result<Entry> {
    let payload = match entry.body {
        Body::Blank => openraft::EntryPayload::Blank,
        Body::Command(bytes) => openraft::EntryPayload::Normal(Command(bytes)),
        Body::Membership(bytes) => openraft::EntryPayload::Membership(decode_membership(&bytes)?),
    };
    let log_id: LogId = to_log_id(entry.id);
    Ok(Entry { log_id, payload })
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("what is encoded here is bounded far below 4 GiB")
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(narrow(bytes.len()));
        self.0.extend_from_slice(bytes);
    }

    fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.u64(vote.leader_id.voted_for);
        self.u8(u8::from(vote.committed));
    }

    fn id(&mut self, id: EntryId) {
        self.u64(id.term);
        self.u64(id.index);
    }

    fn optional_id(&mut self, id: Option<EntryId>) {
        self.u8(u8::from(id.is_some()));
        if let Some(id) = id {
            self.id(id);
        }
    }

    fn vote_request(&mut self, request: &VoteRequest<Types>) {
        self.vote(&request.vote);
        self.optional_id(request.last_log_id.map(from_log_id));
        self.u8(u8::from(request.leadership_transfer));
    }

    fn entry(&mut self, entry: &log::Entry) {
        self.id(entry.id);
        self.u8(match entry.body {
            Body::Blank => 1,
            Body::Command(_) => 2,
            Body::Membership(_) => 3,
        });
        self.bytes(entry.body.bytes());
    }
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.first_chunk::<N>().ok_or(Malformed("it is cut off"))?;
        self.at += N;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    fn version(&mut self) -> Result<()> {
        if self.u8()? == VERSION {
            Ok(())
        } else {
            Err(Malformed("it is of another version"))
        }
    }

    fn count(&mut self, max: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        if count <= max {
            Ok(count)
        } else {
            Err(Malformed("there are too many"))
        }
    }

    /// Shares the memory of the message.
    fn bytes(&mut self) -> Result<Bytes> {
        let length = self.u32()? as usize;
        if length > PAYLOAD_MAX {
            return Err(Malformed("it is too long"));
        }
        let end = self.at + length;
        if end > self.bytes.len() {
            return Err(Malformed("it is cut off"));
        }
        let bytes = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        if bytes.len() > PEER_TEXT_MAX {
            return Err(Malformed("a text is too long"));
        }
        String::from_utf8(bytes.into()).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn vote(&mut self) -> Result<Vote> {
        let (term, node, committed) = (self.u64()?, self.u64()?, self.flag()?);
        Ok(if committed {
            Vote::new_committed(term, node)
        } else {
            Vote::new(term, node)
        })
    }

    fn id(&mut self) -> Result<EntryId> {
        Ok(EntryId {
            term: self.u64()?,
            index: self.u64()?,
        })
    }

    fn optional_id(&mut self) -> Result<Option<EntryId>> {
        if self.flag()? {
            self.id().map(Some)
        } else {
            Ok(None)
        }
    }

    fn vote_request(&mut self) -> Result<VoteRequest<Types>> {
        let vote = self.vote()?;
        let last_log_id = self.optional_id()?.map(to_log_id);
        let leadership_transfer = self.flag()?;
        let mut request = VoteRequest::new(vote, last_log_id);
        request.leadership_transfer = leadership_transfer;
        Ok(request)
    }

    fn entry(&mut self) -> Result<log::Entry> {
        let id = self.id()?;
        let kind = self.u8()?;
        let bytes = self.bytes()?;
        let body = match kind {
            1 if bytes.is_empty() => Body::Blank,
            2 => Body::Command(bytes),
            3 => Body::Membership(bytes),
            _ => return Err(Malformed("the kind of entry is unknown")),
        };
        Ok(log::Entry { id, body })
    }

    fn end(&self) -> Result<()> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Malformed("something follows"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }

    fn members() -> Membership {
        let address = |n: u64| Address {
            address: format!("10.0.0.{n}:8300"),
            name: format!("server-{n}"),
        };
        let voters = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let nodes: BTreeMap<NodeId, Address> = (1..=4).map(|n| (n, address(n))).collect();
        Membership::new(voters, nodes).unwrap()
    }

    fn requests() -> Vec<Request> {
        let vote = Vote::new_committed(7, 2);
        let entry = |index, payload| Entry {
            log_id: to_log_id(id(6, index)),
            payload,
        };
        let entries = vec![
            entry(5, openraft::EntryPayload::Blank),
            entry(
                6,
                openraft::EntryPayload::Normal(Command(Bytes::from_static(b"x"))),
            ),
            entry(7, openraft::EntryPayload::Membership(members())),
        ];
        let mut vote_request = VoteRequest::new(Vote::new(8, 3), Some(to_log_id(id(7, 9))));
        vote_request.leadership_transfer = true;
        vec![
            Request::Append(AppendEntriesRequest {
                vote,
                prev_log_id: Some(to_log_id(id(5, 4))),
                entries,
                leader_commit: None,
            }),
            Request::Vote(vote_request),
            Request::PreVote(VoteRequest::new(Vote::new(8, 3), None)),
            Request::Snapshot(Chunk {
                vote,
                last: id(7, 100),
                fingerprint: Fingerprint {
                    length: 1 << 41,
                    value: 77,
                },
                offset: 1 << 40,
                is_last: true,
                bytes: Bytes::from_static(b"chunk"),
            }),
            Request::Transfer(TransferLeaderRequest::new(
                vote,
                3,
                Some(to_log_id(id(1, 2))),
            )),
            Request::Readmit { node: u64::MAX },
            Request::Introduce(Peer {
                id: 3,
                address: String::from("10.0.0.3:8300"),
                name: String::from("three"),
            }),
        ]
    }

    fn responses() -> Vec<Response> {
        let vote = Vote::new(7, 2);
        let last = Some(to_log_id(id(3, 4)));
        vec![
            Response::Append(AppendEntriesResponse::Success),
            Response::Append(AppendEntriesResponse::PartialSuccess(last)),
            Response::Append(AppendEntriesResponse::Conflict),
            Response::Append(AppendEntriesResponse::HigherVote(vote)),
            Response::Vote(VoteResponse {
                vote,
                vote_granted: true,
                last_log_id: last,
            }),
            Response::SnapshotNext { offset: 9 },
            Response::SnapshotDone { vote },
            Response::Transfer { accepted: true },
            Response::Readmit {
                vote,
                last: Some(id(1, 2)),
            },
            Response::Stranger,
            Response::Introduced,
            Response::Refused(String::from("no")),
        ]
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        for request in requests() {
            let envelope = Envelope { to: 42, request };
            let again = Envelope::decode(&envelope.encode()).unwrap();
            assert_eq!(format!("{again:?}"), format!("{envelope:?}"));
        }
        for response in responses() {
            let again = Response::decode(&response.encode()).unwrap();
            assert_eq!(format!("{again:?}"), format!("{response:?}"));
        }
        assert_eq!(
            decode_membership(&encode_membership(&members())),
            Ok(members())
        );
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() {
        let requests = requests()
            .into_iter()
            .map(|request| Envelope { to: 1, request }.encode());
        for bytes in requests {
            for end in 0..bytes.len() {
                assert!(Envelope::decode(&bytes.slice(..end)).is_err());
            }
        }
        for response in responses() {
            let bytes = response.encode();
            for end in 0..bytes.len() {
                assert!(Response::decode(&bytes.slice(..end)).is_err());
            }
        }
    }

    #[test]
    fn a_length_is_not_believed_before_the_bytes_are_there() {
        let mut message = Envelope {
            to: 1,
            request: requests().remove(0),
        }
        .encode()
        .to_vec();
        // The number of entries, behind version, addressee, kind, vote and two ids.
        let count = 1 + 8 + 1 + 17 + 17 + 1;
        message[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Envelope::decode(&Bytes::from(message)).is_err());
    }
}
