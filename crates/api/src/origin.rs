//! Whether a request comes from a web page of somebody else.
//!
//! A browser sends what any page asks it to send, also to an agent that only this machine reaches. A page can do no more
//! than send, and most of that does no harm; a check that runs a script is as good as an account on this machine.
//! Browsers say where a page comes from, and a page can't change that. One trick is left to it: its own name may suddenly
//! mean this machine, and then the request seems to stay where the page is from; but it still says the page's name.

use std::net::IpAddr;

use crate::call::Call;
use crate::error::forbidden;
use crate::http::{Request, Response};

/// Why a script is not taken from where this request comes from; `None` if it is.
pub(crate) fn suspicion(call: &Call<'_>) -> Option<Response> {
    let agent = &call.api.agent;
    let settings = agent.settings();
    let sender = Sender::of(call.request);
    let text = sender.suspicion(&[agent.node()], &settings.domain)?;
    Some(forbidden(text))
}

/// What a request says of where it comes from.
#[derive(Debug, Default)]
struct Sender<'a> {
    /// What a browser says about the page.
    origin: Option<&'a [u8]>,
    /// Whom it thinks it asks.
    host: &'a [u8],
    /// Whether it comes over this machine's loopback interface.
    is_on_loopback: bool,
}

impl<'a> Sender<'a> {
    fn of(request: &'a Request) -> Self {
        let on_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        Self {
            origin: request.header("Origin"),
            host: request.header("Host").unwrap_or_default(),
            is_on_loopback: request.peer().is_some_and(|peer| on_loopback(peer.ip())),
        }
    }

    /// What to tell it; `None` if it may be trusted as far as this goes.
    ///
    /// `names` and what ends in `domain` are names of this agent.
    fn suspicion(&self, names: &[&str], domain: &str) -> Option<String> {
        if let Some(origin) = self.origin
            && !is_of(origin, self.host)
        {
            let origin = String::from_utf8_lossy(origin);
            return Some(format!(
                "a check with a script is not taken from a web page of {origin:?}, which is not this agent"
            ));
        }
        // A program that asks by a name of its own choice says no origin, unless it is a page after all.
        let could_be_a_page = self.origin.is_some() || self.is_on_loopback;
        if could_be_a_page && is_foreign(self.host, names, domain) {
            let host = String::from_utf8_lossy(self.host);
            return Some(format!(
                "a check with a script is not taken by the name {host:?}, which may be that of a web page; ask by the agent's address, as localhost or by its node name"
            ));
        }
        None
    }
}

/// Whether a page from there was loaded from this host.
fn is_of(origin: &[u8], host: &[u8]) -> bool {
    let after_scheme = memchr::memmem::find(origin, b"://").map(|at| &origin[at + 3..]);
    after_scheme.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Whether it is a name that anybody could own.
fn is_foreign(host: &[u8], names: &[&str], domain: &str) -> bool {
    // What is no text is no name either, and no browser sends it.
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if bare.unwrap_or(name).parse::<IpAddr>().is_ok() {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    // Nobody else can own a name without a dot; and some programs name a socket's path here.
    let could_be_owned = name.contains('.') && !name.contains('/') && !name.contains('%');
    could_be_owned
        && !ends_with_label(name, "localhost")
        && (domain.is_empty() || !ends_with_label(name, domain))
        && !names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether the name is this one or below it.
fn ends_with_label(name: &str, end: &str) -> bool {
    let Some(at) = name.len().checked_sub(end.len()) else {
        return false;
    };
    let (before, tail) = name.as_bytes().split_at(at);
    tail.eq_ignore_ascii_case(end.as_bytes()) && matches!(before.last(), None | Some(b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_suspicious(origin: Option<&str>, host: &str, is_on_loopback: bool) -> bool {
        let sender = Sender {
            origin: origin.map(str::as_bytes),
            host: host.as_bytes(),
            is_on_loopback,
        };
        sender.suspicion(&["n1.corp.net"], "consul.").is_some()
    }

    #[test]
    fn pages_of_others_are_told_apart() {
        for (origin, host, expected) in [
            (Some("http://evil.example"), "127.0.0.1:8500", true),
            (Some("null"), "127.0.0.1:8500", true),
            (Some(""), "127.0.0.1:8500", true),
            (Some("http://127.0.0.1:8501"), "127.0.0.1:8500", true),
            (Some("http://127.0.0.1:8500"), "", true),
            (Some("http://127.0.0.1:8500"), "127.0.0.1:8500", false),
            (Some("http://LocalHost:8500"), "localhost:8500", false),
            (Some("http://[::1]:8500"), "[::1]:8500", false),
            (
                Some("https://consul.service.consul"),
                "consul.service.consul",
                false,
            ),
            // The name of a page that means this machine all of a sudden.
            (Some("http://evil.example:8500"), "evil.example:8500", true),
            (None, "evil.example:8500", true),
            (None, "evil.example", true),
            (None, "evil.example.", true),
            (None, "notlocalhost.example:8500", true),
            (None, "evilconsul.io", true),
            (None, "127.0.0.1.evil.example:8500", true),
            (None, "127.0.0.1:8500", false),
            (None, "[::ffff:127.0.0.1]:8500", false),
            (None, "::1", false),
            (None, "localhost", false),
            (None, "a.localhost:8500", false),
            (None, "n1.node.CONSUL.:8500", false),
            (None, "N1.corp.net:8500", false),
            (None, "agent", false),
            (None, "", false),
            (None, "/run/consul.sock", false),
            (None, "%2Frun%2Fconsul.sock", false),
        ] {
            assert_eq!(
                is_suspicious(origin, host, true),
                expected,
                "{origin:?} {host}"
            );
        }
        // From elsewhere, only a browser is suspicious.
        assert!(!is_suspicious(None, "agent.example:8500", false));
        assert!(is_suspicious(Some("http://a.example"), "a.example", false));
    }
}
