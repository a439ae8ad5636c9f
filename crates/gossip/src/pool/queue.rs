//! What is being passed on: each piece so many times, the least often sent first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::identity::Id;

/// The most pieces of news that wait; beyond that the one that was sent most often gives way.
const PIECES_MAX: usize = 4096;

/// Room for less than this is not worth a look: no piece is smaller.
const ROOM_MIN: usize = 20;

/// How many pieces that don't fit are passed over before a packet is sent as it is.
const MISFITS_MAX: usize = 8;

/// What a piece is about. A newer piece about the same takes the older one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The life of a member.
    Member(Id),
    /// That one member suspects another.
    Suspicion(Id, Id),
    /// That somebody said good-bye for a member.
    Leave(Id),
    /// A user event, by its time and hash.
    User(u64, u64),
}

/// The order in which pieces are sent: the least often sent first, among these the newest.
type Turn = (u32, Reverse<u64>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    turns: BTreeMap<Turn, (Subject, Bytes)>,
    subjects: BTreeMap<Subject, Turn>,
    sequence: u64,
    events: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn contains(&self, subject: Subject) -> bool {
        self.subjects.contains_key(&subject)
    }

    /// How many are user events.
    pub(super) const fn events(&self) -> usize {
        self.events
    }

    /// How many are about members.
    pub(super) fn intents(&self) -> usize {
        self.turns.len() - self.events
    }

    /// How often each piece was sent.
    #[cfg(test)]
    pub(super) fn turns_left(&self) -> Vec<u32> {
        self.turns.keys().map(|(sent, _)| *sent).collect()
    }

    pub(super) fn push(&mut self, subject: Subject, section: Bytes) {
        self.remove(subject);
        if self.turns.len() >= PIECES_MAX
            && let Some((_, (subject, _))) = self.turns.pop_last()
        {
            self.subjects.remove(&subject);
            self.events -= usize::from(matches!(subject, Subject::User(..)));
        }
        self.sequence += 1;
        let turn = (0, Reverse(self.sequence));
        self.turns.insert(turn, (subject, section));
        self.subjects.insert(subject, turn);
        self.events += usize::from(matches!(subject, Subject::User(..)));
    }

    pub(super) fn remove(&mut self, subject: Subject) {
        if let Some(turn) = self.subjects.remove(&subject) {
            self.turns.remove(&turn);
            self.events -= usize::from(matches!(subject, Subject::User(..)));
        }
    }

    /// Adds what fits to a packet, and forgets what has been sent often enough.
    pub(super) fn fill(&mut self, packet: &mut Vec<u8>, room: usize, limit: u32) {
        let mut taken = Vec::new();
        let mut misfits = 0;
        for (turn, (_, section)) in &self.turns {
            let left = room.saturating_sub(packet.len());
            if left < ROOM_MIN || misfits == MISFITS_MAX {
                break;
            }
            if section.len() <= left {
                packet.extend_from_slice(section);
                taken.push(*turn);
            } else {
                misfits += 1;
            }
        }
        for turn in taken {
            let Some((subject, section)) = self.turns.remove(&turn) else {
                continue;
            };
            let sent = turn.0 + 1;
            if sent < limit {
                let turn = (sent, turn.1);
                self.subjects.insert(subject, turn);
                self.turns.insert(turn, (subject, section));
            } else {
                self.subjects.remove(&subject);
                self.events -= usize::from(matches!(subject, Subject::User(..)));
            }
        }
    }
}
