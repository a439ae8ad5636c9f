//! Sessions (type 3).

use model::{Behavior, Session, Text};
use wire::msgpack::{Decoder, Encoder};

use super::parts::{list, put_texts, put_uuid, text, texts};
use super::refusal::{Fault, Refusal, key_uuid};

/// In the order in which the original declares them, then what later releases have instead of `Checks`.
const FIELDS: [&str; 11] = [
    "ID",
    "Name",
    "Node",
    "Checks",
    "LockDelay",
    "Behavior",
    "TTL",
    "CreateIndex",
    "ModifyIndex",
    "NodeChecks",
    "ServiceChecks",
];

pub(super) fn encode(out: &mut Vec<u8>, session: &Session) {
    let mut out = Encoder::new(out);
    out.map_len(9);
    out.raw(b"Behavior")
        .raw(session.behavior.as_str().as_bytes());
    out.raw(b"Checks");
    put_texts(&mut out, Some(&session.checks));
    out.raw(b"CreateIndex").uint(session.create_index);
    out.raw(b"ID");
    put_uuid(&mut out, Some(session.id));
    out.raw(b"LockDelay").int(session.lock_delay);
    out.raw(b"ModifyIndex").uint(session.modify_index);
    out.raw(b"Name").raw(&session.name);
    out.raw(b"Node").raw(&session.node);
    out.raw(b"TTL").raw(&session.ttl);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Session, Refusal> {
    let mut session = Session::default();
    let mut id: &[u8] = b"";
    let mut behavior: &[u8] = b"";
    let mut later_checks = Vec::new();
    let mut decoder = Decoder::new(bytes);
    decoder.fields(&FIELDS, |value, field| {
        match field {
            0 => id = value.raw()?,
            1 => session.name = text(value)?,
            2 => session.node = text(value)?,
            3 => session.checks = texts(value, "Checks")?.unwrap_or_default(),
            4 => session.lock_delay = value.int()?,
            5 => behavior = value.raw()?,
            6 => session.ttl = text(value)?,
            7 => session.create_index = value.uint()?,
            8 => session.modify_index = value.uint()?,
            9 => later_checks.extend(texts(value, "NodeChecks")?.unwrap_or_default()),
            _ => later_checks
                .extend(list(value, "ServiceChecks", service_check)?.unwrap_or_default()),
        }
        Ok::<_, Refusal>(())
    })?;
    decoder.finish()?;
    for check in later_checks {
        if !session.checks.contains(&check) {
            session.checks.push(check);
        }
    }

    let refuse = |fault| Refusal::Row {
        step: "failed inserting session",
        fault,
    };
    session.id = key_uuid(id).map_err(refuse)?;
    session.behavior = Behavior::parse(behavior).ok_or_else(|| {
        refuse(Fault::Behavior(
            String::from_utf8_lossy(behavior).into_owned(),
        ))
    })?;
    let unnamed = |check: &Text| check.is_empty();
    let bound = !session.checks.is_empty();
    if bound && (session.node.is_empty() || session.checks.iter().any(unnamed)) {
        return Err(Refusal::Row {
            step: "failed inserting session check",
            fault: Fault::NoKey,
        });
    }
    Ok(session)
}

/// What later releases write for a check of a service: its id, and a namespace that we have no notion of.
fn service_check(value: &mut Decoder<'_>) -> Result<Text, Refusal> {
    let mut id = Text::default();
    value.fields(&["ID"], |value, _| {
        id = text(value)?;
        Ok::<_, Refusal>(())
    })?;
    Ok(id)
}
