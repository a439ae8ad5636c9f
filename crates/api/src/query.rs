//! `/v1/query`: prepared queries, their definitions and what they find.

use model::{
    Command, Error, Executed, Execution, Explained, FoundInstances, Portion, PreparedQuery,
    QueryExecute, QueryExplain, QueryGet, QueryList, QueryService, QuerySet, QuerySource,
    QueryTemplate, Text, Uuid, parse_uuid,
};
use rpc::{Answered, Meta};

use crate::call::{Answer, Call, collect_json, decoded, json};
use crate::error::{failed, not_found, refused};
use crate::health::Joined;
use crate::http::{Response, StatusCode};
use crate::json::{DecodeError, Encode, Object, Reader, decode, object};
use crate::session::Created;
use crate::translate;

/// Creates a query.
pub(crate) fn create(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.write_options();
    let pretty = call.pretty();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let given = decoded(&body, Given::read)?;
        drop(body);
        if !given.id.is_empty() {
            return Err(refused(
                "ID must be empty when creating a new prepared query",
            ));
        }
        let query = given.with_id(Uuid::nil())?;
        let command = Command::QuerySet(Box::new(QuerySet {
            query,
            create: true,
        }));
        let reply = api
            .cluster
            .write(command, options)
            .await
            .map_err(|error| failed(&error))?;
        Ok(json(&Created(&reply), pretty))
    }))
}

/// Replaces a query.
pub(crate) fn update(call: Call<'_>) -> Result<Answer, Response> {
    only_definitions(&call)?;
    let options = call.write_options();
    let id = existing(&call)?;
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let query = decoded(&body, Given::read)?.with_id(id)?;
        drop(body);
        let command = Command::QuerySet(Box::new(QuerySet {
            query,
            create: false,
        }));
        api.cluster
            .write(command, options)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Response::new(StatusCode::OK))
    }))
}

/// Removes a query.
pub(crate) fn delete(call: Call<'_>) -> Result<Answer, Response> {
    only_definitions(&call)?;
    let options = call.write_options();
    let id = existing(&call)?;
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let written = cluster.write(Command::QueryDelete(id), options).await;
        written.map_err(|error| failed(&error))?;
        Ok(Response::new(StatusCode::OK))
    }))
}

/// All queries. Unlike other reads, these come without the headers of an index.
pub(crate) fn list(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let answered = cluster.read(QueryList, options).await;
        let Answered { answer, .. } = answered.map_err(|error| failed(&error))?;
        Ok(json(&answer, pretty))
    }))
}

/// One query, or what it finds, or what it means.
pub(crate) fn get(call: Call<'_>) -> Result<Answer, Response> {
    match call.argument {
        [query @ .., b'/', b'e', b'x', b'e', b'c', b'u', b't', b'e'] => execute(&call, query),
        [query @ .., b'/', b'e', b'x', b'p', b'l', b'a', b'i', b'n'] => explain(&call, query),
        id => definition(&call, id),
    }
}

fn definition(call: &Call<'_>, id: &[u8]) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let Some(id) = parse_uuid(id) else {
        let shown = String::from_utf8_lossy(id);
        return Err(refused(format!(
            "failed prepared query lookup: {shown:?} is no UUID"
        )));
    };
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let answered = cluster.read(QueryGet { id }, options).await;
        let Answered { answer, .. } = answered.map_err(|error| failed(&error))?;
        let query = answer.map_err(|error| unresolved(&error))?;
        Ok(json(&[query], pretty))
    }))
}

/// Finds instances. It doesn't wait, and has no headers of an index.
fn execute(call: &Call<'_>, query: &[u8]) -> Result<Answer, Response> {
    let mut options = call.read_options()?;
    options.index = 0;
    let agent = &call.api.agent;
    let here = Text::from(agent.datacenter());
    let question = QueryExecute {
        query: Text::from(query),
        execution: Execution {
            datacenter: call.query.filled("dc").map_or(here.clone(), Text::from),
            source: QuerySource {
                datacenter: here.clone(),
                node: Text::from(agent.node()),
                near: call
                    .query
                    .filled("near")
                    .map(Text::from)
                    .unwrap_or_default(),
            },
            limit: limit(call)?,
            portion: Portion::Whole,
            seed: call.api.chance.draw(),
        },
    };
    let pretty = call.pretty();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let answered = api.cluster.read(question, options).await;
        let Answered { answer, meta } = answered.map_err(|error| failed(&error))?;
        let mut executed = answer.map_err(|error| unresolved(&error))?;
        if api.config.translate_wan_addrs
            && executed.datacenter != here
            && let FoundInstances::Whole(instances) = &mut executed.found
        {
            translate::instances(instances);
        }
        Ok(json(&ExecutedThen(executed, meta), pretty))
    }))
}

/// How many instances are wanted at most, 0 for all.
fn limit(call: &Call<'_>) -> Result<usize, Response> {
    let Some(text) = call.query.filled("limit") else {
        return Ok(0);
    };
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|it| it.parse().ok());
    let number: i64 = number.ok_or_else(|| {
        let shown = String::from_utf8_lossy(text);
        refused(format!("Bad limit: {shown:?} is no number"))
    })?;
    // As in the original, less than nothing is no limit.
    Ok(usize::try_from(number).unwrap_or(0))
}

/// Shows what a name stands for, with everything filled in.
fn explain(call: &Call<'_>, query: &[u8]) -> Result<Answer, Response> {
    let mut options = call.read_options()?;
    options.index = 0;
    let query = Text::from(query);
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let answered = cluster.read(QueryExplain { query }, options).await;
        let Answered { answer, meta } = answered.map_err(|error| failed(&error))?;
        let Explained(query) = answer.map_err(|error| unresolved(&error))?;
        Ok(json(&ExplainedThen(&query, meta), pretty))
    }))
}

/// There is no such query, or it can't be had like this. Said by whoever was asked, so that it is the same everywhere.
fn unresolved(error: &Error) -> Response {
    match error.kind() {
        Error::NotFound(text) => not_found(text.as_str()),
        _ => failed(error),
    }
}

/// Whether it is not about a definition but about what it finds.
fn is_question(argument: &[u8]) -> bool {
    argument.ends_with(b"/execute") || argument.ends_with(b"/explain")
}

/// What a definition finds can only be read.
fn only_definitions(call: &Call<'_>) -> Result<(), Response> {
    if is_question(call.argument) {
        return Err(Response::new(StatusCode::METHOD_NOT_ALLOWED));
    }
    Ok(())
}

/// The argument as the id of a query, which must exist; what is no id can't.
fn existing(call: &Call<'_>) -> Result<Uuid, Response> {
    parse_uuid(call.argument).ok_or_else(|| {
        let shown = String::from_utf8_lossy(call.argument);
        refused(format!(
            "Cannot modify non-existent prepared query: '{shown}'"
        ))
    })
}

/// A definition as a client gives it.
#[derive(Default)]
struct Given {
    id: Text,
    session: Text,
    query: PreparedQuery,
}

impl Given {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut given = Self::default();
        let query = &mut given.query;
        reader.object(|reader, name| {
            match name {
                b"id" => given.id = reader.text()?.unwrap_or_default(),
                b"name" => query.name = reader.text()?.unwrap_or_default(),
                b"session" => given.session = reader.text()?.unwrap_or_default(),
                b"token" => query.token = reader.text()?.unwrap_or_default(),
                b"template" => query.template = read_template(reader)?,
                b"service" => query.service = read_service(reader)?,
                b"dns" => query.dns_ttl = read_dns(reader)?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(given)
    }

    fn with_id(self, id: Uuid) -> Result<PreparedQuery, Response> {
        let session = if self.session.is_empty() {
            None
        } else {
            match parse_uuid(&self.session) {
                Some(session) => Some(session),
                None => return Err(refused(format!("invalid session {:?}", self.session))),
            }
        };
        Ok(PreparedQuery {
            id,
            session,
            ..self.query
        })
    }
}

fn read_template(reader: &mut Reader<'_>) -> Result<QueryTemplate, DecodeError> {
    let mut template = QueryTemplate::default();
    reader.object(|reader, name| {
        match name {
            b"type" => template.kind = reader.text()?.unwrap_or_default(),
            b"regexp" => template.regexp = reader.text()?.unwrap_or_default(),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(template)
}

fn read_service(reader: &mut Reader<'_>) -> Result<QueryService, DecodeError> {
    let mut service = QueryService::default();
    reader.object(|reader, name| {
        match name {
            b"service" => service.service = reader.text()?.unwrap_or_default(),
            b"failover" => {
                (service.nearest_n, service.datacenters) = (0, None);
                reader.object(|reader, name| {
                    match name {
                        b"nearestn" => service.nearest_n = reader.i64()?.unwrap_or_default(),
                        b"datacenters" => service.datacenters = reader.texts()?,
                        _ => reader.skip()?,
                    }
                    Ok(())
                })?;
            }
            b"onlypassing" => service.only_passing = reader.bool()?.unwrap_or_default(),
            b"near" => service.near = reader.text()?.unwrap_or_default(),
            b"tags" => service.tags = reader.texts()?,
            b"nodemeta" => service.node_meta = reader.pairs()?.unwrap_or_default(),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(service)
}

fn read_dns(reader: &mut Reader<'_>) -> Result<Text, DecodeError> {
    let mut ttl = Text::default();
    reader.object(|reader, name| {
        match name {
            b"ttl" => ttl = reader.text()?.unwrap_or_default(),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(ttl)
}

impl Encode for PreparedQuery {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            template, service, ..
        } = self;
        object(out, |o| {
            o.field("ID", &self.id).field("Name", &self.name);
            match self.session {
                Some(session) => o.field("Session", &session),
                None => o.field("Session", ""),
            };
            o.field("Token", &self.token)
                .object("Template", |o| {
                    o.field("Type", &template.kind)
                        .field("Regexp", &template.regexp);
                })
                .object("Service", |o| {
                    o.field("Service", &service.service)
                        .object("Failover", |o| {
                            o.field("NearestN", &service.nearest_n)
                                .field("Datacenters", &service.datacenters);
                        })
                        .field("OnlyPassing", &service.only_passing)
                        .field("Near", &service.near)
                        .field("Tags", &service.tags);
                    if !service.node_meta.is_empty() {
                        o.field("NodeMeta", &service.node_meta);
                    }
                })
                .object("DNS", |o| {
                    o.field("TTL", &self.dns_ttl);
                })
                .field("CreateIndex", &self.create_index)
                .field("ModifyIndex", &self.modify_index);
        });
    }
}

/// What was found, and how that stands in time.
struct ExecutedThen(Executed, Meta);

impl Encode for ExecutedThen {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self(executed, meta) = self;
        let nodes = match &executed.found {
            FoundInstances::Whole(instances) => instances.as_slice(),
            // Not what was asked for.
            FoundInstances::Places(_) => &[],
        };
        object(out, |o| {
            o.field("Service", &executed.service)
                .field("Nodes", &Joined(nodes))
                .object("DNS", |o| {
                    o.field("TTL", &executed.dns_ttl);
                })
                .field("Datacenter", &executed.datacenter)
                .field("Failovers", &executed.failovers);
            contact(o, meta);
        });
    }
}

/// A definition, and how it stands in time.
struct ExplainedThen<'a>(&'a PreparedQuery, Meta);

impl Encode for ExplainedThen<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self(query, meta) = self;
        object(out, |o| {
            o.field("Query", query);
            contact(o, meta);
        });
    }
}

/// What elsewhere stands in headers; the index never does.
fn contact(o: &mut Object<'_>, meta: &Meta) {
    let nanos = u64::try_from(meta.last_contact.as_nanos()).unwrap_or(u64::MAX);
    o.field("Index", &0_u64)
        .field("LastContact", &nanos)
        .field("KnownLeader", &meta.known_leader);
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, Given::read).map(|given| given.with_id(Uuid::nil()).is_ok());
}
