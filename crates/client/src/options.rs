//! How a call is made, and what comes back beside its value.

use std::fmt;
use std::time::Duration;

/// How a read is made.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// The datacenter to ask; the agent's own when empty.
    pub datacenter: String,
    /// The token to use instead of the client's, when not empty.
    pub token: String,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// Whether to wait for a change.
    pub wait: Option<Wait>,
}

impl fmt::Debug for QueryOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryOptions")
            .field("datacenter", &self.datacenter)
            .field("consistency", &self.consistency)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// From the leader, which is right except in the instant after it was deposed.
    #[default]
    Leader,
    /// From any server, however old its state.
    Stale,
    /// From a leader that has made sure that it still is one.
    Consistent,
}

/// A wait for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Answer when the index is beyond this one.
    pub index: u64,
    /// Answer after this time in any case; the server caps it at 10 minutes.
    pub time: Duration,
}

/// How a write is made.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The datacenter to write to; the agent's own when empty.
    pub datacenter: String,
    /// The token to use instead of the client's, when not empty.
    pub token: String,
}

impl fmt::Debug for WriteOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteOptions")
            .field("datacenter", &self.datacenter)
            .finish_non_exhaustive()
    }
}

/// A value, and what the agent said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The value.
    pub value: T,
    /// What the headers said.
    pub meta: Meta,
}

/// What the headers of an answer say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// The index to wait from.
    pub index: u64,
    /// Whether the server that answered knew a leader.
    pub known_leader: bool,
    /// How long ago that server had heard from its leader.
    pub last_contact: Duration,
}

impl<T> Answer<T> {
    /// The same about something else.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: change(self.value),
            meta: self.meta,
        }
    }
}

impl QueryOptions {
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = datacenter(&self.datacenter);
        match self.consistency {
            Consistency::Leader => {}
            Consistency::Stale => parameters.push(("stale", String::new())),
            Consistency::Consistent => parameters.push(("consistent", String::new())),
        }
        if let Some(wait) = self.wait {
            parameters.push(("index", wait.index.to_string()));
            parameters.push(("wait", format!("{}ms", wait.time.as_millis())));
        }
        parameters
    }
}

impl WriteOptions {
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        datacenter(&self.datacenter)
    }
}

fn datacenter(name: &str) -> Vec<(&'static str, String)> {
    if name.is_empty() {
        Vec::new()
    } else {
        vec![("dc", name.to_owned())]
    }
}

impl Meta {
    pub(crate) fn of(headers: &reqwest::header::HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name| text(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            index: number("x-consul-index"),
            known_leader: text("x-consul-knownleader") == Some("true"),
            last_contact: Duration::from_millis(number("x-consul-lastcontact")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, Config, Lock, LockOptions, Semaphore, SemaphoreOptions};

    #[test]
    fn tokens_are_not_shown() {
        let token = || "s3cret".to_owned();
        let config = Config {
            token: token(),
            ..Config::default()
        };
        let client = Client::new(config).unwrap();
        let mut lock = LockOptions::new("key");
        lock.token = token();
        let mut semaphore = SemaphoreOptions::new("prefix", 2);
        semaphore.token = token();
        let read = QueryOptions {
            token: token(),
            ..QueryOptions::default()
        };
        let write = WriteOptions {
            token: token(),
            ..WriteOptions::default()
        };
        for shown in [
            format!("{:?}", Lock::new(&client, lock)),
            format!("{:?}", Semaphore::new(&client, semaphore)),
            format!("{read:?} {write:?}"),
        ] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
