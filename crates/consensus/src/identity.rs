//! Who a data directory belongs to, and the vote that it gave.

use std::io;

use crate::config::Config;
use crate::consensus::StartError;
use crate::disk::Disk;
use crate::durable::{self, IDENTITY_FILE, VOTE_FILE};
use crate::log::segment;
use crate::peer::NodeId;
use crate::raft::{Vote, codec};

/// What is known before the log is read.
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    pub(crate) vote: Vote,
}

impl Identity {
    /// Whether the vote is the one for itself with which a server begins the election right after its bootstrap. If
    /// the log is empty then, the members never got there, and the vote stands in the way of naming them again.
    ///
    /// An election in that term by the same server takes no promise back.
    pub(crate) fn is_first_vote(&self) -> bool {
        self.vote.leader_id.term == 1 && self.vote.leader_id.voted_for == self.id
    }

    /// The vote of a server that never took part.
    pub(crate) fn no_vote(&self) -> Vote {
        Vote::new(0, self.id)
    }
}

/// The format of everything in the directory.
const VERSION: u8 = 1;

/// Reads who the directory belongs to, or makes it ours if it is empty.
pub(crate) async fn open(disk: &dyn Disk, config: &Config) -> Result<Identity, StartError> {
    let names = disk.list()?;
    for name in &names {
        // What was being written when the server stopped.
        if name.ends_with(".tmp") || name == "spare" {
            disk.remove(name)?;
        }
    }
    let content = match durable::read(disk, IDENTITY_FILE)? {
        durable::Read::Content(content) => content,
        durable::Read::Damaged(reason) => return Err(damaged(disk, IDENTITY_FILE, reason)),
        durable::Read::Missing => {
            if names
                .iter()
                .any(|name| segment::sequence_of(name).is_some())
            {
                return Err(damaged(disk, IDENTITY_FILE, "it is missing"));
            }
            return Ok(create(disk, config.id, config).await?);
        }
    };
    let id = decode(&content, config).map_err(|reason| StartError::Foreign {
        place: disk.place(),
        reason,
    })?;
    let has_log = names
        .iter()
        .any(|name| segment::sequence_of(name).is_some());
    let vote = match durable::read(disk, VOTE_FILE)? {
        // The first start came no further.
        durable::Read::Missing if !has_log => return Ok(create(disk, id, config).await?),
        durable::Read::Content(content) => codec::decode_vote(&content)
            .map_err(|codec::Malformed(reason)| damaged(disk, VOTE_FILE, reason))?,
        durable::Read::Damaged(reason) => return Err(damaged(disk, VOTE_FILE, reason)),
        durable::Read::Missing => return Err(damaged(disk, VOTE_FILE, "it is missing")),
    };
    Ok(Identity { id, vote })
}

/// The log is begun when both files are there, so a directory with a log has both.
async fn create(disk: &dyn Disk, id: NodeId, config: &Config) -> io::Result<Identity> {
    let identity = Identity {
        id,
        vote: Vote::new(0, id),
    };
    durable::put(disk, VOTE_FILE, &codec::encode_vote(&identity.vote)).await?;
    let mut content = vec![VERSION];
    content.extend_from_slice(&id.to_le_bytes());
    content.extend_from_slice(config.cluster.as_bytes());
    durable::replace(disk, IDENTITY_FILE, &content).await?;
    Ok(identity)
}

fn decode(content: &[u8], config: &Config) -> Result<NodeId, String> {
    let Some((head, cluster)) = content.split_first_chunk::<9>() else {
        return Err(String::from("the identity is cut off"));
    };
    let [version, id @ ..] = *head;
    if version != VERSION {
        return Err(format!(
            "it has format {version}, and this release knows format {VERSION}"
        ));
    }
    if cluster != config.cluster.as_bytes() {
        return Err(format!(
            "it belongs to cluster {:?}",
            String::from_utf8_lossy(cluster)
        ));
    }
    Ok(NodeId::from_le_bytes(id))
}

fn damaged(disk: &dyn Disk, file: &str, reason: &str) -> StartError {
    StartError::Damaged {
        place: disk.place(),
        file: String::from(file),
        offset: 0,
        reason: String::from(reason),
    }
}
