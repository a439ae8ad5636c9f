//! Who is alive: membership, failure detection, user events, network coordinates, encryption keys.
//!
//! Members of a pool tell each other in small datagrams who is there, and find out within seconds who is not.
//! What a member says of itself (its tags) and what user events carry is opaque here: this crate knows no catalog,
//! no services and no datacenters, only members with a name, an address and a status.
//!
//! Start reading at [`Gossip`], the handle that callers hold. Behind it one task (`driver.rs`) owns the state of the
//! pool (`pool/`), which is a pure state machine: time is an argument, chance is seeded, and what it wants comes back
//! as a list of things to send and to tell. `foca` is its SWIM core: it decides whom to probe and when, which of two
//! statements about a member is the newer one, and when this member has to renew its identity. Around it, here, is
//! what it doesn't know: names and tags, broadcasts, suspicion by several witnesses, the health of this process
//! itself, good-byes, user events, comparison of all state between two members, reaping, and keys.
//!
//! To add something that is gossiped: a variant of `Item` in `item.rs`, and its arm in `pool/mod.rs`.
//!
//! `docs/gossip.md` tells what lies on the wire, byte by byte.

mod config;
mod connections;
mod driver;
mod event;
mod exchange;
mod fields;
mod figures;
mod handle;
mod identity;
mod item;
mod member;
mod network;
mod packet;
mod pool;
mod sockets;

pub mod coordinate;
pub mod keyring;
pub mod known;
mod replace;
#[cfg(feature = "sim")]
pub mod sim;

pub use config::{
    Admit, Config, LABEL_LENGTH_MAX, NAME_LENGTH_MAX, StartError, TAGS_SIZE_MAX, TagsError, Timing,
};
pub use coordinate::Coordinate;
pub use event::{EVENTS_QUEUED_MAX, Event, EventError, Events, USER_EVENT_SIZE_MAX, UserEvent};
pub use fields::Malformed;
pub use handle::{Gossip, Joined, KeyOperation, KeyReport, Stats};
pub use keyring::Keyring;
pub use member::{Member, Status, Versions};
pub use network::{Arrival, DATAGRAM_SIZE_MAX, EXCHANGE_SIZE_MAX, Network, NetworkFuture, Screen};
pub use packet::{decode_content, decode_packet, decode_stream};
pub use sockets::Sockets;
