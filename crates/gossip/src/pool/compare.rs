//! The comparison of all that two members know, and everything else that goes over connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use tokio::time::Instant;

use super::{
    Due, Entry, Farewell, LTIME_MAX, LTIME_STEP_MAX, MEMBERS_MAX, Output, Pool, Purpose, Swim,
    is_near,
};
use crate::event::Event;
use crate::exchange::{
    Answer, Clocks, Compare, Compared, Given, KeyAnswer, Known, Request, Standing, Summary, Version,
};
use crate::fields::Malformed;
use crate::handle::Shown;
use crate::identity::Id;
use crate::item::{Alive, Down, Leave, Suspect};
use crate::keyring::Change;
use crate::member::Status;
use crate::packet;

/// While the pool is forming, members compare about as often as this.
const SOON: Duration = Duration::from_secs(1);

/// The pool is forming if this many members, or this part of it, joined since the last comparison.
const NEWCOMERS_MANY: usize = 4;
const NEWCOMERS_PART: usize = 32;

/// What is to be done with a request of somebody else.
#[derive(Debug)]
pub(crate) enum Asked {
    /// This is the answer.
    Answered(Bytes),
    /// It isn't worth one.
    Ignored,
    /// A change of keys that has to be made first.
    Change(Change),
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing that a caller waits for.
    Done,
    /// A caller's attempt to join.
    Joined {
        caller: u64,
        result: Result<(), String>,
    },
    /// A member's answer to an operation on keys, or none.
    Keys {
        caller: u64,
        name: String,
        answer: Option<KeyAnswer>,
    },
}

impl Pool {
    /// A request has arrived over a connection.
    pub(crate) fn asked(&mut self, now: Instant, from: SocketAddr, bytes: &Bytes) -> Asked {
        let content = match self.envelope.unwrap(bytes) {
            Ok(content) => content,
            Err(error) => {
                self.unreadable(now, from, error);
                // Whoever knocks at the wrong pool, or with the wrong key, is told which pool this is.
                return match error {
                    Malformed::Label | Malformed::Key => {
                        Asked::Answered(self.envelope.front_only())
                    }
                    _ => Asked::Ignored,
                };
            }
        };
        let request = match Request::decode(&content) {
            Ok(request) => request,
            Err(error) => {
                self.unreadable(now, from, error);
                return Asked::Ignored;
            }
        };
        let answer = match request {
            Request::Ping => Answer::Pong(self.local.identity),
            Request::Keys(operation) => {
                self.clocks.query += 1;
                match self.keys(&operation) {
                    Ok(answer) => Answer::Keys(answer),
                    Err(change) => return Asked::Change(change),
                }
            }
            // An agent that is told to join the addresses of all meets itself; there is nothing to compare.
            Request::Compare(compare)
                if compare.own.identity.id == self.local.identity.id
                    && compare.own.identity.address == self.local.identity.address =>
            {
                Answer::Taken
            }
            Request::Compare(compare) => match self.compared(now, &compare) {
                Ok(compared) => Answer::Compared(Box::new(compared)),
                Err(reason) => Answer::Refused(reason),
            },
            Request::Give(given) => match self.take(now, &given, None) {
                Ok(()) => Answer::Taken,
                Err(reason) => Answer::Refused(reason),
            },
        };
        Asked::Answered(self.envelope.wrap(&answer.encode(), &mut self.chance))
    }

    /// A request of ours was answered, or not.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        to: SocketAddr,
        purpose: Purpose,
        result: io::Result<Bytes>,
    ) -> Outcome {
        let answer = self.read_answer(result);
        match purpose {
            Purpose::Ping { target, number } => {
                if let Ok(Answer::Pong(identity)) = answer
                    && identity == target
                {
                    self.connection_answered(now, target, number);
                }
                Outcome::Done
            }
            Purpose::Compare => {
                if let Err(reason) = self.compare_answered(now, to, answer, true, LTIME_STEP_MAX) {
                    tracing::debug!(%to, reason, "a comparison came to nothing");
                }
                Outcome::Done
            }
            Purpose::Join {
                caller,
                replay_events,
            } => {
                // Whoever is asked for by its address is believed whatever its clocks say.
                let result = self.compare_answered(now, to, answer, replay_events, LTIME_MAX);
                if result.is_ok() {
                    self.announce();
                    self.compare_soon(now);
                }
                Outcome::Joined { caller, result }
            }
            Purpose::Give => {
                if let Ok(Answer::Refused(reason)) = answer {
                    tracing::debug!(%to, reason, "what was wanted was refused");
                }
                Outcome::Done
            }
            Purpose::Keys { caller, name } => Outcome::Keys {
                caller,
                name,
                answer: match answer {
                    Ok(Answer::Keys(answer)) => Some(answer),
                    _ => None,
                },
            },
        }
    }

    fn read_answer(&mut self, result: io::Result<Bytes>) -> Result<Answer, String> {
        let bytes = result.map_err(|error| error.to_string())?;
        let content = self.envelope.unwrap(&bytes).map_err(|error| {
            let theirs = packet::front_of(&bytes);
            let is_keyed = self.envelope.keyring.is_some();
            match (error, theirs) {
                (Malformed::Label, Some(front)) => {
                    format!("the pool there is '{}'", front.label)
                }
                (_, Some(front)) if front.is_all => match (is_keyed, front.is_sealed) {
                    (true, false) => String::from("the pool there is not encrypted, this one is"),
                    (false, true) => String::from("the pool there is encrypted, this one is not"),
                    _ => String::from("the pool there is encrypted with another key"),
                },
                _ => error.to_string(),
            }
        })?;
        Answer::decode(&content).map_err(|error| error.to_string())
    }

    /// Joins the pool of whoever listens there.
    pub(crate) fn join(&mut self, now: Instant, to: SocketAddr, caller: u64, replay_events: bool) {
        if self.local.farewell == Farewell::Gone {
            self.come_back(now);
        }
        let purpose = Purpose::Join {
            caller,
            replay_events,
        };
        self.compare_with(to, purpose);
    }

    /// Takes a good-bye back.
    fn come_back(&mut self, now: Instant) {
        self.local.farewell = Farewell::Staying;
        self.local.since = now;
        Arc::make_mut(&mut self.local.record).leaving = false;
        self.renew_above(now, self.local.identity.generation);
    }

    pub(super) fn compare_due(&mut self, now: Instant) {
        self.compare_with_any();
        let mut interval = self.timing.sync_interval;
        if self.size() > 32 {
            // The logarithm to base 2, rounded up, beyond that of 32.
            let doublings = (self.size() - 1).ilog2() + 1 - 5;
            interval *= doublings + 1;
        }
        self.timers.on_wall(now + interval, Due::Compare);
    }

    fn compare_with_any(&mut self) {
        if self.local.farewell > Farewell::Announcing {
            return;
        }
        if let Some(id) = self.choose(1, |_| true).pop()
            && let Some(entry) = self.entries.get(&id)
        {
            let to = entry.identity.address;
            self.compare_with(to, Purpose::Compare);
        }
    }

    /// The pool seems to be forming.
    pub(super) fn compare_soon(&mut self, now: Instant) {
        if !self.compares_soon {
            self.compares_soon = true;
            self.newcomers = 0;
            let delay = SOON.mul_f64(self.chance.random_range(0.5..1.5));
            self.timers.on_wall(now + delay, Due::CompareSoon);
        }
    }

    pub(super) fn has_many_newcomers(&self) -> bool {
        self.newcomers > NEWCOMERS_MANY.max(self.size() / NEWCOMERS_PART)
    }

    pub(super) fn compare_soon_due(&mut self, now: Instant) {
        self.compares_soon = false;
        let is_forming = self.has_many_newcomers();
        self.compare_with_any();
        if is_forming {
            self.compare_soon(now);
        }
    }

    pub(super) fn compare_with(&mut self, to: SocketAddr, purpose: Purpose) {
        let compare = Compare {
            is_join: matches!(purpose, Purpose::Join { .. }),
            own: self.own(),
            clocks: self.clocks,
            members: self.summaries(),
            events: self.events.keys().copied().collect(),
        };
        let request = Request::Compare(Box::new(compare)).encode();
        self.request(to, &request, purpose);
    }

    fn summaries(&self) -> Vec<Summary> {
        let own = Summary {
            id: self.local.identity.id,
            version: self.own_version(),
        };
        let others = self.entries.iter().map(|(id, entry)| Summary {
            id: *id,
            version: version(entry),
        });
        others.chain([own]).collect()
    }

    fn own_version(&self) -> Version {
        let identity = &self.local.identity;
        let standing = match self.local.farewell {
            Farewell::Staying | Farewell::Announcing => Standing::Alive,
            Farewell::Going | Farewell::Gone => Standing::Left,
        };
        let record = (identity.generation, self.local.record.revision, false);
        Version::new(
            identity.generation,
            self.local.incarnation,
            standing,
            record,
        )
    }

    /// The other side of a comparison: what we know better, and what we want.
    fn compared(&mut self, now: Instant, compare: &Compare) -> Result<Compared, String> {
        let sender = compare.own.identity.id;
        if sender == self.local.identity.id {
            self.hear_alive(now, &compare.own, compare.own.identity.generation);
            return Err(format!(
                "member name '{}' is taken by {}",
                self.local.record.name, self.local.identity.address
            ));
        }
        self.judge(&compare.own)?;
        // Sorted once and searched, which is several times as fast as a map of it.
        let mut theirs: Vec<_> = compare.members.iter().map(|s| (s.id, s.version)).collect();
        theirs.sort_unstable_by_key(|(id, _)| *id);
        let find = |id: &Id| {
            let found = theirs.binary_search_by_key(id, |(id, _)| *id);
            found.ok().map(|at| &theirs[at].1)
        };
        let mut given = Given::default();
        let mut wanted = Vec::new();
        for (id, entry) in &self.entries {
            let ours = version(entry);
            let is_better = match find(id) {
                Some(theirs) => {
                    if theirs.is_partly_later_than(&ours) {
                        wanted.push(*id);
                    }
                    ours.is_partly_later_than(theirs)
                }
                None => true,
            };
            // Whoever restarted and forgot its earlier life hears from us that it had one.
            let is_other = *id == sender
                && (entry.record.name != compare.own.record.name
                    || entry.record.tags != compare.own.record.tags
                    || entry.identity.address != compare.own.identity.address);
            if is_better || is_other {
                given.members.push(known(entry, now));
            }
        }
        for (id, version) in &theirs {
            let is_own = *id == self.local.identity.id;
            if (is_own && version.is_partly_later_than(&self.own_version()))
                || (!is_own && !self.entries.contains_key(id))
            {
                wanted.push(*id);
            }
        }
        let wanted_events = compare
            .events
            .iter()
            .filter(|key| key.ltime >= self.events_from && !self.events.contains_key(key))
            .copied()
            .collect();
        for (key, event) in &self.events {
            if compare.events.binary_search(key).is_err() {
                given.events.push(event.clone());
            }
        }
        self.witness(compare.clocks, LTIME_STEP_MAX);
        self.hear_alive(now, &compare.own, compare.own.identity.generation);
        Ok(Compared {
            own: self.own(),
            clocks: self.clocks,
            wanted,
            wanted_events,
            given,
        })
    }

    /// Our side of a comparison.
    fn compare_answered(
        &mut self,
        now: Instant,
        to: SocketAddr,
        answer: Result<Answer, String>,
        replay_events: bool,
        step: u64,
    ) -> Result<(), String> {
        let compared = match answer? {
            Answer::Compared(compared) => compared,
            // That was this member itself.
            Answer::Taken => return Ok(()),
            Answer::Refused(reason) => return Err(reason),
            _ => return Err(String::from("an answer to another question")),
        };
        if compared.own.identity.id == self.local.identity.id {
            return Err(String::from("the member there has this member's name"));
        }
        self.judge(&compared.own)?;
        for known in &compared.given.members {
            self.judge(&known.alive)?;
        }
        self.witness(compared.clocks, step);
        if !replay_events {
            self.events_from = self
                .events_from
                .max(compared.clocks.event.min(self.clocks.event));
        }
        let sender = compared.own.identity;
        self.hear_alive(now, &compared.own, sender.generation);
        self.take(now, &compared.given, Some(sender.id))?;

        let own = self.local.identity.id;
        let mut given = Given::default();
        for id in &compared.wanted {
            if *id == own {
                given.members.push(self.known_own());
            } else if let Some(entry) = self.entries.get(id) {
                given.members.push(known(entry, now));
            }
        }
        for key in &compared.wanted_events {
            given.events.extend(self.events.get(key).cloned());
        }
        if !given.members.is_empty() || !given.events.is_empty() {
            let request = Request::Give(given).encode();
            self.request(to, &request, Purpose::Give);
        }
        Ok(())
    }

    fn known_own(&self) -> Known {
        Known {
            alive: self.own(),
            record_generation: self.local.identity.generation,
            standing: self.own_version().standing,
            is_forced: false,
            age: 0,
        }
    }

    /// Takes somebody's clocks for true as far as they are at most so much ahead.
    fn witness(&mut self, clocks: Clocks, step: u64) {
        for (own, theirs) in [
            (&mut self.clocks.member, clocks.member),
            (&mut self.clocks.event, clocks.event),
            (&mut self.clocks.query, clocks.query),
        ] {
            if theirs < LTIME_MAX && theirs <= own.saturating_add(step) {
                *own = (*own).max(theirs);
            }
        }
    }

    /// Whether somebody may be in this pool.
    fn judge(&self, alive: &Alive) -> Result<(), String> {
        if alive.identity.id == self.local.identity.id {
            return Ok(());
        }
        let shown = Shown {
            record: Arc::clone(&alive.record),
            address: alive.identity.address,
            status: Status::Alive,
            since: self.local.since,
        };
        (self.admit)(&shown.member())
    }

    /// Takes what somebody else knows better. All of it or nothing.
    pub(super) fn take(
        &mut self,
        now: Instant,
        given: &Given,
        from: Option<Id>,
    ) -> Result<(), String> {
        for known in &given.members {
            self.judge(&known.alive)?;
        }
        for known in &given.members {
            self.take_known(now, known, from);
        }
        for event in &given.events {
            self.hear_event(event.clone());
        }
        Ok(())
    }

    fn take_known(&mut self, now: Instant, known: &Known, from: Option<Id>) {
        let identity = known.alive.identity;
        let incarnation = known.alive.incarnation;
        let id = identity.id;
        let is_own = id == self.local.identity.id;
        if known.record_generation > identity.generation {
            return;
        }
        if !is_own && !self.entries.contains_key(&id) && known.standing >= Standing::Down {
            return self.take_gone(now, known);
        }
        let down = Down {
            identity,
            incarnation,
            left: known.standing == Standing::Left,
        };
        if is_own && known.standing >= Standing::Down {
            return if identity.address == self.local.identity.address {
                self.hear_down(now, down);
            } else {
                // Nobody has our name any more, but it was had later than we think.
                self.renew_above(now, identity.generation);
            };
        }
        if known.standing < Standing::Down {
            self.hear_alive(now, &known.alive, known.record_generation);
        }
        match known.standing {
            Standing::Alive => {}
            Standing::Suspect => {
                let from = from.unwrap_or(id);
                self.hear_suspect(
                    now,
                    Suspect {
                        identity,
                        incarnation,
                        from,
                    },
                );
            }
            Standing::Left => self.hear_down(now, down),
            Standing::Down => {
                let entry = self.entries.get(&id);
                let is_live = entry
                    .is_some_and(|entry| entry.identity == identity && !entry.standing.is_down());
                if is_live {
                    // It may be that only the other side lost it: it shall be able to refute that.
                    let suspect = Suspect {
                        identity,
                        incarnation: incarnation.max(entry.map_or(0, |entry| entry.incarnation)),
                        from: from.unwrap_or(id),
                    };
                    self.hear_suspect(now, suspect);
                } else {
                    self.hear_down(now, down);
                }
            }
        }
        if known.is_forced {
            let leave = Leave {
                id,
                generation: known.record_generation,
                revision: known.alive.record.revision,
                time: 0,
            };
            self.hear_leave(now, leave);
        }
    }

    /// Somebody unknown is gone already. Who leads must know, or its traces would never be cleared away.
    fn take_gone(&mut self, now: Instant, known: &Known) {
        let left =
            known.standing == Standing::Left || known.is_forced || known.alive.record.leaving;
        let kept = if left {
            self.tombstone_timeout
        } else {
            self.reconnect_timeout
        };
        let age = Duration::from_secs(u64::from(known.age));
        if age >= kept
            || self.entries.len() >= MEMBERS_MAX
            || !is_near(known.alive.identity.generation, 0)
            || !is_near(known.alive.record.revision, 0)
        {
            return;
        }
        let id = known.alive.identity.id;
        let place = self.enlist(id, true);
        let since = now.checked_sub(age).unwrap_or(now);
        let entry = Entry {
            identity: known.alive.identity,
            incarnation: known.alive.incarnation,
            record: Arc::clone(&known.alive.record),
            record_generation: known.record_generation,
            forced: known
                .is_forced
                .then_some((known.record_generation, known.alive.record.revision)),
            standing: Swim::Down { since, left },
            status: if left { Status::Left } else { Status::Failed },
            since,
            place,
            coordinate: None,
        };
        let shown = entry.shown();
        let (identity, incarnation, status) = (entry.identity, entry.incarnation, entry.status);
        self.entries.insert(id, entry);
        self.count(status, 1);
        self.core_apply(now, identity, incarnation, foca::State::Down);
        self.outputs.push(Output::Show(id, shown.clone()));
        self.tell(if left {
            Event::Left(shown.member())
        } else {
            Event::Failed(shown.member())
        });
    }
}

fn standing(entry: &Entry) -> Standing {
    match entry.standing {
        Swim::Alive => Standing::Alive,
        Swim::Suspect(_) => Standing::Suspect,
        Swim::Down { left: false, .. } => Standing::Down,
        Swim::Down { left: true, .. } => Standing::Left,
    }
}

fn version(entry: &Entry) -> Version {
    let record = (
        entry.record_generation,
        entry.record.revision,
        entry.is_forced(),
    );
    Version::new(
        entry.identity.generation,
        entry.incarnation,
        standing(entry),
        record,
    )
}

fn known(entry: &Entry, now: Instant) -> Known {
    let age = match entry.standing {
        Swim::Down { since, .. } => now.saturating_duration_since(since).as_secs(),
        Swim::Alive | Swim::Suspect(_) => 0,
    };
    Known {
        alive: entry.alive(),
        record_generation: entry.record_generation,
        standing: standing(entry),
        is_forced: entry.is_forced(),
        age: u32::try_from(age).unwrap_or(u32::MAX),
    }
}
