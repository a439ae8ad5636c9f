//! What a record must be to be taken: the one judgement that verifying and loading share.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AclToken, Index, KvParts, NodeCoordinate, PreparedQuery, Registration, Session, Text, Uuid,
};

use super::kind::Kind;
use super::refusal::{Fault, Refusal};
use super::{acl, begin, catalog, coordinate, kv, query, session};

/// The highest index that is believed: far beyond any that was ever reached, and far enough from the end that ours can go on from it.
pub(crate) const INDEX_MAX: Index = 1 << 62;

/// A record that was read and may be taken.
#[derive(Debug)]
pub enum Record<'a> {
    /// A node, alone or with a service or checks.
    Register(Registration),
    /// A key with its value.
    Kv(KvParts<'a>),
    /// A session.
    Session(Session),
    /// A token in its old form.
    Acl(AclToken),
    /// A key that was deleted, and when.
    Tombstone(&'a [u8], Index),
    /// Coordinates of nodes.
    Coordinates(Vec<NodeCoordinate>),
    /// A prepared query.
    Query(PreparedQuery),
}

impl Record<'_> {
    /// Writes it behind what is in `out`, type byte and all.
    ///
    /// What came as one record may become several, since the original writes a node's services and checks one by one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Register(Registration {
                node,
                service,
                checks,
            }) => {
                if service.is_some() || checks.is_empty() {
                    catalog::encode(begin(out, Kind::Register), node, service.as_ref(), None);
                }
                for check in checks {
                    catalog::encode(begin(out, Kind::Register), node, None, Some(check));
                }
            }
            Self::Kv(entry) => kv::encode(begin(out, Kind::Kvs), entry),
            Self::Session(row) => session::encode(begin(out, Kind::Session), row),
            Self::Acl(row) => acl::encode(begin(out, Kind::Acl), row),
            Self::Tombstone(key, index) => {
                kv::encode_tombstone(begin(out, Kind::Tombstone), key, *index);
            }
            Self::Coordinates(batch) => {
                for row in batch {
                    coordinate::encode(begin(out, Kind::Coordinates), &row.node, &row.coord);
                }
            }
            Self::Query(row) => query::encode(begin(out, Kind::Query), row),
        }
    }
}

/// As much of the records so far as the next ones depend on: the names of nodes, services and queries, and nothing of keys.
#[derive(Debug, Default)]
pub struct Rules {
    /// Lower-cased ids of services by lower-cased name of their node.
    services: BTreeMap<Text, BTreeSet<Text>>,
    /// By lower-cased name; a template may have an empty one.
    queries: BTreeMap<Text, Uuid>,
    query_names: BTreeMap<Uuid, Text>,
}

impl Rules {
    /// Reads the object of a record and judges it by those before.
    ///
    /// # Errors
    /// [`Refusal`] if a restore would refuse it.
    pub fn take<'a>(&mut self, kind: u8, object: &'a [u8]) -> Result<Record<'a>, Refusal> {
        let kind = Kind::from_byte(kind).ok_or(Refusal::Unrecognized(kind))?;
        Ok(match kind {
            Kind::Register => {
                let registration = catalog::decode(object)?;
                self.register(&registration)?;
                Record::Register(registration)
            }
            Kind::Kvs => {
                let entry = kv::decode(object)?;
                check_index("failed inserting kvs entry", entry.modify_index)?;
                Record::Kv(entry)
            }
            Kind::Session => {
                let session = session::decode(object)?;
                check_index("failed inserting session", session.modify_index)?;
                Record::Session(session)
            }
            Kind::Acl => {
                let token = acl::decode(object)?;
                check_index("failed restoring acl", token.modify_index)?;
                Record::Acl(token)
            }
            Kind::Tombstone => {
                let (key, index) = kv::decode_tombstone(object)?;
                check_index("failed restoring tombstone", index)?;
                Record::Tombstone(key, index)
            }
            Kind::Coordinates => Record::Coordinates(coordinate::decode(object)?),
            Kind::Query => {
                let query = query::decode(object)?;
                check_index("failed restoring prepared query", query.modify_index)?;
                self.query(&query)?;
                Record::Query(query)
            }
        })
    }

    fn register(&mut self, registration: &Registration) -> Result<(), Refusal> {
        let services = self
            .services
            .entry(registration.node.name.lower())
            .or_default();
        if let Some(service) = &registration.service {
            services.insert(service.id.lower());
        }
        // A check says itself which node it is of, and the original believes it.
        for check in &registration.checks {
            let services = self.services.get(&check.node.lower());
            let fault = match services {
                None => Fault::NoNode,
                Some(services)
                    if !check.service_id.is_empty()
                        && !services.contains(&check.service_id.lower()) =>
                {
                    Fault::NoService
                }
                Some(_) => continue,
            };
            return Err(Refusal::Row {
                step: "failed inserting check",
                fault,
            });
        }
        Ok(())
    }

    /// Two queries of one name are refused, where the original keeps both and finds one of them.
    ///
    /// Which one would depend on what happened since, so a server that starts from a checkpoint could find the other.
    fn query(&mut self, query: &PreparedQuery) -> Result<(), Refusal> {
        if let Some(before) = self.query_names.remove(&query.id) {
            self.queries.remove(&before);
        }
        if query.name.is_empty() && query.template.kind.is_empty() {
            return Ok(());
        }
        let name = query.name.lower();
        if self.queries.contains_key(&name) {
            return Err(Refusal::Row {
                step: "failed restoring prepared query",
                fault: Fault::NameTaken(query.name.to_lossy().into_owned()),
            });
        }
        self.queries.insert(name.clone(), query.id);
        self.query_names.insert(query.id, name);
        Ok(())
    }
}

fn check_index(step: &'static str, index: Index) -> Result<(), Refusal> {
    if index > INDEX_MAX {
        return Err(Refusal::Row {
            step,
            fault: Fault::Index(index),
        });
    }
    Ok(())
}
