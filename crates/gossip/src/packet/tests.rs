use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use foca::Message;
use rand::SeedableRng;

use super::*;
use crate::coordinate::Coordinate;
use crate::event::UserEvent;
use crate::exchange::{
    Clocks, Compare, Compared, EventKey, Given, KeyAnswer, Known, Standing, Summary, Version,
};
use crate::handle::KeyOperation;
use crate::identity::Id;
use crate::item::{Alive, Down, Leave, Record, Suspect};
use crate::member::Versions;

/// The identity of a member of this name.
fn identity(name: &str) -> Identity {
    Identity {
        id: Id::of(name),
        generation: 2,
        address: SocketAddr::from(([10, 0, 0, 1], 8301)),
    }
}

fn alive(name: &str) -> Alive {
    let record = Record {
        revision: 3,
        time: 4,
        leaving: false,
        name: String::from(name),
        tags: BTreeMap::from([(String::from("dc"), String::from("dc1"))]),
        protocol: Versions {
            min: 1,
            max: 5,
            current: 2,
        },
        delegate: Versions {
            min: 2,
            max: 4,
            current: 4,
        },
    };
    Alive {
        identity: identity(name),
        incarnation: 7,
        record: Arc::new(record),
    }
}

fn event() -> UserEvent {
    UserEvent {
        ltime: 9,
        name: String::from("deploy"),
        payload: Bytes::from_static(b"\x00\xff"),
        coalesce: true,
    }
}

fn items() -> Vec<Item> {
    let six = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 8301));
    vec![
        Item::Alive(alive("web1")),
        Item::Suspect(Suspect {
            identity: Identity {
                address: six,
                ..identity("web2")
            },
            incarnation: 1,
            from: Id(5),
        }),
        Item::Down(Down {
            identity: identity("web2"),
            incarnation: 1,
            left: true,
        }),
        Item::Leave(Leave {
            id: Id(6),
            generation: 1,
            revision: 2,
            time: 3,
        }),
        Item::User(event()),
        Item::Nack {
            number: 4,
            target: Id(5),
        },
        Item::Who,
        Item::Coordinate(Coordinate::default()),
    ]
}

fn headers() -> Vec<Header<Identity>> {
    let other = identity("db1");
    let probe_number = 250;
    let messages = [
        Message::Ping(1),
        Message::Ack(2),
        Message::PingReq {
            target: other,
            probe_number,
        },
        Message::IndirectPing {
            origin: other,
            probe_number,
        },
        Message::IndirectAck {
            target: other,
            probe_number,
        },
        Message::ForwardedAck {
            origin: other,
            probe_number,
        },
        Message::Announce,
        Message::Feed,
        Message::Gossip,
        Message::Broadcast,
        Message::TurnUndead,
    ];
    messages
        .into_iter()
        .map(|message| Header {
            src: identity("web1"),
            src_incarnation: 3,
            dst: identity("web2"),
            message,
        })
        .collect()
}

fn given() -> Given {
    Given {
        members: vec![Known {
            alive: alive("web3"),
            record_generation: 1,
            standing: Standing::Down,
            is_forced: true,
            age: 60,
        }],
        events: vec![event()],
    }
}

fn requests() -> Vec<Request> {
    let version = Version::new(2, 7, Standing::Suspect, (2, 3, false));
    vec![
        Request::Ping,
        Request::Compare(Box::new(Compare {
            is_join: true,
            own: alive("web1"),
            clocks: Clocks {
                member: 1,
                event: 2,
                query: 3,
            },
            members: vec![Summary { id: Id(1), version }],
            events: vec![EventKey { ltime: 1, hash: 2 }],
        })),
        Request::Give(given()),
        Request::Keys(KeyOperation::List),
        Request::Keys(KeyOperation::Install(String::from("key"))),
        Request::Keys(KeyOperation::Use(String::from("key"))),
        Request::Keys(KeyOperation::Remove(String::from("key"))),
    ]
}

fn answers() -> Vec<Answer> {
    vec![
        Answer::Pong(identity("web1")),
        Answer::Compared(Box::new(Compared {
            own: alive("web1"),
            clocks: Clocks::default(),
            wanted: vec![Id(4)],
            wanted_events: vec![EventKey { ltime: 1, hash: 2 }],
            given: given(),
        })),
        Answer::Taken,
        Answer::Keys(KeyAnswer {
            error: String::from("no"),
            keys: vec![String::from("key")],
        }),
        Answer::Refused(String::from("no")),
    ]
}

fn packet() -> Vec<u8> {
    let mut content = Vec::new();
    for header in headers() {
        put_core(&identity::encode_header(&header), &mut content);
    }
    for item in items() {
        content.put(&item.encode());
    }
    content
}

#[test]
fn what_is_written_is_read() {
    for item in items() {
        let bytes = item.encode();
        let content = &bytes[3..];
        assert_eq!(Item::decode(bytes[0], content), Ok(Some(item)));
        for cut in 0..content.len() {
            assert!(Item::decode(bytes[0], &content[..cut]).is_err());
        }
    }
    for header in headers() {
        let bytes = identity::encode_header(&header);
        assert_eq!(
            identity::decode_header(&mut Reader::new(&bytes)),
            Ok(header)
        );
    }
    for request in requests() {
        let bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Ok(request));
        for cut in 0..bytes.len() {
            assert!(Request::decode(&bytes[..cut]).is_err());
        }
    }
    for answer in answers() {
        let bytes = answer.encode();
        assert_eq!(Answer::decode(&bytes), Ok(answer));
        for cut in 0..bytes.len() {
            assert!(Answer::decode(&bytes[..cut]).is_err());
        }
    }
}

#[test]
fn later_kinds_are_skipped_and_false_names_are_not_believed() {
    assert_eq!(Item::decode(200, b"whatever"), Ok(None));
    let mut other = alive("web1");
    other.identity.id = Id::of("web2");
    let bytes = Item::Alive(other).encode();
    assert_eq!(Item::decode(bytes[0], &bytes[3..]), Err(Malformed::Value));
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let key = Keyring::in_memory(vec![vec![1; 16]]).unwrap();
    for keyring in [None, Some(key)] {
        let envelope = Envelope::new(String::from("lan:dc1"), keyring);
        let bytes = envelope.wrap(&packet(), &mut chance);
        assert_eq!(envelope.unwrap(&bytes).unwrap(), packet());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                assert!(envelope.unwrap(&Bytes::from(flipped)).is_err());
            }
            assert!(envelope.unwrap(&bytes.slice(..at)).is_err());
        }
    }
}

#[test]
fn a_full_packet_fits_into_a_datagram() {
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let key = Keyring::in_memory(vec![vec![1; 16]]).unwrap();
    for keyring in [None, Some(key)] {
        for label in [String::new(), "l".repeat(255)] {
            let envelope = Envelope::new(label, keyring.clone());
            let content = vec![0; envelope.room()];
            let bytes = envelope.wrap(&content, &mut chance);
            assert_eq!(bytes.len(), DATAGRAM_SIZE_MAX);
        }
    }
    // The longest name, all tags and an IPv6 address fit into the smallest room, along with a core message.
    let mut longest = alive(&"n".repeat(255));
    longest.identity.address = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 8301));
    let record = Arc::make_mut(&mut longest.record);
    record.tags = BTreeMap::from([(String::from("k"), "v".repeat(507))]);
    let key = Keyring::in_memory(vec![vec![1; 16]]).unwrap();
    let envelope = Envelope::new("l".repeat(255), Some(key));
    assert!(Item::Alive(longest).encode().len() + 100 < envelope.room());
}

/// The bytes of the blocks of hex in `docs/gossip.md`, without the remarks.
fn examples() -> Vec<Vec<u8>> {
    let page = include_str!("../../../../docs/gossip.md");
    let blocks = page
        .split("```hex\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let lines = block.lines().map(|line| line.split('#').next().unwrap());
            let digits: Vec<_> = lines
                .flat_map(str::chars)
                .filter_map(|digit| digit.to_digit(16))
                .collect();
            digits
                .chunks(2)
                .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
                .collect()
        })
        .collect()
}

#[test]
fn the_page_about_it_is_right() {
    let [datagram, request] = &examples()[..] else {
        panic!("not two examples");
    };
    let ping = Header {
        src: identity("web1"),
        src_incarnation: 3,
        dst: identity("web2"),
        message: Message::Ping(1),
    };
    let mut content = Vec::new();
    put_core(&identity::encode_header(&ping), &mut content);
    content.put(&Item::Alive(alive("web1")).encode());
    let envelope = Envelope::new(String::from("lan:dc1"), None);
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let bytes = envelope.wrap(&content, &mut chance);
    assert_eq!(hex(datagram), hex(&bytes));
    assert_eq!(decode_packet("lan:dc1", datagram), Ok(2));
    assert_eq!(decode_packet("wan", datagram), Err(Malformed::Label));

    let [_, compare, ..] = &requests()[..] else {
        panic!("no comparison");
    };
    assert_eq!(hex(request), hex(&compare.encode()));
    assert_eq!(decode_stream(request), Ok(()));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The seeds of the fuzz targets are read as what they are.
#[test]
fn seeds_of_the_fuzzers_are_ours() {
    let packet = include_bytes!("../../../../fuzz/corpus/gossip_packet/all-sections");
    assert_eq!(hex(packet), hex(&self::packet()));
    let compare = include_bytes!("../../../../fuzz/corpus/gossip_stream/compare");
    assert_eq!(hex(compare), hex(&requests()[1].encode()));
    let compared = include_bytes!("../../../../fuzz/corpus/gossip_stream/compared");
    assert_eq!(hex(compared), hex(&answers()[1].encode()));
}

#[test]
fn names_that_would_write_to_a_terminal_are_refused() {
    let bytes = Item::Alive(alive("web\u{1b}[2J")).encode();
    assert_eq!(Item::decode(bytes[0], &bytes[3..]), Err(Malformed::Value));
    let named = UserEvent {
        name: String::from("deploy\r"),
        ..event()
    };
    let bytes = Item::User(named).encode();
    assert_eq!(Item::decode(bytes[0], &bytes[3..]), Err(Malformed::Value));
}

#[test]
fn lists_that_are_never_so_long_are_refused() {
    let keys = |count| {
        Answer::Keys(KeyAnswer {
            error: String::new(),
            keys: vec![String::new(); count],
        })
        .encode()
    };
    assert!(Answer::decode(&keys(64)).is_ok());
    assert_eq!(Answer::decode(&keys(65)), Err(Malformed::Value));
    let compare = |count| {
        let events = vec![EventKey { ltime: 1, hash: 2 }; count];
        Request::Compare(Box::new(Compare {
            is_join: true,
            own: alive("web1"),
            clocks: Clocks::default(),
            members: Vec::new(),
            events,
        }))
        .encode()
    };
    assert!(Request::decode(&compare(512)).is_ok());
    assert_eq!(Request::decode(&compare(513)), Err(Malformed::Value));
}
