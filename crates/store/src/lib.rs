//! The replicated state: tables, indexes, versions, watches, apply, snapshots in and out.
