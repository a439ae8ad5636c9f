//! Who is connected to a member, and who has to go so that others get their turn.
//!
//! The port of gossip is open to strangers. Places and memory are therefore shared by source: where one of them runs
//! out, the source that holds most of it loses its oldest connection whose request isn't whole yet.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// How many connections are served at a time.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// How many bytes all requests may have together that haven't been answered.
pub(crate) const ROOM: usize = 32 << 20;

/// The connections that are open.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    state: Mutex<State>,
    /// One has ended.
    pub(crate) ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    opened: u64,
    open: BTreeMap<u64, Connection>,
    taken: usize,
}

#[derive(Debug)]
struct Connection {
    source: IpAddr,
    /// `None` until its task runs.
    task: Option<AbortHandle>,
    taken: usize,
    is_whole: bool,
}

/// A place among the connections, given back when it goes.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    connections: Arc<Connections>,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; another may have to go for it. `None` while all are being answered.
    pub(crate) fn place(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut state = self.state();
        if state.open.len() >= CONNECTIONS_MAX {
            let victim = state.unfinished_of_the_greediest(|_| 1)?;
            state.end(victim);
        }
        state.opened += 1;
        let id = state.opened;
        let connection = Connection {
            source: source.to_canonical(),
            task: None,
            taken: 0,
            is_whole: false,
        };
        state.open.insert(id, connection);
        drop(state);
        Some(Place {
            id,
            connections: Arc::clone(self),
        })
    }

    /// This task serves the connection, and is aborted if that has to go.
    pub(crate) fn served_by(&self, id: u64, task: AbortHandle) {
        match self.state().open.get_mut(&id) {
            Some(connection) => connection.task = Some(task),
            None => task.abort(),
        }
    }
}

impl State {
    /// The oldest connection whose request isn't whole, of the source that has most of something.
    fn unfinished_of_the_greediest(&self, has: impl Fn(&Connection) -> usize) -> Option<u64> {
        let mut sources: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (id, connection) in self.open.iter().filter(|(_, open)| !open.is_whole) {
            let (sum, _) = sources.entry(connection.source).or_insert((0, *id));
            *sum += has(connection);
        }
        let greediest = sources.into_values().max_by_key(|(sum, _)| *sum);
        greediest.filter(|(sum, _)| *sum > 0).map(|(_, id)| id)
    }

    fn end(&mut self, id: u64) {
        if let Some(connection) = self.open.remove(&id) {
            self.taken -= connection.taken;
            if let Some(task) = connection.task {
                task.abort();
            }
        }
    }
}

impl Place {
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Takes room for so much more of the request.
    pub(crate) fn take(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.connections.state();
        let state = &mut *state;
        let displaced = || io::Error::other("others needed its place");
        let connection = state.open.get_mut(&self.id).ok_or_else(displaced)?;
        connection.taken += bytes;
        state.taken += bytes;
        while state.taken > ROOM {
            let victim = state.unfinished_of_the_greediest(|open| open.taken);
            let victim = victim.ok_or_else(displaced)?;
            if victim == self.id {
                // Its task is this one, which ends by itself.
                if let Some(connection) = state.open.remove(&self.id) {
                    state.taken -= connection.taken;
                }
                return Err(displaced());
            }
            state.end(victim);
        }
        Ok(())
    }

    /// The request is whole; from now on it keeps its place until it is answered.
    pub(crate) fn whole(&self) {
        if let Some(connection) = self.connections.state().open.get_mut(&self.id) {
            connection.is_whole = true;
        }
    }

    /// The request was answered, and takes no room any more.
    pub(crate) fn answered(&self) {
        let mut state = self.connections.state();
        if let Some(connection) = state.open.get_mut(&self.id) {
            let taken = std::mem::take(&mut connection.taken);
            state.taken -= taken;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.state().end(self.id);
        self.connections.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_greediest_gives_way() {
        let connections = Arc::new(Connections::default());
        let modest = connections.place(source(1)).unwrap();
        let greedy: Vec<_> = (1..CONNECTIONS_MAX)
            .map(|_| connections.place(source(2)).unwrap())
            .collect();
        let newcomer = connections.place(source(3)).unwrap();
        assert!(modest.take(1).is_ok() && newcomer.take(1).is_ok());
        assert!(greedy[0].take(1).is_err(), "the oldest of it");
        assert!(greedy[1].take(1).is_ok());
        // One that was answered in full stays; where all are, the next one waits.
        for place in &greedy {
            place.whole();
        }
        modest.whole();
        newcomer.whole();
        assert!(connections.place(source(4)).is_none());
        drop(modest);
        assert!(connections.place(source(4)).is_some());
    }

    #[test]
    fn room_is_shared_by_source() {
        let connections = Arc::new(Connections::default());
        let modest = connections.place(source(1)).unwrap();
        modest.take(1000).unwrap();
        let greedy: Vec<_> = (0..3)
            .map(|_| connections.place(source(2)).unwrap())
            .collect();
        for place in &greedy {
            place.take(15 << 20).unwrap();
        }
        assert!(greedy[0].take(1).is_err());
        assert!(modest.take(1000).is_ok());
        // What is whole is held until it is answered, and then room for others.
        greedy[1].whole();
        greedy[2].whole();
        assert!(modest.take(3 << 20).is_err());
        greedy[1].answered();
        let other = connections.place(source(1)).unwrap();
        assert!(other.take(3 << 20).is_ok());
        drop(greedy);
        drop(other);
        drop(modest);
        assert_eq!(connections.state().taken, 0);
    }
}
