//! Whom figures are told, as the configuration says.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

/// Whom figures are told, and under which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Stands in front of every name. Default: `consul`.
    pub prefix: String,
    /// Whether names begin with the prefix only, and not with `consul` once more as in 0.7.1. Default: no.
    pub single_prefix: bool,
    /// The host, which stands in the names of gauges; `None` to leave it out. Default: this host's name.
    pub hostname: Option<String>,
    /// Statsite, which is told over TCP.
    pub statsite: Option<Address>,
    /// Statsd, which is told by datagrams.
    pub statsd: Option<Address>,
    /// The daemon of Datadog, which is told by datagrams.
    pub dogstatsd: Option<Address>,
    /// What every figure is marked with that it is told.
    pub dogstatsd_tags: Vec<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            prefix: "consul".to_owned(),
            single_prefix: false,
            hostname: None,
            statsite: None,
            statsd: None,
            dogstatsd: None,
            dogstatsd_tags: Vec::new(),
        }
    }
}

impl Telemetry {
    /// Whether anybody is told.
    pub(super) fn is_told(&self) -> bool {
        self.statsite.is_some() || self.statsd.is_some() || self.dogstatsd.is_some()
    }
}

/// Where one is told: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Reads `host:port`; whether there is such a host is seen by [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// The text for the user, who knows which key it is about.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        if host.is_empty() || port.parse::<u16>().ok().is_none_or(|port| port == 0) {
            return Err(format!("{text} is no host:port"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The addresses that it stands for, at least one. It may take long.
    ///
    /// # Errors
    /// If there is none.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> = self.0.to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ));
        }
        Ok(addresses)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
