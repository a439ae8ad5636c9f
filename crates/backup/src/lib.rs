//! Snapshots as files: verify and inspect.
