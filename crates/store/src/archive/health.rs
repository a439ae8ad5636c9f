//! Checks, as they stand inside of a node's record.

use model::{CRITICAL, Check, Text};
use wire::msgpack::{Decoder, Encoder};

use super::parts::text;
use super::refusal::{Fault, Refusal};

/// In the order in which the original declares them.
const FIELDS: [&str; 10] = [
    "Node",
    "CheckID",
    "Name",
    "Status",
    "Notes",
    "Output",
    "ServiceID",
    "ServiceName",
    "CreateIndex",
    "ModifyIndex",
];

/// A check without an id.
pub(super) const NO_CHECK: Refusal = Refusal::Row {
    step: "failed inserting check",
    fault: Fault::NoKey,
};

pub(super) fn put_check(out: &mut Encoder<'_>, check: &Check) {
    out.map_len(10);
    out.raw(b"CheckID").raw(&check.check_id);
    out.raw(b"CreateIndex").uint(check.create_index);
    out.raw(b"ModifyIndex").uint(check.modify_index);
    out.raw(b"Name").raw(&check.name);
    out.raw(b"Node").raw(&check.node);
    out.raw(b"Notes").raw(&check.notes);
    out.raw(b"Output").raw(&check.output);
    out.raw(b"ServiceID").raw(&check.service_id);
    out.raw(b"ServiceName").raw(&check.service_name);
    out.raw(b"Status").raw(&check.status);
}

pub(super) fn decode_check(value: &mut Decoder<'_>) -> Result<Option<Check>, Refusal> {
    let mut check = Check::default();
    let present = value.fields(&FIELDS, |value, field| {
        match field {
            0 => check.node = text(value)?,
            1 => check.check_id = text(value)?,
            2 => check.name = text(value)?,
            3 => check.status = text(value)?,
            4 => check.notes = text(value)?,
            5 => check.output = text(value)?,
            6 => check.service_id = text(value)?,
            7 => check.service_name = text(value)?,
            8 => check.create_index = value.uint()?,
            _ => check.modify_index = value.uint()?,
        }
        Ok::<_, Refusal>(())
    })?;
    if !present {
        return Ok(None);
    }
    if check.check_id.is_empty() {
        return Err(NO_CHECK);
    }
    if check.status.is_empty() {
        check.status = Text::from(CRITICAL);
    }
    Ok(Some(check))
}
