//! Entries in the order of their keys: a persistent map of short runs.
//!
//! An ordinary persistent tree over the entries would keep clones of some of them as signposts in its branches.
//! Those hold on to values long overwritten (a tenth of all, measured), and each copy of a branch counts references all over the memory.
//! Here the signposts are keys of their own, one for each run of entries.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use model::{KvEntry, Text};

/// The longest run. Longer ones cost more to copy when they are shared, shorter ones need more signposts.
const RUN_MAX: usize = 16;

/// A run that gets shorter than this is joined with the next, if that has room.
const RUN_MIN: usize = RUN_MAX / 4;

/// Entries, by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    /// Each run by its signpost: no key in it is smaller, and none in the run before is as great. No run is empty.
    runs: OrdMap<Signpost, Arc<Vec<KvEntry>>>,
    len: usize,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&KvEntry> {
        let (_, run) = self.runs.get_prev(key)?;
        let at = place(run, key).ok()?;
        Some(&run[at])
    }

    /// Puts an entry in its place; what was there before comes back.
    pub(super) fn insert(&mut self, entry: KvEntry) -> Option<KvEntry> {
        let Some((_, run)) = self.runs.get_prev_mut(entry.key()) else {
            // The first of all, or smaller than any signpost.
            self.runs.insert(Signpost::default(), Arc::new(vec![entry]));
            self.len += 1;
            return None;
        };
        match place(run, entry.key()) {
            Ok(at) => Some(std::mem::replace(&mut Arc::make_mut(run)[at], entry)),
            Err(at) => {
                let run = Arc::make_mut(run);
                let split = (run.len() >= RUN_MAX).then(|| split_off(run, at));
                match split {
                    None => run.insert(at, entry),
                    Some(mut right) => {
                        match at.checked_sub(run.len()) {
                            Some(at) if at > 0 || right.is_empty() => right.insert(at, entry),
                            _ => run.insert(at, entry),
                        }
                        let signpost = signpost(run, &right);
                        self.runs.insert(signpost, Arc::new(right));
                    }
                }
                self.len += 1;
                None
            }
        }
    }

    /// Takes an entry away.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<KvEntry> {
        let (_, run) = self.runs.get_prev(key)?;
        let at = place(run, key).ok()?;
        let (signpost, run) = self.runs.get_prev_mut(key)?;
        let run = Arc::make_mut(run);
        let entry = run.remove(at);
        self.len -= 1;
        if run.len() < RUN_MIN {
            let is_empty = run.is_empty();
            let signpost = signpost.clone();
            if is_empty {
                self.runs.remove(&signpost);
            } else {
                self.join(&signpost);
            }
        }
        Some(entry)
    }

    /// Joins a short run with the next, if that has room.
    fn join(&mut self, signpost: &Signpost) {
        let after = (Bound::Excluded(signpost), Bound::Unbounded);
        let Some((next, _)) = self.runs.range::<_, Signpost>(after).next() else {
            return;
        };
        let next = next.clone();
        let len = |signpost: &Signpost| self.runs.get(signpost).map_or(0, |run| run.len());
        if len(signpost) + len(&next) > RUN_MAX {
            return;
        }
        if let Some(rest) = self.runs.remove(&next)
            && let Some(run) = self.runs.get_mut(signpost)
        {
            Arc::make_mut(run).extend(rest.iter().cloned());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &KvEntry> {
        self.runs.values().flat_map(|run| run.iter())
    }

    /// The entries from this key on.
    pub(super) fn from<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a KvEntry> {
        let first = self
            .runs
            .get_prev(key)
            .map_or(key, |(signpost, _)| signpost.bytes());
        let skipped = self
            .runs
            .get(first)
            .map_or(0, |run| place(run, key).unwrap_or_else(|at| at));
        self.runs
            .range::<_, [u8]>((Bound::Included(first), Bound::Unbounded))
            .flat_map(|(_, run)| run.iter())
            .skip(skipped)
    }
}

/// Where in a run a key is, or else belongs.
fn place(run: &[KvEntry], key: &[u8]) -> Result<usize, usize> {
    run.binary_search_by(|entry| entry.key().cmp(key))
}

/// Splits a full run, before an entry comes to this place of it.
///
/// Keys that come in order leave full runs behind.
fn split_off(run: &mut Vec<KvEntry>, at: usize) -> Vec<KvEntry> {
    let keep = if at == run.len() { at } else { run.len() / 2 };
    run.split_off(keep)
}

/// The shortest signpost that tells two runs apart.
fn signpost(left: &[KvEntry], right: &[KvEntry]) -> Signpost {
    let (Some(left), Some(right)) = (left.last(), right.first()) else {
        return Signpost::default();
    };
    let shared = left
        .key()
        .iter()
        .zip(right.key())
        .take_while(|(left, right)| left == right)
        .count();
    let end = right.key().len().min(shared + 1);
    Signpost::new(&right.key()[..end])
}

/// What fits into a signpost itself.
const SHORT_MAX: usize = 22;

/// The beginning of a key.
///
/// Most are short, and then comparing and cloning one looks nowhere else in memory: that is most of the cost of finding a place.
#[derive(Clone)]
enum Signpost {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Text),
}

impl Signpost {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT_MAX];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(len), Some(start)) => {
                start.copy_from_slice(key);
                Self::Short { len, bytes }
            }
            _ => Self::Long(Text::from(key)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text,
        }
    }
}

impl Default for Signpost {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Borrow<[u8]> for Signpost {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Signpost {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Signpost {}

impl PartialOrd for Signpost {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Signpost {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl fmt::Debug for Signpost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::KvParts;
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &[u8], modify_index: u64) -> KvEntry {
        KvEntry::new(&KvParts {
            key,
            modify_index,
            ..KvParts::default()
        })
    }

    /// Keys that are often the same, some too long for a short signpost.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        (any::<bool>(), proptest::collection::vec(0u8..4, 1..6)).prop_map(|(is_long, tail)| {
            let mut key = if is_long {
                vec![1; 2 * SHORT_MAX]
            } else {
                Vec::new()
            };
            key.extend(tail);
            key
        })
    }

    proptest! {
        #[test]
        fn like_a_plain_map(
            steps in proptest::collection::vec((any::<bool>(), key()), 0..600),
            probe in proptest::collection::vec(0u8..4, 0..4),
        ) {
            let mut rows = Rows::default();
            let mut plain = BTreeMap::new();
            let mut versions = Vec::new();
            for (number, (is_insert, key)) in (1u64..).zip(steps) {
                if is_insert {
                    let before = rows.insert(entry(&key, number));
                    prop_assert_eq!(before.map(|entry| entry.modify_index()), plain.insert(key, number));
                } else {
                    let before = rows.remove(&key);
                    prop_assert_eq!(before.map(|entry| entry.modify_index()), plain.remove(&key));
                }
                if number % 100 == 0 {
                    versions.push((rows.clone(), plain.clone()));
                }
            }
            versions.push((rows, plain));
            for (rows, plain) in versions {
                prop_assert_eq!(rows.len(), plain.len());
                let all: Vec<_> = rows.iter().map(|entry| (entry.key().to_vec(), entry.modify_index())).collect();
                let expected: Vec<_> = plain.clone().into_iter().collect();
                prop_assert_eq!(all, expected);
                let from: Vec<_> = rows.from(&probe).map(|entry| entry.key().to_vec()).collect();
                let expected: Vec<_> = plain.range(probe.clone()..).map(|(key, _)| key.clone()).collect();
                prop_assert_eq!(from, expected);
                for (key, number) in plain {
                    prop_assert_eq!(rows.get(&key).map(|entry| entry.modify_index()), Some(number));
                }
            }
        }
    }
}
