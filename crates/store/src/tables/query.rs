//! Prepared queries.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use model::{ApplyResult, Error, PreparedQuery, QuerySet, Reply, Text, Uuid};

use crate::apply::Change;
use crate::changes::Kind;
use crate::tables::Table;
use crate::template::check_template;

/// Queries by id, by name and by the session they end with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queries {
    rows: OrdMap<Uuid, Arc<PreparedQuery>>,
    /// Lower-cased name; those without one are not in it, unless they are templates (which then match every name).
    by_name: OrdMap<Text, Uuid>,
    /// (session, query).
    by_session: OrdSet<(Uuid, Uuid)>,
}

/// Under which name it is found, if under any.
fn name_lower(query: &PreparedQuery) -> Option<Text> {
    let found_by_name = !query.name.is_empty() || !query.template.kind.is_empty();
    found_by_name.then(|| query.name.lower())
}

impl Queries {
    /// Puts a query in its place. The caller has seen to it that the name is free.
    pub(crate) fn insert(&mut self, query: PreparedQuery) {
        self.remove(query.id);
        if let Some(name) = name_lower(&query) {
            self.by_name.insert(name, query.id);
        }
        if let Some(session) = query.session {
            self.by_session.insert((session, query.id));
        }
        self.rows.insert(query.id, Arc::new(query));
    }

    /// Takes a query away.
    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<PreparedQuery>> {
        let query = self.rows.remove(&id)?;
        if let Some(name) = name_lower(&query)
            && self.by_name.get(&name) == Some(&id)
        {
            self.by_name.remove(&name);
        }
        if let Some(session) = query.session {
            self.by_session.remove(&(session, id));
        }
        Some(query)
    }

    /// The query of this id.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Arc<PreparedQuery>> {
        self.rows.get(&id)
    }

    /// The query of this name, without regard to case; of the empty name the template that matches all.
    pub(crate) fn by_name(&self, name: &Text) -> Option<&Arc<PreparedQuery>> {
        self.rows.get(self.by_name.get(&name.lower())?)
    }

    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<PreparedQuery>> {
        self.rows.values()
    }

    /// The queries that end with a session, by id.
    pub(crate) fn of_session(&self, session: Uuid) -> impl Iterator<Item = Uuid> {
        self.by_session
            .range((session, Uuid::nil())..)
            .take_while(move |(id, _)| *id == session)
            .map(|(_, query)| *query)
    }
}

impl Change<'_> {
    /// Creates a query, or replaces one that is there.
    pub(crate) fn set_query(&mut self, set: QuerySet) -> ApplyResult {
        let QuerySet { mut query, create } = set;
        if query.id.is_nil() {
            return Err(Error::invalid("a query needs an id"));
        }
        let existing = self.state.queries.get(query.id);
        if existing.is_none() && !create {
            return Err(no_such_query(query.id));
        }
        query.create_index = existing.map_or(self.index, |query| query.create_index);
        query.modify_index = self.index;
        self.check_query(&query)?;
        let id = query.id;
        self.state.queries.insert(query);
        self.wrote(Table::Queries);
        self.wake(Kind::Query, id.as_bytes());
        Ok(Reply::Id(Text::from(id.to_string())))
    }

    /// Whether its name is free, its session exists and its template compiles.
    fn check_query(&self, query: &PreparedQuery) -> Result<(), Error> {
        let queries = &self.state.queries;
        let is_template = !query.template.kind.is_empty();
        let named = queries
            .by_name(&query.name)
            .filter(|other| other.id != query.id);
        if named.is_some() && !query.name.is_empty() {
            return Err(Error::invalid(format!(
                "name '{}' aliases an existing query name",
                query.name
            )));
        }
        if named.is_some() && is_template {
            return Err(Error::invalid(
                "a query template with an empty name already exists",
            ));
        }
        if model::parse_uuid(&query.name).is_some_and(|id| queries.get(id).is_some()) {
            return Err(Error::invalid(format!(
                "name '{}' aliases an existing query ID",
                query.name
            )));
        }
        if let Some(session) = query.session
            && self.state.sessions.get(session).is_none()
        {
            return Err(Error::invalid(format!("invalid session \"{session}\"")));
        }
        check_template(query)
    }

    /// Removes a query, which must be there.
    pub(crate) fn delete_query(&mut self, id: Uuid) -> ApplyResult {
        if !self.remove_query(id) {
            return Err(no_such_query(id));
        }
        Ok(Reply::Nothing)
    }

    /// Removes a query; whether it was there.
    pub(crate) fn remove_query(&mut self, id: Uuid) -> bool {
        if self.state.queries.remove(id).is_none() {
            return false;
        }
        self.wrote(Table::Queries);
        self.note(Kind::Query, id.as_bytes());
        self.deleted();
        true
    }
}

fn no_such_query(id: Uuid) -> Error {
    Error::invalid(format!("Cannot modify non-existent prepared query: '{id}'"))
}
