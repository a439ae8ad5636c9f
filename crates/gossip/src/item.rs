//! What is gossiped: news about members, user events, and small questions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{NAME_LENGTH_MAX, TAGS_SIZE_MAX, TagsError};
use crate::coordinate::{Coordinate, DIMENSIONS};
use crate::event::{USER_EVENT_SIZE_MAX, UserEvent};
use crate::fields::{Fields, Malformed, Reader};
use crate::identity::{Id, Identity};
use crate::member::Versions;

/// One section of a packet, apart from the SWIM core's own message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// A member is there.
    Alive(Alive),
    /// A member didn't answer somebody.
    Suspect(Suspect),
    /// A member is gone.
    Down(Down),
    /// Somebody says good-bye for a member.
    Leave(Leave),
    /// A user event.
    User(UserEvent),
    /// A member that was asked to probe another got no answer from it either, but is itself well.
    Nack { number: u8, target: Id },
    /// The receiver's message came from somebody unknown: it shall introduce itself.
    Who,
    /// Where the sender is in the space of network coordinates.
    Coordinate(Coordinate),
}

/// A member is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alive {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u16,
    pub(crate) record: Arc<Record>,
}

/// What a member tells of itself. Only it makes new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Counts them within a generation.
    pub(crate) revision: u32,
    /// The Lamport time of the change.
    pub(crate) time: u64,
    /// Whether it is saying good-bye.
    pub(crate) leaving: bool,
    pub(crate) name: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) protocol: Versions,
    pub(crate) delegate: Versions,
}

/// A member didn't answer somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u16,
    /// Whom it didn't answer.
    pub(crate) from: Id,
}

/// A member is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Down {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u16,
    /// With a good-bye.
    pub(crate) left: bool,
}

/// Somebody says good-bye for a member: holds for this record of it and older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leave {
    pub(crate) id: Id,
    pub(crate) generation: u32,
    pub(crate) revision: u32,
    pub(crate) time: u64,
}

/// The kinds of sections. 1 is the SWIM core's message.
const ALIVE: u8 = 2;
const SUSPECT: u8 = 3;
const DOWN: u8 = 4;
const LEAVE: u8 = 5;
const USER: u8 = 6;
const NACK: u8 = 7;
const WHO: u8 = 8;
const COORDINATE: u8 = 9;

impl Item {
    /// The kind, the length, and the content.
    pub(crate) fn encode(&self) -> Bytes {
        let mut content = Vec::with_capacity(128);
        let kind = match self {
            Self::Alive(alive) => {
                alive.write(&mut content);
                ALIVE
            }
            Self::Suspect(suspect) => {
                suspect.identity.write(&mut content);
                content.put_u16(suspect.incarnation);
                content.put_u64(suspect.from.0);
                SUSPECT
            }
            Self::Down(down) => {
                down.identity.write(&mut content);
                content.put_u16(down.incarnation);
                content.put_u8(u8::from(down.left));
                DOWN
            }
            Self::Leave(leave) => {
                content.put_u64(leave.id.0);
                content.put_u32(leave.generation);
                content.put_u32(leave.revision);
                content.put_u64(leave.time);
                LEAVE
            }
            Self::User(event) => {
                write_event(event, &mut content);
                USER
            }
            Self::Nack { number, target } => {
                content.put_u8(*number);
                content.put_u64(target.0);
                NACK
            }
            Self::Who => WHO,
            Self::Coordinate(coordinate) => {
                for part in &coordinate.vec {
                    content.put_f64(*part);
                }
                content.put_f64(coordinate.error);
                content.put_f64(coordinate.adjustment);
                content.put_f64(coordinate.height);
                COORDINATE
            }
        };
        let mut bytes = Vec::with_capacity(content.len() + 3);
        bytes.put_u8(kind);
        bytes.put_bytes(&content);
        Bytes::from(bytes)
    }

    /// `None` is a kind that a later release sends, and is skipped.
    pub(crate) fn decode(kind: u8, content: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new(content);
        let item = match kind {
            ALIVE => Self::Alive(Alive::read(&mut reader)?),
            SUSPECT => Self::Suspect(Suspect {
                identity: Identity::read(&mut reader)?,
                incarnation: reader.u16()?,
                from: Id(reader.u64()?),
            }),
            DOWN => Self::Down(Down {
                identity: Identity::read(&mut reader)?,
                incarnation: reader.u16()?,
                left: reader.bool()?,
            }),
            LEAVE => Self::Leave(Leave {
                id: Id(reader.u64()?),
                generation: reader.u32()?,
                revision: reader.u32()?,
                time: reader.u64()?,
            }),
            USER => Self::User(read_event(&mut reader)?),
            NACK => Self::Nack {
                number: reader.u8()?,
                target: Id(reader.u64()?),
            },
            WHO => Self::Who,
            COORDINATE => {
                let mut vec = Vec::with_capacity(DIMENSIONS);
                for _ in 0..DIMENSIONS {
                    vec.push(reader.f64()?);
                }
                let coordinate = Coordinate {
                    vec,
                    error: reader.f64()?,
                    adjustment: reader.f64()?,
                    height: reader.f64()?,
                };
                coordinate.check().map_err(|_| Malformed::Value)?;
                Self::Coordinate(coordinate)
            }
            _ => return Ok(None),
        };
        reader.end()?;
        Ok(Some(item))
    }
}

/// The front of an [`Alive`], enough to see whether it is news.
pub(crate) struct AliveFront {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u16,
    pub(crate) revision: u32,
}

impl AliveFront {
    /// `None` for other kinds and for what can't be read.
    pub(crate) fn peek(kind: u8, content: &[u8]) -> Option<Self> {
        if kind != ALIVE {
            return None;
        }
        let mut reader = Reader::new(content);
        Some(Self {
            identity: Identity::read(&mut reader).ok()?,
            incarnation: reader.u16().ok()?,
            revision: reader.u32().ok()?,
        })
    }
}

impl Alive {
    pub(crate) fn write(&self, to: &mut impl Fields) {
        self.identity.write(to);
        to.put_u16(self.incarnation);
        let record = &*self.record;
        to.put_u32(record.revision);
        to.put_u64(record.time);
        to.put_u8(u8::from(record.leaving));
        to.put_short_bytes(record.name.as_bytes());
        for versions in [record.protocol, record.delegate] {
            to.put(&[versions.min, versions.max, versions.current]);
        }
        write_tags(&record.tags, to);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = Identity::read(reader)?;
        let incarnation = reader.u16()?;
        let revision = reader.u32()?;
        let time = reader.u64()?;
        let leaving = reader.bool()?;
        let name = reader.short_text()?;
        // Whoever sends another's id with a name of its own could take its place.
        if !is_name(name) || Id::of(name) != identity.id {
            return Err(Malformed::Value);
        }
        let protocol = read_versions(reader)?;
        let delegate = read_versions(reader)?;
        let tags = read_tags(reader)?;
        let record = Record {
            revision,
            time,
            leaving,
            name: name.to_owned(),
            tags,
            protocol,
            delegate,
        };
        Ok(Self {
            identity,
            incarnation,
            record: Arc::new(record),
        })
    }
}

const _: () = assert!(NAME_LENGTH_MAX == u8::MAX as usize);

/// Whether somebody or something may have this name: it is printed in terminals and logs.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_LENGTH_MAX && !name.contains(char::is_control)
}

fn read_versions(reader: &mut Reader<'_>) -> Result<Versions, Malformed> {
    Ok(Versions {
        min: reader.u8()?,
        max: reader.u8()?,
        current: reader.u8()?,
    })
}

/// Tags: all of them after the length of all, each with its length before it.
fn write_tags(tags: &BTreeMap<String, String>, to: &mut impl Fields) {
    let mut bytes = Vec::with_capacity(tags_size(tags));
    for (key, value) in tags {
        bytes.put_bytes(key.as_bytes());
        bytes.put_bytes(value.as_bytes());
    }
    to.put_bytes(&bytes);
}

fn read_tags(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, Malformed> {
    let bytes = reader.bytes()?;
    if bytes.len() > TAGS_SIZE_MAX {
        return Err(Malformed::Value);
    }
    let mut reader = Reader::new(bytes);
    let mut tags = BTreeMap::new();
    while !reader.is_empty() {
        let key = reader.text()?.to_owned();
        tags.insert(key, reader.text()?.to_owned());
    }
    Ok(tags)
}

fn tags_size(tags: &BTreeMap<String, String>) -> usize {
    tags.iter()
        .map(|(key, value)| key.len() + value.len() + 4)
        .sum()
}

/// Whether these tags can be sent along with a member.
pub(crate) fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), TagsError> {
    let size = tags_size(tags);
    if size > TAGS_SIZE_MAX {
        return Err(TagsError { size });
    }
    Ok(())
}

pub(crate) fn write_event(event: &UserEvent, to: &mut impl Fields) {
    to.put_u64(event.ltime);
    to.put_u8(u8::from(event.coalesce));
    to.put_bytes(event.name.as_bytes());
    to.put_bytes(&event.payload);
}

pub(crate) fn read_event(reader: &mut Reader<'_>) -> Result<UserEvent, Malformed> {
    let ltime = reader.u64()?;
    let coalesce = reader.bool()?;
    let name = reader.text()?;
    let payload = reader.bytes()?;
    if name.len() + payload.len() > USER_EVENT_SIZE_MAX || name.contains(char::is_control) {
        return Err(Malformed::Value);
    }
    Ok(UserEvent {
        ltime,
        name: name.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        coalesce,
    })
}
