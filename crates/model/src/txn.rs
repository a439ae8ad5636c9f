//! Transactions: several operations on keys, all or none.

use serde::{Deserialize, Serialize};

use crate::{KvEntry, KvOp};

/// The most operations in one transaction.
pub const TXN_OPS_MAX: usize = 64;

/// Operations that only read; answered without the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnRead {
    /// In this order.
    pub ops: Vec<KvOp>,
}

/// What a transaction did.
///
/// If there are errors, nothing was changed and there are no results.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TxnOutcome {
    /// In the order of the operations; deletions have none, a tree has many.
    pub results: Vec<TxnResult>,
    /// All that failed.
    pub errors: Vec<TxnError>,
}

/// One entry that a transaction wrote or read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResult {
    /// The entry after the operation.
    pub entry: KvEntry,
    /// Whether to show its value: reads do, writes do not.
    pub with_value: bool,
}

/// Why one operation of a transaction failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnError {
    /// Which one, from 0.
    pub op_index: usize,
    /// What clients match on.
    pub what: String,
}
