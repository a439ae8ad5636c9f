//! Which servers there are, as gossip tells it.
//!
//! What a member says of itself is in its tags, and anybody may say anything there: what can't be true is no server.
//!
//! | tag | meaning |
//! | --- | --- |
//! | `role` | `consul` for a server, `node` for an agent without one |
//! | `dc` | the datacenter |
//! | `port` | where a server takes calls, at the member's own address |
//! | `bootstrap` | `1` if it was told to elect itself |
//! | `expect` | how many servers it expects before a cluster is made |
//! | `_raft` | who it is in consensus: 16 hexadecimal digits, drawn with its data directory. Names that begin with `_` are for us and not shown to users |

use std::collections::BTreeMap;
use std::net::SocketAddr;

use consensus::{NodeId, Peer};
use gossip::{Gossip, Member, Status};
use rpc::ServerAddress;

use crate::{Config, Start};

const ROLE: &str = "role";
const DATACENTER: &str = "dc";
const PORT: &str = "port";
const BOOTSTRAP: &str = "bootstrap";
const EXPECT: &str = "expect";
const RAFT: &str = "_raft";

/// What a server's `role` is.
const SERVER: &str = "consul";

/// What the `role` of an agent without a server is.
const CLIENT: &str = "node";

/// More servers than that are expected by nobody who means it.
const EXPECT_MAX: usize = 64;

/// A server, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) datacenter: String,
    /// Who it is in consensus. A server that has only just started may not say so yet.
    pub(crate) id: Option<NodeId>,
    /// How it would come to have a cluster if it had none.
    pub(crate) start: Start,
    pub(crate) status: Status,
}

impl Known {
    /// The server that this member is, if it is one.
    pub(crate) fn of(member: &Member) -> Option<Self> {
        let tag = |name: &str| member.tags.get(name).map(String::as_str);
        if tag(ROLE) != Some(SERVER) {
            return None;
        }
        let datacenter = tag(DATACENTER).filter(|name| !name.is_empty())?;
        let port: u16 = tag(PORT)?.parse().ok().filter(|port| *port != 0)?;
        let start = if tag(BOOTSTRAP) == Some("1") {
            Start::Bootstrap
        } else {
            match tag(EXPECT) {
                None => Start::Join,
                Some(count) => {
                    let count = count.parse().ok();
                    Start::Expect(count.filter(|count| (1..=EXPECT_MAX).contains(count))?)
                }
            }
        };
        Some(Self {
            name: member.name.clone(),
            address: SocketAddr::new(member.address.ip(), port),
            datacenter: datacenter.to_owned(),
            id: match tag(RAFT) {
                None => None,
                Some(digits) => Some(parse_id(digits)?),
            },
            start,
            status: member.status,
        })
    }

    /// The same as a member of consensus.
    pub(crate) fn peer(&self) -> Option<Peer> {
        Some(Peer {
            id: self.id?,
            address: self.address.to_string(),
            name: self.name.clone(),
        })
    }

    /// The same as somebody to call.
    pub(crate) fn server(&self) -> ServerAddress {
        ServerAddress {
            address: self.address,
            node: self.name.clone(),
            datacenter: self.datacenter.clone(),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.status == Status::Alive
    }
}

/// Exactly what [`tags`] writes: a sign or a blank in front, which `from_str_radix` lets pass, is nobody.
fn parse_id(digits: &str) -> Option<NodeId> {
    let is_hex = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| NodeId::from_str_radix(digits, 16).ok())?
}

/// The servers of this datacenter, by name, whatever their state.
pub(crate) fn servers(gossip: &Gossip, datacenter: &str) -> Vec<Known> {
    let members = gossip.members();
    let servers = members.iter().filter_map(Known::of);
    servers
        .filter(|server| server.datacenter == datacenter)
        .collect()
}

/// Whether this member is an agent of the datacenter, with a server or without.
pub(crate) fn is_of(member: &Member, datacenter: &str) -> bool {
    let tag = |name: &str| member.tags.get(name).map(String::as_str);
    matches!(tag(ROLE), Some(SERVER | CLIENT)) && tag(DATACENTER) == Some(datacenter)
}

/// What this server tells of itself, on top of what it told before.
pub(crate) fn tags(
    mut tags: BTreeMap<String, String>,
    config: &Config,
    start: Start,
    id: NodeId,
) -> BTreeMap<String, String> {
    let mut set = |name: &str, value: String| tags.insert(name.to_owned(), value);
    set(ROLE, SERVER.to_owned());
    set(DATACENTER, config.datacenter.clone());
    set(PORT, config.server_port.to_string());
    set(RAFT, format!("{id:016x}"));
    match start {
        Start::Join => {}
        Start::Bootstrap | Start::BootstrapUnlessFound(_) => drop(set(BOOTSTRAP, "1".to_owned())),
        Start::Expect(count) => drop(set(EXPECT, count.to_string())),
    }
    tags
}

#[cfg(test)]
pub(crate) mod tests {
    use gossip::Versions;
    use tokio::time::Instant;

    use super::*;

    /// A member with these tags.
    pub(crate) fn member(
        name: &str,
        address: &str,
        status: Status,
        tags: &[(&str, &str)],
    ) -> Member {
        let versions = Versions {
            min: 2,
            max: 4,
            current: 4,
        };
        let pairs = tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Member {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            tags: pairs.collect(),
            status,
            since: Instant::now(),
            protocol: versions,
            delegate: versions,
        }
    }

    const GOOD: &[(&str, &str)] = &[
        ("role", "consul"),
        ("dc", "dc1"),
        ("port", "8300"),
        ("_raft", "00000000000000ff"),
    ];

    /// The good tags with one of them replaced; `None` takes it away.
    fn with(name: &'static str, value: Option<&'static str>) -> Option<Known> {
        let mut tags: Vec<(&str, &str)> = GOOD.to_vec();
        tags.retain(|(present, _)| *present != name);
        tags.extend(value.map(|value| (name, value)));
        Known::of(&member("a", "10.0.0.1:8301", Status::Alive, &tags))
    }

    #[test]
    fn a_server_is_read_from_its_tags() {
        let known = with("x", Some("y")).unwrap();
        let expected = Known {
            name: "a".to_owned(),
            address: "10.0.0.1:8300".parse().unwrap(),
            datacenter: "dc1".to_owned(),
            id: Some(255),
            start: Start::Join,
            status: Status::Alive,
        };
        assert_eq!(known, expected);
        let start = |name, value| with(name, Some(value)).map(|known| known.start);
        assert_eq!(start("bootstrap", "1"), Some(Start::Bootstrap));
        assert_eq!(start("bootstrap", "0"), Some(Start::Join));
        assert_eq!(start("expect", "3"), Some(Start::Expect(3)));
        assert_eq!(with("_raft", None).unwrap().id, None);
    }

    #[test]
    fn what_cannot_be_is_no_server() {
        let bad: &[(&str, Option<&str>)] = &[
            ("role", None),
            ("role", Some("node")),
            ("role", Some("")),
            ("dc", None),
            ("dc", Some("")),
            ("port", None),
            ("port", Some("")),
            ("port", Some("0")),
            ("port", Some("-1")),
            ("port", Some("65536")),
            ("port", Some("8300x")),
            ("expect", Some("0")),
            ("expect", Some("65")),
            ("expect", Some("-3")),
            ("expect", Some("many")),
            ("_raft", Some("")),
            ("_raft", Some("ff")),
            ("_raft", Some("+0000000000000ff")),
            ("_raft", Some("00000000000000fg")),
            ("_raft", Some("000000000000000ff")),
            ("_raft", Some("é0000000000000f")),
        ];
        for (name, value) in bad {
            assert_eq!(with(name, *value), None, "{name} = {value:?}");
        }
    }
}
