//! Who somebody is to the SWIM core, and how its messages look.

use std::cmp::Ordering;
use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Header, Message};
use sha2::{Digest, Sha256};

use crate::fields::{Fields, Malformed, Reader};

/// Stands for a member's name: the core compares it a thousand times for each piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u64);

impl Id {
    /// The first eight bytes of the name's SHA-256, so that no two names meet by accident.
    pub(crate) fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let first = digest.first_chunk().expect("SHA-256 has 32 bytes");
        Self(u64::from_be_bytes(*first))
    }
}

/// One life of a member at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: Id,
    /// Counts its lives: a restart, or a return after it was declared down. The higher one is true.
    pub(crate) generation: u32,
    pub(crate) address: SocketAddr,
}

impl Identity {
    pub(crate) fn write(&self, to: &mut impl Fields) {
        to.put_u64(self.id.0);
        to.put_u32(self.generation);
        to.put_address(self.address);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: Id(reader.u64()?),
            generation: reader.u32()?,
            address: reader.address()?,
        })
    }

    /// Whether this life follows that one; the address only settles a tie.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        match self.generation.cmp(&other.generation) {
            Ordering::Equal => self.address > other.address,
            order => order.is_gt(),
        }
    }
}

impl foca::Identity for Identity {
    type Addr = Id;

    fn renew(&self) -> Option<Self> {
        let generation = self.generation.checked_add(1)?;
        Some(Self {
            generation,
            ..*self
        })
    }

    fn addr(&self) -> Id {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.is_newer_than(adversary)
    }
}

/// The core's messages: only their headers, since news travel in sections of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec;

impl foca::Codec<Identity> for Codec {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buffer: impl BufMut,
    ) -> Result<(), Malformed> {
        let bytes = encode_header(header);
        if buffer.remaining_mut() < bytes.len() {
            return Err(Malformed::Long);
        }
        buffer.put_slice(&bytes);
        Ok(())
    }

    fn decode_header(&mut self, mut buffer: impl Buf) -> Result<Header<Identity>, Malformed> {
        let mut reader = Reader::new(buffer.chunk());
        let before = reader.rest().len();
        let header = decode_header(&mut reader)?;
        let taken = before - reader.rest().len();
        buffer.advance(taken);
        Ok(header)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Identity>,
        mut buffer: impl BufMut,
    ) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(32);
        member.id().write(&mut bytes);
        if buffer.remaining_mut() < bytes.len() {
            return Err(Malformed::Long);
        }
        buffer.put_slice(&bytes);
        Ok(())
    }

    /// Never called: what is handed to the core has no news in it.
    fn decode_member(&mut self, _: impl Buf) -> Result<foca::Member<Identity>, Malformed> {
        Err(Malformed::Format)
    }
}

pub(crate) fn encode_header(header: &Header<Identity>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    write_header(header, &mut bytes);
    bytes
}

fn write_header(header: &Header<Identity>, bytes: &mut impl Fields) {
    header.src.write(bytes);
    bytes.put_u16(header.src_incarnation);
    header.dst.write(bytes);
    let (tag, number, other) = match &header.message {
        Message::Ping(number) => (1, *number, None),
        Message::Ack(number) => (2, *number, None),
        Message::PingReq {
            target,
            probe_number,
        } => (3, *probe_number, Some(target)),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (4, *probe_number, Some(origin)),
        Message::IndirectAck {
            target,
            probe_number,
        } => (5, *probe_number, Some(target)),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (6, *probe_number, Some(origin)),
        Message::Announce => (7, 0, None),
        Message::Feed => (8, 0, None),
        Message::Gossip => (9, 0, None),
        Message::Broadcast => (10, 0, None),
        Message::TurnUndead => (11, 0, None),
    };
    bytes.put_u8(tag);
    bytes.put_u8(number);
    if let Some(other) = other {
        other.write(bytes);
    }
}

pub(crate) fn decode_header(reader: &mut Reader<'_>) -> Result<Header<Identity>, Malformed> {
    let src = Identity::read(reader)?;
    let src_incarnation = reader.u16()?;
    let dst = Identity::read(reader)?;
    let tag = reader.u8()?;
    let probe_number = reader.u8()?;
    let message = match tag {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq {
            target: Identity::read(reader)?,
            probe_number,
        },
        4 => Message::IndirectPing {
            origin: Identity::read(reader)?,
            probe_number,
        },
        5 => Message::IndirectAck {
            target: Identity::read(reader)?,
            probe_number,
        },
        6 => Message::ForwardedAck {
            origin: Identity::read(reader)?,
            probe_number,
        },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        _ => return Err(Malformed::Format),
    };
    Ok(Header {
        src,
        src_incarnation,
        dst,
        message,
    })
}
