//! Transactions that only read.

use model::{TxnOutcome, TxnRead};

use crate::tables::kv::read_only_txn;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for TxnRead {
    /// Nobody waits for these, so they have no index of their own.
    fn read(&self, view: &View, _: &mut Watch) -> Found<TxnOutcome> {
        Found::new(view, read_only_txn(&view.state().kv, &self.ops), 0, 0)
    }
}
