//! The secret halves of recipients, from the files that age-keygen writes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use age::secrecy::{ExposeSecret, SecretString};
use age::x25519;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Recipient;

/// The largest file that is read: some three hundred identities with their comments.
const SIZE_MAX: usize = 64 << 10;

/// Secrets that open what was encrypted to their recipients. They are wiped from memory when they are dropped.
#[derive(Clone)]
pub struct Identities(pub(super) Vec<x25519::Identity>);

/// Why a file gives no identities. What it holds is never told, only where.
#[derive(Debug, thiserror::Error)]
pub enum BadIdentities {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Source(#[from] io::Error),
    /// It is far longer than such files are.
    #[error("it is longer than {SIZE_MAX} bytes, so it is no file of identities")]
    TooLong,
    /// It is encrypted itself.
    #[error("it is protected by a passphrase; decrypt it first, with age -d")]
    Protected,
    /// A line is something else.
    #[error("line {line}: {what}")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is there in place of an identity.
        what: NotAnIdentity,
    },
    /// There are only comments.
    #[error("there is no identity in it, which would begin with AGE-SECRET-KEY-1")]
    None,
}

/// What stands where an identity should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnIdentity {
    /// The public half.
    #[error(
        "this is a recipient, to which one encrypts; what decrypts begins with AGE-SECRET-KEY-1"
    )]
    Recipient,
    /// A key for ssh, or for TLS.
    #[error("this is a key of another program; identities are what age-keygen makes")]
    OtherProgram,
    /// A key that needs hardware, or that only age itself knows.
    #[error("this identity is not of age's own classic kind; decrypt the snapshot with age itself")]
    Kind,
    /// It is none of all that, or isn't whole.
    #[error("this is no identity, or not a whole one")]
    Damaged,
}

impl Identities {
    /// Reads a file as age-keygen writes it: one identity a line, with empty lines and comments.
    ///
    /// # Errors
    /// [`BadIdentities`], without the name of the file.
    pub fn from_file(path: &Path) -> Result<Self, BadIdentities> {
        Self::read(File::open(path)?)
    }

    /// Reads what such a file holds.
    ///
    /// # Errors
    /// [`BadIdentities`].
    pub fn read(input: impl Read) -> Result<Self, BadIdentities> {
        // All the room there may be at once, since a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SIZE_MAX + 1));
        input.take(SIZE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > SIZE_MAX {
            return Err(BadIdentities::TooLong);
        }
        let is_protected = |start: &[u8]| bytes.starts_with(start);
        if is_protected(super::opened::MAGIC) || is_protected(super::opened::ARMOR) {
            return Err(BadIdentities::Protected);
        }
        let mut identities = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let identity = identity(line).map_err(|what| BadIdentities::Line {
                line: index + 1,
                what,
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            return Err(BadIdentities::None);
        }
        Ok(Self(identities))
    }

    /// Makes one, as age-keygen does.
    pub fn generate() -> Self {
        Self(vec![x25519::Identity::generate()])
    }

    /// What a file of them says: lines of remark, the public one of each among them, and the secrets.
    pub fn file(&self, now: Timestamp) -> SecretString {
        let mut text = format!("# created: {now:.0}\n");
        for identity in &self.0 {
            text.push_str(&format!("# public key: {}\n", identity.to_public()));
            text.push_str(identity.to_string().expose_secret());
            text.push('\n');
        }
        text.into()
    }

    /// To whom one encrypts so that these open it.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.0.iter().map(|it| Recipient(it.to_public())).collect()
    }
}

fn identity(line: &[u8]) -> Result<x25519::Identity, NotAnIdentity> {
    let parsed = std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let starts = |with: &str| {
            line.get(..with.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
        };
        if starts("AGE-SECRET-KEY-1") {
            NotAnIdentity::Damaged
        } else if starts("AGE-SECRET-KEY-") || starts("AGE-PLUGIN-") {
            NotAnIdentity::Kind
        } else if starts("age1") {
            NotAnIdentity::Recipient
        } else if starts("-----BEGIN") || starts("ssh-") {
            NotAnIdentity::OtherProgram
        } else {
            NotAnIdentity::Damaged
        }
    })
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whose they are is no secret, and helps.
        write!(f, "Identities of {:?}", self.recipients())
    }
}
