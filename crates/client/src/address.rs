//! Where the agent is: `host:port`, `http://host:port`, `https://host:port` or `unix:///path`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::Error;

/// The address of an agent's HTTP face.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and, usually, a port, spoken to without encryption.
    Http(String),
    /// A host and, usually, a port, spoken to with TLS.
    Https(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The same place, spoken to with TLS.
    #[must_use]
    pub fn with_tls(self) -> Self {
        match self {
            Self::Http(authority) | Self::Https(authority) => Self::Https(authority),
            Self::Unix(path) => Self::Unix(path),
        }
    }

    /// What stands before the path in a URL.
    pub(crate) fn base(&self) -> String {
        match self {
            Self::Http(authority) => format!("http://{authority}"),
            Self::Https(authority) => format!("https://{authority}"),
            // The socket decides where the request goes; the host is only a name for messages.
            Self::Unix(_) => "http://unix.sock".to_owned(),
        }
    }

    /// How messages name the place that was dialled.
    pub(crate) fn dialled(&self) -> String {
        match self {
            Self::Http(authority) | Self::Https(authority) => format!("tcp {authority}"),
            Self::Unix(path) => format!("unix {}", path.display()),
        }
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::Http("127.0.0.1:8500".to_owned())
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() {
                Err(bad())
            } else {
                Ok(Self::Unix(PathBuf::from(path)))
            };
        }
        let (tls, authority) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => (false, text),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"/?#@\\".contains(c);
        if authority.is_empty() || !authority.chars().all(plain) {
            return Err(bad());
        }
        let authority = authority.to_owned();
        Ok(if tls {
            Self::Https(authority)
        } else {
            Self::Http(authority)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let http = |text: &str| Address::Http(text.to_owned());
        let cases = [
            ("127.0.0.1:8500", http("127.0.0.1:8500")),
            ("localhost", http("localhost")),
            ("[::1]:80", http("[::1]:80")),
            ("http://a:1", http("a:1")),
            ("http://a:1/", http("a:1")),
            ("https://a:1", Address::Https("a:1".to_owned())),
            (
                "unix:///run/c.sock",
                Address::Unix(PathBuf::from("/run/c.sock")),
            ),
        ];
        for (text, address) in cases {
            assert_eq!(text.parse::<Address>().unwrap(), address, "{text}");
        }
        for text in [
            "",
            "unix://",
            "http://",
            "a b",
            "a/b",
            "user@host",
            "a?b",
            "ftp://x",
        ] {
            assert_eq!(
                text.parse::<Address>().unwrap_err().to_string(),
                format!("invalid address {text:?}")
            );
        }
    }
}
