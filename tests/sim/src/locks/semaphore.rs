//! Clients that take places in a semaphore, by the recipe of the original's clients.
//!
//! Each has a key of its own that it holds with its session, beside one key for all that lists who is in. Who wants to
//! get in reads both, strikes those off the list whose own key has no session any more, and writes itself down if there is
//! room, on the condition that nobody has written since.

use std::collections::BTreeSet;

use model::{KvEntry, KvList, KvVerb, Text};
use rand::RngExt;
use rpc::{Consistency, ReadOptions};

use super::holder::{Done, Holder, Mine};
use super::{LIMIT, PATIENCE};
use crate::history::locks::{Semaphore, What};
use crate::world::{Front, Told};

const SEMAPHORE: Semaphore = 0;

const PREFIX: &str = "semaphore/";

const LIST: &str = "semaphore/.lock";

impl Holder {
    /// In and out, until the end.
    pub(super) async fn use_semaphore(mut self) {
        let mut is_contending = false;
        let mut is_inside = false;
        while !self.world.ends() {
            self.pause(30, 500).await;
            let Some(front) = self.front() else { continue };
            let Some(mine) = self.mine.clone() else {
                (is_contending, is_inside) = (false, false);
                self.begin(&front, true).await;
                continue;
            };
            if self.keep_alive(&front).await {
                continue;
            }
            if !is_contending {
                is_contending = self.contend(&front, &mine).await;
                continue;
            }
            match self.chance.random_range(0..12) {
                0..=8 if !is_inside => is_inside = self.enter(&front, &mine).await,
                0..=2 if is_inside => is_inside = !self.leave(&front, &mine).await,
                9 => {
                    if let Some(mine) = &mut self.mine {
                        mine.is_abandoned = true;
                    }
                }
                10 => {
                    self.end(&front).await;
                }
                _ => {}
            }
        }
        self.leave_nothing().await;
    }

    /// Makes its own key.
    async fn contend(&mut self, front: &Front, mine: &Mine) -> bool {
        let id = mine.id.to_string();
        let called = self.world.now();
        let verb = KvVerb::Lock(Text::from(id.as_str()));
        match self.change(front, verb, &format!("{PREFIX}{id}"), "").await {
            Done::Yes => true,
            Done::NoSession => {
                self.note(mine.number, What::Gone, called, true);
                self.mine = None;
                false
            }
            Done::No | Done::Unknown | Done::Nothing => false,
        }
    }

    /// Who is in by the list, who may be by their own keys, and when the list was written.
    async fn read(&mut self, front: &Front) -> Option<(BTreeSet<String>, BTreeSet<String>, u64)> {
        let options = ReadOptions {
            consistency: if self.chance.random_bool(0.5) {
                Consistency::Consistent
            } else {
                Consistency::Default
            },
            ..ReadOptions::default()
        };
        let question = KvList {
            prefix: Text::from(PREFIX),
        };
        let call = front.cluster.read(question, options);
        let Told::Answer(found) = self.world.ask(front, PATIENCE, call).await else {
            return None;
        };
        let is_list = |entry: &&KvEntry| entry.key() == LIST.as_bytes();
        let list = found.answer.iter().find(is_list);
        let inside = list.map_or_else(BTreeSet::new, |entry| {
            let text = String::from_utf8_lossy(entry.value());
            text.split_whitespace().map(str::to_owned).collect()
        });
        let alive = (found.answer.iter())
            .filter_map(|entry| Some(entry.session()?.to_string()))
            .collect();
        Some((inside, alive, list.map_or(0, KvEntry::modify_index)))
    }

    /// Says whether it may be inside.
    async fn enter(&mut self, front: &Front, mine: &Mine) -> bool {
        let Some((mut inside, alive, index)) = self.read(front).await else {
            return false;
        };
        let id = mine.id.to_string();
        inside.retain(|other| alive.contains(other));
        if inside.contains(&id) {
            // An attempt without an answer has got it in.
            return true;
        }
        if inside.len() >= LIMIT || !alive.contains(&id) {
            return false;
        }
        inside.insert(id);
        let called = self.world.now();
        match self.write_list(front, index, &inside).await {
            Done::Yes => {
                self.note(mine.number, What::Entered(SEMAPHORE), called, true);
                true
            }
            Done::No | Done::NoSession | Done::Unknown | Done::Nothing => false,
        }
    }

    /// Says whether it is out for sure.
    async fn leave(&mut self, front: &Front, mine: &Mine) -> bool {
        let Some((mut inside, _, index)) = self.read(front).await else {
            return false;
        };
        if !inside.remove(&mine.id.to_string()) {
            return true;
        }
        let called = self.world.now();
        match self.write_list(front, index, &inside).await {
            Done::Yes => {
                self.note(mine.number, What::Left(SEMAPHORE), called, true);
                true
            }
            Done::Unknown => {
                self.note(mine.number, What::Left(SEMAPHORE), called, false);
                false
            }
            Done::No | Done::NoSession | Done::Nothing => false,
        }
    }

    async fn write_list(&mut self, front: &Front, index: u64, inside: &BTreeSet<String>) -> Done {
        let text: Vec<&str> = inside.iter().map(String::as_str).collect();
        self.change(front, KvVerb::Cas(index), LIST, &text.join(" "))
            .await
    }
}
