//! `/v1/txn`: several operations on keys, all or none.

use std::borrow::Cow;

use model::{
    Command, Error, KvOp, KvVerb, Reply, TXN_OPS_MAX, Text, TxnError, TxnOutcome, TxnRead,
    TxnResult, VALUE_MAX,
};
use rpc::Meta;

use crate::call::{Answer, Call, collect_json, rendered, set_contact};
use crate::error::{bad_request, failed, too_large};
use crate::http::{Response, StatusCode};
use crate::json::{DecodeError, Encode, Reader, decode, indent, object};
use crate::kv::encode_entry;

/// Carries out the operations in the body.
pub(crate) fn txn(call: Call<'_>) -> Result<Answer, Response> {
    let mut read_options = call.read_options()?;
    read_options.index = 0;
    let options = call.write_options();
    let pretty = call.pretty();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let operations = decode(&body, Operations::read);
        drop(body);
        let operations =
            operations.map_err(|error| bad_request(format!("Failed to parse body: {error}")))?;
        operations.check_sizes()?;
        if !operations.errors.is_empty() {
            let outcome = TxnOutcome {
                results: Vec::new(),
                errors: operations.errors,
            };
            return Ok(shown(&outcome, None, pretty));
        }
        let ops = operations.ops;
        if ops.iter().any(|op| op.verb.is_write()) {
            return match api.cluster.write(Command::Txn(ops), options).await {
                Ok(Reply::Txn(outcome)) => Ok(shown(&outcome, None, pretty)),
                Ok(_) => {
                    let error = Error::Internal("a transaction had another reply".to_owned());
                    Err(failed(&error))
                }
                Err(error) => Err(failed(&error)),
            };
        }
        match api.cluster.read(TxnRead { ops }, read_options).await {
            Ok(answered) => Ok(shown(&answered.answer, Some(&answered.meta), pretty)),
            Err(error) => {
                let mut response = failed(&error);
                set_contact(&mut response, &Meta::default());
                Err(response)
            }
        }
    }))
}

/// What the body asks for.
#[derive(Default)]
struct Operations {
    /// The operations, up to the first that is too many.
    ops: Vec<KvOp>,
    /// How many there are, those included that say nothing.
    count: usize,
    /// The first value that is too large by itself: its key and its size.
    oversized: Option<(Text, usize)>,
    /// The size of all values.
    size: usize,
    /// Operations that no server knows.
    errors: Vec<TxnError>,
}

impl Operations {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut operations = Self::default();
        let mut keyless = Vec::new();
        let is_list = reader.list(|reader| {
            operations.count += 1;
            let mut given = None;
            let is_object = reader.object(|reader, name| match name {
                b"kv" => Given::read(reader).map(|read| given = read),
                _ => reader.skip(),
            })?;
            if !is_object {
                return Err(DecodeError::Type {
                    expected: "an object",
                    found: "null",
                });
            }
            // Operations without content are dropped, and those behind them move up.
            if let Some(Given { op, unknown_verb }) = given
                && operations.count <= TXN_OPS_MAX
            {
                if op.key.is_empty() && op.verb != KvVerb::DeleteTree {
                    keyless.push(error(operations.ops.len(), "Must provide key".to_owned()));
                }
                if let Some(verb) = unknown_verb {
                    let what = format!("unknown KV verb {verb:?}");
                    operations.errors.push(error(operations.ops.len(), what));
                }
                operations.size += op.value.len();
                if op.value.len() > VALUE_MAX && operations.oversized.is_none() {
                    operations.oversized = Some((op.key.clone(), op.value.len()));
                }
                operations.ops.push(op);
            }
            Ok(())
        })?;
        if !is_list {
            return Err(DecodeError::Type {
                expected: "a list",
                found: "null",
            });
        }
        // Servers look at the keys of all operations before they look at any verb.
        if !operations.errors.is_empty() && !keyless.is_empty() {
            operations.errors = keyless;
        }
        Ok(operations)
    }

    fn check_sizes(&self) -> Result<(), Response> {
        if self.count > TXN_OPS_MAX {
            return Err(too_large(format!(
                "Transaction contains too many operations ({} > {TXN_OPS_MAX})",
                self.count
            )));
        }
        if let Some((key, size)) = &self.oversized {
            return Err(too_large(format!(
                "Value for key {:?} is too large ({size} > {VALUE_MAX} bytes)",
                key.to_lossy()
            )));
        }
        if self.size > VALUE_MAX {
            return Err(too_large(format!(
                "Cumulative size of key data is too large ({} > {VALUE_MAX} bytes)",
                self.size
            )));
        }
        Ok(())
    }
}

fn error(op_index: usize, what: String) -> TxnError {
    TxnError { op_index, what }
}

/// One operation as it was given.
struct Given<'a> {
    op: KvOp,
    /// Its verb if there is no such verb; that of `op` means nothing then.
    unknown_verb: Option<Cow<'a, str>>,
}

impl<'a> Given<'a> {
    /// `None` for `null`.
    fn read(reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        let mut verb = Cow::Borrowed("");
        let (mut key, mut value, mut session) = (None, None, None);
        let (mut flags, mut index) = (0, 0);
        let is_there = reader.object(|reader, name| {
            match name {
                b"verb" => verb = reader.string()?.unwrap_or_default(),
                b"key" => key = reader.text()?,
                b"value" => value = reader.base64()?,
                b"flags" => flags = reader.u64()?.unwrap_or(0),
                b"index" => index = reader.u64()?.unwrap_or(0),
                b"session" => session = reader.text()?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        if !is_there {
            return Ok(None);
        }
        let session = || session.unwrap_or_default();
        let (known, unknown_verb) = match &*verb {
            "set" => (KvVerb::Set, None),
            "cas" => (KvVerb::Cas(index), None),
            "lock" => (KvVerb::Lock(session()), None),
            "unlock" => (KvVerb::Unlock(session()), None),
            "get" => (KvVerb::Get, None),
            "get-tree" => (KvVerb::GetTree, None),
            "check-index" => (KvVerb::CheckIndex(index), None),
            "check-session" => (KvVerb::CheckSession(session()), None),
            "delete" => (KvVerb::Delete, None),
            "delete-tree" => (KvVerb::DeleteTree, None),
            "delete-cas" => (KvVerb::DeleteCas(index), None),
            _ => (KvVerb::Get, Some(verb)),
        };
        let op = KvOp {
            verb: known,
            key: key.unwrap_or_default(),
            value: value.unwrap_or_default(),
            flags,
        };
        Ok(Some(Self { op, unknown_verb }))
    }
}

/// The outcome; that of a transaction which only read says how it stands in time.
fn shown(outcome: &TxnOutcome, meta: Option<&Meta>, pretty: bool) -> Response {
    let failed = !outcome.errors.is_empty();
    let mut out = Vec::with_capacity(256);
    object(&mut out, |o| {
        o.field("Results", &(!failed).then_some(&outcome.results))
            .field("Errors", &failed.then_some(&outcome.errors));
        if let Some(meta) = meta {
            let contact = u64::try_from(meta.last_contact.as_nanos()).unwrap_or(u64::MAX);
            // The original never fills in the index here.
            o.field("Index", &0u64)
                .field("LastContact", &contact)
                .field("KnownLeader", &meta.known_leader);
        }
    });
    let mut response = rendered(if pretty { indent(&out) } else { out });
    if failed {
        response.status = StatusCode::CONFLICT;
    }
    if let Some(meta) = meta {
        set_contact(&mut response, meta);
    }
    response
}

impl Encode for TxnResult {
    fn encode(&self, out: &mut Vec<u8>) {
        let value = if self.with_value {
            self.entry.value()
        } else {
            &[]
        };
        out.extend_from_slice(b"{\"KV\":");
        encode_entry(&self.entry, value, out);
        out.push(b'}');
    }
}

impl Encode for TxnError {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("OpIndex", &self.op_index).field("What", &self.what);
        });
    }
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, Operations::read).map(|operations| operations.check_sizes().is_ok());
}
