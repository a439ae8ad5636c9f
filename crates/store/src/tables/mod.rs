//! The tables, in the order in which they are listed, saved and read about.
//!
//! A table holds rows and the indexes over them and keeps the two in step; what a command does to several tables is in the `apply` part of the file of its subject.
//! A new table is a file here, a field of [`State`](crate::state::State), and a line in [`Table`].

use model::Index;

pub(crate) mod acl;
pub(crate) mod catalog;
pub(crate) mod coordinate;
pub(crate) mod kv;
pub(crate) mod lock_delay;
pub(crate) mod query;
pub(crate) mod session;
pub(crate) mod tombstone;

/// The tables that have an index of their own which users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Table {
    Nodes,
    Services,
    Checks,
    Kvs,
    Tombstones,
    Sessions,
    Acls,
    Coordinates,
    Queries,
}

impl Table {
    /// All of them; the position of each is its place in a checkpoint and must never change.
    pub(crate) const ALL: [Self; 9] = [
        Self::Nodes,
        Self::Services,
        Self::Checks,
        Self::Kvs,
        Self::Tombstones,
        Self::Sessions,
        Self::Acls,
        Self::Coordinates,
        Self::Queries,
    ];
}

/// When each table last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Indexes([Index; Table::ALL.len()]);

impl Indexes {
    /// When this table last changed; 0 for never.
    pub(crate) fn get(&self, table: Table) -> Index {
        self.0[table as usize]
    }

    /// Notes a change; an index never goes back.
    pub(crate) fn raise(&mut self, table: Table, index: Index) {
        let slot = &mut self.0[table as usize];
        *slot = index.max(*slot);
    }

    /// The latest change of any table.
    pub(crate) fn newest(&self) -> Index {
        self.max(&Table::ALL)
    }

    /// The latest change of several tables.
    pub(crate) fn max(&self, tables: &[Table]) -> Index {
        tables
            .iter()
            .map(|table| self.get(*table))
            .max()
            .unwrap_or(0)
    }
}
