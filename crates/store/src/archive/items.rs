//! What records speak of, one thing at a time: for whoever compares snapshots or proves that one was kept whole.

use model::{
    AclToken, Check, KvParts, Node, NodeCoordinate, PreparedQuery, Registration, Service, Session,
    Text,
};

use super::kind::Kind;
use super::refusal::Refusal;
use super::rules::{Record, Rules};
use super::{acl, catalog, coordinate, query, session};
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
    teller: Teller,
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
        let record = self.rules.take(kind, object)?;
        self.teller.tell_record(&record, each);
        Ok(())
    }
}

/// Tells what records and states hold. All it keeps is room, so that a million keys don't ask for a million pieces of memory.
#[derive(Debug, Default)]
pub struct Teller {
    identity: Vec<u8>,
    content: Vec<u8>,
}

impl Teller {
    /// Tells what a record speaks of.
    pub fn tell_record(&mut self, record: &Record<'_>, each: &mut impl FnMut(Item<'_>)) {
        match record {
            Record::Register(Registration {
                node,
                service,
                checks,
            }) => {
                let lower = node.name.lower();
                self.node(&lower, node, each);
                if let Some(service) = service {
                    self.service(&lower, service, each);
                }
                for check in checks {
                    self.check(check, each);
                }
            }
            Record::Kv(entry) => self.key(entry, each),
            Record::Session(row) => self.session(row, each),
            Record::Acl(row) => self.token(row, each),
            Record::Query(row) => self.query(row, each),
            Record::Coordinates(batch) => {
                for row in batch {
                    self.coordinate(row, each);
                }
            }
            Record::Tombstone(..) => {}
        }
    }

    /// Tells what a state holds, each thing once.
    pub fn tell_view(&mut self, view: &View, each: &mut impl FnMut(Item<'_>)) {
        let state = view.state();
        for node in state.catalog.nodes() {
            let lower = node.name.lower();
            self.node(&lower, node, each);
            for (_, service) in state.catalog.services_of(&lower) {
                self.service(&lower, service, each);
            }
            for check in state.catalog.checks_of(&lower) {
                self.check(check, each);
            }
        }
        for row in state.coordinates.iter() {
            self.coordinate(row, each);
        }
        for row in state.sessions.iter() {
            self.session(row, each);
        }
        for row in state.acls.iter() {
            self.token(row, each);
        }
        for row in state.kv.iter() {
            self.key(&row.parts(), each);
        }
        for row in state.queries.iter() {
            self.query(row, each);
        }
    }

    fn node(&mut self, lower: &[u8], node: &Node, each: &mut impl FnMut(Item<'_>)) {
        // It is written without its indexes.
        let content = self.content(|out| catalog::encode(out, node, None, None));
        each(Item {
            subject: Subject::Node,
            identity: lower,
            name: lower,
            content,
        });
    }

    fn service(&mut self, node: &[u8], service: &Service, each: &mut impl FnMut(Item<'_>)) {
        let without_indexes = Service {
            create_index: 0,
            modify_index: 0,
            ..service.clone()
        };
        self.on_node(Subject::Service, node, &service.id.lower(), each, |out| {
            catalog::encode(out, &Node::default(), Some(&without_indexes), None);
        });
    }

    fn check(&mut self, check: &Check, each: &mut impl FnMut(Item<'_>)) {
        let without_indexes = Check {
            create_index: 0,
            modify_index: 0,
            // The store fills it in, whatever the record says.
            service_name: Text::default(),
            ..check.clone()
        };
        let (node, id) = (check.node.lower(), check.check_id.lower());
        self.on_node(Subject::Check, &node, &id, each, |out| {
            catalog::encode(out, &Node::default(), None, Some(&without_indexes));
        });
    }

    /// Something that is told from others by its node and its id.
    fn on_node(
        &mut self,
        subject: Subject,
        node: &[u8],
        id: &[u8],
        each: &mut impl FnMut(Item<'_>),
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let Self { identity, content } = self;
        // Names may hold slashes, so the name of the two together doesn't tell where the one ends.
        let node_len = node.len().to_be_bytes();
        identity.clear();
        identity.extend([&node_len, node, b"/", id].into_iter().flatten());
        content.clear();
        fill(content);
        each(Item {
            subject,
            identity,
            name: &identity[node_len.len()..],
            content,
        });
    }

    fn key(&mut self, entry: &KvParts<'_>, each: &mut impl FnMut(Item<'_>)) {
        let KvParts {
            key,
            value,
            flags,
            lock_index,
            session,
            ..
        } = entry;
        let content = self.content(|out| {
            out.extend(flags.to_be_bytes());
            out.extend(lock_index.to_be_bytes());
            out.extend(session.unwrap_or_default().as_bytes());
            out.extend(*value);
        });
        each(Item {
            subject: Subject::Key,
            identity: key,
            name: key,
            content,
        });
    }

    fn session(&mut self, row: &Session, each: &mut impl FnMut(Item<'_>)) {
        let without_indexes = Session {
            create_index: 0,
            modify_index: 0,
            ..row.clone()
        };
        let id = row.id.to_string();
        let content = self.content(|out| session::encode(out, &without_indexes));
        each(Item {
            subject: Subject::Session,
            identity: id.as_bytes(),
            name: name_or(&row.name, id.as_bytes()),
            content,
        });
    }

    fn token(&mut self, row: &AclToken, each: &mut impl FnMut(Item<'_>)) {
        let without_indexes = AclToken {
            create_index: 0,
            modify_index: 0,
            ..row.clone()
        };
        let content = self.content(|out| acl::encode(out, &without_indexes));
        each(Item {
            subject: Subject::Token,
            identity: &row.id,
            name: name_or(&row.name, b"(no name)"),
            content,
        });
    }

    fn query(&mut self, row: &PreparedQuery, each: &mut impl FnMut(Item<'_>)) {
        let without_indexes = PreparedQuery {
            create_index: 0,
            modify_index: 0,
            ..row.clone()
        };
        let id = row.id.to_string();
        let content = self.content(|out| query::encode(out, &without_indexes));
        each(Item {
            subject: Subject::Query,
            identity: id.as_bytes(),
            name: name_or(&row.name, id.as_bytes()),
            content,
        });
    }

    fn coordinate(&mut self, row: &NodeCoordinate, each: &mut impl FnMut(Item<'_>)) {
        let lower = row.node.lower();
        let content = self.content(|out| coordinate::encode(out, &lower, &row.coord));
        each(Item {
            subject: Subject::Coordinate,
            identity: &lower,
            name: &lower,
            content,
        });
    }

    /// All that a thing says, in the room for it.
    fn content(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.content.clear();
        fill(&mut self.content);
        &self.content
    }
}

/// What people know a thing by; not all have a name.
fn name_or<'a>(name: &'a Text, otherwise: &'a [u8]) -> &'a [u8] {
    if name.is_empty() { otherwise } else { name }
}

/// Whether records of this type are taken apart at all; others are of later releases.
pub fn is_known(kind: u8) -> bool {
    Kind::from_byte(kind).is_some()
}
