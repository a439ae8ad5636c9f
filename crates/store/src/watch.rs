//! Who wants to know: what questions touched, what changes touched, and the registry where the two meet.
//!
//! Waking costs as much as the changed key is long; watchers of other things are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use model::{KvEntry, Text};

use crate::changes::{Kind, Subject};
use crate::state::State;
use crate::tables::Table;

/// Something that a question may touch and a change may concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    /// One key, whether it exists or not.
    Key(Text),
    /// All keys that begin so.
    Prefix(Text),
    /// Anything else.
    Subject(Subject),
}

/// What a question touched, to wait for it.
#[derive(Debug, Default)]
pub struct Watch {
    on: bool,
    topics: Vec<Topic>,
}

impl Watch {
    /// Remembers nothing: for questions that will not wait.
    pub fn off() -> Self {
        Self::default()
    }

    /// Remembers what is touched.
    pub fn on() -> Self {
        Self {
            on: true,
            topics: Vec::new(),
        }
    }

    /// Forgets what was touched, to be used for another round.
    pub fn clear(&mut self) {
        self.topics.clear();
    }

    pub(crate) fn key(&mut self, key: &Text) {
        if self.on {
            self.topics.push(Topic::Key(key.clone()));
        }
    }

    pub(crate) fn prefix(&mut self, prefix: &Text) {
        if self.on {
            self.topics.push(Topic::Prefix(prefix.clone()));
        }
    }

    pub(crate) fn subject(&mut self, subject: &Subject) {
        if self.on {
            self.topics.push(Topic::Subject(subject.clone()));
        }
    }

    pub(crate) fn table(&mut self, table: Table) {
        if self.on {
            self.topics.push(Topic::Subject(Subject::table(table)));
        }
    }
}

impl Subject {
    fn table(table: Table) -> Self {
        Self::new(Kind::Table, &[table as u8])
    }
}

/// What the entries of a batch changed.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Written or removed.
    entries: Vec<KvEntry>,
    /// Many keys that begin so were removed.
    trees: Vec<Text>,
    subjects: Vec<Subject>,
    /// Lower-cased names of nodes whose row was written: concerns the health of all services there.
    nodes: BTreeSet<Text>,
    tables: [bool; Table::ALL.len()],
    everything: bool,
}

impl Touched {
    pub(crate) fn entry(&mut self, entry: KvEntry) {
        self.entries.push(entry);
    }

    pub(crate) fn tree(&mut self, prefix: Text) {
        self.trees.push(prefix);
    }

    pub(crate) fn subject(&mut self, subject: Subject) {
        self.subjects.push(subject);
    }

    pub(crate) fn node(&mut self, lower: Text) {
        self.nodes.insert(lower);
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.tables[table as usize] = true;
    }

    /// How many entries were touched so far; they are what a failed transaction takes back.
    pub(crate) fn mark(&self) -> usize {
        self.entries.len()
    }

    /// Forgets the entries touched since the mark. A prefix left behind only wakes somebody for nothing.
    pub(crate) fn back_to(&mut self, mark: usize) {
        self.entries.truncate(mark);
    }

    pub(crate) fn everything(&mut self) {
        self.everything = true;
    }

    /// Adds what another has gathered.
    pub(crate) fn add(&mut self, other: Self) {
        let Self {
            entries,
            trees,
            subjects,
            nodes,
            tables,
            everything,
        } = other;
        self.entries.extend(entries);
        self.trees.extend(trees);
        self.subjects.extend(subjects);
        self.nodes.extend(nodes);
        for (known, touched) in self.tables.iter_mut().zip(tables) {
            *known |= touched;
        }
        self.everything |= everything;
    }
}

/// One waiting question. It fires once.
#[derive(Debug, Default)]
struct Waiter {
    fired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    fn fire(&self) {
        // The waker is looked for after the flag is set, and `poll` looks at the flag after it left its waker: one of the two sees the other.
        self.fired.store(true, Ordering::SeqCst);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who wait for one thing, in the order in which they came.
type Waiters = BTreeMap<u64, Arc<Waiter>>;

/// Everybody who waits.
#[derive(Default)]
pub(crate) struct Registry(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next_id: u64,
    keys: BTreeMap<Text, Waiters>,
    prefixes: BTreeMap<Text, Waiters>,
    subjects: BTreeMap<Subject, Waiters>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// Adds one who waits for what was touched.
    ///
    /// The caller then compares versions and calls [`Subscription::fire`] if the view is not the newest: who registers first cannot miss what comes after.
    pub(crate) fn subscribe(self: &Arc<Self>, watch: &Watch) -> Subscription {
        let waiter = Arc::new(Waiter::default());
        let mut waiting = lock(&self.0);
        let id = waiting.next_id;
        waiting.next_id += 1;
        for topic in &watch.topics {
            waiting.slot(topic).insert(id, Arc::clone(&waiter));
        }
        drop(waiting);
        Subscription {
            registry: Arc::clone(self),
            id,
            waiter,
            topics: watch.topics.as_slice().into(),
        }
    }

    /// Wakes whoever waits for what was touched. `state` is the version that has just become visible.
    pub(crate) fn fire(&self, touched: &mut Touched, state: &State) {
        let touched = std::mem::take(touched);
        let mut woken = Vec::new();
        lock(&self.0).collect(&touched, state, &mut woken);
        // Outside of the lock: a waker may run the question at once, and that subscribes again.
        for waiters in woken {
            for waiter in waiters.values() {
                waiter.fire();
            }
        }
    }
}

impl Waiting {
    fn slot(&mut self, topic: &Topic) -> &mut Waiters {
        match topic {
            Topic::Key(key) => self.keys.entry(key.clone()).or_default(),
            Topic::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default(),
            Topic::Subject(subject) => self.subjects.entry(subject.clone()).or_default(),
        }
    }

    /// Takes out those who wait for what was touched.
    fn collect(&mut self, touched: &Touched, state: &State, woken: &mut Vec<Waiters>) {
        if touched.everything {
            woken.extend(std::mem::take(&mut self.keys).into_values());
            woken.extend(std::mem::take(&mut self.prefixes).into_values());
            woken.extend(std::mem::take(&mut self.subjects).into_values());
            return;
        }
        for entry in &touched.entries {
            if self.keys.is_empty() && self.prefixes.is_empty() {
                break;
            }
            woken.extend(self.keys.remove(entry.key()));
            take_prefixes_of(&mut self.prefixes, entry.key(), woken);
        }
        for tree in &touched.trees {
            take_under(&mut self.keys, tree, woken);
            take_under(&mut self.prefixes, tree, woken);
            take_prefixes_of(&mut self.prefixes, tree, woken);
        }
        if self.subjects.is_empty() {
            return;
        }
        for table in Table::ALL {
            if touched.tables[table as usize] {
                woken.extend(self.subjects.remove(&Subject::table(table)));
            }
        }
        for subject in &touched.subjects {
            woken.extend(self.subjects.remove(subject));
        }
        for node in &touched.nodes {
            for (_, service) in state.catalog.services_of(node) {
                let health = Subject::new(Kind::Health, &service.name.lower());
                woken.extend(self.subjects.remove(&health));
            }
        }
    }
}

/// Takes out all whose name is a prefix of this key, the whole key included.
fn take_prefixes_of(map: &mut BTreeMap<Text, Waiters>, key: &[u8], woken: &mut Vec<Waiters>) {
    use std::ops::Bound::{Included, Unbounded};
    let mut end = key;
    // Each step looks up the greatest name that is not beyond `end`; the part that it shares with the key is where any other must end.
    while let Some((name, _)) = map.range::<[u8], _>((Unbounded, Included(end))).next_back() {
        let name = name.clone();
        let shared = name
            .iter()
            .zip(key)
            .take_while(|(left, right)| left == right)
            .count();
        if shared == name.len() {
            woken.extend(map.remove(&*name));
            if shared == 0 {
                return;
            }
            end = &key[..shared - 1];
        } else {
            end = &key[..shared];
        }
    }
}

/// Takes out all whose name begins so.
fn take_under(map: &mut BTreeMap<Text, Waiters>, prefix: &[u8], woken: &mut Vec<Waiters>) {
    use std::ops::Bound::{Included, Unbounded};
    let under: Vec<Text> = map
        .range::<[u8], _>((Included(prefix), Unbounded))
        .take_while(|(name, _)| name.starts_with(prefix))
        .map(|(name, _)| name.clone())
        .collect();
    for name in under {
        woken.extend(map.remove(&*name));
    }
}

/// A wait for the things that a question touched. It resolves once; dropping it ends the wait.
///
/// It may resolve although nothing that matters has changed: whoever waits asks again and compares.
pub struct Subscription {
    registry: Arc<Registry>,
    id: u64,
    waiter: Arc<Waiter>,
    topics: Box<[Topic]>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Resolves when anything that was touched has changed after the view that it was read from, or the state was replaced.
    ///
    /// It may be dropped and called again; what happened in between is not lost.
    pub async fn changed(&mut self) {
        poll_fn(|context| {
            let mut waker = lock(&self.waiter.waker);
            match &mut *waker {
                Some(known) => known.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            drop(waker);
            if self.has_changed() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Whether [`Subscription::changed`] would resolve at once.
    pub fn has_changed(&self) -> bool {
        self.waiter.fired.load(Ordering::SeqCst)
    }

    pub(crate) fn fire(&self) {
        self.waiter.fire();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiting = lock(&self.registry.0);
        for topic in &self.topics {
            // Who was woken is out of the registry already, and others may have come since.
            match topic {
                Topic::Key(key) => leave(&mut waiting.keys, key, self.id),
                Topic::Prefix(prefix) => leave(&mut waiting.prefixes, prefix, self.id),
                Topic::Subject(subject) => leave(&mut waiting.subjects, subject, self.id),
            }
        }
    }
}

fn leave<K: Ord>(map: &mut BTreeMap<K, Waiters>, name: &K, id: u64) {
    if let Some(waiters) = map.get_mut(name) {
        waiters.remove(&id);
        if waiters.is_empty() {
            map.remove(name);
        }
    }
}
