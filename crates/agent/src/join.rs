//! Joining the agents that the configuration names: where they are, and how often it is tried.
//!
//! What joining means is passed in; in the program it is gossip's, in the tests of this file it is made up.
//! Time is tokio's, so that it can be paused, and nothing here draws chance.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::discover::Discover;

/// The most addresses that one attempt tries.
pub const TRIED_MAX: usize = 10_000;

/// How long one name may take to be resolved.
pub const RESOLVE_TIME_MAX: Duration = Duration::from_secs(10);

/// Where an agent is to be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinAddress {
    /// Its host.
    pub host: JoinHost,
    /// The port of its gossip.
    pub port: u16,
}

/// A host, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum JoinHost {
    /// By its address.
    Ip(IpAddr),
    /// By a name, which may stand for several addresses.
    Name(String),
}

impl JoinAddress {
    /// Reads `ip`, `ip:port`, `name`, `name:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
    ///
    /// # Errors
    /// A text for the user when it is none of these.
    pub fn parse(text: &str, port_default: u16) -> Result<Self, String> {
        let none = || format!("{text:?} is no address to join");
        if let Ok(ip) = text.parse() {
            return Ok(Self {
                host: JoinHost::Ip(ip),
                port: port_default,
            });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(none)?;
                let ip = host.parse().map_err(|_| none())?;
                let port = match rest {
                    "" => None,
                    _ => Some(rest.strip_prefix(':').ok_or_else(none)?),
                };
                (JoinHost::Ip(IpAddr::V6(ip)), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                let host = match host.parse() {
                    Ok(ip) => JoinHost::Ip(ip),
                    Err(_) if is_host_name(host) => JoinHost::Name(host.to_owned()),
                    Err(_) => return Err(none()),
                };
                (host, port)
            }
        };
        let port = match port {
            None => port_default,
            // `parse` alone would take "+1".
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(none)?,
            Some(_) => return Err(none()),
        };
        Ok(Self { host, port })
    }
}

/// What a resolver may be asked for: no more than that, as `/etc/hosts` may hold names that DNS forbids.
fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for JoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            JoinHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            JoinHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Whoever knows which addresses a name stands for.
pub trait Resolve: Send + Sync {
    /// All addresses of `name`, in the order in which they should be tried.
    ///
    /// # Errors
    /// When it can't be found out.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver, with its hosts file and its name servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            // The port is not what is asked for, but the call wants one.
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The socket addresses behind `addresses`, each once and in their order, and why some have none.
pub async fn resolve(
    addresses: &[JoinAddress],
    resolver: &dyn Resolve,
) -> (Vec<SocketAddr>, Vec<String>) {
    let mut found = Found::default();
    let mut problems = Vec::new();
    for address in addresses {
        match &address.host {
            JoinHost::Ip(ip) => found.add(SocketAddr::new(*ip, address.port)),
            JoinHost::Name(name) => {
                match tokio::time::timeout(RESOLVE_TIME_MAX, resolver.resolve(name)).await {
                    Ok(Ok(ips)) if !ips.is_empty() => {
                        for ip in ips {
                            found.add(SocketAddr::new(ip, address.port));
                        }
                    }
                    Ok(Ok(_)) => problems.push(format!("{name}: no such host")),
                    Ok(Err(why)) => problems.push(format!("{name}: {why}")),
                    Err(_) => problems.push(format!("{name}: the name servers don't answer")),
                }
            }
        }
    }
    (found.in_order, problems)
}

/// Addresses in the order in which they came, each once.
#[derive(Debug, Default)]
struct Found {
    in_order: Vec<SocketAddr>,
    known: BTreeSet<SocketAddr>,
}

impl Found {
    /// What comes after the bound is left out: an attempt that reaches none of the first ten thousand has another problem.
    fn add(&mut self, address: SocketAddr) {
        if self.in_order.len() < TRIED_MAX && self.known.insert(address) {
            self.in_order.push(address);
        }
    }
}

/// How often joining is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The time between the end of an attempt and the next one. Default: 30 s.
    pub interval: Duration,
    /// How many attempts may follow the first one; `None`, the default, for no end.
    pub retries_max: Option<u32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            retries_max: None,
        }
    }
}

impl Retry {
    /// How long to wait after `attempts` attempts that all failed; `None` when it is time to give up.
    fn wait(self, attempts: u64) -> Option<Duration> {
        match self.retries_max {
            Some(max) if attempts > u64::from(max) => None,
            Some(_) | None => Some(self.interval),
        }
    }
}

/// All attempts have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("max join retry exhausted, exiting")]
pub struct Exhausted;

/// Where an attempt finds the addresses that it tries.
pub struct Sources<'a> {
    /// Those that the configuration names.
    pub addresses: &'a [JoinAddress],
    /// Those who know more, asked afresh for each attempt.
    pub providers: &'a [Box<dyn Discover>],
    /// The port of gossip on the machines that providers find.
    pub port: u16,
    /// Who resolves names.
    pub resolver: &'a dyn Resolve,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("addresses", &self.addresses)
            .field("providers", &self.providers)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Sources<'_> {
    /// The addresses of this moment.
    ///
    /// # Errors
    /// Why there are none.
    async fn find(&self) -> Result<Vec<SocketAddr>, String> {
        let mut found = Found::default();
        let mut problems = Vec::new();
        for provider in self.providers {
            let name = provider.name();
            match provider.addresses().await {
                Ok(ips) => {
                    tracing::info!("Discovered {} servers from {name}", ips.len());
                    for ip in ips {
                        found.add(SocketAddr::new(ip, self.port));
                    }
                }
                Err(why) => {
                    tracing::error!("Unable to query {name} instances: {why}");
                    problems.push(format!("Unable to query {name} instances: {why}"));
                }
            }
        }
        let (named, unresolved) = resolve(self.addresses, self.resolver).await;
        for address in named {
            found.add(address);
        }
        problems.extend(unresolved);
        if !found.in_order.is_empty() {
            for problem in problems {
                tracing::warn!("{problem}");
            }
            Ok(found.in_order)
        } else if problems.is_empty() {
            Err("No servers to join".to_owned())
        } else {
            Err(problems.join("; "))
        }
    }
}

/// Tries to join once; `join` says how many of the addresses it reached.
///
/// # Errors
/// When it reached none.
pub async fn join_once<J, F, E>(sources: &Sources<'_>, join: J) -> Result<usize, String>
where
    J: FnOnce(Vec<SocketAddr>) -> F,
    F: Future<Output = Result<usize, E>>,
    E: fmt::Display,
{
    let addresses = sources.find().await?;
    join(addresses).await.map_err(|why| why.to_string())
}

/// Tries to join until it works, and says how many addresses were reached then.
///
/// Each attempt asks the providers and resolves the names anew, since machines come and go.
/// It may be dropped at any time.
///
/// # Errors
/// When as many attempts as are allowed have failed.
pub async fn retry_join<J, F, E>(
    sources: &Sources<'_>,
    retry: Retry,
    join: J,
) -> Result<usize, Exhausted>
where
    J: Fn(Vec<SocketAddr>) -> F,
    F: Future<Output = Result<usize, E>>,
    E: fmt::Display,
{
    tracing::info!("Joining cluster...");
    let mut attempts = 0;
    loop {
        let why = match join_once(sources, &join).await {
            Ok(reached) => {
                tracing::info!("Join completed. Synced with {reached} initial agents");
                return Ok(reached);
            }
            Err(why) => why,
        };
        attempts += 1;
        let Some(wait) = retry.wait(attempts) else {
            tracing::error!("max join retry exhausted, exiting");
            return Err(Exhausted);
        };
        let shown = model::GoDuration::from(wait);
        tracing::warn!("Join failed: {}, retrying in {shown}", one_line(&why));
        tokio::time::sleep(wait).await;
    }
}

/// A cause of several lines, as one line of the log.
fn one_line(why: &str) -> String {
    let lines = why.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
