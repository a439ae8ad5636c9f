//! `/v1/agent/`: the services and checks of this node.
//!
//! What is changed here is changed on this node; the agent brings it into the catalog, and an answer of 200 does not promise that it is there already.

use ::agent::definition::Status;
use ::agent::local::{Local, LocalError};
use model::Text;

use crate::call::{Answer, Call, collect_json, decoded, json};
use crate::definition::{read_check, read_service};
use crate::error::{bad_request, not_found, refused};
use crate::http::{Response, StatusCode};
use crate::json::{DecodeError, Reader, decode};

/// How much of the output of a check is kept.
const OUTPUT_MAX: usize = 4096;

/// The services, by id.
pub(crate) fn services(call: Call<'_>) -> Result<Answer, Response> {
    Ok(json(&call.api.agent.local().services(), call.pretty()).into())
}

/// The checks, by id.
pub(crate) fn checks(call: Call<'_>) -> Result<Answer, Response> {
    Ok(json(&call.api.agent.local().checks(), call.pretty()).into())
}

/// Takes a service in, or another definition of one that is here.
pub(crate) fn register_service(call: Call<'_>) -> Result<Answer, Response> {
    let (api, token) = (call.api.clone(), call.token_brought());
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let service = decoded(&body, read_service)?.definition(token)?;
        drop(body);
        done(api.agent.local().register_service(service).await)
    }))
}

/// Takes a check in, or another definition of one that is here.
pub(crate) fn register_check(call: Call<'_>) -> Result<Answer, Response> {
    let (api, token) = (call.api.clone(), call.token_brought());
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let check = decoded(&body, read_check)?.definition(token)?;
        drop(body);
        done(api.agent.local().register_check(check).await)
    }))
}

/// Lets a service go, with its checks.
pub(crate) fn deregister_service(call: Call<'_>) -> Result<Answer, Response> {
    let id = Text::from(call.argument);
    let local = local_of(&call);
    Ok(outcome(async move { local.deregister_service(id).await }))
}

/// Lets a check go.
pub(crate) fn deregister_check(call: Call<'_>) -> Result<Answer, Response> {
    let id = Text::from(call.argument);
    let local = local_of(&call);
    Ok(outcome(async move { local.deregister_check(id).await }))
}

/// Says that all is well.
pub(crate) fn pass(call: Call<'_>) -> Result<Answer, Response> {
    said(&call, Status::Passing)
}

/// Says that somebody should look.
pub(crate) fn warn(call: Call<'_>) -> Result<Answer, Response> {
    said(&call, Status::Warning)
}

/// Says that it does not work.
pub(crate) fn fail(call: Call<'_>) -> Result<Answer, Response> {
    said(&call, Status::Critical)
}

fn said(call: &Call<'_>, status: Status) -> Result<Answer, Response> {
    let id = Text::from(call.argument);
    let note = Text::from(call.query.get("note").unwrap_or_default());
    let local = local_of(call);
    Ok(outcome(
        async move { local.update_ttl(id, status, note).await },
    ))
}

/// The same with more room for what there is to say.
pub(crate) fn update(call: Call<'_>) -> Result<Answer, Response> {
    let (api, id) = (call.api.clone(), Text::from(call.argument));
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let Update { status, output } = decoded(&body, read_update)?;
        drop(body);
        let Some(status) = Status::named(&status) else {
            return Err(bad_request(format!("Invalid check status: '{status}'")));
        };
        let output = bounded(output);
        done(api.agent.local().update_ttl(id, status, output).await)
    }))
}

/// Takes this node out of service, or back in.
pub(crate) fn node_maintenance(call: Call<'_>) -> Result<Answer, Response> {
    let (enable, reason, token) = maintenance(&call)?;
    let local = local_of(&call);
    Ok(outcome(async move {
        local.node_maintenance(reason, enable, token).await
    }))
}

/// Takes one service of this node out, or back in.
pub(crate) fn service_maintenance(call: Call<'_>) -> Result<Answer, Response> {
    let id = Text::from(call.argument_or("Missing service ID")?);
    let (enable, reason, token) = maintenance(&call)?;
    let local = local_of(&call);
    Ok(outcome(async move {
        local.service_maintenance(id, reason, enable, token).await
    }))
}

/// Whether maintenance begins or ends, why, and on whose word.
fn maintenance(call: &Call<'_>) -> Result<(bool, Option<Text>, Text), Response> {
    let Some(enable) = call.query.get("enable") else {
        return Err(bad_request("Missing value for enable"));
    };
    let enable = match enable {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => true,
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => false,
        other => {
            let other = String::from_utf8_lossy(other);
            return Err(bad_request(format!("Invalid value for enable: {other:?}")));
        }
    };
    let reason = call.query.filled("reason").map(Text::from);
    Ok((enable, reason, call.token_brought()))
}

fn local_of(call: &Call<'_>) -> Local {
    call.api.agent.local().clone()
}

/// Changes something of this node, and says how it went.
fn outcome(change: impl Future<Output = Result<(), LocalError>> + Send + 'static) -> Answer {
    Answer::soon(async move { done(change.await) })
}

fn done(outcome: Result<(), LocalError>) -> Result<Response, Response> {
    match outcome {
        Ok(()) => Ok(Response::new(StatusCode::OK)),
        Err(error @ LocalError::UnknownService(_)) => Err(not_found(error.to_string())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// What somebody says of a check.
#[derive(Default)]
struct Update {
    status: Text,
    output: Text,
}

fn read_update(reader: &mut Reader<'_>) -> Result<Update, DecodeError> {
    let mut update = Update::default();
    reader.object(|reader, name| {
        match name {
            b"status" => update.status = reader.text()?.unwrap_or_default(),
            b"output" => update.output = reader.text()?.unwrap_or_default(),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(update)
}

/// The beginning of the output, and how long it was if that is not all.
fn bounded(output: Text) -> Text {
    let Some((kept, _)) = output
        .split_at_checked(OUTPUT_MAX)
        .filter(|(_, rest)| !rest.is_empty())
    else {
        return output;
    };
    let size = output.len();
    let note = format!(" ... (captured {OUTPUT_MAX} of {size} bytes)");
    Text::from([kept, note.as_bytes()].concat())
}

pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(update) = decode(bytes, read_update) {
        let _ = bounded(update.output);
    }
}
