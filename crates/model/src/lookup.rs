//! Lookups of names: what the DNS face asks.
//!
//! A name server shows a few of many, so these questions carry what it takes to pick them where they lie.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Node, Service, Text};

/// The kind of tagged address that stands for a node as seen from other datacenters.
pub const WAN: &str = "wan";

/// A node by its name, without its services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLookup {
    /// The node's name, without regard to case.
    pub node: Text,
}

/// The first node, by name, that has this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressLookup {
    /// The address; one of the node alone, not of a service on it.
    pub address: IpAddr,
}

/// Instances of a service that are well enough to be shown, in an order of chance.
///
/// Left out is whatever has a critical check, its own or its node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLookup {
    /// The service's name, without regard to case.
    pub service: Text,
    /// Only instances with this tag, without regard to case.
    pub tag: Option<Text>,
    /// Only instances all of whose checks pass.
    pub only_passing: bool,
    /// What of an instance will be shown; only one of those that look the same is answered.
    pub shown: Shown,
    /// Whether nodes are shown at their address for other datacenters, where they have one.
    pub prefer_wan: bool,
    /// How many to answer at most.
    pub limit: usize,
    /// Decides which, and in what order: another seed, another choice.
    pub seed: u64,
}

/// What of an instance a [`ServiceLookup`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shown {
    /// Node, address and port, whatever the address is.
    Ports,
    /// Addresses of any kind.
    Addresses,
    /// IPv4 addresses, and names of hosts, which may have one.
    Ipv4,
    /// IPv6 addresses, and names of hosts.
    Ipv6,
    /// Names of hosts alone.
    Hosts,
    /// Nothing; the question is only whether there is any.
    Nothing,
}

/// What [`ServiceLookup`] answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placements {
    /// Whether any instance is well enough, though perhaps none that could be shown.
    pub is_any: bool,
    /// Those that were picked.
    pub picked: Vec<Placement>,
}

/// Where an instance of a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The node that it runs on.
    pub node: Arc<Node>,
    /// The service itself.
    pub service: Arc<Service>,
}

impl Node {
    /// Where it is reached, perhaps as seen from another datacenter.
    pub fn address(&self, prefer_wan: bool) -> &Text {
        let wan = self.tagged_addresses.as_ref().filter(|_| prefer_wan);
        wan.and_then(|tagged| tagged.get(WAN.as_bytes()))
            .filter(|address| !address.is_empty())
            .unwrap_or(&self.address)
    }
}

impl Service {
    /// Where it is reached on this node: at its own address, or else at the node's.
    pub fn address_on<'a>(&'a self, node: &'a Node, prefer_wan: bool) -> &'a Text {
        if self.address.is_empty() {
            node.address(prefer_wan)
        } else {
            &self.address
        }
    }
}

/// Reads an address; `None` is the name of a host. An IPv4 address in the clothes of an IPv6 one comes out as what it is.
pub fn parse_address(text: &[u8]) -> Option<IpAddr> {
    match std::str::from_utf8(text).ok()?.parse().ok()? {
        IpAddr::V4(address) => Some(IpAddr::V4(address)),
        IpAddr::V6(address) => Some(unmapped(address)),
    }
}

fn unmapped(address: Ipv6Addr) -> IpAddr {
    match address.to_ipv4_mapped() {
        Some(address) => IpAddr::V4(address),
        None => IpAddr::V6(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pairs;

    #[test]
    fn addresses_and_names() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("::1", Some("::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("", None),
            ("10.0.0.1:80", None),
            ("db.example.com", None),
            ("10.0.0.256", None),
        ] {
            let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(parse_address(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse_address(b"\xff\x00"), None);
    }

    #[test]
    fn whose_address() {
        let mut node = Node {
            address: "10.0.0.1".into(),
            ..Node::default()
        };
        let mut service = Service::default();
        assert_eq!(*service.address_on(&node, true), "10.0.0.1");
        node.tagged_addresses = Some(Pairs::from([("wan".into(), "".into())]));
        assert_eq!(*service.address_on(&node, true), "10.0.0.1");
        node.tagged_addresses = Some(Pairs::from([("wan".into(), "198.51.100.1".into())]));
        assert_eq!(*service.address_on(&node, true), "198.51.100.1");
        assert_eq!(*service.address_on(&node, false), "10.0.0.1");
        service.address = "10.0.0.9".into();
        assert_eq!(*service.address_on(&node, true), "10.0.0.9");
    }
}
