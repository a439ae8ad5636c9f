//! How a figure is called outside of this process.

use metrics::Key;

use super::instrument::Kind;

/// What stands in front of the names that this program's own parts are called by.
const OWN: &str = "consul.";

/// How figures are called, everywhere the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Names {
    /// Stands in front of every name.
    pub(super) prefix: String,
    /// Whether names of our own parts lose their own `consul`, which the original's wire names double.
    pub(super) single_prefix: bool,
    /// The host, which stands before the names of gauges where anybody but this process sees them.
    pub(super) host: Option<String>,
}

impl Names {
    /// As 0.7.1 calls it, on the wire and for SIGUSR1: what tells figures of one name apart is the end of their name.
    pub(super) fn wire(&self, kind: Kind, key: &Key) -> String {
        let host = self.host.as_deref().filter(|_| kind == Kind::Gauge);
        self.whole(host, key)
    }

    /// The same without the host, for those who know it from elsewhere.
    pub(super) fn without_host(&self, key: &Key) -> String {
        self.whole(None, key)
    }

    /// As later releases call it, whose endpoint it is shown by: what tells figures of one name apart are labels.
    pub(super) fn modern(&self, key: &Key) -> String {
        let name = key.name();
        format!("{}.{}", self.prefix, name.strip_prefix(OWN).unwrap_or(name))
    }

    fn whole(&self, host: Option<&str>, key: &Key) -> String {
        let mut name = self.prefix.clone();
        let own = match key.name().strip_prefix(OWN) {
            Some(rest) if self.single_prefix => rest,
            _ => key.name(),
        };
        let labels = key.labels().map(metrics::Label::value);
        for part in host.into_iter().chain([own]).chain(labels) {
            name.push('.');
            name.push_str(part);
        }
        name
    }
}

/// The name as a line of statsd can carry it. The original replaces colons and blanks; what else would end the name, or the
/// line, may come from what users call things and is replaced as well.
pub(super) fn plain(name: &str) -> String {
    let plain = |c: char| match c {
        ':' | ' ' | '|' | '@' | '#' | ',' => '_',
        c if c.is_control() => '_',
        c => c,
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    #[test]
    fn names_by_face() {
        let names = |single_prefix, host: Option<&str>| Names {
            prefix: "consul".to_owned(),
            single_prefix,
            host: host.map(str::to_owned),
        };
        let apply = Key::from_name("consul.kvs.apply");
        let alloc = Key::from_name("runtime.alloc_bytes");
        let active = Key::from_name("consul.session_ttl.active");
        let query = Key::from_parts(
            "consul.catalog.service.query-tag",
            vec![Label::new("service", "web"), Label::new("tag", "v1")],
        );
        let old = names(false, Some("h.local"));
        assert_eq!(old.wire(Kind::Sample, &apply), "consul.consul.kvs.apply");
        assert_eq!(
            old.wire(Kind::Gauge, &alloc),
            "consul.h.local.runtime.alloc_bytes"
        );
        assert_eq!(
            old.wire(Kind::Gauge, &active),
            "consul.h.local.consul.session_ttl.active"
        );
        assert_eq!(old.without_host(&alloc), "consul.runtime.alloc_bytes");
        assert_eq!(
            old.wire(Kind::Counter, &query),
            "consul.consul.catalog.service.query-tag.web.v1"
        );
        assert_eq!(old.modern(&query), "consul.catalog.service.query-tag");

        let new = names(true, None);
        assert_eq!(new.wire(Kind::Sample, &apply), "consul.kvs.apply");
        assert_eq!(new.wire(Kind::Gauge, &active), "consul.session_ttl.active");
        assert_eq!(new.wire(Kind::Gauge, &alloc), "consul.runtime.alloc_bytes");
        assert_eq!(new.modern(&alloc), "consul.runtime.alloc_bytes");
    }

    #[test]
    fn a_name_is_no_line_of_its_own() {
        assert_eq!(plain("a:1|c\nb c"), "a_1_c_b_c");
    }
}
