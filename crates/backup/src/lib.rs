//! Snapshots as files: looking into one and proving that it is sound, without a server.
//!
//! It never talks to a server, and whoever wants a text or JSON of what it found renders that for himself.
//! What makes a record sound is for `store` to say, since that is who would load it.
//!
//! Start with [`inspect()`]; [`prove()`] loads a snapshot and tells what came of it, [`diff()`] compares two, [`stores`] keeps them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/snapshots/full-0.7.1.snap");
//! let report = backup::inspect(std::fs::File::open(file)?, &backup::Options::default())?;
//! assert_eq!(report.meta.index, 68);
//! assert!(report.fault.is_none() && report.skipped.is_empty());
//! # Ok(())
//! # }
//! ```

pub mod agent;
mod decode;
mod diff;
#[cfg(test)]
mod fixtures;
mod forecast;
mod inspect;
mod items;
pub mod location;
mod name;
mod note;
mod part;
mod pipe;
mod prints;
mod proof;
mod redact;
mod retention;
pub mod seal;
pub mod stores;

pub use decode::{DecodeError, decode};
pub use diff::{Change, Difference, NAMED_MAX, diff};
pub use forecast::{Kept, forecast};
pub use inspect::{KeyDetails, Options, Report, Tally, inspect};
pub use items::Unreadable;
pub use location::Location;
pub use name::{Name, NotAName};
pub use note::{NotANote, Note, Rules, Summary};
pub use part::diff_part;
pub use pipe::to_thread;
pub use proof::{Digest, Proof, digest, prove};
pub use redact::{RedactError, Redacted, redact};
pub use retention::Retention;
pub use store::archive::{Subject, TypeName};
pub use wire::archive::{ArchiveError, Meta};
