//! Prepared queries.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use imbl::{OrdMap, OrdSet};
use model::{
    ApplyResult, Error, PreparedQuery, QueryService, QuerySet, Reply, RestoreMode, Text, Uuid,
};

use crate::apply::Change;
use crate::changes::Kind;
use crate::restore::replaces;
use crate::tables::Table;
use crate::template::{Template, check_template};

/// Queries by id, by name and by the session they end with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queries {
    rows: OrdMap<Uuid, Arc<Row>>,
    /// Lower-cased name; those without one are not in it, unless they are templates (which then match every name).
    by_name: OrdMap<Text, Uuid>,
    /// The templates among them: each is for all names that begin with its own.
    templates: OrdMap<Text, Uuid>,
    /// (session, query).
    by_session: OrdSet<(Uuid, Uuid)>,
}

/// A query, and what it means if it is a template.
#[derive(Debug)]
struct Row {
    query: Arc<PreparedQuery>,
    /// Read when it is first asked for, so that a state with many templates is loaded as fast as any.
    template: OnceLock<Result<Template, Error>>,
}

/// A query as it stands for a name.
#[derive(Debug)]
pub(crate) struct Resolved<'a> {
    /// As it was defined.
    pub(crate) query: &'a Arc<PreparedQuery>,
    /// What it asks, with everything filled in.
    pub(crate) service: Cow<'a, QueryService>,
}

/// Under which name it is found, if under any.
fn name_lower(query: &PreparedQuery) -> Option<Text> {
    query.is_ruled().then(|| query.name.lower())
}

fn is_template(query: &PreparedQuery) -> bool {
    !query.template.kind.is_empty()
}

impl Queries {
    /// Puts a query in its place. The caller has seen to it that the name is free.
    pub(crate) fn insert(&mut self, query: PreparedQuery) {
        self.remove(query.id);
        if let Some(name) = name_lower(&query) {
            if is_template(&query) {
                self.templates.insert(name.clone(), query.id);
            }
            self.by_name.insert(name, query.id);
        }
        if let Some(session) = query.session {
            self.by_session.insert((session, query.id));
        }
        let row = Row {
            query: Arc::new(query),
            template: OnceLock::new(),
        };
        self.rows.insert(row.query.id, Arc::new(row));
    }

    /// Takes a query away.
    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<PreparedQuery>> {
        let query = Arc::clone(&self.rows.remove(&id)?.query);
        if let Some(name) = name_lower(&query)
            && self.by_name.get(&name) == Some(&id)
        {
            self.by_name.remove(&name);
            self.templates.remove(&name);
        }
        if let Some(session) = query.session {
            self.by_session.remove(&(session, id));
        }
        Some(query)
    }

    /// The query of this id.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Arc<PreparedQuery>> {
        self.rows.get(&id).map(|row| &row.query)
    }

    /// The query of this name, without regard to case; of the empty name the template that matches all.
    pub(crate) fn by_name(&self, name: &Text) -> Option<&Arc<PreparedQuery>> {
        self.get(*self.by_name.get(&name.lower())?)
    }

    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<PreparedQuery>> {
        self.rows.values().map(|row| &row.query)
    }

    /// The query that an id or a name stands for, as it was defined.
    pub(crate) fn find(&self, asked: &Text) -> Option<&Arc<PreparedQuery>> {
        self.row(asked).map(|row| &row.query)
    }

    /// The same with what a template leaves open filled in.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing has this id or name, and [`Error::Invalid`] if it is a template that can't be filled in from it.
    pub(crate) fn resolve(&self, asked: &Text) -> Result<Resolved<'_>, Error> {
        let row = (self.row(asked)).ok_or_else(|| Error::NotFound("Query not found".to_owned()))?;
        let query = &row.query;
        if !is_template(query) {
            let service = Cow::Borrowed(&query.service);
            return Ok(Resolved { query, service });
        }
        if self.by_id(asked).is_some() {
            return Err(Error::invalid(
                "prepared query templates can only be resolved up by name, not by ID",
            ));
        }
        let compile = || Template::compile(query).map_err(Error::from);
        let template = row.template.get_or_init(compile).as_ref();
        let template = template.map_err(Error::clone)?;
        let service = Cow::Owned(template.render(asked)?);
        Ok(Resolved { query, service })
    }

    /// By id if it looks like one, else by name, else the template whose name is the longest beginning of this one.
    fn row(&self, asked: &Text) -> Option<&Arc<Row>> {
        // The template without a name is for every name but none.
        if asked.is_empty() {
            return None;
        }
        if let Some(row) = self.by_id(asked) {
            return Some(row);
        }
        let name = asked.lower();
        let named = self.by_name.get(&name);
        self.rows.get(named.or_else(|| self.template_for(&name))?)
    }

    fn by_id(&self, asked: &Text) -> Option<&Arc<Row>> {
        self.rows.get(&model::parse_uuid(asked)?)
    }

    /// Looks at no template that doesn't begin as the name does but at the last before each of those that could.
    fn template_for(&self, name_lower: &Text) -> Option<&Uuid> {
        let mut beginning: &[u8] = name_lower;
        loop {
            let until = (Bound::Unbounded, Bound::Included(beginning));
            let (last, id) = self.templates.range::<_, [u8]>(until).next_back()?;
            if beginning.starts_with(last) {
                return Some(id);
            }
            // It stands before the beginning and is none of it, so whatever begins it stands no farther than where they part.
            let alike = beginning.iter().zip(last.iter());
            let shared = alike.take_while(|(one, other)| one == other).count();
            beginning = &beginning[..shared];
        }
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
        self.check_query(&query)?;
        let id = query.id;
        self.put_query(query);
        Ok(Reply::Id(Text::from(id.to_string())))
    }

    /// Writes the queries that a snapshot has and removes those it lacks, if it replaces.
    ///
    /// A query that ends with its session has ended if there is none, so it is left out.
    pub(crate) fn restore_queries(
        &mut self,
        loaded: &Queries,
        mode: RestoreMode,
    ) -> Result<(), Error> {
        if replaces(mode) {
            let rows = self.state.queries.iter().map(|query| query.id);
            let doomed: Vec<Uuid> = rows.filter(|id| loaded.get(*id).is_none()).collect();
            for id in doomed {
                self.remove_query(id);
            }
        }
        let mut changed: Vec<PreparedQuery> = Vec::new();
        for query in loaded.iter() {
            let sessions = &self.state.sessions;
            if query.session.is_some_and(|id| sessions.get(id).is_none()) {
                continue;
            }
            let before = self.state.queries.get(query.id);
            let wanted = PreparedQuery {
                create_index: before.map_or(self.index, |before| before.create_index),
                modify_index: before.map_or(self.index, |before| before.modify_index),
                ..(**query).clone()
            };
            if before.is_none_or(|before| **before != wanted) {
                changed.push(wanted);
            }
        }
        // Names may have changed hands between them.
        for query in &changed {
            self.state.queries.remove(query.id);
        }
        for query in changed {
            let id = query.id;
            self.check_query(&query).map_err(|why| {
                Error::Invalid(format!(
                    "query {id} can't be restored: {why}; nothing was changed"
                ))
            })?;
            self.put_query(query);
        }
        Ok(())
    }

    fn put_query(&mut self, mut query: PreparedQuery) {
        query.modify_index = self.index;
        let id = query.id;
        self.state.queries.insert(query);
        self.wrote(Table::Queries);
        self.wake(Kind::Query, id.as_bytes());
    }

    /// Whether its name is free, its session exists and its template compiles.
    fn check_query(&self, query: &PreparedQuery) -> Result<(), Error> {
        let queries = &self.state.queries;
        let named = queries
            .by_name(&query.name)
            .filter(|other| other.id != query.id);
        if named.is_some() && !query.name.is_empty() {
            return Err(Error::invalid(format!(
                "name '{}' aliases an existing query name",
                query.name
            )));
        }
        if named.is_some() && is_template(query) {
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
        Ok(check_template(query)?)
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
