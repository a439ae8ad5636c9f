//! What records speak of, one thing at a time: for whoever compares snapshots or proves that one was kept whole.

use model::{Check, KvParts, Node, Registration, Service, Text};

use super::kind::Kind;
use super::refusal::Refusal;
use super::rules::{Record, Rules};
use super::{acl, catalog, coordinate, each, query, session};
use crate::view::View;

/// A kind of thing that a snapshot holds. Deletions that are remembered are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A node.
    Node,
    /// A service on a node.
    Service,
    /// A check on a node.
    Check,
    /// A key with its value.
    Key,
    /// A session.
    Session,
    /// A token.
    Token,
    /// A prepared query.
    Query,
    /// Where a node is in the network.
    Coordinate,
}

impl Subject {
    /// All of them, in the order in which people are told.
    pub const ALL: [Self; 8] = [
        Self::Node,
        Self::Service,
        Self::Check,
        Self::Key,
        Self::Session,
        Self::Token,
        Self::Query,
        Self::Coordinate,
    ];

    /// What several are called.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Service => "services",
            Self::Check => "checks",
            Self::Key => "keys",
            Self::Session => "sessions",
            Self::Token => "tokens",
            Self::Query => "queries",
            Self::Coordinate => "coordinates",
        }
    }
}

/// One thing of a snapshot.
///
/// A record that names a node together with a service is two of them, so a node comes again and again.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// What it is.
    pub subject: Subject,
    /// What tells it from others of its kind; of a token that is the secret itself.
    pub identity: &'a [u8],
    /// What people know it by; never a secret.
    pub name: &'a [u8],
    /// All that it says, but for the indexes, in a form that is the same whoever wrote the record.
    pub content: &'a [u8],
}

/// Reads records, and judges them as a restore does.
#[derive(Debug, Default)]
pub struct Items {
    rules: Rules,
    identity: Vec<u8>,
    content: Vec<u8>,
}

impl Items {
    /// Takes the next record apart.
    ///
    /// # Errors
    /// [`Refusal`] if a restore would refuse it.
    pub fn read(
        &mut self,
        kind: u8,
        object: &[u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Refusal> {
        let Self {
            rules,
            identity,
            content,
        } = self;
        let mut give = |subject, identity: &[u8], name: &[u8], fill: &dyn Fn(&mut Vec<u8>)| {
            content.clear();
            fill(content);
            each(Item {
                subject,
                identity,
                name,
                content,
            });
        };
        match rules.take(kind, object)? {
            Record::Register(Registration {
                node,
                service,
                checks,
            }) => {
                let name = node.name.lower();
                give(Subject::Node, &name, &name, &|out| {
                    let node = Node {
                        create_index: 0,
                        modify_index: 0,
                        ..node.clone()
                    };
                    catalog::encode(out, &node, None, None);
                });
                if let Some(service) = service {
                    let path = path(identity, &name, &service.id.lower());
                    give(Subject::Service, path, path, &|out| {
                        let service = Service {
                            create_index: 0,
                            modify_index: 0,
                            ..service.clone()
                        };
                        catalog::encode(out, &Node::default(), Some(&service), None);
                    });
                }
                for check in checks {
                    let path = path(identity, &check.node.lower(), &check.check_id.lower());
                    give(Subject::Check, path, path, &|out| {
                        let check = Check {
                            create_index: 0,
                            modify_index: 0,
                            // The store fills it in, whatever the record says.
                            service_name: Text::default(),
                            ..check.clone()
                        };
                        catalog::encode(out, &Node::default(), None, Some(&check));
                    });
                }
            }
            Record::Kv(entry) => give(Subject::Key, entry.key, entry.key, &|out| {
                let KvParts {
                    value,
                    flags,
                    lock_index,
                    session,
                    ..
                } = entry;
                out.extend(flags.to_be_bytes());
                out.extend(lock_index.to_be_bytes());
                out.extend(session.unwrap_or_default().as_bytes());
                out.extend(value);
            }),
            Record::Session(mut row) => {
                (row.create_index, row.modify_index) = (0, 0);
                let id = row.id.to_string();
                let name = if row.name.is_empty() {
                    id.as_bytes()
                } else {
                    &row.name
                };
                give(Subject::Session, id.as_bytes(), name, &|out| {
                    session::encode(out, &row);
                });
            }
            Record::Acl(mut row) => {
                (row.create_index, row.modify_index) = (0, 0);
                let name: &[u8] = if row.name.is_empty() {
                    b"(no name)"
                } else {
                    &row.name
                };
                give(Subject::Token, &row.id, name, &|out| {
                    acl::encode(out, &row);
                });
            }
            Record::Query(mut row) => {
                (row.create_index, row.modify_index) = (0, 0);
                let id = row.id.to_string();
                let name = if row.name.is_empty() {
                    id.as_bytes()
                } else {
                    &row.name
                };
                give(Subject::Query, id.as_bytes(), name, &|out| {
                    query::encode(out, &row);
                });
            }
            Record::Coordinates(batch) => {
                for row in batch {
                    let name = row.node.lower();
                    give(Subject::Coordinate, &name, &name, &|out| {
                        coordinate::encode(out, &name, &row.coord);
                    });
                }
            }
            Record::Tombstone(..) => {}
        }
        Ok(())
    }
}

/// Something on a node.
fn path<'a>(into: &'a mut Vec<u8>, node: &[u8], id: &[u8]) -> &'a [u8] {
    into.clear();
    into.extend(node);
    into.push(b'/');
    into.extend(id);
    into
}

/// Gives out every record of a state, as an archive would hold it.
///
/// # Errors
/// What `emit` says.
pub fn records<E>(view: &View, mut emit: impl FnMut(u8, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut record = Vec::new();
    let mut is_header = true;
    each(view.state(), |encode| {
        if std::mem::take(&mut is_header) {
            return Ok(());
        }
        record.clear();
        encode(&mut record);
        match record.split_first() {
            Some((kind, object)) => emit(*kind, object),
            None => Ok(()),
        }
    })
}

/// Whether records of this type are taken apart at all; others are of later releases.
pub fn is_known(kind: u8) -> bool {
    Kind::from_byte(kind).is_some()
}
