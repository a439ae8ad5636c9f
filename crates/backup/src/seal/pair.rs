//! New identities, in the form in which age-keygen writes them.

use age::secrecy::{ExposeSecret, SecretString};
use age::x25519;
use jiff::Timestamp;

/// A file with a new identity, and what it is called as a recipient: lines of remark, then the secret.
pub fn identity_file(now: Timestamp) -> SecretString {
    let identity = x25519::Identity::generate();
    let secret = identity.to_string();
    let text = format!(
        "# created: {:.0}\n# public key: {}\n{}\n",
        now,
        identity.to_public(),
        secret.expose_secret()
    );
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{Identities, Recipient};

    #[test]
    fn what_is_made_is_read() {
        let file = identity_file(Timestamp::UNIX_EPOCH);
        let text = file.expose_secret();
        let public = text
            .lines()
            .find_map(|line| line.strip_prefix("# public key: "))
            .unwrap();
        assert!(public.parse::<Recipient>().is_ok(), "{text}");
        assert!(text.starts_with("# created: 1970-01-01T00:00:00Z\n"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        assert!(Identities::from_file(&path).is_ok());
        assert_ne!(text, identity_file(Timestamp::UNIX_EPOCH).expose_secret());
    }
}
