//! What configuration asks of the machine: its name, its addresses, its users.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};

/// Facts about the machine that fill what the configuration leaves open.
/// A plain value, so that tests can say what the machine looks like.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The host's name; empty when it has none.
    pub name: String,
    /// The addresses of the network interfaces that are up, in their order.
    pub interfaces: Vec<Interface>,
}

/// One address of one network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name, such as `eth0`.
    pub name: String,
    /// The address.
    pub address: IpAddr,
}

impl Host {
    /// The machine that we run on.
    pub fn here() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        Self {
            name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            interfaces: interfaces
                .into_iter()
                .filter(if_addrs::Interface::is_oper_up)
                .map(|interface| Interface {
                    address: interface.ip(),
                    name: interface.name,
                })
                .collect(),
        }
    }

    /// The address to advertise when the configuration names none: the only private IPv4 address,
    /// a loopback one only where there is nothing else.
    ///
    /// # Errors
    /// The reason, when there is no such address or a choice to make.
    pub fn private_ipv4(&self) -> Result<IpAddr, &'static str> {
        let mut candidates: Vec<Ipv4Addr> = self
            .ipv4()
            .filter(|ip| is_private(*ip) && !ip.is_loopback())
            .collect();
        if candidates.is_empty() {
            candidates = self.ipv4().filter(Ipv4Addr::is_loopback).collect();
        }
        match candidates[..] {
            [] => Err("No private IP address found"),
            [only] => Ok(IpAddr::V4(only)),
            _ => Err("Multiple private IPs found. Please configure one."),
        }
    }

    /// The address to advertise when bound to any IPv6 address: the only public one.
    ///
    /// # Errors
    /// The reason, when there is no such address or a choice to make.
    pub fn public_ipv6(&self) -> Result<IpAddr, &'static str> {
        let candidates: Vec<IpAddr> = self
            .interfaces
            .iter()
            .map(|interface| interface.address)
            .filter(|address| matches!(address, IpAddr::V6(ip) if is_public_v6(ip)))
            .collect();
        match candidates[..] {
            [] => Err("No public IPv6 address found"),
            [only] => Ok(only),
            _ => Err("Multiple public IPv6 addresses found. Please configure one."),
        }
    }

    /// An address as it was configured: itself, or what a template such as `{{ GetPrivateIP }}` or
    /// `{{ GetInterfaceIP "eth0" }}` stands for on this machine.
    ///
    /// # Errors
    /// When the template is unknown, or stands for no address or for several.
    pub fn resolve(&self, text: &str) -> Result<String, String> {
        let Some(template) = text
            .trim()
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"))
        else {
            return Ok(text.to_owned());
        };
        let words: Vec<&str> = template.split_whitespace().collect();
        let private =
            |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if is_private(*ip) && !ip.is_loopback());
        let public = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !is_private(*ip),
            IpAddr::V6(ip) => is_public_v6(ip),
        };
        let every = self.interfaces.iter().map(|interface| interface.address);
        let (found, first_only): (Vec<IpAddr>, bool) = match words[..] {
            ["GetPrivateIP"] => (every.filter(private).collect(), true),
            ["GetPrivateIPs"] => (every.filter(private).collect(), false),
            ["GetPublicIP"] => (every.filter(public).collect(), true),
            ["GetPublicIPs"] => (every.filter(public).collect(), false),
            [function @ ("GetInterfaceIP" | "GetInterfaceIPs"), name] => {
                let name = name.trim_matches(['"', '\'', '`']);
                let of_it = self
                    .interfaces
                    .iter()
                    .filter(|interface| interface.name == name);
                (
                    of_it.map(|interface| interface.address).collect(),
                    function == "GetInterfaceIP",
                )
            }
            _ => return Err(format!("address template {text} is not supported")),
        };
        match found[..] {
            [] => Err(format!(
                "No addresses found for {text}, please configure one."
            )),
            [first, ..] if first_only => Ok(first.to_string()),
            [only] => Ok(only.to_string()),
            _ => {
                let all: Vec<String> = found.iter().map(IpAddr::to_string).collect();
                Err(format!(
                    "Multiple addresses found ({:?}), please configure one.",
                    all.join(" ")
                ))
            }
        }
    }

    fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.interfaces
            .iter()
            .filter_map(|interface| match interface.address {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
    }
}

/// The ranges that the original takes for private.
fn is_private(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
}

fn is_public_v6(ip: &std::net::Ipv6Addr) -> bool {
    !(ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_unicast_link_local()
        || ip.is_unique_local()
        || ip.is_multicast())
}

/// The numeric id of a user, given by id or by name.
pub fn user_id(user: &str) -> Option<u32> {
    // Larger than any account file by far, and a bound all the same.
    const SIZE_MAX: u64 = 16 << 20;
    if let Ok(id) = user.parse() {
        return Some(id);
    }
    let mut accounts = Vec::new();
    std::fs::File::open("/etc/passwd")
        .ok()?
        .take(SIZE_MAX)
        .read_to_end(&mut accounts)
        .ok()?;
    String::from_utf8_lossy(&accounts).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn host(addresses: &[&str]) -> Host {
        Host {
            name: "host".to_owned(),
            interfaces: addresses
                .iter()
                .map(|address| Interface {
                    name: "eth0".to_owned(),
                    address: address.parse().unwrap(),
                })
                .collect(),
        }
    }

    #[test]
    fn finds_the_address_to_advertise() {
        let cases: &[(&[&str], Result<&str, &str>)] = &[
            (&["127.0.0.1", "10.1.2.3"], Ok("10.1.2.3")),
            (&["127.0.0.1", "8.8.8.8", "100.100.0.1"], Ok("100.100.0.1")),
            (&["127.0.0.1", "::1"], Ok("127.0.0.1")),
            (&["127.0.0.1", "8.8.8.8"], Ok("127.0.0.1")),
            (&["8.8.8.8"], Err("No private IP address found")),
            (
                &["10.0.0.1", "192.168.0.1"],
                Err("Multiple private IPs found. Please configure one."),
            ),
        ];
        for (addresses, expected) in cases {
            let found = host(addresses).private_ipv4().map(|ip| ip.to_string());
            assert_eq!(
                found.as_deref(),
                expected.as_ref().map(|ip| *ip),
                "{addresses:?}"
            );
        }
        assert_eq!(
            host(&["::1", "fe80::1", "2001:db8::1"]).public_ipv6(),
            Ok("2001:db8::1".parse().unwrap())
        );
    }

    #[test]
    fn templates_stand_for_addresses() {
        let machine = host(&["127.0.0.1", "10.1.2.3", "192.168.0.1", "8.8.8.8"]);
        let cases = [
            ("10.0.0.9", Ok("10.0.0.9")),
            ("{{ GetPrivateIP }}", Ok("10.1.2.3")),
            ("{{GetPublicIP}}", Ok("8.8.8.8")),
            ("{{ GetPublicIPs }}", Ok("8.8.8.8")),
            ("{{ GetInterfaceIP \"eth0\" }}", Ok("127.0.0.1")),
            (
                "{{ GetPrivateIPs }}",
                Err("Multiple addresses found (\"10.1.2.3 192.168.0.1\"), please configure one."),
            ),
            (
                "{{ GetInterfaceIP \"eth9\" }}",
                Err("No addresses found for {{ GetInterfaceIP \"eth9\" }}, please configure one."),
            ),
            (
                "{{ GetAll }}",
                Err("address template {{ GetAll }} is not supported"),
            ),
        ];
        for (text, expected) in cases {
            let resolved = machine.resolve(text);
            assert_eq!(resolved.as_deref().map_err(String::as_str), expected);
        }
    }

    #[test]
    fn knows_users() {
        assert_eq!(user_id("1234"), Some(1234));
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("no such user"), None);
        assert_eq!(user_id(""), None);
    }
}
