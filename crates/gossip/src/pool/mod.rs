//! The state of a pool as one member sees it: a machine that is told what happens and says what to do.
//!
//! Nothing here waits, sends or looks at a clock. The driver calls in with the time and takes [`Output`]s away.
//!
//! What is heard is judged in `news.rs`; `probe.rs` talks with the SWIM core; `compare.rs` is the comparison of all
//! that two members know; here are the timers, the broadcasts, and what callers want.

mod compare;
mod news;
mod pace;
mod probe;
mod queue;
mod suspicion;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::config::{Admit, Config, Timing};
use crate::coordinate::{Client, Coordinate};
use crate::event::{Event, UserEvent};
use crate::exchange::{Clocks, EventKey, KeyAnswer, Request};
use crate::fields::Malformed;
use crate::figures;
use crate::handle::{KeyOperation, Shown, Stats};
use crate::identity::{Id, Identity};
use crate::item::{Alive, Down, Item, Leave, Record};
use crate::keyring::Change;
use crate::member::Status;
use crate::network::Screen;
use crate::packet::{self, Envelope, Section};

use self::pace::{Pace, Seldom};
use self::probe::{Core, Probe, Relay, Wishes};
use self::queue::{Queue, Subject};
use self::suspicion::Suspicion;
use self::timers::{TimerKey, Timers};

pub(crate) use self::compare::{Asked, Outcome};

/// How often the long gone are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(15);

/// How often a failed member may be tried.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(30);

/// After what time this member claims its name again if somebody else seems to have it. It doubles with each claim,
/// since each is a new life that the whole pool hears of.
const CLAIM_INTERVAL: Duration = Duration::from_secs(5);

/// At most so often does it double.
const CLAIM_DOUBLINGS: u32 = 4;

/// After what time without a rival the claims begin anew.
const CLAIM_REST: Duration = Duration::from_secs(600);

/// How often something is logged that lasts.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// How often this member tells strangers of itself or of others: their addresses may be false, and such an answer is
/// many times as long as the question.
const STRANGERS_INTERVAL: Duration = Duration::from_millis(20);

/// How many strangers may ask at once after a time of rest.
const STRANGERS_BURST: u32 = 100;

/// How long a step of a good-bye may take.
const LEAVE_TIMEOUT: Duration = crate::handle::BROADCAST_TIMEOUT;

/// How many recent user events are remembered, to tell them once only and to hand them on.
const EVENTS_REMEMBERED: usize = crate::exchange::EVENT_KEYS_MAX;

/// The most members that are known. More are not let in: somebody is making them up.
const MEMBERS_MAX: usize = 65_536;

/// No clock goes beyond this.
const LTIME_MAX: u64 = 1 << 62;

/// A clock that somebody tells is believed so far ahead of ours, so that no packet can wind ours to its end. The pool
/// that this member wants to join is believed whatever it says.
const LTIME_STEP_MAX: u64 = 1 << 32;

/// How far a generation or the number of a record may be ahead of the one that is known, so that no packet can use up
/// the numbers of a name. Somebody who began a life each minute would need two years for so many.
const STEP_MAX: u32 = 1 << 20;

/// Whether a number that is told of a member may be true, if that one is known.
const fn is_near(told: u32, known: u32) -> bool {
    told <= known.saturating_add(STEP_MAX)
}

/// Something to do, in this order.
#[derive(Debug)]
pub(crate) enum Output {
    /// A datagram to send.
    Send { to: SocketAddr, bytes: Bytes },
    /// A request to make. Its outcome goes to [`Pool::answered`].
    Exchange {
        to: SocketAddr,
        request: Bytes,
        purpose: Purpose,
    },
    /// Something to tell the subscribers.
    Tell(Event),
    /// A member to show, or to show anew.
    Show(Id, Shown),
    /// A member that isn't shown any more.
    Hide(Id),
    /// Where a member is.
    Place(Id, Coordinate),
    /// A good-bye has spread, or had its time.
    Left,
}

/// Why a request is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Probing over a connection.
    Ping { target: Identity, number: u8 },
    /// Comparing, as is done from time to time.
    Compare,
    /// Comparing because a caller, identified by a number, wants to join.
    Join { caller: u64, replay_events: bool },
    /// Giving what the other side wanted.
    Give,
    /// Asking for an operation on keys, for a caller.
    Keys { caller: u64, name: String },
}

/// Something that is due.
#[derive(Debug)]
enum Due {
    /// A timer of the SWIM core.
    Core(foca::Timer<Identity>),
    /// A suspicion may be over.
    Suspicion(Id),
    /// A member that was declared down had time to object.
    Grace(Identity),
    /// A member that was probed for somebody else hasn't answered.
    Nack(u64),
    /// A member that others suspect hasn't answered us either, unless it has.
    Look(Identity, u8),
    Gossip,
    Compare,
    CompareSoon,
    Reap,
    Reconnect,
    Claim,
    Leave,
}

/// See the module's page.
pub(crate) struct Pool {
    timing: Timing,
    reconnect_timeout: Duration,
    tombstone_timeout: Duration,
    admit: Admit,
    envelope: Envelope,
    chance: ChaCha8Rng,
    core: Core,
    wishes: Wishes,
    local: Local,
    /// The others.
    entries: BTreeMap<Id, Entry>,
    /// Those that are not down, to choose from.
    active: Vec<Id>,
    /// Those that are.
    gone: Vec<Id>,
    /// Until when somebody is among them who is still told.
    gone_told_until: Instant,
    queue: Queue,
    timers: Timers<Due>,
    probe: Option<Probe>,
    relays: BTreeMap<u64, Relay>,
    relays_begun: u64,
    /// Members that others suspect and that we have asked ourselves, and under which number.
    looked_at: BTreeMap<Id, (Identity, u8)>,
    looks: u8,
    /// The local health score: how much slower than the pace this member had better judge others.
    health: u32,
    clocks: Clocks,
    events: BTreeMap<EventKey, UserEvent>,
    /// User events from before this time are not told.
    events_from: u64,
    coordinates: Option<Client>,
    /// Members that joined since the last comparison, which tells whether the pool is forming.
    newcomers: usize,
    compares_soon: bool,
    /// Members that were refused once, so that it is said once.
    refused: BTreeSet<Id>,
    /// The timers of suspicions, one for each member that is or was suspected.
    suspicion_timers: BTreeMap<Id, TimerKey>,
    strangers: Pace,
    unreadable_said: Seldom,
    rival_said: Seldom,
    stats: Stats,
    outputs: Vec<Output>,
}

/// This member itself.
#[derive(Debug)]
struct Local {
    identity: Identity,
    incarnation: u16,
    record: Arc<Record>,
    farewell: Farewell,
    since: Instant,
    /// Whether somebody else has this name.
    has_rival: bool,
    /// How often it was claimed, and when last.
    claims: (u32, Instant),
}

/// How far a good-bye has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Farewell {
    Staying,
    /// The others are told that it will go.
    Announcing,
    /// The others are told that it is gone.
    Going,
    Gone,
}

/// Another member.
#[derive(Debug)]
struct Entry {
    identity: Identity,
    incarnation: u16,
    record: Arc<Record>,
    /// The generation that its record is from: its own, or an earlier one as long as it hasn't introduced itself.
    record_generation: u32,
    /// Up to which record somebody has said good-bye for it.
    forced: Option<(u32, u32)>,
    standing: Swim,
    /// What is shown.
    status: Status,
    since: Instant,
    /// Its place in the list of the active, or of the gone.
    place: usize,
    coordinate: Option<Coordinate>,
}

/// How a member stands, as SWIM says it.
#[derive(Debug)]
enum Swim {
    Alive,
    Suspect(Suspicion),
    Down {
        since: Instant,
        /// With a good-bye.
        left: bool,
    },
}

impl Swim {
    const fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }
}

impl Entry {
    /// Whether it is down and had its time to object, so that somebody else may have the name.
    const fn is_gone(&self) -> bool {
        self.standing.is_down() && matches!(self.status, Status::Failed | Status::Left)
    }

    const fn is_suspect(&self) -> bool {
        matches!(self.standing, Swim::Suspect(_))
    }

    /// Whether a good-bye was said, by itself or for it.
    fn is_leaving(&self) -> bool {
        self.record.leaving || self.is_forced()
    }

    fn is_forced(&self) -> bool {
        self.forced
            .is_some_and(|forced| forced >= (self.record_generation, self.record.revision))
    }

    fn alive(&self) -> Alive {
        Alive {
            identity: self.identity,
            incarnation: self.incarnation,
            record: Arc::clone(&self.record),
        }
    }

    fn shown(&self) -> Shown {
        Shown {
            record: Arc::clone(&self.record),
            address: self.identity.address,
            status: self.status,
            since: self.since,
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of one. The configuration was checked.
    pub(crate) fn new(config: Config, address: SocketAddr, now: Instant) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(config.seed);
        let id = Id::of(&config.name);
        let identity = Identity {
            id,
            generation: 1,
            address,
        };
        let record = Record {
            revision: 1,
            time: 1,
            leaving: false,
            name: config.name,
            tags: config.tags,
            protocol: config.protocol,
            delegate: config.delegate,
        };
        let timing = config.timing;
        let core_chance = ChaCha8Rng::from_rng(&mut chance);
        let coordinates = config.coordinates.then(|| Client::new(chance.random()));
        let mut pool = Self {
            timing,
            reconnect_timeout: config.reconnect_timeout,
            tombstone_timeout: config.tombstone_timeout,
            admit: config.admit,
            envelope: Envelope::new(config.label, config.keyring),
            core: probe::core(identity, &timing, core_chance),
            chance,
            wishes: Wishes::default(),
            local: Local {
                identity,
                incarnation: 0,
                record: Arc::new(record),
                farewell: Farewell::Staying,
                since: now,
                has_rival: false,
                claims: (0, now),
            },
            entries: BTreeMap::new(),
            active: Vec::new(),
            gone: Vec::new(),
            gone_told_until: now,
            queue: Queue::default(),
            timers: Timers::new(now, timing.probe_timeout / 5),
            probe: None,
            relays: BTreeMap::new(),
            relays_begun: 0,
            looked_at: BTreeMap::new(),
            looks: 0,
            health: 0,
            clocks: Clocks {
                member: 1,
                event: 1,
                query: 1,
            },
            events: BTreeMap::new(),
            events_from: 0,
            coordinates,
            newcomers: 0,
            compares_soon: false,
            refused: BTreeSet::new(),
            suspicion_timers: BTreeMap::new(),
            strangers: Pace::new(STRANGERS_INTERVAL, STRANGERS_BURST, now),
            unreadable_said: Seldom::new(SAY_INTERVAL),
            rival_said: Seldom::new(CLAIM_REST),
            stats: Stats::default(),
            outputs: Vec::new(),
        };
        // Not all members of a pool that starts at once shall do these at the same moment.
        for (interval, due) in [
            (timing.gossip_interval, Due::Gossip),
            (timing.sync_interval, Due::Compare),
            (REAP_INTERVAL, Due::Reap),
            (RECONNECT_INTERVAL, Due::Reconnect),
        ] {
            let begin = interval.mul_f64(pool.chance.random_range(0.0..1.0));
            pool.timers.on_wall(now + begin, due);
        }
        pool.show_local();
        pool.place_local();
        pool
    }

    /// Goes on with clocks and place that were known before a restart.
    pub(crate) fn remember(&mut self, clocks: Clocks, coordinate: Option<Coordinate>) {
        for (own, before) in [
            (&mut self.clocks.member, clocks.member),
            (&mut self.clocks.event, clocks.event),
            (&mut self.clocks.query, clocks.query),
        ] {
            // Beyond that it is damage.
            if before < LTIME_MAX {
                *own = (*own).max(before);
            }
        }
        if clocks.event < LTIME_MAX {
            self.events_from = clocks.event;
        }
        if let (Some(client), Some(coordinate)) = (&mut self.coordinates, coordinate)
            && client.restore(coordinate).is_ok()
        {
            self.place_local();
        }
    }

    pub(crate) fn screen(&self) -> Screen {
        self.envelope.screen()
    }

    pub(crate) const fn local_id(&self) -> Id {
        self.local.identity.id
    }

    pub(crate) const fn clocks(&self) -> Clocks {
        self.clocks
    }

    /// What is to be done since the last call.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// To be called whenever the driver gets to run, before it tells anything else.
    pub(crate) fn notice(&mut self, now: Instant) {
        if let Some(held) = self.timers.notice(now) {
            tracing::debug!(
                ?held,
                "this process was held up; its suspicions wait as long"
            );
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(due) = self.timers.take(now) {
            match due {
                Due::Core(timer) => self.core_timer(now, timer),
                Due::Suspicion(id) => {
                    self.suspicion_timers.remove(&id);
                    self.suspicion_due(now, id);
                }
                Due::Grace(identity) => self.grace_due(now, identity),
                Due::Nack(relay) => self.nack_due(relay),
                Due::Look(suspect, number) => self.look_due(now, suspect, number),
                Due::Gossip => {
                    self.gossip(now);
                    self.timers
                        .on_wall(now + self.timing.gossip_interval, Due::Gossip);
                }
                Due::Compare => self.compare_due(now),
                Due::CompareSoon => self.compare_soon_due(now),
                Due::Reap => {
                    self.reap(now);
                    self.timers.on_wall(now + REAP_INTERVAL, Due::Reap);
                }
                Due::Reconnect => {
                    self.reconnect();
                    self.timers
                        .on_wall(now + RECONNECT_INTERVAL, Due::Reconnect);
                }
                Due::Claim => self.claim(now),
                Due::Leave => self.leave_on(now),
            }
        }
        if self.local.farewell != Farewell::Staying && self.farewell_has_spread() {
            self.leave_on(now);
        }
    }

    /// A datagram has arrived.
    pub(crate) fn datagram(&mut self, now: Instant, from: SocketAddr, bytes: &Bytes) {
        let content = match self.envelope.unwrap(bytes) {
            Ok(content) => content,
            Err(error) => return self.unreadable(now, from, error),
        };
        let sections = match packet::sections(&content) {
            Ok(sections) => sections,
            Err(error) => return self.unreadable(now, from, error),
        };
        // Where the sender is belongs to the answer that it came with, whichever stands first.
        let mut coordinate = None;
        for section in &sections {
            if let Section::Item { kind, content } = section {
                match self.item(now, from, *kind, content) {
                    Ok(Some(place)) => coordinate = Some(place),
                    Ok(None) => {}
                    Err(error) => return self.unreadable(now, from, error),
                }
            }
        }
        for section in sections {
            if let Section::Core(header) = section {
                self.core_message(now, from, header, coordinate.take());
            }
        }
    }

    fn unreadable(&mut self, now: Instant, from: SocketAddr, error: Malformed) {
        if error == Malformed::Label {
            self.stats.foreign_packets += 1;
        } else {
            self.stats.unreadable_packets += 1;
        }
        tracing::debug!(%from, %error, "a gossip packet was rejected");
        if error == Malformed::Key
            && let Some(packets) = self.unreadable_said.note(now)
        {
            tracing::warn!(
                %from,
                packets,
                "gossip was rejected that is encrypted with another key than this member's, or not at all"
            );
        }
    }

    /// One piece of a datagram; returns the sender's place if it is one.
    fn item(
        &mut self,
        now: Instant,
        from: SocketAddr,
        kind: u8,
        content: &[u8],
    ) -> Result<Option<Coordinate>, Malformed> {
        // Most of what is heard is known already, and most of it is the long introductions.
        if self.knows_already(kind, content) {
            return Ok(None);
        }
        let item = Item::decode(kind, content)?;
        if let Some(item) = &item {
            figures::heard(item);
            if matches!(item, Item::Leave(_) | Item::User(_)) {
                figures::received(content.len());
            }
        }
        match item {
            Some(Item::Alive(alive)) => {
                let generation = alive.identity.generation;
                self.hear_alive(now, &alive, generation);
            }
            Some(Item::Suspect(suspect)) => self.hear_suspect(now, suspect),
            Some(Item::Down(down)) => self.hear_down(now, down),
            Some(Item::Leave(leave)) => self.hear_leave(now, leave),
            Some(Item::User(event)) => self.hear_event(event),
            Some(Item::Nack { number, target }) => self.hear_nack(number, target),
            Some(Item::Who) => self.introduce_to_stranger(now, from),
            Some(Item::Coordinate(coordinate)) => return Ok(Some(coordinate)),
            None => {}
        }
        Ok(None)
    }

    /// How many are in the pool, this one included, and not down.
    fn size(&self) -> usize {
        self.active.len() + 1
    }

    /// How many are in the pool as far as anybody knows, those down but not reported yet included.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            encrypted: self.envelope.keyring.is_some(),
            event_queue: self.queue.events(),
            event_time: self.clocks.event,
            health_score: self.health,
            intent_queue: self.queue.intents(),
            member_time: self.clocks.member,
            members: self.entries.len() + 1,
            query_time: self.clocks.query,
            ..self.stats.clone()
        }
    }

    // What callers want.

    /// Sends a user event, and returns its time.
    pub(crate) fn user_event(&mut self, name: String, payload: Bytes, coalesce: bool) -> u64 {
        let event = UserEvent {
            ltime: self.clocks.event,
            name,
            payload,
            coalesce,
        };
        let ltime = event.ltime;
        self.events_from = self.events_from.min(ltime);
        self.hear_event(event);
        ltime
    }

    /// Tells something else of this member. The tags were checked.
    pub(crate) fn set_tags(&mut self, tags: BTreeMap<String, String>) {
        if self.local.record.tags == tags {
            return;
        }
        self.change_record(|record| record.tags = tags);
        if let Some(member) = self.shown(self.local.identity.id) {
            self.tell(Event::Updated(member.member()));
        }
    }

    /// Says good-bye. [`Output::Left`] comes when that is done.
    pub(crate) fn leave(&mut self, now: Instant) {
        if self.local.farewell != Farewell::Staying {
            return;
        }
        self.local.farewell = Farewell::Announcing;
        self.change_record(|record| record.leaving = true);
        self.timers.on_wall(now + LEAVE_TIMEOUT, Due::Leave);
    }

    /// Whether a good-bye is being said.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.local.farewell, Farewell::Announcing | Farewell::Going)
    }

    /// Whether no other member is there.
    pub(crate) fn is_alone(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether a member is known, be it gone.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.entries.contains_key(&Id::of(name))
    }

    pub(crate) fn has_left(&self) -> bool {
        self.local.farewell == Farewell::Gone
    }

    /// Says good-bye for another member.
    pub(crate) fn force_leave(&mut self, now: Instant, name: &str) {
        let id = Id::of(name);
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let time = self.clocks.member;
        let leave = Leave {
            id,
            generation: entry.record_generation,
            revision: entry.record.revision,
            time,
        };
        self.hear_leave(now, leave);
    }

    /// Does something with this member's own keys, or says which change is to be made first.
    pub(crate) fn keys(&self, operation: &KeyOperation) -> Result<KeyAnswer, Change> {
        let refused = |why: &str| KeyAnswer {
            error: String::from(why),
            ..KeyAnswer::default()
        };
        match (&self.envelope.keyring, operation) {
            (None, KeyOperation::List) => Ok(refused("Keyring is empty (encryption not enabled)")),
            (None, _) => Ok(refused("No keyring to modify (encryption not enabled)")),
            (Some(keyring), KeyOperation::List) => Ok(KeyAnswer {
                keys: keyring.list(),
                ..KeyAnswer::default()
            }),
            (Some(keyring), operation) => Err(Change {
                keyring: keyring.clone(),
                operation: operation.clone(),
            }),
        }
    }

    /// What somebody is told who asked for an operation on keys.
    pub(crate) fn keys_answer(&mut self, answer: KeyAnswer) -> Bytes {
        let answer = crate::exchange::Answer::Keys(answer).encode();
        self.envelope.wrap(&answer, &mut self.chance)
    }

    /// Asks all others that are alive to do something with their keys, and returns how many.
    pub(crate) fn ask_keys(&mut self, operation: &KeyOperation, caller: u64) -> usize {
        self.clocks.query += 1;
        let request = Request::Keys(operation.clone()).encode();
        for id in self.active.clone() {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let purpose = Purpose::Keys {
                caller,
                name: entry.record.name.clone(),
            };
            let to = entry.identity.address;
            self.request(to, &request, purpose);
        }
        self.active.len()
    }

    // Sending.

    fn request(&mut self, to: SocketAddr, request: &[u8], purpose: Purpose) {
        let request = self.envelope.wrap(request, &mut self.chance);
        self.outputs.push(Output::Exchange {
            to,
            request,
            purpose,
        });
    }

    /// Sends sections, and with them as much news as fits.
    ///
    /// Only for members where they are known to be: what goes to anybody else would count as passed on as well.
    fn post(&mut self, to: SocketAddr, mut sections: Vec<u8>) {
        let limit = self.timing.retransmit_factor * suspicion::logarithm(self.size());
        let room = self.envelope.room();
        self.queue.fill(&mut sections, room, limit);
        self.post_alone(to, &sections);
    }

    /// Sends sections and nothing else: news that go to somebody who is likely dead would count as passed on.
    fn post_alone(&mut self, to: SocketAddr, sections: &[u8]) {
        if !sections.is_empty() {
            let bytes = self.envelope.wrap(sections, &mut self.chance);
            self.outputs.push(Output::Send { to, bytes });
        }
    }

    fn broadcast(&mut self, subject: Subject, item: &Item) {
        let section = item.encode();
        if matches!(subject, Subject::Leave(_) | Subject::User(..)) {
            figures::passed_on(section.len());
        }
        self.queue.push(subject, section);
    }

    /// Passes news on to some members.
    fn gossip(&mut self, now: Instant) {
        if now < self.gone_told_until {
            self.tell_gone(now);
        }
        if self.queue.is_empty() {
            return;
        }
        // Who is suspected hears of that in other ways.
        for id in self.choose(self.timing.gossip_fan_out, |entry| !entry.is_suspect()) {
            if let Some(entry) = self.entries.get(&id) {
                self.post(entry.identity.address, Vec::new());
            }
        }
    }

    /// Now and then tells a member that was declared down not long ago, so that it comes back if it lives.
    fn tell_gone(&mut self, now: Instant) {
        // All members together send about as many as the fan-out.
        let others = u32::try_from(self.active.len()).unwrap_or(u32::MAX).max(1);
        let fan_out = u32::try_from(self.timing.gossip_fan_out).unwrap_or(u32::MAX);
        if !self.chance.random_ratio(fan_out.min(others), others) || self.gone.is_empty() {
            return;
        }
        let chosen = self.chance.random_range(0..self.gone.len());
        let Some(entry) = self.entries.get(&self.gone[chosen]) else {
            return;
        };
        if let Swim::Down { since, left: false } = entry.standing
            && now < since + self.timing.gossip_to_dead
        {
            let (to, item) = (entry.identity.address, self.about(entry));
            self.post_alone(to, &item.encode());
        }
    }

    /// The news that a member is as this one knows it.
    fn about(&self, entry: &Entry) -> Item {
        if let Swim::Down { left, .. } = entry.standing {
            return Item::Down(Down {
                identity: entry.identity,
                incarnation: entry.incarnation,
                left,
            });
        }
        Item::Alive(entry.alive())
    }

    /// Some active members at random, each once.
    fn choose(&mut self, wanted: usize, fits: impl Fn(&Entry) -> bool) -> Vec<Id> {
        // Of a small pool the whole is shuffled, or some would be missed again and again.
        if self.active.len() <= 4 * wanted {
            let mut all = self.active.clone();
            all.retain(|id| self.entries.get(id).is_some_and(&fits));
            all.shuffle(&mut self.chance);
            all.truncate(wanted);
            return all;
        }
        let mut chosen = Vec::with_capacity(wanted);
        // Where few fit, some draws are in vain.
        for _ in 0..wanted * 4 {
            if chosen.len() == wanted {
                break;
            }
            let id = self.active[self.chance.random_range(0..self.active.len())];
            if !chosen.contains(&id) && self.entries.get(&id).is_some_and(&fits) {
                chosen.push(id);
            }
        }
        chosen
    }

    /// Says who this member is to whoever seems to be there.
    fn introduce_to_stranger(&mut self, now: Instant, to: SocketAddr) {
        if self.strangers.allows(now) {
            self.post_alone(to, &Item::Alive(self.own()).encode());
        }
    }

    fn own(&self) -> Alive {
        Alive {
            identity: self.local.identity,
            incarnation: self.local.incarnation,
            record: Arc::clone(&self.local.record),
        }
    }

    /// Tells everybody that this member is there, as it is now.
    fn announce(&mut self) {
        // Otherwise this would take the place of its good-bye.
        if self.local.farewell <= Farewell::Announcing {
            let item = Item::Alive(self.own());
            self.broadcast(Subject::Member(self.local.identity.id), &item);
        }
        self.show_local();
    }

    fn change_record(&mut self, change: impl FnOnce(&mut Record)) {
        let mut record = Record::clone(&self.local.record);
        record.revision = record.revision.saturating_add(1);
        self.clocks.member += 1;
        record.time = self.clocks.member;
        change(&mut record);
        self.local.record = Arc::new(record);
        self.announce();
    }

    // Showing.

    fn tell(&mut self, event: Event) {
        self.outputs.push(Output::Tell(event));
    }

    fn shown(&self, id: Id) -> Option<Shown> {
        if id == self.local.identity.id {
            return Some(Shown {
                record: Arc::clone(&self.local.record),
                address: self.local.identity.address,
                status: match self.local.farewell {
                    Farewell::Staying => Status::Alive,
                    Farewell::Announcing => Status::Leaving,
                    Farewell::Going | Farewell::Gone => Status::Left,
                },
                since: self.local.since,
            });
        }
        self.entries.get(&id).map(Entry::shown)
    }

    fn show_local(&mut self) {
        let id = self.local.identity.id;
        if let Some(shown) = self.shown(id) {
            self.outputs.push(Output::Show(id, shown));
        }
    }

    fn place_local(&mut self) {
        if let Some(client) = &self.coordinates {
            let place = Output::Place(self.local.identity.id, client.coordinate().clone());
            self.outputs.push(place);
        }
    }

    // What is due from time to time.

    /// Forgets who has been gone for long.
    fn reap(&mut self, now: Instant) {
        let mut reaped = Vec::new();
        for id in &self.gone {
            let Some(entry) = self.entries.get(id) else {
                continue;
            };
            if let Swim::Down { since, left } = entry.standing {
                let kept = if left {
                    self.tombstone_timeout
                } else {
                    self.reconnect_timeout
                };
                if now.saturating_duration_since(since) > kept {
                    reaped.push(*id);
                }
            }
        }
        for id in reaped {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: Id) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        self.unlist(entry.place, entry.standing.is_down());
        self.count(entry.status, -1);
        if let Some(timer) = self.suspicion_timers.remove(&id) {
            self.timers.cancel(timer);
        }
        self.core_forget(entry.identity);
        if let Some(client) = &mut self.coordinates {
            client.forget(&entry.record.name);
        }
        self.outputs.push(Output::Hide(id));
        self.tell(Event::Reaped(entry.shown().member()));
    }

    /// Tries a failed member, the likelier the more there are of them.
    fn reconnect(&mut self) {
        let failed: Vec<_> = self
            .gone
            .iter()
            .filter_map(|id| self.entries.get(id))
            .filter(|entry| matches!(entry.standing, Swim::Down { left: false, .. }))
            .map(|entry| entry.identity.address)
            .collect();
        if failed.is_empty() || self.local.farewell != Farewell::Staying {
            return;
        }
        if self.chance.random_range(0..self.size()) < failed.len() {
            let to = failed[self.chance.random_range(0..failed.len())];
            self.compare_with(to, Purpose::Compare);
        }
    }

    /// Claims this member's name again: whoever had it may be gone by now.
    fn claim(&mut self, now: Instant) {
        if !std::mem::take(&mut self.local.has_rival) {
            return;
        }
        self.renew_above(now, self.local.identity.generation);
        if let Some(id) = self.choose(1, |_| true).pop()
            && let Some(entry) = self.entries.get(&id)
        {
            self.compare_with(entry.identity.address, Purpose::Compare);
        }
    }

    /// The next step of a good-bye.
    fn leave_on(&mut self, now: Instant) {
        match self.local.farewell {
            Farewell::Announcing => {
                self.local.farewell = Farewell::Going;
                self.local.since = now;
                self.core_leave(now);
                let item = Item::Down(Down {
                    identity: self.local.identity,
                    incarnation: self.local.incarnation,
                    left: true,
                });
                self.broadcast(Subject::Member(self.local.identity.id), &item);
                self.show_local();
                self.timers.on_wall(now + LEAVE_TIMEOUT, Due::Leave);
            }
            Farewell::Going => {
                self.local.farewell = Farewell::Gone;
                self.outputs.push(Output::Left);
            }
            Farewell::Staying | Farewell::Gone => {}
        }
    }

    fn farewell_has_spread(&self) -> bool {
        self.active.is_empty() || !self.queue.contains(Subject::Member(self.local.identity.id))
    }

    // The lists to choose from.

    fn enlist(&mut self, id: Id, is_down: bool) -> usize {
        let list = if is_down {
            &mut self.gone
        } else {
            &mut self.active
        };
        list.push(id);
        list.len() - 1
    }

    fn unlist(&mut self, place: usize, is_down: bool) {
        let list = if is_down {
            &mut self.gone
        } else {
            &mut self.active
        };
        list.swap_remove(place);
        if let Some(moved) = list.get(place)
            && let Some(entry) = self.entries.get_mut(moved)
        {
            entry.place = place;
        }
    }

    fn count(&mut self, status: Status, change: isize) {
        let counted = match status {
            Status::Failed => &mut self.stats.failed,
            Status::Left => &mut self.stats.left,
            Status::Alive | Status::Leaving => return,
        };
        *counted = counted.saturating_add_signed(change);
    }
}
