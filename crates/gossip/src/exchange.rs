//! What goes over connections: the comparison of all that two members know, the probe over a connection, keys.
//!
//! A comparison has two steps. The one who begins sends a summary, 20 bytes a member; the other answers with what
//! it knows better and with a list of what it wants; then the first gives that in a second request.

use crate::event::UserEvent;
use crate::fields::{Fields, Malformed, Reader};
use crate::handle::KeyOperation;
use crate::identity::{Id, Identity};
use crate::item::{Alive, read_event, write_event};
use crate::keyring::KEYS_MAX;

/// The most user events that a member remembers.
pub(crate) const EVENT_KEYS_MAX: usize = 512;

/// The longest key or error text that is believed, in bytes.
const TEXT_LENGTH_MAX: usize = 1024;

/// What one member asks of another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// Are you there?
    Ping,
    /// Let's compare.
    Compare(Box<Compare>),
    /// This is what you wanted.
    Give(Given),
    /// Do this with your keys.
    Keys(KeyOperation),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// I am, in this life.
    Pong(Identity),
    /// What I know better, and what I want.
    Compared(Box<Compared>),
    /// Thanks.
    Taken,
    /// What became of it.
    Keys(KeyAnswer),
    /// I don't let you in, or don't understand.
    Refused(String),
}

/// The beginning of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compare {
    /// Whether the sender is about to join.
    pub(crate) is_join: bool,
    /// The sender itself.
    pub(crate) own: Alive,
    pub(crate) clocks: Clocks,
    /// All members that the sender knows, itself included.
    pub(crate) members: Vec<Summary>,
    /// The recent user events that it has seen.
    pub(crate) events: Vec<EventKey>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compared {
    /// The sender itself.
    pub(crate) own: Alive,
    pub(crate) clocks: Clocks,
    /// What it wants to be told.
    pub(crate) wanted: Vec<Id>,
    pub(crate) wanted_events: Vec<EventKey>,
    pub(crate) given: Given,
}

/// What one knows better than the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Given {
    pub(crate) members: Vec<Known>,
    pub(crate) events: Vec<UserEvent>,
}

/// The Lamport clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Clocks {
    pub(crate) member: u64,
    pub(crate) event: u64,
    pub(crate) query: u64,
}

/// Time and hash of a user event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventKey {
    pub(crate) ltime: u64,
    pub(crate) hash: u64,
}

/// Which state of a member one knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) id: Id,
    pub(crate) version: Version,
}

/// How late what is known of a member is: of its life, and of what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) generation: u32,
    /// 0 at the end of a life, which is final whatever the incarnation was.
    pub(crate) incarnation: u16,
    pub(crate) standing: Standing,
    /// Which record of itself, by generation and revision, and whether somebody said good-bye for it since.
    pub(crate) record: (u32, u32, bool),
}

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Alive,
    Suspect,
    Down,
    Left,
}

/// All that is known of a member.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) alive: Alive,
    /// The generation that its record is from, at most the identity's own.
    pub(crate) record_generation: u32,
    pub(crate) standing: Standing,
    /// Whether somebody said good-bye for it after that record.
    pub(crate) is_forced: bool,
    /// For how many seconds it has been down.
    pub(crate) age: u32,
}

/// What became of an operation on keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyAnswer {
    /// What went wrong; empty if nothing did.
    pub(crate) error: String,
    /// The keys of the ring, in base64, if that was asked.
    pub(crate) keys: Vec<String>,
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        match self {
            Self::Ping => to.put_u8(1),
            Self::Compare(compare) => {
                to.put_u8(2);
                to.put_u8(u8::from(compare.is_join));
                compare.own.write(&mut to);
                compare.clocks.write(&mut to);
                to.put_count(compare.members.len());
                for summary in &compare.members {
                    summary.write(&mut to);
                }
                write_keys(&compare.events, &mut to);
            }
            Self::Give(given) => {
                to.put_u8(3);
                given.write(&mut to);
            }
            Self::Keys(operation) => {
                let (tag, key) = match operation {
                    KeyOperation::List => (4, ""),
                    KeyOperation::Install(key) => (5, key.as_str()),
                    KeyOperation::Use(key) => (6, key.as_str()),
                    KeyOperation::Remove(key) => (7, key.as_str()),
                };
                to.put_u8(tag);
                to.put_bytes(cut(key).as_bytes());
            }
        }
        to
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let request = match reader.u8()? {
            1 => Self::Ping,
            2 => Self::Compare(Box::new(Compare {
                is_join: reader.bool()?,
                own: Alive::read(&mut reader)?,
                clocks: Clocks::read(&mut reader)?,
                members: reader.list(Summary::read)?,
                events: reader.list_of(EVENT_KEYS_MAX, read_key)?,
            })),
            3 => Self::Give(Given::read(&mut reader)?),
            tag @ 4..=7 => {
                let key = read_text(&mut reader)?;
                Self::Keys(match tag {
                    4 => KeyOperation::List,
                    5 => KeyOperation::Install(key),
                    6 => KeyOperation::Use(key),
                    _ => KeyOperation::Remove(key),
                })
            }
            _ => return Err(Malformed::Format),
        };
        reader.end()?;
        Ok(request)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        match self {
            Self::Pong(identity) => {
                to.put_u8(1);
                identity.write(&mut to);
            }
            Self::Compared(compared) => {
                to.put_u8(2);
                compared.own.write(&mut to);
                compared.clocks.write(&mut to);
                to.put_count(compared.wanted.len());
                for id in &compared.wanted {
                    to.put_u64(id.0);
                }
                write_keys(&compared.wanted_events, &mut to);
                compared.given.write(&mut to);
            }
            Self::Taken => to.put_u8(3),
            Self::Keys(answer) => {
                to.put_u8(4);
                to.put_bytes(cut(&answer.error).as_bytes());
                to.put_count(answer.keys.len());
                for key in &answer.keys {
                    to.put_bytes(cut(key).as_bytes());
                }
            }
            Self::Refused(reason) => {
                to.put_u8(5);
                to.put_bytes(cut(reason).as_bytes());
            }
        }
        to
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8()? {
            1 => Self::Pong(Identity::read(&mut reader)?),
            2 => Self::Compared(Box::new(Compared {
                own: Alive::read(&mut reader)?,
                clocks: Clocks::read(&mut reader)?,
                wanted: reader.list(|reader| Ok(Id(reader.u64()?)))?,
                wanted_events: reader.list_of(EVENT_KEYS_MAX, read_key)?,
                given: Given::read(&mut reader)?,
            })),
            3 => Self::Taken,
            4 => Self::Keys(KeyAnswer {
                error: read_text(&mut reader)?,
                keys: reader.list_of(KEYS_MAX, read_text)?,
            }),
            5 => Self::Refused(read_text(&mut reader)?),
            _ => return Err(Malformed::Format),
        };
        reader.end()?;
        Ok(answer)
    }
}

impl Given {
    fn write(&self, to: &mut impl Fields) {
        to.put_count(self.members.len());
        for known in &self.members {
            known.alive.write(to);
            to.put_u32(known.record_generation);
            to.put_u8(known.standing.code());
            to.put_u8(u8::from(known.is_forced));
            to.put_u32(known.age);
        }
        to.put_count(self.events.len());
        for event in &self.events {
            write_event(event, to);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            members: reader.list(|reader| {
                Ok(Known {
                    alive: Alive::read(reader)?,
                    record_generation: reader.u32()?,
                    standing: Standing::read(reader)?,
                    is_forced: reader.bool()?,
                    age: reader.u32()?,
                })
            })?,
            events: reader.list(read_event)?,
        })
    }
}

impl Clocks {
    fn write(self, to: &mut impl Fields) {
        to.put_u64(self.member);
        to.put_u64(self.event);
        to.put_u64(self.query);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            member: reader.u64()?,
            event: reader.u64()?,
            query: reader.u64()?,
        })
    }
}

impl Standing {
    /// Whether a life is over.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Down | Self::Left)
    }

    const fn code(self) -> u8 {
        match self {
            Self::Alive => 0,
            Self::Suspect => 1,
            Self::Down => 2,
            Self::Left => 3,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            0 => Self::Alive,
            1 => Self::Suspect,
            2 => Self::Down,
            3 => Self::Left,
            _ => return Err(Malformed::Value),
        })
    }
}

impl Version {
    pub(crate) const fn new(
        generation: u32,
        incarnation: u16,
        standing: Standing,
        record: (u32, u32, bool),
    ) -> Self {
        let is_over = standing.is_end();
        Self {
            generation,
            incarnation: if is_over { 0 } else { incarnation },
            standing,
            record,
        }
    }

    /// A member's state within one life gets worse until a new incarnation begins, and its end is final.
    fn life(&self) -> (u32, bool, u16, Standing) {
        (
            self.generation,
            self.standing.is_end(),
            self.incarnation,
            self.standing,
        )
    }

    /// Whether there is something to learn from it. Two sides may both have something to learn.
    pub(crate) fn is_partly_later_than(&self, other: &Self) -> bool {
        self.life() > other.life() || self.record > other.record
    }
}

impl Summary {
    fn write(&self, to: &mut impl Fields) {
        let version = &self.version;
        to.put_u64(self.id.0);
        to.put_u32(version.generation);
        to.put_u16(version.incarnation);
        to.put_u8(version.standing.code());
        to.put_u32(version.record.0);
        to.put_u32(version.record.1);
        to.put_u8(u8::from(version.record.2));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = Id(reader.u64()?);
        let generation = reader.u32()?;
        let incarnation = reader.u16()?;
        let standing = Standing::read(reader)?;
        let record = (reader.u32()?, reader.u32()?, reader.bool()?);
        Ok(Self {
            id,
            version: Version::new(generation, incarnation, standing, record),
        })
    }
}

fn write_keys(keys: &[EventKey], to: &mut impl Fields) {
    to.put_count(keys.len());
    for key in keys {
        to.put_u64(key.ltime);
        to.put_u64(key.hash);
    }
}

fn read_key(reader: &mut Reader<'_>) -> Result<EventKey, Malformed> {
    Ok(EventKey {
        ltime: reader.u64()?,
        hash: reader.u64()?,
    })
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = reader.text()?;
    if text.len() > TEXT_LENGTH_MAX {
        return Err(Malformed::Value);
    }
    Ok(text.to_owned())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LENGTH_MAX)]
}
