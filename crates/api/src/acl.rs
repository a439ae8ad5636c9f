//! `/v1/acl/`: tokens. Always asked of the datacenter that decides about them.

use model::{AclInfo, AclList, AclToken, CLIENT, Command, Error, Text, TokenId};
use rpc::{Answered, WriteOptions};

use crate::call::{
    Answer, Call, collect_json, decoded, decoded_if_any, failed_read, json, with_meta,
};
use crate::error::{bad_request, failed, not_found};
use crate::http::Response;
use crate::json::{DecodeError, Encode, Reader, decode, object};
use crate::session::Created;

const MISSING: &str = "Missing ACL";

/// Creates a token, or overwrites one whose id it names.
pub(crate) fn create(call: Call<'_>) -> Result<Answer, Response> {
    set(call, Body::Optional)
}

/// Overwrites a token; what the body does not name becomes empty.
pub(crate) fn update(call: Call<'_>) -> Result<Answer, Response> {
    set(call, Body::WithId)
}

enum Body {
    Optional,
    WithId,
}

fn set(call: Call<'_>, expected: Body) -> Result<Answer, Response> {
    let options = write_options(&call);
    let pretty = call.pretty();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let bytes = collect_json(&api, call.body).await?;
        let mut token = match expected {
            Body::Optional => decoded_if_any(&bytes, read_token)?,
            Body::WithId => decoded(&bytes, read_token)?,
        };
        drop(bytes);
        if matches!(expected, Body::WithId) && token.id.is_empty() {
            return Err(bad_request("ACL ID must be set"));
        }
        if token.kind.is_empty() {
            token.kind = Text::from(CLIENT);
        }
        let written = api
            .cluster
            .write(Command::AclSet(Box::new(token)), options)
            .await;
        let reply = written.map_err(|error| failed(&error))?;
        Ok(json(&Created(&reply), pretty))
    }))
}

/// Removes a token; there need not be one.
pub(crate) fn destroy(call: Call<'_>) -> Result<Answer, Response> {
    let options = write_options(&call);
    let id = Text::from(call.argument_or(MISSING)?);
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let written = cluster
            .write(Command::AclDelete(TokenId(id)), options)
            .await;
        written.map_err(|error| failed(&error))?;
        Ok(json(&true, pretty))
    }))
}

/// Creates a token that may what another may.
pub(crate) fn clone(call: Call<'_>) -> Result<Answer, Response> {
    let mut read_options = call.read_options()?;
    read_options.index = 0;
    let options = write_options(&call);
    read_options.datacenter = options.datacenter.clone();
    let id = Text::from(call.argument_or(MISSING)?);
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let answered = cluster.read(AclInfo { id }, read_options).await;
        let Answered { answer, meta } = answered.map_err(|error| failed_read(&error))?;
        let Some(target) = answer else {
            return Err(with_meta(not_found("Target ACL not found"), &meta));
        };
        let token = AclToken {
            id: Text::default(),
            ..(*target).clone()
        };
        let written = cluster
            .write(Command::AclSet(Box::new(token)), options)
            .await;
        let reply = written.map_err(|error| with_meta(failed(&error), &meta))?;
        Ok(with_meta(json(&Created(&reply), pretty), &meta))
    }))
}

/// One token, or an empty list.
pub(crate) fn info(call: Call<'_>) -> Result<Answer, Response> {
    let mut options = call.read_options()?;
    options.datacenter = call.api.config.acl_datacenter.clone();
    let id = Text::from(call.argument_or(MISSING)?);
    let pretty = call.pretty();
    Ok(call.ask(AclInfo { id }, options, move |token| {
        json(token.as_slice(), pretty)
    }))
}

/// All tokens.
pub(crate) fn list(call: Call<'_>) -> Result<Answer, Response> {
    let mut options = call.read_options()?;
    options.datacenter = call.api.config.acl_datacenter.clone();
    Ok(call.ask_json(AclList, options))
}

/// How far tokens have been copied from the datacenter that decides about them.
pub(crate) fn replication(call: Call<'_>) -> Result<Answer, Response> {
    // Unlike its neighbours it tells of the datacenter that is asked for.
    let datacenter = call.datacenter();
    if !datacenter.is_empty() && *datacenter != *call.api.agent.datacenter().as_bytes() {
        return Err(failed(&Error::NoPath));
    }
    Ok(json(&Replication, call.pretty()).into())
}

fn write_options(call: &Call<'_>) -> WriteOptions {
    WriteOptions {
        token: call.token(),
        datacenter: call.api.config.acl_datacenter.clone(),
    }
}

fn read_token(reader: &mut Reader<'_>) -> Result<AclToken, DecodeError> {
    let mut token = AclToken::default();
    reader.object(|reader, name| {
        let field = match name {
            b"id" => &mut token.id,
            b"name" => &mut token.name,
            b"type" => &mut token.kind,
            b"rules" => &mut token.rules,
            _ => return reader.skip(),
        };
        *field = reader.text()?.unwrap_or_default();
        Ok(())
    })?;
    Ok(token)
}

impl Encode for AclToken {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("ID", &self.id)
                .field("Name", &self.name)
                .field("Type", &self.kind)
                .field("Rules", &self.rules)
                .field("CreateIndex", &self.create_index)
                .field("ModifyIndex", &self.modify_index);
        });
    }
}

/// Nothing is copied: a datacenter either decides itself or has no tokens.
struct Replication;

impl Encode for Replication {
    fn encode(&self, out: &mut Vec<u8>) {
        const NEVER: &str = "0001-01-01T00:00:00Z";
        object(out, |o| {
            o.field("Enabled", &false)
                .field("Running", &false)
                .field("SourceDatacenter", "")
                .field("ReplicatedIndex", &0u64)
                .field("LastSuccess", NEVER)
                .field("LastError", NEVER);
        });
    }
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, read_token);
}
