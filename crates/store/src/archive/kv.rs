//! Keys with their values (type 2), and tombstones, which are written in the same shape (type 5).

use model::{Index, KvParts};
use wire::msgpack::{Decoder, Encoder};

use super::parts::put_uuid;
use super::refusal::{Fault, Refusal, reference_uuid};

/// In the order in which the original declares them.
const FIELDS: [&str; 7] = [
    "LockIndex",
    "Key",
    "Flags",
    "Value",
    "Session",
    "CreateIndex",
    "ModifyIndex",
];

pub(super) fn encode(out: &mut Vec<u8>, entry: &KvParts<'_>) {
    let mut out = Encoder::new(out);
    out.map_len(7);
    out.raw(b"CreateIndex").uint(entry.create_index);
    out.raw(b"Flags").uint(entry.flags);
    out.raw(b"Key").raw(entry.key);
    out.raw(b"LockIndex").uint(entry.lock_index);
    out.raw(b"ModifyIndex").uint(entry.modify_index);
    out.raw(b"Session");
    put_uuid(&mut out, entry.session);
    out.raw(b"Value");
    if entry.value.is_empty() {
        out.nil();
    } else {
        out.raw(entry.value);
    }
}

pub(super) fn encode_tombstone(out: &mut Vec<u8>, key: &[u8], index: Index) {
    encode(
        out,
        &KvParts {
            key,
            modify_index: index,
            ..KvParts::default()
        },
    );
}

pub(super) fn decode(bytes: &[u8]) -> Result<KvParts<'_>, Refusal> {
    decode_as(bytes, "failed inserting kvs entry")
}

/// The key that was deleted, and when.
pub(super) fn decode_tombstone(bytes: &[u8]) -> Result<(&[u8], Index), Refusal> {
    let entry = decode_as(bytes, "failed restoring tombstone")?;
    Ok((entry.key, entry.modify_index))
}

fn decode_as<'a>(bytes: &'a [u8], step: &'static str) -> Result<KvParts<'a>, Refusal> {
    let mut entry = KvParts::default();
    let mut session: &[u8] = b"";
    let mut decoder = Decoder::new(bytes);
    decoder.fields(&FIELDS, |value, field| {
        match field {
            0 => entry.lock_index = value.uint()?,
            1 => entry.key = value.raw()?,
            2 => entry.flags = value.uint()?,
            3 => entry.value = value.bytes()?,
            4 => session = value.raw()?,
            5 => entry.create_index = value.uint()?,
            _ => entry.modify_index = value.uint()?,
        }
        Ok::<_, Refusal>(())
    })?;
    decoder.finish()?;
    let refuse = |fault| Refusal::Row { step, fault };
    if entry.key.is_empty() {
        return Err(refuse(Fault::NoKey));
    }
    entry.session = reference_uuid("session", session).map_err(refuse)?;
    Ok(entry)
}
