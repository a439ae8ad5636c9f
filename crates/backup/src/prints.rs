//! What an archive holds, as fingerprints: of two archives with a million things each there is room for all of them at once.

use std::cmp::Reverse;

use sha2::{Digest as _, Sha256};
use store::archive::{Item, Subject};

use crate::proof::Digest;

/// The fingerprint of one thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Print {
    /// Of its kind and identity.
    pub(crate) key: u128,
    /// Of that and all that it says.
    pub(crate) content: u128,
    /// The how many-th of its archive it was.
    pub(crate) ordinal: u64,
    pub(crate) subject: Subject,
}

/// Names of things, in the order in which they came, as long as there is room for all of them.
#[derive(Debug)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    room: usize,
}

impl Names {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            room,
        }
    }

    pub(crate) fn add(&mut self, name: &[u8]) {
        let size = name.len() + size_of::<usize>();
        match self.room.checked_sub(size) {
            Some(room) => {
                self.room = room;
                self.bytes.extend_from_slice(name);
                self.ends.push(self.bytes.len());
            }
            // From here on it is not known which name is whose, so those before are of no use either.
            None => *self = Self::new(0),
        }
    }

    /// The name of the so many-th thing; `None` if there was no room for all.
    pub(crate) fn get(&self, ordinal: u64) -> Option<&[u8]> {
        let at = usize::try_from(ordinal).ok()?;
        let end = *self.ends.get(at)?;
        let start = match at {
            0 => 0,
            _ => self.ends[at - 1],
        };
        Some(&self.bytes[start..end])
    }
}

/// Fingerprints of an archive as it is read.
#[derive(Debug, Default)]
pub(crate) struct Prints(Vec<Print>);

impl Prints {
    pub(crate) fn add(&mut self, item: Item<'_>) {
        let of_key = hash_of_key(item);
        self.0.push(Print {
            key: half(of_key.clone()),
            content: half(hash_of_content(of_key, item)),
            ordinal: self.0.len() as u64,
            subject: item.subject,
        });
    }

    /// One fingerprint of each thing, by key. A node comes with each of its services, and the last word about a thing counts, as it does in a restore.
    pub(crate) fn settle(self) -> Vec<Print> {
        let Self(mut prints) = self;
        prints.sort_unstable_by_key(|print| (print.key, Reverse(print.ordinal)));
        prints.dedup_by_key(|print| print.key);
        prints
    }

    /// The digest of all of it.
    pub(crate) fn digest(self) -> Digest {
        let mut sum = Sum::default();
        for print in self.settle() {
            sum.add_print(print.subject, print.content);
        }
        sum.finish()
    }
}

/// A digest in the making, of things each of which comes once.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    counts: [u64; Subject::ALL.len()],
    sum: u128,
}

impl Sum {
    pub(crate) fn add(&mut self, item: Item<'_>) {
        self.add_print(item.subject, half(hash_of_content(hash_of_key(item), item)));
    }

    fn add_print(&mut self, subject: Subject, content: u128) {
        self.counts[subject as usize] += 1;
        self.sum = self.sum.wrapping_add(content);
    }

    pub(crate) fn finish(self) -> Digest {
        let counts = Subject::ALL
            .into_iter()
            .map(|subject| (subject.plural(), self.counts[subject as usize]))
            .filter(|(_, count)| *count > 0)
            .collect();
        Digest {
            counts,
            sum: self.sum.to_be_bytes(),
        }
    }
}

fn hash_of_key(item: Item<'_>) -> Sha256 {
    Sha256::new()
        .chain_update(item.subject.plural())
        .chain_update([0])
        .chain_update(item.identity)
}

fn hash_of_content(of_key: Sha256, item: Item<'_>) -> Sha256 {
    of_key
        .chain_update((item.identity.len() as u64).to_be_bytes())
        .chain_update(item.content)
}

fn half(hash: Sha256) -> u128 {
    let whole: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&whole[..16]);
    u128::from_be_bytes(first)
}
