//! The domain as it is set up on this agent: what it is called, and how long answers may be kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Executed, GoDuration, Text};

use crate::Config;
use crate::domain::Name;
use crate::message::{Authority, Data, Record};

/// Answers over UDP that the original gives at most, whatever is set.
const ANSWERS_MAX: usize = 8;

/// The key of the time for services without one of their own.
const ANY_SERVICE: &str = "*";

/// The domain.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) domain: Name,
    pub(crate) datacenter: Text,
    pub(crate) node_ttl: u32,
    service_ttl: BTreeMap<String, u32>,
    pub(crate) answers_max: usize,
    pub(crate) tells_truncation: bool,
    pub(crate) prefers_wan: bool,
    server: Name,
    mailbox: Name,
}

impl Zone {
    /// Reads what is set. In place of a domain that can't be one there is the default: the root, for one, would be everybody's names.
    pub(crate) fn new(config: &Config) -> Self {
        let domain = Name::parse(config.domain.as_bytes()).map(|name| name.lower());
        let domain = domain.unwrap_or_else(|| {
            let domain = Config::default().domain;
            tracing::error!("{} cannot be a domain, {domain} is answered", config.domain);
            Name::parse(domain.as_bytes()).expect("the default is a name")
        });
        let under = |label: &str| {
            let labels = [label.as_bytes()];
            Name::of(labels, Some(&domain)).unwrap_or_else(|| domain.clone())
        };
        let ttl = config.service_ttl.iter();
        Self {
            server: under("ns"),
            mailbox: under("postmaster"),
            domain,
            datacenter: config.datacenter.clone(),
            node_ttl: seconds(config.node_ttl),
            service_ttl: ttl
                .map(|(name, ttl)| (name.clone(), seconds(*ttl)))
                .collect(),
            answers_max: config.udp_answer_limit.min(ANSWERS_MAX),
            tells_truncation: config.enable_truncate,
            prefers_wan: config.translate_wan_addrs,
        }
    }

    /// How long answers about a service may be kept; the name is that of the question, in lower case.
    pub(crate) fn service_ttl(&self, name: &[u8]) -> u32 {
        if self.service_ttl.is_empty() {
            return 0;
        }
        let any = || self.service_ttl.get(ANY_SERVICE).copied();
        self.own_ttl(name).or_else(any).unwrap_or(0)
    }

    fn own_ttl(&self, name: &[u8]) -> Option<u32> {
        let name = std::str::from_utf8(name).ok()?;
        self.service_ttl.get(name).copied()
    }

    /// How long answers about what a prepared query found may be kept: as it says itself, else as answers about that service.
    pub(crate) fn query_ttl(&self, executed: &Executed) -> u32 {
        if executed.dns_ttl.is_empty() {
            // A query spells the service as it likes, and finds what is set under that spelling too.
            let spelled = self.own_ttl(&executed.service);
            return spelled.unwrap_or_else(|| self.service_ttl(&executed.service.lower()));
        }
        // It was looked at when the query was written, but a restored one may say anything.
        let ttl = GoDuration::parse(&executed.dns_ttl.to_lossy());
        ttl.map_or(0, |ttl| seconds(ttl.to_std()))
    }

    /// `<first>.<second>.<datacenter>.<domain>`, where the first may have dots.
    pub(crate) fn name(&self, first: &[u8], second: &str, datacenter: &[u8]) -> Option<Name> {
        let labels = first
            .split(|byte| *byte == b'.')
            .chain([second.as_bytes(), datacenter]);
        Name::of(labels, Some(&self.domain))
    }

    /// What there is to say about the domain, at this time in seconds since 1970.
    pub(crate) fn authority(&self, now: u64) -> Record {
        Record {
            name: self.domain.clone(),
            ttl: 0,
            data: Data::Authority(Arc::new(Authority {
                server: self.server.clone(),
                mailbox: self.mailbox.clone(),
                // As serials do, it begins anew after the largest.
                serial: u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0),
                refresh: 3600,
                retry: 600,
                expire: 86_400,
                // Nobody should remember that something isn't there.
                minimum: 0,
            })),
        }
    }
}

/// As messages count it; more than can be said is the most that can.
fn seconds(duration: Duration) -> u32 {
    const TTL_MAX: u32 = i32::MAX.unsigned_abs();
    u32::try_from(duration.as_secs())
        .unwrap_or(TTL_MAX)
        .min(TTL_MAX)
}
