//! Clients that take locks and give them up, or are lost with them.

use model::KvVerb;
use model::Text;
use rand::RngExt;

use super::LOCKS;
use super::holder::{Done, Holder};
use crate::history::locks::{Free, Lock, What};
use crate::world::Front;

pub(super) fn key(lock: Lock) -> String {
    format!("lock/{lock}")
}

impl Holder {
    /// Sessions that take and give locks, until the end.
    pub(super) async fn use_locks(mut self) {
        while !self.world.ends() {
            self.pause(30, 500).await;
            let Some(front) = self.front() else { continue };
            if self.mine.is_none() {
                let deletes = self.chance.random_bool(0.3);
                self.begin(&front, deletes).await;
                continue;
            }
            if !self.keep_alive(&front).await {
                self.act(&front).await;
            }
        }
        self.leave_nothing().await;
    }

    async fn act(&mut self, front: &Front) {
        let Some(mine) = self.mine.clone() else {
            return;
        };
        let first = u32::from(mine.deletes);
        let lock = self.chance.random_range(first..LOCKS);
        match self.chance.random_range(0..20) {
            0..=8 => self.acquire(front, lock).await,
            9..=11 => self.release(front, lock).await,
            12..=16 => self.watch(front, lock).await,
            17 => {
                if let Some(mine) = &mut self.mine {
                    mine.is_abandoned = true;
                }
            }
            18 => {
                self.end(front).await;
            }
            _ => self.look(front, &mine).await,
        }
    }

    async fn acquire(&mut self, front: &Front, lock: Lock) {
        let Some(mine) = self.mine.clone() else {
            return;
        };
        let called = self.world.now();
        let verb = KvVerb::Lock(Text::from(mine.id.to_string()));
        match self.change(front, verb, &key(lock), "held").await {
            Done::Yes => self.note(mine.number, What::Acquired(lock), called, true),
            Done::NoSession => {
                self.note(mine.number, What::Gone, called, true);
                self.mine = None;
            }
            Done::No | Done::Unknown | Done::Nothing => {}
        }
    }

    /// Whether it holds the lock or not: who doesn't must not be able to.
    async fn release(&mut self, front: &Front, lock: Lock) {
        let Some(mine) = self.mine.clone() else {
            return;
        };
        let called = self.world.now();
        let verb = KvVerb::Unlock(Text::from(mine.id.to_string()));
        let done = self.change(front, verb, &key(lock), "free").await;
        let answered = match done {
            Done::Yes | Done::No => true,
            Done::Unknown => false,
            Done::NoSession | Done::Nothing => return,
        };
        self.note(mine.number, What::Released(lock), called, answered);
    }

    /// Looks who holds a lock.
    async fn watch(&mut self, front: &Front, lock: Lock) {
        let called = self.world.now();
        let Some(found) = self.get(front, &key(lock)).await else {
            return;
        };
        let holder = found.as_ref().and_then(model::KvEntry::session);
        match (found, holder) {
            (Some(entry), Some(id)) => {
                let known = self.world.with(|state| state.sessions.get(&id).copied());
                // Else its creation wasn't answered, and nobody has taken a lock with it.
                if let Some(session) = known {
                    let what = What::Holds {
                        lock,
                        lock_index: entry.lock_index(),
                        modify: entry.modify_index(),
                    };
                    self.note(session, what, called, true);
                }
            }
            (_, None) | (None, _) => {
                let free = Free {
                    lock,
                    called,
                    returned: self.world.now(),
                };
                self.world.tell("locks", || format!("{free:?}"));
                self.world.with(|state| state.locks.frees.push(free));
            }
        }
    }
}
