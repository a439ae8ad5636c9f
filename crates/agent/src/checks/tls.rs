//! Whom HTTPS checks believe, and Docker's certificates.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial;

/// The largest file of certificates that is read.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Whether the other side has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// By a certificate of the system's authorities.
    Authorities,
    /// Anyone will do.
    Anyone,
}

/// One configuration for all checks of a kind, for as long as there is one: the last to go takes the system's authorities along,
/// and the next to come reads them anew.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    verified: Mutex<Weak<ClientConfig>>,
    unverified: Mutex<Weak<ClientConfig>>,
}

impl Authorities {
    /// The configuration for `trust`; whoever means to use it again holds on to it.
    pub(super) fn config(&self, trust: Trust) -> Result<Arc<ClientConfig>, String> {
        let kept = match trust {
            Trust::Authorities => &self.verified,
            Trust::Anyone => &self.unverified,
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = kept.upgrade() {
            return Ok(config);
        }
        let provider = rpc::tls::provider();
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::Authorities => Arc::new(
                rustls_platform_verifier::Verifier::new(provider).map_err(|why| {
                    format!("the system's certificate authorities can't be used: {why}")
                })?,
            ),
            Trust::Anyone => Arc::new(Anyone(provider.signature_verification_algorithms)),
        };
        let config = builder()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let config = Arc::new(quiet(config));
        *kept = Arc::downgrade(&config);
        Ok(config)
    }
}

/// What Docker's own tools read from a directory: `ca.pem`, `cert.pem` and `key.pem`.
pub(super) fn docker(directory: &Path) -> Result<Arc<ClientConfig>, String> {
    let file = |name: &str| {
        let path = directory.join(name);
        read(&path).map_err(|why| format!("{}: {why}", path.display()))
    };
    let certificates = |name: &str| {
        let bytes = file(name)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        found.map_err(|why| format!("{}: {why}", directory.join(name).display()))
    };
    let key = PrivateKeyDer::from_pem_slice(&file("key.pem")?)
        .map_err(|why| format!("{}: {why}", directory.join("key.pem").display()))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca.pem")? {
        roots.add(authority).map_err(|why| why.to_string())?;
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), rpc::tls::provider())
            .build()
            .map_err(|why| why.to_string())?;
    let config = builder()?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(certificates("cert.pem")?, key)
        .map_err(|why| why.to_string())?;
    Ok(Arc::new(quiet(config)))
}

/// `connection`, encrypted, to whoever proves to be `host`.
pub(super) async fn encrypt(
    connection: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} can't be the name in a certificate"))?;
    let handshake = TlsConnector::from(config).connect(name, connection);
    handshake.await.map_err(|why| dial::reason(&why))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    ClientConfig::builder_with_provider(rpc::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())
}

/// Every check shows that a whole handshake works, and no sessions take room.
fn quiet(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_SIZE_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(io::Error::other(format!(
            "larger than {FILE_SIZE_MAX} bytes"
        )));
    }
    Ok(bytes)
}

/// Takes any certificate, as the check asks for; that the other side has its key is still verified.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
