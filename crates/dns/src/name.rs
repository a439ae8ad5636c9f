//! What a name asks for: the grammar of names inside the domain, and of those that are addresses backwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Text;

use crate::domain::Name;

/// What a name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The domain itself.
    Apex,
    /// `<node>.node[.<dc>]`.
    Node {
        name: Text,
        datacenter: Option<Text>,
    },
    /// `[<tag>.]<service>.service[.<dc>]` or `_<service>._<tag>.service[.<dc>]`.
    Service {
        name: Text,
        tag: Option<Text>,
        datacenter: Option<Text>,
    },
    /// `<id or name>.query[.<dc>]`.
    PreparedQuery {
        name: Text,
        datacenter: Option<Text>,
    },
    /// `<hex>.addr[.<dc>]`: names that are made up for addresses which have none.
    Address(IpAddr),
    /// The same of a length that no address has; there is such a name, and nothing under it.
    NoAddress,
    /// An address backwards, for the name of a node; `None` if it is no whole address.
    Reverse(Option<IpAddr>),
    /// Inside of the domain, and nothing that could be there.
    Nothing,
    /// Somebody else's.
    Elsewhere,
}

/// Reads a name.
pub(crate) fn parse(name: &Name, domain: &Name) -> Lookup {
    let labels: Vec<Vec<u8>> = name.labels().map(<[u8]>::to_ascii_lowercase).collect();
    let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
    let is_reverse = labels.last().is_some_and(|label| *label == b"arpa");
    let depth = domain.labels().count();
    // The longer end wins; a domain that is the root has none.
    if name.is_in(domain) && !(is_reverse && depth == 0) {
        return inside(&labels[..labels.len() - depth]);
    }
    if is_reverse {
        return Lookup::Reverse(reverse(&labels[..labels.len() - 1]));
    }
    Lookup::Elsewhere
}

/// Reads the labels before the domain, from the right: what is no keyword names a datacenter, and the leftmost such one counts.
fn inside(labels: &[&[u8]]) -> Lookup {
    if labels.is_empty() {
        return Lookup::Apex;
    }
    let mut datacenter = None;
    let mut rest = labels;
    while let Some((last, before)) = rest.split_last() {
        match *last {
            b"service" => return service(before, datacenter),
            b"node" => {
                if before.is_empty() {
                    return Lookup::Nothing;
                }
                let name = joined(before);
                return Lookup::Node { name, datacenter };
            }
            b"query" if before.is_empty() => return Lookup::Nothing,
            b"query" => {
                let name = joined(before);
                return Lookup::PreparedQuery { name, datacenter };
            }
            b"addr" => {
                return match before {
                    [digits] => address(digits),
                    _ => Lookup::Nothing,
                };
            }
            other => datacenter = Some(Text::from(other)),
        }
        rest = before;
    }
    Lookup::Nothing
}

fn service(labels: &[&[u8]], datacenter: Option<Text>) -> Lookup {
    let (name, tag) = match labels {
        [] => return Lookup::Nothing,
        [[b'_', name @ ..], [b'_', protocol @ ..]] => {
            // Everything is reached over TCP, so that one asks for no tag.
            let tag = (protocol != b"tcp" && !protocol.is_empty()).then(|| Text::from(protocol));
            (name, tag)
        }
        [name] => (*name, None),
        [tag @ .., name] => (*name, Some(joined(tag))),
    };
    if name.is_empty() {
        return Lookup::Nothing;
    }
    Lookup::Service {
        name: Text::from(name),
        tag,
        datacenter,
    }
}

/// Names of nodes and tags may have dots, which make several labels of them.
fn joined(labels: &[&[u8]]) -> Text {
    match labels {
        [one] => Text::from(*one),
        labels => Text::from(labels.join(&b'.')),
    }
}

fn address(digits: &[u8]) -> Lookup {
    let address = match digits.len() {
        8 => hex::<4>(digits).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        32 => hex::<16>(digits).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => return Lookup::NoAddress,
    };
    address.map_or(Lookup::Nothing, Lookup::Address)
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Reads what stands before `arpa`.
fn reverse(labels: &[&[u8]]) -> Option<IpAddr> {
    let (kind, backwards) = labels.split_last()?;
    match *kind {
        b"in-addr" => {
            let [d, c, b, a] = backwards else {
                return None;
            };
            let octets = [octet(a)?, octet(b)?, octet(c)?, octet(d)?];
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        b"ip6" if backwards.len() == 32 => {
            let mut bytes = [0_u8; 16];
            for (place, label) in backwards.iter().rev().enumerate() {
                let [digit] = label else {
                    return None;
                };
                bytes[place / 2] = bytes[place / 2] << 4 | nibble(*digit)?;
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// A byte in the one spelling that names have.
fn octet(digits: &[u8]) -> Option<u8> {
    let is_plain =
        digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits[0] != b'0');
    let text = std::str::from_utf8(digits).ok().filter(|_| is_plain)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests;
