//! Which keys were deleted, and when: so that the index of a prefix does not fall when a key goes.

use std::ops::Bound;

use imbl::OrdMap;
use model::{Index, Text};

/// Deleted keys with the index of their deletion, until they are reaped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tombstones {
    rows: OrdMap<Text, Index>,
}

impl Tombstones {
    /// Notes a deletion; a newer one of the same key replaces it.
    pub(crate) fn insert(&mut self, key: Text, index: Index) {
        self.rows.insert(key, index);
    }

    /// When this key was last deleted, if that is still known.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Index> {
        self.rows.get(key).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All of them, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Text, Index)> {
        self.rows.iter().map(|(key, index)| (key, *index))
    }

    /// The newest deletion of a key that begins so; 0 if there is none.
    pub(crate) fn newest_under(&self, prefix: &[u8]) -> Index {
        self.rows
            .range::<_, [u8]>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, index)| *index)
            .max()
            .unwrap_or(0)
    }

    /// Forgets deletions up to this index; the newest that it forgot, 0 if none.
    pub(crate) fn reap(&mut self, upto: Index) -> Index {
        let doomed: Vec<(Text, Index)> = self
            .rows
            .iter()
            .filter(|(_, index)| **index <= upto)
            .map(|(key, index)| (key.clone(), *index))
            .collect();
        if doomed.len() == self.rows.len() {
            self.rows = OrdMap::new();
        } else {
            for (key, _) in &doomed {
                self.rows.remove(key);
            }
        }
        doomed.iter().map(|(_, index)| *index).max().unwrap_or(0)
    }
}
