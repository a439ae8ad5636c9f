//! Who has how much of what all connections share.
//!
//! What is bounded for all must not be had by one: a peer that goes wrong would keep every other member out.
//! So no source address may have more than a part of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::Room;

/// A source may have one of so many parts of the connections, and of the bytes of requests that are being answered.
const SHARES: usize = 4;

/// And of the bytes of requests that are not whole; larger, because a leader's messages of the log are long.
const UNFINISHED_SHARES: usize = 2;

/// The sources of all connections of a listener.
#[derive(Debug)]
pub(crate) struct Sources {
    connections_max: usize,
    rooms: Rooms,
    by_address: Mutex<BTreeMap<IpAddr, Source>>,
}

/// Bytes that requests may take.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    /// Those that are not whole.
    pub(crate) unfinished: Arc<Room>,
    /// Those that are being answered.
    pub(crate) running: Arc<Room>,
}

#[derive(Debug)]
struct Source {
    connections: usize,
    rooms: Rooms,
    /// Whether somebody was told that it has all it may have.
    is_told: bool,
}

/// A connection too many from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: usize,
    /// Whether nobody was told since it had room.
    pub(crate) is_new: bool,
}

/// The place of a connection among those of its source.
#[derive(Debug)]
pub(crate) struct Seat {
    sources: Arc<Sources>,
    address: IpAddr,
    /// What all connections of this source share.
    pub(crate) rooms: Rooms,
}

impl Sources {
    /// Of a listener that has so much for all.
    pub(crate) fn new(connections_max: usize, rooms: Rooms) -> Arc<Self> {
        Arc::new(Self {
            connections_max: (connections_max / SHARES).max(1),
            rooms,
            by_address: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Source>> {
        (self.by_address.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection from this address.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        // One that listens on IPv6 sees IPv4 in the other's clothes.
        let address = address.to_canonical();
        let mut by_address = self.lock();
        let source = by_address.entry(address).or_insert_with(|| Source {
            connections: 0,
            rooms: Rooms {
                unfinished: Room::share(&self.rooms.unfinished, UNFINISHED_SHARES),
                running: Room::share(&self.rooms.running, SHARES),
            },
            is_told: false,
        });
        if source.connections >= self.connections_max {
            return Err(Full {
                limit: self.connections_max,
                is_new: !std::mem::replace(&mut source.is_told, true),
            });
        }
        source.connections += 1;
        Ok(Seat {
            sources: Arc::clone(self),
            address,
            rooms: source.rooms.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by_address = self.sources.lock();
        if let Some(source) = by_address.get_mut(&self.address) {
            source.connections -= 1;
            // Half of its places have to be free before it is worth another line.
            if source.connections <= self.sources.connections_max / 2 {
                source.is_told = false;
            }
            if source.connections == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rooms(max: usize) -> Rooms {
        Rooms {
            unfinished: Room::new(max),
            running: Room::new(max),
        }
    }

    #[test]
    fn a_source_has_its_part_and_what_it_gives_back_it_may_have_again() {
        let sources = Sources::new(16, rooms(400));
        let one = || sources.seat(address("10.0.0.1"));
        let mut seats: Vec<_> = (0..4).map(|_| one().unwrap()).collect();
        let full = |is_new| Full { limit: 4, is_new };
        assert_eq!(one().unwrap_err(), full(true));
        assert_eq!(one().unwrap_err(), full(false));
        // The same machine, as a socket of both families shows it.
        assert!(sources.seat(address("::ffff:10.0.0.1")).is_err());
        let other = sources.seat(address("10.0.0.2")).unwrap();
        seats.truncate(2);
        seats.extend((0..2).map(|_| one().unwrap()));
        assert_eq!(one().unwrap_err(), full(true));
        drop((seats, other));
        assert!(sources.lock().is_empty());
    }

    #[test]
    fn the_connections_of_a_source_share_its_bytes_and_all_sources_the_whole() {
        let whole = rooms(400);
        let sources = Sources::new(100, whole.clone());
        let seats: Vec<_> = ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
            .map(|text| sources.seat(address(text)).unwrap())
            .into();
        let took = |seat: usize, size| seats[seat].rooms.running.take(size);
        assert!(took(0, 90) && !took(1, 11) && took(1, 10));
        assert!(took(2, 100) && took(3, 100));
        assert!(whole.running.take(50));
        assert!(!took(4, 51) && took(4, 50));
        seats[0].rooms.running.give_back(100);
        assert_eq!(whole.running.taken(), 300);
        let unfinished = &seats[0].rooms.unfinished;
        assert!(unfinished.take(200) && !unfinished.take(1));
        assert_eq!(whole.unfinished.taken(), 200);
    }

    #[test]
    fn even_the_smallest_listener_lets_one_in() {
        assert!(Sources::new(1, rooms(0)).seat(address("::1")).is_ok());
    }
}
