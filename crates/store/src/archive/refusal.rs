//! Why a record is refused, in words close to those with which the original dies of it.

use model::RESTORE_RECORD_MAX;
use wire::msgpack::DecodeError;

/// What is wrong with one record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A type that we have no table for.
    #[error("Unrecognized msg type: [{0}]")]
    Unrecognized(u8),
    /// A record that fits into no entry of the log; values of the original have at most 512 KiB.
    #[error("{0} bytes are more than the {RESTORE_RECORD_MAX} that a record may have")]
    TooLarge(usize),
    /// The object is no value of its type.
    #[error("failed decoding: {0}")]
    Decode(#[from] DecodeError),
    /// A list or map that is longer than any honest one.
    #[error("failed decoding: more than {ITEMS_MAX} items in {0}")]
    TooMany(&'static str),
    /// The object can't be a row of its table.
    #[error("{step}: {fault}")]
    Row {
        /// What the original was doing when it failed.
        step: &'static str,
        /// What is wrong with the row.
        fault: Fault,
    },
    /// Whatever else the state says against it; the text says all.
    #[error("{0}")]
    Other(String),
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no key.
    #[error("object missing primary index")]
    NoKey,
    /// Its key is no UUID.
    #[error("failed to build primary index: {0}")]
    BadKey(BadUuid),
    /// What it refers to is no UUID.
    #[error("failed to build index '{0}': {1}")]
    BadReference(&'static str, BadUuid),
    /// A check of a node that isn't there.
    #[error("Missing node registration")]
    NoNode,
    /// A check of a service that isn't there.
    #[error("Missing service registration")]
    NoService,
    /// A query whose name another one has.
    #[error("name '{0}' aliases an existing query name")]
    NameTaken(String),
    /// An index from which ours could not go on.
    #[error("index {0} is beyond all that can be")]
    Index(u64),
    /// A session that is to do something unheard of when it ends.
    #[error("Invalid session behavior: {0}")]
    Behavior(String),
}

/// Why a text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUuid {
    /// It is too short or too long.
    #[error("UUID must be 36 characters")]
    Length,
    /// It is long enough, but other characters.
    #[error("Invalid UUID")]
    Form,
}

/// The longest list or map inside of one record.
///
/// Every item is held in memory several times larger than it was written, so a record of nothing but empty items must not be believed.
pub(super) const ITEMS_MAX: u32 = 65_536;

/// Reads a UUID that must be there.
pub(super) fn key_uuid(text: &[u8]) -> Result<model::Uuid, Fault> {
    if text.is_empty() {
        return Err(Fault::NoKey);
    }
    uuid(text).map_err(Fault::BadKey)
}

/// Reads a UUID that may be absent.
pub(super) fn reference_uuid(
    index: &'static str,
    text: &[u8],
) -> Result<Option<model::Uuid>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    uuid(text)
        .map(Some)
        .map_err(|bad| Fault::BadReference(index, bad))
}

fn uuid(text: &[u8]) -> Result<model::Uuid, BadUuid> {
    if text.len() != 36 {
        return Err(BadUuid::Length);
    }
    model::parse_uuid(text).ok_or(BadUuid::Form)
}
