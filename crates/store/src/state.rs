//! All that is replicated, as of one position of the log.

use model::Index;

use crate::changes::Changes;
use crate::tables::Indexes;
use crate::tables::acl::Acls;
use crate::tables::catalog::Catalog;
use crate::tables::coordinate::Coordinates;
use crate::tables::kv::Kv;
use crate::tables::lock_delay::LockDelays;
use crate::tables::query::Queries;
use crate::tables::session::Sessions;
use crate::tables::tombstone::Tombstones;

/// All that is replicated. Cloning shares every table, so it costs the same whatever they hold.
///
/// A checkpoint holds every field.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The entry of the log that was applied last.
    pub(crate) log_index: u64,
    /// The term of that entry.
    pub(crate) term: u64,
    /// The log's clock: the highest wall clock of any entry so far.
    pub(crate) clock_ms: u64,
    /// What users see is the log's index plus this. Raised by restores.
    pub(crate) offset: Index,
    /// The index of the last restore: whoever waits from before it has missed it.
    pub(crate) floor: Index,
    /// The newest deletion that was forgotten: whoever waits from before it may have missed one.
    pub(crate) reaped: Index,
    /// When each table last changed.
    pub(crate) indexes: Indexes,
    /// When each name last changed.
    pub(crate) changes: Changes,
    pub(crate) kv: Kv,
    pub(crate) tombstones: Tombstones,
    pub(crate) catalog: Catalog,
    pub(crate) sessions: Sessions,
    pub(crate) acls: Acls,
    pub(crate) coordinates: Coordinates,
    pub(crate) queries: Queries,
    pub(crate) lock_delays: LockDelays,
}

impl State {
    /// The index that users see for the entry at this position of the log.
    pub(crate) fn user_index(&self, log_index: u64) -> Index {
        log_index.saturating_add(self.offset)
    }
}
