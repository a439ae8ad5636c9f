//! `/v1/catalog/`: nodes and services.

use std::sync::Arc;

use model::{
    CatalogNode, CatalogNodes, CatalogService, CatalogServices, Check, Command, Deregister,
    Deregistration, Instance, Node, NodeServices, Registration, Service, Text,
};
use rpc::WriteOptions;

use crate::call::{Answer, Call, collect_json, decoded, json};
use crate::error::failed;
use crate::http::Response;
use crate::json::{DecodeError, Encode, Reader, decode, object};
use crate::routes::Api;
use crate::translate;

/// The names of all datacenters, nearest first: without gossip between them, only this one.
pub(crate) fn datacenters(call: Call<'_>) -> Result<Answer, Response> {
    Ok(json(&[call.api.agent.datacenter()], call.pretty()).into())
}

/// All nodes.
pub(crate) fn nodes(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let pretty = call.pretty();
    let translates = call.translates();
    Ok(call.ask_list(
        CatalogNodes,
        options,
        |node| &node.name,
        move |mut nodes| {
            if translates {
                nodes.iter_mut().for_each(translate::node);
            }
            json(&nodes, pretty)
        },
    ))
}

/// The names of all services with their tags.
pub(crate) fn services(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let pretty = call.pretty();
    Ok(call.ask(CatalogServices, options, move |services| {
        json(&ByName(&services), pretty)
    }))
}

/// The instances of a service.
pub(crate) fn service(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let question = CatalogService {
        service: Text::from(call.argument_or("Missing service name")?),
        tag: call.query.get("tag").map(Text::from),
    };
    let pretty = call.pretty();
    let translates = call.translates();
    Ok(
        call.ask_list(question, options, node_of, move |mut instances| {
            if translates {
                translate::instances(&mut instances);
            }
            let rows: Vec<_> = instances.iter().map(|instance| Row(instance)).collect();
            json(&rows, pretty)
        }),
    )
}

fn node_of(instance: &Arc<Instance>) -> &Text {
    &instance.node.name
}

/// A node with its services.
pub(crate) fn node(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let node = Text::from(call.argument_or("Missing node name")?);
    let pretty = call.pretty();
    let translates = call.translates();
    Ok(call.ask(CatalogNode { node }, options, move |mut found| {
        if let Some(found) = found.as_mut().filter(|_| translates) {
            translate::node(&mut found.node);
        }
        json(&found, pretty)
    }))
}

/// Writes a node, and with it a service and checks.
pub(crate) fn register(call: Call<'_>) -> Result<Answer, Response> {
    let pretty = call.pretty();
    let token = call.token();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let (registration, datacenter) = decoded(&body, read_registration)?;
        drop(body);
        let command = Command::Register(Box::new(registration));
        write(&api, command, token, datacenter, pretty).await
    }))
}

/// Removes a node, a service or a check.
pub(crate) fn deregister(call: Call<'_>) -> Result<Answer, Response> {
    let pretty = call.pretty();
    let token = call.token();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let (deregistration, datacenter) = decoded(&body, read_deregistration)?;
        drop(body);
        let command = Command::Deregister(deregistration);
        write(&api, command, token, datacenter, pretty).await
    }))
}

async fn write(
    api: &Api,
    command: Command,
    token: Text,
    datacenter: Text,
    pretty: bool,
) -> Result<Response, Response> {
    let options = WriteOptions { token, datacenter };
    let written = api.cluster.write(command, options).await;
    written.map_err(|error| failed(&error))?;
    Ok(json(&true, pretty))
}

/// A registration with its defaults, and for which datacenter it is.
fn read_registration(reader: &mut Reader<'_>) -> Result<(Registration, Text), DecodeError> {
    let mut datacenter = None;
    let mut node = Node::default();
    let (mut service, mut check, mut checks) = (None, None, Vec::new());
    reader.object(|reader, name| {
        match name {
            b"datacenter" => datacenter = reader.text()?,
            b"node" => node.name = reader.text()?.unwrap_or_default(),
            b"address" => node.address = reader.text()?.unwrap_or_default(),
            b"taggedaddresses" => node.tagged_addresses = reader.pairs()?,
            b"id" => node.id = reader.text()?.unwrap_or_default(),
            b"nodemeta" => node.meta = reader.pairs()?.unwrap_or_default(),
            b"service" => service = read_service(reader)?,
            b"check" => check = read_check(reader)?,
            b"checks" => {
                checks.clear();
                reader.list(|reader| {
                    checks.extend(read_check(reader)?);
                    Ok(())
                })?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    checks.extend(check);
    for check in &mut checks {
        if check.node.is_empty() {
            check.node = node.name.clone();
        }
    }
    Ok((
        Registration {
            node,
            service,
            checks,
        },
        datacenter.unwrap_or_default(),
    ))
}

fn read_service(reader: &mut Reader<'_>) -> Result<Option<Service>, DecodeError> {
    let mut service = Service::default();
    let is_there = reader.object(|reader, name| {
        match name {
            b"id" => service.id = reader.text()?.unwrap_or_default(),
            b"service" => service.name = reader.text()?.unwrap_or_default(),
            b"tags" => service.tags = reader.texts()?,
            b"address" => service.address = reader.text()?.unwrap_or_default(),
            b"port" => service.port = reader.i64()?.unwrap_or_default(),
            b"enabletagoverride" => {
                service.enable_tag_override = reader.bool()?.unwrap_or_default();
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    if service.id.is_empty() {
        service.id = service.name.clone();
    }
    Ok(is_there.then_some(service))
}

fn read_check(reader: &mut Reader<'_>) -> Result<Option<Check>, DecodeError> {
    let mut check = Check::default();
    let is_there = reader.object(|reader, name| {
        let field = match name {
            b"node" => &mut check.node,
            b"checkid" => &mut check.check_id,
            b"name" => &mut check.name,
            b"status" => &mut check.status,
            b"notes" => &mut check.notes,
            b"output" => &mut check.output,
            b"serviceid" => &mut check.service_id,
            b"servicename" => &mut check.service_name,
            _ => return reader.skip(),
        };
        *field = reader.text()?.unwrap_or_default();
        Ok(())
    })?;
    if check.check_id.is_empty() {
        check.check_id = check.name.clone();
    }
    if check.status.is_empty() {
        check.status = Text::from(model::CRITICAL);
    }
    Ok(is_there.then_some(check))
}

fn read_deregistration(reader: &mut Reader<'_>) -> Result<(Deregistration, Text), DecodeError> {
    let (mut datacenter, mut node) = (None, None);
    let (mut service, mut check) = (Text::default(), Text::default());
    reader.object(|reader, name| {
        match name {
            b"datacenter" => datacenter = reader.text()?,
            b"node" => node = reader.text()?,
            b"serviceid" => service = reader.text()?.unwrap_or_default(),
            b"checkid" => check = reader.text()?.unwrap_or_default(),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let what = if !service.is_empty() {
        Deregister::Service(service)
    } else if !check.is_empty() {
        Deregister::Check(check)
    } else {
        Deregister::Node
    };
    let deregistration = Deregistration {
        node: node.unwrap_or_default(),
        what,
    };
    Ok((deregistration, datacenter.unwrap_or_default()))
}

impl Encode for Node {
    /// What later releases added is there only where it was set.
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            if !self.id.is_empty() {
                o.field("ID", &self.id);
            }
            o.field("Node", &self.name)
                .field("Address", &self.address)
                .field("TaggedAddresses", &self.tagged_addresses);
            if !self.meta.is_empty() {
                o.field("Meta", &self.meta);
            }
            o.field("CreateIndex", &self.create_index)
                .field("ModifyIndex", &self.modify_index);
        });
    }
}

impl Encode for Service {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("ID", &self.id)
                .field("Service", &self.name)
                .field("Tags", &self.tags)
                .field("Address", &self.address)
                .field("Port", &self.port)
                .field("EnableTagOverride", &self.enable_tag_override);
            if !self.meta.is_empty() {
                o.field("Meta", &self.meta);
            }
            o.field("CreateIndex", &self.create_index)
                .field("ModifyIndex", &self.modify_index);
        });
    }
}

impl Encode for NodeServices {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            let mut services: Vec<_> = self.services.iter().collect();
            services.sort_by(|a, b| a.id.cmp(&b.id));
            o.field("Node", &self.node).object("Services", |o| {
                for service in services {
                    o.entry(&service.id, service);
                }
            });
        });
    }
}

/// An instance as the catalog shows it: flat, and without its checks.
struct Row<'a>(&'a Instance);

impl Encode for Row<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let Instance { node, service, .. } = self.0;
        object(out, |o| {
            if !node.id.is_empty() {
                o.field("ID", &node.id);
            }
            o.field("Node", &node.name)
                .field("Address", &node.address)
                .field("TaggedAddresses", &node.tagged_addresses);
            if !node.meta.is_empty() {
                o.field("NodeMeta", &node.meta);
            }
            o.field("ServiceID", &service.id)
                .field("ServiceName", &service.name)
                .field("ServiceTags", service.tags.as_deref().unwrap_or_default())
                .field("ServiceAddress", &service.address);
            if !service.meta.is_empty() {
                o.field("ServiceMeta", &service.meta);
            }
            o.field("ServicePort", &service.port)
                .field("ServiceEnableTagOverride", &service.enable_tag_override)
                .field("CreateIndex", &service.create_index)
                .field("ModifyIndex", &service.modify_index);
        });
    }
}

/// Names with lists, as an object: like every map, in the order of the names' bytes.
struct ByName<'a>(&'a [(Text, Vec<Text>)]);

impl Encode for ByName<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        object(out, |o| {
            for (name, values) in entries {
                o.entry(name, values);
            }
        });
    }
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, read_registration);
    let _ = decode(bytes, read_deregistration);
}
