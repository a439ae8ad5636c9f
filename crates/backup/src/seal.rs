//! Encrypted snapshots, in the age format: whoever has a recipient's identity opens them, with this program or with age itself.
//!
//! [`sealed`] encrypts a stream on its way, [`Opened`] reads a file whether it is encrypted or not.
//! Only keys that age-keygen makes by default are known: RSA in Rust has an open weakness, so ssh keys would be half a promise,
//! and keys that live in hardware need programs beside this one.

use std::fmt;
use std::str::FromStr;

use age::x25519;

mod identities;
mod opened;
mod stream;
#[cfg(test)]
mod tests;

pub use age::secrecy::ExposeSecret;
pub use identities::{BadIdentities, Identities};
pub use opened::{Opened, SealError};
pub use stream::sealed;

/// Whom a snapshot is encrypted to: a public key, `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

/// Why a text names nobody to encrypt to. The text itself is not told, since it may be a secret that was put in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// It is the secret half.
    #[error(
        "this is a secret identity, which decrypts; name the recipient that belongs to it, which age-keygen -y shows"
    )]
    Identity,
    /// It is a key for ssh.
    #[error("ssh keys are not taken as recipients; age-keygen makes one that is")]
    Ssh,
    /// It is a key of a kind that needs hardware, or one that only age itself knows.
    #[error("only recipients of age's own classic kind are taken, which age-keygen makes")]
    Kind,
    /// It is none of all that, or was mistyped.
    #[error(
        "this is no recipient, which is age1 and 58 letters and digits more; was it copied whole?"
    )]
    Mistyped,
}

impl FromStr for Recipient {
    type Err = BadRecipient;

    fn from_str(text: &str) -> Result<Self, BadRecipient> {
        let text = text.trim();
        text.parse().map(Self).map_err(|_| {
            let lower = text.to_ascii_lowercase();
            if lower.starts_with("age-secret-key-") || lower.starts_with("age-plugin-") {
                BadRecipient::Identity
            } else if lower.starts_with("ssh-") || lower.starts_with("ecdsa-") {
                BadRecipient::Ssh
            } else if is_of_another_kind(&lower) {
                BadRecipient::Kind
            } else {
                BadRecipient::Mistyped
            }
        })
    }
}

/// Whether it is `age1`, a name, and another `1`. Letters and digits of a key itself have no `1`.
fn is_of_another_kind(lower: &str) -> bool {
    lower
        .strip_prefix("age1")
        .is_some_and(|rest| rest.contains('1'))
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}
