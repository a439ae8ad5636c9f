//! What a member is told when it starts, and the pace of its pool.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::keyring::Keyring;
use crate::known::Medium;
use crate::member::{Member, Versions};

/// The longest name of a member, in bytes.
pub const NAME_LENGTH_MAX: usize = 255;

/// The longest label of a pool, in bytes.
pub const LABEL_LENGTH_MAX: usize = 255;

/// All that a member's tags may take together, in bytes as they are sent.
pub const TAGS_SIZE_MAX: usize = 512;

/// Decides whether a member may be in this pool; an error's text goes to whoever wanted to join.
pub type Admit = Arc<dyn Fn(&Member) -> Result<(), String> + Send + Sync>;

/// How a member takes part in a pool.
#[derive(Clone)]
pub struct Config {
    /// The name, which nobody else in the pool may have. 1 to [`NAME_LENGTH_MAX`] bytes without control characters.
    pub name: String,
    /// Where the others reach this member. With port 0 the network's own port is told to them.
    pub advertise: SocketAddr,
    /// What this member tells of itself; [`TAGS_SIZE_MAX`] bytes in all.
    pub tags: BTreeMap<String, String>,
    /// Which pool this is, such as `lan:dc1`: packets of another label are rejected and counted.
    pub label: String,
    /// The pace. Default: [`Timing::lan`].
    pub timing: Timing,
    /// For how long a failed member is remembered and tried. Default: 72 hours.
    pub reconnect_timeout: Duration,
    /// For how long a member that has left is remembered. Default: 24 hours.
    pub tombstone_timeout: Duration,
    /// Whether the members known before are tried at start although this one had left. Default: no.
    pub rejoin_after_leave: bool,
    /// The file of known members, usually a [`FileMedium`](crate::known::FileMedium), which makes a restarted member
    /// find its pool again. `None`: nothing is kept.
    pub known: Option<Arc<dyn Medium>>,
    /// The keys, if what is sent is encrypted.
    pub keyring: Option<Keyring>,
    /// Whether network coordinates are computed. Default: yes.
    pub coordinates: bool,
    /// The versions of the gossip protocol that are told to others. Default: 1 to 5, speaking 2.
    pub protocol: Versions,
    /// The versions of what rides on gossip that are told to others. Default: 2 to 4, speaking 4.
    pub delegate: Versions,
    /// Who is let in. Default: everybody.
    pub admit: Admit,
    /// Where all chance comes from.
    pub seed: u64,
}

impl Config {
    /// The defaults of a pool within one datacenter.
    pub fn new(name: impl Into<String>, advertise: SocketAddr, label: impl Into<String>) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            name: name.into(),
            advertise,
            tags: BTreeMap::new(),
            label: label.into(),
            timing: Timing::lan(),
            reconnect_timeout: 72 * HOUR,
            tombstone_timeout: 24 * HOUR,
            rejoin_after_leave: false,
            known: None,
            keyring: None,
            coordinates: true,
            protocol: Versions {
                min: 1,
                max: 5,
                current: 2,
            },
            delegate: Versions {
                min: 2,
                max: 4,
                current: 4,
            },
            admit: Arc::new(|_| Ok(())),
            seed: 0,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("name", &self.name)
            .field("advertise", &self.advertise)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

/// The pace of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long connecting, and an exchange over a connection, may take.
    pub stream_timeout: Duration,
    /// How many others are asked to probe a member that doesn't answer.
    pub indirect_probes: usize,
    /// Each broadcast is sent this many times, multiplied by the logarithm of the pool's size.
    pub retransmit_factor: u32,
    /// A suspicion lasts at least this many probe intervals, multiplied by the logarithm of the pool's size.
    pub suspicion_factor: u32,
    /// A suspicion that nobody confirms lasts this many times the shortest.
    pub suspicion_factor_max: u32,
    /// How often two members compare all that they know; stretched in pools of more than 32.
    pub sync_interval: Duration,
    /// How often a member probes another.
    pub probe_interval: Duration,
    /// How long a probe's answer may take before others are asked to probe.
    pub probe_timeout: Duration,
    /// In a pool with fewer members the failure detector runs at double speed.
    pub small_pool: usize,
    /// How often news are passed on.
    pub gossip_interval: Duration,
    /// To how many others.
    pub gossip_fan_out: usize,
    /// For how long a member that was declared dead is still told so.
    pub gossip_to_dead: Duration,
    /// The local health score stays below this.
    pub awareness_max: u32,
}

impl Timing {
    /// Within a datacenter.
    pub const fn lan() -> Self {
        Self {
            stream_timeout: Duration::from_secs(10),
            indirect_probes: 3,
            retransmit_factor: 4,
            suspicion_factor: 5,
            suspicion_factor_max: 6,
            sync_interval: Duration::from_secs(30),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            small_pool: 16,
            gossip_interval: Duration::from_millis(200),
            gossip_fan_out: 3,
            gossip_to_dead: Duration::from_secs(30),
            awareness_max: 8,
        }
    }

    /// Between datacenters.
    pub const fn wan() -> Self {
        Self {
            stream_timeout: Duration::from_secs(30),
            suspicion_factor: 6,
            sync_interval: Duration::from_secs(60),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            small_pool: 0,
            gossip_interval: Duration::from_millis(500),
            gossip_fan_out: 4,
            gossip_to_dead: Duration::from_secs(60),
            ..Self::lan()
        }
    }

    /// On one machine, for tests.
    pub const fn local() -> Self {
        Self {
            stream_timeout: Duration::from_secs(1),
            indirect_probes: 1,
            retransmit_factor: 2,
            suspicion_factor: 3,
            sync_interval: Duration::from_secs(15),
            probe_timeout: Duration::from_millis(200),
            gossip_interval: Duration::from_millis(100),
            gossip_to_dead: Duration::from_secs(15),
            ..Self::lan()
        }
    }
}

/// Why a member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The name is empty, longer than [`NAME_LENGTH_MAX`], or has control characters.
    #[error("member name must have 1 to {NAME_LENGTH_MAX} bytes and no control characters, {0:?} has {len} bytes", len = .0.len())]
    Name(String),
    /// The label is longer than [`LABEL_LENGTH_MAX`].
    #[error("pool label must have at most {LABEL_LENGTH_MAX} bytes, it has {0}")]
    Label(usize),
    /// The tags are too large.
    #[error(transparent)]
    Tags(#[from] TagsError),
    /// The file of known members can't be used.
    #[error("known members file: {0}")]
    Known(#[source] io::Error),
}

/// The tags are larger than what is sent along with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tags take {size} bytes, more than {TAGS_SIZE_MAX}")]
pub struct TagsError {
    /// What they would take.
    pub size: usize,
}
