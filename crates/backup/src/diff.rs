//! What would change if one snapshot took the place of another.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

use store::archive::{Item, Subject};

use crate::items::{Unreadable, each_item};
use crate::proof::hashes;

/// How two snapshots differ, by kind of thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What there is in both and says the same, counted.
    pub same: BTreeMap<Subject, u64>,
    /// What differs, by kind and name.
    pub changes: BTreeMap<Subject, BTreeMap<String, Change>>,
    /// What differs beyond the first [`NAMED_MAX`] of them, counted.
    pub unnamed: BTreeMap<(Subject, Change), u64>,
}

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is only in the second.
    Added,
    /// It is in both, and says something else.
    Changed,
    /// It is only in the first.
    Removed,
}

/// How many differences are named; the rest is counted.
pub const NAMED_MAX: usize = 1_000_000;

impl Difference {
    /// Whether they hold the same, indexes aside.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.unnamed.is_empty()
    }

    /// How many things of a kind became so.
    pub fn count(&self, subject: Subject, change: Change) -> u64 {
        let named = self.changes.get(&subject).map_or(0, |changes| {
            changes.values().filter(|it| **it == change).count() as u64
        });
        named + self.unnamed.get(&(subject, change)).copied().unwrap_or(0)
    }

    fn note(&mut self, item: Item<'_>, change: Change, named: &mut usize) {
        if *named >= NAMED_MAX {
            *self.unnamed.entry((item.subject, change)).or_default() += 1;
            return;
        }
        *named += 1;
        let name = String::from_utf8_lossy(item.name).into_owned();
        let changes = self.changes.entry(item.subject).or_default();
        // Names of people aren't always unique, as those of tokens are not.
        let mut unique = name.clone();
        let mut number = 2;
        while changes.contains_key(&unique) {
            unique = format!("{name} ({number})");
            number += 1;
        }
        changes.insert(unique, change);
    }
}

/// One of the first snapshot, and what was found of it in the second.
struct Known {
    content: u128,
    met: bool,
}

/// Compares two snapshots. Each is opened twice at most; neither is ever in memory.
///
/// # Errors
/// If one of them can't be read to its end.
pub fn diff<R: Read, S: Read>(
    first: impl Fn() -> Result<R, Unreadable>,
    second: impl Fn() -> Result<S, Unreadable>,
) -> Result<Difference, Unreadable> {
    let mut known: HashMap<u128, Known> = HashMap::new();
    each_item(first()?, |item| {
        let (key, content) = hashes(item);
        known.insert(
            key,
            Known {
                content,
                met: false,
            },
        );
    })?;
    let mut difference = Difference::default();
    // A node comes once with each of its services and checks.
    let mut told: HashSet<u128> = HashSet::new();
    let mut named = 0;
    each_item(second()?, |item| {
        let (key, content) = hashes(item);
        match known.get_mut(&key) {
            Some(before) if before.met => {}
            Some(before) => {
                before.met = true;
                if before.content == content {
                    *difference.same.entry(item.subject).or_default() += 1;
                } else {
                    difference.note(item, Change::Changed, &mut named);
                }
            }
            None if told.insert(key) => difference.note(item, Change::Added, &mut named),
            None => {}
        }
    })?;
    if known.values().all(|before| before.met) {
        return Ok(difference);
    }
    each_item(first()?, |item| {
        let (key, _) = hashes(item);
        if let Entry::Occupied(mut before) = known.entry(key)
            && !before.get().met
        {
            before.get_mut().met = true;
            difference.note(item, Change::Removed, &mut named);
        }
    })?;
    Ok(difference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::sound;

    fn between(first: &[u8], second: &[u8]) -> Difference {
        diff(|| Ok(first), || Ok(second)).unwrap()
    }

    #[test]
    fn nothing_differs_from_itself() {
        for (name, bytes) in sound() {
            let difference = between(&bytes, &bytes);
            assert!(difference.is_empty(), "{name}: {difference:?}");
        }
    }

    #[test]
    fn what_is_added_one_way_is_removed_the_other() {
        let all = sound();
        let mut some_differ = false;
        for (first, one) in &all {
            for (second, other) in &all {
                let (there, back) = (between(one, other), between(other, one));
                assert_eq!(there.same, back.same, "{first} {second}");
                for subject in Subject::ALL {
                    let count = |difference: &Difference, change| difference.count(subject, change);
                    assert_eq!(count(&there, Change::Added), count(&back, Change::Removed));
                    assert_eq!(
                        count(&there, Change::Changed),
                        count(&back, Change::Changed)
                    );
                }
                some_differ |= !there.is_empty();
            }
        }
        assert!(some_differ);
    }
}
