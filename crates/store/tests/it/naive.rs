//! The naive model: what a store of this kind does, in the plainest words.

use std::collections::{BTreeMap, BTreeSet};

use ::model::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::model::everywhere;

mod part;

#[derive(Debug, Clone, PartialEq)]
struct Row {
    value: Vec<u8>,
    flags: u64,
    lock_index: u64,
    session: Option<Uuid>,
    create_index: Index,
    modify_index: Index,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Naive {
    clock_ms: u64,
    tables: BTreeMap<&'static str, Index>,
    reaped: bool,
    keys: BTreeMap<Vec<u8>, Row>,
    tombstones: BTreeMap<Vec<u8>, Index>,
    /// Until when, or for how long once they have begun, and since which entry they wait for that.
    delays: BTreeMap<Vec<u8>, Result<u64, (Index, u64)>>,
    nodes: BTreeMap<Text, Node>,
    services: BTreeMap<(Text, Text), Service>,
    checks: BTreeMap<(Text, Text), Check>,
    sessions: BTreeMap<Uuid, Session>,
    tokens: BTreeMap<Text, AclToken>,
    coordinates: BTreeMap<Text, NodeCoordinate>,
    queries: BTreeMap<Uuid, PreparedQuery>,
    /// Every node there ever was.
    known: BTreeSet<Text>,
}

impl Naive {
    pub(crate) fn apply(&mut self, index: Index, entry: &Entry) -> Result<Reply, ()> {
        self.clock_ms = self.clock_ms.max(entry.at_ms);
        let now = self.clock_ms;
        self.delays
            .retain(|_, delay| delay.is_err() || *delay > Ok(now));
        let kept = self.clone();
        let result = self.command(index, &entry.command);
        let is_failed_txn =
            matches!(&result, Ok(Reply::Txn(outcome)) if !outcome.errors.is_empty());
        if result.is_err() || is_failed_txn {
            *self = kept;
        }
        result
    }

    fn command(&mut self, index: Index, command: &Command) -> Result<Reply, ()> {
        match command {
            Command::Register(it) => self.register(index, it),
            Command::Deregister(it) => {
                let node = it.node.lower();
                match &it.what {
                    Deregister::Node => self.drop_node(index, &node),
                    Deregister::Service(id) => self.drop_service(index, &node, &id.lower()),
                    Deregister::Check(id) => self.drop_check(index, &node, &id.lower()),
                }
                Ok(Reply::Nothing)
            }
            Command::Kv(op) => {
                let is_keyless = op.key.is_empty() && op.verb != KvVerb::DeleteTree;
                if is_keyless || !op.verb.is_write() {
                    return Err(());
                }
                if matches!(op.verb, KvVerb::Lock(_)) && self.delays.contains_key(&*op.key) {
                    return Ok(Reply::Applied(false));
                }
                match self.op(index, op) {
                    Ok(_) => Ok(Reply::Applied(true)),
                    Err(Failed::Condition) => Ok(Reply::Applied(false)),
                    Err(Failed::Error) => Err(()),
                }
            }
            Command::Txn(ops) => Ok(Reply::Txn(self.txn(index, ops))),
            Command::SessionCreate(it) => self.create_session(index, it),
            Command::SessionDestroy(id) => {
                self.end_session(index, *id);
                Ok(Reply::Nothing)
            }
            Command::SessionExpire { id, term } => {
                // All of these entries are of the first term.
                if *term == 1 {
                    self.end_session(index, *id);
                }
                Ok(Reply::Nothing)
            }
            Command::LockDelaysBegin(upto) => {
                for delay in self.delays.values_mut() {
                    if let Err((since, span)) = *delay
                        && since <= *upto
                    {
                        *delay = Ok(self.clock_ms + span);
                    }
                }
                Ok(Reply::Nothing)
            }
            Command::AclSet(it) => {
                if it.id.is_empty() || (it.kind != "client" && it.kind != "management") {
                    return Err(());
                }
                let mut token = (**it).clone();
                let old = self.tokens.get(&token.id);
                token.create_index = old.map_or(index, |old| old.create_index);
                token.modify_index = index;
                self.tokens.insert(token.id.clone(), token);
                self.wrote("acls", index);
                Ok(Reply::Id(it.id.clone()))
            }
            Command::AclDelete(TokenId(id)) => {
                if *id == "anonymous" {
                    return Err(());
                }
                if self.tokens.remove(id).is_some() {
                    self.wrote("acls", index);
                }
                Ok(Reply::Nothing)
            }
            Command::QuerySet(it) => self.set_query(index, it),
            Command::QueryDelete(id) => {
                self.queries.remove(id).ok_or(())?;
                self.wrote("queries", index);
                Ok(Reply::Nothing)
            }
            Command::Coordinates(batch) => {
                for row in batch {
                    if self.nodes.contains_key(&row.node.lower()) {
                        self.coordinates.insert(row.node.lower(), row.clone());
                    }
                }
                self.wrote("coordinates", index);
                Ok(Reply::Nothing)
            }
            Command::TombstoneReap(upto) => {
                self.tombstones.retain(|_, at| *at > *upto);
                self.reaped = true;
                Ok(Reply::Nothing)
            }
            Command::RestoreBegin(_) | Command::RestoreChunk(_) | Command::RestoreCommit(_) => {
                Err(())
            }
        }
    }

    fn wrote(&mut self, table: &'static str, index: Index) {
        self.tables.insert(table, index);
    }

    fn register(&mut self, index: Index, it: &Registration) -> Result<Reply, ()> {
        let name = it.node.name.lower();
        let mut node = it.node.clone();
        node.create_index = self.nodes.get(&name).map_or(index, |old| old.create_index);
        node.modify_index = index;
        self.nodes.insert(name.clone(), node);
        self.known.insert(name.clone());
        self.wrote("nodes", index);
        if let Some(service) = &it.service {
            let place = (name.clone(), service.id.lower());
            let mut service = service.clone();
            service.create_index = self
                .services
                .get(&place)
                .map_or(index, |old| old.create_index);
            service.modify_index = index;
            self.services.insert(place, service);
            self.wrote("services", index);
        }
        for check in &it.checks {
            let mut check = check.clone();
            if check.node.is_empty() {
                check.node = it.node.name.clone();
            }
            if check.status.is_empty() {
                check.status = Text::from("critical");
            }
            let node = check.node.lower();
            self.nodes.get(&node).ok_or(())?;
            if !check.service_id.is_empty() {
                let service = self.services.get(&(node.clone(), check.service_id.lower()));
                check.service_name = service.ok_or(())?.name.clone();
            }
            let place = (node.clone(), check.check_id.lower());
            check.create_index = self
                .checks
                .get(&place)
                .map_or(index, |old| old.create_index);
            check.modify_index = index;
            let is_critical = check.status == "critical";
            self.checks.insert(place.clone(), check);
            self.wrote("checks", index);
            if is_critical {
                self.end_sessions_of(index, &place);
            }
        }
        Ok(Reply::Nothing)
    }

    fn end_sessions_of(&mut self, index: Index, (node, check): &(Text, Text)) {
        let bound: Vec<Uuid> = self
            .sessions
            .values()
            .filter(|it| {
                it.node.lower() == *node && it.checks.iter().any(|id| id.lower() == *check)
            })
            .map(|it| it.id)
            .collect();
        for id in bound {
            self.end_session(index, id);
        }
    }

    fn drop_check(&mut self, index: Index, node: &Text, id: &Text) {
        let place = (node.clone(), id.clone());
        if self.checks.remove(&place).is_some() {
            self.wrote("checks", index);
            self.end_sessions_of(index, &place);
        }
    }

    fn drop_service(&mut self, index: Index, node: &Text, id: &Text) {
        if self.services.remove(&(node.clone(), id.clone())).is_none() {
            return;
        }
        let checks: Vec<Text> = self
            .checks
            .iter()
            .filter(|((of, _), check)| of == node && check.service_id.lower() == *id)
            .map(|((_, check), _)| check.clone())
            .collect();
        for check in checks {
            self.drop_check(index, node, &check);
        }
        self.wrote("services", index);
        self.wrote("checks", index);
    }

    fn drop_node(&mut self, index: Index, node: &Text) {
        if self.nodes.remove(node).is_none() {
            return;
        }
        let services: Vec<Text> = self
            .services
            .keys()
            .filter(|(of, _)| of == node)
            .map(|(_, id)| id.clone())
            .collect();
        for id in services {
            self.drop_service(index, node, &id);
        }
        let checks: Vec<Text> = self
            .checks
            .keys()
            .filter(|(of, _)| of == node)
            .map(|(_, id)| id.clone())
            .collect();
        for id in checks {
            self.drop_check(index, node, &id);
        }
        let sessions: Vec<Uuid> = self
            .sessions
            .values()
            .filter(|it| it.node.lower() == *node)
            .map(|it| it.id)
            .collect();
        for id in sessions {
            self.end_session(index, id);
        }
        if self.coordinates.remove(node).is_some() {
            self.wrote("coordinates", index);
        }
        self.wrote("nodes", index);
    }

    fn create_session(&mut self, index: Index, it: &Session) -> Result<Reply, ()> {
        let node = it.node.lower();
        if self.sessions.contains_key(&it.id) || !self.nodes.contains_key(&node) {
            return Err(());
        }
        for check in &it.checks {
            let check = self.checks.get(&(node.clone(), check.lower())).ok_or(())?;
            if check.status == "critical" {
                return Err(());
            }
        }
        let session = Session {
            create_index: index,
            modify_index: index,
            ..it.clone()
        };
        self.sessions.insert(it.id, session);
        self.wrote("sessions", index);
        Ok(Reply::Id(Text::from(it.id.to_string())))
    }

    fn end_session(&mut self, index: Index, id: Uuid) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.wrote("sessions", index);
        let held: Vec<Vec<u8>> = self
            .keys
            .iter()
            .filter(|(_, row)| row.session == Some(id))
            .map(|(key, _)| key.clone())
            .collect();
        for key in held {
            match session.behavior {
                Behavior::Release => {
                    let row = self.keys.get_mut(&key).unwrap();
                    row.session = None;
                    row.modify_index = index;
                    self.wrote("kvs", index);
                }
                Behavior::Delete => self.drop_key(index, &key),
            }
            if session.lock_delay > 0 {
                let nanos = session.lock_delay.min(60_000_000_000).unsigned_abs();
                self.delays
                    .insert(key, Err((index, nanos.div_ceil(1_000_000))));
            }
        }
        let bound: Vec<Uuid> = self
            .queries
            .values()
            .filter(|it| it.session == Some(id))
            .map(|it| it.id)
            .collect();
        for id in bound {
            self.queries.remove(&id);
            self.wrote("queries", index);
        }
    }

    fn set_query(&mut self, index: Index, it: &QuerySet) -> Result<Reply, ()> {
        let query = &it.query;
        let old = self.queries.get(&query.id);
        if old.is_none() && !it.create {
            return Err(());
        }
        let is_template = !query.template.kind.is_empty();
        if !query.name.is_empty() || is_template {
            let is_taken = self.queries.values().any(|other| {
                let is_found_by_name = !other.name.is_empty() || !other.template.kind.is_empty();
                other.id != query.id && is_found_by_name && other.name.lower() == query.name.lower()
            });
            if is_taken {
                return Err(());
            }
        }
        if query
            .session
            .is_some_and(|id| !self.sessions.contains_key(&id))
        {
            return Err(());
        }
        if is_template && query.template.regexp == "(" {
            return Err(());
        }
        let stored = PreparedQuery {
            create_index: old.map_or(index, |old| old.create_index),
            modify_index: index,
            ..query.clone()
        };
        self.queries.insert(query.id, stored);
        self.wrote("queries", index);
        Ok(Reply::Id(Text::from(query.id.to_string())))
    }

    fn drop_key(&mut self, index: Index, key: &[u8]) {
        if self.keys.remove(key).is_some() {
            self.tombstones.insert(key.to_vec(), index);
            self.wrote("kvs", index);
            self.wrote("tombstones", index);
        }
    }

    fn put(
        &mut self,
        index: Index,
        op: &KvOp,
        lock_index: u64,
        session: Option<Uuid>,
    ) -> Vec<TxnResult> {
        let create_index = self
            .keys
            .get(&*op.key)
            .map_or(index, |row| row.create_index);
        let row = Row {
            value: op.value.to_vec(),
            flags: op.flags,
            lock_index,
            session,
            create_index,
            modify_index: index,
        };
        self.keys.insert(op.key.to_vec(), row);
        self.wrote("kvs", index);
        vec![self.result(&op.key, false)]
    }

    fn result(&self, key: &[u8], with_value: bool) -> TxnResult {
        TxnResult {
            entry: self.entry(key).unwrap(),
            with_value,
        }
    }

    fn entry(&self, key: &[u8]) -> Option<KvEntry> {
        let row = self.keys.get(key)?;
        Some(KvEntry::new(&KvParts {
            key,
            value: &row.value,
            flags: row.flags,
            lock_index: row.lock_index,
            session: row.session,
            create_index: row.create_index,
            modify_index: row.modify_index,
        }))
    }

    fn op(&mut self, index: Index, op: &KvOp) -> Result<Vec<TxnResult>, Failed> {
        let row = self.keys.get(&*op.key).cloned();
        let condition = |holds: bool| {
            if holds {
                Ok(())
            } else {
                Err(Failed::Condition)
            }
        };
        let holder = row.as_ref().and_then(|row| row.session);
        match &op.verb {
            KvVerb::Set => Ok(self.put(index, op, 0, holder)),
            KvVerb::Cas(at) => {
                condition(row.map_or(0, |row| row.modify_index) == *at)?;
                Ok(self.put(index, op, 0, holder))
            }
            KvVerb::Lock(typed) => {
                let id = parse_uuid(typed).ok_or(Failed::Error)?;
                self.sessions.get(&id).ok_or(Failed::Error)?;
                condition(holder.is_none_or(|holder| holder == id))?;
                let count = row.map_or(0, |row| row.lock_index);
                let count = if holder.is_none() { count + 1 } else { count };
                Ok(self.put(index, op, count, Some(id)))
            }
            KvVerb::Unlock(typed) => {
                if typed.is_empty() {
                    return Err(Failed::Error);
                }
                condition(holder.is_some() && holder == parse_uuid(typed))?;
                Ok(self.put(index, op, row.map_or(0, |row| row.lock_index), None))
            }
            KvVerb::Delete => {
                self.drop_key(index, &op.key);
                Ok(vec![])
            }
            KvVerb::DeleteCas(at) => {
                condition(row.is_none_or(|row| row.modify_index == *at))?;
                self.drop_key(index, &op.key);
                Ok(vec![])
            }
            KvVerb::DeleteTree => {
                for key in self.under(&op.key) {
                    self.drop_key(index, &key);
                }
                Ok(vec![])
            }
            KvVerb::Get => {
                condition(row.is_some())?;
                Ok(vec![self.result(&op.key, true)])
            }
            KvVerb::GetTree => Ok(self
                .under(&op.key)
                .iter()
                .map(|key| self.result(key, true))
                .collect()),
            KvVerb::CheckIndex(at) => {
                condition(row.is_some_and(|row| row.modify_index == *at))?;
                Ok(vec![self.result(&op.key, false)])
            }
            KvVerb::CheckSession(typed) => {
                let held_by = holder.map(|id| id.to_string()).unwrap_or_default();
                condition(row.is_some() && **typed == *held_by.as_bytes())?;
                Ok(vec![self.result(&op.key, false)])
            }
        }
    }

    fn under(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        self.keys
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn txn(&mut self, index: Index, ops: &[KvOp]) -> TxnOutcome {
        let mut outcome = TxnOutcome::default();
        let fail = |outcome: &mut TxnOutcome, op_index| {
            outcome.errors.push(TxnError {
                op_index,
                what: String::new(),
            });
        };
        for (place, op) in ops.iter().enumerate() {
            let is_keyless = op.key.is_empty() && op.verb != KvVerb::DeleteTree;
            let is_delayed =
                matches!(op.verb, KvVerb::Lock(_)) && self.delays.contains_key(&*op.key);
            if is_keyless || is_delayed {
                fail(&mut outcome, place);
            }
        }
        if !outcome.errors.is_empty() {
            return outcome;
        }
        for (place, op) in ops.iter().enumerate() {
            match self.op(index, op) {
                Ok(results) => outcome.results.extend(results),
                Err(_) => fail(&mut outcome, place),
            }
        }
        if !outcome.errors.is_empty() {
            outcome.results.clear();
        }
        outcome
    }

    pub(crate) fn has_instance(&self, node: &Text, name: &Text) -> bool {
        self.services
            .iter()
            .any(|((of, _), service)| of == node && service.name.lower() == *name)
    }

    /// Compares every row with what the store answers.
    pub(crate) fn check_rows(&self, ask: impl Fn(Question) -> Answer) -> Result<(), TestCaseError> {
        let Answer::KvList(keys) = ask(KvList {
            prefix: Text::default(),
        }
        .into()) else {
            unreachable!()
        };
        let expected: Vec<KvEntry> = self
            .keys
            .keys()
            .map(|key| self.entry(key).unwrap())
            .collect();
        prop_assert_eq!(keys, expected);

        let Answer::CatalogNodes(nodes) = ask(CatalogNodes.into()) else {
            unreachable!()
        };
        prop_assert!(
            nodes.iter().map(|it| &**it).eq(self.nodes.values()),
            "{nodes:?}"
        );
        for (name, node) in &self.nodes {
            let question = CatalogNode { node: name.clone() };
            let Answer::CatalogNode(Some(found)) = ask(question.into()) else {
                return Err(TestCaseError::fail("a node is missing"));
            };
            prop_assert_eq!(&*found.node, node);
            let services = self
                .services
                .iter()
                .filter(|((of, _), _)| of == name)
                .map(|(_, it)| it);
            prop_assert!(
                found.services.iter().map(|it| &**it).eq(services),
                "{found:?}"
            );
            let Answer::HealthNode(checks) = ask(HealthNode { node: name.clone() }.into()) else {
                unreachable!()
            };
            let expected = self
                .checks
                .iter()
                .filter(|((of, _), _)| of == name)
                .map(|(_, it)| it);
            prop_assert!(checks.iter().map(|it| &**it).eq(expected), "{checks:?}");
        }

        let mut tags: BTreeMap<Text, BTreeSet<Text>> = BTreeMap::new();
        for service in self.services.values() {
            tags.entry(service.name.clone())
                .or_default()
                .extend(service.tags.iter().flatten().cloned());
        }
        let expected: ServiceTags = tags
            .into_iter()
            .map(|(name, tags)| (name, tags.into_iter().collect()))
            .collect();
        let Answer::CatalogServices(names) = ask(CatalogServices.into()) else {
            unreachable!()
        };
        prop_assert_eq!(names, expected);

        for name in ["web", "db"] {
            let service = Text::from(name);
            for (tag, passing_only) in [(None, false), (Some("tag1"), false), (None, true)] {
                let question = HealthService {
                    service: service.clone(),
                    tag: tag.map(Text::from),
                    passing_only,
                };
                let Answer::HealthService(found) = ask(question.into()) else {
                    unreachable!()
                };
                let expected: Vec<(&Node, &Service, Vec<&Check>)> = self
                    .services
                    .iter()
                    .filter(|(_, it)| it.name.lower() == service)
                    .filter(|(_, it)| {
                        tag.is_none_or(|tag| it.tags.iter().flatten().any(|it| it == tag))
                    })
                    .map(|((node, id), it)| (&self.nodes[node], it, self.speaking_for(node, id)))
                    .filter(|(_, _, checks)| {
                        !passing_only || checks.iter().all(|it| it.status == "passing")
                    })
                    .collect();
                let found: Vec<(&Node, &Service, Vec<&Check>)> = found
                    .iter()
                    .map(|it| {
                        (
                            &*it.node,
                            &*it.service,
                            it.checks.iter().map(|it| &**it).collect(),
                        )
                    })
                    .collect();
                prop_assert_eq!(found, expected);
                self.check_lookup(&service, tag, passing_only, &ask)?;
            }
            let Answer::HealthChecks(checks) = ask(HealthChecks {
                service: service.clone(),
            }
            .into()) else {
                unreachable!()
            };
            let expected = self
                .checks
                .values()
                .filter(|it| it.service_name.lower() == service);
            prop_assert!(checks.iter().map(|it| &**it).eq(expected), "{checks:?}");
        }
        for state in ["passing", "warning", "critical"] {
            let Answer::HealthState(checks) = ask(HealthState {
                state: Text::from(state),
            }
            .into()) else {
                unreachable!()
            };
            let expected = self.checks.values().filter(|it| it.status == state);
            prop_assert!(checks.iter().map(|it| &**it).eq(expected), "{checks:?}");
        }

        let Answer::SessionList(sessions) = ask(SessionList.into()) else {
            unreachable!()
        };
        prop_assert!(
            sessions.iter().map(|it| &**it).eq(self.sessions.values()),
            "{sessions:?}"
        );
        let Answer::AclList(tokens) = ask(AclList.into()) else {
            unreachable!()
        };
        prop_assert!(
            tokens.iter().map(|it| &**it).eq(self.tokens.values()),
            "{tokens:?}"
        );
        let Answer::QueryList(queries) = ask(QueryList.into()) else {
            unreachable!()
        };
        prop_assert!(
            queries.iter().map(|it| &**it).eq(self.queries.values()),
            "{queries:?}"
        );
        let Answer::CoordinateNodes(rows) = ask(CoordinateNodes.into()) else {
            unreachable!()
        };
        prop_assert!(rows.iter().eq(self.coordinates.values()), "{rows:?}");
        Ok(())
    }

    /// Compares the instances of a service that may be shown.
    fn check_lookup(
        &self,
        service: &Text,
        tag: Option<&str>,
        only_passing: bool,
        ask: impl Fn(Question) -> Answer,
    ) -> Result<(), TestCaseError> {
        let question = everywhere(service, tag.map(Text::from), only_passing);
        let Answer::ServiceLookup(found) = ask(question.into()) else {
            unreachable!()
        };
        let expected: BTreeSet<(&Text, &Text, i64)> = self
            .services
            .iter()
            .filter(|(_, it)| it.name.lower() == *service)
            .filter(|(_, it)| tag.is_none_or(|tag| it.tags.iter().flatten().any(|it| it == tag)))
            .filter(|((node, id), _)| {
                let checks = self.speaking_for(node, id);
                checks.iter().all(|it| it.status != "critical")
                    && (!only_passing || checks.iter().all(|it| it.status == "passing"))
            })
            .map(|((node, _), it)| (&self.nodes[node].name, &it.address, it.port))
            .collect();
        prop_assert_eq!(found.is_any, !expected.is_empty());
        let shown: Vec<(&Text, &Text, i64)> = found
            .picked
            .iter()
            .map(|it| (&it.node.name, &it.service.address, it.service.port))
            .collect();
        prop_assert_eq!(shown.len(), expected.len());
        prop_assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), expected);
        Ok(())
    }

    /// The checks of a node itself and of one service on it, by id.
    fn speaking_for(&self, node: &Text, service: &Text) -> Vec<&Check> {
        self.checks
            .iter()
            .filter(|((of, _), it)| {
                of == node && (it.service_id.is_empty() || it.service_id.lower() == *service)
            })
            .map(|(_, it)| it)
            .collect()
    }

    /// Compares the index of an answer with the contract's. After a reap it may be higher: what was forgotten counts.
    pub(crate) fn check_index(
        &self,
        question: &Question,
        found: Index,
    ) -> Result<(), TestCaseError> {
        let max = |tables: &[&str]| {
            tables
                .iter()
                .map(|table| self.tables.get(table).copied().unwrap_or(0))
                .max()
                .unwrap()
        };
        let kv_table = max(&["kvs", "tombstones"]).max(1);
        let under = |prefix: &Text| {
            if prefix.is_empty() {
                return kv_table;
            }
            let alive = self
                .keys
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(_, row)| row.modify_index);
            let gone = self
                .tombstones
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(_, at)| *at);
            alive.chain(gone).max().unwrap_or(kv_table)
        };
        let expected = match question {
            Question::KvGet(it) => self
                .keys
                .get(&*it.key)
                .map_or(kv_table, |row| row.modify_index),
            Question::KvList(it) => under(&it.prefix),
            Question::KvKeys(it) => under(&it.prefix),
            Question::TxnRead(_) => return Ok(()),
            Question::CatalogNodes(_) | Question::NodeLookup(_) | Question::AddressLookup(_) => {
                max(&["nodes"])
            }
            Question::CatalogServices(_) => max(&["services"]),
            Question::CatalogService(_) => max(&["nodes", "services"]),
            Question::CatalogNode(it) => {
                let node = it.node.lower();
                if self.nodes.contains_key(&node) {
                    max(&["nodes", "services"])
                } else if self.known.contains(&node) {
                    // The original says 0 here too; ours says when it went, so that one can wait for its return.
                    return Ok(());
                } else {
                    0
                }
            }
            Question::HealthNode(_) | Question::HealthChecks(_) | Question::HealthState(_) => {
                max(&["checks"])
            }
            Question::HealthService(_) | Question::ServiceLookup(_) => {
                max(&["nodes", "services", "checks"])
            }
            Question::SessionInfo(_) | Question::SessionList(_) | Question::SessionNode(_) => {
                max(&["sessions"])
            }
            Question::AclInfo(_) | Question::AclList(_) => max(&["acls"]),
            Question::QueryGet(_) | Question::QueryList(_) | Question::QueryExplain(_) => {
                max(&["queries"])
            }
            Question::QueryExecute(_) | Question::QueryElsewhere(_) => {
                max(&["queries", "nodes", "services", "checks", "coordinates"])
            }
            Question::CoordinateNodes(_) | Question::CoordinateLookup(_) => max(&["coordinates"]),
        };
        let is_right = if self.reaped {
            found >= expected
        } else {
            found == expected
        };
        prop_assert!(
            is_right,
            "{question:?} has index {found}, expected {expected}"
        );
        Ok(())
    }
}

/// Why an operation was not done.
enum Failed {
    Condition,
    Error,
}
