//! `/v1/kv/`: keys and values.

use model::{Command, KvEntry, KvGet, KvKeys, KvList, KvOp, KvVerb, Reply, Text, VALUE_MAX};
use rpc::{Answered, Meta};

use crate::call::{Answer, Call, json, with_meta};
use crate::error::{bad_request, failed, not_read, refused};
use crate::http::{Body, Response, StatusCode};
use crate::json::{Base64, Encode, Lossy, object};
use crate::options::parse_u64;

const MISSING_KEY: &str = "Missing key name";

/// An entry, a list of them, or a list of keys.
pub(crate) fn get(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    let key = Text::from(call.argument);
    if call.query.has("keys") {
        // The misspelling is the original's, and clients use it.
        let separator = call.query.get("separator");
        let separator = separator
            .or_else(|| call.query.get("seperator"))
            .unwrap_or_default();
        let question = KvKeys {
            prefix: key,
            separator: Text::from(separator),
        };
        return Ok(Answer::soon(async move {
            let everything = question.prefix.is_empty();
            let answered = cluster.read(question, options).await;
            let Answered { answer, meta } = answered.map_err(|error| failed(&error))?;
            let found = everything || !answer.is_empty();
            Ok(if found {
                with_meta(json(&answer, pretty), &meta)
            } else {
                missing(&meta)
            })
        }));
    }
    if call.query.has("recurse") {
        return Ok(Answer::soon(async move {
            let answered = cluster.read(KvList { prefix: key }, options).await;
            let Answered { answer, meta } = answered.map_err(|error| failed(&error))?;
            let found = !answer.is_empty();
            Ok(if found {
                with_meta(json(&answer, pretty), &meta)
            } else {
                missing(&meta)
            })
        }));
    }
    if key.is_empty() {
        return Err(bad_request(MISSING_KEY));
    }
    let is_raw = call.query.has("raw");
    Ok(Answer::soon(async move {
        let answered = cluster.read(KvGet { key }, options).await;
        // Unlike all others, errors here come without the headers of an index.
        let Answered { answer, meta } = answered.map_err(|error| failed(&error))?;
        Ok(match answer {
            None => missing(&meta),
            Some(entry) if is_raw => with_meta(raw(&entry), &meta),
            Some(entry) => with_meta(json(&[entry], pretty), &meta),
        })
    }))
}

/// No such key, which is news too: the headers say since when.
fn missing(meta: &Meta) -> Response {
    with_meta(Response::new(StatusCode::NOT_FOUND), meta)
}

/// The value alone.
///
/// The original guesses a content type, `text/html` among them; ours is one that no browser runs.
fn raw(entry: &KvEntry) -> Response {
    let response = Response::new(StatusCode::OK);
    if entry.value().is_empty() {
        return response;
    }
    response
        .with_header("Content-Type", "application/octet-stream")
        .with_body(entry.value().to_vec())
}

/// Writes a key, on a condition or with a lock if asked to.
pub(crate) fn put(call: Call<'_>) -> Result<Answer, Response> {
    call.read_options()?;
    call.argument_or(MISSING_KEY)?;
    conflicting(&call, &["cas", "acquire", "release"])?;
    let flags = number(&call, "flags")?.unwrap_or(0);
    let verb = if let Some(index) = number(&call, "cas")? {
        KvVerb::Cas(index)
    } else if let Some(session) = call.query.get("acquire") {
        KvVerb::Lock(Text::from(session))
    } else if let Some(session) = call.query.get("release") {
        KvVerb::Unlock(Text::from(session))
    } else {
        KvVerb::Set
    };
    write(call, verb, flags)
}

/// Removes a key, on a condition if asked to, or all that begin so.
pub(crate) fn delete(call: Call<'_>) -> Result<Answer, Response> {
    call.read_options()?;
    conflicting(&call, &["recurse", "cas"])?;
    let verb = if call.query.has("recurse") {
        KvVerb::DeleteTree
    } else {
        call.argument_or(MISSING_KEY)?;
        number(&call, "cas")?.map_or(KvVerb::Delete, KvVerb::DeleteCas)
    };
    write(call, verb, 0)
}

fn write(call: Call<'_>, verb: KvVerb, flags: u64) -> Result<Answer, Response> {
    let options = call.write_options();
    let key = Text::from(call.argument);
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    let has_value = matches!(
        verb,
        KvVerb::Set | KvVerb::Cas(_) | KvVerb::Lock(_) | KvVerb::Unlock(_)
    );
    // What cannot fail says true, whatever the reply: so does the original.
    let is_certain = matches!(verb, KvVerb::Set | KvVerb::Delete | KvVerb::DeleteTree);
    Ok(Answer::soon(async move {
        let value = if has_value {
            value(call.body).await?
        } else {
            Text::default()
        };
        let op = KvOp {
            verb,
            key,
            value,
            flags,
        };
        let written = cluster.write(Command::Kv(op), options).await;
        let reply = written.map_err(|error| failed(&error))?;
        Ok(json(&(is_certain || reply == Reply::Applied(true)), pretty))
    }))
}

/// The body as a value; its real length counts, not the one it claims.
async fn value(body: Body) -> Result<Text, Response> {
    let bytes = body.collect(VALUE_MAX).await;
    let bytes = bytes
        .map_err(|error| not_read(error, || format!("Value exceeds {VALUE_MAX} byte limit")))?;
    Ok(Text::from(&*bytes))
}

/// A parameter that is a number, if it is there; one that is there and is none is a 500, as in the original.
fn number(call: &Call<'_>, name: &str) -> Result<Option<u64>, Response> {
    let Some(text) = call.query.get(name) else {
        return Ok(None);
    };
    match parse_u64(text) {
        Some(number) => Ok(Some(number)),
        None => Err(refused(format!(
            "cannot parse {name}={:?} as a number",
            String::from_utf8_lossy(text)
        ))),
    }
}

/// At most one of these parameters makes sense.
fn conflicting(call: &Call<'_>, names: &[&str]) -> Result<(), Response> {
    if names.iter().filter(|name| call.query.has(name)).count() < 2 {
        return Ok(());
    }
    Err(bad_request(format!(
        "Conflicting flags: {}",
        call.query.sorted()
    )))
}

impl Encode for KvEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_entry(self, self.value(), out);
    }
}

/// An entry that shows this as its value.
pub(crate) fn encode_entry(entry: &KvEntry, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(200 + entry.key().len() + value.len().div_ceil(3) * 4);
    object(out, |o| {
        o.field("LockIndex", &entry.lock_index())
            .field("Key", &Lossy(entry.key()))
            .field("Flags", &entry.flags())
            .field("Value", &Base64(value));
        if let Some(session) = entry.session() {
            o.field("Session", &session);
        }
        o.field("CreateIndex", &entry.create_index())
            .field("ModifyIndex", &entry.modify_index());
    });
}
