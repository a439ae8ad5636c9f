//! A part of a snapshot restored over what there is, in the plainest words.

use ::model::*;

use super::{Naive, Row};

impl Naive {
    /// Writes what `was` has of a part, or changes nothing.
    pub(crate) fn restore_part(
        &mut self,
        index: Index,
        was: &Self,
        part: &RestorePart,
    ) -> Result<(), ()> {
        let kept = self.clone();
        let result = self.write_part(index, was, part);
        if result.is_err() {
            *self = kept;
        }
        result
    }

    fn write_part(&mut self, index: Index, was: &Self, part: &RestorePart) -> Result<(), ()> {
        let replaces = part.mode() == RestoreMode::Replace;
        if part.has(Section::Catalog) {
            if replaces {
                self.drop_catalog(index, was);
            }
            self.write_catalog(index, was);
            self.write_coordinates(index, was, replaces);
        }
        if part.has(Section::Sessions) {
            let doomed: Vec<Uuid> = self.sessions.keys().copied().collect();
            for id in doomed {
                if replaces && !was.sessions.contains_key(&id) {
                    self.end_session(index, id);
                }
            }
            for (id, wanted) in &was.sessions {
                if self.sessions.get(id).map(session) == Some(session(wanted)) {
                    continue;
                }
                self.end_session(index, *id);
                self.create_session(index, wanted)?;
            }
        }
        if part.has(Section::Acl) {
            for id in self.tokens.keys().cloned().collect::<Vec<_>>() {
                if replaces && id != "anonymous" && !was.tokens.contains_key(&id) {
                    self.tokens.remove(&id);
                    self.wrote("acls", index);
                }
            }
            for (id, wanted) in &was.tokens {
                let old = self.tokens.get(id);
                if old.map(token) != Some(token(wanted)) {
                    let create_index = old.map_or(index, |old| old.create_index);
                    let row = AclToken {
                        create_index,
                        modify_index: index,
                        ..wanted.clone()
                    };
                    self.tokens.insert(id.clone(), row);
                    self.wrote("acls", index);
                }
            }
        }
        if part.has(Section::Kv) {
            self.write_keys(index, was, part);
        }
        if part.has(Section::Queries) {
            self.write_queries(index, was, replaces)?;
        }
        Ok(())
    }

    fn drop_catalog(&mut self, index: Index, was: &Self) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            if !was.nodes.contains_key(&node) {
                self.drop_node(index, &node);
            }
        }
        for (node, id) in self.services.keys().cloned().collect::<Vec<_>>() {
            if !was.services.contains_key(&(node.clone(), id.clone())) {
                self.drop_service(index, &node, &id);
            }
        }
        for (node, id) in self.checks.keys().cloned().collect::<Vec<_>>() {
            if !was.checks.contains_key(&(node.clone(), id.clone())) {
                self.drop_check(index, &node, &id);
            }
        }
    }

    fn write_catalog(&mut self, index: Index, was: &Self) {
        for (place, wanted) in &was.nodes {
            let old = self.nodes.get(place);
            if old.map(node) != Some(node(wanted)) {
                let mut row = wanted.clone();
                row.create_index = old.map_or(index, |old| old.create_index);
                row.modify_index = index;
                self.nodes.insert(place.clone(), row);
                self.known.insert(place.clone());
                self.wrote("nodes", index);
            }
        }
        for (place, wanted) in &was.services {
            let old = self.services.get(place);
            if old.map(service) != Some(service(wanted)) {
                let mut row = wanted.clone();
                row.create_index = old.map_or(index, |old| old.create_index);
                row.modify_index = index;
                self.services.insert(place.clone(), row);
                self.wrote("services", index);
            }
        }
        for (place, wanted) in &was.checks {
            // A restore reads the name from the service, whatever the check was told when it was written.
            let mut row = wanted.clone();
            let of = (place.0.clone(), row.service_id.lower());
            if let Some(service) = was.services.get(&of) {
                row.service_name = service.name.clone();
            }
            let old = self.checks.get(place);
            if old.map(check) != Some(check(&row)) {
                row.create_index = old.map_or(index, |old| old.create_index);
                row.modify_index = index;
                let is_critical = row.status == "critical";
                self.checks.insert(place.clone(), row);
                self.wrote("checks", index);
                if is_critical {
                    self.end_sessions_of(index, place);
                }
            }
        }
    }

    fn write_coordinates(&mut self, index: Index, was: &Self, replaces: bool) {
        let before = self.coordinates.clone();
        if replaces {
            self.coordinates
                .retain(|node, _| was.coordinates.contains_key(node));
        }
        for (node, wanted) in &was.coordinates {
            if self.nodes.contains_key(node) {
                self.coordinates.insert(node.clone(), wanted.clone());
            }
        }
        if self.coordinates != before {
            self.wrote("coordinates", index);
        }
    }

    fn write_keys(&mut self, index: Index, was: &Self, part: &RestorePart) {
        // What the snapshot has, by the names that it gets.
        let mut wanted = std::collections::BTreeMap::new();
        for (key, row) in &was.keys {
            if !part.takes_key(key) {
                continue;
            }
            let name = match part.into_prefix() {
                None => key.clone(),
                Some(into) => [into, &key[part.prefixes()[0].len()..]].concat(),
            };
            wanted.insert(name, row);
        }
        if part.mode() == RestoreMode::Replace {
            for place in part.places() {
                for key in self.under(&place) {
                    if !wanted.contains_key(&key) {
                        self.drop_key(index, &key);
                    }
                }
            }
        }
        for (key, wanted) in wanted {
            let old = self.keys.get(&key).cloned();
            let holder = old.as_ref().and_then(|old| old.session);
            let holder = holder.filter(|id| self.sessions.contains_key(id));
            let mut row = Row {
                create_index: old.as_ref().map_or(index, |old| old.create_index),
                ..wanted.clone()
            };
            row.session = holder;
            let reached = old.as_ref().map_or(0, |old| old.lock_index);
            row.lock_index = reached.max(wanted.lock_index);
            if let Some(id) = wanted.session
                && holder.is_none()
                && part.has(Section::Sessions)
                && part.into_prefix().is_none()
                && self.sessions.contains_key(&id)
                && !self.delays.contains_key(&key)
            {
                row.session = Some(id);
                if old.is_some() {
                    row.lock_index = wanted.lock_index.max(reached + 1);
                }
            }
            let says = |row: &Row| (row.value.clone(), row.flags, row.lock_index, row.session);
            if old.as_ref().map(says) != Some(says(&row)) {
                row.modify_index = index;
                self.keys.insert(key, row);
                self.wrote("kvs", index);
            }
        }
    }

    fn write_queries(&mut self, index: Index, was: &Self, replaces: bool) -> Result<(), ()> {
        for id in self.queries.keys().copied().collect::<Vec<_>>() {
            if replaces && !was.queries.contains_key(&id) {
                self.queries.remove(&id);
                self.wrote("queries", index);
            }
        }
        let changed: Vec<&PreparedQuery> = (was.queries.values())
            .filter(|it| (it.session).is_none_or(|id| self.sessions.contains_key(&id)))
            .filter(|it| self.queries.get(&it.id).map(query) != Some(query(it)))
            .collect();
        let before = self.queries.clone();
        for wanted in &changed {
            self.queries.remove(&wanted.id);
        }
        for wanted in changed {
            let set = QuerySet {
                query: wanted.clone(),
                create: true,
            };
            self.set_query(index, &set)?;
            if let (Some(old), Some(row)) =
                (before.get(&wanted.id), self.queries.get_mut(&wanted.id))
            {
                row.create_index = old.create_index;
            }
        }
        Ok(())
    }
}

/// Rows without their indexes.
fn node(row: &Node) -> Node {
    Node {
        create_index: 0,
        modify_index: 0,
        ..row.clone()
    }
}

fn service(row: &Service) -> Service {
    Service {
        create_index: 0,
        modify_index: 0,
        ..row.clone()
    }
}

fn check(row: &Check) -> Check {
    Check {
        create_index: 0,
        modify_index: 0,
        ..row.clone()
    }
}

fn session(row: &Session) -> Session {
    Session {
        create_index: 0,
        modify_index: 0,
        ..row.clone()
    }
}

fn token(row: &AclToken) -> AclToken {
    AclToken {
        create_index: 0,
        modify_index: 0,
        ..row.clone()
    }
}

fn query(row: &PreparedQuery) -> PreparedQuery {
    PreparedQuery {
        create_index: 0,
        modify_index: 0,
        ..row.clone()
    }
}
