//! TLS from the caller's side: whom to trust, and what to show.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use wire::pem::{self, FILE_BYTES_MAX};

use crate::{Address, Error};

/// How TLS is spoken with an agent whose address asks for it. The default trusts whom the system trusts, and shows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A folder of such files, all of which are trusted, beside those of `ca_file`.
    pub ca_path: Option<PathBuf>,
    /// PEM file of a certificate to show, followed by those between it and its authority.
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name that the agent's certificate must be valid for, instead of the host in the address.
    /// It is not announced to the agent in the handshake.
    pub server_name: Option<String>,
    /// Whether any certificate will do. Whoever stands between can then read and change everything.
    pub skip_verification: bool,
}

impl Tls {
    /// What connections to this address use.
    ///
    /// Also for one without TLS, because the HTTP library has no default of its own that would work; no file is read then.
    pub(crate) fn client_config(&self, address: &Address) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::Tls(why.to_string()))?;
        if !matches!(address, Address::Https(_)) {
            // Trusts nobody.
            return Ok(builder
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth());
        }
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(&provider)?);
        let mut config = match (&self.cert_file, &self.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates(CERTIFICATE, cert)?;
                let private =
                    pem::private_key(&read(KEY, key)?).map_err(|why| bad(KEY, key, why))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|why| match why {
                        rustls::Error::InconsistentKeys(_) => {
                            let of = format!("doesn't match the certificate in {}", cert.display());
                            bad(KEY, key, of)
                        }
                        rustls::Error::InvalidCertificate(_) => bad(CERTIFICATE, cert, why),
                        _ => bad(KEY, key, why),
                    })?
            }
            (Some(_), None) => {
                return Err(Error::Tls("a client certificate needs its key".to_owned()));
            }
            (None, Some(_)) => {
                return Err(Error::Tls("a client key needs its certificate".to_owned()));
            }
        };
        // Rather none than the one that isn't meant.
        config.enable_sni = self.server_name.is_none();
        Ok(config)
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if self.skip_verification {
            return Ok(Arc::new(Anyone(provider.signature_verification_algorithms)));
        }
        let verifier: Arc<dyn ServerCertVerifier> = match self.roots()? {
            Some(roots) => {
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build()
                    .map_err(|why| {
                        let file = self.ca_file.as_ref().or(self.ca_path.as_ref());
                        bad(AUTHORITIES, file.map_or(Path::new(""), |it| it), why)
                    })?
            }
            None => Arc::new(
                rustls_platform_verifier::Verifier::new(Arc::clone(provider)).map_err(|why| {
                    Error::Tls(format!(
                        "the system's certificate authorities can't be used: {why}"
                    ))
                })?,
            ),
        };
        let Some(name) = &self.server_name else {
            return Ok(verifier);
        };
        let name = ServerName::try_from(name.clone())
            .map_err(|_| Error::Tls(format!("{name:?} can't be the name in a certificate")))?;
        Ok(Arc::new(Named { name, verifier }))
    }

    /// The authorities to trust; `None` for the system's.
    fn roots(&self) -> Result<Option<RootCertStore>, Error> {
        if self.ca_file.is_none() && self.ca_path.is_none() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        let mut files: Vec<PathBuf> = self.ca_file.iter().cloned().collect();
        if let Some(folder) = &self.ca_path {
            files.extend(files_of(folder)?);
        }
        for file in files {
            for authority in certificates(AUTHORITIES, &file)? {
                roots
                    .add(authority)
                    .map_err(|why| bad(AUTHORITIES, &file, why))?;
            }
        }
        Ok(Some(roots))
    }
}

/// The most files that a folder of authorities may have.
const FILES_MAX: usize = 1000;

/// The files of a folder of authorities, one at least; what is hidden is none.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |why: io::Error| bad(AUTHORITIES, folder, why);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && !entry.path().is_dir() {
            files.push(entry.path());
        }
        if files.len() > FILES_MAX {
            return Err(bad(
                AUTHORITIES,
                folder,
                format!("more than {FILES_MAX} files"),
            ));
        }
    }
    if files.is_empty() {
        return Err(bad(AUTHORITIES, folder, "no file is in this folder"));
    }
    files.sort();
    Ok(files)
}

const AUTHORITIES: &str = "CA file";
const CERTIFICATE: &str = "client certificate";
const KEY: &str = "client key";

fn bad(what: &'static str, file: &Path, why: impl std::fmt::Display) -> Error {
    Error::File {
        what,
        file: file.to_owned(),
        why: why.to_string(),
    }
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem::certificates(&read(what, file)?).map_err(|why| bad(what, file, why))
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let size =
        File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match size {
        Ok(size) if size as u64 <= FILE_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(bad(
            what,
            file,
            format!("larger than {FILE_BYTES_MAX} bytes"),
        )),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            Err(bad(what, file, "no such file or directory"))
        }
        Err(why) => Err(bad(what, file, why)),
    }
}

/// Checks the certificate for a name of ours.
#[derive(Debug)]
struct Named {
    name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier
            .verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Takes any certificate, as the caller asked for; that the other side has its key is still checked.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
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
