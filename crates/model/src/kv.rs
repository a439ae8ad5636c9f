//! Keys and values.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use triomphe::ThinArc;
use uuid::Uuid;

use crate::{Index, Text};

/// The largest value over HTTP, and the largest sum of values in a transaction, in bytes.
pub const VALUE_MAX: usize = 512 * 1024;

/// A key with its value and all that is known of it: one allocation, shared by whoever holds it.
///
/// A million of them must fit into 400 MB, so what is mostly absent (flags, lock index, session) takes no room while it is absent.
#[derive(Clone)]
pub struct KvEntry(ThinArc<Head, u8>);

/// The part that every entry has.
///
/// The bytes behind it are, in order: [`EXTRA`] bytes of flags, lock index and session if `extra`; the key; the value.
#[derive(Clone, Copy)]
struct Head {
    create_index: Index,
    modify_index: Index,
    key_len: u32,
    extra: bool,
}

const EXTRA: usize = 8 + 8 + 16;

/// A [`KvEntry`] taken apart, to build one from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvParts<'a> {
    /// Any bytes, not empty.
    pub key: &'a [u8],
    /// Any bytes; empty shows as `null`.
    pub value: &'a [u8],
    /// The application's own number.
    pub flags: u64,
    /// How often the key was locked anew.
    pub lock_index: u64,
    /// Who holds its lock.
    pub session: Option<Uuid>,
    /// When it came to be.
    pub create_index: Index,
    /// When it was last written.
    pub modify_index: Index,
}

impl KvEntry {
    /// Packs the parts into one allocation.
    ///
    /// # Panics
    /// If the key is longer than 4 GiB, which no decoder lets through.
    pub fn new(parts: &KvParts<'_>) -> Self {
        let extra = parts.flags != 0 || parts.lock_index != 0 || parts.session.is_some();
        let mut tail = Vec::with_capacity(EXTRA + parts.key.len() + parts.value.len());
        if extra {
            tail.extend_from_slice(&parts.flags.to_le_bytes());
            tail.extend_from_slice(&parts.lock_index.to_le_bytes());
            tail.extend_from_slice(parts.session.unwrap_or_default().as_bytes());
        }
        tail.extend_from_slice(parts.key);
        tail.extend_from_slice(parts.value);
        let head = Head {
            create_index: parts.create_index,
            modify_index: parts.modify_index,
            key_len: u32::try_from(parts.key.len()).expect("keys are bounded by the decoders"),
            extra,
        };
        Self(ThinArc::from_header_and_slice(head, &tail))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn key_start(&self) -> usize {
        if self.head().extra { EXTRA } else { 0 }
    }

    fn key_end(&self) -> usize {
        self.key_start() + self.head().key_len as usize
    }

    fn number(&self, at: usize) -> u64 {
        if !self.head().extra {
            return 0;
        }
        let bytes = self.0.slice[at..at + 8]
            .try_into()
            .expect("eight bytes were cut out");
        u64::from_le_bytes(bytes)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0.slice[self.key_start()..self.key_end()]
    }

    /// The value; empty shows as `null`.
    pub fn value(&self) -> &[u8] {
        &self.0.slice[self.key_end()..]
    }

    /// The application's own number.
    pub fn flags(&self) -> u64 {
        self.number(0)
    }

    /// How often the key was locked anew.
    pub fn lock_index(&self) -> u64 {
        self.number(8)
    }

    /// Who holds its lock.
    pub fn session(&self) -> Option<Uuid> {
        if !self.head().extra {
            return None;
        }
        let bytes = self.0.slice[16..EXTRA]
            .try_into()
            .expect("sixteen bytes were cut out");
        let id = Uuid::from_bytes(bytes);
        (!id.is_nil()).then_some(id)
    }

    /// When it came to be.
    pub fn create_index(&self) -> Index {
        self.head().create_index
    }

    /// When it was last written.
    pub fn modify_index(&self) -> Index {
        self.head().modify_index
    }

    /// All of it, borrowed.
    pub fn parts(&self) -> KvParts<'_> {
        KvParts {
            key: self.key(),
            value: self.value(),
            flags: self.flags(),
            lock_index: self.lock_index(),
            session: self.session(),
            create_index: self.create_index(),
            modify_index: self.modify_index(),
        }
    }
}

impl PartialEq for KvEntry {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for KvEntry {}

impl fmt::Debug for KvEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvEntry")
            .field("key", &String::from_utf8_lossy(self.key()))
            .field("value_len", &self.value().len())
            .field("flags", &self.flags())
            .field("lock_index", &self.lock_index())
            .field("session", &self.session())
            .field("create_index", &self.create_index())
            .field("modify_index", &self.modify_index())
            .finish()
    }
}

/// The shape of an entry in the log and the checkpoint.
#[derive(Serialize, Deserialize)]
struct Packed<'a>(
    #[serde(with = "serde_bytes")] &'a [u8],
    #[serde(with = "serde_bytes")] &'a [u8],
    u64,
    u64,
    Option<Uuid>,
    Index,
    Index,
);

impl Serialize for KvEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let p = self.parts();
        Packed(
            p.key,
            p.value,
            p.flags,
            p.lock_index,
            p.session,
            p.create_index,
            p.modify_index,
        )
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KvEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let p = Packed::deserialize(deserializer)?;
        Ok(Self::new(&KvParts {
            key: p.0,
            value: p.1,
            flags: p.2,
            lock_index: p.3,
            session: p.4,
            create_index: p.5,
            modify_index: p.6,
        }))
    }
}

/// What may be done to a key, alone or in a transaction.
///
/// Session ids are kept as they were typed: what is wrong with one is part of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvVerb {
    /// Write whatever was there.
    Set,
    /// Write if the key's modify index is this one; 0: if there is no such key.
    Cas(Index),
    /// Write and lock for this session.
    Lock(Text),
    /// Write and unlock, if this session holds the lock.
    Unlock(Text),
    /// Remove the key.
    Delete,
    /// Remove all keys that begin so.
    DeleteTree,
    /// Remove the key if its modify index is this one.
    DeleteCas(Index),
    /// Read the key; transactions only.
    Get,
    /// Read all keys that begin so; transactions only.
    GetTree,
    /// Fail unless the key's modify index is this one; transactions only.
    CheckIndex(Index),
    /// Fail unless this session holds the key; transactions only.
    CheckSession(Text),
}

impl KvVerb {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Set
            | Self::Cas(_)
            | Self::Lock(_)
            | Self::Unlock(_)
            | Self::Delete
            | Self::DeleteTree
            | Self::DeleteCas(_) => true,
            Self::Get | Self::GetTree | Self::CheckIndex(_) | Self::CheckSession(_) => false,
        }
    }
}

/// One operation on a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvOp {
    /// What to do.
    pub verb: KvVerb,
    /// To which key, or to all that begin so.
    pub key: Text,
    /// The value to write, if the verb writes one.
    pub value: Text,
    /// The flags to write, if the verb writes a value.
    pub flags: u64,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvGet {
    /// The key, exactly.
    pub key: Text,
}

/// All entries under a prefix, by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvList {
    /// How the keys begin; empty for all.
    pub prefix: Text,
}

/// All keys under a prefix, folded at a separator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvKeys {
    /// How the keys begin; empty for all.
    pub prefix: Text,
    /// Cut each key behind the first of these after the prefix; empty: do not cut.
    pub separator: Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        let id = Uuid::from_u128(7);
        for parts in [
            KvParts {
                key: b"k",
                ..Default::default()
            },
            KvParts {
                key: b"k",
                value: b"v",
                create_index: 3,
                modify_index: 9,
                ..Default::default()
            },
            KvParts {
                key: b"\xff",
                value: &[0; 300],
                flags: u64::MAX,
                lock_index: 2,
                session: Some(id),
                create_index: 1,
                modify_index: 2,
            },
        ] {
            let entry = KvEntry::new(&parts);
            assert_eq!(entry.parts(), parts);
            let encoded = rmp_serde::to_vec(&entry).unwrap();
            assert_eq!(rmp_serde::from_slice::<KvEntry>(&encoded).unwrap(), entry);
        }
    }
}
