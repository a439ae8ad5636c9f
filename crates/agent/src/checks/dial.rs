//! From `host:port` to a connection: names, both families of addresses, and which addresses are out of bounds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// After this long without an answer the next address is tried beside the first.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);

/// A name may have this many addresses; the others are not tried.
const ADDRESSES_MAX: usize = 16;

/// So many names are looked up at once: the system's resolver blocks a thread for each, for as long as it likes.
/// Whoever comes then waits, within its own time.
const LOOKUPS_MAX: usize = 8;

/// What knows the addresses of a name; it may block.
pub(super) type Resolver = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The names, for all checks together.
#[derive(Debug)]
pub(super) struct Names {
    resolver: Resolver,
    lookups: Arc<Semaphore>,
}

impl Default for Names {
    /// The system's.
    fn default() -> Self {
        Self::of(|name, port| {
            Ok((name, port)
                .to_socket_addrs()?
                .take(ADDRESSES_MAX)
                .collect())
        })
    }
}

impl Names {
    /// The names that `resolver` knows.
    pub(super) fn of(resolver: Resolver) -> Self {
        Self {
            resolver,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// The addresses of `host`, which may be one itself; at least one.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
            // This machine, as in the original; and its name is the last that should wait for the turns of others.
            return Ok(vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
            ]);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let turn = Arc::clone(&self.lookups).acquire_owned().await;
        let name = host.to_owned();
        let resolver = self.resolver;
        let lookup = tokio::task::spawn_blocking(move || {
            // The turn ends with the lookup, not with whoever asked for it and may have given up.
            let _turn = turn;
            resolver(&name, port)
        });
        let found = lookup.await.map_err(io::Error::other)??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no addresses"));
        }
        Ok(found)
    }
}

/// Host and port of `address`, the host without its brackets.
pub(super) fn split(address: &str) -> Result<(&str, u16), String> {
    let unusable = |why: &str| format!("{why} {address}");
    let (host, port) = address
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'))
        .ok_or_else(|| unusable("missing port in address"))?;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(bare) => bare,
        None if host.contains(':') => return Err(unusable("too many colons in address")),
        None => host,
    };
    let port = port
        .parse()
        .map_err(|_| unusable("not a port number in address"))?;
    Ok((host, port))
}

/// A connection to the first of `addresses` that answers.
///
/// They are tried in the order that the resolver gave them, the families by turns, each beside those that are still silent.
/// If none answers, the first error tells why.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = by_turns(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut first_error = None;
    trying.extend(waiting.next().map(TcpStream::connect));
    while !trying.is_empty() {
        tokio::select! { biased;
            Some(tried) = trying.next() => match tried {
                Ok(connection) => return Ok(connection),
                Err(why) => {
                    first_error.get_or_insert(why);
                    trying.extend(waiting.next().map(TcpStream::connect));
                }
            },
            () = sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {
                trying.extend(waiting.next().map(TcpStream::connect));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no addresses")))
}

/// The first, the first of the other family, the second, and so on.
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let (mut same, mut other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .take(ADDRESSES_MAX)
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut ordered = Vec::with_capacity(same.len() + other.len());
    same.reverse();
    other.reverse();
    while !(same.is_empty() && other.is_empty()) {
        ordered.extend(same.pop());
        ordered.extend(other.pop());
    }
    ordered
}

/// What stops a connection, as people say it.
pub(super) fn reason(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::TimedOut => why.kind().to_string(),
        _ => why.to_string(),
    }
}

/// Whether `address` is link-local, in any spelling that still leads there, or one of the two addresses beyond where clouds keep
/// their metadata for IPv6.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            const METADATA: [Ipv6Addr; 2] = [
                Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
                Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
            ];
            let [a, b, c, d, e, f, g, h] = address.segments();
            let [high, low] = [g, h].map(u16::to_be_bytes);
            let inner = Ipv4Addr::new(high[0], high[1], low[0], low[1]);
            // IPv4 in IPv6: mapped, its deprecated forerunner, and both well-known prefixes of translators.
            let carries = matches!(
                (a, b, c, d, e, f),
                (0, 0, 0, 0, 0, 0xffff | 0) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0 | 1, ..)
            );
            address.is_unicast_link_local()
                || METADATA.contains(&address)
                || (carries && inner.is_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_in_every_spelling() {
        for address in [
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "fe80::1",
            "febf:ffff::1",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert!(is_link_local(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "10.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "fec0::1",
            "fe00::1",
            "fd00:ec2::253",
            "2001:db8::a9fe:a9fe",
        ] {
            assert!(!is_link_local(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_are_split() {
        for (address, split_up) in [
            ("a.b:80", Ok(("a.b", 80))),
            ("127.0.0.1:1", Ok(("127.0.0.1", 1))),
            ("[::1]:80", Ok(("::1", 80))),
            (":80", Ok(("", 80))),
            ("a", Err("missing port in address a")),
            ("[::1]", Err("missing port in address [::1]")),
            ("::1:80", Err("too many colons in address ::1:80")),
            ("a:http", Err("not a port number in address a:http")),
            ("a:65536", Err("not a port number in address a:65536")),
            ("", Err("missing port in address ")),
        ] {
            assert_eq!(split(address), split_up.map_err(str::to_owned), "{address}");
        }
    }

    #[test]
    fn families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"].map(|a| a.parse().unwrap());
        let ordered = ["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"].map(|a| a.parse().unwrap());
        assert_eq!(by_turns(&addresses), ordered);
        assert_eq!(by_turns(&[]), []);
    }
}
