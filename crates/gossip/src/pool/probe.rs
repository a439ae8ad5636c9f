//! The SWIM core: handing it what was heard, doing what it says, and watching its probes.
//!
//! The core decides whom to probe and asks others for help. From its messages, which all pass here, come round-trip
//! times and this member's own health; its timers are ours, so we stretch them while this member is not well and
//! stop them while it doesn't get to run. A suspicion it raises becomes one among those of all members.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Foca, Header, Message, NoCustomBroadcast, Notification, Runtime, State, Timer};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::suspicion::pace;
use super::{Due, Output, Pool, Purpose, is_near};
use crate::config::Timing;
use crate::coordinate::Coordinate;
use crate::exchange::Request;
use crate::fields::Reader;
use crate::figures;
use crate::identity::{Codec, Id, Identity, decode_header, encode_header};
use crate::item::{Item, Suspect};
use crate::network::DATAGRAM_SIZE_MAX;
use crate::packet;

pub(super) type Core = Foca<Identity, Codec, ChaCha8Rng, NoCustomBroadcast>;

/// How many members may be probed for others at a time; who asks for more gets no word of failure.
const RELAYS_MAX: usize = 1024;

/// What the core wants done.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    messages: Vec<Header<Identity>>,
    timers: Vec<(Timer<Identity>, Duration)>,
    renewed: Option<Identity>,
}

/// The probe that is under way.
#[derive(Debug)]
pub(super) struct Probe {
    target: Identity,
    number: u8,
    sent: Instant,
    is_answered: bool,
    /// How many others were asked for help.
    asked: u32,
    /// How many of them said that they got no answer either.
    nacks: u32,
}

/// A probe made for another member.
#[derive(Debug)]
pub(super) struct Relay {
    for_whom: SocketAddr,
    target: Id,
    number: u8,
}

impl Runtime<Identity> for &mut Wishes {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        if let Notification::Rejoin(identity) = notification {
            self.renewed = Some(*identity);
        }
    }

    fn send_to(&mut self, _: Identity, data: &[u8]) {
        // Only the header: news travel in sections of their own.
        if let Ok(header) = decode_header(&mut Reader::new(data)) {
            self.messages.push(header);
        }
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

pub(super) fn core(identity: Identity, timing: &Timing, chance: ChaCha8Rng) -> Core {
    let config = foca::Config {
        probe_period: timing.probe_interval,
        probe_rtt: timing.probe_timeout,
        num_indirect_probes: NonZeroUsize::new(timing.indirect_probes).unwrap_or(NonZeroUsize::MIN),
        // What the core would spread is spread by our own queue, and the timer of a suspicion is ours.
        max_transmissions: NonZeroU8::MIN,
        suspect_to_down_after: timing.probe_interval,
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(DATAGRAM_SIZE_MAX).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: false,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: None,
    };
    Foca::new(identity, config, chance, Codec)
}

impl Pool {
    /// Tells the core what is news about a member, this one included.
    pub(super) fn core_apply(
        &mut self,
        now: Instant,
        identity: Identity,
        incarnation: u16,
        state: State,
    ) {
        let news = foca::Member::new(identity, incarnation, state);
        let done = self
            .core
            .apply_many(std::iter::once(news), false, &mut self.wishes);
        self.core_done(now, done);
    }

    pub(super) fn core_timer(&mut self, now: Instant, timer: Timer<Identity>) {
        match &timer {
            Timer::ProbeRandomMember(_) => self.probe_over(now),
            Timer::SendIndirectProbe { probed_id, .. } => self.probe_by_connection(*probed_id),
            _ => {}
        }
        let done = self.core.handle_timer(timer, &mut self.wishes);
        self.core_done(now, done);
    }

    pub(super) fn core_leave(&mut self, now: Instant) {
        let done = self.core.leave_cluster(&mut self.wishes);
        self.core_done(now, done);
    }

    pub(super) fn core_forget(&mut self, identity: Identity) {
        let timer = Timer::RemoveDown(identity);
        if let Err(error) = self.core.handle_timer(timer, &mut self.wishes) {
            tracing::debug!(?error, "a member was not forgotten");
        }
    }

    /// Begins a new life after the given one and tells everybody.
    pub(super) fn renew_above(&mut self, now: Instant, generation: u32) {
        let own = self.local.identity.generation;
        if !is_near(generation, own) {
            return;
        }
        let Some(generation) = generation.max(own).checked_add(1) else {
            tracing::debug!("this member's name has no lives left");
            return;
        };
        let identity = Identity {
            generation,
            ..self.local.identity
        };
        let done = self.core.change_identity(identity, &mut self.wishes);
        self.renewed(identity);
        self.core_done(now, done);
    }

    fn renewed(&mut self, identity: Identity) {
        self.local.identity = identity;
        self.local.incarnation = 0;
        self.change_record(|_| {});
    }

    /// Does what the core wants.
    fn core_done(&mut self, now: Instant, done: Result<(), foca::Error>) {
        if let Err(error) = done {
            tracing::debug!(?error, "the failure detector refused something");
        }
        if let Some(identity) = self.wishes.renewed.take()
            && identity != self.local.identity
        {
            self.renewed(identity);
        }
        for header in std::mem::take(&mut self.wishes.messages) {
            self.watch_sent(now, &header);
            self.post_core(&header, None);
        }
        for (timer, after) in std::mem::take(&mut self.wishes.timers) {
            self.core_timer_wanted(now, timer, after);
        }
    }

    fn core_timer_wanted(&mut self, now: Instant, timer: Timer<Identity>, after: Duration) {
        match timer {
            // The core's word for: I got no answer myself.
            Timer::ChangeSuspectToDown {
                member_id,
                incarnation,
                ..
            } => {
                let suspect = Suspect {
                    identity: member_id,
                    incarnation,
                    from: self.local.identity.id,
                };
                self.hear_suspect(now, suspect);
            }
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                let at = self.timers.attention(now) + self.paced(after);
                self.timers.on_attention(at, Due::Core(timer));
            }
            // Nobody is forgotten by the core's own clock, and periodic messages are switched off.
            Timer::RemoveDown(_)
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => {}
        }
    }

    /// A time of the failure detector, at the pool's pace, and longer while this member is not well.
    fn paced(&self, time: Duration) -> Duration {
        time * (self.health + 1) / pace(&self.timing, self.size())
    }

    fn post_core(&mut self, header: &Header<Identity>, coordinate: Option<&Coordinate>) {
        let mut sections = Vec::with_capacity(DATAGRAM_SIZE_MAX);
        packet::put_core(&encode_header(header), &mut sections);
        let own = match (&header.message, &self.coordinates) {
            (Message::Ack(_), Some(client)) => Some(client.coordinate()),
            _ => None,
        };
        if let Some(coordinate) = coordinate.or(own) {
            sections.extend_from_slice(&Item::Coordinate(coordinate.clone()).encode());
        }
        // A member that is suspected learns it along with the probe.
        if let Some(entry) = self.entries.get(&header.dst.id)
            && entry.is_suspect()
        {
            let suspect = Suspect {
                identity: entry.identity,
                incarnation: entry.incarnation,
                from: self.local.identity.id,
            };
            sections.extend_from_slice(&Item::Suspect(suspect).encode());
            return self.post_alone(header.dst.address, &sections);
        }
        // News are for members where they are known to be.
        let is_known = self
            .entries
            .get(&header.dst.id)
            .is_some_and(|entry| entry.identity.address == header.dst.address);
        if is_known {
            self.post(header.dst.address, sections);
        } else {
            self.post_alone(header.dst.address, &sections);
        }
    }

    /// A message of another member's core has arrived.
    pub(super) fn core_message(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: Header<Identity>,
        coordinate: Option<Coordinate>,
    ) {
        let sender = header.src;
        if sender.id == self.local.identity.id {
            return;
        }
        let Some(entry) = self.entries.get(&sender.id) else {
            // Nobody we know. It is answered, so that nobody suspects us, and asked who it is.
            if let Message::Ping(number) = header.message
                && header.dst == self.local.identity
            {
                self.acknowledge(&header, from, number);
            }
            self.post_alone(from, &Item::Who.encode());
            return;
        };
        if sender != entry.identity {
            let is_successor = sender.is_newer_than(&entry.identity)
                && is_near(sender.generation, entry.identity.generation)
                && (sender.address == entry.identity.address || entry.is_gone());
            if !is_successor {
                // Somebody of the past, or of the same name.
                return self.tell_about(now, sender.id, from);
            }
            self.revive(now, sender, header.src_incarnation);
            self.post_alone(from, &Item::Who.encode());
        } else if entry.standing.is_down() {
            // It lives, but in this life nobody believes it: it has to begin a new one.
            return self.tell_about(now, sender.id, from);
        } else {
            self.revive(now, sender, header.src_incarnation);
        }
        if header.dst != self.local.identity {
            // It thinks that we are in an earlier life.
            return self.introduce_to_stranger(now, from);
        }
        self.watch_received(now, &header, coordinate);
        // A third one is sent something only where it is known to be, and not wherever a packet says.
        if let Message::PingReq { target, .. } | Message::IndirectAck { target, .. } =
            &header.message
            && self
                .entries
                .get(&target.id)
                .is_none_or(|entry| entry.identity.address != target.address)
        {
            return;
        }
        self.core_receive(now, &header);
    }

    /// Somebody else got no answer from a member: see for ourselves, at once.
    ///
    /// The core probes one member after another, so it would get to this one too late to count as a witness.
    pub(super) fn look_closer(&mut self, now: Instant, suspect: Identity) {
        let wanted = 2 * self.timing.suspicion_factor;
        let others = u32::try_from(self.size()).unwrap_or(u32::MAX);
        if !self.chance.random_ratio(wanted.min(others), others) {
            return;
        }
        self.looks = self.looks.wrapping_add(1);
        let number = self.looks;
        self.looked_at.insert(suspect.id, (suspect, number));
        let ping = Header {
            src: self.local.identity,
            src_incarnation: self.local.incarnation,
            dst: suspect,
            message: Message::Ping(number),
        };
        self.post_core(&ping, None);
        let due = self.timers.attention(now) + self.paced(self.timing.probe_interval);
        self.timers.on_attention(due, Due::Look(suspect, number));
    }

    pub(super) fn look_due(&mut self, now: Instant, suspect: Identity, number: u8) {
        if self.looked_at.get(&suspect.id) != Some(&(suspect, number)) {
            return;
        }
        self.looked_at.remove(&suspect.id);
        if let Some(entry) = self.entries.get(&suspect.id)
            && entry.identity == suspect
            && entry.is_suspect()
        {
            let suspect = Suspect {
                identity: suspect,
                incarnation: entry.incarnation,
                from: self.local.identity.id,
            };
            self.hear_suspect(now, suspect);
        }
    }

    fn core_receive(&mut self, now: Instant, header: &Header<Identity>) {
        let done = self
            .core
            .handle_data(&encode_header(header), &mut self.wishes);
        self.core_done(now, done);
    }

    /// Answers a stranger where its question came from, with no more than it said itself.
    fn acknowledge(&mut self, ping: &Header<Identity>, to: SocketAddr, number: u8) {
        let ack = Header {
            src: self.local.identity,
            src_incarnation: self.local.incarnation,
            dst: ping.src,
            message: Message::Ack(number),
        };
        let mut sections = Vec::with_capacity(64);
        packet::put_core(&encode_header(&ack), &mut sections);
        self.post_alone(to, &sections);
    }

    /// The core sends a message.
    fn watch_sent(&mut self, now: Instant, header: &Header<Identity>) {
        match &header.message {
            Message::Ping(number) => {
                if self.health > 0 {
                    figures::DEGRADED_PROBE.increment(1);
                }
                self.probe = Some(Probe {
                    target: header.dst,
                    number: *number,
                    sent: now,
                    is_answered: false,
                    asked: 0,
                    nacks: 0,
                });
            }
            Message::PingReq { .. } => {
                if let Some(probe) = &mut self.probe {
                    probe.asked += 1;
                }
            }
            Message::ForwardedAck {
                origin,
                probe_number,
            } => {
                // The member that was probed for another has answered.
                self.relays
                    .retain(|_, relay| (relay.target, relay.number) != (origin.id, *probe_number));
            }
            _ => {}
        }
    }

    /// The core gets a message.
    fn watch_received(
        &mut self,
        now: Instant,
        header: &Header<Identity>,
        coordinate: Option<Coordinate>,
    ) {
        match &header.message {
            Message::Ack(number) => {
                if self.looked_at.get(&header.src.id) == Some(&(header.src, *number)) {
                    self.looked_at.remove(&header.src.id);
                }
                let Some(probe) = &mut self.probe else {
                    return;
                };
                if probe.target != header.src || probe.number != *number || probe.is_answered {
                    return;
                }
                probe.is_answered = true;
                let round_trip = now.saturating_duration_since(probe.sent);
                figures::probed(round_trip);
                if let Some(coordinate) = coordinate {
                    self.measured(header.src.id, coordinate, round_trip);
                }
            }
            Message::ForwardedAck {
                origin,
                probe_number,
            } => self.mark_answered(now, *origin, *probe_number),
            Message::PingReq {
                target,
                probe_number,
            } => {
                if self.relays.len() >= RELAYS_MAX {
                    return;
                }
                self.relays_begun += 1;
                let relay = Relay {
                    for_whom: header.src.address,
                    target: target.id,
                    number: *probe_number,
                };
                self.relays.insert(self.relays_begun, relay);
                let patience = self.paced(self.timing.probe_timeout) * 4 / 5;
                let due = self.timers.attention(now) + patience;
                self.timers.on_attention(due, Due::Nack(self.relays_begun));
            }
            _ => {}
        }
    }

    fn mark_answered(&mut self, now: Instant, target: Identity, number: u8) {
        if let Some(probe) = &mut self.probe
            && probe.target == target
            && probe.number == number
            && !probe.is_answered
        {
            figures::probed(now.saturating_duration_since(probe.sent));
            probe.is_answered = true;
        }
    }

    /// A member that was probed for another hasn't answered: the other shall know that at least we are well.
    pub(super) fn nack_due(&mut self, relay: u64) {
        if let Some(relay) = self.relays.remove(&relay) {
            let nack = Item::Nack {
                number: relay.number,
                target: relay.target,
            };
            self.post(relay.for_whom, nack.encode().to_vec());
        }
    }

    pub(super) fn hear_nack(&mut self, number: u8, target: Id) {
        if let Some(probe) = &mut self.probe
            && (probe.target.id, probe.number) == (target, number)
        {
            probe.nacks = (probe.nacks + 1).min(probe.asked);
        }
    }

    /// A probe is over, and tells how well this member itself is.
    fn probe_over(&mut self, now: Instant) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        if probe.is_answered {
            self.health = self.health.saturating_sub(1);
            return;
        }
        figures::probed(now.saturating_duration_since(probe.sent));
        // Who was asked for help and is well says so in any case. Silence of all is likely our own.
        if probe.asked == 0 {
            self.worsen(1);
        } else {
            self.worsen(2 * (probe.asked - probe.nacks));
        }
    }

    pub(super) fn worsen(&mut self, by: u32) {
        let worst = self.timing.awareness_max.saturating_sub(1);
        self.health = self.health.saturating_add(by).min(worst);
    }

    /// A probe has had no answer for a while: it may be that only datagrams get lost.
    fn probe_by_connection(&mut self, target: Identity) {
        let number = match &self.probe {
            Some(probe) if probe.target == target && !probe.is_answered => probe.number,
            _ => return,
        };
        let purpose = Purpose::Ping { target, number };
        self.request(target.address, &Request::Ping.encode(), purpose);
    }

    /// A probe over a connection was answered. The core knows nothing of connections, so it gets an answer as usual.
    pub(super) fn connection_answered(&mut self, now: Instant, target: Identity, number: u8) {
        let Some(entry) = self.entries.get(&target.id) else {
            return;
        };
        let is_pending = self.probe.as_ref().is_some_and(|probe| {
            probe.target == target && probe.number == number && !probe.is_answered
        });
        if !is_pending || entry.identity != target || entry.standing.is_down() {
            return;
        }
        tracing::debug!(
            name = entry.record.name,
            "a member answers over a connection, but not to datagrams"
        );
        let header = Header {
            src: target,
            src_incarnation: entry.incarnation,
            dst: self.local.identity,
            message: Message::Ack(number),
        };
        self.mark_answered(now, target, number);
        self.core_receive(now, &header);
    }

    fn measured(&mut self, id: Id, coordinate: Coordinate, round_trip: Duration) {
        let (Some(client), Some(entry)) = (&mut self.coordinates, self.entries.get_mut(&id)) else {
            return;
        };
        match client.update(&entry.record.name, &coordinate, round_trip) {
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a round trip was not taken into account"),
        }
        entry.coordinate = Some(coordinate.clone());
        self.outputs.push(Output::Place(id, coordinate));
        self.place_local();
    }
}
