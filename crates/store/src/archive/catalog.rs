//! Nodes, services and checks (type 0): the original writes one record for each, and repeats the node in all of them.

use model::{Check, Node, Registration, Service};
use wire::msgpack::{Decoder, Encoder};

use super::health;
use super::parts::{list, pairs, put_pairs, put_texts, text, texts};
use super::refusal::{Fault, Refusal};

/// In the order in which the original declares them, then what came later.
const FIELDS: [&str; 10] = [
    "Datacenter",
    "Node",
    "Address",
    "TaggedAddresses",
    "Service",
    "Check",
    "Checks",
    "Token",
    "ID",
    "NodeMeta",
];
const SERVICE_FIELDS: [&str; 9] = [
    "ID",
    "Service",
    "Tags",
    "Address",
    "Port",
    "EnableTagOverride",
    "CreateIndex",
    "ModifyIndex",
    "Meta",
];

/// A node, with a service or a check of it, or alone.
///
/// What later releases added is written where it was set, so that the original finds nothing new in its own data.
pub(super) fn encode(
    out: &mut Vec<u8>,
    node: &Node,
    service: Option<&Service>,
    check: Option<&Check>,
) {
    let (id, meta) = (!node.id.is_empty(), !node.meta.is_empty());
    let mut out = Encoder::new(out);
    out.map_len(8 + usize::from(id) + usize::from(meta));
    out.raw(b"Address").raw(&node.address);
    out.raw(b"Check");
    match check {
        Some(check) => health::put_check(&mut out, check),
        None => {
            out.nil();
        }
    }
    out.raw(b"Checks").nil();
    out.raw(b"Datacenter").raw(b"");
    if id {
        out.raw(b"ID").raw(&node.id);
    }
    out.raw(b"Node").raw(&node.name);
    if meta {
        out.raw(b"NodeMeta");
        put_pairs(&mut out, Some(&node.meta));
    }
    out.raw(b"Service");
    match service {
        Some(service) => put_service(&mut out, service),
        None => {
            out.nil();
        }
    }
    out.raw(b"TaggedAddresses");
    put_pairs(&mut out, node.tagged_addresses.as_ref());
    out.raw(b"Token").raw(b"");
}

fn put_service(out: &mut Encoder<'_>, service: &Service) {
    let meta = !service.meta.is_empty();
    out.map_len(8 + usize::from(meta));
    out.raw(b"Address").raw(&service.address);
    out.raw(b"CreateIndex").uint(service.create_index);
    out.raw(b"EnableTagOverride")
        .bool(service.enable_tag_override);
    out.raw(b"ID").raw(&service.id);
    if meta {
        out.raw(b"Meta");
        put_pairs(out, Some(&service.meta));
    }
    out.raw(b"ModifyIndex").uint(service.modify_index);
    out.raw(b"Port").int(service.port);
    out.raw(b"Service").raw(&service.name);
    out.raw(b"Tags");
    put_texts(out, service.tags.as_deref());
}

/// A node with what came with it; whether checks find their service is for the caller, who knows what came before.
pub(super) fn decode(bytes: &[u8]) -> Result<Registration, Refusal> {
    let mut registration = Registration::default();
    let Registration {
        node,
        service,
        checks,
    } = &mut registration;
    // The original takes the single check first, whatever the order of the keys.
    let mut single = None;
    let mut decoder = Decoder::new(bytes);
    decoder.fields(&FIELDS, |value, field| {
        match field {
            1 => node.name = text(value)?,
            2 => node.address = text(value)?,
            3 => node.tagged_addresses = pairs(value, "TaggedAddresses")?,
            4 => *service = decode_service(value)?,
            5 => single = health::decode_check(value)?,
            6 => {
                let all = list(value, "Checks", |value| {
                    health::decode_check(value)?.ok_or(health::NO_CHECK)
                })?;
                *checks = all.unwrap_or_default();
            }
            8 => node.id = text(value)?,
            9 => node.meta = pairs(value, "NodeMeta")?.unwrap_or_default(),
            // The datacenter is ours whatever it was called, and a token has done its work.
            _ => value.skip()?,
        }
        Ok::<_, Refusal>(())
    })?;
    decoder.finish()?;
    if let Some(single) = single {
        checks.insert(0, single);
    }
    let no_key = |step| Refusal::Row {
        step,
        fault: Fault::NoKey,
    };
    if node.name.is_empty() {
        return Err(no_key("failed inserting node"));
    }
    if service
        .as_ref()
        .is_some_and(|service| service.id.is_empty())
    {
        return Err(no_key("failed inserting service"));
    }
    Ok(registration)
}

fn decode_service(value: &mut Decoder<'_>) -> Result<Option<Service>, Refusal> {
    let mut service = Service::default();
    let present = value.fields(&SERVICE_FIELDS, |value, field| {
        match field {
            0 => service.id = text(value)?,
            1 => service.name = text(value)?,
            2 => service.tags = texts(value, "Tags")?,
            3 => service.address = text(value)?,
            4 => service.port = value.int()?,
            5 => service.enable_tag_override = value.bool()?,
            6 => service.create_index = value.uint()?,
            7 => service.modify_index = value.uint()?,
            _ => service.meta = pairs(value, "Meta")?.unwrap_or_default(),
        }
        Ok::<_, Refusal>(())
    })?;
    Ok(present.then_some(service))
}
