//! Sessions, and what they are bound to.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use model::{
    ApplyResult, Behavior, Error, LOCK_DELAY_MAX, Reply, RestoreMode, Session, Text, Uuid,
    go_quoted,
};

use crate::apply::{Change, Effect};
use crate::changes::Kind;
use crate::restore::replaces;
use crate::tables::Table;
use crate::tables::lock_delay::Delay;

/// Sessions by id, by node and by the checks that end them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    rows: OrdMap<Uuid, Arc<Session>>,
    /// (lower-cased node, session).
    by_node: OrdSet<(Text, Uuid)>,
    /// (lower-cased node, lower-cased check id, session).
    by_check: OrdSet<(Text, Text, Uuid)>,
}

impl Sessions {
    /// Puts a session in its place, indexes and all.
    pub(crate) fn insert(&mut self, session: Session) {
        self.remove(session.id);
        let node = session.node.lower();
        for check in &session.checks {
            self.by_check
                .insert((node.clone(), check.lower(), session.id));
        }
        self.by_node.insert((node, session.id));
        self.rows.insert(session.id, Arc::new(session));
    }

    /// Takes a session away.
    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<Session>> {
        let session = self.rows.remove(&id)?;
        let node = session.node.lower();
        for check in &session.checks {
            self.by_check.remove(&(node.clone(), check.lower(), id));
        }
        self.by_node.remove(&(node, id));
        Some(session)
    }

    /// The session of this id.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Arc<Session>> {
        self.rows.get(&id)
    }

    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.rows.values()
    }

    /// The sessions of a node, by id.
    pub(crate) fn of_node(&self, node_lower: &Text) -> impl Iterator<Item = Uuid> {
        self.by_node
            .range((node_lower.clone(), Uuid::nil())..)
            .take_while(move |(node, _)| node == node_lower)
            .map(|(_, id)| *id)
    }

    /// The sessions that a check ends, by id.
    pub(crate) fn of_check(
        &self,
        node_lower: &Text,
        check_lower: &Text,
    ) -> impl Iterator<Item = Uuid> {
        self.by_check
            .range((node_lower.clone(), check_lower.clone(), Uuid::nil())..)
            .take_while(move |(node, check, _)| node == node_lower && check == check_lower)
            .map(|(_, _, id)| *id)
    }
}

impl Change<'_> {
    /// Creates a session.
    pub(crate) fn create_session(&mut self, mut session: Session) -> ApplyResult {
        if session.id.is_nil() {
            return Err(Error::invalid("a session needs an id"));
        }
        if self.state.sessions.get(session.id).is_some() {
            return Err(Error::invalid(format!("session {} exists", session.id)));
        }
        if session.node.is_empty() {
            return Err(Error::invalid("Must provide Node"));
        }
        let node = session.node.lower();
        if self.state.catalog.node(&node).is_none() {
            return Err(Error::invalid("Missing node registration"));
        }
        for id in &session.checks {
            let Some(check) = self.state.catalog.check(&node, &id.lower()) else {
                return Err(Error::invalid(format!("Missing check '{id}' registration")));
            };
            if check.is_critical() {
                return Err(Error::invalid(format!("Check '{id}' is in critical state")));
            }
        }
        session.create_index = self.index;
        session.modify_index = self.index;
        let id = session.id;
        self.state.sessions.insert(session);
        self.wrote(Table::Sessions);
        self.wake(Kind::Session, id.as_bytes());
        self.note(Kind::NodeSessions, &node);
        self.effect(Effect::SessionCreated { id });
        Ok(Reply::Id(Text::from(id.to_string())))
    }

    /// Ends a session with all that hangs on it: its keys are released or removed and cannot be locked for a while, its queries go.
    pub(crate) fn end_session(&mut self, id: Uuid) {
        let Some(session) = self.state.sessions.remove(id) else {
            return;
        };
        self.wrote(Table::Sessions);
        self.note(Kind::Session, id.as_bytes());
        self.note(Kind::NodeSessions, &session.node.lower());
        self.effect(Effect::SessionEnded { id });
        self.deleted();

        let keys: Vec<Text> = self.state.kv.held_by(id).cloned().collect();
        let delay = delay_ms(&session).map(|span_ms| Delay::Waiting {
            since: self.state.log_index,
            span_ms,
        });
        if delay.is_some() && !keys.is_empty() {
            self.effect(Effect::KeysDelayed);
        }
        for key in keys {
            match session.behavior {
                Behavior::Release => self.release_key(&key),
                Behavior::Delete => self.delete_key(&key),
            }
            if let Some(delay) = delay {
                self.state.lock_delays.insert(key, delay);
            }
        }

        let queries: Vec<Uuid> = self.state.queries.of_session(id).collect();
        for query in queries {
            self.remove_query(query);
        }
    }

    /// Writes the sessions that a snapshot has and ends those it lacks, if it replaces.
    ///
    /// A session needs its node and its checks, as when it was created: without them nothing would ever end it.
    pub(crate) fn restore_sessions(
        &mut self,
        loaded: &Sessions,
        mode: RestoreMode,
    ) -> Result<(), Error> {
        if replaces(mode) {
            let rows = self.state.sessions.iter().map(|session| session.id);
            let doomed: Vec<Uuid> = rows.filter(|id| loaded.get(*id).is_none()).collect();
            for id in doomed {
                self.end_session(id);
            }
        }
        for session in loaded.iter() {
            let id = session.id;
            if let Some(before) = self.state.sessions.get(id) {
                let as_before = Session {
                    create_index: before.create_index,
                    modify_index: before.modify_index,
                    ..(**session).clone()
                };
                if as_before == **before {
                    continue;
                }
                // One that was bound to something else was another one.
                self.end_session(id);
            }
            let created = self.create_session((**session).clone());
            created.map_err(|why| {
                Error::Invalid(format!(
                    "session {id} on node {} can't be restored: {why}; nothing was changed",
                    go_quoted(&session.node)
                ))
            })?;
        }
        Ok(())
    }

    /// Ends a session whose time is up, if no other leader has begun since that was found.
    pub(crate) fn expire_session(&mut self, id: Uuid, term: u64) {
        if self.state.term == term {
            self.end_session(id);
        }
    }

    /// Ends the sessions that are bound to a check.
    pub(crate) fn end_sessions_of_check(&mut self, node_lower: &Text, check_lower: &Text) {
        let bound: Vec<Uuid> = self
            .state
            .sessions
            .of_check(node_lower, check_lower)
            .collect();
        for id in bound {
            self.end_session(id);
        }
    }

    /// Ends the sessions of a node that goes.
    pub(crate) fn end_sessions_of_node(&mut self, node_lower: &Text) {
        let bound: Vec<Uuid> = self.state.sessions.of_node(node_lower).collect();
        for id in bound {
            self.end_session(id);
        }
    }
}

/// How long the keys of a session stay locked away, in milliseconds; `None` if not at all.
fn delay_ms(session: &Session) -> Option<u64> {
    let delay = u64::try_from(session.lock_delay.min(LOCK_DELAY_MAX.0)).ok()?;
    (delay > 0).then(|| delay.div_ceil(1_000_000))
}
