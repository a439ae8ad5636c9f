//! A server seen from above: through its `Cluster`, on a disk in memory.

mod pipelines;
mod setup;
mod snapshots;
