//! Who is at the other end of a TLS connection.

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};

/// Who is at the other end of a TLS connection, as far as its certificate tells.
/// The certificate, if there is one, was signed by an authority of `ca_file`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    certificate: Option<CertificateDer<'static>>,
}

impl PeerIdentity {
    /// Of the chain that a handshake has verified.
    pub(super) fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        Self {
            certificate: chain
                .and_then(|chain| chain.first())
                .map(|end| end.clone().into_owned()),
        }
    }

    /// Whether the peer has shown a certificate.
    pub fn is_authenticated(&self) -> bool {
        self.certificate.is_some()
    }

    /// Whether the peer's certificate is valid for `server.<datacenter>.<domain>`.
    /// Certificates of client agents are signed by the same authority; the name is what only servers have.
    pub fn is_server_of(&self, datacenter: &str, domain: &str) -> bool {
        let Some(certificate) = &self.certificate else {
            return false;
        };
        let name = format!("server.{datacenter}.{}", domain.trim_end_matches('.'));
        let (Ok(parsed), Ok(name)) = (
            ParsedCertificate::try_from(certificate),
            ServerName::try_from(name),
        ) else {
            return false;
        };
        verify_server_name(&parsed, &name).is_ok()
    }
}
