//! What can be set.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use model::Text;

/// How names are answered on this agent.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The zone that is answered here, in lower case and with its final dot. Default: `consul.`.
    pub domain: String,
    /// This agent's datacenter, which names without one mean.
    pub datacenter: Text,
    /// This agent's node.
    pub node: Text,
    /// Whose questions these are, since no name server passes on a token. Default: nobody's.
    pub token: Text,
    /// Who is asked about other names, in this order. Default: nobody.
    pub recursors: Vec<SocketAddr>,
    /// How long each of them may take. Default: 2 s.
    pub recursor_timeout: Duration,
    /// Whether any server may answer from what it has. Default: yes.
    pub allow_stale: bool,
    /// How long ago such a server may have heard of its leader; beyond, the leader is asked. Default: ten years.
    pub max_stale: Duration,
    /// How long answers about nodes may be kept. Default: not at all.
    pub node_ttl: Duration,
    /// How long answers about services may be kept, by name in lower case; `*` stands for the others. Default: not at all.
    pub service_ttl: BTreeMap<String, Duration>,
    /// Whether answers over UDP that were cut short say so. Default: no.
    pub enable_truncate: bool,
    /// How many answers one over UDP has at most; never more than eight. Default: 3.
    pub udp_answer_limit: usize,
    /// Whether instances with warnings are left out too. Default: no.
    pub only_passing: bool,
    /// Whether names in answers are written out each time. Default: no.
    pub disable_compression: bool,
    /// Whether nodes of other datacenters are shown at their wide-area address. Default: no.
    pub translate_wan_addrs: bool,
    /// Where the chance begins by which answers are shuffled. Any number.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domain: "consul.".to_owned(),
            datacenter: Text::from("dc1"),
            node: Text::default(),
            token: Text::default(),
            recursors: Vec::new(),
            recursor_timeout: Duration::from_secs(2),
            allow_stale: true,
            max_stale: Duration::from_secs(87_600 * 60 * 60),
            node_ttl: Duration::ZERO,
            service_ttl: BTreeMap::new(),
            enable_truncate: false,
            udp_answer_limit: 3,
            only_passing: false,
            disable_compression: false,
            translate_wan_addrs: false,
            seed: 0,
        }
    }
}

/// Without the token: what is printed for debugging ends in logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("domain", &self.domain)
            .field("datacenter", &self.datacenter)
            .field("recursors", &self.recursors)
            .finish_non_exhaustive()
    }
}
