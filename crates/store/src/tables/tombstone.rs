//! Which keys were deleted, and when: so that the index of a prefix does not fall when a key goes.

use std::ops::Bound;

use imbl::{OrdMap, OrdSet};
use model::{Index, Text};

/// Deleted keys with the index of their deletion, until they are reaped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tombstones {
    rows: OrdMap<Text, Index>,
    /// The same by age, so that reaping looks at what it removes and at nothing else.
    by_index: OrdSet<(Index, Text)>,
}

impl Tombstones {
    /// Notes a deletion; a newer one of the same key replaces it.
    pub(crate) fn insert(&mut self, key: Text, index: Index) {
        if let Some(older) = self.rows.insert(key.clone(), index) {
            self.by_index.remove(&(older, key.clone()));
        }
        self.by_index.insert((index, key));
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
        let mut newest = 0;
        while let Some((index, key)) = self.by_index.get_min().filter(|(index, _)| *index <= upto) {
            let (index, key) = (*index, key.clone());
            self.rows.remove(&key);
            self.by_index.remove(&(index, key));
            newest = index;
        }
        newest
    }
}
