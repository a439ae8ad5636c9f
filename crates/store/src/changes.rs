//! When each name was last changed, deletions included: what a waiting question compares its index with.

use imbl::OrdMap;
use model::{Index, Text};

/// What the change of a name is a change of. The numbers stand in checkpoints and must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A whole table, by its number. Only watched: its index is a field of its own.
    Table = 0,
    /// The instances of a service by lower-cased name, without their checks.
    Instances = 1,
    /// The checks that speak for a service, by lower-cased name; only disappearances are noted.
    Health = 2,
    /// The checks of a service itself, by its lower-cased name.
    ServiceChecks = 3,
    /// A node and its services, by its lower-cased name.
    Node = 4,
    /// The checks of a node, by its lower-cased name.
    NodeChecks = 5,
    /// The checks of a status.
    Status = 6,
    /// A session by id; only its end is noted.
    Session = 7,
    /// The sessions of a node, by its lower-cased name.
    NodeSessions = 8,
    /// A token by id; only its deletion is noted.
    Acl = 9,
    /// A prepared query by id; only its deletion is noted.
    Query = 10,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Table,
        Self::Instances,
        Self::Health,
        Self::ServiceChecks,
        Self::Node,
        Self::NodeChecks,
        Self::Status,
        Self::Session,
        Self::NodeSessions,
        Self::Acl,
        Self::Query,
    ];

    /// The kind of this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A kind and a name: what is watched, and what changes.
///
/// One string, so that it is one allocation in the registry of watches: the kind's number, then the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject(Text);

impl Subject {
    pub(crate) fn new(kind: Kind, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + name.len());
        bytes.push(kind as u8);
        bytes.extend_from_slice(name);
        Self(Text::from(bytes))
    }

    /// Reads what [`Subject::as_text`] gave, from a checkpoint.
    pub(crate) fn from_text(text: Text) -> Self {
        Self(text)
    }

    pub(crate) fn as_text(&self) -> &Text {
        &self.0
    }

    /// The kind's number and the name.
    pub(crate) fn split(&self) -> (u8, &[u8]) {
        match self.0.split_first() {
            Some((kind, name)) => (*kind, name),
            None => (Kind::Table as u8, &[]),
        }
    }
}

/// Last changes by subject. Those of names that are gone stay until they are reaped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    last: OrdMap<Subject, Index>,
}

impl Changes {
    /// Notes a change; an index never goes back.
    pub(crate) fn insert(&mut self, subject: Subject, index: Index) {
        self.last.insert(subject, index);
    }

    /// The last change that is known.
    pub(crate) fn get(&self, subject: &Subject) -> Option<Index> {
        self.last.get(subject).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// All of them, by subject.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Subject, Index)> {
        self.last.iter().map(|(subject, index)| (subject, *index))
    }

    /// Forgets changes up to this index of names that are gone; the newest that it forgot, 0 if none.
    pub(crate) fn reap(&mut self, upto: Index, is_gone: impl Fn(&Subject) -> bool) -> Index {
        let doomed: Vec<(Subject, Index)> = self
            .last
            .iter()
            .filter(|(subject, index)| **index <= upto && is_gone(subject))
            .map(|(subject, index)| (subject.clone(), *index))
            .collect();
        for (subject, _) in &doomed {
            self.last.remove(subject);
        }
        doomed.iter().map(|(_, index)| *index).max().unwrap_or(0)
    }
}
