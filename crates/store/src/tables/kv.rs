//! Keys and values.

use imbl::OrdSet;
use model::{
    ApplyResult, Error, KvEntry, KvOp, KvParts, KvVerb, Reply, Text, TxnError, TxnOutcome,
    TxnResult, Uuid, go_quoted,
};

use crate::apply::Change;
use crate::state::State;
use crate::tables::Table;

use rows::Rows;

mod part;
mod rows;

/// All keys, by key, and which of them each session holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kv {
    rows: Rows,
    /// (session, key) of every locked key.
    held: OrdSet<(Uuid, Text)>,
}

impl Kv {
    /// Puts an entry in its place; what was there before comes back.
    pub(crate) fn insert(&mut self, entry: KvEntry) -> Option<KvEntry> {
        let session = entry.session();
        let locked = session.map(|id| (id, Text::from(entry.key())));
        let old = self.rows.insert(entry);
        if let Some(before) = old.as_ref().and_then(KvEntry::session)
            && Some(before) != session
            && let Some(old) = &old
        {
            self.held.remove(&(before, Text::from(old.key())));
        }
        if let Some(locked) = locked {
            self.held.insert(locked);
        }
        old
    }

    /// Takes an entry away.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<KvEntry> {
        let entry = self.rows.remove(key)?;
        if let Some(session) = entry.session() {
            self.held.remove(&(session, Text::from(entry.key())));
        }
        Some(entry)
    }

    /// The entry of this key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&KvEntry> {
        self.rows.get(key)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All entries, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &KvEntry> {
        self.rows.iter()
    }

    /// The entries whose keys begin so, by key.
    pub(crate) fn under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a KvEntry> {
        self.rows
            .from(prefix)
            .take_while(move |entry| entry.key().starts_with(prefix))
    }

    /// The keys that this session holds, by key.
    pub(crate) fn held_by(&self, session: Uuid) -> impl Iterator<Item = &Text> {
        self.held
            .range((session, Text::default())..)
            .take_while(move |(id, _)| *id == session)
            .map(|(_, key)| key)
    }
}

/// What a single operation comes to.
enum Done {
    /// It was done, and this is the entry now (none after a deletion).
    Yes(Option<KvEntry>),
    /// Its condition did not hold.
    No,
}

impl Change<'_> {
    /// One operation on a key.
    pub(crate) fn kv(&mut self, op: &KvOp) -> ApplyResult {
        if !op.verb.is_write() {
            return Err(Error::invalid("reading a key is not a command"));
        }
        if is_keyless(op) {
            return Err(Error::invalid("Must provide key"));
        }
        if self.is_delayed(op) {
            return Ok(Reply::Applied(false));
        }
        match self.write_key(op).map_err(Error::Invalid)? {
            Done::Yes(_) => Ok(Reply::Applied(true)),
            Done::No => Ok(Reply::Applied(false)),
        }
    }

    /// Several operations, all or none; each sees what those before it did.
    pub(crate) fn txn(&mut self, ops: &[KvOp]) -> TxnOutcome {
        let mut outcome = TxnOutcome::default();
        for (op_index, op) in ops.iter().enumerate() {
            if is_keyless(op) {
                fail(&mut outcome, op_index, "Must provide key".to_owned());
            } else if self.is_delayed(op) {
                let key = go_quoted(&op.key);
                let what = format!("failed to lock key {key} due to lock delay");
                fail(&mut outcome, op_index, what);
            }
        }
        if !outcome.errors.is_empty() {
            // The original looks at all operations before it tries the first, and then says only this.
            return outcome;
        }
        // Keeping the tables as they were shares them, and what is shared is copied when it is written: bulk loads, which cannot fail, go without.
        let before = ops.iter().any(|op| can_fail(&op.verb)).then(|| {
            let State {
                kv,
                tombstones,
                indexes,
                ..
            } = &*self.state;
            (kv.clone(), tombstones.clone(), *indexes)
        });
        let mark = self.mark();
        for (op_index, op) in ops.iter().enumerate() {
            let done = if op.verb.is_write() {
                self.write_in_txn(op)
            } else {
                read_in_txn(&self.state.kv, op)
            };
            match done {
                Ok(results) => outcome.results.extend(results),
                Err(what) => fail(&mut outcome, op_index, what),
            }
        }
        if !outcome.errors.is_empty() {
            outcome.results.clear();
            if let Some((kv, tombstones, indexes)) = before {
                self.state.kv = kv;
                self.state.tombstones = tombstones;
                self.state.indexes = indexes;
            }
            self.back_to(mark);
        }
        outcome
    }

    fn write_in_txn(&mut self, op: &KvOp) -> Result<Vec<TxnResult>, String> {
        match self.write_key(op)? {
            Done::Yes(None) => Ok(Vec::new()),
            Done::Yes(Some(entry)) => Ok(vec![TxnResult {
                entry,
                with_value: false,
            }]),
            Done::No => Err(refusal(op)),
        }
    }

    /// Whether it wants to lock a key that may not be locked yet.
    fn is_delayed(&self, op: &KvOp) -> bool {
        matches!(op.verb, KvVerb::Lock(_)) && self.state.lock_delays.contains(&op.key)
    }

    fn write_key(&mut self, op: &KvOp) -> Result<Done, String> {
        let existing = self.state.kv.get(&op.key).map(KvEntry::parts);
        let modified = existing.map_or(0, |entry| entry.modify_index);
        let holder = existing.and_then(|entry| entry.session);
        let lock_index = existing.map_or(0, |entry| entry.lock_index);
        // What is kept of an entry when it is written; the rest comes with the operation.
        let kept = KvParts {
            session: holder,
            create_index: existing.map_or(self.index, |entry| entry.create_index),
            ..KvParts::default()
        };
        match &op.verb {
            // An absent key has the index 0.
            KvVerb::Cas(index) if *index != modified => Ok(Done::No),
            // The original stores the lock index that came with a plain write, which is 0, even while the key is locked.
            KvVerb::Set | KvVerb::Cas(_) => Ok(self.put(op, kept)),
            KvVerb::Lock(session) => {
                let session = self.session_to_lock_with(session)?;
                let lock_index = match holder {
                    Some(other) if other != session => return Ok(Done::No),
                    Some(_) => lock_index,
                    None => lock_index.saturating_add(1),
                };
                let locked = KvParts {
                    session: Some(session),
                    lock_index,
                    ..kept
                };
                Ok(self.put(op, locked))
            }
            KvVerb::Unlock(session) => {
                if session.is_empty() {
                    return Err("missing session".to_owned());
                }
                if holder.is_none() || holder != model::parse_uuid(session) {
                    return Ok(Done::No);
                }
                let unlocked = KvParts {
                    session: None,
                    lock_index,
                    ..kept
                };
                Ok(self.put(op, unlocked))
            }
            KvVerb::DeleteCas(index) if existing.is_some() && *index != modified => Ok(Done::No),
            KvVerb::Delete | KvVerb::DeleteCas(_) => {
                self.delete_key(&op.key);
                Ok(Done::Yes(None))
            }
            KvVerb::DeleteTree => {
                self.delete_tree(&op.key);
                Ok(Done::Yes(None))
            }
            // Whoever calls has kept these apart.
            KvVerb::Get | KvVerb::GetTree | KvVerb::CheckIndex(_) | KvVerb::CheckSession(_) => {
                Ok(Done::No)
            }
        }
    }

    /// The session that a lock names, which must exist.
    fn session_to_lock_with(&self, typed: &Text) -> Result<Uuid, String> {
        if typed.is_empty() {
            return Err("missing session".to_owned());
        }
        let Some(id) = model::parse_uuid(typed) else {
            return Err(
                "failed session lookup: index error: UUID must be 36 characters".to_owned(),
            );
        };
        if self.state.sessions.get(id).is_none() {
            return Err(format!("invalid session {}", go_quoted(typed)));
        }
        Ok(id)
    }

    /// Writes the key, value and flags of an operation, and the rest as it is given.
    fn put(&mut self, op: &KvOp, rest: KvParts<'_>) -> Done {
        let entry = KvEntry::new(&KvParts {
            key: &op.key,
            value: &op.value,
            flags: op.flags,
            modify_index: self.index,
            ..rest
        });
        self.put_entry(entry.clone());
        Done::Yes(Some(entry))
    }

    fn put_entry(&mut self, entry: KvEntry) {
        self.state.kv.insert(entry.clone());
        self.wrote(Table::Kvs);
        self.wake_key(entry);
    }

    /// Removes a key, if it is there, and remembers that.
    pub(crate) fn delete_key(&mut self, key: &Text) {
        let Some(entry) = self.state.kv.remove(key) else {
            return;
        };
        self.state.tombstones.insert(key.clone(), self.index);
        self.wrote_deletions();
        self.wake_key(entry);
    }

    fn delete_tree(&mut self, prefix: &Text) {
        let doomed: Vec<Text> = self
            .state
            .kv
            .under(prefix)
            .map(|entry| Text::from(entry.key()))
            .collect();
        if doomed.is_empty() {
            return;
        }
        if doomed.len() == self.state.kv.len() {
            self.state.kv = Kv::default();
        } else {
            for key in &doomed {
                self.state.kv.remove(key);
            }
        }
        for key in doomed {
            self.state.tombstones.insert(key, self.index);
        }
        self.wrote_deletions();
        self.wake_tree(prefix.clone());
    }

    fn wrote_deletions(&mut self) {
        self.wrote(Table::Kvs);
        self.wrote(Table::Tombstones);
        self.deleted();
    }

    /// Unlocks a key whose session has ended; all else stays.
    pub(crate) fn release_key(&mut self, key: &[u8]) {
        let Some(entry) = self.state.kv.get(key).cloned() else {
            return;
        };
        self.put_entry(KvEntry::new(&KvParts {
            session: None,
            modify_index: self.index,
            ..entry.parts()
        }));
    }
}

fn fail(outcome: &mut TxnOutcome, op_index: usize, what: String) {
    outcome.errors.push(TxnError { op_index, what });
}

/// Whether it lacks the key that it needs: only a deletion may mean all keys.
fn is_keyless(op: &KvOp) -> bool {
    op.key.is_empty() && op.verb != KvVerb::DeleteTree
}

/// Whether it may fail inside a transaction.
fn can_fail(verb: &KvVerb) -> bool {
    match verb {
        KvVerb::Set | KvVerb::Delete | KvVerb::DeleteTree | KvVerb::GetTree => false,
        KvVerb::Cas(_)
        | KvVerb::Lock(_)
        | KvVerb::Unlock(_)
        | KvVerb::DeleteCas(_)
        | KvVerb::Get
        | KvVerb::CheckIndex(_)
        | KvVerb::CheckSession(_) => true,
    }
}

/// Why a write of a transaction was not done, as the original says it.
fn refusal(op: &KvOp) -> String {
    let key = go_quoted(&op.key);
    match op.verb {
        KvVerb::Cas(_) => format!("failed to set key {key}, index is stale"),
        KvVerb::Lock(_) => format!("failed to lock key {key}, lock is already held"),
        KvVerb::Unlock(_) => {
            format!("failed to unlock key {key}, lock isn't held, or is held by another session")
        }
        KvVerb::DeleteCas(_) => format!("failed to delete key {key}, index is stale"),
        KvVerb::Set
        | KvVerb::Delete
        | KvVerb::DeleteTree
        | KvVerb::Get
        | KvVerb::GetTree
        | KvVerb::CheckIndex(_)
        | KvVerb::CheckSession(_) => format!("failed to write key {key}"),
    }
}

/// Several operations that only read.
pub(crate) fn read_only_txn(kv: &Kv, ops: &[KvOp]) -> TxnOutcome {
    let mut outcome = TxnOutcome::default();
    for (op_index, op) in ops.iter().enumerate() {
        if is_keyless(op) {
            fail(&mut outcome, op_index, "Must provide key".to_owned());
        }
    }
    if !outcome.errors.is_empty() {
        return outcome;
    }
    for (op_index, op) in ops.iter().enumerate() {
        match read_in_txn(kv, op) {
            Ok(results) => outcome.results.extend(results),
            Err(what) => fail(&mut outcome, op_index, what),
        }
    }
    if !outcome.errors.is_empty() {
        outcome.results.clear();
    }
    outcome
}

/// An operation of a transaction that only reads.
fn read_in_txn(kv: &Kv, op: &KvOp) -> Result<Vec<TxnResult>, String> {
    let key = || go_quoted(&op.key);
    let entry = kv.get(&op.key);
    let (entry, with_value) = match &op.verb {
        KvVerb::GetTree => {
            return Ok(kv
                .under(&op.key)
                .map(|entry| TxnResult {
                    entry: entry.clone(),
                    with_value: true,
                })
                .collect());
        }
        KvVerb::Get => {
            let entry = entry.ok_or_else(|| format!("key {} doesn't exist", key()))?;
            (entry, true)
        }
        KvVerb::CheckIndex(index) => {
            let entry = entry
                .ok_or_else(|| format!("failed to check index, key {} doesn't exist", key()))?;
            let current = entry.modify_index();
            if current != *index {
                return Err(format!(
                    "failed index check for key {}, current modify index {current} != {index}",
                    key()
                ));
            }
            (entry, false)
        }
        KvVerb::CheckSession(session) => {
            let entry = entry
                .ok_or_else(|| format!("failed to check session, key {} doesn't exist", key()))?;
            let current = entry.session().map(|id| id.to_string()).unwrap_or_default();
            if *session != *current.as_str() {
                return Err(format!(
                    "failed session check for key {}, current session {} != {}",
                    key(),
                    go_quoted(current.as_bytes()),
                    go_quoted(session)
                ));
            }
            (entry, false)
        }
        KvVerb::Set
        | KvVerb::Cas(_)
        | KvVerb::Lock(_)
        | KvVerb::Unlock(_)
        | KvVerb::Delete
        | KvVerb::DeleteTree
        | KvVerb::DeleteCas(_) => return Err(format!("key {} is written by a read", key())),
    };
    Ok(vec![TxnResult {
        entry: entry.clone(),
        with_value,
    }])
}
