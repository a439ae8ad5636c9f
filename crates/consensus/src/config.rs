//! What can be set.

use std::time::Duration;

use crate::peer::{NodeId, Peer};

/// Settings of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The id to write into an empty data directory, drawn at random by the caller. A directory that has an id keeps
    /// its own; [`Consensus::id`](crate::Consensus::id) tells which it is.
    pub id: NodeId,
    /// Where peers reach this server, `ip:port`.
    pub address: String,
    /// This server's node name, for people.
    pub name: String,
    /// Written into the data directory and compared at each start, so that two clusters' directories aren't mixed up.
    /// At most 255 bytes; default `consul`.
    pub cluster: String,
    /// How often a leader shows its followers that it lives. 10 ms to 10 s; default 150 ms.
    pub heartbeat_interval: Duration,
    /// The shortest time without a leader after which a follower stands for election. At least three heartbeats;
    /// default 600 ms.
    pub election_timeout_min: Duration,
    /// The longest such time. More than the shortest; default 1.2 s.
    pub election_timeout_max: Duration,
    /// Proposals that may wait for their outcome at the same time; further ones wait for their turn in order of
    /// arrival. 1 to 65,536; default 4,096.
    pub proposals_in_flight_max: usize,
    /// Entries after which a new checkpoint is made. 16 to 10 million; default 8,192.
    pub checkpoint_entries: u64,
    /// Bytes of log after which a new checkpoint is made, whatever the number of entries. 64 KiB to 64 GiB; default
    /// 128 MiB.
    pub checkpoint_bytes: u64,
    /// Entries behind the checkpoint that are kept for followers that are a little late. Default 8,192.
    ///
    /// A member that is alone keeps none of them. But for a disk that survives nothing anyway, the log is kept from the
    /// older of two checkpoints on in any case, in case the newer turns out to be damaged.
    pub trailing_entries: u64,
    /// Bytes of such entries that are kept at most, give or take a segment. At most 64 GiB; default 64 MiB.
    pub trailing_bytes: u64,
    /// Size of the first log segment, small because a server must not wait for it to be zeroed. 8 KiB to 1 GiB; default
    /// 256 KiB.
    pub first_segment_bytes: u64,
    /// Size of the later ones, which are zeroed in the background before they are needed. 8 KiB to 1 GiB; default
    /// 16 MiB.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory, so that applying and replicating don't read the disk. Entries that
    /// aren't yet on disk are kept beyond that. Default 4 MiB.
    pub cache_bytes: usize,
    /// The seed of all chance in here: election timeouts and the like. In production drawn at random by the caller, in
    /// the simulator chosen.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: 1,
            address: String::from("127.0.0.1:8300"),
            name: String::new(),
            cluster: String::from("consul"),
            heartbeat_interval: Duration::from_millis(150),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            proposals_in_flight_max: 4096,
            checkpoint_entries: 8192,
            checkpoint_bytes: 128 << 20,
            trailing_entries: 8192,
            trailing_bytes: 64 << 20,
            first_segment_bytes: 256 << 10,
            segment_bytes: 16 << 20,
            cache_bytes: 4 << 20,
            seed: 0,
        }
    }
}

/// A setting that is out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {bounds}")]
pub struct ConfigError {
    /// The field of [`Config`].
    pub setting: &'static str,
    /// What it must be.
    pub bounds: &'static str,
}

impl Config {
    /// This server as a member.
    pub fn peer(&self, id: NodeId) -> Peer {
        Peer {
            id,
            address: self.address.clone(),
            name: self.name.clone(),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            (self.cluster.len() <= 255, "cluster", "at most 255 bytes"),
            (
                self.address.len() <= crate::peer::PEER_TEXT_MAX,
                "address",
                "at most 1024 bytes",
            ),
            (
                self.name.len() <= crate::peer::PEER_TEXT_MAX,
                "name",
                "at most 1024 bytes",
            ),
            (
                (Duration::from_millis(10)..=Duration::from_secs(10))
                    .contains(&self.heartbeat_interval),
                "heartbeat_interval",
                "10 ms to 10 s",
            ),
            (
                self.election_timeout_min >= self.heartbeat_interval * 3,
                "election_timeout_min",
                "at least three heartbeat intervals",
            ),
            (
                self.election_timeout_max > self.election_timeout_min
                    && self.election_timeout_max <= Duration::from_secs(600),
                "election_timeout_max",
                "more than election_timeout_min and at most 10 minutes",
            ),
            (
                (1..=65_536).contains(&self.proposals_in_flight_max),
                "proposals_in_flight_max",
                "1 to 65,536",
            ),
            (
                (16..=10_000_000).contains(&self.checkpoint_entries),
                "checkpoint_entries",
                "16 to 10,000,000",
            ),
            (
                (64 << 10..=64 << 30).contains(&self.checkpoint_bytes),
                "checkpoint_bytes",
                "64 KiB to 64 GiB",
            ),
            (
                self.trailing_bytes <= 64 << 30,
                "trailing_bytes",
                "at most 64 GiB",
            ),
            (
                (8 << 10..=1 << 30).contains(&self.first_segment_bytes),
                "first_segment_bytes",
                "8 KiB to 1 GiB",
            ),
            (
                (8 << 10..=1 << 30).contains(&self.segment_bytes),
                "segment_bytes",
                "8 KiB to 1 GiB",
            ),
        ];
        for (holds, setting, bounds) in checks {
            if !holds {
                return Err(ConfigError { setting, bounds });
            }
        }
        Ok(())
    }
}
