//! When a majority is lost for good: an operator names the members anew, on servers that are stopped.
//!
//! Nothing is added to the log and nothing taken from it, so that the order among the servers that are left, which
//! decides who of them holds most, stays what it was. Instead every list of members that the directory holds is read as
//! the new one from then on: the one in a checkpoint is rewritten, and those in the log are replaced as they are read, up
//! to the last entry there was. A small file says so, and makes the change in one step.
//!
//! The term is raised far above those that the lost servers may have reached without these: else two leaders could write
//! different entries under one term and index.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint;
use crate::config::Config;
use crate::consensus::{StartError, recover_log, to_address};
use crate::disk::Disk;
use crate::durable::{self, LOST_TAIL_FILE, RECOVERED_FILE, VOTE_FILE};
use crate::identity;
use crate::log::{Body, EntryId, Log, Sizes};
use crate::peer::{NodeId, Peer};
use crate::raft::network::to_peer;
use crate::raft::{Membership, Vote, codec};

/// Voters that can be named.
const VOTERS_MAX: usize = 64;

/// How far the term is raised: further than elections can have gone that these servers did not hear of, since nobody
/// raises the term before a majority would vote for it.
const TERMS: u64 = 1000;

/// A checkpoint that is being rewritten.
const TEMPORARY_FILE: &str = "checkpoint.tmp";

/// Bytes of log that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Members that stand in for all that the log names up to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The last entry there was. What comes later has a higher term or a higher index.
    pub(crate) through: EntryId,
    pub(crate) membership: Membership,
}

impl Recovered {
    /// The recovered members, if there are any.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, StartError> {
        let content = match durable::read(disk, RECOVERED_FILE)? {
            durable::Read::Missing => return Ok(None),
            durable::Read::Content(content) => content,
            durable::Read::Damaged(reason) => return Err(damaged(disk, reason)),
        };
        let Some((head, rest)) = content.split_first_chunk::<16>() else {
            return Err(damaged(disk, "it is cut off"));
        };
        let [index, term] = [&head[..8], &head[8..]].map(|raw| {
            raw.iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        });
        let membership = codec::decode_membership(&Bytes::copy_from_slice(rest))
            .map_err(|codec::Malformed(reason)| damaged(disk, reason))?;
        Ok(Some(Self {
            through: EntryId { term, index },
            membership,
        }))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.through.index.to_le_bytes());
        out.extend_from_slice(&self.through.term.to_le_bytes());
        out.extend_from_slice(&codec::encode_membership(&self.membership));
        out
    }

    /// Whether an entry was there when the members were named anew.
    pub(crate) fn covers(&self, id: EntryId) -> bool {
        id.index <= self.through.index && id.term <= self.through.term
    }
}

/// What a directory of a stopped server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The server's id.
    pub id: NodeId,
    /// The members it knows, committed or not.
    pub members: Vec<Peer>,
    /// The last entry in its log: the server with the highest term, and of these with the highest index, holds most.
    pub last_log_index: u64,
    /// The term of that entry.
    pub last_log_term: u64,
}

struct Directory {
    identity: identity::Identity,
    membership: Membership,
    last: EntryId,
}

/// Looks at the directory of a stopped server, of which it takes the lock.
pub(crate) async fn look(config: &Config, disk: &Arc<dyn Disk>) -> Result<Stored, StartError> {
    let directory = open(config, disk).await?;
    let nodes = directory.membership.nodes();
    Ok(Stored {
        id: directory.identity.id,
        members: nodes.map(|(id, node)| to_peer(*id, node)).collect(),
        last_log_index: directory.last.index,
        last_log_term: directory.last.term,
    })
}

/// Gives a stopped server these voters, and nobody else.
pub(crate) async fn recover(
    config: &Config,
    disk: &Arc<dyn Disk>,
    voters: Vec<Peer>,
) -> Result<(), StartError> {
    let refused = |reason: &str| StartError::Members(String::from(reason));
    if voters.is_empty() || voters.len() > VOTERS_MAX {
        return Err(refused("there must be between 1 and 64 of them"));
    }
    if !voters.iter().all(Peer::is_plausible) {
        return Err(refused("an address or a name is too long"));
    }
    let count = voters.len();
    let nodes: std::collections::BTreeMap<_, _> = voters
        .into_iter()
        .map(|peer| (peer.id, to_address(peer)))
        .collect();
    if nodes.len() < count {
        return Err(refused("one is named twice"));
    }
    let ids = nodes.keys().copied().collect();
    let membership =
        Membership::new(vec![ids], nodes).map_err(|_| refused("they contradict themselves"))?;
    let directory = open(config, disk).await?;
    if membership.get_node(&directory.identity.id).is_none() {
        return Err(refused("this server is none of them"));
    }
    let recovered = Recovered {
        through: directory.last,
        membership,
    };
    for id in checkpoint::list(&**disk)? {
        rewrite(disk, id, &recovered.membership).await?;
    }
    let vote = directory.identity.vote;
    let term = vote.leader_id.term.max(recovered.through.term) + TERMS;
    let vote = Vote::new(term, directory.identity.id);
    durable::replace(&**disk, VOTE_FILE, &codec::encode_vote(&vote)).await?;
    durable::replace(&**disk, RECOVERED_FILE, &recovered.encode()).await?;
    // What these servers hold is all there is, so there is nothing to wait for that the end of this log may have lost.
    durable::remove(&**disk, LOST_TAIL_FILE)?;
    tracing::info!(
        index = recovered.through.index,
        term = recovered.through.term,
        "the members are named anew; the log ends here"
    );
    Ok(())
}

async fn open(config: &Config, disk: &Arc<dyn Disk>) -> Result<Directory, StartError> {
    config.validate()?;
    disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StartError::InUse(disk.place()),
        _ => StartError::Io(error),
    })?;
    let is_new = !disk
        .list()?
        .iter()
        .any(|name| name == durable::IDENTITY_FILE);
    let nothing = || StartError::Members(String::from("this server never was a member"));
    if is_new {
        return Err(nothing());
    }
    let identity = identity::open(&**disk, config).await?;
    let sizes = Sizes {
        first_segment: config.first_segment_bytes,
        segment: config.segment_bytes,
        cache: 0,
    };
    let log = Log::new(Arc::clone(disk), sizes, recover_log(disk, sizes).await?);
    let mut last = log.ends().1;
    let mut membership = None;
    for id in checkpoint::list(&**disk)? {
        // A damaged one is judged when the server starts.
        if let Ok(reader) = checkpoint::open(&**disk, &checkpoint::file_name(id)) {
            membership = Some(decode(reader.meta().membership.clone())?);
            last = last.max(Some(id));
        }
    }
    let (dropped, end) = log.ends();
    let mut next = dropped.map_or(0, |dropped| dropped.index + 1);
    while end.is_some_and(|end| next <= end.index) {
        let entries = log.read(next, u64::MAX, READ_BYTES)?;
        let Some(read) = entries.last() else { break };
        next = read.id.index + 1;
        for entry in entries {
            if let Body::Membership(bytes) = entry.body {
                membership = Some(decode(bytes)?);
            }
        }
    }
    if let Some(recovered) = Recovered::read(&**disk)?
        && last.is_some_and(|last| recovered.covers(last))
    {
        membership = Some(recovered.membership);
    }
    Ok(Directory {
        identity,
        membership: membership.ok_or_else(nothing)?,
        last: last.ok_or_else(nothing)?,
    })
}

fn decode(bytes: Bytes) -> Result<Membership, StartError> {
    codec::decode_membership(&bytes)
        .map_err(|codec::Malformed(reason)| StartError::Members(String::from(reason)))
}

/// Copies a checkpoint, but for the members in it.
async fn rewrite(
    disk: &Arc<dyn Disk>,
    id: EntryId,
    membership: &Membership,
) -> Result<(), StartError> {
    let name = checkpoint::file_name(id);
    let source = checkpoint::open(&**disk, &name).and_then(checkpoint::Reader::check);
    if let Err(error) = source {
        tracing::warn!(file = name, %error, "a damaged checkpoint is left as it is");
        return Ok(());
    }
    let mut reader = checkpoint::open(&**disk, &name)?;
    let mut meta = reader.meta().clone();
    meta.membership = codec::encode_membership(membership);
    let file = disk.create(TEMPORARY_FILE)?;
    let mut writer = checkpoint::Writer::new(file, &meta)?;
    let mut block = vec![0; checkpoint::BLOCK_MAX];
    loop {
        match reader.read(&mut block)? {
            0 => break,
            length => writer.write_all(&block[..length])?,
        }
    }
    durable::pause(&**disk).await;
    writer.finish()?;
    disk.rename(TEMPORARY_FILE, &name)?;
    durable::pause(&**disk).await;
    disk.sync_dir()?;
    Ok(())
}

fn damaged(disk: &dyn Disk, reason: &str) -> StartError {
    StartError::Damaged {
        place: disk.place(),
        file: String::from(RECOVERED_FILE),
        offset: 0,
        reason: String::from(reason),
    }
}
