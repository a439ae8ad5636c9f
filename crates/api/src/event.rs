//! `/v1/event/`: user events. Fired through any server; shown is what this agent received and was meant by.

use ::agent::KeptEvents;
use model::{Access, EventFilters, NewEvent, Operated, Operation, Resource, Text, UserEvent};
use rpc::OperateOptions;
use rpc::event::SIZE_MAX;

use crate::call::{Answer, Call, json};
use crate::error::{failed, not_read, refused};
use crate::http::{BodyError, Response};
use crate::json::{Base64, Encode, object};

/// Fires an event; the body is its payload.
pub(crate) fn fire(call: Call<'_>) -> Result<Answer, Response> {
    let name = Text::from(call.argument_or("Missing name")?);
    let filter = |name| Text::from(call.query.filled(name).unwrap_or_default());
    let filters = EventFilters {
        node: filter("node"),
        service: filter("service"),
        tag: filter("tag"),
    };
    let options = OperateOptions {
        token: call.token(),
        datacenter: call.datacenter(),
        stale: false,
    };
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        // What is longer can't be sent in any case; the words are those of who would have to.
        let payload = call
            .body
            .collect(SIZE_MAX)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge => {
                    refused(format!("user event exceeds limit of {SIZE_MAX} bytes"))
                }
                BodyError::TimedOut | BodyError::Broken => not_read(error, String::new),
            })?;
        let event = NewEvent {
            name,
            payload: Text::from(&payload[..]),
            filters,
        };
        event.validate().map_err(|error| failed(&error))?;
        let operation = Operation::FireEvent(Box::new(event.clone()));
        let operated = cluster.operate(operation, options).await;
        match operated.map_err(|error| failed(&error))? {
            // The original answers before gossip has given it a time, so it shows 0.
            Operated::Fired(id) => Ok(json(&event.fired(id), pretty)),
            Operated::Nothing
            | Operated::Peers(_)
            | Operated::RaftConfiguration(_)
            | Operated::Keyring(_)
            | Operated::Policy(_)
            | Operated::Session(_) => Err(refused("a server answered another question")),
        }
    }))
}

/// The last events that this agent was meant by, as far as whoever asks may know of them.
pub(crate) fn list(call: Call<'_>) -> Result<Answer, Response> {
    let (index, wait) = call.index_and_wait()?;
    let name = call.query.filled("name").map(Text::from);
    let (bearer, pretty) = (call.bearer(), call.pretty());
    let events = call.api.agent.events().clone();
    let config = &call.api.config;
    // The original's default is the longest here, and nothing is added to it.
    let wait = match wait {
        Some(wait) => wait.min(config.wait_max),
        None => config.wait_max,
    };
    Ok(Answer::soon(async move {
        let bearer = bearer.await?;
        let is_wanted = move |event: &UserEvent| {
            name.as_ref().is_none_or(|name| event.name == *name)
                && bearer.allows(Resource::Event, &event.name, Access::Read)
        };
        let kept = if index == 0 {
            events.kept(is_wanted)
        } else {
            events.kept_after(index, wait, is_wanted).await
        };
        Ok(shown(&kept, pretty))
    }))
}

fn shown(kept: &KeptEvents, pretty: bool) -> Response {
    json(&kept.events, pretty).with_header("X-Consul-Index", kept.index)
}

impl Encode for UserEvent {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("ID", &self.id)
                .field("Name", &self.name)
                .field("Payload", &Base64(&self.payload))
                .field("NodeFilter", &self.filters.node)
                .field("ServiceFilter", &self.filters.service)
                .field("TagFilter", &self.filters.tag)
                .field("Version", &self.version)
                .field("LTime", &self.ltime);
        });
    }
}
