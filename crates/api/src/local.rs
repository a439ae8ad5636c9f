//! `/v1/agent/`: the services and checks of this node.
//!
//! What is changed here is changed on this node; the agent brings it into the catalog, and an answer of 200 does not promise that it is there already.

use ::agent::definition::{CheckDefinition, Status};
use ::agent::local::{Local, LocalError};
use model::Text;

use crate::agent::denied;
use crate::call::{Answer, Call, collect_json, decoded, json};
use crate::definition::{read_check, read_service};
use crate::error::{bad_request, not_found, refused};
use crate::http::{Response, StatusCode};
use crate::json::{DecodeError, Reader, decode};
use crate::origin;

/// How much of the output of a check is kept.
const OUTPUT_MAX: usize = 4096;

impl Call<'_> {
    /// The services and checks of this node, as far as whoever asks may see and change them.
    fn local(&self) -> impl Future<Output = Result<Local, Response>> + Send + use<> {
        let (local, bearer) = (self.api.agent.local().clone(), self.bearer());
        async move { Ok(local.on_behalf_of(bearer.await?)) }
    }
}

/// The services, by id.
pub(crate) fn services(call: Call<'_>) -> Result<Answer, Response> {
    let (local, pretty) = (call.local(), call.pretty());
    Ok(Answer::soon(async move {
        Ok(json(&local.await?.services(), pretty))
    }))
}

/// The checks, by id.
pub(crate) fn checks(call: Call<'_>) -> Result<Answer, Response> {
    let (local, pretty) = (call.local(), call.pretty());
    Ok(Answer::soon(async move {
        Ok(json(&local.await?.checks(), pretty))
    }))
}

/// Takes a service in, or another definition of one that is here.
pub(crate) fn register_service(call: Call<'_>) -> Result<Answer, Response> {
    let (api, token) = (call.api.clone(), call.token_brought());
    let (local, suspicion) = (call.local(), origin::suspicion(&call));
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let service = decoded(&body, read_service)?.definition(token)?;
        drop(body);
        if service.checks.iter().any(CheckDefinition::runs_scripts) {
            suspicion.map_or(Ok(()), Err)?;
        }
        done(local.await?.register_service(service).await)
    }))
}

/// Takes a check in, or another definition of one that is here.
pub(crate) fn register_check(call: Call<'_>) -> Result<Answer, Response> {
    let (api, token) = (call.api.clone(), call.token_brought());
    let (local, suspicion) = (call.local(), origin::suspicion(&call));
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let check = decoded(&body, read_check)?.definition(token)?;
        drop(body);
        if check.runs_scripts() {
            suspicion.map_or(Ok(()), Err)?;
        }
        done(local.await?.register_check(check).await)
    }))
}

/// Lets a service go, with its checks.
pub(crate) fn deregister_service(call: Call<'_>) -> Result<Answer, Response> {
    let id = Text::from(call.argument);
    let local = call.local();
    Ok(Answer::soon(async move {
        done(local.await?.deregister_service(id).await)
    }))
}

/// Lets a check go.
pub(crate) fn deregister_check(call: Call<'_>) -> Result<Answer, Response> {
    let id = Text::from(call.argument);
    let local = call.local();
    Ok(Answer::soon(async move {
        done(local.await?.deregister_check(id).await)
    }))
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
    let local = call.local();
    Ok(Answer::soon(async move {
        done(local.await?.update_ttl(id, status, note).await)
    }))
}

/// The same with more room for what there is to say.
pub(crate) fn update(call: Call<'_>) -> Result<Answer, Response> {
    let (api, id) = (call.api.clone(), Text::from(call.argument));
    let local = call.local();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let Update { status, output } = decoded(&body, read_update)?;
        drop(body);
        let Some(status) = Status::named(&status) else {
            return Err(bad_request(format!("Invalid check status: '{status}'")));
        };
        let output = bounded(output);
        done(local.await?.update_ttl(id, status, output).await)
    }))
}

/// Takes this node out of service, or back in.
pub(crate) fn node_maintenance(call: Call<'_>) -> Result<Answer, Response> {
    let (enable, reason, token) = maintenance(&call)?;
    let local = call.local();
    Ok(Answer::soon(async move {
        done(local.await?.node_maintenance(reason, enable, token).await)
    }))
}

/// Takes one service of this node out, or back in.
pub(crate) fn service_maintenance(call: Call<'_>) -> Result<Answer, Response> {
    let id = Text::from(call.argument_or("Missing service ID")?);
    let (enable, reason, token) = maintenance(&call)?;
    let local = call.local();
    Ok(Answer::soon(async move {
        let local = local.await?;
        done(local.service_maintenance(id, reason, enable, token).await)
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

fn done(outcome: Result<(), LocalError>) -> Result<Response, Response> {
    match outcome {
        Ok(()) => Ok(Response::new(StatusCode::OK)),
        Err(error @ LocalError::UnknownService(_)) => Err(not_found(error.to_string())),
        Err(LocalError::Denied(error)) => Err(denied(&error)),
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
