//! What was found, as records: which of it is shown, under which names, and how much of it fits.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{Node, Placement, Placements, Shown, Text, parse_address};

use crate::domain::Name;
use crate::message::{Data, Message, Outcome, Record, kind};
use crate::zone::Zone;

/// The name that a question is about, and what of it is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// As it was spelled; answers are spelled so too.
    pub(crate) name: &'a Name,
    /// The type of records.
    pub(crate) kind: u16,
    /// What may be sent over UDP; `None` over TCP.
    pub(crate) bounds: Option<Bounds>,
    /// Seconds since 1970, for whom it matters.
    pub(crate) now: u64,
}

/// How large an answer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The whole message, as if no name were shortened.
    pub(crate) size: usize,
    /// What of it is not records.
    pub(crate) overhead: usize,
}

/// What was found out about names of hosts that stand where an address is expected, by their lower-cased names.
pub(crate) type Chains = BTreeMap<Name, Vec<Record>>;

/// Where a service or node was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// The datacenter that the answer came from.
    pub(crate) datacenter: &'a Text,
    /// Whether nodes there are shown at their address for other datacenters.
    pub(crate) prefer_wan: bool,
}

/// What of a service's instances matters for records of this type.
pub(crate) fn shown(wanted: u16) -> Shown {
    match wanted {
        kind::SRV => Shown::Ports,
        kind::A => Shown::Ipv4,
        kind::AAAA => Shown::Ipv6,
        kind::ANY => Shown::Addresses,
        kind::CNAME => Shown::Hosts,
        _ => Shown::Nothing,
    }
}

/// Whether nodes have records of this type at all; of others is said that there are none without a look.
pub(crate) fn nodes_have(wanted: u16) -> bool {
    matches!(wanted, kind::A | kind::AAAA | kind::ANY)
}

/// The name of a host, if an address is one.
pub(crate) fn host(address: &[u8]) -> Option<Name> {
    match parse_address(address) {
        Some(_) => None,
        None => Name::parse(address).filter(|name| name.wire().len() > 1),
    }
}

/// The names of hosts that an answer about a service will show.
pub(crate) fn hosts<'a>(
    placements: &'a Placements,
    found: Found<'a>,
) -> impl Iterator<Item = Name> + 'a {
    let address = move |it: &Placement| host(it.service.address_on(&it.node, found.prefer_wan));
    placements.picked.iter().filter_map(address)
}

impl Zone {
    /// There is no such name.
    pub(crate) fn nothing(&self, asked: Asked<'_>) -> Message {
        let mut message = self.empty(asked, Outcome::NoSuchName);
        message.authority.push(self.authority(asked.now));
        message
    }

    /// Without records; but whoever asks about the authority is told of it first.
    pub(crate) fn empty(&self, asked: Asked<'_>, outcome: Outcome) -> Message {
        let mut message = Message::of(outcome);
        if asked.kind == kind::SOA {
            message.authority.push(self.authority(asked.now));
        }
        message
    }

    /// The domain itself: its authority, and the nodes of some servers as its name servers.
    pub(crate) fn apex(&self, asked: Asked<'_>, servers: &Placements) -> Message {
        let mut message = Message::of(Outcome::Found);
        if asked.kind == kind::SOA {
            let record = self.authority(asked.now);
            message.answers.push(Record {
                name: asked.name.clone(),
                ..record
            });
        }
        for Placement { node, .. } in &servers.picked {
            let Some(target) = self.name(&node.name, "node", &self.datacenter) else {
                continue;
            };
            message.answers.push(Record {
                name: asked.name.clone(),
                ttl: 0,
                data: Data::NameServer(target.clone()),
            });
            if let Some(address) = parse_address(&node.address) {
                message.additional.push(Record {
                    name: target,
                    ttl: self.node_ttl,
                    data: Data::address(address),
                });
            }
        }
        if message.answers.is_empty() {
            return self.nothing(asked);
        }
        message
    }

    /// A node, if there is one.
    pub(crate) fn node(
        &self,
        asked: Asked<'_>,
        node: Option<&Node>,
        found: Found<'_>,
        chains: &Chains,
    ) -> Message {
        let Some(node) = node else {
            return self.nothing(asked);
        };
        let mut message = self.empty(asked, Outcome::Found);
        let place = Place {
            name: asked.name,
            ttl: self.node_ttl,
        };
        let address = node.address(found.prefer_wan);
        place.address(address, asked.kind, chains, &mut message.answers);
        message
    }

    /// An address under its made-up name; whatever the question is about.
    pub(crate) fn address(&self, asked: Asked<'_>, address: IpAddr) -> Message {
        let mut message = self.empty(asked, Outcome::Found);
        message.answers.push(Record {
            name: asked.name.clone(),
            ttl: self.node_ttl,
            data: Data::address(address),
        });
        message
    }

    /// The name of the node that has the address that is asked about backwards.
    pub(crate) fn pointer(&self, asked: Asked<'_>, node: &Node) -> Message {
        let mut message = Message::of(Outcome::Found);
        let target = self.name(&node.name, "node", &self.datacenter);
        message.answers.extend(target.map(|target| Record {
            name: asked.name.clone(),
            ttl: 0,
            data: Data::Pointer(target),
        }));
        message
    }

    /// Instances of a service, which may be kept for so long.
    pub(crate) fn service(
        &self,
        asked: Asked<'_>,
        ttl: u32,
        placements: &Placements,
        found: Found<'_>,
        chains: &Chains,
    ) -> Message {
        if !placements.is_any {
            return self.nothing(asked);
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(placements.picked.len());
        for placement in &placements.picked {
            if asked.kind == kind::SRV {
                entries.extend(self.port(asked.name, ttl, placement, found, chains));
                continue;
            }
            let place = Place {
                name: asked.name,
                ttl,
            };
            let address = placement
                .service
                .address_on(&placement.node, found.prefer_wan);
            let mut records = Vec::with_capacity(1);
            place.address(address, asked.kind, chains, &mut records);
            entries.extend(records.into_iter().map(Entry::alone));
        }
        let mut message = self.empty(asked, Outcome::Found);
        // What the entries may take, as if no name were shortened; over TCP only the message's end counts.
        let mut room = None;
        if let Some(bounds) = asked.bounds {
            let authority: usize = message.authority.iter().map(Record::size).sum();
            let left = bounds.size.saturating_sub(bounds.overhead + authority);
            room = Some(left);
            let is_trimmed = trim(&mut entries, self.answers_max, left);
            message.is_truncated = is_trimmed && self.tells_truncation;
        }
        message.answers.reserve_exact(entries.len());
        message.additional.reserve_exact(entries.len());
        let size: usize = entries.iter().map(Entry::size).sum();
        for Entry { record, extra } in entries {
            message.answers.push(record);
            message.additional.extend(extra);
        }
        // Instances on one node have the same address. It is told for each: there are clients, HAProxy one of them, that give every additional record to a single answer.
        if room.is_some_and(|room| size > room) {
            message.tell_once();
        }
        if message.answers.is_empty() && !message.is_truncated {
            message.authority.push(self.authority(asked.now));
        }
        message
    }

    /// Where an instance listens, and the address of that place.
    fn port(
        &self,
        name: &Name,
        ttl: u32,
        placement: &Placement,
        found: Found<'_>,
        chains: &Chains,
    ) -> Option<Entry> {
        let Placement { node, service } = placement;
        let address = service.address_on(node, found.prefer_wan);
        let is_of_node = *address == node.address;
        let target = match parse_address(address) {
            Some(address) if !is_of_node => self.name_of(address, found.datacenter)?,
            // The original names the node here, where nobody listens.
            None if !is_of_node => host(address)?,
            _ => self.name(&node.name, "node", found.datacenter)?,
        };
        let mut extra = Vec::with_capacity(1);
        let place = Place { name: &target, ttl };
        match host(address) {
            // The target is that host itself, so no alias leads there.
            Some(host) if !is_of_node => {
                extra.extend(chains.get(&host.lower()).into_iter().flatten().cloned())
            }
            _ => place.address(address, kind::ANY, chains, &mut extra),
        }
        Some(Entry {
            record: Record {
                name: name.clone(),
                ttl,
                data: Data::Port {
                    // Others than these can be registered; the original sends what is left of them too.
                    port: u16::try_from(service.port & 0xffff).unwrap_or(0),
                    target,
                },
            },
            extra,
        })
    }

    /// The made-up name of an address.
    fn name_of(&self, address: IpAddr, datacenter: &Text) -> Option<Name> {
        let mut digits = [0; 32];
        let mut write = |bytes: &[u8]| {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 0xf)];
            }
            bytes.len() * 2
        };
        let length = match address {
            IpAddr::V4(address) => write(&address.octets()),
            IpAddr::V6(address) => write(&address.octets()),
        };
        self.name(&digits[..length], "addr", datacenter)
    }
}

/// Where the records of an address go.
struct Place<'a> {
    name: &'a Name,
    ttl: u32,
}

impl Place<'_> {
    /// What can be said about an address to someone who asks for records of this type.
    fn address(&self, address: &[u8], wanted: u16, chains: &Chains, out: &mut Vec<Record>) {
        let Some(address) = parse_address(address) else {
            if matches!(wanted, kind::ANY | kind::CNAME | kind::A | kind::AAAA) {
                self.alias(address, chains, out);
            }
            return;
        };
        let fits = match address {
            IpAddr::V4(_) => matches!(wanted, kind::A | kind::ANY),
            IpAddr::V6(_) => matches!(wanted, kind::AAAA | kind::ANY),
        };
        if fits {
            out.push(self.record(Data::address(address)));
        }
    }

    /// The name of a host, and what was found out about it.
    fn alias(&self, address: &[u8], chains: &Chains, out: &mut Vec<Record>) {
        let Some(target) = host(address) else {
            return;
        };
        let chain = chains.get(&target.lower());
        out.push(self.record(Data::Alias(target)));
        out.extend(chain.into_iter().flatten().cloned());
    }

    fn record(&self, data: Data) -> Record {
        Record {
            name: self.name.clone(),
            ttl: self.ttl,
            data,
        }
    }
}

/// A record of the answer, and those that it makes worth telling.
struct Entry {
    record: Record,
    extra: Vec<Record>,
}

impl Entry {
    fn alone(record: Record) -> Self {
        Self {
            record,
            extra: Vec::new(),
        }
    }

    /// Without compression.
    fn size(&self) -> usize {
        self.record.size() + self.extra_size()
    }

    fn extra_size(&self) -> usize {
        self.extra.iter().map(Record::size).sum()
    }

    /// Whether its extra records are the same as these.
    fn shares_extra(&self, other: &Self) -> bool {
        let (one, other) = (self.extra.first(), other.extra.first());
        matches!((one, other), (Some(one), Some(other)) if one.name == other.name)
    }
}

/// Leaves out answers from the end until the rest fits, what several of them need counted once, and says whether there were any.
fn trim(entries: &mut Vec<Entry>, count_max: usize, room: usize) -> bool {
    let count = entries.len();
    entries.truncate(count_max);
    let mut size = 0;
    let mut fitting = 0;
    for (place, entry) in entries.iter().enumerate() {
        size += entry.record.size();
        if !entries[..place]
            .iter()
            .any(|before| before.shares_extra(entry))
        {
            size += entry.extra_size();
        }
        if size > room {
            break;
        }
        fitting = place + 1;
    }
    entries.truncate(fitting);
    fitting < count
}
