//! The settings of TLS, and whether they make sense together.

use std::path::PathBuf;
use std::str::FromStr;

use super::TlsError;

/// The settings of TLS. The default is none at all: everything in the clear, as the original starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// PEM file of the authorities that sign members' certificates; it may hold several.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this agent's certificate, followed by those between it and the authority.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub key_file: Option<PathBuf>,
    /// Whether listeners demand TLS and a certificate that an authority signed.
    pub verify_incoming: bool,
    /// Whether calls to servers use TLS and check that an authority signed the server's certificate.
    pub verify_outgoing: bool,
    /// Whether the certificate of a server must be valid for `server.<datacenter>.<domain>`. Implies `verify_outgoing`.
    pub verify_server_hostname: bool,
    /// The name that servers' certificates must be valid for, unless `verify_server_hostname` says which.
    pub server_name: Option<String>,
    /// This node's datacenter.
    pub datacenter: String,
    /// The domain under which servers are named; a dot at its end doesn't matter.
    pub domain: String,
    /// The oldest version of TLS that is spoken.
    pub min_version: MinVersion,
    /// Whether this agent is a server, so that members call it.
    pub server: bool,
    /// Whether this agent listens for HTTPS.
    pub https: bool,
}

/// An oldest version of TLS. Nothing before 1.2 is ever spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// The original's default. Taken as 1.2.
    Tls10,
    /// Taken as 1.2.
    Tls11,
    /// TLS 1.2, the default.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

/// No version of TLS has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown tls_min_version {0:?}; tls12 and tls13 are known, tls10 and tls11 are taken as tls12"
)]
pub struct UnknownVersion(String);

impl FromStr for MinVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        Ok(match text {
            "tls10" => Self::Tls10,
            "tls11" => Self::Tls11,
            "tls12" => Self::Tls12,
            "tls13" => Self::Tls13,
            _ => return Err(UnknownVersion(text.to_owned())),
        })
    }
}

impl Config {
    /// Whether calls to servers use TLS.
    pub(super) fn verifies_outgoing(&self) -> bool {
        self.verify_outgoing || self.verify_server_hostname
    }

    /// The name that a server of this datacenter has in its certificate.
    pub(super) fn server_of(&self, datacenter: &str) -> String {
        let domain = self.domain.trim_end_matches('.');
        format!("server.{datacenter}.{domain}")
    }

    /// Whether the settings may start, and what about them deserves a warning. Looks at no file.
    ///
    /// The rule: whoever sets one half of TLS gets the other half or an error, never a silent connection in the clear.
    /// A certificate without any check is let through, because a cluster that moves to TLS has to accept it before it demands it.
    pub(super) fn judge(&self) -> Result<Vec<String>, TlsError> {
        let (ca, cert, key) = (
            self.ca_file.is_some(),
            self.cert_file.is_some(),
            self.key_file.is_some(),
        );
        let pair = cert && key;
        let outgoing = self.verifies_outgoing();
        // The original looks at verify_incoming where a TLS listener is opened, and nowhere else.
        let incoming = self.verify_incoming && (self.server || self.https);
        let outgoing_flag = if self.verify_outgoing {
            "verify_outgoing"
        } else {
            "verify_server_hostname"
        };
        let half = |text: String| Err(TlsError::HalfConfigured(text));

        if cert != key {
            let (set, missing) = if cert {
                ("cert_file", "key_file")
            } else {
                ("key_file", "cert_file")
            };
            return half(format!(
                "{set} is set and {missing} is not: without both of them nothing could be encrypted with this certificate"
            ));
        }
        if incoming && !ca {
            return half("VerifyIncoming set, and no CA certificate provided!".to_owned());
        }
        if incoming && !pair {
            return half("VerifyIncoming set, and no Cert/Key pair provided!".to_owned());
        }
        if outgoing && !ca {
            return half("VerifyOutgoing set, and no CA certificate provided!".to_owned());
        }
        if self.https && !pair {
            return half(
                "ports.https is set, and no Cert/Key pair provided: HTTPS can't be served without cert_file and key_file"
                    .to_owned(),
            );
        }
        if incoming && !outgoing {
            return half(
                "verify_incoming is set and verify_outgoing is not: this agent's own calls to servers would be in the clear"
                    .to_owned(),
            );
        }
        if self.server && outgoing && !pair {
            return half(format!(
                "{outgoing_flag} is set on a server without cert_file and key_file: calls to this server would be in the clear"
            ));
        }
        if ca && !self.verify_incoming && !outgoing {
            return half(
                "ca_file is set, and neither verify_incoming nor verify_outgoing is: nothing would be checked against it, and calls between members would be in the clear"
                    .to_owned(),
            );
        }

        let mut warnings = Vec::new();
        // With verify_outgoing it is what everybody is told to set everywhere.
        if self.verify_incoming && !incoming && !outgoing {
            warnings.push(
                "verify_incoming has no effect: this agent has no TLS listener, and its calls to servers are in the clear"
                    .to_owned(),
            );
        }
        if pair && !self.verify_incoming && !outgoing {
            let accepted = if self.server {
                ", though TLS is accepted"
            } else {
                ""
            };
            warnings.push(format!(
                "neither verify_incoming nor verify_outgoing is set: calls between members are in the clear{accepted}"
            ));
        }
        if self.server && outgoing && !self.verify_incoming {
            warnings.push(
                "verify_incoming is not set: members may still call this server in the clear"
                    .to_owned(),
            );
        }
        if self.server_name.is_some() && !outgoing {
            warnings.push("server_name has no effect without verify_outgoing".to_owned());
        }
        let asked = match self.min_version {
            MinVersion::Tls10 => Some("tls10"),
            MinVersion::Tls11 => Some("tls11"),
            MinVersion::Tls12 | MinVersion::Tls13 => None,
        };
        if let Some(asked) = asked {
            warnings.push(format!(
                "tls_min_version {asked} is taken as tls12, the oldest version that is spoken"
            ));
        }
        Ok(warnings)
    }
}
