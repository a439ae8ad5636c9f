//! The replicated log: elections, replication, membership, log and checkpoint storage.
