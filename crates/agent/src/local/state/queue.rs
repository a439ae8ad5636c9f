//! What waits to be told, each thing once, in the order in which it came up.

use std::collections::BTreeMap;

use model::Text;

/// Something that the catalog has to be told of; the keys are lower-cased ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::local) enum Item {
    /// The node by itself.
    Node,
    /// A service, or that there is none.
    Service(Text),
    /// A check, or that there is none.
    Check(Text),
}

/// What waits.
///
/// Positions only grow, so whoever remembers the position of what it waits for knows that it's done when all that wait, or are on their way, have higher ones.
#[derive(Debug, Clone, Default)]
pub(in crate::local) struct Queue {
    by_position: BTreeMap<u64, Item>,
    positions: BTreeMap<Item, u64>,
    newest: u64,
    marks: u64,
}

impl Queue {
    /// Puts something at the end, unless it waits already; its position comes back.
    pub(in crate::local) fn mark(&mut self, item: Item) -> u64 {
        self.marks += 1;
        if let Some(position) = self.positions.get(&item) {
            return *position;
        }
        self.newest += 1;
        self.put(self.newest, item);
        self.newest
    }

    /// Puts something back where it was, unless it came up again in the meantime.
    pub(in crate::local) fn put_back(&mut self, position: u64, item: Item) {
        if !self.positions.contains_key(&item) {
            self.put(position, item);
        }
    }

    fn put(&mut self, position: u64, item: Item) {
        self.by_position.insert(position, item.clone());
        self.positions.insert(item, position);
    }

    /// Takes what has waited longest. The node itself comes last, because whatever is told of its services and checks tells of it as well.
    pub(in crate::local) fn pop(&mut self) -> Option<(u64, Item)> {
        let mut first = self.by_position.iter();
        let other = first.by_ref().find(|(_, item)| **item != Item::Node);
        let position = match other {
            Some((position, _)) => *position,
            None => *self.by_position.first_key_value()?.0,
        };
        let item = self.by_position.remove(&position)?;
        self.positions.remove(&item);
        Some((position, item))
    }

    /// Takes something out, and says where it was.
    pub(in crate::local) fn remove(&mut self, item: &Item) -> Option<u64> {
        let position = self.positions.remove(item)?;
        self.by_position.remove(&position);
        Some(position)
    }

    /// Whether it waits.
    pub(in crate::local) fn contains(&self, item: &Item) -> bool {
        self.positions.contains_key(item)
    }

    /// Where it waits; 0, which is before everything, if it does not.
    pub(in crate::local) fn position(&self, item: &Item) -> u64 {
        self.positions.get(item).copied().unwrap_or(0)
    }

    /// The highest position that was ever given.
    pub(in crate::local) fn newest(&self) -> u64 {
        self.newest
    }

    /// How often something came up, whether or not it waited already.
    pub(in crate::local) fn marks(&self) -> u64 {
        self.marks
    }

    /// The lowest position that waits.
    pub(in crate::local) fn oldest(&self) -> Option<u64> {
        self.by_position.first_key_value().map(|(at, _)| *at)
    }

    /// Whether nothing waits.
    pub(in crate::local) fn is_empty(&self) -> bool {
        self.by_position.is_empty()
    }

    /// All that waits.
    pub(in crate::local) fn items(&self) -> impl Iterator<Item = &Item> {
        self.positions.keys()
    }
}
