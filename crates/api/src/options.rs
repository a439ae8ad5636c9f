//! The parameters that all endpoints share: datacenter, token, freshness, waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{GoDuration, Text};
use rpc::{Consistency, ReadOptions, WriteOptions};

use crate::call::Call;
use crate::error::bad_request;
use crate::http::Response;

impl Call<'_> {
    /// What goes with a question, waiting included.
    ///
    /// Checked in the original's order: freshness, wait, index.
    pub(crate) fn read_options(&self) -> Result<ReadOptions, Response> {
        let consistency = self.consistency()?;
        let (index, wait) = self.wait()?;
        Ok(ReadOptions {
            token: self.token(),
            datacenter: self.datacenter(),
            consistency,
            index,
            wait,
        })
    }

    /// What goes with a command.
    pub(crate) fn write_options(&self) -> WriteOptions {
        WriteOptions {
            token: self.token(),
            datacenter: self.datacenter(),
        }
    }

    /// The datacenter that was asked for; empty for this agent's.
    pub(crate) fn datacenter(&self) -> Text {
        self.text_or("dc", || self.api.empty.clone())
    }

    /// The token: the parameter, else the header, else the agent's own.
    pub(crate) fn token(&self) -> Text {
        self.token_or(|| self.api.config.acl_token.clone())
    }

    /// The token that the request brings along; empty if it brings none.
    ///
    /// For what is kept: the agent's own may be another one by the time it is used.
    pub(crate) fn token_brought(&self) -> Text {
        self.token_or(|| self.api.empty.clone())
    }

    fn token_or(&self, other: impl FnOnce() -> Text) -> Text {
        self.text_or("token", || match self.request.header("X-Consul-Token") {
            Some(token) if !token.is_empty() => Text::from(token),
            _ => other(),
        })
    }

    fn text_or(&self, name: &str, other: impl FnOnce() -> Text) -> Text {
        self.query.filled(name).map_or_else(other, Text::from)
    }

    fn consistency(&self) -> Result<Consistency, Response> {
        match (self.query.has("stale"), self.query.has("consistent")) {
            (false, false) => Ok(Consistency::Default),
            (true, false) => Ok(Consistency::Stale),
            (false, true) => Ok(Consistency::Consistent),
            (true, true) => Err(bad_request(
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            )),
        }
    }

    /// The index that the request waits from, 0 for none, and how long it says that it waits.
    pub(crate) fn index_and_wait(&self) -> Result<(u64, Option<Duration>), Response> {
        let wait = match self.query.filled("wait") {
            Some(text) => match std::str::from_utf8(text)
                .ok()
                .and_then(|text| GoDuration::parse(text).ok())
            {
                Some(wait) => wait.to_std(),
                None => return Err(bad_request("Invalid wait time")),
            },
            None => Duration::ZERO,
        };
        let index = match self.query.filled("index") {
            Some(text) => match parse_u64(text) {
                Some(index) => index,
                None => return Err(bad_request("Invalid index")),
            },
            None => 0,
        };
        Ok((index, Some(wait).filter(|wait| !wait.is_zero())))
    }

    /// The index to wait from, 0 for none, and how long to wait.
    fn wait(&self) -> Result<(u64, Duration), Response> {
        let (index, wait) = self.index_and_wait()?;
        if index == 0 {
            return Ok((0, Duration::ZERO));
        }
        let config = &self.api.config;
        let wait = match wait {
            Some(wait) => wait.min(config.wait_max),
            None => config.wait_default,
        };
        Ok((index, wait + self.api.chance.below(wait / 16)))
    }
}

/// Decimal digits and nothing else.
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Chance good enough to spread waits, from a seed, shared by all threads.
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

impl Chance {
    /// Begins at the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Any number.
    pub(crate) fn draw(&self) -> u64 {
        // SplitMix64: one addition is all the state there is.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A span from zero up to this one.
    fn below(&self, span: Duration) -> Duration {
        let mixed = self.draw();
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(mixed.checked_rem(nanos).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, expected) in [
            (&b"0"[..], Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"-1", None),
            (b"+1", None),
            (b"1x", None),
        ] {
            assert_eq!(parse_u64(text), expected);
        }
    }

    #[test]
    fn chance_is_bounded_and_repeats() {
        let (one, other) = (Chance::new(7), Chance::new(7));
        let span = Duration::from_secs(1);
        let drawn: Vec<_> = (0..1_000).map(|_| one.below(span)).collect();
        assert!(drawn.iter().all(|wait| *wait < span));
        assert!(drawn.iter().any(|wait| *wait > span / 2));
        assert!(drawn.iter().all(|wait| *wait == other.below(span)));
        assert_eq!(one.below(Duration::ZERO), Duration::ZERO);
    }
}
