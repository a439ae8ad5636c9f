//! Which records of an archive a part of it is made of, and how they look in their new place.

use model::{KvParts, RestorePart, Section};

use super::kind::Kind;
use super::kv;
use super::refusal::{Fault, Refusal};

/// The section that records of a kind belong to. Deletions that are remembered belong to none: those that a part makes
/// are remembered anew, and those of the snapshot were others.
fn section(kind: Kind) -> Option<Section> {
    match kind {
        Kind::Register | Kind::Coordinates => Some(Section::Catalog),
        Kind::Session => Some(Section::Sessions),
        Kind::Acl => Some(Section::Acl),
        Kind::Kvs => Some(Section::Kv),
        Kind::Query => Some(Section::Queries),
        Kind::Tombstone => None,
    }
}

/// The object of a record as the part has it; `None` if the record is none of it.
///
/// What has to be written anew for that is written into `room`.
pub(super) fn pick<'r>(
    part: &RestorePart,
    kind: Kind,
    object: &'r [u8],
    room: &'r mut Vec<u8>,
) -> Result<Option<&'r [u8]>, Refusal> {
    if !section(kind).is_some_and(|section| part.has(section)) {
        return Ok(None);
    }
    if kind != Kind::Kvs || part.prefixes().is_empty() {
        return Ok(Some(object));
    }
    let entry = kv::decode(object)?;
    if !part.takes_key(entry.key) {
        return Ok(None);
    }
    let (Some(into), [prefix]) = (part.into_prefix(), part.prefixes()) else {
        return Ok(Some(object));
    };
    let rest = entry.key.get(prefix.len()..).unwrap_or_default();
    let key = [into, rest].concat();
    if key.is_empty() {
        return Err(Refusal::Row {
            step: "failed inserting kvs entry",
            fault: Fault::NoKey,
        });
    }
    room.clear();
    // Its lock was on the key that it was.
    let moved = KvParts {
        key: &key,
        session: None,
        ..entry
    };
    kv::encode(room, &moved);
    Ok(Some(room))
}
