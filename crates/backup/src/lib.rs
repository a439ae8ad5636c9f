//! Snapshots as files: looking into one and proving that it is sound, without a server.
//!
//! This crate knows the archive's layers and which kinds of record there are, but not what they mean to a cluster.
//! It never talks to a server, and whoever wants a text or JSON of what it found renders that for himself.
//!
//! Start with [`inspect()`]; the names of the record types are in [`kind`].
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/snapshots/full-0.7.1.snap");
//! let report = backup::inspect(std::fs::File::open(file)?, &backup::Options::default())?;
//! assert_eq!(report.meta.index, 68);
//! assert!(report.skipped.is_empty());
//! # Ok(())
//! # }
//! ```

pub mod inspect;
pub mod kind;

pub use inspect::{InspectError, KeyDetails, Options, Report, Tally, inspect};
