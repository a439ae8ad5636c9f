//! Keys and values.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;

use imbl::OrdSet;
use model::{
    ApplyResult, Error, KvEntry, KvOp, KvParts, KvVerb, Reply, Text, TxnError, TxnOutcome,
    TxnResult, Uuid,
};

use crate::apply::Change;
use crate::quote::go_quoted;
use crate::state::State;
use crate::tables::Table;

/// An entry in its place: ordered and looked up by its key alone.
///
/// Eight bytes a row; a map from key to entry would hold every key twice.
#[derive(Debug, Clone)]
struct Row(KvEntry);

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

/// All keys, by key, and which of them each session holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kv {
    rows: OrdSet<Row>,
    /// (session, key) of every locked key.
    held: OrdSet<(Uuid, Text)>,
}

impl Kv {
    /// Puts an entry in its place; what was there before comes back.
    pub(crate) fn insert(&mut self, entry: KvEntry) -> Option<KvEntry> {
        let session = entry.session();
        // A clone of the handle, to note the key without a copy unless it is locked.
        let locked = session.map(|id| (id, Text::from(entry.key())));
        let old = self.rows.insert(Row(entry)).map(|row| row.0);
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
        let entry = self.rows.remove(key)?.0;
        if let Some(session) = entry.session() {
            self.held.remove(&(session, Text::from(entry.key())));
        }
        Some(entry)
    }

    /// The entry of this key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&KvEntry> {
        self.rows.get(key).map(|row| &row.0)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All entries, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &KvEntry> {
        self.rows.iter().map(|row| &row.0)
    }

    /// The entries whose keys begin so, by key.
    pub(crate) fn under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a KvEntry> {
        self.rows
            .range::<_, [u8]>((Bound::Included(prefix), Bound::Unbounded))
            .map(|row| &row.0)
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
        let existing = self.state.kv.get(&op.key);
        let modified = existing.map_or(0, KvEntry::modify_index);
        let holder = existing.and_then(KvEntry::session);
        let lock_index = existing.map_or(0, KvEntry::lock_index);
        match &op.verb {
            // The original stores the lock index that came with a plain write, which is 0, even while the key is locked.
            KvVerb::Set => Ok(self.put(op, 0, holder)),
            // An absent key has the index 0.
            KvVerb::Cas(index) if *index != modified => Ok(Done::No),
            KvVerb::Cas(_) => Ok(self.put(op, 0, holder)),
            KvVerb::Lock(session) => {
                let session = self.session_to_lock_with(session)?;
                match holder {
                    Some(other) if other != session => Ok(Done::No),
                    Some(_) => Ok(self.put(op, lock_index, Some(session))),
                    None => Ok(self.put(op, lock_index.saturating_add(1), Some(session))),
                }
            }
            KvVerb::Unlock(session) => {
                if session.is_empty() {
                    return Err("missing session".to_owned());
                }
                if holder.is_none() || holder != model::parse_uuid(session) {
                    return Ok(Done::No);
                }
                Ok(self.put(op, lock_index, None))
            }
            KvVerb::Delete => {
                self.delete_key(&op.key);
                Ok(Done::Yes(None))
            }
            KvVerb::DeleteCas(index) if existing.is_some() && *index != modified => Ok(Done::No),
            KvVerb::DeleteCas(_) => {
                self.delete_key(&op.key);
                Ok(Done::Yes(None))
            }
            KvVerb::DeleteTree => {
                self.delete_tree(&op.key);
                Ok(Done::Yes(None))
            }
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

    /// Writes the value and flags of an operation.
    fn put(&mut self, op: &KvOp, lock_index: u64, session: Option<Uuid>) -> Done {
        let create_index = self
            .state
            .kv
            .get(&op.key)
            .map_or(self.index, KvEntry::create_index);
        let entry = KvEntry::new(&KvParts {
            key: &op.key,
            value: &op.value,
            flags: op.flags,
            lock_index,
            session,
            create_index,
            modify_index: self.index,
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
