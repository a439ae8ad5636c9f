//! The frame around everything that is sent: which pool it belongs to, and its encryption or checksum.

use bytes::Bytes;
use foca::Header;
use rand_chacha::ChaCha8Rng;

use crate::config::LABEL_LENGTH_MAX;
use crate::exchange::{Answer, Request};
use crate::fields::{Fields, Malformed, Reader};
use crate::identity::{self, Identity};
use crate::item::{AliveFront, Item};
use crate::keyring::{Keyring, SEAL_BYTES};
use crate::network::{DATAGRAM_SIZE_MAX, Screen};

/// The first byte, so that strays from other protocols are noticed at once.
const MAGIC: u8 = b'g';

/// The version of the format.
const VERSION: u8 = 1;

/// The third byte: a checksum and plain content follow the label.
const PLAIN: u8 = 0;

/// The third byte: sealed content follows the label.
const SEALED: u8 = 1;

/// The longest front: magic, version, protection, and a label with its length.
pub(crate) const FRONT_SIZE_MAX: usize = 4 + LABEL_LENGTH_MAX;

/// What a checksum takes.
const CHECKSUM_SIZE: usize = 4;

/// The section that holds a message of the SWIM core.
pub(crate) const CORE: u8 = 1;

/// Puts frames on and takes them off.
#[derive(Debug)]
pub(crate) struct Envelope {
    label: String,
    pub(crate) keyring: Option<Keyring>,
}

impl Envelope {
    pub(crate) const fn new(label: String, keyring: Option<Keyring>) -> Self {
        Self { label, keyring }
    }

    /// How many bytes of sections fit into a datagram.
    pub(crate) fn room(&self) -> usize {
        let around = if self.keyring.is_some() {
            SEAL_BYTES
        } else {
            CHECKSUM_SIZE
        };
        DATAGRAM_SIZE_MAX - 4 - self.label.len() - around
    }

    /// How what belongs to this pool begins.
    pub(crate) fn screen(&self) -> Screen {
        Screen {
            label: self.label.clone(),
            is_sealed: self.keyring.is_some(),
        }
    }

    /// What stands before the content. It is sealed along with it.
    fn front(&self, protection: u8) -> Vec<u8> {
        let mut front = Vec::with_capacity(64);
        front.put(&[MAGIC, VERSION, protection]);
        front.put_short_bytes(self.label.as_bytes());
        front
    }

    pub(crate) fn wrap(&self, content: &[u8], chance: &mut ChaCha8Rng) -> Bytes {
        if let Some(keyring) = &self.keyring {
            let mut bytes = self.front(SEALED);
            let sealed = keyring.seal(chance, &bytes, content);
            bytes.put(&sealed);
            Bytes::from(bytes)
        } else {
            let mut bytes = self.front(PLAIN);
            bytes.reserve_exact(CHECKSUM_SIZE + content.len());
            bytes.put_u32(crc32fast::hash(content));
            bytes.put(content);
            Bytes::from(bytes)
        }
    }

    /// Only the front: what a stranger on a connection gets, so that it can tell which pool this is.
    pub(crate) fn front_only(&self) -> Bytes {
        let is_sealed = self.keyring.is_some();
        Bytes::from(self.front(if is_sealed { SEALED } else { PLAIN }))
    }

    pub(crate) fn unwrap(&self, bytes: &Bytes) -> Result<Bytes, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != MAGIC || reader.u8()? != VERSION {
            return Err(Malformed::Format);
        }
        let protection = reader.u8()?;
        if reader.short_bytes()? != self.label.as_bytes() {
            return Err(Malformed::Label);
        }
        let front_size = bytes.len() - reader.rest().len();
        match (protection, &self.keyring) {
            (PLAIN, None) => {
                if reader.u32()? != crc32fast::hash(reader.rest()) {
                    return Err(Malformed::Checksum);
                }
                Ok(bytes.slice(front_size + CHECKSUM_SIZE..))
            }
            (SEALED, Some(keyring)) => {
                let (front, sealed) = bytes.split_at(front_size);
                let content = keyring.open(front, sealed).ok_or(Malformed::Key)?;
                Ok(Bytes::from(content))
            }
            (PLAIN, Some(_)) | (SEALED, None) => Err(Malformed::Key),
            _ => Err(Malformed::Format),
        }
    }
}

/// What a frame says of itself, which nobody vouches for.
#[derive(Debug)]
pub(crate) struct Front<'a> {
    pub(crate) label: &'a str,
    pub(crate) is_sealed: bool,
    /// Whether nothing follows.
    pub(crate) is_all: bool,
}

/// The front of a frame.
pub(crate) fn front_of(bytes: &[u8]) -> Option<Front<'_>> {
    let mut reader = Reader::new(bytes);
    let is_known = reader.u8().ok()? == MAGIC && reader.u8().ok()? == VERSION;
    let is_sealed = reader.u8().ok()? == SEALED;
    let label = reader.short_text().ok()?;
    let front = Front {
        label,
        is_sealed,
        is_all: reader.is_empty(),
    };
    is_known.then_some(front)
}

/// A section of a datagram.
#[derive(Debug)]
pub(crate) enum Section<'a> {
    /// A message of the SWIM core.
    Core(Header<Identity>),
    /// Anything else, not read yet.
    Item { kind: u8, content: &'a [u8] },
}

/// The sections of a datagram, as far as they can be read.
pub(crate) fn sections(content: &[u8]) -> Result<Vec<Section<'_>>, Malformed> {
    let mut reader = Reader::new(content);
    let mut sections = Vec::with_capacity(8);
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let content = reader.bytes()?;
        if kind == CORE {
            let mut inner = Reader::new(content);
            let header = identity::decode_header(&mut inner)?;
            inner.end()?;
            sections.push(Section::Core(header));
        } else {
            sections.push(Section::Item { kind, content });
        }
    }
    Ok(sections)
}

/// Adds a message of the SWIM core.
pub(crate) fn put_core(header: &[u8], to: &mut Vec<u8>) {
    to.put_u8(CORE);
    to.put_bytes(header);
}

/// Reads a datagram of an unencrypted pool, as a member would that gets it from anybody; says how many sections it has.
///
/// For the fuzzer and for the page of the protocol.
pub fn decode_packet(label: &str, bytes: &[u8]) -> Result<usize, Malformed> {
    let envelope = Envelope::new(label.to_owned(), None);
    let content = envelope.unwrap(&Bytes::copy_from_slice(bytes))?;
    decode_content(&content)
}

/// Reads what is inside of a datagram's frame; says how many sections it has.
pub fn decode_content(content: &[u8]) -> Result<usize, Malformed> {
    let sections = sections(content)?;
    for section in &sections {
        if let Section::Item { kind, content } = section {
            let _ = AliveFront::peek(*kind, content);
            Item::decode(*kind, content)?;
        }
    }
    Ok(sections.len())
}

/// Reads what goes over a connection, request or answer, without its frame.
///
/// For the fuzzer and for the page of the protocol.
pub fn decode_stream(content: &[u8]) -> Result<(), Malformed> {
    let request = Request::decode(content);
    let answer = Answer::decode(content);
    request.map(|_| ()).or(answer.map(|_| ()))
}

#[cfg(test)]
mod tests;
