//! Tokens in their old form (type 4).

use model::AclToken;
use wire::msgpack::{Decoder, Encoder};

use super::parts::text;
use super::refusal::{Fault, Refusal};

/// In the order in which the original declares them.
const FIELDS: [&str; 6] = ["ID", "Name", "Type", "Rules", "CreateIndex", "ModifyIndex"];

pub(super) fn encode(out: &mut Vec<u8>, token: &AclToken) {
    let mut out = Encoder::new(out);
    out.map_len(6);
    out.raw(b"CreateIndex").uint(token.create_index);
    out.raw(b"ID").raw(&token.id);
    out.raw(b"ModifyIndex").uint(token.modify_index);
    out.raw(b"Name").raw(&token.name);
    out.raw(b"Rules").raw(&token.rules);
    out.raw(b"Type").raw(&token.kind);
}

pub(super) fn decode(bytes: &[u8]) -> Result<AclToken, Refusal> {
    let mut token = AclToken::default();
    let mut decoder = Decoder::new(bytes);
    decoder.fields(&FIELDS, |value, field| {
        match field {
            0 => token.id = text(value)?,
            1 => token.name = text(value)?,
            2 => token.kind = text(value)?,
            3 => token.rules = text(value)?,
            4 => token.create_index = value.uint()?,
            _ => token.modify_index = value.uint()?,
        }
        Ok::<_, Refusal>(())
    })?;
    decoder.finish()?;
    if token.id.is_empty() {
        return Err(Refusal::Row {
            step: "failed restoring acl",
            fault: Fault::NoKey,
        });
    }
    Ok(token)
}
