//! Prepared queries (type 7).

use model::{Error, PreparedQuery, QueryService, QueryTemplate, Text};
use wire::msgpack::{Decoder, Encoder};

use super::parts::{pairs, put_pairs, put_texts, put_uuid, text, texts};
use super::refusal::{Refusal, key_uuid, reference_uuid};
use crate::template::check_template;

/// In the order in which the original declares them.
const FIELDS: [&str; 9] = [
    "ID",
    "Name",
    "Session",
    "Token",
    "Template",
    "Service",
    "DNS",
    "CreateIndex",
    "ModifyIndex",
];
/// The last one came with 0.7.3.
const SERVICE_FIELDS: [&str; 6] = [
    "Service",
    "Failover",
    "OnlyPassing",
    "Near",
    "Tags",
    "NodeMeta",
];
const FAILOVER_FIELDS: [&str; 2] = ["NearestN", "Datacenters"];
const TEMPLATE_FIELDS: [&str; 2] = ["Type", "Regexp"];

pub(super) fn encode(out: &mut Vec<u8>, query: &PreparedQuery) {
    let mut out = Encoder::new(out);
    out.map_len(9);
    out.raw(b"CreateIndex").uint(query.create_index);
    out.raw(b"DNS").map_len(1).raw(b"TTL").raw(&query.dns_ttl);
    out.raw(b"ID");
    put_uuid(&mut out, Some(query.id));
    out.raw(b"ModifyIndex").uint(query.modify_index);
    out.raw(b"Name").raw(&query.name);
    out.raw(b"Service");
    encode_service(&mut out, &query.service);
    out.raw(b"Session");
    put_uuid(&mut out, query.session);
    out.raw(b"Template").map_len(2);
    out.raw(b"Regexp").raw(&query.template.regexp);
    out.raw(b"Type").raw(&query.template.kind);
    out.raw(b"Token").raw(&query.token);
}

fn encode_service(out: &mut Encoder<'_>, service: &QueryService) {
    let meta = !service.node_meta.is_empty();
    out.map_len(5 + usize::from(meta));
    out.raw(b"Failover").map_len(2);
    out.raw(b"Datacenters");
    put_texts(out, service.datacenters.as_deref());
    out.raw(b"NearestN").int(service.nearest_n);
    out.raw(b"Near").raw(&service.near);
    if meta {
        out.raw(b"NodeMeta");
        put_pairs(out, Some(&service.node_meta));
    }
    out.raw(b"OnlyPassing").bool(service.only_passing);
    out.raw(b"Service").raw(&service.service);
    out.raw(b"Tags");
    put_texts(out, service.tags.as_deref());
}

pub(super) fn decode(bytes: &[u8]) -> Result<PreparedQuery, Refusal> {
    let mut query = PreparedQuery::default();
    let mut id: &[u8] = b"";
    let mut session: &[u8] = b"";
    let mut decoder = Decoder::new(bytes);
    decoder.fields(&FIELDS, |value, field| {
        match field {
            0 => id = value.raw()?,
            1 => query.name = text(value)?,
            2 => session = value.raw()?,
            3 => query.token = text(value)?,
            4 => query.template = template(value)?,
            5 => query.service = service(value)?,
            6 => query.dns_ttl = dns_ttl(value)?,
            7 => query.create_index = value.uint()?,
            _ => query.modify_index = value.uint()?,
        }
        Ok::<_, Refusal>(())
    })?;
    decoder.finish()?;
    // The original compiles before it inserts. What is only too large for us is kept, and fails when it is executed.
    match check_template(&query) {
        Err(error) if !error.is_too_much() => {
            return Err(Refusal::Other(Error::from(error).to_string()));
        }
        Ok(()) | Err(_) => {}
    }
    let refuse = |fault| Refusal::Row {
        step: "failed restoring prepared query",
        fault,
    };
    query.id = key_uuid(id).map_err(refuse)?;
    query.session = reference_uuid("session", session).map_err(refuse)?;
    Ok(query)
}

fn template(value: &mut Decoder<'_>) -> Result<QueryTemplate, Refusal> {
    let mut template = QueryTemplate::default();
    value.fields(&TEMPLATE_FIELDS, |value, field| {
        match field {
            0 => template.kind = text(value)?,
            _ => template.regexp = text(value)?,
        }
        Ok::<_, Refusal>(())
    })?;
    Ok(template)
}

fn service(value: &mut Decoder<'_>) -> Result<QueryService, Refusal> {
    let mut service = QueryService::default();
    value.fields(&SERVICE_FIELDS, |value, field| {
        match field {
            0 => service.service = text(value)?,
            1 => {
                value.fields(&FAILOVER_FIELDS, |value, field| {
                    match field {
                        0 => service.nearest_n = value.int()?,
                        _ => service.datacenters = texts(value, "Datacenters")?,
                    }
                    Ok::<_, Refusal>(())
                })?;
            }
            2 => service.only_passing = value.bool()?,
            3 => service.near = text(value)?,
            4 => service.tags = texts(value, "Tags")?,
            _ => service.node_meta = pairs(value, "NodeMeta")?.unwrap_or_default(),
        }
        Ok::<_, Refusal>(())
    })?;
    Ok(service)
}

fn dns_ttl(value: &mut Decoder<'_>) -> Result<Text, Refusal> {
    let mut ttl = Text::default();
    value.fields(&["TTL"], |value, _| {
        ttl = text(value)?;
        Ok::<_, Refusal>(())
    })?;
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use model::{QueryExplain, Uuid};

    use super::*;
    use crate::view::{Read, View};
    use crate::watch::Watch;

    fn template(regexp: &str, service: &str) -> PreparedQuery {
        PreparedQuery {
            id: Uuid::from_u128(1),
            name: Text::from("t"),
            template: QueryTemplate {
                kind: Text::from("name_prefix_match"),
                regexp: Text::from(regexp),
            },
            service: QueryService {
                service: Text::from(service),
                ..QueryService::default()
            },
            ..PreparedQuery::default()
        }
    }

    fn restored(query: &PreparedQuery) -> Result<PreparedQuery, Refusal> {
        let mut bytes = Vec::new();
        encode(&mut bytes, query);
        decode(&bytes)
    }

    #[test]
    fn what_the_original_may_have_accepted_is_restored() {
        let deep = format!("${{{}1{}}}", "(".repeat(60), ")".repeat(60));
        for (regexp, service, is_too_much) in [
            ("^t-(.*)$", "${match(1)}", false),
            // Of few characters, and larger than anything that is compiled here.
            (r"\pL{1000}\pL{1000}\pL{1000}\pL{1000}", "web", true),
            (
                &format!("{}a{}", "(".repeat(300), ")".repeat(300)),
                "web",
                true,
            ),
            (&"a".repeat(70_000), "web", true),
            ("", &format!("web{deep}"), true),
        ] {
            let query = restored(&template(regexp, service)).unwrap();
            let mut state = crate::state::State::default();
            state.queries.insert(query);
            let view = View::new(1, state);
            let name = Text::from("t-web");
            let explained = QueryExplain { query: name }.read(&view, &mut Watch::off());
            assert_eq!(explained.answer.is_err(), is_too_much, "{regexp:.40}");
        }
    }

    #[test]
    fn what_the_original_refuses_is_not() {
        for (regexp, service) in [("(", "web"), ("a**", "web"), ("", "${"), ("", "${no}")] {
            assert!(
                restored(&template(regexp, service)).is_err(),
                "{regexp} {service}"
            );
        }
    }
}
