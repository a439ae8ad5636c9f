//! What the files hold, and what is wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{
    ResolvesClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use wire::pem::{self, FILE_BYTES_MAX, PemError};

use super::Config;
use super::validity::{self, Validity};

/// Why an agent can't speak TLS as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The settings contradict each other, or leave in the clear what they seem to protect.
    #[error("{0}")]
    HalfConfigured(String),
    /// A file can't be used.
    #[error("{setting} {}: {problem}", file.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The expected name of servers is none.
    #[error("server_name {0:?} can't be the name in a certificate")]
    ServerName(String),
    /// The cryptography doesn't do what was asked of it.
    #[error("TLS can't be set up: {0}")]
    Cryptography(String),
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It can't be read.
    #[error("{0}")]
    Unreadable(#[source] io::Error),
    /// It is larger than any such file.
    #[error("larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// It doesn't hold what it should.
    #[error("{0}")]
    Pem(#[source] PemError),
    /// A certificate in it is none.
    #[error("certificate {number} in it can't be used: {why}")]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// The key in it is of no kind that can be used.
    #[error("the key in it can't be used: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the key doesn't match the certificate in {}", .0.display())]
    Mismatch(PathBuf),
}

impl TlsError {
    pub(super) fn cryptography(why: impl std::fmt::Display) -> Self {
        Self::Cryptography(why.to_string())
    }
}

/// What the files hold.
pub(super) struct Material {
    pub(super) roots: Option<Arc<RootCertStore>>,
    pub(super) own: Option<Own>,
    authorities: Vec<CertificateDer<'static>>,
}

/// This agent's certificate with its key.
pub(super) struct Own {
    pub(super) resolver: Arc<dyn ResolvesServerCert>,
    pub(super) client_resolver: Arc<dyn ResolvesClientCert>,
    chain: Vec<CertificateDer<'static>>,
}

impl Material {
    pub(super) fn read(config: &Config, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut authorities = Vec::new();
        let mut roots = None;
        if let Some(file) = &config.ca_file {
            authorities = certificates("ca_file", file)?;
            let mut store = RootCertStore::empty();
            for (place, authority) in authorities.iter().enumerate() {
                store
                    .add(authority.clone())
                    .map_err(|why| bad_certificate("ca_file", file, place, &why))?;
            }
            roots = Some(Arc::new(store));
        }
        let own = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => Some(Own::read(cert, key, provider)?),
            _ => None,
        };
        Ok(Self {
            roots,
            own,
            authorities,
        })
    }

    /// What starts, but will make others refuse this agent now or soon.
    pub(super) fn doubts(
        &self,
        config: &Config,
        provider: &CryptoProvider,
        now: UnixTime,
    ) -> Vec<String> {
        let mut doubts = Vec::new();
        let mut judge_dates = |setting: &str, file: &Option<PathBuf>, der: &[u8]| {
            let Some(file) = file else { return };
            let file = file.display();
            match validity::read(der) {
                Some(Validity { not_after, .. }) if not_after < now.as_secs() => {
                    doubts.push(format!("{setting} {file}: the certificate has expired"))
                }
                Some(Validity { not_before, .. }) if not_before > now.as_secs() => doubts.push(
                    format!("{setting} {file}: the certificate is not valid yet"),
                ),
                Some(_) => {}
                None => doubts.push(format!(
                    "{setting} {file}: the dates of the certificate can't be read"
                )),
            }
        };
        for authority in &self.authorities {
            judge_dates("ca_file", &config.ca_file, authority);
        }
        let Some((own, cert_file)) = self.own.as_ref().zip(config.cert_file.as_ref()) else {
            return doubts;
        };
        let Some((end, between)) = own.chain.split_first() else {
            return doubts;
        };
        judge_dates("cert_file", &config.cert_file, end);

        let Ok(parsed) = ParsedCertificate::try_from(end) else {
            return doubts;
        };
        let file = cert_file.display();
        if let (Some(roots), Some(ca)) = (&self.roots, &config.ca_file) {
            let signed = verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                between,
                now,
                provider.signature_verification_algorithms.all,
            );
            if let Err(why) = signed
                && !is_about_dates(&why)
            {
                doubts.push(format!(
                    "cert_file {file}: members that trust {} alone will refuse this certificate: {why}",
                    ca.display()
                ));
            }
        }
        if config.server && config.verify_server_hostname {
            let name = config.server_of(&config.datacenter);
            let valid = ServerName::try_from(name.as_str())
                .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
            if !valid {
                doubts.push(format!(
                    "cert_file {file}: members that verify the host name will refuse this certificate, since it is not valid for {name}"
                ));
            }
        }
        doubts
    }
}

impl Own {
    fn read(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = certificates("cert_file", cert)?;
        for (place, certificate) in chain.iter().enumerate() {
            ParsedCertificate::try_from(certificate)
                .map_err(|why| bad_certificate("cert_file", cert, place, &why))?;
        }
        let bad_key = |problem| TlsError::File {
            setting: "key_file",
            file: key.to_owned(),
            problem,
        };
        let der = pem::private_key(&read("key_file", key)?)
            .map_err(|why| bad_key(FileProblem::Pem(why)))?;
        let signer = provider
            .key_provider
            .load_private_key(der)
            .map_err(|why| bad_key(FileProblem::Key(why.to_string())))?;
        let certified = CertifiedKey::new(chain.clone(), signer);
        match certified.keys_match() {
            // Some keys can't tell.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(bad_key(FileProblem::Mismatch(cert.to_owned()))),
        }
        let single = Arc::new(SingleCertAndKey::from(certified));
        Ok(Self {
            resolver: Arc::clone(&single) as Arc<dyn ResolvesServerCert>,
            client_resolver: single,
            chain,
        })
    }
}

fn is_about_dates(why: &Error) -> bool {
    matches!(
        why,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
        )
    )
}

fn certificates(
    setting: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    pem::certificates(&read(setting, file)?).map_err(|why| TlsError::File {
        setting,
        file: file.to_owned(),
        problem: FileProblem::Pem(why),
    })
}

fn bad_certificate(setting: &'static str, file: &Path, place: usize, why: &Error) -> TlsError {
    TlsError::File {
        setting,
        file: file.to_owned(),
        problem: FileProblem::Certificate {
            number: place + 1,
            why: why.to_string(),
        },
    }
}

/// A whole file, if it isn't too large to be one of certificates.
fn read(setting: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let bad = |problem| TlsError::File {
        setting,
        file: file.to_owned(),
        problem,
    };
    let unreadable = |why| bad(FileProblem::Unreadable(why));
    let mut bytes = Vec::new();
    File::open(file)
        .map_err(unreadable)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(FileProblem::TooLarge));
    }
    Ok(bytes)
}
