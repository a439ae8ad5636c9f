//! `/v1/health/`: checks, and services with what their checks say.

use std::sync::Arc;

use model::{Check, HealthChecks, HealthNode, HealthService, HealthState, Instance, Text};

use crate::call::{Answer, Call, json, rendered};
use crate::http::Response;
use crate::json::{Encode, indent, object};
use crate::translate;

/// The checks of a node.
pub(crate) fn node(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let node = Text::from(call.argument_or("Missing node name")?);
    Ok(call.ask_json(HealthNode { node }, options))
}

/// The checks of a service.
pub(crate) fn checks(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let service = Text::from(call.argument_or("Missing service name")?);
    let pretty = call.pretty();
    Ok(call.ask_list(
        HealthChecks { service },
        options,
        |check| &check.node,
        move |checks| json(&checks, pretty),
    ))
}

/// The checks in one state.
pub(crate) fn state(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let state = Text::from(call.argument_or("Missing check state")?);
    let pretty = call.pretty();
    Ok(call.ask_list(
        HealthState { state },
        options,
        |check| &check.node,
        move |checks| json(&checks, pretty),
    ))
}

/// The instances of a service with their nodes and checks.
pub(crate) fn service(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let question = HealthService {
        service: Text::from(call.argument_or("Missing service name")?),
        tag: call.query.get("tag").map(Text::from),
        // Whatever its value: `passing=false` asks for the same.
        passing_only: call.query.has("passing"),
    };
    let pretty = call.pretty();
    let translates = call.translates();
    Ok(
        call.ask_list(question, options, node_of, move |mut instances| {
            if translates {
                translate::instances(&mut instances);
            }
            let joined = joined(&instances);
            rendered(if pretty { indent(&joined) } else { joined })
        }),
    )
}

fn node_of(instance: &Arc<Instance>) -> &Text {
    &instance.node.name
}

/// A list of instances, out of what each of them has kept of its last rendering.
///
/// This is the most asked question of all, and its answer mostly the same as the last time.
fn joined<I: AsRef<Instance>>(instances: &[I]) -> Vec<u8> {
    let parts = || instances.iter().map(|instance| part(instance.as_ref()));
    let mut out = Vec::with_capacity(2 + parts().map(|part| part.len() + 1).sum::<usize>());
    out.push(b'[');
    for (at, part) in parts().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
    out.push(b']');
    out
}

/// Such a list within something else.
pub(crate) struct Joined<'a>(pub(crate) &'a [Arc<Instance>]);

impl Encode for Joined<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.append(&mut joined(self.0));
    }
}

fn part(instance: &Instance) -> &[u8] {
    instance.rendered.get_or_init(|| {
        let mut out = Vec::with_capacity(1024);
        object(&mut out, |o| {
            o.field("Node", &instance.node)
                .field("Service", &instance.service)
                .field("Checks", &instance.checks);
        });
        out.into_boxed_slice()
    })
}

impl Encode for Check {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Node", &self.node)
                .field("CheckID", &self.check_id)
                .field("Name", &self.name)
                .field("Status", &self.status)
                .field("Notes", &self.notes)
                .field("Output", &self.output)
                .field("ServiceID", &self.service_id)
                .field("ServiceName", &self.service_name)
                .field("CreateIndex", &self.create_index)
                .field("ModifyIndex", &self.modify_index);
        });
    }
}
