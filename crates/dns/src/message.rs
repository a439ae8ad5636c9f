//! Messages: what is asked, what is answered, and the bytes of both.
//!
//! `hickory-proto` reads what others sent. What we send is written here: the original's bounds are on the size without compression, and the library's writer takes an allocation for every end of a name that it might refer to later, and compares with each of them in turn.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::op::{Message as Received, MessageType, OpCode};
use hickory_proto::rr::{Name as ReceivedName, RData};

use crate::domain::Name;

/// How long the header is.
pub(crate) const HEADER: usize = 12;

/// How long a message over UDP may be if its receiver says nothing else.
pub(crate) const PLAIN_MAX: usize = 512;

/// How long one over UDP may be that we made; it fits into every link's packets, and says so in answers.
pub(crate) const EXTENDED_MAX: u16 = 1232;

/// How long any can be.
pub(crate) const MESSAGE_MAX: usize = 65_535;

/// The class of all our records: the internet's.
const IN: u16 = 1;

/// Questions that a message may have; of more than one the first counts, as in the original.
const QUESTIONS_MAX: u16 = 4;

/// Types of records, as numbers: any may be asked for.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const ANY: u16 = 255;
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is such a name, though perhaps nothing of that type.
    Found = 0,
    /// The question can't be read.
    Unreadable = 1,
    /// It could not be found out.
    Failed = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Nothing that is done here.
    NotDone = 4,
    /// A later version of the extensions than there is; needs the extension itself to be told.
    LaterVersion = 16,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// About this name, as it was spelled.
    pub(crate) name: Name,
    /// The type of records, see [`kind`].
    pub(crate) kind: u16,
    /// Only told back: everything here is in one class.
    pub(crate) class: u16,
}

/// A question with what came along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: u16,
    pub(crate) recursion_desired: bool,
    /// Who asks checks signatures on its own (only passed on).
    pub(crate) checking_disabled: bool,
    /// Who asks wants to know whether signatures were checked (only passed on).
    pub(crate) authentic_data: bool,
    /// `None` if there is none, which has an answer too.
    pub(crate) question: Option<Question>,
    /// What the extension says, if it is there.
    pub(crate) extension: Option<Extension>,
}

/// EDNS: what a message says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extension {
    /// How long a message over UDP it takes.
    pub(crate) size: u16,
    pub(crate) version: u8,
    /// It wants signatures along with what is signed.
    pub(crate) dnssec_ok: bool,
}

/// What a datagram, or a piece of a stream, turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded {
    Request(Request),
    /// Something that is told so.
    Refused {
        id: u16,
        operation: u8,
        recursion_desired: bool,
        outcome: Outcome,
    },
    /// Too short for a message, or an answer, to which no one answers.
    Noise,
}

impl Request {
    /// How long an answer over UDP may be that we make.
    pub(crate) fn size_max(&self) -> usize {
        match self.extension {
            Some(extension) => usize::from(extension.size.min(EXTENDED_MAX)).max(PLAIN_MAX),
            None => PLAIN_MAX,
        }
    }

    /// How long an answer over UDP may be that someone else made.
    pub(crate) fn size_taken(&self) -> usize {
        self.extension
            .map_or(PLAIN_MAX, |it| usize::from(it.size).max(PLAIN_MAX))
    }
}

/// Reads what came.
pub(crate) fn decode(bytes: &[u8]) -> Decoded {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Decoded::Noise;
    };
    let [id_high, id_low, flags, _, questions_high, questions_low, ..] = *header;
    if flags & 0x80 != 0 {
        return Decoded::Noise;
    }
    let refused = |outcome| Decoded::Refused {
        id: u16::from_be_bytes([id_high, id_low]),
        operation: flags >> 3 & 0xf,
        recursion_desired: flags & 1 != 0,
        outcome,
    };
    if flags >> 3 & 0xf != 0 {
        return refused(Outcome::NotDone);
    }
    // The library makes room for as many as it is told of.
    if u16::from_be_bytes([questions_high, questions_low]) > QUESTIONS_MAX {
        return refused(Outcome::Unreadable);
    }
    let Ok(received) = Received::from_vec(bytes) else {
        return refused(Outcome::Unreadable);
    };
    debug_assert!(received.metadata.message_type == MessageType::Query);
    debug_assert!(received.metadata.op_code == OpCode::Query);
    let question = match received.queries.first() {
        Some(query) => match name(query.name()) {
            Some(name) => Some(Question {
                name,
                kind: query.query_type().into(),
                class: query.query_class().into(),
            }),
            None => return refused(Outcome::Unreadable),
        },
        None => None,
    };
    Decoded::Request(Request {
        id: received.metadata.id,
        recursion_desired: received.metadata.recursion_desired,
        checking_disabled: received.metadata.checking_disabled,
        authentic_data: received.metadata.authentic_data,
        question,
        extension: received.edns.map(|edns| Extension {
            size: edns.max_payload(),
            version: edns.version(),
            dnssec_ok: edns.flags().dnssec_ok,
        }),
    })
}

fn name(received: &ReceivedName) -> Option<Name> {
    Name::of(received.iter(), None)
}

/// Reads the addresses and aliases among the answers of somebody else; no more than `limit`.
pub(crate) fn decode_answers(bytes: &[u8], limit: usize) -> Vec<Record> {
    let questions = bytes.get(4..6).and_then(|it| it.first_chunk());
    if questions.is_none_or(|it| u16::from_be_bytes(*it) > QUESTIONS_MAX) {
        return Vec::new();
    }
    let Ok(received) = Received::from_vec(bytes) else {
        return Vec::new();
    };
    let records = received.answers.iter().filter_map(|record| {
        let data = match &record.data {
            RData::A(address) => Data::Ipv4(address.0),
            RData::AAAA(address) => Data::Ipv6(address.0),
            RData::CNAME(target) => Data::Alias(name(&target.0)?),
            _ => return None,
        };
        Some(Record {
            name: name(&record.name)?,
            ttl: record.ttl,
            data,
        })
    });
    records.take(limit).collect()
}

/// One thing that is so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    /// Of this name.
    pub(crate) name: Name,
    /// For so many seconds.
    pub(crate) ttl: u32,
    /// What is so.
    pub(crate) data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Data {
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    /// CNAME.
    Alias(Name),
    /// PTR.
    Pointer(Name),
    /// NS.
    NameServer(Name),
    /// SRV; all have the same priority and weight.
    Port {
        port: u16,
        target: Name,
    },
    /// SOA.
    Authority(Arc<Authority>),
}

/// What there is to say about a zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Authority {
    pub(crate) server: Name,
    pub(crate) mailbox: Name,
    pub(crate) serial: u32,
    pub(crate) refresh: u32,
    pub(crate) retry: u32,
    pub(crate) expire: u32,
    pub(crate) minimum: u32,
}

impl Data {
    /// An address.
    pub(crate) fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Ipv4(_) => kind::A,
            Self::Ipv6(_) => kind::AAAA,
            Self::Alias(_) => kind::CNAME,
            Self::Pointer(_) => kind::PTR,
            Self::NameServer(_) => kind::NS,
            Self::Port { .. } => kind::SRV,
            Self::Authority(_) => kind::SOA,
        }
    }

    /// Without compression.
    fn size(&self) -> usize {
        match self {
            Self::Ipv4(_) => 4,
            Self::Ipv6(_) => 16,
            Self::Alias(name) | Self::Pointer(name) | Self::NameServer(name) => name.wire().len(),
            Self::Port { target, .. } => 6 + target.wire().len(),
            Self::Authority(it) => it.server.wire().len() + it.mailbox.wire().len() + 20,
        }
    }
}

impl Record {
    /// Without compression.
    pub(crate) fn size(&self) -> usize {
        self.name.wire().len() + 10 + self.data.size()
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) outcome: Outcome,
    /// Whether it is ours to say.
    pub(crate) is_authoritative: bool,
    /// Whether something was left out that the asker should come for over TCP.
    pub(crate) is_truncated: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

impl Message {
    /// Of nothing but this.
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            is_authoritative: true,
            is_truncated: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }

    /// Leaves out additional records that are there already.
    pub(crate) fn tell_once(&mut self) {
        let mut told = BTreeSet::new();
        let is_new: Vec<bool> = self.additional.iter().map(|it| told.insert(it)).collect();
        let mut is_new = is_new.into_iter();
        self.additional.retain(|_| is_new.next().unwrap_or(false));
    }
}

/// How answers are written on this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether other names are looked up for who asks.
    pub(crate) recursion_available: bool,
    /// Whether names may refer to ones before.
    pub(crate) compression: bool,
}

/// How long the question and, if there is one, the extension are in the answer to a request, with the header.
pub(crate) fn overhead(request: &Request) -> usize {
    let question = request
        .question
        .as_ref()
        .map_or(0, |question| question.name.wire().len() + 4);
    HEADER + question + request.extension.map_or(0, |_| 11)
}

/// Writes an answer that is no longer than `limit`.
///
/// What is too long loses what it tells twice, then all that is additional, then answers from the end, and says so.
pub(crate) fn encode(request: &Request, message: Message, style: Style, limit: usize) -> Vec<u8> {
    let bytes = write(request, &message, style);
    if bytes.len() <= limit {
        return bytes;
    }
    shorten(request, message, style, limit)
}

#[cold]
fn shorten(request: &Request, mut message: Message, style: Style, limit: usize) -> Vec<u8> {
    if message.additional.len() > 1 {
        message.tell_once();
        let bytes = write(request, &message, style);
        if bytes.len() <= limit {
            return bytes;
        }
    }
    message.additional.clear();
    loop {
        let bytes = write(request, &message, style);
        // A question alone fits everywhere.
        if bytes.len() <= limit || (message.answers.is_empty() && message.authority.is_empty()) {
            return bytes;
        }
        message.is_truncated = true;
        if message.answers.is_empty() {
            message.authority.clear();
        }
        // The half each time: some may be left out that would fit, and it ends soon.
        message.answers.truncate(message.answers.len() / 2);
    }
}

fn write(request: &Request, message: &Message, style: Style) -> Vec<u8> {
    let records = message.answers.len() + message.authority.len() + message.additional.len();
    let mut writer = Writer::new(records, style.compression);
    let outcome = message.outcome as u16;
    let flags = 0x8000
        | u16::from(message.is_authoritative) << 10
        | u16::from(message.is_truncated) << 9
        | u16::from(request.recursion_desired) << 8
        | u16::from(style.recursion_available) << 7
        | outcome & 0xf;
    let extension = request.extension;
    writer.u16(request.id);
    writer.u16(flags);
    writer.u16(u16::from(request.question.is_some()));
    writer.count(message.answers.len());
    writer.count(message.authority.len());
    writer.count(message.additional.len() + usize::from(extension.is_some()));
    if let Some(question) = &request.question {
        writer.name(&question.name);
        writer.u16(question.kind);
        writer.u16(question.class);
    }
    let sections = [&message.answers, &message.authority, &message.additional];
    for record in sections.into_iter().flatten() {
        writer.record(record);
    }
    if let Some(extension) = extension {
        writer.extension(EXTENDED_MAX, outcome >> 4, extension.dnssec_ok);
    }
    writer.out
}

/// Writes a refusal of something that could not be read so far as to have a question.
pub(crate) fn encode_refusal(
    id: u16,
    operation: u8,
    recursion_desired: bool,
    outcome: Outcome,
) -> Vec<u8> {
    let mut writer = Writer::new(0, false);
    writer.u16(id);
    let flags = 0x8000 | u16::from(operation & 0xf) << 11 | u16::from(recursion_desired) << 8;
    writer.u16(flags | outcome as u16 & 0xf);
    writer.out.extend_from_slice(&[0; 8]);
    writer.out
}

/// Writes a question to somebody else; the size says how long an answer over UDP is taken, if it is more than everybody sends.
pub(crate) fn encode_question(request: &Request, question: &Question, size: u16) -> Vec<u8> {
    let mut writer = Writer::new(0, false);
    let flags = u16::from(request.recursion_desired) << 8
        | u16::from(request.authentic_data) << 5
        | u16::from(request.checking_disabled) << 4;
    for value in [request.id, flags, 1, 0, 0] {
        writer.u16(value);
    }
    writer.u16(u16::from(request.extension.is_some()));
    writer.name(&question.name);
    writer.u16(question.kind);
    writer.u16(question.class);
    if let Some(extension) = request.extension {
        writer.extension(size, 0, extension.dnssec_ok);
    }
    writer.out
}

/// The bytes so far, and where names lie in them.
struct Writer {
    out: Vec<u8>,
    /// Open addressing by the hash of what is left of a name from some label on: the hash, and where that lies. Empty without compression.
    places: Vec<(u32, u16)>,
    free: usize,
}

impl Writer {
    fn new(records: usize, compression: bool) -> Self {
        let places = if compression && records > 0 {
            // Two or three new ends of names come with a record.
            (records * 4 + 8).next_power_of_two().min(4096)
        } else {
            0
        };
        Self {
            out: Vec::with_capacity((64 + records * 64).min(MESSAGE_MAX)),
            places: vec![(0, 0); places],
            // A quarter stays free, so that every search ends soon.
            free: places / 4 * 3,
        }
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.u16(u16::try_from(count).unwrap_or(u16::MAX));
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name);
        self.u16(record.data.kind());
        self.u16(IN);
        self.u32(record.ttl);
        let length_at = self.out.len();
        self.u16(0);
        match &record.data {
            Data::Ipv4(address) => self.out.extend_from_slice(&address.octets()),
            Data::Ipv6(address) => self.out.extend_from_slice(&address.octets()),
            Data::Alias(name) | Data::Pointer(name) | Data::NameServer(name) => self.name(name),
            Data::Port { port, target } => {
                // Priority and weight.
                self.u16(1);
                self.u16(1);
                self.u16(*port);
                // Not all who read this kind understand a reference here; others may refer to it.
                self.name_written_out(target);
            }
            Data::Authority(it) => {
                self.name(&it.server);
                self.name(&it.mailbox);
                for value in [it.serial, it.refresh, it.retry, it.expire, it.minimum] {
                    self.u32(value);
                }
            }
        }
        let length = self.out.len() - length_at - 2;
        let length = u16::try_from(length).expect("two names and five numbers are the longest");
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn extension(&mut self, size: u16, outcome_high: u16, dnssec_ok: bool) {
        self.out.push(0);
        self.u16(kind::OPT);
        self.u16(size);
        // The upper part of the outcome, and version 0.
        self.u16(outcome_high << 8);
        self.u16(u16::from(dnssec_ok) << 15);
        self.u16(0);
    }

    /// Writes a name, the end of it as a reference where that lies here already.
    fn name(&mut self, name: &Name) {
        self.name_in(name, true);
    }

    fn name_written_out(&mut self, name: &Name) {
        self.name_in(name, false);
    }

    fn name_in(&mut self, name: &Name, may_refer: bool) {
        let wire = name.wire();
        if self.places.is_empty() {
            self.out.extend_from_slice(wire);
            return;
        }
        // Where its labels begin, and the hashes of what is left from there on, from the right.
        let mut starts = [0_u8; 128];
        let mut count = 0;
        let mut at = 0;
        while wire[at] != 0 {
            // A name has at most 255 bytes, and so 127 labels.
            starts[count] = u8::try_from(at).unwrap_or(u8::MAX);
            count += 1;
            at += 1 + usize::from(wire[at]);
        }
        let mut hashes = [0_u32; 128];
        let mut hash = 0x811c_9dc5_u32;
        let mut end = at;
        for (start, slot) in starts[..count].iter().zip(&mut hashes).rev() {
            let start = usize::from(*start);
            for byte in &wire[start..end] {
                hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
            }
            *slot = hash;
            end = start;
        }
        for (start, hash) in starts[..count].iter().zip(hashes) {
            let start = usize::from(*start);
            match self.place(hash, &wire[start..]) {
                Ok(place) if may_refer => {
                    self.u16(0xc000 | place);
                    return;
                }
                Ok(_) => {}
                Err(slot) => {
                    if let Ok(here @ 1..0x4000) = u16::try_from(self.out.len())
                        && self.free > 0
                    {
                        self.free -= 1;
                        self.places[slot] = (hash, here);
                    }
                }
            }
            // Written label by label, since a later one may be compared with it.
            let next = start + 1 + usize::from(wire[start]);
            self.out.extend_from_slice(&wire[start..next]);
        }
        self.out.push(0);
    }

    /// Where this end of a name lies, or else the slot for it.
    fn place(&self, hash: u32, wire: &[u8]) -> Result<u16, usize> {
        let mask = self.places.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.places[slot] {
                (_, 0) => return Err(slot),
                (of, place) if of == hash && self.is_at(place, wire) => return Ok(place),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Whether exactly this end of a name lies there, perhaps by way of references.
    fn is_at(&self, place: u16, wire: &[u8]) -> bool {
        let mut at = usize::from(place);
        let mut rest = wire;
        loop {
            let Some(length) = self.out.get(at).copied() else {
                return false;
            };
            if length & 0xc0 == 0xc0 {
                let Some(low) = self.out.get(at + 1) else {
                    return false;
                };
                // References go back only, so that this ends.
                at = usize::from(length & 0x3f) << 8 | usize::from(*low);
                continue;
            }
            let size = 1 + usize::from(length);
            let (Some(label), Some(given)) = (self.out.get(at..at + size), rest.get(..size)) else {
                return false;
            };
            if label != given {
                return false;
            }
            if length == 0 {
                return true;
            }
            at += size;
            rest = &rest[size..];
        }
    }
}

#[cfg(test)]
mod tests;
