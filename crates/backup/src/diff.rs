//! What would change if one snapshot took the place of another.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::thread;

use store::View;
use store::archive::{Item, Subject, Teller};

use crate::items::{Unreadable, each_item};
use crate::pipe::join;
use crate::prints::{Names, Print, Prints};

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

    fn name(&mut self, found: impl IntoIterator<Item = Found>) {
        // Names of people aren't always unique, as those of tokens are not.
        let mut repeats: BTreeMap<(Subject, String), u64> = BTreeMap::new();
        for Found {
            subject,
            name,
            change,
        } in found
        {
            let changes = self.changes.entry(subject).or_default();
            let name = match changes.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(change);
                    continue;
                }
                Entry::Occupied(taken) => taken.key().clone(),
            };
            let number = repeats.entry((subject, name.clone())).or_insert(1);
            let unique = loop {
                *number += 1;
                let unique = format!("{name} ({number})");
                if !changes.contains_key(&unique) {
                    break unique;
                }
            };
            changes.insert(unique, change);
        }
    }

    /// Those that are named; the rest is counted.
    fn bound<'m>(&mut self, gone: &'m [Mark], come: &'m [Mark]) -> (&'m [Mark], &'m [Mark]) {
        let (come, come_unnamed) = come.split_at(come.len().min(NAMED_MAX));
        let (gone, gone_unnamed) = gone.split_at(gone.len().min(NAMED_MAX - come.len()));
        self.count_unnamed(come_unnamed);
        self.count_unnamed(gone_unnamed);
        (gone, come)
    }

    fn count_unnamed(&mut self, marks: &[Mark]) {
        for mark in marks {
            *self.unnamed.entry((mark.subject, mark.change)).or_default() += 1;
        }
    }
}

/// Something that differs, known by its place in the archive that is to name it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    ordinal: u64,
    subject: Subject,
    change: Change,
}

impl Mark {
    fn new(print: &Print, change: Change) -> Self {
        Self {
            ordinal: print.ordinal,
            subject: print.subject,
            change,
        }
    }
}

/// Something that differs, by name.
#[derive(Debug)]
struct Found {
    subject: Subject,
    name: String,
    change: Change,
}

impl Found {
    fn new(mark: &Mark, name: &[u8]) -> Self {
        Self {
            subject: mark.subject,
            name: String::from_utf8_lossy(name).into_owned(),
            change: mark.change,
        }
    }
}

/// How many bytes of names are kept of each archive, so that it need not be read again: enough for a million of common length.
const NAMES_ROOM: usize = 64 << 20;

/// Compares two snapshots. Each is opened twice at most, from different threads, and none of what it holds is kept but fingerprints and names.
///
/// # Errors
/// If one of them can't be read to its end.
pub fn diff<R: Read, S: Read>(
    first: impl Fn() -> Result<R, Unreadable> + Sync,
    second: impl Fn() -> Result<S, Unreadable> + Sync,
) -> Result<Difference, Unreadable> {
    diff_within(NAMES_ROOM, first, second)
}

fn diff_within<R: Read, S: Read>(
    room: usize,
    first: impl Fn() -> Result<R, Unreadable> + Sync,
    second: impl Fn() -> Result<S, Unreadable> + Sync,
) -> Result<Difference, Unreadable> {
    let (before, after) = both(|| Side::read(&first, room), || Side::read(&second, room));
    let (before, after) = (before?, after?);
    let (mut difference, gone, come) = compare(&before.prints, &after.prints);
    let (gone, come) = difference.bound(&gone, &come);
    let (gone, come) = both(|| before.name(gone, &first), || after.name(come, &second));
    for (found, unnamed) in [come?, gone?] {
        difference.name(found);
        difference.count_unnamed(unnamed);
    }
    Ok(difference)
}

/// One of two archives.
struct Side {
    /// By key.
    prints: Vec<Print>,
    names: Names,
}

impl Side {
    fn read<R: Read>(
        open: impl Fn() -> Result<R, Unreadable>,
        room: usize,
    ) -> Result<Self, Unreadable> {
        let mut prints = Prints::default();
        let mut names = Names::new(room);
        each_item(open()?, |item| {
            prints.add(item);
            names.add(item.name);
        })?;
        Ok(Self {
            prints: prints.settle(),
            names,
        })
    }

    /// The names of what was marked, in the order of the marks; and the marks for which there are none any more, since the archive is another one now.
    fn name<'m, R: Read>(
        &self,
        marks: &'m [Mark],
        open: impl Fn() -> Result<R, Unreadable>,
    ) -> Result<(Vec<Found>, &'m [Mark]), Unreadable> {
        let kept: Option<Vec<Found>> = marks
            .iter()
            .map(|mark| Some(Found::new(mark, self.names.get(mark.ordinal)?)))
            .collect();
        if let Some(found) = kept {
            return Ok((found, &[]));
        }
        let mut naming = Naming::new(marks);
        each_item(open()?, |item| naming.take(item))?;
        let Naming { found, .. } = naming;
        let unnamed = &marks[found.len()..];
        Ok((found, unnamed))
    }
}

/// Compares two states that are in memory.
pub(crate) fn diff_views(before: &View, after: &View) -> Difference {
    let prints = |view| {
        let mut prints = Prints::default();
        Teller::default().tell_view(view, &mut |item| prints.add(item));
        prints.settle()
    };
    let (mut difference, gone, come) = compare(&prints(before), &prints(after));
    let (gone, come) = difference.bound(&gone, &come);
    for (view, marks) in [(after, come), (before, gone)] {
        let mut naming = Naming::new(marks);
        Teller::default().tell_view(view, &mut |item| naming.take(item));
        difference.name(naming.found);
    }
    difference
}

/// Does two things at once.
fn both<T: Send, U>(one: impl FnOnce() -> T + Send, other: impl FnOnce() -> U) -> (T, U) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (join(one), other)
    })
}

/// What is the same, counted; what the first is to name; what the second is to name, both in order. What is compared is
/// sorted by key.
fn compare(before: &[Print], after: &[Print]) -> (Difference, Vec<Mark>, Vec<Mark>) {
    let mut difference = Difference::default();
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(one), Some(other)) => one.key.cmp(&other.key),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => {
                for marks in [&mut come, &mut gone] {
                    marks.sort_unstable_by_key(|mark: &Mark| mark.ordinal);
                }
                return (difference, gone, come);
            }
        };
        let one = if order.is_le() { before.next() } else { None };
        let other = if order.is_ge() { after.next() } else { None };
        match (one, other) {
            (Some(one), Some(other)) if one.content == other.content => {
                *difference.same.entry(other.subject).or_default() += 1;
            }
            (Some(_), Some(other)) => come.push(Mark::new(other, Change::Changed)),
            (None, Some(other)) => come.push(Mark::new(other, Change::Added)),
            (Some(one), None) => gone.push(Mark::new(one, Change::Removed)),
            (None, None) => {}
        }
    }
}

/// Finds the names of what was marked as it comes by again.
struct Naming<'m> {
    marks: &'m [Mark],
    found: Vec<Found>,
    ordinal: u64,
}

impl<'m> Naming<'m> {
    fn new(marks: &'m [Mark]) -> Self {
        Self {
            marks,
            found: Vec::new(),
            ordinal: 0,
        }
    }

    fn take(&mut self, item: Item<'_>) {
        if let Some(mark) = self.marks.get(self.found.len())
            && mark.ordinal == self.ordinal
        {
            self.found.push(Found::new(mark, item.name));
        }
        self.ordinal += 1;
    }
}

#[cfg(test)]
mod tests {
    use model::{AclToken, Node, Registration, Service, Text};
    use store::archive::Record;

    use super::*;
    use crate::fixtures::{archive_of, sound};

    fn between(first: &[u8], second: &[u8]) -> Difference {
        let difference = diff(|| Ok(first), || Ok(second)).unwrap();
        // Whether names were kept or are read again makes no difference.
        let again = diff_within(50, || Ok(first), || Ok(second)).unwrap();
        assert_eq!(again, difference);
        difference
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
        for (at, (first, one)) in all.iter().enumerate() {
            for (second, other) in &all[at..] {
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

    fn node(name: &str, address: &str, service: &str) -> Record<'static> {
        Record::Register(Registration {
            node: Node {
                name: Text::from(name),
                address: Text::from(address),
                ..Node::default()
            },
            service: (!service.is_empty()).then(|| Service {
                id: Text::from(service),
                ..Service::default()
            }),
            checks: Vec::new(),
        })
    }

    fn token(id: &str, name: &str, rules: &str) -> Record<'static> {
        Record::Acl(AclToken {
            id: Text::from(id),
            name: Text::from(name),
            rules: Text::from(rules),
            ..AclToken::default()
        })
    }

    fn named(difference: &Difference, subject: Subject) -> Vec<(&str, Change)> {
        let changes = difference.changes.get(&subject).into_iter().flatten();
        changes
            .map(|(name, change)| (name.as_str(), *change))
            .collect()
    }

    /// A node comes with each of its services, and is one all the same; what was said last of it counts.
    #[test]
    fn a_node_is_counted_once() {
        let first = archive_of(&[
            node("web", "10.0.0.1", "a"),
            node("web", "10.0.0.1", "b"),
            node("WEB", "10.0.0.2", "c"),
            node("db", "10.0.0.3", ""),
        ]);
        let second = archive_of(&[
            node("db", "10.0.0.3", ""),
            node("web", "10.0.0.1", "a"),
            node("web", "10.0.0.2", "b"),
            node("web", "10.0.0.9", "d"),
        ]);
        let difference = between(&first, &second);
        assert_eq!(
            named(&difference, Subject::Node),
            [("web", Change::Changed)]
        );
        assert_eq!(
            named(&difference, Subject::Service),
            [("web/c", Change::Removed), ("web/d", Change::Added)]
        );
        assert_eq!(difference.same[&Subject::Node], 1);
        assert_eq!(difference.same[&Subject::Service], 2);
        assert_eq!(crate::digest(&first[..]).unwrap().digest.counts["nodes"], 2);
        assert_eq!(
            crate::prove(&first[..]).unwrap(),
            crate::digest(&first[..]).unwrap()
        );
    }

    /// Neither of the two could be told from the other by a name that is put together with slashes.
    #[test]
    fn names_with_slashes_are_told_apart() {
        let first = archive_of(&[node("a", "", "b/c"), node("a/b", "", "")]);
        let second = archive_of(&[node("a", "", ""), node("a/b", "", "c")]);
        let difference = between(&first, &second);
        assert_eq!(
            named(&difference, Subject::Service),
            [("a/b/c", Change::Added), ("a/b/c (2)", Change::Removed)]
        );
    }

    #[test]
    fn what_has_the_same_name_is_numbered() {
        let first = archive_of(&[token("1", "ops", ""), token("2", "ops (2)", "")]);
        let second = archive_of(&[
            token("1", "ops", "other"),
            token("2", "ops (2)", "other"),
            token("3", "ops", ""),
            token("4", "ops", ""),
            token("5", "", ""),
        ]);
        assert_eq!(
            named(&between(&first, &second), Subject::Token),
            [
                ("(no name)", Change::Added),
                ("ops", Change::Changed),
                ("ops (2)", Change::Changed),
                ("ops (3)", Change::Added),
                ("ops (4)", Change::Added),
            ]
        );
    }

    /// An archive may be another one when it is read again; what was found is told all the same.
    #[test]
    fn what_can_not_be_named_any_more_is_counted() {
        let first = archive_of(&[]);
        let second = archive_of(&[token("1", "a", ""), token("2", "b", "")]);
        let less = archive_of(&[token("1", "a", "")]);
        let opened = std::sync::atomic::AtomicUsize::new(0);
        let again = || {
            let time = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(if time == 0 { &second[..] } else { &less[..] })
        };
        let difference = diff_within(0, || Ok(&first[..]), again).unwrap();
        assert_eq!(named(&difference, Subject::Token), [("a", Change::Added)]);
        assert_eq!(difference.count(Subject::Token, Change::Added), 2);
    }

    #[test]
    fn what_can_not_be_read_is_no_difference() {
        let sound = archive_of(&[]);
        let cut = &sound[..sound.len() - 1];
        diff(|| Ok(&sound[..]), || Ok(cut)).unwrap_err();
        diff(|| Ok(cut), || Ok(&sound[..])).unwrap_err();
    }
}
