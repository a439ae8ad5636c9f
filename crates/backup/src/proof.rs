//! The proof of a snapshot: it was loaded, and what was loaded is what had been received.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::thread;

use sha2::{Digest as _, Sha256};
use store::archive::{Item, Items, Loader, Subject, is_known, records};
use wire::archive::{self, Contents, Meta};
use wire::msgpack::RecordReader;

use crate::items::{Unreadable, each_item};
use crate::pipe::{PieceReader, Sender, join, pipe};

/// What a snapshot holds, in a few bytes: the same for any two archives of the same state, in whatever order their records come.
///
/// Indexes aren't part of it, since a restore gives nodes, services and checks new ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many things of each kind there are.
    pub counts: BTreeMap<&'static str, u64>,
    /// The sum of the hashes of all of them.
    pub sum: [u8; 16],
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.sum.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A snapshot that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What it says of itself.
    pub meta: Meta,
    /// How long its state is, in bytes.
    pub state_size: u64,
    /// What was loaded.
    pub digest: Digest,
}

/// Computes the digest of an archive as it stands, without loading it.
///
/// # Errors
/// If it can't be read to its end.
pub fn digest(input: impl Read) -> Result<Proof, Unreadable> {
    let mut gathered = Gathered::default();
    let Contents { meta, state_size } = each_item(input, |item| gathered.add(item))?;
    Ok(Proof {
        meta,
        state_size,
        digest: gathered.finish(),
    })
}

/// Loads an archive into a store of its own, as a restore would, and tells what the store then has.
///
/// # Errors
/// If it can't be read to its end, or can't be loaded.
pub fn prove(input: impl Read) -> Result<Proof, Unreadable> {
    thread::scope(|scope| {
        let (sender, reader) = pipe();
        let loading = scope.spawn(move || load(reader));
        let contents = archive::unpack(input, &mut Sender(sender));
        let digest = join(loading);
        let Contents { meta, state_size } = contents?;
        meta.check_restorable(state_size)
            .map_err(|why| Unreadable::State(why.to_string()))?;
        Ok(Proof {
            meta,
            state_size,
            digest: digest.map_err(Unreadable::State)?,
        })
    })
}

fn load(mut state: PieceReader) -> Result<Digest, String> {
    let loaded = load_records(&mut state);
    state.drain();
    loaded
}

fn load_records(state: &mut PieceReader) -> Result<Digest, String> {
    let mut reader = RecordReader::open(state).map_err(|why| why.to_string())?;
    // Which index the catalog gets is no part of the digest.
    let mut loader = Loader::new(1);
    while let Some(record) = reader.next_record().map_err(|why| why.to_string())? {
        if is_known(record.kind) {
            loader
                .add(record.kind, record.bytes)
                .map_err(|why| why.to_string())?;
        }
    }
    let mut gathered = Gathered::default();
    let mut items = Items::default();
    records(&loader.into_view(), |kind, object| {
        items.read(kind, object, &mut |item| gathered.add(item))
    })
    .map_err(|why| why.to_string())?;
    Ok(gathered.finish())
}

/// Things, told apart by kind and identity; the last word about one counts, as it does in a restore.
#[derive(Debug, Default)]
struct Gathered(HashMap<(Subject, u128), u128>);

impl Gathered {
    fn add(&mut self, item: Item<'_>) {
        let (key, content) = hashes(item);
        self.0.insert((item.subject, key), content);
    }

    fn finish(self) -> Digest {
        let mut digest = Digest::default();
        let mut sum = 0_u128;
        for ((subject, _), content) in self.0 {
            *digest.counts.entry(subject.plural()).or_default() += 1;
            sum = sum.wrapping_add(content);
        }
        digest.sum = sum.to_be_bytes();
        digest
    }
}

/// The hash of what a thing is, and of all that it says.
pub(crate) fn hashes(item: Item<'_>) -> (u128, u128) {
    let mut hash = Sha256::new();
    hash.update(item.subject.plural());
    hash.update([0]);
    hash.update(item.identity);
    let key = half(hash.clone());
    hash.update((item.identity.len() as u64).to_be_bytes());
    hash.update(item.content);
    (key, half(hash))
}

fn half(hash: Sha256) -> u128 {
    let whole: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&whole[..16]);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::sound;

    #[test]
    fn what_was_loaded_is_what_was_received() {
        for (name, bytes) in sound() {
            let received = digest(&bytes[..]).unwrap();
            let loaded = prove(&bytes[..]).unwrap();
            assert_eq!(received, loaded, "{name}");
        }
    }

    #[test]
    fn another_state_has_another_digest() {
        let mut seen = std::collections::BTreeMap::new();
        for (name, bytes) in sound() {
            let proof = digest(&bytes[..]).unwrap();
            if let Some(other) = seen.insert(
                proof.digest.sum,
                (name.clone(), proof.digest.counts.clone()),
            ) {
                assert_eq!(other.1, proof.digest.counts, "{name} and {}", other.0);
            }
        }
        assert!(seen.len() > 1);
    }

    #[test]
    fn what_is_cut_or_refused_is_not_proved() {
        for (name, bytes) in sound().into_iter().take(2) {
            assert!(
                matches!(
                    prove(&bytes[..bytes.len() - 1]),
                    Err(Unreadable::Archive(_))
                ),
                "{name}"
            );
        }
    }
}
