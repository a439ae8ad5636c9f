//! A version of the state that no longer changes, and how questions read it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::{AclToken, Ask, Authority, Index, Session, Uuid};

use crate::state::State;
use crate::watch::{Registry, Subscription, Touched, Watch};

/// A version of the state. It never changes, and holding it holds up nobody.
#[derive(Clone)]
pub struct View(Arc<Version>);

pub(crate) struct Version {
    number: u64,
    state: State,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("version", &self.version())
            .field("log_index", &self.log_index())
            .field("term", &self.term())
            .field("floor", &self.floor())
            .finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(number: u64, state: State) -> Self {
        Self(Arc::new(Version { number, state }))
    }

    pub(crate) fn state(&self) -> &State {
        &self.0.state
    }

    /// Which version of this server's life it is; never in a checkpoint.
    pub fn version(&self) -> u64 {
        self.0.number
    }

    /// The last entry of the log that is in it.
    pub fn log_index(&self) -> u64 {
        self.0.state.log_index
    }

    /// The term of that entry.
    pub fn term(&self) -> u64 {
        self.0.state.term
    }

    /// The index that users see for that entry.
    pub fn index(&self) -> Index {
        self.0.state.user_index(self.0.state.log_index)
    }

    /// The index of the last restore; 0 if there was none.
    pub fn floor(&self) -> Index {
        self.0.state.floor
    }

    /// The log's clock, in milliseconds since 1970.
    pub fn clock_ms(&self) -> u64 {
        self.0.state.clock_ms
    }

    /// The last index of the log at which a key was lost whose lock-delay has yet to begin; none if all have begun. The
    /// leader has to see to that.
    pub fn lock_delays_wait_until(&self) -> Option<u64> {
        self.0.state.lock_delays.waiting_until()
    }

    /// All sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.0.state.sessions.iter()
    }

    /// The session of this id.
    pub fn session(&self, id: Uuid) -> Option<&Arc<Session>> {
        self.0.state.sessions.get(id)
    }

    /// The token of this id. How long the search takes tells nothing of the ids that there are.
    pub fn token(&self, id: &[u8]) -> Option<&Arc<AclToken>> {
        self.0.state.acls.get(id)
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<AclToken>> {
        self.0.state.acls.iter()
    }

    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        self.0.state.kv.len()
    }

    /// No deletion that is still remembered is newer than this; 0 if none is. A new leader has to see to their reaping.
    pub fn tombstones_until(&self) -> Index {
        let State {
            tombstones,
            changes,
            ..
        } = self.state();
        if tombstones.is_empty() && changes.is_empty() {
            return 0;
        }
        self.index()
    }
}

/// The readers' side of a store.
#[derive(Clone)]
pub struct Shared {
    current: Arc<ArcSwap<Version>>,
    registry: Arc<Registry>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("view", &self.view())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(view: View) -> Self {
        Self {
            current: Arc::new(ArcSwap::new(view.0)),
            registry: Arc::default(),
        }
    }

    /// The newest version.
    pub fn view(&self) -> View {
        View(self.current.load_full())
    }

    /// Waits for what a question touched when it was read from this view.
    ///
    /// Nothing is lost between the view and the wait: if the view is not the newest any more, the wait is over at once.
    pub fn subscribe(&self, view: &View, watch: &Watch) -> Subscription {
        let subscription = self.registry.subscribe(watch);
        if self.current.load().number != view.version() {
            subscription.fire();
        }
        subscription
    }

    /// Makes a version visible, then wakes whoever waits for what was touched.
    pub(crate) fn publish(&self, view: View, touched: &mut Touched) {
        self.current.store(Arc::clone(&view.0));
        self.registry.fire(touched, view.state());
    }
}

/// How a question is answered from a version of the state.
pub trait Read: Ask {
    /// Answers, and notes in `watch` what the answer depends on.
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer>;

    /// The same where the answer is a few of many: what its reader may not see must not take up the places of others.
    fn read_for(&self, view: &View, watch: &mut Watch, _reader: &Authority) -> Found<Self::Answer> {
        self.read(view, watch)
    }
}

/// An answer and how it stands in time.
#[derive(Debug)]
pub struct Found<A> {
    /// The answer.
    pub answer: A,
    /// What goes into the header: where to wait from.
    pub index: Index,
    /// The last change, deletions included, of exactly what the question touched; 0 if none is known.
    pub changed: Index,
    /// Who waits from before this has missed a restore.
    floor: Index,
    /// Who waits from before this may have missed a deletion that is no longer known; 0 if nothing was missed.
    reaped: Index,
    /// Whether it is a single key that exists: it stands for itself, whatever was restored.
    is_entry: bool,
}

impl<A> Found<A> {
    /// An answer under a header of its own, at least the floor.
    pub(crate) fn new(view: &View, answer: A, header: Index, changed: Index) -> Self {
        let floor = view.floor();
        Self {
            answer,
            index: header.max(changed).max(floor),
            changed,
            floor,
            reaped: 0,
            is_entry: false,
        }
    }

    /// The same where deletions may have been forgotten.
    pub(crate) fn new_forgetful(view: &View, answer: A, header: Index, changed: Index) -> Self {
        let reaped = view.state().reaped;
        Self {
            reaped,
            ..Self::new(view, answer, header.max(reaped), changed)
        }
    }

    /// A single key that exists: it reports its own index, even one from before a restore.
    pub(crate) fn entry(view: &View, answer: A, modify_index: Index) -> Self {
        Self {
            answer,
            index: modify_index,
            changed: modify_index,
            floor: view.floor(),
            reaped: 0,
            is_entry: true,
        }
    }

    /// The same with the answer put into another shape.
    pub fn map<B>(self, shape: impl FnOnce(A) -> B) -> Found<B> {
        let Self {
            answer,
            index,
            changed,
            floor,
            reaped,
            is_entry,
        } = self;
        Found {
            answer: shape(answer),
            index,
            changed,
            floor,
            reaped,
            is_entry,
        }
    }

    /// Whether someone who has the answer of this index should be given this one, rather than wait.
    pub fn is_news(&self, since: Index) -> bool {
        // 0 does not wait; and what has index 0 was never written, which the original does not wait for either.
        if since == 0 || self.index == 0 || self.changed > since {
            return true;
        }
        let is_other = self.changed != since;
        if self.is_entry {
            // Clients also wait by the index in the body (Patroni does), which a restore leaves as it was.
            return is_other && since < self.floor;
        }
        since < self.floor || (is_other && since < self.reaped)
    }
}
