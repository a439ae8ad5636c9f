//! User events as they travel: a name and an envelope that gossip carries and doesn't look into.
//!
//! `docs/events.md` has the form. It stands here because servers write it and all agents read it.

use model::{EVENT_VERSION, EventFilters, Text, UserEvent, parse_uuid};
use wire::msgpack::{Decoder, Encoder};

/// How long name and envelope may be together, in bytes.
pub const SIZE_MAX: usize = 512;

/// What the names of user events begin with in gossip, so that nobody can fire what servers say to each other.
const PREFIX: &str = "consul:event:";

/// The fields of an envelope.
const FIELDS: [&str; 7] = ["id", "n", "p", "nf", "sf", "tf", "v"];

/// Why something is no event, or can't be sent as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// Gossip has a place only for text.
    #[error("user event name is not valid UTF-8")]
    Name,
    /// Nobody sends as much.
    #[error("it has more than {SIZE_MAX} bytes")]
    TooLarge,
    /// The envelope is damaged.
    #[error("{0}")]
    Envelope(#[from] wire::msgpack::DecodeError),
    /// What is in it can't be.
    #[error("it has no {0} that makes sense")]
    Field(&'static str),
    /// It is for later programs.
    #[error("it is of version {0}")]
    Version(u64),
}

/// The name and the envelope for gossip.
///
/// # Errors
/// [`BadEvent::Name`]. Whether it is too long is for gossip to say.
pub fn encode(event: &UserEvent) -> Result<(String, Vec<u8>), BadEvent> {
    let name = std::str::from_utf8(&event.name).map_err(|_| BadEvent::Name)?;
    let EventFilters { node, service, tag } = &event.filters;
    let texts = [(2, &event.payload), (3, node), (4, service), (5, tag)];
    let texts = texts.iter().filter(|(_, text)| !text.is_empty());
    let mut envelope = Vec::new();
    let mut out = Encoder::new(&mut envelope);
    out.map_len(3 + texts.clone().count())
        .raw(FIELDS[0].as_bytes())
        .raw(event.id.to_string().as_bytes())
        .raw(FIELDS[1].as_bytes())
        .raw(&event.name);
    for (field, text) in texts {
        out.raw(FIELDS[*field].as_bytes()).raw(text);
    }
    out.raw(FIELDS[6].as_bytes()).uint(event.version);
    Ok((format!("{PREFIX}{name}"), envelope))
}

/// What gossip carried, if it is a user event at all; its Lamport time is for the caller to fill in.
pub fn decode(name: &str, envelope: &[u8]) -> Option<Result<UserEvent, BadEvent>> {
    let name = name.strip_prefix(PREFIX)?;
    Some(decode_envelope(name, envelope))
}

fn decode_envelope(name: &str, envelope: &[u8]) -> Result<UserEvent, BadEvent> {
    if PREFIX.len() + name.len() + envelope.len() > SIZE_MAX {
        return Err(BadEvent::TooLarge);
    }
    let mut event = UserEvent::default();
    let mut id = None;
    let mut decoder = Decoder::new(envelope);
    decoder.fields(&FIELDS, |decoder, field| {
        match field {
            0 => id = parse_uuid(decoder.raw()?),
            1 => event.name = Text::from(decoder.raw()?),
            2 => event.payload = Text::from(decoder.bytes()?),
            3 => event.filters.node = Text::from(decoder.raw()?),
            4 => event.filters.service = Text::from(decoder.raw()?),
            5 => event.filters.tag = Text::from(decoder.raw()?),
            _ => event.version = decoder.uint()?,
        }
        Ok::<_, BadEvent>(())
    })?;
    decoder.finish()?;
    // First, for whatever else is strange may be what a later version is about.
    if event.version > EVENT_VERSION {
        return Err(BadEvent::Version(event.version));
    }
    event.id = id.ok_or(BadEvent::Field("id"))?;
    if event.name.is_empty() || *event.name != *name.as_bytes() {
        return Err(BadEvent::Field("name"));
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use model::NewEvent;
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, payload: &[u8]) -> UserEvent {
        let id = parse_uuid(b"b54fe110-7af5-cafc-d1fb-afc8ba432b1c").unwrap();
        let event = NewEvent {
            name: name.into(),
            payload: payload.into(),
            filters: EventFilters::default(),
        };
        event.fired(id)
    }

    #[test]
    fn as_much_fits_as_with_the_original() {
        for (name, payload, fits) in [
            ("deploy", 430, true),
            ("deploy", 433, true),
            ("deploy", 434, false),
            ("deploy", 450, false),
            ("x", 443, true),
            ("x", 450, false),
        ] {
            let event = event(name, &vec![b'x'; payload]);
            let (sent, envelope) = encode(&event).unwrap();
            let size = sent.len() + envelope.len();
            assert_eq!(size <= SIZE_MAX, fits, "{name} {payload}: {size}");
            let decoded = decode(&sent, &envelope).unwrap();
            let expected = if fits {
                Ok(event)
            } else {
                Err(BadEvent::TooLarge)
            };
            assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn what_others_say_is_no_event() {
        assert_eq!(decode("consul:new-leader", b"n1"), None);
        assert_eq!(decode("deploy", b""), None);
    }

    #[test]
    fn damage_is_noticed() {
        let (name, envelope) = encode(&event("deploy", b"v2")).unwrap();
        for length in 0..envelope.len() {
            assert!(decode(&name, &envelope[..length]).unwrap().is_err());
        }
        let longer = [&envelope[..], b"\xc0"].concat();
        assert!(decode(&name, &longer).unwrap().is_err());
        let other = decode("consul:event:other", &envelope).unwrap();
        assert_eq!(other, Err(BadEvent::Field("name")));
        let nil = decode("consul:event:", b"\xc0").unwrap();
        assert_eq!(nil, Err(BadEvent::Field("id")));
        let later = UserEvent {
            version: 2,
            ..event("deploy", b"")
        };
        let (name, envelope) = encode(&later).unwrap();
        assert_eq!(decode(&name, &envelope), Some(Err(BadEvent::Version(2))));
        let unreadable = UserEvent {
            name: Text::from(&b"\xff"[..]),
            ..later
        };
        assert_eq!(encode(&unreadable), Err(BadEvent::Name));
    }

    #[test]
    fn fields_of_later_programs_are_passed_over() {
        let (name, mut envelope) = encode(&event("deploy", b"v2")).unwrap();
        envelope[0] += 1;
        envelope.extend_from_slice(b"\xa3new\x91\x01");
        let decoded = decode(&name, &envelope).unwrap().unwrap();
        assert_eq!(decoded, event("deploy", b"v2"));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            name in "[^\\p{Cc}]{1,20}",
            payload: Vec<u8>,
            node: Vec<u8>,
            service: Vec<u8>,
            tag: Vec<u8>,
            id: u128,
        ) {
            let event = NewEvent {
                name: name.into(),
                payload: payload.into(),
                filters: EventFilters {
                    node: node.into(),
                    service: service.into(),
                    tag: tag.into(),
                },
            };
            let event = event.fired(model::Uuid::from_u128(id));
            let (name, envelope) = encode(&event).unwrap();
            if name.len() + envelope.len() <= SIZE_MAX {
                prop_assert_eq!(decode(&name, &envelope), Some(Ok(event)));
            }
        }
    }
}
