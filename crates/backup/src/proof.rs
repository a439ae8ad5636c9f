//! The proof of a snapshot: it was loaded, and what was loaded is what had been received.

use std::collections::BTreeMap;
use std::io::Read;

use store::archive::{Loader, Teller, is_known};
use wire::archive::{Contents, Meta};
use wire::msgpack::RecordReader;

use crate::items::{Unreadable, each_item};
use crate::pipe::{PieceReader, unpack};
use crate::prints::{Prints, Sum};

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
    let mut prints = Prints::default();
    let Contents { meta, state_size } = each_item(input, |item| prints.add(item))?;
    Ok(Proof {
        meta,
        state_size,
        digest: prints.digest(),
    })
}

/// Loads an archive into a store of its own, as a restore would, tells what the store then has, and that it is what the archive says.
///
/// # Errors
/// If it can't be read to its end, or can't be loaded, or if something else was loaded than it holds.
pub fn prove(input: impl Read) -> Result<Proof, Unreadable> {
    let (contents, loaded) = unpack(input, load);
    let Contents { meta, state_size } = contents?;
    meta.check_restorable(state_size)
        .map_err(|why| Unreadable::State(why.to_string()))?;
    let Loaded { received, digest } = loaded.map_err(Unreadable::State)?;
    if received != digest {
        return Err(Unreadable::Otherwise { received, digest });
    }
    Ok(Proof {
        meta,
        state_size,
        digest,
    })
}

/// What came in, and what a store then had.
struct Loaded {
    received: Digest,
    digest: Digest,
}

fn load(state: &mut PieceReader) -> Result<Loaded, String> {
    let mut reader = RecordReader::open(state).map_err(|why| why.to_string())?;
    // Which index the catalog gets is no part of the digest.
    let mut loader = Loader::new(1);
    let mut teller = Teller::default();
    let mut received = Prints::default();
    while let Some(record) = reader.next_record().map_err(|why| why.to_string())? {
        if is_known(record.kind) {
            loader
                .add_shown(record.kind, record.bytes, |record| {
                    teller.tell_record(record, &mut |item| received.add(item));
                })
                .map_err(|why| why.to_string())?;
        }
    }
    let received = received.digest();
    let mut sum = Sum::default();
    teller.tell_view(&loader.into_view(), &mut |item| sum.add(item));
    Ok(Loaded {
        received,
        digest: sum.finish(),
    })
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
