//! What is heard about members, and what becomes of it.
//!
//! Of two statements about one member the one about the later life is true; within a life the one about the later
//! incarnation; within that, the worse one. The SWIM core judges by the same rules and is told what was news.

use std::sync::Arc;

use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::queue::Subject;
use super::suspicion::{Suspicion, logarithm};
use super::{
    CLAIM_DOUBLINGS, CLAIM_INTERVAL, CLAIM_REST, Due, EVENTS_REMEMBERED, Entry, Farewell,
    LTIME_MAX, LTIME_STEP_MAX, MEMBERS_MAX, Output, Pool, Swim, is_near,
};
use crate::event::{Event, UserEvent};
use crate::exchange::EventKey;
use crate::figures;
use crate::handle::Shown;
use crate::identity::{Id, Identity};
use crate::item::{Alive, AliveFront, Down, Item, Leave, Suspect};
use crate::member::Status;

/// How many members that were refused are remembered, so that a refusal is said once.
const REFUSED_REMEMBERED: usize = 256;

impl Pool {
    /// Whether a piece of news says nothing new, seen without reading it whole.
    pub(super) fn knows_already(&self, kind: u8, content: &[u8]) -> bool {
        let Some(front) = AliveFront::peek(kind, content) else {
            return false;
        };
        let Some(entry) = self.entries.get(&front.identity.id) else {
            return false;
        };
        let heard = (front.identity.generation, front.revision);
        !front.identity.is_newer_than(&entry.identity)
            && (front.identity != entry.identity || front.incarnation <= entry.incarnation)
            && heard <= (entry.record_generation, entry.record.revision)
    }

    /// A member is there, says it or somebody else.
    pub(super) fn hear_alive(&mut self, now: Instant, alive: &Alive, record_generation: u32) {
        let id = alive.identity.id;
        if id == self.local.identity.id {
            return self.hear_of_own_name(now, alive);
        }
        self.witness_member_time(alive.record.time);
        let Some(entry) = self.entries.get_mut(&id) else {
            let is_near =
                is_near(alive.identity.generation, 0) && is_near(alive.record.revision, 0);
            if is_near && self.is_admitted(alive) {
                self.meet(now, alive, record_generation);
            }
            return;
        };
        if !is_near(alive.identity.generation, entry.identity.generation)
            || !is_near(alive.record.revision, entry.record.revision)
        {
            return;
        }
        let is_record_newer = (record_generation, alive.record.revision)
            > (entry.record_generation, entry.record.revision);
        if alive.identity.address != entry.identity.address && !entry.is_gone() {
            // Somebody is there already under this name. Who comes later has to wait until that one is gone, and has
            // had the time to object.
            if alive.identity.is_newer_than(&entry.identity) && !entry.standing.is_down() {
                self.hear_conflict(now, alive, id);
            }
            return;
        }
        let is_life_newer = alive.identity.is_newer_than(&entry.identity);
        let is_same_life = alive.identity == entry.identity;
        if !is_life_newer && !is_same_life {
            return;
        }
        if is_record_newer && !self.is_admitted(alive) {
            return;
        }
        let mut is_news = false;
        if is_record_newer {
            self.take_record(now, alive, record_generation);
            is_news = true;
        }
        is_news |= self.revive(now, alive.identity, alive.incarnation);
        if is_news
            && let Some(entry) = self.entries.get(&id)
            && !entry.standing.is_down()
        {
            let item = Item::Alive(entry.alive());
            self.broadcast(Subject::Member(id), &item);
        }
    }

    /// Somebody unknown is there.
    fn meet(&mut self, now: Instant, alive: &Alive, record_generation: u32) {
        let id = alive.identity.id;
        if self.entries.len() >= MEMBERS_MAX {
            return;
        }
        let place = self.enlist(id, false);
        let status = if alive.record.leaving {
            Status::Leaving
        } else {
            Status::Alive
        };
        let entry = Entry {
            identity: alive.identity,
            incarnation: alive.incarnation,
            record: Arc::clone(&alive.record),
            record_generation,
            forced: None,
            standing: Swim::Alive,
            status,
            since: now,
            place,
            coordinate: None,
        };
        let shown = entry.shown();
        self.entries.insert(id, entry);
        self.newcomers += 1;
        self.core_apply(now, alive.identity, alive.incarnation, foca::State::Alive);
        self.outputs.push(Output::Show(id, shown.clone()));
        self.tell(Event::Joined(shown.member()));
        self.broadcast(Subject::Member(id), &Item::Alive(alive.clone()));
        if self.has_many_newcomers() {
            self.compare_soon(now);
        }
    }

    /// A known member tells something else of itself.
    fn take_record(&mut self, now: Instant, alive: &Alive, record_generation: u32) {
        let id = alive.identity.id;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.record, Arc::clone(&alive.record));
        entry.record_generation = record_generation;
        let after = &*entry.record;
        let says_more = (&before.tags, before.protocol, before.delegate)
            != (&after.tags, after.protocol, after.delegate);
        let is_down = entry.standing.is_down();
        let shown = entry.shown();
        self.outputs.push(Output::Show(id, shown.clone()));
        if says_more && !is_down {
            self.tell(Event::Updated(shown.member()));
        }
        self.restate(now, id);
    }

    /// A member lives in this life and incarnation. Returns whether that is news.
    pub(super) fn revive(&mut self, now: Instant, identity: Identity, incarnation: u16) -> bool {
        let id = identity.id;
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        let is_newer = identity.is_newer_than(&entry.identity);
        if !is_newer
            && (identity != entry.identity
                || entry.standing.is_down()
                || incarnation <= entry.incarnation)
        {
            return false;
        }
        let has_moved = identity.address != entry.identity.address;
        let was_down = entry.standing.is_down();
        let place = entry.place;
        entry.identity = identity;
        entry.incarnation = incarnation;
        entry.standing = Swim::Alive;
        if was_down {
            self.unlist(place, true);
            let place = self.enlist(id, false);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.place = place;
                // A good-bye of an earlier life says nothing about this one.
                entry.forced = None;
            }
            self.newcomers += 1;
        }
        self.core_apply(now, identity, incarnation, foca::State::Alive);
        if has_moved && let Some(shown) = self.shown(id) {
            self.outputs.push(Output::Show(id, shown.clone()));
            if matches!(shown.status, Status::Alive | Status::Leaving) {
                self.tell(Event::Updated(shown.member()));
            }
        }
        self.restate(now, id);
        true
    }

    /// Shows a member's status anew if it has changed, and tells of it.
    fn restate(&mut self, now: Instant, id: Id) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = entry.status;
        let after = match entry.standing {
            // A record of an earlier life says nothing about the good-bye of this one.
            Swim::Alive | Swim::Suspect(_)
                if entry.is_leaving() && entry.record_generation == entry.identity.generation =>
            {
                Status::Leaving
            }
            Swim::Alive | Swim::Suspect(_) => Status::Alive,
            Swim::Down { left, .. } if left || entry.is_leaving() => Status::Left,
            // It may object for a moment before it counts as failed.
            Swim::Down { .. } => before,
        };
        if after != before {
            self.set_status(now, id, after);
        }
    }

    fn set_status(&mut self, now: Instant, id: Id, status: Status) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.status, status);
        entry.since = now;
        if let Swim::Down { left, .. } = &mut entry.standing {
            *left |= status == Status::Left;
        }
        let shown = entry.shown();
        self.count(before, -1);
        self.count(status, 1);
        self.outputs.push(Output::Show(id, shown.clone()));
        let member = shown.member();
        self.tell(match (before, status) {
            (Status::Leaving, Status::Alive) => Event::Updated(member),
            (_, Status::Alive) => Event::Joined(member),
            (_, Status::Leaving) => Event::Leaving(member),
            (_, Status::Left) => Event::Left(member),
            (_, Status::Failed) => Event::Failed(member),
        });
    }

    /// Somebody got no answer from a member.
    pub(super) fn hear_suspect(&mut self, now: Instant, suspect: Suspect) {
        let id = suspect.identity.id;
        if id == self.local.identity.id {
            return self.refute(now, suspect);
        }
        let size = self.size();
        let attention = self.timers.attention(now);
        let mine = suspect.from == self.local.identity.id;
        // What this member itself saw counts less while it is not well itself.
        let stretch = if mine { self.health + 1 } else { 1 };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.identity != suspect.identity || suspect.incarnation < entry.incarnation {
            return;
        }
        let was_alive = matches!(entry.standing, Swim::Alive);
        let is_news = match &mut entry.standing {
            Swim::Down { .. } => false,
            Swim::Suspect(suspicion) if suspect.incarnation == entry.incarnation => {
                suspicion.confirm(suspect.from)
            }
            Swim::Alive | Swim::Suspect(_) => {
                let suspicion =
                    Suspicion::new(&self.timing, size, stretch, suspect.from, attention);
                entry.standing = Swim::Suspect(suspicion);
                entry.incarnation = suspect.incarnation;
                true
            }
        };
        if !is_news {
            return;
        }
        let to = entry.identity.address;
        if let Swim::Suspect(suspicion) = &entry.standing {
            let timer = self
                .timers
                .on_attention(suspicion.ends(), Due::Suspicion(id));
            if let Some(before) = self.suspicion_timers.insert(id, timer) {
                self.timers.cancel(before);
            }
        }
        let item = Item::Suspect(suspect);
        self.broadcast(Subject::Suspicion(id, suspect.from), &item);
        self.core_apply(
            now,
            suspect.identity,
            suspect.incarnation,
            foca::State::Suspect,
        );
        if mine {
            // It shall be the first to know.
            self.post_alone(to, &item.encode());
        } else if was_alive {
            self.look_closer(now, suspect.identity);
        }
    }

    /// A suspicion may be over.
    pub(super) fn suspicion_due(&mut self, now: Instant, id: Id) {
        let attention = self.timers.attention(now);
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        // It may have been refuted since.
        if let Swim::Suspect(suspicion) = &entry.standing
            && suspicion.ends() <= attention
        {
            if suspicion.lacks_witnesses() {
                figures::DEGRADED_TIMEOUT.increment(1);
            }
            let down = Down {
                identity: entry.identity,
                incarnation: entry.incarnation,
                left: false,
            };
            self.hear_down(now, down);
        }
    }

    /// A member is gone.
    pub(super) fn hear_down(&mut self, now: Instant, down: Down) {
        let id = down.identity.id;
        if id == self.local.identity.id {
            return self.hear_own_end(now, down);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let is_newer = down.identity.is_newer_than(&entry.identity);
        if !is_newer && down.identity != entry.identity {
            return;
        }
        if !is_near(down.identity.generation, entry.identity.generation) {
            return;
        }
        if is_newer && down.identity.address != entry.identity.address && !entry.is_gone() {
            // The end of somebody who never got this name.
            return;
        }
        if let Swim::Down { left, .. } = &mut entry.standing {
            if !down.left || *left {
                entry.identity = down.identity;
                // The core forgets only the life that it was told last.
                self.core_apply(now, down.identity, down.incarnation, foca::State::Down);
                return;
            }
            *left = true;
        }
        entry.identity = down.identity;
        entry.incarnation = down.incarnation;
        let was_down = entry.standing.is_down();
        let place = entry.place;
        let to = entry.identity.address;
        let will_object = !down.left && !entry.is_leaving();
        if !was_down {
            entry.standing = Swim::Down {
                since: now,
                left: down.left,
            };
            self.unlist(place, false);
            let place = self.enlist(id, true);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.place = place;
            }
        }
        self.core_apply(now, down.identity, down.incarnation, foca::State::Down);
        let item = Item::Down(down);
        self.broadcast(Subject::Member(id), &item);
        if will_object {
            self.gone_told_until = now + self.timing.gossip_to_dead;
            let patience = self.timing.gossip_interval * (1 + 2 * logarithm(self.size()));
            let due = self.timers.attention(now) + patience;
            self.timers.on_attention(due, Due::Grace(down.identity));
            // If it lives it comes back in a moment, so it is told at once, by a few.
            let others = u32::try_from(self.size()).unwrap_or(u32::MAX);
            if self.chance.random_ratio(others.min(3), others) {
                self.post_alone(to, &item.encode());
            }
        }
        self.restate(now, id);
    }

    /// A member that was declared down had time to object.
    pub(super) fn grace_due(&mut self, now: Instant, identity: Identity) {
        let Some(entry) = self.entries.get(&identity.id) else {
            return;
        };
        let is_alive = matches!(entry.status, Status::Alive | Status::Leaving);
        if entry.identity == identity && entry.standing.is_down() && is_alive {
            self.set_status(now, identity.id, Status::Failed);
        }
    }

    /// Somebody says good-bye for a member.
    pub(super) fn hear_leave(&mut self, now: Instant, leave: Leave) {
        self.witness_member_time(leave.time);
        let until = (leave.generation, leave.revision);
        if leave.id == self.local.identity.id {
            let own = (self.local.identity.generation, self.local.record.revision);
            if self.local.farewell == Farewell::Staying && until >= own {
                // The next record is enough: others take it as said of the one that they know.
                self.change_record(|_| {});
            }
            return;
        }
        let Some(entry) = self.entries.get_mut(&leave.id) else {
            return;
        };
        let known = (entry.record_generation, entry.record.revision);
        if until < known || entry.is_forced() {
            return;
        }
        // It is said of what is known, and passed on as that: nobody can say good-bye for what a member has yet to say.
        entry.forced = Some(known);
        let leave = Leave {
            generation: known.0,
            revision: known.1,
            ..leave
        };
        self.broadcast(Subject::Leave(leave.id), &Item::Leave(leave));
        self.restate(now, leave.id);
    }

    /// A user event, from wherever.
    pub(super) fn hear_event(&mut self, event: UserEvent) {
        if event.ltime >= LTIME_MAX || event.ltime > self.clocks.event + LTIME_STEP_MAX {
            return;
        }
        self.clocks.event = self.clocks.event.max(event.ltime + 1);
        let key = event_key(&event);
        let is_too_old = event.ltime < self.events_from
            || event.ltime + (EVENTS_REMEMBERED as u64) < self.clocks.event;
        if is_too_old || self.events.contains_key(&key) {
            return;
        }
        self.events.insert(key, event.clone());
        while self.events.len() > EVENTS_REMEMBERED {
            if let Some((oldest, _)) = self.events.pop_first() {
                // Forgotten, it must not be told again.
                self.events_from = self.events_from.max(oldest.ltime + 1);
            }
        }
        let subject = Subject::User(key.ltime, key.hash);
        self.broadcast(subject, &Item::User(event.clone()));
        self.tell(Event::User(event));
    }

    pub(super) fn witness_member_time(&mut self, time: u64) {
        if time < LTIME_MAX && time <= self.clocks.member + LTIME_STEP_MAX {
            self.clocks.member = self.clocks.member.max(time + 1);
        }
    }

    // This member itself, as others see it.

    /// Somebody got no answer from us: we are alive, in a new incarnation.
    fn refute(&mut self, now: Instant, suspect: Suspect) {
        if suspect.identity != self.local.identity
            || suspect.incarnation < self.local.incarnation
            || self.local.farewell > Farewell::Announcing
        {
            return;
        }
        tracing::debug!("refuting a suspicion about this member");
        self.worsen(1);
        self.core_apply(
            now,
            suspect.identity,
            suspect.incarnation,
            foca::State::Suspect,
        );
        if suspect.identity == self.local.identity {
            self.local.incarnation = suspect.incarnation.saturating_add(1);
        }
        self.announce();
        // Whoever suspects shall be the first to know.
        if let Some(entry) = self.entries.get(&suspect.from) {
            let to = entry.identity.address;
            self.post(to, Item::Alive(self.own()).encode().to_vec());
        }
    }

    /// The others think that this life of ours is over.
    fn hear_own_end(&mut self, now: Instant, down: Down) {
        if self.local.farewell > Farewell::Announcing {
            return;
        }
        let own = self.local.identity;
        if down.identity == own
            || (down.identity.generation > own.generation
                && is_near(down.identity.generation, own.generation))
        {
            tracing::info!("this member was declared down and comes back");
            self.renew_above(now, down.identity.generation);
        }
    }

    /// Somebody says that a member of our name is there.
    fn hear_of_own_name(&mut self, now: Instant, alive: &Alive) {
        if self.local.farewell > Farewell::Announcing {
            return;
        }
        let own = self.local.identity;
        if !is_near(alive.identity.generation, own.generation) {
            return;
        }
        if alive.identity.address != own.address {
            if alive.identity.is_newer_than(&own) || !self.local.has_rival {
                self.note_rival(now, alive);
            }
            return;
        }
        let is_other = alive.identity == own
            && ((alive.incarnation, alive.record.revision)
                > (self.local.incarnation, self.local.record.revision)
                || (alive.record.revision == self.local.record.revision
                    && *alive.record != *self.local.record));
        if is_other || alive.identity.generation > own.generation {
            // An earlier run of ours, which the others still take for this one.
            self.renew_above(now, alive.identity.generation);
        }
    }

    /// Somebody else had our name first, or has it now.
    fn note_rival(&mut self, now: Instant, alive: &Alive) {
        if !self.local.has_rival {
            if self.rival_said.note(now).is_some() {
                tracing::error!(
                    name = self.local.record.name,
                    theirs = %alive.identity.address,
                    "another member has this member's name"
                );
            }
            self.local.has_rival = true;
            let (claims, last) = self.local.claims;
            let is_over = now.saturating_duration_since(last) > CLAIM_REST;
            let claims = if is_over { 0 } else { claims };
            self.local.claims = (claims + 1, now);
            let patience = CLAIM_INTERVAL * 2u32.pow(claims.min(CLAIM_DOUBLINGS));
            self.timers.on_wall(now + patience, Due::Claim);
        }
        if alive.identity.generation > self.local.identity.generation {
            // Known under a later life, we would be taken for the past.
            self.renew_above(now, alive.identity.generation);
        }
    }

    /// Two members have one name. The one that came first stays.
    fn hear_conflict(&mut self, now: Instant, newcomer: &Alive, id: Id) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let holder = Item::Alive(entry.alive());
        let ours = entry.identity.address;
        if self.note_refused(id) {
            tracing::warn!(
                name = newcomer.record.name,
                %ours,
                theirs = %newcomer.identity.address,
                "two members have the same name"
            );
        }
        if self.strangers.allows(now) {
            self.post_alone(newcomer.identity.address, &holder.encode());
        }
    }

    fn is_admitted(&mut self, alive: &Alive) -> bool {
        let shown = Shown {
            record: Arc::clone(&alive.record),
            address: alive.identity.address,
            status: Status::Alive,
            since: self.local.since,
        };
        match (self.admit)(&shown.member()) {
            Ok(()) => true,
            Err(reason) => {
                if self.note_refused(alive.identity.id) {
                    tracing::warn!(reason, "a member was not let into the pool");
                }
                false
            }
        }
    }

    /// Whether this is the first time.
    fn note_refused(&mut self, id: Id) -> bool {
        if self.refused.len() >= REFUSED_REMEMBERED {
            self.refused.pop_first();
        }
        self.refused.insert(id)
    }

    /// What a member that takes itself for somebody of the past is told.
    pub(super) fn tell_about(&mut self, now: Instant, id: Id, to: std::net::SocketAddr) {
        if let Some(entry) = self.entries.get(&id) {
            let item = self.about(entry);
            // That it is down is shorter than the question.
            if matches!(item, Item::Down(_)) || self.strangers.allows(now) {
                self.post_alone(to, &item.encode());
            }
        }
    }
}

/// What tells a user event from all others.
pub(super) fn event_key(event: &UserEvent) -> EventKey {
    let mut hash = Sha256::new();
    hash.update((event.name.len() as u64).to_be_bytes());
    hash.update(event.name.as_bytes());
    hash.update(&event.payload);
    let digest = hash.finalize();
    let first = digest.first_chunk().expect("SHA-256 has 32 bytes");
    EventKey {
        ltime: event.ltime,
        hash: u64::from_be_bytes(*first),
    }
}
