//! Certificates and keys out of PEM files, with errors that say what is wrong with a file.
//!
//! Both ends of TLS read the same kind of files: members among themselves, and the client library.

use rustls_pki_types::pem::{Error, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// No file of certificates or keys is larger; whoever reads one stops here.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no PEM section of the wanted kind.
    #[error("no PEM certificate in it")]
    NoCertificate,
    /// There is no PEM section with a key.
    #[error("no PEM private key in it")]
    NoKey,
    /// The key wants a password, which nobody could give to a daemon.
    #[error("the private key is encrypted; only keys without a password can be used")]
    Encrypted,
    /// A section begins and doesn't end, or holds something else than base64.
    #[error("damaged PEM")]
    Damaged,
}

/// All certificates of a file, in their order; at least one.
///
/// # Errors
/// When the file has none, or is damaged.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| PemError::Damaged)?;
    if found.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(found)
}

/// The first private key of a file, whichever form it has.
///
/// # Errors
/// When the file has none, or is damaged, or the key is encrypted.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    // The older form is announced as a plain key, and says in a header that it is none.
    let says = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(PemError::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|why| match why {
        Error::NoItemsFound => PemError::NoKey,
        _ => PemError::Damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_a_file_is() {
        let one = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n";
        let both = format!("words before\n{key}{one}{one}");
        assert_eq!(
            certificates(both.as_bytes()).unwrap(),
            [vec![0, 1, 2].into(), vec![0, 1, 2].into()]
        );
        assert_eq!(
            private_key(both.as_bytes()).unwrap().secret_der(),
            [0, 1, 2]
        );

        let certificates_of = [
            ("", PemError::NoCertificate),
            ("not PEM", PemError::NoCertificate),
            (key, PemError::NoCertificate),
            (&one[..40], PemError::Damaged),
            (
                "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                PemError::Damaged,
            ),
        ];
        for (text, why) in certificates_of {
            assert_eq!(certificates(text.as_bytes()), Err(why), "{text:?}");
        }
        let keys_of = [
            ("", PemError::NoKey),
            (one, PemError::NoKey),
            (&key[..40], PemError::Damaged),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAEC\n-----END ENCRYPTED PRIVATE KEY-----\n",
                PemError::Encrypted,
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAEC\n-----END RSA PRIVATE KEY-----\n",
                PemError::Encrypted,
            ),
        ];
        for (text, why) in keys_of {
            assert_eq!(private_key(text.as_bytes()).unwrap_err(), why, "{text:?}");
        }
    }
}
