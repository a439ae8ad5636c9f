//! An authority that signs certificates into a folder, for tests of TLS.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// Why nothing here fails: what is signed is made right here, and the folder for temporary files is there.
const INVARIANT: &str = "a certificate can be made and written";

/// An authority with a folder of its own for its certificate and those it signs.
#[derive(Debug)]
pub struct Authority {
    room: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// Now, and for long.
    Now,
    /// Long ago.
    Expired,
    /// In a far future.
    Later,
}

impl Authority {
    /// A new authority, which nobody else trusts.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect(INVARIANT);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect(INVARIANT))
            .expect(INVARIANT);
        let room = tempfile::tempdir().expect(INVARIANT);
        fs::write(room.path().join("ca.pem"), issuer.pem()).expect(INVARIANT);
        Self { room, issuer }
    }

    /// The folder.
    pub fn room(&self) -> &Path {
        self.room.path()
    }

    /// The file of the authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.room.path().join("ca.pem")
    }

    /// Signs a certificate that is valid for these names, for both ends of a connection.
    /// A second one of the same `name` replaces the first one's files.
    pub fn sign(&self, name: &str, names: &[&str]) -> Pair {
        self.sign_for(name, names, Dates::Now)
    }

    /// Signs a certificate with these dates.
    pub fn sign_for(&self, name: &str, names: &[&str], dates: Dates) -> Pair {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect(INVARIANT);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (from, to) = match dates {
            Dates::Now => (2000, 2090),
            Dates::Expired => (2000, 2001),
            Dates::Later => (2090, 2091),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().expect(INVARIANT);
        let certificate = params.signed_by(&key, &self.issuer).expect(INVARIANT);
        let pair = Pair {
            certificate: self.room.path().join(format!("{name}.pem")),
            key: self.room.path().join(format!("{name}.key")),
        };
        fs::write(&pair.certificate, certificate.pem()).expect(INVARIANT);
        fs::write(&pair.key, key.serialize_pem()).expect(INVARIANT);
        pair
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
