//! The file of a snapshot: one gzip member around a tar of `meta.json`, `state.bin` and `SHA256SUMS`.
//!
//! What the state means is not known here, only that it arrived as it was sent.
//! [`unpack`] takes such a file apart and believes nothing in it before the sums agree; [`Writer`] puts one together as a stream.
//! `docs/snapshot.md` describes the format and its invariants.

mod gzip;
mod meta;
mod reader;
mod sums;
mod tar;
mod writer;

pub use gzip::GzipError;
pub use meta::{Configuration, Meta, Server, Suffrage, Unrestorable};
pub use reader::{ArchiveError, Contents, unpack, verify};
pub use sums::SumsError;
pub use writer::{Compression, Writer};

/// The file that says what the snapshot is.
const META: &str = "meta.json";
/// The file that holds the state.
const STATE: &str = "state.bin";
/// The file that holds the hashes of the other two.
const SUMS: &str = "SHA256SUMS";

/// The largest `meta.json` that is read: a hundred servers take some 10 kB.
const META_SIZE_MAX: u64 = 1 << 20;
/// The largest `SHA256SUMS` that is read: two lines take 152 bytes.
const SUMS_SIZE_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests;
